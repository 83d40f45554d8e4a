--- Who uses a hub, and stopping and starting it: users' servers, and the hub itself.
---
--- Who there is comes from the hub's own database, read in its pod: that needs no token, and knows when people were active as
--- well as the REST API does, which reads it there, too. Where the database is none that can be read (a server of its own), the
--- API is asked. Servers are stopped by the API first: then the hub has seen to its routes and hooks.

local api = require "runbook.hub.api"
local effect = require "runbook.effect"
local ending = require "runbook.hub.ending"
local errors = require "runbook.errors"
local events = require "runbook.events"
local handle = require "runbook.hub.handle"
local human = require "runbook.human"
local json = require "runbook.json"
local options = require "runbook.options"
local settings = require "runbook.hub.settings"
local task = require "runbook.task"
local time = require "runbook.core.time"
local units = require "runbook.units"

local Hub = handle.Hub

local servers = {}

local PODS = "component=singleuser-server"
local HUB_PODS = "app=jupyterhub,component=hub"
local POLL = 5 -- seconds between two looks at running servers
local SHOWN = 4
local BUSY_WITHIN = 600 -- seconds since somebody was active, for people to be called busy

-- Read-only, so that neither a lock nor a journal of ours gets in the hub's way.
local PEOPLE = [[
import json, sqlite3
db = sqlite3.connect("file:/srv/jupyterhub/jupyterhub.sqlite?mode=ro", uri=True, timeout=30)
print(json.dumps([dict(zip(("id", "name", "admin", "active", "running"), row)) for row in db.execute("""
  SELECT u.id, u.name, u.admin, strftime('%s', u.last_activity),
    (SELECT count(*) FROM spawners s WHERE s.user_id = u.id AND s.server_id IS NOT NULL)
  FROM users u ORDER BY u.name""")]))
]]

--- The hub's container as a place.
---@async
---@return runbook.Place
function Hub:container()
  return self.cluster:container { deployment = "hub", container = "hub", namespace = self.namespace }
end

---@class runbook.hub.Person
---@field id? integer       not by the API
---@field name string
---@field admin? boolean    nil: the token may not know
---@field active number?    seconds since 1970
---@field running integer   servers

local function people_of_api(hub)
  return hub:with_api({}, function(client)
    local people = {}
    for i, user in ipairs(client:users()) do
      local active = type(user.last_activity) == "string" and units.parse_time(user.last_activity)
      people[i] = { name = user.name, running = #api.servers_of(user), active = active or nil }
      if type(user.admin) == "boolean" then
        people[i].admin = user.admin
      end
    end
    table.sort(people, function(a, b) return a.name < b.name end)
    return people
  end)
end

--- The users of the hub.
---@async
---@return runbook.hub.Person[]
function Hub:users()
  if self:settings().database ~= "sqlite-pvc" then
    return people_of_api(self)
  end
  local people = json.decode(self:container():query { "python3", "-c", PEOPLE })
  for _, person in ipairs(people) do
    person.admin = person.admin == 1 or person.admin == true
    person.active = person.active ~= json.null and tonumber(person.active) or nil
  end
  return people
end

--- The users, while the hub runs; those it had when it was closed, afterwards.
---@async
---@return { id: integer, name: string }[]
function Hub:known_users()
  local frozen = self:freeze()
  local kept = frozen and frozen.data and frozen.data["users.json"]
  local _, replicas = self:deployment()
  if not kept then
    return self:users()
  elseif replicas > 0 then -- people may still come in while the hub is being closed
    local ok, users = xpcall(self.users, errors.handler, self)
    if ok or errors.is_cancelled(users) then
      return ok and users or error(users, 0)
    end
  end
  return json.decode(kept)
end

local within = { within = { "duration", "how long ago at most", default = "30d" } }
local check_recent = options.declare("hub:recently_active", within)
local check_others = options.declare("hub:not_recently_active", within)

-- Directories of people, in their order.
local function directories(hub, people)
  local s, list = hub:settings(), {}
  for i, person in ipairs(people) do
    list[i] = settings.home(s, person, hub.namespace)
  end
  return list
end

--- Directories of those who were on the hub lately, the latest first: what a copy should begin with.
---@async
---@param o? { within: string|number }
---@return string[] directories
function Hub:recently_active(o)
  local since, people = time.utc() - check_recent(o, 2).within, {}
  for _, person in ipairs(self:known_users()) do
    if person.active and person.active >= since then
      people[#people + 1] = person
    end
  end
  table.sort(people, function(a, b) return a.active > b.active end)
  return directories(self, people)
end

--- Directories of all others: of users of the hub, of nobody else. What they share is not among them.
---@async
---@param o? { within: string|number }
---@return string[] directories
function Hub:not_recently_active(o)
  local since, people = time.utc() - check_others(o, 2).within, {}
  for _, person in ipairs(self:known_users()) do
    if not person.active or person.active < since then
      people[#people + 1] = person
    end
  end
  return directories(self, people)
end

local check_impact = options.declare("hub:impact", {
  downtime = { "any", "what `hub.downtime` gives", optional = true },
})

--- Rows for the question before people are locked out.
---@async
---@param o? { downtime?: runbook.hub.Downtime }
---@return string[][]
function Hub:impact(o)
  o = check_impact(o or {}, 2)
  local running, users, busy = 0, 0, {}
  for _, person in ipairs(self:known_users()) do
    local own = person.running or 0
    running = running + own
    users = users + (own > 0 and 1 or 0)
    local ago = person.active and time.utc() - person.active
    if own > 0 and ago and ago < BUSY_WITHIN then
      busy[#busy + 1] = { name = person.name, ago = ago }
    end
  end
  table.sort(busy, function(a, b) return a.ago < b.ago end)
  local shown = {}
  for i = 1, math.min(#busy, SHOWN) do
    shown[i] = ("%s %s ago"):format(busy[i].name, units.duration(busy[i].ago))
  end
  local text = ("%s of %s; %d used in the last 10 min"):format(human.plural(running, "server"), human.plural(users, "user"), #busy)
  if #busy > 0 then
    text = ("%s (%s%s)"):format(text, table.concat(shown, ", "), #busy > SHOWN and (", %d more"):format(#busy - SHOWN) or "")
  end
  local rows = {
    { "who", ("everyone on %s, until `open`"):format(self.name) },
    { "now", text },
    { "where", ("%s, kube-system %s"):format(self.name, self.cluster:uid()) },
  }
  local times = o.downtime and o.downtime:rows() or {}
  table.move(times, 1, #times, #rows + 1, rows)
  rows[#rows + 1] = { "back", "without this computer: "
    .. self.cluster:by_hand { "-n", self.namespace, "get", "configmap", handle.FREEZE, "-o", "jsonpath={.data.README}" } }
  return rows
end

-- ---- users' servers ----

--- Pods of users' servers, those that are ending too.
---@async
---@return table[]
function Hub:server_pods()
  return self.cluster:list { kind = "Pod", namespace = self.namespace, labels = PODS }
end

local check_idle = options.declare("hub:wait_idle", { at_most = { "duration", "how long", default = 0 } })

--- Wait until nobody's server runs, or so long; what still runs then is left to `stop_servers`.
---@async
---@param o { at_most: string|number }
function Hub:wait_idle(o)
  local most = check_idle(o, 2).at_most
  if most <= 0 then
    return
  end
  local text = ("wait until nobody's server runs, at most %s"):format(units.duration(most))
  effect.wait(text, function()
    local deadline = time.now() + most
    while #self:server_pods() > 0 do
      local left = deadline - time.now()
      if left <= 0 then
        return
      end
      task.sleep(math.min(POLL, left))
    end
  end)
end

-- What the hub does not stop, and whatever it does not know of, is left to `stop_pods`: nothing of it is an error there.
local function stop_by_api(hub)
  local _, replicas = hub:deployment()
  if replicas == 0 or #hub:server_pods() == 0 then
    return
  end
  local scopes = table.move(api.READING, 1, #api.READING, 2, { api.STOPPING })
  local ok, err = xpcall(hub.with_api, errors.handler, hub, { scopes = scopes, make_token = true }, function(client)
    client:stop_servers()
  end)
  if not ok and errors.is_cancelled(err) then
    error(err, 0)
  elseif not ok then
    events.notice(("the hub has not stopped them all by itself (%s); their pods are deleted"):format(tostring(errors.from(err))))
  end
end

local stop_pods = effect.verb {
  name = "hub.stop_servers", class = "change", repeatable = true, inverse = effect.NOT_NEEDED,
  target = function(hub) return hub.name end,
  summary = function() return "stop every user's server; they are not started again by going back" end,
  by_hand = function(hub) return hub.cluster:by_hand { "-n", hub.namespace, "delete", "pod", "-l", PODS } end,
  preview = function(hub)
    return { before = human.plural(#hub:server_pods(), "server"), after = "none" }
  end,
  body = function(hub)
    ending.guarded(hub, PODS, function()
      stop_by_api(hub)
      ending.wait(hub, PODS, function(pod) -- one that started meanwhile is stopped, too
        hub.cluster:delete { kind = "Pod", name = pod.metadata.name, namespace = hub.namespace, uid = pod.metadata.uid, wait = false }
      end)
    end)
  end,
}

--- Stop every user's server, by the hub, then by their pods, and wait until the last of these is gone. They get the time to end
--- that they are set up with, so that what they have not written yet is written. Going back does not start them again. Raises kind
--- `timeout`, with what keeps it, when the pod of one does not end.
---@async
function Hub:stop_servers()
  stop_pods(self)
end

--- Raises while somebody's server runs.
---@async
function Hub:must_have_no_servers()
  local pods = self:server_pods()
  if #pods > 0 then
    errors.raise { kind = "busy", target = self.name,
      message = ("%s: %s"):format(#pods == 1 and "a server runs" or ("%d servers run"):format(#pods), pods[1].metadata.name) }
  end
end

-- ---- the hub ----

--- Wait until the hub's pod is gone, and with it whatever writes its database.
---@async
function Hub:wait_stopped()
  effect.wait("wait until the hub's pod is gone", ending.guarded, self, HUB_PODS, function()
    ending.wait(self, HUB_PODS)
  end)
end

--- Stop the hub and wait until its pod is gone.
---@async
---@return integer? since  for `must_be_closed`; nothing in a plan
function Hub:stop_hub()
  self.cluster:scale { kind = "Deployment", name = "hub", namespace = self.namespace, replicas = 0 }
  self:wait_stopped()
  if not effect.planning() then
    return (self:deployment()).metadata.generation
  end
end

--- Raises unless the hub answers that it is well; asked through the API server, so that it makes no difference whether people
--- can reach it.
---@async
---@return string version
function Hub:must_be_healthy()
  local base = ("/api/v1/namespaces/%s/services/hub:8081/proxy%s"):format(self.namespace, self:settings().base_url)
  self.cluster:request { path = base .. "hub/health" }
  local answer = self.cluster:request { path = base .. "hub/api/" }
  local version = json.decode(answer.body).version
  if type(version) ~= "string" then
    errors.raise { kind = "exit", target = self.name, message = "what answers there does not say JupyterHub's version" }
  end
  return version
end

--- What the hub and its proxy have logged, each below its name.
---@async
---@return string
function Hub:logs()
  local texts = {}
  for _, pod in ipairs(self.cluster:list { kind = "Pod", namespace = self.namespace, labels = "app=jupyterhub" }) do
    local component = (pod.metadata.labels or {}).component
    if component == "hub" or component == "proxy" then
      for _, container in ipairs(pod.spec.containers) do
        local ok, text = xpcall(self.cluster.logs, errors.handler, self.cluster, { pod = pod.metadata.name, container = container.name,
          namespace = self.namespace })
        if not ok and errors.is_cancelled(text) then
          error(text, 0)
        end
        texts[#texts + 1] = ("==> %s, container %s"):format(pod.metadata.name, container.name)
        texts[#texts + 1] = ok and text or "not readable: " .. tostring(text)
      end
    end
  end
  return table.concat(texts, "\n") .. "\n"
end

return servers
