--- Pods that are told to end, and do not: which, since when, what keeps them, and what mends that.

local errors = require "runbook.errors"
local events = require "runbook.events"
local human = require "runbook.human"
local task = require "runbook.task"
local time = require "runbook.core.time"
local units = require "runbook.units"

local ending = {}

ending.longest = 600 -- seconds that servers and the hub may take to end
ending.hope = 60 -- seconds after its time for which a pod that hangs may still end by itself
local POLL = 5

-- ---- what keeps a pod ----

local function is_running(pod)
  for _, status in ipairs(pod.status.containerStatuses or {}) do
    if status.state and status.state.running then
      return true
    end
  end
  return false
end

-- What the cluster says of a node that is not well; nil when it is, or nobody may ask.
local function trouble_of_node(cluster, name)
  local ok, node = xpcall(cluster.find, errors.handler, cluster, { kind = "Node", name = name })
  if not ok then
    return errors.is_cancelled(node) and error(node, 0) or nil
  elseif node == nil then
    return ("its node %s is gone"):format(name)
  end
  for _, condition in ipairs(node.status.conditions or {}) do
    if condition.type == "Ready" and condition.status ~= "True" then
      return ("its node %s is not ready%s"):format(name, condition.message and ": " .. condition.message or "")
    end
  end
end

-- Why, the line that helps, and whether time may mend it.
local function cause(cluster, pod)
  local m = pod.metadata
  local node = pod.spec.nodeName and trouble_of_node(cluster, pod.spec.nodeName)
  if node then
    return node, ("look at the node before anything is forced: its volumes may still be written: %s"):format(
      cluster:by_hand { "describe", "node", pod.spec.nodeName }), false
  elseif m.finalizers and #m.finalizers > 0 and not is_running(pod) then
    return ("nothing of it runs any more, and its finalizer %s keeps it"):format(table.concat(m.finalizers, ", ")),
      ("whoever set the finalizer takes it off; when that one is gone, by hand: %s"):format(cluster:by_hand { "-n", m.namespace, "patch",
        "pod", m.name, "--type", "json", "-p", [=[[{"op": "remove", "path": "/metadata/finalizers"}]]=] }), false
  end
  return is_running(pod) and "it still runs" or "it runs no more, and its node has not cleaned up",
    cluster:by_hand { "-n", m.namespace, "describe", "pod", m.name }, true
end

local function words(pod, why)
  local m = pod.metadata
  local told = units.parse_time(m.deletionTimestamp) - (m.deletionGracePeriodSeconds or 0)
  return ("pod %s does not end: it is Terminating since %s; %s"):format(m.name, os.date("!%Y-%m-%dT%H:%M:%SZ", math.floor(told)), why)
end

-- ---- waiting ----

local function list(hub, labels)
  return hub.cluster:list { kind = "Pod", namespace = hub.namespace, labels = labels }
end

-- Raises when time does not mend what keeps a pod; else says it.
local function hangs(hub, pod)
  local why, hint, may_end = cause(hub.cluster, pod)
  if not may_end then
    errors.raise { kind = "timeout", code = "EENDING", target = hub.name, message = words(pod, why), hint = hint, again = false }
  end
  events.notice(("%s: %s; it is waited for, %s at most"):format(hub.name, words(pod, why), units.duration(ending.longest)), "warning")
end

-- Never ends well: raises when a pod hangs past its time. How long that is goes by one clock, ours.
local function watch(hub, labels)
  local since, said = {}, {}
  while true do
    for _, pod in ipairs(list(hub, labels)) do
      local m = pod.metadata
      since[m.uid] = m.deletionTimestamp and (since[m.uid] or time.now()) or nil
      local late = since[m.uid] and time.now() - since[m.uid] >= (m.deletionGracePeriodSeconds or 0) + ending.hope
      if late and not said[m.uid] then
        hangs(hub, pod)
        said[m.uid] = true
      end
    end
    task.sleep(math.min(POLL, ending.hope))
  end
end

--- Do something that ends pods; raises kind `timeout`, with what keeps it, as soon as one of them hangs.
---@async
---@param hub runbook.Hub
---@param labels string  of the pods
---@param fn async fun()
function ending.guarded(hub, labels, fn)
  task.race { fn, function() watch(hub, labels) end }
end

--- Wait until no such pod is left, and do `each(pod)` meanwhile with those that nobody has told to end; for the function that
--- `guarded` calls. Raises kind `timeout` after all its time.
---@async
---@param hub runbook.Hub
---@param labels string
---@param each? async fun(pod: table)
function ending.wait(hub, labels, each)
  local deadline = time.now() + ending.longest
  local pods = list(hub, labels)
  while #pods > 0 do
    if time.now() > deadline then
      local pod, why, hint = pods[1], cause(hub.cluster, pods[1])
      errors.raise { kind = "timeout", code = "EENDING", target = hub.name, hint = hint,
        message = ("%s still not ended after %s: %s"):format(human.plural(#pods, "pod"), units.duration(ending.longest),
          pod.metadata.deletionTimestamp and words(pod, why) or pod.metadata.name) }
    end
    for _, pod in ipairs(pods) do
      if each and not pod.metadata.deletionTimestamp then
        each(pod)
      end
    end
    task.sleep(1)
    pods = list(hub, labels)
  end
end

return ending
