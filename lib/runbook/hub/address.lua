--- Where people's names have to lead: the address of the load balancer in front of a hub.

local effect = require "runbook.effect"
local errors = require "runbook.errors"
local handle = require "runbook.hub.handle"
local happened = require "runbook.kube.events"
local options = require "runbook.options"

local Hub = handle.Hub

local address = {}

-- Services that charts call so.
local USUAL = {
  { "support", "cluster-entrypoint" }, { "support", "support-ingress-nginx-controller" },
  { "ingress-nginx", "ingress-nginx-controller" }, { "kube-system", "traefik" }, { "traefik", "traefik" },
}

local function of_status(object)
  local balancer = object and object.status and object.status.loadBalancer
  local entry = balancer and balancer.ingress and balancer.ingress[1]
  return entry and (entry.hostname or entry.ip) or nil
end

-- The Service that was named, or the first of a usual name; for a hub without an ingress its own proxy.
local function service_of(hub)
  if hub.ingress then
    return hub.ingress.namespace or "support", hub.ingress.service
  end
  for _, usual in ipairs(USUAL) do
    local found = hub.cluster:find { kind = "Service", name = usual[2], namespace = usual[1] }
    if found and found.spec.type == "LoadBalancer" then
      return usual[1], usual[2]
    end
  end
  local proxy = hub:find("Service", "proxy-public")
  if proxy and proxy.spec.type == "LoadBalancer" then
    return hub.namespace, "proxy-public"
  end
end

local check_address = options.declare("hub:ingress_address", {
  within = { "duration", "how long the cloud may take to make it", default = "15m" },
})

--- The address that names have to lead to: an IP address, or the name of a load balancer (then the record is a CNAME). Waits
--- while the cloud is making it; raises kind `timeout` with the Service's events when it does not come.
---@async
---@param o? { within: string|number }
---@return string
function Hub:ingress_address(o)
  o = check_address(o or {}, 2)
  local ingress = not self.ingress and self:find("Ingress", "jupyterhub")
  local known = of_status(ingress)
  if known then
    return known
  end
  local namespace, name = service_of(self)
  if name == nil then
    errors.raise {
      kind = "missing", target = self.name, message = "no Service of type LoadBalancer with a usual name, and its Ingress has no address",
      hint = "name it below the hub: `ingress: {service: NAME, namespace: NAMESPACE}`",
    }
  end
  local service = self.cluster:get { kind = "Service", name = name, namespace = namespace }
  if of_status(service) == nil and effect.planning() then -- which waits for nothing
    errors.raise { kind = "missing", target = self.name, message = table.concat({ ("Service %s/%s has no address yet"):format(namespace,
      name), table.unpack(effect.reading(happened.why, self.cluster, service)) }, "\n  ") }
  elseif of_status(service) == nil then
    service = self.cluster:wait { kind = "Service", name = name, namespace = namespace, timeout = o.within, is = function(object)
      return of_status(object) ~= nil or "it has no address yet"
    end }
  end
  return of_status(service)
end

return address
