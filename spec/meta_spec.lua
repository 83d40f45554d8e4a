-- lib/meta against the C modules: the same functions on both sides, and a permit wherever one is declared.

local errors = require "runbook.errors"
local gate = require "runbook.core.gate"
local meta = require "spec.support.meta"
local world = require "spec.world"

local modules = meta.names "src/lua/*.c"
for i = #modules, 1, -1 do
  local source = world.read("src/lua/" .. modules[i] .. ".c")
  if not source:find(("luaopen_runbook_core_%s(lua_State *L)\n{"):format(modules[i]), 1, true) then
    table.remove(modules, i) -- shared code: bind.c, or the second half of a binding
  end
end

local function sorted_keys(t)
  local keys = {}
  for key in pairs(t) do
    keys[#keys + 1] = key
  end
  table.sort(keys)
  return keys
end

local function set(list)
  local s = {}
  for _, value in ipairs(list) do
    s[value] = true
  end
  return s
end

-- Metatables of a module's objects; those of waits have no methods.
local function classes_of(module)
  local found = {}
  for name, mt in pairs(debug.getregistry()) do
    local own = type(name) == "string" and (name == "runbook." .. module or name:match("^runbook%." .. module .. "%."))
    if own and type(mt) == "table" and type(mt.__index) == "table" and next(mt.__index) then
      found[name] = mt.__index
    end
  end
  return found
end

describe("lib/meta", function()
  it("has a file for every module in src/lua, and no other", function()
    assert.same(modules, meta.names "lib/meta/*.d.lua")
    assert.is_true(#modules >= 15)
  end)

  for _, name in ipairs(modules) do
    it("declares exactly what runbook.core." .. name .. " has", function()
      local declared, real = meta.declared(name), require("runbook.core." .. name)
      assert.equal("runbook.core." .. name, declared.name)
      local functions, methods = {}, {}
      for _, fn in ipairs(declared.functions) do
        if fn.class then
          local class = meta.metatable_name(fn.class)
          methods[class] = methods[class] or {}
          methods[class][fn.name] = true
        else
          functions[fn.name] = true
        end
        assert.equal(fn.takes, fn.said, ("%s.%s: the parameters that are described"):format(name, fn.name))
      end
      local have, values = {}, {}
      for key, value in pairs(real) do
        (type(value) == "function" and have or values)[key] = true
      end
      assert.same(sorted_keys(have), sorted_keys(functions))
      assert.same(sorted_keys(values), sorted_keys(set(declared.values)))
      local classes = classes_of(name)
      assert.same(sorted_keys(classes), sorted_keys(methods))
      for class, index in pairs(classes) do
        assert.same(sorted_keys(index), sorted_keys(methods[class]), class)
      end
    end)
  end
end)

-- Everything below is called where it must be refused, so none of it may do harm if it is not.
local folder, server

local by_type = {
  string = function() return "/nonexistent/spec" end,
  integer = function() return 1 end,
  number = function() return 1 end,
  boolean = function() return false end,
  table = function() return {} end,
}

-- Where the type alone does not make an argument that passes.
local special = {
  ["dns.query"] = function() return { { address = "127.0.0.1", port = 1, name = ".", type = "SOA" } } end,
  ["dns.update"] = function() return { { address = "127.0.0.1", port = 1, zone = ".", lines = "update delete x." } } end,
  ["file.open"] = function() return { folder .. "/open", "w" } end,
  ["http.request"] = function() return { { method = "POST", url = "http://127.0.0.1:1/" } } end,
  ["manifest.census"] = function() return { { directory = folder } } end,
  ["manifest.compare"] = function() return { folder, "home" } end,
  ["manifest.keep"] = function() return { { directory = folder, into = folder, units = {} } } end,
  ["manifest.request"] = function() return { { directory = folder, side = "source" } } end,
  ["manifest.scan"] = function() return { { directory = folder, side = "source" } } end,
  ["manifest.strangers"] = function() return { folder, "home", folder } end,
  ["manifest.unproven"] = function() return { { directory = folder, units = {} } } end,
  ["manifest.work"] = function() return { { directory = folder, units = {} } } end,
  ["manifest.work:settle"] = function() return { "home" } end,
  ["process.exec"] = function() return { { argv = { "true" } } } end,
  ["process.open"] = function() return { { argv = { "true" } } } end,
  ["sftp.client:setstat"] = function() return { folder .. "/gone", { mode = 1 } } end,
  ["sftp.over"] = function()
    local far, near = require("runbook.core.stream").pair()
    far:close()
    return { near }
  end,
  ["sqlite.open"] = function() return { folder .. "/new.db", { create = true } } end,
  ["ssh.login:answer"] = function() return { { "x" } } end,
  ["ssh.connect"] = function() return { { host = "127.0.0.1", port = 1, user = "nobody" } } end,
  ["sqlite.database:run"] = function() return { { "CREATE TABLE t (x)" } } end,
  ["sqlite.database:query"] = function() return { "SELECT 1" } end,
  ["sqlite.database:records"] = function() return { "SELECT 1" } end,
  ["websocket.connect"] = function() return { { url = "http://127.0.0.1:1/" } } end,
}

-- The case that a "change, unless ..." names: there the weaker permit is enough.
local weaker = {
  ["dns.update"] = function() return { { address = "127.0.0.1", port = 1, zone = ".", lines = "prereq yxdomain x." } } end,
  ["file.open"] = function() return { "/dev/null", "r" } end,
  ["http.request"] = function() return { { method = "GET", url = "http://127.0.0.1:1/" } } end,
  ["sqlite.open"] = function() return { folder .. "/db", { readonly = true } } end,
  ["websocket.connect"] = function() return { { url = "http://127.0.0.1:1/", reads = true } } end,
}

-- Objects to call methods on; each is closed again.
local make = {
  ["runbook.core.file.lock"] = function()
    return require("runbook.core.file").lock(folder .. "/lock")
  end,
  ["runbook.core.manifest.work"] = function()
    return require("runbook.core.manifest").work { directory = folder, units = { "home" } }
  end,
  ["runbook.core.sftp.client"] = function()
    local child = assert(require("runbook.core.process").open { argv = { "/usr/lib/openssh/sftp-server" }, duplex = true })
    return assert(require("runbook.core.sftp").over(child:stdin()))
  end,
  ["runbook.core.sqlite.database"] = function()
    return require("runbook.core.sqlite").open(folder .. "/db", { create = true })
  end,
  ["runbook.core.ssh.login"] = function()
    server = server or world.sshd { name = "gate" }
    return select(5, require("runbook.core.ssh").connect {
      host = server.address, port = server.port, user = server.user_plain, ask = true, pins = { server.fingerprint },
    })
  end,
  ["runbook.core.ssh.session"] = function()
    server = server or world.sshd { name = "gate" }
    return assert(require("runbook.core.ssh").connect {
      host = server.address, port = server.port, user = "root", identities = { server.key }, pins = { server.fingerprint },
    })
  end,
}

local function label(name, fn)
  return fn.class and fn.class:gsub("^runbook%.core%.", "") .. ":" .. fn.name or name .. "." .. fn.name
end

local function arguments(name, fn)
  local key = label(name, fn)
  if special[key] then
    return special[key]()
  end
  local list = {}
  for i, param in ipairs(fn.params) do
    if param.optional then
      break
    end
    local kind = param.type:match "^[%a]+"
    list[i] = assert(by_type[kind], ("%s: no argument is known for `%s` of type %s"):format(key, param.name, param.type))()
  end
  return list
end

-- The error of a call, or nil when it was let through.
local function refusal(callee, object, list)
  local given = table.move(list, 1, #list, object and 2 or 1, { object })
  local ok, err = pcall(callee, table.unpack(given))
  return not ok and errors.from(err) or nil
end

local function assert_ungated(err, what)
  assert(err ~= nil, what .. ": was let through")
  assert.equal("ungated", err.code, ("%s: %s"):format(what, err.message))
end

local function check(name, fn)
  local what = label(name, fn)
  local object <close> = fn.class and gate.call("change", assert(make[fn.class], what .. ": nothing makes its object")) or nil
  local callee = fn.class and object[fn.name] or require("runbook.core." .. name)[fn.name]
  assert_ungated(refusal(callee, object, arguments(name, fn)), what)
  if fn.permit == "change" then
    assert_ungated(gate.call("read", refusal, callee, object, arguments(name, fn)), what .. " under permit read")
  end
  if fn.unless then
    local list = assert(weaker[what], what .. ": no arguments for: unless " .. fn.unless)
    assert_ungated(refusal(callee, object, list()), what .. " unless " .. fn.unless)
    assert.is_nil(gate.call(fn.permit_then, refusal, callee, object, list()), what .. " unless " .. fn.unless)
  end
end

describe("the gate", function()
  setup(function()
    folder = world.folder "meta"
    gate.call("change", function()
      local db <close> = require("runbook.core.sqlite").open(folder .. "/db", { create = true })
      assert(db:run { "CREATE TABLE made (x)" })
    end)
  end)

  local counted = 0
  for _, name in ipairs(modules) do
    for _, fn in ipairs(meta.declared(name).functions) do
      if fn.permit then
        counted = counted + 1
        it(("lets nobody call %s outside of a verb (%s)"):format(label(name, fn), fn.permit), function()
          check(name, fn)
        end)
      end
    end
  end

  -- A permit that is asked for in C and not declared would not be tried above.
  it("is asked in C wherever a signature says so, and nowhere else", function()
    local asks, declares = {}, {}
    for _, name in ipairs(modules) do
      asks[name] = world.read("src/lua/" .. name .. ".c"):find "bind_permit%(" and true or nil
      for _, fn in ipairs(meta.declared(name).functions) do
        declares[name] = declares[name] or fn.permit and true or nil
      end
    end
    assert.same(sorted_keys(asks), sorted_keys(declares))
    assert.is_true(counted >= 20)
  end)

  it("restores what was allowed however a call ends", function()
    local file = require "runbook.core.file"
    pcall(gate.call, "change", error, "no")
    assert.equal("none", gate.class())
    assert.equal("change", gate.call("change", function()
      pcall(gate.call, "read", error, "no")
      return gate.class()
    end))
    assert_ungated(refusal(file.stat, nil, { "/" }), "file.stat afterwards")
  end)

  it("gives a child task what its parent had, and nothing to anybody else", function()
    local task = require "runbook.core.task"
    local late
    gate.call("read", function()
      late = task.spawn(function()
        task.sleep(0.01)
        return gate.class()
      end)
    end)
    task.join_all { late }
    assert.same({ true, "read" }, { late:result() }, "its own permit, though the parent's is over")
    assert.equal("none", gate.class())
  end)
end)
