--- Claims on real clusters for copiers: with storage of a cluster's own, or an NFS share that clusters have in common.

local kube = require "runbook.kube"

local claims = {}

claims.IMAGE = "world/tools:1"

---@class spec.Claims
---@field real world.Cluster
---@field cluster runbook.Cluster
---@field namespace string
local Claims = {}
Claims.__index = Claims

--- A cluster with a fresh namespace for claims.
---@param real world.Cluster
---@param prefix string
---@return spec.Claims
function claims.of(real, prefix)
  real:image "tools"
  return setmetatable({ real = real, namespace = real:namespace(prefix),
    cluster = kube.cluster { kubeconfig = real.kubeconfig, context = real.name } }, Claims)
end

--- A claim of the cluster's own storage.
---@param name string
---@param o? { class?: string, mode?: string, size?: string }
function Claims:own(name, o)
  o = o or {}
  self.real:apply(([[
apiVersion: v1
kind: PersistentVolumeClaim
metadata: { name: %s }
spec: { accessModes: [%s], storageClassName: %s, resources: { requests: { storage: %s } } }
]]):format(name, o.mode or "ReadWriteMany", o.class or "folder", o.size or "1Gi"), self.namespace)
end

--- Where this machine has the files of a claim of the cluster's own storage.
---@param name string
---@return string
function Claims:folder(name)
  local volume = self.real:wait_value("pvc/" .. name, "{.spec.volumeName}", self.namespace)
  return self.real:kubectl { "get", "pv", volume, "-o", "jsonpath={.spec.hostPath.path}" }
end

--- A claim of an NFS share: a folder of this machine.
---@param name string
---@param o { server: string, path: string, folder: string, policy?: string }
---@return string volume
function Claims:share(name, o)
  local volume = ("%s-%s"):format(self.namespace, name)
  self.real:export(o.server, o.path, o.folder)
  self.real:apply(([[
apiVersion: v1
kind: PersistentVolume
metadata: { name: %s }
spec:
  capacity: { storage: 1Gi }
  accessModes: [ReadWriteMany]
  storageClassName: ""
  persistentVolumeReclaimPolicy: %s
  nfs: { server: %s, path: %s }
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: { name: %s }
spec: { accessModes: [ReadWriteMany], storageClassName: "", volumeName: %s, resources: { requests: { storage: 1Gi } } }
]]):format(volume, o.policy or "Retain", o.server, o.path, name, volume), self.namespace)
  return volume
end

--- A pod that mounts a claim, and does what it is told in it.
---@param name string
---@param claim string
---@param script? string
function Claims:pod(name, claim, script)
  self.real:apply(([[
apiVersion: v1
kind: Pod
metadata: { name: %s }
spec:
  terminationGracePeriodSeconds: 0
  volumes: [ { name: homes, persistentVolumeClaim: { claimName: %s } } ]
  containers:
  - { name: main, image: "world/tools:1", workingDir: /homes, command: [ sh, -c, %q ], volumeMounts: [ { name: homes, mountPath: /homes } ] }
]]):format(name, claim, script or "sleep 100000"), self.namespace)
  self.real:kubectl { "-n", self.namespace, "wait", "--for=condition=Ready", "pod/" .. name, "--timeout=120s" }
end

--- A directory in a claim.
---@param name string
---@param path? string
---@return runbook.Dir
function Claims:dir(name, path)
  return self.cluster:claim { claim = name, namespace = self.namespace, path = path, image = claims.IMAGE }
end

--- Run a script in a pod of ours.
---@return string
function Claims:sh(pod, script)
  return self.real:kubectl { "-n", self.namespace, "exec", pod, "--", "sh", "-c", script }
end

--- Pods and leases that runs have left; "" when there are none.
---@return string
function Claims:left_over()
  return self.real:kubectl { "-n", self.namespace, "get", "pods,leases", "-l", "", "-o", "name" }:gsub("pod/[^\n]*\n?", function(line)
    return line:find "runbook" and line or ""
  end)
end

function Claims:delete(...)
  self.real:kubectl { "-n", self.namespace, "delete", ... }
end

return claims
