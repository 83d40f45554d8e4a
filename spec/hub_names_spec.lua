-- Expected names were made by kubespawner 7.1's own slugs.py with python-escapism 1.0, from which nothing of ours is taken.

local errors = require "runbook.errors"
local names = require "runbook.hub.names"

local A48, A49 = ("a"):rep(48), ("a"):rep(49)

describe("a user's name", function()
  it("is escaped byte by byte in the old scheme", function()
    for name, want in pairs {
      ["alice-b"] = "alice-2db", ["alice@uni.edu"] = "alice-40uni-2eedu", ["Bob"] = "-42ob", ["josé"] = "jos-c3-a9",
      ["auth0|5f"] = "auth0-7c5f", ["a\n"] = "a-a", [""] = "", ["1234"] = "1234",
    } do
      assert.equal(want, names.escape(name))
    end
  end)

  it("stays itself in the new scheme when it is a DNS label, and gets a digest when not", function()
    for name, want in pairs {
      ["alice-b"] = "alice-b", ["alice@uni.edu"] = "alice-uni-edu---01b8dabb", ["Bob"] = "bob---cd9fb1e1", ["1234"] = "x-1234---03ac6742",
      ["a--b"] = "a-b---90827a2e", [""] = "x---e3b0c442", [A48] = A48, [A49] = ("a"):rep(37) .. "---8f9bec6a",
      ["josé"] = "jos---d994e1d0", ["\u{212A}elvin"] = "kelvin---4a274a98",
    } do
      assert.equal(want, names.safe(name))
    end
  end)

  it("is never that of another user", function()
    local seen = {}
    for _, name in ipairs { "a-b", "a--b", "a_b", "a.b", "A-b", "a-b---90827a2e", "a@b", "a b", "ab" } do
      for _, scheme in ipairs { "safe", "escape" } do
        local slug = scheme .. " " .. names[scheme](name)
        assert.is_nil(seen[slug], name)
        seen[slug] = name
      end
    end
  end)
end)

describe("a template", function()
  local function expand(template, user)
    user.scheme = user.scheme or "safe"
    return names.expand(template, user)
  end

  it("follows the hub's scheme, and each scheme by name", function()
    local user = { name = "alice@uni.edu", id = 7 }
    assert.equal("home/alice-uni-edu---01b8dabb", expand("home/{username}", user))
    assert.equal("alice-40uni-2eedu", expand("{escaped_username}", user))
    assert.equal("claim-7", expand("claim-{userid}", user))
    user.scheme = "escape"
    assert.equal("alice-40uni-2eedu", expand("{username}", user))
    assert.equal("alice-uni-edu---01b8dabb", expand("{safe_username}", user))
    assert.equal("alice@uni.edu", expand("{unescaped_username}", user))
  end)

  it("names a server, and leaves no hyphen when there is none", function()
    assert.equal("jupyter-ann", expand("jupyter-{username}--{servername}", { name = "ann" }))
    assert.equal("jupyter-ann--lab", expand("jupyter-{user_server}", { name = "ann", server = "lab" }))
    assert.equal("ann--my-server---c2d9a82f", expand("{user_server}", { name = "ann", server = "My Server" }))
    assert.equal("x-", expand("x-", { name = "ann" }))
  end)

  it("keeps both names short when together they are too long", function()
    local slug = expand("{user_server}", { name = ("a"):rep(40), server = ("b"):rep(40) })
    assert.equal(("a"):rep(17) .. "--" .. ("b"):rep(17) .. "---", slug:sub(1, -9))
  end)

  it("may hold braces of its own", function()
    assert.equal("{ann}", expand("{{{username}}}", { name = "ann" }))
  end)

  it("with a field that is not known is refused, with the nearest", function()
    local ok, err = pcall(expand, "{usrname}", { name = "ann" })
    assert.is_false(ok)
    assert.equal("usage", errors.is(err) and err.kind)
    assert.equal("did you mean {username}?", err.hint)
  end)
end)
