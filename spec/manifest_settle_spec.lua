-- What came of work, and proofs: how it is counted, and what of it is believed. Whoever answers is made by hand
-- (spec/support/ledger.lua), so that it may lie, fail and fall silent.

local far = require "spec.support.far"
local frames = require "spec.support.frames"
local gate = require "runbook.core.gate"
local ledger = require "spec.support.ledger"
local manifest = require "runbook.core.manifest"
local streams = require "spec.support.streams"
local world = require "spec.world"

local S = 1000000000
local unit = ledger.unit

local book

before_each(function() book = ledger.new() end)

local function source(...)
  return book:scan("source", { unit("home", ...) })
end

--- The target, as it stands after `bring`, with other fields where `changes` by path says so; false: without it.
local function target(changes)
  local list = { name = "home" }
  for path, e in pairs(book.source.home) do
    local now = {}
    for k, v in pairs(e) do
      now[k] = v
    end
    now.inode, now.device, now.changed = book.inodes["home/" .. path], 8, 3000 * S
    for k, v in pairs(changes and changes[path] or {}) do
      now[k] = v
    end
    list[#list + 1] = (not changes or changes[path] ~= false) and now or nil
  end
  table.sort(list, function(a, b) return a[1] < b[1] end)
  return book:scan("target", { list }, { clock = 9000 * S })
end

local function proven(o)
  local c = book:compare("home", o)
  return ("%d of %d"):format(c.proven, c.entries)
end

local function words(o)
  local _, all, work = book:work(o)
  work:close()
  return all
end

local usual = { { "a", size = 5, inode = 3 }, { "d", type = "d", inode = 4 }, { "d/x", size = 7, inode = 5 }, { "l", type = "l", inode = 6 },
                { "z", inode = 7 } }

local function brought()
  source(table.unpack(usual))
  book:bring()
  assert.equal("6 of 6", proven())
end

--- `say` with other answers to some operations ("F d/x"); false: none.
local function but(others)
  return function(op)
    local other = others[op.op .. " " .. op.path]
    if other == nil then
      return book:done(op)
    end
    return other or nil
  end
end

describe("what is done", function()
  it("is proven, and counted", function()
    source(table.unpack(usual))
    local _, settled, outcomes = book:bring()
    assert.same({ complete = true, done = 6, bytes = 12, files = 3, created = 4, replaced = 0, metadata = 2, linked = 0, removed = 0, vanished = 0,
      unanswered = 0, failures = {} }, outcomes[1])
    assert.same({ patched = 6, changed = 0 }, settled)
    assert.equal("", book:kinds())
    assert.equal("6 of 6", proven())
    assert.equal("", words { deletions = true })

    source({ "a", size = 6, inode = 3, hash = "i" }, { "b", inode = 7, links = 2 }, { "d", type = "d", inode = 4, mode = 448 },
      { "d/x", size = 7, inode = 5, mode = 384 }, { "z", inode = 7, links = 2 })
    _, settled, outcomes = book:bring { deletions = true }
    assert.same({ complete = true, done = 7, bytes = 6, files = 3, created = 1, replaced = 1, metadata = 3, linked = 1, removed = 1, vanished = 0,
      unanswered = 0, failures = {} }, outcomes[1])
    assert.equal(7, settled.patched)
    assert.equal("6 of 6", proven())
  end)

  it("stays proven as long as a scan finds the same, on either side", function()
    brought()
    local report = target()
    assert.same({ 0, 0, 0 }, { report.units[1].added, report.units[1].changed, report.units[1].removed })
    source(table.unpack(usual))
    assert.equal("6 of 6", proven())
    local other = { size = 6, mode = 1, uid = 3, gid = 3, modified = 1, changed = 1, inode = 99, device = 99, links = 2, type = "p" }
    for field, value in pairs(other) do
      for _, side in ipairs { "source", "target" } do
        book = ledger.new()
        brought()
        if side == "target" then
          target { a = { [field] = value } }
        else
          local now = { "a", size = 5, inode = 3 }
          now[field] = value
          source(now, table.unpack(usual, 2))
        end
        assert.equal("5 of 6", proven(), side .. field)
      end
    end
  end)

  it("is not shaken by what tells nothing", function()
    brought()
    target { a = { blocks = 99 }, d = { links = 99 } }
    assert.equal("6 of 6", proven())
  end)

  it("takes over what the file was when it was read", function()
    source(table.unpack(usual))
    local _, settled = book:bring(nil, but { ["F a"] = { entry = { size = 50, inode = 33, modified = 7, changed = 4000 * S }, hash = ("n"):rep(16), inode = 500,
      changed = 5000 * S }, ["N l"] = { entry = { type = "l", target = "elsewhere", inode = 6 }, inode = 501 } })
    assert.equal(2, settled.changed)
    assert.equal("6 of 6", proven())
    assert.equal(50 + 7, gate.call("read", manifest.units, book.directory)[1].target.bytes)
    source({ "a", size = 50, inode = 33, modified = 7, changed = 4000 * S }, usual[2], usual[3], { "l", type = "l", target = "elsewhere", inode = 6 }, usual[5])
    assert.equal("6 of 6", proven())
  end)

  it("is not believed at the next scan when it was touched too shortly before", function()
    source(table.unpack(usual))
    book:bring(nil, function(op) return book:done(op, { racy = op.path == "a" or op.path == "l" }) end)
    assert.equal("6 of 6", proven())
    source(table.unpack(usual))
    assert.equal("not proven: a,l", book:kinds())
    source(table.unpack(usual))
    assert.equal("not proven: a,l", book:kinds())
  end)

  it("belongs to whom it was mapped to", function()
    source(table.unpack(usual))
    book:bring { owner = "0:5" }
    assert.equal("6 of 6", proven { owner = "0:5" })
    assert.equal("0 of 6", proven())
    local list = {}
    for path in pairs(book.source.home) do
      list[path] = { uid = 0, gid = 5 }
    end
    target(list)
    assert.equal("6 of 6", proven { owner = "0:5" })
  end)

  it("is forgotten by a side, or as far as the target could have lost it", function()
    brought()
    assert.equal(1, gate.call("change", manifest.distrust, book.directory))
    assert.equal("not proven: ,a,d,...", book:kinds())
    assert.equal(6, gate.call("read", manifest.units, book.directory)[1].target.ours)
    gate.call("change", manifest.forget, book.directory, "target")
    assert.equal("missing on the target: ,a,d,...", book:kinds())
  end)

  it("lets the next scan ask for all entries, where it was not what the last one said", function()
    local function asked(side)
      return gate.call("read", manifest.request, { directory = book.directory, side = side }):find("digest of home", 1, true) ~= nil
    end
    source(table.unpack(usual))
    book:scan("target", { unit "home" })
    assert.same({ true, true }, { asked "source", asked "target" })
    book:bring()
    assert.same({ true, false }, { asked "source", asked "target" })
    target()
    assert.same({ true, true }, { asked "source", asked "target" })
    source({ "a", size = 6, inode = 3 }, table.unpack(usual, 2))
    book:bring(nil, but { ["F a"] = { status = "vanished" } })
    assert.same({ false, false }, { asked "source", asked "target" })
  end)
end)

describe("a directory in which something came or went", function()
  local new = { "d/y", size = 1, inode = 8 }

  it("is not what it was unless it was brought after that", function()
    for _, status in ipairs { "vanished", "changing", "source", "target", "conflict", "unkept", "unanswered" } do
      book = ledger.new()
      brought()
      source(usual[1], usual[2], usual[3], new, usual[4], usual[5])
      book:bring(nil, but { ["D d"] = status ~= "unanswered" and { status = status } })
      assert.equal("6 of 7", proven(), status)
      assert.equal("time differs: d", book:kinds(), status)
      assert.equal("D home/d\nQ", words(), status)
      book:bring()
      assert.equal("7 of 7", proven(), status)
    end
  end)

  it("is not what it was when what should have come failed, or a directory came, or something went", function()
    for _, case in ipairs {
      { { usual[1], usual[2], usual[3], new, usual[4], usual[5] }, { ["F d/y"] = { status = "target" }, ["D d"] = false },
        "missing on the target: d/y\ntime differs: d" },
      { { usual[1], usual[2], { "d/n", type = "d", inode = 9 }, usual[3], usual[4], usual[5] }, { ["D d"] = false }, "time differs: d" },
      { { usual[1], usual[2], usual[4], usual[5] }, { ["D d"] = false }, "time differs: d" },
      { { usual[1], usual[2], usual[3], usual[4] }, { ["D "] = false }, "time differs: " },
    } do
      book = ledger.new()
      brought()
      source(table.unpack(case[1]))
      book:bring({ deletions = true }, but(case[2]))
      assert.equal(case[3], book:kinds())
    end
  end)

  it("was made on the way and is ours, though it vanished before it could be brought", function()
    source(table.unpack(usual))
    book:bring(nil, but { ["D d"] = { status = "vanished" } })
    source(usual[1], usual[4], usual[5])
    book.source.home = { [""] = { "", type = "d" }, a = usual[1], d = usual[2], ["d/x"] = usual[3], l = usual[4], z = usual[5] }
    target { d = { mode = 448, inode = 77 } }
    assert.equal(2, book:compare().extra_ours)
    assert.truthy(words({ deletions = true }):find("X home/d/x f @%d+:%d+\nX home/d d @77:"))
  end)

  it("is what it was when only what it is itself was brought", function()
    brought()
    source(usual[1], { "d", type = "d", inode = 4, mode = 448 }, usual[3], usual[4], usual[5])
    assert.equal("D home/d\nQ", (book:bring()))
    assert.equal("6 of 6", proven())
  end)
end)

describe("what is not done", function()
  it("is told with its words, by unit and kind", function()
    book:scan("source", { ledger.many("home", 5), unit("other", { "x" }) })
    local _, _, outcomes = book:bring({ units = { "home", "other" } }, function(op)
      if op.op == "F" and op.unit == "home" and op.path ~= "f000001" then
        return { status = "target", errno = 28, words = "No space left on device" }
      end
      return op.op == "F" and op.unit == "other" and { status = "source", errno = 13, words = "no\0words" } or book:done(op)
    end)
    assert.same({
      home = { { status = "target", code = "ENOSPC", words = "No space left on device", count = 4, examples = { "f000002", "f000003", "f000004" } } },
      other = { { status = "source", code = "EACCES", words = "", count = 1, examples = { "x" } } },
    }, outcomes[1].failures)
    assert.same({ true, 3, 0 }, { outcomes[1].complete, outcomes[1].done, outcomes[1].unanswered })
    assert.equal("missing on the target: f000002,f000003,f000004,...", book:kinds())
  end)

  it("leaves what was known, but for where nobody knows what stands there", function()
    for status, left in pairs { changing = "5 of 6", source = "5 of 6", target = "5 of 6", conflict = "5 of 6", unkept = "5 of 6" } do
      book = ledger.new()
      brought()
      source({ "a", size = 6, inode = 3, changed = 2001 * S }, table.unpack(usual, 2))
      local _, _, outcomes = book:bring(nil, but { ["F a"] = { status = status } })
      assert.equal(status, outcomes[1].failures.home[1].status)
      assert.equal("size differs: a", book:kinds(), status)
      assert.equal(left, proven(), status)
      source(table.unpack(usual))
      assert.equal("not proven: a", book:kinds(), status)
      local known = status ~= "conflict" and status ~= "unkept"
      assert.equal(known and "M home/a @101:" .. 3000 * S .. "\nR\nD home/\nQ" or "", words(), status)
    end
  end)

  it("was half done where it is done in place", function()
    for _, status in ipairs { "target", "conflict", "unkept" } do
      book = ledger.new()
      brought()
      source({ "a", size = 5, inode = 3, changed = 2001 * S }, { "d", type = "d", inode = 4, mode = 448, changed = 2001 * S }, table.unpack(usual, 3))
      book:bring(nil, but { ["M a"] = { status = status }, ["D d"] = { status = status } })
      source(table.unpack(usual))
      assert.equal("not proven: a,d", book:kinds(), status)
      assert.equal("", words(), status)
    end
  end)

  it("because it vanished is gone, but nothing is removed for that before a scan says so", function()
    brought()
    source({ "a", size = 6, inode = 3 }, usual[2], usual[3], usual[4], { "new" }, usual[5])
    local _, _, outcomes = book:bring(nil, but { ["F a"] = { status = "vanished", errno = 2 }, ["F new"] = { status = "vanished", errno = 2 } })
    assert.same({ 2, {} }, { outcomes[1].vanished, outcomes[1].failures })
    assert.equal("size differs: a", book:kinds())
    assert.is_nil(words({ deletions = true }):find "X")
    source(table.unpack(usual, 2))
    assert.truthy(words({ deletions = true }):find("X home/a f", 1, true))
  end)

  it("because nobody answered is counted, and what was answered is kept", function()
    source(table.unpack(usual))
    local shards, _, work = book:work()
    local stream = book:results(shards[1])
    local whole = assert(far.feed(shards[1]:results(), stream))
    assert.equal(0, whole.unanswered)
    work:close()
    for at = 0, #stream - 1 do
      shards, _, work = book:work()
      local outcome = assert(far.feed(shards[1]:results(), stream:sub(1, at)))
      assert.is_false(outcome.complete)
      assert.equal(6, outcome.done + outcome.unanswered)
      if at % 10 == 0 then
        assert.equal(outcome.done, gate.call("change", work.settle, work, "home").patched)
        assert.equal(outcome.done, book:compare().proven)
        gate.call("change", manifest.forget, book.directory, "target")
      end
      work:close()
    end
  end)
end)

describe("names of one inode", function()
  local group = { { "a", size = 5, inode = 3, links = 3 }, { "b", size = 5, inode = 3, links = 3 }, { "d", type = "d", inode = 4 },
                  { "d/c", size = 5, inode = 3, links = 3 } }
  local at = "@101:"

  local function bring(o, touched)
    return book:bring(o, function(op)
      return book:done(op, op.op == "H" and { changed = 3000 * S + 5 } or nil)
    end, { touched = touched })
  end

  it("share what is known of it, and its last ctime", function()
    source(table.unpack(group))
    bring(nil, { { 101, 3000 * S + 9 } })
    assert.equal("5 of 5", proven())
    local now = {}
    for _, path in ipairs { "a", "b", "d/c" } do
      now[path] = { changed = 3000 * S + 9 }
    end
    local u = target(now).units[1]
    assert.equal(0, u.changed)
    assert.equal("5 of 5", proven())
  end)

  it("are not proven by one of them, when another hand touched it meanwhile", function()
    source(table.unpack(group))
    bring(nil, { { 101, 3000 * S + 9 } })
    -- all that is to be done is to take one of its names away; whether its ctime was still ours nobody has seen
    source({ "a", size = 5, inode = 3, links = 3 }, { "d", type = "d", inode = 4 }, { "d/c", size = 5, inode = 3, links = 3 })
    assert.equal("X home/b f " .. at .. 3000 * S + 9 .. "\nR\nD home/\nQ", (bring({ deletions = true }, { { 101, 4000 * S } })))
    assert.equal("not proven: a,d/c", book:kinds())
    local now = { b = false, a = { changed = 4000 * S, links = 2 } }
    now["d/c"] = now.a
    assert.equal(0, target(now).units[1].changed)
  end)

  it("are one group when a file that had a single name is given another", function()
    source({ "a", size = 5, inode = 3 }, group[3])
    book:bring()
    source({ "a", size = 5, inode = 3, links = 2 }, group[3], { "d/c", size = 5, inode = 3, links = 2 })
    assert.truthy(bring(nil, { { 101, 3000 * S + 9 } }):find("H home/d/c", 1, true))
    assert.falsy(book:kinds():find("hardlinks differ", 1, true), book:kinds())
    local now = { changed = 3000 * S + 9, links = 2 }
    assert.equal(0, target({ a = now, ["d/c"] = now }).units[1].changed)
  end)

  it("in other units have the last word of their own", function()
    source({ "a", size = 5, inode = 3, links = 2 })
    book:bring()
    assert.equal("2 of 2", proven())
    assert.equal(0, target({ a = { links = 1 } }).units[1].changed)
  end)

  it("are asked for once, unless only a later one is not proven", function()
    source(table.unpack(group))
    book:scan("target", { { name = "home", { "", type = "d" }, table.unpack(group) } })
    local asked = {}
    local words_of = book:prove(function(op, side)
      asked[#asked + 1] = side .. " " .. op.path
      local e = book.source.home[op.path]
      return { entry = e, hash = ("h"):rep(16) }
    end)
    assert.equal("K home/\nK home/a\nK home/d\nQ", words_of)
    assert.equal(6, #asked)
    assert.equal("5 of 5", proven())
    source(group[1], group[2], group[3], group[4], { "e", size = 5, inode = 3, links = 3 })
    book:scan("target", { { name = "home", { "", type = "d" }, group[1], group[2], group[3], group[4], { "e", size = 5, inode = 3, links = 3 } } })
    assert.equal("K home/e\nQ", (book:prove(function(op) return { entry = book.source.home[op.path], hash = ("h"):rep(16) } end)))
    assert.equal("6 of 6", proven())
  end)
end)

describe("a proof", function()
  local entries = { { "a", size = 5 }, { "b", size = 5 }, { "d", type = "d" }, { "e" }, { "l", type = "l" } }

  local function agree()
    source(table.unpack(entries))
    book:scan("target", { unit("home", table.unpack(entries)) })
  end

  local function honest(op, more)
    local answer = { entry = book.source[op.unit][op.path], hash = ("h"):rep(16) }
    for k, v in pairs(type(more) == "table" and more or {}) do
      answer[k] = v
    end
    return answer
  end

  it("is asked for where all is equal and something is not proven", function()
    agree()
    assert.same({ files = 3, bytes = 10 }, book:compare().unproven)
    local words_of, settled = book:prove(honest)
    assert.equal("K home/\nK home/a\nK home/b\nK home/d\nK home/e\nK home/l\nQ", words_of)
    assert.same({ patched = 12, changed = 0 }, settled)
    assert.equal("6 of 6", proven())
    assert.equal("", (select(2, book:unproven())))
    source({ "a", size = 5, changed = 1 }, { "b", size = 6 }, entries[3], entries[4], { "n" })
    assert.equal("K home/a\nQ", (select(2, book:unproven())))
  end)

  it("proves nothing with one end alone", function()
    for _, only in ipairs { "source", "target" } do
      book = ledger.new()
      agree()
      book:prove(function(op, side) return side == only and honest(op) or nil end)
      assert.equal("0 of 6", proven())
    end
  end)

  it("tells contents and attributes apart", function()
    agree()
    book:prove(function(op, side)
      return honest(op, side == "target" and { hash = op.path == "b" and ("x"):rep(16) or nil, attributes = op.path == "d" and ("x"):rep(8) or nil })
    end)
    assert.equal("contents differ: b\nattributes differ: d", book:kinds())
    assert.equal("4 of 6", proven())
    assert.equal("F home/b @1:" .. 2000 * S .. "\nR\nD home/d\nD home/\nQ", words())
  end)

  it("of what is not as it was known proves nothing, and is taken over", function()
    for _, changed in ipairs { "source", "target" } do
      for field, value in pairs { size = 6, mode = 1, changed = 1, inode = 99, modified = 5, uid = 9 } do
        book = ledger.new()
        agree()
        local _, settled = book:prove(function(op, side)
          local e = { size = 5 }
          e[field] = value
          return honest(op, side == changed and op.path == "a" and { entry = e } or nil)
        end)
        assert.equal(1, settled.changed)
        assert.equal("5 of 6", proven(), changed .. field)
      end
    end
  end)

  it("that fails says why, and proves nothing", function()
    agree()
    local shards, _, work = book:unproven()
    local function answers(errors)
      local out = {}
      for i, op in ipairs(shards[1].operations) do
        out[i] = op.index and streams.proof(op, errors[op.path] and { errno = errors[op.path] } or honest(op)) or nil
      end
      return table.concat(out) .. streams.finished
    end
    local a = assert(far.feed(shards[1]:results "source", answers { a = 13, b = 2 }))
    local b = assert(far.feed(shards[1]:results "target", answers { d = 5, l = 11 }))
    gate.call("change", work.settle, work, "home")
    work:close()
    assert.same({ { status = "source", code = "EACCES", words = "", count = 1, examples = { "a" } } }, a.failures.home)
    assert.equal(1, a.vanished)
    table.sort(b.failures.home, function(x, y) return x.status < y.status end)
    assert.same({ "changing", "target" }, { b.failures.home[1].status, b.failures.home[2].status })
    assert.equal("not proven: a,b,d,...", book:kinds())
    assert.equal("2 of 6", proven())
    assert.is_nil(words({ deletions = true, overwrite = true }):find "X")
  end)

  it("of a name that is gone from the target means it is missing", function()
    agree()
    book:prove(function(op, side) return side == "target" and op.path == "a" and { errno = 2 } or honest(op) end)
    assert.equal("missing on the target: a", book:kinds())
    assert.equal("F home/a -\nR\nD home/\nQ", words())
  end)

  it("comes in shards, of all units together", function()
    local units = { ledger.many("home", 7, { size = 10 }), unit("other", { "x" }) }
    book:scan("source", units)
    book:scan("target", units)
    local shards = book:unproven { units = { "home", "other" }, entries = 3 }
    local sizes = {}
    for i, shard in ipairs(shards) do
      sizes[i] = ("%s %d %d %d"):format(table.concat(shard.units, "+"), shard.entries, shard.files, shard.size)
      assert.is_nil(shard.after)
    end
    assert.same({ "home 3 2 20", "home 3 3 30", "home 2 2 20", "other 2 1 0" }, sizes)
    book:prove(honest, { units = { "home", "other" }, entries = 3 })
    assert.equal("8 of 8", proven())
  end)
end)

describe("results that are nonsense", function()
  it("are refused, and what was answered before is kept", function()
    source(table.unpack(usual))
    local number, text, frame = frames.number, frames.text, frames.frame
    local one = frames.frame("r", number(0), number(0), number(1), streams.entry(usual[1]), ("\0"):rep(8), ("h"):rep(16), number(9), number(8),
      frames.signed(5), number(0), number(8), number(5))
    local function file(nanoseconds, o)
      return frame("r", number(o and o.index or 1), number(0), number(o and o.flags or 1), streams.entry(o and o.entry or {}), ("\0"):rep(8), ("h"):rep(16),
        number(9), number(8), frames.signed(5), number(nanoseconds), number(8), number(5))
    end
    for what, bytes in pairs {
      ["an answer to nothing"] = frame("r", number(99), number(1), number(2), text "gone"), ["an answer twice"] = one,
      ["a status that there is not"] = frame("r", number(1), number(8), number(2), text ""), ["a cut answer"] = frame("r", number(1), number(0)),
      ["a nanosecond too many"] = file(S), ["a link where none was"] = file(0, { flags = 2 }), ["a removal where none was"] = file(0, { flags = 4 }),
      ["a directory for a file"] = file(0, { entry = { type = "d" } }), ["a file for a symlink"] = file(0, { index = 2 }),
      ["a symlink that is too long"] = frame("r", number(2), number(0), number(0),
        streams.entry { type = "l", target = ("x"):rep((1 << 20) + 1) }, ("\0"):rep(8), number(9), number(8), frames.signed(5), number(0),
        number(8), number(5)),
      ["an unknown frame"] = frame "?",
      ["more after its end"] = streams.finished .. streams.finished, ["a proof"] = frame("k", number(1), number(5)),
      ["half a touched inode"] = frame("t", number(1)), ["a touched inode out of time"] = frame("t", number(1), number(1), number(1), number(S)),
      ["touched inodes without end"] = streams.touched(1, 5):rep(1000), ["a frame that is too long"] = "r\xff\xff\xff\xff\x7f",
    } do
      local shards, _, work = book:work()
      local outcome, message, code = far.feed(shards[1]:results(), one .. bytes)
      assert.same({ nil, "EFORMAT" }, { outcome, code }, what)
      assert.truthy(message, what)
      gate.call("change", work.settle, work, "home")
      work:close()
      assert.equal("1 of 6", proven(), what)
      gate.call("change", manifest.forget, book.directory, "target")
    end
  end)

  it("are not asked of the wrong side", function()
    source(table.unpack(usual))
    local shards, _, work = book:work()
    assert.is_false((pcall(shards[1].results, shards[1], "source")))
    work:close()
    book:scan("target", { unit("home", table.unpack(usual)) })
    shards, _, work = book:unproven()
    assert.is_false((pcall(shards[1].results, shards[1])))
    assert.is_false((pcall(shards[1].results, shards[1], "both")))
    assert.equal("EFORMAT", (select(3, far.feed(shards[1]:results "source", frames.frame("r", frames.number(0), frames.number(1))))))
    work:close()
  end)
end)

describe("settling", function()
  it("is done once, and does nothing when there is nothing", function()
    source(table.unpack(usual))
    local shards, _, work = book:work()
    assert.same({ patched = 0, changed = 0 }, gate.call("change", work.settle, work, "home"))
    book:answer(shards[1])
    assert.same({ 6, 0 }, { gate.call("change", work.settle, work, "home").patched, gate.call("change", work.settle, work, "home").patched })
    assert.is_false((pcall(work.settle, work, "home")))
    work:close()
    assert.is_false((pcall(gate.call, "change", work.settle, work, "home")))
    assert.equal("6 of 6", proven())
  end)

  it("is of the manifest as it is by then", function()
    source(table.unpack(usual))
    local shards, _, work = book:work()
    book:answer(shards[1])
    source(usual[1], usual[2], usual[3], { "new" })
    gate.call("change", work.settle, work, "home")
    work:close()
    assert.equal("missing on the target: new", book:kinds())
  end)

  it("that the disk is too full for leaves all as it was, and may be done again", function()
    local full <close> = world.filesystem { size = "1M", kind = "tmpfs" }
    book.directory = full.path
    book:scan("source", { ledger.many("home", 2000) })
    local shards, _, work = book:work()
    book:answer(shards[1])
    full:fill(8192)
    local settled, _, code = gate.call("change", work.settle, work, "home")
    assert.same({ nil, "ENOSPC" }, { settled, code })
    assert.equal(2001, book:compare().missing)
    world.must(("rm %s/.filler"):format(full.path))
    assert.equal(2001, gate.call("change", work.settle, work, "home").patched)
    work:close()
    assert.equal("2001 of 2001", proven())
    assert.equal("", world.must(("ls -A %s | grep -v 'manifest$\\|^.lock$' || true"):format(full.path)))
  end)

  it("follows a sink's progress", function()
    source(table.unpack(usual))
    local shards, _, work = book:work()
    local sink = shards[1]:results()
    assert.same({ bytes = 0, files = 0, answered = 0 }, sink:status())
    assert(sink:write(frames.frame("p", frames.number(77), frames.number(0)) .. book:results(shards[1])))
    assert(sink:finish())
    assert.same({ bytes = 77, files = 3, answered = 6 }, sink:status())
    work:close()
  end)
end)
