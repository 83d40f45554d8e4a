--- Changing objects: apply, create, patch, scale. Each knows how it is undone before it is done.
---
---     cluster:apply { apiVersion = "v1", kind = "ConfigMap", metadata = { name = "page", namespace = "prod" }, data = { a = "1" } }
---     cluster:patch { "Ingress", "jupyterhub", namespace = "prod", merge = { metadata = { annotations = { ["a/b"] = "c" } } } }
---     cluster:scale { "Deployment", "hub", namespace = "prod", replicas = 0 }
---
--- `apply` is the server's own (server-side) under the name `runbook`: fields of others are a conflict that says whose they are.
--- A patch goes to the very object, in the very state, that was looked at; when somebody has changed what it touches, it stops.

local body = require "runbook.kube.body"
local cluster = require "runbook.kube.cluster"
local difference = require "runbook.kube.difference"
local discovery = require "runbook.kube.discovery"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local json = require "runbook.json"
local kept = require "runbook.kube.kept"
local options = require "runbook.options"
local reads = require "runbook.kube.reads"
local status = require "runbook.kube.status"
local which = require "runbook.kube.which"
local yaml = require "runbook.yaml"

local Cluster = cluster.Cluster

local changes = {}

changes.manager = "runbook" -- whose fields they are

local CONFLICTS = 10 -- of one patch with others who change the object

local function target(self)
  return self.name
end

-- The object of a selection, or nil.
local function look(self, o)
  return status.if_there(reads.object, self, o)
end
changes.look = look

--- What is kept of an object to find it again.
---@return { api: string, kind: string, name: string, namespace: string? }
function changes.reference(object)
  return { api = object.apiVersion, kind = object.kind, name = object.metadata.name, namespace = object.metadata.namespace }
end

local reference = changes.reference

local function words(object)
  return which.words(reference(object))
end

-- ---- objects that are given ----

local function check_object(where, object)
  local m = type(object) == "table" and object.metadata
  if type(object) ~= "table" or type(object.apiVersion) ~= "string" or type(object.kind) ~= "string" or type(m) ~= "table" then
    errors.raise({ kind = "usage", message = where .. ": an object has apiVersion, kind and metadata" }, 4)
  elseif type(m.name) ~= "string" or m.name == "" then
    errors.raise({ kind = "usage", message = where .. ": the object has no name",
      hint = m.generateName and "a name we choose is found again after a crash; generateName is not" or nil }, 4)
  end
end

-- A copy that is ready to be sent, in its namespace.
local function prepared(self, object, namespace)
  local new = difference.copy(object)
  local resource = discovery.of(self, new.apiVersion, new.kind)
  if resource.namespaced then
    new.metadata.namespace = new.metadata.namespace or namespace or self:default_namespace()
  end
  new.metadata.managedFields, new.metadata.resourceVersion, new.metadata.uid = nil, nil, nil
  return new, resource, resource.namespaced and new.metadata.namespace or nil
end

-- Old servers drop fields they do not know; `readonly` for `readOnly` is then a disk mounted for writing.
local function say_dropped(self, wanted, real)
  local paths = difference.dropped(wanted, real)
  if #paths > 0 then
    events.notice(("%s: %s: the server has dropped %s; spelt right?"):format(self.name, words(wanted), table.concat(paths, ", ")),
      "warning")
  end
end

local function send(self, o)
  local answer = self:send_json(o)
  return body.hide(answer, { later = true })
end

-- ---- apply ----

local function send_apply(self, object, o, dry)
  local new, resource, namespace = prepared(self, object, o.namespace)
  return send(self, {
    method = "PATCH", path = resource:path(namespace, new.metadata.name), content_type = "application/apply-patch+yaml", json = new,
    reads = dry, query = { fieldManager = changes.manager, force = o.force and "true" or nil, fieldValidation = "Strict",
      dryRun = dry and "All" or nil },
  }), new
end

-- Where a trial is not allowed, or an admission cannot do one, what was asked for stands for what would come of it.
local function no_trial(err)
  return errors.is(err) and (err.kind == "refused" or err.code == "BadRequest" and tostring(err):find("dry", 1, true))
end

--- What an apply would make, by a trial of the server; without one, as far as we can tell.
local function after_apply(self, object, o, current)
  local ok, after = xpcall(send_apply, errors.handler, self, object, o, true)
  if ok then
    return after
  elseif current and no_trial(after) then
    local wanted = prepared(self, object, o.namespace)
    return difference.merged(current, wanted)
  end
  error(after, 0)
end

local function selection(self, object, o)
  local ref = reference(object)
  ref.namespace = ref.namespace or o.namespace or self:default_namespace()
  return ref
end

local function undo_of_change(self, ref, current, after)
  local found = difference.strip(current)
  local patch = difference.patch(difference.strip(after), found)
  if current.kind == "Secret" then
    return { "kube.put_back_kept", self, ref, kept.name_for(current) }
  end
  return { "kube.put_back", self, ref, current.metadata.uid, patch or json.object {} }
end

local function preview_of(current, after)
  if current == nil then
    return { before = "nothing", after = "made" }
  end
  return difference.words(difference.strip(current), difference.patch(difference.strip(current), difference.strip(after)))
end

local function keep_secret(self, current)
  if current and current.kind == "Secret" then
    kept.keep(self, current)
  end
end

local apply = effect.verb {
  name = "kube.apply", class = "change", repeatable = true, quiet = true, target = target,
  summary = function(_, object) return "apply " .. words(object) end,
  by_hand = function(self, _, o)
    local argv = { "apply", "--server-side", "--field-manager", changes.manager, "-f", "-" }
    if o.force then
      table.insert(argv, 3, "--force-conflicts")
    end
    return self:by_hand(argv)
  end,
  inverse = function(self, object, o)
    local ref = selection(self, object, o)
    local current = look(self, ref)
    if current == nil then
      return { "kube.unmake", self, ref }
    end
    return undo_of_change(self, ref, current, after_apply(self, object, o, current))
  end,
  preview = function(self, object, o)
    local current = look(self, selection(self, object, o))
    local after = after_apply(self, object, o, current)
    return preview_of(current, after)
  end,
  body = function(self, object, o)
    if object.kind == "Secret" then
      keep_secret(self, look(self, selection(self, object, o)))
    end
    local real, wanted = send_apply(self, object, o, false)
    say_dropped(self, wanted, real)
    return real
  end,
}

local check_apply = options.declare("cluster:apply", {
  force = { "boolean", "take over fields that belong to others", default = false },
  namespace = { "string", "for objects that do not say theirs; the context's, when missing", optional = true },
})

local function objects_of(where, given)
  local list = given
  if type(given) == "string" then
    list = yaml.decode(given, { many = true, name = where })
  elseif type(given) == "table" and given.kind == "List" then
    list = given.items
  elseif type(given) == "table" and given.kind then
    list = { given }
  end
  for _, object in ipairs(list) do
    if object ~= json.null then
      check_object(where, object)
    end
  end
  return list
end

--- Make objects as they are given, and own the fields they name. Twice is once.
---@async
---@param objects table|string  an object, a list of them, or YAML
---@param o? { force?: boolean, namespace?: string }
---@return table? object  the last, as it is now; nothing in a plan
function Cluster:apply(objects, o)
  o = check_apply(o, 2)
  local last
  for _, object in ipairs(objects_of("cluster:apply", objects)) do
    if object ~= json.null then
      last = apply(self, object, o)
    end
  end
  return last
end

-- ---- create ----

local create = effect.verb {
  name = "kube.create", class = "change", quiet = true, target = target,
  summary = function(_, object) return "create " .. words(object) end,
  by_hand = function(self) return self:by_hand { "create", "-f", "-" } end,
  inverse = function(self, object, o)
    return { "kube.unmake", self, selection(self, object, o) }
  end,
  preview = function() return preview_of(nil) end,
  body = function(self, object, o)
    local new, resource, namespace = prepared(self, object, o.namespace)
    local real = send(self, { method = "POST", path = resource:path(namespace), json = new,
      query = { fieldManager = changes.manager, fieldValidation = "Strict" } })
    say_dropped(self, new, real)
    return real
  end,
}

--- Make an object that is not there yet; kind `conflict` when it is.
---@async
---@param object table
---@param o? { namespace?: string }
---@return table? object  as it is now; nothing in a plan
function Cluster:create(object, o)
  check_object("cluster:create", object)
  return create(self, object, check_apply(o, 2))
end

-- ---- patch ----

local KINDS = { merge = "application/merge-patch+json", json = "application/json-patch+json",
  strategic = "application/strategic-merge-patch+json" }

local check_patch = which.declare_one("cluster:patch", {
  merge = { "table", "what changes, null removes; lists as a whole", optional = true },
  strategic = { "table", "the same, and lists are merged by their keys; not for CRDs", optional = true },
  json = { "list", "operations, as JSON Patch has them", optional = true },
  subresource = { "string", "a part of it: status, scale", optional = true },
  uid = { "string", "only this very object", optional = true },
  resource_version = { "string", "only in this very state", optional = true },
})

local function kind_of_patch(o)
  local found
  for name in pairs(KINDS) do
    if o[name] ~= nil and found then
      errors.raise({ kind = "usage", message = "cluster:patch: one of merge, strategic and json" }, 3)
    end
    found = o[name] ~= nil and name or found
  end
  if not found then
    errors.raise({ kind = "usage", message = "cluster:patch: `merge`, `strategic` or `json` says what changes" }, 3)
  end
  return found
end

-- The patch, and with it the object and the state it is for.
local function pinned(o, uid, version)
  if o.patch_kind == "json" then
    local list = json.array { { op = "add", path = "/metadata/uid", value = uid } }
    list[2] = version and { op = "add", path = "/metadata/resourceVersion", value = version } or nil
    return table.move(o.json, 1, #o.json, #list + 1, list)
  end
  local patch = difference.copy(o[o.patch_kind])
  patch.metadata = patch.metadata or json.object {}
  patch.metadata.uid, patch.metadata.resourceVersion = uid, version
  return patch
end

local function send_patch(self, o, current, dry)
  local resource, namespace = which.resolve(self, o)
  return send(self, {
    method = "PATCH", path = resource:path(namespace, o.name, o.subresource), content_type = KINDS[o.patch_kind], reads = dry,
    json = pinned(o, current.metadata.uid, current.metadata.resourceVersion),
    query = { fieldManager = changes.manager, fieldValidation = "Strict", dryRun = dry and "All" or nil },
  })
end

local function after_patch(self, o, current)
  local ok, after = xpcall(send_patch, errors.handler, self, o, current, true)
  if ok then
    return after
  elseif no_trial(after) and o.patch_kind == "merge" then
    return difference.merged(current, o.merge)
  end
  error(after, 0)
end

-- The value at a path of JSON Pointer.
local function at_pointer(object, path)
  local value = object
  for part in path:gmatch "/([^/]*)" do
    part = part:gsub("~1", "/"):gsub("~0", "~")
    if type(value) ~= "table" or value == json.null then
      return nil
    end
    local index = math.tointeger(tonumber(part))
    value = value[json.kind(value) == "array" and index and index + 1 or part]
  end
  return value
end

-- What of an object a patch is about.
local function touched(object, o)
  if o.patch_kind ~= "json" then
    return difference.touched(object, o[o.patch_kind])
  end
  local part = json.object {}
  for _, operation in ipairs(o.json) do
    local value = at_pointer(object, operation.path or "")
    part[operation.path or ""] = value == nil and json.null or value
  end
  return part
end

local function must_be(o, current)
  if o.uid and current.metadata.uid ~= o.uid then
    errors.raise { kind = "conflict", code = "EUID",
      message = ("%s is another one than was looked at: it was removed and made again"):format(which.words(o)) }
  elseif o.resource_version and current.metadata.resourceVersion ~= o.resource_version then
    errors.raise { kind = "conflict", code = "Conflict",
      message = ("%s was changed since it was looked at"):format(which.words(o)), hint = "look again, and decide again" }
  end
  return current
end

local function raise_changed(o, first, now)
  local said = difference.words(first, difference.patch(first, now))
  errors.raise { kind = "conflict", code = "Conflict",
    message = ("%s: somebody changed what this patch touches: %s, it was %s"):format(which.words(o), said.after, said.before),
    hint = "look again, and decide again" }
end

-- Others change other parts of an object all the time; only a change of what this touches is a conflict.
local function patch_until_done(self, o)
  local first
  for try = 1, CONFLICTS do
    local current = must_be(o, (reads.object(self, o)))
    local part = touched(current, o)
    if first and not difference.same(first, part) then
      raise_changed(o, first, part)
    end
    first = first or part
    local ok, result = xpcall(send_patch, errors.handler, self, o, current, false)
    if ok then
      return result
    elseif not errors.is(result, "conflict") or o.resource_version or try == CONFLICTS then
      error(result, 0)
    end
  end
end

-- A merge done twice is done once (RFC 7386), and so are replacements (RFC 6902).
local function is_once(_, o)
  if o.patch_kind ~= "json" then
    return o.patch_kind == "merge"
  end
  for _, operation in ipairs(o.json) do
    if operation.op ~= "replace" and operation.op ~= "test" then
      return false
    end
  end
  return true
end

local patch = effect.verb {
  name = "kube.patch", class = "change", quiet = true, target = target, repeatable = is_once,
  summary = function(_, o) return ("change %s%s"):format(which.words(o), o.subresource and "/" .. o.subresource or "") end,
  by_hand = function(self, o)
    local argv = which.argv(o, "patch")
    local ok, text = pcall(json.encode, o[o.patch_kind])
    table.move({ "--type", o.patch_kind, "-p", ok and text or "..." }, 1, 4, #argv + 1, argv)
    return self:by_hand(argv)
  end,
  inverse = function(self, o)
    local current = must_be(o, (reads.object(self, o)))
    local ref = reference(current)
    ref.subresource = o.subresource
    return undo_of_change(self, ref, current, after_patch(self, o, current))
  end,
  preview = function(self, o)
    local current = must_be(o, (reads.object(self, o)))
    return preview_of(current, after_patch(self, o, current))
  end,
  body = function(self, o)
    if o.kind == "Secret" then
      keep_secret(self, look(self, o))
    end
    return patch_until_done(self, o)
  end,
}

--- Change parts of an object.
---@async
---@param o table  kind, name, namespace; merge, strategic or json; subresource, uid, resource_version
---@return table? object  as it is now; nothing in a plan
function Cluster:patch(o)
  o = check_patch(o)
  o.patch_kind = kind_of_patch(o)
  return patch(self, o)
end

-- ---- scale ----

local check_scale = which.declare_one("cluster:scale", {
  replicas = { "integer", "how many" },
  uid = { "string", "only this very object", optional = true },
})

local function scale_of(self, o)
  local resource, namespace = which.resolve(self, o)
  local path = resource:path(namespace, o.name, "scale")
  return self:send_json { path = path }, path
end

local scale = effect.verb {
  name = "kube.scale", class = "change", repeatable = true, quiet = true, target = target,
  summary = function(_, o) return ("scale %s to %d"):format(which.words(o), o.replicas) end,
  by_hand = function(self, o)
    local argv = which.argv(o, "scale")
    return self:by_hand(table.move({ "--replicas", tostring(o.replicas) }, 1, 2, #argv + 1, argv))
  end,
  inverse = function(self, o)
    local now = scale_of(self, o)
    return { "kube.scale", self, { kind = o.kind, api = o.api, name = o.name, namespace = now.metadata.namespace, uid = now.metadata.uid,
      replicas = now.spec.replicas or 0 } }
  end,
  preview = function(self, o)
    local now = must_be(o, (scale_of(self, o)))
    return { before = ("replicas %d"):format(now.spec.replicas or 0), after = ("replicas %d"):format(o.replicas) }
  end,
  body = function(self, o)
    local now, path = scale_of(self, o)
    must_be(o, now)
    self:send { method = "PATCH", path = path, content_type = KINDS.merge, query = { fieldManager = changes.manager },
      json = { metadata = { uid = now.metadata.uid }, spec = { replicas = o.replicas } } }
  end,
}

--- Say how many replicas there are to be. It does not wait for them: `wait` does.
---@async
---@param o { kind: string, name: string, namespace?: string, replicas: integer, uid?: string }
function Cluster:scale(o)
  scale(self, check_scale(o))
end

-- ---- back ----

effect.verb {
  name = "kube.put_back", class = "change", repeatable = true, quiet = true, inverse = effect.NOT_NEEDED, target = target,
  summary = function(_, ref) return "put back " .. which.words(ref) end,
  by_hand = function(self, ref, _, undo)
    local argv = which.argv(ref, "patch")
    table.move({ "--type", "merge", "-p", json.encode(undo) }, 1, 4, #argv + 1, argv)
    return self:by_hand(argv)
  end,
  body = function(self, ref, uid, undo)
    local o = { kind = ref.kind, api = ref.api, name = ref.name, namespace = ref.namespace, subresource = ref.subresource, uid = uid,
      merge = undo, patch_kind = "merge" }
    if next(undo) ~= nil then
      patch_until_done(self, o)
    end
  end,
}

return changes
