--- Waiting until nobody comes to a hub's old address any more, after its name points to the new one.
---
---     hub.watch { old = old, new = new, silent = "10m" }
---
--- Who comes there is in the log of our page, while people get that; else in those of the nginx that is in front. Where
--- neither is to be had nobody knows, and silence is not claimed.

local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local human = require "runbook.human"
local json = require "runbook.json"
local options = require "runbook.options"
local page = require "runbook.hub.page"
local task = require "runbook.task"
local time = require "runbook.core.time"
local units = require "runbook.units"

local watch = {}

watch.poll = 15 -- seconds between two looks at the logs
watch.look_at_new = 60 -- seconds between two looks at who is on the new hub

local OVERLAP = 5 -- seconds that a look goes back beyond the last one: clocks differ
local LARGEST = 8 << 20 -- bytes of one log in one look
local TAIL = 1000 -- lines
local NGINX = "app.kubernetes.io/name=ingress-nginx,app.kubernetes.io/component=controller"
local FRONTS = { "support", "ingress-nginx" }

-- Programs that come by themselves, whoever uses the hub.
local PROBES = { "kube%-probe", "GoogleHC", "ELB%-HealthChecker", "UptimeChecks", "Load Balancer Agent", "[Bb]lackbox", "Prometheus" }

local function is_probe(agent)
  for _, pattern in ipairs(PROBES) do
    if agent:find(pattern) then
      return true
    end
  end
  return false
end

-- ---- lines ----

local function unescape(text)
  return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

-- Whose it is, where the path says so: an open tab of JupyterLab goes on asking for /user/NAME/api/...
local function visitor(path, from)
  local name = path:match "/user/([^/?]+)"
  return name and unescape(name) or from
end

--- Who came, by a line of our page's log; nil: it is no visit of a person.
---@param line string
---@return string?
function watch.of_page(line)
  local ok, said = pcall(json.decode, line)
  if ok and type(said) == "table" and type(said.visit) == "string" and not is_probe(tostring(said.by)) then
    return visitor(said.visit, tostring(said.from))
  end
end

--- The same for nginx as an ingress controller has it log by itself: with the Service that it led to, and its namespace.
---@param line string
---@param namespace string
---@return string? who
---@return boolean known  it is a line of such a log, of whatever hub
function watch.of_nginx(line, namespace)
  local from, path, rest = line:match '^(%S+) %S+ .- %[[^%]]*%] "%u+ (%S+) [^"]*"(.*)$'
  local agent, upstream = (rest or ""):match '^ %d+ %d+ "[^"]*" "([^"]*)" %d+ [%d.]+ %[([^%]]*)%]'
  if not upstream then
    return nil, false
  end
  local of_hub = false
  for _, service in ipairs { "proxy-public", page.NAME } do
    local name = ("%s-%s-"):format(namespace, service)
    of_hub = of_hub or upstream:sub(1, #name) == name
  end
  return of_hub and not is_probe(agent) and visitor(path, from) or nil, true
end

-- ---- logs ----

local function started(pod, container)
  for _, one in ipairs(pod.status.containerStatuses or {}) do
    local running = one.name == container and one.state and one.state.running
    if running then
      return units.parse_time(running.startedAt)
    end
  end
end

local function pods_of(self, namespace, labels, container)
  local list = {}
  for _, pod in ipairs(self.old.cluster:list { kind = "Pod", namespace = namespace, labels = labels }) do
    local since = started(pod, container)
    if since then
      list[#list + 1] = { pod = pod.metadata.name, uid = pod.metadata.uid, namespace = namespace, container = container, since = since }
    end
  end
  return list
end

-- What can be read now; nil and why not.
local function logs_of(self)
  if self.old:shows_page() then
    local list = pods_of(self, self.old.namespace, "app=" .. page.NAME, "page")
    return list, #list == 0 and "the page that people get has no pod that runs" or nil
  end
  local fronts = { self.old.ingress and self.old.ingress.namespace }
  for _, namespace in ipairs(table.move(FRONTS, 1, #FRONTS, #fronts + 1, fronts)) do
    local list = pods_of(self, namespace, NGINX, "controller")
    if #list > 0 then
      return list
    end
  end
  return {}, "people do not get our page there, and no ingress-nginx is in front of it whose log would say who comes"
end

-- One look at one log, from where the last one ended. A log that is too long for it says nothing of what was left out.
local function read_log(self, log, now)
  local from = math.max(log.since, self.read[log.uid] and self.read[log.uid] - OVERLAP or now - self.silent - OVERLAP)
  local text = self.old.cluster:logs { pod = log.pod, namespace = log.namespace, container = log.container, timestamps = true,
    since = math.max(1, now - from), limit = LARGEST }
  self.read[log.uid] = now
  self.unsure = #text >= LARGEST - 1 and now or self.unsure
  for line in text:gmatch "[^\n]+" do
    local stamp, rest = line:match "^(%S+) (.*)$"
    local at = stamp and units.parse_time(stamp)
    local who
    if log.container == "page" then
      who, self.speaks = watch.of_page(rest or ""), true
    else
      local known
      who, known = watch.of_nginx(rest or "", self.old.namespace)
      self.speaks = self.speaks or known
    end
    if at and who then
      self.last[who] = math.max(self.last[who] or 0, at)
    end
  end
end

-- Does it have lines that can be read at all? Nobody may have come for long.
local function speaks(self, log)
  local text = self.old.cluster:logs { pod = log.pod, namespace = log.namespace, container = log.container, tail = TAIL }
  for line in text:gmatch "[^\n]+" do
    if select(2, watch.of_nginx(line, self.old.namespace)) then
      return true
    end
  end
  return false
end

-- Looks at all of them. Returns since when nobody has come, as far as these can say; nil and why they cannot.
local function look(self)
  local logs, why = logs_of(self)
  if #logs == 0 then
    return nil, why
  end
  local now, since = time.utc(), self.unsure or 0
  for _, log in ipairs(logs) do
    read_log(self, log, now)
    since = math.max(since, log.since, self.unsure or 0)
  end
  self.speaks = self.speaks or logs[1].container == "page" or speaks(self, logs[1]) -- our page writes a line for everybody who comes
  if not self.speaks then
    return nil, ("the log of %s has no line in the form that ingress-nginx writes by itself"):format(logs[1].pod)
  end
  for _, at in pairs(self.last) do
    since = math.max(since, at)
  end
  return since
end

-- ---- what is said ----

-- Those who came within the time that has to be silent, the last one first.
local function who_comes(self)
  local list, words = {}, {}
  for who, at in pairs(self.last) do
    if at > time.utc() - self.silent then
      list[#list + 1] = { who = who, at = at }
    end
  end
  table.sort(list, function(a, b) return a.at > b.at end)
  for i, one in ipairs(list) do
    words[i] = ("%s %s ago"):format(one.who, units.duration(math.max(0, time.utc() - one.at)))
  end
  return words
end

-- Users who have been active on the new hub since we look.
local function seen_on_new(self)
  if self.new_seen and time.now() - self.new_looked < watch.look_at_new then
    return self.new_seen
  end
  local ok, people = xpcall(self.new.users, errors.handler, self.new)
  if not ok and errors.is_cancelled(people) then
    error(people, 0)
  end
  self.new_looked = time.now()
  self.new_seen = self.new_seen or 0
  if not ok then
    events.notice(("who is on %s is not known: %s"):format(self.new.name, tostring(errors.from(people))))
    return self.new_seen
  end
  local count = 0
  for _, person in ipairs(people) do
    count = count + (person.active and person.active >= self.began and 1 or 0)
  end
  self.new_seen = count
  return count
end

local function report(self, since)
  local words, now = who_comes(self), time.utc()
  local text = #words == 0 and ("nobody at the old address for %s"):format(units.duration(math.max(0, now - since)))
    or ("at the old address: %s%s"):format(words[1], #words > 1 and (", and %d more"):format(#words - 1) or "")
  events.emit { type = "progress", target = self.old.name, done = math.min(self.silent, math.max(0, now - since)), total = self.silent,
    unit_name = "seconds", eta = since + self.silent,
    text = ("%s; %s seen on the new hub"):format(text, human.plural(seen_on_new(self), "user")) }
end

local function say_who_still_comes(self)
  local words = who_comes(self)
  if #words > 0 then
    events.notice(("still at the old address of %s:\n%s"):format(self.old.name, human.first_five(words)), "warning")
  else
    events.notice(("the old address of %s has not been silent for %s yet; nobody is known who still comes"):format(self.old.name,
      units.duration(self.silent)), "warning")
  end
end

local function wait(self)
  while true do
    local since, why = look(self)
    if not since then
      events.notice(("whether anybody still comes to the old address is not known: %s"):format(why), "warning")
      return { silent = false, why = why, new = seen_on_new(self) }
    end
    report(self, since)
    if time.utc() - since >= self.silent then
      return { silent = true, since = units.timestamp(since), new = seen_on_new(self) }
    end
    task.sleep(math.min(watch.poll, since + self.silent - time.utc() + 0.1))
  end
end

local check = options.declare("hub.watch", {
  old = { "any", "the hub whose address people leave" },
  new = { "any", "the hub they come to" },
  silent = { "duration", "how long nobody may have come", default = "10m" },
})

--- Wait until nobody has come to the old hub's address for so long, and say meanwhile who does and how many are on the new hub.
--- Ended before (a step's `timeout`), it says who still comes. Where that cannot be known it says so and waits for nothing.
---@async
---@param given { old: runbook.Hub, new: runbook.Hub, silent?: string|number }
---@return { silent: boolean, why: string?, since: string?, new: integer } outcome  silent: it was seen to be
function watch.hubs(given)
  local o = check(given, 2)
  local self = { old = o.old, new = o.new, silent = o.silent, last = {}, read = {}, began = time.utc() }
  local text = ("wait until nobody has come to the old address of %s for %s"):format(o.old.name, units.duration(o.silent))
  return effect.wait(text, function()
    local ok, result = xpcall(wait, errors.handler, self)
    if ok then
      return result
    elseif errors.is_cancelled(result) then
      say_who_still_comes(self)
    end
    error(result, 0)
  end)
end

return watch
