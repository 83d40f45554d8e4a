--- One pass of a pair: everything is looked at, then each unit is brought up to date by an engine.
---
--- Engines are copier/mover.lua (our program at both ends) and copier/plain.lua (rsync and find). A unit is journaled by itself;
--- a resume does only what is not done.

local effect = require "runbook.effect"
local ends = require "runbook.copier.ends"
local errors = require "runbook.errors"
local events = require "runbook.events"
local lock = require "runbook.lock"
local meter = require "runbook.copier.meter"
local record = require "runbook.copier.record"
local mover = require "runbook.copier.mover"
local plain = require "runbook.copier.plain"
local route = require "runbook.copier.route"
local scan = require "runbook.copier.scan"
local task = require "runbook.task"
local time = require "runbook.core.time"
local units = require "runbook.units"

local pass = {}

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
      hint = pair.from.place.backend.fleeting and "its file server takes root for nobody: export it to the nodes with no_root_squash"
        or "work as root there: `sudo: true` below the source",
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

-- Without our program there is another engine, unless it was asked for by name, or by where an end is.
local function fall_back(pair, why)
  if pair.engine == "mover" then
    errors.raise { kind = "refused", code = "ENOFAR", message = why, hint = "nothing was changed" }
  end
  events.notice(("%s; rsync and find are used instead, which is slower, and hashes nothing"):format(why))
end

-- Our program where both ends run it; told once when they do not.
local function engine_of(pair)
  if pair.engine == "rsync" then
    return plain
  elseif pair.runs == nil then
    local answers = task.all {
      function() return { mover.runs_on(pair.from.place) } end, function() return { mover.runs_on(pair.to.place) } end,
    }
    pair.runs = answers[1][1] and answers[2][1]
    if not pair.runs then
      fall_back(pair, answers[1][2] or answers[2][2])
    end
  end
  return pair.runs and mover or plain
end

-- The first look at the source shows, too, whether it runs our program.
local function try_ours(pair, gently)
  local answers = task.all {
    function()
      local ok, seen = xpcall(mover.look, errors.handler, pair, gently)
      if not ok and seen.code ~= "ENOFAR" then
        error(seen, 0)
      end
      return { ok, seen }
    end,
    function() return { mover.runs_on(pair.to.place) } end,
  }
  pair.runs = answers[1][1] and answers[2][1]
  if not pair.runs then
    fall_back(pair, not answers[1][1] and answers[1][2].message or answers[2][2])
  end
  return pair.runs and answers[1][2]
end

-- The source's tree, by the engine that both ends can do.
local function look_at_tree(pair, gently)
  local seen = pair.engine ~= "rsync" and pair.runs == nil and try_ours(pair, gently)
  local engine = engine_of(pair)
  return engine, seen or engine.look(pair, gently)
end

-- A first pass has to find its way, and that takes longer than most of what comes before: it is looked for beside it.
local Ahead = {}
Ahead.__index = Ahead

function Ahead:begin(pair, look)
  if #look.passes == 0 and pair.engine ~= "rsync" then
    self.task = task.spawn(route.find, pair, look.from, look.to, mover.routes)
  end
end

-- Nil where it was not looked for, or in vain: who needs it looks again, and says what is wrong.
function Ahead:found()
  local ok, found = false, nil
  if self.task then
    ok, found = task.join(self.task)
  end
  return ok and found or nil
end

Ahead.__close = function(self)
  if self.task then
    self.task:cancel()
    task.join(self.task)
  end
end

local function look_at_ends(pair, tree, ahead)
  local look, failed = { passes = record.passes(pair) }, nil
  task.all {
    function()
      task.all {
        function()
          look.from = ends.look(pair.from)
          if not look.from.there then
            raise(1, { kind = "missing", target = pair.from.place.name, message = tostring(pair.from) .. " is not there" })
          end
        end,
        function() look.to = ends.look(pair.to) end,
      }
      if ahead then
        ahead:begin(pair, look)
      end
    end,
    function() look.known = record.read(pair.to) end,
    function()
      local ok, err = xpcall(tree, errors.handler, look)
      failed = not ok and err or nil
    end,
  }
  if failed then -- what is wrong with an end itself says more
    error(failed, 0)
  end
  look.source = record.source(look.from)
  return look
end

--- Both ends without their trees.
---@async
---@param pair table
---@return table look  from, to (facts), known, source, passes, engine
function pass.ends(pair)
  return look_at_ends(pair, function(look) look.engine = engine_of(pair) end)
end

--- What is known before anything is written.
---@async
---@param pair table
---@param gently boolean
---@param ahead? table  begins to look for the way, too
---@return table look  as of `ends`, and survey
function pass.look(pair, gently, ahead)
  local seen
  local look = look_at_ends(pair, function(look) look.engine, seen = look_at_tree(pair, gently) end, ahead)
  look.survey = look.engine.survey(seen, look.from)
  return look
end

local function guard(pair, look)
  pass.must_be_complete(pair, look.survey, look.passes, look.known)
  record.must_have_no_foreign(pair, record.foreign(pair, look.to, look.known, look.source))
end

-- The lock we took on the target must not be seen in the source: then both are one directory, by whatever way.
local function must_not_share_lock(pair)
  local function holder(dir)
    return dir.place:query_sh([[cat "$1/.runbook/lock/run" 2>/dev/null || :]], dir.path)
  end
  local held = task.all { function() return holder(pair.to) end, function() return holder(pair.from) end }
  if held[1] ~= "" and held[1] == held[2] then
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

-- Shards are the effects there; a unit only hears what became of it.
local function take_result(p, unit)
  p.results[unit.name] = p.engine.unit(p, unit)
end

local function copy_verb(kind, words)
  return effect.verb {
    name = "sync." .. kind, class = "change", repeatable = true, quiet = true, inverse = effect.NOT_NEEDED,
    target = function(p) return p.pair.to.place.name end,
    summary = function(_, unit) return words:format(meter.shown(unit.name)) end,
    preview = function(_, unit)
      return { after = ("%s in %s files at the source"):format(units.size(unit.bytes), units.count(unit.files)) }
    end,
    by_hand = function(p, unit) return plain.by_hand(p, unit) end,
    body = take_result,
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

local Pass = {}
local pass_mt = { __index = Pass }

--- Let the engine do units, each journaled by itself; what fails is kept in `failures`.
---@async
---@param list table[]
---@param limit integer  at a time
function Pass:each(list, limit)
  local ok, err = xpcall(each, errors.handler, list, {
    limit = limit, key = function(unit) return self:key(unit) end,
  }, function(unit)
    local good, e = xpcall(self.engine.carries_shards and not effect.planning() and take_result or verbs[self.kind], errors.handler,
      self, unit)
    self.failures[unit.name] = not good and e or nil
    if not good then
      error(e, 0)
    end
    return self.results[unit.name]
  end)
  if not ok and (next(self.failures) == nil or not errors.is(err) or err.code ~= "EUNITS") then
    error(err, 0)
  end
end

--- The way the data goes, which is looked for when something has to go it.
---@async
---@return table route
function Pass:way()
  self.route = self.route or self.engine == mover and self.ahead:found() or self.pair:route(self.look)
  return self.route
end

local function is_known_whole(look)
  for _, name in ipairs(look.from.names) do
    if not (look.known and look.known.units[name]) then
      return false
    end
  end
  return look.known ~= nil
end

-- A person who reads a plan wants to know what is copied, not by what means.
local function getting_ready(pair, fn, ...)
  return effect.part_of(pair.to.place.name, "lock it, and get ready to copy", fn, ...)
end

--- Call `fn`, which prepares what copying needs.
---@async
---@return any ...  what `fn` returns
function Pass:getting_ready(fn, ...)
  return getting_ready(self.pair, fn, ...)
end

--- Write down on the target which units are put there, before any of them is.
---@async
function Pass:note_units()
  if self.kind ~= "back" and (effect.planning() or not is_known_whole(self.look)) then
    record.begin(self.pair.to, self.look.source, self.look.from.names)
  end
end

--- What a unit is called in the journal.
function Pass:key(unit)
  return self.prefix .. unit.name
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

local function set_aside(p, name, what)
  record.set_aside(p.pair.to, name, what)
  if not effect.planning() then
    record.drop_receipt(p.pair, name)
  end
  p.moved_aside = true
end

-- Homes that vanished at the source; before the final pass only those that have become a file there, which needs their name.
local function set_aside_vanished(p)
  local there, from, to = {}, p.look.from, p.look.to
  for _, name in ipairs(from.names) do
    there[name] = not from.loose[name] or to.loose[name]
  end
  for _, name in ipairs(to.names) do
    if not there[name] and p.look.known and p.look.known.units[name] and (p.kind == "final" or from.loose[name]) then
      set_aside(p, name, "home")
    end
  end
end

-- Loose files that have become homes at the source. Only what a pass put there: the rest is for a person to look at.
local function set_aside_files(p)
  local to, known = p.look.to, p.look.known
  for _, unit in ipairs(p.look.survey.units) do
    if to.loose[unit.name] and known and known.units[unit.name] then
      local at = p.pair.to.place:query_sh([[stat -c %.9Z -- "$1/$2"]], p.pair.to.path, unit.name)
      if record.came_in_a_pass(known, tonumber(at) or math.huge) then
        set_aside(p, unit.name, "file")
        to.loose[unit.name] = nil
      end
    end
  end
end

local function sum(p)
  local t = { bytes = 0, files = 0, created = 0, deleted = 0, vanished = 0 }
  for _, row in pairs(p.results) do
    for key in pairs(t) do
      t[key] = t[key] + (row[key] or 0)
    end
  end
  for key, n in pairs(p.totals or {}) do
    t[key] = t[key] + n
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
    number = #p.look.passes + 1, kind = p.kind, began = began, seconds = time.now() - p.clock,
    look = p.looked, scan = s.seconds,
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
  if kind ~= "back" and not (effect.planning() or look.known) then
    must_not_share_lock(pair)
  end
end

local function only_these(list, only, without)
  local kept, later = {}, {}
  for _, name in ipairs(without or {}) do
    later[name] = true
  end
  for _, unit in ipairs(list) do
    if (not only or only[unit.name]) and not later[unit.name] then
      kept[#kept + 1] = unit
    end
  end
  return kept
end

local function new_pass(pair, kind, look)
  local settled, number = kind == "final" or kind == "back", #look.passes + 1
  return setmetatable({
    pair = pair, kind = kind, look = look, settled = settled, results = {}, failures = {}, ours = kind ~= "back", number = number,
    engine = look.engine, prefix = record.prefix(pair, number, kind),
    delete = kind == "final" and (look.known == nil or look.known.empty),
  }, pass_mt)
end

--- Make a pass.
---@async
---@param pair table
---@param kind "bulk"|"converge"|"final"|"back"
---@param o { first?: string[], without?: string[], only?: table<string, true>, begun?: string[] }  begun: units of the way back that an earlier try wrote to
---@return table? pass  number kind seconds scan entries size units bytes files created deleted vanished; nil in a plan
function pass.run(pair, kind, o)
  local clock, began = time.now(), units.timestamp(time.utc())
  local ahead <close> = setmetatable({}, Ahead)
  local look = pass.look(pair, kind ~= "final" and kind ~= "back", not effect.planning() and ahead or nil)
  local looked = time.now() - clock
  getting_ready(pair, prepare, pair, kind, look)
  local list, loose = in_order(look.survey, o.first)
  list, loose = only_these(list, o.only, o.without), only_these({ loose }, o.only)
  local p = new_pass(pair, kind, look)
  p.clock, p.looked, p.begun, p.ahead = clock, looked, o.begun, ahead
  p.meter = meter.new(list, loose, { rate = not p.settled and pair.rate or nil })
  p:getting_ready(p.engine.prepare, p)
  if kind ~= "back" then
    set_aside_vanished(p)
    set_aside_files(p)
  end
  list, loose = without_left(p, list), without_left(p, loose)
  p.engine.carry(p, list, loose)
  p.engine.finish(p)
  if next(p.failures) then
    raise_failures(p.failures, #list + #loose)
  end
  return finish(p, began)
end

return pass
