-- Containers as places: against a server of ours, which speaks both versions of the channels, and a real cluster.

local errors = require "runbook.errors"
local exec = require "runbook.kube.exec"
local gate = require "runbook.core.gate"
local json = require "dkjson"
local place = require "runbook.place"
local places = require "spec.support.places"
local retry = require "runbook.retry"
local task = require "runbook.core.task"
local world = require "spec.world"

local function raised(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  assert.is_true(errors.is(err), tostring(err))
  return err
end

local first_delay

setup(function() first_delay, retry.first_delay = retry.first_delay, 0.01 end)
teardown(function() retry.first_delay = first_delay end)

local function served(protocols)
  return function()
    local server = world.websocketd { protocols = protocols }
    return places.cluster_of(server):container { pod = "far" }, function() server:close() end
  end
end

local pods = [[
apiVersion: v1
kind: Pod
metadata: { name: far, labels: { app: far } }
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - { name: main, image: "world/busybox:1", command: ["sleep", "100000"] }
  - { name: bare, image: "world/bare:1" }
]]

local function real()
  local cluster = world.kube.up "old"
  local namespace = cluster:namespace "far"
  cluster:apply(pods, namespace)
  cluster:kubectl { "-n", namespace, "wait", "--for=condition=Ready", "pod/far", "--timeout=60s" }
  local handle = require("runbook.kube").cluster { kubeconfig = cluster.kubeconfig, context = "old" }
  return handle:container { pod = "far", container = "main", namespace = namespace }, function() end
end

for _, kind in ipairs {
  { "v4", served "v4.channel.k8s.io" }, { "v5", served "v5.channel.k8s.io v4.channel.k8s.io" },
  { "a real cluster", world.kube and real },
} do
  describe("a container (" .. kind[1] .. ")", kind[2] and function()
    local at, done

    setup(function() at, done = kind[2]() end)
    teardown(function() done() end)

    it("runs commands and says how they ended", function()
      assert.same({ 0, "out\n", "err\n" }, { at:exec { "sh", "-c", "echo out; echo err >&2" } })
      assert.same({ 3, "", "" }, { at:exec { "sh", "-c", "exit 3" } })
      assert.equal("KILL", select(4, at:exec { "sh", "-c", "kill -KILL $$" }))
      assert.equal(127, (at:exec { "nonesuch-program" }))
      assert.equal("a b|$HOME|\n|", at:query { "printf", "%s|", "a b", "$HOME", "\n" })
    end)

    it("ends what a command reads, and waits for none that does not read", function()
      assert.equal("3000000", at:query { "wc", "-c", stdin = ("x"):rep(3000000) }:match "%d+")
      assert.equal("", at:query { "true", stdin = ("x"):rep(3000000) })
      assert.equal("0", at:query { "wc", "-c" }:match "%d+")
    end)

    it("takes command lines that no URL could hold", function()
      local long = ("'a b'\n$x"):rep(8000)
      assert.equal(long, at:query { "printf", "%s", long })
      assert.equal("limit", raised(at.query, at, { "printf", ("x"):rep(2 << 20) }).kind)
    end)

    it("gets all that a command prints, to the last byte", function()
      for _ = 1, 5 do
        local got = at:query { "sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x; printf end" }
        assert.equal(1000003, #got)
        assert.equal("xend", got:sub(-4))
      end
    end)

    it("has files", function()
      local folder = at:query { "mktemp", "-d" }
      at:write(folder .. "/a", "one\n", { mode = "640" })
      assert.equal("one\n", at:read(folder .. "/a"))
      assert.equal(tonumber("640", 8), at:stat(folder .. "/a").mode)
      at:remove(folder, { tree = true })
      assert.is_false(at:exists(folder))
    end)

    it("says what a person would type", function()
      assert.matches("kubectl .*exec %-i far.* %-%- ls 'a b'$", at:by_hand { "ls", "a b" })
    end)

    it("is what the journal needs to find it again", function()
      local again = place.open(at:reference())
      assert.equal("x", again:query { "echo", "x" })
      assert.equal(at, again)
    end)

    it("finds its jobs again", function()
      local job = at:job { name = "work", argv = { "sh", "-c", "echo begun; sleep 0.3; echo done" } }
      local lines = {}
      assert.equal(0, job:wait({ on_line = function(line) lines[#lines + 1] = line end }).status)
      assert.same({ "begun", "done" }, lines)
      job:forget()
    end)

    it("runs a command as it is, too", function()
      local function run(argv, input)
        return gate.call("change", function()
          local child <close> = exec.bare(at.backend:target(), argv)
          local stdin = child:stdin()
          if input then
            stdin:write(input)
          end
          local ended = stdin:half_close()
          return child:stdout():read(), ended, child:wait()
        end)
      end
      local output, ended, how = run({ "sh", "-c", "head -c 5; exit 4" }, "hello")
      assert.same({ "hello", { status = 4 } }, { output, how })
      assert.equal(kind[1] == "v5" or nil, ended)
      local _, _, nothing, message, code = run { "nonesuch-program" }
      assert.is_nil(nothing)
      assert.equal("ENOEXEC", code, message)
    end)
  end)
end

describe("a container of a real cluster", world.kube and function()
  local cluster, namespace

  setup(function()
    local at = real()
    cluster, namespace = at.backend.options.cluster, at.backend.options.namespace
  end)

  it("says what is missing where there is no shell", function()
    local err = raised(function() cluster:container({ pod = "far", container = "bare", namespace = namespace }):query { "true" } end)
    assert.same({ "missing", "ENOSHELL" }, { err.kind, err.code })
    assert.matches("has no `sh`", err.message)
  end)

  it("hears which one is meant, and which are not there", function()
    local err = raised(function() cluster:container({ pod = "far", namespace = namespace }):query { "true" } end)
    assert.matches("choose one of: %[main bare%]", err.message)
    err = raised(function() cluster:container({ pod = "none", namespace = namespace }):query { "true" } end)
    assert.equal("missing", err.kind)
    err = raised(function() cluster:container({ selector = "app=none", namespace = namespace }):query { "true" } end)
    assert.same({ "missing", "no pod of app=none runs" }, { err.kind, err.message })
    assert.equal("x", cluster:container({ selector = "app=far", container = "main", namespace = namespace }):query { "echo", "x" })
  end)
end)

describe("a container behind a bad network", function()
  local server, relay, at

  before_each(function()
    server = world.websocketd { protocols = "v4.channel.k8s.io" }
    relay = world.relay { to = server }
    at = places.cluster_of({ url = ("http://%s:%d"):format(relay.address, relay.port) }):container { pod = "far" }
  end)

  after_each(function()
    relay:close()
    server:close()
  end)

  it("loses a change that was cut, and does not do it again", function()
    local file = server.folder .. "/done"
    relay:cut(20000)
    local err = raised(at.run, at, { "sh", "-c", "echo x >>done; head -c 100000 /dev/zero" })
    assert.equal("lost", err.kind)
    assert.equal("x\n", world.read(file))
  end)

  it("reads again what was cut", function()
    relay:cut(50000)
    assert.equal(100000, #at:query { "head", "-c", "100000", "/dev/zero" })
    relay:hang_up(50000)
    assert.equal(100000, #at:query { "head", "-c", "100000", "/dev/zero" })
  end)

  it("takes no clean end for a whole output", function()
    local function run(argv)
      return gate.call("change", function()
        local child <close> = exec.bare(at.backend:target(), argv)
        local bytes = child:stdout():read()
        return bytes, child:wait()
      end)
    end
    local bytes, how, _, code = run { "lose" }
    assert.same({ "some of it", "ELOST" }, { bytes, code })
    assert.is_nil(how)
  end)
end)

describe("a large file", function()
  local server, relay, near, far, at
  local SIZE = (9 << 20) + 12345

  before_each(function()
    server = world.websocketd { protocols = "v4.channel.k8s.io" }
    relay = world.relay { to = server }
    at = places.cluster_of({ url = ("http://%s:%d"):format(relay.address, relay.port) }):container { pod = "far" }
    near, far = world.folder "near", world.folder "far"
    world.must(("head -c %d /dev/urandom > %s/it"):format(SIZE, near))
  end)

  after_each(function()
    relay:close()
    server:close()
  end)

  -- The relay cuts again and again, each time after more bytes than there are in a block, until `fn` has done.
  local function under_cuts(cuts, fn)
    local cutter = task.spawn(function()
      for i = 1, cuts do
        local passed = relay:passed()
        local before = passed.there + passed.back
        relay:cut((1 << 20) + math.random(700000) * i % 900000)
        world.wait_until("a cut", function()
          local now = relay:passed()
          return now.there + now.back - before > 1 << 20
        end, 60)
      end
    end)
    fn()
    cutter:cancel()
    task.join_all { cutter }
  end

  local function must_be_same(name)
    world.must(("cmp %s/it %s"):format(near, name))
  end

  local function leftovers()
    return world.sh(("find %s %s -name '*.rb~*'"):format(near, far))
  end

  it("goes there and back in one piece, and leaves nothing else", function()
    at:put(near .. "/it", far .. "/it", { mode = "640" })
    must_be_same(far .. "/it")
    assert.equal(tonumber("640", 8), at:stat(far .. "/it").mode)
    at:get(far .. "/it", near .. "/back")
    must_be_same(near .. "/back")
    world.must(("chmod 600 %s/it && echo other > %s/other && chmod 604 %s/other"):format(near, far, far))
    at:put(near .. "/it", far .. "/other")
    must_be_same(far .. "/other")
    assert.equal(tonumber("604", 8), at:stat(far .. "/other").mode)
    assert.equal("", leftovers())
  end)

  it("arrives whole though the connection is cut again and again", function()
    under_cuts(6, function() at:put(near .. "/it", far .. "/it") end)
    must_be_same(far .. "/it")
    assert.is_true(relay:passed().there < 2.5 * SIZE, "it went on, and did not begin again")
    under_cuts(6, function() at:get(far .. "/it", near .. "/back") end)
    must_be_same(near .. "/back")
    assert.equal("", leftovers())
  end)

  it("goes on with what an earlier process has left, if that is right", function()
    world.must(("head -c 5000000 %s/it > %s/back.rb~"):format(near, near))
    at:put(near .. "/it", far .. "/it")
    local before = relay:passed().back
    at:get(far .. "/it", near .. "/back")
    must_be_same(near .. "/back")
    assert.is_true(relay:passed().back - before < SIZE - 3000000)
    world.must(("rm %s/back; head -c 5000000 /dev/urandom > %s/back.rb~"):format(near, near))
    at:get(far .. "/it", near .. "/back")
    must_be_same(near .. "/back")
  end)

  it("is told of in words when there is no room, or no file", function()
    local small <close> = world.filesystem { size = "4M", kind = "tmpfs" }
    assert.equal("full", raised(at.put, at, near .. "/it", small.path .. "/it").kind)
    assert.equal("missing", raised(at.get, at, far .. "/none", near .. "/back").kind)
    assert.equal("missing", raised(at.put, at, near .. "/it", far .. "/none/it").kind)
  end)
end)

describe("containers on one node", function()
  it("are two machines for a copy", function()
    local server <close> = world.websocketd { protocols = "v4.channel.k8s.io" }
    local cluster = places.cluster_of(server)
    local ends = require "runbook.copier.ends"
    local one = ends.look(cluster:container({ pod = "one" }):dir(server.folder))
    local two = ends.look(cluster:container({ pod = "two" }):dir(server.folder))
    assert.is_false(ends.are_one_machine(one, two))
    assert.is_true(ends.are_one_machine(one, ends.look(cluster:container({ pod = "one" }):dir("/tmp"))))
  end)
end)

describe("the pod of a container", function()
  local server

  local function pod(name, o)
    return {
      metadata = { name = name, creationTimestamp = o.made or "2026-01-01T00:00:00Z", deletionTimestamp = o.deleted },
      status = {
        phase = o.phase or "Running", conditions = { { type = "Ready", status = o.ready == false and "False" or "True" } },
        containerStatuses = o.waiting and { { state = { waiting = { reason = o.waiting } } } } or nil,
      },
    }
  end

  local function with(...)
    world.write(server.folder .. "/pods", json.encode { items = { ... } })
  end

  local function asked()
    local list = server:requests()
    return list[#list]:match "^[^?]*"
  end

  setup(function()
    server = world.websocketd { protocols = "v4.channel.k8s.io" }
    world.write(server.folder .. "/deployments", json.encode { spec = { selector = { matchLabels = { component = "hub", release = "x" },
      matchExpressions = { { key = "old", operator = "DoesNotExist" } } } } })
  end)
  teardown(function() server:close() end)

  it("is the newest that is ready", function()
    with(pod("old", {}), pod("new", { made = "2026-02-01T00:00:00Z" }), pod("newer", { made = "2026-03-01T00:00:00Z", ready = false }),
      pod("going", { made = "2026-04-01T00:00:00Z", deleted = "2026-04-02T00:00:00Z" }), pod("failed", { phase = "Failed" }))
    local at = places.cluster_of(server):container { deployment = "hub" }
    at:query { "true" }
    assert.equal("/api/v1/namespaces/rooms/pods/new/exec", asked())
    local list = server:requests()
    assert.equal("/apis/apps/v1/namespaces/rooms/deployments/hub", list[1])
    assert.equal("/api/v1/namespaces/rooms/pods?labelSelector=%21old%2Ccomponent%3Dhub%2Crelease%3Dx", list[2])
    assert.matches("exec %-i new %-n rooms", at:by_hand { "true" })
  end)

  it("is told of in words when none runs", function()
    with(pod("a", { phase = "Pending", waiting = "ImagePullBackOff" }), pod("b", { deleted = "2026-04-02T00:00:00Z" }))
    local err = raised(function() places.cluster_of(server):container({ selector = "x=y" }):query { "true" } end)
    assert.equal("no pod of x=y runs: a Pending: ImagePullBackOff, b is being deleted", err.message)
    assert.equal("ENOPOD", err.code)
  end)

  it("is one thing said one way", function()
    local c = places.cluster_of(server)
    assert.matches("which one%?", raised(c.container, c, {}).message)
    assert.matches("not both", raised(c.container, c, { pod = "a", selector = "b=c" }).message)
    assert.matches("did you mean `deployment`", raised(c.container, c, { deploymnt = "a" }).message)
  end)

  it("refuses who is not known, and says so", function()
    world.write(server.folder .. "/token", "another token")
    local err = raised(function() places.cluster_of(server):container({ pod = "p" }):query { "true" } end)
    assert.same({ "auth", "Unauthorized" }, { err.kind, err.code })
    os.remove(server.folder .. "/token")
  end)
end)
