-- runbooks/move-hub.lua by the command: a real hub with people on it goes from one real cluster to another, killed again and
-- again on its way, and comes back the same way with the work that people did meanwhile.

local command = require "spec.support.command"
local lab = require "spec.support.lab"
local task = require "runbook.core.task"
local walk = require "spec.support.walk"
local world = require "spec.world"

-- How many points of src/point.h a process passes before it is killed: more and more, and then few again, so that each gets
-- further sometime.
local FIRST, MORE, WIDTHS = 25, 13, 9
local ANSWERS = { "--no-input", "--confirm", "freeze=temple", "--confirm", "open=temple" }

describe("move-hub.lua", function()
  local move, folder, before

  local function kubectl(hub, ...)
    return hub.cluster:kubectl { "-n", hub.namespace, ... }
  end

  -- What is there of ours, in both namespaces and on both file servers.
  local function leftovers()
    local list = {}
    for _, hub in ipairs { move.old, move.new } do
      for name in kubectl(hub, "get", "configmap,resourcequota,deployment,service,lease,pod,secret", "-o", "name"):gmatch "%S+" do
        list[#list + 1] = name:find "runbook" and hub.namespace .. " " .. name or nil
      end
      list[#list + 1] = kubectl(hub, "get", "pod", "-l", "app.kubernetes.io/managed-by=runbook", "-o", "name")
    end
    for _, machine in ipairs { move.from, move.to } do
      list[#list + 1] = machine:must "cat /home/*/.ssh/authorized_keys /root/.ssh/authorized_keys | grep runbook: || :"
      list[#list + 1] = machine:must "find /srv /var/tmp -name 'runbook-far*' -o -name '.rb~*' -o -name lock"
    end
    return table.concat(list)
  end

  -- Pods take their time to end. `but` is a pattern of what is to stay.
  local function nothing_is_left(but)
    world.wait_until("nothing to be left of ours", function()
      local left = leftovers()
      return (but and left:gsub(but, "") or left) == "" or task.sleep(1)
    end, 120)
  end

  -- How a hub looks from outside, and how it is set up.
  local function state_of(hub)
    return {
      ingress = kubectl(hub, "get", "ingress", "jupyterhub", "-o", "jsonpath={.spec}"),
      proxy = kubectl(hub, "get", "service", "proxy-public", "-o", "jsonpath={.spec.selector}"),
      replicas = kubectl(hub, "get", "deployment", "hub", "-o", "jsonpath={.spec.replicas}"),
      secret = kubectl(hub, "get", "secret", "hub", "-o", "jsonpath={.data}"),
    }
  end

  local function people_of(hub)
    local list = {}
    for i, user in ipairs(hub:api("GET", "/users")) do
      table.sort(user.groups)
      list[i] = ("%s admin=%s groups=%s"):format(user.name, user.admin, table.concat(user.groups, ","))
    end
    table.sort(list)
    return list
  end

  setup(function()
    move = world.moving { users = 6, running = 2 }
    folder = command.folder { ["temple.yaml"] = move:parameters "probes: [carla]\n" }
    before = { old = state_of(move.old), new = state_of(move.new), people = people_of(move.old), address = move:address() }
  end)

  teardown(function() move:close() end)

  local function runbook(...)
    return command.run(folder, { ... })
  end

  -- A command that is killed when it has passed so many points; the exit code, and what it said.
  local function killed_after(points, ...)
    return walk.sh("env", "-C", folder, "XDG_STATE_HOME=" .. folder .. "/state", "NO_COLOR=", "TZ=UTC0", "LC_ALL=C.UTF-8",
      world.must("realpath " .. world.build) .. "/world/points", folder .. "/points", tostring(points),
      world.must("realpath " .. world.runbook), ...)
  end

  -- The same until it is through; how many processes that took.
  local function walked(again, ...)
    local code, said = killed_after(FIRST, ...)
    local processes = 1
    while code ~= 0 do
      assert(code == 137, said)
      processes = processes + 1
      assert(processes < 100, "it gets no further:\n" .. said)
      code, said = killed_after(FIRST + MORE * (processes % WIDTHS), table.unpack(again))
    end
    return processes
  end

  it("plans everything and touches nothing", function()
    local r = runbook("plan", "move-hub.lua", "--params", "temple.yaml")
    assert.equal(0, r.code, r.err)
    local shown = r.out .. r.err
    for _, text in ipairs { "0 stop", "freeze", "open", "looks first", "copy 4 keys of Secret hub", "point temple.hubs.test to" } do
      assert.truthy(shown:find(text, 1, true), text .. " is missing from\n" .. shown)
    end
    assert.same(before, { old = state_of(move.old), new = state_of(move.new), people = people_of(move.old), address = move:address() })
    assert.equal("", leftovers())
  end)

  it("moves a hub, however often it is killed", function()
    local again = table.move(ANSWERS, 1, #ANSWERS, 3, { "resume", "temple-1" })
    table.move({ "--done", "announce=spec" }, 1, 2, #again + 1, again)
    local processes = walked(again, "run", "move-hub.lua", "--params", "temple.yaml", table.unpack(again, 3))
    assert.truthy(processes > 5, processes)
    assert.equal(move.new.cluster.front, move:address())
    assert.equal("0", kubectl(move.old, "get", "deployment", "hub", "-o", "jsonpath={.spec.replicas}"))
    assert.truthy(move.old:curl { "-w", "%{http_code}", move.old:url "/hub/login" }:find "503$")
  end)

  it("has everybody on the new hub, with their files, rights and tokens", function()
    move.new.service_token = move.old.service_token -- its services kept theirs
    assert.same(before.people, people_of(move.new))
    for name, token in pairs(move.old.tokens) do
      local _, status = move.new:api("GET", "/user", nil, token)
      assert.equal(200, status, name)
    end
    assert.equal("", lab.difference(move.from, "/srv/homes/temple", move.to, "/srv/homes/prod"))
    move.new:start_server "alice@uni.edu"
    local browser = move.new:login "alice@uni.edu"
    browser:get(move.new:page "alice@uni.edu")
    local answer = browser:get(move.new:page("alice@uni.edu", "api/contents/whose.txt"))
    assert.truthy(answer:find("alice@uni.edu", 1, true), answer)
  end)

  it("brings it back with the work of those who were on the new hub, however often it is killed", function()
    move.to:must "echo new > /srv/homes/prod/carla/made-on-the-new-hub && chown 1000:100 /srv/homes/prod/carla/made-on-the-new-hub"
    move.new:api("POST", "/users/zoe")
    local r = runbook("rollback", "temple-1", "--no-input")
    assert.equal(4, r.code)
    for _, text in ipairs { "needs input: --confirm open=temple" } do
      assert.truthy(r.err:find(text, 1, true), r.err)
    end
    walked({ "rollback", "temple-1", "--no-input", "--confirm", "open=temple" }, "rollback", "temple-1", "--no-input", "--confirm",
      "open=temple")
    move.old:wait_ready()
    assert.same(before, { old = state_of(move.old), new = state_of(move.new), people = people_of(move.old), address = move:address() })
    nothing_is_left()
    assert.equal("new\n", move.from:read "/srv/homes/temple/carla/made-on-the-new-hub")
    move.old:start_server "carla"
  end)

  -- What users' homes hold, whoever wrote it.
  local function run_until(step)
    local r = runbook("run", "move-hub.lua", "--params", "temple.yaml", "--until", step, table.unpack(ANSWERS))
    assert.equal(0, r.code, r.err)
    return (r.err:match "(temple%-%d+): Move a hub")
  end

  it("stops when somebody deploys the old hub in the middle, and goes on when that has ended", function()
    local name = run_until "save-database"
    kubectl(move.old, "scale", "deployment/hub", "--replicas=1")
    local r = runbook("resume", name, table.unpack(ANSWERS))
    assert.equal(1, r.code, r.err)
    assert.truthy(r.err:gsub("%s+", " "):find("somebody opened it while it has to be closed: Deployment hub has replicas again", 1, true), r.err)
    kubectl(move.old, "scale", "deployment/hub", "--replicas=0")
    kubectl(move.old, "wait", "--for=delete", "pod", "-l", "component=hub", "--timeout=120s")
    r = runbook("resume", name, table.unpack(ANSWERS))
    assert.equal(1, r.code, r.err)
    assert.truthy(r.err:gsub("%s+", " "):find("Deployment hub was changed since the hub was stopped", 1, true), r.err)
    r = runbook("resume", name, "--until", "verify", "--again", "drain", "--again", "save-database", table.unpack(ANSWERS))
    assert.equal(0, r.code, r.err)
  end)

  it("is taken over from another machine, and opens the old hub again", function()
    world.must(("rm -rf %s/state"):format(folder))
    local words = { "adopt", "move-hub.lua", "--params", "temple.yaml", "--no-input" }
    local r = command.run(folder, words)
    assert.equal(5, r.code, r.err)
    assert.truthy(r.err:find("--confirm adopt=temple", 1, true), r.err)
    world.must(("rm -rf %s/state"):format(folder))
    r = command.run(folder, table.move({ "--confirm", "adopt=temple" }, 1, 2, #words + 1, words))
    assert.equal(0, r.code, r.err)
    local name = r.err:match "runbook rollback (temple%-%d+)"
    r = runbook("rollback", name, "--no-input")
    assert.equal(0, r.code, r.err)
    move.old:wait_ready()
    assert.same(before.old, state_of(move.old))
    assert.same(before.people, people_of(move.old))
    -- nobody was on the new hub, and the names may lead to it: a person opens it
    local lines = kubectl(move.new, "get", "configmap", "runbook-freeze", "-o", "jsonpath={.data.README}"):gsub("^[^\n]*\n", "")
    local path = world.folder "readme" .. "/README"
    world.write(path, lines)
    world.must(("PATH=%s:$PATH KUBECONFIG=%s sh -e %s"):format(world.kube.kubectl:match "^(.*)/", move.new.cluster.kubeconfig, path))
    assert.equal(before.new.ingress, state_of(move.new).ingress)
    nothing_is_left "prod secret/[%w-]+%-kept%-%x+"
  end)

  it("is put away when nobody needs it any more", function()
    local r = runbook("run", "move-hub.lua", "--params", "temple.yaml", "--done", "announce=spec", table.unpack(ANSWERS))
    assert.equal(0, r.code, r.err)
    local words = { "-p", "run=" .. r.err:match "(temple%-%d+): Move a hub", "--no-input", "--confirm", "set-aside=retire-hub",
      "--done", "tear-down=spec" }
    move.old.cluster:kubectl { "-n", "temple", "scale", "deployment/hub", "--replicas=1" }
    r = runbook("run", "retire-hub.lua", table.unpack(words))
    assert.equal(1, r.code, r.err)
    assert.truthy(r.err:find("Deployment hub has replicas again", 1, true), r.err)
    move.old.cluster:kubectl { "-n", "temple", "scale", "deployment/hub", "--replicas=0" }
    kubectl(move.old, "wait", "--for=delete", "pod", "-l", "component=hub", "--timeout=120s")
    r = runbook("resume", "retire-hub-1", table.unpack(words, 3))
    assert.equal(0, r.code, r.err)
    nothing_is_left()
    assert.matches("^temple%.retired%-%d+%-%d+%-%d+\n$", move.from:must "ls /srv/homes" .. "\n")
    move.new:start_server "carla"
  end)
end)
