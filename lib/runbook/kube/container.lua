--- A container as a place: commands and files in it, with the same verbs as on a server.
---
---     local hub = cluster:container { deployment = "hub", namespace = "staging" }
---     hub:query { "jupyterhub", "--version" }
---     hub:dir("/srv/jupyterhub"):get("jupyterhub.sqlite", "hub.sqlite")
---
--- The image needs a POSIX shell and coreutils or busybox; what is missing is said. A command that was cut off is lost, and its
--- output is never taken for whole. Large files are copied with `put` and `get`, which go on where they were cut.

local cluster = require "runbook.kube.cluster"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local exec = require "runbook.kube.exec"
local files = require "runbook.kube.files"
local options = require "runbook.options"
local place = require "runbook.place"

local container = {}

---@class runbook.kube.ContainerBackend
local Backend = { fleeting = true } -- what runs there ends with it, and it may be another one tomorrow
Backend.__index = Backend

--- What a container is to a place, for the modules that make ways and places of a special kind of it.
container.Backend = Backend

local check = options.declare("cluster:container", {
  pod = { "string", "its name", optional = true },
  deployment = { "string", "a pod of this one", optional = true },
  selector = { "string", "a pod with these labels, like component=hub,release=staging", optional = true },
  container = { "string", "in the pod; its only or default one, when missing", optional = true },
  namespace = { "string", "that of the context, when missing", optional = true },
  name = { "string", "what messages call it", optional = true },
})

local KINDS = { "pod", "deployment", "selector" }

-- ---- which pod ----

-- matchLabels and matchExpressions as the text that a list takes.
local function selector_of(labels)
  local parts = {}
  for key, value in pairs(labels.matchLabels or {}) do
    parts[#parts + 1] = key .. "=" .. value
  end
  local words = { In = "%s in (%s)", NotIn = "%s notin (%s)", Exists = "%s", DoesNotExist = "!%s" }
  for _, one in ipairs(labels.matchExpressions or {}) do
    parts[#parts + 1] = words[one.operator]:format(one.key, table.concat(one.values or {}, ","))
  end
  table.sort(parts)
  return table.concat(parts, ",")
end

local function is_ready(pod)
  for _, condition in ipairs(pod.status.conditions or {}) do
    if condition.type == "Ready" then
      return condition.status == "True"
    end
  end
  return false
end

-- Ready before not ready, new before old.
local function better(a, b)
  local ready_a, ready_b = is_ready(a), is_ready(b)
  if ready_a ~= ready_b then
    return ready_a
  end
  return a.metadata.creationTimestamp > b.metadata.creationTimestamp
end

-- Why a pod cannot be used, in a few words.
local function state_of(pod)
  if pod.metadata.deletionTimestamp then
    return "is being deleted"
  end
  for _, one in ipairs(pod.status.containerStatuses or {}) do
    local waiting = one.state and one.state.waiting
    if waiting and waiting.reason then
      return ("%s: %s"):format(pod.status.phase, waiting.reason)
    end
  end
  return pod.status.phase
end

local function raise_none(self, pods)
  local seen = {}
  for _, pod in ipairs(pods) do
    seen[#seen + 1] = ("%s %s"):format(pod.metadata.name, state_of(pod))
  end
  errors.raise {
    kind = "missing", code = "ENOPOD", target = self.what,
    message = ("no pod of %s runs%s"):format(self.what, #seen > 0 and ": " .. table.concat(seen, ", ") or ""),
    hint = self.options.cluster:by_hand { "-n", self.namespace, "get", "pods" },
  }
end

local function pod_of_labels(self, labels)
  local list = self.options.cluster:send_json {
    path = ("/api/v1/namespaces/%s/pods"):format(self.namespace), query = { labelSelector = labels },
  }.items
  local running = {}
  for _, pod in ipairs(list) do
    if pod.status.phase == "Running" and not pod.metadata.deletionTimestamp then
      running[#running + 1] = pod
    end
  end
  table.sort(running, better)
  if #running == 0 then
    raise_none(self, list)
  end
  return running[1].metadata.name
end

--- The pod that is meant now: looked for once, and again when it is gone.
---@async
---@return runbook.kube.Target
function Backend:target()
  local o = self.options
  self.namespace = self.namespace or o.cluster:default_namespace()
  if o.pod then
    self.pod = o.pod
  elseif not self.pod and o.deployment then
    local found = o.cluster:send_json { path = ("/apis/apps/v1/namespaces/%s/deployments/%s"):format(self.namespace, o.deployment) }
    self.pod = pod_of_labels(self, selector_of(found.spec.selector))
  elseif not self.pod then
    self.pod = pod_of_labels(self, o.selector)
  end
  return { cluster = o.cluster, namespace = self.namespace, pod = self.pod, container = o.container }
end

-- Calls fn(target). A pod of a deployment may have been replaced by another.
local function at_target(self, fn)
  local ok, first, message, code = xpcall(fn, errors.handler, self:target())
  if ok then
    return first, message, code
  elseif errors.is(first, "missing") and first.code == "NotFound" and not self.options.pod then
    self.pod = nil
    return fn(self:target())
  end
  error(first, 0)
end

--- Which of all containers it is: what runs beside it is not the same machine.
---@async
---@return string
function Backend:machine()
  return effect.reading(function()
    local at = self:target()
    return ("%s %s/%s:%s"):format(self.options.cluster.client:server(), at.namespace, at.pod, at.container or "")
  end)
end

--- The same, as what keeps copies of it apart.
Backend.identity = Backend.machine

-- ---- commands ----

local function raise_no_shell(self, said)
  errors.raise {
    kind = "missing", code = "ENOSHELL", target = self.what, stderr = said,
    message = ("the image of %s has no `sh`: nothing but its own program can be run in it"):format(self.what),
    hint = "use a container whose image has a shell, dd and coreutils or busybox: another of the pod, or one made for this",
  }
end

-- The shell in front of a command is the first thing that can be missing.
local function watched(self, child)
  local wait = child.wait
  child.wait = function(one)
    local how, message, code = wait(one)
    if code == "ENOEXEC" then
      raise_no_shell(self, message)
    end
    return how, message, code
  end
  return child
end

--- What a place wants of its backend.
---@async
function Backend:open(argv)
  return at_target(self, function(at)
    local child, message, code = exec.open(at, argv, { reads = true }) -- whether it may change anything was asked before
    if not child then
      return nil, message, code
    end
    return watched(self, child)
  end)
end

--- A command as it is, for those who mind the ends themselves.
---@async
function Backend:open_bare(argv)
  return at_target(self, function(at)
    return watched(self, exec.bare(at, argv, { reads = true }))
  end)
end

function Backend:by_hand(argv)
  local o = self.options
  local pod = self.pod or o.pod or o.deployment and "deploy/" .. o.deployment or "POD"
  local words = { "exec", "-i", pod }
  if self.namespace then
    table.move({ "-n", self.namespace }, 1, 2, #words + 1, words)
  end
  if o.container then
    table.move({ "-c", o.container }, 1, 2, #words + 1, words)
  end
  words[#words + 1] = "--"
  return o.cluster:by_hand(table.move(argv, 1, #argv, #words + 1, words))
end

--- The same for a port of the pod.
---@param port integer
---@param near? integer  here; nil: one that is free
function Backend:by_hand_forward(port, near)
  local o = self.options
  local words = { "port-forward", self.pod or o.pod or o.deployment and "deploy/" .. o.deployment or "POD",
    ("%s:%d"):format(near or "", port) }
  if self.namespace then
    table.move({ "-n", self.namespace }, 1, 2, #words + 1, words)
  end
  return o.cluster:by_hand(words)
end

function Backend:reference()
  local o = self.options
  return {
    kind = "kube.container", cluster = o.cluster:reference(), namespace = self.namespace, pod = o.pod, deployment = o.deployment,
    selector = o.selector, container = o.container, name = o.name,
  }
end

Backend.put, Backend.get, Backend.large = files.put, files.get, files.large

-- ---- handles ----

--- A container; nothing is asked before the first use.
---@param of runbook.Cluster
---@param given { pod?: string, deployment?: string, selector?: string, container?: string, namespace?: string }
---@return runbook.Place
function container.new(of, given)
  local o = check(given, 3)
  local kind
  for _, one in ipairs(KINDS) do
    if o[one] and kind then
      errors.raise({ kind = "usage", message = ("cluster:container: `%s` or `%s`, not both"):format(kind, one) }, 3)
    end
    kind = o[one] and one or kind
  end
  if not kind then
    errors.raise({ kind = "usage", message = "cluster:container: which one? `pod`, `deployment` or `selector`" }, 3)
  end
  o.cluster = of
  local what = o.name or o[kind] .. (o.container and ":" .. o.container or "")
  local backend = setmetatable({ options = o, namespace = o.namespace, what = what }, Backend)
  return place.new(backend, { name = what })
end

--- Is this place a container?
---@param at runbook.Place
---@return boolean
function container.is(at)
  return getmetatable(at.backend) == Backend
end

--- A container as a place.
---@param o { pod?: string, deployment?: string, selector?: string, container?: string, namespace?: string }
---@return runbook.Place
function cluster.Cluster:container(o)
  return container.new(self, o)
end

place.register("kube.container", function(reference)
  local o = {}
  for key, value in pairs(reference) do
    o[key] = key ~= "kind" and key ~= "cluster" and value or nil
  end
  return container.new(place.open(reference.cluster), o)
end)

require "runbook.job" -- so that every process that knows a place can clean up after its jobs

return container
