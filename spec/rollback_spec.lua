-- What a rollback has to undo is what was done, whatever the journal calls the step by now.

local runs = require "spec.support.runs"
local world = runs.world

before_each(runs.fresh)
after_each(runs.clean)

local SOURCE = [[
  rb.step("a", "A", { check = function() return toy.count "so" > 0 end }, function()
    toy.make "half"
    toy.make "other half"
  end)
  rb.step("b", "B", function() toy.make "b" end)
]]

describe("a rollback", function()
  it("undoes the half of a step that was then found to be so already", function()
    world.fail["other half"] = "exit"
    assert.equal(1, (runs.start(SOURCE)))
    world.made.so = 1
    local code, seen = runs.resume()
    assert.equal(0, code, runs.last_error(seen))
    assert.same({ a = "already", b = "done" }, runs.outcomes(seen))
    code, seen = runs.rollback()
    assert.equal(0, code, runs.last_error(seen))
    assert.same({ so = 1 }, world.made)
  end)

  it("undoes the half of a step that was then skipped", function()
    world.fail["other half"] = "exit"
    assert.equal(1, (runs.start(SOURCE)))
    local code, seen = runs.resume { skip = { { id = "a", reason = "done by hand" } } }
    assert.equal(0, code, runs.last_error(seen))
    code, seen = runs.rollback()
    assert.equal(0, code, runs.last_error(seen))
    assert.same({}, world.made)
  end)

  it("leaves alone steps that never did anything", function()
    world.made.so = 1
    assert.equal(0, (runs.start(SOURCE)))
    local code, seen = runs.rollback()
    assert.equal(0, code, runs.last_error(seen))
    assert.same({ b = "undone" }, runs.outcomes(seen))
  end)

  it("asks what an undo_guard returns, and goes on when the name was given", function()
    local source = [[
      rb.step("a", "A", { undo_guard = function() return toy.count "work" > 0 and { { "homes", "1 has changed" } } or nil end },
        function() toy.make "a" end)
    ]]
    world.made.work = 1
    assert.equal(0, (runs.start(source)))
    local code, seen = runs.rollback { no_input = true }
    assert.equal(4, code)
    assert.matches("needs input: --confirm a=toys", runs.only(seen, "step-end")[1].error.message, 1, true)
    assert.same({ { "homes", "1 has changed" } }, runs.only(seen, "question")[1].rows)
    assert.same({ a = 1, work = 1 }, world.made)
    assert.equal(4, (runs.rollback { no_input = true, confirm = { a = "another" } }))
    code, seen = runs.rollback { no_input = true, confirm = { a = "toys" } }
    assert.equal(0, code, runs.last_error(seen))
    assert.same({ work = 1 }, world.made)
  end)

  it("gives an undo the inverses, and never undoes what the undo itself did", function()
    local source = [[
      rb.step("a", "A", { undo = function(inverses)
        inverses()
        toy.make "b"
        toy.make "c"
      end }, function() toy.make "a" end)
    ]]
    assert.equal(0, (runs.start(source)))
    world.fail.c = "exit"
    assert.equal(4, (runs.rollback()))
    assert.same({ b = 1 }, world.made)
    world.fail.c, world.made.b = nil, nil
    local code, seen = runs.rollback()
    assert.equal(0, code, runs.last_error(seen))
    assert.same({ b = 1, c = 1 }, world.made)
  end)

  it("leaves what cannot be undone, when somebody says so with a reason, and goes on", function()
    assert.equal(0, (runs.start [[
      rb.step("a", "A", function() toy.make "a" end)
      rb.step("b", "B", function() toy.make "b" end)
    ]]))
    world.fail.unb = "exit"
    assert.equal(4, (runs.rollback()))
    assert.same({ a = 1, b = 1 }, world.made)
    local code, seen = runs.rollback { overrule = { { id = "b", reason = "its cluster is gone" } } }
    assert.equal(0, code, runs.last_error(seen))
    assert.same({ b = 1 }, world.made)
  end)
end)
