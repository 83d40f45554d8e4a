--- The hub's database: users, groups, admins, tokens. Saved as one consistent, checked file, and put into another hub that is
--- stopped, whose own one is kept beside it.
---
--- Both are done where the claim is: in the hub's pod while it runs, else in a pod made for it.

local digest = require "runbook.core.digest"
local effect = require "runbook.effect"
local embed = require "runbook.core.embed"
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

--- The first schema whose tokens JupyterHub still knows: what is older loses them when it is brought up to date.
database.FIRST_WITH_ROLES = "833da8570507"

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

--- Python that is run where the database is; by standard input, as an API server behind a proxy takes no long address.
---@param ... string  files of lib/runbook/hub/database, one after the other
---@return string
local function script(...)
  local parts = {}
  for i, name in ipairs { ... } do
    parts[i] = embed.source(("runbook/hub/database/%s.py"):format(name))
  end
  return table.concat(parts, "\n\n")
end

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
  }, function(place)
    place:run { "python3", "-", FOLDER, stdin = script("claim", "settle") } -- what a killed hub left cannot be read before
    return fn(place)
  end)
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
      local said = json.decode(place:query { "python3", "-", FOLDER .. "/" .. NAME, copy, stdin = script "save" })
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

---@class runbook.hub.Known  what is in a database: lib/runbook/hub/database/look.py
---@field revision string?  nil: there is no database
---@field users { name: string, admin: boolean, keeps_login: boolean }[]
---@field groups { name: string, members: integer, same: string }[]
---@field tokens { user: string, same: string }[]  what is the same on two hubs has the same `same`
---@field others { table: string, rows: integer }[]  tables that are none of JupyterHub's
---@field named_servers integer
---@field bytes integer
---@field free integer  bytes of its file system

--- What a place has as its hub's database.
---@async
---@param place runbook.Place
---@return runbook.hub.Known
function database.look(place)
  return json.decode(place:query { "python3", "-", FOLDER .. "/" .. NAME, stdin = script "look" })
end

--- Raises unless a database of one schema can be taken by a hub of another.
---@param hub string  its name
---@param from string?
---@param to string
function database.must_know_schema(hub, from, to)
  local order = from and database.compare(from, to)
  if order == nil then
    errors.raise { kind = "conflict", code = "ESCHEMA", target = hub,
      message = ("nobody here knows which schema is newer: %s or the hub's %s"):format(from or "none", to),
      hint = "compare the versions of both hubs; this runbook is older than one of them" }
  elseif order > 0 then
    errors.raise { kind = "conflict", code = "ESCHEMA", target = hub,
      message = ("the database (schema %s) is newer than this hub (%s), and JupyterHub cannot go back"):format(from, to),
      hint = "install at least the old hub's version of JupyterHub first" }
  end
end

local function must_lose_nobody(hub, saved, now)
  local known, lost = {}, {}
  for _, row in ipairs(sqlite.query(saved.path, "SELECT name FROM users")) do
    known[row.name] = true
  end
  for _, user in ipairs(now.users or {}) do
    lost[#lost + 1] = not known[user.name] and user.name or nil
  end
  if #lost > 0 then
    errors.raise {
      kind = "conflict", code = "EUSERS", target = hub.name,
      message = ("%s of this hub %s not in the database that replaces its own: %s"):format(human.plural(#lost, "user"),
        #lost == 1 and "is" or "are", table.concat(lost, ", ", 1, math.min(#lost, SHOWN))),
      hint = "are they people? Then merge (`database: merge`). If not: `lose = true`",
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
      place:run { "python3", "-", FOLDER, kept, stdin = script("claim", "put_back") }
    end)
  end,
}

--- Raises unless a saved database fits beside what a hub has, which is kept.
---@param hub runbook.Hub  that gets it
---@param bytes integer  of the saved one
---@param merge boolean
---@param now runbook.hub.Known  what it has
function database.must_have_room(hub, bytes, merge, now)
  bytes = merge and bytes + now.bytes or bytes -- in the claim at the same time
  if bytes > now.free then
    errors.raise {
      kind = "full", code = "ENOSPC", target = hub.name,
      message = ("claim %s has %s free, and %s more are needed beside the database that is kept"):format(CLAIM, human.bytes(now.free),
        human.bytes(bytes)),
      hint = hub.cluster:by_hand { "-n", hub.namespace, "edit", "pvc", CLAIM },
    }
  end
end

local function install_copy(hub, place, o, now)
  database.must_have_room(hub, o.from.bytes, false, now)
  if not o.lose then
    must_lose_nobody(hub, o.from, now)
  end
  local new = NAME .. ".runbook-new"
  place:put(o.from.path, FOLDER .. "/" .. new)
  place:run { "python3", "-", FOLDER, new, o.from.sha256, kept_name(), stdin = script("claim", "install") }
end

-- What came of it, for people.
local function tell_merge(hub, report)
  local function both(name, one, many)
    return ("%s new, %d known before"):format(human.plural(report.added[name] or 0, one, many), report.known[name] or 0)
  end
  events.notice(("%s: %s; %s; %s"):format(hub.name, both("users", "user"), both("groups", "group"), both("api_tokens", "token")))
  for _, line in ipairs(report.said) do
    events.notice(("%s: %s"):format(hub.name, line), "warning")
  end
end

local function install_merged(hub, place, o, now)
  database.must_have_room(hub, o.from.bytes, true, now)
  local other = "/tmp/runbook-" .. NAME
  place:put(o.from.path, other)
  local status, out, err = place:exec { "python3", "-", FOLDER, other, o.from.sha256, kept_name(), stdin = script("claim", "merge") }
  place:run { "rm", "-f", other }
  if status ~= 0 then
    errors.raise {
      kind = "exit", target = hub.name, status = status, stderr = err, tried = "merge the database",
      message = "the databases cannot be merged: " .. (err:match "([^\n]+)%s*$" or "no reason given"), hint = "nothing was changed",
    }
  end
  tell_merge(hub, json.decode(out))
end

local install = effect.verb {
  name = "hub.install_database", class = "change", repeatable = true,
  target = function(hub) return hub.name end,
  summary = function(_, o)
    return (o.merge and "merge the saved database into the hub's" or "put in the saved database") .. "; the hub's own is kept beside it"
  end,
  by_hand = function(hub, o)
    if o.merge then
      return ("add what only the saved database has to %s in claim %s of %s"):format(NAME, CLAIM, hub.namespace)
    end
    return ("put it into claim %s in %s as %s, owned by the hub's user"):format(CLAIM, hub.namespace, NAME)
  end,
  inverse = function(hub) return { "hub.put_back_database", hub, kept_name() } end,
  body = function(hub, o)
    settings.must_be_sqlite(hub)
    must_be_stopped(hub)
    at_claim(hub, function(place)
      local now = database.look(place)
      if now.revision then
        database.must_know_schema(hub.name, o.from.revision, now.revision)
      end
      if o.merge and now.revision then
        install_merged(hub, place, o, now)
      else -- into nothing there is nothing to merge
        install_copy(hub, place, o, now)
      end
    end)
  end,
}

local check_install = options.declare("hub:install_database", {
  from = { "any", "what save_database returned" },
  merge = { "boolean", "into what the hub has, instead of taking its place", default = false },
  lose = { "boolean", "users that only this hub has are lost", default = false },
})

--- Put a saved database into this hub, which is stopped; its own is kept beside it, and comes back with rollback. Refused when
--- its schema is newer than the hub, and, unless it is merged, when users of this hub are not in it.
---
--- What is only true of servers that ran on the old hub is taken out: no server runs here, and the next one is started in this
--- hub's namespace.
---
--- With `merge`, users, groups, roles, services, named servers, shares and kept tokens that only the saved one has come into
--- what the hub has, and what both have by one name is one: a user is an admin when it was one on either, keeps the logins and the
--- browser sessions of the saved one (whose keys are carried), and all groups, roles and tokens of both. Otherwise what the hub
--- has stays, and what differs is said. Servers, pages that are open and OAuth codes stay behind. An older saved database is first
--- brought to this hub's schema, by its own JupyterHub.
---@async
---@param o { from: runbook.hub.Saved, merge?: boolean, lose?: boolean }
function Hub:install_database(o)
  install(self, check_install(o, 2))
end

return database
