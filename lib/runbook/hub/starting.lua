--- Starting a hub: waiting until it is ready, and not for longer than there is hope.

local effect = require "runbook.effect"
local errors = require "runbook.errors"
local handle = require "runbook.hub.handle"
local happened = require "runbook.kube.events"
local options = require "runbook.options"
local task = require "runbook.task"
local time = require "runbook.core.time"
local units = require "runbook.units"

local Hub = handle.Hub

local starting = {}

starting.longest = 900 -- seconds; a volume may have to be attached, and the database upgraded
starting.hope = 60 -- seconds for which something that looks hopeless may still mend itself
local POLL = 5
local LAST = 5 -- lines of a log that are shown

-- The first container of the hub's pods that cannot start: the pod, its name, why.
local function stuck(hub)
  for _, pod in ipairs(hub.cluster:list { kind = "Pod", namespace = hub.namespace, labels = "app=jupyterhub,component=hub" }) do
    local status = happened.stuck(pod)
    if status then
      return { pod = pod.metadata.name, container = status.name, reason = status.state.waiting.reason,
        message = status.state.waiting.message, restarts = status.restartCount or 0 }
    end
  end
end

local function last_words(hub, found)
  local ok, text = xpcall(hub.cluster.logs, errors.handler, hub.cluster, { pod = found.pod, container = found.container,
    namespace = hub.namespace, previous = found.restarts > 0, tail = LAST })
  if not ok and errors.is_cancelled(text) then
    error(text, 0)
  end
  return ok and type(text) == "string" and text ~= "" and "\n  " .. text:gsub("%s+$", ""):gsub("\n", "\n  ") or ""
end

local function give_up(hub, found)
  errors.raise {
    kind = "exit", code = "ESTART", target = hub.name,
    message = ("its pod %s does not start: %s%s%s%s"):format(found.pod, found.reason,
      found.restarts > 0 and (" after %d restarts"):format(found.restarts) or "", found.message and ": " .. found.message or "",
      last_words(hub, found)),
    hint = hub.cluster:by_hand { "-n", hub.namespace, "logs", found.pod, "-c", found.container },
  }
end

-- Never ends well: raises when a container has been stuck for as long as there is hope.
local function watch(hub)
  local since
  while true do
    local found = stuck(hub)
    since = found and (since or time.now()) or nil
    if found and time.now() - since >= starting.hope then
      give_up(hub, found)
    end
    task.sleep(math.min(POLL, starting.hope))
  end
end

--- Wait until the hub is ready. Raises kind `exit`, with its last words, when its pod cannot start; `timeout` when it takes too long.
---@async
function Hub:wait_started()
  local text = ("wait until the hub is ready, at most %s"):format(units.duration(starting.longest))
  effect.wait(text, task.race, {
    function()
      self.cluster:wait { kind = "Deployment", name = "hub", namespace = self.namespace, timeout = starting.longest }
    end,
    function() watch(self) end,
  })
end

local check_start = options.declare("hub:start_hub", {
  servers = { "string", "`blocked`: people see the page until `unblock_servers`", choices = { "allowed", "blocked" }, default = "allowed" },
})

--- Start the hub and wait until it is ready.
---@async
---@param o? { servers: "allowed"|"blocked" }
function Hub:start_hub(o)
  if check_start(o or {}, 2).servers == "blocked" then
    self:close()
  end
  self.cluster:scale { kind = "Deployment", name = "hub", namespace = self.namespace, replicas = 1 }
  self:wait_started()
end

return starting
