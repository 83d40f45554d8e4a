--- What a hub is set up to do, as its chart wrote it down: the key `values.yaml` of Secret `hub`, which the hub itself reads.
---
--- Source: zero-to-jupyterhub-k8s 4, `jupyterhub/templates/hub/_helpers-passwords.tpl` and `files/hub/jupyterhub_config.py`.

local errors = require "runbook.errors"
local handle = require "runbook.hub.handle"
local json = require "runbook.json"
local names = require "runbook.hub.names"
local yaml = require "runbook.yaml"

local Hub = handle.Hub

local settings = {}

local FIRST_SAFE_CHART = 4 -- its kubespawner is the first whose default is the scheme `safe`

--- A value below a path of keys; nil when it, or any of them, is not there.
---@param values table
---@param path string  "hub.config.KubeSpawner.slug_scheme"
---@return any
function settings.at(values, path)
  for key in path:gmatch "[^.]+" do
    if type(values) ~= "table" or values == json.null then
      return nil
    end
    values = values[key]
  end
  if values ~= json.null then
    return values
  end
end

local at = settings.at

local function scheme_of(values)
  local said = at(values, "hub.config.KubeSpawner.slug_scheme")
  local major = tonumber((at(values, "Chart.Version") or ""):match "^v?(%d+)%.")
  return said or major and major > 0 and (major >= FIRST_SAFE_CHART and "safe" or "escape") or nil
end

-- Where a user's home is: a directory of one claim, or a claim of each user's own.
local function storage_of(values, claim)
  local kind = at(values, "singleuser.storage.type") or "dynamic"
  local storage = { kind = kind, mount = at(values, "singleuser.storage.homeMountPath") or "/home/jovyan" }
  if kind == "static" then
    storage.claim = at(values, "singleuser.storage.static.pvcName") or claim
    storage.template = at(values, "singleuser.storage.static.subPath") or "{username}"
  elseif kind == "dynamic" then
    storage.template = at(values, "singleuser.storage.dynamic.pvcNameTemplate")
      or at(values, "hub.config.KubeSpawner.pvc_name_template") or "claim-{user_server}"
  end
  return storage
end

---@class runbook.hub.Settings
---@field values table          all of it; holds passwords and tokens as text: never shown, only compared
---@field chart string?         its version
---@field scheme "safe"|"escape"|nil  how user names become names of things; nil when nothing says so
---@field storage { kind: string, claim: string?, template: string?, mount: string }
---@field base_url string
---@field database string       sqlite-pvc, sqlite-memory, mysql, postgres
---@field authenticator string

--- What the hub's chart was given.
---@async
---@return runbook.hub.Settings
function Hub:settings()
  local secret = self:get("Secret", "hub", { plain = { "values.yaml" } })
  local text = secret.stringData and secret.stringData["values.yaml"]
  if text == nil then
    errors.raise {
      kind = "missing", target = self.name, message = "Secret hub has no key values.yaml, so that nothing says how this hub is set up",
      hint = "only hubs installed by the chart zero-to-jupyterhub, version 1 or newer, can be moved",
    }
  end
  local values = yaml.decode(text, { name = self.name .. " values.yaml" })
  return {
    values = values,
    chart = at(values, "Chart.Version"),
    scheme = scheme_of(values),
    storage = storage_of(values, self.homes),
    base_url = (at(values, "hub.baseUrl") or "/"):gsub("/*$", "") .. "/",
    database = at(values, "hub.db.type") or "sqlite-pvc",
    authenticator = at(values, "hub.config.JupyterHub.authenticator_class") or "dummy",
  }
end

--- The part of a home's template that is the same for all users: "prod" of "prod/{username}".
---@param template string
---@return string  without slashes at its ends
function settings.prefix(template)
  return (template:gsub("{.*", ""):gsub("[^/]*$", ""):gsub("^/+", ""):gsub("/+$", ""))
end

--- A user's directory below what the claim holds, by settings that were read before.
---@param s runbook.hub.Settings
---@param user { name: string, id?: integer }
---@param namespace string
---@return string
function settings.directory(s, user, namespace)
  if s.storage.kind ~= "static" then
    errors.raise { kind = "usage",
      message = ("storage of type %s: users have claims of their own, not directories"):format(s.storage.kind) }
  elseif s.scheme == nil and s.storage.template:find "{u" then
    errors.raise {
      kind = "missing", message = "nothing says how this hub makes directories of user names",
      hint = "set hub.config.KubeSpawner.slug_scheme to `safe` or `escape`, as its kubespawner does it (7 and newer: safe)",
    }
  end
  return names.expand(s.storage.template, { name = user.name, id = user.id, scheme = s.scheme or "escape", namespace = namespace })
end

--- The last part of that: how the directory is called where all of them lie.
---@return string
function settings.home(s, user, namespace)
  return (settings.directory(s, user, namespace):match "[^/]+$")
end

--- Raises where the database is none that can be read and moved here.
---@param hub runbook.Hub
function settings.must_be_sqlite(hub)
  local s = hub:settings()
  if s.database ~= "sqlite-pvc" then
    errors.raise {
      kind = "usage", code = "EDATABASE", target = hub.name,
      message = ("its database is %s; only sqlite on a claim (sqlite-pvc) can be read and moved here"):format(s.database),
      hint = "move it with its own tools (pg_dump, mysqldump), and set `database: leave`",
    }
  end
end

--- The name of a user's directory, as the hub's spawner makes it.
---@async
---@param user string|{ name: string, id: integer? }
---@return string
function Hub:directory_of(user)
  return settings.home(self:settings(), type(user) == "string" and { name = user } or user, self.namespace)
end

return settings
