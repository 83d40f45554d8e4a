--- Which objects a call is about: its kind, name, namespace and selectors, checked and put in order.

local discovery = require "runbook.kube.discovery"
local errors = require "runbook.errors"
local handle = require "runbook.handle"
local options = require "runbook.options"
local unknown = require "runbook.unknown"

local which = {}

--- What every call that names objects may say.
which.common = {
  kind = { "string", "Deployment, deploy, deployments.apps; may stand first, without a name", optional = true },
  name = { "string", "of the object; may stand second", optional = true },
  namespace = { "string", "the context's, when missing", optional = true },
  api = { "string", "apiVersion, where a kind has several: apps/v1", optional = true },
}

--- What calls for many objects may say besides.
which.many = {
  labels = { "string|table", "a selector, or label = value", optional = true },
  fields = { "string|table", "a selector, or field = value", optional = true },
  all_namespaces = { "boolean", "of every namespace", default = false },
}

-- Results of steps stand for themselves; what only a run can know ends a plan here, before anybody is asked for it.
local function known(given, where)
  local o = {}
  for key, value in pairs(given) do
    value = handle.resolve(value)
    if unknown.is(value) then
      errors.raise({ kind = "unknown", plan_end = true, message = ("%s: `%s` is %s, which only a run can know"):format(where, tostring(key),
        type(value) == "table" and getmetatable(value) == nil and "something" or tostring(value)) }, 4)
    end
    o[key] = value
  end
  return o
end
which.known = known

--- A checker for a function's table: the common options and `...` more.
---@param where string
---@param ... table<string, table>
---@return fun(given: table): table
function which.declare(where, ...)
  local declared = {}
  for _, set in ipairs { which.common, ... } do
    for name, option in pairs(set) do
      declared[name] = option
    end
  end
  local check = options.declare(where, declared)
  return function(given)
    if type(given) ~= "table" then
      errors.raise({ kind = "usage", message = where .. ': takes a table, like { "Deployment", "hub" }' }, 3)
    end
    local o = check(known(given, where), 3)
    o.kind, o.name = o.kind or o[1], o.name or o[2]
    o[1], o[2] = nil, nil
    if type(o.kind) ~= "string" then
      errors.raise({ kind = "usage", message = where .. ": a kind is expected, like \"Deployment\"" }, 3)
    elseif o.name ~= nil and (type(o.name) ~= "string" or o.name == "") then
      errors.raise({ kind = "usage", message = where .. ": the name is text" }, 3)
    end
    return o
  end
end

--- The same, and one object has to be named.
---@return fun(given: table): table
function which.declare_one(where, ...)
  local check = which.declare(where, ...)
  return function(given)
    local o = check(given)
    if o.name == nil then
      errors.raise({ kind = "usage", message = ("%s: which %s?"):format(where, o.kind) }, 3)
    end
    return o
  end
end

--- The resource, and the namespace where it has one.
---@async
---@return runbook.kube.Resource
---@return string? namespace
function which.resolve(cluster, o)
  local resource = o.api and discovery.of(cluster, o.api, o.kind) or discovery.find(cluster, o.kind)
  local namespace = resource.namespaced and not o.all_namespaces and (o.namespace or cluster:default_namespace()) or nil
  return resource, namespace
end

--- A selector as the API takes it.
---@param value string|table?
---@return string?
function which.text(value)
  if type(value) ~= "table" then
    return value
  end
  local parts = {}
  for key, wanted in pairs(value) do
    parts[#parts + 1] = ("%s=%s"):format(key, tostring(wanted))
  end
  table.sort(parts)
  return table.concat(parts, ",")
end

--- "Deployment hub", "Pods with component=hub": for messages.
---@return string
function which.words(o)
  local text = o.name and ("%s %s"):format(o.kind, o.name) or o.kind
  if o.labels then
    text = ("%s with %s"):format(text, which.text(o.labels))
  end
  return o.namespace and ("%s in %s"):format(text, o.namespace) or o.all_namespaces and text .. " in every namespace" or text
end

--- The words of a kubectl line about these objects.
---@param ... string  before them: "get"
---@return string[]
function which.argv(o, ...)
  local argv = o.namespace and { "-n", o.namespace } or {}
  local function add(...)
    local words = table.pack(...)
    table.move(words, 1, words.n, #argv + 1, argv)
  end
  add(...)
  add(o.kind)
  argv[#argv + 1] = o.name
  if o.labels then
    add("-l", which.text(o.labels))
  end
  if o.fields then
    add("--field-selector", which.text(o.fields))
  end
  if o.all_namespaces then
    add "--all-namespaces"
  end
  return argv
end

return which
