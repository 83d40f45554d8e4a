--- Copying a tree from one place to another, in passes, with proof.
---
---     local homes = sync.pair { from = p.from, to = p.to, owner = "keep", rate = p.rate }
---     homes:bulk()                         -- while people work, as often as wanted
---     homes:converge { within = "2h" }     -- again, until the last pass is short enough
---     homes:final()                        -- once nobody writes
---     homes:verify()                       -- both ends are looked at, and a receipt is kept for each unit
---
--- A pair says once what is copied and how it is compared; every pass uses it. Kinds of copiers are files in
--- lib/runbook/copier/; all have the methods of `sync.METHODS`, and nothing outside knows how they do it.

local errors = require "runbook.errors"
local nearest = require "runbook.nearest"
local options = require "runbook.options"

local sync = {}

--- What every copier can do.
---
---     checks()                 looks at both ends before anything is written; for rb.checks
---     bulk { first =, without = }  a pass over everything while people work; units in `first` before the others, those in
---                              `without` not yet
---     converge { within = }    passes until the forecast of the last one fits
---     forecast()               seconds the rest will take: { seconds, low, high, text }
---     must_fit(window, o?)     raises with the figures when it does not; `quiet` of `o`: that is waited for, too
---     impact()                 rows for the question before people are locked out
---     must_be_quiet(seconds?)  raises when the source still changes; without seconds: changed since the last pass
---     final()                  a pass with nobody writing; what was removed is removed
---     verify()                 looks at both ends, keeps receipts, raises on any difference
---     receipts(), receipt(u)   the proof, as data
---     changed_since_receipts() names of units that are on the target not what their receipts say, or new there
---     must_be_unchanged_since_receipts()   raises when somebody worked on the target since
---     set_aside()              gives the source another name, once nobody needs it any more
---     back()                   copies what changed on the target since its receipt back to the source
sync.METHODS = {
  "checks", "bulk", "converge", "forecast", "must_fit", "impact", "must_be_quiet", "final", "verify", "receipts", "receipt",
  "changed_since_receipts", "must_be_unchanged_since_receipts", "set_aside", "back",
}

sync.KINDS = { "nfs", "same", "claim" }

local check_kind = options.declare("sync.pair", {
  kind = { "string", "what copies: nfs (two servers reached by ssh), claim (homes in a claim), same (one storage)", default = "nfs" },
})

--- What makes copiers of this kind, and the FIELDS it has as a parameter.
---@param kind string  one of `sync.KINDS`
---@return table
function sync.kind(kind)
  return require("runbook.copier." .. kind)
end

--- Say what is copied, and how it is compared. Nothing is touched: a runbook may call it while it loads.
---@param o table  kind, and what that kind of copier takes; see lib/runbook/copier/nfs.lua
---@return runbook.Copier
function sync.pair(o)
  if type(o) ~= "table" then
    errors.raise({ kind = "usage", message = "sync.pair takes a table: { from = …, to = … }" }, 2)
  end
  local kind, rest = check_kind({ kind = o.kind }, 2).kind, {}
  for key, value in pairs(o) do
    if key ~= "kind" then
      rest[key] = value
    end
  end
  local found, copier = pcall(sync.kind, kind)
  if not found then
    local near = nearest(kind, sync.KINDS)
    errors.raise({
      kind = "usage", message = ("sync.pair: there is no copier `%s`%s"):format(kind, near and "; did you mean `" .. near .. "`?" or ""),
    }, 2)
  end
  return copier.new(rest, 2)
end

return sync
