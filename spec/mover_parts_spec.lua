-- Large files whose way is cut: in the same pass, by the next one, and when everything that has a part in it is killed. What came
-- is not sent again, what changed is, and nothing is left lying about.

local lab = require "spec.support.lab"
local record = require "runbook.copier.record"
local runs = require "spec.support.runs"
local sync = require "runbook.sync"
local task = require "runbook.task"
local world = require "spec.world"

local MB = 1 << 20

describe("a large file whose way is cut", function()
  local old, new, from, to

  setup(function()
    old, new = world.sshd { name = "nfs-old" }, world.sshd { name = "nfs-new" }
    from, to = lab.place(old), lab.place(new)
  end)

  teardown(function()
    require("runbook.ssh").close()
    old:close()
    new:close()
  end)

  before_each(function()
    lab.fresh(old, "/srv/homes")
    lab.fresh(new, "/srv/homes")
    old:must "mkdir -p /srv/homes/ann/sub /srv/homes/bob && cd /srv/homes && echo b > bob/b && head -c 48M /dev/urandom > ann/sub/big"
  end)

  local function pair(o)
    o = o or {}
    o.from, o.to = o.from or from:dir "/srv/homes", o.to or to:dir "/srv/homes"
    return sync.pair(o)
  end

  local function must_be_done()
    lab.identical(old, "/srv/homes", new, "/srv/homes")
    assert.equal("", lab.left_over(old, "/srv/homes"))
    assert.equal("", lab.left_over(new, "/srv/homes"))
  end

  -- Bytes on the target's disk of what is on its way.
  local function on_its_way()
    local blocks = new:must "find /srv/homes -name '.rb~*.part' -printf '%b\\n' 2>/dev/null || :"
    return (tonumber(blocks:match "%d+") or 0) * 512
  end

  -- Once so much of it is there.
  local function meanwhile(bytes, fn)
    return task.spawn(function()
      world.wait_until("some of the file", function() return on_its_way() > bytes end, 120)
      fn()
    end)
  end

  local function carried(seen)
    local n = 0
    for _, event in ipairs(runs.only(seen, "progress")) do
      n = math.max(n, event.bytes or 0)
    end
    return n
  end

  it("arrives although every connection ends before all of it can have passed", function()
    local relay <close> = world.relay { to = old }
    local through = lab.place(old, { seen_from_target = relay.address .. ":" .. relay.port })
    local cuts, stop = 0, false
    local seen = lab.must(function()
      local cutter = task.spawn(function()
        while not stop do
          local before = relay:passed().back
          while not stop and relay:passed().back - before < 14 * MB do
            task.sleep(0.01)
          end
          relay:cut()
          relay:go()
          cuts = cuts + (stop and 0 or 1)
        end
      end)
      local homes = pair { from = through:dir "/srv/homes", rate = 20e6, route = "pull" }
      local ok, err = pcall(homes.bulk, homes)
      stop = true
      task.join(cutter)
      assert.truthy(ok, tostring(err))
      homes:verify()
    end)
    assert.is_true(cuts > 1, cuts)
    assert.is_true(carried(seen) <= 49 * MB, "more came than there is")
    must_be_done()
  end)

  -- A pass whose way is closed for good once a part of the file came, so that it gives up.
  local function half_a_pass()
    local relay <close> = world.relay { to = old }
    local through = lab.place(old, { seen_from_target = relay.address .. ":" .. relay.port })
    local err = lab.live(function()
      local homes = pair { from = through:dir "/srv/homes", rate = 10e6, route = "pull" }
      local cutter = meanwhile(13 * MB, function()
        relay:refuse()
        relay:cut()
      end)
      local ok, failure = pcall(homes.bulk, homes)
      task.join(cutter)
      error(ok and "it arrived" or failure, 0)
    end)
    assert.truthy(err and err.message:find("home", 1, true), err and err.message)
    local there = on_its_way()
    assert.is_true(there > 8 * MB and there < 44 * MB, there)
    return there
  end

  -- Bytes that the last pass sent in what it brought to its end.
  local function sent_last(homes)
    local passes = record.passes(homes)
    return passes[#passes].bytes
  end

  local function sent_by()
    local bytes
    local seen = lab.must(function()
      local homes = pair()
      homes:bulk()
      bytes = sent_last(homes)
      homes:final()
      homes:verify()
    end)
    return bytes, seen
  end

  it("is gone on with by the next pass, which sends only the rest", function()
    local there = half_a_pass()
    local bytes, seen = sent_by()
    assert.is_true(bytes <= 48 * MB - there + 12 * MB and bytes > 0, ("%d of 48 MB although %d were there"):format(bytes // MB, there // MB))
    assert.is_true(carried(seen) <= 48 * MB + 100)
    assert.is_true(carried(seen) >= 48 * MB, "what was there is counted, too")
    must_be_done()
  end)

  it("is sent as it is now where it changed, and leaves nothing behind where it is gone", function()
    old:must "mkdir /srv/homes/eve && head -c 48M /dev/urandom > /srv/homes/eve/big"
    half_a_pass()
    old:must [[cd /srv/homes && mv eve fay && echo more >> ann/sub/big &&
      printf changed | dd of=ann/sub/big bs=1 seek=5000000 conv=notrunc status=none]]
    new:must [[find /srv/homes/ann -name '.rb~*.part' -exec sh -c 'printf tampered | dd of="$1" bs=1 seek=4194400 conv=notrunc status=none' sh {} \;]]
    local bytes = sent_by()
    assert.is_true(bytes < 96 * MB, bytes)
    new:must "rm -rf /srv/homes/.runbook/gone"
    must_be_done()
  end)

  it("takes several connections when it is most of all there is", function()
    old:must "head -c 600M /dev/zero | tr '\\0' 'x' > /srv/homes/ann/sub/big"
    local seen = lab.must(function()
      local homes = pair { workers = 3 }
      homes:bulk()
      homes:verify()
    end)
    assert.is_true(lab.shards(seen) >= 3, lab.shards(seen))
    must_be_done()
  end)

  it("leaves room to others when the disk is full, and is sent whole when there is more", function()
    new:must "mkdir -p /mnt/small && mount -t tmpfs -o size=30m,mode=755 small /mnt/small && mkdir /mnt/small/h"
    local err = lab.live(function() pair({ to = to:dir "/mnt/small/h" }):bulk() end)
    assert.equal("full", err.kind, err.message)
    assert.equal("", new:must "find /mnt/small/h -name '.rb~*'")
    new:must "mount -o remount,size=90m /mnt/small"
    lab.must(function()
      local homes = pair { to = to:dir "/mnt/small/h" }
      homes:final()
      homes:verify()
    end)
    lab.identical(old, "/srv/homes", new, "/mnt/small/h")
    new:must "umount /mnt/small"
  end)

  it("is sent no further than it is missing when the receiver is killed", function()
    lab.must(function()
      local homes = pair { route = "pull", rate = 15e6 }
      local there
      local killer = meanwhile(20 * MB, function()
        there = on_its_way()
        assert.is_true(new:kill "far receive" > 0, "nothing was killed")
      end)
      homes:bulk()
      task.join(killer)
      local bytes = sent_last(homes)
      assert.is_true(bytes <= 48 * MB - there + 16 * MB, ("%d MB although %d were there"):format(bytes // MB, there // MB))
      homes:verify()
    end)
    must_be_done()
  end)
end)
