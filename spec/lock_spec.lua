-- Locks on what is written, held by real runs on a real server: from this machine and from "another" (another state directory).

local book = require "runbook.book"
local lock = require "runbook.lock"
local run = require "runbook.run"
local runs = require "spec.support.runs"
local ssh = require "runbook.ssh"
local store = require "runbook.store"
local task = require "runbook.task"
local walk = require "spec.support.walk"
local world = require "spec.world"

local pair, folder

setup(function() pair = walk.pair "-l" end)

before_each(function()
  runs.fresh()
  folder = runs.directory
  pair:reset()
end)

after_each(function()
  ssh.close()
  runs.clean()
end)

local LOCK = "/srv/.runbook/lock"

local function in_process(source, name)
  local path = pair:write(folder, source, name)
  return runs.watched(function() return run.start(book.load(path), { no_input = true }) end)
end

-- A process of its own with a state directory of its own: another operator, on another machine.
local function elsewhere(machine, verb, ...)
  return walk.sh(world.runbook, verb, "--state", folder .. "/" .. machine, "--no-input", ...)
end

local function locked(path)
  return (pair.new:read((path or LOCK) .. "/run"))
end

local HOLDS = [[
rb.step("hold", "Hold it", function()
  rb.lock(new:dir "/srv")
  new:query_sh "while [ ! -e /srv/go ]; do sleep 0.05; done"
  new:write("/srv/said", "held")
end)
]]

local WANTS = [[
rb.step("want", "Want it", function()
  rb.lock(new:dir "/srv")
  new:write("/srv/wanted", "had")
end)
]]

describe("the lock of a directory", function()
  it("lets one run in; the other stops with 75 and says who is there, and goes on afterwards", function()
    local holds, wants = pair:write(folder, HOLDS, "holds"), pair:write(folder, WANTS, "wants")
    local first = task.spawn(function() return elsewhere("a", "run", holds) end)
    world.wait_until("the lock", locked)
    local code, output = elsewhere("b", "run", wants)
    assert.equal(75, code, output)
    local holder = pair.new:read(LOCK .. "/holder"):gsub("%s+$", "")
    assert.matches("%S+ on %S+, process %d+", holder)
    output = output:gsub("%s+", " ")
    assert.is_truthy(output:find("is locked by run " .. locked():gsub("%s", "") .. " (" .. holder .. ")", 1, true), output)
    assert.matches("renewed %d s ago", output)
    assert.is_nil(pair.new:read "/srv/wanted")
    pair.new:write("/srv/go", "")
    local ok, ended, said = task.join(first)
    assert.same({ true, 0 }, { ok, ended }, said)
    assert.equal(0, (elsewhere("b", "resume")))
    assert.equal("had", pair.new:read "/srv/wanted")
    assert.is_nil(pair.new:must "ls -A /srv":find ".runbook", 1, true)
  end)

  it("stays when its holder is killed, goes on with that run, or goes by unlock", function()
    local holds, wants = pair:write(folder, HOLDS, "holds"), pair:write(folder, WANTS, "wants")
    local first = world.start({ world.runbook, "run", "--state", folder .. "/a", "--no-input", holds }, { log = folder .. "/log" })
    world.wait_until("the lock", locked)
    first:stop() -- SIGKILL for all it started
    local identity = locked()
    assert.equal(75, (elsewhere("b", "run", wants)))
    pair.new:write("/srv/go", "")
    assert.equal(0, (elsewhere("a", "resume")))
    assert.is_nil(locked())
    assert.equal(0, (elsewhere("b", "resume")))

    pair.new:must "rm /srv/go /srv/wanted"
    local second = world.start({ world.runbook, "run", "--state", folder .. "/c", "--no-input", holds }, { log = folder .. "/log" })
    world.wait_until("the lock", locked)
    second:stop()
    assert.not_equal(identity, locked())
    local code, output = walk.sh(world.runbook, "unlock", "--state", folder .. "/c", "holds-1", "--reason", "that laptop is dead")
    assert.equal(0, code, output)
    assert.is_nil(locked())
    assert.equal(0, (elsewhere("d", "run", wants)))
  end)

  it("is renewed while its run lives", function()
    lock.renew_seconds = 0.05
    finally(function() lock.renew_seconds = 15 end)
    local times = {}
    package.preload.lock_spy = function()
      return function()
        for i = 1, 2 do
          times[i] = pair.new:must("stat -c %.9Y " .. LOCK .. "/holder")
          world.wait_until("a renewal", function() return pair.new:must("stat -c %.9Y " .. LOCK .. "/holder") ~= times[i] end)
        end
      end
    end
    local code, seen = in_process [[
      rb.step("a", "A", function()
        rb.lock(new:dir "/srv")
        require "lock_spy"()
        new:write("/srv/wanted", "had")
      end)
    ]]
    package.preload.lock_spy, package.loaded.lock_spy = nil, nil
    assert.equal(0, code, runs.last_error(seen))
    assert.is_nil(locked())
    for _, notice in ipairs(runs.only(seen, "notice")) do -- it was given up, and not taken away
      assert.falsy(notice.text:find("is gone", 1, true), notice.text)
    end
  end)

  it("starts no change once it was taken away", function()
    lock.renew_seconds = 0.05
    finally(function() lock.renew_seconds = 15 end)
    local code, seen = in_process [[
      rb.step("a", "A", function()
        local held = rb.lock(new:dir "/srv")
        new:sh([==[printf 'somebody\n' > "$1/run"]==], "/srv/.runbook/lock")
        while not held.lost do rb.sleep(0.02) end
        new:write("/srv/wanted", "had")
      end)
    ]]
    assert.equal(75, code, runs.last_error(seen))
    assert.matches("the lock /srv/.runbook/lock was taken away", runs.only(seen, "run-end")[1].text)
    assert.is_nil(pair.new:read "/srv/wanted")
    assert.equal("somebody\n", locked()) -- it is theirs now, and is not given up by us
  end)

  it("starts no change when the last renewal is too old, and resume takes it again", function()
    local source = [[
      rb.step("a", "A", function()
        local held = rb.lock(new:dir "/srv")
        if not new:exists "/srv/once" then
          new:write("/srv/once", "")
          held.renewed = held.renewed - 41
        end
        new:write("/srv/wanted", "had")
      end)
    ]]
    local code, seen = in_process(source)
    assert.equal(75, code, runs.last_error(seen))
    assert.matches("could not be renewed for %d+ s; no change is started", runs.only(seen, "run-end")[1].text)
    assert.is_nil(pair.new:read "/srv/wanted")
    code, seen = runs.resume()
    assert.equal(0, code, runs.last_error(seen))
    assert.equal("had", pair.new:read "/srv/wanted")
  end)

  it("is held again when a later step goes on, and by a rollback, until the directory is as it was", function()
    local source = [[
      rb.step("lock", "Lock", function()
        new:ensure_dir "/srv/made"
        rb.lock(new:dir "/srv/made")
      end)
      rb.step("use", "Use", function()
        new:write("/srv/made/x", new:read "/srv/made/.runbook/lock/run")
        if not new:exists "/srv/go" then error "not yet" end
      end)
    ]]
    local code, seen = in_process(source)
    assert.equal(1, code, runs.last_error(seen))
    local identity = pair.new:read "/srv/made/x"
    assert.matches("^walk%-1%.%x+$", (identity:gsub("%s", "")))
    assert.is_nil(locked "/srv/made/.runbook/lock")
    pair.new:must "touch /srv/go; rm /srv/made/x"
    code, seen = runs.resume()
    assert.equal(0, code, runs.last_error(seen))
    assert.equal(identity, pair.new:read "/srv/made/x")
    assert.is_nil(locked "/srv/made/.runbook/lock")
    assert.same({}, store.get("walk-1").owes)
    code, seen = runs.rollback { name = "walk-1" }
    assert.equal(0, code, runs.last_error(seen))
    assert.is_false((pair.new:must "ls -A /srv"):find "made" ~= nil)
  end)

  it("stays while a job goes on that its run has left behind", function()
    local holds = pair:write(folder, [[
      rb.step("a", "A", function()
        rb.lock(new:dir "/srv")
        local job = new:job { name = "copy", argv = { "sh", "-c", "while [ ! -e /srv/go ]; do sleep 0.05; done; echo x > /srv/copied" } }
        if not new:exists "/srv/go" then error "cut off" end
        job:must_succeed()
      end)
    ]], "holds")
    local wants = pair:write(folder, WANTS, "wants")
    assert.equal(1, (elsewhere("a", "run", holds)))
    assert.matches("^holds%-1", locked())
    assert.equal(75, (elsewhere("b", "run", wants)))
    pair.new:must "touch /srv/go"
    local code, output = elsewhere("a", "resume")
    assert.equal(0, code, output)
    assert.is_nil(locked())
    assert.equal(0, (elsewhere("b", "resume")))
  end)

  it("keeps a rollback out of a directory in which another run is at work", function()
    local code, seen = in_process [[
      rb.step("lock", "Lock", function() rb.lock(new:dir "/srv") new:write("/srv/x", "ours") end)
    ]]
    assert.equal(0, code, runs.last_error(seen))
    local first = world.start({ world.runbook, "run", "--state", folder .. "/a", "--no-input", pair:write(folder, HOLDS, "holds") })
    world.wait_until("the lock", locked)
    code, seen = runs.rollback { name = "walk-1" }
    assert.equal(4, code)
    assert.matches("is locked by run holds%-1", runs.last_error(seen))
    assert.equal("ours", pair.new:read "/srv/x")
    first:stop()
    pair.new:must("rm -r " .. LOCK)
    assert.equal(0, (runs.rollback { name = "walk-1" }))
    assert.is_nil(pair.new:read "/srv/x")
  end)

  it("that was half made is nobody's, and a directory that is not there is not made for it", function()
    pair.new:must("mkdir -p " .. LOCK)
    local code, seen = in_process(WANTS)
    assert.equal(0, code, runs.last_error(seen))
    code, seen = in_process [[rb.step("a", "A", function() rb.lock(new:dir "/srv/nothing/here") end)]]
    assert.equal(1, code)
    assert.equal("missing", runs.only(seen, "step-end")[1].error.kind)
    assert.is_false((pair.new:must "ls -A /srv"):find "nothing" ~= nil)
    assert.same({}, store.get("walk-2").owes)
  end)

  it("can be of a place, too", function()
    local code, seen = in_process [[
      rb.step("a", "A", function()
        rb.lock(new, "the hub")
        new:write("/srv/x", new:read "/tmp/runbook-lock-the-hub/run")
      end)
    ]]
    assert.equal(0, code, runs.last_error(seen))
    assert.matches("^walk%-1%.", pair.new:read "/srv/x")
    assert.equal("", pair.new:must "ls -A /tmp")
  end)
end)
