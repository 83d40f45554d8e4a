-- sync.pair between real servers; an oracle that knows nothing of it (spec/world/tree.py) compares what comes of it.

local errors = require "runbook.errors"
local lab = require "spec.support.lab"
local runs = require "spec.support.runs"
local sync = require "runbook.sync"
local world = require "spec.world"

describe("a pair of two servers", function()
  local servers, old, new

  setup(function()
    servers = lab.servers { user = "rb-sudo", sudo = true }
    old, new = servers.old, servers.new
  end)

  teardown(function() servers:close() end)

  local function pair(o)
    return servers:pair(o)
  end

  before_each(function()
    lab.fresh(old, "/srv/homes")
    lab.fresh(new, "/srv/homes")
    new:sh "rm -rf /home/rb-sudo/.local /root/.local"
  end)

  it("copies everything a tree of homes can hold, and proves it", function()
    world.homes(old:path "/srv/homes", { homes = 24, files = 500 })
    local before, keys = world.tree(old:path "/srv/homes"), old:must "cat /home/rb-sudo/.ssh/authorized_keys"
    local homes = pair()
    local receipts
    lab.must(function()
      homes:bulk()
      homes:final()
      homes:verify()
      homes:must_be_quiet()
      receipts = homes:receipts()
    end)
    assert.equal("", lab.difference(old, "/srv/homes", new, "/srv/homes"))
    assert.equal(before, world.tree(old:path "/srv/homes"))
    assert.equal("hashed", receipts.level)
    assert.equal(25, receipts.total.units)
    assert.equal("hashed", receipts.units["_shared"].level)
    assert.equal(keys, old:must "cat /home/rb-sudo/.ssh/authorized_keys")
    assert.equal("", new:must "ls -A /tmp")
    assert.equal("", new:must "find /srv/homes -name '.rb~*'")
  end)

  it("brings what changed meanwhile, whatever kind of change it is", function()
    old:must [[cd /srv/homes && mkdir -p ann/deep/er bob cyd gone && cd ann
      echo one > same-size; touch -d '2020-01-01 00:00:00.1' same-size; echo mode > mode; echo owner > owner; echo x > gets-acl
      echo data > becomes-dir; mkdir becomes-file; echo y > becomes-file/y; echo removed > removed; echo moved > moved
      echo 'a longer text' > shrinks; echo short > grows; ln moved linked; ln -s old link; echo b > ../bob/b; echo g > ../gone/g
      echo "older wins" > rewound; touch -d 2021-01-01 rewound; echo loose > ../loose; echo drop > ../loose-removed]]
    lab.must(function()
      local homes = pair()
      homes:bulk()
      old:must [[cd /srv/homes/ann
        echo two > same-size; touch -d '2020-01-01 00:00:00.2' same-size; chmod 4755 mode; chown 1234:4321 owner
        setfacl -m u:77:r gets-acl; setfattr -n user.k -v v gets-acl
        rm becomes-dir; mkdir becomes-dir; echo z > becomes-dir/z; rm -r becomes-file; echo now > becomes-file
        rm removed; mv moved deep/er/; rm linked; echo s > shrinks; echo 'this one grows' > grows; ln -sf new link
        echo "now from untar" > rewound; touch -d 2019-01-01 rewound; mkdir -p ../dan/sub; echo d > ../dan/sub/d
        rm -r ../gone; rm ../loose-removed; echo more >> ../loose; chmod 2770 deep; touch -d 1969-06-01 deep/er
        truncate -s 50M sparse; printf end >> sparse; touch -d @4102444800.999999999 bob-future; mkfifo pipe]]
      homes:converge { within = "1h" }
      old:must "cd /srv/homes && rm -r bob && echo bob-is-a-file-now > bob && rm -r cyd && echo late > ann/late"
      homes:final()
      homes:verify()
    end)
    assert.equal("", lab.difference(old, "/srv/homes", new, "/srv/homes"))
    assert.equal("g", new:must "cat /srv/homes/.runbook/gone/gone/g")
  end)

  it("leaves out what is excluded, on both ends, and maps owners", function()
    old:must [[cd /srv/homes && mkdir -p ann/.cache/x ann/keep/.cache ann/tmp ann/sub/tmp bob && cd ann
      touch .cache/x/1 keep/.cache/2 keep/3 tmp/4 sub/tmp/5 6.pyc sub/7.pyc 'a[1]'
      chown -R 2001:2001 ../ann && chown -R 2002:2002 ../bob]]
    lab.must(function()
      local homes = pair { exclude = { ".cache/", "/tmp", "*.pyc" }, owner = "1000:100" }
      homes:bulk()
      homes:verify()
    end)
    assert.equal("./ann/a[1]\n./ann/keep/3\n./ann/sub/tmp/5",
      new:must "cd /srv/homes && find . -path ./.runbook -prune -o -type f -print | LC_ALL=C sort")
    assert.equal("1000:100", new:must "find /srv/homes -mindepth 1 -path '*/.runbook*' -prune -o -printf '%U:%G\\n' | sort -u")
  end)

  it("takes a unit up again when its rsync is killed, and sends no finished one twice", function()
    old:must "cd /srv/homes && mkdir big small && head -c 40M /dev/urandom > big/big && echo s > small/s"
    local seen = lab.must(function()
      local homes = pair { engine = "rsync", rate = 40e6 }
      local killer = require("runbook.task").spawn(function()
        world.wait_until("a file on its way", function()
          return select(2, new:sh "test -e /srv/homes/small/s && test -s /srv/homes/big/.rb~stage/big*") == 0
        end)
        new:kill "rsync -aHAXS"
      end)
      homes:bulk()
      require("runbook.task").join(killer)
      homes:verify()
    end)
    assert.equal("", lab.difference(old, "/srv/homes", new, "/srv/homes"))
    local again = 0
    for _, event in ipairs(runs.only(seen, "unit-start")) do
      again = again + (event.name == "big" and 1 or 0)
    end
    assert.equal(2, again)
  end)

  it("goes on with a large file when the connection between the servers is cut in the middle of it", function()
    old:must "mkdir /srv/homes/ann && head -c 24M /dev/urandom > /srv/homes/ann/big && chmod 640 /srv/homes/ann/big"
    local relay <close> = world.relay { to = old }
    local through = lab.place(old, { user = old.user_sudo, sudo = true, seen_from_target = relay.address .. ":" .. relay.port })
    local seen = lab.must(function()
      local homes = pair { engine = "rsync", from = through:dir "/srv/homes", rate = 32e6 }
      local cutter = require("runbook.task").spawn(function()
        world.wait_until("half of it", function() return relay:passed().back > 8e6 end, 60)
        relay:cut()
        relay:go()
      end)
      homes:bulk()
      require("runbook.task").join(cutter)
      homes:verify()
    end)
    assert.equal("", lab.difference(old, "/srv/homes", new, "/srv/homes"))
    local told = 0
    for _, event in ipairs(runs.only(seen, "notice")) do
      told = told + (event.text:find("once more", 1, true) and 1 or 0)
    end
    assert.equal(1, told)
    assert.truthy(relay:passed().back < 30e6, "all of it was sent again: " .. relay:passed().back)
    assert.equal("", new:must "find /srv/homes -name '.rb~*'")
  end)

  it("goes on when the target was switched off in the middle and is back", function()
    old:must "mkdir /srv/homes/ann /srv/homes/bob && head -c 20M /dev/urandom > /srv/homes/ann/big && echo b > /srv/homes/bob/b"
    lab.must(function()
      local homes = pair { rate = 20e6 }
      local breaker = require("runbook.task").spawn(function()
        world.wait_until("a file on its way", function()
          return select(2, new:sh "test -s /srv/homes/ann/.rb~stage/big*") == 0
        end, 30)
        new:crash()
        new:boot()
      end)
      homes:bulk()
      require("runbook.task").join(breaker)
      homes:final()
      homes:verify()
    end)
    assert.equal("", lab.difference(old, "/srv/homes", new, "/srv/homes"))
    assert.equal("", new:must "find /srv/homes -name '.rb~*'")
  end)

  it("works for users without sudo who own what they copy, and says what they may not", function()
    old:must "mkdir /srv/homes/ann && echo 1 > /srv/homes/ann/one && chown -R rb-plain:rb-plain /srv/homes && chmod 500 /srv/homes/ann"
    new:must "chown rb-plain:rb-plain /srv/homes"
    local function plain(o)
      return pair {
        from = lab.place(old, { user = old.user_plain }):dir "/srv/homes", to = lab.place(new, { user = new.user_plain }):dir "/srv/homes",
        owner = o and o.owner,
      }
    end
    local function stops(homes)
      local words = {}
      for _, check in ipairs(homes:checks()) do
        local ok, err = pcall(check[2])
        words[#words + 1] = not ok and tostring(err) or nil
      end
      return table.concat(words, "\n")
    end
    lab.must(function()
      assert.equal("", stops(plain()))
      local homes = plain()
      homes:bulk()
      old:must "echo 2 > /srv/homes/ann/two && chown rb-plain:rb-plain /srv/homes/ann/two"
      homes:final()
      homes:verify()
    end)
    assert.equal("", lab.difference(old, "/srv/homes", new, "/srv/homes"))
    old:must "mkdir -p /srv/homes/eve && echo s > /srv/homes/eve/secret && chmod 600 /srv/homes/eve/secret"
    local said = stops(plain())
    assert.truthy(said:find("1 name cannot be read as this user: eve/secret", 1, true), said)
    assert.truthy(said:find("user 4002 on nfs-new cannot give files to", 1, true), said)
    assert.truthy(stops(plain { owner = "1000:1000" }):find("cannot give files to 1000:1000", 1, true))
    old:must "chmod 700 /srv/homes/eve"
    local err = lab.live(function() plain():final() end)
    assert.equal("EUNREADABLE", err.code)
  end)

  it("says which firewall rule is missing when the target does not reach the source", function()
    old:must "mkdir /srv/homes/ann"
    local hidden = lab.place(old, { seen_from_target = "127.0.0.1:9" })
    local err = lab.live(function() pair({ from = hidden:dir "/srv/homes", route = "pull" }):bulk() end)
    assert.equal("unreachable", err.kind)
    assert.truthy(err.message:find("127.0.0.1 port 9", 1, true))
    assert.truthy(err.hint:find("from nfs-new to 127.0.0.1, TCP port 9", 1, true))
    assert.equal("", new:must "ls -A /srv/homes | grep -v .runbook || true")
  end)

  it("keeps the source's end of a pass to sending units of one directory", function()
    old:must "mkdir -p /srv/homes/ann /srv/other && ln -s /srv/other /srv/homes/way-out && echo s > /srv/other/secret"
    local command = require("runbook.copier.rsync").sender { path = "/srv/homes", gently = false }
    local function ask(request)
      local _, _, stderr = old:sh(("SSH_ORIGINAL_COMMAND=%s; %s </dev/null"):format(world.quote(request), command))
      return stderr or select(1, old:sh(("SSH_ORIGINAL_COMMAND=%s; %s </dev/null"):format(world.quote(request), command)))
    end
    local options = "--server --sender -logDtpr . ."
    for _, request in ipairs {
      "cat /etc/passwd", "runbook-send", "runbook-send .. " .. options, "runbook-send a\\057b " .. options,
      "runbook-send \\056\\056 " .. options, "runbook-send way\\055out " .. options, "runbook-send ann --server --sender -logs . .",
      "runbook-send ann --server --sender --remove-source-files . .", "runbook-send ann --server -logDtpr . .",
      "runbook-send ann --server --sender -logDtpr . /srv/other", "runbook-send ann --server --sender --files-from=/etc/passwd . .",
      "runbook-send ann --server --sender -l. . .; id",
    } do
      assert.truthy(ask(request):find("runbook: refused", 1, true), request .. " was not refused: " .. ask(request))
    end
    assert.falsy(ask("runbook-send ann " .. options):find("refused", 1, true))
  end)
end)

describe("a pair", function()
  local machine, at

  setup(function()
    machine = world.sshd { name = "nfs", disks = { ["/mnt/small"] = "12M" } }
    at = lab.place(machine)
  end)

  teardown(function()
    require("runbook.ssh").close()
    machine:close()
  end)

  before_each(function()
    lab.fresh(machine, "/srv/a", "/srv/b")
    machine:must "mkdir /srv/a/ann /srv/a/bob && echo 1 > /srv/a/ann/one && echo 2 > /srv/a/bob/two && echo l > /srv/a/loose"
    machine:sh "rm -rf /root/.local"
  end)

  local function pair(o)
    o = o or {}
    o.from, o.to = o.from or at:dir "/srv/a", o.to or at:dir "/srv/b"
    return sync.pair(o)
  end

  local function refused(o)
    local err = lab.live(function() pair(o):bulk() end)
    assert.truthy(err, "it was not refused")
    return err
  end

  it("needs no connection when both ends are one machine", function()
    lab.must(function()
      local homes = pair()
      homes:bulk()
      homes:final()
      homes:verify()
    end)
    assert.equal("", lab.difference(machine, "/srv/a", machine, "/srv/b"))
  end)

  describe("refuses", function()
    it("one directory as both ends, by whatever name", function()
      machine:must "ln -sfn /srv/a /srv/alias; mkdir -p /srv/bind && mount --bind /srv/a /srv/bind"
      for _, path in ipairs { "/srv/a", "/srv/a/", "/srv/a/.", "/srv/alias", "/srv/bind" } do
        assert.equal("ESAME", refused({ to = at:dir(path) }).code, path)
      end
      machine:must "umount /srv/bind"
    end)

    it("an end inside the other", function()
      assert.truthy(refused({ to = at:dir "/srv/a/ann" }).message:find("inside the source", 1, true))
      assert.truthy(refused({ to = at:dir "/srv/a/not/there/yet" }).message:find("inside the source", 1, true))
      assert.truthy(refused({ from = at:dir "/srv/a/ann", to = at:dir "/srv/a" }).message:find("inside the target", 1, true))
    end)

    it("the root of a system", function()
      assert.equal("ESAME", refused({ from = at:dir "/" }).code)
    end)

    it("a source that is empty or not there", function()
      lab.fresh(machine, "/srv/empty")
      assert.equal("EEMPTY", refused({ from = at:dir "/srv/empty" }).code)
      assert.equal("missing", refused({ from = at:dir "/srv/nowhere" }).kind)
    end)

    it("a source that is not the mount it was, or half gone", function()
      machine:must "mkdir -p /mnt/small/h/ann && touch /mnt/small/h/ann/1 /mnt/small/h/ann/2 /mnt/small/h/ann/3"
      local homes = pair { from = at:dir "/mnt/small/h" }
      local err = lab.live(function()
        homes:bulk()
        machine:must "umount -l /mnt/small && mkdir -p /mnt/small/h/ann && touch /mnt/small/h/ann/1"
        homes:final()
      end)
      assert.equal("EMOUNT", err.code)
      assert.equal("1\n2\n3", machine:must "ls /srv/b/ann")
      local half = lab.live(function()
        local again = pair { to = at:dir "/srv/c" }
        machine:must "cd /srv/a/ann && touch 1 2 3 4 5 6 7 8 9"
        again:bulk()
        machine:must "rm -r /srv/a/ann"
        again:final()
      end)
      assert.equal("EHALF", half.code)
      assert.equal("10", machine:must "ls /srv/c/ann | wc -l; rm -r /srv/c")
    end)

    it("what somebody else put on the target, and never removes it", function()
      machine:must "echo mine > /srv/b/mine"
      local err = refused()
      assert.equal("EFOREIGN", err.code)
      assert.truthy(err.message:find("mine", 1, true))
      assert.equal("mine", machine:must "cat /srv/b/mine")
    end)

    it("the target of another source", function()
      lab.must(function() pair():bulk() end)
      machine:must "mkdir -p /srv/other/ann"
      local err = refused { from = at:dir "/srv/other" }
      assert.equal("EFOREIGN", err.code)
      assert.equal("1", machine:must "cat /srv/b/ann/one")
    end)

    it("options it does not know, and patterns that are rules", function()
      local ok, err = pcall(pair, { exlude = {} })
      assert.truthy(not ok and tostring(err):find("did you mean `exclude`", 1, true))
      assert.falsy((pcall(pair, { exclude = { "+ all" } })))
      assert.falsy((pcall(pair, { owner = "ubuntu" })))
      assert.falsy((pcall(pair, { kind = "nsf" })))
    end)
  end)

  it("goes on where an earlier run of the same pair ended", function()
    lab.must(function() pair():bulk() end)
    machine:must "echo more > /srv/a/bob/more"
    lab.must(function()
      local homes = pair()
      homes:final()
      homes:verify()
    end)
    assert.equal("", lab.difference(machine, "/srv/a", machine, "/srv/b"))
  end)

  it("never writes through a symlink that stands on the target", function()
    lab.must(function() pair():bulk() end)
    machine:must "mkdir -p /srv/elsewhere && rm -r /srv/b/ann && ln -s /srv/elsewhere /srv/b/ann"
    local err = lab.live(function() pair():final() end)
    assert.truthy(err.message:find("a symlink stands on the target", 1, true), err.message)
    assert.equal("", machine:must "ls -A /srv/elsewhere; rm /srv/b/ann")
  end)

  it("tells in words when the target is full, keeps what was there, and does the other homes", function()
    machine:must "mkdir -p /mnt/tiny && mount -t tmpfs -o size=3m tiny /mnt/tiny && mkdir /mnt/tiny/h"
    machine:must "head -c 5M /dev/urandom > /srv/a/ann/big"
    local err = lab.live(function() pair({ to = at:dir "/mnt/tiny/h" }):bulk() end)
    assert.equal("full", err.kind)
    assert.truthy(err.message:find("No space left on device", 1, true))
    assert.truthy(err.message:find("of 3 homes failed", 1, true), err.message)
    assert.falsy(err.message:find("quota", 1, true), err.message)
    assert.equal("2", machine:must "cat /mnt/tiny/h/bob/two")
    assert.equal("no", machine:must "test -e /mnt/tiny/h/ann/big && echo yes || echo no; umount -l /mnt/tiny")
  end)

  it("finds every difference that appears on the target afterwards", function()
    for change, words in pairs {
      ["echo x > ann/extra"] = "only on the target", ["rm ann/one"] = "missing on the target",
      ["chmod 600 ann/one"] = "mode differs", ["touch -d @1 ann/one"] = "time differs", ["chown 5:5 ann"] = "owner differs",
      ["echo 10 > ann/one"] = "size differs", ["setfattr -n user.x -v y ann/one"] = "attributes differ", ["mkdir new"] = "the source does not",
    } do
      lab.fresh(machine, "/srv/b")
      local err = lab.live(function()
        local homes = pair()
        homes:bulk()
        machine:must("cd /srv/b && " .. change)
        homes:verify()
      end)
      assert.truthy(err, change .. " was not found")
      assert.truthy(err.message:find(words, 1, true), change .. ": " .. err.message)
    end
  end)

  it("knows whether the source is quiet, and who is not", function()
    lab.must(function()
      local homes = pair()
      homes:bulk()
      homes:must_be_quiet(0.2)
      homes:must_be_quiet()
    end)
    local err = lab.live(function()
      local homes = pair()
      homes:bulk()
      machine:must "echo new > /srv/a/ann/new; touch -d 2001-01-01 /srv/a/ann/new"
      homes:must_be_quiet()
    end)
    assert.equal("EWRITERS", err.code)
    assert.truthy(err.message:find("ann/new", 1, true), err.message)
    local writer
    local busy = lab.live(function()
      writer = require("runbook.task").spawn(function()
        for i = 1, 200 do
          machine:must(("echo %d > /srv/a/bob/two"):format(i))
          require("runbook.task").sleep(0.05)
        end
      end)
      pair():must_be_quiet(0.3)
    end)
    writer:cancel()
    require("runbook.task").join(writer)
    assert.equal("EWRITERS", busy.code)
    assert.truthy(busy.message:find("bob", 1, true))
  end)

  it("says who worked on the target since, and takes only that back", function()
    local err
    lab.must(function()
      local homes = pair()
      homes:final()
      homes:verify()
      homes:must_be_unchanged_since_receipts()
      machine:must "echo later > /srv/b/bob/later; echo edited > /srv/b/bob/two; mkdir /srv/b/eve; echo e > /srv/b/eve/e"
      err = select(2, pcall(homes.must_be_unchanged_since_receipts, homes))
      homes:back()
    end)
    assert.truthy(errors.is(err, "conflict"))
    assert.truthy(err.message:find("2 homes have changed", 1, true), err.message)
    for _, home in ipairs { "ann", "bob", "eve" } do
      assert.equal("", lab.difference(machine, "/srv/a/" .. home, machine, "/srv/b/" .. home))
    end
  end)

  it("takes nothing back over work that was done at the source", function()
    local err = lab.live(function()
      local homes = pair()
      homes:final()
      homes:verify()
      machine:must "echo new side > /srv/b/bob/two; echo old side > /srv/a/bob/two"
      homes:back()
    end)
    assert.equal("EBOTH", err.code)
    assert.equal("old side", machine:must "cat /srv/a/bob/two")
  end)

  it("is locked while somebody works on it", function()
    machine:must "mkdir -p /srv/b/.runbook/lock && cd /srv/b/.runbook/lock && echo 'temple-9 1' > run && echo 'eve on laptop' > holder"
    local err = refused()
    assert.equal("ELOCKED", err.code, err.message)
    assert.truthy(err.message:find("eve on laptop", 1, true))
  end)

  it("says how long the rest takes, and whether it fits", function()
    lab.must(function()
      local homes = pair()
      assert.equal("EFORECAST", select(2, pcall(homes.forecast, homes)).code)
      homes:bulk()
      homes:converge { within = "1h" }
      local f = homes:forecast()
      assert.truthy(f.low <= f.seconds and f.seconds <= f.high)
      homes:must_fit("1h")
      local err = select(2, pcall(homes.must_fit, homes, 0.001))
      assert.equal("EWINDOW", err.code)
      local labels = {}
      for _, row in ipairs(homes:impact()) do
        labels[#labels + 1] = row[1]
      end
      assert.same({ "who", "forecast", "", "decide", "back" }, labels)
    end)
  end)

  it("has every method of a copier", function()
    local homes = pair()
    for _, name in ipairs(sync.METHODS) do
      assert.equal("function", type(homes[name]), name)
    end
  end)
end)
