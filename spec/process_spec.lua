describe("runbook.core.process", function()
  local gate = require "runbook.core.gate"
  local process = require "runbook.core.process"
  local task = require "runbook.task"
  local time = require "runbook.core.time"
  local world = require "spec.world"

  local function exec(o)
    return gate.call("read", process.exec, o)
  end

  local function open(o)
    return assert(gate.call("read", process.open, o))
  end

  local function sh(script, o)
    o = o or {}
    o.argv = { "sh", "-c", script }
    return exec(o)
  end

  it("refuses to start anything outside a verb", function()
    local ok, err = pcall(process.exec, { argv = { "true" } })
    assert.is_false(ok)
    assert.equal("ungated", err.code)
    ok, err = pcall(process.open, { argv = { "true" } })
    assert.is_false(ok)
    assert.equal("ungated", err.code)
  end)

  it("gives status, stdout and stderr", function()
    assert.same({ status = 3, stdout = "out\n", stderr = "err\n" }, sh "echo out; echo err >&2; exit 3")
  end)

  it("gives the signal instead of a status", function()
    assert.same({ signal = "KILL", stdout = "", stderr = "" }, sh "kill -KILL $$")
  end)

  it("hands arguments on as they are", function()
    local odd = { "", " ", "a b", "$HOME", "'", '"', "*", "\n", "ü", "\xff" }
    local r = exec { argv = { "printf", "%s\\0", table.unpack(odd) } }
    assert.equal(table.concat(odd, "\0") .. "\0", r.stdout)
  end)

  it("refuses arguments that are no strings or hold a zero byte", function()
    assert.has_error(function() exec { argv = { "echo", 1 } } end, "argv: string expected, got number")
    assert.has_error(function() exec { argv = { "echo", "a\0b" } } end, "argv: holds a zero byte")
    assert.has_error(function() exec { argv = {} } end)
  end)

  it("says that there is no such program", function()
    local r, message, code = exec { argv = { "nonesuch-program" } }
    assert.is_nil(r)
    assert.matches("nonesuch%-program", message)
    assert.equal("ENOENT", code)
  end)

  it("puts variables over our environment, and runs where it is told", function()
    local r = sh("echo $RB_SPEC $PWD ${PATH:+path}", { env = { RB_SPEC = "a b" }, cwd = "/" })
    assert.equal("a b / path\n", r.stdout)
  end)

  it("writes stdin and closes it, however long and whether it is read or not", function()
    local text = ("0123456789"):rep(200000)
    assert.equal(text, exec({ argv = { "cat" }, stdin = text }).stdout)
    assert.equal(0, exec({ argv = { "true" }, stdin = text }).status)
    assert.equal("", exec({ argv = { "cat" } }).stdout)
  end)

  it("stops keeping output at the limit and ends who prints for ever", function()
    local r, message, code = exec { argv = { "yes" }, limit = 100000 }
    assert.is_nil(r)
    assert.matches("longer than can be kept", message)
    assert.equal("ELIMIT", code)
    assert.equal(100000, #exec({ argv = { "head", "-c", "100000", "/dev/zero" }, limit = 100000 }).stdout)
  end)

  it("keeps the last 64 KiB of stderr and drains the rest", function()
    local r = sh "seq 1 200000 >&2; echo last >&2"
    assert.equal(64 * 1024, #r.stderr)
    assert.matches("200000\nlast\n$", r.stderr)
  end)

  it("does not wait for ever for a daemon that holds its output", function()
    local began = time.now()
    local r = sh "sleep 30 & echo $!"
    assert.equal(0, r.status)
    assert.is_true(time.now() - began < 5)
    world.sh("kill " .. r.stdout)
  end)

  it("ends the whole group when the task is cancelled, with KILL where TERM is ignored", function()
    local file = world.folder "process" .. "/pids"
    local t = task.spawn(function()
      sh(("trap '' TERM; sleep 60 & echo $$ $! > %s.new; mv %s.new %s; wait; sleep 60"):format(file, file, file))
    end)
    local pids = world.wait_until("the program to start", function() return world.read(file) end)
    t:cancel()
    task.join(t)
    local first, second = pids:match "(%d+) (%d+)"
    world.wait_until("their end", function() return not world.alive(first) and not world.alive(second) end, 10)
  end)

  it("is a session and group of its own", function()
    local r = sh "ps -o pid=,pgid=,sid= -p $$"
    local pid, group, session = r.stdout:match "(%d+)%s+(%d+)%s+(%d+)"
    assert.equal(pid, group)
    assert.equal(pid, session)
  end)

  describe("open", function()
    it("gives streams to talk through", function()
      local child <close> = open { argv = { "sed", "-u", "s/^/got /" } }
      assert.is_true(child:stdin():write "one\n")
      assert.equal("got one", child:stdout():line())
      assert.equal(child:stdin(), child:stdin())
      child:stdin():half_close()
      assert.is_nil(child:stdout():line())
      assert.same({ status = 0 }, child:wait())
      assert.same({ status = 0 }, child:wait())
    end)

    it("has one socket for both directions where that is asked for", function()
      local child <close> = open { argv = { "cat" }, duplex = true }
      local s = child:stdin()
      assert.is_true(s:write "there and back\n")
      assert.equal("there and back", s:line())
      assert.is_true(s:half_close())
      assert.is_nil(s:line())
      assert.same({ status = 0 }, child:wait())
    end)

    it("sends signals to the group, and none once it has ended", function()
      local child <close> = open { argv = { "sleep", "60" } }
      assert.is_true(world.alive(child:pid()))
      assert.is_true(child:signal "TERM")
      assert.same({ signal = "TERM" }, child:wait())
      local r, _, code = child:signal "TERM"
      assert.is_nil(r)
      assert.equal("ESRCH", code)
      assert.has_error(function() child:signal "NONE" end)
    end)

    it("tells a waiter that it was closed, and raises on a closed one", function()
      local child = open { argv = { "sleep", "60" } }
      local waiter = task.spawn(function() return select(3, child:wait()) end)
      task.sleep(0)
      child:close()
      child:close()
      assert.same({ true, "ECLOSED" }, { task.join(waiter) })
      assert.has_error(function() child:pid() end, "calling 'pid' on bad self (process is closed)")
    end)

    it("is ended by the collector", function()
      local child = open { argv = { "sleep", "60" } }
      local pid = child:pid()
      child = nil -- luacheck: ignore
      collectgarbage()
      collectgarbage()
      world.wait_until("its end", function() return not world.alive(pid) end)
    end)
  end)
end)
