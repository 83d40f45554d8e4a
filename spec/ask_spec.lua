local ask = require "runbook.ask"

-- Somebody who types these answers, one after the other; then the input ends.
local function sit(answers)
  local shown, n, held = {}, 0, { now = 0, most = 0 }
  ask.use {
    write = function(text) shown[#shown + 1] = text end,
    read = function(prompt, echo)
      assert.equal(1, held.now)
      n = n + 1
      shown[#shown + 1] = prompt .. (echo and answers[n] or "***") .. "\n"
      return answers[n]
    end,
    width = function() return 90 end,
    now = function() return os.time { year = 2026, month = 12, day = 5, hour = 22, min = 3 } end,
    screen = {
      hold = function() held.now = held.now + 1 end,
      release = function() held.now = held.now - 1 end,
    },
  }
  return function()
    assert.equal(0, held.now)
    return table.concat(shown), n
  end
end

after_each(function() ask.use(nil) end)

describe("a question before a disruption", function()
  local function freeze()
    return ask.disrupt {
      step = "freeze", title = "Close the old hub", index = 8, run = "temple-3", expect = "temple",
      rows = { { "who", "everyone on temple, until `open`: 37 to 42 min" }, { "now", "31 servers of 29 users" } },
    }
  end

  it("is answered by typing the name, and by nothing else", function()
    local shown = sit { "temple" }
    assert.is_true(freeze())
    assert.equal([[

 8 freeze  Close the old hub                                          temple-3   Sat 22:03

   who     everyone on temple, until `open`: 37 to 42 min
   now     31 servers of 29 users

   Type temple to go on. Enter stops here, `runbook resume` asks again: temple
]], (shown()))
    for _, no in ipairs { "", "y", "yes", "Temple", "temple2" } do
      shown = sit { no, "" }
      assert.is_false(freeze())
      local text = shown()
      assert.equal(no ~= "", text:find("That is not temple; nothing was done.", 1, true) ~= nil)
    end
  end)

  it("is declined when the input ends, and after three wrong answers", function()
    sit {}
    assert.is_false(freeze())
    local shown = sit { "a", "b", "c", "temple" }
    assert.is_false(freeze())
    assert.equal(3, select(2, shown()))
  end)

  it("shows nothing that a terminal would obey", function()
    local shown = sit { "x" }
    ask.disrupt { step = "s", title = "\27[2Jt", expect = "x", rows = { { "who", "a\27]0;b\7" } } }
    assert.is_nil(shown():find("[\27\7]"))
  end)
end)

describe("other questions", function()
  it("take the name of who did it", function()
    sit { "  ada " }
    assert.equal("ada", ask.manual { step = "m", title = "Stop the writers", text = "Hubs, workers,\ncron." })
    sit { "" }
    assert.is_nil(ask.manual { step = "m", title = "Stop the writers" })
  end)

  it("take yes, no, or Enter for the default", function()
    for answer, expected in pairs { y = true, Yes = true, n = false, NO = false } do
      sit { answer }
      assert.equal(expected, ask.yes_no { text = "Go?" })
    end
    sit { "" }
    assert.is_true(ask.yes_no { text = "Go?", default = true })
    sit { "" }
    assert.is_false(ask.yes_no { text = "Go?" })
    local shown = sit { "maybe", "y" }
    assert.is_true(ask.yes_no { text = "Go?" })
    assert.matches("Go%? %[y/N%] maybe\n   y or n, please%.\n", (shown()))
    sit {}
    assert.is_false(ask.yes_no { text = "Go?", default = true })
  end)

  it("that are simple are answered by --yes, those before a disruption never", function()
    ask.use { yes = true, write = function() end, read = function() return nil end, width = function() return 80 end, now = os.time }
    assert.is_true(ask.yes_no { text = "Go?" })
    assert.is_false(ask.disrupt { step = "s", title = "t", expect = "x", rows = {} })
    assert.is_nil(ask.manual { step = "s", title = "t" })
  end)

  it("take one of several by name or number", function()
    local choices = { { "copy", "all of it" }, "merge", "leave" }
    sit { "2" }
    assert.equal("merge", ask.choice { text = "Which?", choices = choices })
    sit { "copy" }
    assert.equal("copy", ask.choice { text = "Which?", choices = choices })
    local shown = sit { "9", "" }
    assert.is_nil(ask.choice { text = "Which?", choices = choices })
    assert.matches("There is no 9 here", (shown()))
  end)

  it("take a parameter, saying what it is and what was wrong before", function()
    local shown = sit { "nfs-old" }
    assert.equal("nfs-old", ask.parameter { name = "from", type = "host", help = "the old server" })
    assert.matches("   from %(host%): the old server\n   from = nfs%-old\n", (shown()))
    shown = sit { "s3cret" }
    assert.equal("s3cret", ask.parameter { name = "key", type = "secret" })
    assert.is_nil(shown():find("s3cret", 1, true))
    shown = sit { "" }
    assert.is_nil(ask.parameter { name = "n", type = "integer", message = "`x` is no number" })
    assert.matches("`x` is no number\n   n %(integer%)", (shown()))
  end)

  it("are not asked where nobody sits", function()
    assert.is_false(ask.available())
  end)
end)
