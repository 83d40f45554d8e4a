-- What was known of a unit before it was written to, and what somebody else has changed since. Manifests are taught by hand
-- (spec/support/ledger.lua): one of the pair, whose source is written to on the way back, and one the other way round.

local gate = require "runbook.core.gate"
local ledger = require "spec.support.ledger"
local manifest = require "runbook.core.manifest"

local unit = ledger.unit
local there, back, kept

before_each(function()
  there, back, kept = ledger.new(), ledger.new(), require("spec.support.far").directory()
end)

local function change(fn, ...)
  return gate.call("change", fn, ...)
end

-- The end that is written to was `was`, should become `wanted`, and is `now`.
local function strangers(was, wanted, now, o)
  o = o or {}
  there:scan("source", { unit("home", table.unpack(was)) })
  there:scan("target", { unit("home", table.unpack(wanted)) })
  assert.equal(1, change(manifest.keep, { directory = there.directory, into = kept, units = { "home" } }))
  back:scan("source", { unit("home", table.unpack(o.wanted_now or wanted)) })
  back:scan("target", { unit("home", table.unpack(now)) })
  local found = assert(change(manifest.strangers, back.directory, "home", kept))
  return table.concat(found.examples, ","), found.count
end

local WAS = { { "a", size = 5, inode = 11 }, { "d", type = "d", inode = 12 }, { "d/b", size = 6, inode = 13 } }
local WANTED = { { "a", size = 7, modified = 9, inode = 21 }, { "d", type = "d", inode = 22 }, { "d/b", size = 6, inode = 23 },
  { "n", size = 1, inode = 24 } }

describe("what somebody else changed", function()
  it("is nothing as long as each name is as it was, or as it is brought", function()
    assert.equal("", (strangers(WAS, WANTED, WAS)))
    assert.equal("", (strangers(WAS, WANTED, { { "a", size = 7, modified = 9, inode = 99, changed = 1 }, { "d", type = "d", inode = 12, changed = 4,
      modified = 5 }, { "d/b", size = 6, inode = 13 } })))
    assert.equal("", (strangers(WAS, WANTED, { WANTED[1], WAS[2], WAS[3], WANTED[4] })))
  end)

  it("is a new name, a new size, time, mode or owner, a name that is gone", function()
    for now, name in pairs {
      [{ WAS[1], WAS[2], WAS[3], { "x", size = 1 } }] = "x",
      [{ WAS[1], WAS[2], { "d/b", size = 6, inode = 13, modified = 4 } }] = "d/b",
      [{ WAS[1], WAS[2], { "d/b", size = 7, inode = 13 } }] = "d/b",
      [{ WAS[1], WAS[2], { "d/b", size = 6, inode = 13, mode = 384 } }] = "d/b",
      [{ WAS[1], WAS[2], { "d/b", size = 6, inode = 13, uid = 7 } }] = "d/b",
      [{ WAS[1], { "d", type = "d", inode = 12, uid = 7 }, WAS[3] }] = "d",
      [{ WAS[1], { "d", type = "d", inode = 12, mode = 448 + 7 }, WAS[3] }] = "d",
      [{ { "a", type = "l", target = "d" }, WAS[2], WAS[3] }] = "a",
      [{ { "a", size = 7, modified = 8, inode = 99 }, WAS[2], WAS[3] }] = "a",
      [{ WAS[2], WAS[3] }] = "a",
    } do
      back = ledger.new()
      assert.same({ name, 1 }, { strangers(WAS, WANTED, now) })
    end
  end)

  it("is not a file whose time, mode and owner were being changed, with the bytes it had", function()
    local wanted = { { "a", size = 5, modified = 9, mode = 384, uid = 8, inode = 21 } }
    for _, half in ipairs { { mode = 384 }, { uid = 8 }, { modified = 9 }, { uid = 8, mode = 384 } } do
      back = ledger.new()
      half[1], half.size, half.inode, half.changed = "a", 5, 11, 77
      assert.equal("", (strangers({ WAS[1] }, wanted, { half })))
    end
    assert.equal("a", (strangers({ WAS[1] }, wanted, { { "a", size = 5, inode = 11, uid = 9 } })))
  end)

  it("is not a directory that was being made, or was opened for its owner", function()
    local was = { { "d", type = "d", mode = 320 } }
    assert.equal("", (strangers(was, { { "d", type = "d", mode = 320 }, { "d/e", type = "d", mode = 493, uid = 5 } },
      { { "d", type = "d", mode = 448 }, { "d/e", type = "d", mode = 448, uid = 0 } })))
  end)

  it("is a file of the size and time of the one that is brought, once other bytes were read in it", function()
    local now = { { "a", size = 7, modified = 9, inode = 99 }, WAS[2], WAS[3] }
    assert.equal("", (strangers(WAS, WANTED, now)))
    back:prove(function(op, side)
      local entry = op.path == "a" and side == "target" and now[1] or back.source.home[op.path]
      return { entry = entry, hash = (op.path == "a" and side == "target" and "x" or "h"):rep(16) }
    end)
    assert.equal("a", table.concat(assert(change(manifest.strangers, back.directory, "home", kept)).examples, ","))
  end)

  it("is not what an earlier try brought, when the other end has changed since", function()
    local later = { { "a", size = 8, modified = 10, inode = 21 }, WANTED[2], WANTED[3] }
    assert.equal("", (strangers(WAS, WANTED, { WANTED[1], WAS[2], WAS[3] }, { wanted_now = later })))
  end)

  it("is everything but what is brought, in a unit that was not there", function()
    there:scan("source", {})
    there:scan("target", { unit("home", { "a", size = 1 }) })
    change(manifest.keep, { directory = there.directory, into = kept, units = { "home", "nobody" } })
    back:scan("source", { unit("home", { "a", size = 1 }) })
    back:scan("target", { unit("home", { "a", size = 1 }, { "b" }) })
    assert.equal("b", assert(change(manifest.strangers, back.directory, "home", kept)).examples[1])
  end)

  it("is not told from what was kept when that was torn", function()
    strangers(WAS, WANTED, WAS)
    os.execute(("for f in %s/*; do : > \"$f\"; done"):format(kept))
    local found, _, code = change(manifest.strangers, back.directory, "home", kept)
    assert.is_nil(found)
    assert.equal("ECORRUPT", code)
  end)
end)
