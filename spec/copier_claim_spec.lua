-- Homes in claims of two real clusters, copied through pods: every kind of file, what is cut on the way, and the way back.

local claims = require "spec.support.claims"
local lab = require "spec.support.lab"
local oracle = require "spec.support.oracle"
local runs = require "spec.support.runs"
local sync = require "runbook.sync"
local task = require "runbook.task"
local world = require "spec.world"

local MB = 1 << 20

describe("the copier `claim`", function()
  local old, new, source, target

  setup(function()
    local a, b = world.kube.up("old", "new")
    old, new = claims.of(a, "temple"), claims.of(b, "prod")
    old:own("home-nfs", { mode = "ReadWriteOnce" })
    new:own "homes"
    source, target = old:folder "home-nfs", new:folder "homes"
  end)

  before_each(function()
    lab.empty(source, target)
    world.must(("mkdir -p %s/temple/ann/work %s/temple/bob && echo one > %s/temple/ann/work/a && echo loose > %s/temple/README"):format(
      source, source, source, source))
  end)

  local function pair(o)
    o = o or {}
    o.kind, o.from, o.to = "claim", o.from or old:dir("home-nfs", "temple"), o.to or new:dir("homes", "/prod/")
    return sync.pair(o)
  end

  local function must_be_done(to)
    oracle.identical(source .. "/temple", to or target .. "/prod", { exclude = { "lost+found" } })
    assert.equal("", old:left_over() .. new:left_over())
    assert.equal("", world.must(("find %s %s -name '.rb~*'"):format(source, target)))
  end

  local function failure(kind, code, fn)
    local err = lab.live(fn)
    assert.same({ kind, code }, err and { err.kind, err.code }, err and err.message)
    return err
  end

  it("carries every kind of file as it is, from pass to pass, with proof", function()
    lab.empty(source)
    world.grow("awkward", source .. "/temple", { deep = 40, largest = 4 * MB })
    lab.must(function()
      local homes = pair()
      local said = {}
      for _, one in ipairs(homes:checks()) do
        local finding = one[2]()
        said[#said + 1] = type(finding) == "string" and finding or nil
      end
      assert.truthy(table.concat(said, "\n"):find("all bytes go through this machine: old/", 1, true), table.concat(said, "\n"))
      homes:bulk()
      world.mutate(source .. "/temple", { percent = 20, delete = true, rename = true })
      homes:must_fit(3600)
      homes:must_be_quiet(0.2)
      homes:final()
      homes:must_be_quiet()
      homes:verify()
      assert.equal("hashed", homes:receipts().level)
      homes:must_be_unchanged_since_receipts()
    end)
    must_be_done()
  end)

  it("mounts the source to be read only, on the node that has it, and is no writer", function()
    old:pod("jupyter-ann", "home-nfs")
    lab.must(function()
      local homes = pair()
      assert.same({ "README", "ann", "bob" }, homes:units_now())
      local pod = old.real:kubectl { "-n", old.namespace, "get", "pods", "-l", "app.kubernetes.io/managed-by=runbook", "-o", "json" }
      assert.truthy(pod:find('"readOnly": true', 1, true))
      assert.truthy(pod:find('"old-node"', 1, true) and pod:find('"matchFields"', 1, true), pod)
      assert.truthy(pod:find('"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"', 1, true))
      local storage = require "runbook.kube.storage"
      local writers = storage.writers(old.cluster, storage.of_claim(old.cluster, old.namespace, "home-nfs"), old.namespace)
      assert.same({ 1, "jupyter-ann" }, { #writers, writers[1].metadata.name })
      local err = select(2, pcall(homes.from.write, homes.from, "ann/new", "x"))
      assert.truthy(err.message:find("Read-only file system", 1, true), err.message)
    end)
    old:delete "pod/jupyter-ann"
    assert.equal("", old:left_over())
  end)

  describe("goes on", function()
    before_each(function()
      world.must(("head -c %d /dev/urandom > %s/temple/ann/big && for i in $(seq 500); do echo $i > %s/temple/bob/$i; done"):format(
        64 * MB, source, source))
    end)

    local function on_its_way()
      local blocks = world.sh(("find %s -name '.rb~*.part' -printf '%%b\\n'"):format(world.quote(target)))
      return (tonumber(blocks:match "%d+") or 0) * 512
    end

    -- While a large file is on its way.
    local function meanwhile(fn)
      return task.spawn(function()
        world.wait_until("some of the file", function() return on_its_way() > 8 * MB or task.sleep(0.02) end, 120)
        fn()
      end)
    end

    local function moves_while(fn)
      local done = false
      local seen = lab.must(function()
        local homes = pair { rate = 16 * MB }
        local breaking = meanwhile(function()
          fn()
          done = true
        end)
        homes:bulk()
        task.join(breaking)
        homes:final()
        homes:verify()
      end)
      assert.is_true(done)
      must_be_done()
      return seen
    end

    local function pods_of(one)
      return one.real:kubectl { "-n", one.namespace, "get", "pods", "-l", "app.kubernetes.io/managed-by=runbook", "-o", "name" }
    end

    it("when the API server of an end is restarted", function()
      moves_while(function() new.real:restart_apiserver() end)
    end)

    it("when its pods are deleted, in others", function()
      moves_while(function()
        for _, one in ipairs { old, new } do
          for pod in pods_of(one):gmatch "%S+" do
            one:delete(pod, "--grace-period=0", "--force")
          end
        end
      end)
    end)

    it("with `resume` when somebody has stopped the run", function()
      runs.fresh()
      lab.body = function()
        local homes = pair { rate = 16 * MB }
        homes:bulk()
        homes:final()
        homes:verify()
      end
      local stopping = meanwhile(function() require("runbook.run.supervisor").request_stop "INT" end)
      local code, seen = runs.start(lab.BOOK)
      task.join(stopping)
      assert.equal(130, code, runs.last_error(seen))
      assert.truthy(pods_of(new):find "^pod/runbook%-claim%-")
      code, seen = runs.resume()
      assert.equal(0, code, runs.last_error(seen))
      runs.clean()
      must_be_done()
    end)
  end)

  it("goes back without losing what users wrote since", function()
    lab.must(function()
      local homes = pair()
      homes:bulk()
      homes:final()
      homes:verify()
    end)
    lab.must(function()
      local homes = pair()
      homes:final()
      homes:verify()
      world.must(("echo new > %s/prod/ann/work/new"):format(target))
      local ok, err = pcall(homes.must_be_unchanged_since_receipts, homes)
      assert.is_false(ok)
      assert.same({ "ECHANGED", { "ann" } }, { err.code, err.units })
      homes:back()
      assert.equal("new\n", world.read(source .. "/temple/ann/work/new"))
    end)
    assert.equal("", old:left_over() .. new:left_over())
  end)

  it("locks where it writes by a Lease, which needs no pod", function()
    lab.must(function()
      pair():bulk()
      local lease = new.real:kubectl { "-n", new.namespace, "get", "leases", "-o", "name" }
      assert.truthy(lease:find("lease.coordination.k8s.io/runbook-homes-", 1, true), lease)
      new.real:kubectl { "-n", new.namespace, "patch", lease, "--type=merge", "-p", '{"spec":{"holderIdentity":"another-7"}}' }
      require("runbook.core.task").context().session.locks = {}
      local ok, err = pcall(pair().bulk, pair())
      assert.is_false(ok)
      assert.same({ "busy", "ELOCKED" }, { err.kind, err.code })
      assert.truthy(err.message:find("is held by run another-7", 1, true), err.message)
      new:delete(lease)
    end)
  end)

  it("copies from a claim to a server, and from a server to a claim", function()
    local nfs <close> = world.sshd { name = "nfs-new" }
    lab.fresh(nfs, "/srv/homes")
    lab.must(function()
      local homes = pair { to = lab.place(nfs):dir "/srv/homes" }
      homes:bulk()
      homes:final()
      homes:verify()
    end)
    must_be_done(nfs:path "/srv/homes")
    lab.must(function()
      local homes = sync.pair { from = lab.place(nfs):dir "/srv/homes", to = new:dir("homes", "prod"), exclude = {} }
      homes:bulk()
      homes:verify()
    end)
    must_be_done()
    assert.equal("", lab.left_over(nfs, "/srv/homes"))
    require("runbook.ssh").close()
  end)

  it("takes two directories of one claim, and no claim for two", function()
    lab.must(function()
      local homes = pair { from = old:dir("home-nfs", "temple"), to = old:dir("home-nfs", "copy") }
      homes:bulk()
      homes:verify()
    end)
    must_be_done(source .. "/copy")
    for _, path in ipairs { "temple", "temple/ann", "" } do
      local err = failure("usage", "ESAME", function() pair({ to = old:dir("home-nfs", path) }):bulk() end)
      assert.truthy(err.message)
    end
  end)

  it("says what an image lacks", function()
    local from = old.cluster:claim { claim = "home-nfs", namespace = old.namespace, path = "temple", image = "world/busybox:1" }
    local err = failure("refused", "ENOTGNU", function() pair({ from = from }):checks()[1][2]() end)
    assert.truthy(err.message:find("are not GNU's", 1, true), err.message)
  end)

  it("looks in a plan, too, and leaves nothing", function()
    runs.fresh()
    lab.body = function()
      local homes = pair()
      homes:checks()[3][2]()
      homes:bulk()
    end
    local plan = require("runbook.plan").make(runs.load(lab.BOOK), {})
    runs.clean()
    local verbs = {}
    for _, change in ipairs(plan.steps[1].changes) do
      verbs[change.verb] = true
    end
    assert.truthy(verbs["sync.bulk"] and verbs["lock.take"], plan.steps[1].would_stop or plan.steps[1].ended)
    assert.is_nil(verbs["kube.create"])
    assert.equal("", world.must("ls " .. target))
    assert.equal("", old:left_over() .. new:left_over())
  end)

  it("is refused where neither end is in a claim, and where a way is chosen", function()
    local here = require "runbook.here"
    local ok, err = pcall(sync.pair, { kind = "claim", from = here:dir "/a", to = here:dir "/b" })
    assert.same({ false, "sync.pair: neither end is in a claim" }, { ok, err.message })
    ok, err = pcall(pair, { route = "pull" })
    assert.same({ false, "sync.pair: `route` is not chosen: a pod is reached through its cluster only" }, { ok, err.message })
  end)
end)
