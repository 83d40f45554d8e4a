--- Copy the homes of those who use a hub, before or without everybody else's.
---
---     runbook run active-users.lua --params hubs/temple-active.yaml
---
--- Replaces the script rsync-active-users.py, which "Move a hub across clusters" recommends (section 2): most homes of a hub belong
--- to people who have not come for months, and those of the others are what a first copy is wanted for.
---
--- Before:    the hub is up and people work; the target is empty, or filled by an earlier copy of these homes.
--- After:     the target has the homes of everybody who was on the hub lately, and what belongs to nobody (_shared); and then
---            the others', unless `only`. Nothing is proven yet: `nfs-move.lua` or `move-hub.lua` go on from here.
--- Half-way:  the source is only ever read. `runbook resume` goes on; finished homes are not sent again.
--- Asks you:  nothing. Nobody is disturbed.

local rb = require "runbook"
local human = require "runbook.human"
require "runbook.hub"

local p = rb.params {
  { "hub",    "hub",      "whose users: cluster and namespace" },
  { "homes",  "copier",   "what is copied: kind, from, to" },
  { "within", "duration", "who was on the hub that lately is active", default = "30d" },
  { "only",   "boolean",  "leave the homes of all others for a later copy", default = false },
}

-- A home that is missing is one that its user has yet to get: it stops nobody else's.
rb.checks("preflight", "Look at the hub and both ends before anything is written", p.homes:checks(), {
  { "who has been on the hub lately", function()
    local active, others = p.hub:recently_active { within = p.within }, p.hub:not_recently_active { within = p.within }
    return ("%s of %d, within %s"):format(human.plural(#active, "user"), #active + #others, human.duration(p.within))
  end },
})

rb.step("copy", "Copy the homes of those who were on the hub lately", { again = true }, function()
  local active = p.hub:recently_active { within = p.within }
  local later = p.only and p.hub:not_recently_active { within = p.within } or {}
  p.homes:bulk { first = active, without = later }
  rb.say(("%s of active users came first; %s for a later copy"):format(human.plural(#active, "home"),
    #later == 0 and "none is left" or #later == 1 and "1 is left" or ("%d are left"):format(#later)))
end)
