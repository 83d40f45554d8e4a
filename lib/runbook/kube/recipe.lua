--- A place made for a while: a pod with a claim or an NFS share mounted, where no container has it.
---
---     recipe.with(cluster, { namespace = "prod", claim = "hub-db-dir", mount = "/data", image = image, purpose = "database" },
---       function(place) return place:query { "ls", "/data" } end)
---
--- For verbs of this library. The pod's removal is owed before it is made; it ends by itself after a day, whoever forgot it. The
--- autoscaler does not take its node away, and it may run where users' pods may; where a claim is for one node, on that node.

local container = require "runbook.kube.container"
local digest = require "runbook.core.digest"
local errors = require "runbook.errors"
local obligation = require "runbook.obligation"
local options = require "runbook.options"
local task = require "runbook.core.task"

local recipe = {}

recipe.CONTAINER = "place" -- what it is called in the pod

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

local MANY_NODES = { ReadWriteMany = true, ReadOnlyMany = true }

-- The node that a claim is mounted on, where it can be mounted on one at a time.
local function node_of(cluster, o)
  local claim = cluster:get { kind = "PersistentVolumeClaim", name = o.claim, namespace = o.namespace }
  for _, mode in ipairs(claim.spec.accessModes or {}) do
    if MANY_NODES[mode] then
      return nil
    end
  end
  local node
  cluster:each({ kind = "Pod", namespace = o.namespace }, function(pod)
    for _, volume in ipairs(pod.spec.volumes or {}) do
      local mounted = volume.persistentVolumeClaim and volume.persistentVolumeClaim.claimName == o.claim
      if mounted and (pod.status.phase == "Running" or pod.status.phase == "Pending") then
        node = node or pod.spec.nodeName
      end
    end
  end)
  return node
end

-- Through the scheduler, which knows whether there is room.
local function affinity_to(node)
  return { nodeAffinity = { requiredDuringSchedulingIgnoredDuringExecution = { nodeSelectorTerms = {
    { matchFields = { { key = "metadata.name", operator = "In", values = { node } } } } } } } }
end

-- A claim that is only read is mounted so in the pod, and attached to its node as others there may want it.
local function pod_of(o, name, node)
  local volume = { name = "volume" }
  if o.claim then
    volume.persistentVolumeClaim = { claimName = o.claim }
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
      affinity = node and affinity_to(node) or nil,
      securityContext = o.security, imagePullSecrets = o.pull_secrets, tolerations = { { operator = "Exists" } },
      volumes = { volume },
      containers = {
        {
          name = recipe.CONTAINER, image = o.image, command = { "sh", "-c", SLEEP },
          resources = { requests = { cpu = "50m", memory = "64Mi" } },
          volumeMounts = { { name = "volume", mountPath = o.mount, readOnly = o.read_only or nil } },
        },
      },
    },
  }
end

-- It is ours to make in a look, too: of what is looked at nothing changes.
local function make(cluster, o, name)
  local ok, err = xpcall(cluster.send, errors.handler, cluster, {
    method = "POST", path = ("/api/v1/namespaces/%s/pods"):format(o.namespace),
    json = pod_of(o, name, o.claim and node_of(cluster, o) or nil), query = { fieldManager = "runbook" }, reads = true,
  })
  if not ok and not (errors.is(err) and err.code == "AlreadyExists") then
    error(err, 0)
  end
  cluster:wait { kind = "Pod", name = name, namespace = o.namespace, condition = "Ready", timeout = READY }
end

local function place_of(cluster, o, name)
  return container.new(cluster, { pod = name, container = recipe.CONTAINER, namespace = o.namespace })
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
  return removal:owe({ cluster = cluster, namespace = o.namespace, name = name }):after(function()
    make(cluster, o, name)
    return fn(place_of(cluster, o, name))
  end)
end

--- Make the pod for as long as the step lasts, in a plan for as long as that does; for looks as for changes. One that is gone
--- leaves its name to nobody, so that none waits for it to be gone.
---@async
---@param cluster runbook.Cluster
---@param given table  as for `with`
---@return string pod  its name
function recipe.lasting(cluster, given)
  local o = check_with(given, 2)
  local name = ("%s-%s"):format(name_for(o), digest.hex(digest.random(2)))
  local owed = removal:owe({ cluster = cluster, namespace = o.namespace, name = name }, { in_plan = true })
  local ok, err = xpcall(make, errors.handler, cluster, o, name)
  if ok then
    return name
  elseif not errors.is_cancelled(err) then
    owed:meet() -- one that never became ready is in nobody's way until the step ends
    if errors.is(err) and err.code == "EWAIT" then
      err.again = false -- that was long enough
    end
  end
  error(err, 0)
end

return recipe
