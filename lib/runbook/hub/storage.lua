--- Which storage is behind a volume, so that two ways to name one directory are seen to be one.
---
--- A place in storage is `{ root = "nfs 10.0.0.7", path = "/export/homes/prod" }`: two overlap when their root is one and a path is
--- the other or lies below it.

local errors = require "runbook.errors"
local handle = require "runbook.hub.handle"
local settings = require "runbook.hub.settings"

local storage = {}

---@class runbook.hub.Storage
---@field root string
---@field path string

local function clean(path)
  path = ("/" .. (path or "")):gsub("/+", "/"):gsub("/$", "")
  return path == "" and "/" or path
end

--- A path below another.
---@param place runbook.hub.Storage
---@param below string?
---@return runbook.hub.Storage
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
---@return runbook.hub.Storage
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
---@param a runbook.hub.Storage
---@param b runbook.hub.Storage
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

---@param place runbook.hub.Storage
---@return string
function storage.words(place)
  return (place.root:gsub("^nfs ", "")) .. ":" .. place.path
end

--- What is behind a claim; nil while it is bound to nothing.
---@async
---@param cluster runbook.Cluster
---@param namespace string
---@param claim string
---@return runbook.hub.Storage?
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

--- The storage the hub's users have their homes in, down to the part of the path that all of them share.
---@async
---@return runbook.hub.Storage
---@return table volume    the PersistentVolume
---@return runbook.hub.Settings
function handle.Hub:home_storage()
  local s = self:settings()
  local claim = s.storage.claim or self.homes
  if claim == nil then
    errors.raise {
      kind = "missing", target = self.name,
      message = ("its homes are not in one claim (singleuser.storage.type is %s)"):format(s.storage.kind),
      hint = "name the claim: `homes: NAME` below the hub, when all homes are in one",
    }
  end
  local place, volume = storage.of_claim(self.cluster, self.namespace, claim)
  if place == nil then
    errors.raise { kind = "missing", target = self.name, message = ("claim %s is bound to no volume"):format(claim) }
  end
  return storage.below(place, s.storage.template and settings.prefix(s.storage.template)), volume, s
end

return storage
