-- The far side's program when the world does not do as it should: full disks, quotas, closed doors, kills, things that
-- change under its hands. The old version stays, the failure is told, all else goes on, and the next pass mends it.

local far = require "spec.support.far"
local frames = require "spec.support.frames"
local oracle = require "spec.support.oracle"
local world = require "spec.world"

describe("the far side's program", function()
  local frame, number, text, expect = frames.frame, frames.number, frames.text, frames.expect

  local function identical(pair)
    world.must(("touch -r %s %s"):format(pair.source, pair.target))
    oracle.identical(pair.source, pair.target, { exclude = { "lost+found", ".filler" } })
  end

  local function leftovers(pair)
    return (world.sh(("find %s -name '.rb~*'"):format(pair.target)))
  end

  --- The codes of what failed, by status.
  local function failures(outcome)
    local found = {}
    for _, f in ipairs(outcome.failures) do
      found[f.status] = found[f.status] or {}
      found[f.status][f.code] = (found[f.status][f.code] or 0) + f.count
    end
    return found
  end

  local function clean(outcome)
    assert.same({}, outcome.failures)
    return outcome
  end

  local function inode(path)
    return expect(tonumber((world.must("stat -c %i " .. path))))
  end

  --- Inode and ctime, to the nanosecond.
  local function exactly(path)
    local i, seconds, ns = world.must(("stat -c %%i %s; python3 -c 'import os; n = os.lstat(\"%s\").st_ctime_ns; \z
      print(n // 10**9, n %% 10**9)'"):format(path, path))
      :match "(%d+)\n(%d+) (%d+)"
    return expect(tonumber(i), tonumber(seconds), tonumber(ns))
  end

  describe("on a target that is full", function()
    it("of bytes keeps the old versions, brings what fits, and goes on when there is room", function()
      local disk <close> = world.filesystem { size = "24M" }
      world.must(("rmdir %s/lost+found"):format(disk.path))
      local pair = far.pair { target = disk.path }
      world.must(("mkdir %s/ann && cd %s/ann && for n in big huge small; do echo old > $n; done"):format(pair.source, pair.source))
      clean(pair:copy())
      world.must(("cd %s/ann && head -c 6000000 /dev/urandom > big; head -c 40000000 /dev/urandom > huge; echo new > small; mkdir d; \z
        echo x > d/x"):format(pair.source))
      local outcome = pair:copy()
      local found = failures(outcome)
      assert.is_true(found.target.ENOSPC >= 1 and found.target.ENOSPC <= 2)
      found.target.ENOSPC = nil
      assert.same({ target = {} }, found)
      assert.equal("old\nnew\nx", world.must(("cd %s/ann && cat huge small d/x"):format(disk.path)))
      assert.equal("", leftovers(pair))
      world.must(("head -c 50000 /dev/urandom > %s/ann/huge"):format(pair.source))
      clean(pair:copy())
      identical(pair)
    end)

    it("of names says so, and keeps what is there", function()
      local disk <close> = world.filesystem { kind = "tmpfs", size = "20M,nr_inodes=40" }
      local pair = far.pair { target = disk.path }
      world.must(("mkdir %s/ann && cd %s/ann && for i in $(seq 60); do echo $i > f$i; done; ln f1 g1; ln -s x l1; mkdir z; \z
        echo x > z/x"):format(pair.source, pair.source))
      local outcome = pair:copy()
      assert.is_true(failures(outcome).target.ENOSPC > 20)
      assert.is_true(outcome.done > 20)
      assert.equal("", leftovers(pair))
      world.must(("rm %s/ann/f[2-6]*"):format(pair.source))
      pair:copy { deletions = true } -- what comes is made before what went is removed
      clean(pair:copy { deletions = true })
      identical(pair)
    end)

    it("by a quota says that it is one", function()
      local folder = world.folder "quota"
      world.must(("cd %s && truncate -s 200M img && mkfs.btrfs -q img >/dev/null && mkdir at && mount -o loop img at"):format(folder))
      world.must(("cd %s/at && btrfs quota enable . && btrfs subvolume create ann >/dev/null && btrfs qgroup limit 4M ann && mkdir bob"):format(folder))
      local pair = far.pair { target = folder .. "/at" }
      world.must(([[cd %s && mkdir ann bob && echo old > ann/large && echo x > ann/x]]):format(pair.source))
      clean(pair:copy())
      world.must(("cd %s && head -c 9000000 /dev/urandom > ann/large && head -c 9000000 /dev/urandom > bob/large && echo y > ann/x"):format(pair.source))
      local outcome = pair:copy()
      assert.same({ target = { EDQUOT = 1 } }, failures(outcome))
      assert.equal("ann", outcome.failures[1].unit)
      assert.equal("old\ny", world.must(("cat %s/ann/large %s/ann/x"):format(pair.target, pair.target)))
      assert.equal("", leftovers(pair))
      world.must(("btrfs qgroup limit none %s/ann"):format(pair.target))
      clean(pair:copy())
      identical(pair)
      world.must(("umount -l %s/at && rm %s/img"):format(folder, folder))
    end)
  end)

  it("on a target that is read-only touches nothing and says why", function()
    local disk <close> = world.filesystem { kind = "tmpfs", size = "20M" }
    local pair = far.pair { target = disk.path }
    world.must(([[cd %s && mkdir ann && cd ann && for n in change mode remove leader; do echo old > $n; done; ln leader link;
      ln -s old symlink; mkdir sub]]):format(pair.source))
    clean(pair:copy())
    local before = oracle.digest(pair.target)
    world.must(([[cd %s/ann && echo new > change; chmod 640 mode; rm remove; ln leader another; ln -sfn new symlink; echo new > sub/new;
      mkfifo pipe; rmdir dir 2>/dev/null;
      mkdir dir]]):format(pair.source))
    world.must("mount -o remount,ro " .. pair.target)
    local outcome = pair:copy { deletions = true }
    assert.equal(0, outcome.done)
    assert.is_nil(failures(outcome).conflict)
    assert.is_true(failures(outcome).target.EROFS >= 8)
    assert.equal(before, oracle.digest(pair.target))
    world.must("mount -o remount,rw " .. pair.target)
    clean(pair:copy { deletions = true })
    identical(pair)
  end)

  it("on a target without ACLs says what is lost, and gives the group no more than it had", function()
    local pair = far.pair()
    world.must("mount -t ramfs spec " .. pair.target)
    world.must(([[mkdir %s/ann && cd %s/ann && echo secret > file && chmod 600 file && setfacl -m u:77:rwx file &&
      echo x > plain]]):format(pair.source, pair.source))
    assert.equal("670", world.must(("stat -c %%a %s/ann/file"):format(pair.source)))
    local outcome = pair:copy()
    assert.same({ unkept = { ENOTSUP = 1 } }, failures(outcome))
    assert.truthy(outcome.failures[1].words:find("system.posix_acl_access", 1, true))
    assert.equal("600\nsecret", world.must(("cd %s/ann && stat -c %%a file && cat file"):format(pair.target)))
    -- it is ours all the same: the next version replaces it, and it can be removed
    world.must(("cd %s/ann && echo more > file"):format(pair.source))
    assert.same({ unkept = { ENOTSUP = 1 } }, failures(pair:copy { overwrite = false }))
    assert.equal("more", world.must(("cat %s/ann/file"):format(pair.target)))
    world.must(("cd %s/ann && rm file"):format(pair.source))
    assert.equal(1, clean(pair:copy { deletions = true, overwrite = false }).removed)
    identical(pair)
    world.must("umount -l " .. pair.target)
  end)

  describe("expects", function()
    local pair

    before_each(function()
      pair = far.pair()
      world.must(([[cd %s && mkdir ann && echo new > ann/file && echo new > ann/mode && chmod 600 ann/mode && ln -s new ann/link &&
        mkdir ann/dir && mkfifo ann/pipe
        cp -a ann %s/]]):format(pair.source, pair.target))
      world.must(("cd %s/ann && echo old > file && ln -sfn old link"):format(pair.target))
    end)

    local function status(work, o)
      local answers, ended = pair:run(frame("B", text "ann") .. work .. frame "Q", o)
      assert.is_true(ended)
      return far.status[answers[0].status], answers[0]
    end

    it("what it was told stands there, and leaves anything else alone", function()
      local at = pair.target .. "/ann/"
      local function digest() -- a name that was made beside it and taken away gives a directory another time
        world.must(("touch -d @1 %s"):format(at))
        return oracle.digest(pair.target)
      end
      local before = digest()
      for _, name in ipairs { "file", "link", "pipe" } do
        local type = name == "file" and "F" or "N"
        local r = frames.reader(exactly(at .. name))
        assert.equal(1, r:number())
        local i, seconds, ns = r:number(), r:signed(), r:number()
        for _, wrong in ipairs { expect(), expect(i + 1), expect(i + 1, seconds, ns), expect(i, seconds, ns ~ 1), expect(i, seconds + 1, ns) } do
          assert.equal("conflict", (status(frame(type, number(0), text(name), wrong))))
          assert.equal("conflict", (status(frame("X", number(0), text(name), "f", wrong))))
          assert.equal("conflict", (status(frame("H", number(0), text(name), wrong, text "mode"))))
          if name == "file" then
            assert.equal("conflict", (status(frame("M", number(0), text(name), wrong, ("x"):rep(16)))))
          end
        end
      end
      -- what should be there and is not
      assert.equal("conflict", (status(frame("F", number(0), text "file", expect(5, 6, 7)))))
      assert.equal("conflict", (status(frame("X", number(0), text "dir", "f", inode(at .. "dir")))))
      assert.equal("conflict", (status(frame("X", number(0), text "file", "d", exactly(at .. "file")))))
      assert.equal(before, digest())
      -- and what is as it was told
      assert.equal("done", (status(frame("F", number(0), text "file", exactly(at .. "file")))))
      assert.equal("done", (status(frame("N", number(0), text "link", inode(at .. "link")))))
      assert.equal("done", (status(frame("X", number(0), text "dir", "d", inode(at .. "dir")))))
      assert.equal("done", (status(frame("X", number(0), text "pipe", "p", exactly(at .. "pipe")))))
      assert.equal("new\nnew", world.must(("cat %sfile; readlink %slink; test ! -e %sdir -a ! -e %spipe"):format(at, at, at, at)))
    end)

    it("directories to be empty that are removed, and a file in the way of one to be removed first", function()
      world.must(("echo x > %s/ann/dir/foreign"):format(pair.target))
      local answer, more = status(frame("X", number(0), text "dir", "d", inode(pair.target .. "/ann/dir")))
      assert.equal("conflict", answer)
      assert.equal("Directory not empty", more.words)
      world.must(("rm -r %s/ann/dir && echo x > %s/ann/dir"):format(pair.target, pair.target))
      assert.equal("conflict", (status(frame("D", number(0), text "dir"))))
      assert.equal("x", world.must(("cat %s/ann/dir"):format(pair.target)))
    end)

    it("no name to be removed that nobody spoke of, nor more than it may", function()
      local at = pair.target .. "/ann/"
      assert.equal("conflict", (status(frame("X", number(0), text "file", "f", expect()))))
      assert.equal("done", (status(frame("X", number(0), text "nothing", "f", expect(7)))))
      assert.equal("done", (status(frame("X", number(0), text "none/nothing", "f", expect(7)))))
      local work = frame("B", text "ann") .. frame("X", number(0), text "file", "f", inode(at .. "file")) ..
        frame("X", number(1), text "link", "l", inode(at .. "link"))
        .. frame("X", number(2), text "pipe", "p", inode(at .. "pipe")) .. frame "Q"
      local answers = pair:run(work, { receive = "--most-removed=2" })
      assert.same({ 0, 0, 5 }, { answers[0].status, answers[1].status, answers[2].status })
      assert.equal("mode\npipe\ndir", world.must(("ls -U %s | sort -r | sed 's/^dir$/zdir/' | sort | sed s/zdir/dir/"):format(at)))
    end)
  end)

  describe("while the source changes", function()
    it("counts what vanished, calls what never holds still changing, and both are right the next time", function()
      local pair = far.pair()
      world.must(([[cd %s && mkdir -p ann/sub/gone && cd ann && echo 1 > gone; echo 1 > sub/gone/x; ln -s x link; echo 1 > leader;
        ln leader leader-2; echo 1 > pipe; echo 1 > dir
        ln -s a to-file; echo stays > stays]]):format(pair.source))
      pair:scan()
      world.must(([[cd %s/ann && rm -r gone sub/gone link leader; rm pipe dir to-file && mkfifo pipe && mkdir dir && echo x > to-file]]):format(pair.source))
      local outcome = pair:copy { scan = false }
      local found = failures(outcome)
      assert.is_nil(found.target)
      assert.is_nil(found.conflict)
      assert.is_nil(found.source)
      assert.equal(5, outcome.vanished)
      assert.equal("stays", world.must(("cat %s/ann/stays"):format(pair.target)))
      clean(pair:copy { deletions = true })
      identical(pair)
    end)

    it("claims what it made before its directory was renamed, or could not keep whole, so that it goes away again", function()
      local pair = far.pair()
      world.must(("mkdir -p %s/ann/before/deep %s/ann/stays && echo x > %s/ann/before/deep/file"):format(pair.source, pair.source, pair.source))
      pair:scan()
      -- the directory is renamed after its file was sent
      pair:copy { scan = false, line = ("mkfifo %s/fifo; FAR send %s < %s/fifo | FAR receive %s & { python3 -c '%s' > %s/fifo; }; wait"):format(
        pair.folder, pair.source, pair.folder, pair.target, ([[
import os, sys, time
work = sys.stdin.buffer.read()
at = work.index(b"R\0")
os.write(1, work[:at + 2])
while not os.path.exists("%s/ann/before/deep/file"): time.sleep(0.01)
os.rename("%s/ann/before", "%s/ann/after")
os.write(1, work[at + 2:])]]):format(pair.target, pair.source, pair.source), pair.folder) }
      world.must(("test -e %s/ann/before/deep/file"):format(pair.target))
      assert.same({}, clean(pair:copy { deletions = true }).refused)
      identical(pair)
    end)

    it("never opens a pipe that has taken a file's place", function()
      local pair = far.pair()
      world.must(("mkdir %s/ann && echo x > %s/ann/file"):format(pair.source, pair.source))
      pair:scan()
      local path = pair.source .. "/ann/file"
      world.must(("rm %s && mkfifo %s"):format(path, path))
      -- whoever opens it to write waits until somebody opens it to read
      local writer = world.start { "sh", "-c", ("echo opened > %s; echo yes > %s/opened"):format(path, pair.folder) }
      assert.same({ changing = { EAGAIN = 1 } }, failures(pair:copy { scan = false }))
      assert.is_nil(world.read(pair.folder .. "/opened"))
      writer:stop()
    end)

    it("sends no torn file for clean that is written to all the time", function()
      local pair = far.pair()
      world.must(("mkdir %s/ann && head -c 4000000 /dev/zero > %s/ann/busy && \z
        head -c 1000 /dev/zero > %s/ann/small"):format(pair.source, pair.source, pair.source))
      local writer = world.start { "python3", "-c", [[
import os, sys
files = [(os.open(sys.argv[1] + "/" + name, os.O_WRONLY), size) for name, size in (("busy", 4000000), ("small", 1000))]
n = 0
while True:
    n += 1
    for fd, size in files:
        os.pwrite(fd, bytes([n % 256]) * size, 0)]], pair.source .. "/ann" }
      for _ = 1, 5 do
        local found = failures(pair:copy())
        assert.is_nil(found.target)
        assert.is_nil(found.source)
      end
      writer:stop()
      clean(pair:copy())
      pair:scan()
      pair:prove()
      clean(pair:copy())
      identical(pair)
    end)

    for _, kind in ipairs { "tmpfs", "ext4" } do
      it("in a storm on " .. kind .. " reads in order, has nothing to blame the target for, and is right when it is quiet", function()
        local disk <close> = world.filesystem { size = "300M", kind = kind }
        world.sh(("rmdir %s/lost+found"):format(disk.path))
        local pair = far.pair { source = disk.path }
        world.grow("many", pair.source, { files = 600, homes = 3 })
        local storm = world.storm(pair.source, { seed = 11, rate = 4000 })
        for _ = 1, 6 do
          local found = failures(pair:copy { deletions = true, ours_during = { { 0, math.huge } } }) -- nobody else writes there
          assert.is_nil(found.target)
          assert.is_nil(found.source)
          assert.is_nil(found.unkept)
        end
        storm:stop()
        local last = clean(pair:copy { deletions = true, ours_during = { { 0, math.huge } } })
        assert.same({}, last.refused)
        pair:scan()
        pair:prove() -- what was touched twice in one tick of the clock shows in no time
        clean(pair:copy())
        identical(pair)
        assert.equal("", leftovers(pair))
      end)
    end

    it("reads a name once that is made again and again", function()
      local disk <close> = world.filesystem { size = "100M", kind = "tmpfs" }
      local pair = far.pair { source = disk.path }
      world.must(("mkdir %s/ann && cd %s/ann && seq 3000 | xargs touch"):format(pair.source, pair.source))
      local writer = world.start { "python3", "-c", [[
import os, sys
os.chdir(sys.argv[1])
while True:
    for i in range(1, 3001, 100):
        os.unlink(str(i))
        (os.mkdir if i % 200 == 1 else os.mknod)(str(i))
        (os.rmdir if i % 200 == 1 else os.unlink)(str(i))
        os.mknod(str(i))]], pair.source .. "/ann" }
      for _ = 1, 60 do
        pair:scan { side = "source" }
      end
      writer:stop()
    end)
  end)

  describe("never leaves its root", function()
    --- Somebody who swaps a directory for a symlink to another place, all the time.
    local function swap(path, to)
      return world.start { "python3", "-c", [[
import os, sys
path, to = sys.argv[1:]
name = os.path.basename(path)
at = None
while at is None:
    try:
        at = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        pass
while True:
    try:
        os.rename(name, name + ".away", src_dir_fd=at, dst_dir_fd=at)
        os.symlink(to, name, dir_fd=at)
        os.unlink(name, dir_fd=at)
        os.rename(name + ".away", name, src_dir_fd=at, dst_dir_fd=at)
    except OSError:
        pass]], path, to }
    end

    it("when directories on the target are swapped for symlinks while it writes", function()
      local pair = far.pair()
      local outside = pair.folder .. "/outside"
      world.must(("mkdir -p %s/dir && echo precious > %s/dir/f1 && cp -a %s/dir/f1 %s/"):format(outside, outside, outside, outside))
      world.must(("mkdir -p %s/ann/dir && cd %s/ann/dir && for i in $(seq 400); do echo $i > f$i; ln -s x l$i; ln f$i h$i; \z
        done"):format(pair.source, pair.source))
      local before = oracle.digest(outside)
      world.must(("mkdir -p %s/ann/dir"):format(pair.target))
      local one, two = swap(pair.target .. "/ann/dir", outside .. "/dir"), swap(pair.target .. "/ann", "../outside")
      for _ = 1, 5 do
        pair:scan { side = "source" }
        pair:copy { scan = false, deletions = true }
        world.sh(("find %s -name 'f*' -path '*dir*' -delete"):format(pair.target))
      end
      one:stop()
      two:stop()
      assert.equal(before, oracle.digest(outside), world.sh("find " .. outside))
    end)

    it("when directories on the source are swapped for symlinks while it reads", function()
      local pair = far.pair()
      local outside = pair.folder .. "/outside"
      world.must(("mkdir -p %s/dir %s/ann/dir && cd %s/dir && for i in $(seq 300); do echo secret > f$i; done; cd %s/ann/dir; \z
        for i in $(seq 300); do echo known > f$i; done"):format(
        outside, pair.source, outside, pair.source))
      pair:scan()
      local one, two = swap(pair.source .. "/ann/dir", outside .. "/dir"), swap(pair.source .. "/ann", "../outside")
      for _ = 1, 8 do
        pair:copy { scan = false }
        pair:scan()
        pair:prove()
      end
      one:stop()
      two:stop()
      local _, found = world.sh(("grep -r secret %s"):format(pair.target))
      assert.equal(1, found)
    end)
  end)

  it("makes what it copies readable for nobody else until it is whole", function()
    local pair = far.pair()
    world.must(("mkdir %s/ann && head -c 3000000 /dev/urandom > %s/ann/large && chmod 644 %s/ann/large"):format(pair.source, pair.source, pair.source))
    world.must(("mkdir %s/ann && chmod 777 %s/ann && setfacl -d -m u:5:rwx,o::rwx %s/ann"):format(pair.target, pair.target, pair.target))
    local work = frame("B", text "ann") .. frame("F", number(0), text "large", expect()) .. frame "Q"
    far.run(work, ("FAR send %s > %s/stream"):format(pair.source, pair.folder))
    local output = far.run("", ([[{ head -c 1000000 %s/stream; for i in $(seq 500); do ls -A %s/ann | grep -q . && break; sleep 0.01; done; sleep 0.05
      stat -c %%a %s/ann/.rb* >&2; getfacl -cpn %s/ann/.rb* | grep effective >&2; tail -c +1000001 %s/stream; } 2>%s/seen | FAR receive %s]]):format(
      pair.folder, pair.target, pair.target, pair.target, pair.folder, pair.folder, pair.target))
    assert.equal("Q", frames.all(output)[#frames.all(output)].type)
    assert.equal("600\nuser:5:rwx\t\t\t#effective:---\n", (world.read(pair.folder .. "/seen"):gsub("group::rwx[^\n]*\n", ""):gsub("\t+", "\t\t\t")))
    assert.equal("644", world.must(("stat -c %%a %s/ann/large"):format(pair.target)))
  end)

  describe("killed", function()
    local pair, stream

    setup(function()
      pair = far.pair()
      world.grow("many", pair.source, { files = 400, homes = 1 })
      world.must(("head -c 3000000 /dev/urandom > %s/user-000/large"):format(pair.source))
      pair:scan()
      stream = pair.folder .. "/stream"
    end)

    --- The stream of all work.
    local function send()
      pair:copy { scan = false, line = ("tee %s/work | FAR send %s > %s; FAR send /nowhere 2>/dev/null <%s/work | true; FAR receive %s < %s"):format(
        pair.folder, pair.source, stream, pair.folder, pair.target, stream) }
      return #world.read(stream)
    end

    it("at any point leaves what the next pass cleans and completes", function()
      local size = send()
      identical(pair)
      local left = 0
      for i = 1, 24 do
        world.must(("rm -rf %s && mkdir %s"):format(pair.target, pair.target))
        local bytes = size * i // 25
        far.run("", ([[mkfifo %s/fifo; FAR receive %s < %s/fifo > /dev/null & pid=$!
          { head -c %d %s; %s kill -9 $pid; } > %s/fifo; wait $pid; rm %s/fifo]]):format(pair.folder, pair.target, pair.folder, bytes, stream,
          i % 2 == 0 and "sleep 0.03;" or "", pair.folder, pair.folder))
        local before = leftovers(pair)
        left = left + select(2, before:gsub("[^\n]+", ""))
        local reports = pair:scan { fresh = true }
        local found = 0
        for _, unit in ipairs(reports.target.units) do
          for _, problem in ipairs(unit.problems) do
            assert.equal("leftover", problem.what)
          end
          found = found + unit.problem_count
        end
        assert.equal(select(2, before:gsub("[^\n]+", "")), found)
        local finished = world.sh(("find %s -type f -newermt 2000-01-01 ! -name '.rb~*' -printf '%%i '"):format(pair.target))
        far.run(frame("O", number(1), number(0), number(0)) .. frame "G", "FAR clean " .. pair.target)
        assert.equal("", leftovers(pair))
        clean(pair:copy())
        identical(pair)
        -- what was whole is not sent again
        local now = " " .. world.sh(("find %s -type f -printf '%%i '"):format(pair.target))
        for number_of in finished:gmatch "%d+" do
          assert.truthy(now:find(" " .. number_of .. " ", 1, true))
        end
      end
      assert.is_true(left > 0)
    end)

    it("as the sender is as good as cut", function()
      for _, milliseconds in ipairs { 5, 20, 60, 150 } do
        world.must(("rm -rf %s && mkdir %s"):format(pair.target, pair.target))
        pair:scan { fresh = true }
        local _, errors = far.run(world.read(pair.folder .. "/work"), ("timeout -s KILL 0.%03d FAR send %s --rate=8000000 | FAR receive %s"):format(
          milliseconds, pair.source, pair.target))
        assert.truthy(errors:find "cut", errors)
        assert.equal("", leftovers(pair))
        clean(pair:copy())
        identical(pair)
      end
    end)
  end)
end)
