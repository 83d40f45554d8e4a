--- Logs of pods: what there is, or every line as it comes, across cut connections.
---
---     local text = cluster:logs { "hub-6f5d", namespace = "prod", container = "hub", tail = 200 }
---     cluster:logs { "mover", namespace = "prod", follow = true, on_line = function(line) rb.say(line) end }

local cluster = require "runbook.kube.cluster"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local happened = require "runbook.kube.events"
local options = require "runbook.options"
local retry = require "runbook.retry"
local task = require "runbook.task"
local which = require "runbook.kube.which"

local Cluster = cluster.Cluster

local logs = {}

local check_logs = options.declare("cluster:logs", {
  pod = { "string", "its name; may stand first, without a name", optional = true },
  namespace = { "string", "the context's, when missing", optional = true },
  container = { "string", "which one, when there are several", optional = true },
  previous = { "boolean", "of the container before its last restart", optional = true },
  since = { "number", "of the last so many seconds", optional = true },
  tail = { "integer", "the last so many lines", optional = true },
  timestamps = { "boolean", "each line with its time", optional = true },
  limit = { "integer", "bytes kept in memory", default = 8 << 20 },
  follow = { "boolean", "until the container ends", default = false },
  on_line = { "function", "with follow: (line, time); what it returns, unless nil, ends it", optional = true },
  timeout = { "number", "with follow: seconds, for all of it", optional = true },
})

local function target(self)
  return self.name
end

local function summary(_, o)
  return ("logs of %s"):format(which.words { kind = "pod", name = o.pod, namespace = o.namespace })
end

local function by_hand(self, o)
  local argv = which.argv({ kind = o.pod, namespace = o.namespace }, "logs")
  for _, one in ipairs { { "container", "-c" }, { "tail", "--tail" }, { "since", "--since" } } do
    if o[one[1]] then
      argv[#argv + 1] = one[2]
      argv[#argv + 1] = tostring(o[one[1]]) .. (one[1] == "since" and "s" or "")
    end
  end
  argv[#argv + 1] = o.previous and "--previous" or nil
  argv[#argv + 1] = o.follow and "--follow" or nil
  return self:by_hand(argv)
end

-- `after`: the second from which on to go on, in a log that was followed before.
local function query_of(o, after)
  local stamps = o.timestamps or o.follow
  return { container = o.container, previous = o.previous and "true" or nil, timestamps = stamps and "true" or nil,
    follow = o.follow and "true" or nil, limitBytes = not o.follow and o.limit or nil, sinceTime = after,
    tailLines = not after and o.tail or nil, sinceSeconds = not after and o.since and math.max(1, math.ceil(o.since)) or nil }
end

local function request(self, o, after)
  return { path = ("/api/v1/namespaces/%s/pods/%s/log"):format(o.namespace or self:default_namespace(), o.pod),
    query = query_of(o, after), accept = "*/*" }
end

local read = effect.verb {
  name = "kube.logs", class = "read", target = target, summary = summary, by_hand = by_hand,
  body = function(self, o)
    local text = self:send(request(self, o)).body
    return (text:gsub("\n$", ""))
  end,
}

local open = effect.verb {
  name = "kube.follow", class = "read", target = target, summary = summary, by_hand = by_hand,
  body = function(self, o, after)
    return self:open_stream(request(self, o, after))
  end,
}

-- Times as texts that compare as they follow each other: nanoseconds in full.
local function moment(text)
  local second, fraction = text:match "^(%d+%-%d+%-%d+T%d+:%d+:%d+)%.?(%d*)Z$"
  if second == nil then
    return nil
  end
  return ("%s.%s%s"):format(second, fraction, ("0"):rep(9 - #fraction))
end

-- Gives the lines that come after those that were given already. Returns what `on_line` did.
local function give(o, state, line)
  local stamp, text = line:match "^(%S+) ?(.*)$"
  local at = stamp and moment(stamp)
  if at and state.last and at <= state.last and state.skipping then
    return nil
  end
  state.skipping = false
  state.last, state.second = at or state.last, at and stamp:match "^[^.Z]+" or state.second
  return o.on_line(at and not o.timestamps and text or line, stamp)
end

-- One connection: to its end, or until on_line has a result.
local function follow_once(self, o, state)
  state.skipping = state.second ~= nil -- the server counts in whole seconds; what we know of this one is skipped
  local reader <close> = open(self, o, state.second and state.second .. "Z")
  for line in function() return reader:line() end do
    state.failures = 0
    local result = give(o, state, line)
    if result ~= nil then
      return result
    end
  end
  reader:finish()
end

-- Has the container ended? A log ends, too, when it is rotated or the kubelet restarts.
local function has_ended(self, o)
  local ok, pod = xpcall(self.find, errors.handler, self, { "Pod.v1", o.pod, namespace = o.namespace })
  if not ok then
    error(pod, 0)
  elseif pod == nil or pod.status.phase == "Succeeded" or pod.status.phase == "Failed" or o.previous then
    return true
  end
  for _, list in ipairs { happened.list(pod.status, "containerStatuses"), happened.list(pod.status, "initContainerStatuses") } do
    for _, one in ipairs(list) do
      if (o.container == nil or one.name == o.container) and one.state.running then
        return false
      end
    end
  end
  return true
end

local function follow(self, o)
  local state = { failures = 0 }
  while true do
    local ok, result = xpcall(follow_once, errors.handler, self, o, state)
    if ok and result ~= nil then
      return result
    elseif ok and has_ended(self, o) then
      return nil
    elseif not ok and (not retry.worthwhile(result, true) or state.failures >= retry.same_error) then
      error(result, 0)
    end
    state.failures = state.failures + 1
    task.sleep(retry.delay(state.failures))
  end
end

--- The log of a container as text; with `follow`, every line to `on_line` until the container ends.
---@async
---@param o table  pod, namespace, container; previous, since, tail, timestamps, limit; follow, on_line(line, time), timeout
---@return any text  without its last newline; with `follow`, what `on_line` returned
function Cluster:logs(o)
  o = check_logs(o, 2)
  o.pod, o[1] = o.pod or o[1], nil
  if type(o.pod) ~= "string" then
    errors.raise({ kind = "usage", message = "cluster:logs: which pod?" }, 2)
  elseif o.follow and not o.on_line then
    errors.raise({ kind = "usage", message = "cluster:logs: `follow` needs `on_line`, which gets the lines" }, 2)
  elseif not o.follow then
    return read(self, o)
  end
  return effect.wait(summary(self, o), task.timeout, o.timeout, summary(self, o), follow, self, o)
end

return logs
