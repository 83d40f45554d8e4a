--- A laboratory for copiers: servers with homes, and a run in which a spec's function is a step.

local oracle = require "spec.support.oracle"
local runs = require "spec.support.runs"
local ssh = require "runbook.ssh"
local world = require "spec.world"

local lab = {}

package.preload.lab_of_spec = function()
  return lab
end

--- A runbook of one step, which does what `lab.body` is.
lab.BOOK = [[
  local lab = require "lab_of_spec"
  rb.step("copy", "Copy", function() return lab.body() end)
]]

--- Run a function as the body of a step.
---@async
---@param fn function
---@return runbook.Error? err  as the run recorded it
---@return table[] events
function lab.live(fn)
  runs.fresh()
  lab.body = fn
  local _, seen = runs.start(lab.BOOK)
  runs.clean()
  for _, event in ipairs(runs.only(seen, "step-end")) do
    if event.outcome ~= "done" then
      return event.error or { message = event.outcome }, seen
    end
  end
  return nil, seen
end

--- The same, and it has to succeed.
---@async
---@return table[] events
function lab.must(fn)
  local err, seen = lab.live(fn)
  assert(err == nil, err and err.message .. "\n" .. (err.trace or ""))
  return seen
end

--- A machine as a place.
---@param machine world.Machine
---@param o? { user?: string, sudo?: boolean }
function lab.place(machine, o)
  o = o or {}
  return ssh.host {
    machine.address, name = machine.name, port = machine.port, user = o.user or "root", sudo = o.sudo, identity = machine.key,
    host_key = machine.fingerprint, seen_from_target = o.seen_from_target,
  }
end

--- Empty folders on a machine, whatever was there.
---@param machine world.Machine
---@param ... string
function lab.fresh(machine, ...)
  for _, path in ipairs { ... } do
    machine:must(("rm -rf %s && mkdir -p %s"):format(path, path))
  end
end

--- The same for folders of this machine, which stay.
---@param ... string
function lab.empty(...)
  for _, path in ipairs { ... } do
    world.must(("find %s -mindepth 1 -delete"):format(world.quote(path)))
  end
end

---@class lab.Servers
---@field old world.Machine
---@field new world.Machine
---@field from runbook.Place
---@field to runbook.Place
local Servers = {}
Servers.__index = Servers

--- Two servers, old and new, for a whole block of specs.
---@param o? { user?: string, sudo?: boolean }  who logs in
---@return lab.Servers
function lab.servers(o)
  local self = setmetatable({ old = world.sshd { name = "nfs-old" }, new = world.sshd { name = "nfs-new" } }, Servers)
  self.from, self.to = lab.place(self.old, o), lab.place(self.new, o)
  return self
end

--- The pair of their /srv/homes, unless told otherwise.
---@param o? table  options of sync.pair
function Servers:pair(o)
  o = o or {}
  o.from, o.to = o.from or self.from:dir "/srv/homes", o.to or self.to:dir "/srv/homes"
  return require("runbook.sync").pair(o)
end

--- Raises unless the copy is identical, says the oracle.
---@param o? spec.oracle.options
---@param path? string  of the copy
function Servers:same(o, path)
  return lab.identical(self.old, "/srv/homes", self.new, path or "/srv/homes", o)
end

--- Raises when something of ours was left on either.
---@param path? string  of the copy
function Servers:clean(path)
  assert(lab.left_over(self.old, "/srv/homes") == "", lab.left_over(self.old, "/srv/homes"))
  assert(lab.left_over(self.new, path or "/srv/homes") == "", lab.left_over(self.new, path or "/srv/homes"))
end

function Servers:close()
  ssh.close()
  self.old:close()
  self.new:close()
end

lab.OURS = { "lost+found", ".runbook" }

--- What differs between two directories; "" when nothing does.
---@return string
function lab.difference(a, a_path, b, b_path)
  return world.tree_difference(a:path(a_path), b:path(b_path), lab.OURS)
end

--- Raises with what differs unless the target is identical, says the oracle.
---@param a world.Machine
---@param a_path string
---@param b world.Machine
---@param b_path string
---@param o? spec.oracle.options
function lab.identical(a, a_path, b, b_path, o)
  o = o or {}
  o.exclude = o.exclude or { "lost+found" }
  return oracle.identical(a:path(a_path), b:path(b_path), o)
end

--- What a run must not leave on a machine: programs of ours, half a file, keys, jobs. "" when there is nothing.
---@param machine world.Machine
---@param ... string  trees
---@return string
function lab.left_over(machine, ...)
  local words = {}
  for i, path in ipairs { ... } do
    words[i] = world.quote(path)
  end
  return machine:must(([[
    ls -d /var/tmp/runbook-far.* /tmp/runbook-far.* /dev/shm/runbook-far.* /root/runbook-far.* /home/*/runbook-far.* 2>/dev/null
    find %s -name '.rb~*' 2>/dev/null; grep -h 'runbook:' /root/.ssh/authorized_keys /home/*/.ssh/authorized_keys; :]]):format(
    table.concat(words, " ")))
end

--- The notices of a run, a line each.
---@param seen table[]
---@return string
function lab.notices(seen)
  local lines = {}
  for i, event in ipairs(runs.only(seen, "notice")) do
    lines[i] = event.text
  end
  return table.concat(lines, "\n")
end

--- How many shards a run carried.
---@param seen table[]
---@return integer
function lab.shards(seen)
  local n = 0
  for _, event in ipairs(runs.only(seen, "effect")) do
    n = n + (event.verb == "sync.carry" and event.phase == "intent" and 1 or 0)
  end
  return n
end

return lab
