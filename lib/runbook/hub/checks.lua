--- What has to hold before a hub is touched, as checks for rb.checks.

local errors = require "runbook.errors"
local handle = require "runbook.hub.handle"
local human = require "runbook.human"

local Hub = handle.Hub

-- What closing, stopping and opening a hub takes.
local RIGHTS = {
  { "get", "secrets" }, { "get", "deployments" }, { "patch", "deployments" }, { "get", "deployments/scale" },
  { "patch", "deployments/scale" }, { "list", "pods" }, { "delete", "pods" }, { "create", "pods/exec" }, { "get", "services" },
  { "patch", "services" }, { "get", "ingresses" }, { "patch", "ingresses" }, { "get", "configmaps" }, { "create", "configmaps" },
  { "patch", "configmaps" }, { "delete", "configmaps" }, { "patch", "resourcequotas" }, { "delete", "resourcequotas" },
}

local function rights(hub)
  local list = { namespace = hub.namespace }
  hub.cluster:must_be_allowed(table.move(RIGHTS, 1, #RIGHTS, 1, list))
end

local function is_open(hub)
  local frozen = hub:freeze()
  if frozen then
    return ("it is closed since %s, by run %s"):format(frozen.data.at or "unknown", frozen.data.run or "unknown")
  end
end

local function health(hub)
  local _, replicas = hub:deployment()
  if replicas == 0 then
    return "the hub is stopped"
  end
  local version = hub:must_be_healthy()
  local people, running = hub:users(), 0
  for _, person in ipairs(people) do
    running = running + person.running
  end
  return ("JupyterHub %s, %s, %s running"):format(version, human.plural(#people, "user"), human.plural(running, "server"))
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
