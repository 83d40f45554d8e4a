--- Two real ssh servers, and an oracle that says what they look like.

local gate = require "runbook.core.gate"
local process = require "runbook.core.process"
local task = require "runbook.core.task"
local world = require "spec.world"

local walk = {}

---@class walk.Pair
---@field old world.Machine
---@field new world.Machine
---@field config string  an ssh_config that knows them by their names
local Pair = {}
Pair.__index = Pair

walk.people = { "ann", "bob", "cyd", "dan" }

--- Run a program of this machine while other tasks go on.
---@async
---@param ... string  its arguments
---@return integer code  128 + n when a signal ended it
---@return string output
function walk.sh(...)
  local argv = { "sh", "-c", 'exec "$@" 2>&1', "sh", ... }
  local r = assert(gate.call("change", process.exec, { argv = argv }))
  return r.status or 137, r.stdout
end

local function must(...)
  local code, output = walk.sh(...)
  assert(code == 0, output)
  return output
end

--- Two machines as they are before every run.
---@async
---@param name string?
---@return walk.Pair
function walk.pair(name)
  name = name or ""
  local pair = setmetatable({
    old = world.sshd { name = "old" .. name }, new = world.sshd { name = "new" .. name },
  }, Pair)
  pair.machines = { pair.old, pair.new }
  pair.config = world.ssh_config(pair.machines)
  pair:reset()
  return pair
end

-- Jobs have a directory below here, which is the account's own and stays.
local RESET = [[
ps -eo pid=,args= | while read -r pid command; do
  case $pid:$command in 1:*|$$:*|*:sshd:\ /usr/sbin/sshd*|*ps\ -eo*) ;; *) kill -9 "$pid" ;; esac
done 2>/dev/null
find /srv /tmp /var/tmp /opt /root /home -mindepth 1 -not -path '*/.ssh*' -not -path '/home/rb-*' -delete
mkdir -p /root/.local/state
[ -e /run/world/first_keys ] || cp /root/.ssh/authorized_keys /run/world/first_keys
cat /run/world/first_keys > /root/.ssh/authorized_keys
]]

--- As they were at first: files, keys, no process but sshd.
---@async
function Pair:reset()
  for _, machine in ipairs(self.machines) do
    machine:must(RESET)
  end
  self.old:must "mkdir /srv/data"
  for n, person in ipairs(walk.people) do
    self.old:write("/srv/data/" .. person, (person .. "\n"):rep(n))
  end
  self.new:write("/srv/motd", "nothing here yet\n")
end

-- The words of a line of tree.py but the modification time, which no second run has.
local function without_time(line)
  return (line:gsub("^(.- %l+ %d%d%d%d %d+:%d+) %d+", "%1"))
end

--- Everything on a machine's disks, a line per name.
---@async
---@param machine world.Machine
---@param o { times?: boolean }?
---@return string
function walk.disk(machine, o)
  local lines = {}
  for line in must("python3", "spec/world/tree.py", machine.folder .. "/disk"):gmatch "[^\n]+" do
    lines[#lines + 1] = o and o.times and line or without_time(line)
  end
  return table.concat(lines, "\n")
end

--- What runs on a machine besides its sshd, sorted.
---@param machine world.Machine
---@return string
function walk.processes(machine)
  local commands = {}
  for i, one in ipairs(machine:processes()) do
    commands[i] = one.command
  end
  table.sort(commands)
  return table.concat(commands, "\n")
end

--- Wait until nobody is connected any more and no command of a lost connection still runs; jobs may.
---@async
function Pair:settle()
  for _, machine in ipairs(self.machines) do
    world.wait_until("the end of what was connected to " .. machine.name, function()
      for line in walk.processes(machine):gmatch "[^\n]+" do
        if line:find("sshd: ", 1, true) then
          return false
        end
      end
      return true
    end)
  end
end

--- A shell line of this machine that kills the servers' side of every connection there is.
---@return string
function Pair:drop_connections()
  local lines = {}
  for i, machine in ipairs(self.machines) do
    lines[i] = ("nsenter -t %d -m -p -r sh -c %s"):format(machine.pid, world.quote [[
      for p in $(ps -eo pid=,args= | sed -n 's/^ *\([0-9]*\) sshd: root.*/\1/p'); do kill -9 "$p" 2>/dev/null || :; done]])
  end
  return table.concat(lines, " && ")
end

--- Both machines: what is on their disks, and, once nobody is connected any more, what runs.
---@async
---@param o { times?: boolean }?
---@return string
function Pair:state(o)
  local parts = {}
  self:settle()
  for i, machine in ipairs(self.machines) do
    for _ = 1, 100 do
      if walk.processes(machine) == "" then
        break
      end
      task.sleep(0.02)
    end
    table.insert(parts, ({ "== old", "== new" })[i])
    table.insert(parts, walk.disk(machine, o))
    table.insert(parts, "processes: " .. walk.processes(machine))
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
