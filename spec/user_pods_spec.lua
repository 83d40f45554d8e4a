-- runbooks/user-pods.lua by the command, on a real hub with people at work.

local command = require "spec.support.command"
local world = require "spec.world"

describe("user-pods.lua", function()
  local cluster, peer, folder

  setup(function()
    cluster = world.kube.up "old"
    peer = world.kube.hub(cluster, { users = 5, running = 2 })
    folder = command.folder { ["temple.yaml"] = ("hub:\n  context: old\n  cluster: %s\n  kubeconfig: %s\n  namespace: temple\n"):format(
      cluster.uid, cluster.kubeconfig) }
  end)

  local function runbook(...)
    return command.run(folder, { ... })
  end

  local function pods()
    return cluster:kubectl { "-n", "temple", "get", "pods", "-l", "component=singleuser-server", "-o", "name" }
  end

  it("says what it will do, and does nothing of it, in a plan", function()
    local r = runbook("plan", "-v", "user-pods.lua", "--params", "temple.yaml")
    assert.equal(0, r.code, r.err)
    local text = r.out .. r.err
    assert.truthy(text:find("JupyterHub 3", 1, true), text)
    assert.truthy(text:find("5 users, 2 servers running", 1, true), text)
    assert.truthy(text:find("2 servers -> none", 1, true), text)
    assert.equal("", cluster:kubectl { "-n", "temple", "get", "configmap", "runbook-freeze", "--ignore-not-found" })
    assert.truthy(pods():find "carla")
  end)

  it("refuses another cluster by that context", function()
    local r = runbook("run", "user-pods.lua", "--params", "temple.yaml", "-p", "hub.cluster=00000000-0000-0000-0000-000000000000")
    assert.truthy(r.code ~= 0)
    assert.truthy((r.out .. r.err):find("this is another cluster", 1, true), r.err)
  end)

  it("asks before it stops anybody", function()
    local r = runbook("run", "user-pods.lua", "--params", "temple.yaml", "--no-input", "-p", "keep_blocked=true")
    assert.equal(5, r.code, r.err)
    assert.truthy(pods():find "carla")
  end)

  it("stops every server, and goes back to where servers may start", function()
    local r = runbook("resume", "--no-input", "--confirm", "stop=temple")
    assert.equal(0, r.code, r.err)
    assert.equal("", pods())
    assert.truthy(cluster:kubectl { "-n", "temple", "get", "resourcequota", "runbook-freeze", "-o", "name" } ~= "")
    r = runbook("rollback", "--yes", "--no-input")
    assert.equal(0, r.code, r.out .. r.err)
    assert.equal("", (cluster:kubectl { "-n", "temple", "get", "configmap,resourcequota,deployment,service", "-o", "name" })
      :match "[^\n]*runbook[^\n]*" or "")
    peer:start_server "carla"
  end)

  it("lets servers start again when it is through", function()
    local r = runbook("run", "user-pods.lua", "--params", "temple.yaml", "--no-input", "--confirm", "stop=temple")
    assert.equal(0, r.code, r.out .. r.err)
    assert.equal("", pods())
    peer:start_server "user-17"
  end)
end)
