-- Listeners: sockets of this machine, and ports on which an ssh server listens for us.

local core = require "runbook.core.ssh"
local gate = require "runbook.core.gate"
local listen = require "runbook.core.listen"
local ports = require "spec.support.ports"
local ssh = require "runbook.ssh"
local task = require "runbook.task"
local world = require "spec.world"

teardown(ssh.close)

describe("a listener", function()
  it("has a port, and says which address it cannot have", function()
    local first <close> = ports.listener("127.0.0.1", 0)
    assert.is_true(first:port() > 0)
    local function code(host, port)
      return select(3, gate.call("read", listen.open, host, port))
    end
    assert.equal("EADDRINUSE", code("127.0.0.1", first:port()))
    assert.equal("EADDRNOTAVAIL", code("192.0.2.1", 0))
    assert.equal("EINVAL", code("localhost", 0))
    assert.is_false(pcall(gate.call, "read", listen.open, "127.0.0.1", 65536))
  end)

  it("ends those who wait when it is closed, and can be closed twice", function()
    local listener <close> = ports.listener("127.0.0.1", 0)
    local waiter = task.spawn(function() return select(3, listener:accept()) end)
    task.sleep(0)
    local ok, err = pcall(listener.accept, listener)
    assert.is_false(ok)
    assert.matches("another task waits", tostring(err))
    listener:close()
    listener:close()
    assert.same({ true, "ECLOSED" }, { task.join(waiter) })
    assert.is_false(pcall(listener.accept, listener))
  end)

  it("forgets who is cancelled, and gives the connection to the next", function()
    local listener <close> = ports.listener("127.0.0.1", 0)
    local waiter = task.spawn(listener.accept, listener)
    task.sleep(0)
    waiter:cancel()
    assert.is_false((task.join(waiter)))
    local far <close> = ports.connect(listener:port())
    local near <close> = assert(listener:accept())
    assert(far:write "hello\n")
    assert.equal("hello", near:line())
  end)

  it("is collected with whoever waited", function()
    local port
    do
      local listener = ports.listener("127.0.0.1", 0)
      port = listener:port()
      local waiter = task.spawn(listener.accept, listener)
      task.sleep(0)
      waiter:cancel()
      task.join(waiter)
    end
    collectgarbage()
    collectgarbage()
    assert.is_true(ports.is_free(port))
  end)
end)

describe("a session's listener", function()
  local new

  setup(function() new = world.sshd { name = "new" } end)
  teardown(function() new:close() end)

  local function session(keepalive)
    return assert(core.connect {
      keepalive = keepalive,
      host = new.address, port = new.port, user = "root", identities = { new.key }, pins = { new.fingerprint },
    })
  end

  local function listening(s, port)
    return gate.call("change", s.listen, s, "127.0.0.1", port)
  end

  it("is one of several, and stops at once when it is closed", function()
    local s <close> = gate.call("read", session)
    local a, b = assert(listening(s, 0)), assert(listening(s, 0))
    assert.are_not.equal(a:port(), b:port())
    local far <close> = ports.connect(b:port())
    local near <close> = assert(b:accept())
    local port = a:port()
    a:close()
    ports.must_be_free(port)
    assert(far:write "still\n")
    assert.equal("still", near:line())
    assert.equal("EADDRINUSE", select(3, listening(s, b:port())))
    port = b:port()
    b:close()
    ports.must_be_free(port)
    assert(near:write "lives on\n")
    assert.equal("lives on", far:line())
    assert.equal(0, gate.call("read", s.exec, s, "true").status)
  end)

  it("hangs up on those nobody took", function()
    local s <close> = gate.call("read", session)
    local listener = assert(listening(s, 0))
    local far = {}
    for i = 1, 5 do
      far[i] = ports.connect(listener:port())
    end
    local near <close> = assert(listener:accept())
    listener:close()
    local ended = 0
    for i = 2, 5 do
      ended = ended + (far[i]:line() == nil and 1 or 0)
    end
    assert.equal(4, ended)
    assert(near:write "taken\n")
    assert.equal("taken", far[1]:line())
    for i = 1, 5 do
      far[i]:close()
    end
  end)

  it("needs a session that was never silent, and says so", function()
    local s <close> = gate.call("read", session, 0.2)
    assert(listening(s, 0)):close()
    local message, code
    world.wait_until("a question whether the server is there", function()
      task.sleep(0.6) -- the silence that makes one ask
      local listener <close>, said, why = listening(s, 0)
      message, code = said, why
      return listener == nil
    end)
    assert.equal("ENOTSUP", code)
    assert.matches("only a fresh ssh session", message)
    assert.equal(0, gate.call("read", s.exec, s, "true").status)
  end)

  it("ends with its session, and says how that ended", function()
    local s = gate.call("read", session)
    local listener = assert(listening(s, 0))
    local waiter = task.spawn(function() return select(3, listener:accept()) end)
    task.sleep(0.05)
    s:close()
    assert.same({ true, "ECLOSED" }, { task.join(waiter) })
    assert.equal("ECLOSED", select(3, listener:accept()))
    listener:close()
    local lost <close> = gate.call("read", session)
    local other <close> = assert(listening(lost, 0))
    new:drop_connections()
    assert.equal("ELOST", select(3, other:accept()))
    assert.equal("ELOST", select(3, listening(lost, 0)))
  end)
end)
