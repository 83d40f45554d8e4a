--- A user's home on the new hub, opened as its user opens it: the hub starts the server, and what that sees is counted.

local api = require "runbook.hub.api"
local errors = require "runbook.errors"
local events = require "runbook.events"
local effect = require "runbook.effect"
local handle = require "runbook.hub.handle"
local human = require "runbook.human"
local units = require "runbook.units"

local Hub = handle.Hub

local probe = {}

-- $1 the home. Every image of a user's server has Python.
local COUNT = [[
import os, sys
count = 0
for folder, folders, files in os.walk(sys.argv[1]):
    count += len(folders) + len(files)
print(count, os.access(sys.argv[1], os.W_OK))
]]

-- The pod of a user's server. Labels hold names in whatever scheme; the annotation holds them as they are.
local function pod_of(hub, user)
  for _, pod in ipairs(hub:server_pods()) do
    local notes, labels = pod.metadata.annotations or {}, pod.metadata.labels or {}
    if not pod.metadata.deletionTimestamp and (notes["hub.jupyter.org/username"] or labels["hub.jupyter.org/username"]) == user then
      return pod
    end
  end
  errors.raise { kind = "missing", target = hub.name,
    message = ("the hub says that %s's server runs, and there is no pod of it"):format(user) }
end

local function must_hold(hub, user, receipt, said)
  local count, writable = said:match "^(%d+) (%a+)"
  count = math.tointeger(tonumber(count))
  local wanted = receipt and receipt.entries and receipt.entries - 1 -- without the home itself
  if count == nil then
    errors.raise { kind = "exit", target = hub.name, message = ("%s's home could not be counted: %s"):format(user, said) }
  elseif wanted and count < wanted then
    errors.raise {
      kind = "conflict", code = "EHOME", target = hub.name,
      message = ("%s sees %s at home, and the receipt says %s"):format(user, human.plural(count, "name"), units.count(wanted)),
      hint = "does the hub mount the directory that the copy filled, and the sub-path of this user?",
    }
  elseif writable ~= "True" then
    errors.raise { kind = "refused", code = "EHOME", target = hub.name, message = ("%s cannot write at home"):format(user),
      hint = "who owns it, and as whom do users' servers run? See `owner` of the copier" }
  end
  return count
end

--- Start a user's server, look whether the home has what its receipt says and can be written, and stop the server again.
---@async
---@param user string
---@param receipt? table  as `copier:receipt` gives it
function Hub:must_show_home(user, receipt)
  local mount = self:settings().storage.mount
  self:with_api({ scopes = { "list:users", "read:servers", api.STARTING }, make_token = true }, function(client)
    client:start_server(user)
    local ok, count = xpcall(effect.wait, errors.handler, "look what is at home", function()
      local place = self.cluster:container { pod = pod_of(self, user).metadata.name, namespace = self.namespace }
      return must_hold(self, user, receipt, place:query { "python3", "-c", COUNT, mount })
    end)
    if not ok and errors.is_cancelled(count) then
      error(count, 0)
    end
    client:stop_server(user) -- whatever was found
    if not ok then
      error(count, 0)
    elseif not effect.planning() then
      events.notice(("%s's home shows %s"):format(user, human.plural(count, "name")))
    end
  end)
end

return probe
