-- What copying, merging or leaving a hub's database would lose, by what is in both.

local errors = require "runbook.errors"
local evidence = require "runbook.hub.evidence"

describe("whom a hub lets in by its configuration", function()
  local function doors(chart, config)
    return evidence.doors { chart = chart, values = { hub = { config = config } } }
  end

  it("is everybody before JupyterHub 5, and nobody unnamed since", function()
    assert.is_true(doors("3.3.8", {}).everybody)
    assert.is_false(doors("4.1.0", {}).everybody)
    assert.is_false(doors(nil, {}).everybody)
    assert.is_true(doors("4.1.0", { GitHubOAuthenticator = { allow_all = true } }).everybody)
  end)

  it("are those of its lists, whatever section they are in", function()
    local found = doors("3.3.8", { Authenticator = { admin_users = { "ada" }, allowed_users = { "bob" }, manage_groups = true },
      JupyterHub = { authenticator_class = "github" } })
    assert.same({ everybody = false, named = { ada = true, bob = true }, admins = { ada = true }, rules = {}, groups = true, list = true },
      found)
    assert.is_true(doors("3.3.8", { Authenticator = { admin_users = { "ada" }, allowed_users = {} } }).everybody)
  end)

  it("may be by rules of the authenticator's own", function()
    local found = doors("3.3.8", { GitHubOAuthenticator = { allowed_organizations = { "uni" }, allow_existing_users = true } })
    assert.same({ false, { "allowed_organizations" } }, { found.everybody, found.rules })
  end)
end)

describe("what becomes of a hub's database", function()
  local old, new

  local function known(fields)
    local k = { revision = "651f5419b74d", users = {}, groups = {}, tokens = {}, others = {}, named_servers = 0, bytes = 1, free = 1 }
    for key, value in pairs(fields) do
      k[key] = value
    end
    return k
  end

  before_each(function()
    local doors = evidence.doors { chart = "3.3.8", values = {} }
    old = { name = "temple", doors = doors, known = known { users = { { name = "ada", admin = true }, { name = "bob" } },
      groups = { { name = "staff", members = 1, same = "x" } }, tokens = { { user = "ada", same = "t1" } } } }
    new = { name = "prod", doors = doors, known = known {} }
  end)

  it("is lost by neither copying nor merging into an empty hub", function()
    assert.same({}, evidence.losses("copy", old, new))
    assert.same({}, evidence.losses("merge", old, new))
    assert.same({ "1 admin by the database only (ada)", "1 group with members (staff)", "1 token that somebody made (ada)" },
      evidence.losses("leave", old, new))
  end)

  it("is all that the new one has to itself, when it is copied", function()
    new.known = known { users = { { name = "bob" }, { name = "cleo" } }, groups = { { name = "lab", members = 2, same = "y" },
      { name = "empty", members = 0, same = "z" } }, tokens = { { user = "bob", same = "t2" }, { user = "ada", same = "t1" } } }
    assert.same({ "1 user of prod (cleo)", "1 group of prod (lab)", "1 token of users of prod (bob)" }, evidence.losses("copy", old, new))
    assert.same({}, evidence.losses("merge", old, new))
  end)

  it("is lost with the users whom nothing else lets in, when it is left", function()
    old.doors = evidence.doors { chart = "4.0.0", values = { hub = { config = { Authenticator = { admin_users = { "ada" }, manage_groups = true } } } } }
    old.known.tokens = {}
    assert.same({ "1 user whom nothing but the database lets in (bob)" }, evidence.losses("leave", old, new))
    assert.equal("1 user of temple in the database only: bob", evidence.lines("leave", old, new)[3])
    new.known.users = { { name = "bob" } }
    assert.same({}, evidence.losses("leave", old, new))
  end)

  it("is lost by merging where tables are others' or homes go by numbers", function()
    old.known.others = { { table = "users_info", rows = 3 } }
    old.template = "homes/{userid}"
    assert.same({ "table users_info of temple, which is none of JupyterHub's (3 rows)",
      "every home: homes/{userid} names them by numbers of users, who get others" }, evidence.losses("merge", old, new))
    assert.same({}, evidence.losses("copy", old, new))
  end)

  it("goes by the schemas", function()
    old.known.revision, new.known.revision = "4dc2d5a8c53c", "4621fec11365"
    local text = table.concat(evidence.lines("merge", old, new), "\n")
    assert.truthy(text:find("the database (schema 4dc2d5a8c53c) is older than prod (4621fec11365)", 1, true), text)
    assert.truthy(text:find("tokens do not outlive that", 1, true), text)
    for revision, message in pairs { f460b0348206 = "is newer than this hub", ffffffffffff = "nobody here knows which schema is newer" } do
      old.known.revision = revision
      local ok, err = pcall(evidence.lines, "copy", old, new)
      assert.is_false(ok)
      assert.truthy(errors.is(err, "conflict") and err.message:find(message, 1, true), tostring(err))
      assert.is_table(evidence.lines("leave", old, new))
    end
  end)

  it("costs a login where the keys to it are replaced", function()
    new.known.users = { { name = "bob", keeps_login = true }, { name = "cleo", keeps_login = true } }
    old.known.users[2].keeps_login = true
    local text = table.concat(evidence.lines("merge", old, new), "\n")
    assert.truthy(text:find("by name the same person on both: bob", 1, true), text)
    assert.truthy(text:find("what their authenticator kept are replaced: cleo", 1, true), text)
  end)
end)
