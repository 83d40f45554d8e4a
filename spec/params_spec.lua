local errors = require "runbook.errors"
local json = require "runbook.json"
local params = require "runbook.params"
local types = require "runbook.types"

local written = {}

local function file(text)
  local path = os.tmpname()
  local f = assert(io.open(path, "w"))
  f:write(text)
  f:close()
  written[#written + 1] = path
  return path
end

local function complaint(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  assert.is_true(errors.is(err, "usage"), tostring(err))
  return err.message
end

-- A type as a library would register it: a handle made of a map, which a resumed run keeps.
types.register("spec bucket", {
  help = "a bucket", pinned = true,
  parse = function(raw, at)
    if not types.is_map(raw) then
      return nil, "a map is expected"
    end
    local fields = types.map({
      { "name", "name", "its name" }, { "region", "string", "where it is", default = "eu-1" },
      { "key", "path", "the key file", optional = true },
    }, raw, at)
    return fields and setmetatable({ fields = fields }, { __tostring = function() return "s3://" .. fields.name end })
  end,
  check = function(bucket) return "looked at " .. bucket.fields.name end,
  show = tostring,
})

types.register("spec pair", {
  help = "two ends and a rate", pinned = { "from" },
  parse = function(raw, at)
    return types.map({ { "from", "string", "one end" }, { "rate", "integer", "how fast" } }, raw, at)
  end,
})

local declaration = {
  { "bucket", "spec bucket", "where to" },
  { "window", "duration", "how long", default = "2h" },
  { "rate", "rate", "how fast", optional = true },
  { "mode", "choice", "what to do", choices = { "copy", "merge" } },
  { "version", "string", "which one", default = "1" },
  { "tags", "list", "words", default = {} },
}

local good = "bucket: {name: b1}\nmode: copy\n"

describe("params.declare", function()
  it("says everything that is wrong in a declaration", function()
    local message = complaint(params.declare, {
      { "a", "strin", "help" }, { "b", "string" }, { "a", "string", "help" }, { "c c", "string", "help" },
      { "d", "string", "help", defualt = 1 }, { "e", "choice", "help" }, { "f", "string", "help", default = "x", optional = true },
      "g",
      { "h", "string", "help", choices = {} },
    })
    for _, part in ipairs {
      "`a`: no type is called `strin`; did you mean `string`?", "`b`: a line of help is missing", "`a` is declared twice",
      "`c c` is no name", "`d`: unknown key `defualt`; did you mean `default`?", "`e`: choices = { ... } is missing",
      "`f`: has a default, so `optional` says nothing", "each parameter is { name, type, help",
      "`h`: choices = { ... } is missing",
    } do
      assert.is_truthy(message:find(part, 1, true), part .. "\n" .. message)
    end
    assert.matches("a list is expected", complaint(params.declare, { a = 1 }))
    params.declare(declaration)
  end)
end)

describe("params.load", function()
  after_each(function()
    for _, path in ipairs(written) do
      os.remove(path)
    end
    written = {}
  end)

  it("gives values, and says where each came from", function()
    local path = file(good .. "version: 1.10\n")
    local values, from = params.load { declaration = declaration, files = { path }, sets = { "rate=10MB/s", "tags=a, b" } }
    assert.equal("s3://b1", tostring(values.bucket))
    assert.equal("eu-1", values.bucket.fields.region)
    assert.equal(7200, values.window)
    assert.equal(10000000, values.rate)
    assert.equal("1.10", values.version)
    assert.same({ "a", "b" }, values.tags)
    assert.same({
      bucket = path .. ":1", mode = path .. ":2", version = path .. ":3", window = "default", rate = "-p", tags = "-p",
    }, from)
  end)

  it("lists all that is wrong, with line and nearest name, in one error", function()
    local path = file [[
# a comment
bucket:
  naem: b1
  region: [x]
windw: 3h
mode: copi
rate: fast
]]
    assert.equal(path .. [[: 6 things to fix
  line 2  bucket.name         missing: its name
  line 3  bucket.naem         unknown; did you mean `name`?
  line 4  bucket.region       a list: text is expected
  line 5  windw               unknown; did you mean `window`?
  line 6  mode                "copi": one of copy, merge; did you mean `copy`?
  line 7  rate                "fast": a rate like 100 MB/s]], complaint(params.load, { declaration = declaration, files = { path } }))
  end)

  it("aligns lines of different length, and puts what is missing last", function()
    local path = file(("\n"):rep(8) .. "version: []\nnonsense: 1\n")
    assert.equal(path .. [[: 4 things to fix
  line 9   version             a list: text is expected
  line 10  nonsense            unknown
           bucket              missing: where to
           mode                missing: what to do]], complaint(params.load, { declaration = declaration, files = { path } }))
  end)

  it("tells problems of files, of the command line and of nothing at all apart", function()
    local path = file "mode: 1\n"
    local message = complaint(params.load, { declaration = declaration, files = { path }, sets = { "bucket.nmae=x", "oops", "tags=[a" } })
    assert.matches("line 1  mode                1: one of copy, merge", message, 1, true)
    assert.equal(path .. [[: 1 thing to fix
  line 1  mode                1: one of copy, merge
-p: 4 things to fix
  oops                a parameter is given as name=value
  tags                no list or map: did not find expected ',' or ']', while parsing a flow sequence
  bucket.nmae         unknown; did you mean `name`?
  bucket.name         missing: its name]], message)
    assert.matches("^parameters: 2 things to fix", complaint(params.load, { declaration = declaration }))
  end)

  it("says where a file is no YAML, or no map, before anything else", function()
    local path = file "mode: copy\nmode: merge\n"
    assert.equal(path .. ": 1 thing to fix\n  line 2  key `mode` again; it stands in line 1 already",
      complaint(params.load, { declaration = declaration, files = { path } }))
    path = file "- a\n"
    assert.equal(path .. ": 1 thing to fix\n  a map is expected: name: value",
      complaint(params.load, { declaration = declaration, files = { path } }))
  end)

  it("raises missing for a file that is not there", function()
    local ok, err = pcall(params.load, { declaration = declaration, files = { "/nonexistent/x.yaml" } })
    assert.is_false(ok)
    assert.equal("missing", err.kind)
    assert.equal("/nonexistent/x.yaml", err.target)
  end)

  it("lets later files win: maps are merged, lists replaced, null takes back", function()
    local one = file(good .. "tags: [a, b]\nwindow: 3h\nrate: 1 MB/s\n")
    local two = file "bucket: {region: us-2}\ntags: [c]\nrate:\n"
    local values, from = params.load { declaration = declaration, files = { one, two } }
    assert.equal("b1", values.bucket.fields.name)
    assert.equal("us-2", values.bucket.fields.region)
    assert.same({ "c" }, values.tags)
    assert.is_nil(values.rate)
    assert.is_nil(from.rate)
    assert.equal(10800, values.window)
    assert.equal(two .. ":2", from.tags)
  end)

  it("sets one key of a map from the command line", function()
    local values = params.load { declaration = declaration, files = { file(good) },
      sets = { "bucket.region=us-2", "mode=merge", 'tags=["x=y", 2]' } }
    assert.equal("us-2", values.bucket.fields.region)
    assert.equal("merge", values.mode)
    assert.same({ "x=y", 2 }, values.tags)
    values = params.load { declaration = declaration, sets = { "bucket.name=b2", "mode=copy" } }
    assert.equal("b2", values.bucket.fields.name)
  end)

  it("does not put a key into what is no map", function()
    local path = file(good .. "version: 1\n")
    assert.equal("-p: 1 thing to fix\n  version.x           `version` is no map here; give the whole of it",
      complaint(params.load, { declaration = declaration, files = { path }, sets = { "version.x=1" } }))
  end)

  it("takes paths relative to the file they stand in", function()
    local path = file "bucket: {name: b, key: keys/id}\nmode: copy\n"
    local values = params.load { declaration = declaration, files = { path } }
    assert.equal(path:match("^(.*)/") .. "/keys/id", values.bucket.fields.key)
    values = params.load { declaration = declaration, files = { path }, sets = { "bucket.key=/abs/id" } }
    assert.equal("/abs/id", values.bucket.fields.key)
  end)

  it("says how to give what is missing", function()
    local function hint(text, fields)
      return select(2, pcall(params.load, { declaration = fields or declaration, files = text and { file(text) } })).hint
    end
    assert.equal("write `bucket: ...` in a file for --params, or add -p bucket=...; the others likewise", hint())
    assert.matches("^write `name: %.%.%.` below `bucket` in /%S+, or add %-p bucket%.name=%.%.%.$", hint "bucket: {}\nmode: copy\n")
    assert.is_nil(hint "bucket: {name: b}\nmode: nonsense\n")
  end)

  it("asks for what is missing until the answer is good, and only then", function()
    local asked = {}
    local answers = { bucket = { "b1", "{name: b7}" }, mode = { "x", "copy" } }
    local values, from = params.load {
      declaration = declaration,
      ask = function(q)
        asked[#asked + 1] = q.name .. ": " .. (q.message or q.help)
        return table.remove(answers[q.name], 1)
      end,
    }
    assert.equal("b7", values.bucket.fields.name)
    assert.equal("copy", values.mode)
    assert.equal("prompt", from.mode)
    assert.same({ "bucket: where to", "bucket: a map is expected", "mode: what to do", 'mode: "x": one of copy, merge' }, asked)
    local never = function() error "asked" end
    assert.matches("unknown", complaint(params.load, { declaration = declaration, files = { file "x: 1\n" }, ask = never }))
    assert.matches("2 things to fix", complaint(params.load, { declaration = declaration, ask = function() return nil end }))
  end)

  it("blames the declaration for a default that is wrong", function()
    assert.matches("its default is wrong", complaint(params.load, { declaration = { { "d", "duration", "x", default = "soon" } } }))
  end)

  it("holds any type to its choices", function()
    local d = { { "n", "integer", "how many", choices = { 1, 2 } } }
    assert.equal(2, params.load({ declaration = d, sets = { "n=2" } }).n)
    assert.matches("one of 1, 2", complaint(params.load, { declaration = d, sets = { "n=3" } }))
  end)

  it("accepts one parameter of two included files, unless they mean different things", function()
    local d = { { "n", "integer", "how many" }, { "n", "integer", "how many" } }
    assert.equal(2, params.load({ declaration = d, sets = { "n=2" } }).n)
    d[2] = { "n", "string", "which" }
    assert.matches("declared twice, as integer and as string", complaint(params.load, { declaration = d, sets = { "n=2" } }))
  end)
end)

describe("params in a journal", function()
  local values, from, frozen

  before_each(function()
    local path = file(good .. "version: 1.10\ntags: [a]\n")
    values, from = params.load { declaration = declaration, files = { path }, sets = { "rate=10 MB/s" } }
    frozen = json.decode(json.encode(params.freeze(values)))
    os.remove(path)
  end)

  it("come back the same in another process, without the file", function()
    local again, again_from = params.thaw(declaration, frozen)
    assert.equal("s3://b1", tostring(again.bucket))
    assert.equal("1.10", again.version)
    assert.same({ "a" }, again.tags)
    assert.equal(10000000, again.rate)
    assert.same(from, again_from)
    assert.same({}, params.changes(values, again))
    assert.same(frozen, json.decode(json.encode(params.freeze(again))))
  end)

  it("can be changed, and the change is told", function()
    local again, again_from = params.thaw(declaration, frozen, { sets = { "rate=5 MB/s", "window=1h" } })
    assert.equal(5000000, again.rate)
    assert.equal("-p", again_from.window)
    assert.same({ { name = "window", old = "2h", new = "1h" }, { name = "rate", old = "10 MB/s", new = "5 MB/s" } },
      params.changes(values, again))
  end)

  it("keep clusters, hosts and paths", function()
    assert.matches("bucket              a run keeps its spec bucket",
      complaint(params.thaw, declaration, frozen, { sets = { "bucket.name=b2" } }), 1, true)
    assert.is_table(params.thaw(declaration, frozen, { sets = { "bucket.name=b1" } }))
  end)

  it("keep some keys of a map, if its type says so", function()
    local d = { { "pair", "spec pair", "what to copy" } }
    local kept = params.freeze(params.load { declaration = d, sets = { "pair={from: a, rate: 1}" } })
    assert.equal(2, params.thaw(d, kept, { sets = { "pair.rate=2" } }).pair.rate)
    assert.matches("pair.from           a run keeps its from", complaint(params.thaw, d, kept, { sets = { "pair.from=b" } }), 1, true)
  end)

  it("hold references and never a secret", function()
    local path = file "correct horse battery\n"
    local d = { { "token", "secret", "what to log in with" } }
    local given = params.load { declaration = d, sets = { "token=file:" .. path } }
    assert.is_true(require("runbook.secret").is(given.token))
    require("runbook.secret").ready(given.token)
    assert.equal("«secret:token»", params.show(given)[1].text)
    local text = json.encode(params.freeze(given))
    assert.is_nil(text:find("horse", 1, true))
    assert.is_true(require("runbook.secret").is(params.thaw(d, json.decode(text)).token))
  end)
end)

describe("params without values", function()
  it("has defaults, first choices and objects that answer everything with themselves", function()
    local p = params.placeholders(declaration)
    assert.equal(7200, p.window)
    assert.equal("copy", p.mode)
    assert.is_nil(p.rate)
    assert.same({}, p.tags)
    assert.equal("<bucket>", tostring(p.bucket))
    assert.equal("to <bucket>", "to " .. p.bucket)
    assert.equal("<bucket.dir>", tostring(p.bucket:dir("x")))
    assert.is_true(params.is_placeholder(p.bucket:dir("x").path))
    assert.is_false(params.is_placeholder("x"))
    for _ in pairs(p.bucket) do
      error "a placeholder has no contents"
    end
    assert.matches("no parameter `buckt` is declared", complaint(function() return p.buckt end))
  end)

  it("gives each plain type a value it could have", function()
    local d = {}
    for i, name in ipairs { "string", "integer", "number", "boolean", "duration", "size", "rate", "path", "name", "fqdn", "owner",
      "list", "map" } do
      d[i] = { "p" .. i, name, "x" }
    end
    local kinds = {}
    for i, item in ipairs(d) do
      kinds[i] = type(params.placeholders(d)[item[1]])
    end
    assert.same({ "string", "number", "number", "boolean", "number", "number", "number",
      "string", "string", "string", "string", "table", "table" }, kinds)
  end)
end)

describe("params as text", function()
  it("shows values as they were written, and secrets by name", function()
    local secret = require "runbook.types".find "secret"
    assert.equal("«secret:token»", secret.show({}, "file:x", "token"))
    local values = params.load { declaration = declaration, sets = { "bucket.name=b1", "mode=copy", "tags=a,b" } }
    local rows = {}
    for i, row in ipairs(params.show(values)) do
      rows[i] = row.name .. " " .. row.text
    end
    assert.same({ "bucket s3://b1", "window 2h", "rate -", "mode copy", "version 1", "tags a, b" }, rows)
  end)

  it("offers a look at the outside for each value whose type has one", function()
    local values = params.load { declaration = declaration, sets = { "bucket.name=b1", "mode=copy" } }
    local checks = params.checks(values)
    assert.equal(1, #checks)
    assert.equal("bucket: where to", checks[1][1])
    assert.equal("looked at b1", checks[1][2]())
  end)

  it("writes a file to fill in, in which only what is required is missing", function()
    local text = params.template(declaration, "temple")
    assert.matches("# how long\n#   a duration like 2h or 1m 30s\n# window: 2h\n", text, 1, true)
    assert.matches("\nmode:                          # required\n", text, 1, true)
    assert.matches("# tags: []\n", text, 1, true)
    local path = file(text)
    assert.equal(path .. ": 2 things to fix\n  bucket              missing: where to\n  mode                missing: what to do",
      complaint(params.load, { declaration = declaration, files = { path } }))
    -- with every comment taken from what is optional it is still YAML, and right
    local full = text:gsub("# (%l+:[^\n]*)", "%1"):gsub("bucket:[^\n]*", "bucket: {name: b1}"):gsub("mode:[^\n]*", "mode: copy")
    assert.equal(7200, params.load({ declaration = declaration, files = { file(full) } }).window)
  end)
end)
