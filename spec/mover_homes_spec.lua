-- The mover with homes that come, go and change their kind, people who are not root, machines that do not run our program, and the
-- way back.

local lab = require "spec.support.lab"
local task = require "runbook.task"
local world = require "spec.world"

local servers, old, new, from, to

local function pair(o)
  return servers:pair(o)
end

local function same(o)
  return servers:same(o)
end

local function clean()
  servers:clean()
end

local function start()
  servers = lab.servers()
  old, new, from, to = servers.old, servers.new, servers.from, servers.to
end

local function stop()
  servers:close()
end

local function fresh()
  lab.fresh(old, "/srv/homes")
  lab.fresh(new, "/srv/homes")
  old:must [[cd /srv/homes && for home in ann bob cyd dan; do
    mkdir -p $home/work && echo $home > $home/work/name && ln $home/work/name $home/linked; done; echo loose > README]]
end

describe("a home between passes", function()
  setup(start)
  teardown(stop)
  before_each(fresh)

  -- What happens to homes at the source after the first pass: bulk, this, converge, this, final.
  local function moves(changes, o)
    lab.must(function()
      local homes = pair(o)
      homes:bulk()
      for i, change in ipairs(changes) do
        old:must("cd /srv/homes && " .. change)
        if i < #changes then
          homes:converge { within = "1h" }
        end
      end
      homes:final()
      homes:verify()
    end)
    same()
    clean()
  end

  it("appears", function()
    moves { "mkdir eve && echo e > eve/e", "mkdir fay && ln -s /nowhere fay/link && chmod 700 fay && chown -h 7:7 fay fay/link" }
  end)

  it("vanishes, and is set aside", function()
    moves { "rm -r bob", "rm -r cyd" }
    assert.equal("bob\ncyd", new:must "cat /srv/homes/.runbook/gone/bob/work/name /srv/homes/.runbook/gone/cyd/work/name")
  end)

  it("vanishes and is there again, and vanishes once more", function()
    moves { "mv bob /srv/bob", "mv /srv/bob bob && echo again > bob/again", "rm -r bob" }
    lab.must(function()
      old:must "mkdir /srv/homes/bob && echo new > /srv/homes/bob/new"
      local homes = pair()
      homes:final()
      old:must "rm -r /srv/homes/bob"
      homes:final()
      homes:verify()
    end)
    same()
    assert.equal("again\nnew", new:must "cd /srv/homes/.runbook/gone && cat bob/again bob.2/new")
  end)

  it("is renamed", function()
    moves { "mv bob eve", "mv eve fay && mv cyd bob" }
    assert.equal("bob", new:must "cat /srv/homes/fay/work/name")
  end)

  it("becomes a file, or a symlink, and the other way round", function()
    moves { "rm -r bob && echo file > bob", "rm -r cyd && ln -s ann cyd" }
    moves { "rm bob cyd && mkdir bob cyd && echo b > bob/b && echo c > cyd/c" }
    moves { "rm README && mkdir README && echo r > README/r", "rm -r README && ln -s . README" }
  end)

  it("is empty, or all that is left is loose", function()
    moves { "rm -r bob/work bob/linked", "rm -r cyd && rm README && echo other > OTHER" }
  end)

  it("is not believed to have lost nearly everything, unless it is said", function()
    old:must "mkdir /srv/homes/ann/many && cd /srv/homes/ann/many && seq 400 | xargs touch; cd ..; seq 600 | xargs touch"
    local err = lab.live(function()
      local homes = pair()
      homes:bulk()
      old:must "rm -r /srv/homes/ann/many"
      homes:final()
    end)
    assert.equal("EREMOVED", err.code, err.message)
    assert.truthy(err.message:find("401 of %d[%d,]*%d names"), err.message)
    assert.equal("400", new:must "ls /srv/homes/ann/many | wc -l")
    lab.must(function()
      local homes = pair { most_removed = 60 }
      homes:final()
      homes:verify()
    end)
    same()
  end)

  it("that somebody put beside them on the target is nobody's but his", function()
    lab.must(function() pair():bulk() end)
    new:must "mkdir /srv/homes/theirs && echo t > /srv/homes/theirs/t"
    local err = lab.live(function() pair():final() end)
    assert.equal("EFOREIGN", err.code)
    assert.equal("t", new:must "cat /srv/homes/theirs/t; rm -r /srv/homes/theirs")
    lab.must(function() pair():final() end)
    same()
  end)
end)

describe("the mover for people who are not root", function()
  setup(start)
  teardown(stop)
  before_each(fresh)

  it("works with sudo at either end, by every route", function()
    local sudo = { user = "rb-sudo", sudo = true }
    for i, route in ipairs { "pull", "push", "operator" } do
      fresh()
      old:must "cd /srv/homes && chown -R 3000:3000 ann && chmod 700 ann && chown -R 3001:3001 bob && chmod 000 bob/work/name"
      lab.must(function()
        local homes = pair {
          from = (i ~= 2 and lab.place(old, sudo) or from):dir "/srv/homes", to = (i ~= 3 and lab.place(new, sudo) or to):dir "/srv/homes",
          route = route,
        }
        homes:bulk()
        old:must "cd /srv/homes && rm bob/linked && echo more > ann/more && chown 3000:3000 ann/more"
        homes:final()
        homes:verify()
        assert.equal("hashed", homes:receipts().level)
      end)
      same()
      clean()
    end
  end)

  it("works for plain users by every route, and says what they may not", function()
    local plain_from, plain_to = lab.place(old, { user = "rb-plain" }), lab.place(new, { user = "rb-plain" })
    for _, route in ipairs { "pull", "push", "operator" } do
      fresh()
      old:must "chown -R rb-plain:rb-plain /srv/homes && chmod 500 /srv/homes/ann/work"
      new:must "chown rb-plain:rb-plain /srv/homes"
      lab.must(function()
        local homes = pair { from = plain_from:dir "/srv/homes", to = plain_to:dir "/srv/homes", route = route }
        homes:bulk()
        old:must "cd /srv/homes && rm -r bob/work && touch ann/work/more && chown -R rb-plain:rb-plain ann"
        homes:final()
        homes:verify()
      end)
      same()
      clean()
    end
    old:must "echo theirs > /srv/homes/cyd/theirs && chown 9:9 /srv/homes/cyd/theirs && chmod 644 /srv/homes/cyd/theirs"
    local err = lab.live(function()
      local homes = pair { from = plain_from:dir "/srv/homes", to = plain_to:dir "/srv/homes" }
      homes:final()
    end)
    assert.truthy(err, "an owner was lost in silence")
    assert.truthy(err.message:find("cyd: ", 1, true) and err.message:find("theirs", 1, true), err.message)
  end)

  it("maps owners, from pass to pass", function()
    lab.must(function()
      local homes = pair { owner = "1000:100" }
      homes:bulk()
      old:must "cd /srv/homes && chown -R 5:5 bob && echo more > ann/more && mkdir eve && rm -r dan/work"
      homes:final()
      homes:verify()
      assert.equal(0, homes:receipts().total.sent)
    end)
    same { owner = "1000:100" }
    local seen = lab.must(function()
      local homes = pair { owner = "1000:100" }
      homes:final()
      homes:final()
    end)
    assert.equal(0, lab.shards(seen))
  end)
end)

describe("the mover where our program cannot be run", function()
  setup(start)
  teardown(stop)
  before_each(fresh)

  it("leaves it to rsync, says so once, and takes over when it can", function()
    for _, machine in ipairs { new, old } do
      local at = "for at in /var/tmp /tmp /dev/shm /root; do "
      machine:must "cp -a /root/.ssh /run/world/ssh"
      machine:must(at .. "mount -t tmpfs -o noexec,mode=1777 none $at; done; cp -a /run/world/ssh /root/.ssh; chmod 700 /root")
      local refusal = lab.live(function() pair({ engine = "mover" }):bulk() end)
      assert.equal("ENOFAR", refusal and refusal.code)
      assert.truthy(refusal.message:find("our program cannot be run on " .. machine.name, 1, true), refusal.message)
      local seen = lab.must(function()
        local homes = pair()
        homes:bulk()
        old:must "echo more >> /srv/homes/ann/work/name; rm -r /srv/homes/bob/work; touch /srv/homes/again"
        homes:final()
        homes:verify()
        assert.equal("scanned", homes:receipts().level)
      end)
      local said, n = lab.notices(seen), 0
      for _ in said:gmatch "our program cannot be run on" do
        n = n + 1
      end
      assert.equal(1, n, said)
      assert.truthy(said:find("cannot be run on " .. machine.name, 1, true), said)
      assert.truthy(said:find("Permission denied", 1, true), said)
      same()
      machine:must(at .. "umount -l $at; done")
      lab.must(function()
        local homes = pair()
        old:must "echo even more >> /srv/homes/ann/work/name; rm -r /srv/homes/cyd/work; echo b >> /srv/homes/bob/linked"
        homes:final()
        homes:verify()
        assert.equal("hashed", homes:receipts().level)
      end)
      same()
      clean()
      fresh()
    end
  end)
end)

describe("the way back", function()
  setup(start)
  teardown(stop)
  before_each(fresh)

  it("knows whether the source is quiet since the last pass, by every name and kind of change", function()
    for _, change in ipairs { "echo 1 > ann/new", "rm bob/linked", "chmod 600 cyd/work/name", "mv dan eve", "touch -d @1 README", "echo l > new",
      "setfattr -n user.x -v y ann/work" } do
      fresh()
      local err = lab.live(function()
        local homes = pair()
        homes:final()
        homes:must_be_quiet()
        homes:must_be_quiet(0.1)
        old:must("cd /srv/homes && " .. change)
        homes:must_be_quiet()
      end)
      assert.truthy(err and err.code == "EWRITERS", change .. ": " .. (err and err.message or "nobody noticed"))
    end
  end)

  it("tells work on the target from none, and brings back only that", function()
    lab.must(function()
      local homes = pair()
      homes:final()
      homes:verify()
      homes:must_be_unchanged_since_receipts()
      new:must "touch /srv/homes/ann/work/name.tmp && rm /srv/homes/ann/work/name.tmp" -- only a time is left of it
      local cyd = old:must "find /srv/homes/cyd -printf '%P %C@ %T@\n' | sort"
      new:must [[cd /srv/homes && echo later > bob/later && echo edited > bob/work/name && chmod 640 dan/linked && mkdir eve && echo e > eve/e &&
        rm dan/work/name]]
      local err = select(2, pcall(homes.must_be_unchanged_since_receipts, homes))
      assert.equal("ECHANGED", err.code, err.message)
      for _, name in ipairs { "bob", "dan", "eve" } do
        assert.truthy(err.message:find(name, 1, true), err.message)
      end
      assert.falsy(err.message:find("cyd", 1, true), err.message)
      homes:back()
      assert.equal(cyd, old:must "find /srv/homes/cyd -printf '%P %C@ %T@\n' | sort")
      assert.equal("later\nedited\ne", old:must "cd /srv/homes && cat bob/later bob/work/name eve/e")
      assert.equal("640", old:must "stat -c %a /srv/homes/dan/linked")
      assert.equal("dan", old:must "cat /srv/homes/dan/work/name", "nothing is removed there")
    end)
    clean()
  end)

  it("stops where both sides changed, and touches nothing", function()
    local before
    local err = lab.live(function()
      local homes = pair()
      homes:final()
      homes:verify()
      new:must "echo new side > /srv/homes/bob/work/name; echo new > /srv/homes/ann/new; mkdir /srv/homes/eve; echo e > /srv/homes/eve/e"
      old:must "echo old side > /srv/homes/bob/old; mkdir /srv/homes/eve"
      before = world.tree(old:path "/srv/homes")
      homes:back()
    end)
    assert.equal("EBOTH", err.code, err.message)
    assert.truthy(err.message:find("bob, eve", 1, true), err.message)
    assert.equal(before, world.tree(old:path "/srv/homes"))
  end)

  it("goes on when the receiver is killed in the middle of it", function()
    lab.must(function()
      local homes = pair { route = "operator" }
      homes:final()
      homes:verify()
      new:must "head -c 120M /dev/urandom > /srv/homes/bob/big && echo more > /srv/homes/bob/more"
      local killer = task.spawn(function()
        world.wait_until("a file on its way", function()
          return old:must "find /srv/homes/bob -name '.rb~*' -size +0 2>/dev/null || :" ~= ""
        end, 30)
        assert.truthy(old:kill "receive /srv" > 0)
      end)
      homes:back()
      task.join(killer)
    end)
    assert.equal("", lab.difference(old, "/srv/homes/bob", new, "/srv/homes/bob"))
    clean()
  end)

  local BOOK = [=[
-- Back and forth.
local rb = require "runbook"
local ssh = require "runbook.ssh"
local sync = require "runbook.sync"
local old, new = ssh.host { OLD, config = CONFIG }, ssh.host { NEW, config = CONFIG }
local homes = sync.pair { from = old:dir "/srv/homes", to = new:dir "/srv/homes", route = ROUTE }
rb.step("there", "Copy", function() homes:final() homes:verify() end)
rb.step("people", "People work", { again = true }, function()
  new:sh [[cd /srv/homes && head -c 90M /dev/urandom > bob/big && echo edited > bob/work/name && chmod 640 ann/linked && chown 7:7 cyd/work
    setfattr -n user.a -v b cyd/work/name; mkdir -p eve/sub && echo e > eve/sub/e && chmod 500 eve/sub; rm -f dan/linked]]
end)
rb.step("back", "Copy back", function() homes:back() end)
]=]

  -- A run that is killed as soon as the large file is on its way back; what goes on is `runbook resume`.
  local function killed_on_the_way(route)
    local folder = world.folder "way-back"
    local words = { OLD = old.name, NEW = new.name, CONFIG = world.ssh_config { old, new }, ROUTE = route }
    local book, state, log = folder .. "/back.lua", folder .. "/state", folder .. "/log"
    world.write(book, (BOOK:gsub("%f[%u]%u%u%u+%f[%U]", function(word) return words[word] and ("%q"):format(words[word]) end)))
    local pid = world.must(("%s run %s --state %s --no-input > %s 2>&1 & echo $!"):format(world.runbook, book, state, log)):match "%d+"
    world.wait_until("a file on its way back", function()
      return old:must "find /srv/homes/bob -name '.rb~*' -size +0 2>/dev/null || :" ~= ""
    end, 120)
    world.must("kill -9 " .. pid)
    world.wait_until("the end of its last thread", function() -- which has the lock open, too
      return select(2, world.sh(("flock -n %s/runs/*/lock true"):format(state))) == 0
    end, 60)
    return function() return world.sh(("%s resume --state %s --no-input 2>&1"):format(world.runbook, state)) end
  end

  it("goes on when it was killed in the middle, and knows its own work", function()
    for _, route in ipairs { "operator", "pull" } do
      fresh()
      local resume = killed_on_the_way(route)
      local said, code = resume()
      assert.equal(0, code, said)
      for _, home in ipairs { "ann", "bob", "cyd", "eve" } do
        assert.equal("", lab.difference(old, "/srv/homes/" .. home, new, "/srv/homes/" .. home))
      end
      assert.equal("dan", old:must "cat /srv/homes/dan/linked", "nothing is removed there")
      clean()
    end
  end)

  it("stops for what somebody else did at the source after it was killed, and leaves that alone", function()
    local resume = killed_on_the_way "operator"
    local list = "cd /srv/homes && find . -name '.rb~*' -prune -o -path ./.runbook -prune -o ! -type d -printf '%P %s %T@ %m\\n' | sort"
    old:must "cd /srv/homes && echo theirs > bob/theirs && chmod 600 cyd/linked && mkdir -p eve && echo t > eve/theirs"
    local before = old:must(list)
    local said, code = resume()
    assert.equal(1, code, said)
    local words = said:gsub("%s+", " ")
    for _, name in ipairs { "bob (theirs)", "cyd (linked and 1 more)", "eve (theirs)" } do
      assert.truthy(words:find(name, 1, true), said)
    end
    assert.equal(before, old:must(list))
    old:must "cd /srv/homes && rm bob/theirs eve/theirs && chmod 644 cyd/linked"
    said, code = resume()
    assert.equal(0, code, said)
    assert.equal("", lab.difference(old, "/srv/homes/bob", new, "/srv/homes/bob"))
    clean()
  end)
end)
