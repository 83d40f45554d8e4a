--- Waiting until objects are as they should be; when they do not get so, the error says why.
---
---     cluster:wait { "Deployment", "hub", namespace = "prod", timeout = 300 }                      -- ready, as its kind means it
---     cluster:wait { "Job", "mover", namespace = "prod", condition = "Complete" }
---     cluster:wait { "Pod", "jupyter-ada", namespace = "prod", gone = true }
---     cluster:wait { "Service", "ssh", namespace = "prod", is = function(service) return service.status.loadBalancer.ingress end }

local cluster = require "runbook.kube.cluster"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local happened = require "runbook.kube.events"
local task = require "runbook.task"
local time = require "runbook.core.time"
local watch = require "runbook.kube.watch"
local which = require "runbook.kube.which"

local Cluster = cluster.Cluster

local wait = {}

wait.hope = 45 -- seconds in which a pod that cannot start may still mend itself: an image is tried three times in them

local TIMEOUT = 300

local check_wait = which.declare_one("cluster:wait", {
  condition = { "string", "a condition that has to be True", optional = true },
  gone = { "boolean", "until it is not there", optional = true },
  is = { "function", "(object) -> true when it is so, else nothing, or a text that says what is missing", optional = true },
  timeout = { "number", "seconds", default = TIMEOUT },
})

local function condition_of(object, name)
  for _, condition in ipairs(happened.list(object.status, "conditions")) do
    if condition.type == name then
      return condition
    end
  end
end

-- A controller that has not seen the last change says nothing about it.
local function is_seen(object)
  local seen = object.status and object.status.observedGeneration
  return seen == nil or seen >= (object.metadata.generation or 0)
end

local function condition_holds(object, name)
  local condition = condition_of(object, name)
  return is_seen(object) and condition ~= nil and condition.status == "True" and
    (condition.observedGeneration == nil or condition.observedGeneration >= (object.metadata.generation or 0))
end

local function counts(object)
  local status = object.status or {}
  return object.spec.replicas or 1, status.updatedReplicas or 0, status.readyReplicas or 0, status.replicas or 0
end

local function rolled_out(object)
  local wanted, updated, ready, all = counts(object)
  if is_seen(object) and updated >= wanted and ready >= wanted and all == wanted then
    return true
  end
  if ready >= wanted and updated >= wanted then
    return ("%d old replicas are still there"):format(all - wanted)
  end
  return ("%d of %d replicas ready, %d of them new"):format(ready, wanted, math.min(updated, ready))
end

-- What "ready" means for a kind: true, or what is missing.
local ready = {
  Deployment = rolled_out,
  StatefulSet = rolled_out,
  ReplicaSet = function(object)
    local wanted, _, now = counts(object)
    return is_seen(object) and now >= wanted or ("%d of %d replicas ready"):format(now, wanted)
  end,
  DaemonSet = function(object)
    local s = object.status or {}
    local wanted, now = s.desiredNumberScheduled or 0, s.numberReady or 0
    return is_seen(object) and now >= wanted and (s.updatedNumberScheduled or 0) >= wanted or ("%d of %d ready"):format(now, wanted)
  end,
  Job = function(object) return condition_holds(object, "Complete") or "not complete" end,
  Pod = function(object) return condition_holds(object, "Ready") or ("it is %s"):format(object.status.phase) end,
  PersistentVolumeClaim = function(object) return object.status.phase == "Bound" or ("it is %s"):format(object.status.phase) end,
  Namespace = function(object) return object.status.phase == "Active" or ("it is %s"):format(object.status.phase) end,
  Service = function(object)
    local balancer = object.status.loadBalancer
    return object.spec.type ~= "LoadBalancer" or balancer and balancer.ingress and #balancer.ingress > 0 or "no address yet"
  end,
}

local function is_ready(object)
  local test = ready[object.kind]
  if test then
    return test(object)
  end
  return condition_holds(object, "Ready") or "its condition Ready is not True"
end

-- What will not get better by waiting.
local function hopeless(object)
  local failed = object.kind == "Job" and condition_of(object, "Failed")
  if failed and failed.status == "True" then
    return ("it failed: %s"):format(failed.message or failed.reason or "?")
  elseif object.kind == "Pod" and object.status.phase == "Failed" then
    return ("it failed: %s"):format(object.status.message or object.status.reason or "its containers ended")
  end
end

local function test_of(o)
  if o.condition then
    return function(object)
      if condition_holds(object, o.condition) then
        return true
      end
      local condition = condition_of(object, o.condition)
      return condition and ("%s is %s"):format(o.condition, condition.status) or ("it has no condition %s yet"):format(o.condition)
    end
  end
  return o.is or is_ready
end

local function wanted_words(o)
  return o.gone and "gone" or o.condition or o.is and "as it should be" or "ready"
end

local function raise_not_so(self, o, kind, object, missing)
  local lines = object and effect.reading(happened.why, self, object) or {}
  local said = #lines > 0 and "\n  " .. table.concat(lines, "\n  ") or ""
  errors.raise { kind = kind, code = "EWAIT", target = self.name, details = lines,
    message = ("%s is not %s%s%s%s"):format(which.words(o), wanted_words(o), kind == "timeout" and (" after %g s"):format(o.timeout) or "",
      missing and ": " .. missing or object == nil and not o.gone and ": it is not there" or "", said) }
end

-- For a pod that cannot start. Never ends well: raises when it has been stuck for as long as there is hope.
local function give_up(self, o, seen)
  local since
  while true do
    local stuck = seen.last and seen.last.kind == "Pod" and happened.stuck(seen.last)
    since = stuck and (since or time.now()) or nil
    if stuck and time.now() - since >= wait.hope then
      raise_not_so(self, o, "exit", seen.last, ("it does not start: %s"):format(stuck.state.waiting.reason))
    end
    task.sleep(1)
  end
end

local function watch_until(self, o, seen)
  local last, missing
  local test = test_of(o)
  local selection = { kind = o.kind, api = o.api, name = o.name, namespace = o.namespace, timeout = o.timeout }
  local ok, result = xpcall(watch.run, errors.handler, self, selection, function(event, object)
    if event ~= "SYNCED" then
      last = event ~= "DELETED" and object or nil
      seen.last = last
    end
    if o.gone then
      return (event == "SYNCED" or event == "DELETED") and last == nil or nil
    elseif last == nil or event == "SYNCED" then
      return nil
    end
    local answer = test(last)
    missing = type(answer) == "string" and answer or nil
    if answer and not missing then
      return last
    end
    missing = missing or hopeless(last)
    local lost = not o.is and hopeless(last)
    if lost then
      raise_not_so(self, o, "exit", last, lost)
    end
  end)
  if not ok and errors.is(result, "timeout") then
    raise_not_so(self, o, "timeout", last, missing)
  elseif not ok then
    error(result, 0)
  end
  return not o.gone and result or nil
end

--- Wait until an object is ready (as its kind means it), has a condition, is gone, or `is` says so. Raises kind `timeout`, or
--- `exit` when it has failed for good, with its conditions, what keeps its pods from running, and its last events.
---@async
---@param o { kind: string, name: string, namespace?: string, condition?: string, gone?: boolean, is?: fun(object: table): any, timeout?: number }
---@return table? object
function Cluster:wait(o)
  o = check_wait(o)
  return effect.wait(("wait until %s is %s"):format(which.words(o), wanted_words(o)), function()
    local seen = {}
    if o.gone or o.is then
      return watch_until(self, o, seen)
    end
    return (task.race { function() return watch_until(self, o, seen) end, function() give_up(self, o, seen) end })
  end)
end

return wait
