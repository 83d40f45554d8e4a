--- The types `cluster`, a context of kubeconfig and the uid that says which cluster that must be, and `claim`, a directory in a
--- PersistentVolumeClaim of one.

local types = require "runbook.types"
local units = require "runbook.units"

types.register("cluster uid", {
  internal = true,
  help = "the uid of its namespace kube-system",
  parse = function(raw)
    local text = type(raw) == "string" and raw:lower()
    if not text or not text:match "^%x+%-%x+%-%x+%-%x+%-%x+$" or #text ~= 36 then
      return nil, units.quote(raw) .. ": a uid like 6f0d3c1e-0b52-4c7e-9a57-2f5f9c1f7d10; "
        .. "kubectl get namespace kube-system -o jsonpath={.metadata.uid} prints it"
    end
    return text
  end,
})

types.register("object name", {
  internal = true,
  help = "the name of a Kubernetes object",
  parse = function(raw)
    local text = type(raw) == "string" and raw
    if not text or #text > 253 or not text:match "^[a-z0-9][a-z0-9.-]*$" or text:match "[.-]$" then
      return nil, units.quote(raw) .. ": a name is small letters, digits, `-` and `.`"
    end
    return text
  end,
})

local schemes = { sops = true, age = true, file = true, ["env-file"] = true }

types.register("kubeconfig", {
  internal = true,
  help = "a file, or a reference to a secret",
  parse = function(raw, at)
    if type(raw) == "string" and schemes[raw:match "^([%l-]+):" or ""] then
      return types.find("secret").parse(raw, at)
    end
    return types.find("path").parse(raw, at)
  end,
})

--- Keys of a cluster among parameters; a type that has one (a hub) puts them among its own.
local fields = {
  { "context", "string", "the context in kubeconfig", optional = true },
  { "cluster", "cluster uid", "uid of kube-system; another cluster by that name is refused", optional = true },
  { "kubeconfig", "kubeconfig", "a file or secret instead of KUBECONFIG or ~/.kube/config", optional = true },
  { "in_cluster", "boolean", "the cluster that this process runs in", optional = true },
}

types.register("cluster", {
  help = "a Kubernetes cluster: a context of kubeconfig",
  pinned = true,
  parse = function(raw, at)
    local values
    if type(raw) == "string" and raw ~= "" then
      values = { context = raw }
    elseif types.is_map(raw) then
      values = types.map(fields, raw, at)
    else
      return nil, units.quote(raw) .. ": a context is expected, like temple-eks or {context: temple-eks, cluster: UID}"
    end
    if values and not (values.context or values.kubeconfig or values.in_cluster) then
      at:below "context":missing "the context in kubeconfig"
      return nil
    end
    return values and require("runbook.kube").cluster(values)
  end,
  check = function(cluster)
    cluster:uid()
  end,
  show = tostring,
  example = { "context: the context in kubeconfig", "cluster: uid of its namespace kube-system" },
})

local claim_fields = {
  { "claim", "object name", "the PersistentVolumeClaim" },
  { "namespace", "object name", "where it is" },
  { "path", "string", "a directory in it; without, all of it", default = "" },
  { "image", "string", "of the pods that mount it, where Debian's cannot be had", optional = true },
}
table.move(fields, 1, #fields, #claim_fields + 1, claim_fields)

types.register("claim", {
  help = "a directory in a PersistentVolumeClaim",
  pinned = true,
  parse = function(raw, at)
    if not types.is_map(raw) then
      return nil, units.quote(raw) .. ": a claim is expected, like {context: temple-eks, namespace: prod, claim: home-nfs}"
    end
    local values = types.map(claim_fields, raw, at)
    if values and not (values.context or values.kubeconfig or values.in_cluster) then
      at:below "context":missing "the context in kubeconfig"
      return nil
    elseif values and ("/" .. values.path .. "/"):find("/%.%.?/") then
      at:below "path":problem(units.quote(values.path) .. ": a path in the claim, without . and ..")
      return nil
    end
    return values and require("runbook.kube").cluster({
      context = values.context, cluster = values.cluster, kubeconfig = values.kubeconfig, in_cluster = values.in_cluster,
    }):claim { claim = values.claim, namespace = values.namespace, path = values.path, image = values.image }
  end,
  show = tostring,
  example = { "context: the context in kubeconfig", "cluster: uid of its namespace kube-system", "namespace: of the claim",
    "claim: its name" },
})

return { fields = fields }
