--- The way back: homes that changed on the target are copied to the source, which is not ours.
---
--- Before anything is written there, what is known of both ends is kept on this machine. When that is cut, the next try finds
--- the source changed: what it holds is then either as it was, or as it is brought, and ours; else it is somebody's work, and a
--- person has to bring it together with that of the target.

local core = require "runbook.core.file"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local json = require "runbook.json"
local jobs = require "runbook.run.jobs"
local known = require "runbook.copier.known"
local manifest = require "runbook.core.manifest"
local meter = require "runbook.copier.meter"
local pass = require "runbook.copier.pass"
local proof = require "runbook.copier.proof"
local record = require "runbook.copier.record"
local task = require "runbook.task"

local back = {}

local VERSION = 1
local NOT_THERE = "-" -- instead of a receipt's digest

local own = effect.own

local function check(...)
  return errors.check(nil, "keep what is known before it is copied back", ...)
end

-- What was begun: by unit the digest that its receipt had, so that a new receipt makes it void.
local Begun = {}
Begun.__index = Begun

local function begun_of(pair)
  pair.known = pair.known or known.open(pair)
  local self = setmetatable({ pair = pair, directory = pair.known.directory .. "/back", units = {} }, Begun)
  local ok, value = pcall(json.decode, own(core.read, self.directory .. "/state") or "")
  if ok and type(value) == "table" and value.version == VERSION then
    for word, digest in pairs(value.units) do
      self.units[record.unit_name(word)] = digest
    end
  end
  return self
end

local function digest_of(receipts, unit)
  return receipts[unit] and receipts[unit].source or NOT_THERE
end

-- The engine of plain tools knows no names, only what they come to.
function Begun:has(unit, receipts)
  return self.pair.runs and self.units[unit] ~= nil and self.units[unit] == digest_of(receipts, unit)
end

-- Keep what is known of units that are written to for the first time since their receipts.
function Begun:add(list, receipts)
  local fresh = {}
  for _, unit in ipairs(list) do
    if not self:has(unit, receipts) then
      fresh[#fresh + 1] = unit
    end
  end
  if #fresh == 0 or not self.pair.runs then
    return
  end
  check(own(core.mkdir, self.directory, { parents = true, mode = tonumber("700", 8) }))
  check(own(manifest.keep, { directory = self.pair.known.directory, into = self.directory, units = fresh }))
  local units = {}
  for _, unit in ipairs(fresh) do
    self.units[unit] = digest_of(receipts, unit)
  end
  for unit, digest in pairs(self.units) do
    units[record.word(unit)] = digest
  end
  check(own(core.write, self.directory .. "/state", json.encode({ version = VERSION, units = units }, { sorted = true }),
    { mode = tonumber("600", 8) }))
end

-- Units that hold somebody else's work, with examples of it. Both ends are looked at the other way round, and what would be
-- brought is compared by its contents with what stands there.
local function strangers_in(other, begun, list)
  other.known = other.known or known.open(other)
  other.known:scan("source")
  other.known:scan("target")
  other.known:prove(list)
  local found = {}
  for _, unit in ipairs(list) do
    local s = check(own(manifest.strangers, other.known.directory, unit, begun.directory))
    if s.count > 0 then
      local example = s.examples[1] == "" and "its own directory" or s.examples[1]
      found[#found + 1] = ("%s (%s%s)"):format(meter.shown(unit), meter.shown(example),
        s.count > 1 and (" and %d more"):format(s.count - 1) or "")
    end
  end
  return found
end

local function raise_both(pair, list)
  table.sort(list)
  errors.raise({
    kind = "conflict", code = "EBOTH", target = pair.from.place.name,
    message = ("changed on both sides since the receipts: %s"):format(table.concat(list, ", ")),
    hint = "a person has to bring these together; nothing of them was copied back",
  }, 3)
end

-- Raises when a unit that is to be copied back has changed at the source, too, other than by an earlier try of ours.
local function source_must_be_as_proven(pair, other, begun, list, receipts)
  local ours, both = {}, {}
  for _, unit in ipairs(proof.changed_at_source(pair, list)) do
    if begun:has(unit, receipts) then
      ours[#ours + 1] = unit
    else
      both[#both + 1] = meter.shown(unit)
    end
  end
  if #ours > 0 then
    table.move(strangers_in(other, begun, ours), 1, #ours, #both + 1, both)
  end
  if #both > 0 then
    raise_both(pair, both)
  elseif #ours > 0 then
    events.notice(("%s holds what an earlier try brought back; it goes on with %s"):format(tostring(pair.from),
      meter.of_units(ours)))
  end
end

--- Copy homes that changed on the target since their receipts back to the source; nothing is removed there.
---@async
---@param pair table
---@param other table  the same pair the other way round
function back.run(pair, other)
  local context = task.context()
  if context.session and context.session.journal and context.step and not effect.planning() then
    jobs.wait_for_earlier(context.session, context.step) -- it may still write
  end
  local changed = proof.changed_on_target(pair)
  if #changed == 0 then
    events.notice("nothing changed on the target since the receipts")
    return
  end
  local receipts, begun = record.receipts(pair), begun_of(pair)
  source_must_be_as_proven(pair, other, begun, changed, receipts)
  local only, list = {}, {}
  for _, name in ipairs(changed) do
    only[name] = true
    list[#list + 1] = begun:has(name, receipts) and name or nil
  end
  if not effect.planning() then
    begun:add(changed, receipts)
  end
  pass.run(other, "back", { only = only, begun = #list > 0 and list or nil })
  if not effect.planning() then
    proof.must_hold(other, only)
  end
end

return back
