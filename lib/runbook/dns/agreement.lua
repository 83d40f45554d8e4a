--- Waiting until every server of a zone, and every resolver that was named, says the same.

local authority = require "runbook.dns.authority"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local names = require "runbook.dns.names"
local retry = require "runbook.retry"
local task = require "runbook.task"
local time = require "runbook.core.time"
local units = require "runbook.units"

local agreement = {}

local FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15 -- seconds between two looks

---@class runbook.dns.Wish
---@field name string
---@field records runbook.dns.Record[]  what everybody is to say
---@field ttl? integer  with a TTL of this at most

local function fulfils(wish, records)
  return names.same(records, wish.records) and (wish.ttl == nil or #records == 0 or names.ttl(records) <= wish.ttl)
end

local function who(server)
  return server.name == server.address and server.name or ("%s (%s)"):format(server.name, server.address)
end

local function newest(rows)
  local row
  for _, one in ipairs(rows) do
    if one.serial and (row == nil or one.serial > row.serial) then
      row = one
    end
  end
  return row
end

-- A secondary that has an older serial has yet to fetch the zone; one with the same serial was told something else.
local function lag_of(row, rows)
  local first = newest(rows)
  if row.serial < first.serial then
    return ("it has serial %d and %s has %d: it has not fetched the change yet"):format(row.serial, who(first.server), first.serial)
  end
  return ("serial %d"):format(row.serial)
end

--- Who does not say it yet, a sentence each.
---@param rows table[]  see authority.rows
---@param wishes runbook.dns.Wish[]
---@return string[]
function agreement.missing(rows, wishes)
  local list = {}
  for _, row in ipairs(rows) do
    if row.problem then
      list[#list + 1] = tostring(row.problem)
    else
      for _, wish in ipairs(wishes) do
        local records = row.records[wish.name]
        if not fulfils(wish, records) then
          list[#list + 1] = ("%s says %s for %s (%s)"):format(who(row.server), names.words(records), wish.name, lag_of(row, rows))
        end
      end
    end
  end
  return list
end

-- A resolver keeps what it had until that TTL has run out.
local function resolvers_missing(zone, wishes)
  local list = {}
  for _, resolver in ipairs(authority.resolvers(zone)) do
    for _, wish in ipairs(wishes) do
      local ok, records = xpcall(authority.resolver_records, errors.handler, zone, resolver, wish.name)
      if not ok and errors.is_cancelled(records) then
        error(records, 0)
      elseif not ok then
        list[#list + 1] = tostring(records)
      elseif not fulfils(wish, records) then
        list[#list + 1] = ("the resolver %s says %s for %s"):format(who(resolver), names.words(records), wish.name)
      end
    end
  end
  return list
end

local look = effect.verb {
  name = "dns.agreement", class = "read",
  target = function(zone) return zone.zone end,
  summary = function(zone) return "ask every server of " .. zone.zone end,
  by_hand = function(zone, wishes) return ("dig +nssearch %s; dig %s"):format(zone.zone, wishes[1] and wishes[1].name or zone.zone) end,
  body = function(zone, wishes, resolvers)
    local list = {}
    for i, wish in ipairs(wishes) do
      list[i] = wish.name
    end
    local rows = retry.call({ target = zone.zone, what = "asking", reads = true }, function() return authority.rows(zone, list) end)
    local missing = agreement.missing(rows, wishes)
    if #rows == 0 then
      errors.raise { kind = "missing", target = zone.zone, message = ("no server is named for %s"):format(zone.zone) }
    end
    if #missing == 0 and resolvers then -- a resolver asked too early keeps the old answer longer
      missing = resolvers_missing(zone, wishes)
    end
    return missing, rows
  end,
}

--- Wait until all of them say it. Inside a verb or out of one.
---@async
---@param zone runbook.Zone
---@param wishes runbook.dns.Wish[]
---@param o? { within?: number, resolvers?: boolean }  within: seconds, else as long as it takes; resolvers: those named, too
function agreement.reach(zone, wishes, o)
  local within, resolvers = o and o.within, o and o.resolvers or false
  local pause, began, said = FIRST_PAUSE, time.now(), nil
  while true do
    local missing = look(zone, wishes, resolvers)
    if #missing == 0 then
      return
    end
    local text = table.concat(missing, "; ")
    if within and time.now() - began >= within then
      errors.raise({ kind = "timeout", target = zone.zone, again = false,
        message = ("after %s not every server of %s says it: %s"):format(units.duration(within), zone.zone, text),
        hint = "resume waits on; nothing has to be changed again" }, 2)
    end
    if text ~= said then
      said = text
      events.emit { type = "progress", text = "waiting: " .. text }
    end
    task.sleep(math.min(pause, within and math.max(0.01, within - (time.now() - began)) or pause))
    pause = math.min(LONGEST_PAUSE, pause * 1.5)
  end
end

return agreement
