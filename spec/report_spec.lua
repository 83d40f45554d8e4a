-- The report of a run: what the model says of a journal and events that are given, how both renderers write down what others
-- have named, and the command. A real move is in report_move_spec.lua.

local command = require "spec.support.command"
local document = require "runbook.report.document"
local html = require "runbook.report.html"
local markdown = require "runbook.report.markdown"
local report = require "runbook.report"
local world = require "spec.world"

local T = 1796421730 -- 2026-12-04 22:02:10 UTC

-- What facts.read would give, with what a test says instead.
local function facts(changes)
  local f = {
    row = { name = "temple-3", state = "done", alive = false, ended = T + 600 },
    meta = { id = "temple-3.0a1b", title = "Move the temple", runbook = "temple.lua", started = tostring(T), version = "0.1.0" },
    step = {}, unit = {}, effect = {}, obligation = {}, decision = {}, receipt = {}, attachment = {}, jobs = {}, parameters = {}, sources = {},
    version = "0.2.0", describe = function(row) return "remove " .. row.kind end, events = {},
  }
  for key, value in pairs(changes) do
    f[key] = value
  end
  local list, i = f.events, 0
  f.events = function()
    i = i + 1
    return list[i]
  end
  return f
end

local function start(at, who, more)
  local e = { type = "run-start", at = T + at, who = who, version = "0.1.0" }
  for key, value in pairs(more or {}) do
    e[key] = value
  end
  return e
end

local function step(at, id, seconds, outcome, more)
  local ended = { type = "step-end", at = T + at + seconds, step = id, outcome = outcome, seconds = seconds }
  for key, value in pairs(more or {}) do
    ended[key] = value
  end
  return { type = "step-start", at = T + at, step = id, title = id }, ended
end

local function flat(...)
  local list = {}
  for _, one in ipairs { ... } do
    if one.type then
      list[#list + 1] = one
    else
      table.move(one, 1, #one, #list + 1, list)
    end
  end
  return list
end

local function outcomes(model)
  local list = {}
  for i, try in ipairs(model.tries) do
    list[i] = ("%s %s"):format(try.step, try.outcome)
  end
  return list
end

describe("the model of a report", function()
  it("tells a process that was killed from one that ended, and who went on", function()
    local model = report.model(facts {
      row = { name = "temple-3", state = "done", ended = T + 90 },
      step = { { id = "a", title = "A", state = "done", position = 1 }, { id = "b", title = "B", state = "done", position = 2 } },
      events = flat(start(0, "ada@old"), { step(1, "a", 5, "done") }, { type = "step-start", at = T + 6, step = "b" },
        { type = "say", at = T + 9, step = "b", text = "half" }, start(60, "bob@new", { resumed = true, version = "0.3.0" }),
        { step(61, "b", 20, "done") }, { type = "run-end", at = T + 82, state = "done", exit = 0 }),
    })
    assert.same({ "a done", "b cut off", "b done" }, outcomes(model))
    assert.same({ "killed", T + 9, "done", true }, { model.processes[1].outcome, model.processes[1].ended, model.processes[2].outcome,
      model.processes[2].handed_over })
    assert.same({ 2, 23 }, { model.steps[2].tries, model.steps[2].seconds }) -- 3 seconds were seen of the first
    assert.same({ "0.1.0", "0.3.0", "0.2.0" }, { model.versions[1].version, model.versions[2].version, model.versions[3].version })
    local text = markdown.render(document.of(model))
    assert.truthy(text:find("**killed: its process had no time to say how it ended**", 1, true), text)
    assert.truthy(text:find("**handed over: resumed by bob@new**", 1, true), text)
  end)

  it("says of a run whose process is gone, and of one that is at work, which it is", function()
    local events = flat(start(0, "ada@old"), { type = "step-start", at = T + 6, step = "b" })
    local dead = report.model(facts { row = { name = "t", state = "running", step = "b" }, events = events })
    assert.same({ "interrupted", "killed", "cut off" }, { dead.run.state, dead.processes[1].outcome, dead.tries[1].outcome })
    assert.equal("Move the temple: it was killed at `b`.", document.headline(dead))
    local alive = report.model(facts { row = { name = "t", state = "running", step = "b", alive = true }, events = events })
    assert.same({ "running", "running", "running" }, { alive.run.state, alive.processes[1].outcome, alive.tries[1].outcome })
  end)

  it("needs no events: the journal tells the steps", function()
    local model = report.model(facts {
      step = { { id = "a", title = "A", state = "done", position = 1, try = 2, started = T, ended = T + 4 } },
      items = { { id = "a", title = "A" }, { id = "z", title = "Z" } },
    })
    assert.same({ 2, 4, "pending" }, { model.steps[1].tries, model.steps[1].seconds, model.steps[2].state })
  end)

  describe("of who was locked out", function()
    local function question(at, id, rows)
      return { type = "question", at = T + at, step = id, title = id, rows = rows }
    end
    local who = { { "who", "all" } }
    local items = { { id = "freeze", disrupts = true }, { id = "copy" }, { id = "open", disrupts = true }, { id = "tell" } }
    local said = {
      { at = T + 100, who = "ada", what = "confirm", subject = "freeze", reason = "typed" },
      { at = T + 200, who = "ada", what = "confirm", subject = "open", reason = "typed" },
    }

    it("measures from the word that closed to the end of the step that opened", function()
      local model = report.model(facts {
        items = items, decision = said,
        events = flat(start(0, "ada"), { type = "forecast", at = T + 98, low = 60, high = 90, text = "x", window = 3600 },
          { type = "step-start", at = T + 99, step = "freeze" }, question(99, "freeze", who),
          { type = "step-end", at = T + 101, step = "freeze", outcome = "done", seconds = 2 }, { step(110, "copy", 80, "done") },
          question(195, "open", who), { step(201, "open", 9, "done") }, { step(300, "tell", 90, "done") }),
      })
      assert.same({ T + 100, T + 210, 110, "freeze", "open" },
        { model.lock_out.began, model.lock_out.ended, model.lock_out.seconds, model.lock_out.from, model.lock_out.till })
      assert.same({ 60, 90, 3600 }, { model.lock_out.forecast.low, model.lock_out.forecast.high, model.lock_out.forecast.window })
      assert.truthy(markdown.render(document.of(model)):find("1 min to 1 min 30 s, said 2026-12-04 22:03:48: it took 20 s longer", 1, true))
    end)

    it("counts a question that was asked again, days before, from the word alone", function()
      local model = report.model(facts {
        items = items, decision = { said[1] },
        events = flat(start(-90000, "ada"), question(-90000, "freeze", who), start(90, "ada"), question(99, "freeze", who),
          { step(99, "freeze", 2, "done") }),
      })
      assert.equal(1, #model.questions)
      assert.same({ T + 100, nil }, { model.lock_out.began, model.lock_out.ended })
      assert.truthy(markdown.render(document.of(model)):find("**it goes on**", 1, true))
    end)

    it("ends with the undo of what closed, and is not there when nobody agreed", function()
      local model = report.model(facts {
        row = { name = "t", state = "rolled-back", ended = T + 400 }, items = items, decision = { said[1] },
        events = flat(start(0, "ada"), question(99, "freeze", who), { step(99, "freeze", 2, "done") },
          start(300, "ada", { rollback = true }), { type = "step-start", at = T + 301, step = "freeze", kind = "undo" },
          { type = "step-end", at = T + 310, step = "freeze", outcome = "undone", seconds = 9 }),
      })
      assert.equal(210, model.lock_out.seconds)
      assert.is_nil(report.model(facts { items = items, events = flat(start(0, "ada"), question(99, "freeze", who)) }).lock_out)
    end)
  end)

  it("takes the last table of a name, and what was decided, retried and left", function()
    local model = report.model(facts {
      meta = { ["passes a:/x -> b:/y"] = '[{"kind":"bulk","began":"2026-12-04T22:00:00Z","seconds":3,"bytes":9,"files":1}]' },
      receipt = {
        { pair = "a:/x -> b:/y", unit = "ann", level = "hashed", at = T, data = '{"entries":3,"files":2,"bytes":10}' },
        { pair = "a:/x -> b:/y", unit = "bob", level = "left", at = T, data = '{"entries":3,"bytes":10}' },
      },
      decision = { { at = T, who = "ada", what = "leave", subject = "bob", reason = "gone" } },
      events = {
        { type = "table", at = T, name = "ledger", title = "Ledger", columns = { "user" }, rows = { { "old" } } },
        { type = "notice", at = T, step = "a", tries = 1, text = "again in 1 s" }, { type = "notice", at = T, text = "by the way" },
        { type = "table", at = T, name = "ledger", title = "Ledger", columns = { "user", "" }, rows = { { "ann", { text = "open", tone = "bad" } } } },
      },
    })
    assert.same({ "bob", "gone", "ada" }, { model.not_carried[1].unit, model.not_carried[1].text, model.not_carried[1].who })
    assert.same({ 1, "again in 1 s" }, { #model.notices, model.notices[1].text })
    assert.same({ { "ann", { text = "open", tone = "bad" } } }, model.tables[1].rows)
    assert.equal("1 of 2 homes (2 files, 10 bytes) moved from a:/x to b:/y; both ends are proven the same, and one was left out on purpose.",
      document.headline(model))
    local text = markdown.render(document.of(model))
    assert.truthy(text:find("## Ledger\n\n| user |  |\n| --- | --- |\n| ann | **open** |", 1, true), text)
  end)

  it("keeps the ends of a log that is long", function()
    local events = { start(0, "ada") }
    for i = 1, 5000 do
      events[#events + 1] = { type = "say", at = T + i, step = "a", text = "line " .. i }
    end
    local log = report.model(facts { events = events }).logs.a
    assert.equal(5000, #log.first + log.left_out + #log.last)
    assert.truthy(log.left_out > 2000)
    assert.truthy(log.first[1]:find("line 1$") and log.last[#log.last]:find("line 5000$"))
  end)
end)

describe("names that others chose", function()
  local HOSTILE = {
    "<script>alert(1)</script>", "a|b", "back`tick``s", "two\nlines", "J\xf6rg\xff", "</details>", "\27[2Jclear", "![x](http://x/y.png)", "@ada", "&amp;",
    "\u{202e}txt.exe", '" onload="alert(1)',
  }

  local function hostile()
    local f = { receipt = {}, effect = {}, events = { start(0, HOSTILE[1]) }, unit = {}, decision = {} }
    local word = require("runbook.copier.record").word
    for i, name in ipairs(HOSTILE) do
      f.receipt[i] = { pair = "a:/x -> b:/y", unit = word(name), level = "hashed", at = T, data = '{"entries":1,"files":1,"bytes":1}' }
      f.effect[i] = { id = i, state = "done", step = "copy", target = name, summary = "copy " .. name, by_hand = "rsync " .. name, started = T }
      f.decision[i] = { at = T, who = name, what = "leave", subject = name, reason = name }
      table.insert(f.events, { type = "say", at = T, step = "copy", text = name })
      table.insert(f.events, { type = "check", at = T, step = "copy", title = name, outcome = "know", text = name })
      table.insert(f.events, { type = "table", at = T, name = name, title = name, columns = { name }, rows = { { name } } })
    end
    f.step = { { id = "copy", title = HOSTILE[1], state = "failed", position = 1 } }
    f.sources = { { path = HOSTILE[1], text = table.concat(HOSTILE, "\n") .. "\n```\n~~~\n" } }
    return document.of(report.model(facts(f)))
  end

  -- A run of backticks opens a span that ends with the next one of the same length.
  local function without_code(text)
    local out, at = {}, 1
    while true do
      local from, till = text:find("`+", at)
      if not from then
        break
      end
      out[#out + 1] = text:sub(at, from - 1)
      if text:sub(from - 1, from - 1) == "\\" then
        at = till + 1
      else
        local _, close = text:find("%f[`]" .. ("`"):rep(till - from + 1) .. "%f[^`]", till + 1)
        assert(close, "a span that does not end: " .. text:sub(from, from + 200))
        at = close + 1
      end
    end
    return table.concat(out) .. text:sub(at)
  end

  it("are text in HTML", function()
    local text = html.render(hostile())
    local body = text:gsub("<style>.-</style>", "")
    assert.is_nil(body:find("<script", 1, true))
    assert.is_nil(body:find("onload=\"", 1, true))
    assert.is_nil(text:find("[%z\1-\8\11-\31\127]"))
    assert.truthy(utf8.len(text))
    for _, shown in ipairs { "&lt;script&gt;alert(1)&lt;/script&gt;", "J\\xf6rg\\xff", "two\\x0alines", "\\x1b[2Jclear", "\\u{202e}txt.exe",
      "&amp;amp;", "&quot; onload=&quot;" } do
      assert.truthy(text:find(shown, 1, true), shown)
    end
    for element in body:gmatch "<(%w+)" do -- only what we write
      assert.truthy((" html head meta title style body header p h1 h2 dl div dt dd nav a main section table thead tbody tr th td code span i "
        .. "details summary pre "):find(" " .. element .. " ", 1, true), element)
    end
    local _, opened = body:gsub("<details>", "")
    local _, closed = body:gsub("</details>", "")
    assert.equal(opened, closed)
  end)

  it("are text in Markdown, in tables of as many cells as their heads", function()
    local text = markdown.render(hostile())
    assert.truthy(utf8.len(text))
    assert.is_nil(text:find("[%z\1-\8\11-\31\127]"))
    local outside, fence, bars = {}, nil, nil
    for line in text:gmatch "[^\n]*" do
      local mark = line:match "^(```+)$"
      if mark and (fence == nil or mark == fence) then
        fence = fence == nil and mark or nil
      elseif not fence then
        outside[#outside + 1] = line
        local _, n = line:gsub("\\|", ""):gsub("|", "|")
        if line:find "^| ?%-%-%-" then
          bars = n
        elseif not line:find "^|" then
          bars = nil
        end
        assert.truthy(bars == nil or n == bars, line)
      end
    end
    assert.is_nil(fence)
    local plain = without_code(table.concat(outside, "\n"))
    assert.is_nil(plain:find("<script", 1, true), plain)
    assert.is_nil(plain:find("[^\\]!?%[x%]%("), plain)
    assert.is_nil(plain:find("[^%w]@ada"), plain)
    local _, opened = plain:gsub("<details>", "")
    local _, closed = plain:gsub("\n</details>", "")
    assert.equal(opened, closed)
    assert.truthy(text:find("`` back`tick``s ``", 1, true) or text:find("``` back`tick``s ```", 1, true))
    assert.truthy(text:find("`J\\xf6rg\\xff`", 1, true))
  end)

  it("do not make the Markdown longer than a comment may be", function()
    local f = { receipt = {}, events = { start(0, "ada") } }
    for i = 1, 3000 do
      f.receipt[i] = { pair = "a:/x -> b:/y", unit = "user-" .. i, level = "hashed", at = T, data = '{"entries":1,"files":1,"bytes":1}' }
      table.insert(f.events, { type = "say", at = T, step = "copy", text = "a line of some length, as logs have them " .. i })
    end
    local doc = document.of(report.model(facts(f)))
    local text = markdown.render(doc)
    assert.truthy(#text < 65000, #text)
    assert.truthy(text:find("The receipts of 3,000 homes: too long for this text; the HTML file has it.", 1, true))
    assert.truthy(html.render(doc):find("user-3000", 1, true))
  end)
end)

describe("runbook show --report", function()
  local BOOK = [[
--- Say hello.
local rb = require "runbook"
local events = require "runbook.events"
local here = require "runbook.here"
local p = rb.params { { "token", "secret", "what lets us in" }, { "who", "string", "whom", default = "ada" } }
rb.checks("look", "Look around", { { "clouds", function() return "two of them" end }, { "sun", function() end } })
rb.step("greet", "Say it", { disrupts = "everybody" }, function()
  rb.say(here:query { "cat", stdin = p.token })
  here:write(os.getenv "PWD" .. "/token", p.token)
  events.table { name = "ledger", title = "Ledger", columns = { "user" }, rows = { { "ann" } } }
  rb.attach("text", os.getenv "PWD" .. "/proof")
end)
rb.step("fail", "Fail", function()
  here:run { "sh", "-c", "echo no such user >&2; exit 3" }
end)
]]
  local SECRET = "correct-horse-battery-staple"

  local function failed()
    local folder = command.folder { ["hello.lua"] = BOOK, ["hello.yaml"] = "token: file:key\n", key = SECRET .. "\n" }
    local r = command.run(folder, { "run", "hello.lua", "--confirm", "greet=hello" })
    assert.equal(1, r.code, r.err)
    return folder
  end

  it("writes both files beside the run, or where it is told, and says where", function()
    local folder = failed()
    local r = command.run(folder, { "show", "--report" })
    assert.equal(0, r.code, r.err)
    local at = folder .. "/state/runbook/runs/hello-1/hello-1"
    assert.equal(("%s.md\n%s.html\n"):format(at, at), r.out)
    assert.equal("600 600", world.must(("stat -c %%a %s.md %s.html | paste -sd' '"):format(at, at)))
    r = command.run(folder, { "show", "hello-1", "--report", "--output", "." })
    assert.equal("./hello-1.md\n./hello-1.html\n", r.out)
    assert.equal(world.read(at .. ".md"), world.read(folder .. "/hello-1.md"))
    assert.equal(world.read(at .. ".md"), command.run(folder, { "show", "--report", "-o", "-" }).out)
    r = command.run(folder, { "show", "--report", "-o", "nowhere" })
    assert.equal(66, r.code)
    assert.matches("nowhere/hello%-1.md", r.err)
    assert.equal(64, command.run(folder, { "show", "--output", "." }).code)
  end)

  it("says what failed, what was asked and by whom it was answered, what was changed and what is next", function()
    local folder = failed()
    local text = command.run(folder, { "show", "--report", "-o", "-" }).out
    for _, part in ipairs {
      "**Say hello: it failed at `fail`.**", "| go on | `runbook resume hello-1` |", "| go back | `runbook rollback hello-1` |",
      "| `look` | know | clouds | two of them |", "**greet: Say it**", "| who | everybody |", ": agreed to, by ", "no such user",
      "## Ledger\n\n| user |\n| --- |\n| ann |", "| proof | `" .. folder .. "/proof` | `greet` |", "<details><summary>greet: 2 changes</summary>",
      "| `who` | ada | whom |", "| `token` | «secret:token» | what lets us in |", "rb.checks(\"look\"", "<details><summary>greet: ",
    } do
      assert.truthy(text:find(part, 1, true), part .. " is missing from\n" .. text)
    end
  end)

  it("holds no secret in any of its forms", function()
    local folder = failed()
    local all = command.run(folder, { "show", "--report", "-o", "-" }).out .. command.run(folder, { "show", "--report", "--json" }).out
    command.run(folder, { "show", "--report" })
    all = all .. world.read(folder .. "/state/runbook/runs/hello-1/hello-1.html")
    assert.is_nil(all:find(SECRET, 1, true))
    assert.is_nil(all:find("battery", 1, true))
    assert.truthy(all:find("«secret:token»", 1, true))
  end)

  it("is one object as JSON", function()
    local records = command.records(command.run(failed(), { "show", "--report", "--json" }).out)
    assert.same({ "version", "report", 2 }, { records[1].type, records[2].type, #records })
    local model = records[2]
    assert.same({ 1, "failed", "fail", "exit" }, { model.schema, model.run.state, model.run.step, model.failures[1].error.kind })
    assert.equal("everybody", model.questions[1].rows[1][2])
  end)

  it("reports a run whose file no longer loads", function()
    local folder = failed()
    local sources = folder .. "/state/runbook/runs/hello-1/sources.json"
    world.write(sources, (world.read(sources):gsub("rb%.checks", "nothing.checks")))
    local r = command.run(folder, { "show", "--report", "-o", "-" })
    assert.equal(0, r.code, r.err)
    assert.truthy(r.out:find("| `token` | file:key |", 1, true), r.out)
  end)
end)
