local errors = require "runbook.errors"
local sandbox = require "runbook.sandbox"
local task = require "runbook.core.task"

local function environment()
  local said = {}
  local env = sandbox.environment(function(name) return "required " .. name end, function(...)
    said[#said + 1] = table.concat({ ... }, " ")
  end)
  return env, said
end

local function load_error(source)
  local ok, err = pcall(sandbox.load, source, "x.lua", (environment()))
  assert.is_false(ok)
  assert.is_true(errors.is(err, "usage"))
  return tostring(err)
end

describe("the sandbox", function()
  it("runs plain Lua, with print as a way to say something", function()
    local env, said = environment()
    local chunk = sandbox.load([[print(("x"):upper(), require "a") return math.max(1, 2)]], "x.lua", env)
    assert.equal(2, chunk())
    assert.same({ "X required a" }, said)
  end)

  it("names every unknown global at load, with its line and what may have been meant", function()
    local text = load_error "local x = 1\nprnt(x)\nfunction helper() end\nlocal function f() return tabel.concat end"
    assert.matches("3 things to fix", text)
    assert.matches("line 2  unknown global `prnt`; did you mean `print`", text)
    assert.matches("line 3  helper is set as a global", text)
    assert.matches("line 4  unknown global `tabel`; did you mean `table`", text)
  end)

  it("says of io, load and the like what to use instead", function()
    assert.matches("`io` is not for runbooks", load_error "io.popen 'ls'")
    assert.matches("`load` is not for runbooks", load_error "load 'x'")
    assert.matches("`coroutine` is not for runbooks", load_error "coroutine.wrap(print)")
  end)

  it("names file and line of a syntax error", function()
    assert.matches("x.lua:2: ", load_error "local x = 1\nlocal = 2")
  end)

  it("has no way around os.execute and string.dump", function()
    local env = environment()
    assert.is_nil(env.os.execute)
    assert.is_nil(env.string.dump)
    assert.is_nil(env.debug)
  end)

  it("lets cancellation through pcall and xpcall", function()
    local env = environment()
    local after = false
    local t = task.spawn(function()
      env.pcall(task.sleep, 60)
      after = true
    end)
    local u = task.spawn(function()
      env.xpcall(task.sleep, function(e) return e end, 60)
      after = true
    end)
    task.sleep(0.005)
    t:cancel()
    u:cancel()
    task.join_all { t, u }
    assert.is_false(after)
    assert.same({ false, "boom" }, { env.pcall(error, "boom", 0) })
  end)
end)
