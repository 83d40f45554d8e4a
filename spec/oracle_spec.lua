-- The oracle judges every copy, so it is judged first: each difference is planted, and it must see that and nothing else.

local oracle = require "spec.support.oracle"
local world = require "spec.world"

describe("the oracle", function()
  local folder, a, b

  -- Two trees with one of everything; `b` is made the same way and is no copy of `a`.
  local MAKE = [[
    umask 022; mkdir -p dir/sub many .runbook-not; cd dir
    head -c 300000 /dev/zero | tr '\0' x > large; echo text > text; : > empty; echo other > other
    truncate -s 3M sparse; printf head | dd of=sparse conv=notrunc status=none
    printf middle | dd of=sparse bs=1M seek=2 conv=notrunc status=none; printf tail >> sparse
    truncate -s 1T huge; printf data | dd of=huge bs=1G seek=700 conv=notrunc status=none
    ln text linked-1; ln text sub/linked-2; ln other pair-1; ln other sub/pair-2
    ln -s text link; ln -s nowhere dangling; mkfifo fifo; mknod char c 1 3; mknod block b 7 0
    python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'
    printf x > "$(printf 'new\nline \\ \377')"; mkdir read-only
    setfattr -n user.origin -v here text; setfacl -m u:4242:r large; setfacl -d -m u:4242:rx sub
    setfattr -n trusted.mark -v yes -h link
    cd ..; i=0; while [ $i -lt 300 ]; do echo $i > many/$i; i=$((i+1)); done; chmod 4711 dir/other; chown -h 1234:5678 dir/link
    chown 1234:5678 dir/large; chmod 500 dir/read-only; chmod 0 dir/empty
    find . -depth -exec touch -h -d '2021-02-03 04:05:06.789012345' {} +]]

  local function make(path)
    world.must(("mkdir %s && cd %s && %s"):format(path, path, MAKE))
  end

  local function restore()
    world.must("rm -rf " .. b)
    make(b)
  end

  setup(function()
    folder = world.folder "oracle"
    a, b = folder .. "/a", folder .. "/b"
    make(a)
    make(b)
  end)

  local function plant(line)
    restore()
    world.must(("cd %s && { %s\n}"):format(b, line))
  end

  -- Times of a name and of its directory as the tree has them.
  local function settled(line, ...)
    local words = {}
    for i, name in ipairs { ... } do
      words[i] = world.quote(name)
    end
    return ("%s\ntouch -h -d '2021-02-03 04:05:06.789012345' %s"):format(line, table.concat(words, " "))
  end

  it("calls equal trees identical, and reads what it compares", function()
    assert.truthy(oracle.identical(a, b):find "^identical: 32%d names, %d%d%d%d%d%d%d bytes$")
    assert.same({}, (oracle.differences(a, b)))
    assert.equal(oracle.digest(a), oracle.digest(b))
  end)

  local PLANTED = {
    { "missing", settled("rm dir/large", "dir") },
    { "extra", settled("echo > dir/new", "dir") },
    { "extra", settled("mkdir -p dir/.runbook", "dir") },
    { "type", settled("rm dir/link; ln dir/text dir/link; rm dir/link; echo > dir/link", "dir/link", "dir") },
    { "type", settled("rmdir dir/read-only; echo > dir/read-only", "dir/read-only", "dir") },
    { "size", settled("echo more >> dir/large", "dir/large") },
    { "content", settled("printf X | dd of=dir/large bs=1 seek=299999 conv=notrunc status=none", "dir/large") },
    { "content", settled("printf X | dd of=dir/huge bs=1G seek=700 conv=notrunc status=none", "dir/huge") },
    { "content", settled("printf X | dd of=many/7 conv=notrunc status=none", "many/7") },
    { "mode", "chmod 700 dir/read-only" },
    { "mode", "chmod 711 dir/other" },
    { "mode", "chmod +t dir" },
    { "owner", "chown 1235 dir/large" },
    { "owner", "chown -h 1235 dir/link" },
    { "group", "chgrp 5679 dir/large" },
    { "mtime", "touch -d '2021-02-03 04:05:06.789012346' dir/text" },
    { "mtime", "touch -d '2021-02-03 04:05:06.789012346' dir/fifo" },
    { "dir-mtime", "touch -d '2021-02-03 04:05:06.789012346' ." },
    { "dir-mtime", "touch -d '2021-02-03 04:05:06.789012346' dir/sub" },
    { "link-mtime", "touch -h -d '2021-02-03 04:05:06.789012346' dir/dangling" },
    { "link-target", settled("ln -sfn nowhere/ dir/dangling", "dir/dangling", "dir") },
    { "device", settled("rm dir/char; mknod dir/char c 1 5", "dir/char", "dir") },
    { "hardlinks", settled("cp -a dir/text dir/x; mv dir/x dir/linked-1", "dir") },
    { "hardlinks", settled("ln -f many/7 many/x; rm many/7; cp -a many/x many/7; rm many/x; rm many/8; ln many/7 many/8", "many"), "content" },
    { "xattr", "setfattr -n user.origin -v there dir/text" },
    { "xattr", "setfattr -x user.origin dir/text" },
    { "xattr", "setfattr -n user.new -v x many" },
    { "xattr", "setfattr -h -x trusted.mark dir/link" },
    { "acl", "setfacl -m u:4243:r dir/large" },
    { "acl", "setfacl -d -m u:4242:r dir/sub" },
    { "acl", "setfacl -k dir/sub" },
    { "allocated", settled("cp --sparse=never dir/sparse dir/x; cat dir/x > dir/sparse; rm dir/x", "dir/sparse", "dir") },
    { "holes", settled("head -c 1M /dev/zero | dd of=dir/sparse bs=1M seek=1 conv=notrunc status=none", "dir/sparse") },
  }

  for _, case in ipairs(PLANTED) do
    it(("sees %s: %s"):format(case[1], case[2]:match "^[^\n]+"), function()
      plant(case[2])
      local before = oracle.digest(a)
      local kinds, text = oracle.differences(a, b)
      assert.truthy(kinds[case[1]], text)
      kinds[case[1]] = nil
      kinds[case[3] or ""] = nil
      assert.same({}, kinds, text)
      assert.has_error(function() oracle.identical(a, b) end)
      assert.equal(before, oracle.digest(a))
      -- zeros that are holes, or not, are the one thing a digest does not hold
      if case[1] ~= "allocated" and case[1] ~= "holes" then
        assert.not_equal(before, oracle.digest(b))
      end
    end)
  end

  it("sees a target's file that is the source's own", function()
    plant(settled("rm dir/large && ln ../a/dir/large dir/large", "dir"))
    assert.truthy(oracle.differences(a, b)["same-file"])
    world.must(("rm %s/dir/large"):format(b))
    assert.equal(2, select(2, world.sh(("%s/world/oracle %s %s/nowhere"):format(world.build, a, b))))
  end)

  it("takes zeros that became holes, and what a copy rounds at the ends of one, for the same", function()
    plant(settled("head -c 8k /dev/zero | dd of=dir/sparse bs=4k seek=1 conv=notrunc status=none", "dir/sparse"))
    oracle.identical(a, b)
    plant(settled("head -c 1M /dev/zero > dir/large; fallocate -p -l 1M dir/large", "dir/large"))
    world.must(("head -c 1M /dev/zero > %s/dir/large; touch -r %s/dir/text %s/dir/large"):format(a, a, a))
    oracle.identical(a, b)
    world.must(("rm -rf %s"):format(a))
    make(a)
  end)

  it("leaves out what is the copier's, and what it is told to, at the top only", function()
    plant(settled("mkdir .runbook lost+found && echo > .runbook/x", "."))
    assert.same({ extra = 1 }, (oracle.differences(a, b)))
    oracle.identical(a, b, { exclude = { "lost+found" } })
    assert.same({ missing = 2 }, (oracle.differences(b, a))) -- a source has no .runbook that is left out
  end)

  it("holds the target to one owner when owners were mapped", function()
    plant "chown -Rh 1000:100 ."
    world.must(("cd %s && chmod 4711 dir/other && setfattr -n user.origin -v here dir/text"):format(b))
    oracle.identical(a, b, { owner = "1000:100" })
    world.must(("chown -h 1001:100 %s/dir/dangling"):format(b))
    assert.same({ owner = 1 }, (oracle.differences(a, b, { owner = "1000:100" })))
  end)

  it("counts all of a kind, shows the first, and escapes what is no text", function()
    plant(settled("for i in many/*; do echo longer >> $i; touch -d '2021-02-03 04:05:06.789012345' $i; done; rm dir/new*", "dir"))
    local kinds, text = oracle.differences(a, b)
    assert.same({ size = 300, missing = 1 }, kinds)
    assert.truthy(text:find("\n\tdir/new\\x0aline \\\\ \\xff\n", 1, true), text)
    assert.truthy(text:find("\n\tmany/0: 2 became 9\n", 1, true), text)
    assert.equal(text, select(2, oracle.differences(a, b, { threads = 1 })))
  end)

  it("looks as deep as a tree goes", function()
    local deep = [[python3 -c '
import os
for i in range(900):
    os.mkdir("d" * 20)
    os.chdir("d" * 20)
open("end", "w").write("%s")
os.utime("end", (1, 1))
os.chdir("..")' && find . -depth -type d -execdir touch -d @1 {} + && touch -d @1 .]]
    local c, d = folder .. "/c", folder .. "/d"
    world.must(("mkdir %s && cd %s && %s"):format(c, c, deep:format "same"))
    world.must(("mkdir %s && cd %s && %s"):format(d, d, deep:format "same"))
    oracle.identical(c, d)
    world.must(("cd %s && rm -rf * && %s"):format(d, deep:format "diff"))
    assert.same({ content = 1 }, (oracle.differences(c, d)))
  end)

  it("says so, and that nothing is proven, when something cannot be seen", function()
    plant "true"
    local output, code = world.sh(("setpriv --reuid 4242 --clear-groups %s/world/oracle %s %s"):format(world.must("realpath " .. world.build), a, b))
    assert.equal(2, code, output)
    assert.truthy(output:find("Permission denied", 1, true), output)
    assert.has_error(function() oracle.digest(folder .. "/nowhere") end)
  end)
end)
