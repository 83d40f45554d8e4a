--- Zones that somebody else changes, by a ticket or a web page: says what to change, and waits until every server has it.
---
---     dns: { kind: manual, zone: uni.example }

local agreement = require "runbook.dns.agreement"
local ask = require "runbook.dns.ask"
local authority = require "runbook.dns.authority"
local errors = require "runbook.errors"
local events = require "runbook.events"
local names = require "runbook.dns.names"

local manual = {}

manual.fields = {}

-- The first server of the zone that answers.
local function read_one(zone, name)
  local failure
  for _, server in ipairs(authority.find(zone).servers) do
    local ok, state = xpcall(ask.state, errors.handler, zone, server, name)
    if ok then
      return state
    elseif errors.is_cancelled(state) then
      error(state, 0)
    end
    failure = state
  end
  error(failure, 0)
end

--- What the zone's servers say of names. Whether a record is a name's own or a wildcard's they do not say; it is found out by
--- asking for a name that nobody has made.
---@async
function manual.read(zone, list)
  local states = {}
  for i, name in ipairs(list) do
    states[i] = read_one(zone, name)
  end
  return states
end

local function add(lines, format, ...)
  lines[#lines + 1] = format:format(...)
end

--- The change as lines of a zone file.
---@param edits runbook.dns.Edit[]
---@return string
function manual.zone_lines(edits)
  local lines = {}
  for _, edit in ipairs(edits) do
    for _, text in ipairs(names.lines(edit.name, edit.from)) do
      add(lines, "    - %s", text)
    end
    for _, text in ipairs(names.lines(edit.name, edit.to)) do
      add(lines, "    + %s", text)
    end
  end
  return table.concat(lines, "\n")
end

local function sentence(edit)
  if edit.from == nil then
    return ("let %s have %s"):format(edit.name, names.words(edit.to))
  elseif #edit.to == 0 then
    return ("remove the record of %s (%s)"):format(edit.name, names.words(edit.from))
  elseif #edit.from == 0 then
    return ("add a record for %s: %s"):format(edit.name, names.words(edit.to))
  elseif names.same(edit.from, edit.to) then
    return ("set the TTL of %s to %d (it is %d)"):format(edit.name, names.ttl(edit.to), names.ttl(edit.from))
  end
  return ("replace the record of %s: now %s, then %s"):format(edit.name, names.words(edit.from), names.words(edit.to))
end

--- The change as questions for those who own the zone.
---@param zone runbook.Zone
---@param edits runbook.dns.Edit[]
---@return string
function manual.ticket(zone, edits)
  local lines = {}
  add(lines, "    Could you please change the zone %s:", zone.zone)
  for i, edit in ipairs(edits) do
    add(lines, "      %d. %s?", i, sentence(edit))
    if edit.wildcard then
      add(lines, "         %s serves this name today; please leave that as it is.", edit.wildcard)
    end
  end
  add(lines, "    When can it be done, and who can take it back at once if we ask? Nothing else should change.")
  return table.concat(lines, "\n")
end

--- The same, in a line.
function manual.by_hand(_, edits)
  local parts = {}
  for i, edit in ipairs(edits) do
    parts[i] = sentence(edit)
  end
  return table.concat(parts, "; ")
end

--- Say what is to be changed, and wait until it is. Asked again after an interruption, it says what is left and waits on.
---@async
function manual.change(zone, edits)
  local text = "Change the zone %s; I ask its servers (%s) and go on when all of them say so.\n%s\n  for a ticket:\n%s"
  events.emit { type = "say", text = text:format(zone.zone, table.concat(authority.find(zone).hosts, ", "), manual.zone_lines(edits),
    manual.ticket(zone, edits)) }
  local wishes = {}
  for i, edit in ipairs(edits) do
    local to = edit.to
    if #to == 0 and edit.wildcard_gives then
      to = names.pointing(edit.wildcard_gives)
    end
    wishes[i] = { name = edit.name, records = to, ttl = names.same(edit.from, edit.to) and names.ttl(edit.to) or nil }
  end
  agreement.reach(zone, wishes)
end

--- Nothing can be tried before.
function manual.checks(zone)
  return {
    { ("who changes %s"):format(zone.zone), function()
      return ("you change %s; the run says what, and waits until every server has it"):format(zone.zone)
    end },
  }
end

return manual
