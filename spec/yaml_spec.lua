local core = require "runbook.core.yaml"
local yaml = require "runbook.yaml"

local function refusal(text)
  local value, message, code = core.decode(text, false, false)
  assert.is_nil(value)
  return message, code
end

local function complaint(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  return err
end

describe("yaml.decode", function()
  it("takes words of YAML 1.1 for the strings they are", function()
    for _, word in ipairs { "no", "Yes", "on", "OFF", "y", "n", "12:30", "1_000", "0b11", "2001-01-01", "0x", "0o", "0o8",
      "0xG", "-0x1", "+", "-", ".", "1e", "e1", "1.2.3", ".infinity", "+.nan", "nUll", "tRue", "=", "1000:1000" } do
      local v = yaml.decode("a: " .. (word == "-" and "'-'" or word))
      assert.equal(word, v.a)
    end
  end)

  it("reads the numbers of the core schema", function()
    for word, n in pairs { ["0"] = 0, ["-12"] = -12, ["+7"] = 7, ["012"] = 12, ["0o17"] = 15, ["0x1F"] = 31,
      ["9223372036854775807"] = math.maxinteger, ["-9223372036854775808"] = math.mininteger } do
      local v = yaml.decode(word)
      assert.equal(n, v)
      assert.equal("integer", math.type(v))
    end
    for word, n in pairs { ["1.5"] = 1.5, [".5"] = .5, ["1."] = 1.0, ["1e3"] = 1e3, ["-1.5E-2"] = -1.5e-2, ["+.5"] = .5,
      [".inf"] = math.huge, ["-.Inf"] = -math.huge, ["+.INF"] = math.huge } do
      local v = yaml.decode(word)
      assert.equal(n, v)
      assert.equal("float", math.type(v))
    end
    local nan = yaml.decode ".NaN"
    assert.is_true(nan ~= nan)
  end)

  it("reads null and booleans only as they are written in 1.2", function()
    for _, word in ipairs { "", "~", "null", "Null", "NULL" } do
      assert.equal(yaml.null, yaml.decode("a: " .. word).a)
    end
    assert.same({ true, true, true, false, false, false }, yaml.decode "[true, True, TRUE, false, False, FALSE]")
    assert.same({ no = "yes" }, yaml.decode "%YAML 1.1\n---\nno: yes\n")
  end)

  it("leaves quoted and tagged text as it is", function()
    assert.same({ "1", "null", "12", "true", "x" }, yaml.decode "['1', \"null\", !!str 12, ! true, 'x']")
    assert.equal("float", math.type(yaml.decode "!!float 3"))
    assert.equal(3, yaml.decode "!!int '3'")
    assert.matches("tag `tag:yaml.org,2002:int`", (refusal "!!int x"), 1, true)
    assert.matches("tag `!vault` does not fit here", (refusal "a: !vault |\n  x"), 1, true)
    assert.matches("tag `tag:yaml.org,2002:map` does not fit", (refusal "!!map [1]"), 1, true)
    assert.matches("tag `tag:yaml.org,2002:binary`", (refusal "!!binary aGk="), 1, true)
  end)

  it("refuses a key that stands twice, with both lines", function()
    local message, code = refusal "a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n"
    assert.equal("line 5, column 3: key `c` again; it stands in line 3 already", message)
    assert.equal("EDUPLICATE", code)
    assert.matches("key `a` again", (refusal '{a: 1, "a": 2}'))
    assert.same({ a = 1, A = 2, ["a\0"] = 3 }, yaml.decode '{a: 1, A: 2, "a\\0": 3}')
  end)

  it("refuses keys that are no strings, and the merge key", function()
    assert.equal("line 2, column 1: key `80` is a number; keys are strings, put it in quotes", (refusal "a: 1\n80: b"))
    assert.matches("key `true` is true or false", (refusal "true: b"))
    assert.matches("is empty", (refusal "~: b"))
    assert.matches("a key is a list", (refusal "? [a]\n: b"))
    assert.matches("a key is a map", (refusal "{{a: b}: c}"))
    assert.matches("a key is an alias", (refusal "a: &x k\n*x : b"))
    assert.matches("`<<` merges maps in YAML 1.1 only", (refusal "a: &x {b: 1}\nc:\n  <<: *x"), 1, true)
    assert.same({ ["<<"] = 1 }, yaml.decode "'<<': 1")
  end)

  it("gives each alias a table of its own", function()
    local v = yaml.decode "a: &x {b: [1]}\nc: *x\nd: &x 2\ne: *x"
    assert.same({ a = { b = { 1 } }, c = { b = { 1 } }, d = 2, e = 2 }, v)
    assert.is_false(rawequal(v.a, v.c))
  end)

  it("refuses aliases that name nothing, or themselves", function()
    assert.matches("alias `*x` stands inside what it names", (refusal "a: &x [*x]"), 1, true)
    assert.matches("alias `*y` names nothing above it", (refusal "a: *y"), 1, true)
    assert.is_false(pcall(yaml.decode, "--- &x 1\n--- *x", { many = true }))
  end)

  it("stops a bomb before it goes off", function()
    local lines = { "a0: &a0 [x, x, x, x, x, x, x, x, x, x]" }
    for i = 1, 30 do
      local name = ("*a%d"):format(i - 1)
      lines[#lines + 1] = ("a%d: &a%d [%s]"):format(i, i, table.concat({ name, name, name, name, name, name, name, name, name }, ", "))
    end
    local began = os.clock()
    local message, code = refusal(table.concat(lines, "\n"))
    assert.matches("more than 1000000 values once aliases are written out", message)
    assert.equal("ELIMIT", code)
    local long = ('a: &a "%s"\nb: [%s]'):format(("x"):rep(1 << 20), ("*a, "):rep(40))
    assert.equal("ELIMIT", select(2, refusal(long)))
    local chain = { "a0: &a0 [1]" }
    for i = 1, 150 do
      chain[#chain + 1] = ("a%d: &a%d [*a%d]"):format(i, i, i - 1)
    end
    assert.matches("nested more than 100 deep once aliases", (refusal(table.concat(chain, "\n"))))
    assert.is_true(os.clock() - began < 5)
  end)

  it("stops at 100 levels while it reads", function()
    local began = os.clock()
    for _, text in ipairs { ("["):rep(100000), ("{a: "):rep(100000), ("- "):rep(100000) } do
      local message, code = refusal(text)
      assert.matches("nested more than 100 deep", message)
      assert.equal("ELIMIT", code)
    end
    assert.is_true(os.clock() - began < 2)
    assert.is_table(yaml.decode(("["):rep(100) .. ("]"):rep(100)))
  end)

  it("stops at 8 MiB, at too many values and at too many anchors", function()
    assert.equal("8388609 bytes; the limit is 8388608", (refusal((" "):rep(8388609))))
    assert.equal("ELIMIT", select(2, refusal("[" .. ("1,"):rep(1100000) .. "]")))
    local anchors = {}
    for i = 1, 1001 do
      anchors[i] = ("- &a%d x"):format(i)
    end
    assert.matches("more than 1000 anchors", (refusal(table.concat(anchors, "\n"))))
  end)

  it("says where a text stops being YAML", function()
    for text, place in pairs {
      ["a: [1, 2\nb: }"] = "line 2, column 2", ["\ta: 1"] = "line 1, column 1", ["a: b: c"] = "line 1, column 5",
      ["a: 'x"] = "line 1, column 6", ["a: \xff"] = "byte 4", ["a:\n - 1\n b: 2"] = "line 3, column 2",
      ["- @x"] = "line 1, column 3", ["\0"] = "byte", ["a: 99999999999999999999"] = "line 1, column 4",
    } do
      local message, code = refusal(text)
      assert.equal("ESYNTAX", code)
      assert.is_truthy(message:find(place, 1, true), text .. ": " .. message)
    end
  end)

  it("says in words what a tab does", function()
    assert.equal("line 2, column 1: a tab, %, @ or ` cannot stand here; indent with spaces, and put text in quotes", (refusal "a:\n\tb: 1"))
  end)

  it("takes one document, or a list of all", function()
    assert.same({ 1, yaml.null, { a = 2 } }, yaml.decode("--- 1\n---\n--- {a: 2}\n...\n", { many = true }))
    assert.same({}, yaml.decode("# nothing\n", { many = true }))
    assert.equal(yaml.null, yaml.decode "")
    assert.equal("line 3: a second document begins; one was expected", (refusal "a: 1\n---\n2"))
  end)

  it("returns the line of every path, and the words of what is no string", function()
    local text = "# a comment\nhomes:\n  from:\n    ssh: nfs-old\n    sudo: true\n  exclude:\n" ..
      "    - .cache/\n    - [x, 1.10]\n\nwindow: {lasts: 2h, n: 0x1F}\n"
    local v, lines, words = yaml.decode(text, { marks = true })
    assert.equal(31, v.window.n)
    assert.same({
      homes = 2, ["homes.from"] = 3, ["homes.from.ssh"] = 4, ["homes.from.sudo"] = 5, ["homes.exclude"] = 6,
      ["homes.exclude.1"] = 7, ["homes.exclude.2"] = 8, ["homes.exclude.2.1"] = 8, ["homes.exclude.2.2"] = 8,
      window = 10, ["window.lasts"] = 10, ["window.n"] = 10,
    }, lines)
    assert.same({ ["homes.from.sudo"] = "true", ["homes.exclude.2.2"] = "1.10", ["window.n"] = "0x1F" }, words)
  end)

  it("raises usage or limit, with the name of the text", function()
    local err = complaint(yaml.decode, "a: 1\na: 2", { name = "hubs/temple.yaml" })
    assert.equal("usage", err.kind)
    assert.matches("^hubs/temple.yaml: line 2", tostring(err))
    assert.equal("limit", complaint(yaml.decode, ("["):rep(200)).kind)
  end)
end)

describe("yaml.encode", function()
  it("writes what people like to read", function()
    assert.equal([[
name: temple
# who may log in
# (nobody, yet)
admins: []
homes:
  exclude:
    - .cache/
    - - 1
      - 2.0
    - a: 1
      b:
        - 2
  # where
  from: nfs-old:/export
leave: {}
script: |
  set -e
    echo "x: y"

  true
]], yaml.encode({
      name = "temple", admins = yaml.array {}, leave = {}, script = 'set -e\n  echo "x: y"\n\ntrue\n',
      homes = { from = "nfs-old:/export", exclude = { ".cache/", { 1, 2.0 }, { b = { 2 }, a = 1 } } },
    }, { order = { "name", "admins" }, comments = { admins = "who may log in\n(nobody, yet)", ["homes.from"] = "where" } }))
  end)

  it("quotes what some YAML would take for something else", function()
    for _, word in ipairs { "no", "Yes", "ON", "off", "y", "N", "null", "~", "", "true", "1", "-1", "+1", "0123", "0o17", "0x1f", "0b1",
      "1_000", "1e3", "1.5", ".5", "5.", ".inf", "-.INF", ".nan", "12:30", "190:20:30.15", "2001-01-01", "2026-12-05T22:00-05:00",
      "<<", "=", "- x", "-", "?", "? x", ": x", ":", "a: b", "a:", "a #b", "#a", "&a", "*a", "!a", "|", ">", "'a'", '"a"', "%a",
      "@a", "`a`", "[a", "]a", "{a", "}a", ",a", " a", "a ", "a\tb", "a\rb", "---", "...", "1,000", "." } do
      assert.equal('"', yaml.encode(word):sub(1, 1))
      assert.equal(word, yaml.decode(yaml.encode(word)))
    end
    for _, word in ipairs { "temple", "100 MB/s", "2h", "nfs-old.example", "/export/a b", "a-b", "a:b", "a#b", "2i2c.cloud", "auth0|5f",
      "SHA256:Qk3+x/0", "é", "a'b", "nothing", "it's" } do
      assert.equal(word .. "\n", yaml.encode(word))
    end
  end)

  it("writes keys as carefully as values", function()
    local v = { ["no"] = 1, ["1"] = 2, ["a: b"] = 3, [""] = 4, ["<<"] = 5, ["a\nb"] = 6, [("k"):rep(2000)] = { 7 }, ["# x"] = 8 }
    assert.same(v, yaml.decode(yaml.encode(v)))
  end)

  it("refuses what YAML cannot say, with its path", function()
    local loop = {}
    loop.a = { loop }
    for _, case in ipairs {
      { { a = { print } }, "a.1: a function has no YAML" }, { loop, "a.1: a table that contains itself" },
      { { a = { 1, x = 2 } }, "a: neither a list nor a map" }, { { a = { [2] = 1 } }, "a: neither a list nor a map" },
      { { a = "\xff" }, "a: not UTF-8" }, { { ["\xff"] = 1 }, "not UTF-8" },
    } do
      local err = complaint(yaml.encode, case[1])
      assert.equal("usage", err.kind)
      assert.is_truthy(err.message:find(case[2], 1, true), err.message)
    end
  end)

  it("gives back what it was given, for random values", function()
    math.randomseed(11)
    local pieces = { "a", "B", " ", "\n", "\n\n", "\t", ":", "#", "-", "'", '"', "\\", "1", "0x", ".", "e", "é", "\u{2028}", "\u{85}",
      "\u{feff}", "\u{fffe}", "\u{1f600}", "\r", "\0", "\27", "\127", "[", "}", ",", "&", "|", "%", "---", "...", "no", "~", "? ", "- " }
    local function text()
      local parts = {}
      for i = 1, math.random(0, 6) do
        parts[i] = pieces[math.random(#pieces)]
      end
      return table.concat(parts)
    end
    local function random(depth)
      local kind = math.random(depth > 4 and 6 or 8)
      if kind == 1 then return math.random(0)
      elseif kind == 2 then return (math.random() - 0.5) * 10 ^ math.random(-300, 300)
      elseif kind == 3 then return math.random(2) == 1
      elseif kind == 4 then return yaml.null
      elseif kind <= 6 then return text() end
      local t = kind == 7 and yaml.array {} or yaml.object {}
      for i = 1, math.random(0, 5) do
        t[kind == 7 and i or text()] = random(depth + 1)
      end
      return t
    end
    for _ = 1, 1500 do
      local v = random(0)
      local written = yaml.encode(v)
      local ok, back = pcall(yaml.decode, written)
      assert.is_true(ok, tostring(back) .. "\n" .. written)
      assert.same(v, back)
      assert.equal(written, yaml.encode(back))
    end
  end)
end)
