-- runbooks/active-users.lua by the command: a real hub, whose homes are on a real server.

local command = require "spec.support.command"
local world = require "spec.world"

describe("active-users.lua", function()
  local cluster, old, new, folder

  local function end_of(m)
    return ("    ssh: %s\n    port: %d\n    user: %s\n    sudo: true\n    path: /srv/homes\n    host_key: %s\n    identity: %s\n"):format(
      m.address, m.port, m.user_sudo, m.fingerprint, m.key)
  end

  setup(function()
    cluster = world.kube.up "old"
    old, new = world.sshd { name = "nfs-old" }, world.sshd { name = "nfs-new" }
    old:must "mkdir -p /srv/homes"
    world.kube.hub(cluster, { users = { "carla", "alice@uni.edu", "dan", "eve" },
      homes = { server = old.address, path = "/srv/homes", folder = old.folder .. "/disk/srv/homes" } })
    -- Long ago, never, and lately without a home.
    cluster:kubectl { "-n", "temple", "exec", "deploy/hub", "-c", "hub", "--", "python3", "-c", [[
import sqlite3
db = sqlite3.connect("/srv/jupyterhub/jupyterhub.sqlite", timeout=30)
db.execute("update users set last_activity = datetime('now', '-90 days') where name = 'dan'")
db.execute("update users set last_activity = null where name = 'eve'")
db.execute("update users set last_activity = datetime('now', '-2 days') where name = 'alice@uni.edu'")
db.execute("update users set last_activity = datetime('now', '-1 hours') where name = 'carla'")
db.commit()]] }
    folder = command.folder { ["active.yaml"] = ("hub:\n  context: old\n  cluster: %s\n  kubeconfig: %s\n  namespace: temple\n"):format(
      cluster.uid, cluster.kubeconfig) .. "homes:\n  kind: nfs\n  from:\n" .. end_of(old) .. "  to:\n" .. end_of(new) }
  end)

  teardown(function()
    old:close()
    new:close()
  end)

  local function runbook(...)
    return command.run(folder, { ... })
  end

  local function there()
    return new:must "ls /srv/homes 2>/dev/null || :"
  end

  it("says whose homes it would copy, and copies nothing, in a plan", function()
    local r = runbook("plan", "active-users.lua", "--params", "active.yaml", "-p", "only=true")
    assert.equal(0, r.code, r.err .. r.out)
    local text = r.out .. r.err
    assert.truthy(text:find("2 users of 4, within 30 d", 1, true), text)
    assert.equal("", there())
  end)

  it("copies their homes and what is everybody's, and nobody else's when it is told so", function()
    local r = runbook("run", "active-users.lua", "--params", "active.yaml", "--no-input", "-p", "only=true")
    assert.equal(0, r.code, r.err)
    assert.truthy(r.err:find("2 homes of active users came first; 2 are left for a later copy", 1, true), r.err)
    assert.equal("_shared\nalice-40uni-2eedu\ncarla", there())
    assert.equal("carla", new:must "cat /srv/homes/carla/whose.txt")
  end)

  it("is not stopped by an active user who has no home, and copies everybody's afterwards", function()
    old:must "mv /srv/homes/alice-40uni-2eedu /srv/aside"
    new:must "rm -rf /srv/homes && mkdir /srv/homes"
    local r = runbook("run", "active-users.lua", "--params", "active.yaml", "--no-input", "-p", "within=1d")
    assert.equal(0, r.code, r.err)
    assert.equal("_shared\ncarla\ndan\neve", there())
    assert.truthy(r.err:find("1 home of active users came first; none is left for a later copy", 1, true), r.err)
    old:must "mv /srv/aside /srv/homes/alice-40uni-2eedu"
    r = runbook("run", "active-users.lua", "--params", "active.yaml", "--no-input")
    assert.equal(0, r.code, r.err)
    assert.equal("_shared\nalice-40uni-2eedu\ncarla\ndan\neve", there())
  end)
end)
