-- Trees that copies are tried on: what they have in them, and that the same words make the same tree.

local oracle = require "spec.support.oracle"
local world = require "spec.world"

describe("trees to copy", function()
  local folder

  setup(function() folder = world.folder "trees" end)

  local function count(path, test)
    return tonumber((world.must(("find %s %s -printf x 2>/dev/null | wc -c"):format(path, test))))
  end

  it("have every kind of thing, and are the same every time", function()
    local a, b = folder .. "/a", folder .. "/b"
    world.grow("awkward", a)
    world.grow("awkward", b)
    oracle.identical(a, b)
    for _, test in ipairs {
      "-type p", "-type s", "-type c", "-type b", "-xtype l", "-xtype d -type l", "-type f -links +1", "-type l -links +1", "-type p -links +1",
      "-type f -perm -4000", "-type f -perm 0000", "-type d -perm 0000", "-type d -perm -2000", "-type d -empty", "-type f -empty", "-uid 4000000000",
      "-name '-*'", "-name '*\n*'", "-name ' *'", "-size +1000G", "-newermt 2090-01-01", "! -newermt 1970-01-01", "-name '.*'", "-depth -mindepth 50",
    } do
      assert.is_true(count(a, test) > 0, test)
    end
    assert.truthy(world.must(("getfacl -pRs %s | grep -c default:"):format(a)))
    assert.truthy(world.must(("getfattr -Rd -m - %s 2>/dev/null | grep -c capability"):format(a)))
    assert.is_true(tonumber((world.must(("du -sk %s | cut -f1"):format(a)))) < 20000)
    local across = folder .. "/across"
    world.grow("awkward", across, { across = true, largest = 1 << 33, deep = 5 })
    assert.equal(count(across, "-samefile " .. across .. "/types/plain"), 5)
  end)

  it("have many small files in homes of very different size", function()
    local path, again = folder .. "/many", folder .. "/many-again"
    world.grow("many", path, { files = 3000, homes = 7 })
    world.grow("many", again, { files = 3000, homes = 7 })
    oracle.identical(path, again)
    assert.equal(7, count(path, "-mindepth 1 -maxdepth 1"))
    assert.equal(3000, count(path, "-name 'file-*'"))
    assert.is_true(count(path, "-links +1 -type f") > 0)
    assert.is_true(count(path .. "/user-000", "-type f") > 2 * count(path .. "/user-006", "-type f"))
  end)

  it("have large files that nothing compresses, and one home with everything in it", function()
    world.grow("big", folder .. "/big", { files = 3, bytes = 5000000 })
    assert.equal(3, count(folder .. "/big", "-size 5000000c"))
    assert.is_true(tonumber((world.must(("cat %s/big/*/* | gzip -1 | wc -c"):format(folder)))) > 14900000)
    world.grow("million", folder .. "/million", { files = 20001 })
    assert.equal(1, count(folder .. "/million", "-mindepth 1 -maxdepth 1"))
    assert.equal(20001, count(folder .. "/million", "-type f"))
    assert.equal(0, count(folder .. "/million", "-links +1 -type f"))
  end)

  it("are changed in every way, the same way with the same seed", function()
    local a, b, before = folder .. "/changed", folder .. "/changed-too", folder .. "/before"
    for _, path in ipairs { a, b, before } do
      world.grow("many", path, { files = 3000, homes = 7 })
    end
    local done = world.mutate(a, { percent = 4, delete = true, rename = true, seed = 3 })
    assert.same(done, world.mutate(b, { percent = 4, delete = true, rename = true, seed = 3 }))
    for _, kind in ipairs {
      "same-second", "same-time", "edit", "append", "truncate", "grow", "chmod", "chown", "xattr", "acl", "touch", "older", "replace",
      "to-directory", "to-link", "create", "link", "delete", "rename", "delete-folder", "rename-folder",
    } do
      assert.is_true(done[kind] >= 1, kind)
    end
    local kinds = oracle.differences(before, a)
    for _, kind in ipairs { "missing", "extra", "type", "size", "content", "mode", "owner", "group", "mtime", "xattr", "acl" } do
      assert.truthy(kinds[kind], kind)
    end
    -- the clock is all that tells the two apart
    for kind in pairs((oracle.differences(a, b))) do
      assert.truthy(kind:find "mtime", kind)
    end
  end)

  it("are changed in one way only when that is asked for", function()
    local a, b = folder .. "/one", folder .. "/one-before"
    for _, path in ipairs { a, b } do
      world.grow("many", path, { files = 300, homes = 2 })
    end
    local done = world.mutate(a, { kinds = { "same-time" }, percent = 2 })
    assert.same({ ["same-time"] = 5, files = 297 }, done)
    assert.equal(5, (oracle.differences(b, a)).content)
    world.mutate(a, { kinds = { "same-second" }, percent = 2, seed = 2 })
    assert.equal("", world.must(("find %s -type f -newermt '2024-01-01'"):format(a)))
  end)

  it("are never the same while a storm goes on, and stay when it is over", function()
    local path = folder .. "/storm"
    world.grow("many", path, { files = 500, homes = 3 })
    local storm = world.storm(path, { seed = 5 })
    local before = world.must("find " .. path)
    world.wait_until("a storm", function()
      local now = world.sh("find " .. path)
      return now:find "storm%-" and now:find "moved" and not now:find(before, 1, true)
    end)
    assert.is_true(storm:alive())
    storm:stop()
    assert.equal(oracle.digest(path), oracle.digest(path))
  end)
end)
