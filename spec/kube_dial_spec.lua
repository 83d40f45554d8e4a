-- Ways through pods: to ports of theirs, and from them to machines that only they reach.

local errors = require "runbook.errors"
local place = require "runbook.place"
local places = require "spec.support.places"
local retry = require "runbook.retry"
local ssh = require "runbook.ssh"
local world = require "spec.world"

local function raised(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  assert.is_true(errors.is(err), tostring(err))
  return err
end

local function all(from)
  local parts = {}
  for bytes in function() return (from:read()) end do
    parts[#parts + 1] = bytes
  end
  return table.concat(parts)
end

local function echoed(s, size)
  local text = ("0123456789abcdef"):rep(size // 16)
  local task = require "runbook.core.task"
  local writer = task.spawn(s.write, s, text)
  local got, length = {}, 0
  while length < #text do
    got[#got + 1] = assert(s:read())
    length = length + #got[#got]
  end
  task.join_all { writer }
  return table.concat(got) == text
end

local first_delay

setup(function() first_delay, retry.first_delay = retry.first_delay, 0.01 end)
teardown(function()
  retry.first_delay = first_delay
  ssh.close()
end)

describe("a way through a pod", function()
  local server, cluster, machine

  setup(function()
    server = world.websocketd { protocols = "v5.channel.k8s.io v4.channel.k8s.io" }
    cluster = places.cluster_of(server)
    machine = world.sshd { name = "behind" }
  end)

  teardown(function()
    ssh.close()
    server:close()
  end)

  local function host(o)
    local given = { machine.address, port = machine.port, user = "root", identity = world.key(), host_key = machine.fingerprint }
    for key, value in pairs(o) do
      given[key] = value
    end
    return ssh.host(given)
  end

  it("is one for ssh, and leaves nothing behind", function()
    local at = host { via = cluster:dial { pod = "far" } }
    assert.equal("behind the pod", at:query { "echo", "behind the pod" })
    assert.equal("3000000", at:query { "wc", "-c", stdin = ("x"):rep(3000000) })
    assert.equal(5000000, #at:query { "head", "-c", "5000000", "/dev/zero" })
    assert.matches("pods/far/exec", server:requests()[1])
    ssh.close()
    world.wait_until("the end of what was run in the pod", function()
      return select(2, world.sh(("pgrep -f '[%s]%s %d'"):format(machine.address:sub(1, 1), machine.address:sub(2), machine.port))) ~= 0
    end)
  end)

  for _, name in ipairs { "nc", "socat", "python3", "bash" } do
    it("may be made of " .. name, function()
      local program = world.sh("PATH=/usr/bin:/bin command -v " .. (name == "nc" and "busybox" or name))
      if program == "" then
        assert.equal("socat", name) -- the others belong to the world
        return
      end
      local bin = world.folder "bin"
      world.must(("ln -s %s %s/%s && ln -s $(command -v sh) $(command -v dd) $(command -v cat) %s/"):format(program, bin, name, bin))
      local only = world.websocketd { protocols = "v4.channel.k8s.io", path = bin }
      local at = host { via = places.cluster_of(only):dial { pod = "far" } }
      assert.equal("x", at:query { "echo", "x" })
      assert.equal(5000000, #at:query { "head", "-c", "5000000", "/dev/zero" })
      ssh.close()
      only:close()
    end)
  end

  it("says so where the image has none of them", function()
    local bin = world.folder "bin"
    world.must(("ln -s $(command -v sh) $(command -v dd) %s/"):format(bin))
    local only <close> = world.websocketd { protocols = "v4.channel.k8s.io", path = bin }
    local err = raised(function() host({ via = places.cluster_of(only):dial { pod = "far" } }):query { "true" } end)
    assert.same({ "missing", "ENODIAL" }, { err.kind, err.code })
    assert.matches("none of socat, nc, python3, bash", err.message)
  end)

  it("hands on why there is no connection", function()
    local err = raised(function() host({ via = cluster:dial { pod = "far" }, port = 1, timeout = 20 }):query { "true" } end)
    assert.equal("unreachable", err.kind, err.message)
    assert.matches("far said: .*refused", err.message:lower())
  end)

  it("is found again by another process", function()
    local at = host { via = cluster:dial { pod = "far" } }
    local again = place.open(at:reference())
    assert.matches("kube.dial", again.backend.options.via:reference().kind)
    assert.matches("not both", raised(host, { via = cluster:dial { pod = "far" }, jump = "x" }).message)
  end)

  it("leads to ports of the pod itself", function()
    local web <close> = world.httpd()
    local s <close> = cluster:forward { pod = "far", port = web.port }
    assert(s:write "GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert.matches("^HTTP/1.1 200", all(s))
    local none, why = cluster:forward { pod = "far", port = 1 }
    assert.equal("", all(none))
    assert.matches("forwarding 1", why())
    none:close()
  end)
end)

describe("a way through a pod of a real cluster", function()
  local one, cluster, namespace

  setup(function()
    one = world.kube.up "old"
    namespace = one:namespace "dial"
    one:apply([[
apiVersion: v1
kind: Pod
metadata: { name: far, labels: { app: far } }
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - { name: main, image: "world/busybox:1", command: ["nc", "-ll", "-p", "7777", "-e", "cat"] }
]], namespace)
    one:kubectl { "-n", namespace, "wait", "--for=condition=Ready", "pod/far", "--timeout=60s" }
    cluster = require("runbook.kube").cluster { kubeconfig = one.kubeconfig, context = "old" }
  end)

  it("leads to its ports", function()
    local s <close> = cluster:forward { pod = "far", namespace = namespace, port = 7777 }
    assert.is_true(echoed(s, 1000000))
    local none, why = cluster:forward { selector = "app=far", namespace = namespace, port = 1 }
    assert.equal("", all(none))
    assert.matches("refused", why())
    none:close()
  end)

  it("leads from it to others", function()
    local dial = cluster:dial { pod = "far", namespace = namespace }
    local address = one:kubectl { "-n", namespace, "get", "pod", "far", "-o", "jsonpath={.status.podIP}" }
    local s <close> = dial:connect(address, 7777)
    assert.is_true(echoed(s, 1000000))
    local own <close> = dial:connect("localhost", 7777)
    assert.is_true(echoed(own, 1000))
  end)
end)
