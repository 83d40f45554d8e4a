local effect = require "runbook.effect"
local errors = require "runbook.errors"
local runs = require "spec.support.runs"
local store = require "runbook.store"
local task = require "runbook.core.task"
local world = runs.world

local function load_error(source, o) -- the error of a file that must not load
  local ok, err = pcall(runs.load, source, o)
  assert.is_false(ok)
  return errors.from(err)
end

-- A second connection to the journal of toys-1.
local function in_journal(fn)
  return effect.own(function()
    local db <close> = assert(require("runbook.core.sqlite").open(store.root() .. "/runs/toys-1/journal.db", { busy_timeout = 5 }))
    return assert(fn(db))
  end)
end

before_each(runs.fresh)
after_each(runs.clean)

describe("a runbook that loads", function()
  it("refuses effects, double ids, nothing at all, and a step inside a body", function()
    assert.matches("while the file loads", tostring(load_error 'toy.make "a"'))
    assert.matches("toys.lua:4: step `a` is declared already, at line 3",
      tostring(load_error 'rb.step("a", "A", function() end)\nrb.step("a", "B", function() end)'))
    assert.matches("declares no step", tostring(load_error ""))
    assert.matches("letters, digits", tostring(load_error 'rb.step("a b", "A", function() end)'))
    assert.matches("did you mean `guard`", tostring(load_error 'rb.step("a", "A", { gaurd = print }, function() end)'))
    local code, seen = runs.start 'rb.step("a", "A", function() rb.step("b", "B", function() end) end)'
    assert.equal(1, code)
    assert.matches("declarations stand at the top", runs.only(seen, "step-end")[1].error.message)
  end)

  it("names what is wrong with Lua in it as usage, with the line", function()
    local err = load_error "local x = nil\nprint(x.y)"
    assert.equal("usage", err.kind)
    assert.matches("toys.lua:4:", tostring(err))
  end)
end)

describe("a run", function()
  it("does its steps in order and keeps what they return", function()
    local code, seen = runs.start [[
      local a = rb.step("a", "First", function() return { n = 1, list = { "x" } } end)
      rb.section "Later"
      rb.step("b", "Second", function() toy.make(a().list[1]) return a().n + 1 end)
      rb.step("c", "Third", { when = function() return false end }, function() toy.make "never" end)
      rb.step("d", "Fourth", { check = function() return true end }, function() toy.make "never" end)
    ]]
    assert.equal(0, code)
    assert.same({ a = "done", b = "done", c = "skipped", d = "already" }, runs.outcomes(seen))
    assert.same({ x = 1 }, world.made)
    local run_end = runs.only(seen, "run-end")[1]
    assert.same({ "done", 0 }, { run_end.state, run_end.exit })
    assert.equal("toys-1", run_end.run)
    assert.equal("done", store.get("toys-1").state)
  end)

  it("writes down a change before it is made", function()
    local journal_at_effect
    world.hold = function()
      journal_at_effect = in_journal(function(db)
        return db:records "SELECT state, summary, by_hand, inverse FROM effect"
      end)
    end
    assert.equal(0, (runs.start 'rb.step("a", "A", function() toy.make "x" end)'))
    assert.same({ { state = "intended", summary = "make x", by_hand = "make x by hand", inverse = [=[["toy.unmake","x"]]=] } }, journal_at_effect)
  end)

  it("stops at a failure with 1, and resume does only what is left", function()
    local source = [[
      rb.step("a", "A", function() toy.make "a" end)
      rb.step("b", "B", function() toy.make "b" end)
      rb.step("c", "C", function() toy.make "c" end)
    ]]
    world.fail.b = "exit"
    local code, seen = runs.start(source)
    assert.equal(1, code)
    local failed = runs.only(seen, "step-end")[2]
    assert.same({ "failed", "exit", "b will not be made" }, { failed.outcome, failed.error.kind, failed.error.message })
    assert.equal("runbook resume toys-1", runs.only(seen, "run-end")[1].next)
    world.fail.b = nil
    code = runs.resume()
    assert.equal(0, code)
    assert.same({ a = 1, b = 1, c = 1 }, world.made)
  end)

  it("takes a change that was cut off for unknown: asks, and --again answers", function()
    local source = 'rb.step("a", "A", function() toy.make "a" end)'
    world.fail.a = "lost"
    assert.equal(1, (runs.start(source)))
    world.fail.a = nil
    local code, seen = runs.resume()
    assert.equal(5, code)
    assert.matches("nobody knows whether this happened: make a", runs.only(seen, "notice")[1].text)
    assert.matches("--again a", runs.only(seen, "run-end")[1].text)
    assert.is_nil(world.made.a)
    assert.equal(0, (runs.resume { again = { "a" } }))
    assert.equal(1, world.made.a)
  end)

  it("says of a mistake in Lua where it is, in the runbook and in what that called", function()
    world.hold = function(name)
      local nothing = world.nothing
      return nothing[name]
    end
    for _, body in ipairs { 'toy.make "a"', 'rb.each({ "u" }, function() toy.make "a" end)' } do
      local _, seen = runs.start(([[
        rb.step("a", "A", function()
          %s
        end)
      ]]):format(body))
      local err = runs.only(seen, "step-end")[1].error
      err = err.cause or err
      assert.matches("run_spec.lua:%d+: attempt to index a nil value", err.message)
      assert.matches("run_spec.lua:%d+: in .*support/runs.lua:%d+: in .*session.lua:%d+: in .*toys.lua:4: in", err.trace)
    end
  end)

  it("runs a step with only repeatable changes again without asking", function()
    world.fail.b = "lost"
    assert.equal(1, (runs.start 'rb.step("a", "A", function() toy.again "a" toy.again "a" error { } end)'))
    assert.equal(2, world.made.a)
    runs.resume()
    assert.equal(4, world.made.a)
  end)

  it("holds a guard before it asks, and can be overruled once, on the record", function()
    local source = [[
      local errors = require "runbook.errors"
      rb.step("a", "A", { guard = function() errors.raise { kind = "conflict", message = "too late" } end, disrupts = "all" },
        function() toy.make "a" end)
    ]]
    local code, seen = runs.start(source)
    assert.equal(1, code)
    assert.equal(0, #runs.only(seen, "question"))
    code, seen = runs.resume { overrule = { { id = "a", reason = "agreed" } } }
    assert.equal(5, code)
    assert.matches("needs input: %-%-confirm a=toys", runs.only(seen, "run-end")[1].text)
    assert.equal(0, (runs.resume { overrule = { { id = "a", reason = "agreed" } }, confirm = { a = "toys" } }))
    assert.equal(1, world.made.a)
    local ok, err = pcall(runs.start, source, { confirm = { b = "toys" } })
    assert.is_false(ok)
    assert.matches("--confirm b: no step is called that", tostring(err))
  end)

  it("refuses a change in a guard, and --yes-like words that are not the name", function()
    assert.equal(1, (runs.start 'rb.step("a", "A", { guard = function() toy.make "x" end }, function() end)'))
    assert.is_nil(world.made.x)
    assert.equal(1, (runs.start('rb.step("a", "A", { disrupts = "all" }, function() toy.make "a" end)', { confirm = { a = "yes" } })))
    assert.is_nil(world.made.a)
  end)

  it("ends at a manual step and at a pause with 5, and goes on when they are answered", function()
    local source = [[
      rb.manual("call", "Call them", { text = "by phone" })
      rb.pause("ready", "Until tomorrow")
      local w = rb.manual("who", "Who was it")
      rb.step("end", "End", function() toy.make(w().who) end)
    ]]
    local code, seen = runs.start(source)
    assert.equal(5, code)
    assert.matches("needs input: %-%-done call=WHO", runs.only(seen, "run-end")[1].text)
    assert.equal(5, (runs.resume { done = { call = "ann" } })) -- now it stands at the pause
    code, seen = runs.resume {}
    assert.equal(5, code)
    assert.matches("%-%-done who=WHO", runs.only(seen, "run-end")[1].text)
    assert.equal(0, (runs.resume { done = { who = "bob" } }))
    assert.same({ bob = 1 }, world.made)
  end)

  it("repeats in the command that goes on what this wants to hear", function()
    local function next_of(source)
      return runs.only(select(2, runs.start(source)), "run-end")[1].next
    end
    assert.equal("runbook resume toys-1 --confirm a=toys", next_of 'rb.step("a", "A", { disrupts = "all" }, function() end)')
    assert.equal("runbook resume toys-2 --done call=WHO", next_of 'rb.manual("call", "Call them")')
    assert.equal("runbook resume toys-3", next_of 'rb.pause("wait", "Wait")')
    world.fail.a = "lost"
    runs.start 'rb.step("a", "A", function() toy.make "a" end)'
    assert.equal("runbook resume toys-4 --again a", runs.only(select(2, runs.resume { name = "toys-4" }), "run-end")[1].next)
  end)

  it("stops a pause until its time has come", function()
    local soon = os.date("!%Y-%m-%dT%H:%M:%SZ", os.time() + 3600)
    assert.equal(5, (runs.start(('rb.pause("p", "P", { starts = %q })'):format(soon))))
    assert.equal(5, (runs.resume()))
    local past = os.date("!%Y-%m-%dT%H:%M:%SZ", os.time() - 3600)
    assert.equal(0, (runs.start(('rb.pause("p", "P", { starts = %q })'):format(past), { file = "past" })))
  end)

  it("runs every check at every start, shows all findings, and stops for what is raised", function()
    local source = [[
      local errors = require "runbook.errors"
      rb.checks("look", "Look", {
        { "good", function() end },
        { "odd", function() return "one thing to know" end },
        { "bad", function() if toy.count "fixed" == 0 then errors.raise { kind = "full", message = "no room" } end end },
        { "worse", function() if toy.count "fixed" == 0 then error "no luck" end end },
      })
      rb.step("a", "A", function() toy.make "a" end)
    ]]
    local code, seen = runs.start(source)
    assert.equal(1, code)
    assert.equal(4, #runs.only(seen, "check"))
    local message = runs.only(seen, "step-end")[1].error.message
    assert.matches("2 of 4 checks stop the run\n  bad: no room\n  worse: .*no luck", message)
    world.made.fixed = 1
    code, seen = runs.resume()
    assert.equal(0, code)
    assert.equal(4, #runs.only(seen, "check"))
  end)

  it("collects the failures of units and resumes only those", function()
    local source = [[
      rb.step("homes", "Homes", function()
        rb.each({ "a", "b", "c", "d" }, { limit = 2 }, function(name)
          toy.again(name)
          if toy.count(name .. "-ok") == 0 then error(name .. " is broken") end
        end)
      end)
    ]]
    world.made["a-ok"], world.made["c-ok"] = 1, 1
    local code, seen = runs.start(source)
    assert.equal(1, code)
    assert.matches("2 of 4 failed, 2 are done and stay done\n  b: .*b is broken", runs.only(seen, "step-end")[1].error.message)
    world.made["b-ok"] = 1
    assert.equal(1, (runs.resume()))
    assert.same({ 1, 2, 1, 2 }, { world.made.a, world.made.b, world.made.c, world.made.d })
    assert.equal(0, (runs.resume { leave = { { unit = "d", reason = "gone" } } }))
    assert.same({ 1, 2, 1, 2 }, { world.made.a, world.made.b, world.made.c, world.made.d })
  end)

  it("refuses units of one name and results that cannot be kept", function()
    local _, seen = runs.start 'rb.step("a", "A", function() rb.each({ "x", "x" }, function() end) end)'
    assert.matches("two items are called `x`", runs.only(seen, "step-end")[1].error.message)
    _, seen = runs.start('rb.step("a", "A", function() return { f = print } end)', { file = "other" })
    assert.matches("the result of step `a`.f: a function cannot be kept", runs.only(seen, "step-end")[1].error.message)
  end)

  it("does a step again when its outcome is older than `fresh`, or when asked, and says what has changed", function()
    local source = [[
      rb.step("a", "A", { fresh = %q }, function() toy.again "a" end)
      rb.step("b", "B", function() toy.again "b" %s end)
      rb.step("c", "C", function() if toy.count "c" == 0 then error "c" end end)
    ]]
    runs.start(source:format("0s", ""))
    runs.write(source:format("0s", "print(1)"))
    local _, seen = runs.resume()
    assert.same({ 2, 1 }, { world.made.a, world.made.b })
    assert.matches("changed since they ran, and kept as they are: b", runs.only(seen, "notice")[1].text)
    runs.resume { again = { "b" } }
    assert.same({ 3, 2 }, { world.made.a, world.made.b })
  end)

  it("goes only as far, only from, or only where it is told", function()
    local source = [[
      rb.step("a", "A", function() toy.again "a" end)
      rb.step("b", "B", function() toy.again "b" end)
      rb.step("c", "C", function() toy.again "c" end)
    ]]
    assert.equal(0, (runs.start(source, { until_ = "a" })))
    assert.same({ a = 1 }, world.made)
    assert.equal(0, (runs.resume { only = "c" }))
    assert.same({ a = 1, c = 1 }, world.made)
    assert.equal(0, (runs.resume { skip = { { id = "b", reason = "not here" } } }))
    assert.same({ a = 1, c = 1 }, world.made)
    assert.equal("done", store.get("toys-1").state)
  end)

  it("is cancelled by a stop, keeps what was done, and ends with 130", function()
    local run = require "runbook.run"
    world.hold = function(name)
      if name == "b" then
        run.request_stop "INT"
        task.sleep(60)
      end
    end
    local source = 'rb.step("a", "A", function() toy.make "a" end)\nrb.step("b", "B", function() toy.make "b" end)'
    local code, seen = runs.start(source)
    assert.equal(130, code)
    assert.same({ a = "done", b = "stopped" }, runs.outcomes(seen))
    assert.equal("stopped", store.get("toys-1").state)
    world.hold = nil
    assert.equal(5, (runs.resume())) -- b was cut off in the middle of its change
    assert.equal(0, (runs.resume { again = { "b" } }))
  end)

  it("ends at its deadline with 124, and a step at its timeout as a failure", function()
    world.hold = function() task.sleep(60) end
    assert.equal(124, (runs.start('rb.step("a", "A", function() toy.make "a" end)', { deadline = 0.05 })))
    local code, seen = runs.start('rb.step("a", "Slow", { timeout = 0.05 }, function() toy.make "a" end)', { file = "slow" })
    assert.equal(1, code)
    local failed = runs.only(seen, "step-end")[1].error
    assert.same({ "timeout", "Slow took longer than 0.05 s" }, { failed.kind, failed.message })
  end)

  it("can be told that a step is done", function()
    local run = require "runbook.run"
    world.fail.a = "exit"
    runs.start 'rb.step("a", "A", function() toy.make "a" end)\nrb.step("b", "B", function() toy.make "b" end)'
    assert.equal(0, run.mark(nil, "a", { state = "done", reason = "by hand" }))
    assert.equal(0, (runs.resume()))
    assert.same({ b = 1 }, world.made)
  end)

  it("is worked on by one process at a time", function()
    world.fail.a = "exit"
    runs.start 'rb.step("a", "A", function() toy.make "a" end)'
    local lock <close> = store.lock("toys-1") -- luacheck: ignore lock
    local ok, err = pcall(runs.resume)
    assert.is_false(ok)
    assert.matches("process %d+ on %S+ has been working on this run for 0 min", tostring(err))
    assert.equal(75, require("runbook.failure").exit_code(err))
  end)

  it("is passed over by a bare resume when it changed nothing and a newer one would do the same", function()
    local reads = 'rb.step("a", "A", function() if toy.count "x" == 0 then error "no" end end)'
    local function open()
      local names = {}
      for i, row in ipairs(store.open_runs()) do
        names[i] = row.name
      end
      table.sort(names)
      return table.concat(names, " ")
    end
    runs.start(reads)
    runs.start(reads)
    assert.equal("toys-2", open())
    assert.equal("toys-2", store.list()[2].passed_over)
    world.made.x = 1
    assert.equal(0, (runs.resume())) -- toys-2, without a name
    assert.equal("", open())
    assert.equal(0, (runs.resume { name = "toys-1" })) -- it can still be named
    -- What changed something, waits, was told something, or has other parameters, is open whatever is newer.
    world.fail.b = "exit"
    runs.start('rb.step("a", "A", function() toy.make "a" end) rb.step("b", "B", function() toy.make "b" end)', { file = "change" })
    runs.start('rb.step("a", "A", function() error "no" end)', { file = "change" })
    assert.equal("change-1 change-2", open())
    local ok, err = pcall(runs.resume)
    assert.is_false(ok)
    assert.matches("several runs are open; say which", tostring(err))
    runs.start('rb.manual("call", "Call them")', { file = "wait" })
    runs.start(reads .. ' rb.manual("call", "Call them")', { file = "wait" })
    local fails = 'rb.step("a", "A", function() error "no" end) rb.step("b", "B", function() error "no" end)'
    runs.start(fails, { file = "said", skip = { { id = "a", reason = "not here" } } })
    runs.start(fails, { file = "said" })
    local declares = 'local p = rb.params { { "n", "integer", "a number" } } rb.step("a", "A", function() error(p.n) end)'
    for _, n in ipairs { 1, 2, 2 } do
      runs.start(declares, { file = "given", sets = { "n=" .. n } })
    end
    assert.equal("change-1 change-2 given-1 given-3 said-1 said-2 wait-1 wait-2", open())
  end)

  it("refuses the journal of a newer version and a changed place", function()
    world.fail.a = "exit"
    runs.start 'rb.step("a", "A", function() toy.make "a" end)'
    in_journal(function(db) return db:run { "UPDATE meta SET value = 99 WHERE key = 'schema'" } end)
    local ok, err = pcall(runs.resume, { name = "toys-1" })
    assert.is_false(ok)
    assert.matches("a journal of schema 99; this runbook reads 1", tostring(err))
  end)
end)

describe("a runbook of several files", function()
  it("takes another file's steps as a group, and libraries beside it, both under the same rules", function()
    local path = runs.write([[
      local help = require "help"
      rb.step("first", "First", function() toy.make(help.name "x") end)
      rb.include("part.lua", "part")
      rb.step("last", "Last", function() toy.make "z" end)
    ]])
    runs.write('return { name = function(n) return "the-" .. n end }', "help")
    runs.write('local a = rb.step("a", "A", function() return "y" end)\nrb.step("b", "B", function() toy.make(a()) end)', "part")
    local code, seen = runs.start_path(path)
    assert.equal(0, code)
    assert.same({ ["the-x"] = 1, y = 1, z = 1 }, world.made)
    assert.same({ first = "done", ["part/a"] = "done", ["part/b"] = "done", last = "done" }, runs.outcomes(seen))
    runs.write("oops()", "help")
    assert.matches("help.lua: 1 thing to fix\n  line 3  unknown global `oops`",
      tostring(errors.from(select(2, pcall(require("runbook.book").load, path)))))
  end)

  it("cannot reach the C modules or the disk around the gate", function()
    assert.matches("no library `runbook.core.process`", tostring(load_error 'require "runbook.core.process"'))
    assert.matches("`io` is not for runbooks", tostring(load_error 'io.open "x"'))
  end)
end)

describe("rb.attach", function()
  it("keeps data with the run and writes it for people, without secrets", function()
    require("runbook.redaction").add("token", "hunter2hunter2")
    local to = runs.directory .. "/out.json"
    local source = ('rb.step("a", "A", function() rb.attach({ b = { 1, 2 }, a = "hunter2hunter2" }, %q) end)'):format(to)
    assert.equal(0, (runs.start(source)))
    local text = io.open(to):read "a"
    assert.matches('"a": "«secret:token»"', text)
    assert.equal(text, io.open(store.root() .. "/runs/toys-1/out/out.json"):read "a")
  end)
end)

describe("an obligation", function()
  local source = [[
    local bin = rb.obligation("spec-bin", function(o) toy.unmake(o.name) end)
    rb.step("a", "A", function()
      bin:owe { name = "rubbish" }
      toy.make "rubbish"
      if toy.count "ok" == 0 then error "no" end
    end)
  ]]

  it("is met at the end of its step, however that ends", function()
    assert.equal(1, (runs.start(source)))
    assert.is_nil(world.made.rubbish)
    assert.same({}, store.get("toys-1").owes)
  end)

  it("that cannot be met stays owed, is said, and is tried again by resume and sweep", function()
    world.fail.unrubbish = "exit"
    local _, seen = runs.start(source)
    assert.equal(1, world.made.rubbish)
    assert.matches("could not clean up yet %(spec%-bin%): rubbish will not be unmade", runs.only(seen, "notice")[1].text)
    assert.equal(1, #store.get("toys-1").owes)
    assert.equal(4, require("runbook.run").sweep {})
    world.fail.unrubbish = nil
    assert.equal(0, require("runbook.run").sweep {})
    assert.is_nil(world.made.rubbish)
    assert.same({}, store.get("toys-1").owes)
  end)
end)

describe("a rollback", function()
  it("undoes the effects of all steps, newest first, and says what it cannot", function()
    local source = [[
      rb.step("a", "A", function() toy.make "a1" toy.make "a2" end)
      rb.step("b", "B", function() toy.again "kept" end)
      rb.step("c", "C", { undo = function() toy.unmake "special" end }, function() toy.make "special" end)
    ]]
    assert.equal(0, (runs.start(source)))
    local code, seen = runs.rollback { dry_run = true }
    assert.equal(0, code)
    assert.equal(3, #runs.only(seen, "undo-plan"))
    assert.equal(1, world.made.a1)
    code, seen = runs.rollback()
    assert.equal(0, code)
    assert.same({ kept = 1 }, world.made)
    local order = {}
    for _, event in ipairs(runs.only(seen, "step-end")) do
      order[#order + 1] = event.step
    end
    assert.same({ "c", "b", "a" }, order)
    assert.equal("rolled-back", store.get("toys-1").state)
    assert.equal(0, (runs.rollback { name = "toys-1" }))
    local ok = pcall(runs.resume, { name = "toys-1" })
    assert.is_false(ok)
  end)

  it("that fails in the middle exits 4 and goes on the next time", function()
    runs.start 'rb.step("a", "A", function() toy.make "a1" toy.make "a2" end)\nrb.step("b", "B", function() toy.make "b" end)'
    world.fail.una1 = true
    assert.equal(4, (runs.rollback()))
    assert.same({ a1 = 1 }, world.made)
    assert.equal("rollback-incomplete", store.get("toys-1").state)
    world.fail.una1 = nil
    assert.equal(0, (runs.rollback()))
    assert.same({}, world.made)
  end)

  it("looks at undo_guard first, and leaves what has no undo, with exit 4", function()
    local source = [[
      local errors = require "runbook.errors"
      rb.step("a", "A", { undo_guard = function() errors.raise { kind = "conflict", message = "users wrote since" } end },
        function() toy.make "a" end)
    ]]
    runs.start(source)
    local code, seen = runs.rollback()
    assert.equal(4, code)
    assert.matches("users wrote since", runs.only(seen, "step-end")[1].error.message)
    assert.equal(0, (runs.rollback { overrule = { { id = "a", reason = "they agree" } } }))
    runs.start('rb.step("a", "A", function() toy.make "y" end)\nrb.step("b", "B", function() toy.scar "x" end)', { file = "scar" })
    code, seen = runs.rollback { name = "scar-1" }
    assert.equal(4, code)
    assert.matches("scar x %(here%): has no undo", runs.only(seen, "step-end")[1].text)
    assert.same({ x = 1 }, world.made)
    assert.equal(0, (runs.rollback { name = "scar-1", overrule = { { id = "b", reason = "healed by hand" } } }))
  end)
end)
