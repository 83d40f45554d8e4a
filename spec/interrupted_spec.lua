-- Jobs whose end nobody knows: their machine was restarted, or their supervisor was killed. What resume does then.

local command = require "spec.support.command"
local task = require "runbook.task"
local walk = require "spec.support.walk"
local world = require "spec.world"

local pair

setup(function() pair = walk.pair "-i" end)
before_each(function() pair:reset() end)

-- Says in /srv/ran that it was started, and ends when there is /srv/go.
local JOB = [[{ name = "index", %s argv = { "sh", "-c", "echo x >> /srv/ran; while [ ! -e /srv/go ]; do sleep 0.05; done" } }]]

local function folder_with(options, before)
  local folder = command.folder()
  pair:write(folder, ([[
    rb.step("index", "Build the index", function()
      %s
      new:job %s:must_succeed()
    end)
  ]]):format(before or "", JOB:format(options or "")))
  return folder
end

local function times_started()
  return select(2, (pair.new:read "/srv/ran" or ""):gsub("x", ""))
end

-- Runs the book until its job is at work, and kills the process that waits for it.
local function run_and_die(folder)
  local running = task.spawn(command.run, folder, { "run", "walk.lua", "--no-input" })
  world.wait_until("the job", function() return times_started() == 1 end)
  local pid = world.wait_until("who runs it", function()
    return (world.read(folder .. "/state/runbook/runs/walk-1/lock") or ""):match "^%d+"
  end)
  world.must("kill -KILL " .. pid)
  task.join(running)
end

local function kill_supervisor()
  pair.new:must [[for file in $(find /root/.local/state -name supervisor); do read -r pid rest <"$file"; kill -KILL "$pid"; done]]
end

local function lose(folder)
  run_and_die(folder)
  pair.new:crash()
  pair.new:boot()
end

local function resume(folder, ...)
  return command.run(folder, { "resume", "walk-1", ... })
end

describe("a job that was lost with its machine", function()
  it("is asked about: resume says what is not known and ends with 5 and the command that goes on, as often as it is called", function()
    local folder = folder_with()
    lose(folder)
    for _ = 1, 2 do
      local r = resume(folder, "--no-input")
      assert.equal(5, r.code, r.err)
      assert.matches("nobody knows how this job ended.*index on new%-i, of index", r.err)
      assert.matches("what it said: ssh .*new%-i 'tail /root/.local/state/runbook/jobs/walk%-1.*/index/_/index/1/out", r.err)
      assert.matches("go on   runbook resume walk-1 --again index\n", r.err, 1, true)
      assert.matches("runbook mark walk-1 index done --reason TEXT", r.err, 1, true)
      assert.equal(1, times_started())
    end
    pair.new:write("/srv/go", "")
    local r = resume(folder, "--no-input", "--again", "index")
    assert.equal(0, r.code, r.err)
    assert.equal(2, times_started())
    assert.equal("", pair.new:must "find /root/.local/state -type f") -- nothing of either is left
  end)

  it("is asked about at a terminal, where the answer decides", function()
    local folder = folder_with()
    lose(folder)
    local shown, code = command.at_terminal(folder, { "resume" }, { { "Enter stops here", "\r" } })
    assert.equal(1, code, shown)
    assert.equal(1, times_started())
    pair.new:write("/srv/go", "")
    shown, code = command.at_terminal(folder, { "resume" }, { { "Enter stops here", "again\r" } })
    assert.equal(0, code, shown)
    assert.equal(2, times_started())
  end)

  it("is settled by a person who says that its step is done", function()
    local folder = folder_with()
    lose(folder)
    assert.equal(5, resume(folder, "--no-input").code)
    assert.equal(0, command.run(folder, { "mark", "walk-1", "index", "done", "--reason", "I looked" }).code)
    assert.equal(0, resume(folder, "--no-input").code)
    assert.equal(1, times_started())
  end)

  it("is started anew without a question when it may be run after half of itself", function()
    local folder = folder_with "again = true,"
    lose(folder)
    pair.new:write("/srv/go", "")
    local r = resume(folder, "--no-input")
    assert.equal(0, r.code, r.err)
    assert.equal(2, times_started())
  end)
end)

describe("a job whose supervisor was killed", function()
  it("fails its step once it ends, and is asked about by the next resume", function()
    local folder = folder_with()
    local running = task.spawn(command.run, folder, { "run", "walk.lua", "--no-input" })
    world.wait_until("somebody to follow it", function() return walk.processes(pair.new):find("cat <&5", 1, true) end)
    kill_supervisor()
    pair.new:write("/srv/go", "") -- the command itself comes to its end, and nobody keeps how
    local _, r = task.join(running)
    assert.equal(1, r.code, r.err)
    assert.matches("nobody knows how the job", r.err)
    r = resume(folder, "--no-input")
    assert.equal(5, r.code, r.err)
    assert.matches("go on   runbook resume walk-1 --again index\n", r.err, 1, true)
    assert.equal(1, times_started())
    r = resume(folder, "--no-input", "--again", "index")
    assert.equal(0, r.code, r.err)
    assert.equal(2, times_started())
  end)

  it("is asked about when nobody was waiting for it, too", function()
    local folder = folder_with()
    run_and_die(folder)
    kill_supervisor()
    pair.new:kill("echo x >> /srv/ran", "KILL")
    local r = resume(folder, "--no-input")
    assert.equal(5, r.code, r.err)
    assert.equal(1, times_started())
  end)
end)

describe("a job that goes on while its step has failed", function()
  it("is found again by the next try, at work or ended, and never gets another beside it", function()
    local folder = command.folder()
    pair:write(folder, ([[
      rb.step("index", "Build the index", function()
        local job = new:job %s
        if not new:exists "/srv/on" then error "cut off" end
        job:must_succeed()
      end)
    ]]):format(JOB:format ""))
    assert.equal(1, command.run(folder, { "run", "walk.lua", "--no-input" }).code)
    world.wait_until("the job", function() return times_started() == 1 end)
    assert.equal(1, resume(folder, "--no-input").code)
    pair.new:write("/srv/on", "")
    pair.new:write("/srv/go", "")
    world.wait_until("its end", function() return not walk.processes(pair.new):find("/srv/ran", 1, true) end)
    local r = resume(folder, "--no-input")
    assert.equal(0, r.code, r.err)
    assert.equal(1, times_started())
  end)
end)
