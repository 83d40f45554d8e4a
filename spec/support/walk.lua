--- Two real ssh servers, a runbook that uses every kind of change between them, and the oracle that says what they look like.

local world = require "spec.world"

local walk = {}

---@class walk.Pair
---@field old world.Machine
---@field new world.Machine
---@field config string  an ssh_config that knows them as "old" and "new"
local Pair = {}
Pair.__index = Pair

walk.people = { "ann", "bob", "cyd", "dan" }

--- Two machines as they are before every run.
---@async
---@param name string?
---@return walk.Pair
function walk.pair(name)
  name = name or ""
  local pair = setmetatable({
    old = world.sshd { name = "old" .. name }, new = world.sshd { name = "new" .. name },
  }, Pair)
  pair.config = world.ssh_config { pair.old, pair.new }
  pair.first = { pair.old:must "cat /root/.ssh/authorized_keys", pair.new:must "cat /root/.ssh/authorized_keys" }
  pair:reset()
  return pair
end

--- As they were at first: files, keys, no process of ours.
---@async
function Pair:reset()
  for i, machine in ipairs { self.old, self.new } do
    for _, process in ipairs(machine:processes()) do
      machine:sh(("kill -9 %d 2>/dev/null"):format(process.pid))
    end
    machine:must "find /srv /tmp /var/tmp /opt /home/rb-* -mindepth 1 -not -path '*/.ssh*' -delete; rm -rf /root/.local"
    machine:write("/root/.ssh/authorized_keys", self.first[i] .. "\n")
  end
  self.old:must "mkdir /srv/data"
  for n, person in ipairs(walk.people) do
    self.old:write("/srv/data/" .. person, (person .. "\n"):rep(n))
  end
  self.new:write("/srv/motd", "nothing here yet\n")
end

-- The words of a line of tree.py that a second run need not repeat: times, and holes of what was just written.
local function without_times(line)
  return (line:gsub("^(.- %l+ %d%d%d%d %d+:%d+) %d+", "%1"))
end

--- Everything on a machine's disks, a line per name.
---@param machine world.Machine
---@param o { times?: boolean, left_out?: string[] }?
---@return string
function walk.disk(machine, o)
  o = o or {}
  local tree = world.tree(machine.folder .. "/disk", o.left_out)
  if o.times then
    return tree
  end
  local lines = {}
  for line in tree:gmatch "[^\n]+" do
    lines[#lines + 1] = without_times(line)
  end
  return table.concat(lines, "\n")
end

--- What runs on a machine besides its sshd, sorted; ssh sessions and their shells need a moment to end.
---@async
---@param machine world.Machine
---@return string
function walk.processes(machine)
  local commands = {}
  for i, process in ipairs(machine:processes()) do
    commands[i] = process.command
  end
  table.sort(commands)
  return table.concat(commands, "\n")
end

--- Both machines: what is on their disks, and, once nobody is connected any more, what runs.
---@async
---@param o { times?: boolean }?
---@return string
function Pair:state(o)
  local parts = {}
  for _, machine in ipairs { self.old, self.new } do
    for _ = 1, 300 do
      if walk.processes(machine) == "" then
        break
      end
      require("runbook.core.task").sleep(0.01)
    end
    table.insert(parts, ("== %s"):format(machine.name:match "^%l+"))
    table.insert(parts, walk.disk(machine, o))
    table.insert(parts, "-- processes: " .. walk.processes(machine))
  end
  return table.concat(parts, "\n")
end

--- Lines of one text that the other does not have, both ways; "" when they are the same.
---@param before string
---@param after string
---@return string
function walk.difference(before, after)
  local counts, lines = {}, {}
  for line in before:gmatch "[^\n]+" do
    counts[line] = (counts[line] or 0) + 1
  end
  for line in after:gmatch "[^\n]+" do
    if (counts[line] or 0) > 0 then
      counts[line] = counts[line] - 1
    else
      lines[#lines + 1] = "+ " .. line
    end
  end
  for line, n in pairs(counts) do
    if n > 0 then
      lines[#lines + 1] = "- " .. line
    end
  end
  table.sort(lines)
  return table.concat(lines, "\n")
end

local HEADER = [[
-- Walk from old to new.
local rb = require "runbook"
local ssh = require "runbook.ssh"
local old = ssh.host { OLD, config = CONFIG }
local new = ssh.host { NEW, config = CONFIG }
]]

--- A runbook between the pair: `source` sees `rb`, `old` and `new`.
---@param directory string
---@param source string
---@param name string?
---@return string path
function Pair:write(directory, source, name)
  local path = ("%s/%s.lua"):format(directory, name or "walk")
  local words = { CONFIG = self.config, OLD = self.old.name, NEW = self.new.name }
  local header = HEADER:gsub("%f[%u]%u%u%u+", function(word) return words[word] and ("%q"):format(words[word]) end)
  world.write(path, header .. source)
  return path
end

return walk
