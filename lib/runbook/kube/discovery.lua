--- What kinds of objects a cluster has, those of CRDs among them: "Deployment", "deploy", "deployments.apps", "ScaledObject".
---
--- Asked once per cluster and process, and again when somebody wants a kind that is not there.

local errors = require "runbook.errors"
local json = require "runbook.json"
local nearest = require "runbook.nearest"
local task = require "runbook.task"
local time = require "runbook.core.time"

local discovery = {}

discovery.again_seconds = 5 -- an unknown kind makes us ask again, though not more often than this

local AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
  .. "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
local LAST = { extensions = true } -- a group whose kinds have moved elsewhere

---@class runbook.kube.Resource
---@field group string       "" for the core
---@field version string
---@field api string         "apps/v1": what objects have in apiVersion
---@field plural string      what paths have
---@field kind string
---@field namespaced boolean
---@field verbs table<string, boolean>
---@field subresources table<string, boolean>
local Resource = {}
local resource_mt = { __name = "runbook.kube.resource", __index = Resource }

local function encoded(part)
  return (part:gsub("[^%w%-._~:]", function(c) return ("%%%02X"):format(c:byte()) end))
end

--- The path of its collection, or of one object, or of a part of that.
---@param namespace string?
---@param name string?
---@param subresource string?
---@return string
function Resource:path(namespace, name, subresource)
  local parts = { self.group == "" and "/api/" or "/apis/", self.api }
  if self.namespaced and namespace then
    parts[#parts + 1] = "/namespaces/" .. encoded(namespace)
  end
  parts[#parts + 1] = "/" .. self.plural
  parts[#parts + 1] = name and "/" .. encoded(name) or nil
  parts[#parts + 1] = subresource and "/" .. subresource or nil
  return table.concat(parts)
end

--- Its name as kubectl takes it, without doubt which one is meant.
---@return string
function Resource:full_name()
  return self.group == "" and self.plural or self.plural .. "." .. self.group
end

function resource_mt.__tostring(self)
  return self.kind
end

-- ---- asking ----

local function set(list)
  local s = {}
  for _, name in ipairs(type(list) == "table" and list or {}) do
    s[name] = true
  end
  return s
end

local function new(group, version, plural, kind, namespaced, o)
  return setmetatable({ group = group, version = version, api = group == "" and version or group .. "/" .. version, plural = plural,
    kind = kind, namespaced = namespaced, verbs = set(o.verbs), singular = o.singular, short = set(o.short), subresources = {} },
    resource_mt)
end

-- The resources of an APIResourceList.
local function of_list(list)
  local group, version = list.groupVersion:match "^(.*)/(.*)$"
  group, version = group or "", version or list.groupVersion
  local found, by_plural = {}, {}
  for _, one in ipairs(list.resources) do
    if not one.name:find("/", 1, true) then
      local r = new(group, version, one.name, one.kind, one.namespaced,
        { verbs = one.verbs, singular = one.singularName, short = one.shortNames })
      found[#found + 1], by_plural[one.name] = r, r
    end
  end
  for _, one in ipairs(list.resources) do
    local plural, part = one.name:match "^(.-)/(.+)$"
    if plural and by_plural[plural] then
      by_plural[plural].subresources[part] = true
    end
  end
  return found
end

-- The same of an APIGroupDiscoveryList, the answer of newer servers.
local function of_aggregated(answer)
  local found = {}
  for _, group in ipairs(answer.items) do
    for _, version in ipairs(group.versions) do
      for _, one in ipairs(version.resources or {}) do
        local r = new(group.metadata.name or "", version.version, one.resource, one.responseKind and one.responseKind.kind or "",
          one.scope == "Namespaced", { verbs = one.verbs, singular = one.singularResource, short = one.shortNames })
        for _, part in ipairs(one.subresources or {}) do
          r.subresources[part.subresource] = true
        end
        found[#found + 1] = r
      end
    end
  end
  return found
end

local function ask(cluster, path, accept)
  return json.decode(cluster:send({ path = path, accept = accept }).body, { name = cluster.name })
end

-- Of every group the version the server prefers, then the others: some kinds are in those alone.
local function versions_of(groups)
  local list, late = {}, {}
  for _, group in ipairs(groups) do
    local preferred = group.preferredVersion and group.preferredVersion.groupVersion
    local into = LAST[group.name] and late or list
    into[#into + 1] = preferred
    for _, version in ipairs(group.versions) do
      into[#into + 1] = version.groupVersion ~= preferred and version.groupVersion or nil
    end
  end
  return table.move(late, 1, #late, #list + 1, list)
end

-- An aggregated API whose server is down must not hide all the others.
local function ask_versions(cluster, versions, failures)
  local lists = {}
  task.each(versions, { limit = 8 }, function(version, i)
    local ok, answer = xpcall(ask, errors.handler, cluster, "/apis/" .. version)
    if ok then
      lists[i] = of_list(answer)
    elseif errors.is_cancelled(answer) or not (errors.is(answer, "busy") or errors.is(answer, "missing") or errors.is(answer, "lost")) then
      error(answer, 0)
    else
      failures[#failures + 1] = ("%s (%s)"):format(version, tostring(answer))
      lists[i] = {}
    end
  end)
  local all = {}
  for _, list in ipairs(lists) do
    table.move(list, 1, #list, #all + 1, all)
  end
  return all
end

local function ask_groups(cluster, failures)
  local answer = ask(cluster, "/apis", AGGREGATED)
  if answer.kind == "APIGroupDiscoveryList" then
    return of_aggregated(answer)
  end
  return ask_versions(cluster, versions_of(answer.groups), failures)
end

-- ---- finding ----

local function state_of(cluster)
  local c = cluster.client
  c.discovery = c.discovery or { failures = {} }
  return c.discovery
end

-- While somebody asks, the others wait for the answer.
local function once(state, field, fn)
  while state["asking_" .. field] do
    task.sleep(0.01)
  end
  if state[field] == nil then
    state["asking_" .. field] = true
    local _ <close> = setmetatable({}, { __close = function() state["asking_" .. field] = nil end })
    state[field] = fn()
  end
  return state[field]
end

local function core_of(cluster, state)
  return once(state, "core", function() return of_list(ask(cluster, "/api/v1")) end)
end

local function groups_of(cluster, state)
  return once(state, "groups", function()
    state.failures, state.asked = {}, time.now()
    return ask_groups(cluster, state.failures)
  end)
end

-- "deployments.v1.apps" as word, version and group.
local function split(name)
  local word, rest = name:match "^([^.]+)%.?(.*)$"
  local version, group = rest:match "^(v%d[%w]*)%.?(.*)$"
  if version then
    return word:lower(), version, group
  end
  return word:lower(), nil, rest ~= "" and rest or nil
end

local function matches(r, word, version, group)
  return (group == nil or r.group == group) and (version == nil or r.version == version)
    and (r.plural == word or r.kind:lower() == word or r.singular == word or r.short[word])
end

local function search(list, name)
  local word, version, group = split(name)
  for _, r in ipairs(list) do
    if matches(r, word, version, group) then
      return r
    end
  end
end

local function unknown(cluster, state, name)
  local names = {}
  for _, list in ipairs { state.core, state.groups } do
    for _, r in ipairs(list) do
      names[#names + 1] = r.kind
    end
  end
  local near = nearest(name, names)
  errors.raise { kind = "missing", code = "EKIND", target = cluster.name,
    message = ("it has no kind `%s`%s"):format(name, near and ("; did you mean `" .. near .. "`?") or ""),
    hint = #state.failures > 0 and "these groups did not answer: " .. table.concat(state.failures, "; ")
      or "is its CRD installed? `kubectl api-resources` lists the kinds" }
end

-- Known for longer than a moment, and so worth asking for again.
local function forget(state)
  if time.now() - state.asked < discovery.again_seconds then
    return false
  end
  state.core, state.groups = nil, nil
  return true
end

--- The resource that a word means.
---@async
---@param cluster runbook.Cluster
---@param name string  a kind, or what kubectl takes: plural, singular, short, with its group behind a dot
---@return runbook.kube.Resource
function discovery.find(cluster, name)
  local state = state_of(cluster)
  repeat
    local found = search(core_of(cluster, state), name) or search(groups_of(cluster, state), name)
    if found then
      return found
    end
  until not forget(state)
  return unknown(cluster, state, name)
end

-- The resources of a version of a group; none, where the cluster has not even that.
local function list_of(cluster, api)
  local ok, answer = xpcall(ask, errors.handler, cluster, "/apis/" .. api)
  if not ok and not errors.is(answer, "missing") then
    error(answer, 0)
  end
  return ok and of_list(answer) or {}
end

--- The resource of an object, by its apiVersion and kind.
---@async
---@param cluster runbook.Cluster
---@param api string   "apps/v1"
---@param kind string
---@return runbook.kube.Resource
function discovery.of(cluster, api, kind)
  local state = state_of(cluster)
  if not api:find("/", 1, true) then
    return discovery.find(cluster, ("%s.%s"):format(kind, api))
  end
  local lists = state.lists or {}
  state.lists = lists
  for try = 1, 2 do
    if try == 2 then
      lists[api] = nil
    end
    lists[api] = lists[api] or list_of(cluster, api)
    for _, r in ipairs(lists[api]) do
      if r.kind == kind then
        return r
      end
    end
  end
  errors.raise { kind = "missing", code = "EKIND", target = cluster.name, message = ("it has no kind `%s` in %s"):format(kind, api),
    hint = "is its CRD installed? `kubectl api-resources` lists the kinds" }
end

--- Every resource there is.
---@async
---@param cluster runbook.Cluster
---@return runbook.kube.Resource[]
function discovery.all(cluster)
  local state = state_of(cluster)
  local all = {}
  for _, list in ipairs { core_of(cluster, state), groups_of(cluster, state) } do
    table.move(list, 1, #list, #all + 1, all)
  end
  return all
end

return discovery
