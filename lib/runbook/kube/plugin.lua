--- Exec plugins of kubeconfig: programs that print credentials (`aws eks get-token`, `gke-gcloud-auth-plugin`, `kubelogin`).
---
--- What one prints is kept until it expires, or until the server no longer takes it. Who needs it while it runs waits for
--- that one run. What it says on stderr is shown at once: it may be a link to log in at.

local digest = require "runbook.core.digest"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local json = require "runbook.json"
local process = require "runbook.core.process"
local secret = require "runbook.secret"
local shell = require "runbook.shell"
local task = require "runbook.task"
local time = require "runbook.core.time"
local units = require "runbook.units"

local plugin = {}

plugin.seconds = 60 -- for one run; a person may have to log in meanwhile
plugin.leeway = 10  -- what expires sooner is not used any more

local LONGEST = 1 << 20
local VERSIONS = { ["client.authentication.k8s.io/v1"] = true, ["client.authentication.k8s.io/v1beta1"] = true }
local INTERACTIVE = { Never = true, IfAvailable = true, Always = true }

---@class runbook.kube.Plugin
local Plugin = {}
local plugin_mt = { __name = "runbook.kube.plugin", __index = Plugin }

local function fail(self, e)
  e.kind, e.code = e.kind or "auth", e.code or "EPLUGIN"
  e.target, e.tried = "kubeconfig", shell.join(self.argv)
  e.message = ("%s: %s"):format(self.command, e.message)
  e.hint = e.hint or ("by hand: %s"):format(shell.join(self.argv))
  errors.raise(e, 2)
end

-- The environment that a list of { name =, value = } asks for.
local function environment(self, list)
  local env = {}
  for _, one in ipairs(list) do
    if type(one) ~= "table" or type(one.name) ~= "string" or type(one.value) ~= "string" then
      fail(self, { kind = "usage", message = ("%s: env is a list of name and value"):format(self.where) })
    end
    env[one.name] = one.value
  end
  return env
end

-- What the plugin is told of the cluster, where it wants that.
local function cluster_info(cluster)
  local info = {
    server = cluster.server, ["tls-server-name"] = cluster.server_name, ["proxy-url"] = cluster.proxy,
    ["insecure-skip-tls-verify"] = cluster.insecure or nil, ["disable-compression"] = cluster.entry["disable-compression"],
    ["certificate-authority-data"] = cluster.ca and digest.base64(cluster.ca()) or nil,
  }
  for _, one in ipairs(cluster.entry.extensions or {}) do
    if one.name == "client.authentication.k8s.io/exec" then
      info.config = one.extension
    end
  end
  return json.object(info)
end

--- A plugin of a user entry; see config.lua.
---@param given table
---@param cluster table
---@return runbook.kube.Plugin
function plugin.new(given, cluster)
  local self = setmetatable({ command = given.command, where = given.where, version = given.version, hint = given.hint,
    argv = { given.command } }, plugin_mt)
  for i, word in ipairs(given.args) do
    self.argv[i + 1] = tostring(word)
  end
  local mode = given.mode
  if not VERSIONS[given.version] then
    fail(self, { kind = "usage", message = ("%s: apiVersion is %s; known are client.authentication.k8s.io/v1 and v1beta1")
      :format(given.where, tostring(given.version)) })
  elseif mode ~= nil and not INTERACTIVE[mode] then
    fail(self, { kind = "usage", message = ("%s: interactiveMode is Never, IfAvailable or Always"):format(given.where) })
  elseif mode == nil and given.version:find "/v1$" then
    fail(self, { kind = "usage", message = ("%s: interactiveMode is missing, which v1 wants"):format(given.where) })
  end
  self.env, self.mode = environment(self, given.env), mode
  self.cluster = given.wants_cluster and cluster or nil
  return self
end

local function show_lines(self, stream, kept)
  for line in function() return stream:line() end do
    kept[#kept + 1] = line
    if #kept > 50 then
      table.remove(kept, 1)
    end
    events.notice(("%s: %s"):format(self.command:match "[^/]*$", line))
  end
end

local function take_all(stream)
  local pieces, length = {}, 0
  for piece in function() return stream:read() end do
    pieces[#pieces + 1] = piece
    length = length + #piece
    if length > LONGEST then
      errors.raise { kind = "auth", code = "EPLUGIN", message = "more than 1 MiB on its stdout" }
    end
  end
  return table.concat(pieces)
end

local function info(self)
  local spec = json.object { interactive = false, cluster = self.cluster and cluster_info(self.cluster) }
  return json.encode { apiVersion = self.version, kind = "ExecCredential", spec = spec }
end

local function ended(self, how, said)
  if how.status == 0 then
    return
  end
  fail(self, { status = how.status, signal = how.signal, stderr = table.concat(said, "\n"),
    message = ("ended with %s%s"):format(how.signal and "signal " .. how.signal or ("exit status %d"):format(how.status or -1),
      #said > 0 and ": " .. said[#said] or ", and said nothing") })
end

-- Runs it; its stdout.
local function run(self)
  if self.mode == "Always" then
    fail(self, { message = "it wants a terminal (interactiveMode Always), which a run has not",
      hint = ("log in by hand first: %s"):format(shell.join(self.argv)) })
  end
  local env = { KUBERNETES_EXEC_INFO = info(self) }
  for name, value in pairs(self.env) do
    env[name] = value
  end
  local child, message, code = process.open { argv = self.argv, env = env }
  if child == nil then
    fail(self, { kind = code == "ENOENT" and "missing" or "auth", code = code, message = ("cannot be started: %s"):format(message),
      hint = self.hint or "install it, or put its directory into PATH" })
  end
  local _ <close> = setmetatable({}, { __close = function() child:close() end })
  local said = {}
  child:stdin():close()
  local ok, out = xpcall(task.timeout, errors.handler, plugin.seconds, self.command, function()
    local results = task.all {
      function() return take_all(child:stdout()) end,
      function() show_lines(self, child:stderr(), said) end,
    }
    ended(self, child:wait(), said)
    return results[1]
  end)
  if ok then
    return out
  elseif errors.is_cancelled(out) then
    error(out, 0)
  elseif errors.is(out, "timeout") then
    fail(self, { kind = "timeout", stderr = table.concat(said, "\n"),
      message = ("no credentials within %g s%s"):format(plugin.seconds, #said > 0 and ": " .. said[#said] or ", and nothing said") })
  elseif errors.is(out) and out.target == nil then
    fail(self, { message = out.message })
  end
  error(out, 0)
end

local function text_of(self, status, key)
  local value = status[key]
  if value == nil or value == json.null or value == "" then
    return nil
  elseif type(value) ~= "string" then
    fail(self, { message = ("status.%s is no text"):format(key) })
  end
  return value
end

local function expiry(self, status)
  local text = text_of(self, status, "expirationTimestamp")
  local moment = text and units.parse_time((text:gsub("%.%d+", "")))
  if text and not moment then
    fail(self, { message = ("status.expirationTimestamp is no time: %s"):format(text) })
  end
  return moment
end

-- What was printed, as credentials. What is wrong with it is said without showing it: it may hold a token.
local function parse(self, out)
  local ok, value = pcall(json.decode, out, { name = "what it prints" })
  if not ok or type(value) ~= "table" or value.kind ~= "ExecCredential" then
    fail(self, { message = ("it printed %d bytes that are no ExecCredential"):format(#out) })
  elseif value.apiVersion ~= self.version then
    fail(self, { message = ("it answers in %s, and kubeconfig says %s"):format(tostring(value.apiVersion), self.version) })
  end
  local status = type(value.status) == "table" and value.status or {}
  local token, cert, key = text_of(self, status, "token"), text_of(self, status, "clientCertificateData"),
    text_of(self, status, "clientKeyData")
  if (cert == nil) ~= (key == nil) then
    fail(self, { message = "it gives a certificate without key, or a key without certificate" })
  elseif not token and not cert then
    fail(self, { message = "it gives neither a token nor a certificate" })
  end
  return { token = token and secret.new("token", token), cert = cert, key = key and secret.new("client-key", key),
    expires = expiry(self, status) }
end

local function is_good(found)
  return found and (found.expires == nil or found.expires - plugin.leeway > time.utc())
end

--- Its credentials: those of its last run while they are good.
---@async
---@return { token?: runbook.secret, cert?: string, key?: runbook.secret, expires?: number }
function Plugin:credentials()
  while self.running do
    task.sleep(0.02)
  end
  if not is_good(self.found) then
    self.running = true
    local _ <close> = setmetatable({}, { __close = function() self.running = false end })
    self.found = parse(self, effect.own(run, self))
  end
  return self.found
end

--- The server did not take these: the next who asks has it run again. What another task has fetched meanwhile stays.
---@param refused table  what `credentials` gave
function Plugin:forget(refused)
  if self.found == refused then
    self.found = nil
  end
end

return plugin
