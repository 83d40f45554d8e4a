local errors = require "runbook.errors"
local events = require "runbook.events"
local place = require "runbook.place"
local places = require "spec.support.places"
local secret = require "runbook.core.secret"
local ssh = require "runbook.ssh"
local task = require "runbook.task"
local world = require "spec.world"

local function raised(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  assert.is_true(errors.is(err), tostring(err))
  return err
end

local retry = require "runbook.retry"
local first_delay

setup(function()
  first_delay, retry.first_delay = retry.first_delay, 0.02
end)

teardown(function()
  retry.first_delay = first_delay
  ssh.close()
end)

describe("ssh.host", function()
  it("connects to nobody before it is used", function()
    local at = ssh.host { "nobody@host.invalid", port = 1 }
    assert.same({ "host.invalid", "nobody" }, { at.name, at.user })
    assert.equal("ssh -p 1 nobody@host.invalid 'ls -l'", at:by_hand { "ls", "-l" })
  end)

  it("wants a name that is one", function()
    assert.equal("usage", raised(ssh.host, {}).kind)
    assert.equal("usage", raised(ssh.host, { "" }).kind)
    assert.matches("did you mean `user`", raised(ssh.host, { "a", usr = "x" }).message)
    for _, name in ipairs { "-oProxyCommand=touch x", "a b", "a\nb" } do
      local at = ssh.host { name }
      assert.equal("usage", raised(at.query, at, { "true" }).kind)
    end
  end)

  it("is met by its key only: unknown, pinned, changed", function()
    local m = places.machine()
    local folder = world.folder "known"
    world.write(folder .. "/empty", "")
    world.write(folder .. "/known", m:known_hosts())
    local function host(o)
      o[1], o.port, o.user, o.identity, o.name = m.address, m.port, "root", world.key(), "nfs-old"
      return ssh.host(o)
    end
    local unknown = host { known_hosts = folder .. "/empty" }
    local err = raised(unknown.query, unknown, { "true" })
    assert.same({ "identity", "EHOSTKEY_UNKNOWN", m.fingerprint }, { err.kind, err.code, err.fingerprint })
    assert.matches("nfs%-old: I have never met this server", err.message)
    assert.matches("It says   ED25519 " .. m.fingerprint, err.message, 1, true)
    assert.matches("ssh%-keygen %-lf /etc/ssh/ssh_host_ed25519_key.pub", err.message)
    assert.matches("host_key: SHA256:", err.message)
    assert.equal("x", host({ known_hosts = folder .. "/known" }):query { "echo", "x" })
    local pinned = host { known_hosts = folder .. "/empty", host_key = m.fingerprint }
    assert.equal("x", pinned:query { "echo", "x" })
    assert.equal(m.fingerprint, pinned:identity())
    local wrong = host { host_key = "SHA256:" .. ("A"):rep(43) }
    err = raised(wrong.query, wrong, { "true" })
    assert.same({ "identity", "EHOSTKEY_CHANGED" }, { err.kind, err.code })
    local another = world.read(world.key() .. ".pub"):match "%S+ (%S+)"
    world.write(folder .. "/other", (m:known_hosts():gsub("(ssh%-ed25519) %S+", "%1 " .. another)))
    local changed = host { known_hosts = folder .. "/other" }
    err = raised(changed.query, changed, { "true" })
    assert.equal("EHOSTKEY_CHANGED", err.code)
    assert.matches(folder .. "/other:1", err.known_at, 1, true)
    assert.is_nil(place.here:identity())
  end)

  it("says who was not let in, and with what", function()
    local at = places.by_ssh { identity = world.key "stranger" }
    local err = raised(at.query, at, { "true" })
    assert.equal("auth", err.kind)
    assert.matches("stranger", err.message)
    assert.matches("ssh %-v", err.hint)
  end)

  it("takes keys from memory, passwords, and answers", function()
    local m = places.machine()
    local key = secret.new("key", world.read(world.key()))
    assert.equal("root", places.by_ssh({ identity = key }):query { "id", "-un" })
    local word = secret.new("password", m.password)
    local at = ssh.host { m.address, port = m.port, user = "rb-plain", password = word, host_key = m.fingerprint,
      identity = world.key "stranger" }
    assert.equal("rb-plain", at:query { "id", "-un" })
  end)

  it("honours ssh_config: aliases, users, keys, jumps and ProxyCommand", function()
    local m = places.machine()
    local config = world.ssh_config { m }
    assert.equal("root", ssh.host({ "far", config = config }):query { "id", "-un" })
    assert.equal("rb-sudo", ssh.host({ "rb-sudo@far", config = config }):query { "id", "-un" })
    local folder = world.folder "config"
    world.write(folder .. "/config", ([[
Host inner
  HostName %s
  Port %d
  HostKeyAlias [%s]:%d
  ProxyJump far
Host twice
  HostName %s
  Port %d
  HostKeyAlias [%s]:%d
  ProxyJump far,inner
Host piped
  HostName %s
  Port %d
  ProxyCommand nc %%h %%p
Host broken
  HostName %s
  ProxyCommand echo no way there >&2; exit 1
]]):format(m.address, m.port, m.address, m.port, m.address, m.port, m.address, m.port, m.address, m.port, m.address)
      .. world.read(config))
    for _, name in ipairs { "inner", "twice" } do
      local at = ssh.host { name, config = folder .. "/config" }
      assert.equal("root", at:query { "id", "-un" }, name)
      assert.matches("^127%.0%.0%.1 ", at:query_sh [[echo "$SSH_CONNECTION"]]) -- it comes from the machine itself
    end
    if select(2, world.sh "command -v nc") == 0 then
      assert.equal("root", ssh.host({ "piped", config = folder .. "/config" }):query { "id", "-un" })
    end
    local broken = ssh.host { "broken", config = folder .. "/config" }
    assert.matches("no way there", raised(broken.query, broken, { "true" }).message)
    local typed = ssh.host { m.address, port = m.port, user = "root", jump = "far", config = config, host_key = m.fingerprint,
      identity = world.key() }
    assert.equal("root", typed:query { "id", "-un" })
  end)

  it("uses the agent that ssh_config or the environment names", function()
    local m = places.machine()
    local folder = world.folder "agent"
    world.must(("ssh-agent -a %s/socket >%s/env && SSH_AUTH_SOCK=%s/socket ssh-add -q %s"):format(folder, folder, folder, world.key()))
    world.write(folder .. "/config", ("Host far\n HostName %s\n Port %d\n User root\n IdentityAgent %s/socket\n"):format(
      m.address, m.port, folder))
    local at = ssh.host { "far", config = folder .. "/config", host_key = m.fingerprint }
    local ok, err = pcall(at.query, at, { "id", "-un" })
    world.must(". " .. folder .. "/env >/dev/null; kill $SSH_AGENT_PID")
    assert(ok, err)
    assert.equal("root", err)
  end)

  it("has sudo's rights where they were asked for, and says why not", function()
    local m = places.machine()
    local at = places.by_ssh { user = "rb-sudo", sudo = true }
    assert.equal("root", at:query { "id", "-un" })
    assert.equal("rb-plain", places.by_ssh({ user = "rb-sudo", sudo = "rb-plain" }):query { "id", "-un" })
    at:write("/root/only-root", "x", { mode = 384 })
    assert.equal("x", at:read "/root/only-root")
    at:remove "/root/only-root"
    local plain = places.by_ssh { user = "rb-plain", sudo = true }
    local err = raised(plain.query, plain, { "true" })
    assert.equal("auth", err.kind)
    assert.matches("sudo: ", err.message)
    local unprivileged = places.by_ssh { user = "rb-plain" }
    assert.equal("refused", raised(unprivileged.read, unprivileged, "/etc/shadow").kind)
    m:must [[echo 'rb-plain ALL=(ALL:ALL) ALL' >/etc/sudoers.d/plain; chmod 440 /etc/sudoers.d/plain]]
    local asked = places.by_ssh { user = "rb-plain", sudo = true, sudo_password = (secret.new("sudo", m.password)) }
    assert.equal("root", asked:query { "id", "-un" })
    assert.equal("in", asked:query { "cat", stdin = "in" })
    asked:write("/root/with-password", "x")
    assert.equal("x", asked:read "/root/with-password")
    local lines = {}
    asked:run { "sh", "-c", "id -un; cat", stdin = "more\n", on_line = function(line) lines[#lines + 1] = line end }
    assert.same({ "root", "more" }, lines)
    local j = asked:job { name = "as-root", argv = { "sh", "-c", "id -un; cat" }, stdin = "mine\n" }
    lines = {}
    j:wait { on_line = function(line) lines[#lines + 1] = line end }
    assert.same({ "root", "mine" }, lines)
    j:forget()
    asked:remove "/root/with-password"
    m:must "rm /etc/sudoers.d/plain"
  end)

  it("is the same place from its reference, which holds no secret", function()
    local word = secret.new("password", "open sesame")
    local at = places.by_ssh { user = "rb-sudo", sudo = true, sudo_password = word, password = word, seen_from_target = "10.0.0.1" }
    local reference = at:reference()
    for _, value in pairs(reference) do
      assert.is_true(value ~= word)
    end
    local again = place.open(reference)
    assert.equal("root", again:query { "id", "-un" })
    assert.equal("10.0.0.1", again.seen_from_target)
    assert.is_true(again == at)
  end)
end)

describe("connections", function()
  local function count(m)
    local n = 0
    for _, p in ipairs(m:processes()) do
      n = n + (p.command:find "^sshd: root" and 1 or 0)
    end
    return n
  end

  it("are shared, kept, and more where a server allows few channels", function()
    local m = world.sshd { name = "narrow", max_sessions = 3 }
    local at = ssh.host { m.address, port = m.port, user = "root", identity = world.key(), host_key = m.fingerprint }
    for _ = 1, 5 do
      at:query { "true" }
    end
    assert.equal(1, count(m))
    local fns = {}
    for i = 1, 40 do
      fns[i] = function() return at:query { "sh", "-c", "sleep 0.2; echo " .. i } end
    end
    local results = task.all(fns)
    for i = 1, 40 do
      assert.equal(tostring(i), results[i])
    end
    assert.is_true(count(m) <= 8)
    m:close()
  end)

  it("are one when many begin at once", function()
    local m = world.sshd { name = "wide" }
    local at = ssh.host { m.address, port = m.port, user = "root", identity = world.key(), host_key = m.fingerprint }
    local fns = {}
    for i = 1, 8 do
      fns[i] = function() return at:query { "echo", i } end
    end
    assert.same({ "1", "2", "3", "4", "5", "6", "7", "8" }, task.all(fns))
    assert.equal(1, count(m))
    m:close()
  end)

  it("that break are made again for reads, and for changes nobody pretends to know", function()
    local m, at = places.machine(), places.by_ssh()
    at:query { "true" }
    m:drop_connections()
    assert.equal("x", at:query { "echo", "x" })
    local cutter = task.spawn(function()
      task.sleep(0.5)
      m:drop_connections()
    end)
    local notices = {}
    local unsubscribe = events.subscribe(function(e) notices[#notices + 1] = e.type == "notice" and e.text or nil end)
    assert.equal("done", at:query_sh "sleep 1; echo done")
    unsubscribe()
    task.join(cutter)
    assert.matches("lost", notices[1])
    cutter = task.spawn(function()
      task.sleep(0.5)
      m:drop_connections()
    end)
    local err = raised(at.run, at, { "sleep", "2" })
    task.join(cutter)
    assert.equal("lost", err.kind)
    assert.equal("far", err.target)
  end)

  it("that are refused are tried a few times and then said", function()
    local m = world.sshd { name = "gone" }
    local at = ssh.host { m.address, port = m.port, user = "root", identity = world.key(), host_key = m.fingerprint }
    m:stop_sshd()
    local notices = 0
    local unsubscribe = events.subscribe(function(e) notices = notices + (e.type == "notice" and 1 or 0) end)
    local err = raised(at.run, at, { "true" })
    unsubscribe()
    assert.equal("unreachable", err.kind)
    assert.equal(2, notices)
    m:close()
  end)

  it("wait for a server that comes back", function()
    local m = world.sshd { name = "back" }
    local at = ssh.host { m.address, port = m.port, user = "root", identity = world.key(), host_key = m.fingerprint }
    at:query { "true" }
    m:crash()
    local boot = task.spawn(function() m:boot() end)
    retry.first_delay = 0.2
    local ok, err = pcall(at.query, at, { "hostname" })
    retry.first_delay = 0.02
    task.join(boot)
    assert(ok, err)
    assert.equal("back", err)
    m:close()
  end)

  it("work one byte at a time", function()
    local m = places.machine()
    local relay <close> = world.relay { to = m, one = true }
    local at = ssh.host { relay.address, port = relay.port, user = "root", identity = world.key(), host_key = m.fingerprint }
    local dir = at:dir "/tmp"
    dir:write("one-byte", ("x"):rep(2000))
    assert.equal(2000, #dir:read "one-byte")
    local lines = {}
    at:run { "seq", "1", "50", on_line = function(line) lines[#lines + 1] = line end }
    assert.equal(50, #lines)
    local j = at:job { name = "slow", argv = { "seq", "1", "100" } }
    local n = 0
    j:wait { on_line = function() n = n + 1 end }
    assert.equal(100, n)
    j:forget()
    dir:remove "one-byte"
  end)

  it("that stop in the middle are noticed", function()
    local m = places.machine()
    local relay <close> = world.relay { to = m }
    local at = ssh.host { relay.address, port = relay.port, user = "root", identity = world.key(), host_key = m.fingerprint,
      keepalive = 1 }
    at:query { "true" }
    relay:stop()
    local err = raised(at.run, at, { "sleep", "30" })
    assert.equal("lost", err.kind)
  end)

  it("reach other ports", function()
    local m, at = places.machine(), places.by_ssh()
    local stream <close> = ssh.dial(at, m.address, m.port)
    assert.matches("^SSH%-2.0%-OpenSSH", stream:line())
    assert.equal("unreachable", raised(ssh.dial, at, "127.0.0.1", 1).kind)
    assert.equal("usage", raised(ssh.dial, place.here, "127.0.0.1", 1).kind)
  end)
end)

describe("a key for a copy", function()
  local source, target, from, to

  setup(function()
    source, target = world.sshd { name = "source" }, world.sshd { name = "target" }
    local function open(m)
      return ssh.host { m.address, port = m.port, user = "rb-sudo", sudo = true, identity = world.key(), host_key = m.fingerprint,
        name = m.name }
    end
    to, from = open(source), open(target)
  end)

  local function authorized()
    return source:read "/home/rb-sudo/.ssh/authorized_keys"
  end

  local function pull(key, argv, o)
    local info = ssh.identity(to)
    return from:exec { stdin = key.private, reads = true, argv = key:argv(argv,
      { host_key = o and o.host_key or info.key_type .. " " .. info.key, port = source.port, user = "rb-sudo" }) }
  end

  local log_in = { "sh", "-c", '$RUNBOOK_SSH "$1" id -un', "sh" }

  it("opens the door, is restricted, and leaves no trace", function()
    log_in[5] = source.address
    local before = authorized()
    local key = ssh.with_key { from = from, to = to, expires = 3600 }
    local line = authorized():match("[^\n]*" .. key.mark:gsub("%-", "%%-") .. "\n")
    assert.matches('^restrict,expiry%-time="%d+" ssh%-ed25519 %S+ runbook:', line)
    local status, out, stderr = pull(key, log_in)
    assert.same({ 0, "rb-sudo\n" }, { status, out }, stderr)
    key:done()
    assert.equal(before, authorized())
    status = pull(key, log_in)
    assert.is_true(status ~= 0)
    key:done()
    assert.equal(before, authorized())
    world.wait_until("the agent's socket to go", function() return target:must "ls -A /tmp" == "" end)
    assert.equal("", source:must "ls -A /home/rb-sudo/.ssh | grep -v '^authorized_keys$' || :")
  end)

  it("runs one command where that is asked for", function()
    local key = ssh.with_key { from = from, to = to, command = [[echo "only this"]] }
    local status, out = pull(key, log_in)
    assert.same({ 0, "only this\n" }, { status, out })
    key:done()
  end)

  it("believes only the server it was made for", function()
    local key = ssh.with_key { from = from, to = to }
    local other = world.read(world.key() .. ".pub"):match "^%S+ %S+"
    local status, _, stderr = pull(key, log_in, { host_key = other })
    assert.equal(255, status)
    assert.matches("[Hh]ost key verification failed", stderr)
    key:done()
  end)

  it("hands on the status of what ran", function()
    local key = ssh.with_key { from = from, to = to }
    assert.equal(7, (pull(key, { "sh", "-c", "exit 7" })))
    key:done()
  end)

  it("survives others who write the same file", function()
    local before = authorized()
    local keys = task.all((function()
      local fns = {}
      for i = 1, 6 do
        fns[i] = function() return ssh.with_key { from = from, to = to } end
      end
      return fns
    end)())
    local fns = {}
    for i, key in ipairs(keys) do
      assert.matches(key.mark, authorized(), 1, true)
      fns[i] = function() key:done() end
    end
    task.all(fns)
    assert.equal(before, authorized())
  end)

  it("keeps a last line without a newline whole", function()
    local before = authorized()
    source:write("/home/rb-sudo/.ssh/authorized_keys", (before:gsub("\n$", "")))
    local key = ssh.with_key { from = from, to = to }
    assert.equal(0, (pull(key, log_in)))
    key:done()
    assert.equal(before, authorized())
  end)
end)
