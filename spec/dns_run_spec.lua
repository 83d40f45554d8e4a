-- examples/move-names.lua by the command, as an operator does: planned, killed at the worst moments, resumed, rolled back; by a key, and by
-- somebody else's hand.

local command = require "spec.support.command"
local task = require "runbook.task"
local world = require "spec.world"

local BOOK = world.read "examples/move-names.lua"

local bind, proxy, before

setup(function()
  bind = world.bind { records = "brief 6 IN A 192.0.2.60\n" }
  proxy = bind:proxy(bind.primary)
  before = bind:zone()
end)

teardown(function()
  proxy:close()
  bind:close()
end)

after_each(function()
  proxy:mode "pass"
  assert.equal(before, bind:zone())
end)

local function folder_with(kind, names, ttl)
  local folder = command.folder {
    ["move-names.lua"] = BOOK, ["hubs.key"] = world.read(bind.key_file),
    ["move-names.yaml"] = ("names: [%s]\nto: new-lb.clouds.test\nttl: %d\ndns:\n  kind: %s\n  zone: hubs.test\n  via: [%s]\n  port: %d\n%s")
      :format(names or "temple.hubs.test, staging.hubs.test", ttl or 1800, kind, bind.resolver, bind.port, kind == "rfc2136"
        and ("  server: %s\n  key: { name: rbkey, secret: \"file:hubs.key\" }\n"):format(proxy.address) or ""),
  }
  world.must("chmod 600 " .. folder .. "/hubs.key")
  return folder
end

-- Runs until `there` says so, and kills it.
local function run_and_die(folder, there, words)
  local running = task.spawn(command.run, folder, words or { "run", "move-names.lua" })
  world.wait_until("the moment to die", there, 60)
  local pid = (world.read(folder .. "/state/runbook/runs/move-names-1/lock") or ""):match "^%d+"
  world.must("kill -KILL " .. pid)
  task.join(running)
end

local function must(folder, ...)
  local r = command.run(folder, { ... })
  assert.equal(0, r.code, r.err .. r.out)
  return r.out .. r.err
end

local function must_be_moved()
  for _, server in ipairs { bind.primary, bind.secondary } do
    for _, name in ipairs { "temple.hubs.test", "staging.hubs.test" } do
      assert.equal("new-lb.clouds.test.", bind:data(server, name, "CNAME"))
    end
  end
end

describe("names that are changed with a key", function()
  it("are planned with what is there and what will be, and nothing is touched", function()
    local folder = folder_with "rfc2136"
    local shown = must(folder, "plan", "move-names.lua", "-v"):gsub("%s+", " ")
    for _, text in ipairs {
      "point temple.hubs.test, staging.hubs.test to", "temple.hubs.test A 203.0.113.10, TTL 1799",
      "by the wildcard *.hubs.test", "temple.hubs.test CNAME new-lb.clouds.test, TTL 1800",
      "nsupdate -k KEYFILE", "until every server of hubs.test says so",
    } do
      assert.truthy(shown:find(text, 1, true), text .. " is missing from\n" .. shown)
    end
    assert.is_nil(shown:find(bind.key, 1, true))
  end)

  it("are planned where the address is yet to be made", function()
    local folder = folder_with "rfc2136"
    world.write(folder .. "/move-names.lua", (BOOK:gsub('rb.step%("point".*$', [[
      rb.step("point", "Point the names", function()
        local made = require("runbook.place").here:exec { "make", "address" }
        p.dns:point { names = p.names, to = made.stdout }
        rb.say(p.to, p.ttl)
      end)]])))
    local shown = must(folder, "plan", "move-names.lua", "-v"):gsub("%s+", " ")
    assert.matches("~ " .. proxy.address .. ": point temple.hubs.test, staging.hubs.test to", shown, 1, true)
    assert.matches("temple.hubs.test where it will be found to be", shown, 1, true)
  end)

  it("are changed once, and put back as they were", function()
    local folder = folder_with "rfc2136"
    must(folder, "run", "move-names.lua")
    must_be_moved()
    must(folder, "rollback", "move-names-1")
    must(folder, "rollback", "move-names-1")
  end)

  it("go on after a kill between the change and its answer", function()
    local folder = folder_with "rfc2136"
    proxy:mode "keep"
    run_and_die(folder, function() return proxy:seen():find "k" end)
    must_be_moved()
    proxy:mode "pass"
    must(folder, "resume", "move-names-1")
    must_be_moved()
    must(folder, "rollback", "move-names-1")
  end)

  it("go back after a kill between the change and its answer", function()
    local folder = folder_with "rfc2136"
    proxy:mode "keep"
    run_and_die(folder, function() return proxy:seen():find "k" end)
    proxy:mode "pass"
    must(folder, "rollback", "move-names-1")
  end)

  it("go back after a kill before the server heard of it", function()
    local folder = folder_with "rfc2136"
    proxy:mode "early"
    run_and_die(folder, function() return proxy:seen():find "k" end)
    proxy:mode "pass"
    must(folder, "rollback", "move-names-1")
  end)

  it("are not put back over somebody else's edit", function()
    local folder = folder_with "rfc2136"
    must(folder, "run", "move-names.lua")
    bind:edit "update delete temple.hubs.test CNAME\nupdate add temple.hubs.test 300 A 192.0.2.66"
    local r = command.run(folder, { "rollback", "move-names-1" })
    assert.equal(4, r.code, r.err)
    assert.matches("somebody else changed temple.hubs.test: it is A 192.0.2.66, TTL 300; it was A 203.0.113.10, TTL 1799, and was set to",
      (r.err:gsub("%s+", " ")), 1, true)
    assert.equal("192.0.2.66", bind:data(bind.primary, "temple.hubs.test"))
    bind:edit "update delete temple.hubs.test A\nupdate add temple.hubs.test 1799 A 203.0.113.10"
    must(folder, "rollback", "move-names-1")
  end)
end)

describe("TTLs", function()
  it("are lowered once, and a run that was killed while the old one ran out knows how long", function()
    local folder = folder_with("rfc2136", "brief.hubs.test", 1)
    run_and_die(folder, function() return bind:dig(bind.secondary, "brief.hubs.test"):find "%s1%s+IN" and
      (world.read(folder .. "/state/runbook/runs/move-names-1/events.ndjson") or ""):find '"unit%-end"' end)
    assert.is_nil(must(folder, "resume", "move-names-1", "-p", "to=192.0.2.61"):find("lower the TTL of", 1, true))
    assert.equal("192.0.2.61", bind:data(bind.secondary, "brief.hubs.test"))
    must(folder, "rollback", "move-names-1")
  end)
end)

describe("names that somebody else changes", function()
  it("are waited for, also by a run that was killed meanwhile", function()
    local folder = folder_with "manual"
    local function asked()
      return (world.read(folder .. "/state/runbook/runs/move-names-1/events.ndjson") or ""):find("for a ticket", 1, true)
    end
    run_and_die(folder, asked)
    local going_on = task.spawn(must, folder, "resume", "move-names-1")
    bind:edit "update delete temple.hubs.test A\nupdate add temple.hubs.test 1800 CNAME new-lb.clouds.test"
    bind:edit "update add staging.hubs.test 1800 CNAME new-lb.clouds.test"
    local ok, shown = task.join(going_on)
    assert.is_true(ok, tostring(shown))
    must_be_moved()
    local back = task.spawn(must, folder, "rollback", "move-names-1")
    bind:edit "update delete staging.hubs.test CNAME"
    bind:edit "update delete temple.hubs.test CNAME\nupdate add temple.hubs.test 1799 A 203.0.113.10"
    ok, shown = task.join(back)
    assert.is_true(ok, tostring(shown))
  end)
end)

describe("the parameter", function()
  it("is checked before anything else, with the line", function()
    local function complaint(text)
      local folder = command.folder { ["move-names.lua"] = BOOK, ["move-names.yaml"] = "names: [temple.hubs.test]\nto: x.test\ndns:\n" .. text }
      local r = command.run(folder, { "run", "move-names.lua" })
      assert.equal(65, r.code, r.err)
      return r.err
    end
    assert.matches("line 4.*manual, rfc2136", complaint "  kind: rfc2163\n  zone: hubs.test\n")
    assert.matches("server", complaint "  kind: rfc2136\n  zone: hubs.test\n  key: { name: k, secret: \"file:k\" }\n")
    assert.matches("not the secret itself", complaint "  kind: rfc2136\n  zone: hubs.test\n  server: s\n  key: { name: k, secret: abcdef== }\n")
    assert.matches("full domain name", complaint "  kind: manual\n  zone: hubs test\n")
    assert.matches("did you mean `resolvers`", complaint "  kind: manual\n  zone: hubs.test\n  resolver: [a]\n")
  end)
end)
