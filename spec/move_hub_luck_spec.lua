-- What goes wrong around a whole move-hub.lua between two real clusters: it stops in words while nothing is lost, and goes on, or
-- back, when that has been mended.

local command = require "spec.support.command"
local task = require "runbook.task"
local world = require "spec.world"

local ANSWERS = { "--no-input", "--confirm", "freeze=temple", "--confirm", "open=temple", "--done", "announce=spec" }

-- The runbook as it is, with less patience for what does not mend itself.
local IMPATIENT = [[require("runbook.hub.ending").hope = 3; require("runbook.hub.starting").hope = 5; ]]

-- Starts a server; $1 a token. In the hub's own pod, as people do not get to it any more.
local ASK = [[
import sys, urllib.error, urllib.request
ask = urllib.request.Request("http://127.0.0.1:8081/hub/api/users/user-17/server", b"", {"Authorization": "token " + sys.argv[1]})
try:
    print(urllib.request.urlopen(ask, timeout=60).status)
except urllib.error.HTTPError as answer:
    print(answer.code)]]

describe("move-hub.lua", function()
  local move, folder, before, name -- of the run

  local function kubectl(hub, ...)
    return hub.cluster:kubectl { "-n", hub.namespace, ... }
  end

  -- How a hub looks from outside, and how it is set up.
  local function state_of(hub)
    return {
      ingress = kubectl(hub, "get", "ingress", "jupyterhub", "-o", "jsonpath={.spec}"),
      proxy = kubectl(hub, "get", "service", "proxy-public", "-o", "jsonpath={.spec.selector}"),
      replicas = kubectl(hub, "get", "deployment", "hub", "-o", "jsonpath={.spec.replicas}"),
      secret = kubectl(hub, "get", "secret", "hub", "-o", "jsonpath={.data}"),
      ours = kubectl(hub, "get", "configmap,resourcequota,deployment,service,lease", "-o", "name"):match "[^\n]*runbook[^\n]*",
    }
  end

  local function parameters(file, change)
    local text = move:parameters "probes: [carla]\n":gsub("file:[^\"]+", "file:" .. folder .. "/key")
    world.write(folder .. "/" .. file, change and change(text) or text)
  end

  setup(function()
    move = world.moving { users = 4, running = 1 }
    folder = command.folder { ["move-hub.lua"] = IMPATIENT .. world.read "runbooks/move-hub.lua" }
    world.must(("cp -p %s %s/key"):format(move.bind.key_file, folder))
    parameters "temple.yaml"
    before = { old = state_of(move.old), new = state_of(move.new), address = move:address() }
  end)

  teardown(function() move:close() end)

  -- What it ended with, and what it said, as one line.
  local function runbook(...)
    local r = command.run(folder, { ... })
    return r.code, (r.out .. r.err):gsub("%s+", " "), r.out .. r.err
  end

  local function start(...)
    local code, said, lines = runbook("run", "move-hub.lua", ...)
    name = lines:match "(%S+%-%d+): Move a hub" or said:match "runbook resume (%S+%-%d+)"
    assert(name, lines)
    return code, said, lines
  end

  local function says(said, ...)
    for _, words in ipairs { ... } do
      assert.truthy(said:find(words, 1, true), words .. " is missing from\n" .. said)
    end
  end

  -- The old hub serves, and nobody was told to go elsewhere.
  local function nothing_has_happened()
    assert.same(before, { old = state_of(move.old), new = state_of(move.new), address = move:address() })
  end

  local function can_work(hub, user)
    hub:start_server(user)
    local browser = hub:login(user)
    browser:get(hub:page(user))
    local answer = browser:get(hub:page(user, "api/contents/whose.txt"))
    assert.truthy(answer:find(user, 1, true), answer)
  end

  -- What `work` returns; `fn` was called when a step of that run had begun.
  local function when_begun(run, step, fn, work)
    local events, begun = ("%s/state/runbook/runs/%s/events.ndjson"):format(folder, run), false
    local watching = task.spawn(function()
      local line = ('"step":"%s"[^\n]*"type":"step%%-start"'):format(step)
      while not (world.read(events) or ""):find(line) do
        task.sleep(0.1)
      end
      begun = true
      fn()
    end)
    local r = table.pack(work())
    if not begun then
      watching:cancel()
    end
    assert(task.join(watching))
    return table.unpack(r, 1, r.n)
  end

  describe("finds before anything is changed", function()
    local function sql(hub, statement)
      kubectl(hub, "exec", "deploy/hub", "-c", "hub", "--", "python3", "-c",
        "import sqlite3, sys; db = sqlite3.connect('/srv/jupyterhub/jupyterhub.sqlite', timeout=30); print(db.execute(sys.argv[1]).fetchall()); "
        .. "db.commit()", statement)
    end

    it("that staging mounts the homes, that the copy goes elsewhere, and that the database is too new", function()
      move.new.cluster:apply(([[{"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "staging-homes"}, "spec": {
        "capacity": {"storage": "1Mi"}, "accessModes": ["ReadWriteMany"], "storageClassName": "",
        "persistentVolumeReclaimPolicy": "Retain", "claimRef": {"namespace": "staging", "name": "homes"},
        "nfs": {"server": "%s", "path": "/srv/homes"}}}]]):format(move.to.address))
      move.to:must "mkdir -p /srv/homes/other"
      parameters("elsewhere.yaml", function(text) return (text:gsub("path: /srv/homes/prod", "path: /srv/homes/other")) end)
      sql(move.old, "CREATE TABLE kept AS SELECT version_num FROM alembic_version")
      sql(move.old, "UPDATE alembic_version SET version_num = 'f460b0348206'")
      finally(function()
        sql(move.old, "UPDATE alembic_version SET version_num = (SELECT version_num FROM kept)")
        sql(move.old, "DROP TABLE kept")
        move.new.cluster:kubectl { "delete", "pv", "staging-homes" }
      end)
      local code, said = start("--params", "elsewhere.yaml", table.unpack(ANSWERS))
      assert.equal(1, code, said)
      says(said, "is in the storage of others, too: staging (", ("the copy fills %s:/srv/homes/other"):format(move.to.address),
        "those are two directories", "the database (schema f460b0348206) is newer than this hub")
      nothing_has_happened()
    end)
  end)

  describe("stops, and goes on when it has been mended,", function()
    local pod = "jupyter-carla"

    local function entry(change)
      return (change:gsub("namespace: prod\n", "%0  ingress: { service: entry, namespace: prod }\n", 1))
    end

    -- A load balancer in front of the ingresses of the new cluster, as a cloud makes one.
    setup(function()
      move.new.cluster:apply(([[
apiVersion: v1
kind: Service
metadata: { name: entry, annotations: { world/address: never } }
spec: { type: LoadBalancer, ports: [ { name: http, port: 80 }, { name: https, port: 443 } ] }
---
apiVersion: v1
kind: Endpoints
metadata: { name: entry }
subsets: [ { addresses: [ { ip: %s } ], ports: [ { name: http, port: 80 }, { name: https, port: 443 } ] } ]
]]):format(move.new.cluster.front), "prod")
      parameters("temple.yaml", entry)
    end)

    it("when the load balancer gets no address", function()
      local code, said = runbook("plan", "move-hub.lua", "--params", "temple.yaml")
      assert.equal(1, code, said)
      says(said, "Service prod/entry has no address yet")
      code, said = start("--params", "temple.yaml", table.unpack(ANSWERS))
      assert.equal(1, code, said)
      says(said, "Service entry in prod is not as it should be", "it has no address yet", "SyncLoadBalancerFailed")
      nothing_has_happened()
      kubectl(move.new, "annotate", "service", "entry", "world/address-")
      move.new.cluster:wait_value("service/entry", "{.status.loadBalancer.ingress[0].ip}", "prod")
    end)

    it("when a user's pod does not end, and starts no server of anybody meanwhile", function()
      kubectl(move.old, "patch", "pod", pod, "--type=merge", "-p", [[{"metadata": {"finalizers": ["spec.example/hold"]}}]])
      local tried
      local code, said = when_begun(name, "drain", function() -- by a page that was open
        tried = kubectl(move.old, "exec", "deploy/hub", "-c", "hub", "--", "python3", "-c", ASK, move.old.service_token)
      end, function() return runbook("resume", name, table.unpack(ANSWERS)) end)
      assert.equal(1, code, said)
      says(said, "pod jupyter-carla does not end: it is Terminating since 20",
        "nothing of it runs any more, and its finalizer spec.example/hold keeps it", "patch pod jupyter-carla --type json")
      assert.matches("^[25]0%d$", tried)
      assert.equal("pod/" .. pod, kubectl(move.old, "get", "pods", "-l", "component=singleuser-server", "-o", "name"))
      assert.equal(before.address, move:address())
      kubectl(move.old, "patch", "pod", pod, "--type=json", "-p", [=[[{"op": "remove", "path": "/metadata/finalizers"}]]=])
    end)

    it("when the new hub does not start; and `rollback` opens the old one", function()
      local args = kubectl(move.new, "get", "deployment", "hub", "-o", "jsonpath={.spec.template.spec.containers[0].args}")
      local function set_args(list)
        kubectl(move.new, "patch", "deployment", "hub", "--type=json", "-p",
          ([=[[{"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": %s}]]=]):format(list))
      end
      set_args [=[["sh", "-c", "echo no such authenticator; exit 3"]]=]
      local code, said = runbook("resume", name, table.unpack(ANSWERS))
      assert.equal(1, code, said)
      says(said, "does not start: CrashLoopBackOff after", "no such authenticator")
      assert.equal(before.address, move:address())
      code, said = runbook("rollback", name, table.unpack(ANSWERS, 1, 5))
      assert.equal(0, code, said)
      move.old:wait_ready()
      set_args(args)
      move.new:wait_ready()
      nothing_has_happened()
      can_work(move.old, "carla")
    end)

    it("when the name server changes its key", function()
      local code, said = when_begun("temple-2", "final", function() move.bind:change_key() end, function()
        return start("--params", "temple.yaml", table.unpack(ANSWERS))
      end)
      assert.equal(1, code, said)
      says(said, "knows the key rbkey with another secret (BADSIG)")
      assert.equal(before.address, move:address())
      code, said = runbook("resume", name, table.unpack(ANSWERS)) -- before anything of it is done
      assert.equal(1, code, said)
      says(said, "1 stop", "knows the key rbkey with another secret (BADSIG)")
      world.must(("cp -p %s %s/key"):format(move.bind.key_file, folder))
      code, said = runbook("resume", name, table.unpack(ANSWERS))
      assert.equal(0, code, said)
      assert.equal(kubectl(move.new, "get", "service", "entry", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}"), move:address())
      move.new.service_token = move.old.service_token -- its services kept theirs
      can_work(move.new, "carla")
    end)
  end)
end)
