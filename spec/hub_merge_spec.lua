-- Databases that a real JupyterHub made, merged: by the scripts that run in a hub's pod, without the pod.

local embed = require "runbook.core.embed"
local json = require "dkjson"
local sqlite = require "runbook.sqlite"
local world = require "spec.world"

-- Two hubs that know each other's people in part, as JupyterHub writes them. $1 the folder.
local MAKE = [[
import datetime, json, sys
from jupyterhub import orm, roles
folder = sys.argv[1]

def hub(name, filler):
    db = orm.new_session_factory(f"sqlite:///{folder}/{name}.sqlite")()
    for role in roles.get_default_roles():
        roles.create_role(db, role)
    for client in "jupyterhub", "jupyterhub-user-carla":
        db.add(orm.OAuthClient(identifier=client, secret="", redirect_uri="", description="JupyterHub"))
    for i in range(filler):     # so that nobody has the same number on both
        db.add(orm.User(name=f"filler-{i}"))
    db.commit()
    return db

def user(db, name, **more):
    one = orm.User(name=name, **more)
    db.add(one)
    db.commit()
    roles.assign_default_roles(db, one)
    return one

def group(db, name, *members):
    one = orm.Group(name=name)
    one.users.extend(members)
    db.add(one)
    return one

def token(who, text, **more):
    who.new_api_token(text, **{"note": "kept", "scopes": ["self"], **more})

a = hub("old", 0)
carla = user(a, "carla", admin=True, encrypted_auth_state=b"\x00locked\xff", created=datetime.datetime(2020, 1, 2))
alice, bob, odd = user(a, "alice@uni.edu"), user(a, "bob"), user(a, "o'neil")
staff = group(a, "staff", carla)
group(a, "course-a", alice, bob)
roles.create_role(a, {"name": "teacher", "description": "reads", "scopes": ["list:users"]})
roles.grant_role(a, bob, "teacher")
roles.grant_role(a, staff, "teacher")
announce = orm.Service(name="announce")
a.add(announce)
a.commit()
token(carla, "token-of-carla")
token(odd, "token-of-o'neil")
token(announce, "token-of-announce", scopes=[])
token(carla, "token-of-server", note="Server at /user/carla/")
token(carla, "token-of-login", client_id="jupyterhub-user-carla", session_id="x")
token(bob, "token-expired-", expires_in=-10)
where = orm.Server(ip="10.0.0.9", port=8888)
a.add_all([
    orm.Spawner(user=carla, name="", server=where, started=datetime.datetime.utcnow(), oauth_client_id="jupyterhub-user-carla",
        state={"pod_name": "jupyter-carla", "namespace": "temple", "dns_name": "x", "pvc_name": "claim-carla"}),
    orm.Spawner(user=bob, name="gpu", state={"pod_name": "p", "namespace": "temple"}, user_options={"profile": "large"})])
a.add(orm.OAuthCode(code="half a login", user=bob, client_id="jupyterhub"))
a.commit()

b = hub("new", 3)
newcomer = user(b, "newcomer")
carla = user(b, "carla", created=datetime.datetime(2024, 1, 2))
group(b, "course-a", newcomer)
b.add(orm.Spawner(user=carla, name="", state={}))
roles.create_role(b, {"name": "teacher", "description": "reads", "scopes": ["list:groups"]})
token(newcomer, "token-of-newcomer")
b.commit()
]]

-- What JupyterHub finds. $1 the database, others: tokens.
local FIND = [[
import json, sys
from jupyterhub import orm
db = orm.new_session_factory(f"sqlite:///{sys.argv[1]}")()
tokens = {text: orm.APIToken.find(db, text) for text in sys.argv[2:]}
print(json.dumps({
    "users": {u.name: {"admin": u.admin, "groups": sorted(g.name for g in u.groups), "roles": sorted(r.name for r in u.roles)}
        for u in db.query(orm.User) if not u.name.startswith("filler")},
    "tokens": {text: (found.user or found.service).name for text, found in tokens.items() if found},
    "group_roles": {g.name: [r.name for r in g.roles] for g in db.query(orm.Group)}}))
]]

-- From JupyterHub 3 to the schema of 5.0. Source: jupyterhub/alembic/versions and orm.py of 5.0.
local TO_5 = [[
ALTER TABLE "groups" ADD COLUMN properties TEXT;
ALTER TABLE services ADD COLUMN from_config BOOLEAN;
ALTER TABLE roles ADD COLUMN managed_by_auth BOOLEAN DEFAULT 0 NOT NULL;
ALTER TABLE user_role_map ADD COLUMN managed_by_auth BOOLEAN DEFAULT 0 NOT NULL;
CREATE TABLE shares (user_id INTEGER, group_id INTEGER, id INTEGER NOT NULL PRIMARY KEY, created_at DATETIME NOT NULL,
  scopes TEXT, expires_at DATETIME, owner_id INTEGER REFERENCES users (id), spawner_id INTEGER REFERENCES spawners (id),
  FOREIGN KEY (user_id) REFERENCES users (id), FOREIGN KEY (group_id) REFERENCES "groups" (id));
UPDATE alembic_version SET version_num = '4621fec11365';
]]

local SHARED = [[
INSERT INTO shares (group_id, created_at, scopes, owner_id, spawner_id)
  SELECT g.id, '2026-01-01', '[]', u.id, s.id FROM "groups" g, users u JOIN spawners s ON s.user_id = u.id
  WHERE g.name = 'course-a' AND u.name = 'bob';
UPDATE "groups" SET properties = '{"room": 7}' WHERE name = 'course-a';
]]

-- Back to the schema of JupyterHub 2, whose tokens had roles and not scopes.
local TO_2 = [[
ALTER TABLE api_tokens DROP COLUMN scopes;
ALTER TABLE oauth_codes DROP COLUMN scopes;
ALTER TABLE oauth_clients DROP COLUMN allowed_scopes;
CREATE TABLE api_token_role_map (api_token_id INTEGER, role_id INTEGER);
INSERT INTO api_token_role_map SELECT t.id, r.id FROM api_tokens t, roles r WHERE r.name = 'token';
UPDATE alembic_version SET version_num = '833da8570507';
]]

describe("the database of a hub, merged into another's", function()
  local root, folder, source

  local function run(script, ...)
    local path = world.folder "script" .. "/script.py"
    world.write(path, script)
    local words = {}
    for i, word in ipairs { ... } do
      words[i] = world.quote(word)
    end
    return world.sh(("PATH=/usr/sbin:/usr/bin:/bin chroot %s /usr/bin/python3 - %s < %s 2>%s/err"):format(root, table.concat(words, " "), path, folder))
  end

  local function script(...)
    local parts = {}
    for i, name in ipairs { ... } do
      parts[i] = embed.source(("runbook/hub/database/%s.py"):format(name))
    end
    return table.concat(parts, "\n\n")
  end

  local function change(name, statements)
    world.write(folder .. "/change.sql", statements)
    world.must(("sqlite3 -bail %s/%s < %s/change.sql"):format(folder, name, folder))
  end

  local function values(sql, name)
    local list = {}
    for i, row in ipairs(sqlite.query(folder .. "/claim/" .. (name or "jupyterhub.sqlite"), sql)) do
      list[i] = row.v
    end
    return list
  end

  local function dump()
    return world.must(("sqlite3 %s/claim/jupyterhub.sqlite .dump"):format(folder))
  end

  -- What a hub's pod would do with it; its report, or its last words.
  local function merge()
    world.must(("cp %s/old.sqlite %s/other.sqlite"):format(folder, folder))
    local sha256 = world.must(("sha256sum %s/other.sqlite"):format(folder)):match "%x+"
    local out, code = run(script("claim", "merge"), "/tmp/claim", "/tmp/other.sqlite", sha256, "kept")
    local err = world.read(folder .. "/err")
    return code == 0 and assert(json.decode(out), out) or nil, err:match "([^\n]*)\n*$"
  end

  setup(function()
    root = world.kube.hub_root()
    folder = root .. "/tmp"
    local _, code = run(MAKE, "/tmp")
    assert(code == 0, world.read(folder .. "/err"))
    source = { old = world.read(folder .. "/old.sqlite"), new = world.read(folder .. "/new.sqlite") }
  end)

  before_each(function()
    world.must(("rm -rf %s/claim && mkdir %s/claim"):format(folder, folder))
    world.write(folder .. "/old.sqlite", source.old)
    world.write(folder .. "/claim/jupyterhub.sqlite", source.new)
    world.must(("chmod 600 %s/claim/jupyterhub.sqlite && chown 1000:1000 %s/claim/jupyterhub.sqlite"):format(folder, folder))
  end)

  it("has the users, groups, roles and tokens of both, by their names", function()
    local report, err = merge()
    assert.is_table(report, err)
    assert.same({ 3, 1 }, { report.added.users, report.known.users })
    assert.same({ "role teacher has other scopes on both; those here stay", "admins on the other hub, and now here: carla" }, report.said)
    local tokens = { "token-of-carla", "token-of-o'neil", "token-of-announce", "token-of-newcomer", "token-of-server", "token-of-login",
      "token-expired-" }
    local out, code = run(FIND, "/tmp/claim/jupyterhub.sqlite", table.unpack(tokens))
    assert.equal(0, code, world.read(folder .. "/err"))
    local found = json.decode(out)
    assert.same({
      carla = { admin = true, groups = { "staff" }, roles = { "admin", "user" } },
      newcomer = { admin = false, groups = { "course-a" }, roles = { "user" } },
      bob = { admin = false, groups = { "course-a" }, roles = { "teacher", "user" } },
      ["alice@uni.edu"] = { admin = false, groups = { "course-a" }, roles = { "user" } },
      ["o'neil"] = { admin = false, groups = {}, roles = { "user" } },
    }, found.users)
    assert.same({ ["token-of-carla"] = "carla", ["token-of-o'neil"] = "o'neil", ["token-of-announce"] = "announce",
      ["token-of-newcomer"] = "newcomer" }, found.tokens)
    assert.same({ staff = { "teacher" }, ["course-a"] = {} }, found.group_roles)
  end)

  it("keeps logins, sessions and named servers, and nothing of servers that ran elsewhere", function()
    assert.is_table(merge())
    assert.same({ "\0locked\255" }, values "SELECT CAST(encrypted_auth_state AS TEXT) v FROM users WHERE name = 'carla'")
    assert.same({ "2020-01-02 00:00:00.000000" }, values "SELECT created v FROM users WHERE name = 'carla'")
    world.must(("cp %s/old.sqlite %s/claim/before"):format(folder, folder))
    assert.same(values("SELECT cookie_id v FROM users WHERE name = 'carla'", "before"),
      values "SELECT cookie_id v FROM users WHERE name = 'carla'")
    assert.same({ "gpu|{}", '|{"pvc_name": "claim-carla"}' }, values [[
      SELECT s.name || '|' || s.state v FROM spawners s JOIN users u ON u.id = s.user_id WHERE u.name IN ('carla', 'bob') ORDER BY 1]])
    assert.same({ '{"profile": "large"}' }, values "SELECT user_options v FROM spawners WHERE name = 'gpu'")
    assert.same({}, values "SELECT id v FROM servers UNION SELECT server_id FROM spawners WHERE server_id IS NOT NULL")
    assert.same({}, values "SELECT id v FROM oauth_codes")
  end)

  it("is whole, is the old one's in mode and owner, and leaves that beside it", function()
    assert.is_table(merge())
    assert.same({}, sqlite.integrity(folder .. "/claim/jupyterhub.sqlite"))
    assert.equal("600 1000:1000\n", world.must(("stat -c '%%a %%u:%%g' %s/claim/jupyterhub.sqlite"):format(folder)) .. "\n")
    assert.equal(source.new, world.read(folder .. "/claim/kept"))
    assert.equal("jupyterhub.sqlite\nkept", world.must(("ls %s/claim"):format(folder)))
  end)

  it("is the same when it is merged twice, and what was kept stays the first", function()
    assert.is_table(merge())
    local once = dump()
    local report = merge()
    assert.same({ 0, 4, 0 }, { report.added.users, report.known.users, report.added.api_tokens })
    assert.equal(once, dump())
    assert.equal(source.new, world.read(folder .. "/claim/kept"))
  end)

  it("is brought to this hub's schema before, by this hub's JupyterHub", function()
    change("old.sqlite", TO_2)
    local report, err = merge()
    assert.is_table(report, err)
    assert.equal(3, report.added.api_tokens)
    assert.same({ "651f5419b74d" }, values "SELECT version_num v FROM alembic_version")
    assert.same({ 3 }, values "SELECT count(*) v FROM api_tokens WHERE note = 'kept' AND scopes LIKE '%inherit%'")
  end)

  it("takes shares and properties of groups along where the schema has them", function()
    change("old.sqlite", TO_5 .. SHARED)
    change("claim/jupyterhub.sqlite", TO_5)
    local report, err = merge()
    assert.is_table(report, err)
    assert.same({ "bob course-a gpu" }, values [[SELECT u.name || ' ' || g.name || ' ' || p.name v FROM shares s JOIN users u ON u.id = s.owner_id
      JOIN "groups" g ON g.id = s.group_id JOIN spawners p ON p.id = s.spawner_id]])
    assert.same({ '{"room": 7}' }, values [[SELECT properties v FROM "groups" WHERE name = 'course-a']])
    change("claim/jupyterhub.sqlite", [[UPDATE "groups" SET properties = '{"room": 8}' WHERE name = 'course-a']])
    report = merge()
    assert.equal("group course-a has other properties on both; those here stay", report.said[2])
    assert.same({ '{"room": 8}' }, values [[SELECT properties v FROM "groups" WHERE name = 'course-a']])
  end)

  it("does not come about where rows would be lost, or the other one cannot be brought to the schema", function()
    change("old.sqlite", "CREATE TABLE users_info (id INTEGER, password BLOB); INSERT INTO users_info VALUES (1, 'x')")
    local before = dump()
    local report, err = merge()
    assert.same({ nil, "table users_info holds 1 row, and nobody here knows how to merge them" }, { report, err })
    world.write(folder .. "/old.sqlite", source.old)
    change("old.sqlite", "UPDATE alembic_version SET version_num = 'ffffffffffff'")
    report, err = merge()
    assert.is_nil(report)
    assert.equal("this hub's JupyterHub cannot bring the schema ffffffffffff to 651f5419b74d: Can't locate revision identified by 'ffffffffffff'",
      err)
    assert.equal(before, dump())
    assert.equal("", world.must(("ls %s/claim | grep -v -e '^jupyterhub.sqlite$' -e runbook-new || true"):format(folder)))
  end)

  it("takes what a hub that was killed left half-way for what it is", function()
    -- a journal is hot when the pages of its transaction are in the database and nobody holds it any more
    world.write(folder .. "/kill.py", [[
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("pragma cache_size = 1")
db.execute("begin immediate")
db.execute("create table ballast (text)")
db.executemany("insert into ballast values (?)", [("x" * 3000,)] * 200)
os.kill(os.getpid(), 9)
]])
    world.sh(("python3 %s/kill.py %s/claim/jupyterhub.sqlite"):format(folder, folder))
    assert.is_string(world.read(folder .. "/claim/jupyterhub.sqlite-journal"))
    assert.is_table(merge())
    assert.same({}, sqlite.integrity(folder .. "/claim/kept"))
    assert.same({}, values "SELECT name v FROM sqlite_master WHERE name = 'ballast'")
  end)

  it("as a whole copy has nothing of servers that ran elsewhere either", function()
    world.must(("cp %s/old.sqlite %s/claim/new"):format(folder, folder))
    local sha256 = world.must(("sha256sum %s/claim/new"):format(folder)):match "%x+"
    local _, code = run(script("claim", "install"), "/tmp/claim", "new", sha256, "kept")
    assert.equal(0, code, world.read(folder .. "/err"))
    assert.same({ '{"pvc_name": "claim-carla"}', "{}" }, values "SELECT state v FROM spawners WHERE server_id IS NULL ORDER BY name")
    assert.same({}, values "SELECT id v FROM servers")
    _, code = run(script("claim", "put_back"), "/tmp/claim", "kept")
    assert.equal(0, code)
    assert.equal(source.new, world.read(folder .. "/claim/jupyterhub.sqlite"))
  end)

  it("is told by what people made, not by logins and servers", function()
    local out, code = run(script "look", "/tmp/old.sqlite")
    assert.equal(0, code, world.read(folder .. "/err"))
    local known = json.decode(out)
    assert.same({ "carla", true, true }, { known.users[3].name, known.users[3].admin, known.users[3].keeps_login })
    assert.same({ "carla", "o'neil" }, { known.tokens[1].user, known.tokens[2].user })
    assert.same({ "course-a", 2, "staff", 1 }, { known.groups[1].name, known.groups[1].members, known.groups[2].name, known.groups[2].members })
    assert.same({ 2, 2, 1, 0 }, { #known.tokens, #known.groups, known.named_servers, #known.others })
    change("old.sqlite", "CREATE TABLE users_info (id INTEGER); INSERT INTO users_info VALUES (1)")
    known = json.decode((run(script "look", "/tmp/old.sqlite")))
    assert.same({ { table = "users_info", rows = 1 } }, known.others)
  end)
end)
