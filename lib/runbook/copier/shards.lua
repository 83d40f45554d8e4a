--- Shards of work on their way: a job for each, several at a time, and what they answer merged into what is known.

local effect = require "runbook.effect"
local errors = require "runbook.errors"
local far = require "runbook.copier.far"
local faults = require "runbook.copier.faults"
local meter = require "runbook.copier.meter"
local pipe = require "runbook.copier.pipe"
local route = require "runbook.copier.route"
local task = require "runbook.task"
local time = require "runbook.core.time"
local units = require "runbook.units"
local workers = require "runbook.copier.workers"

local shards = {}

-- A shard is what may be lost by a cut, and what one connection carries: some seconds of work at least.
local LEAST_ENTRIES, MOST_ENTRIES = 10000, 30000 -- half a kB of ours for each that is on its way
local LEAST_BYTES, MOST_BYTES = 256 << 20, 64 << 30
local SETTLED_AT_ONCE = 4 -- manifests that are written at a time

-- What a later pass brings, and what lies beside the homes, is mostly less than the names that the look at the source brought. It
-- comes the same way, over connections that are there, and needs no key, no login between the servers, and no job for what takes
-- a blink.
local SMALL_BYTES, SMALL_ENTRIES = 4 << 20, LEAST_ENTRIES

local function sum(list, key)
  local n = 0
  for _, unit in ipairs(list) do
    n = n + unit[key]
  end
  return n
end

local function share(total, pieces, least, most)
  return math.max(least, math.min(most, (total + pieces - 1) // pieces))
end

--- Operations for a shard of these units.
function shards.entries(p, list)
  return share(sum(list, "entries"), p.pair.workers, LEAST_ENTRIES, MOST_ENTRIES)
end

--- Bytes for a shard of these units.
function shards.bytes(p, list)
  return share(sum(list, "bytes"), p.pair.workers, LEAST_BYTES, MOST_BYTES)
end

-- As `stat -f` calls them: each call goes to another machine.
local REMOTE = { nfs = true, fuseblk = true, fuse = true, cifs = true, smb2 = true, ceph = true, lustre = true, v9fs = true,
  afs = true, gpfs = true }
local LANES = 64 -- at least as many as the far side has threads for a file server

--- Shards at a time, at most. A rate is shared by them, so there are no more than there is work for.
---@param p table
---@param list table[]
---@return integer
function shards.width(p, list)
  if p.settled or not p.pair.rate then
    return p.pair.workers
  end
  local n = math.max(sum(list, "entries") / shards.entries(p, list), sum(list, "bytes") / shards.bytes(p, list))
  return math.max(1, math.min(p.pair.workers, math.ceil(n)))
end

--- In how many lanes a shard goes through the tree. On a file server names of one directory wait for each other.
---@param p table
---@return integer
function shards.lanes(p)
  return (REMOTE[p.look.from.file_system] or REMOTE[p.look.to.file_system]) and LANES or 1
end

--- Is so little left that it goes through us?
---@param p table
---@param bytes integer  of all that is to be sent
---@param rest boolean  the homes came before it
---@return boolean
function shards.is_little(p, bytes, rest)
  return (rest or #p.look.passes > 0) and p.pair.route_wanted == nil and bytes <= SMALL_BYTES
end

local function goes_through_us(p, shard)
  return p.little and shard.size <= SMALL_BYTES and shard.entries <= SMALL_ENTRIES
end

--- Make ready what the first shard needs: the program at both ends, and the way between them.
---@async
---@param p table
function shards.open(p)
  if p.opened then
    return
  end
  p.programs = {}
  local two_machines = p:way().kind ~= "local"
  local installed = p.route.kind == "operator" and {} or task.all { -- the operator brings it with each command
    function() return far.install(p.pair.to.place, p.job) end,
    function() return two_machines and far.install(p.pair.from.place, p.job) or nil end,
  }
  p.programs.to, p.programs.from = installed[1], installed[2] or installed[1]
  for _, program in pairs { installed[1], installed[2] } do
    table.insert(p.programs, program)
  end
  p.door = ("%s %s@%s:%s"):format(p.route.kind, p.route.user, p.route.host, p.route.port)
  p.opened = route.open(p.pair, p.route, {
    command = pipe.forced(p), job = p.job, door = p.known.state.doors[p.door], untried = true,
  })
end

--- Key and program are needed no more.
---@async
---@param p table
function shards.close(p)
  local needless = { function() route.close(p.opened or {}) end }
  for _, program in ipairs(p.programs or {}) do
    needless[#needless + 1] = function() program:done() end
  end
  task.all(needless)
end

local function note(p, unit, fault)
  if fault.later and not p.settled then
    return
  end
  p.faults[unit] = faults.worse(p.faults[unit], fault)
end

local REFUSED = {
  ["not ours"] = "somebody else than this copy put it on the target, or changed it there",
  ["not empty"] = "it is gone from the source, and something else was put into it on the target",
  ["unreadable at the source"] = "nobody can see at the source whether it is still there",
  ["in the way"] = "something else stands where it belongs",
}

-- What was not even asked of the far side is not told apart by unit; each unit it may be of is compared afterwards.
local function note_refused(p, shard)
  table.move(shard.refused, 1, #shard.refused, #p.refused + 1, p.refused)
end

local function note_outcome(p, shard, outcome, failure)
  local t = p.totals
  t.bytes, t.files, t.vanished = t.bytes + outcome.bytes, t.files + outcome.files, t.vanished + outcome.vanished
  t.created, t.deleted = t.created + outcome.created, t.deleted + outcome.removed
  for unit, list in pairs(outcome.failures) do
    for _, one in ipairs(list) do
      note(p, unit, faults.of(one))
    end
  end
  if failure then
    p.known.state.doors = {}
    for _, unit in ipairs(shard.units) do
      note(p, unit, failure)
    end
  end
end

local carry = effect.verb {
  name = "sync.carry", class = "change", repeatable = true, inverse = effect.NOT_NEEDED,
  target = function(p) return p.pair.to.place.name end,
  summary = function(_, shard)
    return ("carry %s in %s names of %s"):format(units.size(shard.size), units.count(shard.entries), meter.of_units(shard.units))
  end,
  body = function(p, shard) return pipe.run(p, shard, goes_through_us(p, shard)) end,
}

-- One shard from start to end. Only a cancelling is raised; all else is a fault of its units.
local function run_one(p, shard)
  p.meter:begin(shard)
  local ok, outcome, failure = xpcall(carry, errors.handler, p, shard)
  p.meter:done_with(shard)
  if not ok and errors.is_cancelled(outcome) then
    error(outcome, 0)
  elseif not ok then
    for _, unit in ipairs(shard.units) do
      note(p, unit, faults.of_shard(errors.from(outcome)))
    end
    return
  end
  note_outcome(p, shard, outcome, failure)
end

-- What is on its way: which units still have shards that have not ended, and which are told whole.
local Course = {}
Course.__index = Course

local function course(p, work, list, on_settled)
  local c = setmetatable({ p = p, work = work, list = list, on_settled = on_settled, open = {}, had = {}, place = {}, told = 0, settled = 0,
    tasks = {} }, Course)
  for i, unit in ipairs(list) do
    c.place[unit.name] = i
  end
  return c
end

function Course:next()
  if self.ended then
    return nil
  end
  local shard = errors.check(self.p.pair.id, "make work", effect.own(self.work.next, self.work))
  if not shard then
    self.ended, self.told = true, #self.list
    return nil
  end
  note_refused(self.p, shard)
  for _, unit in ipairs(shard.units) do
    self.open[unit] = (self.open[unit] or 0) + 1
    self.had[unit] = true
    self.told = math.max(self.told, self.place[unit] - 1)
  end
  return shard
end

-- Units are settled in order, each as soon as all its shards have ended.
function Course:settle()
  local settled, had = {}, {}
  while self.settled < self.told and (self.open[self.list[self.settled + 1].name] or 0) == 0 do
    self.settled = self.settled + 1
    local unit = self.list[self.settled]
    settled[#settled + 1], had[#had + 1] = unit, self.had[unit.name] and unit or nil
  end
  task.each(had, { limit = SETTLED_AT_ONCE }, function(unit)
    self.p.known:settle(self.work, unit.name)
  end)
  if #settled > 0 then
    self.on_settled(settled)
  end
end

function Course:reap()
  for i = #self.tasks, 1, -1 do
    local one = self.tasks[i]
    if one.task:done() then
      table.remove(self.tasks, i)
      local ok, err = task.join(one.task)
      if not ok then
        error(err, 0)
      end
      for _, unit in ipairs(one.shard.units) do
        self.open[unit] = self.open[unit] - 1
      end
    end
  end
end

function Course:start(shard)
  if shard.entries == 0 then
    for _, unit in ipairs(shard.units) do
      self.open[unit] = self.open[unit] - 1
    end
    return
  end
  self.p.begin_writing(self.p)
  if not goes_through_us(self.p, shard) then
    shards.open(self.p)
  end
  table.insert(self.tasks, { shard = shard, task = task.spawn(run_one, self.p, shard) })
end

-- More or fewer at a time, from what they bring.
function Course:find_width(waiting)
  local p = self.p
  p.workers:tell {
    now = time.now(), done = p.meter:weight(), running = #self.tasks, waiting = waiting, stat = not p.settled and p.meter.stat or nil,
  }
  p.pair.width = not p.workers.fixed and p.workers.width or nil
end

function Course:may_start(shard)
  return #self.tasks < self.p.workers.width and (not shard.after or self.open[shard.after] == 1)
end

Course.__close = function(self)
  for _, one in ipairs(self.tasks) do
    one.task:cancel()
  end
  for _, one in ipairs(self.tasks) do
    task.join(one.task)
  end
end

-- Who was refused something: found by comparing, as refusals are counted for a shard.
local function explain_refusals(p, list)
  if #p.refused == 0 then
    return
  end
  for _, unit in ipairs(list) do
    local c = p.known:compare(unit.name)
    local left = p.delete and c.extra_ours or 0
    if not p.faults[unit.name] and c.missing + c.different + left > 0 then
      local r = p.refused[1]
      p.faults[unit.name] = {
        kind = "conflict", text = REFUSED[r.kind] or r.kind, count = r.count, examples = r.examples, again = false,
        hint = "look at it on the target; move it away there, and `runbook resume`",
      }
    end
  end
end

--- Run all work, several shards at a time; faults are left in `p.faults` by unit.
---@async
---@param p table
---@param work runbook.core.manifest.work
---@param list table[]  the units, in order
---@param on_settled async fun(units: table[])
function shards.run(p, work, list, on_settled)
  p.refused, p.width = {}, shards.width(p, list)
  local rated = p.pair.rate and not p.settled -- each has its share of the rate
  p.workers = workers.new {
    most = p.most_workers or p.width, width = p.pair.width, fixed = rated, quiet = p.pair.quiet ~= math.huge and p.pair.quiet or nil,
    near = shards.lanes(p) == 1,
  }
  p.meter.workers = p.workers
  local later = {} -- who may have been refused something
  local c <close> = course(p, work, list, function(settled)
    if #p.refused == 0 then
      on_settled(settled)
    else
      table.move(settled, 1, #settled, #later + 1, later)
    end
  end)
  local shard, pause = c:next(), 0.005
  while shard or #c.tasks > 0 do
    local before = #c.tasks
    c:reap()
    c:settle()
    c:find_width(shard ~= nil)
    if shard and c:may_start(shard) then
      c:start(shard)
      shard, pause = c:next(), 0.005
    elseif #c.tasks == before then
      task.sleep(pause)
      pause = math.min(0.1, pause * 1.5)
    end
  end
  c:settle()
  explain_refusals(p, later)
  on_settled(later)
end

return shards
