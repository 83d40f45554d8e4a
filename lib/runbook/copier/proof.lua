--- Proof that two ends are the same, and that they stay it: both are walked, and what was seen is kept as receipts.

local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local human = require "runbook.human"
local json = require "runbook.json"
local meter = require "runbook.copier.meter"
local pass = require "runbook.copier.pass"
local patterns = require "runbook.copier.patterns"
local record = require "runbook.copier.record"
local scan = require "runbook.copier.scan"
local task = require "runbook.task"
local time = require "runbook.core.time"
local units = require "runbook.units"

local proof = {}

local PERIODS = 3 -- of quiet that are waited for

local function home_of(path)
  return path:match("^([^/]+)/") or path
end

local function raise_writers(pair, changed, hint)
  local homes, order, now = {}, {}, time.utc()
  for _, one in ipairs(changed) do
    local home = home_of(one.path)
    if not homes[home] then
      homes[home] = { n = 0, newest = one }
      order[#order + 1] = home
    end
    if homes[home].newest.type == "d" and one.type ~= "d" then -- a file says more than the directory it was made in
      homes[home].newest = one
    end
    homes[home].n = homes[home].n + 1
  end
  local lines = {}
  for i, home in ipairs(order) do
    local h = homes[home]
    local ago = units.duration(math.max(0, now - h.newest.at))
    lines[i] = ("  %s: %d names, the last %s ago: %s"):format(meter.shown(home), h.n, ago, meter.shown(h.newest.path))
  end
  errors.raise({
    kind = "conflict", code = "EWRITERS", target = pair.from.place.name, hint = hint,
    message = ("somebody writes to %s\n%s"):format(tostring(pair.from), human.first_five(lines, "homes")),
  }, 3)
end

-- What is changed twice is waited for once more: a node may still be flushing what a stopped pod wrote.
local function wait_for_quiet(pair, seconds)
  local look = pass.look(pair, false)
  local mark, changed = look.survey.mark, nil
  for period = 1, PERIODS do
    task.sleep(seconds)
    changed = look.engine.changed(pair, mark)
    if #changed == 0 then
      return
    end
    mark = look.engine.survey(look.engine.look(pair, false), look.from).mark
    if period < PERIODS then
      events.notice(("%s still changes (%s); I look for another %s"):format(tostring(pair.from), meter.shown(changed[1].path),
        units.duration(seconds)))
    end
  end
  raise_writers(pair, changed, "stop them, then `runbook resume`; on the server, `lsof +D DIRECTORY` names processes")
end

--- See copier:must_be_quiet.
---@async
---@param pair table
---@param seconds? number
function proof.must_be_quiet(pair, seconds)
  if seconds then
    effect.wait(("nothing changes at %s for %s"):format(tostring(pair.from), units.duration(seconds)), wait_for_quiet, pair, seconds)
    return
  end
  local passes = record.passes(pair)
  if #passes == 0 then
    if not effect.planning() then
      errors.raise({ kind = "missing", message = "no pass was made, so there is nothing to compare with" }, 2)
    end
    return
  end
  local look = pass.look(pair, false)
  local mark = passes[#passes].mark
  local changed = look.survey.mark ~= mark and scan.changed(pair.from, mark, pair.exclude) or {}
  if #changed > 0 then
    raise_writers(pair, changed, "stop them, then do the final pass again: `runbook resume --again final`")
  end
end

local function set_of(list)
  local set = {}
  for _, one in ipairs(list) do
    set[one] = true
  end
  return set
end

local function must_hold_nothing_else(pair, from, to)
  local there = set_of(from.names)
  local extra = {}
  for _, name in ipairs(to.names) do
    if not there[name] and not record.is_left(name) then
      extra[#extra + 1] = meter.shown(name)
    end
  end
  if #extra > 0 then
    errors.raise {
      kind = "conflict", code = "EDIFFERENT", target = pair.to.place.name,
      message = ("the target holds what the source does not: %s%s"):format(
        table.concat(table.move(extra, 1, math.min(5, #extra), 1, {}), ", "), #extra > 5 and (" and %d more"):format(#extra - 5) or ""),
      hint = "look where it comes from; it is not removed by us",
    }
  end
end

-- What was left out on purpose may be anything on the target, a loose file, too.
local function exclude_for(pair, unit, left)
  if unit ~= scan.LOOSE or #left == 0 then
    return pair.exclude
  end
  local all = table.move(pair.exclude, 1, #pair.exclude, 1, {})
  for _, name in ipairs(left) do
    all[#all + 1] = patterns.literal(name)
  end
  return all
end

local function units_of(pair, survey)
  local list, left = {}, {}
  for _, unit in ipairs(survey.units) do
    if record.is_left(unit.name) then
      record.add_receipt(pair, unit.name, "left", { entries = unit.entries, bytes = unit.bytes })
      left[#left + 1] = unit.name
    else
      list[#list + 1] = unit.name
    end
  end
  return list, left
end

local function raise_differences(failures, total)
  local names, listed = meter.failed(failures)
  local first = failures[names[1]]
  errors.raise({
    kind = first.kind, code = first.code or "EDIFFERENT", units = names, cause = first, target = first.target,
    message = ("%d of %d homes are not the same on both ends\n%s"):format(#names, total, listed),
    hint = "`runbook resume --again final` sends what is missing, then compares again",
  }, 2)
end

--- See copier:verify. Every unit is compared each time: a proof of yesterday proves nothing today.
---@async
---@param pair table
function proof.verify(pair)
  if effect.planning() then
    effect.wait(("both ends of %s are compared, unit by unit"):format(tostring(pair)), function() end)
    return
  end
  local look = pass.look(pair, false)
  pass.must_be_complete(pair, look.survey, look.passes, look.known)
  must_hold_nothing_else(pair, look.from, look.to)
  local list, left = units_of(pair, look.survey)
  local said = -1
  local failures = look.engine.verify(pair, look, {
    units = list, left = left, exclude_of = function(unit) return exclude_for(pair, unit, left) end,
    tell = function(done)
      if time.now() - said >= 1 or done == #list then
        said = time.now()
        events.emit { type = "progress", unit_name = "homes", done = done, total = #list, text = "compared" }
      end
    end,
  })
  local session = task.context().session
  if session and session.journal then
    session.journal:commit()
  end
  if next(failures) then
    raise_differences(failures, #list)
  end
  local t = look.survey.total
  events.notice(("%d of %d homes are the same on both ends: %s files, %s%s"):format(#list, #look.survey.units,
    units.count(t.files), units.size(t.bytes), #left > 0 and (", %d left out on purpose"):format(#left) or ""))
end

-- What the checks said will not be the same; nothing when nobody looked.
local function not_kept(pair)
  local rows = record.survival(pair)
  local list = rows and json.array {} or nil
  for i, row in ipairs(rows or {}) do
    list[i] = { what = row[1], count = row[2], example = row[3], happens = row[4], advice = row[5] }
  end
  return list
end

-- What can be said of all of them.
local function lowest(total)
  if total.units == 0 or total.sent + total.left > 0 then
    return "sent"
  elseif total.same > 0 then
    return "same"
  end
  return total.scanned > 0 and "scanned" or "hashed"
end

--- See copier:receipts.
---@async
---@param pair table
---@return table
function proof.receipts(pair)
  local all = record.receipts(pair)
  local total = { units = 0, entries = 0, files = 0, bytes = 0, hashed = 0, scanned = 0, sent = 0, same = 0, left = 0 }
  local by_name = {}
  for name, r in pairs(all) do
    by_name[record.printable(name)] = r
    total.units = total.units + 1
    total[r.level] = total[r.level] + 1
    for _, key in ipairs { "entries", "files", "bytes" } do
      total[key] = total[key] + (r[key] or 0)
    end
  end
  return {
    schema = 1, from = tostring(pair.from), to = tostring(pair.to), owner = pair.owner, exclude = pair.exclude,
    level = lowest(total), total = total, units = by_name, not_kept = not_kept(pair),
    passes = record.passes(pair),
  }
end

local LEVELS = { scanned = true, hashed = true }

-- Units that were proven, by the engine that did it.
local function proven(pair)
  local list, all, level = {}, record.receipts(pair), nil
  for unit, r in pairs(all) do
    if LEVELS[r.level] then
      list[#list + 1], level = unit, r.level
    end
  end
  table.sort(list)
  if #list == 0 then
    errors.raise({ kind = "missing", code = "ERECEIPT", message = ("there is no receipt for %s yet"):format(tostring(pair)),
      hint = "`verify` makes them" }, 3)
  end
  return list, all, level
end

local function engine_for(pair, level)
  local look = pass.ends(pair)
  if look.engine.level ~= level then
    errors.raise({
      kind = "conflict", code = "ERECEIPT", target = pair.to.place.name,
      message = ("the receipts are of another kind (%s) than can be made now (%s)"):format(level, look.engine.level),
      hint = "`verify` makes new ones, as long as both ends are the same",
    }, 3)
  end
  return look
end

--- Units whose target is not what its receipt says, and homes that are new there.
---@async
---@param pair table
---@return string[]
function proof.changed_on_target(pair)
  local list, all, level = proven(pair)
  local look = engine_for(pair, level)
  local there, present, changed = set_of(look.to.names), {}, {}
  for _, unit in ipairs(list) do
    table.insert((unit == scan.LOOSE or there[unit]) and present or changed, unit)
  end
  for _, unit in ipairs(look.engine.changed_since_receipts(pair, "target", present, all, look)) do
    changed[#changed + 1] = unit
  end
  for _, name in ipairs(look.to.names) do
    if not all[name] and not look.to.loose[name] then
      changed[#changed + 1] = name
    end
  end
  table.sort(changed)
  return changed
end

--- See copier:must_be_unchanged_since_receipts.
---@async
---@param pair table
function proof.must_be_unchanged(pair)
  local changed = proof.changed_on_target(pair)
  if #changed == 0 then
    return
  end
  local shown = {}
  for i = 1, math.min(5, #changed) do
    shown[i] = meter.shown(changed[i])
  end
  errors.raise({
    kind = "conflict", code = "ECHANGED", units = changed, target = pair.to.place.name,
    message = ("%d homes have changed on the target since their receipts: %s%s"):format(#changed, table.concat(shown, ", "),
      #changed > 5 and (" and %d more"):format(#changed - 5) or ""),
    hint = "going back loses that work, unless it is copied back first",
  }, 2)
end

--- Which of these units are not at the source what their receipts say, or are there without one.
---@async
---@param pair table
---@param list string[]
---@return string[]
function proof.changed_at_source(pair, list)
  local _, all, level = proven(pair)
  local look = engine_for(pair, level)
  local names, changed, present = set_of(look.from.names), {}, {}
  for _, unit in ipairs(list) do
    local r = all[unit]
    if not r and names[unit] then
      changed[#changed + 1] = unit
    elseif r and (unit == scan.LOOSE or names[unit]) then
      present[#present + 1] = unit
    end
  end
  for _, unit in ipairs(look.engine.changed_since_receipts(pair, "source", present, all, look)) do
    changed[#changed + 1] = unit
  end
  return changed
end

--- Raises unless the target of a pair holds all there is at its source in these units.
---@async
---@param pair table
---@param only table<string, true>
function proof.must_hold(pair, only)
  local engine = pass.ends(pair).engine
  for name in pairs(only) do
    for _, one in ipairs(engine.differences(pair, name)) do
      if one.kind ~= "only on the target" and one.kind ~= "not proven" then
        errors.raise {
          kind = "conflict", code = "EDIFFERENT", target = pair.to.place.name,
          message = ("%s: %s (%d): %s"):format(meter.shown(name), one.kind, one.count, table.concat(one.examples, ", ")),
        }
      end
    end
  end
end

return proof
