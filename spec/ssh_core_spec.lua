local gate = require "runbook.core.gate"
local support = require "spec.support.sessions"
local stream = require "runbook.core.stream"
local task = require "runbook.task"
local time = require "runbook.core.time"
local world = require "spec.world"

local reading, connect, session_to = support.reading, support.connect, support.to

local function read_all(s)
  local pieces = {}
  for piece in function() return s:read() end do
    pieces[#pieces + 1] = piece
  end
  return table.concat(pieces)
end

local networks = {
  ["over a good network"] = { open = function(m) return m end, bulk = 3 << 20, many = 40 },
  ["one byte at a time"] = {
    open = function(m)
      local relay = world.relay { to = m, one = true }
      return setmetatable({ address = relay.address, port = relay.port, relay = relay }, { __index = m })
    end,
    bulk = 40000, many = 8,
  },
}

describe("runbook.core.ssh", function()
  local server

  setup(function() server = world.sshd { name = "core", max_sessions = 50 } end)
  teardown(function() server:close() end)

  for name, network in pairs(networks) do
    describe(name, function()
      local m, s

      setup(reading(function()
        m = network.open(server)
        s = session_to(m)
      end))

      teardown(function()
        s:close()
        if m.relay then
          m.relay:close()
        end
      end)

      it("says what it knows of the connection", reading(function()
        local info = s:info()
        assert.equal(m.address, info.address)
        assert.equal(m.port, info.port)
        assert.equal("root", info.user)
        assert.equal(server.fingerprint, info.fingerprint)
        assert.equal(server.host_keys[1], info.key_type .. " " .. info.key)
        assert.equal(world.key(), info.method)
        assert.matches("^SSH%-2%.0%-OpenSSH", info.banner)
        assert.is_true(s:alive())
      end))

      it("runs a command", reading(function()
        assert.same({ status = 3, stdout = "out\n", stderr = "err\n" }, s:exec "echo out; echo err >&2; exit 3")
        assert.same({ status = 0, stdout = "", stderr = "" }, s:exec "true")
        assert.same({ status = 127, stdout = "" }, (function(r)
          return { status = r.status, stdout = r.stdout }
        end)(s:exec "no-such-program"))
      end))

      it("tells a signal from a status", reading(function()
        assert.same({ signal = "KILL", stdout = "x", stderr = "" }, s:exec "printf x; kill -KILL $$")
      end))

      it("feeds stdin from a string, and it is empty otherwise", reading(function()
        local text = ("0123456789abcdef"):rep(network.bulk // 16)
        local r = s:exec("wc -c; wc -c </dev/null", text)
        assert.equal(("%d\n0\n"):format(#text), r.stdout)
        assert.equal("0\n", s:exec("wc -c").stdout)
        assert.equal("", s:exec("cat", "").stdout)
      end))

      it("feeds stdin from a stream", reading(function()
        local from, to = stream.pair()
        local writer = task.spawn(function()
          for _ = 1, 10 do
            to:write(("x"):rep(network.bulk // 100))
            task.sleep(0)
          end
          to:close()
        end)
        assert.equal(("%d\n"):format(network.bulk // 100 * 10), s:exec("wc -c", from).stdout)
        task.join(writer)
        from:close()
      end))

      it("does not take half of an input for the whole", reading(function()
        local from, to = stream.pair()
        to:write "half"
        local t = task.spawn(function() return gate.call("read", s.exec, s, "cat", from) end)
        task.sleep(0.05)
        from:close()
        assert.same({ true, nil, "the stream was closed", "ECLOSED", { stdout = "half", stderr = "" } },
          { task.join(t) })
        to:close()
      end))

      it("gives back bytes as they were", reading(function()
        local all = {}
        for i = 0, 255 do
          all[#all + 1] = string.char(i)
        end
        local text = table.concat(all):rep(network.bulk // 256)
        assert.is_true(s:exec("cat", text).stdout == text)
      end))

      it("keeps the last 64 KiB of stderr, however much comes", reading(function()
        local r = s:exec(("seq 1 %d >&2; echo done"):format(network.bulk // 4))
        assert.equal("done\n", r.stdout)
        assert.is_true(#r.stderr <= 65536)
        assert.matches(("\n%d\n$"):format(network.bulk // 4), r.stderr)
      end))

      it("stops a command that prints more than the limit, and keeps the session", reading(function()
        local r, message, code, partial = s:exec("yes", nil, 1000)
        assert.is_nil(r)
        assert.equal("the command printed more than 1000 bytes", message)
        assert.equal("ELIMIT", code)
        assert.equal(("y\n"):rep(500), partial.stdout)
        assert.equal("still here\n", s:exec("echo still here").stdout)
        assert.equal(1000, #s:exec("head -c 1000 /dev/zero", nil, 1000).stdout)
      end))

      it("runs many commands at once", reading(function()
        local tasks = {}
        for i = 1, network.many do
          tasks[i] = task.spawn(function()
            return s:exec(("echo %d; echo %d >&2; exit %d"):format(i, i, i))
          end)
        end
        for i = 1, network.many do
          assert.same({ true, { status = i, stdout = i .. "\n", stderr = i .. "\n" } }, { task.join(tasks[i]) })
        end
      end))

      it("talks to a command", reading(function()
        local c <close> = assert(s:open "while read -r line; do echo \"<$line>\"; done; echo gone >&2; exit 4")
        local stdin, stdout = c:stdin(), c:stdout()
        stdin:write "one\ntwo\n"
        assert.equal("<one>", stdout:line())
        assert.equal("<two>", stdout:line())
        stdin:write "three"
        stdin:write "\n"
        assert.equal("<three>", stdout:line())
        stdin:half_close()
        assert.is_nil(stdout:line())
        assert.same({ status = 4 }, c:wait())
        assert.equal("gone\n", c:stderr():read())
        assert.is_nil(c:stderr():read())
        assert.equal(stdin, c:stdin())
      end))

      it("waits for a command whose output nobody wants", reading(function()
        local c <close> = assert(s:open(("seq 1 %d; seq 1 %d >&2; kill -TERM $$"):format(network.bulk, network.bulk // 10)))
        assert.same({ signal = "TERM" }, c:wait())
      end))

      it("holds a command back while nobody reads", reading(function()
        local c <close> = assert(s:open("seq 1 1000000"))
        local stdout = c:stdout()
        task.sleep(0.2)
        assert.equal("other\n", s:exec("echo other").stdout)
        local sum = 0
        for _ = 1, network.bulk // 300 do
          sum = sum + tonumber(stdout:line())
        end
        assert.equal((network.bulk // 300) * (network.bulk // 300 + 1) // 2, sum)
      end))

      it("pumps between channels", reading(function()
        local from <close> = assert(s:open(("seq 1 %d"):format(network.bulk // 10)))
        local to <close> = assert(s:open "md5sum")
        local expected = s:exec(("seq 1 %d | md5sum"):format(network.bulk // 10)).stdout
        assert.is_true(stream.pump(from:stdout(), to:stdin()) > network.bulk // 10)
        assert.equal(expected, read_all(to:stdout()))
        assert.same({ status = 0 }, to:wait())
        assert.same({ status = 0 }, from:wait())
      end))

      it("ends whoever waits on a channel when it is closed", reading(function()
        local c = assert(s:open "sleep 1000")
        local waiter = task.spawn(function() return c:wait() end)
        local reader = task.spawn(function() return c:stdout():read() end)
        task.sleep(0.01)
        c:close()
        c:close()
        assert.same({ true, nil, "the channel was closed", "ECLOSED" }, { task.join(waiter) })
        assert.same({ true, nil, "the stream was closed", "ECLOSED" }, { task.join(reader) })
        assert.has_error(function() c:wait() end, "calling 'wait' on bad self (channel is closed)")
      end))

      it("dials through the server", reading(function()
        local through = assert(s:dial(server.address, server.port))
        assert.matches("^SSH%-2%.0%-OpenSSH", through:line())
        through:close()
        local nothing, message, code = s:dial("127.0.0.1", 1)
        assert.is_nil(nothing)
        assert.equal(("%s cannot connect to 127.0.0.1 port 1"):format(m.address), message)
        assert.equal("ECONNREFUSED", code)
      end))

      it("runs a session over another one", reading(function()
        local inner <close> = session_to(server, { stream = assert(s:dial(server.address, server.port)) })
        local text = ("x"):rep(network.bulk)
        assert.equal(#text, #inner:exec("cat", text).stdout)
        assert.is_nil(inner:info().address)
      end))

      it("frees what a cancelled task had begun", reading(function()
        local tasks = {}
        for i = 1, 5 do
          tasks[i] = task.spawn(function() s:exec(("sleep 500.%d; echo"):format(i)) end)
        end
        task.sleep(network.many > 10 and 0.1 or 0)
        for _, t in ipairs(tasks) do
          t:cancel()
          assert.is_false((task.join(t)))
        end
        collectgarbage()
        assert.equal("fine\n", s:exec("echo fine").stdout)
        server:kill "sleep 500."
      end))

      it("passes its points around a change", function()
        -- point_reach costs nothing here; what matters is that a change runs as a read does
        assert.equal("x\n", gate.call("change", s.exec, s, "echo x").stdout)
        local c <close> = gate.call("change", s.open, s, "exit 5")
        assert.same({ status = 5 }, c:wait())
      end)
    end)
  end

  describe("a session", function()
    it("needs a permit for everything that touches the server", function()
      assert.has_error(function() connect(server) end)
      local s = gate.call("read", session_to, server)
      for _, call in ipairs { { "exec", "true" }, { "open", "true" }, { "dial", "127.0.0.1", 22 }, { "subsystem", "sftp" } } do
        local ok, err = pcall(s[call[1]], s, call[2], call[3])
        assert.is_false(ok)
        assert.equal("ungated", err.code)
      end
      s:close()
    end)

    it("costs one round trip per command", reading(function()
      local relay <close> = world.relay { to = server, delay = 0.1 }
      local s <close> = session_to(relay, { pins = { server.fingerprint } })
      s:exec "true"
      local before = time.now()
      for _ = 1, 5 do
        s:exec "true"
      end
      local each = (time.now() - before) / 5
      assert.is_true(each >= 0.2 and each < 0.33, ("%.3f s each, a round trip is 0.2 s"):format(each))
    end))

    it("starts a command and its spare channel in one go", reading(function()
      local s <close> = session_to(server)
      local tasks = {}
      for i = 1, 3 do
        tasks[i] = task.spawn(function() return s:exec("cat", "in " .. i) end)
      end
      for i = 1, 3 do
        assert.equal("in " .. i, select(2, task.join(tasks[i])).stdout)
      end
    end))

    it("says when the server opens no more channels, and goes on when it does again", reading(function()
      local small <close> = world.sshd { name = "small", max_sessions = 2 }
      local s <close> = session_to(small)
      local one, two = assert(s:open "sleep 101"), assert(s:open "sleep 102")
      local r, message, code = s:exec "true"
      assert.is_nil(r)
      assert.matches("opens no more channels", message)
      assert.equal("EBUSY", code)
      one:close()
      small:kill "sleep 101" -- the server counts it until its command has ended
      world.wait_until("a channel to be free", function() return s:exec("true") end)
      two:close()
    end))

    it("ends what runs on it when it is closed", reading(function()
      local s = session_to(server)
      local c = assert(s:open "sleep 300")
      local out = c:stdout()
      local tasks = {
        task.spawn(function() return s:exec "sleep 300" end),
        task.spawn(function() return c:wait() end),
        task.spawn(function() return out:read() end),
        task.spawn(function() return stream.pump(assert(s:dial(server.address, server.port)), c:stdin()) end),
      }
      task.sleep(0.05)
      s:close()
      s:close()
      for _, t in ipairs(tasks) do
        local ok, value, message, code = task.join(t)
        assert.is_true(ok, message)
        assert.same({ nil, "the session was closed", "ECLOSED" }, { value, message, code })
      end
      assert.same({ false, "the session was closed", "ECLOSED" }, { s:alive() })
      assert.has_error(function() s:exec "true" end, "calling 'exec' on bad self (session is closed)")
      c:close()
      server:kill "sleep 300"
    end))

    it("is lost when the connection is cut, and says that nobody knows", reading(function()
      local relay <close> = world.relay { to = server }
      local s <close> = session_to(relay, { pins = { server.fingerprint } })
      local c <close> = assert(s:open "echo before; sleep 400")
      local out = c:stdout()
      assert.equal("before", out:line())
      local t = task.spawn(function() return s:exec "echo some; sleep 400" end)
      task.sleep(0.1)
      relay:cut()
      local ok, value, message, code, partial = task.join(t)
      assert.is_true(ok)
      assert.is_nil(value)
      assert.matches("^the connection to .* was lost: .*; nobody knows what the command did$", message)
      assert.equal("ELOST", code)
      assert.equal("some\n", partial.stdout)
      assert.equal("ELOST", select(3, out:line()))
      assert.equal("ELOST", select(3, c:wait()))
      assert.equal("ELOST", select(3, s:alive()))
      assert.equal("ELOST", select(3, s:exec "true"))
      assert.equal("ELOST", select(3, s:dial("127.0.0.1", 22)))
      server:kill "sleep 400"
    end))

    it("is lost when the server hangs up", reading(function()
      local s <close> = session_to(server)
      local t = task.spawn(function() return s:exec "sleep 401" end)
      task.sleep(0.1)
      server:drop_connections()
      local _, _, message, code = task.join(t)
      assert.equal("ELOST", code)
      assert.matches("nobody knows", message)
      server:kill "sleep 401"
    end))

    it("notices a server that is silent", reading(function()
      local relay <close> = world.relay { to = server }
      local s <close> = session_to(relay, { pins = { server.fingerprint }, keepalive = 0.5 })
      local before = time.now()
      local t = task.spawn(function() return s:exec "sleep 402" end)
      task.sleep(0.1)
      relay:stop()
      local _, _, message, code = task.join(t)
      assert.equal("ELOST", code)
      assert.matches("no answer for 2 s", message)
      assert.is_true(time.now() - before < 6)
      server:kill "sleep 402"
    end))

    it("stays with a server that answers, however quiet", reading(function()
      local s <close> = session_to(server, { keepalive = 1 })
      assert.equal("woke\n", s:exec("sleep 6; echo woke").stdout)
    end))

    it("gives output that came before the end, also when all comes at once", reading(function()
      for after = 0, 3000, 500 do
        local relay <close> = world.relay { to = server }
        local s <close> = session_to(relay, { pins = { server.fingerprint } })
        local t = task.spawn(function() return s:exec "seq 1 1000" end)
        relay:cut(after)
        local ok, r, _, code = task.join(t)
        assert.is_true(ok)
        assert.is_true(r ~= nil and #r.stdout == 3893 or code == "ELOST", code)
      end
    end))

    it("keeps the loop free with many channels and one that stalls", reading(function()
      local sessions, tasks = {}, {}
      for i = 1, 5 do
        sessions[i] = session_to(server)
      end
      local stalled <close> = assert(sessions[1]:open "yes")
      stalled:stdout():read(1)
      for i = 1, 49 do
        tasks[i] = task.spawn(function()
          return #sessions[i % 5 + 1]:exec("head -c 300000 /dev/zero").stdout
        end)
      end
      local longest = 0
      repeat
        local before = time.now()
        task.sleep(0)
        longest = math.max(longest, time.now() - before)
        local running = false
        for _, t in ipairs(tasks) do
          running = running or not t:done()
        end
      until not running
      for _, t in ipairs(tasks) do
        assert.same({ true, 300000 }, { task.join(t) })
      end
      for _, s in ipairs(sessions) do
        s:close()
      end
      assert.is_true(longest < (world.build:find "san" and 0.4 or 0.1), longest) -- the bench says 20 ms on a quiet machine
    end))
  end)
end)
