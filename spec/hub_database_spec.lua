-- The database of a real hub, moved to another: who was a user, an admin, or had a token is so there.

local command = require "spec.support.command"
local database = require "runbook.hub.database"
local effect = require "runbook.effect"
local complaint = require "spec.support.complaint"
local hubs = require "runbook.hub"
local sqlite = require "runbook.sqlite"
local world = require "spec.world"

describe("JupyterHub's schemas", function()
  it("have an order, and what is none of them has no place in it", function()
    assert.truthy(database.compare("4621fec11365", "833da8570507") > 0)
    assert.equal(0, database.compare("0eee8c825d24", "0eee8c825d24"))
    assert.is_nil(database.compare("4621fec11365", "ffffffffffff"))
  end)
end)

describe("a hub's database", function()
  local cluster, peers, old, new, saved

  setup(function()
    cluster = world.kube.up "old"
    peers = {
      old = world.kube.hub(cluster, { users = 6, namespace = "temple" }),
      new = world.kube.hub(cluster, { users = { "carla", "newcomer" }, namespace = "prod" }),
    }
    old = hubs.open { context = "old", kubeconfig = cluster.kubeconfig, namespace = "temple" }
    new = hubs.open { context = "old", kubeconfig = cluster.kubeconfig, namespace = "prod" }
  end)

  teardown(function()
    for _, one in ipairs { saved or {} } do
      os.remove(one.path)
    end
  end)

  local function names()
    local list = {}
    for _, person in ipairs(new:users()) do
      list[person.name] = person.admin and "admin" or "user"
    end
    return list
  end

  it("would lose what it replaces, which is told with what would not", function()
    local err = complaint("conflict", hubs.database_evidence, old, new, "copy")
    assert.equal("`database: copy` would lose:\n1 user of prod (newcomer)\n2 tokens of users of prod (carla, newcomer)\n"
      .. "`database: merge` loses nothing", (err.message:gsub("old/prod", "prod")))
    assert.equal(table.concat({
      "old/temple: 6 users, 1 admin, 2 groups, 5 kept tokens, 0 named servers",
      "old/prod: 2 users, 1 admin, 2 groups, 2 kept tokens, 0 named servers",
      "its authenticator lets everybody in who can log in: users come back by themselves, their groups, admin flags and tokens do not",
      "by name the same person on both: carla",
      "`copy` loses 1 user of old/prod (newcomer); 2 tokens of users of old/prod (carla, newcomer)",
      "`merge` loses nothing",
      "`leave` loses 1 group with members (course-a); 5 tokens that somebody made (alice@uni.edu, auth0|5f, carla, josé, user-17)",
    }, "\n"), hubs.database_evidence(old, new, "merge")[1])
    local said = hubs.database_evidence(old, new, "copy", { lose = true })[1]
    assert.truthy(said:find("\n`copy` loses 1 user of old/prod (newcomer)", 1, true), said)
  end)

  it("is saved whole while the hub runs, and the same when it is stopped", function()
    local running = old:save_database()
    assert.equal(6, running.users)
    assert.same({}, sqlite.integrity(running.path))
    old:stop_hub()
    saved = old:save_database()
    assert.equal(6, saved.users)
    assert.equal(running.revision, saved.revision)
    assert.equal("", cluster:kubectl { "-n", "temple", "get", "pods", "-l", "app.kubernetes.io/managed-by=runbook", "-o", "name" })
  end)

  it("is not put under a hub that runs", function()
    local err = complaint("busy", new.install_database, new, { from = saved })
    assert.truthy(err.message:find("a database that is replaced under it is lost", 1, true))
  end)

  it("is not put where a user would be lost, the schema is older, or there is no room", function()
    new:stop_hub()
    local err = complaint("conflict", new.install_database, new, { from = saved })
    assert.equal("1 user of this hub is not in the database that replaces its own: newcomer", err.message)
    local function like_saved(fields)
      for key, value in pairs(saved) do
        fields[key] = fields[key] or value
      end
      return fields
    end
    err = complaint("conflict", new.install_database, new, { from = like_saved { revision = "f460b0348206" }, lose = true })
    assert.truthy(err.message:find("is newer than this hub", 1, true), err.message)
    err = complaint("full", new.install_database, new, { from = like_saved { bytes = 1 << 60 }, merge = true })
    assert.truthy(err.message:find("claim hub%-db%-dir has .- free, and 1%.15 EB more are needed"), err.message)
  end)

  it("gives the new hub its users, admins and tokens", function()
    hubs.carry_secrets(old, new)
    new:install_database { from = saved, lose = true }
    new:install_database { from = saved, lose = true } -- twice is once
    new:start_hub()
    local list = names()
    assert.equal("admin", list.carla)
    assert.equal("user", list["auth0|5f"])
    assert.is_nil(list.newcomer)
    local me, status = peers.new:api("GET", "/user", nil, peers.old.tokens["auth0|5f"])
    assert.same({ "auth0|5f", 200 }, { me.name, status })
  end)

  it("comes back as it was", function()
    new:stop_hub()
    effect.call("hub.put_back_database", new, "jupyterhub.sqlite.before-ad-hoc")
    new:start_hub()
    assert.equal("user", names().newcomer)
    cluster:kubectl { "-n", "prod", "delete", "secret", "-l", "runbook.io/kept=true" }
  end)
end)

describe("hub-database.lua", function()
  local cluster, peers, folder

  setup(function()
    cluster = world.kube.up "old"
    peers = { old = world.kube.hub(cluster, { users = 4, namespace = "temple" }),
      new = world.kube.hub(cluster, { users = { "carla", "newcomer" }, admins = {}, namespace = "prod" }) }
    local at = "{context: old, kubeconfig: %s, namespace: %s}\n"
    folder = command.folder { ["temple.yaml"] = ("old: " .. at .. "new: " .. at .. "database: merge\n"):format(cluster.kubeconfig, "temple",
      cluster.kubeconfig, "prod") }
  end)

  local function runbook(...)
    return command.run(folder, { ... })
  end

  local function me(token)
    local answer, status = peers.new:api("GET", "/user", nil, token)
    return status == 200 and answer.name or status
  end

  it("stops before it would lose somebody", function()
    local r = runbook("plan", "hub-database.lua", "--params", "temple.yaml", "-p", "database=copy")
    assert.equal(1, r.code, r.err)
    local text = r.out .. r.err
    assert.truthy(text:find("1 user of old/prod (newcomer)", 1, true), text)
    assert.truthy(text:find("`database: merge` loses nothing", 1, true), text)
  end)

  it("plans, merges everybody in, and goes back", function()
    local r = runbook("plan", "hub-database.lua", "--params", "temple.yaml")
    assert.equal(0, r.code, r.err)
    assert.truthy((r.out .. r.err):find("merge the saved database into the hub's", 1, true), r.out .. r.err)
    assert.equal(403, me(peers.old.tokens.carla))
    r = runbook("run", "hub-database.lua", "--params", "temple.yaml", "--no-input", "--confirm", "stop=temple")
    assert.equal(0, r.code, r.err)
    peers.new:wait_ready()
    assert.same({ "carla", "carla", "newcomer" }, { me(peers.old.tokens.carla), me(peers.new.tokens.carla), me(peers.new.tokens.newcomer) })
    local carla, alice = peers.new:api("GET", "/users/carla"), peers.new:api("GET", "/users/alice%40uni.edu")
    assert.same({ true, { "staff" }, { "course-a" } }, { carla.admin, carla.groups, alice.groups })
    peers.new:login "alice@uni.edu"
    r = runbook("rollback", "--yes", "--no-input")
    assert.equal(0, r.code, r.out .. r.err)
    peers.new:wait_ready()
    assert.same({ 403, "newcomer" }, { me(peers.old.tokens.carla), me(peers.new.tokens.newcomer) })
    assert.equal("", cluster:kubectl { "-n", "prod", "get", "secret,pod", "-l", "runbook.io/kept=true", "-o", "name" })
  end)
end)
