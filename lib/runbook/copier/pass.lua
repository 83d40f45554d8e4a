--- One pass of a pair: everything is looked at, then each unit is brought up to date by a supervised rsync.
---
--- A unit is journaled by itself; one whose connection broke is tried again at the end; a resume does only what is not done.

local effect = require "runbook.effect"
local ends = require "runbook.copier.ends"
local errors = require "runbook.errors"
local events = require "runbook.events"
local lock = require "runbook.lock"
local meter = require "runbook.copier.meter"
local record = require "runbook.copier.record"
local route = require "runbook.copier.route"
local rsync = require "runbook.copier.rsync"
local scan = require "runbook.copier.scan"
local task = require "runbook.task"
local time = require "runbook.core.time"
local units = require "runbook.units"

local pass = {}

local ROUNDS = 3
local AGAIN = { lost = true, timeout = true, unreachable = true, busy = true }

local function raise(level, e)
  errors.raise(e, level + 1)
end

--- Raises when the source is not what it was: empty, on another mount, or half gone.
---@param pair table
---@param survey table
---@param passes table[]
---@param known table?  the target's record
function pass.must_be_complete(pair, survey, passes, known)
  local target = pair.from.place.name
  if #survey.problems > 0 then
    raise(2, {
      kind = "refused", code = "EUNREADABLE", target = target,
      message = ("%d names of %s cannot be read: %s"):format(#survey.problems, tostring(pair.from), survey.problems[1]),
      hint = "work as root there: `sudo: true` below the source",
    })
  elseif survey.total.entries <= 1 then
    raise(2, {
      kind = "missing", code = "EEMPTY", target = target, message = ("%s is empty"):format(tostring(pair.from)),
      hint = "is it mounted there?",
    })
  end
  local last = passes[#passes]
  if last and last.mount ~= survey.mount then
    raise(2, {
      kind = "conflict", code = "EMOUNT", target = target,
      message = ("%s lay on the mount %s before and lies on %s now"):format(tostring(pair.from), last.mount, survey.mount),
      hint = "mount it again; nothing was changed",
    })
  elseif last and survey.total.entries * 2 < last.entries then
    raise(2, {
      kind = "conflict", code = "EHALF", target = target,
      message = ("%s held %s names at the last pass and holds %s now"):format(tostring(pair.from), units.count(last.entries),
        units.count(survey.total.entries)),
      hint = "nothing was changed; if so much was really removed, start a new run into an empty target",
    })
  elseif not last and known and known.count > 3 and (#survey.units - 1) * 2 < known.count - 1 then
    raise(2, {
      kind = "conflict", code = "EHALF", target = target,
      message = ("%s held %d homes and holds %d now"):format(tostring(pair.from), known.count, #survey.units - 1),
      hint = "nothing was changed; if so many were really removed, start a new run into an empty target",
    })
  end
end

--- What is known before anything is written.
---@async
---@param pair table
---@param gently boolean
---@return table look  from, to (facts), survey, known, source, passes
function pass.look(pair, gently)
  local look = { passes = record.passes(pair) }
  task.all {
    function()
      look.from = ends.look(pair.from)
      if look.from.there then
        look.survey = scan.survey(pair.from, pair.exclude, gently)
      end
    end,
    function()
      look.to = ends.look(pair.to)
      look.known = record.read(pair.to)
    end,
  }
  if not look.from.there then
    raise(1, { kind = "missing", target = pair.from.place.name, message = tostring(pair.from) .. " is not there" })
  end
  look.source = record.source(look.from)
  return look
end

local function guard(pair, look)
  pass.must_be_complete(pair, look.survey, look.passes, look.known)
  record.must_have_no_foreign(pair, record.foreign(pair, look.to, look.known, look.source))
end

-- The lock we took on the target must not be seen in the source: then both are one directory, by whatever way.
local function must_not_share_lock(pair)
  local ours = pair.to.place:query_sh([[cat "$1/.runbook/lock/run" 2>/dev/null || :]], pair.to.path)
  local theirs = pair.from.place:query_sh([[cat "$1/.runbook/lock/run" 2>/dev/null || :]], pair.from.path)
  if ours ~= "" and ours == theirs then
    raise(1, { kind = "usage", code = "ESAME",
      message = ("%s and %s are the same directory"):format(tostring(pair.from), tostring(pair.to)) })
  end
end

-- The largest units first, so that none is left alone at the end; the loose files last, as each new home changes the time of
-- the directory they lie in.
local function in_order(survey, first)
  local rank = {}
  for i, name in ipairs(first or {}) do
    rank[name] = i
  end
  local list = {}
  for _, unit in ipairs(survey.units) do
    if unit.name ~= scan.LOOSE then
      list[#list + 1] = unit
    end
  end
  table.sort(list, function(a, b)
    local x, y = rank[a.name] or math.huge, rank[b.name] or math.huge
    if x ~= y then
      return x < y
    elseif a.bytes + a.entries * 4096 ~= b.bytes + b.entries * 4096 then
      return a.bytes + a.entries * 4096 > b.bytes + b.entries * 4096
    end
    return a.name < b.name
  end)
  return list, survey.by_name[scan.LOOSE]
end

-- What stands on the target where a home belongs, and is no directory: a person has to look at it.
local function in_the_way(p)
  local list = {}
  for _, unit in ipairs(p.look.survey.units) do
    list[#list + 1] = p.look.to.loose[unit.name] and unit.name or nil
  end
  return list
end

local function argv_of(p, unit)
  local loose = unit.name == scan.LOOSE
  local flags = rsync.flags {
    version = math.min(p.look.from.version, p.look.to.version), owner = p.pair.owner, exclude = p.pair.exclude, loose = loose,
    protect = loose and in_the_way(p) or nil, delete = p.delete, force = p.ours, rate = p.rate,
  }
  return p.opened.wrap(rsync.puller {
    tree = p.pair.to.path, unit = unit.name, ours = p.ours, remote = p.opened.remote, flags = flags,
    source = p.opened.source(unit.name),
  })
end

local function describe_failure(p, unit, err)
  err.target = p.pair.to.place.name
  err.unit = unit.name
  local example = err.message
  if err.what == "full" and p.pair.to.place:space(p.pair.to.path).bytes_free > unit.bytes + (64 << 20) then
    example = example:gsub("No space left on device", "No space left on device, while the disk has room: it is the home's quota", 1)
  end
  err.message = ("%s: %s"):format(meter.shown(unit.name), example)
  return err
end

local function copy(p, unit)
  local began, mark = time.utc(), time.now()
  local out = rsync.output(function(bytes) p.meter:move(unit, bytes) end)
  p.meter:start(unit)
  local ok, how = xpcall(function()
    local job = p.pair.to.place:job {
      name = p.job, argv = argv_of(p, unit), stdin = p.opened.stdin, again = true,
      about = ("copy %s from %s:%s to %s"):format(meter.shown(unit.name), p.pair.from.place.name, p.pair.from.path, p.pair.to.path),
    }
    local ended = job:wait { on_line = function(line, stream) out:line(line, stream) end }
    local failure = out:failure(ended.status, p.settled)
    if failure and (failure.status ~= rsync.GONE or p.settled) then
      error(describe_failure(p, unit, failure), 0)
    elseif failure then
      events.notice(("%s is gone from the source since it was looked at"):format(meter.shown(unit.name)))
    end
    job:forget()
  end, errors.handler)
  p.meter:finish(unit, ok)
  if not ok then
    error(how, 0)
  end
  local row = {
    bytes = out.stats.bytes or 0, files = out.stats.transferred or 0, created = out.stats.created or 0, deleted = out.stats.deleted or 0,
    vanished = out:vanished(), seconds = time.now() - mark, began = units.timestamp(began),
  }
  p.results[unit.name] = row
  record.add_receipt(p.pair, unit.name, "sent", {
    entries = unit.entries, files = unit.files, bytes = unit.bytes, sent = row.bytes, seconds = row.seconds,
  })
end

local function copy_verb(kind, words)
  return effect.verb {
    name = "sync." .. kind, class = "change", repeatable = true, quiet = true, inverse = effect.NOT_NEEDED,
    target = function(p) return p.pair.to.place.name end,
    summary = function(_, unit) return words:format(meter.shown(unit.name)) end,
    preview = function(_, unit)
      return { after = ("%s in %s files at the source"):format(units.size(unit.bytes), units.count(unit.files)) }
    end,
    by_hand = function(p, unit)
      local loose = unit.name == scan.LOOSE
      return p.pair.to.place:by_hand(rsync.by_hand {
        owner = p.pair.owner, exclude = p.pair.exclude, delete = p.delete, loose = loose,
        source = p.by_hand_source .. (loose and "/" or "/" .. unit.name .. "/"),
        target = p.pair.to.path .. (loose and "/" or "/" .. unit.name .. "/"),
      })
    end,
    body = copy,
  }
end

local verbs = {
  bulk = copy_verb("bulk", "copy %s"), converge = copy_verb("converge", "copy what changed of %s"),
  final = copy_verb("final", "copy what changed of %s, remove what was removed"),
  back = copy_verb("back", "copy what changed of %s back"),
}

-- Units by the session when there is one, so that they are journaled; else side by side.
local function each(list, o, fn)
  local session = task.context().session
  if session then
    return session:each(list, o, fn)
  end
  task.each(list, o, fn)
end

local function raise_failures(failures, total)
  local names, listed = meter.failed(failures)
  local first = failures[names[1]]
  raise(1, {
    kind = first.kind, code = "EUNITS", units = names, cause = first, stderr = first.stderr, target = first.target,
    message = ("%d of %d homes failed, %d are done and stay done\n%s"):format(#names, total, total - #names, listed),
    hint = ("`runbook resume` tries them again; `runbook resume --leave %s --reason TEXT` goes on without"):format(meter.shown(names[1])),
  })
end

local function one_round(p, list, failures)
  local ok, err = xpcall(each, errors.handler, list, {
    limit = p.pair.workers, key = function(unit) return p.prefix .. unit.name end,
  }, function(unit)
    local good, e = xpcall(verbs[p.kind], errors.handler, p, unit)
    failures[unit.name] = not good and e or nil
    if not good then
      error(e, 0)
    end
    return p.results[unit.name]
  end)
  if not ok and (next(failures) == nil or not errors.is(err) or err.code ~= "EUNITS") then
    error(err, 0)
  end
end

-- Copies a list of units; those whose connection broke come again at the end, when the others are through.
local function copy_all(p, list, failures)
  for round = 1, ROUNDS do
    one_round(p, list, failures)
    local again = {}
    for _, unit in ipairs(list) do
      if failures[unit.name] and AGAIN[failures[unit.name].kind] then
        again[#again + 1] = unit
      end
    end
    if #again == 0 or round == ROUNDS then
      return
    end
    events.notice(("%d of %d homes once more: %s"):format(#again, #list, tostring(failures[again[1].name])))
    task.sleep(2 * round)
    list = again
  end
end

local function without_left(p, list)
  local kept = {}
  for _, unit in ipairs(list) do
    if record.is_left(unit.name) then
      record.add_receipt(p.pair, unit.name, "left", { entries = unit.entries, bytes = unit.bytes })
    else
      kept[#kept + 1] = unit
    end
  end
  return kept
end

local function set_aside_vanished(p)
  local there = {}
  for _, name in ipairs(p.look.from.names) do
    there[name] = true
  end
  for _, name in ipairs(p.look.to.names) do
    if not there[name] and p.look.known and p.look.known.units[name] then
      record.set_aside(p.pair.to, name)
    end
  end
end

local function sum(p)
  local t = { bytes = 0, files = 0, created = 0, deleted = 0, vanished = 0 }
  for _, row in pairs(p.results) do
    for key in pairs(t) do
      t[key] = t[key] + row[key]
    end
  end
  return t
end

-- The whole is measured from its first look to its last unit. A pass that a resume went on with was slower than it will be.
local function finish(p, began)
  if effect.planning() then
    return nil
  end
  local totals, s = sum(p), p.look.survey
  local row = {
    number = #p.look.passes + 1, kind = p.kind, began = began, seconds = time.now() - p.clock, scan = s.seconds,
    entries = s.total.entries, size = s.total.bytes, mount = s.mount, mark = s.mark, units = #s.units,
    bytes = totals.bytes, files = totals.files, created = totals.created, deleted = totals.deleted, vanished = totals.vanished,
  }
  record.add_pass(p.pair, row)
  return row
end

-- Copies stay when a run is undone, and so does the directory they are in.
local make = effect.verb {
  name = "sync.make", class = "change", repeatable = true, quiet = true, inverse = effect.NOT_NEEDED,
  target = function(dir) return dir.place.name end,
  summary = function(dir) return "make directory " .. dir.path end,
  by_hand = function(dir) return dir.place:by_hand { "mkdir", "-p", dir.path } end,
  body = function(dir) dir:ensure() end,
}

-- What has to be so before anything is written, and the lock.
local function prepare(pair, kind, look)
  ends.must_differ(pair, look.from, look.to)
  if kind ~= "back" then
    guard(pair, look)
  end
  if not look.to.there then
    make(pair.to)
  end
  lock.take(pair.to)
  if kind ~= "back" then
    if not effect.planning() then
      must_not_share_lock(pair)
    end
    record.begin(pair.to, look.source, look.from.names)
  end
end

local function only_these(list, only)
  local kept = {}
  for _, unit in ipairs(list) do
    if not only or only[unit.name] then
      kept[#kept + 1] = unit
    end
  end
  return kept
end

local function copy_units(p, list, loose)
  local failures = {}
  copy_all(p, list, failures)
  copy_all(p, loose, failures)
  return failures
end

--- Make a pass.
---@async
---@param pair table
---@param kind "bulk"|"converge"|"final"|"back"
---@param o { first?: string[], only?: table<string, true> }
---@return table? pass  number kind seconds scan entries size units bytes files created deleted vanished; nil in a plan
function pass.run(pair, kind, o)
  local settled, clock, began = kind == "final" or kind == "back", time.now(), units.timestamp(time.utc())
  local look = pass.look(pair, not settled)
  prepare(pair, kind, look)
  local r = pair:route(look)
  local list, loose = in_order(look.survey, o.first)
  list, loose = only_these(list, o.only), only_these({ loose }, o.only)
  local number = #look.passes + 1
  local p = {
    pair = pair, kind = kind, look = look, settled = settled, results = {}, clock = clock, ours = kind ~= "back",
    delete = kind == "final" and (look.known == nil or look.known.empty), job = ("pass-%d"):format(number),
    prefix = record.prefix(pair, number), rate = not settled and pair.rate and pair.rate / pair.workers or nil,
    by_hand_source = (r.user and r.user .. "@" .. r.host .. ":" or "") .. pair.from.path,
    meter = meter.new(list, loose, not settled and pair.rate and ("at most %s"):format(units.rate(pair.rate)) or nil),
  }
  if kind == "final" then
    set_aside_vanished(p)
  end
  list, loose = without_left(p, list), without_left(p, loose)
  p.opened = route.open(pair, r, not settled, p.job)
  local ok, failures = xpcall(copy_units, errors.handler, p, list, loose)
  if not ok and errors.is_cancelled(failures) then
    error(failures, 0) -- what was cancelled does not wait; the key is an obligation
  end
  route.close(p.opened)
  if not ok then
    error(failures, 0)
  elseif next(failures) then
    raise_failures(failures, #list + #loose)
  end
  return finish(p, began)
end

return pass
