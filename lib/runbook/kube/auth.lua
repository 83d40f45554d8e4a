--- Who we are to a cluster: what a user entry of kubeconfig makes of a request.

local plugin = require "runbook.kube.plugin"

local auth = {}

---@class runbook.kube.Auth
local Auth = {}
local auth_mt = { __name = "runbook.kube.auth", __index = Auth }

--- For a user entry and the cluster it is used with; see config.lua.
---@param user table
---@param cluster table
---@return runbook.kube.Auth
function auth.new(user, cluster)
  return setmetatable({ user = user, plugin = user.plugin and plugin.new(user.plugin, cluster) }, auth_mt)
end

-- As header names want it: lower case, and what is no letter, digit or mark as %XX.
local function encoded_key(key)
  return (key:lower():gsub("[^%w!#$&'*+%-.^_`|~]", function(c) return ("%%%02X"):format(c:byte()) end))
end

local function add_impersonation(headers, who)
  local function add(name, value)
    headers[#headers + 1] = { name, tostring(value) }
  end
  add("Impersonate-User", who.user)
  if who.uid then
    add("Impersonate-Uid", who.uid)
  end
  for _, group in ipairs(who.groups) do
    add("Impersonate-Group", group)
  end
  local keys = {}
  for key in pairs(who.extra) do
    keys[#keys + 1] = key
  end
  table.sort(keys)
  for _, key in ipairs(keys) do
    for _, value in ipairs(type(who.extra[key]) == "table" and who.extra[key] or { who.extra[key] }) do
      add("Impersonate-Extra-" .. encoded_key(key), value)
    end
  end
end

---@class runbook.kube.Credentials
---@field headers { [1]: string, [2]: any }[]
---@field cert? string
---@field key? runbook.secret
---@field basic? string
---@field password? runbook.secret
---@field of_plugin? table

--- What goes with the next request.
---@async
---@return runbook.kube.Credentials
function Auth:credentials()
  local user = self.user
  local made = self.plugin and self.plugin:credentials()
  local given = { headers = {}, of_plugin = made, basic = user.basic, password = user.password }
  local token = made and made.token or user.token and user.token()
  given.cert = made and made.cert or user.cert and user.cert()
  given.key = made and made.key or user.key and user.key()
  if token then
    given.headers[1] = { "Authorization", { "Bearer ", token } }
  end
  if user.as then
    add_impersonation(given.headers, user.as)
  end
  return given
end

--- After a 401: is there anything newer to try?
---@async
---@param refused runbook.kube.Credentials
---@return boolean
function Auth:refresh(refused)
  if self.plugin then
    self.plugin:forget(refused.of_plugin)
    return true
  end
  local old = refused.headers[1] and refused.headers[1][2][2]
  return self.user.token ~= nil and self.user.token(true) ~= old
end

return auth
