--- The way back: homes that changed on the target are copied to the source, which is not ours.
---
--- Before anything is written there, what is known of both ends is kept on this machine. When that is cut, the next try finds
--- the source changed: what it holds is then either as it was, or as it is brought, and ours; else it is somebody's work, and a
--- person has to bring it together with that of the target. The engine of plain tools goes by names, sizes and times, as its
--- receipts do; what was read of contents is known to ours alone.

local core = require "runbook.core.file"
local digest = require "runbook.core.digest"
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
local rsync = require "runbook.copier.rsync"
local scan = require "runbook.copier.scan"
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
    for word, seen in pairs(value.units) do
      self.units[record.unit_name(word)] = seen
    end
  end
  return self
end

-- What the receipt of a unit says of the source. Each engine keeps something else, and goes on with its own only.
local function digest_of(pair, receipts, unit)
  local r = receipts[unit]
  if pair.runs then
    return r and r.source or NOT_THERE
  end
  return "names " .. (r and r.source_names and ("%s %s"):format(r.source_names, r.source_attributes) or NOT_THERE)
end

function Begun:has(unit, receipts)
  return self.units[unit] ~= nil and self.units[unit] == digest_of(self.pair, receipts, unit)
end

function Begun:names_file(unit)
  return ("%s/names-%s"):format(self.directory, digest.sha256(unit):sub(1, 16))
end

-- What is too much to be kept is not begun, as far as a next try knows: it stops then, rather than take people's work for ours.
local function keep_names(self, fresh)
  local kept = {}
  for _, unit in ipairs(fresh) do
    local there = unit == scan.LOOSE or self.pair.from.place:stat(self.pair.from:join(unit))
    local ok, names = xpcall(function()
      return there and scan.names(self.pair.from, unit, { owner = "keep", exclude = self.pair.exclude }) or ""
    end, errors.handler)
    if ok then
      check(own(core.write, self:names_file(unit), names, { mode = tonumber("600", 8) }))
      kept[#kept + 1] = unit
    elseif not errors.is(names, "limit") then
      error(names, 0)
    end
  end
  return kept
end

-- Keep what is known of units that are written to for the first time since their receipts.
function Begun:add(list, receipts)
  local fresh = {}
  for _, unit in ipairs(list) do
    if not self:has(unit, receipts) then
      fresh[#fresh + 1] = unit
    end
  end
  if #fresh == 0 then
    return
  end
  check(own(core.mkdir, self.directory, { parents = true, mode = tonumber("700", 8) }))
  if self.pair.runs then
    check(own(manifest.keep, { directory = self.pair.known.directory, into = self.directory, units = fresh }))
  else
    fresh = keep_names(self, fresh)
  end
  local units = {}
  for _, unit in ipairs(fresh) do
    self.units[unit] = digest_of(self.pair, receipts, unit)
  end
  for unit, seen in pairs(self.units) do
    units[record.word(unit)] = seen
  end
  check(own(core.write, self.directory .. "/state", json.encode({ version = VERSION, units = units }, { sorted = true }),
    { mode = tonumber("600", 8) }))
end

local function is_left_over(path)
  for name in path:gmatch("[^/]+") do
    if name == rsync.STAGE or name == rsync.PARTIAL then
      return true
    end
  end
  return false
end

-- As the engine of plain tools sees it.
local function strangers_by_name(other, begun, unit)
  local o = { owner = "keep", exclude = other.exclude }
  local before = check(own(core.read, begun:names_file(unit)))
  return scan.strangers(scan.names(other.to, unit, o), before, scan.names(other.from, unit, o), is_left_over)
end

-- Units that hold somebody else's work, with examples of it. Both ends are looked at the other way round, and what would be
-- brought is compared, by its contents where our program runs, with what stands there.
local function strangers_in(other, begun, list)
  local ours = begun.pair.runs -- that of `other` is found out by its pass
  if ours then
    other.known = other.known or known.open(other)
    other.known:scan("source")
    other.known:scan("target")
    other.known:prove(list)
  end
  local found = {}
  for _, unit in ipairs(list) do
    local s = ours and check(own(manifest.strangers, other.known.directory, unit, begun.directory))
      or strangers_by_name(other, begun, unit)
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
