--- Secrets as they were, kept beside them in the cluster: no journal holds what is in a Secret, and it must come back all the same.
---
--- Before a run first changes or removes Secret `hub`, it makes Secret `hub-kept-1a2b3c4d` of it, labelled `runbook.io/kept`. Undoing
--- the change puts that back and removes it. One that is never undone stays until somebody removes it.

local body = require "runbook.kube.body"
local difference = require "runbook.kube.difference"
local digest = require "runbook.core.digest"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local json = require "runbook.json"
local status = require "runbook.kube.status"
local task = require "runbook.core.task"
local which = require "runbook.kube.which"

local kept = {}

local WAS = "runbook.io/was"

local function path(namespace, name)
  return ("/api/v1/namespaces/%s/secrets%s"):format(namespace, name and "/" .. name or "")
end

local function find(self, namespace, name)
  local found = status.if_there(self.send_json, self, { path = path(namespace, name) })
  return found and body.hide(found)
end

--- What the copy of a Secret is called in this run.
---@param secret table  the object
---@return string
function kept.name_for(secret)
  local run = task.context().run_id or "ad-hoc"
  return ("%s-kept-%s"):format(secret.metadata.name:sub(1, 200), digest.hex(digest.sha256(secret.metadata.uid .. run, true)):sub(1, 8))
end

--- Keep it as it is; where this run has kept it before, that one stays.
---@async
---@param self runbook.Cluster
---@param secret table  the object
function kept.keep(self, secret)
  local m = secret.metadata
  local was = json.encode { name = m.name, type = secret.type, labels = m.labels,
    annotations = difference.strip(secret).metadata.annotations }
  local ok, err = xpcall(self.send, errors.handler, self, { method = "POST", path = path(m.namespace), query = { fieldManager = "runbook" },
    json = { apiVersion = "v1", kind = "Secret", type = "Opaque", data = secret.data, metadata = {
      name = kept.name_for(secret), namespace = m.namespace, labels = { ["runbook.io/kept"] = "true" }, annotations = { [WAS] = was } } } })
  if not ok and not (errors.is(err) and err.code == "AlreadyExists") then
    error(err, 0)
  end
end

-- The Secret that a copy was made of.
local function original(copy)
  local was = json.decode(copy.metadata.annotations[WAS])
  return { apiVersion = "v1", kind = "Secret", type = was.type, data = copy.data, metadata = {
    name = was.name, namespace = copy.metadata.namespace, labels = was.labels, annotations = was.annotations } }
end

local function put(self, secret)
  local m = secret.metadata
  local now = find(self, m.namespace, m.name)
  if now and now.type ~= secret.type then -- which cannot be changed
    self:send { method = "DELETE", path = path(m.namespace, m.name), json = { preconditions = { uid = now.metadata.uid } } }
    now = nil
  end
  m.resourceVersion = now and now.metadata.resourceVersion
  self:send { method = now and "PUT" or "POST", path = path(m.namespace, now and m.name), json = secret,
    query = { fieldManager = "runbook" } }
end

effect.verb {
  name = "kube.put_back_kept", class = "change", repeatable = true, quiet = true, inverse = effect.NOT_NEEDED,
  target = function(self) return self.name end,
  summary = function(_, ref) return "put back " .. which.words(ref) end,
  by_hand = function(self, ref, name)
    return self:by_hand { "-n", ref.namespace, "get", "secret", name, "-o", "yaml" } .. "   # and apply it as " .. ref.name
  end,
  body = function(self, ref, name)
    local copy = find(self, ref.namespace, name)
    if copy == nil then
      return -- it was never changed, or is back already
    end
    put(self, original(copy))
    self:send { method = "DELETE", path = path(ref.namespace, name), json = { preconditions = { uid = copy.metadata.uid } } }
  end,
}

-- Secrets that were kept in a namespace.
local function list(self, namespace)
  return self:send_json({ path = path(namespace), query = { labelSelector = "runbook.io/kept=true" } }).items
end

local forget = effect.verb {
  name = "kube.forget_kept", class = "change", repeatable = true,
  target = function(self) return self.name end,
  summary = function(_, namespace) return "remove the Secrets that were kept in " .. namespace end,
  by_hand = function(self, namespace) return self:by_hand { "-n", namespace, "delete", "secret", "-l", "runbook.io/kept=true" } end,
  body = function(self, namespace)
    for _, secret in ipairs(list(self, namespace)) do
      self:send { method = "DELETE", path = path(namespace, secret.metadata.name),
        json = { preconditions = { uid = secret.metadata.uid } } }
    end
  end,
}

--- Remove what was kept in a namespace: runs that kept it cannot put it back any more.
---@async
---@param self runbook.Cluster
---@param namespace string
function kept.forget(self, namespace)
  forget(self, namespace)
end

return kept
