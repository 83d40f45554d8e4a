-- Tunnels through ssh servers, both ways.

local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local gate = require "runbook.core.gate"
local http = require "runbook.http"
local lab = require "spec.support.lab"
local place = require "runbook.place"
local places = require "spec.support.places"
local plan = require "runbook.plan"
local ports = require "spec.support.ports"
local runs = require "spec.support.runs"
local ssh = require "runbook.ssh"
local task = require "runbook.task"
local world = require "spec.world"

local function raised(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  assert.is_true(errors.is(err), tostring(err))
  return err
end

local function read_all(s)
  local pieces = {}
  for piece in function() return s:read() end do
    pieces[#pieces + 1] = piece
  end
  return table.concat(pieces)
end

-- Answers only after the end of what was sent, so that the end has to come through.
local function reverse(s)
  s:write(read_all(s):reverse())
  s:half_close()
end

local function echo(s)
  for line in function() return s:line() end do
    s:write(line .. "\n")
  end
end

-- What was noticed while `fn` ran, which may look at it itself.
local function noticing(fn)
  local texts = {}
  local stop <close> = setmetatable({}, { __close = events.subscribe(function(event)
    if event.type == "notice" then
      texts[#texts + 1] = event.text
    end
  end) })
  assert(stop)
  fn(texts)
  return texts
end

local function assert_asks_and_answers(s, word)
  assert(s:write(word .. "\n"))
  assert.equal(word, (s:line()))
end

-- A server that has not noticed yet that it lost us takes a connection and drops it.
local function must_answer_again(port)
  world.wait_until("an answer from the port", function()
    local ok, found = pcall(ports.connect, port)
    local s <close> = ok and found or nil
    return s and s:write "again\n" and s:line() == "again"
  end, 40)
end

local old, new

setup(function()
  old, new = world.sshd { name = "old" }, world.sshd { name = "new" }
end)

teardown(ssh.close)

-- What both kinds of tunnel must do. `open(to, fn)`: `fn(port)` runs while 127.0.0.1:port leads to `to`, "host:port".
local kinds = {
  {
    name = "a tunnel", said = "tunnel to %s from far",
    open = function(to, fn) return places.by_ssh():tunnel({ to = to }, fn) end,
  },
  {
    name = "a reverse tunnel", said = "tunnel on new to %s from old",
    open = function(to, fn) return lab.place(new):reverse_tunnel({ to = to, via = lab.place(old) }, fn) end,
  },
}

for _, kind in ipairs(kinds) do
  describe(kind.name, function()
    it("carries bytes both ways, and the end of each", function()
      ports.served(reverse, function(to, port)
        local sent = ("0123456789abcdef"):rep(100000)
        local used
        local got = kind.open(to, function(here)
          assert.are_not.equal(port, here)
          used = here
          local s <close> = ports.connect(here)
          local writer = task.spawn(function()
            assert(s:write(sent))
            assert(s:half_close())
          end)
          local all = read_all(s)
          assert(task.join(writer))
          return all
        end)
        assert.is_true(got == sent:reverse())
        ports.must_be_free(used)
      end)
    end)

    it("serves what speaks http", function()
      local web <close> = world.httpd {
        script = { ["GET /"] = { { status = 200, body = "one" }, { status = 200, body = "two" } } },
      }
      kind.open("127.0.0.1:" .. web.port, function(port)
        assert.equal("one", http.get({ ("http://127.0.0.1:%d/"):format(port) }).body)
        assert.equal("two", http.get({ ("http://127.0.0.1:%d/"):format(port) }).body)
      end)
    end)

    it("carries many at once", function()
      ports.served(echo, function(to)
        kind.open(to, function(here)
          local streams, all = {}, {}
          for i = 1, 60 do
            all[i] = function() streams[i] = ports.connect(here) end
          end
          task.all(all)
          for round = 1, 3 do
            for i, s in ipairs(streams) do
              assert(s:write(("%d of %d\n"):format(round, i)))
            end
            for i = #streams, 1, -1 do
              assert.equal(("%d of %d"):format(round, i), streams[i]:line())
            end
          end
        end)
      end)
    end)

    it("holds back who sends more than is read, and loses nothing of it", function()
      local piece = ("0123456789abcde\n"):rep(4096)
      local taken = 0
      ports.served(function(s)
        while taken < 96 << 20 and s:write(piece) do
          taken = taken + #piece
        end
        s:half_close()
      end, function(to)
        kind.open(to, function(here)
          local function resident()
            return tonumber(world.read("/proc/self/status"):match "VmRSS:%s*(%d+)") << 10
          end
          local s <close> = ports.connect(here)
          local before, last = resident(), -1
          world.wait_until("a standstill", function()
            local still = taken > 0 and taken == last
            last = taken
            task.sleep(0.3)
            return still
          end, 100)
          assert.is_true(taken < 64 << 20, "sent without a reader: " .. taken)
          assert.is_true(resident() - before < 48 << 20, "memory: " .. resident() - before)
          local got, whole = 0, true
          for bytes in function() return s:read(1 << 20) end do
            whole = whole and bytes:sub(1, 1) == piece:sub(got % 16 + 1, got % 16 + 1)
            got = got + #bytes
          end
          assert.is_true(whole)
          assert.equal(96 << 20, got)
        end)
      end)
    end)

    it("closes a connection whose far port refuses, says why once, and goes on", function()
      local port = ports.free()
      local to = ("127.0.0.1:%d"):format(port)
      local texts = noticing(function(texts)
        kind.open(to, function(here)
          for _ = 1, 3 do
            local s <close> = ports.connect(here)
            assert.is_nil((s:read()))
          end
          world.wait_until("a notice", function() return texts[1] end)
          local server <close> = ports.listener("127.0.0.1", port)
          local again <close> = ports.connect(here)
          local far <close> = assert(server:accept())
          assert(far:write "here now\n")
          assert.equal("here now", again:line())
        end)
      end)
      assert.equal(1, #texts)
      assert.matches(kind.said:format(to), texts[1], 1, true)
      assert.matches(("cannot connect to 127.0.0.1 port %d"):format(port), texts[1], 1, true)
    end)

    it("ends with its function: port, connections and tasks, also when that fails", function()
      ports.served(echo, function(to)
        local left, used
        local err = raised(kind.open, to, function(here)
          used, left = here, ports.connect(here)
          assert_asks_and_answers(left, "a")
          errors.raise { kind = "conflict", message = "enough" }
        end)
        assert.equal("enough", err.message)
        assert.is_nil((left:line()))
        left:close()
        ports.must_be_free(used)
      end)
    end)

    it("ends with the task that made it", function()
      ports.served(echo, function(to)
        local left, used
        local maker = task.spawn(function()
          kind.open(to, function(here)
            used = here
            local s = ports.connect(here)
            assert_asks_and_answers(s, "a")
            left = s
            task.sleep(1000)
          end)
        end)
        world.wait_until("a connection", function() return left end)
        maker:cancel()
        local ok, err = task.join(maker)
        assert.is_false(ok)
        assert.is_true(errors.is_cancelled(err))
        assert.is_nil((left:line()))
        left:close()
        ports.must_be_free(used)
      end)
    end)

    it("can be given up at any moment of its opening", function()
      for delay = 0, 20 do
        local maker = task.spawn(function()
          kind.open("127.0.0.1:1", function() task.sleep(1000) end)
        end)
        task.sleep(delay * 0.004)
        maker:cancel()
        local ok, err = task.join(maker)
        assert.is_false(ok)
        assert.is_true(errors.is_cancelled(err), tostring(err))
      end
    end)

    it("gives what its function returns, with the rights its caller had", function()
      local before = gate.class()
      assert.equal(2, select("#", kind.open("127.0.0.1:22", function() return nil, nil end)))
      assert.equal(before, kind.open("127.0.0.1:22", gate.class))
    end)
  end)
end

describe("a tunnel", function()
  it("survives the loss of the server's connection: what was open ends, what comes is connected anew", function()
    local relay <close> = world.relay { to = places.machine() }
    local at = places.by_ssh { port = relay.port, [1] = relay.address }
    ports.served(echo, function(to)
      local texts = noticing(function(texts)
        at:tunnel({ to = to }, function(here)
          local s <close> = ports.connect(here)
          assert_asks_and_answers(s, "before")
          relay:cut()
          assert.is_nil((s:line()))
          world.wait_until("a notice", function() return texts[1] end)
          relay:go()
          local again <close> = ports.connect(here)
          assert_asks_and_answers(again, "after")
        end)
      end)
      assert.equal(1, #texts)
      assert.matches("the connection to .* was lost", texts[1])
    end)
  end)

  it("says what a server must allow", function()
    local strict <close> = world.sshd { name = "strict", config = { "AllowTcpForwarding no" } }
    local texts = noticing(function(texts)
      lab.place(strict):tunnel({ to = "127.0.0.1:22" }, function(here)
        local s <close> = ports.connect(here)
        assert.is_nil((s:read()))
        world.wait_until("a notice", function() return texts[1] end)
      end)
    end)
    assert.matches("does not allow connections through it; its sshd_config must allow it: AllowTcpForwarding", texts[1], 1, true)
  end)

  it("is a read, and a person could have typed it", function()
    local d = effect.find "place.tunnel"
    local at = ssh.host { "me@far", port = 2222 }
    assert.equal("read", d.class)
    assert.equal("ssh -N -L 5432:db:5432 -p 2222 me@far", d.by_hand { at = at, host = "db", far_port = 5432 })
    assert.equal("ssh -N -L '20873:[::1]:873' -p 2222 me@far", d.by_hand { at = at, host = "::1", far_port = 873 })
  end)

  it("says what is wrong with it before anything is connected", function()
    local at = ssh.host { "host.invalid" }
    for _, to in ipairs { "5432", "db", "db:0", "db:65536", "::1:80", "a b:1", ":1" } do
      local err = raised(at.tunnel, at, { to = to }, print)
      assert.equal("usage", err.kind)
      assert.matches("no address and port", err.message)
    end
    assert.equal("usage", raised(at.tunnel, at, {}, print).kind)
    assert.matches("did you mean `to`", raised(at.tunnel, at, { too = "a:1" }, print).message)
    assert.matches("a function", raised(at.tunnel, at, { to = "a:1" }).message)
    assert.matches("not reached by ssh", raised(place.here.tunnel, place.here, { to = "a:1" }, print).message)
  end)

  it("is not opened when the server cannot be reached", function()
    local at = places.by_ssh { port = ports.free(), [1] = "127.0.0.1" }
    local ran = false
    assert.equal("unreachable", raised(at.tunnel, at, { to = "127.0.0.1:1" }, function() ran = true end).kind)
    assert.is_false(ran)
  end)
end)

describe("a reverse tunnel", function()
  it("lets two servers talk that do not see each other", function()
    old:must "mkdir -p /srv/from && head -c 3000000 /dev/urandom > /srv/from/big && mkdir /srv/from/deep && echo x > /srv/from/deep/file"
    new:must "rm -rf /srv/to"
    local to = ("%s:%d"):format(old.address, old.port)
    world.must(("cp %s %s && chmod 600 %s"):format(old.key, new:path "/root/key", new:path "/root/key"))
    lab.place(new):reverse_tunnel({ to = to, via = lab.place(old) }, function(port)
      lab.place(new):run { "rsync", "-a", "-e",
        ("ssh -p %d -i /root/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"):format(port),
        "127.0.0.1:/srv/from/", "/srv/to/" }
    end)
    assert.equal("", (world.sh(("diff -r %s %s"):format(old:path "/srv/from", new:path "/srv/to"))))
  end)

  it("takes its streams from a function", function()
    ports.served(echo, function(_, port)
      local asked = 0
      local function dial()
        asked = asked + 1
        return asked == 2 and errors.raise { kind = "missing", message = "not this time" } or ports.connect(port)
      end
      local texts = noticing(function()
        lab.place(new):reverse_tunnel({ to = dial }, function(here)
          local first <close> = ports.connect(here)
          assert_asks_and_answers(first, "one")
          local second <close> = ports.connect(here)
          assert.is_nil((second:line()))
          local third <close> = ports.connect(here)
          assert_asks_and_answers(third, "three")
          assert_asks_and_answers(first, "still")
        end)
      end)
      assert.same({ "tunnel on new: not this time" }, texts)
    end)
  end)

  it("is lost with its server, and found again on the same port", function()
    local relay <close> = world.relay { to = new }
    local at = ssh.host { relay.address, name = "new", port = relay.port, user = "root", identity = new.key, host_key = new.fingerprint }
    ports.served(echo, function(to)
      local texts = noticing(function()
        at:reverse_tunnel({ to = to, via = lab.place(old) }, function(here)
          local s <close> = ports.connect(here)
          assert_asks_and_answers(s, "before")
          relay:cut()
          assert.is_nil((s:line()))
          relay:go()
          must_answer_again(here)
        end)
      end)
      assert.matches("tunnel on new to .*: the connection to .* was lost: .*; I open the tunnel again", table.concat(texts, "\n"))
    end)
  end)

  it("waits for its port while the server has not noticed the loss", function()
    local relay <close> = world.relay { to = new }
    local at = ssh.host {
      relay.address, name = "new", port = relay.port, user = "root", identity = new.key, host_key = new.fingerprint, keepalive = 0.3,
    }
    ports.served(echo, function(to)
      local texts = noticing(function(texts)
        at:reverse_tunnel({ to = to, via = lab.place(old) }, function(here)
          relay:stop()
          world.wait_until("the loss", function() return texts[1] end)
          -- its server has heard nothing and still listens; we go round the relay, which passes nothing
          local straight = ssh.host { new.address, name = "new", port = new.port, user = "root", identity = new.key, host_key = new.fingerprint }
          at.backend.options = straight.backend.options
          world.wait_until("a port that is taken", function()
            return table.concat(texts, "\n"):find("it is taken there, or not allowed", 1, true)
          end, 40)
          assert.is_false(ports.is_free(here))
          relay:cut()
          must_answer_again(here)
        end)
      end)
      assert.matches("no answer for", table.concat(texts, "\n"))
    end)
  end)

  it("stays what it is when the server that it leads to is lost", function()
    local relay <close> = world.relay { to = old }
    local via = ssh.host { relay.address, name = "old", port = relay.port, user = "root", identity = old.key, host_key = old.fingerprint }
    ports.served(echo, function(to)
      lab.place(new):reverse_tunnel({ to = to, via = via }, function(here)
        local s <close> = ports.connect(here)
        assert_asks_and_answers(s, "before")
        relay:cut()
        assert.is_nil((s:line()))
        relay:go()
        local again <close> = ports.connect(here)
        assert_asks_and_answers(again, "after")
      end)
    end)
  end)

  it("says what a server must allow", function()
    for _, line in ipairs { "AllowTcpForwarding no", "AllowTcpForwarding local", "PermitListen 127.0.0.1:1" } do
      local strict <close> = world.sshd { name = "strict", config = { line } }
      local at, ran = lab.place(strict), false
      local err = raised(at.reverse_tunnel, at, { to = "127.0.0.1:22", via = lab.place(old) }, function() ran = true end)
      assert.equal("refused", err.kind)
      assert.matches("refuses to listen on a port for us", err.message)
      assert.matches("AllowTcpForwarding (yes or remote), PermitListen", err.hint, 1, true)
      assert.is_false(ran)
    end
  end)

  it("needs no more of a server than forwarding", function()
    local only <close> = world.sshd { name = "only", max_sessions = 0 }
    ports.served(echo, function(to)
      lab.place(only):reverse_tunnel({ to = to, via = lab.place(old) }, function(here)
        for i = 1, 3 do
          local s <close> = ports.connect(here)
          assert_asks_and_answers(s, "word " .. i)
        end
      end)
    end)
  end)

  it("works one byte at a time", function()
    local relay <close> = world.relay { to = new, one = true }
    local at = ssh.host { relay.address, port = relay.port, user = "root", identity = new.key, host_key = new.fingerprint }
    ports.served(reverse, function(to)
      at:reverse_tunnel({ to = to, via = lab.place(old) }, function(here)
        local s <close> = ports.connect(here)
        assert(s:write(("abc"):rep(1000)))
        assert(s:half_close())
        assert.equal(("cba"):rep(1000), read_all(s))
      end)
    end)
  end)

  it("is a change, and a person could have typed it", function()
    local d = effect.find "place.reverse_tunnel"
    assert.equal("change", d.class)
    assert.equal("ssh -N -L 20022:127.0.0.1:22 old & ssh -N -R 127.0.0.1:0:127.0.0.1:20022 new",
      d.by_hand { at = ssh.host { "new" }, via = ssh.host { "old" }, host = "127.0.0.1", far_port = 22 })
  end)

  it("says what is wrong with it before anything is connected", function()
    local at = ssh.host { "host.invalid" }
    local function usage(o, fn)
      local err = raised(at.reverse_tunnel, at, o, fn)
      assert.equal("usage", err.kind)
      return err.message
    end
    assert.matches("which server finds `to`", usage({ to = "a:1" }, print))
    assert.matches("needs no `via`", usage({ to = print, via = at }, print))
    assert.matches("no address and port", usage({ to = "a", via = at }, print))
    assert.matches("a function", usage { to = "a:1", via = at })
    assert.matches("not reached by ssh", usage({ to = "a:1", via = place.here }, print))
    assert.matches("not reached by ssh", raised(place.here.reverse_tunnel, place.here, { to = print }, print).message)
  end)
end)

describe("in a plan", function()
  before_each(runs.fresh)
  after_each(runs.clean)

  it("a tunnel is opened, for what is read through it; a reverse tunnel is listed, and not opened", function()
    ports.served(echo, function(to)
      package.preload.tunnel_of_spec = function()
        return { old = lab.place(old), new = lab.place(new), to = to, connect = ports.connect }
      end
      local made = plan.make(runs.load [[
        local t = require "tunnel_of_spec"
        rb.step("there", "There", function()
          return t.old:tunnel({ to = t.to }, function(port)
            local s <close> = t.connect(port)
            s:write "planned\n"
            return s:line()
          end)
        end)
        rb.step("back", "Back", function()
          t.new:reverse_tunnel({ to = t.to, via = t.old }, function(port)
            toy.make("a copy from port " .. port)
          end)
        end)
      ]], {})
      package.preload.tunnel_of_spec, package.loaded.tunnel_of_spec = nil, nil
      local there, back = made.steps[1], made.steps[2]
      assert.same({}, there.changes)
      assert.equal("planned", there.value)
      assert.equal(("open a tunnel on new to %s from old"):format(to), back.changes[1].summary)
      assert.equal("new", back.changes[1].target)
      assert.matches("^ssh .*%-R 127.0.0.1:0:127.0.0.1:%d+ ", back.changes[1].by_hand)
      assert.matches("^make a copy from port ", back.changes[2].summary)
      assert.is_true(back.changes[2].tilde)
    end)
  end)

  it("and in a run both are", function()
    ports.served(echo, function(to)
      local got
      lab.must(function()
        lab.place(new):reverse_tunnel({ to = to, via = lab.place(old) }, function(here)
          local s <close> = ports.connect(here)
          s:write "run\n"
          got = s:line()
        end)
      end)
      assert.equal("run", got)
    end)
  end)
end)
