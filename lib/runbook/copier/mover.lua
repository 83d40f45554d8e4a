--- The engine of our own program at both ends: what is known says what to do, and that is done in few, large shards.
---
--- A shard is a job: `far send` at the source reads what it is told to, `far receive` at the target puts it there whole, and says of
--- each name what became of it, with the hash of both ends. What was said is merged into what is known when all shards of a
--- unit have ended. What was cut is looked at again and done once more.

local clocks = require "runbook.copier.clocks"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local far = require "runbook.copier.far"
local faults = require "runbook.copier.faults"
local jobs = require "runbook.run.jobs"
local digest = require "runbook.core.digest"
local known = require "runbook.copier.known"
local manifest = require "runbook.core.manifest"
local meter = require "runbook.copier.meter"
local record = require "runbook.copier.record"
local scan = require "runbook.copier.scan"
local shards = require "runbook.copier.shards"
local task = require "runbook.task"

local mover = { name = "mover", level = "hashed", carries_shards = true, routes = { pull = true, push = true, operator = true } }

local AT_ONCE = 4 -- manifests that are read at a time
local TOGETHER = 32 -- units that are written down at a time
local WITHOUT_PROGRESS = 3 -- rounds in which nothing more was done, before a failure is one

mover.runs_on = far.runs_on

-- What is known is opened once for a process and shared by all that a pair does.
local function store_of(pair)
  pair.known = pair.known or known.open(pair)
  return pair.known
end

--- Look at the source.
---@async
---@param pair table
---@param gently boolean
---@return runbook.core.manifest.report seen
function mover.look(pair, gently)
  local report = store_of(pair):scan("source", { gently = gently })
  pair.quiet, pair.behind = math.min(pair.quiet or math.huge, report.stat_seconds), clocks.behind(report)
  return report
end

mover.survey = known.survey

-- Remove what was left half done; large files go on from where they were cut. True when there is more of them than there was.
local function take_stock(p, only)
  local more = false
  for unit, there in pairs(p.known:clean_up(only, true)) do
    local before = p.parts[unit] or p.was_in_parts[unit]
    more = more or there.bytes > (before and before.bytes or 0)
    p.parts[unit], p.was_in_parts[unit] = there, there
  end
  return more
end

-- From here on the target is not what the last pass left; whoever comes after a crash has to look.
local function begin_writing(p)
  if p.writing then
    return
  end
  p.writing = true
  p.known.state.token = nil
  p.known:save()
  if p.kind ~= "back" then
    record.stamp(p.pair.to, p.token, "open")
  end
end

-- What was cancelled does not wait; key and program are obligations.
local function close_after_failure(p, ok, err)
  if not ok and not errors.is_cancelled(err) then
    shards.close(p)
  end
  if not ok then
    error(err, 0)
  end
end

-- Side by side, but a failure of the first does not cancel the second, which is not to be left half done.
local function beside(first, second)
  local ok, err
  task.all { function() ok, err = xpcall(first, errors.handler) end, second }
  if not ok then
    error(err, 0)
  end
end

-- Nothing of this pair is there yet: all of it is to be sent, and much of what that needs takes longer than to look.
local function make_all_ready(p, look)
  local function note()
    p:note_units()
    begin_writing(p)
  end
  close_after_failure(p, xpcall(beside, errors.handler, function() task.all { note, look } end, function() shards.open(p) end))
end

--- What is to be known before the first shard: the target, unless it bears our stamp.
---@async
---@param p table  the pass
function mover.prepare(p)
  p.known = store_of(p.pair)
  p.token = digest.hex(digest.random(8))
  p.job = ("pass-%d-%s"):format(p.number, p.token)
  p.cut = {} -- units of which nobody knows what was done there
  p.parts = {} -- by unit, what is there of large files that were not sent to their end
  p.was_in_parts = {} -- units that ever had such files
  p.totals = { bytes = 0, files = 0, created = 0, deleted = 0, vanished = 0 }
  if effect.planning() then
    p:note_units()
    return
  end
  local context = task.context()
  if context.session and context.session.journal and context.step then
    jobs.wait_for_earlier(context.session, context.step)
  end
  p.known:note_boot(p.look.to.boot)
  if p.look.known then
    p:note_units()
  end
  if p.kind ~= "back" and p.known:is_as_left(p.look.known) then
    p.known:scan_doubtful()
    return
  end
  p.known.state.clean = {}
  local there = p.look.known
  if there and there.state ~= "closed" then
    take_stock(p)
  end
  if p.begun then -- on the way back there is no stamp that says so
    take_stock(p, p.begun)
  end
  local function look()
    p.known:scan("target", { ours_during = p.kind ~= "back" and p.known:ours_during(there) or nil })
  end
  if there or p.kind == "back" then
    look()
  else
    make_all_ready(p, look)
  end
end

-- Nobody goes on with what is left of large files now. False: it cannot be removed, and that is not what is to be said.
local function remove_parts(p)
  local names = {}
  for _, list in ipairs { p.was_in_parts, p.failures } do
    for name in pairs(list) do
      names[#names + 1] = name
    end
  end
  if #names == 0 then
    return true
  end
  local ok, err = xpcall(p.known.clean_up, errors.handler, p.known, names)
  if not ok and (next(p.failures) == nil or errors.is_cancelled(err)) then
    error(err, 0)
  end
  return ok
end

-- What is known of the target is believed from now on, but for units that failed. Where one was cut the pass is not over: nobody
-- knows what was done there.
local function believe(p)
  for name in pairs(p.failures) do
    if p.cut[name] then
      return
    end
  end
  if not remove_parts(p) or p.kind == "back" then
    return
  end
  for name in pairs(p.failures) do
    p.known.state.doubt[name] = true
  end
  local there = p.look.known
  if p.writing or not (there and there.state == "closed" and there.token) then
    local ok, err = xpcall(record.stamp, errors.handler, p.pair.to, p.token, "closed")
    if not ok and (next(p.failures) == nil or errors.is_cancelled(err)) then
      error(err, 0)
    elseif not ok then -- a disk that is full has no room for that either, and why units failed is to be said
      return
    end
    p.known.state.token = p.token
  else
    p.known.state.token = there.token
  end
  p.known:save()
end

--- The pass is over.
---@async
---@param p table
function mover.finish(p)
  beside(function() return effect.planning() or believe(p) end, function() shards.close(p) end)
end

--- What became of a unit; raises when it failed.
---@param p table
---@param unit table
---@return table row
function mover.unit(p, unit)
  local failure = p.failed and p.failed[unit.name]
  if failure then
    error(failure, 0)
  end
  record.add_receipt(p.pair, unit.name, "sent", { entries = unit.entries, files = unit.files, bytes = unit.bytes })
  p.meter:count(unit)
  return {}
end

-- Units that an earlier try of this step has done are not done again, but for the top, which changes with each home that is
-- made; those where nothing changed since they were the same at both ends need no look.
local function sort_out(p, list)
  local todo, done = {}, {}
  for _, unit in ipairs(list) do
    if record.unit_state(p:key(unit)) ~= "done" or unit.name == scan.LOOSE and (p.top_changed or p.moved_aside) then
      local clean = p.known:is_clean(unit.name)
      table.insert(clean and done or todo, unit)
    end
  end
  return todo, done
end

-- What there is to do. When more would be removed than anybody would believe, a person has to say that it is right.
local function weigh(p, todo, loose)
  local gone, there, files, bytes = 0, 0, 0, 0
  task.each(todo, { limit = AT_ONCE }, function(unit)
    local c = p.known:compare(unit.name)
    gone, there = gone + c.extra_ours, there + c.equal + c.different + c.extra
    files, bytes = files + c.to_send.files, bytes + c.to_send.bytes
  end)
  p.meter:expect(files, bytes)
  for _, unit in ipairs(todo) do
    p.meter:resume(p.parts[unit.name] and p.parts[unit.name].bytes or 0)
  end
  p.little = shards.is_little(p, bytes, loose)
  local share = p.pair.most_removed or 25
  if p.delete and gone > 100 and gone * 100 > there * share then
    errors.raise {
      kind = "conflict", code = "EREMOVED", target = p.pair.to.place.name,
      message = ("%d of %d names on the target would be removed, as they are gone from the source; that is more than %d %%"):format(
        gone, there, share),
      hint = "nothing was changed; when it is right, say so: `most_removed` of the pair, in percent",
    }
  end
end

-- Units of which nobody knows how far their shards came. True when something came of large files.
local function look_at_cut(p, list)
  local cut = {}
  for _, unit in ipairs(list) do
    local fault = p.faults[unit.name]
    cut[#cut + 1] = fault and fault.cut and unit.name or nil
  end
  return #cut > 0 and take_stock(p, cut)
end

-- What a round left to be done once more, and what was a failure for good.
local function next_round(p, todo, last)
  local again, failed, only = {}, {}, {}
  for _, unit in ipairs(todo) do
    local fault = p.faults[unit.name]
    if fault and fault.again and not last then
      again[#again + 1] = unit
      p.meter:once_more(unit, faults.words(fault))
      only[#only + 1] = unit.name
    elseif fault then
      failed[unit.name] = faults.error_of(p, unit, fault)
      p.cut[unit.name] = fault.cut
    end
  end
  if #only > 0 then -- what changed since this pass began writing we did, as with the other names of an inode
    p.known:scan("target", { only = only, ours_during = p.kind ~= "back" and p.known:ours_during(record.read(p.pair.to)) or nil })
  end
  return again, failed
end

local function names_of(list)
  local names = {}
  for i, unit in ipairs(list) do
    names[i] = unit.name
  end
  return names
end

local function one_round(p, list)
  p.faults = {}
  local parts = {}
  for _, unit in ipairs(list) do
    parts[#parts + 1] = p.parts[unit.name] and p.parts[unit.name].said
    p.parts[unit.name] = nil
  end
  local before = p.totals.created + p.totals.files
  local deletions = p.delete and not (p.blocked and list[1].name == scan.LOOSE)
  local work <close> = effect.own(manifest.work, {
    directory = p.known.directory, units = names_of(list), owner = p.pair.owner, deletions = deletions, overwrite = p.kind == "back",
    entries = shards.entries(p, list), bytes = shards.bytes(p, list), spread = shards.lanes(p),
    parts = table.concat(parts),
  })
  shards.run(p, work, list, function(settled)
    local good = {}
    for _, unit in ipairs(settled) do
      good[#good + 1] = not p.faults[unit.name] and unit or nil
    end
    p:each(good, TOGETHER)
  end)
  return p.totals.created + p.totals.files > before
end

-- Work for units until nothing is left that another try might mend. As long as it goes on, so do we: a connection that is cut
-- every few seconds brings something each time.
local function carry_units(p, todo)
  local list, idle = todo, 0
  while true do
    local went = one_round(p, list)
    idle = (look_at_cut(p, list) or went) and 0 or idle + 1
    local all = list
    list, p.failed = next_round(p, list, idle >= WITHOUT_PROGRESS)
    for _, unit in ipairs(all) do
      if p.failed[unit.name] then
        p.failures[unit.name] = p.failed[unit.name]
        p:each({ unit }, 1)
      end
    end
    if #list == 0 then
      return
    end
    events.notice(("%d of %d homes once more: %s"):format(#list, #todo, faults.words(p.faults[list[1].name])))
    task.sleep(math.max(0.5, math.min(10, 2 * idle)))
  end
end

-- How both ends of a unit differ; that they do not is kept for the next pass.
local function compare(p, unit)
  local c, report = p.known:compare(unit.name), p.look.survey.by_name[unit.name]
  local clean = c.missing + c.different + c.extra_ours == 0 and c.proven == c.entries and report.problem_count == 0
  p.known:note_clean(report, clean)
  return c
end

-- Contents and attributes that are equal as far as times and sizes go, and were not read yet, are read at both ends: what differs
-- is brought, in the final pass, too, where `verify` could only say so. Returns the units in which that found something.
local function prove_units(p, todo)
  local unproven, differ = {}, {}
  task.each(todo, { limit = AT_ONCE }, function(unit)
    local c = compare(p, unit)
    unproven[#unproven + 1] = c.equal > c.proven and unit or nil
  end)
  local proven = #unproven > 0 and p.known:prove(names_of(unproven), not p.settled) or {}
  task.each(unproven, { limit = AT_ONCE }, function(unit)
    if proven[unit.name] and compare(p, unit).different > 0 and not p.failures[unit.name] then
      differ[#differ + 1] = unit
    end
  end)
  return differ
end

-- What is no directory is no home: it is not written through, and a person has to look at it.
local function refuse_blocked(p, list)
  local free = {}
  p.failed = {}
  for _, unit in ipairs(list) do
    if p.look.to.loose[unit.name] then
      local there = p.pair.to.place:stat(p.pair.to:join(unit.name))
      p.failed[unit.name] = errors.new {
        kind = "conflict", code = "EINWAY", target = p.pair.to.place.name, unit = unit.name,
        message = ("%s: a %s stands on the target where the home belongs"):format(meter.shown(unit.name),
          there and there.type == "link" and "symlink" or "file"),
        hint = "look at it, and move it away: " .. p.pair.to.place:by_hand { "ls", "-l", p.pair.to:join(unit.name) },
      }
      p:each({ unit }, 1)
    else
      free[#free + 1] = unit
    end
  end
  return free
end

-- Each new home, and what was moved aside, has changed the time of the directory that the loose files lie in.
local function look_at_top(p)
  if p.top_changed or p.moved_aside then
    p.known:scan("target", { only = { scan.LOOSE } })
    p.known.state.clean[scan.LOOSE] = nil
  end
end

local function has_new_home(p, list)
  local there = {}
  for _, name in ipairs(p.look.to.names) do
    there[name] = true
  end
  for _, unit in ipairs(list) do
    if not there[unit.name] then
      return true
    end
  end
  return false
end

local function carry_all(p, list, loose)
  if effect.planning() then
    p:getting_ready(shards.open, p)
    p:each(list, 1)
    p:each(loose, 1)
    return
  end
  for _, unit in ipairs(p.look.survey.units) do
    p.blocked = p.blocked or p.look.to.loose[unit.name] -- what is a home at the source is no loose file to be removed
  end
  list = refuse_blocked(p, list)
  p.top_changed = has_new_home(p, list)
  for _, units in ipairs { list, loose } do
    if units == loose then
      look_at_top(p)
    end
    local todo, done = sort_out(p, units)
    weigh(p, todo, units == loose and #list > 0)
    p:each(done, TOGETHER)
    if #todo > 0 then
      carry_units(p, todo)
      local differ = prove_units(p, todo)
      if #differ > 0 then -- only their contents said so
        carry_units(p, differ)
        prove_units(p, differ)
      end
    end
  end
end

--- Bring all units up to date; failures are left in `p.failures`.
---@async
---@param p table
---@param list table[]
---@param loose table[]  the loose files, which come last
function mover.carry(p, list, loose)
  p.begin_writing = begin_writing
  close_after_failure(p, xpcall(carry_all, errors.handler, p, list, loose))
end

local function describe(name, comparison)
  local words = {}
  for _, kind in ipairs(comparison.kinds) do
    local examples = {}
    for i, path in ipairs(kind.examples) do
      examples[i] = meter.shown(path == "" and name or path)
    end
    words[#words + 1] = ("%s (%d): %s"):format(kind.kind, kind.count, table.concat(examples, ", "))
  end
  return ("%s: %s"):format(meter.shown(name), #words > 0 and table.concat(words, "; ") or "nothing is known of it")
end

-- What stands where a home belongs that was left out on purpose is a loose file there, and nobody's business.
local function only_left_out(c, left_there)
  local n = 0
  for _ in pairs(left_there or {}) do
    n = n + 1
  end
  for _, kind in ipairs(c.kinds) do
    if kind.kind == "only on the target" then
      for _, path in ipairs(kind.examples) do
        n = left_there and left_there[path] and n or -1
      end
    end
  end
  return c.extra == n
end

-- The directory in which the homes lie has another time with each home that comes or goes; that alone says nothing.
local function is_proven(unit, c, left_there)
  if unit == scan.LOOSE and c.extra > 0 and only_left_out(c, left_there) then
    local rest = setmetatable({ extra = 0, kinds = {} }, { __index = c })
    for _, kind in ipairs(c.kinds) do
      rest.kinds[#rest.kinds + 1] = kind.kind ~= "only on the target" and kind or nil
    end
    return is_proven(unit, rest)
  elseif unit == scan.LOOSE and c.different == 1 and c.proven == c.entries - 1 and c.extra == 0 then
    local one = c.kinds[1]
    return #c.kinds == 1 and one.kind == "time differs" and one.examples[1] == ""
  end
  return c.proven == c.entries and c.extra == 0
end

local function proof_of(pair, store, unit, sides, left_there)
  local c = store:compare(unit)
  local s, t = sides.source[unit], sides.target[unit]
  local problem = s and s.problems[1] or t and t.problems[1]
  if problem then
    return nil, errors.new {
      kind = "refused", code = "EUNREADABLE", target = (s and s.problems[1] and pair.from or pair.to).place.name,
      message = ("%s: %d names cannot be looked at: %s: %s"):format(meter.shown(unit), math.max(s and s.problem_count or 0,
        t and t.problem_count or 0), meter.shown(problem.path), problem.code or problem.what),
    }
  elseif not s or not t or not is_proven(unit, c, left_there) then
    return nil, errors.new {
      kind = "conflict", code = "EDIFFERENT", target = pair.to.place.name, message = describe(unit, c),
    }
  end
  return {
    entries = t.entries, files = t.files, bytes = t.bytes, source = digest.hex(s.digest), target = digest.hex(t.digest),
  }
end

local function by_name(report)
  local found = {}
  for _, unit in ipairs(report.units) do
    found[unit.name] = unit
  end
  return found
end

--- Look at both ends, read what was not proven yet, and keep receipts of the units that are the same.
---@async
---@param pair table
---@param look table  with the source as it is now
---@param o { units: string[], left: string[], tell: fun(done: integer) }
---@return table<string, runbook.Error> failures
function mover.verify(pair, look, o)
  local store, failures = store_of(pair), {}
  local report = store:scan("target", { ours_during = store:ours_during(look.known) })
  store:prove(o.units)
  local sides = { source = look.survey.by_name, target = by_name(report) }
  local left_there = {}
  for _, name in ipairs(o.left) do
    left_there[name] = look.to.loose[name]
  end
  for i, unit in ipairs(o.units) do
    local row, failure = proof_of(pair, store, unit, sides, left_there)
    failures[unit] = failure
    if row then
      record.add_receipt(pair, unit, "hashed", row)
    end
    o.tell(i)
  end
  store:save()
  return failures
end

--- Units of one side that are not what their receipts say.
---@async
---@param pair table
---@param side "source"|"target"
---@param list string[]  units that are there
---@param receipts table<string, table>
---@param look table
---@return string[] changed
function mover.changed_since_receipts(pair, side, list, receipts, look)
  local store = store_of(pair)
  local now = by_name(store:scan(side, { ours_during = side == "target" and store:ours_during(look.known) or nil }))
  local changed, doubtful = {}, {}
  for _, unit in ipairs(list) do
    local there = now[unit]
    if not there or there.problem_count > 0 then
      changed[#changed + 1] = unit
    elseif digest.hex(there.digest) ~= receipts[unit][side] then
      doubtful[#doubtful + 1] = unit
    end
  end
  if side == "target" and #doubtful > 0 then -- what was touched may still be the same
    store:prove(doubtful)
  end
  store:save()
  for _, unit in ipairs(doubtful) do
    local c = store:compare(unit)
    if side == "source" or not is_proven(unit, c) then
      changed[#changed + 1] = unit
    end
  end
  return changed
end

--- In what a unit differs, as far as is known after a pass.
---@async
---@return { kind: string, count: integer, examples: string[] }[]
function mover.differences(pair, unit)
  return pair.known:compare(unit).kinds
end

--- What changed at the source after a moment, newest first. Names are looked for only when something did.
---@async
---@param pair table
---@param mark string
---@return { path: string, at: number, type: string }[]
function mover.changed(pair, mark)
  for _, unit in ipairs(store_of(pair):scan("source").units) do
    if scan.is_later(unit.newest_ns, mark) then
      return scan.changed(pair.from, mark, pair.exclude)
    end
  end
  return {}
end

return mover
