--- What a hub that has moved leaves behind, and what a move leaves on hubs.

local events = require "runbook.events"
local handle = require "runbook.hub.handle"
local kept = require "runbook.kube.kept"
local storage = require "runbook.kube.storage"

local Hub = handle.Hub

local belongings = {}

local function claims_of(hub, rows)
  hub.cluster:each({ kind = "PersistentVolumeClaim", namespace = hub.namespace }, function(claim)
    local place, volume = storage.of_claim(hub.cluster, hub.namespace, claim.metadata.name)
    local policy = volume and volume.spec.persistentVolumeReclaimPolicy
    rows[#rows + 1] = { "claim", claim.metadata.name, place and storage.words(place) or "bound to nothing",
      policy == "Delete" and "is deleted with its claim" or "stays when its claim is deleted" }
  end)
end

local function balancers_of(hub, rows)
  hub.cluster:each({ kind = "Service", namespace = hub.namespace }, function(service)
    if service.spec.type == "LoadBalancer" then
      local entry = ((service.status or {}).loadBalancer or {}).ingress
      rows[#rows + 1] = { "load balancer", service.metadata.name,
        entry and entry[1] and (entry[1].hostname or entry[1].ip) or "no address", "" }
    end
  end)
end

--- What costs money or holds data in the hub's namespace, as a table.
---@async
---@return string[][] rows
function Hub:belongings()
  local rows = {}
  claims_of(self, rows)
  balancers_of(self, rows)
  self.cluster:each({ kind = "Deployment", namespace = self.namespace }, function(deployment)
    rows[#rows + 1] = { "deployment", deployment.metadata.name, ("%d wanted"):format(deployment.spec.replicas or 1), "" }
  end)
  events.table { name = "belongings", title = "Left in " .. self.name, columns = { "what", "name", "is", "note" }, rows = rows }
  return rows
end

--- Remove the Secrets as they were before a move, which it kept for its way back.
---@async
function Hub:forget_kept()
  kept.forget(self.cluster, self.namespace)
end

return belongings
