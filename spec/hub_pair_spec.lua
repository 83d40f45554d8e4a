-- Two real hubs: what the new one must be given, whether it mounts what the copy fills, and what is still open.

local complaint = require "spec.support.complaint"
local here = require "runbook.here"
local hubs = require "runbook.hub"
local ledger = require "runbook.hub.ledger"
local secrets = require "runbook.hub.secrets"
local world = require "spec.world"

describe("two hubs", function()
  local cluster, old, new

  setup(function()
    cluster = world.kube.up "old"
    world.kube.hub(cluster, { users = 4, namespace = "temple" })
    world.kube.hub(cluster, { users = 2, namespace = "prod", home_subpath = "prod/{escaped_username}",
      homes = { server = "127.0.0.1", path = "/export/homes", folder = world.folder "nfs" } })
    old = hubs.open { context = "old", kubeconfig = cluster.kubeconfig, namespace = "temple" }
    new = hubs.open { context = "old", kubeconfig = cluster.kubeconfig, namespace = "prod" }
  end)

  -- A copier, as far as the ledger sees one.
  local function copier(homes, receipts)
    return {
      units_now = function() return homes end,
      receipt = function(_, name) return receipts[name] and { level = receipts[name] } end,
    }
  end

  it("are told apart by what their values say, and no password is shown", function()
    local know = table.concat(hubs.differences(old, new), "\n")
    assert.truthy(know:find("password: «%x+», then «%x+»") or not know:find "password")
    assert.falsy(know:find("open sesame", 1, true))
    hubs.same_directories(old, new)
  end)

  it("are one after the old one's keys and certificate were carried", function()
    local missing = secrets.missing(old, new)
    table.sort(missing)
    assert.same({ "https-auto-tls", "hub.config.CryptKeeper.keys", "hub.config.JupyterHub.cookie_secret",
      "hub.services.hub-health.apiToken", "hub.services.runbook.apiToken" }, missing)
    hubs.carry_secrets(old, new)
    assert.same({}, secrets.missing(old, new))
    local function key(namespace)
      return cluster:kubectl { "-n", namespace, "get", "secret", "hub", "-o", [[jsonpath={.data.hub\.config\.CryptKeeper\.keys}]] }
    end
    assert.equal(key "temple", key "prod")
    assert.truthy(cluster:kubectl { "-n", "prod", "get", "secret", "hub", "-o", [[jsonpath={.data.values\.yaml}]] } ~= "")
    cluster:kubectl { "-n", "prod", "delete", "secret", "-l", "runbook.io/kept=true" }
  end)

  it("have an address that names can lead to", function()
    assert.equal(cluster.front, new:ingress_address())
  end)

  it("mount the directory that the copy fills, and no other", function()
    new:must_mount(here:dir "/export/homes/prod")
    local err = complaint("conflict", new.must_mount, new, here:dir "/export/homes/temple")
    assert.truthy(err.message:find("its homes are 127.0.0.1:/export/homes/prod, and the copy fills", 1, true), err.message)
    complaint("conflict", old.must_mount, old, here:dir "/export/homes/temple") -- a claim that is no NFS export
  end)

  it("mount the claim that the copy fills, and the directory in it", function()
    local function claim(namespace, path)
      return old.cluster:claim { namespace = namespace, claim = "home-nfs", path = path }
    end
    old:must_mount(claim "temple")
    new:must_mount(claim("prod", "prod"))
    complaint("conflict", old.must_mount, old, claim("temple", "prod"))
    local err = complaint("conflict", new.must_mount, new, claim "prod")
    assert.truthy(err.message:find("prod/home-nfs:/claim: that is 127.0.0.1:/export/homes", 1, true), err.message)
    complaint("conflict", old.must_mount, old, claim("prod", "prod"))
    complaint("conflict", new.must_mount, new, claim "temple")
  end)

  it("mount it alone, or it is said who else does", function()
    new:must_mount_alone()
    cluster:apply [[{"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "staging-homes"}, "spec": {
      "capacity": {"storage": "1Mi"}, "accessModes": ["ReadWriteMany"], "storageClassName": "", "persistentVolumeReclaimPolicy": "Retain",
      "claimRef": {"namespace": "staging", "name": "homes"}, "nfs": {"server": "127.0.0.1", "path": "/export"}}}]]
    local err = complaint("conflict", new.must_mount_alone, new)
    assert.truthy(err.message:find("in the storage of others, too: staging (127.0.0.1:/export)", 1, true), err.message)
    -- the hub it takes the place of, where homes stay where they are; no other directory is a pair's
    local pair = { name = "old/staging", namespace = "staging", cluster = new.cluster, home_storage = function() return new:home_storage() end }
    assert.equal("old/staging has its homes in the same directory, until it is removed", new:must_mount_alone { but = pair })
    complaint("conflict", new.must_mount_alone, new, { but = old })
    cluster:kubectl { "delete", "pv", "staging-homes" }
  end)

  it("have a ledger that refuses homes of another hub", function()
    local book = ledger.new { old = old, new = new, homes = copier({ "somebody", "else" }, {}), names = {} }
    local err = complaint("conflict", book.must_be_closed, book)
    assert.equal("ESOURCE", err.code)
    assert.matches("none of 4 users has a home in", err.message, 1, true)
  end)

  it("have a ledger that is closed when every home is proven", function()
    local homes = { "carla", "user-2d17", "alice-40uni-2eedu", "_shared" }
    local receipts = { carla = "hashed", ["user-2d17"] = "hashed" }
    local book = ledger.new { old = old, new = new, homes = copier(homes, receipts), names = {} }
    local err = complaint("conflict", book.must_be_closed, book)
    assert.equal("one row is open in the ledger:\nuser alice@uni.edu: its home is not at the target", err.message)
    receipts["alice-40uni-2eedu"] = "scanned"
    book:must_be_closed()
  end)
end)
