-- The type `run`: what comes after an earlier run begins with the parameters that one had.

local errors = require "runbook.errors"
local runs = require "spec.support.runs"
local types = require "runbook.types"
local world = runs.world

before_each(runs.fresh)
after_each(runs.clean)

local SOURCE = [[
  local p = rb.params { { "size", "size", "how much", default = "2 MB" }, { "names", "list", "whose", default = { "ann" } } }
  rb.step("a", "A", function() toy.make "a" end)
]]

describe("an earlier run", function()
  it("is found by its name, with its parameters as they were", function()
    assert.equal(0, (runs.start(SOURCE)))
    local run = types.find("run").parse "toys-1"
    assert.equal("toys-1", tostring(run))
    assert.equal(2000000, run.values.size)
    assert.same({ "ann" }, run.values.names)
    assert.matches("done", run:must_be_done())
  end)

  it("is refused where there is none of that name", function()
    local none, why = types.find("run").parse "toys-7"
    assert.is_nil(none)
    assert.matches("no run is called toys%-7", why)
    none, why = types.find("run").parse "../toys-1"
    assert.is_nil(none)
    assert.matches("the name of a run is expected", why)
  end)

  it("has to be done before what comes after it", function()
    world.fail.a = "exit"
    assert.equal(1, (runs.start(SOURCE)))
    local run = types.find("run").parse "toys-1"
    local ok, err = pcall(run.must_be_done, run)
    assert.is_false(ok)
    assert.is_true(errors.is(err, "conflict"))
    assert.matches("run toys%-1 is failed", err.message)
    assert.equal("runbook resume toys-1, or runbook rollback toys-1", err.hint)
  end)
end)
