-- runbooks/nfs-move.lua by the command, between two real servers, as an operator runs it: planned, killed, resumed, rolled back.

local command = require "spec.support.command"
local lab = require "spec.support.lab"
local task = require "runbook.core.task"
local world = require "spec.world"

describe("nfs-move.lua", function()
  local old, new, folder, keys

  local function end_of(m)
    return ("\n  ssh: %s\n  port: %d\n  user: %s\n  sudo: true\n  path: /srv/homes\n  host_key: %s\n  identity: %s\n"):format(
      m.address, m.port, m.user_sudo, m.fingerprint, m.key)
  end

  setup(function()
    old, new = world.sshd { name = "nfs-old" }, world.sshd { name = "nfs-new" }
    keys = old:must "cat /home/rb-sudo/.ssh/authorized_keys"
  end)

  teardown(function()
    old:close()
    new:close()
  end)

  before_each(function()
    lab.fresh(old, "/srv/homes")
    lab.fresh(new, "/srv/homes")
    old:must [[cd /srv/homes && for home in ann bob cyd; do
      mkdir -p $home/work && echo $home > $home/work/name && ln $home/work/name $home/linked && chown -R 1000:1000 $home; done
      echo loose > README]]
    local text = "from:%sto:%swindow: 1h\nquiet: 1s\nreceipts: receipts.json\n"
    folder = command.folder { ["homes.yaml"] = text:format(end_of(old), end_of(new)) }
  end)

  local function runbook(...)
    return command.run(folder, { ... })
  end

  local function run(...)
    return runbook("run", "nfs-move.lua", "--params", "homes.yaml", "--no-input", "--done", "stop-writers=spec", ...)
  end

  -- The process that works on the run.
  local function at_work()
    return world.read(folder .. "/state/runbook/runs/homes-1/lock"):match "^%d+"
  end

  local function must_be_moved()
    assert.equal("", lab.difference(old, "/srv/homes", new, "/srv/homes"))
    assert.equal(keys, old:must "cat /home/rb-sudo/.ssh/authorized_keys")
    assert.equal("", new:must "find /srv/homes -name '.rb~*'; ls -A /srv/homes/.runbook | grep lock || :")
    assert.truthy(world.read(folder .. "/receipts.json"):find('"level": "hashed"', 1, true))
  end

  it("plans without touching anything, and says what it would do", function()
    local before = { world.tree(old.folder .. "/disk"), world.tree(new.folder .. "/disk") }
    local r = runbook("plan", "nfs-move.lua", "--params", "homes.yaml")
    assert.equal(0, r.code, r.err .. r.out)
    assert.same(before, { world.tree(old.folder .. "/disk"), world.tree(new.folder .. "/disk") })
    local shown = r.out .. r.err
    for _, text in ipairs { "what is copied", "copy ann", "copy what changed of ann", "bulk", "converge", "final", "verify", "0 stop" } do
      assert.truthy(shown:find(text, 1, true), text .. " is missing from\n" .. shown)
    end
  end)

  it("moves homes while people work, and catches up when they have stopped", function()
    local r = run("--until", "converge")
    assert.equal(0, r.code, r.err)
    old:must [[cd /srv/homes && echo edited > ann/work/name && rm bob/linked && mv cyd dan && echo new > dan/new]]
    r = runbook("resume", "--no-input", "--done", "stop-writers=spec")
    assert.equal(0, r.code, r.err)
    must_be_moved()
    assert.equal("cyd", new:must "cat /srv/homes/.runbook/gone/cyd/work/name")
  end)

  it("is resumed after the host was killed in the middle of a copy", function()
    old:must "head -c 30M /dev/urandom > /srv/homes/ann/big"
    world.write(folder .. "/homes.yaml", world.read(folder .. "/homes.yaml") .. "rate: 20 MB/s\n")
    local started = task.spawn(run)
    world.wait_until("a file on its way", function()
      return new:must "find /srv/homes/ann -name '.rb~*' -size +0 2>/dev/null || :" ~= ""
    end, 30)
    world.must("kill -9 " .. at_work())
    task.join_all { started }
    local r = runbook("resume", "--no-input", "--done", "stop-writers=spec")
    assert.equal(0, r.code, r.err)
    must_be_moved()
  end)

  it("leaves the key of a copy that goes on when it is stopped, and takes it away after that", function()
    old:must "head -c 60M /dev/urandom > /srv/homes/ann/big"
    world.write(folder .. "/homes.yaml", world.read(folder .. "/homes.yaml") .. "rate: 20 MB/s\n")
    local started = task.spawn(run)
    world.wait_until("a file on its way", function()
      return new:must "find /srv/homes/ann -name '.rb~*' -size +0 2>/dev/null || :" ~= ""
    end, 30)
    world.must("kill " .. at_work())
    task.join_all { started }
    assert.truthy(old:must("cat /home/rb-sudo/.ssh/authorized_keys"):find("runbook:", 1, true))
    local r = runbook("resume", "--no-input", "--done", "stop-writers=spec")
    assert.equal(0, r.code, r.err)
    must_be_moved()
  end)

  it("stops where a person has to do something, and says how to go on", function()
    local r = runbook("run", "nfs-move.lua", "--params", "homes.yaml", "--no-input")
    assert.equal(5, r.code, r.err)
    assert.truthy(r.err:find("--done stop-writers=WHO", 1, true), r.err)
    assert.equal(keys, old:must "cat /home/rb-sudo/.ssh/authorized_keys")
  end)

  it("goes on without a home that fails, when an operator says so", function()
    new:must "mkdir -p /srv/homes && mkdir /srv/aside"
    local r = run("--until", "bulk")
    assert.equal(0, r.code, r.err)
    new:must "mv /srv/homes/bob /srv/aside/ && ln -s /srv/aside/bob /srv/homes/bob"
    old:must "echo more > /srv/homes/bob/more"
    r = runbook("resume", "--no-input", "--done", "stop-writers=spec")
    assert.equal(1, r.code, r.err)
    assert.truthy(r.err:find("1 of 3 homes failed", 1, true) or r.err:find("1 of 4 homes failed", 1, true), r.err)
    assert.truthy(r.err:find("a symlink stands on the target", 1, true), r.err)
    r = runbook("resume", "--no-input", "--done", "stop-writers=spec", "--leave", "bob", "--reason", "spec")
    assert.equal(0, r.code, r.err)
    assert.truthy(r.err:find("1 left out on purpose", 1, true), r.err)
    assert.equal("bob", new:must "cat /srv/aside/bob/work/name; rm -r /srv/aside /srv/homes/bob")
    assert.falsy(world.read(folder .. "/receipts.json"):find('"level": "hashed",\n  "owner"', 1, true))
  end)

  it("goes back without removing anything, and lets the target go", function()
    local r = run("--until", "converge")
    assert.equal(0, r.code, r.err)
    local before = world.tree(old:path "/srv/homes")
    r = runbook "rollback"
    assert.equal(0, r.code, r.err)
    assert.equal(before, world.tree(old:path "/srv/homes"))
    assert.equal("ann", new:must "cat /srv/homes/ann/work/name")
    assert.equal("", new:must "ls -A /srv/homes/.runbook | grep lock || :")
    assert.equal(keys, old:must "cat /home/rb-sudo/.ssh/authorized_keys")
  end)
end)
