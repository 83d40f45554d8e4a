--- The storage of a hub's homes.

local errors = require "runbook.errors"
local handle = require "runbook.hub.handle"
local settings = require "runbook.hub.settings"
local storage = require "runbook.kube.storage"

--- The storage the hub's users have their homes in, down to the part of the path that all of them share.
---@async
---@return runbook.kube.Storage
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

return handle.Hub
