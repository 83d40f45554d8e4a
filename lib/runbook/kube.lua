--- Kubernetes: clusters by their kubeconfig, and every object in them.
---
---     local old = kube.cluster { context = "temple-gke", cluster = "6f0d3c1e-0b52-4c7e-9a57-2f5f9c1f7d10" }
---     local hub = old:get { "Deployment", "hub", namespace = "temple" }
---     old:scale { "Deployment", "hub", namespace = "temple", replicas = 0 }
---     old:wait { "Pod", "hub-6f5d", namespace = "temple", gone = true }
---
--- `cluster` is the uid of the namespace kube-system, which no other cluster has; another cluster behind the same context is
--- refused. Nothing is read or asked before the first use of a handle.
---
--- What a handle can do: `runbook doc kube.cluster` (which one it is, any request), `kube.reads` (get, find, list, each), `kube.watch`,
--- `kube.changes` (apply, create, patch, scale), `kube.removal` (delete), `kube.wait`, `kube.events`, `kube.logs`, `kube.access` (what we
--- may do), `kube.lease` (a lock), `kube.copy` (objects to another cluster, a namespace as a file).

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
require "runbook.kube.claim"
require "runbook.kube.forward"
require "runbook.kube.dial"

local kube = {}

--- A cluster. Nothing is read or asked before its first use.
---@param o { context?: string, cluster?: string, kubeconfig?: string|runbook.secret, in_cluster?: boolean }
---@return runbook.Cluster
kube.cluster = cluster.new

--- Is this value a cluster?
kube.is_cluster = cluster.is


--- Copy an object, within a cluster or to another. What belongs to the cluster it is in stays behind: uid, versions, owners,
--- state. Of a Secret or ConfigMap `keys` names those that are copied; the others over there stay.
---@async
---@param o { from: table, to: table, keys?: string[], strip?: string[] }  from = { cluster, kind, name, namespace = }, to = { cluster, namespace =, name = }
function kube.copy_object(o)
  copy.object(o)
end

--- All objects of a namespace as YAML, to be kept: without their state, without what their owners make again, and with digests
--- for what Secrets hold.
---@async
---@param the_cluster runbook.Cluster
---@param o { namespace: string }
---@return string yaml
function kube.manifests(the_cluster, o)
  return copy.manifests(the_cluster, o)
end

place.register("kube", function(reference)
  return cluster.new { context = reference.context, cluster = reference.cluster, kubeconfig = reference.kubeconfig,
    in_cluster = reference.in_cluster }
end)

return kube
