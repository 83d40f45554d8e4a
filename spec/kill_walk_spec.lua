-- A run is killed at every point of it (src/point.h: around each commit, around each remote change), then resumed, or rolled
-- back. Each time both servers, what runs there, the results of the steps and the exit code have to be what an undisturbed
-- run leaves, or for a rollback what was there before.

local journal = require "runbook.journal"
local source = require "spec.support.walk_book"
local task = require "runbook.task"
local walk = require "spec.support.walk"
local world = require "spec.world"

local SIDE_BY_SIDE = 4 -- most of a walk is waiting

---@class Walker
---@field pair walk.Pair
---@field book string
---@field directory string  of the present walk
local Walker = {}
Walker.__index = Walker

local before, after, results, points -- of the undisturbed run

local function walker(name)
  local pair = walk.pair(name)
  local directory = world.folder "walk"
  return setmetatable({ pair = pair, home = directory, book = pair:write(directory, source) }, Walker)
end

-- Names differ from pair to pair; what is compared must not.
local function same_names(text)
  return (text:gsub("%f[%w](%l%l%l)%-%d%f[%W]", "%1"))
end

function Walker:state()
  return same_names(self.pair:state())
end

function Walker:begin()
  self.pair:reset()
  self.walks = (self.walks or 0) + 1
  self.directory = ("%s/%d"):format(self.home, self.walks)
  self.said, self.name = {}, "walk-1"
end

function Walker:note(what, code, output)
  table.insert(self.said, ("$ %s: %d\n%s"):format(what, code, output))
  return code, output
end

function Walker:tell()
  return table.concat(self.said, "\n")
end

--- One command of runbook on this walk's state directory.
function Walker:command(verb, ...)
  return self:note(verb, walk.sh(world.runbook, verb, "--state", self.directory, ...))
end

local ANSWERS = { "--no-input", "--done", "call=ann" }

--- A command that is killed at its point `n` (0: not), or for which a shell line is run there.
function Walker:killed_at(n, verb, ...)
  local argv = { world.build .. "/world/points", self.directory .. ".names", tostring(n) }
  if self.shell then
    table.move({ "-x", self.shell }, 1, 2, #argv + 1, argv)
  end
  local given = { world.runbook, verb, "--state", self.directory, ... }
  table.move(given, 1, #given, #argv + 1, argv)
  return self:note(("%s, to point %d"):format(verb, n), walk.sh(table.unpack(argv)))
end

function Walker:run(n)
  return self:killed_at(n, "run", self.book, table.unpack(ANSWERS))
end

function Walker:names()
  local names = {}
  for name in (world.read(self.directory .. ".names") or ""):gmatch "[^\n]+" do
    names[#names + 1] = name
  end
  return names
end

-- Killed before its journal was there, a run has never been: it is started again.
function Walker:resume(...)
  local code, output = self:command("resume", self.name, ...)
  if code == 66 then
    assert.is_truthy(output:find "no run is called walk%-1" or output:find "before it began", output)
    self.name = world.read(self.directory .. "/runs/walk-1/journal.db") and "walk-2" or "walk-1"
    code, output = self:run(0)
  end
  return code, output
end

--- Resume until it is done, answering as a person would who has looked.
function Walker:finish()
  local code, output
  for _ = 1, 4 do
    self.pair:settle()
    local step = output and output:match "%-%-again ([%w_-]+)"
    if step then
      code, output = self:resume("--again", step, table.unpack(ANSWERS))
    else
      code, output = self:resume(table.unpack(ANSWERS))
    end
    if code ~= 5 and code ~= 1 then
      return code
    end
  end
  return code
end

function Walker:roll_back()
  local code
  for _ = 1, 3 do
    self.pair:settle()
    code = self:command("rollback", self.name)
    if code ~= 4 then
      return code
    end
  end
  return code
end

local END_STATES = {
  run = { done = true, ["rolled-back"] = true },
  effect = { done = true, undone = true, failed = true, unknown = true },
  obligation = { met = true, waived = true },
  unit = { done = true, running = "rolled-back" }, -- a rollback undoes what units did and leaves them as they were
  job = { done = true, stopped = true, settled = true, never = true, lost = "rolled-back" },
  step = { done = true, undone = true, pending = true },
}

--- The results of the steps, once the journal was found in order.
function Walker:results()
  local j = journal.open(("%s/runs/%s/journal.db"):format(self.directory, self.name))
  local found = {}
  for kind, allowed in pairs(END_STATES) do
    for id, state in pairs(j.states[kind]) do
      local so = allowed[state]
      assert.is_true(so == true or so ~= nil and so == j.states.run.run, ("%s %s is %s\n%s"):format(kind, id, state, self:tell()))
    end
  end
  for _, row in ipairs(j:query "SELECT id, state, result FROM step ORDER BY id") do
    local result = (row.result or ""):gsub('"at":"[^"]*"', '"at":"then"')
    found[#found + 1] = ("%s %s %s"):format(row.id, row.state, result)
  end
  assert.same({ { integrity_check = "ok" } }, j:query "PRAGMA integrity_check")
  j:close()
  return same_names(table.concat(found, "\n"))
end

function Walker:assert_as_undisturbed(what, code)
  assert.equal(0, code, what .. "\n" .. self:tell())
  assert.equal("", walk.difference(after, self:state()), what .. "\n" .. self:tell())
  assert.equal(results, self:results(), what)
end

function Walker:assert_as_before(what, code)
  assert.is_true(code == 0 or code == 66, what .. "\n" .. self:tell()) -- 66: it had not begun
  assert.equal("", walk.difference(before, self:state()), what .. "\n" .. self:tell())
  if code ~= 66 then
    self:results()
  end
end

local walkers

-- Call `fn(walker, n)` for every number of a list, or for those a function gives, as many at a time as there are pairs of servers.
local function side_by_side(numbers, fn)
  local at, previous = 0, nil
  local function next_number()
    at = at + 1
    if type(numbers) == "table" then
      return numbers[at]
    end
    previous = numbers(previous or 0)
    return previous
  end
  local fns = {}
  for i, one in ipairs(walkers) do
    fns[i] = function()
      for n in next_number do
        fn(one, n)
      end
    end
  end
  task.all(fns)
end

-- Kill a run at every point of it, or at every `stride`th, and call `fn(walker, n, what)` each time: as many walks side by side
-- as there are pairs of servers. How many points there are differs a little from run to run, for units run side by side and
-- commits are grouped; the walk is over when a run has ended before its point came.
local function at_every_point(stride, fn)
  local last
  local function next_point(n)
    return last == nil and (n == 0 and 1 or n + stride) or nil
  end
  side_by_side(next_point, function(one, n)
    one:begin()
    local code = one:run(n)
    if code == 137 then
      fn(one, n, ("point %d, %s"):format(n, one:names()[n]))
    else
      assert.equal(0, code, one:tell())
      last = math.min(last or n, n) -- others were on their way past it
    end
  end)
  assert.is_true(last > #points - 6 and last < #points + 6 + stride, ("the last point was %d"):format(last))
end

describe("a run between two servers", function()
  setup(function()
    walkers = {}
    for i = 1, SIDE_BY_SIDE do
      walkers[i] = walker("-" .. i)
    end
  end)

  it("reaches points around every commit and every remote change, when nobody disturbs it", function()
    local one = walkers[1]
    one:begin()
    before = one:state()
    assert.equal(0, (one:run(0)), one:tell())
    after, results, points = one:state(), one:results(), one:names()
    local counts = {}
    for _, name in ipairs(points) do
      counts[name] = (counts[name] or 0) + 1
    end
    assert.equal(counts.commit, counts.committed)
    assert.equal(counts.sent, counts.answered)
    assert.is_true(counts.commit >= 40 and counts.sent >= 15, one:tell())
    assert.not_equal(before, after)
    -- a second pair of servers gives the same
    walkers[2]:begin()
    assert.equal(before, walkers[2]:state())
    assert.equal(0, (walkers[2]:run(0)), walkers[2]:tell())
    walkers[2]:assert_as_undisturbed("undisturbed", 0)
  end)

  it("goes back to what was there before", function()
    local one = walkers[1]
    assert.equal(0, (one:command("rollback", "walk-1")), one:tell())
    one:assert_as_before("undisturbed", 0)
  end)

  it("goes on from every point where it is killed, and ends the same", function()
    at_every_point(1, function(one, _, what)
      one:assert_as_undisturbed(what, one:finish())
    end)
  end)

  it("goes on also when what goes on is killed", function()
    at_every_point(17, function(one, n, what)
      one.pair:settle()
      one:killed_at(n * 3 % 31 + 1, "resume", one.name, table.unpack(ANSWERS))
      one:assert_as_undisturbed(what .. ", and again", one:finish())
    end)
  end)

  it("goes back from every point where it is killed, also when that is killed too", function()
    at_every_point(1, function(one, n, what)
      if n % 2 == 0 then
        one.pair:settle()
        one:killed_at(n * 5 % 31 + 1, "rollback", one.name)
      end
      one:assert_as_before(what, one:roll_back())
    end)
  end)

  -- The far half of a connection is killed instead of us, while a change is under way.
  it("goes on when the servers' side of every connection is killed at a remote change", function()
    local sent = {}
    for n, name in ipairs(points) do
      sent[#sent + 1] = name == "sent" and n or nil
    end
    side_by_side(sent, function(one, n)
      one:begin()
      one.shell = one.pair:drop_connections()
      local code = one:run(n)
      one.shell = nil
      assert.is_true(code == 0 or code == 1, one:tell())
      if code == 1 then
        assert.matches("lost", one.said[#one.said])
        code = one:finish()
      end
      one:assert_as_undisturbed("connections killed at point " .. n, code)
    end)
  end)

  it("says when a job was killed with its supervisor, and does its step again", function()
    local one = walkers[1]
    for _, what in ipairs { "the job", "its supervisor", "both" } do
      one:begin()
      one.pair.new:must "touch /srv/hold" -- the job does not end before this is gone
      local running = task.spawn(function() return one:run(0) end)
      local job, supervisor = "sh -c echo begun;", "runbook-job"
      world.wait_until("the job", function()
        local names = walk.processes(one.pair.new)
        return names:find("\n" .. job, 1, true) and names:find(supervisor, 1, true)
      end)
      local killed = 0
      for _, process in ipairs(one.pair.new:processes()) do
        local is_supervisor = process.command:find(supervisor, 1, true) ~= nil
        local is_job = not is_supervisor and process.command:find(job, 1, true) == 1
        if is_supervisor and what ~= "the job" or is_job and what ~= "its supervisor" then
          local _, failed = one.pair.new:sh(("kill -KILL %d"):format(process.pid))
          killed = killed + (failed == 0 and 1 or 0) -- one of both may end when the other does
        end
      end
      one.pair.new:must "rm /srv/hold"
      assert.is_true(killed > 0, what)
      local ok, code, output = task.join(running)
      assert.is_true(ok)
      if what == "its supervisor" then -- the job itself goes on, but nobody keeps how it ends
        assert.matches("nobody knows how the job", output)
      end
      assert.equal(1, code, what .. "\n" .. output)
      one:assert_as_undisturbed(what, one:finish())
    end
  end)
end)
