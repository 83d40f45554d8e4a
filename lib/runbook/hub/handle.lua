--- A hub as a handle: its cluster, its namespace, and what it is called. What it can do is in the files beside this one.

local errors = require "runbook.errors"
local kube = require "runbook.kube"
local options = require "runbook.options"
local task = require "runbook.core.task"

local handle = {}

--- The name of what a closing leaves: lib/runbook/hub/closing.lua.
handle.FREEZE = "runbook-freeze"

---@class runbook.Hub
---@field cluster runbook.Cluster
---@field namespace string
---@field name string       for messages: cluster/namespace
---@field token? runbook.secret  of the hub's API
---@field ingress? { service: string?, namespace: string? }  the Service people's names lead to
---@field ca? string        PEM: who signed the certificates of people's names, where this computer does not know them
---@field homes? string     the PersistentVolumeClaim with the homes, where the hub's configuration does not say
local Hub = {}
local hub_mt = { __name = "runbook.hub", __index = Hub }

function hub_mt.__tostring(self)
  return self.name
end

function hub_mt.__eq(a, b)
  return a.cluster == b.cluster and a.namespace == b.namespace
end

--- The class, for the modules that add methods to it.
handle.Hub = Hub

local check_hub = options.declare("hub.open", {
  cluster = { "any", "a cluster; or say context", optional = true },
  context = { "string", "the context in kubeconfig", optional = true },
  uid = { "string", "of kube-system; another cluster by that context is refused", optional = true },
  kubeconfig = { "any", "a file or a secret instead of KUBECONFIG or ~/.kube/config", optional = true },
  in_cluster = { "boolean", "the cluster that this process runs in", optional = true },
  namespace = { "string", "where the hub is" },
  token = { "any", "a secret: token of the hub's API", optional = true },
  ingress = { "table", "{ service =, namespace = } that names lead to; found by itself when it has a usual name", optional = true },
  ca = { "string", "PEM: who signed the certificates of people's names, where this computer does not know them", optional = true },
  homes = { "string", "the claim with the homes, where the hub's configuration does not say", optional = true },
})

--- A hub. Nothing is read or asked before its first use.
---@param given table  cluster, or context, uid, kubeconfig, in_cluster; namespace; token, ingress, homes
---@return runbook.Hub
function handle.new(given)
  local o = check_hub(given, 3)
  if o.cluster ~= nil and not kube.is_cluster(o.cluster) then
    errors.raise({ kind = "usage", message = "hub.open: cluster is what kube.cluster returns", hint = "or say context =" }, 3)
  end
  local cluster = o.cluster or kube.cluster { context = o.context, cluster = o.uid, kubeconfig = o.kubeconfig, in_cluster = o.in_cluster }
  return setmetatable({ cluster = cluster, namespace = o.namespace, name = ("%s/%s"):format(cluster.name, o.namespace),
    token = o.token, ingress = o.ingress, homes = o.homes, ca = o.ca }, hub_mt)
end

--- Is this value a hub?
---@param value any
---@return boolean
function handle.is(value)
  return getmetatable(value) == hub_mt
end

--- What another process needs to open it again.
---@return table
function Hub:reference()
  return { kind = "hub", cluster = self.cluster:reference(), namespace = self.namespace, ingress = self.ingress, homes = self.homes }
end

--- What a run keeps of a hub among its parameters.
---@async
---@return string
function Hub:identity()
  return ("%s, namespace %s"):format(self.cluster:identity(), self.namespace)
end

--- An object of the hub's namespace; raises kind `missing`.
---@async
---@param kind string
---@param name string
---@param more? table  as for `cluster:get`
---@return table
function Hub:get(kind, name, more)
  local o = { kind = kind, name = name, namespace = self.namespace }
  for key, value in pairs(more or {}) do
    o[key] = value
  end
  return self.cluster:get(o)
end

--- The same, or nil when it is not there.
---@async
---@return table?
function Hub:find(kind, name)
  return self.cluster:find { kind = kind, name = name, namespace = self.namespace }
end

--- The hub's Deployment.
---@async
---@return table deployment
---@return integer replicas  that are wanted
---@return table container  the hub's own, of the pod's template
function Hub:deployment()
  local deployment = self:get("Deployment", "hub")
  local containers = deployment.spec.template.spec.containers
  local own = containers[1]
  for _, container in ipairs(containers) do
    own = container.name == "hub" and container or own
  end
  return deployment, deployment.spec.replicas or 1, own
end

--- What a closing left in the cluster; nil when the hub is not closed.
---@async
---@return table? config_map
function Hub:freeze()
  return self:find("ConfigMap", handle.FREEZE)
end

--- Did this run write what a closing left? Another machine's run may have the same name.
---@param frozen table  the ConfigMap
---@return boolean
function handle.is_ours(frozen)
  local session = task.context().session
  local meta = session and session.journal and session.journal.meta
  local data = frozen.data or {}
  return data.run == (meta and session.name or "ad-hoc") and (data.id == nil or data.id == (meta and meta.id or "ad-hoc"))
end

return handle
