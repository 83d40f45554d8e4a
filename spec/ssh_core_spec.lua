local core = require "runbook.core.ssh"
local gate = require "runbook.core.gate"
local stream = require "runbook.core.stream"
local task = require "runbook.task"
local time = require "runbook.core.time"
local world = require "spec.world"

-- Every spec here may read the world; what may change it says so.
local function reading(fn)
  return function() gate.call("read", fn) end
end

local function connect(m, o)
  local options = {
    host = m.address, port = m.port, user = "root", identities = { world.key() }, pins = { m.fingerprint }, timeout = 20,
  }
  for key, value in pairs(o or {}) do
    options[key] = value
  end
  return core.connect(options)
end

local function session_to(m, o)
  local s, message, code = connect(m, o)
  return assert(s, ("%s: %s"):format(code, message))
end

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

  describe("getting in", function()
    local function refused(o, m)
      local s, message, code, details = connect(m or server, o)
      assert.is_nil(s)
      return message, code, details
    end

    local function method(o)
      local s <close> = session_to(server, o)
      return s:info().method
    end

    it("takes every kind of key, from files and from memory", reading(function()
      for _, kind in ipairs { "ed25519", "rsa", "rsa_pem", "ecdsa" } do
        assert.equal(world.key(kind), method { identities = { world.key(kind) } })
        assert.equal("key from memory", method { identities = { { key = world.read(world.key(kind)) } } })
      end
    end))

    it("opens a locked key with its passphrase, and says when that is missing or wrong", reading(function()
      local key = world.key "locked"
      assert.equal(key, method { identities = { { path = key, passphrase = "open sesame" } } })
      local message, code, details = refused { identities = { key } }
      assert.equal("EAUTH", code)
      assert.matches("needs its passphrase", message)
      assert.equal(key, details.locked)
      message, code, details = refused { identities = { { path = key, passphrase = "wrong" } } }
      assert.equal("EAUTH", code)
      assert.matches("wrong passphrase", message)
      assert.equal(key, details.locked)
    end))

    it("shows a certificate", reading(function()
      local key = world.key "cert"
      assert.equal("EAUTH", select(2, refused { identities = { key } }))
      assert.equal(key, method { identities = { { path = key, certificate = key .. "-cert.pub" } } })
      assert.matches("nosuch%-cert.pub %(No such file", (refused { identities = { { path = key, certificate = "nosuch-cert.pub" } } }))
    end))

    it("goes on to the next key, and lists what it tried", reading(function()
      assert.equal(world.key(), method { identities = { "/nosuch", world.key "stranger", world.key() } })
      local message, code, details = refused { identities = { "/nosuch", world.key "stranger", "/etc/passwd" } }
      assert.equal("EAUTH", code)
      assert.equal(("%s does not let root in; tried: /nosuch (No such file or directory), %s, /etc/passwd (not a private key "
        .. "that can be read), keyboard-interactive; it offers %s"):format(server.address, world.key "stranger", details.offered),
        message)
      assert.matches("publickey", details.offered)
    end))

    it("says when there is nothing to try", reading(function()
      assert.matches("tried: nothing", (refused { identities = {}, order = { "agent", "identities" } }))
    end))

    it("uses an agent, also for RSA and certificates", reading(function()
      local socket = world.folder "agent" .. "/socket"
      local agent = world.start { "ssh-agent", "-D", "-a", socket }
      world.wait_until("the agent", function() return world.sh("test -S " .. socket .. " && echo y") == "y" end)
      for _, kind in ipairs { "ed25519", "rsa", "ecdsa", "cert" } do
        world.must(("SSH_AUTH_SOCK=%s sh -c 'ssh-add -qD 2>/dev/null; ssh-add -q %s'"):format(socket, world.key(kind)))
        assert.equal("agent", method { agent = socket, identities = {} })
      end
      world.must(("SSH_AUTH_SOCK=%s sh -c 'ssh-add -qD; ssh-add -q %s %s'"):format(socket, world.key "stranger", world.key "rsa"))
      assert.equal("agent", method { agent = socket, identities = { world.key "rsa" }, identities_only = true })
      assert.matches("agent %(1 keys of 2%)",
        (refused { agent = socket, identities = { world.key "stranger" }, identities_only = true, order = { "agent" } }))
      agent:stop()
      local message, code = refused { agent = socket, identities = {} }
      assert.equal("EAUTH", code)
      assert.matches("no agent at " .. socket:gsub("%p", "%%%0"), message)
    end))

    it("gives up on an agent that does not answer", reading(function()
      local socket = world.folder "deaf" .. "/socket"
      local deaf = world.start { "python3", "-c", ("import socket, time\ns = socket.socket(socket.AF_UNIX)\n"
        .. "s.bind('%s')\ns.listen()\ntime.sleep(1000)"):format(socket) }
      world.wait_until("the socket", function() return world.sh("test -S " .. socket .. " && echo y") == "y" end)
      local before = time.now()
      local message = refused { agent = socket, identities = {}, timeout = 1 }
      assert.matches("does not answer", message)
      assert.is_true(time.now() - before < 5)
      deaf:stop()
    end))

    it("gives a password", reading(function()
      assert.equal("password", method { user = server.user_plain, identities = {}, password = server.password })
      local message, code = refused { user = server.user_plain, identities = {}, password = "wrong" }
      assert.equal("EAUTH", code)
      assert.matches("tried: password", message)
      assert.is_nil(message:find("wrong", 1, true))
    end))

    it("answers questions, and says which there are", reading(function()
      local pam <close> = world.sshd {
        name = "pam", pam = true, config = { "PasswordAuthentication no", "KbdInteractiveAuthentication yes" },
      }
      local o = { user = pam.user_plain, identities = {} }
      local message, code, details = refused(o, pam)
      assert.equal("EPROMPT", code)
      assert.matches("asks: .*[Pp]assword", message)
      assert.equal(1, #details.prompts)
      assert.is_false(details.prompts[1].echo)
      o.answers = { pam.password }
      local s <close> = session_to(pam, o)
      assert.equal("keyboard-interactive", s:info().method)
      o.answers, o.password = nil, pam.password
      local again <close> = session_to(pam, o)
      assert.equal("password", again:info().method)
    end))

    it("passes two factors", reading(function()
      local strict <close> = world.sshd { name = "strict", config = { "AuthenticationMethods publickey,password" } }
      local s <close> = session_to(strict, { user = strict.user_plain, password = strict.password })
      assert.equal("password", s:info().method)
      local message, _, details = refused({ user = strict.user_plain }, strict)
      assert.matches("it offers password", message)
      assert.equal("password", details.offered)
    end))

    it("says when the server has had enough of it", reading(function()
      local short <close> = world.sshd { name = "short", config = { "MaxAuthTries 2" } }
      local message, code = refused({
        identities = { world.key "stranger", world.key "stranger", world.key "stranger", world.key() },
      }, short)
      assert.equal("EAUTH", code)
      assert.matches("hung up on root: Too many authentication failures", message)
    end))

    it("refuses options that make no sense", reading(function()
      assert.has_error(function() core.connect { host = "x" } end, "host and user expected")
      assert.has_error(function() core.connect { host = "x\0y", user = "z" } end, "host: a string without NUL expected")
      assert.has_error(function() core.connect { host = "x", user = "z", port = 70000 } end)
      assert.has_error(function() core.connect { host = "x", user = "z", timeout = "soon" } end, "timeout: a number of seconds expected")
      assert.has_error(function() core.connect { host = "x", user = "z", identities = { {} } } end,
        "identities: a path, or a table with path or key expected")
      assert.has_error(function() core.connect { host = "x", user = "z", order = { "luck" } } end)
    end))
  end)

  describe("the host key", function()
    local folder

    setup(function() folder = world.folder "known" end)

    local function with(lines, o)
      local file = folder .. "/known_hosts"
      world.write(file, lines)
      local options = { known_hosts = { folder .. "/nosuch", file } }
      for key, value in pairs(o or {}) do
        options[key] = value
      end
      options.pins = options.pins or {}
      local s, _, code, details = connect(server, options)
      if s then
        local info = s:info()
        s:close()
        return info.key_type
      end
      return code, details
    end

    local function line(n, host)
      return ("%s %s\n"):format(host or ("[%s]:%d"):format(server.address, server.port), server.host_keys[n])
    end

    it("is asked for as it is known", reading(function()
      assert.equal("ssh-ed25519", with(line(1)))
      assert.equal("ecdsa-sha2-nistp256", with(line(2)))
      assert.equal("ssh-ed25519", with(line(1) .. line(2)))
      assert.equal("ssh-ed25519", with(line(1, "[127.*]:*")))
      assert.equal("ssh-ed25519", with(line(1, "alias"), { alias = "alias" }))
    end))

    it("is shown when it is not known", reading(function()
      local code, details = with ""
      assert.equal("EHOSTKEY_UNKNOWN", code)
      assert.equal(server.fingerprint, details.fingerprint)
      assert.equal(server.host_keys[1], details.key_type .. " " .. details.key)
      assert.equal("EHOSTKEY_UNKNOWN", (with(line(1, "[127.*]:*,![" .. server.address .. "]:*"))))
    end))

    it("that changed is refused, and the entry is named", reading(function()
      local other = world.read(world.key "ecdsa" .. ".pub"):match "^%S+ %S+"
      local code, details = with(("# comment\n[%s]:%d %s\n"):format(server.address, server.port, other))
      assert.equal("EHOSTKEY_CHANGED", code)
      assert.equal(folder .. "/known_hosts:2", details.known_at)
      assert.equal("ecdsa-sha2-nistp256", details.key_type)
    end))

    it("that is revoked is refused, pinned or not", reading(function()
      assert.equal("EHOSTKEY_REVOKED", (with("@revoked * " .. server.host_keys[1] .. "\n" .. line(1))))
      assert.equal("EHOSTKEY_REVOKED", (with("@revoked * " .. server.host_keys[1] .. "\n", { pins = { server.fingerprint } })))
    end))

    it("known only by an authority is refused in words", reading(function()
      local code = with(("@cert-authority [%s]:* %s"):format(server.address, world.read(world.key "ca" .. ".pub")))
      assert.equal("EHOSTKEY_CA", code)
    end))

    it("can be pinned by fingerprint or in full, and the pin decides", reading(function()
      assert.equal("ssh-ed25519", with("", { pins = { "SHA256:nope", server.fingerprint } }))
      assert.equal("ecdsa-sha2-nistp256", with("", { pins = { server.host_keys[2] } }))
      assert.equal("EHOSTKEY_CHANGED", (with(line(1), { pins = { "SHA256:nope" } })))
      assert.equal("EHOSTKEY_CHANGED", (with(line(1), { pins = { (server.host_keys[2]:gsub("....$", "AAA=")) } })))
    end))

    it("is not judged by files that cannot be read", reading(function()
      local code = with("", { known_hosts = { folder } })
      assert.equal("EHOSTKEY_UNKNOWN", code)
    end))
  end)

  describe("a connection that does not come about", function()
    it("says why", reading(function()
      local relay <close> = world.relay { to = server, refuse = true }
      local function failure(o)
        local s, message, code = core.connect(o)
        assert.is_nil(s)
        return code, message
      end
      assert.equal("ECONNREFUSED", (failure { host = "127.0.0.1", port = 1, user = "root" }))
      assert.equal("ERESOLVE", (failure { host = "no-such-host.invalid", user = "root" }))
      assert.equal("EHANDSHAKE", (failure { host = relay.address, port = relay.port, user = "root" }))
      local a, b = stream.pair()
      a:write "HTTP/1.0 400 Bad Request\r\n\r\n"
      a:half_close()
      local code = failure { host = "x", user = "root", stream = b }
      assert.equal("EHANDSHAKE", code)
      a:close()
    end))

    it("is given up in time", reading(function()
      local a, b = stream.pair()
      local before = time.now()
      local s, message, code = core.connect { host = "silent", user = "root", stream = b, timeout = 0.5 }
      assert.is_nil(s)
      assert.equal("EHANDSHAKE", code)
      assert.equal("silent did not finish the handshake within 0.5 s", message)
      assert.is_true(time.now() - before < 3)
      a:close()
    end))

    it("may stop at any byte", reading(function()
      for after = 0, 5000, 250 do
        local relay <close> = world.relay { to = server, stop_after = after }
        local s, _, code = connect(relay, { pins = { server.fingerprint }, timeout = 0.4 })
        if s then
          s:close()
        else
          assert.equal("EHANDSHAKE", code)
        end
      end
    end))

    it("may be cut at any byte", reading(function()
      for after = 0, 6000, 250 do
        local relay <close> = world.relay { to = server, cut_after = after }
        local s, _, code = connect(relay, { pins = { server.fingerprint } })
        if s then
          local r
          r, _, code = s:exec "true"
          assert.is_true(r ~= nil or code == "ELOST", code)
          s:close()
        else
          assert.equal("EHANDSHAKE", code)
        end
      end
    end))

    it("can be cancelled at any moment", reading(function()
      for i = 0, 20 do
        local t = task.spawn(function() connect(server) end)
        task.sleep(i * 0.003)
        t:cancel()
        task.join(t)
      end
      collectgarbage()
    end))

    it("waits its turn when there are many", reading(function()
      local tasks = {}
      for i = 1, 40 do
        tasks[i] = task.spawn(function()
          local s <close> = session_to(server)
          return s:exec("echo " .. i).stdout
        end)
      end
      for i = 1, 40 do
        assert.same({ true, i .. "\n" }, { task.join(tasks[i]) })
      end
    end))
  end)
end)
