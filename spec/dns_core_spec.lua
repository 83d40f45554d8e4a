-- Questions and updates on the wire, against real BIND, and through a proxy that spoils them.

local core = require "runbook.core.dns"
local gate = require "runbook.core.gate"
local task = require "runbook.core.task"
local world = require "spec.world"

local names

setup(function()
  local many = {}
  for i = 1, 2000 do
    many[i] = ("n%04d IN TXT \"%s\"\n"):format(i, ("x"):rep(100))
  end
  names = world.bind { records = table.concat(many) }
end)

teardown(function()
  names:close()
end)

local function key(o)
  o = o or {}
  return { name = o.name or "rbkey", algorithm = o.algorithm or "hmac-sha256", secret = o.secret or names.key }
end

local function query(o)
  o.address, o.port = o.address or names.primary, o.port or names.port
  return gate.call("read", core.query, o)
end

local function update(lines, o)
  o = o or {}
  return gate.call("change", core.update, {
    address = o.address or names.primary, port = names.port, zone = o.zone or "hubs.test", lines = lines, key = o.key or key(),
  })
end

local function lines_of(records)
  local lines = {}
  for i, r in ipairs(records) do
    lines[i] = ("%s %d %s %s"):format(r.name, r.ttl, r.type, r.data)
  end
  table.sort(lines)
  return lines
end

describe("a question", function()
  it("is answered as dig is", function()
    local a = assert(query { name = "temple.hubs.test", type = "A" })
    assert.equal("NOERROR", a.rcode)
    assert.is_true(a.authoritative)
    assert.is_false(a.recursion)
    assert.is_false(a.tcp)
    assert.same({ { name = "temple.hubs.test.", ttl = 1799, type = "A", data = "203.0.113.10" } }, a.answer)
    assert.same({ "hubs.test. 300 NS ns1.hubs.test.", "hubs.test. 300 NS ns2.hubs.test." }, lines_of(a.authority))
    a = assert(query { name = "_dmarc.hubs.test", type = "TXT" })
    assert.equal('"v=DMARC1; p=none"', a.answer[1].data)
    a = assert(query { name = "hubs.test", type = "SOA" })
    assert.matches("^ns1%.hubs%.test%. root%.hubs%.test%. %d+ 3600 600 86400 60$", a.answer[1].data)
    a = assert(query { name = "nothing.mail.hubs.test", type = "A" })
    assert.equal("NXDOMAIN", a.rcode)
    a = assert(query { name = "hubs.test", type = "NS", address = names.root })
    assert.is_false(a.authoritative)
    assert.same({}, a.answer)
    assert.equal(2, #a.authority)
    a = assert(query { name = "any.hubs.test", type = "A", address = names.resolver, recurse = true })
    assert.is_true(a.recursion)
    assert.same({ "any.hubs.test. 300 CNAME old-lb.clouds.test.", "old-lb.clouds.test. 300 A 203.0.113.10" }, lines_of(a.answer))
    assert.equal("REFUSED", query { name = "elsewhere.test", type = "A" }.rcode)
  end)

  it("goes on by TCP when the answer is cut", function()
    update "update add long.hubs.test 60 TXT \"0\""
    for i = 1, 20 do
      update(("update add long.hubs.test 60 TXT \"%d%s\""):format(i, ("y"):rep(200)))
    end
    local a = assert(query { name = "long.hubs.test", type = "TXT" })
    assert.is_true(a.tcp)
    assert.equal(21, #a.answer)
    update "update delete long.hubs.test"
    assert.is_true(query({ name = "hubs.test", type = "SOA", tcp = true }).tcp)
  end)

  it("gets the whole zone, in as many messages as it takes", function()
    local a = assert(query { name = "hubs.test", type = "AXFR", key = key() })
    assert.is_true(#a.answer > 2005)
    assert.equal("SOA", a.answer[1].type)
    assert.same(a.answer[1], a.answer[#a.answer])
    table.remove(a.answer)
    table.remove(a.answer, 1)
    local lines = lines_of(a.answer)
    for i, line in ipairs(lines) do
      lines[i] = line:gsub("^(%S+ %d+) ", "%1 IN ")
    end
    table.sort(lines)
    assert.is_true(names:zone() == table.concat(lines, "\n"), "another zone than dig's")
    local none = assert(query { name = "hubs.test", type = "AXFR" })
    assert.equal("REFUSED", none.rcode)
    local _, message, code = query { name = "hubs.test", type = "AXFR", key = key(), records = 100 }
    assert.equal("ELIMIT", code)
    assert.matches("more records than are kept", message)
  end)

  it("says what is wrong with it before anything is sent", function()
    for text, o in pairs {
      ["there is no such type"] = { name = "x.test", type = "NONSENSE" },
      ["this is no name"] = { name = ("x"):rep(64) .. ".test", type = "A" },
      ["a numeric address is expected"] = { name = "x.test", type = "A", address = "localhost" },
      ["the key's secret is no base64"] = { name = "x.test", type = "A", key = key { secret = "%%%" } },
      ["none of hmac%-sha256"] = { name = "x.test", type = "A", key = key { algorithm = "hmac-md5" } },
    } do
      local value, message, code = query(o)
      assert.is_nil(value)
      assert.equal("EINVAL", code)
      assert.matches(text, message)
    end
    assert.error_matches(function() query { name = "x", type = "A", port = 0 } end, "a port from 1 to 65535")
    assert.error_matches(function() query { name = "x" } end, "type is missing")
    assert.error_matches(function() query { name = "x\0y", type = "A" } end, "holds a zero byte")
  end)

  it("says who does not answer", function()
    assert.equal("ECONNREFUSED", select(3, query { name = "x.test", type = "A", port = 1 }))
    local _, message, code = query { name = "x.test", type = "A", port = 1, tcp = true }
    assert.equal("ECONNREFUSED", code)
    assert.matches("connecting by TCP", message)
  end)

  it("finds the addresses of hosts as this machine does", function()
    assert.same({ "127.0.0.1" }, gate.call("read", core.addresses, "127.0.0.1"))
    local value, message, code = gate.call("read", core.addresses, "no host")
    assert.is_nil(value)
    assert.equal("string", type(message))
    assert.is_true(code == "ERESOLVE" or code == "EINVAL")
  end)
end)

describe("an update", function()
  it("changes all or nothing, by its prerequisites", function()
    local before = names:zone()
    local function rcode(lines)
      return assert(update(lines)).rcode
    end
    assert.equal("NOERROR", rcode "prereq nxdomain new.hubs.test\nupdate add new.hubs.test 60 A 192.0.2.1")
    assert.equal("192.0.2.1", names:data(names.primary, "new.hubs.test"))
    assert.equal("YXDOMAIN", rcode "prereq nxdomain new.hubs.test\nupdate add new.hubs.test 60 A 192.0.2.2")
    assert.equal("NXDOMAIN", rcode "prereq yxdomain none.hubs.test\nupdate add new.hubs.test 60 A 192.0.2.2")
    assert.equal("NXRRSET", rcode "prereq yxrrset new.hubs.test A 192.0.2.9\nupdate delete new.hubs.test A")
    assert.equal("NXRRSET", rcode "prereq yxrrset new.hubs.test AAAA\nupdate delete new.hubs.test A")
    assert.equal("YXRRSET", rcode "prereq nxrrset new.hubs.test A\nupdate delete new.hubs.test A")
    assert.equal("192.0.2.1", names:data(names.primary, "new.hubs.test"))
    assert.equal("NOERROR", rcode [[
prereq yxrrset new.hubs.test A 192.0.2.1
update delete new.hubs.test A 192.0.2.1
update add new.hubs.test 60 TXT "a b" "c;d"
update add new.hubs.test 60 CAA 0 issue "letsencrypt.org"]])
    assert.equal('"a b" "c;d"', names:data(names.primary, "new.hubs.test", "TXT"))
    assert.equal('0 issue "letsencrypt.org"', names:data(names.primary, "new.hubs.test", "CAA"))
    assert.equal("NOERROR", rcode "update delete new.hubs.test TXT\nupdate delete new.hubs.test")
    assert.equal("NOTZONE", rcode "update delete new.elsewhere.test")
    assert.equal(before, names:zone())
  end)

  it("only asks when nothing in it changes anything, also of what a wildcard serves", function()
    local asked = gate.call("read", core.update, { address = names.primary, port = names.port, zone = "hubs.test", key = key(),
      lines = "prereq nxdomain by-wildcard.hubs.test\n" })
    assert.equal("NOERROR", asked.rcode)
    assert.matches("old%-lb", names:data(names.primary, "by-wildcard.hubs.test"))
    assert.equal("NXDOMAIN", update("prereq yxdomain by-wildcard.hubs.test").rcode)
    assert.equal("ungated", select(2, pcall(gate.call, "read", core.update, { address = names.primary, port = names.port,
      zone = "hubs.test", key = key(), lines = "prereq nxdomain a.hubs.test\n update delete a.hubs.test" })).code)
  end)

  it("says which line is wrong", function()
    for line, text in pairs {
      ["prereq maybe x.hubs.test"] = "a prerequisite is", ["prereq nxdomain x.hubs.test A"] = "too few or too many words",
      ["update add x.hubs.test 60 A"] = "too few words", ["update add x.hubs.test soon A 1.2.3.4"] = "a TTL is seconds",
      ["update add x.hubs.test 60 A 1.2.3"] = "no data of that type", ["update add x.hubs.test 60 NONE 1"] = "no such type",
      ["update mend x.hubs.test"] = "add or delete", ["delete x.hubs.test"] = "begins with prereq or update",
    } do
      local value, message, code = update("prereq nxdomain fine.hubs.test\n" .. line .. "\n")
      assert.is_nil(value)
      assert.equal("EINVAL", code)
      assert.equal(line, message:sub(1, #line))
      assert.matches(text, message)
    end
    assert.matches("longer than a message", select(2, update(("update add x.hubs.test 1 TXT \"" .. ("z"):rep(200) .. "\"\n"):rep(300))))
  end)

  it("is refused in the server's own words", function()
    local function refused(o, lines)
      return assert(update(lines or "update add x.hubs.test 60 A 192.0.2.1", o))
    end
    assert.equal("REFUSED", refused({ key = key { name = "other", algorithm = "hmac-sha512", secret = names.other_key } }).rcode)
    local a = refused { key = key { name = "nobody" } }
    assert.same({ "NOTAUTH", 17 }, { a.rcode, a.key_error })
    a = refused { key = key { secret = "AAAA" } }
    assert.same({ "NOTAUTH", 16 }, { a.rcode, a.key_error })
    assert.equal("NOTAUTH", refused({ zone = "mail.hubs.test" }, "update delete a.mail.hubs.test").rcode)
    assert.equal("", names:data(names.primary, "x.hubs.test"):match "192.*" or "")
  end)

  it("takes the key as tsig-keygen wrote it", function()
    assert.equal("NOERROR", update("prereq yxdomain temple.hubs.test", { key = key { secret = world.read(names.key_file) } }).rcode)
    assert.equal("NOERROR", update("prereq nxdomain x.hubs.test",
      { key = key { name = "OTHER", algorithm = "hmac-sha512", secret = names.other_key } }).rcode)
  end)
end)

describe("between us and a server", function()
  local proxy

  setup(function() proxy = names:proxy(names.primary) end)
  teardown(function() proxy:close() end)

  local function ask(mode, o)
    proxy:mode(mode)
    proxy:seen()
    o = o or {}
    o.address, o.name, o.type = proxy.address, o.name or "temple.hubs.test", o.type or "A"
    return query(o)
  end

  it("a lost datagram is sent again, and silence ends in time", function()
    assert.equal("203.0.113.10", ask("deaf").answer[1].data)
    assert.equal("uu", proxy:seen())
    local _, message, code = ask("silent", { timeout = 0.2 })
    assert.equal("ETIMEDOUT", code)
    assert.equal("no answer within 0.2 s", message)
    _, _, code = ask("silent", { timeout = 0.2, tcp = true })
    assert.equal("ETIMEDOUT", code)
  end)

  it("wrong answers are passed over", function()
    local a = assert(ask "noise")
    assert.same({ "203.0.113.10" }, { a.answer[1].data, a.answer[2] })
    assert.is_false(a.tcp)
  end)

  it("a server that knows no EDNS is asked without", function()
    assert.equal("203.0.113.10", ask("old").answer[1].data)
    assert.equal("uu", proxy:seen())
  end)

  it("a cut answer is none", function()
    for _, o in ipairs { { tcp = true }, { name = "hubs.test", type = "AXFR", key = key() } } do
      local _, message, code = ask("cut", o)
      assert.equal("ELOST", code)
      assert.matches("closed the connection", message)
    end
    assert.equal("EPROTO", select(3, ask("other", { tcp = true })))
  end)

  it("an answer counts only with our signature", function()
    proxy:mode "unsigned"
    local lines = "prereq nxdomain y.hubs.test"
    assert.same({ "the answer is not signed", "EFORGED" }, { select(2, update(lines, { address = proxy.address })) })
    proxy:mode "flip"
    assert.same({ "the answer is not signed with our key", "EFORGED" }, { select(2, update(lines, { address = proxy.address })) })
    assert.equal("EFORGED", select(3, ask("flip", { name = "hubs.test", type = "AXFR", key = key() })))
    assert.equal("NOERROR", ask("pass", { key = key() }).rcode)
  end)

  it("may be given up at any moment, and leaves nothing behind", function()
    for _, o in ipairs { {}, { tcp = true }, { type = "AXFR", name = "hubs.test", key = key() } } do
      for _, wait in ipairs { 0, 0.001, 0.01 } do
        proxy:mode "silent"
        local t = gate.call("read", task.spawn, query, { address = proxy.address, name = o.name or "temple.hubs.test",
          type = o.type or "A", tcp = o.tcp, key = o.key })
        task.sleep(wait)
        t:cancel()
        task.join_all { t }
        assert.is_false((t:result()))
      end
    end
    local t = gate.call("read", task.spawn, core.addresses, "127.0.0.1")
    t:cancel()
    task.join_all { t }
    collectgarbage()
  end)
end)
