-- Who still comes to a hub's old address, on a real hub that is closed, and by the log of an ingress controller.

local errors = require "runbook.errors"
local events = require "runbook.events"
local hubs = require "runbook.hub"
local task = require "runbook.task"
local watch = require "runbook.hub.watch"
local world = require "spec.world"

describe("a line of a log", function()
  it("of our page says who came, by the name in the path or the address, and probes are nobody", function()
    assert.equal("carla", watch.of_page '{"visit": "/user/carla/api/kernels", "from": "10.0.0.9", "by": "Mozilla/5.0"}')
    assert.equal("alice@uni.edu", watch.of_page '{"visit": "/user/alice%40uni.edu/lab", "from": "10.0.0.9", "by": "Mozilla/5.0"}')
    assert.equal("10.0.0.9", watch.of_page '{"visit": "/hub/login", "from": "10.0.0.9", "by": "Mozilla/5.0"}')
    assert.is_nil(watch.of_page '{"visit": "/", "from": "10.0.0.9", "by": "kube-probe/1.29"}')
    assert.is_nil(watch.of_page "Traceback (most recent call last):")
  end)

  it("of nginx says for which hub it was", function()
    local line = '10.9.8.7 - - [21/Nov/2026:22:00:00 +0000] "GET %s HTTP/2.0" 200 512 "-" "%s" 91 0.004 [%s] [] 10.0.0.5:8000 512 0.004 200 c0ffee'
    local function of(path, agent, upstream)
      return { watch.of_nginx(line:format(path, agent, upstream), "temple") }
    end
    assert.same({ "carla", true }, of("/user/carla/lab?token=x", "Mozilla/5.0 (X11)", "temple-proxy-public-http"))
    assert.same({ "10.9.8.7", true }, of("/hub/", "curl/8", "temple-runbook-page-http"))
    assert.same({ nil, true }, of("/hub/", "GoogleHC/1.0", "temple-proxy-public-http"))
    assert.same({ nil, true }, of("/", "curl/8", "temple-two-proxy-public-http")) -- another hub
    assert.same({ nil, true }, of("/", "curl/8", "temple-grafana-http"))
    assert.same({ nil, false }, { watch.of_nginx('{"time": "x", "path": "/user/carla"}', "temple") })
  end)
end)

describe("the old address", function()
  local cluster, peer, old, new, poll
  local seen

  setup(function()
    cluster = world.kube.up "old"
    peer = world.kube.hub(cluster, { users = 2 })
    old = hubs.open { context = "old", kubeconfig = cluster.kubeconfig, namespace = "temple" }
    new = old -- whoever is seen on the new hub is read there as anywhere
    poll, watch.poll = watch.poll, 0.3
  end)

  teardown(function()
    watch.poll = poll
  end)

  -- hub.watch, with what was said.
  local function watching(silent)
    seen = {}
    local stop_listening = events.subscribe(function(event)
      seen[#seen + 1] = { type = event.type, text = event.text or "" }
    end)
    local result = table.pack(pcall(hubs.watch, { old = old, new = new, silent = silent }))
    stop_listening()
    return table.unpack(result, 1, result.n)
  end

  local function said(kind)
    local lines = {}
    for _, event in ipairs(seen) do
      lines[#lines + 1] = event.type == kind and event.text or nil
    end
    return table.concat(lines, "\n")
  end

  local function visit(path)
    return peer:curl { "-o", "/dev/null", "-w", "%{http_code}", peer:url(path) }
  end

  it("is not called silent where nobody can see who comes there", function()
    local ok, outcome = watching "1s"
    assert.is_true(ok, outcome)
    assert.is_false(outcome.silent)
    assert.truthy(said("notice"):find("whether anybody still comes to the old address is not known: people do not get our page there", 1, true),
      said "notice")
  end)

  it("is silent when nobody has come to our page for so long, and who came is said", function()
    old:block_servers()
    old:close()
    world.wait_until("the page", function()
      return peer:curl({ "-o", "/dev/null", "-D", "-", peer:url "/hub/login" }):find "X%-Runbook" or task.sleep(0.2)
    end, 60)
    visit "/user/carla/api/kernels?token=hush"
    local ok, outcome = watching "4s"
    assert.is_true(ok, tostring(outcome))
    assert.is_true(outcome.silent)
    assert.truthy(said("progress"):find("at the old address: carla ", 1, true), said "progress")
    assert.truthy(said("progress"):find("seen on the new hub", 1, true), said "progress")
    local log = cluster:kubectl { "-n", "temple", "logs", "deploy/runbook-page" }
    assert.truthy(log:find('"visit": "/user/carla/api/kernels"', 1, true), log)
    assert.falsy(log:find("hush", 1, true), log)
    assert.falsy(log:find("runbook-ready", 1, true), log)
  end)

  it("is said not to be silent, and by whom, when time is up", function()
    local visiting = task.spawn(function()
      while true do
        visit "/user/user-17/lab"
        task.sleep(0.2)
      end
    end)
    local started = task.spawn(watching, "1h")
    world.wait_until("a visit", function() return seen and said("progress"):find("user-17", 1, true) or task.sleep(0.1) end, 60)
    started:cancel()
    task.join(started)
    visiting:cancel()
    task.join(visiting)
    assert.truthy(said("notice"):find("still at the old address of old/temple:\nuser-17 ", 1, true), said "notice")
  end)

  it("is read in the log of an ingress controller where our page is not shown", function()
    old:unblock_servers()
    cluster:fresh_namespace "support"
    cluster:apply([[{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "controller", "labels": {
      "app.kubernetes.io/name": "ingress-nginx", "app.kubernetes.io/component": "controller"}}, "spec": {"terminationGracePeriodSeconds": 0,
      "containers": [{"name": "controller", "image": "world/busybox:1", "command": ["sh", "-c",
      "echo '10.9.8.7 - - [21/Nov/2026:22:00:00 +0000] \"GET /user/carla/lab HTTP/2.0\" 200 5 \"-\" \"Mozilla/5.0\" 91 0.004]]
      .. [[ [temple-proxy-public-http] [] 10.0.0.5:8000 5 0.004 200 c0'; sleep 10000"]}]}}]],
      "support")
    cluster:kubectl { "-n", "support", "wait", "--for=condition=Ready", "pod/controller", "--timeout=120s" }
    local ok, outcome = watching "3s"
    assert.is_true(ok, tostring(outcome))
    assert.is_true(outcome.silent, outcome.why)
    cluster:drop "support"
  end)

  it("ends with an error that is not taken for silence", function()
    local get = old.cluster.logs
    old:block_servers()
    old:close()
    rawset(old.cluster, "logs", function() errors.raise { kind = "refused", target = "old", message = "no rights" } end)
    local ok, err = watching "1s"
    rawset(old.cluster, "logs", nil)
    assert.equal(get, old.cluster.logs)
    assert.is_false(ok)
    assert.is_true(errors.is(err, "refused"))
    old:unblock_servers()
  end)
end)
