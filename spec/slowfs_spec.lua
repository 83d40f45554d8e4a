-- The slow directory stands in for a file server when copies are measured: it must be slow, in parallel, and lose nothing.

local oracle = require "spec.support.oracle"
local time = require "runbook.core.time"
local world = require "spec.world"

describe("a slow directory", function()
  local folder, fast, slow

  setup(function()
    folder = world.folder "slow"
    fast = folder .. "/fast"
    world.must("mkdir " .. fast)
    slow = world.slowfs { from = fast, at = folder .. "/slow" }
  end)

  teardown(function() slow:close() end)

  local function seconds(line)
    local start = time.now()
    world.must(line)
    return time.now() - start
  end

  it("shows what is there, and keeps what is written, in everything the oracle knows", function()
    local homes = folder .. "/homes"
    world.homes(homes, { homes = 8, files = 120 })
    world.must(("cd %s/user-0 && truncate -s 40M sparse && printf x | dd of=sparse bs=1M seek=20 conv=notrunc status=none && setfacl -d -m u:7:rx . \z
      && ln -s nowhere marked && setfattr -h -n trusted.mark -v 1 marked && mknod null c 1 3 && mknod disk b 7 0"):format(homes))
    world.must(("rsync -aHAXS --numeric-ids %s/ %s/"):format(homes, slow.path))
    oracle.identical(homes, fast)
    oracle.identical(homes, slow.path, { threads = 32 })
    world.must(("rsync -aHAXS --numeric-ids %s/ %s/again/"):format(slow.path, folder))
    oracle.identical(homes, folder .. "/again")
    world.must(("rm -r %s/* && rm -rf %s/.hidden"):format(slow.path, slow.path))
    assert.equal("", world.must("ls -A " .. fast))
  end)

  it("delays each call, not each byte", function()
    world.must(("mkdir %s/d && cd %s/d && touch $(seq 200)"):format(fast, fast))
    local before = slow:calls()
    -- for each of 200: the path's two names looked up, the attributes asked for
    local taken = seconds(("cd %s/d && find . -type f -size -1 | wc -l"):format(slow.path))
    local calls = slow:calls() - before
    assert.is_true(calls >= 400, calls)
    assert.is_true(taken > calls * 0.001, taken)
    before = slow:calls()
    world.must(("head -c 50M /dev/zero > %s/large"):format(slow.path))
    assert.is_true(slow:calls() - before < 50, slow:calls() - before)
  end)

  it("delays calls of many at the same time, not one after the other", function()
    local one = seconds(("cd %s/d && seq 200 | xargs -n 10 stat -c %%s | sort -u"):format(slow.path))
    local many = seconds(("cd %s/d && seq 200 | xargs -P 20 -n 10 stat -c %%s | sort -u"):format(slow.path))
    assert.is_true(many < one / 2, ("%.3f s and %.3f s"):format(one, many))
  end)

  it("takes as long as it was told, and believes itself as long as it was told", function()
    local quick <close> = world.slowfs { from = fast, at = folder .. "/quick", microseconds = 0 }
    local cached <close> = world.slowfs { from = fast, at = folder .. "/cached", cache = 60 }
    local slower <close> = world.slowfs { from = fast, at = folder .. "/slower", microseconds = 50000 }
    local line = "stat -c %%s %s/d/1 %s/d/1 %s/d/1 %s/d/1"
    local long = seconds((line:gsub("%%s/", slower.path .. "/"):gsub("%%%%", "%%")))
    assert.is_true(long > 0.3, long)
    world.must((line:gsub("%%s/", cached.path .. "/"):gsub("%%%%", "%%")))
    local before = cached:calls()
    world.must((line:gsub("%%s/", cached.path .. "/"):gsub("%%%%", "%%")))
    assert.equal(before, cached:calls())
    local short = seconds((line:gsub("%%s/", quick.path .. "/"):gsub("%%%%", "%%")))
    assert.is_true(short < long, short)
  end)

  it("does what files do: links, renames, appends, holes, times, masks and default ACLs", function()
    local script = [[set -e; umask 027; mkdir t; cd t; echo a > a; ln a b; echo more >> b; mv b c; mkdir d; setfacl -d -m g:9:rwx d; echo x > d/x
      mkdir d/e; ln -s a l; ln l l2; chmod 6755 a; touch -h -d @-5.000000001 l; touch -d @4000000000.999999999 c; truncate -s 5 c
      truncate -s 1M h; printf x | dd of=h bs=1k seek=900 conv=notrunc status=none; fallocate -p -o 0 -l 4096 h; mv d/x c; rm a
      : > gone; exec 5<>gone; rm gone; echo still >&5; echo y > 'd/
'; chown 5:6 h; chmod 4711 h; setfattr -n user.x -v 1 h; setfattr -x user.x h; rmdir d/e; touch -h -d @9 . d d/* c h l l2]]
    for _, path in ipairs { fast .. "/1", slow.path .. "/2" } do
      world.must(("mkdir %s && cd %s && %s"):format(path, path, script))
    end
    world.must(("touch -d @9 %s/1 %s/2"):format(fast, fast))
    oracle.identical(fast .. "/1", fast .. "/2")
    oracle.identical(fast .. "/1", slow.path .. "/2")
  end)

  it("gives what people make to them, and keeps them out of what is not theirs", function()
    world.must(("chmod 755 %s/.. && chmod 755 %s && mkdir -m 2777 %s/open && chgrp 77 %s/open && mkdir -m 700 %s/shut"):format(
      folder, folder, fast, fast, fast))
    local as = "setpriv --reuid 4242 --regid 4343 --clear-groups sh -c "
    world.must(as .. world.quote(("cd %s/open && umask 022 && echo > file && mkdir dir && ln -s x link && mkfifo fifo"):format(slow.path)))
    assert.equal("4242:77 644 file", world.must(("cd %s/open && stat -c '%%u:%%g %%a %%n' file"):format(fast)))
    assert.equal("4242:77 2755 dir", world.must(("cd %s/open && stat -c '%%u:%%g %%a %%n' dir"):format(fast)))
    assert.equal("4242:77", world.must(("cd %s/open && stat -c '%%u:%%g' link fifo | sort -u"):format(fast)))
    assert.not_equal(0, select(2, world.sh(as .. world.quote(("echo > %s/shut/x"):format(slow.path)))))
  end)

  it("is where only that machine sees it, and gone when it is closed", function()
    local m <close> = world.sshd()
    m:must "mkdir /srv/fast && echo x > /srv/fast/file"
    local there = world.slowfs { machine = m, from = "/srv/fast", at = "/srv/homes" }
    assert.equal("x\n", m:read "/srv/homes/file")
    assert.falsy(world.read("/proc/mounts"):find("slowfs " .. m.folder, 1, true))
    assert.is_true(there:calls() > 0)
    there:close()
    assert.is_nil(m:read "/srv/homes/file")
    assert.is_false(there.leash:alive())
  end)

  it("says why when it cannot be", function()
    local ok, err = pcall(world.slowfs, { from = folder .. "/nowhere", at = folder .. "/x" })
    assert.is_false(ok)
    assert.truthy(tostring(err):find("No such file", 1, true), err)
  end)
end)
