describe("runbook.core.file", function()
  local effect = require "runbook.effect"
  local file = require "runbook.core.file"
  local stream = require "runbook.core.stream"
  local world = require "spec.world"

  local own = effect.own
  local folder

  before_each(function() folder = world.folder "file" end)

  it("touches nothing outside a verb", function()
    local second = { chmod = 420, rename = folder .. "/y", symlink = folder .. "/y", write = "bytes" }
    for name, fn in pairs(file) do
      local ok, err = pcall(fn, folder .. "/x", second[name])
      assert.is_false(ok, name)
      assert.equal("ungated", err.code, name)
    end
    assert.same({}, own(file.list, folder))
  end)

  it("writes whole files and keeps the mode of what it replaces", function()
    local path = folder .. "/a"
    assert.is_true(own(file.write, path, "one", { mode = 384, sync = true }))
    assert.equal("one", own(file.read, path))
    assert.equal(384, own(file.stat, path).mode)
    assert.is_true(own(file.write, path, "two\0", { sync = true }))
    assert.equal("two\0", own(file.read, path))
    assert.equal(384, own(file.stat, path).mode)
    assert.same({ { name = "a", type = "file" } }, own(file.list, folder))
  end)

  it("leaves neither half a file nor its stage when the disk is full", function()
    local small <close> = world.filesystem { size = "4M", kind = "tmpfs" }
    local path = small.path .. "/a"
    assert.is_true(own(file.write, path, "old"))
    local r, _, code = own(file.write, path, ("x"):rep(8 << 20), { sync = true })
    assert.is_nil(r)
    assert.equal("ENOSPC", code)
    assert.equal("old", own(file.read, path))
    assert.equal(1, #own(file.list, small.path))
  end)

  it("refuses to read more than was asked for", function()
    own(file.write, folder .. "/a", ("x"):rep(1000))
    local r, message, code = own(file.read, folder .. "/a", 999)
    assert.is_nil(r)
    assert.matches("longer than 999 bytes", message)
    assert.equal("ELIMIT", code)
    assert.equal(1000, #own(file.read, folder .. "/a", 1000))
    assert.equal("", own(file.read, "/dev/null"))
  end)

  it("names what the system refuses", function()
    for _, call in ipairs {
      { "ENOENT", file.read, "/nonesuch" }, { "ENOENT", file.list, "/nonesuch" }, { "EISDIR", file.read, folder },
      { "ENOTDIR", file.list, "/etc/passwd" }, { "EEXIST", file.mkdir, folder }, { "ENOENT", file.unlink, folder .. "/no" },
      { "ENOENT", file.rename, folder .. "/no", folder .. "/yes" }, { "ENOENT", file.open, "/nonesuch" },
      { "EINVAL", file.readlink, folder }, { "ENOENT", file.write, "/nonesuch/a", "x" },
    } do
      local r, message, code = own(call[2], call[3], call[4])
      assert.is_nil(r)
      assert.equal(call[1], code)
      assert.matches(call[3], message, 1, true)
    end
    assert.has_error(function() own(file.read, "") end)
    assert.has_error(function() own(file.read, "a\0b") end)
  end)

  it("makes directories with their parents, links, and tells what is what", function()
    local deep = folder .. "/a/b/c"
    assert.is_true(own(file.mkdir, deep, { parents = true, mode = 448 }))
    assert.is_true(own(file.mkdir, deep, { parents = true }))
    assert.equal(448, own(file.stat, deep).mode)
    assert.is_true(own(file.symlink, "a/b", folder .. "/link"))
    assert.equal("a/b", own(file.readlink, folder .. "/link"))
    assert.equal("link", own(file.lstat, folder .. "/link").type)
    assert.equal("directory", own(file.stat, folder .. "/link").type)
    assert.equal(own(file.realpath, folder) .. "/a/b", own(file.realpath, folder .. "/link"))
    assert.is_true(own(file.chmod, deep, 493))
    assert.equal(493, own(file.stat, deep).mode)
    assert.is_true(own(file.rename, deep, folder .. "/c", { sync = true }))
    assert.is_true(own(file.rmdir, folder .. "/c"))
    assert.is_true(own(file.unlink, folder .. "/link"))
    assert.same({ { name = "a", type = "directory" } }, own(file.list, folder))
  end)

  it("says how much room there is and on what", function()
    local small <close> = world.filesystem { size = "4M", kind = "tmpfs" }
    local space = own(file.statfs, small.path)
    assert.equal("tmpfs", space.type)
    assert.equal(4 << 20, space.bytes_total)
    assert.is_true(space.bytes_free <= space.bytes_total and space.inodes_free > 0)
  end)

  it("locks for one holder at a time, who says who it is", function()
    local path = folder .. "/lock"
    local lock = assert(own(file.lock, path))
    assert.is_true(own(lock.write, lock, "me\n"))
    assert.is_true(own(lock.write, lock, "I\n"))
    local second, _, code = own(file.lock, path)
    assert.is_nil(second)
    assert.equal("EBUSY", code)
    assert.equal("I\n", own(file.read, path))
    lock:close()
    lock:close()
    assert.has_error(function() own(lock.write, lock, "x") end)
    local third <close> = assert(own(file.lock, path))
    assert.is_truthy(third)
  end)

  it("reads and writes as streams, bytes in order", function()
    local text = {}
    for i = 1, 200000 do
      text[i] = tostring(i)
    end
    text = table.concat(text, "\n")
    do
      local out <close> = assert(own(file.open, folder .. "/a", "w", { mode = 384 }))
      assert.is_true(out:write(text:sub(1, 1000)))
      assert.is_true(out:write(text:sub(1001)))
    end
    assert.is_true(own(file.read, folder .. "/a") == text)
    do
      local more <close> = assert(own(file.open, folder .. "/a", "a"))
      assert.is_true(more:write "\nend")
    end
    local from <close> = assert(own(file.open, folder .. "/a"))
    assert.equal("1", from:line())
    local to <close> = assert(own(file.open, folder .. "/b", "w"))
    assert.equal(#text + 4 - 2, stream.pump(from, to))
    assert.is_true(own(file.read, folder .. "/b") == text:sub(3) .. "\nend")
  end)

  it("tells a writer that the disk is full", function()
    local small <close> = world.filesystem { size = "1M", kind = "tmpfs" }
    local out <close> = assert(own(file.open, small.path .. "/a", "w"))
    local r, _, code = out:write(("x"):rep(4 << 20))
    assert.is_nil(r)
    assert.equal("ENOSPC", code)
  end)
end)
