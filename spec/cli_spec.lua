local cli = require "runbook.cli"
local command = require "spec.support.command"
local world = require "spec.world"

local folder

setup(function()
  folder = command.folder()
end)

local function call(...)
  return command.run(folder, { ... })
end

describe("the command", function()
  it("alone says in a few lines what to do first", function()
    local r = call()
    assert.equal(0, r.code)
    assert.equal("", r.err)
    assert.matches("^runbook: procedures for moving hubs that you can stop, resume and undo\n\n  runbook new temple %-%-from ", r.out)
    assert.is_true(select(2, r.out:gsub("[^\n]+\n", "")) <= 8)
    for line in r.out:gmatch("[^\n]+") do
      assert.is_true(#line <= 110, line)
    end
  end)

  it("has a page for every verb that begins with an example", function()
    for _, row in ipairs(cli.VERBS) do
      local r = call(row[1], "-h")
      assert.equal(0, r.code, row[1] .. "\n" .. r.err)
      assert.matches("^  [^\n]*runbook " .. row[1], r.out)
      assert.matches("\nUsage: runbook " .. row[1], r.out, 1, true)
      assert.matches("\n" .. row[2]:sub(1, 1):upper(), r.out, 1, true)
      assert.same(r, call("help", row[1]))
      for line in r.out:gmatch("[^\n]+") do
        assert.is_true(#line <= 100, line)
      end
    end
  end)

  it("lists every verb once in --help, and offers no other", function()
    local r = call "--help"
    assert.equal(0, r.code)
    for _, row in ipairs(cli.VERBS) do
      assert.equal(1, select(2, r.out:gsub("\n  " .. row[1] .. " +" .. row[2]:gsub("%p", "%%%0"), "")), row[1])
    end
  end)

  it("refuses what it does not know with 64 and the nearest name", function()
    local r = call "rnu"
    assert.same({ 64, "" }, { r.code, r.out })
    assert.equal("runbook: there is no verb `rnu`; did you mean `run`?\n   try     `runbook --help` lists them\n", r.err)
    r = call("run", "x.lua", "--parms", "y")
    assert.equal(64, r.code)
    assert.matches("^runbook: run: unknown option `%-%-parms`; did you mean `%-%-param` or `%-%-params`%?\n", r.err)
    r = call "--json"
    assert.equal(64, r.code)
    assert.matches("the verb comes first", r.err)
    for _, row in ipairs(cli.VERBS) do
      if row[1] ~= "lua" then
        r = call(row[1], "--no-such-option")
        assert.equal(64, r.code, row[1])
        assert.matches("unknown option `%-%-no%-such%-option`", r.err)
      end
    end
  end)

  it("refuses words that are missing, doubled or not STEP=TEXT", function()
    for _, words in ipairs {
      { "run" }, { "run", "a.lua", "b.lua" }, { "run", "a.lua", "--confirm", "freeze" }, { "run", "a.lua", "--until" },
      { "new", "x" }, { "mark", "step" }, { "mark", "step", "finished", "--reason", "x" }, { "mark", "step", "done" },
      { "unlock" }, { "unlock", "--reason", " " }, { "run", "a.lua", "--skip", "x" }, { "run", "a.lua", "--reason", "x" },
      { "show", "--log", "--receipts" }, { "completion", "tcsh" },
    } do
      local r = call(table.unpack(words))
      assert.equal(64, r.code, table.concat(words, " ") .. "\n" .. r.err)
      assert.equal("", r.out)
      assert.matches("^runbook: ", r.err)
    end
  end)

  it("says its version", function()
    assert.matches("^runbook %d+%.%d+%.%d+\n$", call("--version").out)
  end)

  it("notices that its output was not taken", function()
    local output, code = world.sh(world.runbook .. " --help > /dev/full")
    assert.equal(74, code)
    assert.matches("^runbook: stdout: No space left on device", output)
  end)

  it("ends without a word when nobody reads on", function()
    local output = world.sh(("{ %s doc runbook; echo code $? >&2; } | head -1"):format(world.runbook))
    assert.is_nil(output:find("runbook: ", 1, true), output)
  end)
end)

describe("runbook lua", function()
  it("hands a file its words and takes its exit code", function()
    world.write(folder .. "/words.lua", 'print(arg[0], #arg, ...)\nreturn 7')
    local r = call("lua", "words.lua", "--json", "-x")
    assert.same({ 7, "words.lua\t2\t--json\t-x\n" }, { r.code, r.out })
  end)

  it("says what is wrong with a file", function()
    world.write(folder .. "/broken.lua", "local = 1")
    assert.equal(65, call("lua", "broken.lua").code)
    assert.equal(66, call("lua", "nowhere.lua").code)
    assert.equal(64, call("lua").code)
  end)
end)
