local core = require "runbook.core.task"
local errors = require "runbook.errors"
local task = require "runbook.task"
local time = require "runbook.core.time"

describe("a task", function()
  it("gives back what its function returned, nils too", function()
    local t = core.spawn(function(a, b) core.sleep(0.001) return a, nil, b end, 1, 2)
    assert.is_nil(t:result())
    core.join_all { t }
    assert.same({ n = 4, true, 1, nil, 2 }, table.pack(t:result()))
    assert.is_true(t:done())
  end)

  it("gives back the error it raised, strings with the trace of where", function()
    local t = core.spawn(function() error "boom" end)
    core.join_all { t }
    local ok, err = t:result()
    assert.is_false(ok)
    assert.matches("boom\nstack traceback:.*task_spec", err)
  end)

  it("closes what it still held when it fails and when it is cancelled", function()
    local closed = 0
    local function hold(then_fail)
      local _ <close> = setmetatable({}, { __close = function() closed = closed + 1 end })
      core.sleep(then_fail and 0.001 or 60)
      error "boom"
    end
    local failing, waiting = core.spawn(hold, true), core.spawn(hold, false)
    core.sleep(0.01)
    waiting:cancel()
    core.join_all { failing, waiting }
    assert.equal(2, closed)
  end)

  it("never waits again once it is cancelled, though its function catches that", function()
    local waits = 0
    local t = core.spawn(function()
      for _ = 1, 3 do
        local ok, err = pcall(core.sleep, 60)
        assert(not ok and errors.is_cancelled(err))
        waits = waits + 1
      end
      return "ended"
    end)
    core.sleep(0)
    t:cancel()
    core.join_all { t }
    assert.same({ true, "ended" }, { t:result() })
    assert.equal(3, waits)
  end)

  it("that joins others and is cancelled cancels them and waits for their end", function()
    local order = {}
    local outer = core.spawn(function()
      local inner = {}
      for i = 1, 3 do
        inner[i] = core.spawn(function()
          local ok = pcall(core.sleep, 60)
          order[#order + 1] = ok
        end)
      end
      core.join_all(inner)
      order[#order + 1] = "joined"
      core.sleep(1)
    end)
    core.sleep(0.01)
    outer:cancel()
    core.join_all { outer }
    assert.same({ false, false, false, "joined" }, order)
    assert.is_false((outer:result()))
  end)

  it("hands its context to its children and gets its own back after an error", function()
    local seen
    local before = core.context()
    pcall(core.with_context, { step = "x" }, function()
      core.join_all { core.spawn(function() seen = core.context().step end) }
      error "boom"
    end)
    assert.equal("x", seen)
    assert.equal(before, core.context())
  end)

  it("is told in words that it cannot wait inside table.sort", function()
    local ok, err = pcall(table.sort, { 3, 2, 1 }, function(a, b) core.sleep(0) return a < b end)
    assert.is_false(ok)
    assert.matches("cannot be made here: not inside table.sort", err)
  end)

  it("that holds the loop for over a second is named with its line", function()
    local seconds, place
    local watcher = core.spawn(function() seconds, place = core.slow_turn() end)
    core.sleep(0)
    local began = time.now()
    while time.now() - began < 1.4 do end -- luacheck: ignore
    core.join_all { watcher }
    assert.is_true(seconds > 1)
    assert.matches("task_spec.lua:%d+", place)
  end)
end)

describe("runbook.task", function()
  it("runs at most `limit` at a time, all of them", function()
    local now, most, done = 0, 0, 0
    task.each({ 1, 2, 3, 4, 5, 6, 7 }, { limit = 3 }, function()
      now = now + 1
      most = math.max(most, now)
      core.sleep(0.002)
      now, done = now - 1, done + 1
    end)
    assert.same({ 3, 7 }, { most, done })
  end)

  it("raises the first failure once the others have ended", function()
    local ended = 0
    local ok, err = pcall(task.each, { 1, 2, 3 }, {}, function(i)
      local _ <close> = setmetatable({}, { __close = function() ended = ended + 1 end })
      core.sleep(i == 2 and 0.001 or 60)
      errors.raise { kind = "exit", message = "number two" }
    end)
    assert.is_false(ok)
    assert.equal("number two", tostring(err))
    assert.equal(3, ended)
  end)

  it("cancels what takes too long, as an error of kind timeout", function()
    local ok, err = pcall(task.timeout, 0.01, "a nap", core.sleep, 60)
    assert.is_false(ok)
    assert.is_true(errors.is(err, "timeout"))
    assert.matches("a nap took longer than 0.01 s", tostring(err))
    assert.equal(5, task.timeout(1, "five", function() return 5 end))
  end)

  it("lets the first of a race decide", function()
    local value, index = task.race { function() core.sleep(60) end, function() core.sleep(0.001) return "b" end }
    assert.same({ "b", 2 }, { value, index })
  end)

  it("passes cancellation of the caller on to all and ends", function()
    local t = core.spawn(function() task.all { function() core.sleep(60) end, function() core.sleep(60) end } end)
    core.sleep(0.005)
    t:cancel()
    core.join_all { t }
    local ok, err = t:result()
    assert.is_false(ok)
    assert.is_true(errors.is_cancelled(err))
  end)
end)
