--- Copy what is in one directory into another, on the same machine or between two, and prove it.
---
---     runbook run copy-directory.lua -p from=nfs-old:/srv/models -p to=nfs-new:/srv/models
---
--- Contents go into contents, with owners, times, links, ACLs and xattrs. The target is empty before, or filled by an earlier
--- run of this; names that are gone from the source since then are removed there. The source is only read.

local rb = require "runbook"
local sync = require "runbook.sync"

local p = rb.params {
  { "from", "dir",  "what is copied: HOST:/PATH, or a path of this machine" },
  { "to",   "dir",  "where it goes" },
  { "rate", "rate", "most bytes a second of the first pass", optional = true },
}

local tree = sync.pair { from = p.from, to = p.to, rate = p.rate }

rb.checks("look", "Look at both ends before anything is written", tree:checks())

rb.step("copy", "Copy it, then what changed meanwhile", function()
  tree:bulk()
  tree:final()
end)

rb.step("verify", "Prove that both ends are the same", function()
  tree:verify()
end)
