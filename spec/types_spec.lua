local params = require "runbook.params"
local types = require "runbook.types"

-- Parses one value as a file would have it; returns the value, or nil and what is wrong.
local function parse(kind, raw, more)
  local item = { "x", kind, "help" }
  for key, value in pairs(more or {}) do
    item[key] = value
  end
  local path = os.tmpname()
  local f = assert(io.open(path, "w"))
  f:write("x: " .. raw .. "\n")
  f:close()
  local ok, result = pcall(params.load, { declaration = { item }, files = { path } })
  os.remove(path)
  if ok then
    return result.x
  end
  local lines = {}
  for _, problem in ipairs(result.problems or error(result, 0)) do
    lines[#lines + 1] = problem.path .. " " .. problem.message
  end
  return nil, table.concat(lines, "\n")
end

local function refused(kind, raw, pattern)
  local value, message = parse(kind, raw)
  assert.is_nil(value)
  assert.is_truthy(message:find(pattern, 1, true), message)
end

describe("type", function()
  it("string takes scalars as they are written", function()
    assert.equal("1.10", parse("string", "1.10"))
    assert.equal("0012", parse("string", "0012"))
    assert.equal("true", parse("string", "true"))
    assert.equal("no", parse("string", "no"))
    assert.equal("", parse("string", "''"))
    refused("string", "[a]", "x a list: text is expected")
  end)

  it("integer, number and boolean take what means it exactly", function()
    assert.equal(12, parse("integer", "12"))
    assert.equal(-3, parse("integer", "'-3'"))
    refused("integer", "1.5", "1.5: a whole number is expected")
    refused("integer", "many", '"many": a whole number')
    assert.equal(1.5, parse("number", "1.5"))
    assert.equal(3, parse("number", "3"))
    refused("number", ".inf", "a number is expected")
    refused("number", "'0x10'", "a number is expected")
    assert.is_true(parse("boolean", "true"))
    assert.is_false(parse("boolean", "'false'"))
    refused("boolean", "yes", '"yes": true or false')
    refused("boolean", "1", "1: true or false")
  end)

  it("choice names the words, and the nearest", function()
    assert.equal("merge", parse("choice", "merge", { choices = { "copy", "merge" } }))
    local _, message = parse("choice", "coyp", { choices = { "copy", "merge" } })
    assert.equal('x "coyp": one of copy, merge; did you mean `copy`?', message)
  end)

  it("name is safe in file names and commands", function()
    assert.equal("temple-3", parse("name", "temple-3"))
    for _, bad in ipairs { "'-x'", "a/b", "'..'", "a b", "''", ("x"):rep(64) } do
      refused("name", bad, "a name has letters, digits")
    end
  end)

  it("fqdn is a full name, in small letters and without its last dot", function()
    assert.equal("temple.2i2c.cloud", parse("fqdn", "Temple.2i2c.Cloud."))
    for _, bad in ipairs { "temple", "a..b", "-a.b", "a-.b", "a b.c", "10.0.0.1", "'*.x.y'", "x.", ("a"):rep(64) .. ".b" } do
      refused("fqdn", bad, "a full domain name")
    end
  end)

  it("owner is keep, or two numbers", function()
    assert.equal("keep", parse("owner", "keep"))
    assert.equal("1000:1000", parse("owner", "1000:1000"))
    refused("owner", "root", "`keep`, or numbers like 1000:1000")
    refused("owner", "1000", "`keep`, or numbers")
  end)

  it("path starts from the file, and ~ is the home directory", function()
    assert.equal("/a/b", parse("path", "/a/b"))
    assert.equal(os.tmpname():match("^(.*)/") .. "/b", parse("path", "b"))
    assert.equal(os.getenv "HOME" .. "/b", parse("path", "~/b"))
    refused("path", "''", "a path is expected")
    refused("path", "12", "a path is expected")
  end)

  it("file is what the file holds", function()
    local path = os.tmpname()
    local f = assert(io.open(path, "w"))
    f:write "one\ntwo"
    f:close()
    assert.equal("one\ntwo", parse("file", path))
    f = assert(io.open(path, "w"))
    f:write(("x"):rep((1 << 20) + 1))
    f:close()
    refused("file", path, "more than 1 MiB")
    f = assert(io.open(path, "w"))
    f:close()
    assert.equal("", parse("file", path))
    os.remove(path)
    refused("file", path, "No such file")
    refused("file", "/", "Is a directory")
  end)

  it("list and map are what they say", function()
    assert.same({ "a", { 1 } }, parse("list", "[a, [1]]"))
    assert.same({}, parse("list", "[]"))
    refused("list", "{a: 1}", "a list is expected")
    refused("list", "a", "a list is expected")
    assert.same({ a = 1 }, parse("map", "{a: 1}"))
    refused("map", "[a]", "a map is expected")
  end)

  it("window reports each of its keys in its own line", function()
    local w = parse("window", "{starts: 2026-12-05T22:00-05:00, lasts: 2h, agreed: INFRA-1234}")
    assert.same({ starts = 1796526000, lasts = 7200, agreed = "INFRA-1234", offset = -18000 }, w)
    assert.equal("Sat 2026-12-05 22:00 -05:00 for 2 h, agreed: INFRA-1234", tostring(w))
    refused("window", "{starts: Saturday 22:00, lasts: 2h}", 'x.starts "Saturday 22:00": a time like 2026-12-05T22:00-05:00')
    refused("window", "{starts: Saturday 22:00, lasts: 2h}", "x.agreed missing: who agreed")
    refused("window", "2h", "with starts, lasts and agreed")
  end)

  it("secret never shows what was given instead of a reference", function()
    local _, message = parse("secret", "hunter2-the-secret")
    assert.matches("a reference is expected", message)
    assert.is_nil(message:find("hunter2", 1, true))
  end)
end)

describe("type", function()
  it("host, place and dir make handles of the libraries, and touch nothing", function()
    local place = require "runbook.place"
    local key = "SHA256:" .. ("a"):rep(43)
    local host = parse("host", ("{ssh: nowhere.invalid, user: ubuntu, port: 2222, sudo: true, host_key: '%s', "
      .. "seen_from_target: 10.0.0.1, identity: /k, jump: gate, "
      .. "config: /c, known_hosts: /h, password: 'file:/p', sudo_password: ask, passphrase: 'age:/a'}"):format(key))
    assert.is_true(place.is(host))
    assert.equal("nowhere.invalid", host.name)
    assert.is_true(host.sudo)
    assert.equal("10.0.0.1", host.seen_from_target)
    assert.is_true(place.is(parse("place", "here")))
    assert.equal("root", parse("place", "{sudo: root}").sudo)
    local dir = parse("dir", "{ssh: ubuntu@nowhere.invalid, path: /export/}")
    assert.equal("/export", dir.path)
    assert.equal("nowhere.invalid:/export", tostring(dir))
    assert.equal(host:reference().kind, dir.place:reference().kind)
  end)
end)

describe("a host that nobody has met", function()
  it("says what to write, and where in the parameter file", function()
    local world = require "spec.world"
    local server <close> = world.sshd { name = "stranger" }
    local folder = world.folder "unmet"
    world.write(folder .. "/none", "")
    world.write(folder .. "/p.yaml", ("old:\n  ssh: %s\n  port: %d\n  known_hosts: none\n"):format(server.address, server.port))
    local given = params.load { declaration = { { "old", "host", "the old one" } }, files = { folder .. "/p.yaml" } }
    local ok, err = pcall(given.old.query, given.old, { "true" })
    assert.is_false(ok)
    assert.equal("identity", err.kind)
    assert.matches(("host_key: %s      below `old` in %s/p.yaml, line 1"):format(server.fingerprint, folder), tostring(err), 1, true)
  end)
end)

describe("type", function()
  local kept, written_at = {}, nil

  -- Handles that remember what they were made of: what matters here is what the types hand on.
  local function place_of(name, fields)
    return setmetatable({ name = name, fields = fields }, {
      __tostring = function() return name end,
      __index = {
        dir = function(self, path)
          return setmetatable({ place = self, path = path }, { __tostring = function() return name .. ":" .. path end })
        end,
        with = function(_, more) return place_of(name, more) end,
      },
    })
  end

  setup(function()
    for name, module in pairs {
      ["runbook.ssh"] = { host = function(o)
        written_at, o.written_at = o.written_at, nil
        return place_of(o[1], o)
      end },
      ["runbook.here"] = place_of("here", {}),
    } do
      kept[name] = package.loaded[name]
      package.loaded[name] = module
    end
  end)

  teardown(function()
    for _, name in ipairs { "runbook.ssh", "runbook.here" } do
      package.loaded[name] = kept[name]
    end
  end)

  it("host is a name or a map of everything ssh can be told", function()
    assert.same({ "nfs-old" }, parse("host", "nfs-old").fields)
    assert.matches("^below `x` in /.*, line 1$", written_at)
    assert.same({ "nfs-old", user = "ubuntu" }, parse("host", "ubuntu@nfs-old").fields)
    assert.same({ "198.51.100.7" }, parse("host", "198.51.100.7").fields)
    local key = "SHA256:" .. ("a"):rep(43)
    assert.same({ "nfs-old", user = "ubuntu", port = 2222, sudo = true, host_key = key, seen_from_target = "10.0.0.1", jump = "gate",
      identity = "/k" }, parse("host", ("{ssh: nfs-old, user: ubuntu, port: 2222, sudo: true, host_key: '%s', seen_from_target: 10.0.0.1, "
      .. "jump: gate, identity: /k}"):format(key)).fields)
    assert.same({ key, "ssh-ed25519 AAAA" }, parse("host", ("{ssh: a, host_key: ['%s', ssh-ed25519 AAAA]}"):format(key)).fields.host_key)
    assert.equal("hub", parse("host", "{host: nfs-old, sudo: hub}").fields.sudo)
    refused("host", "{}", "x.ssh missing")
    refused("host", "{ssh: a, host: b}", "x.host says the same as `ssh`")
    refused("host", "{ssh: a, usr: b}", "x.usr unknown; did you mean `user`?")
    refused("host", "{ssh: a, port: 70000}", "x.port 70000: a port is a number from 1 to 65535")
    refused("host", "{ssh: a, host_key: 'MD5:aa'}", "a fingerprint like SHA256:")
    refused("host", "'-oProxyCommand=x'", "a host is expected")
    refused("host", "{ssh: -oProxyCommand=x}", "a host name")
    refused("host", "a b", "a host is expected")
    refused("host", "[a]", "a host is expected")
    refused("host", "{ssh: a, sudo: 'a b'}", "the name of the user to be")
  end)

  it("place is here, or a host", function()
    assert.equal("here", tostring(parse("place", "here")))
    assert.is_true(parse("place", "{sudo: true}").fields.sudo)
    assert.equal("nfs-old", tostring(parse("place", "{ssh: nfs-old}")))
    assert.equal("here", tostring(parse("host", "here")))
    assert.is_same({ "here" }, parse("host", "here").fields)
  end)

  it("dir is a place and a path", function()
    assert.equal("nfs-old:/export", tostring(parse("dir", "nfs-old:/export")))
    local dir = parse("dir", "ubuntu@nfs-old:/export")
    assert.same({ "nfs-old", user = "ubuntu" }, dir.place.fields)
    assert.equal("here:/export", tostring(parse("dir", "/export")))
    assert.equal("here:/export", tostring(parse("dir", "here:/export")))
    assert.equal("here:" .. os.tmpname():match("^(.*)/") .. "/homes", tostring(parse("dir", "homes")))
    dir = parse("dir", "{ssh: nfs-old, sudo: true, path: /export}")
    assert.same({ "nfs-old", sudo = true }, dir.place.fields)
    assert.equal("here:/srv", tostring(parse("dir", "{path: /srv}")))
    assert.equal("here:" .. os.tmpname():match("^(.*)/") .. "/srv", tostring(parse("dir", "{path: srv}")))
    refused("dir", "{ssh: a}", "x.path missing: the directory")
    refused("dir", "{ssh: a, path: rel}", "x.path \"rel\": the path on a server is absolute")
    refused("dir", "nfs-old:export", "the path on a server is absolute")
    refused("dir", "'-x:/y'", "does not begin with -")
    refused("dir", "''", "a directory like")
    refused("dir", "[a]", "a directory is expected")
  end)

  it("copier is a kind, two ends, and what that kind can be told", function()
    local homes = parse("copier", "{kind: nfs, from: 'old:/srv/homes', to: {ssh: new, path: /srv/prod}, rate: 1 MB/s, exclude: [.cache/]}")
    assert.equal("old:/srv/homes -> new:/srv/prod", tostring(homes))
    assert.equal(1000000, homes.rate)
    assert.equal(4, homes.workers)
    refused("copier", "old:/srv", "x \"old:/srv\": a map is expected")
    refused("copier", "{kind: nsf, from: 'old:/a', to: 'new:/a'}", "x.kind")
    refused("copier", "{kind: nfs, from: 'old:/a', too: 'new:/a'}", "did you mean `to`")
    refused("copier", "{kind: nfs, from: 'old:a', to: 'new:/a'}", "x.from")
  end)

  it("claim is a directory in one, and so may be a dir", function()
    for _, kind in ipairs { "claim", "dir" } do
      local homes = parse(kind, "{context: temple-eks, namespace: prod, claim: home-nfs, path: /homes/prod/}")
      assert.equal("temple-eks/prod/home-nfs:/claim/homes/prod", tostring(homes))
      refused(kind, "{namespace: prod, claim: home-nfs}", "x.context missing")
      refused(kind, "{context: c, claim: home-nfs}", "x.namespace missing")
      refused(kind, "{context: c, namespace: prod, claim: Home}", "a name is small letters")
      refused(kind, "{context: c, namespace: prod, claim: homes, path: a/../b}", "without . and ..")
      refused(kind, "{context: c, namespace: prod, claim: homes, pth: a}", "did you mean `path`")
    end
    refused("claim", "nfs:/homes", "a claim is expected")
    local both = parse("copier", "{kind: same, from: {context: a, namespace: temple, claim: h}, to: {context: b, namespace: prod, claim: h}}")
    assert.equal("a/temple/h:/claim -> b/prod/h:/claim", tostring(both))
    refused("copier", "{kind: same, from: 'nfs:/homes', to: {context: b, namespace: prod, claim: h}}", "x.from")
    both = parse("copier", "{kind: claim, from: {context: a, namespace: temple, claim: h}, to: 'nfs:/homes', rate: 1 MB/s}")
    assert.equal("a/temple/h:/claim -> nfs:/homes", tostring(both))
    refused("copier", "{kind: claim, from: {context: a, namespace: t, claim: h}, to: 'nfs:/homes', route: push}", "x.route unknown")
  end)

  it("names every type there is, and finds each", function()
    for _, name in ipairs { "string", "integer", "number", "boolean", "duration", "size", "rate", "path", "name", "fqdn", "host", "place",
      "dir", "owner", "choice", "list", "map", "file", "secret", "window", "hub", "zone", "claim", "copier", "run" } do
      assert.is_string(types.find(name).help)
    end
    assert.is_nil(types.find "strin")
    for _, name in ipairs(types.names()) do
      assert.is_table(types.find(name))
      assert.is_nil(types.find(name).internal)
    end
  end)
end)
