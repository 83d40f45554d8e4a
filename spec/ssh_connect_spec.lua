-- How a session comes about, and why not: keys, passwords, host keys, networks.

local core = require "runbook.core.ssh"
local sessions = require "spec.support.sessions"
local stream = require "runbook.core.stream"
local task = require "runbook.task"
local time = require "runbook.core.time"
local world = require "spec.world"

local reading, connect, session_to = sessions.reading, sessions.connect, sessions.to

describe("runbook.core.ssh", function()
  local server

  setup(function() server = world.sshd { name = "connect", max_sessions = 50 } end)
  teardown(function() server:close() end)

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
