describe("runbook.retry", function()
  local errors = require "runbook.errors"
  local events = require "runbook.events"
  local retry = require "runbook.retry"

  local first, longest
  local notices, unsubscribe

  before_each(function()
    first, longest = retry.first_delay, retry.longest_delay
    retry.first_delay, retry.longest_delay = 0.001, 0.002
    notices = {}
    unsubscribe = events.subscribe(function(e) notices[#notices + 1] = e.type == "notice" and e or nil end)
  end)

  after_each(function()
    retry.first_delay, retry.longest_delay = first, longest
    unsubscribe()
  end)

  -- Calls something that fails with these kinds, one after the other, then succeeds.
  local function calls(kinds, o)
    local n = 0
    local ok, result = pcall(retry.call, { target = "t", what = "trying", reads = o and o.reads, tries = o and o.tries }, function()
      n = n + 1
      if kinds[n] then
        errors.raise { kind = kinds[n], message = kinds[n] .. (o and o.different and o.different:format(n) or ""), code = o and o.code }
      end
      return "done"
    end)
    return n, ok, result
  end

  it("tries again where nothing was done, and says why and when", function()
    assert.same({ 3, true, "done" }, { calls { "unreachable", "busy" } })
    assert.equal(2, #notices)
    assert.equal("t", notices[1].target)
    assert.is_number(notices[1].delay)
    assert.matches("unreachable; trying again in", notices[1].text)
  end)

  it("tries lost and timeout again only for reads", function()
    for _, kind in ipairs { "lost", "timeout" } do
      assert.equal(1, (calls { kind }))
      assert.equal(2, (calls({ kind }, { reads = true })))
    end
  end)

  it("never repeats what a person has to mend", function()
    for _, kind in ipairs { "usage", "auth", "identity", "refused", "exit", "missing", "full", "limit", "conflict", "internal" } do
      assert.equal(1, (calls({ kind }, { reads = true })), kind)
    end
    assert.equal(1, (calls({ "unreachable" }, { code = "EAI_NONAME" })))
  end)

  it("gives up when the same error came ten times in a row, and not before", function()
    local many = {}
    for i = 1, 12 do
      many[i] = "unreachable"
    end
    local n, ok, err = calls(many)
    assert.equal(10, n)
    assert.is_false(ok)
    assert.equal(10, err.tries)
    assert.equal(13, (calls(many, { different = " %d" })))
    assert.equal(10, (calls(many, { different = ": no answer after %d ms" })))
    assert.equal(3, (calls(many, { tries = 3 })))
    assert.equal(3, (calls(many, { tries = 3, different = " %d" })))
  end)

  it("does not take a mistake in Lua for bad luck", function()
    local n = 0
    assert.is_false((pcall(retry.call, { target = "t", what = "x", reads = true }, function()
      n = n + 1
      error "boom"
    end)))
    assert.equal(1, n)
  end)

  it("waits longer each time, never longer than the longest, never all at once", function()
    retry.first_delay, retry.longest_delay = 0.5, 30
    for n, most in ipairs { 0.5, 1, 2, 4, 8, 16, 30, 30 } do
      for _ = 1, 20 do
        local delay = retry.delay(n)
        assert.is_true(delay >= most / 2 and delay <= most)
      end
    end
  end)
end)
