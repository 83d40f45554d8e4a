-- What bad luck gets: a clear error, the documented exit code, and nothing lost.

local book = require "runbook.book"
local core = require "runbook.core.file"
local errors = require "runbook.errors"
local failure = require "runbook.failure"
local retry = require "runbook.retry"
local run = require "runbook.run"
local runs = require "spec.support.runs"
local ssh = require "runbook.ssh"
local store = require "runbook.store"
local walk = require "spec.support.walk"
local world = require "spec.world"

before_each(runs.fresh)
after_each(runs.clean)

local function start(source)
  return runs.start(source)
end

-- The error of something that must fail before it has a run to report on.
local function refusal(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  return errors.from(err)
end

local TWO = 'rb.step("a", "A", function() toy.make "a" end)\nrb.step("b", "B", function() toy.make "b" end)'

describe("a state directory", function()
  -- No network file system can be had here, so what the kernel says of one is put into its mouth.
  it("on a network file system is refused, with the reason and what to do", function()
    local real = core.statfs
    finally(function() core.statfs = real end)
    for _, kind in ipairs { "nfs", "cifs", "smb2", "afs", "ceph", "9p", "lustre" } do
      core.statfs = function(path)
        local space, message, code = real(path)
        if space then
          space.type = kind
        end
        return space, message, code
      end
      local err = refusal(start, TWO)
      assert.equal("ENETFS", err.code)
      assert.is_truthy(tostring(err):find(("is on a network file system (%s)"):format(kind), 1, true))
      assert.matches("%-%-state DIRECTORY", err.hint)
      assert.equal(78, failure.exit_code(err))
    end
    assert.same({}, runs.world.made)
    assert.same({}, store.names())
  end)

  it("that may not be written is refused before anything is done", function()
    local blocked = runs.directory .. "/file"
    world.write(blocked, "")
    store.use(blocked .. "/state")
    local err = refusal(start, TWO)
    assert.matches(blocked, tostring(err), 1, true)
    assert.same({}, runs.world.made)
  end)
end)

describe("a disk that is full under the journal", function()
  local small

  before_each(function()
    small = world.filesystem { size = "8M", kind = "tmpfs" }
    store.use(small.path .. "/state")
  end)

  after_each(function() small:close() end)

  it("at the beginning stops the run before its first change", function()
    small:fill()
    local err = refusal(start, TWO)
    assert.equal("full", err.kind, tostring(err))
    assert.equal(74, failure.exit_code(err))
    assert.same({}, runs.world.made)
  end)

  it("in the middle starts no further change, says so, and goes on when there is room", function()
    local made = runs.world.made
    runs.world.hold = function(name)
      if name == "b20" then
        small:fill()
      end
    end
    local seen
    local ok, result = pcall(function()
      local code
      code, seen = start([[
        rb.step("a", "A", function() toy.make "a" end)
        rb.step("b", "B", function() for i = 1, 300 do toy.make("b" .. i) end end)
      ]])
      return code
    end)
    local text = ok and runs.last_error(seen) or tostring(result)
    assert.is_truthy(not ok or result ~= 0, text)
    assert.matches("the journal cannot be written", text)
    local n = 0
    while made["b" .. n + 1] do
      n = n + 1
    end
    assert.is_true(n >= 20 and n < 300, n)
    -- the change whose intent could not be written down was not made, and those before it are in the journal
    runs.world.hold = nil
    os.remove(small.path .. "/.filler")
    local journal = store.journal "toys-1"
    local intents = journal:query "SELECT count(*) AS n FROM effect"[1].n
    journal:close()
    assert.is_true(intents >= n + (made.a or 0), ("%d intents, %d changes"):format(intents, n + (made.a or 0)))
    local code = runs.resume { name = "toys-1" }
    if code == 5 then -- one was cut off between its intent and its outcome
      code = runs.resume { name = "toys-1", again = { "a", "b" } }
    end
    assert.equal(0, code)
    assert.equal("done", store.get("toys-1").state)
  end)
end)

describe("a journal", function()
  it("that another program has locked is waited for, and then said to be locked", function()
    runs.world.fail.b = "exit"
    assert.equal(1, (start(TWO)))
    runs.world.fail.b = nil
    local path = store.directory "toys-1" .. "/journal.db"
    local ready = runs.directory .. "/ready"
    local holder = world.start { "sh", "-c", [[(echo 'BEGIN EXCLUSIVE; INSERT INTO meta VALUES ("x", 1);'
      echo '.shell touch "]] .. ready .. [["'; sleep 60) | sqlite3 "$1"]], "sh", path }
    world.wait_until("the lock", function() return world.read(ready) end)
    local err = refusal(runs.resume)
    holder:stop()
    assert.equal("busy", err.kind, tostring(err))
    assert.matches("locked", tostring(err))
    assert.equal(75, failure.exit_code(err))
    assert.is_nil(runs.world.made.b)
    local code, seen = runs.resume()
    assert.equal(0, code, runs.last_error(seen))
    assert.same({ a = 1, b = 1 }, runs.world.made)
  end)

  it("that is no journal is said to be none, and the other runs are still listed", function()
    assert.equal(0, (start(TWO)))
    runs.world.fail.b = "exit"
    assert.equal(1, (runs.start(TWO, { file = "other" })))
    world.write(store.directory "toys-1" .. "/journal.db", ("this is no database\n"):rep(500))
    os.remove(store.directory "toys-1" .. "/journal.db-wal")
    local states = {}
    for _, row in ipairs(store.list()) do
      states[row.name] = row.state
    end
    assert.same({ ["toys-1"] = "unreadable", ["other-1"] = "failed" }, states)
    local err = refusal(runs.resume, { name = "toys-1" })
    assert.matches("not a database", tostring(err))
  end)
end)

describe("a connection that breaks", function()
  local pair, relay

  setup(function()
    pair = walk.pair "-b"
    relay = world.relay { to = pair.new }
    retry.first_delay, retry.longest_delay = 0.01, 0.02
  end)

  teardown(function()
    retry.first_delay, retry.longest_delay = 0.5, 30
    ssh.close()
    relay:close()
  end)

  -- Each primitive, what it has made there when it succeeded, and what there is to begin with.
  local primitives = {
    run = [[new:run { "touch", "/srv/made" }]],
    sh = [[new:sh([==[cat > "$1"]==], "/srv/made", { stdin = ("x"):rep(100000) })]],
    exec = [[new:exec { "touch", "/srv/made" }]],
    query = [[assert(#new:query { "cat", "/srv/big" } == 299999)]],
    read = [[assert(#new:read "/srv/big" == 300000)]],
    write = [[new:write("/srv/big", ("y"):rep(300000))]],
    put = [[new:put("HERE/local", "/srv/big")]],
    get = [[new:get("/srv/big", "HERE/got")]],
    stat = [[assert(new:stat("/srv/big").size == 300000)]],
    list = [[assert(#new:list "/srv" >= 1)]],
    ensure_dir = [[new:ensure_dir("/srv/dir/below", { mode = "0700" })]],
    remove = [[new:remove "/srv/gone"]],
    job = [[new:job { name = "j", argv = { "sh", "-c", "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done" } }:must_succeed()]],
  }

  local names = {}
  for name in pairs(primitives) do
    names[#names + 1] = name
  end
  table.sort(names)

  local OLD, NEW = ("x"):rep(299999) .. "\n", ("y"):rep(300000)

  for _, name in ipairs(names) do
    it("in the middle of place:" .. name .. " leaves the old or the new, and it can be done again", function()
      local config = runs.directory .. "/config"
      world.write(config, ([[Host %s
        HostName %s
        Port %d
        User root
        HostKeyAlias %s
        IdentityFile %s
        IdentitiesOnly yes
        IdentityAgent none
        UserKnownHostsFile %s
        GlobalKnownHostsFile none
      ]]):format(pair.new.name, relay.address, relay.port, "relayed", world.key(), runs.directory .. "/known"))
      world.write(runs.directory .. "/known", "relayed " .. pair.new.host_keys[1] .. "\n")
      world.write(runs.directory .. "/local", NEW)
      local line = primitives[name]:gsub("HERE", runs.directory)
      local path = runs.directory .. "/breaks.lua"
      world.write(path, ([[-- Breaks.
        local rb = require "runbook"
        local new = require("runbook.ssh").host { %q, config = %q }
        rb.step("a", "A", { again = true }, function()
          new:query { "true" }
          require "breaker"()
          %s
        end)
      ]]):format(pair.new.name, config, line))
      for _, bytes in ipairs { 1, 700, 5000, 60000, 250000 } do
        pair:reset()
        pair.new:write("/srv/big", OLD)
        pair.new:write("/srv/gone", "x")
        local armed = true
        package.preload.breaker = function()
          return function()
            if armed then
              armed = false
              relay:cut(bytes)
            end
          end
        end
        package.loaded.breaker = nil
        local what = ("%s, cut after %d bytes"):format(name, bytes)
        local code, seen = runs.watched(function() return run.start(book.load(path), { no_input = true }) end)
        relay:go()
        ssh.close()
        pair:settle()
        local said = what .. "\n" .. runs.last_error(seen)
        if code ~= 0 then
          local err = runs.only(seen, "step-end")[1].error
          assert.is_true(err.kind == "lost" or err.kind == "unreachable" or err.kind == "exit", said)
          code, seen = runs.watched(function() return run.resume(nil, { no_input = true }) end)
          said = said .. "\n" .. runs.last_error(seen)
        end
        assert.equal(0, code, said)
        ssh.close()
        pair:settle()
        local big = pair.new:read "/srv/big"
        assert.equal((name == "write" or name == "put") and NEW or OLD, big, what)
        local left = pair.new:must "find /srv /tmp /var/tmp /root/.local -name '*rb~*' -o -path '*/runbook/jobs*'"
        assert.equal("", left, said)
        if name == "get" then
          assert.equal(OLD, world.read(runs.directory .. "/got"))
        end
        local here = world.sh(("find %s -name '*rb~*'"):format(runs.directory))
        assert.equal("", here)
      end
      package.preload.breaker, package.loaded.breaker = nil, nil
    end)
  end
end)
