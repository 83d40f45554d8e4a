-- Zones and the names in them, changed on real BIND: a root that delegates, a primary, a secondary, a resolver.

local core = require "runbook.core.dns"
local dns = require "runbook.dns"
local errors = require "runbook.errors"
local events = require "runbook.events"
local names_of = require "runbook.dns.names"
local secret = require "runbook.secret"
local task = require "runbook.task"
local world = require "spec.world"

local bind

setup(function()
  bind = world.bind { records = "other IN A 192.0.2.50\nbrief 2 IN A 192.0.2.60\nsub NS ns.elsewhere.test.\n_x.other TXT kept\n" }
end)

teardown(function()
  bind:close()
end)

local function key(o)
  o = o or {}
  return { name = o.name or "rbkey", algorithm = o.algorithm, secret = secret.new("spec key", o.secret or bind.key) }
end

local function zone(o)
  o = o or {}
  return dns.zone { kind = o.kind or "rfc2136", zone = "hubs.test", server = o.kind ~= "manual" and (o.server or bind.primary) or nil,
    key = o.kind ~= "manual" and (o.key or key()) or nil, port = bind.port, resolvers = o.resolvers, via = { bind.resolver },
    servers = o.servers }
end

local function complaint(fn, ...)
  local ok, err = xpcall(fn, errors.handler, ...)
  assert.is_false(ok)
  assert.is_true(errors.is(err), tostring(err))
  return err
end

local function method_complaint(z, name, ...)
  return complaint(z[name], z, ...)
end

-- Everywhere: data of the name at primary and secondary.
local function everywhere(name, type)
  return bind:data(bind.primary, name, type) .. " | " .. bind:data(bind.secondary, name, type)
end

local function watched(fn, ...)
  local seen = {}
  local stop = events.subscribe(function(event) seen[#seen + 1] = event.text or "" end)
  local r = table.pack(xpcall(fn, errors.handler, ...))
  stop()
  assert(r[1], tostring(r[2]))
  return table.concat(seen, "\n")
end

local before

before_each(function()
  before = before or bind:zone()
  bind:forget()
end)

-- Every test leaves the zone as it found it, so each proves its way back.
after_each(function() assert.equal(before, bind:zone()) end)

describe("a target", function()
  it("is an address or a host name, as name servers write it", function()
    assert.same({ { type = "A", data = "192.0.2.1" } }, names_of.target "192.0.2.1")
    assert.same({ { type = "CNAME", data = "lb.example.net." } }, names_of.target "LB.example.net")
    for text, data in pairs { ["2001:DB8:0:0:0:0:0:1"] = "2001:db8::1", ["::"] = "::", ["::1"] = "::1", ["1::"] = "1::",
      ["2001:db8:0:1:1:1:1:1"] = "2001:db8:0:1:1:1:1:1", ["1:0:0:2:0:0:0:3"] = "1:0:0:2::3", ["fe80::00a0"] = "fe80::a0" } do
      assert.same({ { type = "AAAA", data = data } }, names_of.target(text), text)
    end
    assert.equal(2, #names_of.target { "192.0.2.1", "2001:db8::1", "192.0.2.1" })
    for _, bad in ipairs { "", "localhost", "1.2.3", "1.2.3.256", "01.2.3.4", "1:2", "1::2::3", ":::", "a b.test", "x..test", "-", {} } do
      local ok, err = pcall(names_of.target, bad)
      assert.equal("usage", not ok and err.kind, tostring(bad))
    end
    assert.matches("can have no other record", complaint(names_of.target, { "lb.example.net", "192.0.2.1" }).message)
  end)
end)

describe("looking at names", function()
  it("tells what is a name's own from what a wildcard gives", function()
    local states = zone():get { "temple.hubs.test", "nobody.hubs.test", "_dmarc.hubs.test", "a.mail.hubs.test" }
    assert.same({ { type = "A", ttl = 1799, data = "203.0.113.10" } }, states[1].records)
    assert.same({}, states[2].records)
    assert.equal("*.hubs.test", states[2].wildcard)
    assert.equal("old-lb.clouds.test.", states[2].served[1].data)
    assert.same({ "TXT" }, names_of.other_types(states[3].records))
    assert.same({ name = "a.mail.hubs.test", records = {} }, states[4])
  end)

  it("does so without a key, too", function()
    assert.same(zone():get { "temple.hubs.test", "nobody.hubs.test", "hubs.test" },
      zone({ kind = "manual" }):get { "temple.hubs.test", "nobody.hubs.test", "hubs.test" })
  end)

  it("says in preflight what is worth knowing, and stops at what cannot be", function()
    local function findings(z, list)
      local found = {}
      for _, check in ipairs(z:checks(list)) do
        local value = check[2]()
        found[#found + 1] = type(value) == "table" and table.concat(value, "\n") or value
      end
      return table.concat(found, "\n")
    end
    local text = findings(zone(), { "temple.hubs.test", "nobody.hubs.test", "a.mail.hubs.test" })
    assert.matches("temple.hubs.test: A 203.0.113.10, TTL 1799; lower the TTL 29 min 59 s before", text, 1, true)
    assert.matches("nobody.hubs.test is served by the wildcard *.hubs.test only; it gets a record of its own", text, 1, true)
    assert.matches("a.mail.hubs.test points nowhere yet", text, 1, true)
    assert.matches("names ns1.hubs.test as its primary", text, 1, true)
    assert.not_matches("DNSSEC", text)
    assert.matches("you change hubs.test", findings(zone { kind = "manual" }, { "other.hubs.test" }), 1, true)
    for _, name in ipairs { "sub.hubs.test", "a.b.sub.hubs.test" } do
      local err = method_complaint(zone(), "point", { names = { name }, to = "192.0.2.1" })
      assert.matches(name .. " belongs to another zone: hubs.test hands sub.hubs.test to ns.elsewhere.test", err.message, 1, true)
    end
  end)

  it("refuses names that are not the zone's, and wildcards", function()
    assert.matches("is not in the zone", method_complaint(zone(), "get", "temple.hubs.example").message)
    assert.matches("is never edited", method_complaint(zone(), "point", { names = { "*.hubs.test" }, to = "192.0.2.1" }).message)
    assert.matches("`names` is empty", method_complaint(zone(), "get", {}).message)
    assert.matches("did you mean `rfc2136`", complaint(dns.zone, { kind = "rfc2163", zone = "hubs.test" }).message)
  end)
end)

describe("pointing names", function()
  it("to a host makes CNAMEs, everywhere, and back", function()
    local z = zone { resolvers = { bind.resolver } }
    local saved = z:get { "temple.hubs.test", "other.hubs.test" }
    z:point { names = { "temple.hubs.test" }, to = "new-lb.clouds.test", ttl = 60 }
    assert.equal("new-lb.clouds.test. | new-lb.clouds.test.", everywhere("temple.hubs.test", "CNAME"))
    assert.matches("60%s+IN%s+CNAME", bind:dig(bind.primary, "temple.hubs.test", "CNAME"))
    assert.matches("198.51.100.7", bind:dig(bind.resolver, "temple.hubs.test", "A", "+recurse"), 1, true)
    z:point { names = { "temple.hubs.test" }, to = "new-lb.clouds.test", ttl = 60 } -- twice is once
    z:restore(saved)
  end)

  it("to addresses makes A and AAAA", function()
    local z = zone()
    local saved = z:get "other.hubs.test"
    z:point { names = { "other.hubs.test" }, to = { "192.0.2.77", "2001:db8::77" } }
    assert.equal("192.0.2.77 | 192.0.2.77", everywhere("other.hubs.test", "A"))
    assert.equal("2001:db8::77 | 2001:db8::77", everywhere("other.hubs.test", "AAAA"))
    assert.matches("%s300%s", bind:dig(bind.primary, "other.hubs.test", "AAAA"))
    z:point { names = { "other.hubs.test" }, to = "new-lb.clouds.test" }
    assert.equal("", (bind:zone():match "other%.hubs%.test%. %d+ IN AAAA" or ""))
    z:restore(saved)
  end)

  it("gives a name that only a wildcard serves a record of its own, and takes it away again", function()
    local z = zone()
    local saved = z:get "staging.hubs.test"
    z:point { names = { "staging.hubs.test" }, to = "192.0.2.5" }
    assert.equal("192.0.2.5 | 192.0.2.5", everywhere "staging.hubs.test")
    assert.matches("old%-lb", everywhere("else.hubs.test", "CNAME"))
    z:restore(saved)
    assert.equal("old-lb.clouds.test. | old-lb.clouds.test.", everywhere("staging.hubs.test", "CNAME"))
  end)

  it("refuses what DNS has no words for", function()
    local z = zone()
    assert.matches("is the zone's own name and cannot be a CNAME", method_complaint(z, "point", { names = { "hubs.test" }, to = "lb.x.test" }).message)
    local err = method_complaint(z, "point", { names = { "_dmarc.hubs.test" }, to = "lb.x.test" })
    assert.equal("_dmarc.hubs.test has TXT records, and a CNAME allows none beside it", err.message)
    assert.matches("cannot point to itself", method_complaint(z, "point", { names = { "temple.hubs.test" }, to = "temple.hubs.test" }).message)
    assert.equal("usage", method_complaint(z, "point", { names = { "temple.hubs.test" }, to = "nowhere" }).kind)
  end)

  it("lets the zone's own name have addresses", function()
    local z = zone()
    local saved = z:get "hubs.test"
    z:point { names = { "hubs.test" }, to = "192.0.2.8" }
    assert.equal("10 mail.hubs.test.", bind:data(bind.primary, "hubs.test", "MX"))
    z:restore(saved)
  end)
end)

describe("somebody else", function()
  local update = core.update
  after_each(function() core.update = update end)

  -- The edit comes after the look and before the change.
  local function meanwhile(lines, undo)
    local once = true
    core.update = function(o)
      if once and o.lines:find("update ", 1, true) then
        once = false
        bind:edit(lines)
      end
      return update(o)
    end
    return function() bind:edit(undo) end
  end

  it("who changes one of the names meanwhile is told, and none is changed", function()
    local undo = meanwhile("update delete other.hubs.test A\nupdate add other.hubs.test 300 A 192.0.2.99",
      "update delete other.hubs.test A\nupdate add other.hubs.test 300 A 192.0.2.50")
    local err = method_complaint(zone(), "point", { names = { "temple.hubs.test", "other.hubs.test" }, to = "new-lb.clouds.test" })
    assert.equal("conflict", err.kind)
    assert.matches("other.hubs.test was A 192.0.2.50, TTL 300, and is now A 192.0.2.99, TTL 300", err.message, 1, true)
    assert.equal("203.0.113.10", bind:data(bind.primary, "temple.hubs.test"))
    undo()
  end)

  it("who makes a name that only a wildcard served is told", function()
    local undo = meanwhile("update add fresh.hubs.test 300 TXT mine", "update delete fresh.hubs.test")
    assert.equal("conflict", method_complaint(zone(), "point", { names = { "fresh.hubs.test" }, to = "192.0.2.1" }).kind)
    undo()
  end)

  it("who changes other names is said, and does not disturb", function()
    local z = zone()
    local saved = z:get "temple.hubs.test"
    local undo = meanwhile("update add theirs.hubs.test 300 A 192.0.2.44", "update delete theirs.hubs.test")
    local text = watched(z.point, z, { names = { "temple.hubs.test" }, to = "192.0.2.1" })
    assert.matches("somebody else changed 1 more: + theirs.hubs.test 300 A 192.0.2.44", text, 1, true)
    undo()
    z:restore(saved)
  end)
end)

describe("a server that refuses", function()
  it("is quoted in words", function()
    local function kind_and_message(o)
      local err = method_complaint(zone(o), "point", { names = { "temple.hubs.test" }, to = "192.0.2.1" })
      return err.kind .. ": " .. err.message
    end
    assert.matches("^auth: .* does not know the key nobody %(BADKEY%)", kind_and_message { key = key { name = "nobody" } })
    assert.matches("^auth: .* knows the key rbkey with another secret %(BADSIG%)", kind_and_message { key = key { secret = "AAAA" } })
    assert.matches("^refused: .* refuses the change: the key other may not make it", kind_and_message { key = { name = "other", algorithm = "hmac-sha512",
      secret = secret.new("other key", bind.other_key) } })
    assert.matches("^refused: .* does not serve the zone hubs.test: it answers for others only", kind_and_message { server = bind.root })
    assert.matches("^refused: .* refuses the change: the key rbkey may not make it", kind_and_message { server = bind.secondary })
  end)

  it("has its clock told", function()
    local late <close> = world.bind { ahead = 1200 }
    local z = dns.zone { kind = "rfc2136", zone = "hubs.test", server = late.primary, port = late.port, via = { late.resolver },
      key = { name = "rbkey", secret = secret.new("late key", late.key) } }
    local err = method_complaint(z, "get", "temple.hubs.test")
    assert.equal("auth", err.kind)
    assert.matches("%(BADTIME%): its clock is 20 min ahead of ours", err.message)
  end)

  it("is told from one that is not there", function()
    local err = method_complaint(zone { servers = { "127.0.0.1" } }, "wait", { names = { "temple.hubs.test" }, to = "203.0.113.10",
      within = 0.1 })
    assert.equal("timeout", err.kind)
    assert.matches("127.0.0.1 port " .. bind.port .. ": .*connection refused", err.message)
    local nowhere = dns.zone { kind = "manual", zone = "nowhere.test", port = bind.port, via = { bind.resolver } }
    assert.matches("know no zone nowhere.test: it is not delegated", method_complaint(nowhere, "get", "x.nowhere.test").message, 1, true)
  end)
end)

describe("an update whose answer is lost", function()
  it("was made, or is not: looking tells", function()
    local proxy <close> = bind:proxy(bind.primary)
    local ask = require "runbook.dns.ask"
    local timeout = ask.timeout
    ask.timeout = 1
    local _ <close> = setmetatable({}, { __close = function() ask.timeout = timeout end })
    local z = zone { server = proxy.address }
    local saved = z:get "temple.hubs.test"
    proxy:mode "keep"
    z:point { names = { "temple.hubs.test" }, to = "192.0.2.2" }
    assert.matches("k", proxy:seen())
    proxy:mode "pass"
    z:restore(saved)
  end)
end)

describe("waiting", function()
  local late

  setup(function() late = world.bind { lags = true, lame = true } end)
  teardown(function() late:close() end)

  local function late_zone(servers)
    return dns.zone { kind = "rfc2136", zone = "hubs.test", server = late.primary, port = late.port, via = { late.resolver },
      key = { name = "rbkey", secret = secret.new("late key", late.key) }, servers = servers }
  end

  it("tells a secondary that lags by its serial, and goes on when it has the change", function()
    local z = late_zone { late.primary, late.secondary }
    local err = method_complaint(z, "point", { names = { "temple.hubs.test" }, to = "192.0.2.3", within = 0.5 })
    assert.equal("timeout", err.kind)
    assert.matches(late.secondary .. " says A 203.0.113.10, TTL 1799 for temple.hubs.test", err.message, 1, true)
    assert.matches("it has serial 1 and " .. late.primary:gsub("%p", "%%%0") .. " has 2: it has not fetched the change yet", err.message)
    local waiting = task.spawn(z.wait, z, { names = { "temple.hubs.test" }, to = "192.0.2.3" })
    late:catch_up()
    local ok, why = task.join(waiting)
    assert.is_true(ok, tostring(why))
  end)

  it("tells a server that is named and does not serve the zone", function()
    local z = late_zone()
    local text = table.concat(z:checks({ "mail.hubs.test" })[1][2](), "\n")
    assert.matches("ns3.hubs.test (" .. late.root .. ")", text, 1, true)
    assert.matches("a lame delegation", text)
    local err = method_complaint(z, "wait", { names = { "mail.hubs.test" }, to = "192.0.2.9", within = 0.2 })
    assert.matches("a lame delegation", err.message)
  end)
end)

describe("a signed zone", function()
  local signed

  setup(function() signed = world.bind { signed = true, records = "@ CAA 0 issue \"letsencrypt.org\"\n" } end)
  teardown(function() signed:close() end)

  it("is said to be signed, and who may issue certificates; its servers sign what we change", function()
    local z = dns.zone { kind = "rfc2136", zone = "hubs.test", server = signed.primary, port = signed.port, via = { signed.resolver },
      resolvers = { signed.resolver }, key = { name = "rbkey", secret = secret.new("signed key", signed.key) } }
    world.wait_until("signatures", function() return signed:data(signed.secondary, "temple.hubs.test", "RRSIG") ~= "" end, 60)
    local checks = z:checks { "temple.hubs.test" }
    local text = table.concat(checks[3][2](), "\n")
    assert.matches("hubs.test is signed (DNSSEC): its server has to sign what it changes", text, 1, true)
    assert.matches("CAA records at hubs.test say who may issue certificates: 0 issue \"letsencrypt.org\"", text, 1, true)
    assert.is_nil(checks[4][2]())
    signed:forget()
    local told = watched(z.point, z, { names = { "temple.hubs.test" }, to = "192.0.2.1", ttl = 60 })
    assert.is_nil(told:find("somebody else", 1, true))
    assert.matches("A 13 3 60", (world.wait_until("its signature", function()
      return signed:data(signed.primary, "temple.hubs.test", "RRSIG"):match "A %d+ 3 60"
    end, 60)))
    signed:stop "primary"
    signed:stop "secondary"
    signed:forget()
    local err = complaint(checks[4][2])
    assert.equal("busy", err.kind)
    assert.matches("has trouble of its own %(SERVFAIL%)", err.message)
  end)
end)

describe("lowering TTLs", function()
  it("waits the old one out, and leaves those that are low", function()
    local z = zone()
    local saved = z:get { "brief.hubs.test", "staging.hubs.test" }
    bind:data(bind.resolver, "brief.hubs.test")
    local began = os.time()
    z:lower_ttl { names = { "brief.hubs.test" }, to = 1 }
    assert.is_true(os.time() - began >= 1)
    assert.matches("%s1%s+IN%s+A%s+192.0.2.60", bind:dig(bind.secondary, "brief.hubs.test"))
    z:lower_ttl { names = { "brief.hubs.test" }, to = 1 }
    z:restore(saved)
  end)

  it("gives a name that only a wildcard serves a record that says the same", function()
    local z = zone()
    local saved = z:get "staging.hubs.test"
    local waiting = task.spawn(z.lower_ttl, z, { names = { "staging.hubs.test" }, to = 5 })
    world.wait_until("the record", function() return bind:dig(bind.secondary, "staging.hubs.test", "CNAME"):find "%s5%s+IN%s+CNAME%s+old%-lb" end)
    waiting:cancel() -- five minutes are too long here
    task.join(waiting)
    z:restore(saved)
  end)
end)

describe("a zone that somebody else changes", function()
  it("has the change said, as zone lines and for a ticket, and is waited for", function()
    local z = zone { kind = "manual" }
    local saved = z:get "temple.hubs.test"
    local text, pointing
    text = watched(function()
      pointing = task.spawn(z.point, z, { names = { "temple.hubs.test", "staging.hubs.test" }, to = "new-lb.clouds.test", ttl = 60 })
      task.sleep(0.2)
      assert.is_false(pointing:done())
      bind:edit "update delete temple.hubs.test A\nupdate add temple.hubs.test 120 CNAME new-lb.clouds.test"
      task.sleep(0.2)
      assert.is_false(pointing:done())
      bind:edit "update add staging.hubs.test 60 CNAME new-lb.clouds.test"
      local ok, why = task.join(pointing)
      assert.is_true(ok, tostring(why))
    end)
    for _, line in ipairs {
      "    - temple.hubs.test. 1799 IN A 203.0.113.10\n    + temple.hubs.test. 60 IN CNAME new-lb.clouds.test.",
      "1. replace the record of temple.hubs.test: now A 203.0.113.10, TTL 1799, then CNAME new-lb.clouds.test, TTL 60?",
      "2. add a record for staging.hubs.test", "*.hubs.test serves this name today; please leave that as it is",
    } do
      assert.matches(line, text, 1, true)
    end
    bind:edit "update delete staging.hubs.test CNAME"
    local back = task.spawn(z.restore, z, saved)
    bind:edit "update delete temple.hubs.test CNAME\nupdate add temple.hubs.test 1799 A 203.0.113.10"
    local ok, why = task.join(back)
    assert.is_true(ok, tostring(why))
  end)
end)
