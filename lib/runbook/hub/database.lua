--- The hub's database: users, groups, admins, tokens. Saved as one consistent, checked file, and put into another hub that is
--- stopped, whose own one is kept beside it.
---
--- Both are done where the claim is: in the hub's pod while it runs, else in a pod made for it.

local digest = require "runbook.core.digest"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local file = require "runbook.core.file"
local handle = require "runbook.hub.handle"
local human = require "runbook.human"
local json = require "runbook.json"
local options = require "runbook.options"
local recipe = require "runbook.kube.recipe"
local settings = require "runbook.hub.settings"
local sqlite = require "runbook.sqlite"
local task = require "runbook.core.task"

local Hub = handle.Hub

local database = {}

local CLAIM, FOLDER, NAME = "hub-db-dir", "/srv/jupyterhub", "jupyterhub.sqlite"
local SHOWN = 5

-- JupyterHub's schema, oldest first: 0.5 to 6.0. Source: `down_revision` in jupyterhub/alembic/versions.
local REVISIONS = { "19c0846f6344", "eeb276e51423", "af4cbdb2d13c", "3ec6993fe20c", "1cebaf56856c", "56cc5a70207e", "99a28a4418e1",
  "d68c98b66cd4", "896818069c98", "4dc2d5a8c53c", "833da8570507", "651f5419b74d", "0eee8c825d24", "3c2384c5aae1", "4621fec11365",
  "be8ecf03ddac", "afd65840b69e", "ff1860e38070", "f460b0348206" }

--- Which of two schemas is the newer: negative, 0 or positive as `a` is older than `b`, the same, or newer; nil when either is
--- none of JupyterHub's.
---@param a string
---@param b string
---@return integer?
function database.compare(a, b)
  local position = {}
  for i, revision in ipairs(REVISIONS) do
    position[revision] = i
  end
  if position[a] and position[b] then
    return position[a] - position[b]
  end
end

-- $1 the database, $2 where its copy goes. The backup of SQLite sees one state of it, whoever writes meanwhile.
local SAVE = [[
import hashlib, json, os, sqlite3, sys
source, target = sys.argv[1:3]
if os.path.exists(target):
    os.remove(target)
old = sqlite3.connect("file:" + source + "?mode=ro", uri=True, timeout=30)
new = sqlite3.connect(target)
old.backup(new)
new.execute("pragma journal_mode=delete")
whole = [row[0] for row in new.execute("pragma integrity_check")]
strays = new.execute("pragma foreign_key_check").fetchall()
revision = new.execute("select version_num from alembic_version").fetchone()
users = new.execute("select count(*) from users").fetchone()[0]
new.close()
with open(target, "rb") as file:
    print(json.dumps({"sha256": hashlib.sha256(file.read()).hexdigest(), "bytes": os.path.getsize(target), "whole": whole,
        "strays": len(strays), "revision": revision and revision[0], "users": users}))
]]

-- $1 the folder, $2 the new file in it, $3 its SHA-256, $4 the name the old one keeps. The rename is the one moment of change.
local INSTALL = [[
import hashlib, os, sys
folder, new, sha256, kept = sys.argv[1:5]
os.chdir(folder)
with open(new, "rb+") as file:
    if hashlib.sha256(file.read()).hexdigest() != sha256:
        sys.exit("what arrived is not what was sent")
    os.fsync(file.fileno())
name = "jupyterhub.sqlite"
if os.path.exists(name):
    state = os.stat(name)
    os.chmod(new, state.st_mode & 0o7777)
    if os.geteuid() == 0:
        os.chown(new, state.st_uid, state.st_gid)
    if not os.path.exists(kept):
        os.link(name, kept)
os.rename(new, name)
for side in "-journal", "-wal", "-shm":
    if os.path.exists(name + side):
        os.remove(name + side)
fd = os.open(".", os.O_RDONLY)
os.fsync(fd)
]]

-- $1 the folder, $2 the name the old one was kept under.
local PUT_BACK = [[
import os, sys
folder, kept = sys.argv[1:3]
os.chdir(folder)
if os.path.exists(kept):
    os.rename(kept, "jupyterhub.sqlite")
    fd = os.open(".", os.O_RDONLY)
    os.fsync(fd)
]]

-- Calls fn(place) with the claim in place: in the hub's pod while it runs, else in one made for it, as the hub's user.
local function at_claim(hub, fn)
  local deployment, replicas, own = hub:deployment()
  if replicas > 0 then
    return fn(hub:container())
  end
  hub:wait_stopped()
  local spec = deployment.spec.template.spec
  local security = {}
  for _, context in ipairs { spec.securityContext or {}, own.securityContext or {} } do
    for _, key in ipairs { "runAsUser", "runAsGroup", "fsGroup" } do
      security[key] = context[key] or security[key]
    end
  end
  return recipe.with(hub.cluster, {
    namespace = hub.namespace, purpose = "database", image = own.image, claim = CLAIM, mount = FOLDER, security = security,
    pull_secrets = spec.imagePullSecrets,
  }, fn)
end

-- ---- save ----

local function check_saved(hub, said)
  if #said.whole ~= 1 or said.whole[1] ~= "ok" then
    errors.raise {
      kind = "exit", code = "EINTEGRITY", target = hub.name, message = "its database is damaged: " .. table.concat(said.whole, "; "),
      hint = "mend it first: sqlite3 jupyterhub.sqlite .recover",
    }
  elseif said.strays > 0 then
    events.notice(("%s: %s that belong to nothing in the database; they are copied as they are"):format(hub.name,
      human.plural(said.strays, "row")), "warning")
  end
end

local function local_path(hub)
  local session = task.context().session
  local folder = session and session.journal and session.directory .. "/out" or "."
  effect.own(file.mkdir, folder, { parents = true, mode = tonumber("700", 8) })
  return ("%s/%s.sqlite"):format(folder, hub.namespace)
end

---@class runbook.hub.Saved
---@field path string      of this machine
---@field sha256 string
---@field bytes integer
---@field revision string  of JupyterHub's schema
---@field users integer

local save = effect.verb {
  name = "hub.save_database", class = "change", repeatable = true, inverse = effect.NOT_NEEDED,
  target = function(hub) return hub.name end,
  summary = function() return "take a consistent copy of the database" end,
  by_hand = function(hub)
    return hub.cluster:by_hand { "-n", hub.namespace, "exec", "deploy/hub", "-c", "hub", "--", "sqlite3", NAME, ".backup /tmp/copy.sqlite" }
  end,
  body = function(hub)
    settings.must_be_sqlite(hub)
    return at_claim(hub, function(place)
      local copy, path = "/tmp/runbook-" .. NAME, local_path(hub)
      local said = json.decode(place:query { "python3", "-c", SAVE, FOLDER .. "/" .. NAME, copy })
      check_saved(hub, said)
      place:get(copy, path)
      place:run { "rm", "-f", copy }
      local sha256 = effect.own(digest.sha256_file, path)
      if sha256 ~= said.sha256 then
        errors.raise { kind = "lost", target = hub.name, message = "the copy that arrived is not the one that was made" }
      end
      return { path = path, sha256 = said.sha256, bytes = said.bytes, revision = said.revision, users = said.users }
    end)
  end,
}

--- Take a consistent copy of the database, checked where it is and after it arrived. The hub may run; what people do
--- afterwards is not in it.
---@async
---@return runbook.hub.Saved
function Hub:save_database()
  return save(self)
end

-- ---- install ----

local function must_be_stopped(hub)
  local _, replicas = hub:deployment()
  if replicas > 0 then
    errors.raise {
      kind = "busy", code = "ERUNNING", target = hub.name,
      message = "the hub runs: a database that is replaced under it is lost at its next write", hint = "stop it first: hub:stop_hub()",
    }
  end
end

-- What the hub has now: its schema, and the names of its users.
local function look(place)
  local text = place:query { "python3", "-c", [[
import json, os, sqlite3
name = "/srv/jupyterhub/jupyterhub.sqlite"
if not os.path.exists(name):
    print("{}")
else:
    db = sqlite3.connect("file:" + name + "?mode=ro", uri=True)
    revision = db.execute("select version_num from alembic_version").fetchone()
    print(json.dumps({"revision": revision and revision[0], "users": [row[0] for row in db.execute("select name from users")]}))
]] }
  return json.decode(text)
end

local function must_know_schema(hub, saved, now)
  if now.revision == nil then
    return
  end
  local order = database.compare(saved.revision, now.revision)
  if order == nil then
    errors.raise { kind = "conflict", code = "ESCHEMA", target = hub.name,
      message = ("nobody here knows which schema is newer: %s or the hub's %s"):format(saved.revision, now.revision),
      hint = "compare the versions of both hubs; this runbook is older than one of them" }
  elseif order > 0 then
    errors.raise { kind = "conflict", code = "ESCHEMA", target = hub.name,
      message = ("the database (schema %s) is newer than this hub (%s), and JupyterHub cannot go back"):format(saved.revision,
        now.revision),
      hint = "install at least the old hub's version of JupyterHub first" }
  end
end

local function must_lose_nobody(hub, saved, now)
  local known, lost = {}, {}
  for _, row in ipairs(sqlite.query(saved.path, "SELECT name FROM users")) do
    known[row.name] = true
  end
  for _, name in ipairs(now.users or {}) do
    lost[#lost + 1] = not known[name] and name or nil
  end
  if #lost > 0 then
    errors.raise {
      kind = "conflict", code = "EUSERS", target = hub.name,
      message = ("%s of this hub %s not in the database that replaces its own: %s"):format(human.plural(#lost, "user"),
        #lost == 1 and "is" or "are", table.concat(lost, ", ", 1, math.min(#lost, SHOWN))),
      hint = "are they people? Then add them to the old hub first. If not: `lose = true`",
    }
  end
end

-- The same in every process of a run, and another in another run.
local function kept_name()
  return ("%s.before-%s"):format(NAME, (task.context().run_id or "ad-hoc"):sub(1, 8))
end

effect.verb {
  name = "hub.put_back_database", class = "change", repeatable = true, quiet = true, inverse = effect.NOT_NEEDED,
  target = function(hub) return hub.name end,
  summary = function(_, kept) return "put back the database that was kept as " .. kept end,
  by_hand = function(_, kept) return ("mv %s/%s %s/%s   # in a pod with claim %s"):format(FOLDER, kept, FOLDER, NAME, CLAIM) end,
  body = function(hub, kept)
    must_be_stopped(hub)
    at_claim(hub, function(place)
      place:run { "python3", "-c", PUT_BACK, FOLDER, kept }
    end)
  end,
}

local install = effect.verb {
  name = "hub.install_database", class = "change", repeatable = true,
  target = function(hub) return hub.name end,
  summary = function() return "put in the saved database; the hub's own is kept beside it" end,
  by_hand = function(hub) return ("put it into claim %s in %s as %s, owned by the hub's user"):format(CLAIM, hub.namespace, NAME) end,
  inverse = function(hub) return { "hub.put_back_database", hub, kept_name() } end,
  body = function(hub, o)
    settings.must_be_sqlite(hub)
    must_be_stopped(hub)
    at_claim(hub, function(place)
      local now, new = look(place), FOLDER .. "/" .. NAME .. ".runbook-new"
      must_know_schema(hub, o.from, now)
      if not o.lose then
        must_lose_nobody(hub, o.from, now)
      end
      place:put(o.from.path, new)
      place:run { "python3", "-c", INSTALL, FOLDER, new, o.from.sha256, kept_name() }
    end)
  end,
}

local check_install = options.declare("hub:install_database", {
  from = { "any", "what save_database returned" },
  lose = { "boolean", "users that only this hub has are lost", default = false },
})

--- Put a saved database into this hub, which is stopped; its own is kept beside it, and comes back with rollback. Refused when
--- its schema is newer than the hub, or when users of this hub are not in it.
---@async
---@param o { from: runbook.hub.Saved, lose?: boolean }
function Hub:install_database(o)
  install(self, check_install(o, 2))
end

return database
