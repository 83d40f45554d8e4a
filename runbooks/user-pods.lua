--- Stop every user's server of a hub.
---
---     runbook run user-pods.lua --params hubs/temple-pods.yaml
---
--- Replaces "Delete all user pods" (section 6) of "Move a hub across clusters", for maintenance of a hub that stays where it is.
---
--- Before:    the hub is up; people may be working.
--- After:     no user's server runs, and none was lost in the middle of writing; servers may start again, unless `keep_blocked`.
--- Half-way:  no new server starts. `runbook resume` goes on; `runbook rollback` lets servers start again. What was stopped
---            stays stopped until its user starts it.
--- Asks you:  at `stop`.

local rb = require "runbook"
require "runbook.hub"

local p = rb.params {
  { "hub",          "hub",      "the hub: cluster and namespace" },
  { "patience",     "duration", "how long running servers may finish before they are stopped", default = "0m" },
  { "keep_blocked", "boolean",  "let no server start again: `runbook rollback` does, later", default = false },
}

rb.checks("preflight", "Look before anything is changed", p.hub:checks())

rb.step("block", "Let no new server start", function()
  p.hub:block_servers()
end)

-- The document deletes every pod whose line says "jupyter"; other pods have that in their names, too.
rb.step("stop", "Stop every user's server", {
  disrupts = function() return p.hub:impact() end,
  verify = function() p.hub:must_have_no_servers() end,
}, function()
  p.hub:wait_idle { at_most = p.patience }
  p.hub:stop_servers()
end)

rb.step("allow", "Let servers start again", { when = not p.keep_blocked }, function()
  p.hub:unblock_servers()
end)
