-- What the far side's program copies: every kind of name, file, attribute and change, judged by the oracle.

local far = require "spec.support.far"
local frames = require "spec.support.frames"
local oracle = require "spec.support.oracle"
local task = require "runbook.core.task"
local time = require "runbook.core.time"
local world = require "spec.world"

describe("the far side's program", function()
  --- But for the time of the top, which whoever mounts it changes.
  local function identical(pair, o)
    world.must(("touch -r %s %s"):format(pair.source, pair.target))
    oracle.identical(pair.source, pair.target, o)
  end

  --- After a copy, a second one has nothing to do, and all of it is proven.
  local function settled(pair, o)
    identical(pair, o)
    pair:scan(o)
    pair:prove(o)
    pair:scan(o)
    pair:prove(o)
    assert.same({}, pair:compare(o))
    local again = pair:copy(o)
    assert.equal(0, again.done)
  end

  local function clean(outcome)
    assert.same({}, outcome.failures)
    assert.equal(0, outcome.unanswered)
    assert.same({}, outcome.refused)
    return outcome
  end

  --- What was touched just now is read again the next time; so wait until that is long ago.
  local function not_racy()
    task.sleep(3)
  end

  local function no_leftovers(path)
    assert.equal("", (world.sh(("find %s -name '.rb~*'"):format(path))))
  end

  describe("copies", function()
    it("every kind of thing there is, and then there is nothing left to do", function()
      local pair = far.pair()
      world.grow("awkward", pair.source)
      local before = oracle.digest(pair.source)
      local outcome = clean(pair:copy())
      settled(pair)
      assert.equal(before, oracle.digest(pair.source))
      assert.is_true(outcome.linked > 5)
      -- a terabyte of hole is no terabyte of bytes
      assert.is_true(outcome.bytes > 0)
      assert.is_true(tonumber((world.must(("du -sk %s | cut -f1"):format(pair.target)))) < 20000)
      no_leftovers(pair.target)
    end)

    it("them in small shards as well", function()
      local pair = far.pair()
      world.grow("awkward", pair.source)
      clean(pair:copy { entries = 7, bytes = 1 << 30 }) -- less would cut the largest file into thousands of shards
      settled(pair)
    end)

    it("many homes, and then only what changed in them, in every way there is", function()
      local pair = far.pair()
      world.grow("many", pair.source, { files = 3000, homes = 7 })
      local first = clean(pair:copy())
      identical(pair)
      for seed = 1, 3 do
        world.mutate(pair.source, { percent = 4, delete = true, rename = true, seed = seed })
        local outcome = clean(pair:copy { deletions = true })
        identical(pair)
        assert.is_true(outcome.bytes < first.bytes / 2, ("%d of %d"):format(outcome.bytes, first.bytes))
        assert.is_true(outcome.removed > 0)
      end
      settled(pair)
    end)

    it("a tree deeper than a path may be long", function()
      local pair = far.pair()
      -- 600 levels of 20 bytes
      world.must(([[python3 - %s <<'end'
import os, sys
os.mkdir(sys.argv[1] + "/ann")
fd = os.open(sys.argv[1] + "/ann", os.O_RDONLY)
for i in range(600):
    name = "level-%%014d" %% i
    os.mkdir(name, dir_fd=fd)
    below = os.open(name, os.O_RDONLY, dir_fd=fd)
    for file in ("file", "link"):
        if file == "file":
            os.write(os.open(file, os.O_WRONLY | os.O_CREAT, 0o640, dir_fd=below), b"x%%d" %% i)
        else:
            os.symlink("file", file, dir_fd=below)
    os.close(fd)
    fd = below
end]]):format(pair.source))
      clean(pair:copy())
      settled(pair)
    end)

    it("and reads one of ten thousand levels without the memory of all their paths", function()
      local folder = world.folder "deep"
      world.must(([[cd %s && mkdir -p flat/ann deep/ann && printf 'G\0' > go && python3 -c '
import os
fd = os.open("deep/ann", os.O_RDONLY)
for i in range(10000):
    os.mkdir("d", dir_fd=fd)
    below = os.open("d", os.O_RDONLY, dir_fd=fd)
    os.close(fd)
    fd = below']]):format(folder))
      local function kilobytes(tree)
        return tonumber((world.must(([[cd %s && python3 -c '
import resource, subprocess, sys
names = subprocess.run(sys.argv[1:], stdin=open("go"), stdout=subprocess.PIPE, check=True).stdout.count(b"E")
assert names >= 2
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)' "$(cd - > /dev/null && realpath %s)" scan %s]]):format(
          folder, world.build .. "/far/runbook-far", tree))))
      end
      local more = kilobytes "deep" - kilobytes "flat"
      assert.is_true(more < 40000, more)
    end)

    it("into one tree that is on another file system, and from one that has coarse times", function()
      local target <close> = world.filesystem { size = "300M" }
      world.must(("rmdir %s/lost+found"):format(target.path))
      local shm = world.filesystem { kind = "tmpfs", size = "300M" }
      local pair = far.pair { source = shm.path, target = target.path }
      world.grow("many", pair.source, { files = 1000, homes = 3 })
      clean(pair:copy())
      settled(pair)
      shm:close()
    end)

    it("to one owner when that is asked for", function()
      local pair = far.pair()
      world.grow("awkward", pair.source)
      clean(pair:copy { owner = "4321:8765" })
      settled(pair, { owner = "4321:8765" })
      assert.equal("", world.must(("find %s -mindepth 1 ! '(' -uid 4321 -gid 8765 ')'"):format(pair.target)))
    end)
  end)

  describe("changes", function()
    local kinds = {
      f = "printf %s > @", d = "mkdir @ && printf in > @/in", l = "ln -s to-%s @", p = "mkfifo @",
      s = "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"@\")'",
      c = "mknod @ c 1 3", b = "mknod @ b 7 200",
    }

    it("the type of a name, from each to each", function()
      local pair = far.pair()
      local names = {}
      world.must(("mkdir %s/ann"):format(pair.source))
      for from, make in pairs(kinds) do
        for to in pairs(kinds) do
          local name = from .. "-" .. to
          names[name] = kinds[to]
          world.must(("cd %s/ann && %s"):format(pair.source, (make:gsub("@", name):gsub("%%s", "before"))))
        end
      end
      clean(pair:copy())
      identical(pair)
      for name, make in pairs(names) do
        world.must(("cd %s/ann && rm -r %s && %s"):format(pair.source, name, (make:gsub("@", name):gsub("%%s", "after"))))
      end
      clean(pair:copy { deletions = true })
      settled(pair)
    end)

    it("and is not sure of what a server may have changed just now, whose clock is behind or before ours", function()
      for flags, sure in pairs { [""] = true, ["--behind=0"] = true, ["--behind=600"] = false, ["--behind=300000"] = false } do
        local pair = far.pair()
        world.must(("mkdir %s/ann && echo a > %s/ann/a && cp -a %s/ann %s"):format(pair.source, pair.source, pair.source, pair.target))
        not_racy() -- by the clock of this machine
        pair:scan()
        pair:prove { flags = flags }
        assert.is_nil(pair:compare()["not proven"])
        world.must(("chmod 755 %s/ann"):format(pair.source)) -- so that it is looked at again
        pair:scan()
        assert.equal(sure, pair:compare()["not proven"] == nil or pair:compare()["not proven"] == 1, flags)
      end
    end)

    it("nothing but what changed", function()
      local pair = far.pair()
      world.must(([[cd %s && mkdir ann && cd ann && for n in mode owner xattr acl time target; do echo $n > $n; done
        ln -s here link; mkdir sub; echo x > sub/x]]):format(pair.source))
      clean(pair:copy())
      not_racy()
      settled(pair)
      world.must(([[cd %s/ann && chmod 4711 mode && chown 77:78 owner && setfattr -n user.a -v b xattr && setfacl -m u:9:r acl
        touch -d 2001-01-01T01:01:01.123456789 time
        ln -sfn there link; chmod 1700 sub; chown -h 5 link; touch -h -d '1969-12-31 23:59:58.5' link]]):format(pair.source))
      local outcome = clean(pair:copy())
      assert.equal(0, outcome.bytes)
      settled(pair)
      not_racy()
      pair:scan()
      pair:prove()
      local inode = world.must(("stat -c %%i %s/ann/mode"):format(pair.target))
      world.must(("chmod 600 %s/ann/mode"):format(pair.source))
      clean(pair:copy())
      assert.equal(inode, world.must(("stat -c %%i %s/ann/mode"):format(pair.target)))
    end)

    it("attributes that are gone, and ones that a directory gives to what is made in it", function()
      local pair = far.pair()
      world.must(([[cd %s && mkdir -p ann/inherits ann/plain && echo 1 > ann/plain/acl && setfacl -m u:8:rwx ann/plain/acl
        setfattr -n user.one -v 1 ann/plain/acl
        setfattr -n user.dir -v 1 ann/plain && setfattr -h -n trusted.two -v 2 ann/plain/acl]]):format(pair.source))
      clean(pair:copy())
      settled(pair)
      world.must(([[cd %s/ann && setfacl -b plain/acl && setfattr -x user.one plain/acl && setfattr -x user.dir plain
        setfattr -x trusted.two plain/acl
        echo before > inherits/before
        ln -s x inherits/link-before; setfacl -d -m u:8:rwx inherits; cp -a plain/acl inherits/cp; setfacl -b inherits/cp]]):format(pair.source))
      clean(pair:copy())
      settled(pair)
      -- the target has the default ACL now: what is made there now must not have it
      world.must(([[cd %s/ann/inherits && (umask 077; echo after > after; setfacl -b after; ln -s y link-after; mkfifo pipe; setfacl -b pipe
        mkdir dir; setfacl -b dir
        head -c 3000000 /dev/urandom > large; setfacl -b large)]]):format(pair.source))
      clean(pair:copy())
      settled(pair)
    end)

    it("a hardlink group that grows, splits, loses its first name, or becomes another's", function()
      local pair = far.pair()
      world.must(([[cd %s && mkdir -p ann/sub && cd ann && for g in grow split first join one; do echo $g > $g-1; ln $g-1 sub/$g-2; ln $g-1 $g-3; done
        ln -s x link-1; ln link-1 sub/link-2
        mkfifo pipe-1; ln pipe-1 sub/pipe-2]]):format(pair.source))
      local outcome = clean(pair:copy())
      assert.equal(12, outcome.linked)
      settled(pair)
      world.must(([[cd %s/ann && ln grow-1 sub/grow-0 && echo new > n && mv n split-3 && rm first-1 && ln -f join-1 one-3
        echo more >> grow-3 && rm sub/link-2 && ln -s y sub/link-2]])
        :format(pair.source))
      clean(pair:copy { deletions = true })
      settled(pair)
      world.must(([[cd %s/ann && chmod 600 grow-1 && rm sub/grow-0 grow-1 && cp -p grow-3 x && mv x grow-3 && mv split-1 split-9]]):format(pair.source))
      clean(pair:copy { deletions = true })
      settled(pair)
    end)

    it("names with the same inode in several shards", function()
      local pair = far.pair()
      world.must(([[cd %s && mkdir ann && cd ann && for i in $(seq 30); do mkdir d$i; echo $i > d$i/f; done
        for i in $(seq 2 30); do ln d1/f d$i/l; ln d$i/f d1/l$i; done]]):format(pair.source))
      clean(pair:copy { entries = 5 })
      settled(pair)
      world.must(("cd %s/ann && echo changed >> d7/l && chmod 640 d9/f"):format(pair.source))
      clean(pair:copy { entries = 5 })
      settled(pair)
    end)
  end)

  describe("can be told", function()
    local go = frames.frame "G"

    local function work_for(names)
      local work = { frames.frame("B", frames.text "ann") }
      for i, name in ipairs(names) do
        work[#work + 1] = frames.frame("F", frames.number(i), frames.text(name), frames.expect())
      end
      return table.concat(work) .. frames.frame "Q"
    end

    it("how fast to be, to be gentle, and to have all of it on disk before it ends", function()
      local pair = far.pair()
      world.must(("mkdir %s/ann && cd %s/ann && head -c 2000000 /dev/urandom > large; for i in 1 2 3 4 5; do head -c 200000 /dev/urandom > f$i; done"):format(
        pair.source, pair.source))
      local began = time.now()
      local answers, ended, errors = pair:run(work_for { "large", "f1", "f2", "f3", "f4", "f5" }, {
        line = ("FAR send %s --rate=2000000 --gently --quiet=1000 --threads=3 | FAR receive %s --sync --gently"):format(pair.source, pair.target) })
      assert.same({ true, "" }, { ended, errors })
      for i = 1, 6 do
        assert.equal(0, answers[i].status)
      end
      local taken = time.now() - began
      assert.is_true(taken > 1 and taken < 20, taken)
      world.must(("diff -r %s %s"):format(pair.source, pair.target))
    end)

    it("nothing that it does not know", function()
      local folder = world.folder "usage"
      for line, code in pairs {
        ["scan"] = 64, ["scan . --what"] = 64, ["scan . --threads=x"] = 64, ["receive . --owner=5"] = 64, ["receive . --owner=5:-1"] = 64, ["fetch ."] = 64,
        ["receive . --most-removed=-1"] = 64, ["scan nowhere"] = 66, ["send nowhere"] = 66, ["prove nowhere"] = 66,
          ["receive nowhere"] = 73, ["clean nowhere"] = 66,
        ["scan file"] = 66, ["receive file"] = 73,
      } do
        local _, errors = far.run(go, ("program=$(realpath FAR); cd %s; : > file; $program %s; echo exit $? >&2"):format(folder, line))
        assert.equal(code, tonumber(errors:match "exit (%d+)\n$"), line)
        assert.truthy(errors:find "^runbook%-far: ", line)
      end
      assert.equal("runbook-far 1\n", (far.run("", "FAR version")))
    end)

    it("to clean up, and then takes away what a copy leaves and nothing else", function()
      local pair = far.pair()
      world.must(([[cd %s && mkdir -p ann/sub ann/.rb~stage .rb~partial 'ann/.rb~1.2/deep' &&
        touch ann/.rb~stage/f .rb~partial/f ann/.rb~1f.0 ann/sub/.rb~0.0 .rb~a.b
        touch ann/.rb~ ann/.rb~x.1 ann/.rb~1 ann/.rb~1.2.3 ann/rb~1.2 ann/x.rb~1.2 ann/.rb~1.; ln -s / ann/.rb~3.3;
          ln -s sub ann/.rb~4.4]]):format(pair.target))
      local function leftovers(command)
        local found, output = {}, far.run(go, ("FAR %s %s"):format(command, pair.target))
        for _, f in ipairs(frames.all(output)) do
          if f.type == "P" then
            local r = frames.reader(f.payload)
            local path, error = r:text(), r:number()
            assert.equal("leftover", r:text())
            table.insert(found, ("%s %d"):format(path, error))
          end
        end
        table.sort(found)
        return found
      end
      local all = { ".rb~1.2 0", ".rb~1f.0 0", ".rb~3.3 0", ".rb~4.4 0", ".rb~a.b 0", ".rb~partial 0", ".rb~stage 0", "sub/.rb~0.0 0" }
      assert.same(all, leftovers "scan")
      all[1] = ".rb~1.2 39" -- it is not empty: no copy of ours made it
      assert.same(all, leftovers "clean")
      assert.same({ ".rb~1.2 0" }, leftovers "scan")
      assert.equal(".rb~\n.rb~1\n.rb~1.\n.rb~1.2\n.rb~1.2.3\n.rb~x.1\nrb~1.2\nsub\nx.rb~1.2", world.must(("LC_ALL=C ls -A %s/ann"):format(pair.target)))
    end)

    it("what to leave out, and which units to look at", function()
      local pair = far.pair()
      world.must(([[cd %s && mkdir -p ann/.cache/deep ann/sub/.cache bob .snapshot/x &&
        touch ann/.cache/deep/f ann/sub/.cache/f ann/core ann/core.1 bob/x loose]]):format(pair.source))
      local function seen(...)
        local output, unit, path = far.run(table.concat { ... } .. go, "FAR scan " .. pair.source), nil, nil
        local list = {}
        for _, f in ipairs(frames.all(output)) do
          local r = frames.reader(f.payload)
          if f.type == "U" then
            unit, path = r:text(), ""
          elseif f.type == "E" then
            path = path:sub(1, r:number()) .. r:text()
            list[#list + 1] = unit .. "/" .. path
          end
        end
        table.sort(list)
        return table.concat(list, " ")
      end
      local number, text, frame = frames.number, frames.text, frames.frame
      assert.equal("./ ./loose .snapshot/ .snapshot/x ann/ ann/.cache ann/.cache/deep ann/.cache/deep/f ann/core \z
        ann/core.1 ann/sub ann/sub/.cache ann/sub/.cache/f bob/ bob/x",
        seen())
      assert.equal("./ ./loose ann/ ann/core.1 ann/sub bob/ bob/x", seen(frame("N", text ".snapshot*"),
        frame("X", number(1), text ".*/\\.cache"), frame("X", number(0), text "./core")))
      -- a file is no directory
      assert.equal("bob/ bob/x", seen(frame("L", text "bob"), frame("X", number(1), text "./x")))
      assert.equal("./ ./loose bob/", seen(frame("L", text "bob"), frame("L", text "."), frame("X", number(0), text "./x")))
    end)
  end)
end)
