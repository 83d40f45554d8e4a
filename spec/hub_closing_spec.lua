-- A real hub in a real cluster: who is on it, who writes, and closing it so that it stays closed and opens again.

local complaint = require "spec.support.complaint"
local hubs = require "runbook.hub"
local starting = require "runbook.hub.starting"
local task = require "runbook.core.task"
local world = require "spec.world"

describe("a hub on a cluster", function()
  local cluster, peer, hub

  setup(function()
    cluster = world.kube.up "old"
    peer = world.kube.hub(cluster, { users = 6, running = 1 })
    hub = hubs.open { context = "old", uid = cluster.uid, kubeconfig = cluster.kubeconfig, namespace = "temple" }
  end)

  -- What a browser at the hub's name is answered.
  local function front()
    local text = peer:curl { "-o", "/dev/null", "-D", "-", peer:url "/hub/login" }
    return tonumber(text:match "^HTTP/%S+ (%d+)"), text
  end

  local function wait_for(status)
    world.wait_until(("the front to answer %d"):format(status), function() return front() == status or task.sleep(0.2) end, 60)
  end

  local function kubectl(...)
    return cluster:kubectl { "-n", "temple", ... }
  end

  it("says how it is set up and who is on it", function()
    local s = hub:settings()
    assert.equal("escape", s.scheme)
    assert.equal("sqlite-pvc", s.database)
    assert.equal("home-nfs", s.storage.claim)
    local by_name = {}
    for _, person in ipairs(hub:users()) do
      by_name[person.name] = person
    end
    assert.is_true(by_name.carla.admin)
    assert.equal(1, by_name.carla.running)
    assert.is_false(by_name["user-17"].admin)
    assert.equal("auth0-7c5f", hub:directory_of "auth0|5f")
    assert.equal("carla", hub:recently_active()[1])
    assert.truthy(hub:impact()[2][2]:find("1 server of 1 user", 1, true))
    assert.truthy(hub:must_be_healthy():find "^%d+%.%d+")
  end)

  it("knows who writes to the homes, by whatever name they go", function()
    local list = hub:writers()
    assert.equal(1, #list)
    assert.equal("temple/jupyter-carla", list[1].name)
    assert.equal("carla", list[1].user)
    cluster:apply([[
      {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "somebody"}, "spec": {"terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": "world/busybox:1", "command": ["sleep", "1000"],
          "volumeMounts": [{"name": "h", "mountPath": "/h"}]}],
        "volumes": [{"name": "h", "persistentVolumeClaim": {"claimName": "home-nfs"}}]}}]], "temple")
    assert.truthy(hub:other_writers()[1]:find("1 pod besides users' servers can write to the homes: temple/somebody", 1, true))
    kubectl("delete", "pod", "somebody")
    assert.same({}, hub:other_writers())
  end)

  it("starts no server once they are blocked, and lets those that run go on", function()
    hub:block_servers()
    local _, status = peer:api("POST", "/users/user-17/server", nil, peer.service_token)
    assert.is_true(status >= 500 or status == 201 or status == 202)
    world.wait_until("the end of that try", function()
      local it = peer:api("GET", "/users/user-17")
      return next(it.servers or {}) == nil or task.sleep(0.5)
    end, 120)
    assert.equal("", kubectl("get", "pods", "-l", "hub.jupyter.org/username=user-17dash", "-o", "name"))
    assert.equal("Running", kubectl("get", "pod", "jupyter-carla", "-o", "jsonpath={.status.phase}"))
    assert.equal(200, front())
  end)

  it("shows a page when it is closed, and its proxy stays", function()
    hub:close()
    hub:close() -- twice is once
    local _, head
    world.wait_until("the page", function() -- before its endpoint is known, the ingress itself says 503
      _, head = front()
      return head:find "X%-Runbook: ad%-hoc" or task.sleep(0.2)
    end, 60)
    assert.truthy(head:find "^HTTP/%S+ 503")
    assert.truthy(head:find "Retry%-After: ")
    assert.truthy(kubectl("get", "service", "proxy-public", "-o", "name") ~= "")
  end)

  it("stops every server and itself, and nobody writes then", function()
    complaint("busy", hub.must_have_no_writers, hub)
    hub:stop_servers()
    hub:stop_hub()
    hub:must_have_no_writers()
    hub:must_be_closed()
    assert.equal(6, #hub:known_users())
  end)

  it("notices who opens it meanwhile, and names them", function()
    kubectl("scale", "deployment/hub", "--replicas=1")
    local err = complaint("conflict", hub.must_be_closed, hub)
    assert.truthy(err.message:find("Deployment hub has replicas again (last changed by", 1, true), err.message)
    hub:stop_hub()
    hub:must_be_closed()
  end)

  it("refuses to be closed by another run while it is closed", function()
    kubectl("patch", "configmap", "runbook-freeze", "--type", "merge", "-p", [[{"data": {"run": "temple-7"}}]])
    local err = complaint("conflict", hub.close, hub)
    assert.truthy(err.message:find("closed already, by run temple-7 since 20", 1, true), err.message)
    kubectl("patch", "configmap", "runbook-freeze", "--type", "merge", "-p", [[{"data": {"run": "ad-hoc"}}]])
  end)

  it("starts closed, and opens for people when it is told to", function()
    hub:start_hub { servers = "blocked" }
    assert.equal(503, (front()))
    hub:must_be_healthy()
    hub:unblock_servers()
    wait_for(200)
    peer:start_server "user-17"
    assert.equal("", kubectl("get", "configmap,resourcequota,deployment,service", "-o", "name"):match "[^\n]*runbook[^\n]*" or "")
  end)

  it("opens by what its ConfigMap says, with kubectl alone", function()
    hub:block_servers()
    hub:close()
    hub:stop_servers()
    hub:stop_hub()
    local readme = kubectl("get", "configmap", "runbook-freeze", "-o", "jsonpath={.data.README}")
    local path = world.folder "readme" .. "/README"
    world.write(path, readme:gsub("^[^\n]*\n", ""))
    world.must(("PATH=%s:$PATH KUBECONFIG=%s sh -e %s"):format(world.kube.kubectl:match "^(.*)/", cluster.kubeconfig, path))
    wait_for(200)
    assert.equal("", kubectl("get", "configmap", "runbook-freeze", "--ignore-not-found"))
    peer:start_server "carla"
  end)

  it("closes as the document does, and has its proxy back when it opens", function()
    hub:block_servers()
    hub:close { document = true }
    assert.is_true(front() ~= 200)
    hub:stop_servers()
    hub:stop_hub()
    hub:must_be_closed()
    hub:start_hub()
    hub:unblock_servers()
    wait_for(200)
    hub:block_servers()
    hub:close { document = true }
    local path = world.folder "readme" .. "/README"
    world.write(path, (kubectl("get", "configmap", "runbook-freeze", "-o", "jsonpath={.data.README}"):gsub("^[^\n]*\n", "")))
    world.must(("PATH=%s:$PATH KUBECONFIG=%s sh -e %s"):format(world.kube.kubectl:match "^(.*)/", cluster.kubeconfig, path))
    wait_for(200)
  end)

  it("says why it does not start, with its last words, instead of waiting to the end", function()
    local hope = starting.hope
    starting.hope = 1
    kubectl("patch", "deployment", "hub", "--type=json", "-p",
      [=[[{"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": ["sh", "-c", "echo no such database; exit 3"]}]]=])
    local err = complaint("exit", hub.start_hub, hub)
    starting.hope = hope
    assert.equal("ESTART", err.code)
    assert.matches("does not start: CrashLoopBackOff after %d+ restart", err.message)
    assert.matches("no such database", err.message, 1, true)
  end)
end)
