local redact = require "runbook.core.redact"
local secret = require "runbook.core.secret"

describe("runbook.core.secret", function()
  it("prints as its name, alone and joined", function()
    local s = secret.new("db_password", "correct horse battery")
    assert.equal("«secret:db_password»", tostring(s))
    assert.equal("pw=«secret:db_password»;", "pw=" .. s .. ";")
    assert.equal("«secret:db_password»1", s .. 1)
    assert.equal("«secret:db_password»«secret:db_password»", s .. s)
    assert.equal("<«secret:db_password»>", ("<%s>"):format(s))
    assert.equal("db_password", s:name())
    assert.is_true(secret.is(s))
    assert.is_false(secret.is "db_password")
  end)

  it("tells neither length nor order, and equals only itself", function()
    local s, t = secret.new("a", "swordfish"), secret.new("a", "swordfish")
    assert.error_matches(function() return #s end, "no length and no order")
    assert.error_matches(function() return s < t end, "no length and no order")
    assert.error_matches(function() return s <= "swordfish" end, "no length and no order")
    assert.is_false(s == t)
    assert.is_true(s == s)
    assert.error_matches(function() return s .. nil end, "concatenate a nil")
    assert.error_matches(function() return s .. {} end, "concatenate a table")
    assert.is_nil(s.bytes)
    assert.error(function() s.x = 1 end)
  end)

  it("is known to the host's redactor at once", function()
    local _, redacted = secret.new("fresh", "Tr0ub4dor&3")
    assert.is_true(redacted)
    assert.equal("login: «secret:fresh»", redact.host():text "login: Tr0ub4dor&3")
    local _, short = secret.new("pin", "123")
    assert.is_false(short)
  end)

  it("may be made of another one, and of any bytes", function()
    local s = secret.new("copy", secret.new("original", "\0\xff nul and all\n"))
    assert.equal("«secret:copy»", tostring(s))
    assert.equal("«secret:empty»", tostring(secret.new("empty", "")))
    assert.error_matches(function() secret.new("x", {}) end, "string expected")
  end)

  it("is kept out of swap and core dumps, and wiped when it is gone", function()
    local function locked()
      for line in io.lines "/proc/self/status" do
        local kilobytes = line:match "^VmLck:%s*(%d+)"
        if kilobytes then
          return tonumber(kilobytes)
        end
      end
    end
    local function undumped()
      local kilobytes, size = 0, 0
      for line in io.lines "/proc/self/smaps" do
        size = tonumber(line:match "^Size:%s*(%d+)") or size
        kilobytes = kilobytes + (line:find "^VmFlags:.* dd" and size or 0)
      end
      return kilobytes
    end
    local function sanitized() -- whose mlock does nothing
      for line in io.lines "/proc/self/maps" do
        if line:find("libasan", 1, true) then
          return true
        end
      end
      return false
    end
    collectgarbage()
    collectgarbage()
    local before, dumped = locked(), undumped()
    local s = secret.new("locked", "nobody swaps this")
    assert.equal(before + (sanitized() and 0 or 4), locked())
    assert.equal(dumped + 4, undumped())
    assert.equal("«secret:locked»", tostring(s))
    s = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.equal(before, locked())
    assert.equal(dumped, undumped())
  end)
end)
