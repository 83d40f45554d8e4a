local core = require "runbook.core.json"
local json = require "runbook.json"

local function refusal(text)
  local value, message, code = core.decode(text, 1 << 20)
  assert.is_nil(value)
  return message, code
end

local function complaint(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  return err
end

describe("json.decode", function()
  it("keeps integers, reals and null apart", function()
    local v = json.decode [[ [1, -9223372036854775808, 9223372036854775807, 1.0, 1e3, null, true, false, ""] ]]
    assert.equal("integer", math.type(v[1]))
    assert.equal(math.mininteger, v[2])
    assert.equal(math.maxinteger, v[3])
    assert.equal("float", math.type(v[4]))
    assert.equal("float", math.type(v[5]))
    assert.equal(json.null, v[6])
    assert.equal("null", tostring(v[6]))
    assert.is_true(v[7])
    assert.is_false(v[8])
    assert.equal("", v[9])
  end)

  it("remembers what an empty table was", function()
    local v = json.decode '{"a":[],"o":{}}'
    assert.equal("array", json.kind(v.a))
    assert.equal("object", json.kind(v.o))
    assert.equal('{"a":[],"o":{}}', json.encode(v))
  end)

  it("reads every escape, also NUL and pairs of surrogates", function()
    assert.equal('a"\\/\b\f\n\r\t\0\u{e9}\u{1f600}', json.decode [["a\"\\\/\b\f\n\r\t\u0000\u00e9\ud83d\ude00"]])
  end)

  it("refuses a key that stands twice, with both places", function()
    local message, code = refusal '{"a":1,\n "b":{"c":1,"d":2,"c":3}}'
    assert.equal('line 2, column 19: key "c" again; it stands at line 2, column 7 already', message)
    assert.equal("EDUPLICATE", code)
    local long = ("a"):rep(39) .. "\u{e4}" -- cut where it would be no UTF-8
    assert.matches('key "a+" again', (refusal(('{"%s":1,"%s":2}'):format(long, long))))
  end)

  it("finds a repeated key among many", function()
    local parts = {}
    for i = 1, 500 do
      parts[i] = ('"key%d":%d'):format(i, i)
    end
    local text = "{" .. table.concat(parts, ",")
    assert.equal(250, json.decode(text .. "}").key250)
    assert.matches('key "key250" again; it stands at line 1, column 3', (refusal(text .. ',"key250":0}')), 1, true)
  end)

  it("refuses numbers that would be rounded", function()
    for _, n in ipairs { "9223372036854775808", "18446744073709551616", "-9223372036854775809", "1e999" } do
      local message, code = refusal('{"n":' .. n .. "}")
      assert.matches("does not fit 64 bits", message)
      assert.equal("ESYNTAX", code)
    end
  end)

  it("says where a text stops being JSON", function()
    for text, place in pairs {
      ["{\n  \"a\": 1,\n  }"] = "line 2, column 9", ["[1,]"] = "line 1, column 3", ["[1"] = "line 1, column 3",
      ["nul"] = "line 1, column 4", ["[1] x"] = "line 1, column 5", ["\"\xff\""] = "line 1, column 2",
      ["\"\\ud800\""] = "line 1, column", [""] = "line 1, column 1", ["{'a':1}"] = "line 1, column 2",
      ["[NaN]"] = "line 1, column 2", ["[01]"] = "line 1, column", ["// c\n1"] = "line 1, column 1",
    } do
      local message, code = refusal(text)
      assert.equal("ESYNTAX", code)
      assert.is_truthy(message:find(place, 1, true), text .. ": " .. message)
    end
  end)

  it("stops at 200 levels and at the size it was given", function()
    assert.is_table(json.decode(("["):rep(200) .. ("]"):rep(200)))
    local _, code = refusal(("["):rep(201) .. ("]"):rep(201))
    assert.equal("ELIMIT", code)
    _, code = refusal(("["):rep(500000))
    assert.equal("ESYNTAX", code)
    local err = complaint(json.decode, "[1,2,3]", { max = 6, name = "answer" })
    assert.equal("limit", err.kind)
    assert.equal("answer: 7 bytes; the limit is 6", tostring(err))
  end)

  it("raises usage with the name of the text", function()
    local err = complaint(json.decode, "{", { name = "receipts.json" })
    assert.equal("usage", err.kind)
    assert.matches("^receipts.json: line 1, column 2", tostring(err))
  end)
end)

describe("json.encode", function()
  it("writes equal values as equal text", function()
    local a, b = {}, {}
    for i = 1, 40 do
      a["k" .. i], b["k" .. 41 - i] = i, 41 - i
    end
    assert.equal(json.encode(a), json.encode(b))
    assert.equal('{"a":1,"aa":2,"b":3,"é":4}', json.encode { b = 3, ["é"] = 4, aa = 2, a = 1 })
  end)

  it("keeps the kind of numbers and every digit", function()
    assert.equal("[1,1.0,-0.0,0.1,1e+300]", json.encode { 1, 1.0, -0.0, 0.1, 1e300 })
    for _, n in ipairs { 1 / 3, 5e-324, 1.7976931348623157e308, 2 ^ 53 + 2.0, math.maxinteger, math.mininteger } do
      local back = json.decode(json.encode(n))
      assert.equal(n, back)
      assert.equal(math.type(n), math.type(back))
    end
  end)

  it("takes an empty table for an object unless it was marked", function()
    assert.equal('{"a":{},"b":[],"c":{},"d":[1]}', json.encode { a = {}, b = json.array {}, c = json.object(), d = { 1 } })
  end)

  it("escapes what has to be, and what a terminal would obey", function()
    assert.equal([["\"\\\b\f\n\r\t\u0000\u001b\u007f/é"]], json.encode '"\\\b\f\n\r\t\0\27\127/é')
  end)

  it("indents for people", function()
    assert.equal('{\n  "a": [\n    1,\n    {}\n  ],\n  "b": []\n}',
      json.encode({ a = { 1, {} }, b = json.array {} }, { indent = 2 }))
  end)

  it("names the place of what has no JSON", function()
    local loop = {}
    loop.down = { { loop } }
    local holes = { 1, 2, 3, 4 }
    holes[2] = nil
    for _, case in ipairs {
      { { a = { b = { 1, print } } }, "a.b[2]: a function has no JSON" },
      { { a = 0 / 0 }, "a: a number that is infinite or not a number" },
      { { -math.huge }, "[1]: a number that is infinite" },
      { loop, "down[1][1]: a table that contains itself" },
      { { x = { 1, 2, n = 3 } }, "x: a list with keys besides" },
      { { x = { [3] = 1 } }, "x: neither a list nor a map" },
      { { x = { [true] = 1 } }, "x: neither a list nor a map" },
      { { x = { [1.5] = 1 } }, "x: neither a list nor a map" },
      { holes, "[2]: a gap in a list" },
      { json.array { a = 1 }, "the value: a list with keys besides" },
      { json.object { 1 }, "the value: neither a list nor a map" },
      { { s = "ab\xff" }, "s: byte 3 is not UTF-8" },
      { { ["\xc3"] = 1 }, "\xc3: byte 1 is not UTF-8" },
      { { co = coroutine.create(print) }, "co: a thread has no JSON" },
    } do
      local err = complaint(json.encode, case[1])
      assert.equal("usage", err.kind)
      assert.is_truthy(err.message:find(case[2], 1, true), err.message)
    end
  end)

  it("writes the same table twice when it stands in two places", function()
    local t = { 1 }
    assert.equal('{"a":[1],"b":[1]}', json.encode { a = t, b = t })
  end)

  it("stops at 200 levels", function()
    local deep = 1
    for _ = 1, 200 do
      deep = { deep }
    end
    assert.equal(401, #json.encode(deep))
    assert.equal("limit", complaint(json.encode, { deep }).kind)
  end)

  it("replaces bytes that are not UTF-8 when told to", function()
    local function lossy(s)
      return json.decode(json.encode(s, { lossy = true }))
    end
    assert.equal("a\u{fffd}b", lossy "a\xffb")
    assert.equal("\u{fffd}", lossy "\xc3")
    assert.equal("\u{fffd}\u{fffd}", lossy "\xc0\x80")
    assert.equal("\u{fffd}\u{fffd}\u{fffd}", lossy "\xed\xa0\x80")
    assert.equal("é\u{10ffff}", lossy "é\u{10ffff}")
  end)

  it("agrees with Lua on what UTF-8 is", function()
    for first = 0x80, 0xff do
      for _, rest in ipairs { "", "\x7f", "\x80", "\x8f\x80", "\x90\x80", "\x9f\xbf", "\xa0\x80", "\xbf\xbf\xbf",
        "\x8f\xbf\xbf", "\x90\x80\x80" } do
        local s = string.char(first) .. rest
        local ok = pcall(json.encode, s)
        assert.equal(utf8.len(s) ~= nil, ok, ("%q"):format(s))
      end
    end
  end)

  it("gives back what it was given, for random values", function()
    math.randomseed(7)
    local function random(depth)
      local kind = math.random(depth > 4 and 5 or 7)
      if kind == 1 then return math.random(0)
      elseif kind == 2 then return (math.random() - 0.5) * 10 ^ math.random(-300, 300)
      elseif kind == 3 then return math.random(2) == 1
      elseif kind == 4 then return json.null
      elseif kind == 5 then
        local points = {}
        for i = 1, math.random(0, 8) do
          points[i] = utf8.char(math.random(0, 0xd7ff))
        end
        return table.concat(points)
      end
      local t = kind == 6 and json.array {} or json.object {}
      for i = 1, math.random(0, 5) do
        t[kind == 6 and i or "k" .. math.random(100)] = random(depth + 1)
      end
      return t
    end
    for _ = 1, 300 do
      local v = random(0)
      local text = json.encode(v)
      local back = json.decode(text)
      assert.same(v, back)
      assert.equal(text, json.encode(back))
      assert.equal(text, json.encode(json.decode(json.encode(v, { indent = 3, sorted = false }))))
    end
  end)
end)

describe("json.items", function()
  local function all(text, key)
    local rest, next = json.items(text, key)
    local list = {}
    for item in next do
      list[#list + 1] = item
    end
    return rest, list, next
  end

  it("gives the members of a list one by one, and the rest of its object before", function()
    local rest, list, next = all('{"kind":"PodList","items":[{"n":1,"of":[]},null,"three"],"metadata":{"continue":""}}', "items")
    assert.equal('{"kind":"PodList","metadata":{"continue":""}}', json.encode(rest))
    assert.equal('[{"n":1,"of":[]},null,"three"]', json.encode(list))
    assert.is_nil(next())
  end)

  it("gives nothing where there is no list", function()
    for _, text in ipairs { '{"items":null}', '{"items":{"a":1}}', '{"others":[1]}', "[1,2]", "7" } do
      local rest, list = all(text, "items")
      assert.equal(text, json.encode(rest))
      assert.same({}, list)
    end
    assert.equal('{"items":[]}', json.encode((json.items('{"items":[]}', "other"))))
  end)

  it("refuses a list with a fault in it before its first member", function()
    local err = complaint(json.items, '{"items":[{"a":1},{"a":1,"a":2}]}', "items", { name = "pods" })
    assert.matches('key "a" again', err.message, 1, true)
    assert.equal("pods", err.target)
  end)

  it("may be left in the middle", function()
    for _ = 1, 100 do
      local _, next = json.items('{"items":[[1],[2],[3]]}', "items")
      assert.same(json.array { 1 }, next())
    end
    collectgarbage()
  end)
end)
