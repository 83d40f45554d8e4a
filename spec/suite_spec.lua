-- The suite's own runner: whatever a file of specs does, it is counted, named, and hurts no other.

local command = require "spec.support.command"
local gate = require "runbook.core.gate"
local process = require "runbook.core.process"
local world = require "spec.world"

local GOOD = 'it("is good", function() end)\n'

describe("the suite", function()
  local function suite(files, env, ...)
    local folder, words = command.folder(files), { ... }
    words[1] = words[1] or folder
    local r = gate.call("change", function()
      return assert(process.exec {
        argv = { world.runbook, "lua", "spec/run.lua", table.unpack(words) }, env = env or {},
      })
    end)
    return r.status, (r.stdout:gsub(folder:gsub("%p", "%%%0") .. "/", "")), folder
  end

  it("adds up what several files say, in one closing line", function()
    local code, out = suite { ["a_spec.lua"] = GOOD, ["b_spec.lua"] = GOOD .. GOOD, ["c.lua"] = "error 'no spec'" }
    assert.equal(0, code, out)
    assert.matches("  b_spec.lua  2 passed\n", out, 1, true)
    assert.matches("\n3 passed, 0 failed\n$", out)
    assert.equal(1, select(2, out:gsub("passed, %d+ failed", "")))
  end)

  it("shows what failed, together, and names it", function()
    local code, out = suite { ["a_spec.lua"] = GOOD, ["b_spec.lua"] = GOOD .. 'it("is bad", function() error "because" end)' }
    assert.equal(1, code, out)
    assert.matches("\n== b_spec.lua\n.-is bad\n[^\n]*because.-\n +%d+ s  b_spec.lua  1 passed, 1 FAILED\n", out)
    assert.matches("\nfailed: b_spec.lua\n  is bad: [^\n]*because\n[^\n]+\n2 passed, 1 failed\n$", out)
    assert.is_nil(out:find("== a_spec", 1, true))
  end)

  it("counts as failed what crashes, leaves, hangs, does not load or holds no test", function()
    local code, out = suite({
      ["crash_spec.lua"] = GOOD .. 'it("crashes", function() os.execute "kill -SEGV $PPID" end)',
      ["leave_spec.lua"] = GOOD .. 'it("leaves", function() os.exit(0) end)',
      ["hang_spec.lua"] = GOOD .. 'it("hangs", function() while true do end end)',
      ["syntax_spec.lua"] = "it(", ["empty_spec.lua"] = "return 1", ["good_spec.lua"] = GOOD,
    }, { RUNBOOK_SPEC_FILE_SECONDS = "8", JOBS = "2" })
    assert.equal(1, code, out)
    assert.matches("crash_spec.lua: [^\n]+ before its last test was over\n", out) -- sanitizers end it by themselves
    assert.matches("leave_spec.lua: ended with 0 before its last test was over\n", out, 1, true)
    assert.matches("hang_spec.lua: no end after 8 s\n", out, 1, true)
    assert.matches("\n1 passed, 5 failed\n$", out)
    assert.matches("empty_spec.lua  0 passed, 1 FAILED\n", out, 1, true)
    for _, name in ipairs { "crash", "leave", "hang", "syntax", "empty" } do
      assert.matches("\nfailed: " .. name .. "_spec.lua\n  %w", out)
    end
  end)

  it("counts what is wrong after the last test", function()
    local code, out = suite { ["late_spec.lua"] = GOOD .. [[
      setmetatable({}, { __gc = function() os.execute "kill -KILL $PPID" end })]], ["good_spec.lua"] = GOOD }
    assert.equal(1, code, out)
    assert.matches("late_spec.lua: killed by KILL", out, 1, true)
    assert.matches("\nfailed: late_spec.lua\n", out, 1, true)
  end)

  it("gives each file a home of its own, and the options to all", function()
    local HOME = 'it("has a home", function() os.execute("echo >$HOME/was-here") io.stdout:write(os.getenv "HOME", "\\n") end)\n'
      .. 'it("is left out", function() error "no" end)'
    local code, out, folder = suite({ ["a_spec.lua"] = HOME }, nil)
    assert.equal(1, code, out)
    local home = out:match "(/[^\n]+/home%-%d+)\n"
    assert.truthy(home and home ~= os.getenv "HOME", out)
    assert.is_nil(world.read(home .. "/was-here"))
    code, out = suite({}, nil, folder, "--filter", "has a home")
    assert.equal(0, code, out)
    assert.matches("\n1 passed, 0 failed\n$", out)
  end)

  it("ends its files when it is ended itself", function()
    local folder = command.folder { ["a_spec.lua"] = ([[it("waits", function()
      local f = io.open("%s/pid", "w")
      f:write(io.open("/proc/self/stat"):read "n")
      f:close()
      require("runbook.core.task").sleep(1000)
    end)]]):format("FOLDER") }
    world.write(folder .. "/a_spec.lua", (world.read(folder .. "/a_spec.lua"):gsub("FOLDER", folder)))
    local leash = world.start { world.runbook, "lua", "spec/run.lua", folder }
    local pid = world.wait_until("a test that waits", function() return tonumber(world.read(folder .. "/pid") or "") end, 60)
    world.must("kill -KILL " .. world.children(leash.pid)[1])
    world.wait_until("the end of its files", function() return not world.alive(pid) end, 60)
  end)

  it("says that there is nothing to do where no file is", function()
    local code, out = suite {}
    assert.equal(1, code)
    assert.matches("no file of specs was named\n0 passed, 1 failed\n$", out)
  end)
end)
