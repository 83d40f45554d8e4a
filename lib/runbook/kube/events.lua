--- What a cluster says about an object: its events, and for those that own pods why these do not run.

local cluster = require "runbook.kube.cluster"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local json = require "runbook.json"
local reads = require "runbook.kube.reads"
local which = require "runbook.kube.which"

local Cluster = cluster.Cluster

local happened = {}

local function target(self)
  return self.name
end

local function present(value)
  return value ~= nil and value ~= json.null and value or nil
end

--- A list in an object that may be missing or null, as parts of it may.
---@return table
function happened.list(part, key)
  local value = type(part) == "table" and part[key]
  return type(value) == "table" and value or {}
end

local function time_of(event)
  local series = present(event.series)
  return present(event.lastTimestamp) or series and present(series.lastObservedTime) or present(event.eventTime)
    or event.metadata.creationTimestamp
end

---@class runbook.kube.Event
---@field at string      when it happened last
---@field type string    "Normal" or "Warning"
---@field reason string
---@field message string
---@field count integer
---@field object string  "Pod hub-6f5"

local function plain(event)
  local series = present(event.series)
  return { at = time_of(event), type = event.type, reason = event.reason or "", message = (event.message or ""):gsub("%s+$", ""),
    count = present(event.count) or series and series.count or 1,
    object = ("%s %s"):format(event.involvedObject.kind, event.involvedObject.name) }
end

--- The events of an object, for verbs of this library; the oldest first.
---@async
---@return runbook.kube.Event[]
function happened.of(self, object)
  local m = object.metadata
  local list = json.array {}
  local selector = { ["involvedObject.name"] = m.name, ["involvedObject.uid"] = m.uid }
  reads.each(self, { kind = "Event.v1", namespace = m.namespace or "default", fields = selector }, function(event)
    list[#list + 1] = plain(event)
  end)
  table.sort(list, function(a, b) return a.at < b.at end)
  return list
end

local check_events = which.declare_one("cluster:events")

local of_object = effect.verb {
  name = "kube.events", class = "read", target = target,
  summary = function(_, o) return "events of " .. which.words(o) end,
  by_hand = function(self, o)
    return self:by_hand { "-n", o.namespace or "default", "get", "events", "--field-selector", "involvedObject.name=" .. o.name }
  end,
  body = function(self, o)
    return happened.of(self, (reads.object(self, o)))
  end,
}

--- What happened to an object, the oldest first.
---@async
---@param o { kind: string, name: string, namespace?: string, api?: string }
---@return runbook.kube.Event[]
function Cluster:events(o)
  return of_object(self, check_events(o))
end

-- ---- why something does not get ready ----

-- What a container waits for, or how it ended; nil when it runs.
local function trouble_of_container(status)
  local state = status.state or {}
  local waiting, ended, last = state.waiting, state.terminated, (status.lastState or {}).terminated
  if waiting and waiting.reason ~= "ContainerCreating" and waiting.reason ~= "PodInitializing" then
    local text = ("container %s: %s%s"):format(status.name, waiting.reason, waiting.message and ": " .. waiting.message or "")
    return last and ("%s (it ended with exit status %d)"):format(text, last.exitCode) or text
  elseif ended and ended.exitCode ~= 0 then
    return ("container %s ended with exit status %d%s"):format(status.name, ended.exitCode, ended.reason and ", " .. ended.reason or "")
  elseif state.running and not status.ready then
    return ("container %s runs and is not ready"):format(status.name)
  end
end

-- Reasons of a container that waits which time alone seldom mends.
local HOPELESS = {
  CrashLoopBackOff = true, ImagePullBackOff = true, ErrImagePull = true, ErrImageNeverPull = true, InvalidImageName = true,
  CreateContainerConfigError = true, CreateContainerError = true, RunContainerError = true,
}

--- The status of the first container of a pod that cannot start; nil when none is stuck, or the pod is ending.
---@return table?
function happened.stuck(pod)
  local status = pod.status or {}
  for _, list in ipairs { happened.list(status, "initContainerStatuses"), happened.list(status, "containerStatuses") } do
    for _, one in ipairs(list) do
      local waiting = one.state and one.state.waiting
      if waiting and HOPELESS[waiting.reason] and not pod.metadata.deletionTimestamp then
        return one
      end
    end
  end
end

--- What is wrong with a pod, in words; nothing when all is well.
---@return string[]
function happened.trouble_of_pod(pod)
  local lines = {}
  local status = pod.status or {}
  for _, condition in ipairs(happened.list(status, "conditions")) do
    if condition.type == "PodScheduled" and condition.status == "False" then
      lines[#lines + 1] = ("no node for it: %s"):format(condition.message or condition.reason or "?")
    end
  end
  for _, list in ipairs { happened.list(status, "initContainerStatuses"), happened.list(status, "containerStatuses") } do
    for _, one in ipairs(list) do
      lines[#lines + 1] = trouble_of_container(one)
    end
  end
  if pod.metadata.deletionTimestamp then
    lines[#lines + 1] = "it is ending since " .. pod.metadata.deletionTimestamp
  elseif status.phase == "Failed" then
    lines[#lines + 1] = ("it failed: %s"):format(status.message or status.reason or "?")
  end
  return lines
end

local function selector_of(object)
  local selector = object.spec and object.spec.selector
  local labels = selector and (selector.matchLabels or object.kind == "Service" and selector) or nil
  return labels and next(labels) and labels
end

local function warnings_of(self, object, lines, most)
  local list = happened.of(self, object)
  for i = math.max(1, #list - most + 1), #list do
    local e = list[i]
    local times = e.count > 1 and (" (%d times)"):format(e.count) or ""
    lines[#lines + 1] = ("%s  %s  %s: %s%s"):format(e.at, e.object, e.reason, e.message, times)
  end
end

local function trouble_of_pods(self, object, lines)
  local labels = selector_of(object)
  local shown = 0
  if labels == nil then
    return
  end
  reads.each(self, { kind = "Pod.v1", namespace = object.metadata.namespace, labels = labels }, function(pod)
    local found = happened.trouble_of_pod(pod)
    for _, text in ipairs(found) do
      lines[#lines + 1] = ("Pod %s: %s"):format(pod.metadata.name, text)
    end
    if #found > 0 and shown < 2 then
      shown = shown + 1
      warnings_of(self, pod, lines, 3)
    end
  end)
end

--- Why an object is not as it should be: conditions, its pods, events. For messages, so what may not be read is left out.
---@async
---@return string[] lines
function happened.why(self, object)
  local lines = {}
  for _, condition in ipairs(happened.list(object.status, "conditions")) do
    if condition.status ~= "True" and present(condition.message) and condition.message ~= "" then
      lines[#lines + 1] = ("%s is %s: %s"):format(condition.type, condition.status, condition.message)
    end
  end
  if object.kind == "Pod" then
    table.move(happened.trouble_of_pod(object), 1, 20, #lines + 1, lines)
  end
  for _, look in ipairs { trouble_of_pods, function(c, o, l) warnings_of(c, o, l, 5) end } do
    local ok, err = xpcall(look, errors.handler, self, object, lines)
    if not ok and errors.is_cancelled(err) then
      error(err, 0)
    end
  end
  return lines
end

return happened
