-- Manifests and the real program of the far side: whatever is done to whichever side, what is called proven is so, and what
-- differs is seen. Judged by the oracle, which shares nothing with them.

local far = require "spec.support.far"
local gate = require "runbook.core.gate"
local manifest = require "runbook.core.manifest"
local oracle = require "spec.support.oracle"
local world = require "spec.world"

--- What the oracle calls a difference that a manifest can see, and what that is there.
local SEEN = {
  missing = "missing on the target", extra = "only on the target", type = "type differs", device = "type differs", size = "size differs",
  content = "contents differ", mode = "mode differs", owner = "owner differs", group = "owner differs", mtime = "time differs",
  ["dir-mtime"] = "time differs", ["link-mtime"] = "time differs", ["link-target"] = "link target differs", hardlinks = "hardlinks differ",
  xattr = "attributes differ", acl = "attributes differ",
}
local INSIDE, ONE_SIDED = { content = true, xattr = true, acl = true }, { missing = true, extra = true }
local UNSEEN = { allocated = true, holes = true } -- where no bytes are is not kept in a manifest

local function comparisons(pair)
  local list = {}
  for _, unit in ipairs(pair.units) do
    local c = gate.call("read", manifest.compare, pair.directory, unit)
    list[#list + 1] = c and { unit = unit, c = c } or nil
  end
  return list
end

local function look(pair)
  world.must(("touch -r %s %s"):format(pair.source, pair.target)) -- the times of the top are nobody's
  pair:scan()
  pair:prove()
  pair:prove() -- what changed meanwhile is known now
end

local function all_is_proven(pair, what)
  look(pair)
  for _, one in ipairs(comparisons(pair)) do
    assert.same({}, one.c.kinds, what .. " " .. one.unit)
    assert.same({ one.c.entries, one.c.entries, 0 }, { one.c.equal, one.c.proven, one.c.extra }, what .. " " .. one.unit)
  end
  oracle.identical(pair.source, pair.target)
end

local function is_seen(pair, what)
  look(pair)
  local kinds, differences, text = pair:compare(), oracle.differences(pair.source, pair.target)
  assert.is_nil(kinds["not proven"], what)
  local not_proven = 0
  for _, one in ipairs(comparisons(pair)) do
    not_proven = not_proven + one.c.entries - one.c.missing - one.c.proven
  end
  for kind, count in pairs(differences) do
    assert(SEEN[kind] or UNSEEN[kind], "a kind of difference nobody thought of: " .. kind)
    -- the bytes of what differs in other ways are nobody's concern; but none of it may pass for proven
    assert(UNSEEN[kind] or kinds[SEEN[kind]] or INSIDE[kind], ("%s: nobody saw %s\n%s"):format(what, kind, text))
    assert(UNSEEN[kind] or ONE_SIDED[kind] or not_proven >= count, ("%s: proven, in spite of %d %s\n%s"):format(what, count, kind, text))
  end
  for kind in pairs(kinds) do
    local told = kind == "hardlinks differ" -- of a group whose first name is on one side only, too
    for theirs, ours in pairs(SEEN) do
      told = told or ours == kind and differences[theirs] ~= nil
    end
    assert(told, ("%s: %s, and it is not so\n%s"):format(what, kind, text))
  end
end

local function bring(pair, o)
  local outcome = pair:copy(o)
  assert.same({}, outcome.failures)
  assert.same({}, outcome.refused)
  assert.equal(0, outcome.unanswered)
end

describe("manifests of real trees", function()
  it("prove exactly what is identical, whatever is changed, and in shards of any size", function()
    for seed = 1, 3 do
      local pair = far.pair()
      world.grow("many", pair.source, { files = 120, homes = 3 })
      bring(pair)
      all_is_proven(pair, "seed " .. seed)
      for round = 1, 3 do
        world.mutate(pair.source, { percent = 25, delete = true, rename = true, seed = seed * 10 + round })
        is_seen(pair, ("seed %d, round %d"):format(seed, round))
        if round == 2 then -- bytes that only a proof tells apart come after it
          bring(pair, { deletions = true })
          look(pair)
        end
        bring(pair, { deletions = true, entries = ({ 1, 7, 20000 })[round], scan = false })
        all_is_proven(pair, ("seed %d, round %d"):format(seed, round))
      end
      world.mutate(pair.target, { percent = 25, delete = true, rename = true, seed = seed })
      is_seen(pair, "the target, seed " .. seed)
      pair:copy { deletions = true }
      is_seen(pair, "the target, brought, seed " .. seed)
    end
  end)

  it("prove every kind of thing there is", function()
    local pair = far.pair()
    world.grow("awkward", pair.source, { deep = 5, largest = 1 << 24, across = true })
    bring(pair, { entries = 5 })
    look(pair)
    assert.same({}, pair:compare())
    -- from home to home there are no hardlinks
    assert.same({ "hardlinks" }, { next((oracle.differences(pair.source, pair.target))), nil })
  end)

  it("are right again after a storm, however often it was copied meanwhile", function()
    local pair = far.pair()
    world.grow("many", pair.source, { files = 200, homes = 1 })
    local storm <close> = setmetatable({ it = world.storm(pair.source, { seed = 4, rate = 3000 }) }, { __close = function(s) s.it:stop() end })
    for _ = 1, 4 do
      pair:copy()
      pair:prove()
    end
    storm.it:stop()
    bring(pair, { deletions = true })
    bring(pair, { deletions = true })
    all_is_proven(pair, "after the storm")
  end)

  it("never remove what this pair did not put there", function()
    local pair = far.pair()
    world.grow("many", pair.source, { files = 60, homes = 2 })
    bring(pair)
    world.must(([[cd %s && mkdir theirs user-000/theirs user-000/dir-1/theirs && echo 1 > theirs/file && echo 2 > user-000/theirs/file
      echo 3 > user-000/dir-1/theirs/file && echo 4 > loose && cp -a . ../before]]):format(pair.target))
    world.must(("rm -r %s/user-000 && rm -r %s/user-001/*"):format(pair.source, pair.source))
    for _ = 1, 2 do
      pair:copy { deletions = true }
    end
    assert.equal("1\n2\n3\n4", world.must(("cd %s && cat theirs/file user-000/theirs/file user-000/dir-1/theirs/file loose"):format(pair.target)))
    assert.equal("", world.must(("find %s/user-000 %s/user-001 -name 'file-*'"):format(pair.target, pair.target)))
  end)

  it("remove nothing where nobody has looked at the source", function()
    local pair = far.pair()
    world.grow("many", pair.source, { files = 60, homes = 2 })
    bring(pair)
    look(pair)
    local before = oracle.digest(pair.target)
    gate.call("change", manifest.forget, pair.directory, "source")
    local outcome = pair:copy { deletions = true, scan = false }
    assert.equal(0, outcome.done)
    assert.equal(before, oracle.digest(pair.target))
    all_is_proven(pair, "looked at again")
  end)
end)

describe("a unit of a million names", function()
  it("is known, compared, brought, settled and proven in 100 MB", function()
    local said = world.must(("RUNBOOK_BUILD=%s %s lua spec/support/million.lua %s"):format(world.build, world.runbook, far.directory()))
    local most = tonumber(said:match "most (%d+) MB")
    assert(most, said)
    local limit = world.build:find "san" and 1000 or 100
    assert.is_true(most <= limit, said)
    assert.truthy(said:find("proven 1000001 of 1000001", 1, true), said)
  end)
end)
