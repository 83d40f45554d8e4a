-- Obligations on real servers: what a run made there goes away, however often that takes.

local book = require "runbook.book"
local retry = require "runbook.retry"
local run = require "runbook.run"
local runs = require "spec.support.runs"
local ssh = require "runbook.ssh"
local store = require "runbook.store"
local walk = require "spec.support.walk"
local world = require "spec.world"

local pair, folder

setup(function()
  pair = walk.pair "-o"
  retry.first_delay, retry.longest_delay = 0.01, 0.02
end)

teardown(function() retry.first_delay, retry.longest_delay = 0.5, 30 end)

before_each(function()
  runs.fresh()
  folder = runs.directory
  pair:reset()
end)

after_each(function()
  ssh.close()
  runs.clean()
end)

local KIND = [[
local scratch = rb.obligation("spec-scratch", function(o) o.place:remove(o.path) end)
]]

local function start(source, o)
  local path = pair:write(folder, KIND .. source)
  o = o or {}
  o.no_input = true
  return runs.watched(function() return run.start(book.load(path), o) end)
end

local function notices(seen)
  local lines = {}
  for _, event in ipairs(runs.only(seen, "notice")) do
    lines[#lines + 1] = event.text
  end
  return table.concat(lines, "\n")
end

local function there()
  return (pair.new:must "ls -A /srv"):gsub("\n", " ")
end

describe("an obligation on a server", function()
  it("is met at the end of its step or of its run, whatever became of it", function()
    local code, seen = start [[
      rb.step("a", "A", function()
        scratch:owe { place = new, path = "/srv/of-step" }
        scratch:owe({ place = new, path = "/srv/of-run" }, { scope = "run" })
        new:sh "touch /srv/of-step /srv/of-run"
      end)
      rb.step("b", "B", function() new:write("/srv/seen", new:query { "ls", "/srv" }) end)
    ]]
    assert.equal(0, code, runs.last_error(seen))
    assert.equal("motd\nof-run", pair.new:read "/srv/seen")
    assert.equal("motd seen", there())
    assert.same({}, store.get("walk-1").owes)
  end)

  it("is met when the thing was never made, and when it is gone already", function()
    local code, seen = start [[
      rb.step("a", "A", function()
        scratch:owe { place = new, path = "/srv/never" }
        scratch:owe { place = new, path = "/srv/gone" }
        new:sh "touch /srv/gone"
        new:remove "/srv/gone"
      end)
    ]]
    assert.equal(0, code, runs.last_error(seen))
    assert.equal("", notices(seen))
    assert.same({}, store.get("walk-1").owes)
  end)

  it("stays owed when its handler fails, and is tried by each resume, by rollback and by sweep", function()
    local code, seen = start [[
      rb.step("a", "A", function()
        scratch:owe { place = new, path = "/srv/full" }
        new:sh "mkdir -p /srv/full; touch /srv/full/file"
        if not new:exists "/srv/go" then error "not yet" end
      end)
      rb.step("b", "B", function() if not new:exists "/srv/on" then error "not yet either" end end)
    ]]
    assert.equal(1, code)
    assert.matches("could not clean up yet %(spec%-scratch%): .*Directory not empty", notices(seen))
    local owed = store.get("walk-1").owes
    assert.same({ 1, "spec-scratch", 1 }, { #owed, owed[1].kind, owed[1].tries })
    pair.new:must "touch /srv/go"
    code, seen = runs.resume()
    assert.equal(1, code)
    assert.matches("could not clean up yet", notices(seen))
    assert.is_true(store.get("walk-1").owes[1].tries >= 2)
    assert.equal(4, run.sweep { name = "walk-1" })
    pair.new:must "rm /srv/full/file"
    code, seen = runs.watched(function() return run.sweep { name = "walk-1", dry_run = true } end)
    assert.equal(0, code)
    local left = runs.only(seen, "leftover")
    assert.same({ 2, "new-o: spec-scratch: clean up path /srv/full" }, { #left, left[1].text }) -- of two tries
    assert.equal("full go motd", there())
    assert.equal(0, run.sweep {})
    assert.equal("go motd", there())
    assert.same({}, store.get("walk-1").owes)
    assert.equal(0, run.sweep {})
  end)

  it("stays owed while the server cannot be reached, until the second resume", function()
    package.preload.obligation_spy = function()
      return function()
        pair.new:stop_sshd()
        pair.new:drop_connections()
      end
    end
    finally(function() package.preload.obligation_spy, package.loaded.obligation_spy = nil, nil end)
    local code, seen = start [[
      rb.step("a", "A", function()
        scratch:owe { place = new, path = "/srv/left" }
        new:sh "touch /srv/left"
        if new:exists "/srv/go" then return end
        require "obligation_spy"()
        new:query { "true" }
      end)
    ]]
    assert.equal(1, code)
    assert.matches("could not clean up yet %(spec%-scratch%)", notices(seen))
    assert.equal(1, #store.get("walk-1").owes)
    code, seen = runs.resume()
    assert.equal(1, code, runs.last_error(seen))
    assert.matches("could not clean up yet %(spec%-scratch%)", notices(seen))
    assert.is_true(#store.get("walk-1").owes >= 1)
    assert.equal("left motd", there())
    pair.new:must "touch /srv/go"
    pair.new:start_sshd()
    code, seen = runs.resume()
    assert.equal(0, code, runs.last_error(seen))
    assert.equal("go motd", there())
    assert.same({}, store.get("walk-1").owes)
  end)

  it("stays while the job that it names runs, and no longer", function()
    local code, seen = start [[
      rb.step("a", "A", function()
        scratch:owe({ place = new, path = "/srv/key" }, { job = "copy" })
        new:sh "touch /srv/key"
        local copy = new:job { name = "copy", argv = { "sh", "-c", "while [ ! -e /srv/go ]; do sleep 0.05; done" } }
        if not new:exists "/srv/on" then error "cut off" end
        copy:must_succeed()
        new:write("/srv/seen", new:query { "ls", "/srv" })
      end)
    ]]
    assert.equal(1, code)
    assert.equal("key motd", there())
    assert.equal("", notices(seen))
    assert.equal(1, #store.get("walk-1").owes)
    code = runs.resume()
    assert.equal(1, code)
    assert.equal("key motd", there())
    pair.new:must "touch /srv/on /srv/go"
    code, seen = runs.resume()
    assert.equal(0, code, runs.last_error(seen))
    assert.equal("go motd on seen", there())
    assert.same({}, store.get("walk-1").owes)
  end)

  it("is met by the next process when the one that owed it was killed", function()
    local path = pair:write(folder, KIND .. [[
      rb.step("a", "A", { again = true }, function()
        scratch:owe { place = new, path = "/srv/left" }
        new:sh "touch /srv/left"
        new:query_sh "while [ ! -e /srv/go ]; do sleep 0.05; done"
      end)
    ]])
    for _, verb in ipairs { "resume", "rollback", "sweep" } do
      local state = folder .. "/" .. verb
      local first = world.start({ world.runbook, "run", "--state", state, "--no-input", path }, { log = state .. ".log" })
      world.wait_until("the thing", function() return pair.new:read "/srv/left" end)
      first:stop()
      pair:settle()
      assert.equal("left motd", there())
      if verb == "resume" then
        pair.new:must "touch /srv/go"
      end
      local code, output = walk.sh(world.runbook, verb, "--state", state)
      assert.equal(verb == "rollback" and 4 or 0, code, output) -- `sh` has no undo, and it says so
      assert.equal(verb == "resume" and "go motd" or "motd", there(), output)
      pair.new:must "rm -f /srv/go"
    end
  end)
end)
