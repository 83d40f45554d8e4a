--- What has to hold before a hub is touched, as checks for rb.checks.

local differences = require "runbook.hub.differences"
local errors = require "runbook.errors"
local handle = require "runbook.hub.handle"
local human = require "runbook.human"
local task = require "runbook.core.task"

local Hub = handle.Hub

local checks = {}

-- What closing, stopping and opening a hub takes.
local RIGHTS = {
  { "get", "secrets" }, { "get", "deployments" }, { "patch", "deployments" }, { "get", "deployments/scale" },
  { "patch", "deployments/scale" }, { "list", "pods" }, { "delete", "pods" }, { "create", "pods/exec" }, { "get", "services" },
  { "patch", "services" }, { "get", "ingresses" }, { "patch", "ingresses" }, { "get", "configmaps" }, { "create", "configmaps" },
  { "patch", "configmaps" }, { "delete", "configmaps" }, { "get", "resourcequotas" }, { "patch", "resourcequotas" },
  { "delete", "resourcequotas" },
  { "get", "leases" }, { "create", "leases" }, { "update", "leases" }, { "delete", "leases" },
}

local function rights(hub)
  local list = { namespace = hub.namespace }
  hub.cluster:must_be_allowed(table.move(RIGHTS, 1, #RIGHTS, 1, list))
end

local function is_open(hub)
  local frozen = hub:freeze()
  local session = task.context().session
  if frozen and session and session.journal and not handle.is_ours(frozen) then
    errors.raise {
      kind = "conflict", code = "EFROZEN", target = hub.name,
      message = ("it is closed since %s, by run %s of %s"):format(frozen.data.at or "unknown", frozen.data.run or "unknown",
        frozen.data.holder or "unknown"),
      hint = "that run's `resume` or `rollback` goes on; where its machine is gone, `runbook adopt` takes it over",
    }
  elseif frozen then
    return ("it is closed since %s, by run %s"):format(frozen.data.at or "unknown", frozen.data.run or "unknown")
  end
end

local function count(hub)
  local people, running = hub:users(), 0
  for _, person in ipairs(people) do
    running = running + person.running
  end
  return { hub = hub, users = #people, servers = running }
end

-- Of one that we closed nothing is asked: whether somebody opened it is for the steps' guards.
local function health(hub)
  local _, replicas = hub:deployment()
  if replicas == 0 then
    return "the hub is stopped"
  elseif hub:freeze() then
    return nil
  end
  local version, there = hub:must_be_healthy(), count(hub)
  return ("JupyterHub %s, %s, %s running"):format(version, human.plural(there.users, "user"), human.plural(there.servers, "server"))
end

--- For preflight: raises when somebody swapped old and new. Of a hub that is closed already nothing can be told any more.
---@async
---@param old runbook.Hub
---@param new runbook.Hub
---@return string? to_know
function checks.direction(old, new)
  for _, hub in ipairs { old, new } do
    local _, replicas = hub:deployment()
    if replicas == 0 or hub:freeze() then
      return ("not looked at: %s is closed"):format(hub.name)
    end
  end
  differences.direction(count(old), count(new))
end

--- Checks for rb.checks: titles and functions that read.
---@return table[]
function Hub:checks()
  local list = {}
  for _, row in ipairs {
    { "is the cluster that is meant", function(hub) hub.cluster:uid() end }, { "these rights are enough", rights },
    { "the hub is well", health }, { "nobody has closed it", is_open },
    { "who writes to the homes besides users' servers", function(hub)
      local ok, found = xpcall(hub.other_writers, errors.handler, hub)
      if not ok and errors.is(found, "missing") then
        return "not known: " .. found.message
      end
      return ok and found or error(found, 0)
    end },
  } do
    list[#list + 1] = { ("%s: %s"):format(self.name, row[1]), function() return row[2](self) end }
  end
  return list
end

return checks
