-- The work that follows from what is known of both ends: which operations, in which order, cut into which shards, and what is
-- refused. Manifests are taught by hand (spec/support/ledger.lua).

local gate = require "runbook.core.gate"
local ledger = require "spec.support.ledger"
local manifest = require "runbook.core.manifest"
local task = require "runbook.core.task"

local S = 1000000000
local unit, many = ledger.unit, ledger.many

local book

before_each(function() book = ledger.new() end)

local function words(o)
  local shards, all, work = book:work(o)
  work:close()
  return all, shards
end

local function refused(shards)
  local list = {}
  for _, shard in ipairs(shards) do
    for _, r in ipairs(shard.refused) do
      list[#list + 1] = ("%s %d: %s"):format(r.kind, r.count, table.concat(r.examples, ","))
    end
  end
  return table.concat(list, "\n")
end

local function lines(...)
  return table.concat({ ... }, "\n")
end

--- Both sides are the same, by a scan of each; so all of it is ours. Entries of the target may be others.
local function agree(entries, target)
  book:scan("source", { unit("home", table.unpack(entries)) })
  book:scan("target", { unit("home", table.unpack(target or entries)) })
end

local function source(...)
  book:scan("source", { unit("home", ...) })
end

describe("work", function()
  it("brings all there is, directories last and the deepest first", function()
    source({ "a", size = 5 }, { "d", type = "d" }, { "d/e", type = "d" }, { "d/e/x", size = 7 }, { "l", type = "l" }, { "p", type = "p" }, { "s", type = "s" },
      { "t", type = "c", node = 259 })
    local all, shards = words()
    assert.equal(lines("F home/a -", "F home/d/e/x -", "N home/l -", "N home/p -", "N home/s -", "N home/t -", "R",
      "D home/d/e", "D home/d", "D home/", "Q"), all)
    local s = shards[1]
    assert.same({ 1, 9, 2, 12, "home" }, { s.id, s.entries, s.files, s.size, s.units[1] })
    assert.is_nil(s.after)
    assert.same({}, s.refused)
  end)

  it("goes through the tree in lanes when it is told, so that neighbours are far apart, and brings the same", function()
    source({ "a" }, { "b" }, { "c" }, { "d" }, { "e" })
    assert.equal(lines("F home/a -", "F home/d -", "F home/b -", "F home/e -", "F home/c -", "R", "D home/", "Q"), (words { spread = 2 }))
    assert.equal(lines("F home/a -", "F home/b -", "F home/c -", "F home/d -", "F home/e -", "R", "D home/", "Q"), (words { spread = 64 }))
    book:bring { spread = 2 }
    assert.equal("", (words()))
  end)

  it("is none when nothing differs, nor when nothing is known", function()
    agree { { "a", size = 5 }, { "l", type = "l" } }
    assert.equal("", (words { deletions = true, overwrite = true }))
    assert.equal("", (words { units = { "nobody" } }))
    assert.equal("", (words { units = {} }))
  end)

  it("replaces what is ours, and what stands there must be what was seen", function()
    agree({ { "a", size = 5 }, { "b", size = 5 }, { "c", size = 5 }, { "d", size = 5 }, { "l", type = "l" } },
      { { "a", size = 5, inode = 41, changed = 17 }, { "b", size = 5, inode = 42 }, { "c", size = 5, inode = 43 }, { "d", size = 5, inode = 44 },
        { "l", type = "l", inode = 45 } })
    source({ "a", size = 6 }, { "b", size = 5, modified = 1 }, { "c", size = 5, mode = 384 }, { "d", size = 5, uid = 0 }, { "l", type = "l", target = "x" })
    local at = 2000 * S
    assert.equal(lines("F home/a @41:17", "F home/b @42:" .. at, "F home/c @43:" .. at, "F home/d @44:" .. at, "N home/l @45:" .. at, "R",
      "D home/", "Q"), (words()))
  end)

  it("replaces what is not ours when it may, and refuses it else", function()
    book:scan("target", { unit("home", { "a", size = 1 }, { "b", size = 5 }, { "l", type = "l", target = "old" }, { "same" }) })
    source({ "a", size = 2 }, { "b", size = 5, mode = 384 }, { "l", type = "l" }, { "new" }, { "same" })
    local all, shards = words { deletions = true }
    assert.equal(lines("F home/new -", "R", "D home/", "Q"), all)
    assert.equal("not ours 3: a,b,l", refused(shards))
    all, shards = words { overwrite = true }
    local at = "@1:" .. 2000 * S
    assert.equal(lines("F home/a " .. at, "F home/b " .. at, "N home/l " .. at, "F home/new -", "R", "D home/", "Q"), all)
    assert.equal("", refused(shards))
  end)

  it("says what it refuses even when there is nothing to do", function()
    book:scan("target", { unit("home", { "a", size = 1 }, { "b", size = 1 }, { "c", size = 1 }, { "d", size = 1 }) })
    source({ "a", size = 2 }, { "b", size = 2 }, { "c", size = 2 }, { "d", size = 2 })
    local all, shards = words()
    assert.same({ "Q", 0, 1 }, { all, shards[1].entries, #shards })
    assert.equal("not ours 4: a,b,c", refused(shards))
  end)

  it("maps the owner", function()
    book:scan("source", { unit("home", { "a", uid = 5, gid = 5 }, { "b", uid = 6, gid = 6 }) }, { owner = "1000:1000" })
    book:scan("target", { unit("home", { "a" }, { "b", gid = 7 }) }, { owner = "1000:1000" })
    local all, shards = words { owner = "1000:1000" }
    assert.equal("Q", all)
    assert.equal("not ours 1: b", refused(shards))
    assert.equal(lines("F home/b @1:" .. 2000 * S, "R", "D home/", "Q"), (words { owner = "1000:1000", overwrite = true }))
  end)
end)

describe("a file whose bytes are known", function()
  local before = { { "a", size = 5, inode = 3 }, { "b", size = 5, inode = 4 } }

  before_each(function()
    source(table.unpack(before))
    book:bring()
    assert.equal(3, book:compare().proven)
  end)

  local function after(...)
    source(...)
    return (words())
  end
  local a, b = "@101:" .. 3000 * S, "@102:" .. 3000 * S

  it("is not sent again when only its ctime, mode, owner or time is another", function()
    for _, changed in ipairs { { changed = 2001 * S }, { changed = 2001 * S, mode = 384 }, { changed = 2001 * S, uid = 3 },
                               { changed = 2001 * S, modified = 3 }, { changed = 2001 * S, inode = 77 } } do
      local now = { "a", size = 5, inode = 3 }
      for k, v in pairs(changed) do
        now[k] = v
      end
      source(now, before[2])
      local shards, all = book:work()
      assert.equal(lines("M home/a " .. a, "R", "D home/", "Q"), all)
      assert.equal(("h"):rep(16), shards[1].operations[1].hash)
      assert.same({ 1, 0 }, { shards[1].files, shards[1].size })
    end
  end)

  it("is sent when its size is another, or its bytes are known to be", function()
    assert.equal(lines("F home/a " .. a, "R", "D home/", "Q"), after({ "a", size = 6, inode = 3, changed = 2001 * S }, before[2]))
    source({ "a", size = 5, inode = 3, changed = 2001 * S }, before[2])
    book:prove(function(_, side)
      return side == "source" and { entry = { size = 5, inode = 3, changed = 2001 * S }, hash = ("x"):rep(16) }
    end)
    assert.equal("contents differ: a", book:kinds())
    assert.equal(lines("F home/a " .. a, "R", "D home/", "Q"), (words()))
  end)

  it("is sent when it is no more sure what stands on the target", function()
    local scanned = { { "a", size = 5, inode = 101, changed = 3001 * S, device = 8 }, { "b", size = 5, inode = 102, changed = 3000 * S, device = 8 } }
    book:scan("target", { { name = "home", { "", type = "d", inode = 103, device = 8, changed = 3000 * S }, table.unpack(scanned) } })
    assert.equal("not proven: a", book:kinds())
    assert.equal(lines("F home/a @101:" .. 3001 * S, "M home/b " .. b, "R", "D home/", "Q"),
      after({ "a", size = 5, inode = 3, mode = 384, changed = 2001 * S }, { "b", size = 5, inode = 4, mode = 384, changed = 2001 * S }))
  end)

  it("is for prove, when it was never hashed on the target", function()
    assert.equal(1, gate.call("change", manifest.distrust, book.directory))
    assert.equal("not proven: ,a,b", book:kinds())
    assert.equal("", (words()))
    assert.equal("", after({ "a", size = 5, inode = 3, changed = 2001 * S }, before[2]))
  end)

  it("keeps nothing of a hash that may be too old already", function()
    gate.call("change", manifest.distrust, book.directory)
    book:prove(function(op, side)
      local e = book.source.home[op.path]
      return { entry = side == "source" and e or { type = e.type, size = e.size, inode = book.inodes["home/" .. op.path], device = 8, changed = 3000 * S },
               hash = ("h"):rep(16), racy = side == "target" and op.path == "a" }
    end)
    assert.equal(3, book:compare().proven)
    assert.equal(lines("F home/a " .. a, "M home/b " .. b, "R", "D home/", "Q"),
      after({ "a", size = 5, inode = 3, mode = 384, changed = 2001 * S }, { "b", size = 5, inode = 4, mode = 384, changed = 2001 * S }))
  end)
end)

describe("hardlinks", function()
  local group = { { "a", size = 5, inode = 3, links = 3 }, { "b", size = 5, inode = 3, links = 3 }, { "d", type = "d" },
                  { "d/c", size = 5, inode = 3, links = 3 } }

  it("are one file and names of it", function()
    source(table.unpack(group))
    assert.equal(lines("F home/a -", "R", "H home/b - home/a", "H home/d/c - home/a", "R", "D home/d", "D home/", "Q"), (words()))
    source({ "l", type = "l", inode = 9, links = 2 }, { "m", type = "l", inode = 9, links = 2 })
    assert.equal(lines("N home/l -", "R", "H home/m - home/l", "R", "D home/", "Q"), (words()))
  end)

  it("are all made anew when the file is, and only the new one when it is not", function()
    source(table.unpack(group))
    book:bring()
    assert.equal(5, book:compare().proven)
    local at = "@101:" .. 3000 * S
    source(group[1], group[2], group[3], group[4], { "e", size = 5, inode = 3, links = 4 })
    assert.equal(lines("H home/e - home/a", "R", "D home/", "Q"), (words()))
    local now = {}
    for i, e in ipairs(group) do
      now[i] = { e[1], type = e.type, size = e.size and 6, inode = e.inode, links = e.links }
    end
    source(table.unpack(now))
    assert.equal(lines("F home/a " .. at, "R", "H home/b " .. at .. " home/a", "H home/d/c " .. at .. " home/a", "R", "D home/d", "D home/", "Q"), (words()))
  end)

  it("are split and joined as the source's are", function()
    agree({ { "a", inode = 3, links = 2 }, { "b", inode = 3, links = 2 } }, { { "a", inode = 30, links = 2 }, { "b", inode = 30, links = 2 } })
    source({ "a", inode = 3 }, { "b", inode = 4 })
    assert.equal(lines("F home/b @30:" .. 2000 * S, "R", "D home/", "Q"), (words()))
    book = ledger.new()
    agree({ { "a", inode = 3 }, { "b", inode = 4 } }, { { "a", inode = 30 }, { "b", inode = 31 } })
    source({ "a", inode = 3, links = 2 }, { "b", inode = 3, links = 2 })
    assert.equal(lines("H home/b @31:" .. 2000 * S .. " home/a", "R", "D home/", "Q"), (words()))
  end)

  it("whose first name is refused are refused", function()
    book:scan("target", { unit("home", { "a", size = 9 }) })
    source(table.unpack(group))
    local all, shards = words()
    assert.equal(lines("D home/d", "D home/", "Q"), all)
    assert.equal("not ours 1: a\nin the way 2: b,d/c", refused(shards))
  end)

  it("over shards are linked at the end, when any ctime will do but for a file that stays", function()
    source({ "a", size = 5, inode = 3, links = 2 }, { "b", size = 5, inode = 4 }, { "c", size = 5, inode = 5 }, { "z", size = 5, inode = 3, links = 2 })
    local shards, all, work = book:work { entries = 2 }
    assert.equal(lines("F home/a -", "F home/b -", "Q", "F home/c -", "Q", "H home/z - home/a", "R", "D home/", "Q"), all)
    assert.same({ nil, nil, "home" }, { shards[1].after, shards[2].after, shards[3].after })
    for _, shard in ipairs(shards) do
      book:answer(shard)
    end
    gate.call("change", work.settle, work, "home")
    assert.equal(5, book:compare().proven)
    source({ "a", size = 6, inode = 3, links = 2 }, { "b", size = 5, inode = 4 }, { "c", size = 5, inode = 5 }, { "z", size = 6, inode = 3, links = 2 })
    assert.equal(lines("F home/a @101", "Q", "H home/z @101 home/a", "Q", "D home/", "Q"), (words { entries = 1 }))
    source({ "a", size = 5, mode = 384, inode = 3, links = 2 }, { "b", size = 5, inode = 4 }, { "c", size = 5, inode = 5 },
      { "z", size = 5, mode = 384, inode = 3, links = 2 })
    local at = "@101:" .. 3000 * S
    assert.equal(lines("M home/a " .. at, "Q", "H home/z @101 home/a", "Q", "D home/", "Q"), (words { entries = 1 }))
  end)
end)

describe("removals", function()
  local entries = { { "a" }, { "d", type = "d" }, { "d/e", type = "d" }, { "d/e/x" }, { "d/y" }, { "z" } }
  local at = "@1:" .. 2000 * S
  local all_gone = lines("X home/a f " .. at, "X home/d/e/x f " .. at, "X home/d/e d " .. at, "X home/d/y f " .. at, "X home/d d " .. at, "R", "D home/", "Q")

  it("are for the final pass, children first, of what is ours", function()
    agree(entries)
    source { "z" }
    assert.equal("", (words()))
    assert.equal("", (words { overwrite = true }))
    assert.equal(all_gone, (words { deletions = true }))
    assert.truthy(book:kinds():find("only on the target: a,d,d/e,...", 1, true))
  end)

  it("leave alone what this pair did not put there, and the directories it is in", function()
    local target = { { "a" }, { "d", type = "d" }, { "d/e", type = "d" }, { "d/e/theirs" }, { "d/e/x" }, { "d/y" }, { "theirs" }, { "z" } }
    agree(entries, target)
    source { "z" }
    for _, overwrite in ipairs { true, false } do
      local all, shards = words { deletions = true, overwrite = overwrite }
      assert.equal(lines("X home/a f " .. at, "X home/d/e/x f " .. at, "X home/d/y f " .. at, "R", "D home/", "Q"), all)
      assert.equal("not empty 2: d/e,d", refused(shards))
    end
  end)

  it("leave alone what may be there at the source, where it could not be looked", function()
    for problem, left in pairs {
      ["d/e"] = lines("X home/a f " .. at, "X home/d/y f " .. at, "R", "D home/", "Q"), ["d"] = lines("X home/a f " .. at, "R", "D home/", "Q"),
      [""] = "Q", ["d/e/x/far/below"] = all_gone, ["aa"] = all_gone,
    } do
      book = ledger.new()
      agree(entries)
      book:scan("source", { { name = "home", { "", type = "d" }, { "z" }, problems = { { problem } } } })
      local all, shards = words { deletions = true }
      assert.equal(left, all, problem)
      assert.equal(left ~= all_gone, refused(shards):find("unreadable at the source", 1, true) ~= nil, problem)
    end
  end)

  it("leave everything alone where too much could not be looked at", function()
    agree(entries)
    local problems = {}
    for i = 1, 1001 do
      problems[i] = { "q" .. i }
    end
    book:scan("source", { { name = "home", { "", type = "d" }, problems = problems } })
    local all, shards = words { deletions = true }
    assert.equal("Q", all)
    assert.equal("unreadable at the source 6: a,d,d/e", refused(shards))
    for i = 1, 1001 do
      problems[i] = { ("p"):rep(2000) .. i }
    end
    problems[1001] = nil
    book:scan("source", { { name = "home", { "", type = "d" }, problems = problems } })
    assert.equal("Q", (words { deletions = true }))
    book:scan("source", { { name = "home", { "", type = "d" }, problems = { { "", 0, "leftover" } } } })
    assert.equal(6, #words({ deletions = true }):gsub("[^X]", ""))
  end)

  it("leave everything alone that nobody has looked for at the source", function()
    agree(entries)
    gate.call("change", manifest.forget, book.directory, "source")
    local all, shards = words { deletions = true, overwrite = true }
    assert.equal("Q", all)
    assert.equal("unreadable at the source 6: a,d,d/e", refused(shards))
    source()
    assert.equal(6, #words({ deletions = true }):gsub("[^X]", ""))
  end)

  it("empty a unit that vanished, and leave its directory", function()
    agree(entries)
    assert.same({ "home" }, book:scan("source", {}).vanished)
    assert.equal(lines(all_gone:sub(1, -13):gsub("\nR$", ""), "X home/z f " .. at, "Q"), (words { deletions = true }))
    book:bring { deletions = true }
    assert.equal("only on the target: ", book:kinds())
    assert.equal("", (words { deletions = true }))
  end)

  it("of a unit that could not be looked at at all are none", function()
    agree(entries)
    book:scan("source", { { name = "home", problems = { { "", 13, "stat" } } } })
    local all, shards = words { deletions = true, overwrite = true }
    assert.equal("Q", all)
    assert.equal("unreadable at the source 6: a,d,d/e", refused(shards))
  end)

  it("are not of what vanished from the target and came again", function()
    agree(entries)
    book:scan("target", { unit "home" })
    book:scan("target", { unit("home", table.unpack(entries)) })
    assert.equal("not proven: ,a,d,...", book:kinds())
    book:scan("target", { unit "home" })
    source()
    book:scan("target", { unit("home", table.unpack(entries)) })
    assert.equal(0, book:compare().extra_ours)
    assert.equal("", (words { deletions = true }))
  end)
end)

describe("what is of another type", function()
  local at = "@1:" .. 2000 * S
  local types = { "f", "l", "p", "s", "c", "b" }

  it("is replaced in place where neither is a directory", function()
    for _, from in ipairs(types) do
      for _, to in ipairs(types) do
        if from ~= to then
          book = ledger.new()
          agree { { "a", type = from } }
          source { "a", type = to }
          assert.equal(lines((to == "f" and "F" or "N") .. " home/a " .. at, "R", "D home/", "Q"), (words()), from .. to)
        end
      end
    end
  end)

  it("gives way to a directory", function()
    for _, from in ipairs(types) do
      book = ledger.new()
      agree { { "a", type = from }, { "b" } }
      source({ "a", type = "d" }, { "a/x" }, { "b" })
      assert.equal(lines("X home/a " .. from .. " " .. at, "R", "F home/a/x -", "R", "D home/a", "D home/", "Q"), (words()), from)
    end
  end)

  it("gives way as a directory, with all that is in it, deepest first", function()
    for _, to in ipairs(types) do
      book = ledger.new()
      agree { { "a", type = "d" }, { "a/d", type = "d" }, { "a/d/x" }, { "a/y" }, { "b" } }
      source({ "a", type = to }, { "b" })
      assert.equal(lines("X home/a/d/x f " .. at, "X home/a/d d " .. at, "X home/a/y f " .. at, "X home/a d " .. at, "R",
        (to == "f" and "F" or "N") .. " home/a -", "R", "D home/", "Q"), (words()), to)
    end
  end)

  it("does not give way when anything in it is not ours, whatever may be overwritten", function()
    agree({ { "a", type = "d" }, { "a/d", type = "d" }, { "a/d/x" }, { "b" } },
      { { "a", type = "d" }, { "a/d", type = "d" }, { "a/d/theirs" }, { "a/d/x" }, { "b" } })
    source({ "a", inode = 5, links = 2 }, { "b" }, { "c", inode = 5, links = 2 }, { "e" })
    for _, overwrite in ipairs { true, false } do
      local all, shards = words { overwrite = overwrite, deletions = false }
      assert.equal(lines("F home/e -", "R", "D home/", "Q"), all)
      assert.equal("in the way 2: a,c", refused(shards))
    end
  end)

  it("does not give way when it is not ours itself", function()
    book:scan("target", { unit("home", { "a", type = "d" }, { "a/x" }, { "b" }, { "c" }) })
    source({ "a" }, { "b", type = "d" }, { "b/x" }, { "b/y", type = "d" }, { "c" })
    local all, shards = words()
    assert.equal("Q", all)
    assert.equal("not ours 2: a,b\nin the way 2: b/x,b/y", refused(shards))
    all, shards = words { overwrite = true }
    assert.equal(lines("X home/b f " .. at, "R", "F home/b/x -", "R", "D home/b/y", "D home/b", "D home/", "Q"), all)
    assert.equal("not ours 1: a", refused(shards))
  end)
end)

describe("shards", function()
  it("take several units that fit, each with its words, and do not tear one", function()
    local units, names = {}, {}
    for i = 1, 6 do
      units[i], names[i] = many("home-" .. i, 3), "home-" .. i
    end
    book:scan("source", units)
    local all, shards = words { units = names, entries = 9 }
    assert.same({ 3, "home-1,home-2", "home-3,home-4", "home-5,home-6" }, { #shards, table.concat(shards[1].units, ","), table.concat(shards[2].units, ","),
      table.concat(shards[3].units, ",") })
    assert.equal(24, #all:gsub("[^FD]", ""))
    for _, shard in ipairs(shards) do
      assert.is_nil(shard.after)
      assert.equal(1, #shard.words:gsub("[^R]", ""))
    end
    assert.equal("home-6,home-1", table.concat(select(2, words { units = { "home-6", "home-1" } })[1].units, ","))
  end)

  it("are cut by entries and by bytes, content first, and one that waits for all before it closes the unit", function()
    book:scan("source", { many("home", 10, { size = 100 }), many("other", 1) })
    local function shapes(o)
      o.units = { "home", "other" }
      local list = {}
      for i, s in ipairs(select(2, words(o))) do
        assert.equal(i, s.id)
        list[i] = ("%s%d/%d%s"):format(table.concat(s.units, "+"), s.entries, s.size, s.after and " after " .. s.after or "")
      end
      return table.concat(list, ", ")
    end
    assert.equal("home+other13/1001", shapes {})
    assert.equal("home4/400, home4/400, home2/200, home1/0 after home, other2/1", shapes { entries = 4 })
    assert.equal("home3/300, home3/300, home3/300, home1/100, home1/0 after home, other2/1", shapes { bytes = 300 })
    assert.equal("home3/300, home3/300, home3/300, home1/100, home1/0 after home, other2/1", shapes { bytes = 201 })
    assert.equal("home5/500, home5/500, home1/0 after home, other2/1", shapes { entries = 5 })
  end)

  it("that close a unit are cut, too, and in order", function()
    local unit_of = unit("home")
    for i = 1, 5 do
      unit_of[#unit_of + 1] = { "d" .. i, type = "d" }
      unit_of[#unit_of + 1] = { "d" .. i .. "/x" }
    end
    book:scan("source", { unit_of })
    local all, shards = words { entries = 3 }
    assert.equal(lines("D home/d1", "D home/d2", "D home/d3", "Q", "D home/d4", "D home/d5", "D home/", "Q"), all:match "D home/d1.*")
    assert.same({ nil, nil, "home", "home" }, { shards[1].after, shards[2].after, shards[3].after, shards[4].after })
  end)

  it("wait, when they hold what is in a directory that must be made where something else stands", function()
    agree { { "a" }, { "b" } }
    local now = many("home", 0)
    now[2] = { "a", type = "d" }
    for i = 1, 4 do
      now[#now + 1] = { "a/" .. i }
    end
    now[#now + 1], now[#now + 2] = { "b" }, { "c" }
    book:scan("source", { now })
    local _, shards = words { entries = 3 }
    assert.equal(lines("X home/a f @1:" .. 2000 * S, "R", "F home/a/1 -", "F home/a/2 -", "Q"), shards[1].words)
    assert.is_nil(shards[1].after)
    assert.equal("home", shards[2].after)
    assert.truthy(shards[2].words:find("F home/a/3 -", 1, true))
  end)

  it("do not tear what must give way", function()
    local was = { { "a", type = "d" } }
    for i = 1, 20 do
      was[#was + 1] = { ("a/%02d"):format(i) }
    end
    agree(was)
    source({ "a" }, { "b" })
    local _, shards = words { entries = 2 }
    assert.equal(21, #shards[1].words:gsub("[^X]", ""))
    assert.truthy(shards[1].words:find("X home/a d @1:%d+\nR\nF home/a %-\nF home/b %-\nQ"))
  end)

  it("are made one at a time, and one that a cancelled task did not take is not lost", function()
    book:scan("source", { many("home", 200) })
    local work = gate.call("change", manifest.work, { directory = book.directory, units = { "home" }, entries = 1 })
    local seen = {}
    for _ = 1, 100 do
      local taker = task.spawn(function()
        local shard = work:next()
        seen[shard.id] = (seen[shard.id] or 0) + 1
      end)
      task.sleep(0)
      taker:cancel()
      task.join_all { taker }
    end
    for shard in work.next, work do
      seen[shard.id] = (seen[shard.id] or 0) + 1
    end
    for id = 1, 201 do
      assert.equal(1, seen[id], id)
    end
    assert.is_nil(seen[202])
    assert.is_nil((work:next()))
    work:close()
    work:close()
    assert.is_false((pcall(work.next, work)))
  end)

  it("are not made of nonsense", function()
    for _, o in ipairs { { units = { "a/b" } }, { units = { "" } }, { units = { ".." } }, { units = "home" }, { units = { 5 } }, { entries = 0 }, { bytes = 0 },
                         { entries = -1 }, { entries = "many" }, { owner = "root" } } do
      o.directory, o.units = book.directory, o.units or { "home" }
      assert.is_false((pcall(gate.call, "change", manifest.work, o)))
      assert.is_false((pcall(gate.call, "change", manifest.unproven, o)))
    end
    assert.is_false((pcall(gate.call, "read", manifest.work, { directory = book.directory, units = {} })))
    local work <close> = gate.call("change", manifest.work, { directory = book.directory .. "/nowhere", units = { "home" } })
    assert.equal("ENOENT", (select(3, work:next())))
    assert.is_false((pcall(gate.call, "change", work.settle, work, "other")))
  end)
end)
