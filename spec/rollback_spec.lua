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
end)
