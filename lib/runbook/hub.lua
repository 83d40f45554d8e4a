--- JupyterHubs on Kubernetes: what they are set up to do, who uses them, who writes to their homes, and how they are closed,
--- moved and opened.
---
---     local old = hub.open { context = "temple-gke", namespace = "temple" }
---     for _, line in ipairs(hub.differences(old, new)) do rb.say(line) end
---
--- Names are those of the chart zero-to-jupyterhub: Deployment `hub`, Services `hub`, `proxy-public`, Ingress `jupyterhub`, Secret `hub`.

local checks = require "runbook.hub.checks"
local differences = require "runbook.hub.differences"
local downtime = require "runbook.hub.downtime"
local evidence = require "runbook.hub.evidence"
local handle = require "runbook.hub.handle"
local ledger = require "runbook.hub.ledger"
local monitoring = require "runbook.hub.monitoring"
local place = require "runbook.place"
local secrets = require "runbook.hub.secrets"
local watch = require "runbook.hub.watch"
local work = require "runbook.hub.work"
local writers = require "runbook.hub.writers"
require "runbook.hub.address"
require "runbook.hub.adopt"
require "runbook.hub.answer"
require "runbook.hub.belongings"
require "runbook.hub.closing"
require "runbook.hub.probe"
require "runbook.hub.servers"
require "runbook.hub.settings"
require "runbook.hub.starting"
require "runbook.hub.storage"

local hub = {}

--- A hub. Nothing is read or asked before its first use.
hub.open = handle.new

--- Is this value a hub?
hub.is = handle.is

hub.database_evidence = evidence.hubs
hub.differences = differences.hubs
hub.direction = checks.direction
hub.downtime = downtime.new
hub.carry_secrets = secrets.carry
hub.compare_monitoring = monitoring.compare
hub.ledger = ledger.new
hub.work_since = work.since
hub.watch = watch.hubs

--- For preflight: raises with names when a user's directory would have another name on the new hub.
---@async
---@param old runbook.Hub
---@param new runbook.Hub
function hub.same_directories(old, new)
  return writers.same_directories(old, new, old:known_users())
end

place.register("hub", function(reference)
  return handle.new { cluster = place.open(reference.cluster), namespace = reference.namespace, ingress = reference.ingress,
    homes = reference.homes }
end)

return hub
