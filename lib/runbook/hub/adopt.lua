--- Taking over a hub that a run on another machine closed and did not open again.
---
--- What it needs is in the cluster: ConfigMap `runbook-freeze` says which run closed the hub, and how it was. A run that takes it
--- over has the same name, so that what is closed is its own, and it knows the way back: `rollback` opens the hub again.

local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local handle = require "runbook.hub.handle"
local json = require "runbook.json"
local lock = require "runbook.lock"
local task = require "runbook.core.task"

local adopt = {}

effect.verb {
  name = "hub.reopen", class = "change", repeatable = true, inverse = effect.NOT_NEEDED,
  target = function(hub) return hub.name end,
  summary = function() return "open the hub again, as its ConfigMap says it was" end,
  by_hand = function(hub)
    return hub.cluster:by_hand { "-n", hub.namespace, "get", "configmap", handle.FREEZE, "-o", "jsonpath={.data.README}" }
  end,
  body = function(hub)
    local frozen = hub:freeze()
    if frozen == nil then
      return -- it is open
    end
    hub.cluster:scale { kind = "Deployment", name = "hub", namespace = hub.namespace, replicas = tonumber(frozen.data.replicas) or 1 }
    hub:wait_started()
    hub:unblock_servers()
  end,
}

local take = effect.verb {
  name = "hub.adopt", class = "change", repeatable = true,
  target = function(hub) return hub.name end,
  summary = function(_, o) return o.reopens and "take over its closing; going back opens it" or "take over its closing" end,
  by_hand = function(hub) return hub.cluster:by_hand { "-n", hub.namespace, "edit", "configmap", handle.FREEZE } end,
  inverse = function(hub, o) return o.reopens and { "hub.reopen", hub } or effect.NOT_NEEDED end,
  body = function(hub)
    hub.cluster:lock { namespace = hub.namespace }
    hub.cluster:patch { kind = "ConfigMap", name = handle.FREEZE, namespace = hub.namespace,
      merge = { data = { holder = lock.holder(), id = task.context().session.journal.meta.id } } }
  end,
}

---@class runbook.hub.Closed
---@field hub runbook.Hub
---@field data table  of its ConfigMap
---@field users integer  when it was closed

--- Which of these hubs are closed, the one that people were on in front: going back opens that. Raises when they were closed by
--- several runs, or none is.
---@async
---@param hubs runbook.Hub[]
---@return runbook.hub.Closed[]
---@return string run
function adopt.look(hubs)
  local list = {}
  for _, hub in ipairs(hubs) do
    local frozen = hub:freeze()
    if frozen then
      list[#list + 1] = { hub = hub, data = frozen.data }
    end
  end
  if #list == 0 then
    errors.raise { kind = "missing", code = "EOPEN", message = "none of these hubs is closed by a run; there is nothing to take over",
      hint = "`runbook run` begins a new one" }
  end
  for _, one in ipairs(list) do
    one.users = #json.decode(one.data["users.json"] or "[]")
  end
  table.sort(list, function(a, b)
    if a.users ~= b.users then
      return a.users > b.users
    end
    return a.data.at < b.data.at
  end)
  for _, one in ipairs(list) do
    if one.data.run ~= list[1].data.run then
      errors.raise { kind = "conflict", message = ("%s was closed by run %s, and %s by run %s"):format(list[1].hub.name, list[1].data.run,
        one.hub.name, one.data.run), hint = "take them over one after the other, with parameters that name one hub" }
    end
  end
  return list, list[1].data.run
end

--- Rows for the question before it.
---@async
---@param closed runbook.hub.Closed[]
---@param hubs runbook.Hub[]  all there are
---@return string[][]
function adopt.rows(closed, hubs)
  local rows = {}
  for _, hub in ipairs(hubs) do
    local running = hub:freeze() == nil and #hub:server_pods() or 0
    if running > 0 then
      rows[#rows + 1] = { "open", ("%s, and people are on it: %d servers run. Going back opens %s beside it"):format(hub.name, running,
        closed[1].hub.name) }
    end
  end
  for i, one in ipairs(closed) do
    rows[#rows + 1] = { "closed", ("%s since %s by run %s, held by %s"):format(one.hub.name, one.data.at, one.data.run, one.data.holder) }
    if i > 1 then
      rows[#rows + 1] = { "", "going back leaves it closed: people were on " .. closed[1].hub.name }
    end
  end
  rows[#rows + 1] = { "check", ("that this run works nowhere any more: it would open %s under your hands"):format(closed[1].hub.name) }
  rows[#rows + 1] = { "not known", "what the run did besides: names that it switched are put back by hand" }
  return rows
end

--- Take them over, in a step.
---@async
---@param closed runbook.hub.Closed[]
function adopt.take(closed)
  for i, one in ipairs(closed) do
    take(one.hub, { reopens = i == 1 })
    events.notice(i == 1 and ("%s is this run's now"):format(one.hub.name)
      or ("%s is this run's now, and stays closed when it goes back; what opens it then: %s"):format(one.hub.name,
        one.hub.cluster:by_hand { "-n", one.hub.namespace, "get", "configmap", handle.FREEZE, "-o", "jsonpath={.data.README}" }))
  end
end

return adopt
