local check = require "runbook.check"
local command = require "spec.support.command"
local docstrings = require "runbook.docstrings"
local world = require "spec.world"

local MOVE = [[
--- Move a thing.
---
---     runbook run our-move.lua --params x.yaml
---
--- Half-way: nothing is lost.

local rb = require "runbook"
local p = rb.params {
  { "what", "string", "the thing" },
  { "how", "choice", "in which way", choices = { "fast", "slow" }, default = "slow" },
}

rb.section "While people work"

-- Looking costs nothing.
-- So it comes first.
rb.checks("look", "Look at it", {
  { "it is there", function() return p.what end },
})

rb.step("move", "Move it", {
  guard = function() end, disrupts = "its owner", fresh = "12h",
}, function()
  rb.say(p.what, p.how)
end)

rb.manual("tell", "Tell people", { text = "By mail." })
]]

describe("runbook new", function()
  it("makes a copy and its parameter file, and overwrites neither", function()
    local folder = command.folder { ["our-move.lua"] = MOVE }
    local r = command.run(folder, { "new", "temple", "--from", "our-move.lua" })
    assert.equal(0, r.code, r.err)
    assert.matches("Next: runbook plan temple.lua\n$", r.err)
    local copy = world.read(folder .. "/temple.lua")
    assert.matches("---     runbook run temple.lua\n", copy, 1, true)
    assert.equal(MOVE:gsub("our%-move%.lua %-%-params x%.yaml", "temple.lua"), copy)
    local yaml = world.read(folder .. "/temple.yaml")
    assert.matches("# the thing\n", yaml, 1, true)
    assert.matches("\nwhat: +# required\n", yaml)
    assert.matches("\n# how: slow\n", yaml)

    world.write(folder .. "/temple.yaml", "what: mine\n")
    r = command.run(folder, { "new", "temple", "--from", "our-move.lua" })
    assert.equal(73, r.code)
    assert.matches("temple%.lua is there already", r.err)
    world.must("rm " .. folder .. "/temple.lua")
    r = command.run(folder, { "new", "temple", "--from", "our-move.lua" })
    assert.equal(73, r.code)
    assert.equal("what: mine\n", world.read(folder .. "/temple.yaml"))
    assert.is_nil(world.read(folder .. "/temple.lua")) -- all or nothing
  end)

  it("gives a file that runs as soon as it is filled in", function()
    local folder = command.folder { ["our-move.lua"] = MOVE }
    command.run(folder, { "new", "temple", "--from", "our-move" .. ".lua" })
    local r = command.run(folder, { "plan", "temple.lua" })
    assert.equal(65, r.code)
    assert.matches("what +.*missing", r.err)
    assert.is_nil(r.err:find("how ", 1, true))
    world.write(folder .. "/temple.yaml", (world.read(folder .. "/temple.yaml"):gsub("what:", "what: piano", 1)))
    r = command.run(folder, { "plan", "temple.lua" })
    assert.equal(0, r.code, r.err)
    assert.matches("\n  what    piano\n  how     slow\n", r.out)
  end)

  it("refuses names that are none, and procedures that are not there", function()
    local folder = command.folder {}
    assert.equal(64, command.run(folder, { "new", "a b", "--from", "x" }).code)
    assert.equal(66, command.run(folder, { "new", "a", "--from", "no-such-thing" }).code)
  end)
end)

describe("runbook view", function()
  it("prints a runbook as a document, without values", function()
    local folder = command.folder { ["our-move.lua"] = MOVE }
    local r = command.run(folder, { "view", "our-move.lua" })
    assert.equal(0, r.code, r.err)
    assert.equal([[
Move a thing.

    runbook run our-move.lua --params x.yaml

Half-way: nothing is lost.

Parameters

  what    the thing (string; required)
  how     in which way (fast, slow; default slow)

While people work
-----------------

   1 look  Look at it
       Looking costs nothing.
       So it comes first.
       - looks, at every start and every resume
         . it is there

   2 move  Move it
       - looks first; stops when something does not hold
       - asks before it: its owner
       - done again when older than 12h

   3 tell  Tell people
       By mail.
       - done by a person
]], r.out)
    r = command.run(folder, { "view", "our-move.lua", "--source" })
    assert.matches("       | rb.step(\"move\", \"Move it\", {\n", r.out, 1, true)
    assert.matches("       |   rb.say(p.what, p.how)\n       | end)\n", r.out, 1, true)
    local records = command.records(command.run(folder, { "view", "our-move.lua", "--json" }).out)
    local types = {}
    for i, record in ipairs(records) do types[i] = record.type end
    assert.same({ "version", "runbook", "parameter", "parameter", "section", "checks", "step", "manual" }, types)
  end)
end)

describe("runbook check", function()
  local function texts(source, declaration)
    local list = {}
    for i, one in ipairs(check.source('local rb = require "runbook"\n' .. source, "x.lua", declaration)) do
      list[i] = ("%s:%s"):format(one.line or "-", one.text:match("^[%w.:`_ ]+"))
    end
    return list
  end

  it("finds steps that are declared only sometimes", function()
    assert.same({ "2:rb.step inside an `if`: which steps there are would depend on values" },
      texts 'if x then rb.step("a", "A", f) end')
    assert.same({ "2:rb.checks inside a loop: which steps there are would depend on values" },
      texts 'for _, x in ipairs((function() return {} end)()) do rb.checks("a" .. x, "A") end')
    assert.same({ "3:rb.manual inside a loop: which steps there are would depend on values" },
      texts 'while f() do local y = function() end\nrb.manual("a", "A") end')
    assert.same({ "2:rb.step inside a loop: which steps there are would depend on values" },
      texts 'repeat rb.step("a", "A", f) until true')
    assert.same({}, texts [==[
      if a then b() elseif c then d() else e() end
      for i = 1, 2 do f(i) end while g() do h() end repeat local k = 1 until k
      do local l = function() if m then return end end end
      rb.step("a", "if for while", function() if x then y() end end) -- if rb.step("b") end
      --[[ if rb.step ]] rb.step('b', [[ if x then rb.step ]], function() for _ in z do w() end end)
      other.rb.step("c")
    ]==])
  end)

  it("finds shell scripts that are put together", function()
    assert.same({ "2::sh is given a script put together from pieces" }, texts 'p.host:sh("rm " .. path)')
    assert.same({ "2::query_sh is given a script put together from pieces" }, texts 'p.host:query_sh(("ls %s"):format(d), x)')
    assert.same({}, texts 'p.host:sh([[rm "$1"]], base .. "/x")\np.host:query_sh("ls", a .. b)')
  end)

  it("finds calls that are not there and parameters nobody reads", function()
    assert.same({ "2:os.execute is not for runbooks" }, texts 'os.execute("reboot")')
    local declaration = { { "a", "string", "A" }, { "b", "string", "B" } }
    assert.same({ "-:parameter `b` is never read" }, texts("local p = rb.params {}\nprint(p.a)", declaration))
    assert.same({}, texts("local p = rb.params {}\nprint(p.a)\nf(p)", declaration))
  end)

  it("reads Lua as Lua does", function()
    local function words(source)
      local list = {}
      for i, t in ipairs(check.tokens(source)) do list[i] = t.text end
      return list
    end
    assert.same({ "a", "..", "b", "...", "==", "0x1Fp-2", "3.5e+7", "..", "'it\\'s'", "[=[ ]] ]=]", "x", "//", "y" },
      words "a..b ... == 0x1Fp-2 3.5e+7 .. 'it\\'s' [=[ ]] ]=] x --[[ no\n ]] // --y\n y -- end")
    assert.equal(4, check.tokens('x = [[\n\n]]\ny')[4].line)
    for _, broken in ipairs { "'", '"\\', "[[", "--[[", "0x", "[=", "\\" } do
      assert.is_table(check.tokens(broken))
    end
  end)

  it("passes what is fine, and says the worst as the exit code", function()
    local folder = command.folder { ["our-move.lua"] = MOVE, ["bad.lua"] = "x = 1",
      ["risky.lua"] = 'local rb = require "runbook"\nlocal here = require "runbook.here"\n'
        .. 'rb.main(function() here:sh("ls " .. os.getenv "HOME") end)' }
    local r = command.run(folder, { "check", "our-move.lua" })
    assert.same({ 0, "", "1 file, nothing found\n" }, { r.code, r.out, r.err })
    r = command.run(folder, { "check", "our-move.lua", "risky.lua" })
    assert.equal(1, r.code)
    assert.matches("^risky.lua:3: :sh is given", r.out)
    r = command.run(folder, { "check", "bad.lua", "risky.lua", "--json" })
    assert.equal(65, r.code)
    local records = command.records(r.out)
    assert.same({ true, false }, { records[2].fatal, records[3].fatal })
    assert.equal(66, command.run(folder, { "check", "nowhere.lua" }).code)
  end)
end)

describe("runbook doc", function()
  it("has a page for the language, every library and the types", function()
    local folder = command.folder {}
    local r = command.run(folder, { "doc" })
    assert.equal(0, r.code)
    for name in r.out:gmatch("\n  (runbook[%w.]*) +%u") do
      local page = command.run(folder, { "doc", name })
      assert.equal(0, page.code)
      assert.equal(name, page.out:match("^[^\n]+"))
    end
    assert.matches("\nrb.step%(id, title, opts, body%)\n    Declare a step", command.run(folder, { "doc", "runbook" }).out)
    assert.matches("\n  duration +a duration like 2h", command.run(folder, { "doc", "types" }).out)
    r = command.run(folder, { "doc", "tasc" })
    assert.equal(66, r.code)
    assert.matches("did you mean `task`?", r.err, 1, true)
  end)

  it("reads docstrings", function()
    local doc = docstrings.parse [[
--- A library.
---
---     local x = require "x"

local x = {}

--- Do it.
--- Twice.
---@async
---@param argv string[]  one argument each
---@param opts? { limit: integer }  how
---@param fn fun(a: integer): boolean  asked first
---@return string? out
---Permit: read
function x.run(argv, opts, fn) end

--- Not for others.
local function hidden() end

--- A verb.
---@param place runbook.Place
x.put = effect.verb {

--- A value.
x.null = 1

return function(Place)
  --- Of all places.
  ---@param path string
  function Place:look(path) end
end

function x.undocumented() end
]]
    assert.equal('A library.\n\n    local x = require "x"', doc.text)
    assert.equal(4, #doc.functions)
    local run, put, null, look = table.unpack(doc.functions)
    assert.same({ "x.run", "argv, opts, fn", "Do it.\nTwice.", true, "read" },
      { run.name, run.parameters, run.text, run.async, run.permit })
    assert.same({ name = "opts?", type = "{ limit: integer }", help = "how" }, run.params[2])
    assert.same({ name = "fn", type = "fun(a: integer): boolean", help = "asked first" }, run.params[3])
    assert.same({ type = "string?", help = "out" }, run.returns[1])
    assert.same({ "x.put", "place" }, { put.name, put.parameters })
    assert.same({ "x.null" }, { null.name, null.parameters })
    assert.same({ "Place:look", "path", "Of all places." }, { look.name, look.parameters, look.text })
  end)

  it("writes manual pages that troff reads without a complaint", function()
    local folder = command.folder {}
    for page, words in pairs {
      ["runbook.1"] = { "rollback", "EXIT STATUS", "XDG_STATE_HOME" }, ["runbook-lua.3"] = { "rb.each", "duration" },
    } do
      local r = command.run(folder, { "doc", "--man", page })
      assert.equal(0, r.code, r.err)
      assert.is_nil(r.out:find("[\128-\255]"))
      for request in r.out:gmatch("\n([.'][^%s]*)") do
        assert.is_truthy((" .TH .SH .SS .PP .TP .RS .RE .B .BR .I .nf .fi .br .sp "):find(" " .. request .. " ", 1, true), request)
      end
      for _, word in ipairs(words) do
        assert.is_truthy(r.out:upper():find(word:upper():gsub("%-", "\\-"), 1, true), word)
      end
    end
  end)
end)

describe("runbook completion", function()
  it("offers verbs, options, steps, runs and procedures", function()
    local folder = command.folder { ["our-move.lua"] = MOVE }
    local function offered(...)
      local r = command.run(folder, { "completion", "--words", ... })
      assert.equal(0, r.code, r.err)
      local list = {}
      for line in r.out:gmatch("([^\t\n]+)[^\n]*\n") do list[#list + 1] = line end
      return list
    end
    assert.same({ "run", "runs" }, offered "ru")
    assert.same({ "--params", "--param" }, offered("run", "our-move.lua", "--para"))
    assert.same({ "look", "move", "tell" }, offered("run", "our-move.lua", "--until", ""))
    assert.equal("@files", offered("run", "")[1])
    command.run(folder, { "run", "our-move.lua", "-p", "what=x" })
    assert.same({ "our-move-1" }, offered("show", "our"))
    assert.same({ "our-move-1" }, offered("resume", ""))
    assert.same({ "move" }, offered("mark", "our-move-1", "mo"))
    assert.same({ "bash", "zsh", "fish" }, offered("completion", ""))
    assert.same({}, offered("nonsense", ""))
  end)

  it("gives bash a script that works", function()
    local folder = command.folder { ["our-move.lua"] = MOVE }
    local output, code = world.sh(([[
      cd %s; ln -s %s runbook; PATH=$PWD:$PATH
      bash -c 'source <(runbook completion bash); COMP_WORDS=(runbook roll); COMP_CWORD=1; _runbook; printf "%%s\n" "${COMPREPLY[@]}"
        COMP_WORDS=(runbook view our); COMP_CWORD=2; _runbook; printf "%%s\n" "${COMPREPLY[@]}"']]):format(folder,
      world.must("realpath " .. world.runbook)))
    assert.same({ "rollback\nour-move.lua", 0 }, { output, code })
  end)
end)

describe("runbook repl", function()
  local function typed(lines, ...)
    return command.run(command.folder { ["our-move.lua"] = MOVE }, { "repl", ... }, { stdin = table.concat(lines, "\n") })
  end

  it("shows values and keeps what was set", function()
    local r = typed { "x = 20 + 1", "x * 2", "for i = 1, 2 do", "print(i)", "end", '{ "a", b = { 1 } }', "nil" }
    assert.same({ 0, '42\n1\n2\n{ "a", b = { 1 } }\nnil\n', "" }, { r.code, r.out, r.err })
  end)

  it("has the libraries by their names and the parameters of a runbook", function()
    local r = typed({ 'here:query { "echo", "hi" }', "p.how" }, "our-move.lua", "-p", "what=x")
    assert.same({ 0, '"hi"\n"slow"\n' }, { r.code, r.out })
  end)

  it("goes on after a mistake", function()
    local r = typed { "1 +* 2", "nope()", "rb.step(1)", 'here:run { "false" }', "7" }
    assert.same({ 0, "7\n" }, { r.code, r.out })
    assert.matches("unexpected symbol", r.err)
    assert.matches("attempt to call a nil value %(global 'nope'%)", r.err)
    assert.matches("ended with status 1", r.err)
    assert.is_nil(r.err:find("traceback", 1, true))
  end)

  it("stops a call with Ctrl-C and stays, and leaves at the end of input", function()
    local shown, code = command.at_terminal(command.folder(), { "repl" }, {
      { "rb> ", "rb.say 'begun' rb.sleep(60)\n" }, { "begun\r\n", "\3" }, { "rb> ", "6 * 7\n" }, { "42", nil }, { "rb> ", "\4" },
    })
    assert.equal(0, code, shown)
    assert.matches("stopped", shown)
  end)
end)
