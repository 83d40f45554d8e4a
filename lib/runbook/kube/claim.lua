--- What a PersistentVolumeClaim holds, as a directory: commands and files in it, through a pod that is made when it is first needed.
---
---     local homes = cluster:claim { claim = "home-nfs", namespace = "prod", path = "homes" }
---     homes:list()                                           -- a runbook.Dir like any other
---     sync.pair { kind = "claim", from = homes, to = new:claim { claim = "homes", namespace = "prod" } }
---
--- The pod is there while a step is at work, a new one for each (kube/recipe.lua); when it is evicted or deleted, another is made.
--- So what runs there does not outlive it: no jobs, and its lock is a Lease. What is only read is mounted so.

local cluster = require "runbook.kube.cluster"
local container = require "runbook.kube.container"
local digest = require "runbook.core.digest"
local errors = require "runbook.errors"
local events = require "runbook.events"
local lease = require "runbook.kube.lease"
local options = require "runbook.options"
local place = require "runbook.place"
local recipe = require "runbook.kube.recipe"
local storage = require "runbook.kube.storage"
local task = require "runbook.core.task"

local claim = {}

--- Where a pod sees it.
claim.MOUNT = "/claim"

-- Debian's: GNU find, sed and sort, which looks and proofs need.
claim.IMAGE = "docker.io/library/debian:12-slim"

-- To keep owners of files, whatever user the image is made for.
local AS_ROOT = { runAsUser = 0, runAsGroup = 0, runAsNonRoot = false }

---@class runbook.kube.ClaimBackend: runbook.kube.ContainerBackend
local Backend = setmetatable({}, { __index = container.Backend })
Backend.__index = Backend

-- For which part of the work a pod is: it ends with the step, and in a plan with that.
local function part_of_work()
  local context = task.context()
  return context.mode == "plan" and "plan" or context.step or "nothing"
end

local function make(self)
  local o = self.options
  events.notice(("%s: a pod is made that mounts the claim %s%s"):format(o.cluster.name, self.what,
    o.read_only and ", to be read only" or ""))
  return recipe.lasting(o.cluster, {
    namespace = o.namespace, purpose = "claim", image = o.image, claim = o.claim, mount = claim.MOUNT, read_only = o.read_only,
    security = AS_ROOT,
  })
end

--- The pod, which is made when there is none. Several may ask at once.
---@async
---@return runbook.kube.Target
function Backend:target()
  local o, part = self.options, part_of_work()
  while self.making do
    task.sleep(0.05)
  end
  if not self.pod or self.part ~= part then
    self.making = true
    local _ <close> = setmetatable({}, { __close = function() self.making = nil end })
    self.pod, self.part = make(self), part
  end
  return { cluster = o.cluster, namespace = o.namespace, pod = self.pod, container = recipe.CONTAINER }
end

-- Will what failed fail again there?
local function is_at_work(self, name)
  local ok, pod = xpcall(self.options.cluster.find, errors.handler, self.options.cluster,
    { kind = "Pod", name = name, namespace = self.options.namespace })
  if not ok then
    return true -- nobody knows; what failed before says more
  end
  return pod ~= nil and pod.metadata.deletionTimestamp == nil and pod.status.phase == "Running"
end

-- A pod that was evicted, deleted or ended its day is replaced, and what could not begin in it begins in the next.
local function in_one_that_works(self, open, argv, o)
  local r = table.pack(xpcall(open, errors.handler, self, argv, o))
  local name = self.pod
  if r[1] and r[2] or not name or not r[1] and errors.is_cancelled(r[2]) or is_at_work(self, name) then
    if not r[1] then
      error(r[2], 0)
    end
    return table.unpack(r, 2, r.n)
  elseif self.pod == name then
    self.pod = nil
  end
  return open(self, argv, o)
end

function Backend:open(argv, o)
  return in_one_that_works(self, container.Backend.open, argv, o)
end

function Backend:open_bare(argv, o)
  return in_one_that_works(self, container.Backend.open_bare, argv, o)
end

--- Which claim it is, whatever its cluster is called here.
---@async
---@return string
function Backend:identity()
  local o = self.options
  return ("%s %s/%s"):format(o.cluster:identity(), o.namespace, o.claim)
end

--- Two pods with one claim see the same files.
Backend.machine = Backend.identity

function Backend:reference()
  local o = self.options
  return { kind = "kube.claim", cluster = o.cluster:reference(), namespace = o.namespace, claim = o.claim, image = o.image,
    read_only = o.read_only or nil }
end

--- The same claim, mounted to be read only.
---@return runbook.Place
function Backend:only_read()
  return claim.place(self.options.cluster, { namespace = self.options.namespace, claim = self.options.claim, image = self.options.image,
    read_only = true })
end

-- ---- its lock ----

-- A Lease beside the claim, of a name made from what is locked in it: whoever holds it needs no pod for that.
local function lease_of(at, path)
  local o = at.backend.options
  return ("%s/runbook-%s-%s"):format(o.namespace, o.claim:sub(1, 200), digest.sha256(path):sub(1, 8))
end

local way = {}

for _, name in ipairs { "take", "renew", "give", "by_hand" } do
  way[name] = function(at, path, ...)
    return lease.way[name](at.backend.options.cluster, lease_of(at, path), ...)
  end
end

-- ---- handles ----

local check_place = options.declare("claim.place", {
  namespace = { "string", "where the claim is" },
  claim = { "string", "its name" },
  image = { "string", "of the pods: with sh, coreutils, and find, sed and sort as GNU has them", default = claim.IMAGE },
  read_only = { "boolean", "nothing is written", default = false },
})

--- A claim as a place; nothing is made or asked before its first use.
---@param of runbook.Cluster
---@param given { namespace: string, claim: string, image?: string, read_only?: boolean }
---@return runbook.Place
function claim.place(of, given)
  local o = check_place(given, 3)
  o.cluster = of
  local what = ("%s/%s"):format(o.namespace, o.claim)
  return place.new(setmetatable({ options = o, namespace = o.namespace, what = what }, Backend),
    { name = ("%s/%s"):format(of.name, what), lock_of = way })
end

--- What a directory is of, if it is in a claim: the claim, and where in it.
---@param dir runbook.Dir
---@return { cluster: runbook.Cluster, namespace: string, claim: string, path: string }?  path: without a slash at its ends
function claim.of(dir)
  if getmetatable(dir.place.backend) ~= Backend then
    return nil
  end
  local o = dir.place.backend.options
  return { cluster = o.cluster, namespace = o.namespace, claim = o.claim, path = dir.path:sub(#claim.MOUNT + 2) }
end

--- The storage behind a directory in a claim, and its volume.
---@async
---@param dir runbook.Dir
---@return runbook.kube.Storage
---@return table volume  the PersistentVolume
function claim.storage(dir)
  local of = claim.of(dir)
  local behind, volume = storage.of_claim(of.cluster, of.namespace, of.claim)
  if behind == nil then
    errors.raise { kind = "missing", code = "EUNBOUND", target = of.cluster.name,
      message = ("claim %s of namespace %s is bound to no volume"):format(of.claim, of.namespace),
      hint = of.cluster:by_hand { "-n", of.namespace, "describe", "pvc", of.claim } }
  end
  return storage.below(behind, of.path), volume
end

local check_claim = options.declare("cluster:claim", {
  namespace = { "string", "where the claim is" },
  claim = { "string", "its name" },
  path = { "string", "a directory in it", default = "" },
  image = { "string", "of the pods that mount it", optional = true },
})

--- A directory in a claim; nothing is made or asked before its first use.
---@param o { namespace: string, claim: string, path?: string, image?: string }
---@return runbook.Dir
function cluster.Cluster:claim(o)
  o = check_claim(o, 2)
  local path = o.path:gsub("^/+", ""):gsub("/+$", "")
  if ("/" .. path .. "/"):find("/%.%.?/") then
    errors.raise({ kind = "usage", message = ("cluster:claim: `%s` is no path in a claim"):format(o.path) }, 2)
  end
  local at = claim.place(self, { namespace = o.namespace, claim = o.claim, image = o.image })
  return at:dir(path == "" and claim.MOUNT or claim.MOUNT .. "/" .. path)
end

place.register("kube.claim", function(reference)
  return claim.place(place.open(reference.cluster), { namespace = reference.namespace, claim = reference.claim,
    image = reference.image, read_only = reference.read_only })
end)

return claim
