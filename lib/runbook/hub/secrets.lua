--- What the new hub must be given before it opens: keys without which it cannot read the old one's database, tokens that
--- scripts hold, and the certificate, which the new cluster cannot get while the name points to the old.

local errors = require "runbook.errors"
local kube = require "runbook.kube"
local secret = require "runbook.secret"

local secrets = {}

-- Without the first, everybody is logged out; without the second, what authenticators keep in the database cannot be read.
local KEYS = { "hub.config.JupyterHub.cookie_secret", "hub.config.CryptKeeper.keys" }
local SERVICE_TOKEN = "^hub%.services%..+%.apiToken$"

-- The keys to carry: those that the old one has. A service's token only where the new hub has that service.
local function keys_of(old, new)
  local keys = {}
  for _, key in ipairs(KEYS) do
    if old.data[key] ~= nil then
      keys[#keys + 1] = key
    end
  end
  for key in pairs(old.data) do
    if key:find(SERVICE_TOKEN) and new.data[key] ~= nil then
      keys[#keys + 1] = key
    end
  end
  table.sort(keys)
  return keys
end

-- Secrets with certificates by host, as the hub's ingress names them.
local function certificates(hub)
  local ingress = hub:find("Ingress", "jupyterhub")
  local list = {}
  for _, tls in ipairs(ingress and ingress.spec.tls or {}) do
    list[#list + 1] = { secret = tls.secretName, hosts = tls.hosts or {} }
  end
  return list
end

local function covers(list, hosts)
  for _, tls in ipairs(list) do
    local known = {}
    for _, host in ipairs(tls.hosts) do
      known[host] = true
    end
    for _, host in ipairs(hosts) do
      if known[host] then
        return tls.secret
      end
    end
  end
  return list[1] and list[1].secret
end

---@class runbook.hub.Carried
---@field keys string[]   of Secret hub
---@field certificates { from: string, to: string }[]

--- What there is to carry.
---@async
---@param old runbook.Hub
---@param new runbook.Hub
---@return runbook.hub.Carried
function secrets.list(old, new)
  local carried = { keys = keys_of(old:get("Secret", "hub"), new:get("Secret", "hub")), certificates = {} }
  local there = certificates(new)
  for _, tls in ipairs(certificates(old)) do
    local name = covers(there, tls.hosts)
    if name and old:find("Secret", tls.secret) then
      carried.certificates[#carried.certificates + 1] = { from = tls.secret, to = name }
    end
  end
  return carried
end

local function equal(a, b)
  return a == b or a ~= nil and b ~= nil and secret.same(a, b)
end

--- The names of what the new hub does not have as the old one has it.
---@async
---@param old runbook.Hub
---@param new runbook.Hub
---@return string[]
function secrets.missing(old, new)
  local list = {}
  local carried = secrets.list(old, new)
  local left, right = old:get("Secret", "hub"), new:get("Secret", "hub")
  for _, key in ipairs(carried.keys) do
    if not equal(left.data[key], right.data[key]) then
      list[#list + 1] = key
    end
  end
  for _, tls in ipairs(carried.certificates) do
    local there = new:find("Secret", tls.to)
    if not there or not equal(old:get("Secret", tls.from).data["tls.key"], there.data["tls.key"]) then
      list[#list + 1] = tls.to
    end
  end
  return list
end

--- Give the new hub the old one's keys, its services' tokens and its certificates. A running hub takes them when it starts next.
---@async
---@param old runbook.Hub
---@param new runbook.Hub
function secrets.carry(old, new)
  local carried = secrets.list(old, new)
  if #carried.keys == 0 then
    errors.raise {
      kind = "missing", target = old.name, message = "Secret hub has neither a cookie secret nor CryptKeeper's keys",
      hint = "is this the right namespace?",
    }
  end
  kube.copy_object {
    from = { old.cluster, "Secret", "hub", namespace = old.namespace }, to = { new.cluster, namespace = new.namespace },
    keys = carried.keys,
  }
  for _, tls in ipairs(carried.certificates) do
    kube.copy_object {
      from = { old.cluster, "Secret", tls.from, namespace = old.namespace },
      to = { new.cluster, namespace = new.namespace, name = tls.to },
    }
  end
end


return secrets
