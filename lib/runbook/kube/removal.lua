--- Removing objects: only the one that was looked at, with what hangs on it, and not over before it is gone.
---
---     cluster:delete { "Ingress", "jupyterhub", namespace = "prod" }                -- undone by making it again
---     cluster:delete { "PersistentVolumeClaim", "old", namespace = "prod" }        -- holds data: `destroy`, without undo

local changes = require "runbook.kube.changes"
local cluster = require "runbook.kube.cluster"
local difference = require "runbook.kube.difference"
local discovery = require "runbook.kube.discovery"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local kept = require "runbook.kube.kept"
local watch = require "runbook.kube.watch"
local which = require "runbook.kube.which"

local Cluster = cluster.Cluster

local removal = {}

-- With these goes what people have put into them.
local HOLD_DATA = { PersistentVolumeClaim = true, PersistentVolume = true, Namespace = true, CustomResourceDefinition = true,
  VolumeSnapshot = true, VolumeSnapshotContent = true }

local check_delete = which.declare_one("cluster:delete", {
  uid = { "string", "only this very object", optional = true },
  propagation = { "string", "what becomes of what it owns", choices = { "Background", "Foreground", "Orphan" }, default = "Background" },
  grace = { "integer", "seconds its pods get to end", optional = true },
  wait = { "boolean", "until it is gone", default = true },
  timeout = { "number", "seconds to wait", default = 300 },
})

local function target(self)
  return self.name
end

local function look(self, o)
  local current = changes.look(self, o)
  if current and o.uid and current.metadata.uid ~= o.uid then
    return nil, current -- that one is gone already; this is another by its name
  end
  return current
end

-- Why it is still there.
local function raise_stuck(self, o, last)
  local m = last and last.metadata or {}
  local finalizers = m.finalizers and #m.finalizers > 0 and table.concat(m.finalizers, ", ")
  errors.raise { kind = "timeout", code = "ETERMINATING", target = self.name,
    message = ("%s is still there after %g s%s"):format(which.words(o), o.timeout,
      finalizers and ("; it waits for its finalizers: %s"):format(finalizers) or ""),
    hint = finalizers and "whoever owns a finalizer removes it; look whether that controller runs"
      or "a node that is gone never says that its pods have ended; `grace = 0` does not wait for it" }
end

-- Waits until the object of that uid is gone.
local function wait_gone(self, o, uid)
  local last
  local selection = { kind = o.kind, api = o.api, name = o.name, namespace = o.namespace, timeout = o.timeout }
  local ok, err = xpcall(watch.run, errors.handler, self, selection, function(event, object)
    local is_it = object and object.metadata.uid == uid
    if is_it then
      last = object
    end
    if event == "DELETED" and is_it or event == "SYNCED" and last == nil then
      return true
    end
  end)
  if not ok and errors.is(err, "timeout") then
    raise_stuck(self, o, last)
  elseif not ok then
    error(err, 0)
  end
end

local function remove(self, o)
  local current = look(self, o)
  if current == nil then
    events.notice(("%s: %s is not there"):format(self.name, which.words(o)))
    return
  elseif current.kind == "Secret" then
    kept.keep(self, current)
  end
  local uid = current.metadata.uid
  local resource, namespace = which.resolve(self, o)
  local ok, err = xpcall(self.send, errors.handler, self, { method = "DELETE", path = resource:path(namespace, o.name),
    json = { kind = "DeleteOptions", apiVersion = "v1", propagationPolicy = o.propagation, gracePeriodSeconds = o.grace,
      preconditions = { uid = uid } } })
  if not ok and not (errors.is(err) and err.code == "NotFound") then
    error(err, 0)
  elseif ok and o.wait then
    wait_gone(self, o, uid)
  end
end

local function inverse_of_delete(self, o)
  local current = look(self, o)
  if current == nil then
    return effect.NOT_NEEDED
  elseif current.kind == "Secret" then
    return { "kube.put_back_kept", self, changes.reference(current), kept.name_for(current) }
  elseif current.metadata.ownerReferences then
    return effect.NOT_NEEDED -- its owner makes it again, or was removed itself
  end
  return { "kube.make_again", self, difference.strip(current) }
end

local function verb_of(name, class, inverse)
  return effect.verb {
    name = name, class = class, repeatable = true, quiet = true, target = target, inverse = inverse, body = remove,
    summary = function(_, o) return "delete " .. which.words(o) end,
    by_hand = function(self, o)
      local argv = which.argv(o, "delete")
      return self:by_hand(table.move({ "--cascade", o.propagation:lower() }, 1, 2, #argv + 1, argv))
    end,
    preview = function(self, o)
      return { before = look(self, o) and "there" or "not there", after = "gone" }
    end,
  }
end

local delete = verb_of("kube.delete", "change", inverse_of_delete)
local destroy = verb_of("kube.destroy", "destroy")

--- Remove an object and wait until it is gone; one that is not there is no failure. Claims, volumes, namespaces and CRDs hold
--- data: their removal has no undo and is of class `destroy`.
---@async
---@param o table  kind, name, namespace; uid, propagation, grace, wait, timeout
function Cluster:delete(o)
  o = check_delete(o)
  local context = require("runbook.core.task").context()
  local resource = context.mode ~= "loading" and effect.reading(which.resolve, self, o)
  if resource and HOLD_DATA[resource.kind] then
    return destroy(self, o)
  end
  return delete(self, o)
end

-- ---- back ----

-- What a server chose for an object, and what another one must choose for itself.
local function without_choices(object)
  if object.kind == "Pod" then
    object.spec.nodeName = nil
  elseif object.kind == "Job" and object.spec.selector and not object.spec.manualSelector then
    local labels = object.spec.template.metadata.labels or {}
    object.spec.selector, labels["controller-uid"], labels["job-name"] = nil, nil, nil
    labels["batch.kubernetes.io/controller-uid"], labels["batch.kubernetes.io/job-name"] = nil, nil
  end
  return object
end

effect.verb {
  name = "kube.make_again", class = "change", repeatable = true, quiet = true, inverse = effect.NOT_NEEDED, target = target,
  summary = function(_, object) return "make again " .. which.words(changes.reference(object)) end,
  by_hand = function(self) return self:by_hand { "create", "-f", "-" } end,
  body = function(self, object)
    local resource = discovery.of(self, object.apiVersion, object.kind)
    if changes.look(self, changes.reference(object)) then
      return -- somebody, or half of this, has made it already
    end
    self:send { method = "POST", path = resource:path(object.metadata.namespace), query = { fieldManager = changes.manager },
      json = without_choices(difference.copy(object)) }
  end,
}

-- Did we make it? Others may have removed ours and made theirs by its name.
local function is_ours(object)
  for _, entry in ipairs(object.metadata.managedFields or {}) do
    if entry.manager == changes.manager then
      return true
    end
  end
  return false
end

effect.verb {
  name = "kube.unmake", class = "change", repeatable = true, quiet = true, inverse = effect.NOT_NEEDED, target = target,
  summary = function(_, ref) return "remove " .. which.words(ref) end,
  by_hand = function(self, ref) return self:by_hand(which.argv(ref, "delete")) end,
  body = function(self, ref)
    local current = changes.look(self, ref)
    if current == nil then
      return
    elseif not is_ours(current) then
      errors.raise { kind = "conflict", code = "ENOTOURS", target = self.name,
        message = ("%s was not made by this run: it has no field of `%s`"):format(which.words(ref), changes.manager),
        hint = "look who made it; it is left alone" }
    end
    remove(self, { kind = ref.kind, api = ref.api, name = ref.name, namespace = ref.namespace, propagation = "Background", wait = true,
      timeout = 300 })
  end,
}

return removal
