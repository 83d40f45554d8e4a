-- What needs no cluster: settings, storage, differences and the ledger's rows are functions of plain data.

local differences = require "runbook.hub.differences"
local errors = require "runbook.errors"
local ledger = require "runbook.hub.ledger"
local settings = require "runbook.hub.settings"
local storage = require "runbook.kube.storage"
local writers = require "runbook.hub.writers"

local function raises(kind, words, fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  assert.equal(kind, errors.is(err) and err.kind or tostring(err))
  assert.truthy(err.message:find(words, 1, true), err.message)
  return err
end

-- A hub as the functions see it, without a cluster.
local function hub(name, values, chart)
  local s = {
    values = values or {}, chart = chart, scheme = "safe", base_url = "/", authenticator = "github", database = "sqlite-pvc",
    storage = { kind = "static", claim = "home-nfs", template = "{username}", mount = "/home/jovyan" },
  }
  return { name = name, namespace = name, cluster = name, read = s, settings = function() return s end }
end

describe("a user's directory", function()
  local static = { storage = { kind = "static", template = "prod/{username}" }, scheme = "safe" }

  it("follows template and scheme", function()
    assert.equal("prod/bob---cd9fb1e1", settings.directory(static, { name = "Bob" }, "prod"))
    local old = { storage = { kind = "static", template = "{username}" }, scheme = "escape" }
    assert.equal("-42ob", settings.directory(old, { name = "Bob" }, "prod"))
  end)

  it("is not guessed when nothing says the scheme", function()
    raises("missing", "nothing says how this hub makes directories", settings.directory,
      { storage = { kind = "static", template = "{username}" } }, { name = "Bob" }, "prod")
  end)

  it("is none where each user has a claim", function()
    raises("usage", "claims of their own", settings.directory, { storage = { kind = "dynamic" } }, { name = "Bob" }, "prod")
  end)

  it("lies below what all templates share", function()
    for template, prefix in pairs { ["prod/{username}"] = "prod", ["{username}"] = "", ["a/b/x-{username}"] = "a/b", ["/a/{username}/home"] = "a" } do
      assert.equal(prefix, settings.prefix(template))
    end
  end)
end)

describe("storage", function()
  it("is the same by whatever driver it is mounted", function()
    local inline = storage.of_source({ nfs = { server = "10.0.0.7", path = "/export/homes/" } }, "v")
    local csi = storage.of_source({ csi = { driver = "nfs.csi.k8s.io", volumeHandle = "x",
      volumeAttributes = { server = "10.0.0.7", share = "/export", subDir = "homes" } } }, "v")
    assert.same(inline, csi)
    assert.equal("10.0.0.7:/export/homes", storage.words(inline))
  end)

  it("overlaps when one directory is the other, or holds it", function()
    local function at(path, root)
      return { root = root or "nfs a", path = path }
    end
    assert.is_true(storage.overlap(at "/e/prod", at "/e/prod"))
    assert.is_true(storage.overlap(at "/e", at "/e/prod"))
    assert.is_true(storage.overlap(at "/e/prod", at "/"))
    assert.is_false(storage.overlap(at "/e/prod", at "/e/prod2"))
    assert.is_false(storage.overlap(at "/e/prod", at("/e/prod", "nfs b")))
  end)

  it("of a driver nobody knows is a volume of its own", function()
    local a = storage.of_source({ csi = { driver = "x.io", volumeHandle = "1" } }, "v")
    local b = storage.of_source({ csi = { driver = "x.io", volumeHandle = "2" } }, "v")
    assert.is_false(storage.overlap(a, b))
  end)
end)

describe("two hubs", function()
  it("are compared value by value, and no secret is shown", function()
    local lines = differences.of_values(
      { singleuser = { memory = { limit = "2G" }, list = { 1, 2 } }, hub = { config = { GitHubOAuthenticator = { client_secret = "s3cret" } } },
        Release = { Name = "a" } },
      { singleuser = { memory = { limit = "4G" }, list = { 2, 1 } }, hub = { config = { GitHubOAuthenticator = { client_secret = "other" } } },
        Release = { Name = "b" } })
    assert.equal(3, #lines)
    assert.truthy(lines[1]:find "^hub.config.GitHubOAuthenticator.client_secret: «%x+», then «%x+»$")
    assert.equal("singleuser.list: [1,2], then [2,1]", lines[2])
    assert.equal("singleuser.memory.limit: 2G, then 4G", lines[3])
  end)

  it("differ in ways that are only to know", function()
    local know = differences.hubs(hub("old", { cull = { timeout = 3600 } }, "3.3.8"), hub("new", { cull = { timeout = 7200 } }, "4.1.0"))
    assert.equal("chart 3.3.8, then 4.1.0", know[1])
    assert.equal("new hub differs:\ncull.timeout: 3600, then 7200", know[2])
  end)

  it("may not differ in how people log in or find their homes", function()
    local old, new = hub "old", hub "new"
    new.read.authenticator = "google"
    new.read.scheme = "escape"
    local err = raises("conflict", "authenticator: github, then google", differences.hubs, old, new)
    assert.truthy(err.message:find("slug scheme: safe, then escape", 1, true))
  end)

  it("give every user a directory of the same name, or the users are named", function()
    local old, new = hub "old", hub "new"
    old.read.scheme = "escape"
    local users = { { name = "ann" }, { name = "alice-b" } }
    local err = raises("conflict", "1 user of 2 would find another, empty home:\nalice-b: alice-2db, then alice-b",
      writers.same_directories, old, new, users)
    assert.truthy(err.hint:find("slug_scheme: escape", 1, true))
    new.read.scheme = "escape"
    assert.is_nil(writers.same_directories(old, new, users))
  end)

  it("may have been swapped", function()
    local old, new = hub "old", hub "new"
    raises("conflict", "did you swap old and new?", differences.direction, { hub = old, users = 1, servers = 0 },
      { hub = new, users = 841, servers = 31 })
    differences.direction({ hub = old, users = 841, servers = 31 }, { hub = new, users = 1, servers = 0 })
    raises("conflict", "old and new are one hub", differences.direction, { hub = old, users = 2, servers = 0 },
      { hub = old, users = 2, servers = 0 })
  end)
end)

describe("the ledger", function()
  local function facts(change)
    local f = {
      users = { { name = "ann", directory = "ann" }, { name = "Bob", directory = "-42ob" }, { name = "new", directory = "new" } },
      homes = { ann = true, ["-42ob"] = true, _shared = true },
      receipts = { ann = "hashed", ["-42ob"] = "scanned", _shared = "hashed" },
      names = { { name = "hub.example", good = true, leads_to = "leads to old" } }, secrets = {}, prometheus = "none",
    }
    for key, value in pairs(change or {}) do
      f[key] = value
    end
    return f
  end

  local function open(rows)
    local list = {}
    for _, row in ipairs(rows) do
      if row.state == "open" then
        list[#list + 1] = row.kind .. " " .. row.thing
      end
    end
    return list
  end

  it("is closed when every home is proven, names lead somewhere, and secrets are there", function()
    local rows = ledger.classify(facts(), {})
    assert.same({}, open(rows))
    assert.same({ kind = "home", thing = "_shared", state = "known", why = "no user of the database has it; hashed" }, rows[4])
    assert.equal("has no home yet", rows[3].why)
  end)

  it("is open for a home that was only sent, or never", function()
    assert.same({ "user ann", "user Bob" }, open(ledger.classify(facts { receipts = { ann = "sent" } }, {})))
  end)

  it("is open for names, secrets and Prometheus", function()
    local rows = ledger.classify(facts { names = { { name = "hub.example", good = false, leads_to = "nobody knows this name" } },
      secrets = { "hub.config.CryptKeeper.keys" }, prometheus = "behind" }, {})
    assert.same({ "name hub.example", "secret hub.config.CryptKeeper.keys", "prometheus prometheus" }, open(rows))
  end)

  it("leaves what a person says may stay, with the reason", function()
    local rows = ledger.classify(facts { prometheus = "behind", receipts = { ["-42ob"] = "hashed" } },
      { prometheus = "the history stays", ann = "has left the university" })
    assert.same({}, open(rows))
    assert.same({ kind = "user", thing = "ann", state = "left", why = "has left the university" }, rows[1])
  end)
end)
