local world = require "spec.world"

-- What the rest of the suite stands on: if one of these is wrong, no other verdict means anything.
describe("the world", function()
  local function ssh(config, name, command)
    return world.sh(("ssh -F %s %s %s"):format(config, name, world.quote(command)))
  end

  describe("machines", function()
    local old, new, config

    setup(function()
      old = world.sshd { name = "nfs-old", max_sessions = 3 }
      new = world.sshd { name = "nfs-new", disks = { ["/srv"] = "12M" } }
      config = world.ssh_config { old, new }
    end)

    teardown(function()
      old:close()
      new:close()
    end)

    it("answer ssh under their own names, on their own addresses, with their own host keys", function()
      assert.equal("nfs-old", ssh(config, "nfs-old", "uname -n"))
      assert.equal("nfs-new", ssh(config, "nfs-new", "uname -n"))
      assert.not_equal(old.address, new.address)
      assert.not_equal(old.fingerprint, new.fingerprint)
      local seen = world.must(("ssh-keyscan -p %d %s 2>/dev/null | ssh-keygen -lf -"):format(old.port, old.address))
      assert.truthy(seen:find(old.fingerprint, 1, true))
    end)

    it("do not see each other's files, nor change ours", function()
      assert.equal("", ssh(config, "nfs-old", "echo from old > ~/note; echo x > /srv/x; echo x > /tmp/only-old"))
      assert.equal("from old\n", old:read "/root/note")
      local _, code = ssh(config, "nfs-new", "cat ~/note /tmp/only-old")
      assert.equal(1, code)
      assert.is_nil(world.read "/tmp/only-old")
      assert.is_nil(world.read "/root/note")
    end)

    it("have a user who may sudo and one who may not", function()
      local as_sudo, as_plain = world.ssh_config({ old }, { user = old.user_sudo }), world.ssh_config({ old }, { user = old.user_plain })
      assert.equal("root", ssh(as_sudo, "nfs-old", "sudo -n id -un"))
      assert.equal("rb-plain", ssh(as_plain, "nfs-old", "id -un"))
      local _, code = ssh(as_plain, "nfs-old", "sudo -n id -un")
      assert.equal(1, code)
      assert.equal("rb-plain /home/rb-plain", ssh(as_plain, "nfs-old", 'echo "$USER $HOME"'))
      assert.not_equal(0, select(2, world.sh "id rb-sudo"))
    end)

    it("let nobody in without a key, but any key of ours", function()
      local function try(kind)
        return select(2, ssh(world.ssh_config({ old }, { key = world.key(kind) }), "nfs-old", "true"))
      end
      assert.equal(255, try "stranger")
      for _, kind in ipairs { "ed25519", "rsa", "ecdsa", "rsa_pem", "cert" } do
        assert.equal(0, try(kind), kind)
      end
    end)

    it("keep their disks over a crash, and nothing else", function()
      ssh(config, "nfs-new", "echo kept > /srv/kept; nohup sleep 1000 >/dev/null 2>&1 </dev/null &")
      local before = ssh(config, "nfs-new", "cat /proc/sys/kernel/random/boot_id")
      assert.equal(before, ssh(config, "nfs-new", "cat /proc/sys/kernel/random/boot_id"))
      assert.equal("sleep 1000", new:processes()[1].command)
      new:crash()
      assert.equal(255, select(2, ssh(config, "nfs-new", "true")))
      new:boot()
      assert.same({}, new:processes())
      assert.equal("kept", ssh(config, "nfs-new", "cat /srv/kept"))
      assert.not_equal(before, ssh(config, "nfs-new", "cat /proc/sys/kernel/random/boot_id"))
    end)

    it("run out of space where they have a disk of their own", function()
      local output, code = ssh(config, "nfs-new", "head -c 20M /dev/zero > /srv/big; echo $?; rm /srv/big")
      assert.equal(0, code)
      assert.truthy(output:find "No space left on device")
    end)

    it("can lose their connections and what runs on them", function()
      old:must "sh -c 'sleep 2000 >/dev/null 2>&1 & sleep 2001 >/dev/null 2>&1 &'"
      assert.equal(1, old:kill "sleep 2000")
      assert.equal(0, old:kill "sleep 2000")
      local client = world.start({ "ssh", "-F", config, "nfs-old", "sleep 2002" })
      world.wait_until("a connection", function()
        return old:sh "pgrep -f '^sleep 2002'" ~= ""
      end)
      assert.is_true(old:drop_connections() > 0)
      world.wait_until("the client to notice", function() return not client:alive() end)
      old:kill "sleep 200"
    end)

    it("can be without an ssh server for a while", function()
      old:stop_sshd()
      world.wait_until("the port to close", function() return select(2, ssh(config, "nfs-old", "true")) == 255 end)
      old:start_sshd()
      assert.equal(0, select(2, ssh(config, "nfs-old", "true")))
    end)

    it("refuse a session too many", function()
      local master = world.folder "control" .. "/socket"
      world.must(("ssh -F %s -o ControlMaster=yes -o ControlPath=%s -o ControlPersist=yes nfs-old true"):format(config, master))
      local through = ("ssh -F %s -o ControlPath=%s nfs-old"):format(config, master)
      world.must(("for i in 1 2 3; do %s sleep 1003 >/dev/null 2>&1 </dev/null & done"):format(through))
      world.wait_until("three sessions", function()
        return old:sh "pgrep -fc '^sleep 1003'" == "3"
      end)
      assert.truthy(world.sh(through .. " true"):find "Session open refused by peer")
      old:kill "sleep 1003"
      world.sh(("ssh -F %s -o ControlPath=%s -O exit nfs-old"):format(config, master))
    end)

    it("may answer on many addresses, or lack programs", function()
      local many <close> = world.sshd {
        addresses = { world.address(), world.address(), world.address() },
        programs = { "sh", "bash", "cat" },
      }
      for _, address in ipairs(many.addresses) do
        assert.equal("hello", world.sh(("echo hello | ssh -F %s -o HostName=%s -o HostKeyAlias='[%s]:%d' %s cat"):format(
          world.ssh_config { many }, address, many.address, many.port, many.name)))
      end
      assert.equal(127, select(2, ssh(world.ssh_config { many }, many.name, "rsync --version")))
    end)

    it("leave no process and no mount behind", function()
      local m = world.sshd { disks = { ["/srv"] = "8M" } }
      m:must "setsid sh -c 'sleep 3000 & sleep 3001' >/dev/null 2>&1 &"
      local pids = world.children(m.leash.pid)
      m:close()
      for _, pid in ipairs(pids) do
        assert.is_false(world.alive(pid))
      end
      assert.equal("", (world.sh "pgrep -f '^sleep 300[01]'"))
      assert.is_nil(world.read("/proc/mounts"):find(m.folder, 1, true))
      assert.is_nil(world.must("losetup -a"):find(m.folder, 1, true))
    end)
  end)

  describe("relays", function()
    local echo = [[
import socket, threading
s = socket.create_server(("127.0.0.1", 0))
print(s.getsockname()[1], flush=True)
def serve(c):
    with c:
        while data := c.recv(65536):
            c.sendall(data)
while True:
    threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
]]
    -- A client that sends `sent` bytes, then says what came back, how long that took and how it ended.
    local client = [[
import socket, sys, time
c = socket.create_connection((sys.argv[1], int(sys.argv[2])))
c.settimeout(float(sys.argv[4]))
sent = bytes(i % 251 for i in range(int(sys.argv[3])))
start, got, pieces, end = time.time(), b"", 0, "whole"
try:
    c.sendall(sent)
    c.shutdown(socket.SHUT_WR)
    while data := c.recv(65536):
        got += data
        pieces += 1
    end = "whole" if got == sent else "short"
except TimeoutError:
    end = "timeout"
except OSError: # reset; or so early that there is nothing left to shut down
    end = "reset"
assert sent.startswith(got)
print(end, len(got), pieces, time.time() - start)
]]
    local folder, server

    setup(function()
      folder = world.folder "echo"
      world.write(folder .. "/echo.py", echo)
      world.write(folder .. "/client.py", client)
      local leash = world.start({ "python3", folder .. "/echo.py" }, { log = folder .. "/port" })
      server = { address = "127.0.0.1", leash = leash }
      server.port = world.wait_until("the echo", function() return tonumber(world.read(folder .. "/port") or "") end)
    end)

    teardown(function()
      server.leash:stop()
    end)

    local function send(relay, bytes, patience)
      local said = world.must(("python3 %s/client.py %s %d %d %g"):format(folder, relay.address, relay.port, bytes, patience or 5))
      local how, got, pieces, seconds = said:match "^(%a+) (%d+) (%d+) ([%d.e-]+)$"
      return how, tonumber(got), tonumber(pieces), tonumber(seconds)
    end

    it("pass everything both ways and count it", function()
      local relay <close> = world.relay { to = server }
      assert.equal("whole", (send(relay, 3000000)))
      assert.same({ connections = 1, there = 3000000, back = 3000000 }, relay:passed())
    end)

    it("cut after so many bytes, and work again for the next", function()
      local relay <close> = world.relay { to = server, cut_after = 150000 }
      local how = send(relay, 100000)
      assert.equal("reset", how)
      local passed = relay:passed()
      assert.equal(150000, passed.there + passed.back)
      assert.equal("whole", (send(relay, 100000)))
    end)

    it("stop after so many bytes until they are told to go", function()
      local relay <close> = world.relay { to = server, stop_after = 1000 }
      assert.equal("timeout", (send(relay, 5000, 0.3)))
      assert.equal(1000, relay:passed().there + relay:passed().back)
      relay:go()
      assert.equal("whole", (send(relay, 5000)))
    end)

    it("pass one byte at a time", function()
      local relay <close> = world.relay { to = server, one = true }
      local how, got, pieces = send(relay, 2000)
      assert.equal("whole", how)
      assert.equal(2000, got)
      assert.is_true(pieces > 2, pieces) -- a reader that is late finds several at once
    end)

    it("hold each piece for a while", function()
      local relay <close> = world.relay { to = server, delay = 0.2 }
      local how, _, _, seconds = send(relay, 100)
      assert.equal("whole", how)
      assert.is_true(seconds >= 0.4 and seconds < 3, seconds)
    end)

    it("refuse, cut and hang up when told", function()
      local relay <close> = world.relay { to = server, refuse = true }
      assert.equal("reset", (send(relay, 10)))
      relay:go()
      assert.equal("whole", (send(relay, 10)))
      relay:hang_up(10)
      assert.equal("short", (send(relay, 10)))
      relay:cut(10)
      assert.equal("reset", (send(relay, 10)))
    end)

    it("carry ssh, byte by byte", function()
      local m <close> = world.sshd {}
      local relay <close> = world.relay { to = m, one = true }
      assert.equal("through", world.sh(("ssh -F %s -o HostName=%s -o Port=%d -o HostKeyAlias='[%s]:%d' %s echo through"):format(
        world.ssh_config { m }, relay.address, relay.port, m.address, m.port, m.name)))
    end)
  end)

  describe("small file systems", function()
    for _, kind in ipairs { "ext4", "tmpfs" } do
      it("fill up: " .. kind, function()
        local small <close> = world.filesystem { size = "6M", kind = kind }
        world.write(small.path .. "/a", ("x"):rep(1000000))
        small:fill()
        local output, code = world.sh("head -c 100000 /dev/zero > " .. small.path .. "/b")
        assert.equal(1, code)
        assert.truthy(output:find "No space left on device")
      end)
    end
  end)

  describe("home directories", function()
    local function pair()
      local folder = world.folder "trees"
      world.homes(folder .. "/a", { homes = 12, files = 400 })
      world.homes(folder .. "/b", { homes = 12, files = 400 })
      return folder .. "/a", folder .. "/b"
    end

    it("are the same whenever they are made, and hold every kind of thing", function()
      local a, b = pair()
      assert.equal("", world.tree_difference(a, b))
      local tree = world.tree(a)
      for _, kind in ipairs { " file ", " dir ", " link ", " fifo ", "same-as=", "holes", "user.origin=", "posix_acl_access=",
        "\\xfe", "\\n", " 2775 " } do
        assert.truthy(tree:find(kind, 1, true), kind)
      end
    end)

    it("are seen to differ in the smallest thing", function()
      local a, b = pair()
      local function find(what)
        return (world.must(("find %s %s | LC_ALL=C sort | head -1"):format(b, what)))
      end
      local file = world.quote(find "-type f -name '*model.pkl' -size +3k -size -20k -links 1 -perm 644")
      local link = world.quote(find "-type l -name '*core'")
      local before = "cp -a --reflink=never " .. file .. " " .. b .. ".keep"
      local changes = {
        bytes = ("printf X | dd of=%s bs=1 seek=7 conv=notrunc && touch -r %s.keep %s"):format(file, b, file),
        mode = "chmod u+s " .. file,
        owner = ("chown 77 %s && chmod --reference %s.keep %s"):format(file, b, file),
        nanosecond = ("touch -d '2001-01-01 00:00:00.000000001' %s"):format(file),
        xattr = "setfattr -n user.spec -v x " .. file,
        acl = "setfacl -m u:77:r " .. file,
        name = ("touch -r %s %s/new && touch -r %s %s"):format(b, b, a, b),
        ["link target"] = ("ln -sfn elsewhere %s"):format(link),
        ["link time"] = ("touch -h -d 2001-01-01 %s"):format(link),
        ["hard link"] = ("ln %s %s/second && touch -r %s %s"):format(file, b, a, b),
        ["folder time"] = "touch -d 2001-01-01 " .. b,
      }
      for what, line in pairs(changes) do
        world.must(("rm -rf %s.work && cp -a %s %s.work && %s"):format(b, b, b, before))
        world.must(line)
        assert.not_equal("", world.tree_difference(a, b), what)
        world.must(("rm -rf %s && mv %s.work %s"):format(b, b, b))
        assert.equal("", world.tree_difference(a, b), what)
      end
    end)
  end)

  describe("the HTTP server", function()
    local function curl(words)
      return world.sh("curl -sS --noproxy '*' " .. words)
    end

    it("echoes, and remembers what it was asked", function()
      local web <close> = world.httpd {}
      assert.truthy(curl(("-d hello %s/there?x=1"):format(web.url)):find '"body": "hello"')
      local asked = web:requests()[1]
      assert.equal("POST", asked.method)
      assert.equal("/there?x=1", asked.path)
      assert.equal("hello", asked.body)
    end)

    it("answers as its script says, in turn", function()
      local web <close> = world.httpd { script = {
        ["GET /busy"] = { { status = 503, headers = { ["Retry-After"] = "1" } }, { body = "now", chunked = true } },
        ["GET /cut"] = { { body = "abcdef", cut = 3 } },
        ["GET /slow"] = { { body = "x", delay = 3 } },
      } }
      assert.equal("503", (curl("-o /dev/null -w '%{http_code}' " .. web.url .. "/busy")))
      assert.equal("now", (curl(web.url .. "/busy")))
      assert.equal("now", (curl(web.url .. "/busy")))
      assert.equal(56, select(2, curl(web.url .. "/cut")))
      assert.equal(28, select(2, curl("-m 0.3 " .. web.url .. "/slow")))
      web:script { ["GET /busy"] = { { body = "other" } } }
      assert.equal("other", (curl(web.url .. "/busy")))
    end)

    it("has certificates that are right, expired, for another name, or nobody's", function()
      for kind, expected in pairs { good = 0, expired = 60, wrong_name = 60, self_signed = 60 } do
        local web <close> = world.httpd { tls = kind }
        assert.equal(expected, select(2, curl(("--cacert %s %s/"):format(web.ca, web.url))), kind)
      end
    end)

    it("may ask for a certificate of the client's", function()
      local web <close> = world.httpd { tls = "good", client_certificate = true }
      local client = world.certificate "client"
      -- TLS 1.3 refuses after the handshake: curl meets it while it sends (55) or while it reads (56).
      local refused = select(2, curl(("--cacert %s %s/"):format(web.ca, web.url)))
      assert.is_true(refused == 55 or refused == 56, refused)
      assert.equal(0, select(2, curl(("--cacert %s --cert %s.pem --key %s.key %s/"):format(web.ca, client, client, web.url))))
    end)
  end)

  it("ends with the process that made it, even one that is killed", function()
    local folder = world.folder "orphans"
    world.write(folder .. "/suite.lua", ([[
      local world = require "spec.world"
      world.filesystem { size = "4M" }
      local m = world.sshd { disks = { ["/srv"] = "8M" } }
      m:must "sleep 4000 >/dev/null 2>&1 &"
      world.write("%s/made", world.folder "probe" .. "\n" .. m.leash.pid)
      require("runbook.core.task").sleep(100)
    ]]):format(folder))
    local suite = world.start({ world.runbook, "lua", folder .. "/suite.lua" }, { log = folder .. "/log" })
    local probe, leash = world.wait_until(world.read(folder .. "/log") or "a world", function()
      return world.read(folder .. "/made")
    end):match "^(%C+)\n(%d+)"
    world.sh(("kill -9 %d"):format(world.children(suite.pid)[1]))
    world.wait_until("the end of that world", function()
      return not world.alive(leash) and select(2, world.sh("test -e " .. probe)) ~= 0
        and not world.read("/proc/mounts"):find(probe:match "^(.+)/", 1, true)
    end)
    assert.equal("", (world.sh "pgrep -f '^sleep 4000'"))
  end)
end)
