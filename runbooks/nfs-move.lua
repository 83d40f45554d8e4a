--- Move home directories from one NFS server to another.
---
---     runbook run nfs-move.lua --params hubs/temple-homes.yaml
---
--- Replaces "NFS Servers" (section 2) and the final copy (section 7) of "Move a hub across clusters".
--- It moves homes, not hubs: stopping what writes to them is yours, and it asks for that.
---
--- Before:    both servers answer ssh; the target directory is empty, or filled by an earlier run of this.
--- After:     the target holds what the source holds: every name, byte, owner, mode, time and link.
--- Half-way:  the source is only ever read. `runbook resume` goes on; finished homes are not sent again.
--- Standstill: from `stop-writers` to `verify`. The forecast is shown before you are asked.

local rb = require "runbook"
local sync = require "runbook.sync"

local p = rb.params {
  { "from",     "dir",      "the homes as they are: server and directory" },
  { "to",       "dir",      "where they go: server and directory" },
  { "window",   "duration", "longest time the homes may stand still", default = "2h" },
  { "owner",    "owner",    "`keep`, or one uid:gid for every file", default = "keep" },
  { "exclude",  "list",     "patterns inside a home that are not copied", default = {} },
  { "rate",     "rate",     "most bytes a second while people work; the final pass has no limit", optional = true },
  { "quiet",    "duration", "how long nothing may change at the source before the final pass", default = "1m" },
  { "receipts", "path",     "file for the proof", default = "receipts.json" },
}

-- What is copied and how it is compared is said once; every pass below uses it.
local homes = sync.pair {
  from = p.from, to = p.to, units = "children",
  owner = p.owner, exclude = p.exclude, rate = p.rate,
}

rb.section "While people work"

-- Document, 1: ssh into both as a user who owns the homes. Every check runs; all findings are shown at once.
rb.checks("preflight", "Look at both servers before anything is written", homes:checks(), {
  { "timers on the source (a backup would slow us down)", function()
    local timers = p.from.place:query_sh [[systemctl list-timers --no-legend --no-pager 2>/dev/null || true]]
    return timers ~= "" and timers or nil
  end },
})

-- Document, 2-4: the key pair is made for the copy, lives in memory, and is taken away after each pass.
rb.step("bulk", "Copy every home", function()
  homes:bulk()
end)

rb.step("converge", "Copy again until the last pass is short enough", { fresh = "12h" }, function()
  homes:converge { within = p.window }
end)

rb.section "While the homes stand still"

rb.manual("stop-writers", "Stop everything that writes to the source", {
  text = [[
    Hubs that mount the export, dask and batch workers, sftp, cron jobs on the server, a second
    hub (staging!) on the same export. I look for writes for a while when you say it is done.]],
  guard = function() homes:must_fit(p.window, { quiet = p.quiet }) end,
  disrupts = function() return homes:impact() end,
  verify = function() homes:must_be_quiet(p.quiet) end,
})

rb.step("final", "Copy what changed, remove what was removed", function()
  homes:final()
end)

rb.step("verify", "Prove that both ends are the same", function()
  homes:verify()
  homes:must_be_quiet()
  rb.attach(homes:receipts(), p.receipts)
end)
