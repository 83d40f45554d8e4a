--- The lock of a cluster: a `coordination.k8s.io/Lease` that says who changes things there.
---
---     cluster:lock { namespace = "prod" }         -- held, and renewed every 15 s, until the run ends
---
--- Its holder has a minute from one renewal to the next. Who finds it held stops, and is told by whom. A lease that is older by
--- the server's clock is watched for a whole minute of our own (CLOCK_BOOTTIME, which goes on while a laptop sleeps) before it
--- is taken over: clocks of two machines are never compared. See lib/runbook/lock.lua for what a run does with it.

local cluster = require "runbook.kube.cluster"
local errors = require "runbook.errors"
local events = require "runbook.events"
local lock = require "runbook.lock"
local options = require "runbook.options"
local status = require "runbook.kube.status"
local task = require "runbook.core.task"
local time = require "runbook.core.time"
local units = require "runbook.units"

local Cluster = cluster.Cluster

local lease = {}

lease.seconds = 60 -- without a renewal, and it may be taken over

local API = "coordination.k8s.io/v1"
local HOLDER = "runbook.io/holder"

local function path_of(path, with_name)
  local namespace, name = path:match "^([^/]+)/(.+)$"
  return ("/apis/%s/namespaces/%s/leases%s"):format(API, namespace, with_name and "/" .. name or ""), namespace, name
end

local function micro_time()
  local now = time.utc()
  local second = math.floor(now)
  return ("%s.%06dZ"):format(os.date("!%Y-%m-%dT%H:%M:%S", second), math.floor((now - second) * 1e6))
end

local function find(self, path)
  return status.if_there(self.send_json, self, { path = (path_of(path, true)) })
end

-- Writes it over what was read, or anew. False when somebody was faster. The keeper of locks may only read; a lease is ours.
local function write(self, path, found, run, holder)
  local collection, namespace, name = path_of(path)
  local spec = found and found.spec or {}
  local ours = spec.holderIdentity == run
  local ok, err = xpcall(self.send, errors.handler, self, {
    method = found and "PUT" or "POST", path = found and (path_of(path, true)) or collection, reads = true,
    json = { apiVersion = API, kind = "Lease",
      metadata = { name = name, namespace = namespace, annotations = { [HOLDER] = holder },
        resourceVersion = found and found.metadata.resourceVersion, uid = found and found.metadata.uid },
      spec = { holderIdentity = run, leaseDurationSeconds = lease.seconds, renewTime = micro_time(),
        acquireTime = ours and spec.acquireTime or micro_time(),
        leaseTransitions = (spec.leaseTransitions or 0) + (found and not ours and 1 or 0) } },
  })
  if not ok and not errors.is(err, "conflict") then
    error(err, 0)
  end
  return ok
end

local function words_of(found)
  local m = found.metadata.annotations or {}
  return ("%s%s"):format(found.spec.holderIdentity or "?", m[HOLDER] and (" (%s)"):format(m[HOLDER]) or "")
end

-- Seconds since its renewal by the holder's own clock; for people, and for whether watching it is worth the time.
local function age_of(found)
  local moment = found.spec.renewTime and units.parse_time(found.spec.renewTime)
  return moment and math.max(0, time.utc() - moment) or math.huge
end

local function duration_of(found)
  return found.spec.leaseDurationSeconds or lease.seconds
end

local function raise_held(self, path, found)
  local _, namespace, name = path_of(path)
  errors.raise { kind = "busy", code = "ELOCKED", again = false, target = self.name,
    message = ("the lease %s of namespace %s is held by run %s, renewed %.0f s ago"):format(name, namespace, words_of(found),
      age_of(found)),
    hint = ("wait until it ends; if that run is dead, %d s after its last renewal its lease is taken over"):format(duration_of(found)) }
end

-- Does nobody renew it for as long as it lasts, by our clock?
local function is_abandoned(self, path, found)
  local seconds = duration_of(found)
  local began = time.boottime()
  events.notice(("%s: the lease of run %s looks abandoned; watching it for %d s before it is taken over")
    :format(self.name, words_of(found), seconds))
  while time.boottime() - began < seconds do
    task.sleep(math.min(5, seconds / 4))
    local now = find(self, path)
    if now == nil or now.metadata.resourceVersion ~= found.metadata.resourceVersion then
      return false, now
    end
  end
  return true, found
end

local way = {}

function way.take(self, path, run, holder)
  local found = find(self, path)
  while true do
    local held = found and found.spec.holderIdentity
    if held and held ~= "" and held ~= run then
      local abandoned
      if age_of(found) > duration_of(found) then
        abandoned, found = is_abandoned(self, path, found)
      end
      if found and not abandoned then
        raise_held(self, path, found)
      end
    end
    if write(self, path, found, run, holder) then
      return
    end
    found = find(self, path)
  end
end

function way.renew(self, path, run)
  for _ = 1, 3 do
    local found = find(self, path)
    if found == nil or found.spec.holderIdentity ~= run then
      return false
    elseif write(self, path, found, run, (found.metadata.annotations or {})[HOLDER]) then
      return true
    end
  end
  return false
end

function way.give(self, path, run)
  local found = find(self, path)
  if found == nil or found.spec.holderIdentity ~= run then
    return
  end
  local m = found.metadata
  local ok, err = xpcall(self.send, errors.handler, self, { method = "DELETE", path = (path_of(path, true)),
    json = { preconditions = { uid = m.uid, resourceVersion = m.resourceVersion } } })
  if not ok and not errors.is(err, "conflict") and not errors.is(err, "missing") then
    error(err, 0)
  end
end

function way.by_hand(self, path, verb)
  local _, namespace, name = path_of(path)
  return self:by_hand { "-n", namespace, verb == "take" and "get" or "delete", "lease", name }
end

--- How lib/runbook/lock.lua locks a cluster, and what is in one: the path is NAMESPACE/NAME of the lease.
lease.way = way
Cluster.lock_of = way

local check_lock = options.declare("cluster:lock", {
  namespace = { "string", "whose lease it is" },
  name = { "string", "of the lease", default = "runbook" },
})

--- Take the lease of a namespace for this run; held, and renewed, until the run ends.
---@async
---@param o { namespace: string, name?: string }
function Cluster:lock(o)
  o = check_lock(o, 2)
  lock.take(self, ("%s/%s"):format(o.namespace, o.name))
end

return lease
