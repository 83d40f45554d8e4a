--- Objects from one cluster to another, and all that is in a namespace as a file.
---
---     kube.copy_object { from = { old, "Secret", "https-auto-tls", namespace = "temple" }, to = { new, namespace = "prod" } }
---     kube.copy_object { from = { old, "Secret", "hub", namespace = "temple" }, to = { new, namespace = "prod" },
---                        keys = { "hub.config.CryptKeeper.keys" } }                            -- these keys, the others stay
---     rb.attach(kube.manifests(old, { namespace = "temple" }), "manifests.yaml")

local changes = require "runbook.kube.changes"
local difference = require "runbook.kube.difference"
local digest = require "runbook.core.digest"
local discovery = require "runbook.kube.discovery"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local json = require "runbook.json"
local kept = require "runbook.kube.kept"
local options = require "runbook.options"
local reads = require "runbook.kube.reads"
local secret = require "runbook.secret"
local which = require "runbook.kube.which"
local yaml = require "runbook.yaml"

local copy = {}

local function target(o)
  return o.cluster.name
end

-- ---- one object ----

local function remove_path(object, path)
  local parent, last = object, nil
  for part in path:gmatch "[^.]+" do
    if last then
      parent = type(parent[last]) == "table" and parent[last] or {}
    end
    last = part
  end
  if last then
    parent[last] = nil
  end
end

local function only_keys(object, keys)
  local data = json.object {}
  for _, key in ipairs(keys) do
    local value = object.data and object.data[key]
    if value == nil then
      errors.raise { kind = "missing", code = "EKEY", message = ("%s has no key %s"):format(which.words(changes.reference(object)), key) }
    end
    data[key] = value
  end
  object.data = data
end

-- What the other cluster shall have.
local function wanted(o)
  local object = difference.strip((reads.object(o.from, o.what)))
  object.metadata.ownerReferences, object.metadata.finalizers = nil, nil
  for _, path in ipairs(o.strip) do
    remove_path(object, path)
  end
  if o.keys then
    only_keys(object, o.keys)
    object.metadata.labels, object.metadata.annotations = nil, nil
  end
  local resource, namespace = which.resolve(o.cluster, { kind = object.kind, api = object.apiVersion, namespace = o.namespace })
  object.metadata.name, object.metadata.namespace = o.name or o.what.name, namespace
  return object, resource
end

local function reference(o)
  return { kind = o.what.kind, api = o.what.api, name = o.name or o.what.name, namespace = o.namespace or o.cluster:default_namespace() }
end

-- As it will be: of some keys, the rest of what is there stays.
local function merged(o, object, current)
  if o.keys and current then
    return difference.merged(current, { data = object.data })
  end
  return object
end

local copy_verb = effect.verb {
  name = "kube.copy", class = "change", repeatable = true, quiet = true, target = target,
  summary = function(o)
    local what = which.words(o.what)
    return ("copy %s from %s to %s"):format(o.keys and ("%d keys of %s"):format(#o.keys, what) or what, o.from.name,
      o.namespace and ("%s in %s"):format(o.cluster.name, o.namespace) or o.cluster.name)
  end,
  by_hand = function(o)
    local argv = which.argv(o.what, "get")
    return ("%s   # without its uid and state, to: %s"):format(o.from:by_hand(table.move({ "-o", "yaml" }, 1, 2, #argv + 1, argv)),
      o.cluster:by_hand { "-n", o.namespace or "default", "apply", "-f", "-" })
  end,
  inverse = function(o)
    local ref = reference(o)
    local current = changes.look(o.cluster, ref)
    if current == nil then
      return { "kube.unmake", o.cluster, ref }
    elseif current.kind == "Secret" then
      return { "kube.put_back_kept", o.cluster, ref, kept.name_for(current) }
    end
    local undo = difference.patch(difference.strip(merged(o, wanted(o), current)), difference.strip(current))
    return { "kube.put_back", o.cluster, ref, current.metadata.uid, undo or json.object {} }
  end,
  preview = function(o)
    local current = changes.look(o.cluster, reference(o))
    local object = wanted(o)
    if current == nil then
      return { before = "nothing", after = "made" }
    end
    return difference.words(difference.strip(current),
      difference.patch(difference.strip(current), difference.strip(merged(o, object, current))))
  end,
  body = function(o)
    local object, resource = wanted(o)
    local current = changes.look(o.cluster, reference(o))
    if current and current.kind == "Secret" then
      kept.keep(o.cluster, current)
    end
    local new = current and difference.strip(merged(o, object, current)) or object
    new.metadata.resourceVersion, new.metadata.uid = current and current.metadata.resourceVersion, current and current.metadata.uid
    o.cluster:send { method = current and "PUT" or "POST", path = resource:path(object.metadata.namespace, current and new.metadata.name),
      json = new, query = { fieldManager = changes.manager } }
  end,
}

local check_copy = options.declare("kube.copy_object", {
  from = { "table", "{ cluster, kind, name, namespace = }" },
  to = { "table", "{ cluster, namespace =, name = }" },
  keys = { "list", "of a Secret or ConfigMap: these alone; the others over there stay", optional = true },
  strip = { "list", "paths that are left out, like metadata.labels", default = {} },
})

--- Copy an object, within a cluster or to another. What belongs to the cluster it is in stays behind: uid, versions, owners, state.
---@async
---@param o table  from = { cluster, kind, name, namespace = }, to = { cluster, namespace =, name = }, keys, strip
function copy.object(o)
  o = check_copy(o, 2)
  local from, to = o.from, o.to
  if type(from[1]) ~= "table" or type(to[1]) ~= "table" or type(from[2]) ~= "string" or type(from[3]) ~= "string" then
    errors.raise({ kind = "usage",
      message = "kube.copy_object: from = { cluster, kind, name, namespace = }, to = { cluster, namespace = }" }, 2)
  end
  copy_verb { cluster = to[1], namespace = to.namespace, name = to.name, from = from[1], keys = o.keys, strip = o.strip,
    what = { kind = from[2], name = from[3], namespace = from.namespace, api = from.api } }
end

-- ---- a namespace ----

-- Made by the cluster itself all the time, or nothing that could be put back.
local LEFT_OUT = { Event = true, Endpoints = true, EndpointSlice = true, Lease = true, ControllerRevision = true, PodMetrics = true,
  LocalSubjectAccessReview = true, Binding = true }

-- A Secret's values as digests under a key of this file, so that two can be compared and none read.
local function digested(object, key)
  for name, value in pairs(object.data or {}) do
    object.data[name] = secret.is(value) and ("«hmac-sha256 %s»"):format(secret.digest(value, key):sub(1, 16)) or value
  end
  return object
end

local function resources_of(cluster)
  local list, seen = {}, {}
  for _, r in ipairs(discovery.all(cluster)) do
    local moved = r.group == "extensions" or r.group == "events.k8s.io"
    if r.namespaced and r.verbs.list and not LEFT_OUT[r.kind] and not moved and not seen[r.group .. r.plural] then
      seen[r.group .. r.plural] = true
      list[#list + 1] = r
    end
  end
  table.sort(list, function(a, b) return a.kind < b.kind end)
  return list
end

local function append_all(cluster, r, namespace, texts, key)
  reads.each(cluster, { kind = r.plural .. "." .. r.version .. "." .. r.group, namespace = namespace }, function(object)
    if not object.metadata.ownerReferences then -- its owner makes it again
      object = object.kind == "Secret" and digested(object, key) or object
      texts[#texts + 1] = yaml.encode(difference.strip(object), { order = { "apiVersion", "kind", "metadata" } })
    end
  end)
end

local manifests = effect.verb {
  name = "kube.manifests", class = "read", target = target,
  summary = function(o) return "read all objects of " .. o.namespace end,
  by_hand = function(o)
    return o.cluster:by_hand { "-n", o.namespace, "get", "all,cm,secret,ingress,pvc,role,rolebinding", "-o", "yaml" }
  end,
  body = function(o)
    local texts, refused = {}, {}
    local key = digest.random(32)
    for _, r in ipairs(resources_of(o.cluster)) do
      local ok, err = xpcall(append_all, errors.handler, o.cluster, r, o.namespace, texts, key)
      if not ok and not (errors.is(err, "refused") or errors.is(err, "missing") or errors.is(err, "busy")) then
        error(err, 0)
      elseif not ok then
        refused[#refused + 1] = ("# %s: not here: %s"):format(r:full_name(), (tostring(err):gsub("\n.*", "")))
      end
    end
    local head = ("# %s, namespace %s\n"):format(o.cluster.name, o.namespace)
    return head .. table.concat(refused, "\n") .. (#refused > 0 and "\n" or "") .. "---\n" .. table.concat(texts, "---\n")
  end,
}

local check_manifests = options.declare("kube.manifests", { namespace = { "string", "whose objects" } })

--- All objects of a namespace as YAML, to be kept: without their state, without what their owners make again, and with digests
--- for what Secrets hold.
---@async
---@param cluster runbook.Cluster
---@param o { namespace: string }
---@return string yaml
function copy.manifests(cluster, o)
  o = check_manifests(o, 2)
  return manifests { cluster = cluster, namespace = o.namespace }
end

return copy
