local digest = require "runbook.core.digest"
local redact = require "runbook.core.redact"
local secret = require "runbook.core.secret"

local function with(secrets)
  local r = redact.new()
  for name, bytes in pairs(secrets) do
    assert.is_true(r:add(name, bytes))
  end
  return r
end

-- The text in parts of random length, as a stream would bring it.
local function in_parts(r, text, longest)
  local st <close> = r:stream()
  local shown, at = {}, 1
  while at <= #text do
    local n = math.random(0, longest)
    shown[#shown + 1] = st:feed(text:sub(at, at + n - 1))
    at = at + n
  end
  shown[#shown + 1] = st:flush()
  return table.concat(shown)
end

local function random_text(alphabet, length)
  local t = {}
  for i = 1, length do
    local k = math.random(#alphabet)
    t[i] = alphabet:sub(k, k)
  end
  return table.concat(t)
end

-- What redaction means, position by position.
local function by_hand(names, text)
  local marks, at, stop, named, name = {}, 1, 0, 0, nil
  local function close()
    if name then
      marks[#marks + 1] = "«secret:" .. name .. "»"
      name = nil
    end
  end
  while at <= #text do
    local longest
    for _, one in ipairs(names) do
      if text:sub(at, at + #one - 1) == one and (not longest or #one > #longest) then
        longest = one
      end
    end
    if at > stop then
      close()
    end
    if longest then
      if not name or #longest > named then
        named, name = #longest, longest
      end
      stop = math.max(stop, at + #longest - 1)
    end
    if at > stop then
      marks[#marks + 1] = text:sub(at, at)
    end
    at = at + 1
  end
  close()
  return table.concat(marks)
end

describe("runbook.core.redact", function()
  before_each(function()
    math.randomseed(20240501)
  end)

  it("replaces what it knows and nothing else", function()
    local r = with { db = "hunter2hunter2", token = "t0ken!" }
    assert.equal("a «secret:db» b «secret:token»«secret:token» c", r:text "a hunter2hunter2 b t0ken!t0ken! c")
    assert.equal("nothing here", r:text "nothing here")
    assert.equal("", r:text "")
    assert.equal("hunter2 t0ken?", r:text "hunter2 t0ken?")
  end)

  it("lets the longest name a match, and makes one of matches that overlap", function()
    local r = with { short = "abcd", long = "abcdefgh", across = "ghijkl" }
    assert.equal("<«secret:short»>", r:text "<abcd>")
    assert.equal("<«secret:long»>", r:text "<abcdefgh>")
    assert.equal("<«secret:long»>", r:text "<abcdefghijkl>")
    assert.equal("<«secret:short»efg>", r:text "<abcdefg>")
  end)

  it("finds secrets wherever the text is cut", function()
    local r = with { one = "swordfish", two = "fishmonger's" }
    local text = "a swordfish b fishmonger's c swordfishmonger's d"
    local whole = r:text(text)
    assert.equal("a «secret:one» b «secret:two» c «secret:two» d", whole)
    for cut = 0, #text do
      local st = r:stream()
      assert.equal(whole, st:feed(text:sub(1, cut)) .. st:feed(text:sub(cut + 1)) .. st:flush())
    end
    assert.equal(whole, in_parts(r, text, 1))
  end)

  it("keeps back only what may be the beginning of a secret", function()
    local r = with { one = "password" }
    local st = r:stream()
    assert.equal("no p", st:feed "no p" .. st:flush())
    assert.equal("hello ", st:feed "hello pass")
    assert.equal("pass the ", st:feed " the p")
    assert.equal("", st:feed "assw")
    assert.equal("«secret:one»", st:feed "ord")
    assert.equal("all of it", st:feed "all of it")
    assert.equal("", st:feed "passwor")
    assert.equal("passwor", st:flush())
    assert.equal("d", st:feed "d")
  end)

  it("does the same as reading position by position, however secrets overlap", function()
    for round = 1, 400 do
      local r, names, known = redact.new(), {}, {}
      for _ = 1, math.random(1, 6) do
        local one = random_text("ab", math.random(4, 9))
        if not known[one] then
          known[one], names[#names + 1] = true, one
          r:add(one, one)
        end
      end
      local text = random_text("ab", math.random(0, 60))
      local expected = by_hand(names, text)
      assert.equal(expected, r:text(text), "round " .. round)
      assert.equal(expected, in_parts(r, text, math.random(1, 12)), "round " .. round)
    end
  end)

  it("finds base64 of whatever a secret is a part of", function()
    for round = 1, 200 do
      local bytes = "<" .. digest.random(math.random(2, 60)) .. ">" -- blanks at the ends would not count
      local r = with { key = bytes }
      local before, after = digest.random(math.random(0, 5)), digest.random(math.random(0, 5))
      local text = digest.base64(before .. bytes .. after)
      for _, spelled in ipairs { text, (text:gsub("[+/]", { ["+"] = "-", ["/"] = "_" })) } do
        local shown = in_parts(r, "«" .. spelled .. "»", 7)
        local left = shown:match "^«(.*)«secret:key»" .. shown:match "«secret:key»(.*)»$"
        -- What stays are the characters that hold bits of something else.
        local inside = 8 * (#before + #bytes) // 6 - (8 * #before + 5) // 6
        assert.equal(#text - inside, #left, round .. ": " .. shown)
      end
    end
  end)

  it("finds base64 that was wrapped", function()
    local bytes = "<" .. digest.random(298) .. ">" -- 400 characters, no padding
    local r = with { key = bytes }
    for width, rest in pairs { [64] = 16, [76] = 20 } do
      local text = digest.base64(bytes)
      local wrapped = text:gsub(("."):rep(width), "%0\n")
      local lines = #text // width
      assert.equal(rest, #text % width)
      assert.equal(("«secret:key»\n"):rep(lines) .. "«secret:key»", r:text(wrapped))
    end
  end)

  it("finds a key line by line, but not its frame", function()
    local pair = digest.ed25519 "k"
    local r = redact.new()
    r:add("key", pair.private)
    local lines = "-----BEGIN OPENSSH PRIVATE KEY-----"
    assert.equal(lines, r:text(lines))
    r:add("pem", "-----BEGIN KEY-----\r\nMIIEvQIBADANBgkqhkiG9w0BAQ\r\nEFAASCBKcwggSjAgEAAoIBAQ\r\n-----END KEY-----\r\n")
    assert.equal("1: «secret:pem»\n2: «secret:pem»\n",
      r:text "1: MIIEvQIBADANBgkqhkiG9w0BAQ\n2: EFAASCBKcwggSjAgEAAoIBAQ\n")
  end)

  it("finds the spellings of URLs, JSON and shells", function()
    local bytes = "p w/d+\"q'\\$é&<\n1"
    local r = with { pw = bytes }
    for _, spelled in ipairs {
      bytes,
      "p%20w%2Fd%2B%22q%27%5C%24%C3%A9%26%3C%0A1", "p%20w%2fd%2b%22q%27%5c%24%c3%a9%26%3c%0a1",
      "p+w%2Fd%2B%22q%27%5C%24%C3%A9%26%3C%0A1", "p%20w%2Fd%2B%22q'%5C%24%C3%A9%26%3C%0A1",
      "p%20w/d%2B%22q%27%5C%24%C3%A9%26%3C%0A1",
      [[p w/d+\"q'\\$é&<\n1]], [[p w/d+\"q'\\$\u00e9&<\n1]], [[p w/d+\"q'\\$é\u0026\u003c\n1]], [[p w\/d+\"q'\\$\u00e9&<\n1]],
      [[p w/d+\"q'\\$\u00E9&<\n1]],
      "p w/d+\"q'\\''\\$é&<\n1", "p w/d+\"q'\"'\"'\\$é&<\n1", "p w/d+\\\"q'\\\\\\$é&<\n1",
    } do
      assert.equal("<«secret:pw»>", r:text("<" .. spelled .. ">"), spelled)
      assert.equal("<«secret:pw»>", in_parts(r, "<" .. spelled .. ">", 3), spelled)
    end
  end)

  it("escapes characters beyond the first plane as JSON does", function()
    local r = with { pw = "key\u{1f511}key" }
    assert.equal("«secret:pw»", r:text [[key\ud83d\udd11key]])
  end)

  it("takes bytes that are no text", function()
    for _ = 1, 100 do
      local bytes = "\xff" .. digest.random(math.random(2, 40)) .. "\0"
      assert.equal("\0«secret:raw»\0", in_parts(with { raw = bytes }, "\0" .. bytes .. "\0", 5))
    end
  end)

  it("says what is too short, and does not look for it", function()
    local r = redact.new()
    assert.is_false(r:add("pin", "123"))
    assert.is_false(r:add("blank", "  12 \n"))
    assert.is_false(r:add("none", ""))
    assert.equal("123 12", r:text "123 12")
    assert.is_true(r:add("line", "1234\n"))
    assert.equal("a«secret:line»b", r:text "a1234b")
  end)

  it("keeps the first name of a secret that has two", function()
    local r = redact.new()
    r:add("first", "swordfish")
    r:add("second", "swordfish")
    r:add("third", "something else")
    assert.equal("«secret:first»", r:text "swordfish")
  end)

  it("learns while streams are open", function()
    local r = redact.new()
    local st = r:stream()
    assert.equal("swordfish ", st:feed "swordfish ")
    r:add("pw", "swordfish")
    assert.equal("«secret:pw» ", st:feed "swordfish ")
  end)

  it("outlives the values it was given, and its streams outlive their variables", function()
    local st
    do
      local r = redact.new()
      r:add("pw", secret.new("pw", "swordfish"))
      st = r:stream()
    end
    collectgarbage()
    collectgarbage()
    assert.equal("«secret:pw»!", st:feed "swordfish!")
    st:close()
    st:close()
    assert.error_matches(function() st:feed "x" end, "stream is closed")
  end)

  it("never leaks one of a hundred secrets in a stream of everything", function()
    local r, secrets = redact.new(), {}
    for i = 1, 100 do
      secrets[i] = random_text("abcdefghijklmnopqrstuvwxyz0123456789!$'\"\\/ %&", math.random(8, 40)):gsub("^ ", "x"):gsub(" $", "x")
      r:add("s" .. i, secrets[i])
    end
    local parts = {}
    for i = 1, 2000 do
      local one = secrets[math.random(100)]
      local spelled = ({ one, digest.base64(one), digest.base64("x" .. one), one:gsub("'", [['\'']]) })[math.random(4)]
      parts[i] = random_text("abcdefghij klmnopqr\nstuvwxyz", math.random(0, 200)) .. spelled
    end
    local text = table.concat(parts, " ")
    local shown = in_parts(r, text, 400)
    assert.equal(r:text(text), shown)
    for i = 1, 100 do
      assert.is_nil(shown:find(secrets[i], 1, true))
      assert.is_nil(shown:find(digest.base64(secrets[i]):gsub("=+$", ""):sub(1, -2), 1, true))
    end
    local _, marks = shown:gsub("«secret:s%d+»", "")
    assert.equal(2000, marks)
  end)
end)
