local human = require "runbook.human"
local screen = require "runbook.screen"
local visible = require "runbook.visible"

local T0 = 1796421730 -- 2026-12-04 22:02:10 UTC

-- A screen that writes into a table, with a clock of its own.
local function new(o)
  local at, out = T0, {}
  o = o or {}
  o.write = function(text) out[#out + 1] = text end
  o.now = function() return at end
  o.width = o.width or function() return 100 end
  local s = screen.new(o)
  return {
    screen = s,
    feed = function(events)
      for _, e in ipairs(events) do
        e.at, e.run = e.at or at, "move-1"
        s:event(e)
      end
    end,
    wait = function(seconds) at = at + seconds end,
    text = function() return table.concat(out) end,
    clear = function() for i = #out, 1, -1 do out[i] = nil end end,
  }
end

-- What a terminal of that width shows after these bytes: knows the few sequences the screen writes.
local function render(bytes, columns)
  local rows, y, x = { {} }, 1, 1
  local i = 1
  while i <= #bytes do
    local up = bytes:match("^\27%[(%d+)A", i)
    if up then
      y, i = y - tonumber(up), i + #up + 3
      assert(y >= 1, "the cursor leaves the screen")
    elseif bytes:find("^\27%[J", i) then
      for k = #rows, y + 1, -1 do rows[k] = nil end
      for k = #rows[y], x, -1 do rows[y][k] = nil end
      i = i + 3
    elseif bytes:find("^\27%[K", i) then
      for k = #rows[y], x, -1 do rows[y][k] = nil end
      i = i + 3
    elseif bytes:find("^\27%[[%d]*m", i) then
      i = select(2, bytes:find("^\27%[[%d]*m", i)) + 1
    else
      local c = bytes:sub(i, i)
      assert(c ~= "\27", "an unexpected sequence")
      if c == "\n" then
        y, x = y + 1, 1
        rows[y] = rows[y] or {}
      elseif c == "\r" then
        x = 1
      else
        if x > columns then
          y, x = y + 1, 1
          rows[y] = rows[y] or {}
        end
        for k = #rows[y] + 1, x - 1 do rows[y][k] = " " end
        rows[y][x], x = c, x + 1
      end
      i = i + 1
    end
  end
  for k, row in ipairs(rows) do rows[k] = table.concat(row) end
  return table.concat(rows, "\n")
end

describe("a screen without a terminal", function()
  it("writes a line for each event, with its time and step", function()
    local t = new()
    t.feed {
      { type = "run-start", title = "Move homes" },
      { type = "step-start", step = "bulk", title = "Copy every home", index = 1, count = 6 },
      { type = "notice", step = "bulk", text = "a link is slow", level = "warning" },
      { type = "step-end", step = "bulk", outcome = "done", seconds = 72 },
      { type = "run-end", state = "done", exit = 0, seconds = 80 },
    }
    assert.equal([[
22:02:10Z move-1: Move homes
22:02:10Z bulk begins: 1/6 Copy every home
22:02:10Z bulk ! a link is slow
22:02:10Z bulk done after 1 min 12 s
22:02:10Z move-1 is done after 1 min 20 s
]], t.text())
  end)

  it("says progress once a minute, not more", function()
    local t = new()
    t.feed { { type = "step-start", step = "bulk", title = "Copy", index = 1, count = 1 } }
    t.clear()
    for _ = 1, 150 do
      t.wait(1)
      t.feed { { type = "progress", step = "bulk", done = 421, total = 800, unit_name = "homes", bytes = 1.06e12,
        bytes_total = 2e12, rate = 92e6, eta = 10200 } }
    end
    local lines = select(2, t.text():gsub("\n", ""))
    assert.equal(2, lines)
    assert.matches("bulk 53 %%, 1%.06 of 2%.00 TB, 92%.0 MB/s, 421 of 800 homes, eta 00:%d%dZ\n", t.text())
  end)

  it("explains a step that failed", function()
    local t = new()
    t.feed {
      { type = "step-start", step = "final", title = "Copy what changed", index = 5, count = 6 },
      { type = "step-end", step = "final", outcome = "failed", seconds = 3, error = {
        kind = "exit", target = "nfs-new", message = "rsync ended with exit status 23", tried = "rsync -a a b", status = 23,
        stderr = "rsync: denied\nrsync: denied\nrsync: denied\nerror 23\n", hint = "run it as root",
        trace = "stack traceback:\n\tlib/runbook/sync.lua:12: in x\n\tmove.lua:116: in y",
      } },
    }
    assert.equal([[
22:02:10Z final begins: 5/6 Copy what changed
22:02:10Z final failed after 3 s

   what    rsync ended with exit status 23
   where   nfs-new
   tried   rsync -a a b
   said    rsync: denied   (3 times)
           error 23
   at      move.lua:116
   try     run it as root

]], t.text())
  end)

  it("tells a mistake of the runbook from one of ours", function()
    local t = new()
    local trace = "stack traceback:\n\tlib/runbook/task.lua:3: in x\n\tmove.lua:7: in y"
    for _, message in ipairs { "move.lua:7: attempt to call a nil value", "lib/runbook/sync.lua:9: attempt to index a nil value" } do
      t.feed { { type = "step-end", step = "s", outcome = "failed", error = { kind = "internal", message = message, trace = trace } } }
    end
    assert.equal(1, select(2, t.text():gsub("this is a mistake in runbook itself", "")))
    assert.matches("what    move.lua:7: attempt to call a nil value\n   at      move.lua:7\n\n", t.text())
  end)

  it("shows what checks found together, stops last", function()
    local t = new()
    t.feed {
      { type = "step-start", step = "preflight", title = "Look", index = 1, count = 2 },
      { type = "check", step = "preflight", title = "a", outcome = "good" },
      { type = "check", step = "preflight", title = "the target is empty", outcome = "stop",
        error = { kind = "conflict", message = "3 files are there", hint = "remove them" } },
      { type = "check", step = "preflight", title = "owners", outcome = "know", text = "12 files are not 1000:1000" },
      { type = "check", step = "preflight", title = "timers", outcome = "know", text = "one\ntwo" },
      { type = "step-end", step = "preflight", outcome = "failed", error = { kind = "conflict", message = "1 check stops" } },
    }
    assert.matches("preflight: 1 good, 2 to know, 1 stop\n  %. owners: 12 files are not 1000:1000\n  %. timers:\n"
      .. " +one\n +two\n  x the target is empty: 3 files are there\n +try     remove them\n", t.text())
  end)

  it("says once what stops several checks", function()
    local t = new()
    for i = 1, 5 do
      t.feed { { type = "check", step = "preflight", title = "check " .. i, outcome = "stop", text = i == 3 and "old: full" or "old: no answer",
        error = { kind = "unreachable", message = i == 3 and "full" or "no answer", target = "old", hint = "ask" } } }
    end
    t.screen:close()
    assert.matches("  x 4 checks %(check 1, check 2, 2 more%): old: no answer\n", t.text())
    assert.matches("  x check 3: old: full\n", t.text())
  end)

  it("is quiet when asked, but not about failures", function()
    local t = new { quiet = true }
    t.feed {
      { type = "run-start", title = "Move homes" },
      { type = "step-start", step = "bulk", title = "Copy", index = 1, count = 1 },
      { type = "output", target = "a", stream = "stdout", line = "x" },
      { type = "notice", text = "fine", level = "info" },
      { type = "step-end", step = "bulk", outcome = "done" },
      { type = "run-end", state = "done", seconds = 1 },
    }
    t.screen:close()
    assert.equal("", t.text())
    t.feed { { type = "step-end", step = "bulk", outcome = "failed", error = { kind = "exit", message = "no" } } }
    assert.matches("what    no", t.text())
  end)
end)

describe("a screen that nobody reads", function()
  it("keeps the newest lines and counts the others", function()
    local ready = false
    local t = new { ready = function() return ready end, keep = 1000 }
    for i = 1, 1000 do
      t.feed { { type = "say", text = ("line %d"):format(i) } }
    end
    assert.equal("", t.text())
    ready = true
    t.screen:tick()
    local lost, first = t.text():match("^%((%d+) lines not shown: nobody took them; `runbook show %-%-log` has all%)\n[^\n]*line (%d+)\n")
    assert.equal(tonumber(first) - 1, tonumber(lost))
    assert.matches("line 1000\n$", t.text())
    assert.is_true(#t.text() <= 1200)
  end)
end)

describe("output of other machines", function()
  it("is folded where machines say the same", function()
    local t = new()
    for i = 1, 12 do
      t.feed { { type = "output", step = "x", target = "web" .. i, stream = "stdout", line = i == 7 and "6.5" or "6.1" } }
    end
    t.screen:tick()
    assert.equal("22:02:10Z x web[1-6,8-12] | 6.1\n22:02:10Z x web7 | 6.5\n", t.text())
  end)

  it("keeps the order of one machine's lines and marks its stderr", function()
    local t = new()
    t.feed {
      { type = "output", target = "a", stream = "stdout", line = "1" },
      { type = "output", target = "b", stream = "stdout", line = "other" },
      { type = "output", target = "a", stream = "stderr", line = "2" },
      { type = "output", target = "a", stream = "stdout", line = "3" },
      { type = "output", target = "a", stream = "stdout", line = "3" },
    }
    t.screen:tick()
    assert.equal("22:02:10Z a | 1\n22:02:10Z a ! 2\n22:02:10Z a | 3   (2 times)\n22:02:10Z b | other\n", t.text())
  end)

  it("cannot command the terminal", function()
    for byte = 0, 255 do
      local shown = visible.line("a" .. string.char(byte) .. "b")
      assert.is_nil(shown:find("[%c\127]"), "byte " .. byte)
      assert.is_truthy(utf8.len(shown))
    end
    assert.equal("\\x1b]0;owned\\x07", visible.line("\27]0;owned\7"))
    assert.equal("\\u{9b}31m", visible.line("\u{9b}31m"))
    assert.equal("abc\\u{202e}txt", visible.line("abc\u{202e}txt"))
    assert.equal("caf\\xe9 \\xff", visible.line("caf\xe9 \xff"))
    assert.equal("\\xed\\xa0\\x80", visible.line("\xed\xa0\x80")) -- a surrogate
    assert.equal("é ok", visible.line("é ok\r"))
    assert.equal("\\u{e9}", visible.line("é", true))
    assert.equal("a       b", visible.line("a\tb"))
  end)
end)

describe("a screen on a terminal", function()
  it("keeps what happened and draws the present step below it", function()
    local t = new { terminal = true }
    t.feed {
      { type = "run-start", title = "Move homes" },
      { type = "step-start", step = "look", title = "Look", index = 1, count = 2 },
      { type = "step-end", step = "look", outcome = "done", seconds = 2 },
      { type = "step-start", step = "bulk", title = "Copy every home", index = 2, count = 2 },
    }
    t.wait(3 * 3600 + 12 * 60)
    t.feed { { type = "progress", step = "bulk", done = 421, total = 800, unit_name = "homes", bytes = 1.06e12,
      bytes_total = 2e12, rate = 92e6, limit = 100e6, files = 7600000, files_total = 14200000, eta = 10200,
      notes = { "again   jos-c3-a9 (the connection between the servers broke)" }, units = {
        { name = "_shared", bytes = 102.7e9, bytes_total = 310.4e9, rate = 31e6 }, { name = "b", bytes = 1 }, { name = "c" },
        { name = "d" }, { name = "e" } } } }
    t.screen:tick()
    t.screen:tick()
    assert.equal([[
Move homes   move-1
ok  1 look  Look   2 s
  2 bulk  Copy every home   3 h 12 min; about 2 h 50 min to go
   ################---------------  53 %   1.06 of 2.00 TB   92.0 MB/s (limit 100 MB/s)
   421 of 800 homes, 7,600,000 of 14,200,000 files
     _shared          103 of 310 GB   31.0 MB/s
     b                1 byte
     c]] .. "                \n" .. [[
     2 more
   again   jos-c3-a9 (the connection between the servers broke)
   Ctrl-C stops within seconds and loses nothing; `runbook resume` goes on.]], render(t.text(), 100))
    t.feed { { type = "step-end", step = "bulk", outcome = "done", seconds = 11520 } }
    assert.equal("Move homes   move-1\nok  1 look  Look   2 s\nok  2 bulk  Copy every home   3 h 12 min\n", render(t.text(), 100))
  end)

  it("never lets a living line be broken by the terminal", function()
    for _, width in ipairs { 1, 2, 10, 37, 80 } do
      local t = new { terminal = true, width = function() return width end }
      t.feed { { type = "step-start", step = "b", title = ("äöü 日本 "):rep(40), index = 1, count = 1 } }
      for _ = 1, 5 do
        t.feed { { type = "output", target = "h", stream = "stdout", line = "x" } }
        t.screen:tick()
      end
      t.screen:close()
      for line in t.text():gmatch("[^\n\r\27]+") do
        if line:find "äö" then
          assert.is_true(visible.width(line) < width)
        end
      end
    end
  end)

  it("takes the living lines away while somebody is asked", function()
    local t = new { terminal = true }
    t.feed { { type = "step-start", step = "b", title = "Copy", index = 1, count = 1 } }
    t.screen:hold()
    assert.equal("", render(t.text(), 100))
    t.feed { { type = "output", target = "h", stream = "stdout", line = "late" }, { type = "say", text = "hm" } }
    t.screen:tick()
    assert.equal("", render(t.text(), 100))
    t.screen:release()
    assert.equal("   h | late\n   hm\n  1 b  Copy   0 s", render(t.text(), 100))
  end)

  it("names the units that failed, five of them", function()
    local t = new { terminal = true }
    t.feed { { type = "step-start", step = "b", title = "Copy", index = 1, count = 1 } }
    for i = 1, 9 do
      t.feed {
        { type = "unit-start", unit = "u" .. i },
        { type = "unit-end", unit = "u" .. i, outcome = i <= 7 and "failed" or "done",
          error = i <= 7 and { kind = "full", message = "no room for " .. i, stderr = "full", tried = "cp" } or nil },
      }
    end
    t.feed { { type = "step-end", step = "b", outcome = "failed", error = { kind = "full", message = "7 of 9 homes failed" } } }
    local shown = render(t.text(), 100)
    assert.matches("x   1 b  Copy  failed: 7 failed, 2 are done and stay done\n", shown)
    assert.matches("unit    u5\n   what    no room for 5\n   tried   cp\n   said    full\n   2 more\n", shown)
  end)
end)

describe("words for numbers", function()
  it("are those an operator reads", function()
    assert.equal("0 bytes", human.bytes(0))
    assert.equal("1 byte", human.bytes(1))
    assert.equal("999 bytes", human.bytes(999))
    assert.equal("1.00 kB", human.bytes(1000))
    assert.equal("2.01 TB", human.bytes(2.01e12))
    assert.equal("1.06 of 2.00 TB", human.bytes_of(1.06e12, 2e12))
    assert.equal("14,213,877", human.count(14213877))
    assert.equal("999", human.count(999))
    assert.equal("0.4 s", human.duration(0.4))
    assert.equal("1 min", human.duration(59.6))
    assert.equal("40 min 12 s", human.duration(2412))
    assert.equal("3 h 12 min", human.duration(11520))
    assert.equal("2 d 3 h", human.duration(51 * 3600))
    assert.equal("1 home", human.plural(1, "home"))
    assert.equal("One two three.\n\nFour:\n    x\n    y\nfive",
      human.paragraphs("    One two\n    three.\n\n    Four:\n        x\n        y\n    five\n  "))
    assert.equal("db,n[08-11],web[1-3,7].x", human.fold { "web1.x", "web2.x", "db", "web3.x", "web7.x", "n08", "n09", "n10", "n11" })
  end)
end)
