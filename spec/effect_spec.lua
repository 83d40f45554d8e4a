local effect = require "runbook.effect"
local errors = require "runbook.errors"
local gate = require "runbook.core.gate"
local task = require "runbook.core.task"

local function raised(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  return errors.from(err)
end

describe("the gate", function()
  local made = {}
  local class_seen
  local change = effect.verb {
    name = "spec.change", class = "change",
    target = function() return "there" end, summary = function(x) return "make " .. x end,
    body = function(x)
      class_seen = gate.class()
      made[#made + 1] = x
      return x
    end,
  }
  local look = effect.verb { name = "spec.look", class = "read", body = function() return gate.class() end }
  local remove = effect.verb { name = "spec.remove", class = "destroy", body = function() return change("inner") end }

  it("gives a verb's body its permit and takes it back", function()
    assert.equal("none", gate.class())
    assert.equal("read", look())
    assert.equal("a", change "a")
    assert.equal("change", class_seen)
    assert.equal("none", gate.class())
    assert.equal("inner", remove())
  end)

  it("takes the permit back after an error and after a cancelled wait", function()
    local wait = effect.verb { name = "spec.wait", class = "change", body = function() task.sleep(60) end }
    local fail = effect.verb { name = "spec.fail", class = "change", body = function() error "boom" end }
    pcall(fail)
    assert.equal("none", gate.class())
    local class
    local t = task.spawn(function()
      pcall(wait)
      class = gate.class()
    end)
    task.sleep(0.005)
    t:cancel()
    task.join_all { t }
    assert.equal("none", class)
  end)

  it("refuses every effect while a file loads", function()
    for _, verb in ipairs { change, look, remove } do
      local err = raised(task.with_context, { mode = "loading" }, verb, "x")
      assert.equal("usage", err.kind)
      assert.matches("while the file loads", tostring(err))
    end
  end)

  it("refuses a change in checks, guards, when and verify, and lets reads through", function()
    for _, phase in ipairs { "check", "guard", "when", "verify", "checks" } do
      local before = #made
      local err = raised(task.with_context, { phase = phase }, change, "x")
      assert.matches("a change inside `" .. phase .. "`: make x", tostring(err))
      assert.equal(before, #made)
      assert.equal("read", task.with_context({ phase = phase }, look))
    end
  end)

  it("does not let a read hide a change", function()
    local liar = effect.verb { name = "spec.liar", class = "read", body = function() change "hidden" end }
    assert.equal("ungated", raised(liar).code)
  end)

  it("hands a session what is to be done, and the session decides", function()
    local asked
    local session = { perform = function(_, d, _, _, ...) asked = { d.name, ... } return "planned" end, count_read = function() end }
    assert.equal("planned", task.with_context({ session = session, mode = "plan" }, change, "x"))
    assert.same({ "spec.change", "x" }, asked)
  end)

  it("refuses a verb that is declared twice or wrongly", function()
    assert.matches("declared twice", tostring(raised(effect.verb, { name = "spec.look", class = "read", body = print })))
    assert.matches("did you mean `class`", tostring(raised(effect.verb, { name = "x", clas = "read", body = print })))
  end)
end)
