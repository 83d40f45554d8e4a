-- Large files at the far side: a cut costs a segment, what is there is gone on with, and nothing is believed that was not read.

local far = require "spec.support.far"
local frames = require "spec.support.frames"
local gate = require "runbook.core.gate"
local manifest = require "runbook.core.manifest"
local oracle = require "spec.support.oracle"
local world = require "spec.world"

local SEGMENT = 4 << 20

describe("a large file", function()
  local pair, source, target

  before_each(function()
    pair = far.pair()
    source, target = pair.source, pair.target
    world.must(("mkdir -p %s/ann/sub && cd %s/ann/sub && head -c %d /dev/urandom > large && touch -d '2001-02-03 04:05:06.789' large"):format(
      source, source, 5 * SEGMENT + 12345))
  end)

  local function leftovers()
    return (world.sh(("find %s -name '.rb~*'"):format(target)))
  end

  local function unfinished()
    return (world.must(("find %s -name '.rb~*.part'"):format(target)):gsub("\n", ""))
  end

  -- What the target says that is there, by unit.
  local function stock(keep)
    return gate.call("change", function()
      local request = assert(manifest.request { directory = pair.directory, side = "target", fresh = true })
      local output, said = far.run(request, ("FAR clean %s %s"):format(target, keep == false and "" or "--keep-parts"))
      assert.equal("", said)
      return manifest.parts(output)
    end)
  end

  local function said(found)
    local words = {}
    for _, one in pairs(found) do
      words[#words + 1] = one.said
    end
    return table.concat(words)
  end

  -- A pass in which the line of each shard says what becomes of it. Outcomes are those of the home.
  local function pass(line, o)
    o = o or {}
    pair:scan()
    return gate.call("change", function()
      local work <close> = manifest.work { directory = pair.directory, units = pair.units, overwrite = true, parts = o.parts, bytes = o.bytes }
      local outcomes = {}
      for shard in work.next, work do
        if o.before and shard.units[1] == "ann" then
          o.before(shard)
        end
        local output, errors = far.run(shard.bytes, (line:gsub("%u+", { SOURCE = source, TARGET = target })))
        local outcome = assert(far.feed(shard:results(), output))
        outcome.errors, outcome.shard = errors, shard
        outcomes[#outcomes + 1] = shard.units[1] == "ann" and outcome or nil
      end
      for _, unit in ipairs(pair.units) do
        assert(work:settle(unit))
      end
      return outcomes
    end)
  end

  local WHOLE = "FAR send SOURCE | FAR receive TARGET"

  local function cut_after(bytes)
    return pass(("FAR send SOURCE 2>/dev/null | head -c %d | FAR receive TARGET"):format(bytes))
  end

  local function must_be_there()
    assert.equal("", leftovers())
    world.must(("touch -r %s %s"):format(source, target))
    oracle.identical(source, target)
  end

  local function bytes_of(outcomes)
    local n = 0
    for _, outcome in ipairs(outcomes) do
      n = n + outcome.bytes
    end
    return n
  end

  it("that is cut goes on with the segment that was cut", function()
    local outcomes = cut_after(3 * SEGMENT + 100000)
    assert.falsy(outcomes[1].complete)
    assert.truthy(unfinished() ~= "")
    assert.equal("", world.sh(("ls %s/ann/sub/large 2>/dev/null"):format(target)))
    local found = stock()
    assert.is_true(found.ann.bytes >= 2 * SEGMENT and found.ann.bytes <= 3 * SEGMENT, found.ann.bytes)
    outcomes = pass(WHOLE, { parts = said(found) })
    assert.equal("", outcomes[1].errors)
    assert.equal(5 * SEGMENT + 12345 - found.ann.bytes, bytes_of(outcomes))
    assert.equal(5 * SEGMENT + 12345 - found.ann.bytes, outcomes[1].shard.size)
    assert.equal(0, outcomes[1].unanswered)
    assert.same({}, outcomes[1].failures)
    must_be_there()
    pair:scan()
    pair:prove()
    assert.same({}, pair:compare())
  end)

  it("arrives by a way that is cut more often than all of it takes", function()
    for try = 1, 12 do
      local outcomes = pass(("FAR send SOURCE 2>/dev/null | head -c %d | FAR receive TARGET"):format(SEGMENT + SEGMENT // 2), {
        parts = said(stock()),
      })
      if outcomes[1].complete then
        assert.is_true(try > 4 and try < 9, try)
        must_be_there()
        return
      end
    end
    error "it never arrived"
  end)

  it("goes on after the receiver was killed", function()
    pass "FAR send SOURCE --rate=20000000 2>/dev/null | { FAR receive TARGET <&3 & sleep 0.7; kill -9 $!; wait $!; } 3<&0 2>/dev/null"
    assert.truthy(unfinished() ~= "")
    local found = stock()
    local outcomes = pass(WHOLE, { parts = said(found) })
    assert.equal(5 * SEGMENT + 12345 - (found.ann and found.ann.bytes or 0), bytes_of(outcomes))
    must_be_there()
  end)

  it("is sent again only where it changed", function()
    cut_after(4 * SEGMENT)
    local found = stock()
    assert.is_true(found.ann.bytes >= 2 * SEGMENT)
    world.must(("printf x | dd of=%s/ann/sub/large bs=1 seek=%d conv=notrunc status=none"):format(source, SEGMENT + 5))
    local outcomes = pass(WHOLE, { parts = said(found) })
    assert.equal(5 * SEGMENT + 12345 - found.ann.bytes + SEGMENT, bytes_of(outcomes))
    must_be_there()
  end)

  for what, change in pairs {
    ["has grown"] = "head -c 5000000 /dev/urandom >> F", ["has grown much"] = "truncate -s 70G F", ["has shrunk"] = "truncate -s 9000000 F",
    ["is empty now"] = ": > F", ["got holes"] = "fallocate -p -o 4096 -l 9000000 F", ["became small"] = "echo small > F",
    ["became something else"] = "rm F && ln -s elsewhere F",
  } do
    it(("that %s meanwhile is gone on with as it is now"):format(what), function()
      cut_after(4 * SEGMENT)
      local found = stock()
      world.must((change:gsub("F", source .. "/ann/sub/large")))
      local outcomes = pass(WHOLE, { parts = said(found) })
      assert.equal("", outcomes[1].errors)
      assert.same({}, outcomes[1].failures)
      stock(false)
      assert.equal("", leftovers())
      if what == "has grown much" then -- there are other segments then; its first bytes say enough
        world.must(("cmp -n %d %s/ann/sub/large %s/ann/sub/large && [ $(stat -c %%s %s/ann/sub/large) = $((70 << 30)) ]"):format(
          6 * SEGMENT, source, target, target))
      else
        must_be_there()
      end
    end)
  end

  it("keeps its holes, also where there was data before", function()
    world.must(("rm %s/ann/sub/large && truncate -s %d %s/ann/sub/large && printf x | dd of=%s/ann/sub/large bs=1 seek=%d conv=notrunc status=none"):format(
      source, 40 * SEGMENT, source, source, 30 * SEGMENT))
    local outcomes = pass(WHOLE)
    assert.equal("", outcomes[1].errors)
    must_be_there()
    assert.is_true(tonumber(world.must(("stat -c %%b %s/ann/sub/large"):format(target))) < 1000)
  end)

  describe("of which the parts at the target", function()
    for what, tamper in pairs {
      ["were written to"] = "printf y | dd of=P bs=1 seek=4194310 conv=notrunc status=none",
      ["lost bytes that were not on disk yet"] = "fallocate -p -o 0 -l 4096 P",
      ["were cut short"] = "truncate -s 6000000 P",
      ["are somebody else's file"] = "cp P P.x && chown 1234 P.x && mv P.x P",
      ["can be read by all"] = "chmod 644 P",
      ["have another name"] = "ln P P.other",
      ["are a symlink"] = "mv P P.real && ln -s P.real P",
      ["were swapped for zeros"] = "head -c 100000 /dev/zero > P",
      ["have records that say other hashes"] = "printf 'zzzzzzzz' | dd of=P bs=1 seek=$((($(stat -c %s P) - 16 - 6*24 + 10))) conv=notrunc status=none",
    } do
      it(what .. " arrives as it is at the source", function()
        cut_after(4 * SEGMENT)
        local path = unfinished()
        local before = stock()
        world.must("P=" .. path .. "\n" .. (tamper:gsub("%f[%w]P%f[^%w]", path)))
        for _, known in ipairs { said(before), "" } do -- a stock taken before somebody wrote to it, and then none
          for _ = 1, 4 do
            local outcomes = pass(WHOLE, { parts = known })
            for _, list in pairs(outcomes[1] and outcomes[1].failures or {}) do
              assert.equal("torn", list[1].status)
            end
            known = said(stock())
          end
        end
        world.must(("rm -f %s.*; touch -r %s/ann/sub %s/ann/sub"):format(path, source, target))
        must_be_there()
      end)
    end
  end)

  it("that is more than a shard is sent by several, and put in its place when all of it is there", function()
    local outcomes = pass(WHOLE, { bytes = 2 * SEGMENT, before = function(shard)
      if shard.after then
        assert.equal("", world.sh(("ls %s/ann/sub/large 2>/dev/null"):format(target)))
      end
    end })
    assert.equal(4, #outcomes)
    for i, size in ipairs { 2 * SEGMENT, 2 * SEGMENT, SEGMENT + 12345, 0 } do
      assert.equal(size, outcomes[i].bytes)
      assert.equal(i == 4 and "ann" or nil, outcomes[i].shard.after)
      assert.equal(i == 4 and 1 or 0, outcomes[i].files)
    end
    must_be_there()
  end)

  it("of which a piece is missing, or was read before it changed, is not put in its place", function()
    local n = 0
    local outcomes = pass("if [ -e SOURCE/skip ]; then FAR receive TARGET < /dev/null; else FAR send SOURCE | FAR receive TARGET; fi", {
      bytes = 2 * SEGMENT, before = function()
        n = n + 1
        world.must(("%s %s/skip"):format(n == 2 and "touch" or "rm -f", source))
      end,
    })
    assert.equal("torn", outcomes[4].failures.ann[1].status)
    local found = stock()
    assert.equal(3 * SEGMENT + 12345, found.ann.bytes)
    n = 0
    outcomes = pass(WHOLE, { bytes = SEGMENT, parts = said(found), before = function(shard)
      n = n + 1
      if shard.after then
        world.must(("printf x | dd of=%s/ann/sub/large bs=1 seek=5 conv=notrunc status=none"):format(source))
      end
    end })
    assert.equal(4, #outcomes)
    assert.equal("changing", outcomes[4].failures.ann[1].status)
    assert.equal("", leftovers())
    pass(WHOLE, { bytes = SEGMENT })
    must_be_there()
  end)

  it("that vanished leaves nothing, whatever was there", function()
    cut_after(4 * SEGMENT)
    local found = stock()
    pair:scan()
    local hidden = source .. "/hidden"
    local outcomes = pass(WHOLE, { parts = said(found), before = function() world.must(("mv %s/ann/sub/large %s"):format(source, hidden)) end })
    assert.equal(1, outcomes[1].vanished)
    assert.equal("", leftovers())
  end)

  it("with several names is one file", function()
    world.must(("ln %s/ann/sub/large %s/ann/again && ln %s/ann/sub/large %s/ann/sub/third"):format(source, source, source, source))
    cut_after(2 * SEGMENT)
    local found = stock()
    pass(WHOLE, { parts = said(found), bytes = 2 * SEGMENT })
    must_be_there()
  end)

  it("does not stay half done when nobody wants it", function()
    cut_after(2 * SEGMENT)
    assert.truthy(unfinished() ~= "")
    stock(false)
    assert.equal("", leftovers())
  end)

  it("fails in words when the disk is full, and leaves the room to others", function()
    world.must(("mount -t tmpfs -o size=10m small %s"):format(target))
    local outcomes = pass(WHOLE)
    local left = leftovers()
    world.must("umount " .. target)
    assert.equal("target", outcomes[1].failures.ann[1].status)
    assert.equal("ENOSPC", outcomes[1].failures.ann[1].code)
    assert.equal("", left)
  end)

  it("is not taken over by what a home's owner planted", function()
    local path = world.must(("P=%s; mkdir -p $P/ann/sub; echo $P"):format(target)):gsub("\n", "") .. "/ann/sub/"
    cut_after(2 * SEGMENT)
    local name = unfinished()
    world.must(("rm %s && echo precious > %s/precious && ln -s ../../precious %s"):format(name, target, name))
    pass(WHOLE)
    assert.equal("precious", (world.must(("cat %s/precious"):format(target)):gsub("\n", "")))
    world.must(("rm %s/precious; [ -f %slarge ] && [ ! -L %slarge ]"):format(target, path, path))
    must_be_there()
  end)

  it("is nothing that a hostile sender could write beyond, or beside", function()
    local number, text, expect, frame = frames.number, frames.text, frames.expect, frames.frame
    local record = ("\255"):rep(24)
    local function begin(size, path)
      return frame("p", number(1), number(0), text(path or "ann/x"), expect(), number(size))
    end
    local entry = frames.entry { type = "f", size = 3 * SEGMENT }
    for _, bytes in ipairs {
      frame("p"), begin(-1), begin(3, "../x"), frame("s", number(1), number(0), number(0), record), frame("t", number(1)),
      begin(SEGMENT) .. frame("s", number(1), number(1), number(0), record), begin(SEGMENT) .. frame("s", number(1), number(0), number(0), "short"),
      begin(0) .. frame("s", number(1), number(0), number(0), record), begin(SEGMENT) .. frame("a", number(1)),
      begin(SEGMENT) .. frame("c", number(1), number(0), text "x") .. frame("s", number(1), number(9), number(0), record),
    } do
      local _, ended, errors = pair:run(bytes .. frame "Q", { line = "FAR receive " .. target })
      assert.falsy(ended)
      assert.truthy(errors:find "malformed", errors)
      stock(false)
    end
    for what, bytes in pairs {
      target = begin(SEGMENT) .. frame("c", number(1), number(SEGMENT - 1), text "xx") .. frame("t", number(1)),
      ["target "] = begin(3 * SEGMENT) .. frame("c", number(1), number(SEGMENT - 1), text "xx") .. frame("t", number(1)),
      torn = begin(3 * SEGMENT) .. frame("s", number(1), number(0), number(1), record)
        .. frame("e", number(1), entry, text "\0", number(0), record:sub(1, 8)),
      ["torn "] = begin(3 * SEGMENT) .. frame("s", number(1), number(0), number(1), record) .. frame("s", number(1), number(1), number(1), record)
        .. frame("s", number(1), number(2), number(1), record) .. frame("e", number(1), entry, text "\0", number(0), record:sub(1, 8)),
      changing = begin(3 * SEGMENT) .. frame("s", number(1), number(0), number(1), record) .. frame("s", number(1), number(1), number(1), record)
        .. frame("s", number(1), number(2), number(1), record) .. frame("e", number(1), entry, text "\0", number(0), "\1" .. record:sub(1, 7)),
      ["target  "] = begin(3 * SEGMENT) .. frame("e", number(1), entry, text "\0", number(0)),
    } do
      local answers, ended, errors = pair:run(bytes .. frame "Q", { line = "FAR receive " .. target })
      assert.is_true(ended, errors)
      assert.equal(what:match "%a+", far.status[answers[0].status], what)
      stock(false)
    end
    assert.equal("", world.sh(("find %s -type f"):format(target)))
  end)
end)
