--- Kubernetes: clusters by their kubeconfig, and every object in them.
---
---     local old = kube.cluster { context = "temple-gke", cluster = "6f0d3c1e-0b52-4c7e-9a57-2f5f9c1f7d10" }
---     old:request { path = "/version" }.json.gitVersion
---
--- `cluster` is the uid of the namespace kube-system, which no other cluster has; another cluster behind the same context is
--- refused. Nothing is read or asked before the first use of a handle.

local cluster = require "runbook.kube.cluster"
local copy = require "runbook.kube.copy"
local place = require "runbook.place"
require "runbook.kube.reads"
require "runbook.kube.watch"
require "runbook.kube.changes"
require "runbook.kube.removal"
require "runbook.kube.events"
require "runbook.kube.wait"
require "runbook.kube.logs"
require "runbook.kube.access"
require "runbook.kube.lease"
require "runbook.kube.container"

local kube = {}

--- A cluster. Nothing is read or asked before its first use.
---@param o { context?: string, cluster?: string, kubeconfig?: string|runbook.secret, in_cluster?: boolean }
---@return runbook.Cluster
kube.cluster = cluster.new

--- Is this value a cluster?
kube.is_cluster = cluster.is

kube.copy_object = copy.object
kube.manifests = copy.manifests

place.register("kube", function(reference)
  return cluster.new { context = reference.context, cluster = reference.cluster, kubeconfig = reference.kubeconfig,
    in_cluster = reference.in_cluster }
end)

return kube
