-- What of a source a file system of certain limits would not hold. Manifests are taught by hand (spec/support/ledger.lua).

local gate = require "runbook.core.gate"
local ledger = require "spec.support.ledger"
local manifest = require "runbook.core.manifest"

local unit = ledger.unit
local book

before_each(function() book = ledger.new() end)

local function census(o)
  o = o or {}
  o.directory = book.directory
  local lines = {}
  for kind, found in pairs(assert(gate.call("change", manifest.census, o))) do
    lines[#lines + 1] = ("%s %d: %s"):format(kind, found.count, table.concat(found.examples, ","))
  end
  table.sort(lines)
  return table.concat(lines, "\n")
end

describe("a census of a source", function()
  it("finds nothing to say of plain files", function()
    book:scan("source", { unit("home", { "a" }, { "d", type = "d" }, { "d/b" }), unit("other", { "a" }) })
    assert.equal("", census { name_max = 255, path_max = 4096, base = 5, size_max = 1 << 40, folds = true, utf8 = true })
  end)

  it("counts what is no file, and names three of each", function()
    book:scan("source", { unit("home", { "b", type = "b", node = 7 }, { "c", type = "c", node = 8 }, { "l", type = "l" }, { "p", type = "p" },
      { "q", type = "p" }, { "r", type = "p" }, { "s", type = "s" }, { "t", type = "p" }) })
    assert.equal("device 2: home/b,home/c\npipe 4: home/p,home/q,home/r\nsocket 1: home/s\nsymlink 1: home/l", census())
  end)

  it("counts bytes of names, paths and files", function()
    local seven, eight = "e\u{e9}e\u{e9}e", "e\u{e9}e\u{e9}ee"
    book:scan("source", { unit("home", { "d", type = "d" }, { "d/12345" }, { "d/123456" }, { seven, size = 10 }, { eight, size = 11 }) })
    assert.equal("long name 1: home/" .. eight, census { name_max = 7 })
    assert.equal("large 1: home/" .. eight, census { size_max = 10 })
    -- the path they are in, a slash, the name of the home, a slash, the path, a zero byte
    assert.equal("long path 2: home/d/123456,home/" .. eight, census { path_max = 5 + 1 + 4 + 1 + 7 + 1, base = 5 })
    book:scan("source", { unit("a-long-name") })
    assert.equal("long name 1: a-long-name", census { name_max = 10 })
  end)

  it("finds what is no UTF-8", function()
    book:scan("source", { unit("home", { "d\xff", type = "d" }, { "d\xff/fine" }, { "good\u{20ac}\u{1f600}" }, { "half\xe2\x82" }, { "low\xed\xa0\x80" },
      { "over\xc0\xaf" }) })
    assert.equal("not UTF-8 4: home/d\xff,home/half\xe2\x82,home/low\xed\xa0\x80", census { utf8 = true })
    assert.equal("", census())
  end)

  it("finds names of one directory that differ in their letters' case only", function()
    book:scan("source", { unit("home", { "A", type = "d" }, { "A/x" }, { "a", type = "d" }, { "a/x" }, { "b", type = "d" }, { "b/A" }, { "b/\u{c4}rger" },
      { "b/\u{e4}RGER" }, { "bad\xfe" }, { "bad\xff" }, { "c", type = "d" }, { "c/a" }), unit("other", { "X" }) })
    assert.equal("case 2: home/a,home/b/\u{e4}RGER", census { folds = true })
    assert.equal("", census())
  end)

  it("tells both names of a hardlink that goes from home to home, and which lead out", function()
    local function link(path, inode, links) return { path, inode = inode, links = links } end
    book:scan("source", { unit("ann", link("in", 1, 2), link("too", 1, 2), link("x", 2, 2), link("y", 3, 3), link("z", 3, 3)), unit("bob", link("x", 2, 2)),
      unit("cyd", link("lost", 4, 5)), { name = ".", { "", type = "d" }, link("loose", 5, 2) }, unit("dan", link("tight", 5, 2)) })
    assert.equal("linked 4: ann/x,bob/x,dan/tight,loose\nlinked out 3: ann/y,cyd/lost", census())
  end)

  it("knows only what the source held when it was looked at last", function()
    book:scan("source", { unit("home", { "p", type = "p" }), unit("other", { "p", type = "p" }) })
    book:scan("source", { unit("home", { "f" }) })
    book:scan("target", { unit("home", { "p", type = "p" }) })
    assert.equal("", census())
  end)
end)
