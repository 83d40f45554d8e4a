local unknown = require "runbook.unknown"

describe("an unknown", function()
  local u = unknown.new "the address"

  -- Each operator of Lua: those it can see end the plan, the rest cannot be seen.
  local traps = {
    ["+"] = function() return u + 1 end, ["-"] = function() return 1 - u end, ["*"] = function() return u * u end,
    ["/"] = function() return u / 2 end, ["%"] = function() return u % 2 end, ["^"] = function() return u ^ 2 end,
    ["//"] = function() return u // 2 end, ["unary -"] = function() return -u end, ["&"] = function() return u & 1 end,
    ["|"] = function() return 1 | u end, ["~"] = function() return u ~ 1 end, ["unary ~"] = function() return ~u end,
    ["<<"] = function() return u << 1 end, [">>"] = function() return u >> 1 end, ["#"] = function() return #u end,
    ["<"] = function() return u < 1 end, ["<="] = function() return 1 <= u end, [">"] = function() return u > "x" end,
    ["== with another unknown"] = function() return u == unknown.new "x" end,
    ["call"] = function() return u() end, ["pairs"] = function() return pairs(u) end,
    ["assignment"] = function() u.x = 1 end, ["method call"] = function() return u:lower() end,
  }

  for operator, fn in pairs(traps) do
    it("ends the plan at " .. operator, function()
      local ok, err = pcall(fn)
      assert.is_false(ok)
      assert.is_true(err.plan_end)
      assert.equal("unknown", err.kind)
      assert.matches("the address", err.unknown)
    end)
  end

  it("leaves a mark in concatenation, format and tostring", function()
    for _, text in ipairs { "a" .. u, u .. "b", u .. u, ("%s!"):format(u), tostring(u), ("x" .. u):upper():lower() } do
      assert.is_true(unknown.is(text), text)
    end
  end)

  it("has fields that are unknown, and is seen in plain tables", function()
    assert.is_true(unknown.is(u.ip))
    assert.is_true(unknown.is { 1, { x = "to " .. u } })
    assert.is_false(unknown.is { 1, { x = "to" } })
    assert.is_false(unknown.is "x")
  end)

  it("cannot be seen by a test for truth or equality, which is why these are not promised", function()
    assert.is_true(u and true)
    assert.is_false(u == "x") -- luacheck: ignore
  end)
end)
