-- How long an operator waits before anything happens.

local EMPTY = [[
local rb = require "runbook"
rb.step("nothing", "Do nothing", function() end)
]]

return function(bench)
  local world = bench.world
  local version = bench.command(40, { world.runbook, "--version" })
  local lua = bench.command(40, { "lua5.4", "-v" })
  version.name, lua.name = "runbook --version", "lua5.4 -v"
  version.goals = {
    bench.goal("at most 5 ms", version.best * 1000, 5, { format = "%.1f ms" }),
    bench.goal("at most 12 MB", version.rss, 12, { format = "%.1f MB" }),
  }
  local ansible = {}
  if bench.has "ansible" then
    ansible[1] = bench.command(3, { "ansible", "--version" })
    ansible[1].name = "ansible --version"
  end
  bench.beside(version, { lua, ansible[1] })

  local folder = world.folder "startup"
  world.write(folder .. "/empty.lua", EMPTY)
  local empty = bench.command(20, { world.runbook, "run", folder .. "/empty.lua", "--state", folder .. "/state" })
  empty.name = "an empty runbook, with its journal"
  empty.goals = {
    bench.goal("at most 20 ms", empty.best * 1000, 20, { format = "%.1f ms" }),
    bench.goal("at most 12 MB", empty.rss, 12, { format = "%.1f MB" }),
  }
  bench.beside(empty, ansible)
end
