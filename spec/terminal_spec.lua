local core = require "runbook.core.terminal"
local gate = require "runbook.core.gate"
local process = require "runbook.core.process"
require "runbook.core.stream"
local world = require "spec.world"

-- Runs Lua at a terminal of its own. `steps` are { text to wait for, what is typed then | function(child) }; returns what the
-- terminal showed and how the program ended.
local function at_terminal(source, steps, env)
  return gate.call("change", function()
    local folder = world.folder "terminal"
    world.write(folder .. "/program.lua", source)
    local line = ("trap : INT; %s lua %s/program.lua; code=$?; echo; echo code $code; stty -a"):format(world.runbook, folder)
    local child <close> = assert(process.open {
      argv = { "script", "-qec", line, "/dev/null" }, env = env or { SHELL = "/bin/sh", TERM = "xterm" },
    })
    local out, keys = child:stdout(), child:stdin()
    local seen, from = "", 1
    for _, step in ipairs(steps) do
      while not seen:find(step[1], from, true) do
        local bytes = assert(out:read(), "the program ended after:\n" .. seen)
        seen = seen .. bytes
      end
      from = select(2, seen:find(step[1], from, true)) + 1
      if type(step[2]) == "function" then
        step[2](seen)
      else
        assert(keys:write(step[2]))
      end
    end
    while true do
      local bytes = out:read()
      if not bytes then
        break
      end
      seen = seen .. bytes
    end
    child:wait()
    return (seen:gsub("\r", ""))
  end)
end

describe("a question at the terminal", function()
  it("gets the line, without its newline", function()
    local seen = at_terminal([[
      local line = require("runbook.terminal").ask { prompt = "Name: " }
      print(("got %q"):format(line))
    ]], { { "Name: ", "alice b\n" } })
    assert.matches("Name: alice b\n", seen, 1, true)
    assert.matches('got "alice b"', seen, 1, true)
  end)

  it("does not show a secret, and makes it one", function()
    local seen = at_terminal([[
      local s = require("runbook.terminal").ask { prompt = "Password: ", secret = "nfs password" }
      print("got " .. tostring(s), require("runbook.core.secret").is(s), require("runbook.core.redact").host():text "<hunter2-hunter2>")
    ]], { { "Password: ", "hunter2-hunter2\n" } })
    assert.is_nil(seen:find("hunter2", 1, true), seen)
    assert.matches("Password: \ngot «secret:nfs password»\ttrue\t<«secret:nfs password»>", seen, 1, true)
    assert.matches(" echo ", seen, 1, true)
  end)

  it("ends with nil at Ctrl-D", function()
    local seen = at_terminal([[print("got", require("runbook.terminal").ask { prompt = "? " })]], { { "? ", "\4" } })
    assert.matches("got\tnil", seen, 1, true)
  end)

  it("throws away what was typed before it was asked", function()
    local seen = at_terminal([[
      print "busy"
      io.stdout:flush()
      while os.clock() < 0.5 do end
      print("got " .. require("runbook.terminal").ask { prompt = "Type temple: " })
    ]], { { "busy", "yes\n" }, { "Type temple: ", "temple\n" } })
    assert.matches("got temple", seen, 1, true)
  end)

  it("leaves Ctrl-C a signal, and gives the terminal back when it is cancelled", function()
    local seen = at_terminal([[
      local task = require "runbook.core.task"
      local asker = task.spawn(function() require("runbook.terminal").ask { prompt = "Password: ", echo = false } end)
      print("signal " .. require("runbook.core.signal").next())
      asker:cancel()
      task.join_all { asker }
      print("ended", asker:result())
    ]], { { "Password: ", "\3" } })
    assert.matches("signal INT", seen, 1, true)
    assert.matches("ended\tfalse\tcancelled", seen, 1, true)
    assert.matches(" echo ", seen, 1, true)
    assert.is_nil(seen:find(" -echo ", 1, true))
  end)

  it("gives the terminal back when the program leaves in the middle", function()
    local seen = at_terminal([[
      local task = require "runbook.core.task"
      task.spawn(function() require("runbook.terminal").ask { prompt = "Password: ", echo = false } end)
      task.sleep(0.05)
      os.exit(7)
    ]], { { "code 7", "" } })
    assert.is_nil(seen:find(" -echo ", 1, true), seen)
  end)

  it("hides the answer again after Ctrl-Z and fg", function()
    local seen = at_terminal([[
      local s = require("runbook.terminal").ask { prompt = "Password: ", echo = false }
      print("got", #s)
    ]], { { "Password: ", function()
      -- what a shell does: its own settings, and SIGCONT when the job comes to the front again
      local pid = world.must("pgrep -n -f '^" .. world.runbook .. " lua .*program.lua'")
      world.must(("stty echo < /proc/%s/fd/0 && kill -CONT %s"):format(pid, pid))
    end }, { "Password: ", "swordfish\n" } })
    assert.is_nil(seen:find("swordfish", 1, true), seen)
    assert.matches("got\t9", seen, 1, true)
  end)

  it("is refused while another one is open", function()
    local seen = at_terminal([[
      local task, core = require "runbook.core.task", require "runbook.core.terminal"
      local first = task.spawn(function() return core.ask("first ", true) end)
      task.sleep(0.01)
      print(core.ask("second ", true))
      task.join_all { first }
      print("joined", first:result())
    ]], { { "EBUSY", "one\n" } })
    assert.matches("nil\tanother question is open on this terminal\tEBUSY", seen, 1, true)
    assert.matches("joined\ttrue\tone", seen, 1, true)
  end)

  it("takes a long line whole", function()
    local seen = at_terminal([[
      local s = require("runbook.terminal").ask { prompt = "? ", echo = false }
      print("got", #s, s == ("x"):rep(4000))
    ]], { { "? ", ("x"):rep(4000) .. "\n" } })
    assert.matches("got\t4000\ttrue", seen, 1, true)
  end)

  it("says so where there is no terminal", function()
    local folder = world.folder "none"
    world.write(folder .. "/p.lua", [[
      local terminal, core = require "runbook.terminal", require "runbook.core.terminal"
      print(terminal.available(), core.ask("x", true))
      print(pcall(terminal.ask, { prompt = "x" }))
    ]])
    local said = world.must(("setsid -w %s lua %s/p.lua < /dev/null"):format(world.runbook, folder))
    assert.matches("^false\tnil\tthere is no terminal to ask at\tENOTTY\nfalse\t", said)
    assert.matches("there is no terminal", said)
  end)
end)

describe("a line that can be edited", function()
  local up, left, enter = "\27[A", "\27[D", "\r"

  it("is edited in place, letters of several bytes too", function()
    local seen = at_terminal([[
      local e = require("runbook.terminal").editor()
      print(("got %q"):format(e:read "> "))
      e:close()
    ]], { { "> ", "sü" .. left .. "x\5z" .. enter } }, { SHELL = "/bin/sh", TERM = "xterm", LC_ALL = "C.UTF-8" })
    assert.matches('got "sxüz"', seen, 1, true)
    assert.matches(" icanon ", seen, 1, true)
    assert.matches(" echo ", seen, 1, true)
  end)

  it("brings back the lines before it, also those of yesterday", function()
    local path = world.folder "history" .. "/lines"
    local program = ([[
      local e = require("runbook.terminal").editor(%q)
      print("got " .. e:read "1> ")
      print("got " .. e:read "2> ")
      e:close()
    ]]):format(path)
    local seen = at_terminal(program, { { "1> ", "first" .. enter }, { "2> ", up .. enter } })
    assert.matches("got first.*got first", seen)
    assert.equal("first\n", world.read(path))
    assert.equal("600", world.must("stat -c %a " .. path))
    seen = at_terminal(program, { { "1> ", up .. "!" .. enter }, { "2> ", up .. up .. enter } })
    assert.matches("got first!.*got first\n", seen)
    assert.equal("first\nfirst!\nfirst\n", world.read(path))
  end)

  it("ends with nil at Ctrl-D, and leaves the loop free meanwhile", function()
    local seen = at_terminal([[
      local task = require "runbook.core.task"
      local turns = 0
      local other = task.spawn(function() while true do task.sleep(0.001) turns = turns + 1 end end)
      local e = require("runbook.terminal").editor()
      local line = e:read "> "
      other:cancel()
      print("got", line, turns > 5)
    ]], { { "> ", function() world.must "sleep 0.1" end }, { "", "\4" } })
    assert.matches("got\tnil\ttrue", seen, 1, true)
  end)

  it("gives the terminal back when it is cancelled, closed, or the program leaves", function()
    for _, how in ipairs { "reader:cancel()", "e:close()", "os.exit(7)" } do
      local seen = at_terminal(([[
        local task = require "runbook.core.task"
        local e = require("runbook.core.terminal").editor()
        local reader = task.spawn(function() return e:read "> " end)
        task.sleep(0.1)
        %s
        task.join_all { reader }
        print("ended", reader:result())
      ]]):format(how), { { "> ", "half a line" } })
      assert.matches(" icanon ", seen, 1, true)
      assert.matches(" echo ", seen, 1, true)
      assert.matches(({
        ["reader:cancel()"] = "ended\tfalse\tcancelled", ["e:close()"] = "ended\ttrue\tnil\tthe editor was closed\tECLOSED",
        ["os.exit(7)"] = "code 7",
      })[how], seen, 1, true)
    end
  end)

  it("leaves Ctrl-C a signal, and reads on afterwards", function()
    local seen = at_terminal([[
      local task = require "runbook.core.task"
      local e = require("runbook.core.terminal").editor()
      local reader = task.spawn(function() return e:read "1> " end)
      print("signal " .. require("runbook.core.signal").next())
      reader:cancel()
      task.join_all { reader }
      task.sleep(0.1)
      print("got", e:read "2> ")
    ]], { { "1> ", "abc\3" }, { "2> ", "next" .. enter } })
    assert.matches("signal INT", seen, 1, true)
    assert.matches("got\tnext", seen, 1, true)
  end)

  it("is refused while somebody else has the terminal", function()
    local seen = at_terminal([[
      local task, core = require "runbook.core.task", require "runbook.core.terminal"
      local e = core.editor()
      local reader = task.spawn(function() return e:read "first " end)
      task.sleep(0.05)
      print(core.ask("second ", true))
      print(e:read "third ")
      task.join_all { reader }
      print("joined", reader:result())
      e:close()
      print(pcall(e.read, e, "fourth"))
    ]], { { "EBUSY", "" }, { "EBUSY", "one" .. enter } })
    assert.matches("joined\ttrue\tone", seen, 1, true)
    assert.matches("(editor is closed)", seen, 1, true)
  end)
end)

describe("terminal", function()
  it("knows its size and whether it is one", function()
    local seen = at_terminal([[
      local t, core = require "runbook.terminal", require "runbook.core.terminal"
      os.execute "stty columns 77 rows 33"
      print("size", core.size "stdout")
      print("is", t.is "stdin", t.is "stdout", t.is "stderr", t.available(), t.width "stderr", t.moves "stdout")
    ]], {})
    assert.matches("size\t77\t33", seen, 1, true)
    assert.matches("is\ttrue\ttrue\ttrue\ttrue\t77\ttrue", seen, 1, true)
    assert.error_matches(function() core.size "stdlog" end, "invalid option 'stdlog'")
  end)

  it("decides about colours by the usual variables", function()
    local folder = world.folder "colours"
    world.write(folder .. "/p.lua", [[
      local t = require "runbook.terminal"
      io.write(tostring(t.colour "stdout"), " ", tostring(t.moves "stdout"), " ", tostring(t.width "stdout"), " ", tostring(t.unicode()))
    ]])
    local program = ("%s lua %s/p.lua"):format(world.runbook, folder)
    local clean = "env -u NO_COLOR -u FORCE_COLOR -u CLICOLOR_FORCE -u COLUMNS -u LANG -u LC_ALL -u LC_CTYPE TERM=xterm "
    for env, said in pairs {
      [""] = "false false nil false", ["NO_COLOR=1 FORCE_COLOR=1"] = "false false nil false", ["FORCE_COLOR=1"] = "true false nil false",
      ["FORCE_COLOR=0"] = "false false nil false", ["CLICOLOR_FORCE=1"] = "true false nil false", ["NO_COLOR="] = "false false nil false",
      ["COLUMNS=90 LANG=C.UTF-8"] = "false false 90 true", ["COLUMNS=x LANG=C"] = "false false nil false",
      ["LC_ALL=C LANG=de_DE.utf8"] = "false false nil false", ["LC_CTYPE=de_DE.utf8"] = "false false nil true",
    } do
      assert.equal(said, world.must(clean .. env .. " " .. program), env)
    end
    local at_tty = [[io.write("colour ", tostring(require("runbook.terminal").colour "stdout"))]]
    for _, case in ipairs { { "xterm", "", "true" }, { "dumb", "", "false" }, { "xterm", "1", "false" } } do
      local env = { SHELL = "/bin/sh", TERM = case[1], NO_COLOR = case[2], FORCE_COLOR = "", CLICOLOR_FORCE = "" }
      assert.matches("colour " .. case[3], at_terminal(at_tty, {}, env))
    end
  end)
end)
