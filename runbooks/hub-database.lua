--- Give a hub the users, groups, admins and tokens of another.
---
---     runbook run hub-database.lua --params hubs/temple-database.yaml
---
--- Replaces "Transfer the database" (section 5) of "Move a hub across clusters", for itself: a hub that is rebuilt, or whose users
--- have been added by hand. The document copies under running hubs, which is neither a whole copy nor one that survives.
---
--- Before:    both hubs are of JupyterHub with sqlite on a claim; the new one is not older.
--- After:     everybody of the old hub is known to the new one, tokens work, and what authenticators keep can be read.
---            `database: copy`: the new hub has what the old one has, and nothing else; were something lost by it, `plan` says so and
---            stops, unless `lose: true`. `merge`: it has what either had; who has one name on both is one user.
--- Half-way:  the old hub is only read. `runbook rollback` puts the new hub's own database and keys back.
--- Asks you:  at `stop`, when the new hub is taken down for about a minute.

local rb = require "runbook"
local hub = require "runbook.hub"

local p = rb.params {
  { "old",      "hub",     "the hub whose users are wanted" },
  { "new",      "hub",     "the hub that gets them" },
  { "database", "choice",  "`copy`: in place of what the new hub has; `merge`: beside it", choices = { "copy", "merge" } },
  { "lose",     "boolean", "users that only the new hub has are lost", default = false },
}

rb.checks("preflight", "Look at both hubs before anything is changed", p.old:checks(), p.new:checks(), {
  { "the new hub is configured like the old one", function() return hub.differences(p.old, p.new) end },
  { "users, groups, admins and tokens", function() return hub.database_evidence(p.old, p.new, p.database, { lose = p.lose }) end },
  { "every user has the same directory name on both", function() return hub.same_directories(p.old, p.new) end },
})

-- Without CryptKeeper's keys nobody can read what authenticators keep in the database.
rb.step("carry-secrets", "Give the new hub the old one's keys and certificate", function()
  hub.carry_secrets(p.old, p.new)
end)

local saved = rb.step("save", "Take a consistent copy of the old hub's database", function()
  return p.old:save_database()
end)

rb.step("stop", "Stop the new hub", { disrupts = function() return p.new:impact() end }, function()
  p.new:stop_servers()
  p.new:stop_hub()
end)

rb.step("install", "Give the new hub its users", function()
  p.new:install_database { from = saved, merge = p.database == "merge", lose = p.lose }
end)

rb.step("start", "Start the new hub", { verify = function() p.new:must_be_healthy() end }, function()
  p.new:start_hub()
end)
