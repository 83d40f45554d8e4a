--- Which storage is behind a volume, so that two ways to name one directory are seen to be one; and which pods may write to it.
---
--- A place in storage is `{ root = "nfs 10.0.0.7", path = "/export/homes/prod" }`: two overlap when their root is one and a path is
--- the other or lies below it.

local errors = require "runbook.errors"

local storage = {}

---@class runbook.kube.Storage
---@field root string
---@field path string

local function clean(path)
  path = ("/" .. (path or "")):gsub("/+", "/"):gsub("/$", "")
  return path == "" and "/" or path
end

--- A path below another.
---@param place runbook.kube.Storage
---@param below string?
---@return runbook.kube.Storage
function storage.below(place, below)
  return { root = place.root, path = clean(place.path .. "/" .. (below or "")) }
end

-- How the drivers name what is behind a volume. Sources: their projects' documentation of volumeHandle and volumeAttributes.
local drivers = {
  ["nfs.csi.k8s.io"] = function(csi, a)
    return { root = "nfs " .. (a.server or csi.volumeHandle), path = clean((a.share or "") .. "/" .. (a.subdir or a.subDir or "")) }
  end,
  ["efs.csi.aws.com"] = function(csi)
    local id, path = csi.volumeHandle:match "^([^:]+):?([^:]*)"
    return { root = "efs " .. id, path = clean(path) }
  end,
  ["file.csi.azure.com"] = function(csi, a)
    local share = a.shareName or csi.volumeHandle
    return { root = ("azure %s/%s"):format(a.storageAccount or a.server or "", share), path = clean(a.folderName) }
  end,
  ["filestore.csi.storage.gke.io"] = function(csi, a)
    return { root = "nfs " .. (a.ip or csi.volumeHandle), path = clean(a.volume) }
  end,
}

--- What is behind a volume's source: of a PersistentVolume's spec, or inline in a pod.
---@param source table
---@param name string  of the volume, for what has no name outside its cluster
---@return runbook.kube.Storage
function storage.of_source(source, name)
  if source.nfs then
    return { root = "nfs " .. source.nfs.server, path = clean(source.nfs.path) }
  elseif source.csi then
    local driver = drivers[source.csi.driver]
    local attributes = source.csi.volumeAttributes or {}
    if driver and source.csi.volumeHandle then
      return driver(source.csi, attributes)
    end
    return { root = ("%s %s"):format(source.csi.driver, source.csi.volumeHandle or name), path = "/" }
  elseif source.hostPath then
    return { root = "host", path = clean(source.hostPath.path) }
  end
  return { root = "volume " .. name, path = "/" }
end

--- Is one the other, or above it, or below it?
---@param a runbook.kube.Storage
---@param b runbook.kube.Storage
---@return boolean
function storage.overlap(a, b)
  if a.root ~= b.root then
    return false
  end
  local function below(x, y)
    return x == y or y == "/" or x:sub(1, #y + 1) == y .. "/"
  end
  return below(a.path, b.path) or below(b.path, a.path)
end

-- Roots that mean the same storage whoever names them; another is a name within its cluster.
local PORTABLE = { nfs = true, efs = true, azure = true }

--- May storage of this name be compared with that of another cluster?
---@param place runbook.kube.Storage
---@return boolean
function storage.is_portable(place)
  return PORTABLE[place.root:match "^%S+"] == true
end

---@param place runbook.kube.Storage
---@return string
function storage.words(place)
  return (place.root:gsub("^nfs ", "")) .. ":" .. place.path
end

--- What is behind a claim; nil while it is bound to nothing.
---@async
---@param cluster runbook.Cluster
---@param namespace string
---@param claim string
---@return runbook.kube.Storage?
---@return table? volume  the PersistentVolume
function storage.of_claim(cluster, namespace, claim)
  local found = cluster:get { kind = "PersistentVolumeClaim", name = claim, namespace = namespace }
  local name = found.spec.volumeName
  if name == nil or name == "" then
    return nil
  end
  local volume = cluster:get { kind = "PersistentVolume", name = name }
  return storage.of_source(volume.spec, name), volume
end

-- Which of a pod's volumes are on this storage. `claims` remembers what is behind each claim.
local function volumes_on(cluster, pod, place, claims)
  local found = {}
  for _, volume in ipairs(pod.spec.volumes or {}) do
    local claim = volume.persistentVolumeClaim
    local behind
    if claim then
      local key = pod.metadata.namespace .. "/" .. claim.claimName
      if claims[key] == nil then
        local ok, is = xpcall(storage.of_claim, errors.handler, cluster, pod.metadata.namespace, claim.claimName)
        if not ok and not errors.is(is, "missing") then
          error(is, 0)
        end
        claims[key] = ok and is or false
      end
      behind = claims[key]
    elseif volume.nfs or volume.hostPath or volume.csi then
      behind = storage.of_source(volume, volume.name)
    end
    if behind and storage.overlap(behind, place) and not (claim and claim.readOnly or volume.nfs and volume.nfs.readOnly) then
      found[volume.name] = true
    end
  end
  return found
end

local function mounts_for_writing(pod, volumes)
  for _, list in ipairs { pod.spec.containers or {}, pod.spec.initContainers or {}, pod.spec.ephemeralContainers or {} } do
    for _, container in ipairs(list) do
      for _, mount in ipairs(container.volumeMounts or {}) do
        if volumes[mount.name] and not mount.readOnly then
          return true
        end
      end
    end
  end
  return false
end

-- Pods of all namespaces, or, where that is not allowed, of one alone; the second value says so.
local function each_pod(cluster, namespace, fn)
  local ok, err = xpcall(cluster.each, errors.handler, cluster, { kind = "Pod", all_namespaces = true }, fn)
  if ok then
    return false
  elseif not errors.is(err, "refused") then
    error(err, 0)
  end
  cluster:each({ kind = "Pod", namespace = namespace }, fn)
  return true
end

local ENDED = { Succeeded = true, Failed = true }

--- Every pod that may write to a place in storage now, labelled or not.
---@async
---@param cluster runbook.Cluster
---@param place runbook.kube.Storage
---@param namespace string  looked at alone where the others may not be
---@return table[] pods
---@return boolean partly  pods of other namespaces could not be seen
function storage.writers(cluster, place, namespace)
  local list, claims = {}, {}
  local partly = each_pod(cluster, namespace, function(pod)
    if ENDED[pod.status.phase] then
      return
    end
    local volumes = volumes_on(cluster, pod, place, claims)
    if next(volumes) and mounts_for_writing(pod, volumes) then
      list[#list + 1] = pod
    end
  end)
  return list, partly
end

return storage
