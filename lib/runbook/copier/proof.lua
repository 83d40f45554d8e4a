--- Proof that two ends are the same, and that they stay it: both are walked, and what was seen is kept as receipts.

local effect = require "runbook.effect"
local ends = require "runbook.copier.ends"
local errors = require "runbook.errors"
local events = require "runbook.events"
local human = require "runbook.human"
local meter = require "runbook.copier.meter"
local pass = require "runbook.copier.pass"
local patterns = require "runbook.copier.patterns"
local record = require "runbook.copier.record"
local scan = require "runbook.copier.scan"
local task = require "runbook.task"
local time = require "runbook.core.time"
local units = require "runbook.units"

local proof = {}

local AT_ONCE = 4
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
  local mark = scan.survey(pair.from, pair.exclude).mark
  local changed
  for period = 1, PERIODS do
    task.sleep(seconds)
    changed = scan.changed(pair.from, mark, pair.exclude)
    if #changed == 0 then
      return
    end
    mark = scan.survey(pair.from, pair.exclude).mark
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
  local changed = scan.changed(pair.from, passes[#passes].mark, pair.exclude)
  if #changed > 0 then
    raise_writers(pair, changed, "stop them, then do the final pass again: `runbook resume --again final`")
  end
end

local function same(a, b)
  return a.names == b.names and (a.attributes == b.attributes or a.attributes == "none" or b.attributes == "none")
end

local function describe(name, differences)
  local words = {}
  for i, one in ipairs(differences) do
    words[i] = ("%s (%d): %s"):format(one.kind, one.count, meter.shown(table.concat(one.examples, ", ")))
  end
  return ("%s: %s"):format(meter.shown(name), #words > 0 and table.concat(words, "; ") or "changed while it was compared")
end

-- Both ends of one unit, side by side.
local function compare(pair, unit, exclude)
  local a, b
  task.all {
    function() a = scan.fingerprint(pair.from, unit, { owner = pair.owner, exclude = exclude }) end,
    function() b = scan.fingerprint(pair.to, unit, { owner = "keep", exclude = exclude }) end,
  }
  for _, one in ipairs { { pair.from, a }, { pair.to, b } } do
    if #one[2].problems > 0 then
      errors.raise {
        kind = "refused", code = "EUNREADABLE", target = one[1].place.name,
        message = ("%s: %d names cannot be read: %s"):format(meter.shown(unit), #one[2].problems, one[2].problems[1]),
      }
    end
  end
  return a, b
end

local function prove(pair, unit, exclude)
  local a, b = compare(pair, unit, exclude)
  if not same(a, b) then
    local differences = scan.differences(pair.from, pair.to, unit, { owner = pair.owner, exclude = exclude })
    errors.raise { kind = "conflict", code = "EDIFFERENT", target = pair.to.place.name, message = describe(unit, differences) }
  end
  local compared = a.attributes ~= "none" and b.attributes ~= "none"
  record.add_receipt(pair, unit, "scanned", {
    entries = b.entries, files = b.files, bytes = b.bytes, names = b.names, attributes = compared and b.attributes or "none",
    source_names = a.names, source_attributes = a.attributes,
  })
end

local function must_hold_nothing_else(pair, from, to)
  local there = {}
  for _, name in ipairs(from.names) do
    there[name] = true
  end
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
  local failures, done, said = {}, 0, -1
  task.each(list, { limit = AT_ONCE }, function(unit)
    local ok, err = xpcall(prove, errors.handler, pair, unit, exclude_for(pair, unit, left))
    if not ok and errors.is_cancelled(err) then
      error(err, 0)
    end
    failures[unit] = not ok and err or nil
    done = done + 1
    if time.now() - said >= 1 or done == #list then
      said = time.now()
      events.emit { type = "progress", unit_name = "homes", done = done, total = #list, text = "compared" }
    end
  end)
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

--- See copier:receipts.
---@async
---@param pair table
---@return table
function proof.receipts(pair)
  local all = record.receipts(pair)
  local total = { units = 0, entries = 0, files = 0, bytes = 0, scanned = 0, sent = 0, left = 0 }
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
    level = total.units > 0 and total.scanned == total.units and "scanned" or "sent", total = total, units = by_name,
    passes = record.passes(pair),
  }
end

local function scanned(pair)
  local list, all = {}, record.receipts(pair)
  for unit, r in pairs(all) do
    if r.level == "scanned" then
      list[#list + 1] = unit
    end
  end
  table.sort(list)
  if #list == 0 then
    errors.raise({ kind = "missing", code = "ERECEIPT", message = ("there is no receipt for %s yet"):format(tostring(pair)),
      hint = "`verify` makes them" }, 3)
  end
  return list, all
end

--- Units whose target is not what its receipt says, and homes that are new there.
---@async
---@param pair table
---@return string[]
function proof.changed_on_target(pair)
  local list, all = scanned(pair)
  local changed = {}
  local facts = ends.look(pair.to)
  local there = {}
  for _, name in ipairs(facts.names) do
    there[name] = true
  end
  task.each(list, { limit = AT_ONCE }, function(unit)
    if unit == scan.LOOSE or there[unit] then
      local now = scan.fingerprint(pair.to, unit, { owner = "keep", exclude = pair.exclude })
      if not same({ names = all[unit].names, attributes = all[unit].attributes }, now) then
        changed[#changed + 1] = unit
      end
    else
      changed[#changed + 1] = unit
    end
  end)
  for _, unit in ipairs(scan.survey(pair.to, pair.exclude).units) do
    if not all[unit.name] then
      changed[#changed + 1] = unit.name
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

--- Raises when a unit that is to be copied back has changed at the source, too.
---@async
---@param pair table
---@param list string[]
function proof.source_must_be_as_proven(pair, list)
  local all, both = record.receipts(pair), {}
  local names = {}
  for _, name in ipairs(ends.look(pair.from).names) do
    names[name] = true
  end
  for _, unit in ipairs(list) do
    local r = all[unit]
    if not r and names[unit] then
      both[#both + 1] = meter.shown(unit)
    elseif r and (unit == scan.LOOSE or names[unit]) then
      local now = scan.fingerprint(pair.from, unit, { owner = pair.owner, exclude = pair.exclude })
      if not same({ names = r.source_names, attributes = r.source_attributes }, now) then
        both[#both + 1] = meter.shown(unit)
      end
    end
  end
  if #both > 0 then
    errors.raise({
      kind = "conflict", code = "EBOTH", target = pair.from.place.name,
      message = ("changed on both sides since the receipts: %s"):format(table.concat(both, ", ")),
      hint = "a person has to bring these together; nothing was copied back",
    }, 2)
  end
end

return proof
