--- Is the new cluster watched as the old one was?

local task = require "runbook.task"

local monitoring = {}

local NAMESPACE = "support"
local PARTS = {
  { name = "Prometheus", service = "support-prometheus-server", claim = "support-prometheus-server" },
  { name = "Grafana", service = "support-grafana" },
}

local function look(hub)
  local found = {}
  for _, part in ipairs(PARTS) do
    found[part.name] = hub.cluster:find { kind = "Service", name = part.service, namespace = NAMESPACE } ~= nil
    if part.claim then
      found[part.name .. " history"] =
        hub.cluster:find { kind = "PersistentVolumeClaim", name = part.claim, namespace = NAMESPACE } ~= nil
    end
  end
  return found
end

--- What watches each cluster: "Prometheus", "Prometheus history", "Grafana" are true where they are there.
---@async
---@param old runbook.Hub
---@param new runbook.Hub
---@return table<string, boolean> old
---@return table<string, boolean> new
function monitoring.look(old, new)
  if old.cluster == new.cluster then
    local both = look(old)
    return both, both
  end
  local found = task.all { function() return look(old) end, function() return look(new) end }
  return found[1], found[2]
end

--- Lines for what the old cluster has and the new one lacks; empty when it is watched as before.
---@async
---@param old runbook.Hub
---@param new runbook.Hub
---@return string[]
function monitoring.compare(old, new)
  local a, b = monitoring.look(old, new)
  local lines = {}
  for _, part in ipairs(PARTS) do
    if a[part.name] and not b[part.name] then
      lines[#lines + 1] = ("%s is on %s and not on %s: deploy its support chart before users come"):format(part.name,
        old.cluster.name, new.cluster.name)
    end
  end
  if a["Prometheus history"] and old.cluster ~= new.cluster then
    lines[#lines + 1] = ("Prometheus' history stays in claim %s/%s on %s unless it is copied"):format(NAMESPACE, PARTS[1].claim,
      old.cluster.name)
  end
  return lines
end

return monitoring
