-- Homes that two real clusters mount from one file server: nothing is copied, and what could go wrong is said.

local claims = require "spec.support.claims"
local lab = require "spec.support.lab"
local ledger = require "runbook.hub.ledger"
local sync = require "runbook.sync"
local world = require "spec.world"

describe("the copier `same`", function()
  local old, new, folder, old_volume

  setup(function()
    local a, b = world.kube.up("old", "new")
    old, new = claims.of(a, "temple"), claims.of(b, "prod")
    folder = world.folder "homes"
    local share = { server = "10.77.0.1", path = "/export/homes/" .. old.namespace, folder = folder }
    old_volume = old:share("home-nfs", share)
    new:share("homes", share)
    new:share("others", { server = "10.77.0.1", path = "/export/others/" .. old.namespace, folder = world.folder "others" })
  end)

  teardown(function()
    old.real:kubectl { "delete", "pv", old_volume, "--wait=false" }
    new.real:kubectl { "delete", "pv", new.namespace .. "-homes", new.namespace .. "-others", "--wait=false" }
  end)

  before_each(function()
    world.must(("cd %s && rm -rf * && mkdir -p ann bob .hidden lost+found && echo x > ann/x && echo loose > README"):format(folder))
  end)

  local function pair(to, from)
    return sync.pair { kind = "same", from = from or old:dir "home-nfs", to = to or new:dir "homes" }
  end

  local function check(homes, title)
    for _, one in ipairs(homes:checks()) do
      if one[1] == title then
        return one[2]()
      end
    end
    error("no check is called " .. title)
  end

  local function failure(kind, code, fn)
    local err = lab.live(fn)
    assert.same({ kind, code }, err and { err.kind, err.code }, err and err.message)
    return err
  end

  it("goes through a whole move and copies nothing, and leaves nothing", function()
    local before = world.must(("ls -la --time-style=full-iso %s"):format(folder))
    local seen = lab.must(function()
      local homes = pair()
      for _, one in ipairs(homes:checks()) do
        one[2]()
      end
      assert.is_nil(homes:receipt "ann")
      homes:bulk { first = { "ann" }, without = { "bob" } }
      assert.equal(2, homes:receipts().total.units)
      assert.same({ "same", "sent" }, { homes:receipt("ann").level, homes:receipt("made since").level })
      homes:converge { within = 1 }
      homes:must_fit(1)
      assert.equal(0, homes:forecast().high)
      assert.truthy(homes:impact()[2][2]:find("nothing is copied", 1, true))
      homes:must_be_quiet(0.2)
      homes:must_be_quiet()
      homes:final()
      homes:verify()
      local names = homes:units_now()
      assert.same({ ".hidden", "ann", "bob" }, names)
      assert.equal("same", homes:receipt("ann").level)
      local all = homes:receipts()
      assert.same({ "same", 3, 3 }, { all.level, all.total.units, all.total.same })
      homes:must_be_unchanged_since_receipts()
      assert.same({}, homes:changed_since_receipts())
      homes:back()
    end)
    assert.truthy(lab.notices(seen):find("final: nothing is copied: 3 homes in storage that both clusters mount", 1, true))
    assert.equal(before, world.must(("ls -la --time-style=full-iso %s"):format(folder)))
    assert.equal("", old:left_over() .. new:left_over())
  end)

  it("counts as proven in the ledger", function()
    local rows = ledger.classify({ users = { { name = "ann", directory = "ann" } }, homes = { ann = true }, receipts = { ann = "same" },
      names = {}, secrets = {}, prometheus = "none" }, {})
    assert.same({ "good", "its home is in storage that both clusters mount" }, { rows[1].state, rows[1].why })
  end)

  it("stops where the clusters mount two", function()
    local err = failure("conflict", "ETWO", function() check(pair(new:dir "others"), "both clusters mount one storage") end)
    assert.truthy(err.message:find("the clusters mount two storages: 10.77.0.1:/export/homes", 1, true), err.message)
    failure("conflict", "ETWO", function() check(pair(new:dir("homes", "ann")), "both clusters mount one storage") end)
    failure("conflict", "ETWO", function() pair(new:dir "others"):bulk() end)
    lab.must(function() check(pair(new:dir("homes", "/ann/"), old:dir("home-nfs", "ann")), "both clusters mount one storage") end)
  end)

  it("stops where volumes are of a kind that only its cluster knows", function()
    old:own "a"
    new:own "b"
    old:pod("a", "a")
    new:pod("b", "b")
    local err = failure("conflict", "ETWO", function() check(pair(new:dir "b", old:dir "a"), "both clusters mount one storage") end)
    assert.truthy(err.message:find("nobody can tell whether they are one", 1, true), err.message)
    old:delete("pod/a", "pvc/a")
    new:delete("pod/b", "pvc/b")
  end)

  it("stops where deleting the old hub would delete the homes, with the line that mends it", function()
    local function policy(value)
      old.real:kubectl { "patch", "pv", old_volume, "-p", ('{"spec":{"persistentVolumeReclaimPolicy":"%s"}}'):format(value) }
    end
    policy "Delete"
    local err = failure("conflict", "ERECLAIM", function() check(pair(), "no volume removes the homes with its claim") end)
    assert.truthy(err.hint:find(("--context old patch pv %s -p '{\"spec\":{\"persistentVolumeReclaimPolicy\":\"Retain\"}}'"):format(old_volume),
      1, true), err.hint)
    policy "Retain"
    lab.must(function() check(pair(), "no volume removes the homes with its claim") end)
  end)

  it("stops when both hubs would be open at once, at either end of a move", function()
    old:pod("jupyter-ann", "home-nfs")
    failure("busy", "EWRITERS", function() pair():final() end)
    lab.must(function() check(pair(), "pods of one cluster write to the homes") end)
    new:pod("jupyter-bob", "homes", "echo new > bob/work; sleep 100000")
    local err = failure("conflict", "EWRITERS", function() check(pair(), "pods of one cluster write to the homes") end)
    assert.truthy(err.message:find(old.namespace .. "/jupyter-ann; and " .. new.namespace .. "/jupyter-bob", 1, true), err.message)
    old:delete "pod/jupyter-ann"
    lab.must(function()
      local homes = pair()
      homes:verify()
      homes:must_be_unchanged_since_receipts()
      assert.equal("new\n", homes.from:read "bob/work")
    end)
    err = failure("busy", "EWRITERS", function() pair():back() end)
    assert.truthy(err.hint:find("delete pod jupyter-bob", 1, true), err.hint)
    new:delete "pod/jupyter-bob"
    lab.must(function() pair():back() end)
  end)

  it("hears who still writes", function()
    old:pod("jupyter-ann", "home-nfs", "while :; do date +%N > ann/work; sleep 0.1; done")
    local err = failure("conflict", "EWRITERS", function() pair():must_be_quiet(0.5) end)
    assert.truthy(err.message:find("ann/work", 1, true), err.message)
    old:delete "pod/jupyter-ann"
  end)

  it("is named where two directories are no claims", function()
    local ok, err = pcall(sync.pair, { kind = "same", from = require "runbook.here":dir "/a", to = new:dir "homes" })
    assert.is_false(ok)
    assert.equal("sync.pair: `from` is in no claim: `same` is for storage that clusters mount", err.message)
  end)
end)
