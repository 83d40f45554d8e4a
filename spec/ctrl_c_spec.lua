-- Ctrl-C, once, twice and three times, while jobs run on servers; and what ends them when it was pressed only once.

local command = require "spec.support.command"
local json = require "runbook.json"
local task = require "runbook.task"
local walk = require "spec.support.walk"
local world = require "spec.world"

local pair

setup(function() pair = walk.pair "-c" end)
before_each(function() pair:reset() end)

-- Each job is two processes, of which the first takes no TERM.
local BOOK = [[
rb.step("copy", "Copy", function()
  %s
  local job = new:job { name = "long", about = "copy everything",
    argv = { "sh", "-c", "trap '' TERM; echo x >> /srv/ran; sleep 471 & while [ ! -e /srv/go ]; do sleep 0.1; done" } }
  rb.say "at work"
  job:must_succeed()
end)
]]

local function folder_with(before)
  local folder = command.folder()
  pair:write(folder, BOOK:format(before or ""))
  return folder
end

local function at_work()
  local names = walk.processes(pair.new)
  return names:find("/srv/ran", 1, true) ~= nil or names:find("sleep 471", 1, true) ~= nil
end

local function times_started()
  return select(2, (pair.new:read "/srv/ran" or ""):gsub("x", ""))
end

local function job_is_up()
  world.wait_until("the job", function() return times_started() > 0 and walk.processes(pair.new):find("sleep 471", 1, true) end)
end

describe("a first Ctrl-C", function()
  it("leaves jobs at work, names what they do, and says what ends them", function()
    local folder = folder_with()
    local shown, code = command.at_terminal(folder, { "run", "walk.lua" }, { { "at work", function(child)
      job_is_up()
      assert(child:stdin():write "\3")
    end } })
    assert.equal(130, code, shown)
    assert.matches("long: copy everything on new-c, of copy", shown, 1, true)
    assert.matches("Ctrl%-C within 3 s ends it", shown)
    assert.matches("end it   runbook sweep walk%-1 %-%-jobs\n", shown)
    assert.matches("go on    runbook resume walk%-1\n", shown)
    assert.is_true(at_work())
    assert.matches("end it   runbook sweep walk-1 --jobs", command.run(folder, { "show" }).out, 1, true)
    pair.new:write("/srv/go", "")
    local r = command.run(folder, { "resume", "--no-input" }) -- finds it again
    assert.equal(0, r.code, r.err)
    assert.equal(1, times_started())
  end)

  it("gives nobody a moment for a second one where there is no terminal", function()
    local folder = folder_with()
    local running = task.spawn(command.run, folder, { "run", "walk.lua", "--no-input" })
    job_is_up()
    local began = os.time()
    world.must("kill -INT " .. world.read(folder .. "/state/runbook/runs/walk-1/lock"):match "^%d+")
    local _, r = task.join(running)
    assert.equal(130, r.code, r.err)
    assert.is_true(os.time() - began <= 2)
    assert.is_nil(r.err:find("within", 1, true), r.err)
    assert.is_true(at_work())
  end)
end)

describe("sweep --jobs", function()
  it("ends what a stopped run left at work, with all it started, and lets its lock go", function()
    local folder = folder_with [[rb.lock(new:dir "/srv")]]
    command.at_terminal(folder, { "run", "walk.lua" }, { { "at work", function(child)
      job_is_up()
      assert(child:stdin():write "\3")
    end } })
    assert.equal(64, command.run(folder, { "sweep", "--jobs" }).code)
    local r = command.run(folder, { "sweep", "walk-1", "--dry-run" })
    assert.matches("this job goes on: long: copy everything on new-c, of copy", r.err, 1, true)
    r = command.run(folder, { "sweep", "walk-1" }) -- without --jobs it goes on, under its lock
    assert.equal(4, r.code, r.err)
    assert.is_true(at_work())
    assert.is_truthy(pair.new:read "/srv/.runbook/lock/run")
    r = command.run(folder, { "sweep", "walk-1", "--jobs" })
    assert.equal(0, r.code, r.err)
    assert.matches("ended: long: copy everything on new-c, of copy", r.err, 1, true)
    assert.is_false(at_work())
    assert.is_nil(pair.new:read "/srv/.runbook/lock/run")
    pair.new:write("/srv/go", "")
    r = command.run(folder, { "resume", "--no-input" })
    assert.equal(0, r.code, r.err)
    assert.equal(2, times_started()) -- it was ended, so another was started
  end)

  it("leaves a run alone that somebody works on", function()
    local folder = folder_with()
    local running = task.spawn(command.run, folder, { "run", "walk.lua", "--no-input" })
    job_is_up()
    local r = command.run(folder, { "sweep", "walk-1", "--jobs" })
    assert.equal(75, r.code, r.err)
    assert.matches("is working on walk-1", r.err, 1, true)
    pair.new:write("/srv/go", "")
    local _, ended = task.join(running)
    assert.equal(0, ended.code, ended.err)
  end)
end)

describe("a second Ctrl-C", function()
  it("ends the jobs with all they started, and resume starts them anew", function()
    local folder = folder_with()
    local shown, code = command.at_terminal(folder, { "run", "walk.lua" }, {
      { "at work", function(child)
        job_is_up()
        assert(child:stdin():write "\3")
      end },
      { "Ctrl-C within 3 s", "\3" },
    })
    assert.equal(130, code, shown)
    assert.matches("ended: long: copy everything on new-c, of copy", shown, 1, true)
    assert.is_nil(shown:find("goes on ", 1, true), shown)
    assert.is_nil(shown:find("unsure", 1, true), shown)
    assert.is_false(at_work())
    pair.new:write("/srv/go", "")
    local r = command.run(folder, { "resume", "--no-input" })
    assert.equal(0, r.code, r.err)
    assert.equal(2, times_started())
  end)

  it("lists what could not be ended, and a third leaves at once", function()
    local folder = folder_with()
    local function press(child)
      job_is_up()
      assert(child:stdin():write "\3")
    end
    local unplug = { "Ctrl-C within 3 s", function(child)
      pair.new:stop_sshd()
      pair.new:drop_connections()
      assert(child:stdin():write "\3")
    end }
    local shown, code = command.at_terminal(folder, { "run", "walk.lua" }, { { "at work", press }, unplug })
    assert.equal(130, code, shown)
    assert.matches("this may still run: long: copy everything on new%-c", shown)
    assert.matches("unsure   long: copy everything on new-c, of copy", shown, 1, true)
    assert.matches("end it   runbook sweep walk-1 --jobs", shown, 1, true)
    assert.is_true(at_work())
    pair.new:start_sshd()
    local began
    shown, code = command.at_terminal(folder, { "resume" }, { { "at work", function(child)
      world.wait_until("somebody to follow it", function() return walk.processes(pair.new):find("cat <&5", 1, true) end)
      assert(child:stdin():write "\3")
    end }, unplug, { "Once more leaves at once", function(child)
      began = os.time()
      assert(child:stdin():write "\3")
    end } })
    pair.new:start_sshd()
    assert.equal(130, code, shown)
    assert.is_true(os.time() - began <= 2)
    assert.is_true(at_work())
    local r = command.run(folder, { "sweep", "walk-1", "--jobs" })
    assert.equal(0, r.code, r.err)
    assert.is_false(at_work())
  end)

  it("lists a change that it cut off", function()
    local folder = command.folder()
    pair:write(folder, [[
      rb.step("wait", "Wait there", function() new:run { "sh", "-c", "echo x >> /srv/ran; sleep 471" } end)
    ]])
    local shown, code = command.at_terminal(folder, { "run", "walk.lua" }, { { "Wait there", function(child)
      job_is_up()
      assert(child:stdin():write "\3\3")
    end } })
    assert.equal(130, code, shown)
    assert.matches("unsure  sh: echo x >> /srv/ran; sleep 471 on new%-c\n", shown)
  end)
end)

describe("runbook_host_cancel", function()
  -- examples/embed calls it for a SIGINT, and twice for a SIGTERM.
  local function embedded(signal)
    local folder = folder_with()
    local log = folder .. "/log"
    local pid = world.must(("%s/examples/embed %s/state %s/walk.lua >%s 2>&1 </dev/null & echo $!"):format(world.build, folder, folder, log))
    job_is_up()
    world.wait_until("somebody to follow it", function() return walk.processes(pair.new):find("cat <&5", 1, true) end)
    world.must(("kill -%s %s"):format(signal, pid))
    world.wait_until("its end", function() return not world.alive(tonumber(pid)) end)
    for line in world.read(log):gmatch "1: ({[^\n]*})" do
      local event = json.decode(line)
      if event.type == "run-end" then
        return event, world.read(log)
      end
    end
    error(world.read(log))
  end

  it("leaves jobs at work the first time", function()
    local last = embedded "INT"
    assert.same({ "stopped", 130, { "long: copy everything on new-c, of copy" } }, { last.state, last.exit, last.jobs })
    assert.is_true(at_work())
  end)

  it("ends them the second time", function()
    local last, log = embedded "TERM"
    assert.same({ "stopped", 130 }, { last.state, last.exit })
    assert.is_nil(last.jobs, log)
    assert.matches("ended: long: copy everything on new-c, of copy", log, 1, true)
    assert.is_false(at_work())
  end)
end)
