local command = require "spec.support.command"
local world = require "spec.world"

local HELLO = [[
--- Say hello.
local rb = require "runbook"
local p = rb.params { { "who", "string", "whom" }, { "times", "integer", "how often", default = 1 } }
rb.section "First"
rb.checks("look", "Look around", {
  { "the sun shines", function() end },
  { "clouds", function() return "two of them" end },
})
rb.step("greet", "Say it", function() for _ = 1, p.times do rb.say("hello " .. p.who) end end)
rb.step("end", "Finish", function() end)
]]

local ASKS = [[
--- Ask.
local rb = require "runbook"
rb.step("before", "Before", function() end)
rb.step("freeze", "Close it", { disrupts = "everyone" }, function() rb.say "closed" end)
rb.manual("look", "Look at it", { text = "Is it closed?" })
]]

local FAILS = [[
--- Fail.
local rb = require "runbook"
local here = require "runbook.here"
rb.step("fine", "Fine", function() end)
rb.step("bad", "Bad", function()
  here:run { "sh", "-c", "echo reading >&2; echo no such user >&2; exit 3" }
end)
]]

local function folder_with(files)
  return command.folder(files)
end

describe("runbook run", function()
  it("does a runbook and says so on stderr alone", function()
    local folder = folder_with { ["hello.lua"] = HELLO }
    local r = command.run(folder, { "run", "hello.lua", "-p", "who=ada" })
    assert.same({ 0, "" }, { r.code, r.out })
    assert.matches("hello%-1: Say hello\n", r.err)
    assert.matches("look: 1 good, 1 to know, 0 stop\n  %. clouds: two of them\n", r.err)
    assert.matches("greet hello ada\n", r.err)
    assert.matches("hello%-1 is done", r.err)
    for line in r.err:gmatch("[^\n]+") do
      assert.is_truthy(line:match("^%d%d:%d%d:%d%dZ ") or line:match("^  "), line)
    end
  end)

  it("writes events as NDJSON, the schema first", function()
    local folder = folder_with { ["hello.lua"] = HELLO }
    local r = command.run(folder, { "run", "hello.lua", "-p", "who=ada", "--json" })
    assert.equal(0, r.code)
    local records = command.records(r.out)
    assert.same({ "version", 1 }, { records[1].type, records[1].schema })
    local seen = {}
    for i = 2, #records do
      seen[records[i].type] = records[i]
      assert.is_number(records[i].at)
      assert.equal("hello-1", records[i].run)
    end
    assert.equal("hello ada", seen.say.text)
    assert.same({ "done", 0 }, { seen["run-end"].state, seen["run-end"].exit })
  end)

  it("finds the parameters beside it, and lists everything wrong in them at once", function()
    local folder = folder_with { ["hello.lua"] = HELLO, ["hello.yaml"] = "times: often\nwhom: ada\n" }
    local r = command.run(folder, { "run", "hello.lua" })
    assert.equal(65, r.code)
    assert.matches("^hello%.yaml: 3 things to fix\n  line 1  times", r.err)
    assert.matches("line 2  whom +unknown; did you mean `who`%?", r.err)
    assert.matches("who +missing: whom\n", r.err)
    assert.matches("try +write `who: %.%.%.` in hello%.yaml, or add %-p who=%.%.%.\n", r.err)
    assert.is_nil(world.read(folder .. "/state/runbook/runs/hello-1/journal.db"))
  end)

  it("gives each mistake its exit code and its line", function()
    local folder = folder_with {
      ["syntax.lua"] = "local = 1", ["global.lua"] = "local rb = require 'runbook'\nrb.main(function() prnit(1) end)",
      ["load.lua"] = "local here = require 'runbook.here'\nhere:run { 'true' }",
      ["twice.lua"] = "local rb = require 'runbook'\nrb.step('a', 'A', function() end)\nrb.step('a', 'A', function() end)",
      ["hello.lua"] = HELLO,
    }
    local function fails(code, pattern, ...)
      local r = command.run(folder, { "run", ... })
      assert.equal(code, r.code, r.err)
      assert.matches(pattern, r.err)
      assert.is_nil(r.err:find("traceback", 1, true))
    end
    fails(65, "syntax.lua:1:", "syntax.lua")
    fails(65, "line 2  unknown global `prnit`; did you mean `print`%?", "global.lua")
    fails(65, "while the file loads.*\n +at +load.lua:2\n", "load.lua")
    assert.matches("^load.lua:2: place.run while the file loads", command.run(folder, { "check", "load.lua" }).out)
    fails(65, "twice.lua:3: step `a` is declared already, at line 2", "twice.lua")
    fails(66, "nowhere.lua: No such file", "nowhere.lua")
    fails(66, "nowhere.yaml: No such file", "hello.lua", "--params", "nowhere.yaml")
    fails(64, "%-%-until gret: no step is called that; did you mean `greet`%?", "hello.lua", "-p", "who=a", "--until", "gret")
  end)

  it("says as JSON, too, why nothing could begin", function()
    local folder = folder_with { ["hello.lua"] = HELLO }
    local r = command.run(folder, { "run", "hello.lua", "--json" })
    assert.equal(65, r.code)
    local records = command.records(r.out)
    assert.same({ "version", "failure" }, { records[1].type, records[2].type })
    assert.same({ 65, "usage" }, { records[2].exit, records[2].error.kind })
    assert.matches("missing: whom", r.err)
  end)

  it("explains a step that failed: what, what was said, where, and how to go on", function()
    local folder = folder_with { ["fails.lua"] = FAILS }
    local r = command.run(folder, { "run", "fails.lua" })
    assert.equal(1, r.code)
    assert.matches("bad failed", r.err)
    assert.matches("\n   said    reading\n           no such user\n", r.err)
    assert.matches("\n   at      fails.lua:6\n", r.err)
    assert.matches("\n   go on   runbook resume fails%-1\n   back    runbook rollback fails%-1\n$", r.err)
  end)

  it("stops with 5 and the flag that answers, where nobody can be asked", function()
    local folder = folder_with { ["asks.lua"] = ASKS }
    local r = command.run(folder, { "run", "asks.lua", "-y" })
    assert.equal(5, r.code)
    assert.matches("needs input: %-%-confirm freeze=asks", r.err)
    r = command.run(folder, { "resume", "--confirm", "freeze=asks" })
    assert.equal(5, r.code)
    assert.matches("closed", r.err)
    assert.matches("needs input: %-%-done look=WHO", r.err)
    r = command.run(folder, { "resume", "asks-1", "--done", "look=ada" })
    assert.equal(0, r.code)
    assert.is_nil(r.err:find("closed", 1, true)) -- not again
  end)

  it("is quiet when asked", function()
    local folder = folder_with { ["hello.lua"] = HELLO, ["fails.lua"] = FAILS }
    local r = command.run(folder, { "run", "hello.lua", "-p", "who=ada", "-q" })
    assert.same({ 0, "", "" }, { r.code, r.out, r.err })
    r = command.run(folder, { "run", "fails.lua", "-q" })
    assert.equal(1, r.code)
    assert.matches("no such user", r.err)
  end)

  it("prefers libraries that lie beside it, and says so", function()
    local folder = folder_with { ["hello.lua"] = HELLO }
    world.must(("mkdir -p %s/lib/runbook"):format(folder))
    world.write(folder .. "/lib/runbook/here.lua", 'return { query = function() return "replaced" end }')
    world.write(folder .. "/ask.lua", 'local rb, here = require "runbook", require "runbook.here"\n'
      .. 'rb.main(function() rb.say(here:query { "uname" }) end)')
    local r = command.run(folder, { "run", "ask.lua" })
    assert.equal(0, r.code, r.err)
    assert.matches("using ./lib/runbook/here.lua, not the built%-in runbook.here\n", r.err)
    assert.matches("main replaced\n", r.err)
    world.must(("mkdir %s/sub; mv %s/ask.lua %s/sub"):format(folder, folder, folder))
    assert.is_nil(command.run(folder, { "run", "sub/ask.lua" }).err:find("replaced", 1, true))
    assert.matches("main replaced\n", command.run(folder, { "run", "sub/ask.lua", "--lib", "." }).err)
    assert.equal(66, command.run(folder, { "run", "sub/ask.lua", "--lib", "sub" }).code)
    -- a run that was begun with them is not gone on with without them
    world.must(("mv %s/sub/ask.lua %s"):format(folder, folder))
    world.write(folder .. "/ask.lua", world.read(folder .. "/ask.lua") .. '\nrb.manual("m", "M")')
    assert.equal(5, command.run(folder, { "run", "ask.lua", "--name", "own" }).code)
    local resumed = command.run(folder, { "resume", "own-1", "--done", "m=ada" })
    assert.equal(64, resumed.code)
    assert.matches("to go on with them: %-%-lib %.\n", resumed.err)
    assert.equal(0, command.run(folder, { "resume", "own-1", "--done", "m=ada", "--lib", "." }).code)
    -- the same text is no other library
    world.write(folder .. "/lib/runbook/here.lua", require("runbook.core.embed").source "runbook.here")
    assert.is_nil(command.run(folder, { "run", "ask.lua" }).err:find("using", 1, true))
  end)

  it("says when one computation holds everything up, and where", function()
    local folder = folder_with { ["busy.lua"] = 'local rb = require "runbook"\nrb.main(function()\n  local t = os.clock()\n'
      .. "  while os.clock() - t < 1.6 do\n  end\nend)" }
    assert.matches("! nothing else could happen for %d+%.%d s: busy.lua:4", (command.run(folder, { "run", "busy.lua" }).err))
  end)

  it("skips a step with a reason that is kept", function()
    local folder = folder_with { ["hello.lua"] = HELLO }
    local r = command.run(folder, { "run", "hello.lua", "-p", "who=ada", "--skip", "greet", "--reason", "they know" })
    assert.equal(0, r.code)
    assert.is_nil(r.err:find("hello ada", 1, true))
    assert.matches("skip greet: they know, by ", command.run(folder, { "show" }).out)
  end)
end)

describe("runbook plan", function()
  local CHANGES = [[
--- Change something.
local rb = require "runbook"
local here = require "runbook.here"
rb.step("look", "Look", function() here:query { "true" } end)
rb.step("touch", "Touch a file", { disrupts = "nobody" }, function() here:run { "touch", "a file" } end)
rb.manual("say", "Say so")
]]

  it("says what would change, how it is undone, and changes nothing", function()
    local folder = folder_with { ["change.lua"] = CHANGES }
    local r = command.run(folder, { "plan", "change.lua" })
    assert.equal(0, r.code)
    assert.matches("^Change something +plan: read only, nothing changed\n", r.out)
    assert.matches("\n +1 look +%(reads%)", r.out)
    assert.matches("\n +2 touch  ASKS +here", r.out)
    assert.matches("\n +3 say  ASKS +you", r.out)
    assert.matches("\n  Asks twice, at touch, say%.", r.out)
    assert.matches("\n  Next: runbook run change%.lua\n$", r.out)
    assert.is_nil(world.read(folder .. "/a file"))
    for line in r.out:gmatch("[^\n]+") do
      assert.equal(line, (line:gsub("%s+$", "")))
    end
    assert.matches("touch 'a file'", command.run(folder, { "plan", "change.lua", "-v" }).out, 1, true)
  end)

  it("has an exit code for those who want one", function()
    local folder = folder_with { ["change.lua"] = CHANGES, ["hello.lua"] = HELLO }
    assert.equal(2, command.run(folder, { "plan", "change.lua", "--detailed-exitcode" }).code)
    assert.equal(0, command.run(folder, { "plan", "hello.lua", "-p", "who=a", "--detailed-exitcode" }).code)
    world.write(folder .. "/stop.lua", [[
      local rb = require "runbook"
      rb.checks("look", "Look", { { "it is there", function() error "it is not" end } })
    ]])
    local r = command.run(folder, { "run", "stop.lua", "-n" })
    assert.equal(1, r.code)
    assert.matches("x it is there: .*it is not", r.out)
    assert.matches("A run would stop at look%.\n", r.out)
  end)

  it("says the same change of many units once, and the same reason to stop", function()
    local made = { title = "T", next = "n", changes = 801, stops = 2, checks = { good = 0, know = {}, stop = {} }, steps = {} }
    local changes = { { verb = "lock", target = "new", summary = "lock it" } }
    for i = 1, 800 do
      changes[i + 1] = { verb = "copy", target = "new", unit = "u" .. i, summary = "copy u" .. i, by_hand = "rsync u" .. i }
    end
    made.steps[1] = { kind = "step", index = 1, id = "bulk", changes = changes, waits = {}, part_waits = {}, reads = 0,
      undo = "not needed", would_stop = "full" }
    made.steps[2] = { kind = "step", index = 2, id = "last", changes = {}, waits = {}, part_waits = {}, reads = 0, would_stop = "full" }
    local plan = require "runbook.cli.plan"
    assert.equal([[
T                                                           plan: read only, nothing changed

  step                changes                                             undo
   1 bulk             new: lock it                                        not needed
                      new: copy u1; the same for u2, u3, u4 and 796 more
                      would stop: full
   2 last             would stop as `bulk` does

  Asks nothing. -v shows the same by hand.
  A run would stop at bulk.
  Next: n
]], plan.text(made, {}, 0, 92))
    assert.equal(800, select(2, plan.text(made, {}, 1, 92):gsub("\n +rsync u%d+\n", "\n")))
  end)

  it("is NDJSON when asked", function()
    local folder = folder_with { ["change.lua"] = CHANGES }
    local r = command.run(folder, { "plan", "change.lua", "--json" })
    local records = command.records(r.out)
    assert.equal("version", records[1].type)
    assert.same({ "plan", 1, 0 }, { records[#records].type, records[#records].changes, records[#records].stops })
    assert.same({ "plan-step", "touch", true, "here" },
      { records[3].type, records[3].id, records[3].asks, records[3].changes[1].target })
  end)

  it("gives the whole command as the next one", function()
    local folder = folder_with { ["hello.lua"] = HELLO, ["p.yaml"] = "times: 2\n" }
    local r = command.run(folder, { "plan", "hello.lua", "--params", "p.yaml", "-p", "who=ada l" })
    assert.matches("Next: runbook run hello.lua --params p.yaml -p 'who=ada l'\n", r.out, 1, true)
  end)
end)

describe("runs, show and mark", function()
  it("tell what is open and what became of each step", function()
    local folder = folder_with { ["asks.lua"] = ASKS, ["hello.lua"] = HELLO }
    assert.matches("no run is kept", command.run(folder, { "runs" }).err)
    command.run(folder, { "run", "hello.lua", "-p", "who=ada" })
    command.run(folder, { "run", "asks.lua" })
    local r = command.run(folder, { "runs" })
    assert.matches("^run +state +steps +started\nasks%-1 +waiting +1 of 3 .* at freeze\nhello%-1 +done +3 of 3", r.out)
    assert.is_nil(command.run(folder, { "runs", "--open" }).out:find("hello", 1, true))
    local records = command.records(command.run(folder, { "runs", "--json" }).out)
    assert.same({ "version", "run", "run" }, { records[1].type, records[2].type, records[3].type })

    r = command.run(folder, { "show" }) -- the open one
    assert.matches("^asks%-1   Ask   waiting", r.out)
    assert.matches("  ok  1 before  Before\n  %.%.  2 freeze  Close it   waiting.*\n      3 look    Look at it\n", r.out)
    assert.matches("go on    runbook resume asks%-1", r.out)
    assert.equal(66, command.run(folder, { "show", "asks-9" }).code)

    r = command.run(folder, { "mark", "freeze", "skipped", "--reason", "done by hand" })
    assert.equal(0, r.code, r.err)
    r = command.run(folder, { "resume", "--done", "look=ada" })
    assert.equal(0, r.code, r.err)
    assert.matches("skipped freeze: done by hand", command.run(folder, { "show", "asks-1" }).out)
  end)

  it("show the log as it was seen, and as it was kept", function()
    local folder = folder_with { ["hello.lua"] = HELLO }
    local r = command.run(folder, { "run", "hello.lua", "-p", "who=ada" })
    assert.equal(r.err, command.run(folder, { "show", "--log" }).out)
    local records = command.records(command.run(folder, { "show", "--log", "--json" }).out)
    assert.same({ "run-start", "run-end" }, { records[1].type, records[#records].type })
    assert.equal(r.err, command.run(folder, { "show", "--follow" }).out) -- it has ended
  end)
end)

describe("events on a stdout", function()
  local SLOW = [[
local rb = require "runbook"
local here = require "runbook.here"
rb.step("slow", "Slow", function() for i = 1, 200 do rb.say("turn " .. i) here:query { "sleep", "0.05" } end end)
]]

  it("that nobody reads any more stop the run, which goes on when resumed", function()
    local folder = folder_with { ["slow.lua"] = SLOW }
    local output = world.sh(("{ %s run %s/slow.lua --json --state %s/state; echo code $? >&2; } | head -2")
      :format(world.runbook, folder, folder))
    assert.matches("code 141", output)
    assert.matches("stopping: nothing new starts", output)
    assert.matches("slow%-1 stopped", output)
    assert.is_nil(output:find("turn 20", 1, true), output) -- at once, not when a buffer is full
    assert.is_nil(output:find("failed", 1, true), output)
  end)

  it("that takes nothing keep the run from starting", function()
    local folder = folder_with { ["slow.lua"] = SLOW }
    local output = world.sh(("%s run %s/slow.lua --json --state %s/state 2>&1 >/dev/full; echo code $?; %s runs --state %s/state")
      :format(world.runbook, folder, folder, world.runbook, folder))
    assert.matches("code 74", output)
    assert.matches("stdout: No space left on device", output)
    assert.matches("no run is kept", output)
    assert.is_nil(output:find("turn", 1, true), output)
  end)

  it("that takes nothing any more from the first event on leave a run that failed, and says why", function()
    local small <close> = world.filesystem { size = "1M", kind = "tmpfs" }
    local folder = folder_with { ["slow.lua"] = "-- " .. ("a long title "):rep(1000) .. "\n" .. SLOW }
    small:fill(4096) -- a page, which the first line fits into
    local code = select(2, world.sh(("%s run %s/slow.lua --json --state %s/state >%s/out 2>&1"):format(
      world.runbook, folder, folder, small.path)))
    assert.equal(74, code)
    assert.matches("slow%-1 +failed", world.sh(("%s runs --state %s/state"):format(world.runbook, folder)))
  end)
end)

describe("runbook rollback", function()
  local WRITES = [[
local rb = require "runbook"
local here = require "runbook.here"
rb.step("write", "Write it", function() here:write(os.getenv "PWD" .. "/file", "new") end)
rb.step("fail", "Fail", function() error "no" end)
]]

  it("undoes a run, and says before what it would undo", function()
    local folder = folder_with { ["writes.lua"] = WRITES }
    world.write(folder .. "/file", "old")
    assert.equal(1, command.run(folder, { "run", "writes.lua" }).code)
    assert.equal("new", world.read(folder .. "/file"))
    local r = command.run(folder, { "rollback", "--dry-run" })
    assert.equal(0, r.code, r.err)
    assert.matches("write  Write it\n +.*file", r.err)
    assert.is_nil(r.err:find("place.", 1, true), r.err) -- words for people, no names of verbs
    assert.equal("new", world.read(folder .. "/file"))
    r = command.run(folder, { "rollback", "writes-1" })
    assert.equal(0, r.code, r.err)
    assert.matches("write undone", r.err)
    assert.matches("writes%-1 is undone", r.err)
    assert.equal("old", world.read(folder .. "/file"))
    assert.matches("writes%-1 +rolled%-back", command.run(folder, { "runs" }).out)
    assert.equal(64, command.run(folder, { "resume", "writes-1" }).code)
  end)

  it("leaves nothing for sweep and unlock to do", function()
    local folder = folder_with { ["hello.lua"] = HELLO }
    command.run(folder, { "run", "hello.lua", "-p", "who=ada" })
    assert.same({ 0, "" }, { command.run(folder, { "sweep", "-q" }).code, command.run(folder, { "sweep", "-q" }).err })
    local r = command.run(folder, { "unlock", "hello-1", "--reason", "none of it runs" })
    assert.equal(0, r.code, r.err)
    assert.matches("0 of 0 locks given up", r.err)
  end)
end)

describe("receipts", function()
  it("are shown by pair and unit", function()
    local folder = folder_with { ["hello.lua"] = HELLO }
    command.run(folder, { "run", "hello.lua", "-p", "who=ada" })
    assert.matches("has no receipts yet", command.run(folder, { "show", "--receipts" }).err)
    local function keep(sql)
      local j = require("runbook.journal").open(folder .. "/state/runbook/runs/hello-1/journal.db")
      j:later { sql }
      j:commit()
      j:close()
    end
    keep("INSERT INTO receipt VALUES ('a -> b', 'user-1', 'scanned', '{\"files\":3}', 1796421730)")
    local function shown()
      return command.run(folder, { "show", "--receipts" }).out
    end
    local scanned = "scanned: both ends were walked afterwards and are the same in names, types, sizes, owners, modes, times, links\n"
    assert.equal("a -> b\n  scanned  2026-12-04 22:02  user-1\n" .. scanned, shown())
    local records = command.records(command.run(folder, { "show", "--receipts", "--json" }).out)
    assert.same({ "receipt", "user-1", 3 }, { records[2].type, records[2].unit, records[2].data.files })
    keep("INSERT INTO receipt VALUES ('a -> b', 'J%C3%B6rg%20%FF%0A', 'sent', '{}', 1796421730)")
    assert.equal("a -> b\n  sent     2026-12-04 22:02  J\u{f6}rg \\xff\\x0a\n  scanned  2026-12-04 22:02  user-1\n"
      .. "sent: it was copied, and what copied it said that all went well; " .. scanned, shown())
    records = command.records(command.run(folder, { "show", "--receipts", "--json" }).out)
    assert.equal("J%C3%B6rg%20%FF%0A", records[2].unit)
  end)
end)

describe("at a terminal", function()
  it("asks before a disruption, and the answer decides", function()
    local folder = folder_with { ["asks.lua"] = ASKS }
    local shown, code = command.at_terminal(folder, { "run", "asks.lua" }, { { "Type asks to go on", "yes\n" }, { "Type asks", "\n" } })
    assert.equal(6, code, shown)
    assert.matches("That is not asks; nothing was done.", shown, 1, true)
    assert.is_nil(shown:find("closed", 1, true))
    shown, code = command.at_terminal(folder, { "resume" }, { { "Type asks to go on", "asks\n" }, { "Type your name", "ada\n" } })
    assert.equal(0, code, shown)
    assert.matches("closed", shown)
    assert.matches("Is it closed?", shown, 1, true)
    assert.matches("done look: ada, by ", command.run(folder, { "show" }).out)
  end)

  it("asks for a parameter that is missing", function()
    local folder = folder_with { ["hello.lua"] = HELLO }
    local shown, code = command.at_terminal(folder, { "run", "hello.lua" }, { { "who = ", "grace\n" } })
    assert.equal(0, code, shown)
    assert.matches("who (string): whom", shown, 1, true)
    assert.matches("hello grace", shown)
  end)

  it("asks nobody with --no-input", function()
    local folder = folder_with { ["asks.lua"] = ASKS }
    local shown, code = command.at_terminal(folder, { "run", "asks.lua", "--no-input" }, {})
    assert.equal(5, code, shown)
  end)

  it("has colours, unless NO_COLOR or --no-color says no", function()
    local folder = folder_with { ["hello.lua"] = HELLO }
    assert.matches("\27%[32mok\27%[0m", (command.at_terminal(folder, { "run", "hello.lua", "-p", "who=a" }, {})))
    assert.is_nil((command.at_terminal(folder, { "run", "hello.lua", "-p", "who=a", "--no-color" }, {})):find("\27%[%d*m"))
    assert.is_nil((command.at_terminal(folder, { "run", "hello.lua", "-p", "who=a" }, {}, { NO_COLOR = "1" })):find("\27%[%d*m"))
  end)

  it("writes plain lines to one that cannot move", function()
    local folder = folder_with { ["hello.lua"] = HELLO }
    local shown = command.at_terminal(folder, { "run", "hello.lua", "-p", "who=a" }, {}, { TERM = "dumb" })
    assert.is_nil(shown:find("\27", 1, true))
  end)
end)

describe("a stderr that nobody reads for a while", function()
  it("holds nothing up and gets everything in the end", function()
    local folder = folder_with { ["flood.lua"] = [[
      local rb = require "runbook"
      rb.main(function() for i = 1, 20000 do rb.say("line " .. i .. (" x"):rep(50)) end end)
    ]] }
    local output = world.sh(([[cd %s; export XDG_STATE_HOME=$PWD/state
      { %s run flood.lua 2>&1; echo code $?; } | {
        while ! grep -q run-end state/runbook/runs/*/events.ndjson; do sleep 0.05; done 2>/dev/null
        date +%%s.%%N > woke; cat; }
    ]]):format(folder, world.must("realpath " .. world.runbook)))
    assert.equal(20000, select(2, output:gsub("main line %d+ x", "")))
    assert.matches("flood%-1 is done", output)
    assert.matches("code 0$", output)
    local records = command.records(command.run(folder, { "show", "--log", "--json" }).out)
    assert.equal("run-end", records[#records].type)
    assert.is_true(records[#records].at < tonumber(world.read(folder .. "/woke"))) -- it ended while nothing was read
  end)
end)

describe("Ctrl-C", function()
  local SLOW = [[
local rb = require "runbook"
rb.step("slow", "Wait", function() rb.say "begun" rb.sleep(60) end)
]]

  it("stops within seconds, names the command that goes on, and ends with 130", function()
    local folder = folder_with { ["slow.lua"] = SLOW }
    local before = os.time()
    local shown, code = command.at_terminal(folder, { "run", "slow.lua" }, { { "begun", "\3" } })
    assert.equal(130, code, shown)
    assert.is_true(os.time() - before <= 5)
    assert.matches("stopping: nothing new starts", shown, 1, true)
    assert.matches("go on   runbook resume slow-1", shown, 1, true)
    assert.matches("^slow%-1 .*stopped", command.run(folder, { "show" }).out)
  end)

  it("leaves jobs running and names them, and rollback ends them", function()
    local folder = folder_with { ["job.lua"] = [[
local rb = require "runbook"
local here = require "runbook.here"
rb.step("copy", "Copy", function()
  local j = here:job { name = "long", argv = { "sh", "-c", 'echo $$ > "$0/pid"; sleep 300', os.getenv "PWD" } }
  rb.say "begun"
  j:wait()
end)
]] }
    local shown, code = command.at_terminal(folder, { "run", "job.lua" }, { { "begun", "\3" } })
    assert.equal(130, code, shown)
    assert.matches("goes on  long on here, of copy\n", shown)
    local pid = tonumber(world.wait_until("the job's pid", function() return world.read(folder .. "/pid") end))
    assert.is_true(world.alive(pid))
    assert.matches("goes on  long on here, of copy\n", command.run(folder, { "show" }).out)
    command.run(folder, { "rollback" })
    assert.is_false(world.alive(pid))
  end)

  it("at a question stops too", function()
    local folder = folder_with { ["asks.lua"] = ASKS }
    local shown, code = command.at_terminal(folder, { "run", "asks.lua" }, { { "Type asks to go on", "\3" } })
    assert.equal(130, code, shown)
    assert.is_nil(shown:find("closed", 1, true))
  end)

  it("of any kind has its own code; USR1 lists what every task waits for", function()
    local folder = folder_with { ["slow.lua"] = SLOW }
    for signal, code in pairs { TERM = 143, HUP = 129 } do
      local log = folder .. "/" .. signal
      local output, got = world.sh(([[
        cd %s; XDG_STATE_HOME=$PWD/state %s run slow.lua >%s 2>&1 </dev/null & pid=$!
        while ! grep -q begun %s; do sleep 0.05; done
        kill -USR1 $pid; while ! grep -q 'waits for' %s; do sleep 0.05; done
        kill -%s $pid; wait $pid
      ]]):format(folder, world.must("realpath " .. world.runbook), log, log, log, signal))
      assert.equal(code, got, output)
      assert.matches("task %d+ +slow +waits for a timer", world.read(log))
    end
  end)
end)
