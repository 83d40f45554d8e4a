-- A whole move-hub.lua, and the way back, where homes are on no server of their own: in a claim of each cluster, or in storage that
-- both clusters mount.

local command = require "spec.support.command"
local oracle = require "spec.support.oracle"
local task = require "runbook.task"
local world = require "spec.world"

local ANSWERS = { "--no-input", "--confirm", "freeze=temple", "--confirm", "open=temple", "--done", "announce=spec" }

describe("move-hub.lua", function()
  local move, folder

  local function kubectl(hub, ...)
    return hub.cluster:kubectl { "-n", hub.namespace, ... }
  end

  local function runbook(...)
    local r = command.run(folder, { ... })
    return r.code, (r.out .. r.err):gsub("%s+", " "), r.out .. r.err
  end

  local function says(said, ...)
    for _, words in ipairs { ... } do
      assert.truthy(said:find(words, 1, true), words .. " is missing from\n" .. said)
    end
  end

  local function start(kind, more)
    move = world.moving { users = 4, running = 1, homes = kind }
    folder = command.folder { ["temple.yaml"] = move:parameters(more) }
  end

  -- What a user sees of a file at home, in a browser.
  local function shown(hub, user, file)
    hub:start_server(user)
    local browser = hub:login(user)
    browser:get(hub:page(user))
    return (browser:get(hub:page(user, "api/contents/" .. file)))
  end

  local function nothing_is_left()
    world.wait_until("nothing to be left of ours", function()
      local list = ""
      for _, hub in ipairs { move.old, move.new } do
        list = list .. kubectl(hub, "get", "configmap,resourcequota,deployment,service,lease,pod", "-o", "name")
      end
      return not list:find "runbook" or task.sleep(1)
    end, 120)
  end

  -- There, work on the new hub, and back with it.
  local function there_and_back()
    local before = move:address()
    local code, said, lines = runbook("run", "move-hub.lua", "--params", "temple.yaml", table.unpack(ANSWERS))
    assert.equal(0, code, said)
    assert.equal(move.new.cluster.front, move:address())
    move.new.service_token = move.old.service_token -- its services kept theirs
    assert.truthy(shown(move.new, "carla", "whose.txt"):find("carla", 1, true))
    world.must(("echo new > %s/carla/made-on-the-new-hub && chown 1000:100 %s/carla/made-on-the-new-hub"):format(move.new.homes,
      move.new.homes))
    local back, said_back = runbook("rollback", lines:match "(temple%-%d+): Move a hub", "--no-input", "--confirm", "open=temple")
    assert.equal(0, back, said_back)
    assert.equal(before, move:address())
    move.old:wait_ready()
    assert.equal("new\n", world.read(move.old.homes .. "/carla/made-on-the-new-hub"))
    assert.truthy(shown(move.old, "carla", "made-on-the-new-hub"):find("new", 1, true))
    nothing_is_left()
    return said, said_back
  end

  after_each(function() move:close() end)

  it("copies homes from a claim to a claim, and back", function()
    start("claim", "probes: [carla]\n")
    move.new.cluster:apply([[
apiVersion: v1
kind: PersistentVolumeClaim
metadata: { name: small }
spec: { accessModes: [ReadWriteOnce], storageClassName: sized, resources: { requests: { storage: 16Mi } } }
]], "prod")
    local large = move.old.homes .. "/carla/large"
    world.must(("head -c %d /dev/urandom > %s && chown 1000:100 %s"):format(24 << 20, large, large))
    world.write(folder .. "/small.yaml", (move:parameters():gsub("(namespace: prod, claim: )home%-nfs", "%1small")))
    local code, said = runbook("plan", "move-hub.lua", "--params", "small.yaml")
    assert.equal(1, code, said)
    says(said, "are needed and", "its homes are", "and the copy fills new/prod/small")
    there_and_back()
    oracle.identical(move.old.homes, move.new.homes, { exclude = { "lost+found", "carla" } })
  end)

  it("copies nothing where both clusters mount one storage", function()
    start("same", "probes: [carla]\n")
    local said = there_and_back()
    says(said, "final: nothing is copied: 5 homes in storage that both clusters mount")
  end)
end)
