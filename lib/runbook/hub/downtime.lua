--- How long people will be locked out of a hub that moves, from everything between its closing and the opening of the new one.
---
---     local downtime = hub.downtime { old = old, new = new, homes = homes, probes = p.probes }
---     downtime:must_fit(p.window)                              -- in the guard of the step that closes the hub
---     old:impact { downtime = downtime }                       -- rows of its question
---
--- The copy is known from its passes (lib/runbook/copier/outlook.lua); ending from the grace that pods have; starting from how
--- long the new hub took last time. Names are a person's where the zone is `manual`, and then nobody knows.

local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local options = require "runbook.options"
local time = require "runbook.core.time"
local units = require "runbook.units"

local downtime = {}

local GRACE = 30 -- seconds; what Kubernetes gives a pod that says nothing else
local GONE = { 2, 10 } -- seconds until a pod that has ended is seen to be gone
local STARTS = 60 -- seconds, of a hub that nobody has seen starting
local COPY = { 2, 20 } -- seconds to copy and check a database, beside its pod
local PROBE = { 5, 60 } -- seconds for a user's server to start and end
local AT_ONCE = 5
local NAMES = { 1, 30 } -- seconds until every server says so and the hub answers

-- ---- what the clusters know ----

local function grace_of(pods)
  local longest = 0
  for _, pod in ipairs(pods) do
    longest = math.max(longest, pod.spec.terminationGracePeriodSeconds or GRACE)
  end
  return longest
end

local function hub_pods(hub)
  return hub.cluster:list { kind = "Pod", namespace = hub.namespace, labels = "app=jupyterhub,component=hub" }
end

-- Seconds from a pod's start to its being ready; nil where it has not been.
local function start_of(pods)
  for _, pod in ipairs(pods) do
    local began = pod.status.startTime and units.parse_time(pod.status.startTime)
    for _, condition in ipairs(pod.status.conditions or {}) do
      local ready = condition.type == "Ready" and condition.status == "True" and units.parse_time(condition.lastTransitionTime)
      if began and ready then
        return math.max(1, ready - began)
      end
    end
  end
end

-- ---- the parts ----

local Downtime = {}
local downtime_mt = { __name = "runbook.hub.downtime", __index = Downtime }

local check_downtime = options.declare("hub.downtime", {
  old = { "any", "the hub that is closed" },
  new = { "any", "the hub that is opened" },
  homes = { "any", "the copier between them" },
  zone = { "any", "whose names are switched", optional = true },
  probes = { "list", "users whose homes are opened before", default = {} },
  database = { "string", "copy, merge or leave", default = "copy" },
  quiet = { "duration", "how long nothing may change at the old homes before the last pass", default = 0 },
})

--- How long a move will lock people out. Nothing is read before it is asked.
---@param o { old: runbook.Hub, new: runbook.Hub, homes: runbook.Copier, zone?: runbook.dns.Zone, probes?: string[], database?: string }
---@return runbook.hub.Downtime
function downtime.new(o)
  return setmetatable(check_downtime(o, 2), downtime_mt)
end

local function ends(grace)
  return GONE[1], grace + GONE[2]
end

---@class runbook.hub.DowntimePart
---@field name string
---@field low number   seconds
---@field high number

-- The parts in their order.
local function parts_of(self)
  local list = {}
  local function add(name, low, high)
    list[#list + 1] = { name = name, low = low, high = high }
  end
  local servers, hub, there = self.old:server_pods(), hub_pods(self.old), hub_pods(self.new)
  local starts = start_of(there) or start_of(hub) or STARTS
  local low, high = ends(grace_of(servers))
  local hub_low, hub_high = ends(grace_of(hub))
  add("drain", (#servers > 0 and low or 0) + hub_low, (#servers > 0 and high or 0) + hub_high)
  local homes = self.homes:forecast()
  if self.quiet > 0 then -- and a look at all of the source before and after it; it may have to begin again
    add("quiet", self.quiet, 2 * (self.quiet + (homes.proof or 0)))
  end
  add("homes", homes.low, homes.high)
  if self.database ~= "leave" then -- out and in, each by a pod that has to start
    add("database", 2 * COPY[1], 2 * (COPY[2] + starts))
  end
  add("start", starts / 2, starts * 2)
  if #self.probes > 0 then
    local rounds = math.ceil(#self.probes / AT_ONCE)
    add("probes", PROBE[1] * rounds, PROBE[2] * rounds)
  end
  add("names", NAMES[1], NAMES[2])
  return list
end

--- How long, and of what that is made.
---@async
---@return { low: number, high: number, text: string, parts: runbook.hub.DowntimePart[] }
function Downtime:forecast()
  local low, high, words, parts = 0, 0, {}, parts_of(self)
  for i, part in ipairs(parts) do
    low, high = low + part.low, high + part.high
    words[i] = ("%s %s"):format(part.name, units.range(part.low, part.high))
  end
  local manual = self.zone and self.zone.kind == "manual" and "; names are yours to change: not counted" or ""
  return { low = low, high = high, text = table.concat(words, ", ") .. manual, parts = parts }
end

-- Before the first pass nothing is known of the homes, and a plan has nothing to compare.
local function known(self)
  local ok, found = xpcall(self.forecast, errors.handler, self)
  if ok then
    return found
  elseif effect.planning() and errors.is(found, "missing") then
    return nil
  end
  error(found, 0)
end

--- Raises with the figures unless it fits the window, from now or from its start.
---@async
---@param window { starts: number, lasts: number }|number
function Downtime:must_fit(window)
  local lasts = type(window) == "table" and window.lasts or window
  self.window = window
  local f = known(self)
  if f == nil then
    return
  end
  events.emit { type = "forecast", low = f.low, high = f.high, text = f.text, window = lasts }
  if f.high > lasts then
    errors.raise({
      kind = "timeout", code = "EWINDOW", target = self.old.name,
      message = ("people may be locked out for %s, and the window is %s (%s)"):format(units.duration(f.high), units.duration(lasts),
        f.text),
      hint = "let `converge` run again, probe fewer homes, or agree on a longer window",
    }, 2)
  end
end

--- Rows for the question before people are locked out.
---@async
---@return string[][]
function Downtime:rows()
  local f = known(self)
  if f == nil then
    return { { "forecast", "known after the first pass" } }
  end
  local rows = { { "forecast", units.range(f.low, f.high) }, { "", f.text } }
  local window = self.window
  if type(window) == "table" then
    local closes = window.starts + window.lasts
    rows[3] = { "decide", closes - f.high >= time.utc()
      and ("by %s: begun later, it does not fit the window"):format(units.clock(closes - f.high))
      or ("the window ends %s; begun now, it may last until %s"):format(units.clock(closes), units.clock(time.utc() + f.high)) }
  end
  return rows
end

return downtime
