--- This machine as a place.

local place = require "runbook.place"
local process = require "runbook.core.process"
local shell = require "runbook.shell"

local backend = {}

-- Messages of programs are read by us, so they are asked for in one language.
local env = { LC_ALL = "C" }

-- A program that is missing is said by the status, as a shell does: then it looks the same everywhere.
local by_shell = { "sh", "-c", 'exec "$@"', "sh" }

function backend:open(argv) -- luacheck: no self
  local child, message, code = process.open { argv = argv, env = env }
  if code == "ENOENT" or code == "EACCES" then
    return process.open { argv = table.move(argv, 1, #argv, #by_shell + 1, { table.unpack(by_shell) }), env = env }
  end
  return child, message, code
end

function backend:by_hand(argv) -- luacheck: no self
  return shell.join(argv)
end

function backend:reference() -- luacheck: no self
  return { kind = "here" }
end

local here = place.new(backend, { name = "here" })

place.register("here", function(reference)
  if reference.sudo then
    return here:with { sudo = reference.sudo }
  end
  return here
end)

require "runbook.job" -- so that every process that knows a place can clean up after its jobs

return here
