--- Run a command on many hosts; what several of them say is shown once.
---
---     runbook run on-all-hosts.lua -p hosts=web-1,web-2,web-3 -p command="apt-get -y upgrade"
---
--- Hosts are names that ssh knows. Those that fail are named at the end, the others are done; `runbook resume` does only what is
--- not done yet.

local rb = require "runbook"
local human = require "runbook.human"
local ssh = require "runbook.ssh"

local p = rb.params {
  { "hosts",   "list",    "names, as ssh knows them" },
  { "command", "string",  "a line for the shell there" },
  { "at_once", "integer", "how many hosts at a time", default = 50 },
}

rb.main(function()
  local said = {}
  local _, failed = rb.try(rb.each, p.hosts, { limit = p.at_once }, function(name)
    local lines = {}
    said[name] = lines
    ssh.host { name }:run { "sh", "-c", p.command, on_line = function(line) lines[#lines + 1] = line end }
  end)

  local groups, order = {}, {}
  for _, name in ipairs(p.hosts) do
    local text = table.concat(said[name] or {}, "\n")
    if not groups[text] then
      groups[text] = {}
      order[#order + 1] = text
    end
    table.insert(groups[text], name)
  end
  for _, text in ipairs(order) do
    rb.say(("%s\n%s"):format(human.fold(groups[text]), text))
  end
  if failed then
    error(failed, 0)
  end
end)
