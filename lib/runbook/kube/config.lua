--- kubeconfig: where it is, what it says, and whom a context means by it.
---
--- Files as kubectl takes them: the one that is named; else those of KUBECONFIG, of which the first to name a thing wins; else
--- ~/.kube/config; else what a pod finds about its own cluster. Relative paths start from the file they stand in. Secrets
--- become secret values here, and are nowhere else.

local core = require "runbook.core.yaml"
local digest = require "runbook.core.digest"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local file = require "runbook.core.file"
local json = require "runbook.json"
local nearest = require "runbook.nearest"
local secret = require "runbook.secret"
local time = require "runbook.core.time"

local config = {}

config.in_cluster = "/var/run/secrets/kubernetes.io/serviceaccount"
config.file_seconds = 60 -- certificates and tokens in files are rotated; older than this they are read again

local MAX = 4 << 20
local PARTS = { clusters = "cluster", users = "user", contexts = "context" }

local function fail(e)
  e.target = e.target or "kubeconfig"
  errors.raise(e, 2)
end

local function usage(message, hint)
  fail { kind = "usage", code = "EKUBECONFIG", message = message, hint = hint }
end

-- ---- files ----

local function home_config()
  local home = os.getenv "HOME"
  return home and home .. "/.kube/config"
end

--- The files that would be read, in order, and whether a person has named them.
---@param path string?  the one that was asked for
---@return string[] paths
---@return boolean named  missing ones are errors
function config.paths(path)
  if path then
    return { path }, true
  end
  local list, seen = {}, {}
  for one in (os.getenv "KUBECONFIG" or ""):gmatch "[^:]+" do
    list[#list + 1] = not seen[one] and one or nil
    seen[one] = true
  end
  if #list == 0 then
    list[1] = home_config()
  end
  return list, false
end

local function is_absent(value)
  return value == nil or value == json.null or value == ""
end

local function checked_map(value, where, what)
  if is_absent(value) then
    return {}
  elseif type(value) ~= "table" or json.kind(value) == "array" and #value > 0 then
    usage(("%s: %s is no map"):format(where, what))
  end
  return value
end

-- name = { entry, base } of one list of a kubeconfig; of two with one name the first counts.
local function named(list, key, source, into)
  if is_absent(list) then
    return
  elseif type(list) ~= "table" or json.kind(list) == "object" and next(list) then
    usage(("%s: %s is no list"):format(source.name, key))
  end
  for i, one in ipairs(list) do
    if type(one) ~= "table" or type(one.name) ~= "string" then
      usage(("%s: entry %d of %s has no name"):format(source.name, i, key))
    end
    if into[one.name] == nil then
      local inner = checked_map(one[PARTS[key]], source.name, ("%s of %s"):format(PARTS[key], one.name))
      into[one.name] = { entry = inner, base = source.base, file = source.name }
    end
  end
end

local function parse(source)
  local value, message, code = core.decode(source.text, false, false)
  if value == nil and code then
    usage(("%s: %s"):format(source.name, message))
  end
  return checked_map(value, source.name, "it")
end

-- The text of a file that may be missing.
local function read_file(path, needed)
  local text, message, code = effect.own(file.read, path, MAX)
  if text == nil and (needed or code ~= "ENOENT") then
    fail { kind = errors.kind(code), code = code, tried = "read " .. path, message = ("%s: %s"):format(path, message),
      hint = code == "ENOENT" and "`kubeconfig` or KUBECONFIG names the file that knows the cluster" or nil }
  end
  return text
end

local function sources_of(o)
  if secret.is(o.kubeconfig) then
    local s = o.kubeconfig
    return { { text = secret.ready(s), name = tostring(s), base = "." } }
  end
  local sources = {}
  local paths, needed = config.paths(o.kubeconfig)
  for _, path in ipairs(paths) do
    local text = read_file(path, needed)
    sources[#sources + 1] = text and { text = text, name = path, base = path:match "^(.*)/[^/]*$" or "." } or nil
  end
  return sources
end

---@class runbook.kube.Merged
---@field clusters table<string, { entry: table, base: string, file: string }>
---@field users table<string, { entry: table, base: string, file: string }>
---@field contexts table<string, { entry: table, base: string, file: string }>
---@field current string?
---@field files string[]

--- Everything that is known, put together.
---@async
---@param o { kubeconfig?: string|runbook.secret }
---@return runbook.kube.Merged
function config.merged(o)
  local all = { clusters = {}, users = {}, contexts = {}, files = {} }
  for _, source in ipairs(sources_of(o)) do
    local value = parse(source)
    all.files[#all.files + 1] = source.name
    if all.current == nil and not is_absent(value["current-context"]) then
      all.current = value["current-context"]
    end
    for key in pairs(PARTS) do
      named(value[key], key, source, all[key])
    end
  end
  return all
end

-- ---- bytes: in the file, or in a file beside it ----

local function text_field(where, entry, key)
  local value = entry[key]
  if is_absent(value) then
    return nil
  elseif type(value) ~= "string" then
    usage(("%s: `%s` is a %s, and a text is expected"):format(where, key, type(value)))
  end
  return value
end

local function resolved(path, base)
  if path:sub(1, 1) == "/" then
    return path
  end
  return base .. "/" .. path
end

--- What stands in a file that may change: read again when the last look is too old.
---@param path string
---@param what string  for messages
---@param private string?  the name of the secret that is made of it
---@return fun(again: boolean?): string|runbook.secret
local function from_file(path, what, private)
  local value, text, read_at
  return function(again)
    if value and not again and time.boottime() - read_at < config.file_seconds then
      return value
    end
    local found, message, code = effect.own(file.read, path, MAX)
    if found == nil then
      fail { kind = code == "ENOENT" and "auth" or errors.kind(code), code = code, tried = "read " .. path,
        message = ("%s %s cannot be read: %s"):format(what, path, message) }
    end
    read_at = time.boottime()
    if found ~= text then
      text, value = found, private and secret.new(private, private == "token" and found:gsub("%s+$", "") or found) or found
    end
    return value
  end
end

local function constant(value)
  return function() return value end
end

-- The bytes of `key-data`, else of the file that `key` names; a function, or nil.
local function bytes_of(where, one, key, private)
  local data = text_field(where, one.entry, key .. "-data")
  if data then
    local bytes = digest.unbase64(data)
    if bytes == nil then
      usage(("%s: `%s-data` is no base64"):format(where, key))
    end
    return constant(private and secret.new(private, bytes) or bytes)
  end
  local path = text_field(where, one.entry, key)
  return path and from_file(resolved(path, one.base), key, private)
end

-- ---- one context ----

local function names_of(map)
  local list = {}
  for name in pairs(map) do
    list[#list + 1] = name
  end
  table.sort(list)
  return list
end

local function missing(all, name, what, list)
  local names = names_of(list)
  local near = name and nearest(name, names)
  local where = #all.files > 0 and table.concat(all.files, ", ") or "no file was found"
  fail { kind = "missing", code = "EKUBECONFIG",
    message = name and ("no %s is called `%s` (%s)%s"):format(what, name, where, near and ("; did you mean `" .. near .. "`?") or "")
      or ("no context is chosen, and there is no current-context (%s)"):format(where),
    hint = #names > 0 and ("there are: %s"):format(table.concat(names, ", ")) or
      "a kubeconfig is named by `kubeconfig`, by KUBECONFIG, or is ~/.kube/config" }
end

local function check_server(where, server)
  local authority = (server or ""):match "^https?://([^/%s?#]+)/*[^%s?#]*$"
  if not authority or not authority:match "^[%w%.%-_:%[%]]+$" then
    usage(("%s: `server` is no URL like https://host:6443: %s"):format(where, server or "it is missing"))
  end
  return (server:gsub("/+$", ""))
end

local function cluster_of(one, name)
  local where = ("%s, cluster %s"):format(one.file, name)
  local insecure = one.entry["insecure-skip-tls-verify"] == true
  local ca = bytes_of(where, one, "certificate-authority")
  if insecure and ca then
    usage(where .. ": insecure-skip-tls-verify and a certificate authority exclude each other")
  end
  return {
    server = check_server(where, text_field(where, one.entry, "server")), ca = ca, insecure = insecure,
    server_name = text_field(where, one.entry, "tls-server-name"), proxy = text_field(where, one.entry, "proxy-url"),
    entry = one.entry,
  }
end

local function impersonation_of(where, entry)
  local who = { user = text_field(where, entry, "as"), uid = text_field(where, entry, "as-uid"),
    groups = is_absent(entry["as-groups"]) and {} or entry["as-groups"],
    extra = is_absent(entry["as-user-extra"]) and {} or entry["as-user-extra"] }
  if who.user == nil and (who.uid or #who.groups > 0 or next(who.extra)) then
    usage(where .. ": as-uid, as-groups and as-user-extra need `as`")
  end
  return who.user and who or nil
end

local function plugin_of(where, one)
  local exec = one.entry.exec
  if is_absent(exec) then
    return nil
  end
  local command = text_field(where .. ", exec", exec, "command")
  if command == nil then
    usage(where .. ": exec has no command")
  end
  return {
    command = command:find "/" and resolved(command, one.base) or command, args = is_absent(exec.args) and {} or exec.args,
    env = is_absent(exec.env) and {} or exec.env, version = exec.apiVersion, mode = exec.interactiveMode,
    wants_cluster = exec.provideClusterInfo == true, hint = text_field(where, exec, "installHint"), where = where,
  }
end

local function password_of(where, entry)
  local password = text_field(where, entry, "password")
  return password and secret.new("password", password)
end

local function token_of(where, one)
  local path = text_field(where, one.entry, "tokenFile")
  if path then -- it wins over `token`, which tools leave there for those who do not know it
    return from_file(resolved(path, one.base), "tokenFile", "token")
  end
  local token = text_field(where, one.entry, "token")
  return token and constant(secret.new("token", token))
end

local function user_of(one, name)
  local where = ("%s, user %s"):format(one.file, name)
  local user = {
    name = name, cert = bytes_of(where, one, "client-certificate"), key = bytes_of(where, one, "client-key", "client-key"),
    token = token_of(where, one), basic = text_field(where, one.entry, "username"),
    password = password_of(where, one.entry), plugin = plugin_of(where, one), as = impersonation_of(where, one.entry),
  }
  if not is_absent(one.entry["auth-provider"]) then
    usage(("%s: auth-provider is gone from Kubernetes since 1.26"):format(where),
      "use an exec plugin: `kubelogin`, `gke-gcloud-auth-plugin`")
  elseif (user.cert == nil) ~= (user.key == nil) then
    usage(("%s: a client certificate without its key, or a key without certificate"):format(where))
  elseif user.token and user.basic then
    usage(where .. ": a token and a username exclude each other")
  end
  return user
end

---@class runbook.kube.Access
---@field context string?
---@field cluster table  server, ca, insecure, server_name, proxy
---@field user table     cert, key, token, basic, password, plugin, as
---@field namespace string

local function access_of(all, name)
  local context = all.contexts[name]
  local entry = context.entry
  local where = ("%s, context %s"):format(context.file, name)
  local cluster_name, user_name = text_field(where, entry, "cluster"), text_field(where, entry, "user")
  local cluster = cluster_name and all.clusters[cluster_name]
  if cluster == nil then
    missing(all, cluster_name or "", "cluster", all.clusters)
  end
  local user = user_name and all.users[user_name]
  if user_name and user == nil then
    missing(all, user_name, "user", all.users)
  end
  return {
    context = name, cluster = cluster_of(cluster, cluster_name), namespace = text_field(where, entry, "namespace") or "default",
    user = user and user_of(user, user_name) or { name = "nobody" },
  }
end

-- What a pod knows of its own cluster; nil elsewhere.
local function own_cluster()
  local host, port = os.getenv "KUBERNETES_SERVICE_HOST", os.getenv "KUBERNETES_SERVICE_PORT"
  local folder = config.in_cluster
  if is_absent(host) or is_absent(port) or not effect.own(file.stat, folder .. "/token") then
    return nil
  end
  local server = ("https://%s:%s"):format(host:find ":" and ("[%s]"):format(host) or host, port)
  local namespace = effect.own(file.read, folder .. "/namespace", MAX)
  return {
    cluster = { server = server, ca = from_file(folder .. "/ca.crt", "the authority of this cluster"), entry = {} },
    user = { name = "this pod", token = from_file(folder .. "/token", "the token of this pod", "token") },
    namespace = namespace and namespace:match "%S+" or "default",
  }
end

--- Whom a context means, and how to get there.
---@async
---@param o { context?: string, kubeconfig?: string|runbook.secret, in_cluster?: boolean }
---@return runbook.kube.Access
function config.access(o)
  local own = (o.in_cluster or o.context == nil and o.kubeconfig == nil) and own_cluster or nil
  if o.in_cluster then
    return own() or fail { kind = "missing", code = "EKUBECONFIG", message = "this is no pod: there is no " .. config.in_cluster }
  end
  local all = config.merged(o)
  local name = o.context or all.current
  if name and all.contexts[name] then
    return access_of(all, name)
  end
  return own and #all.files == 0 and own() or missing(all, name, "context", all.contexts)
end

return config
