--- The type `hub`: a cluster and the namespace the hub is in.

local types = require "runbook.types"
local units = require "runbook.units"
local cluster = require "runbook.types.kube"

local entry_fields = {
  { "service", "object name", "the Service with the load balancer" },
  { "namespace", "object name", "where it is", default = "support" },
}

types.register("entry", {
  internal = true,
  help = "the Service that people's names lead to",
  parse = function(raw, at)
    if not types.is_map(raw) then
      return nil, units.quote(raw) .. ": expected {service: NAME, namespace: NAME}"
    end
    return types.map(entry_fields, raw, at)
  end,
})

local fields = {
  { "namespace", "object name", "the hub's namespace" },
  { "token", "secret", "of the hub's API; made for the run and removed again, when missing", optional = true },
  { "ingress", "entry", "the Service people's names lead to, where it has no usual name", optional = true },
  { "ca", "file", "who signed the certificates of people's names, where this computer does not know them (PEM)", optional = true },
  { "homes", "object name", "the claim with the homes, where the hub's configuration does not say", optional = true },
}
table.move(cluster.fields, 1, #cluster.fields, #fields + 1, fields)

types.register("hub", {
  help = "a hub: a context of kubeconfig and a namespace",
  pinned = { "context", "cluster", "kubeconfig", "in_cluster", "namespace" },
  parse = function(raw, at)
    if not types.is_map(raw) then
      return nil, units.quote(raw) .. ": a hub is expected, like {context: temple-eks, namespace: prod}"
    end
    local values = types.map(fields, raw, at)
    if values and not (values.context or values.kubeconfig or values.in_cluster) then
      at:below "context":missing "the context in kubeconfig"
      return nil
    end
    if values then
      values.uid, values.cluster = values.cluster, nil
    end
    return values and require("runbook.hub").open(values)
  end,
  check = function(hub)
    hub.cluster:uid()
  end,
  show = tostring,
  example = { "context: the context in kubeconfig", "cluster: uid of its namespace kube-system", "namespace: of the hub" },
})
