--- A place made for a while: a pod with a claim or an NFS share mounted, where no container has it.
---
---     recipe.with(cluster, { namespace = "prod", claim = "hub-db-dir", mount = "/data", image = image, purpose = "database" },
---       function(place) return place:query { "ls", "/data" } end)
---
--- For verbs of this library. The pod's removal is owed before it is made; it ends by itself after a day, whoever forgot it. The
--- autoscaler does not take its node away, and it may run where users' pods may.

local container = require "runbook.kube.container"
local digest = require "runbook.core.digest"
local errors = require "runbook.errors"
local obligation = require "runbook.obligation"
local options = require "runbook.options"
local task = require "runbook.core.task"

local recipe = {}

local LONGEST = 86400 -- seconds it may live
local READY = 600 -- seconds until a volume is attached and an image is there

-- Ends at once when it is told to.
local SLEEP = "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done"

local removal = obligation.kind("kube-pod", function(what)
  what.cluster:delete { kind = "Pod", name = what.name, namespace = what.namespace, grace = 1 }
end, function(what) return ("remove pod %s in %s"):format(what.name, what.namespace) end)

local check_with = options.declare("recipe.with", {
  namespace = { "string", "where it is made" },
  purpose = { "string", "a word for its name" },
  image = { "string", "with sh and what is to be done in it" },
  mount = { "string", "where the volume is seen" },
  claim = { "string", "a PersistentVolumeClaim", optional = true },
  nfs = { "table", "{ server =, path = }", optional = true },
  read_only = { "boolean", "nothing is written", default = false },
  security = { "table", "securityContext of the pod", optional = true },
  pull_secrets = { "list", "as a pod has them", optional = true },
})

-- The same for every process of a run, so that one that goes on finds what the one before has made.
local function name_for(o)
  local context = task.context()
  local of = table.concat({ context.run_id or "ad-hoc", context.step or "", context.unit or "", o.claim or o.nfs.path }, "\0")
  return ("runbook-%s-%s"):format(o.purpose, digest.hex(digest.sha256(of, true)):sub(1, 8))
end

local function pod_of(o, name)
  local volume = { name = "volume" }
  if o.claim then
    volume.persistentVolumeClaim = { claimName = o.claim, readOnly = o.read_only or nil }
  else
    volume.nfs = { server = o.nfs.server, path = o.nfs.path, readOnly = o.read_only or nil }
  end
  return {
    apiVersion = "v1", kind = "Pod",
    metadata = {
      name = name, namespace = o.namespace,
      labels = { ["app.kubernetes.io/managed-by"] = "runbook", ["runbook.io/run"] = (task.context().run_id or "ad-hoc"):sub(1, 63) },
      annotations = { ["cluster-autoscaler.kubernetes.io/safe-to-evict"] = "false" },
    },
    spec = {
      restartPolicy = "Never", activeDeadlineSeconds = LONGEST, terminationGracePeriodSeconds = 1,
      automountServiceAccountToken = false, enableServiceLinks = false,
      securityContext = o.security, imagePullSecrets = o.pull_secrets, tolerations = { { operator = "Exists" } },
      volumes = { volume },
      containers = {
        {
          name = "place", image = o.image, command = { "sh", "-c", SLEEP },
          resources = { requests = { cpu = "50m", memory = "64Mi" } },
          volumeMounts = { { name = "volume", mountPath = o.mount, readOnly = o.read_only or nil } },
        },
      },
    },
  }
end

local function make(cluster, o, name)
  local ok, err = xpcall(cluster.send, errors.handler, cluster, {
    method = "POST", path = ("/api/v1/namespaces/%s/pods"):format(o.namespace), json = pod_of(o, name),
    query = { fieldManager = "runbook" },
  })
  if not ok and not (errors.is(err) and err.code == "AlreadyExists") then
    error(err, 0)
  end
end

--- Make the pod, call `fn` with it as a place, and remove it however that ends.
---@async
---@param cluster runbook.Cluster
---@param given table  namespace, purpose, image, mount; claim or nfs; read_only, security, pull_secrets
---@param fn async fun(place: runbook.Place): any
---@return any result
function recipe.with(cluster, given, fn)
  local o = check_with(given, 2)
  local name = name_for(o)
  local owed = removal:owe { cluster = cluster, namespace = o.namespace, name = name }
  local ok, result = xpcall(function()
    make(cluster, o, name)
    cluster:wait { kind = "Pod", name = name, namespace = o.namespace, condition = "Ready", timeout = READY }
    return fn(container.new(cluster, { pod = name, container = "place", namespace = o.namespace }))
  end, errors.handler)
  if not ok and errors.is_cancelled(result) then
    error(result, 0) -- a cancelled task waits for nothing; what is owed is met by whoever goes on
  end
  owed:meet()
  if not ok then
    error(result, 0)
  end
  return result
end

return recipe
