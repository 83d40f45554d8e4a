-- The mover when luck leaves it: everything that has a part in a pass is killed, connections are cut, disks are full, people do
-- not stop working. What is resumed ends identical, says the oracle, and nothing of ours is left anywhere.

local errors = require "runbook.errors"
local lab = require "spec.support.lab"
local task = require "runbook.task"
local walk = require "spec.support.walk"
local world = require "spec.world"

-- Everything that passes do: what is new, edited, removed, renamed, whole homes that come and go, loose files.
local SOURCE = [=[
local sync = require "runbook.sync"
local homes = sync.pair { from = old:dir "/srv/homes", to = new:dir "/srv/homes", workers = 2, ROUTE }

rb.step("bulk", "Copy", function() homes:bulk() end)

rb.step("people", "People work", { again = true }, function()
  old:sh [[cd /srv/homes && echo more >> ann/name && rm -rf bob/sub dan && mkdir -p eve && echo e > eve/e
    if [ -e ann/moves ]; then mv ann/moves bob/moved; fi]]
end)

rb.step("converge", "Copy what changed", function() homes:converge { within = "1h" } end)

rb.step("more", "People go on working", { again = true }, function()
  old:sh [[cd /srv/homes && echo and more >> ann/name && rm -rf bob/linked loose cyd/now-a-dir && mkdir -p cyd/now-a-dir && rm -rf eve
    echo late > cyd/now-a-dir/late]]
end)

rb.step("final", "Copy the rest", function() homes:final() homes:verify() end)
]=]

local HOMES = [[
rm -rf /srv/homes; mkdir /srv/homes; cd /srv/homes
for home in ann bob cyd dan; do
  mkdir -p $home/sub; i=0
  while [ $i -lt 40 ]; do echo $home $i > $home/sub/$i; i=$((i + 1)); done
  echo $home > $home/name; ln $home/name $home/linked; echo m > $home/moves; echo file > $home/now-a-dir
done
echo loose > loose
]]

describe("the mover, when the host is killed", function()
  local Walker = {}
  Walker.__index = Walker

  local function walker(name, route)
    local pair = walk.pair(name)
    local home = world.folder "mover-walk"
    local source = SOURCE:gsub("ROUTE", ("route = %q"):format(route))
    return setmetatable({ pair = pair, home = home, book = pair:write(home, source, "mover"), n = 0 }, Walker)
  end

  function Walker:begin()
    self.pair:reset()
    self.pair.old:must(HOMES)
    lab.fresh(self.pair.new, "/srv/homes")
    self.n = self.n + 1
    self.state, self.said = ("%s/%d"):format(self.home, self.n), {}
  end

  function Walker:note(what, code, output)
    self.said[#self.said + 1] = ("$ %s: %d\n%s"):format(what, code, output)
    return code, output
  end

  function Walker:killed_at(n, ...)
    return self:note("to point " .. n, walk.sh(world.build .. "/world/points", self.state .. ".names", tostring(n), world.runbook, ...))
  end

  function Walker:run(n)
    return self:killed_at(n, "run", self.book, "--state", self.state, "--no-input")
  end

  function Walker:resume()
    local code, output
    for _ = 1, 4 do
      code, output = self:note("resume", walk.sh(world.runbook, "resume", "--state", self.state, "--no-input"))
      local step = output:match "%-%-again ([%w_-]+)"
      if code == 66 then -- it was killed before it began
        self.state = self.state .. "-again"
        code = self:run(0)
      elseif code == 5 and step then
        code = self:note("resume", walk.sh(world.runbook, "resume", "--state", self.state, "--no-input", "--again", step))
      end
      if code == 0 then
        return
      end
    end
    error(table.concat(self.said, "\n"))
  end

  function Walker:must_be_done(what)
    local old, new = self.pair.old, self.pair.new
    local ok, why = pcall(lab.identical, old, "/srv/homes", new, "/srv/homes")
    assert.is_true(ok, what .. "\n" .. tostring(why) .. "\n" .. table.concat(self.said, "\n"))
    self.pair:settle()
    assert.equal("", lab.left_over(old, "/srv/homes"), what .. "\n" .. table.concat(self.said, "\n"))
    assert.equal("", lab.left_over(new, "/srv/homes"), what .. "\n" .. table.concat(self.said, "\n"))
    for _, machine in ipairs { old, new } do
      assert.falsy(walk.processes(machine):find("far ", 1, true), what)
    end
  end

  it("goes on from any point, whatever the route, and ends identical", function()
    local walkers = { walker("-pull", "pull"), walker("-push", "push"), walker("-us", "operator") }
    local fns = {}
    for i, one in ipairs(walkers) do
      fns[i] = function()
        one:begin()
        assert.equal(0, (one:run(0)), table.concat(one.said, "\n"))
        one:must_be_done("undisturbed")
        local points = select(2, world.read(one.state .. ".names"):gsub("\n", ""))
        local stride = points // 8
        for n = 3 + i * stride // 4, points, stride do
          one:begin()
          local code = one:run(n)
          assert.is_true(code == 137 or code == 0, table.concat(one.said, "\n"))
          if code ~= 0 then
            if n % 2 == 0 then -- and what goes on is killed, too
              one:killed_at(n % 29 + 5, "resume", "--state", one.state, "--no-input")
            end
            one:resume()
          end
          one:must_be_done(("killed at point %d of %d"):format(n, points))
        end
      end
    end
    task.all(fns)
  end)
end)

describe("the mover", function()
  local servers, old, new, to

  setup(function()
    servers = lab.servers()
    old, new, to = servers.old, servers.new, servers.to
  end)

  teardown(function() servers:close() end)

  before_each(function()
    old:must(HOMES)
    lab.fresh(new, "/srv/homes")
  end)

  local function pair(o)
    return servers:pair(o)
  end

  local function must_be_done(path)
    servers:same(nil, path)
    servers:clean(path)
  end

  -- Once, as soon as a file is on its way.
  local function meanwhile(fn)
    return task.spawn(function()
      world.wait_until("a file on its way", function()
        return new:must "find /srv/homes/ann -name '.rb~*' -size +0 2>/dev/null || :" ~= ""
      end, 60)
      fn()
    end)
  end

  for _, case in ipairs {
    { "the receiver", "pull", function() return new:kill "far receive" end },
    { "the receiver", "push", function() return new:kill "far receive" end },
    { "the receiver", "operator", function() return new:kill "receive /srv" end },
    { "the sender", "pull", function() return old:kill "far send" end },
    { "the sender", "push", function() return old:kill "far send" end },
    { "the sender", "operator", function() return old:kill "send /srv" end },
    { "the ssh between them", "pull", function() return new:kill "runbook-send" end },
    { "the ssh between them", "push", function() return old:kill "runbook-receive" end },
    { "the supervisor of the job", "pull", function() return new:kill "runbook-job" end },
    { "every session of the source's server", "pull", function() return old:drop_connections() end },
    { "every session of the target's server", "pull", function() return new:drop_connections() end },
    { "every session of the target's server", "push", function() return new:drop_connections() end },
    { "every session of the target's server", "operator", function() return new:drop_connections() end },
  } do
    local what, route, kill = table.unpack(case)
    it(("goes on when %s is killed (%s)"):format(what, route), function()
      old:must "head -c 12M /dev/urandom > /srv/homes/ann/big"
      lab.must(function()
        local homes = pair { route = route, rate = 10e6 }
        local killed
        local killer = meanwhile(function()
          killed = kill()
          homes.rate = nil -- it was for being caught in the middle
        end)
        local ok, err = pcall(homes.bulk, homes)
        task.join(killer)
        assert.truthy(killed and killed > 0, "nothing was killed")
        if not ok then
          assert.truthy(errors.is(err, "lost") or errors.is(err, "unreachable") or errors.is(err, "unknown"), tostring(err))
        end
        old:must "rm -r /srv/homes/bob/sub"
        homes:final()
        homes:verify()
      end)
      must_be_done()
    end)
  end

  it("comes to an end when the connection is cut every two seconds", function()
    world.grow("many", old:path "/srv/homes/many", { files = 8000, homes = 3 })
    local relay <close> = world.relay { to = old }
    local through = lab.place(old, { seen_from_target = relay.address .. ":" .. relay.port })
    lab.must(function()
      local homes = pair { from = through:dir "/srv/homes", rate = 6e6, route = "pull" }
      local stop, cuts = false, 0
      local cutter = task.spawn(function()
        while not stop do
          task.sleep(2)
          relay:cut()
          relay:go()
          cuts = cuts + 1
        end
      end)
      local ok, err = pcall(homes.bulk, homes)
      stop = true
      task.join(cutter)
      assert.truthy(ok, tostring(err))
      assert.truthy(cuts > 2)
      homes:verify()
    end)
    must_be_done()
  end)

  it("catches up with people who did not stop", function()
    world.grow("many", old:path "/srv/homes/many", { files = 4000, homes = 6 })
    lab.must(function()
      local homes = pair { most_removed = 100 } -- they rename whole folders
      local storms = {}
      for seed, home in ipairs { "many", "ann", "bob" } do -- a hardlink from home to home is none on the target
        storms[seed] = world.storm(old:path("/srv/homes/" .. home), { seed = seed, rate = 400 })
      end
      local ok, err = pcall(function()
        homes:bulk()
        pcall(homes.converge, homes, { within = "1s" })
      end)
      for _, storm in ipairs(storms) do
        assert.truthy(storm:alive())
        storm:stop()
      end
      assert.truthy(ok, tostring(err))
      homes:final()
      homes:verify()
    end)
    must_be_done()
  end)

  describe("says in words, does the other homes, and goes on later, when the target", function()
    -- `less` makes it fail, `more` mends it.
    local function case(less, more, kind, words, failed)
      local path = "/mnt/small/h"
      new:must("mkdir -p /mnt/small && " .. less)
      new:must "mkdir -p /mnt/small/h"
      local err = lab.live(function() pair({ to = to:dir(path) }):bulk() end)
      assert.truthy(err, "nothing failed")
      assert.equal(kind, err.kind, err.message)
      assert.truthy(err.message:find(words, 1, true), err.message)
      assert.truthy(err.message:find("ann: ", 1, true), err.message)
      assert.truthy(err.message:find(failed, 1, true), err.message)
      assert.equal("", new:must "find /mnt/small/h -name '.rb~*'")
      new:must(more)
      lab.must(function()
        local homes = pair { to = to:dir(path) }
        homes:final()
        homes:verify()
      end)
      must_be_done(path)
      new:must "umount /mnt/small"
    end

    it("is full", function()
      old:must "head -c 8M /dev/urandom > /srv/homes/ann/big"
      case("mount -t tmpfs -o size=6m,mode=755 small /mnt/small", "mount -o remount,size=40m /mnt/small", "full",
        "No space left on device", "of 5 homes failed")
    end)

    it("has no room even for the lock, or for the note that a pass is on", function()
      new:must "mkdir -p /mnt/small && mount -t tmpfs -o size=4m,mode=755 small /mnt/small && mkdir /mnt/small/h"
      local fill, path = "dd if=/dev/zero of=/mnt/small/filler bs=4k 2>/dev/null || :", "/mnt/small/h"
      local function must_be_full(fn)
        local err = select(2, pcall(fn))
        assert.equal("full", errors.is(err) and err.kind, tostring(err))
        assert.truthy(tostring(err):find("No space left on device", 1, true), tostring(err))
      end
      lab.must(function()
        local homes = pair { to = to:dir(path) }
        new:must(fill)
        must_be_full(function() homes:bulk() end)
        new:must "rm /mnt/small/filler"
        homes:bulk()
        old:must "echo more > /srv/homes/ann/more"
        new:must(fill)
        must_be_full(function() homes:converge { within = "1h" } end)
        new:must "rm /mnt/small/filler"
        homes:final()
        homes:verify()
      end)
      must_be_done(path)
      new:must "umount /mnt/small"
    end)

    it("has no inodes left", function()
      old:must "cd /srv/homes/ann && mkdir many && cd many && seq 600 | xargs touch"
      case("mount -t tmpfs -o size=40m,nr_inodes=500,mode=755 small /mnt/small", "mount -o remount,nr_inodes=2000 /mnt/small", "full",
        "No space left on device", "of 5 homes failed")
    end)

    -- Project quotas say ENOSPC. A home that is a small disk of its own is the same to us, and needs no quotas in the kernel.
    it("gives each home a quota", function()
      lab.must(function()
        local homes = pair()
        homes:bulk()
        new:must [[mount -t tmpfs -o size=3m quota /mnt && cp -a /srv/homes/ann/. /mnt && mount --move /mnt /srv/homes/ann]]
        old:must "cd /srv/homes && head -c 6M /dev/urandom > ann/big && echo more > bob/more"
        local err = select(2, pcall(homes.converge, homes, { within = "1h" }))
        assert.equal("full", err.kind, err.message)
        assert.truthy(err.message:find("while the disk has room: it is the home's quota", 1, true), err.message)
        assert.equal("more", new:must "cat /srv/homes/bob/more")
        new:must "mount -o remount,size=40m /srv/homes/ann"
        homes:final()
        homes:verify()
      end)
      must_be_done()
      new:must "umount /srv/homes/ann"
    end)

    it("is read-only", function()
      new:must "mkdir -p /mnt/small && mount -t tmpfs -o size=40m,mode=755 small /mnt/small && mkdir /mnt/small/h"
      lab.must(function()
        local homes = pair { to = to:dir "/mnt/small/h" }
        homes:bulk()
        old:must "echo more > /srv/homes/ann/more"
        new:must "mount -o remount,ro /mnt/small"
        local err = select(2, pcall(homes.converge, homes, { within = "1h" }))
        assert.truthy(errors.is(err) and tostring(err):lower():find("read-only", 1, true), tostring(err))
        new:must "mount -o remount,rw /mnt/small"
        homes:final()
        homes:verify()
      end)
      must_be_done "/mnt/small/h"
      new:must "umount /mnt/small"
    end)
  end)
end)
