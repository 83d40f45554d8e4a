--- The copier for home directories on two servers that are reached by ssh (NFS servers, mostly); see runbook.sync.
---
--- Our own program at both ends does the work (copier/mover.lua, copier/shards.lua), by supervised jobs on the way that
--- copier/route.lua finds; where a machine does not run it, rsync and find do (copier/plain.lua). A top-level directory is a unit,
--- the loose files beside them are one (copier/pass.lua). The source is only ever read, but for the key of a pass in its
--- authorized_keys and our program in its /var/tmp.

local dir = require "runbook.place.dir"
local effect = require "runbook.effect"
local ends = require "runbook.copier.ends"
local errors = require "runbook.errors"
local events = require "runbook.events"
local options = require "runbook.options"
local outlook = require "runbook.copier.outlook"
local pass = require "runbook.copier.pass"
local patterns = require "runbook.copier.patterns"
local proof = require "runbook.copier.proof"
local record = require "runbook.copier.record"
local route = require "runbook.copier.route"
local task = require "runbook.task"
local time = require "runbook.core.time"
local units = require "runbook.units"
require "runbook.ssh" -- it says who a place is, also of those that are none of its own

local nfs = {}

local MOST_PASSES = 12
local LOOK_KEPT = 300 -- seconds that checks share what they saw

---@class runbook.Copier
---@field from runbook.Dir
---@field to runbook.Dir
local Pair = {}
local pair_mt = { __name = "runbook.copier.nfs", __index = Pair }

function pair_mt.__tostring(self)
  return self.id
end

--- As a parameter of type `copier`.
nfs.FIELDS = {
  { "from", "dir", "the directory as it is: server and path" },
  { "to", "dir", "where its contents go: server and path" },
  { "owner", "owner", "`keep`, or one uid:gid for every file", default = "keep" },
  { "exclude", "list", "patterns of what is not copied, as seen from inside a home", default = {} },
  { "rate", "rate", "most bytes a second while people work; the final pass has no limit", optional = true },
  { "workers", "integer", "connections at a time, at most", optional = true },
  { "engine", "choice", "by itself our own program, where both ends run it", choices = { "mover", "rsync" }, optional = true },
  { "route", "choice", "by itself the first of these that works", choices = { "pull", "push", "operator" }, optional = true },
  { "most_removed", "number", "percent of the target that a final pass may remove", optional = true },
}

local check_pair = options.declare("sync.pair", {
  from = { "table", "the directory as it is: a place's `dir`" },
  to = { "table", "where its contents go" },
  units = { "string", "what is copied and proven by itself", choices = { "children" }, default = "children" },
  owner = { "string", "`keep`, or one uid:gid for every file", default = "keep" },
  exclude = { "list", "patterns of what is not copied, as seen from inside a unit", default = {} },
  rate = { "number", "most bytes a second while people work", optional = true },
  workers = { "integer", "connections at a time, at most: how many it takes is found out", default = 4 },
  engine = { "string", "by itself our own program, where both ends run it", choices = { "mover", "rsync" }, optional = true },
  route = { "string", "by itself the first of these that works", choices = { "pull", "push", "operator" }, optional = true },
  most_removed = { "number", "percent of the target that a final pass may remove", default = 25 },
})

-- The source is only ever read, but by the way back; where its place is made for us, it is made so.
local function only_read(from)
  local backend = dir.is(from) and from.place.backend
  return backend and backend.only_read and backend:only_read():dir(from.path) or from
end

--- See sync.pair.
---@param o table  from, to, units, owner, exclude, rate, workers
---@param level integer
---@return runbook.Copier
function nfs.new(o, level)
  o = check_pair(o, level + 1)
  o.route_wanted, o.route = o.route, nil -- `route` is what finds it
  o.source, o.from = o.from, only_read(o.from)
  local self = setmetatable(o, pair_mt)
  self.id = ("%s -> %s"):format(tostring(o.from), tostring(o.to))
  if type(o.owner) == "string" and o.owner:sub(1, 1) ~= "<" then -- not while it is a placeholder
    ends.check_owner(o.owner, level + 1)
  end
  patterns.check(o.exclude, level + 1)
  if o.workers < 1 or o.workers > 16 then
    errors.raise({ kind = "usage", message = "sync.pair: workers is a number from 1 to 16" }, level + 1)
  end
  return self
end

-- What the checks share. Several ask at once; the first one looks.
function Pair:look()
  while self.looking do
    task.sleep(0.05)
  end
  if self.seen and time.now() - self.seen_at < LOOK_KEPT then
    return self.seen
  end
  self.looking = true
  local ok, look = xpcall(pass.look, errors.handler, self, true)
  self.looking = nil
  if not ok then
    error(look, 0)
  end
  self.seen, self.seen_at = look, time.now()
  return look
end

-- The way the data goes; found once for a look.
function Pair:route(look)
  while look.routing do
    task.sleep(0.05)
  end
  if not look.route then
    look.routing = true
    local ok, found = xpcall(route.find, errors.handler, self, look.from, look.to, look.engine.routes)
    look.routing = nil
    if not ok then
      error(found, 0)
    end
    look.route = found
  end
  return look.route
end

--- Names of the units at the source, as they are now.
---@async
---@return string[]
function Pair:units_now()
  return pass.ends(self).from.names
end

--- Checks for rb.checks: titles and functions that read.
---@return table[]
function Pair:checks()
  return require("runbook.copier.preflight").checks(self)
end

--- What `bulk` of every copier takes.
nfs.check_bulk = options.declare("copier:bulk", {
  first = { "list", "names of units that come before the others", optional = true },
  without = { "list", "names of units that are left for a later pass", optional = true },
})

--- A pass over everything, while people work. May be repeated; what is there already is not sent again.
---@async
---@param o? { first?: string[], without?: string[] }
function Pair:bulk(o)
  pass.run(self, "bulk", nfs.check_bulk(o, 2))
end

local function window_seconds(value, level)
  if type(value) == "string" then
    local n, message = units.parse_duration(value)
    if not n then
      errors.raise({ kind = "usage", message = message }, level + 1)
    end
    return n
  elseif type(value) == "table" then
    return value.lasts
  end
  return value
end

local check_converge = options.declare("copier:converge", { within = { "any", "a duration, or a window" } })

--- Passes until the last one was so short that what is left fits. At least one; it gives up when they get no shorter.
---@async
---@param o { within: number|string|table }
function Pair:converge(o)
  local within = window_seconds(check_converge(o, 2).within, 2)
  local before
  for _ = 1, MOST_PASSES do
    local row = pass.run(self, "converge", {})
    if effect.planning() then
      return
    end
    local f = outlook.forecast(self)
    events.notice(("pass %d: %s in %s files, %s; what is left: %s"):format(row.number, units.size(row.bytes), units.count(row.files),
      units.duration(row.seconds), f.text))
    if f.high <= within then
      return
    elseif before and row.seconds > before * 0.9 then
      errors.raise {
        kind = "timeout", code = "ECONVERGE",
        message = ("the passes get no shorter: %s, then %s; left: %s, for %s"):format(units.duration(before),
          units.duration(row.seconds), f.text, units.duration(within)),
        hint = "a longer window, a higher rate, or fewer files: exclude what can be made again",
      }
    end
    before = row.seconds
  end
  errors.raise { kind = "timeout", code = "ECONVERGE", message = ("%d passes, and what is left does not fit yet"):format(MOST_PASSES) }
end

--- Seconds that final pass and proof will take, from measured passes.
---@async
---@return { seconds: number, low: number, high: number, text: string }
function Pair:forecast()
  return outlook.forecast(self)
end

local check_must_fit = options.declare("copier:must_fit", {
  quiet = { "duration", "how long nothing may change before the final pass: people wait for that, too", optional = true },
})

--- Raises with the figures unless the rest fits.
---@async
---@param window number|string|table  a duration, or a window
---@param o? { quiet?: number|string }  what `must_be_quiet` will be asked for
function Pair:must_fit(window, o)
  self.window, self.still = window, check_must_fit(o, 2).quiet
  outlook.must_fit(self, window_seconds(window, 2), self.still)
end

--- Rows for the question before people are locked out.
---@async
---@return string[][]
function Pair:impact()
  local window = self.window
  return outlook.impact(self, window and window_seconds(window, 2), type(window) == "table" and window.starts or nil,
    self.still)
end

--- Raises, with the names, unless nothing changes at the source: for so long from now, or, without a time, since the last pass.
---@async
---@param seconds? number|string
function Pair:must_be_quiet(seconds)
  proof.must_be_quiet(self, window_seconds(seconds, 2))
end

--- The pass once nobody writes: all that is left is sent, what was removed is removed, vanished homes are set aside.
---@async
function Pair:final()
  pass.run(self, "final", {})
end

--- Look at both ends; a receipt for each unit where they are the same, an error where they are not.
---@async
function Pair:verify()
  proof.verify(self)
end

--- The proof, for files and people.
---@async
---@return table
function Pair:receipts()
  return proof.receipts(self)
end

--- What is known of one unit on the target; nil when it was never sent.
---@async
---@param unit string
---@return { level: "sent"|"scanned"|"hashed"|"left", entries: integer, bytes: integer, at: string }?
function Pair:receipt(unit)
  return record.receipts(self)[unit]
end

--- Names of units that are on the target not what their receipts say, and of homes that are new there: work of people.
---@async
---@return string[]
function Pair:changed_since_receipts()
  return proof.changed_on_target(self)
end

--- Raises, with the homes, when the target is not what its receipts say: somebody has worked there.
---@async
function Pair:must_be_unchanged_since_receipts()
  proof.must_be_unchanged(self)
end

-- The way that was asked for, with the connection opened by the same end as before.
local OTHER_WAY = { pull = "push", push = "pull", operator = "operator" }

-- The pair the other way round. An owner that was mapped cannot be known any more, so a home gets the one it has at the source.
local function reversed(self)
  local other = setmetatable({
    from = only_read(self.to), to = self.source, owner = "keep", exclude = self.exclude, workers = self.workers, units = self.units,
    engine = self.engine, runs = self.runs, route_wanted = self.runs and OTHER_WAY[self.route_wanted] or nil,
  }, pair_mt)
  other.id = ("%s -> %s"):format(tostring(other.from), tostring(other.to))
  return other
end

--- Copy the homes that changed on the target since their receipts back to the source. Nothing is removed there, and a home
--- that changed on both sides stops it. What was cut goes on when it is called again.
---@async
function Pair:back()
  if self.owner ~= "keep" and #self:changed_since_receipts() > 0 then
    errors.raise {
      kind = "usage", code = "EOWNER",
      message = ("owners were mapped to %s; what they were is known at the source only"):format(self.owner),
      hint = "copy back by hand with the owner each home has there: rsync -aHAXS --numeric-ids --chown=UID:GID",
    }
  end
  require("runbook.copier.back").run(self, reversed(self))
end

--- Give the source another name, once nobody needs it: whatever still uses it is noticed, and it can be given back.
---@async
---@return runbook.Dir?  nil: all of a claim has no other name
function Pair:set_aside()
  local of = require("runbook.kube.claim").of(self.source)
  if of and of.path == "" then
    events.notice(("%s is all of its claim and keeps its name; once nobody misses it: %s"):format(tostring(self.source),
      of.cluster:by_hand { "-n", of.namespace, "delete", "pvc", of.claim }))
    return nil
  end
  return self.source:rename(("%s.retired-%s"):format(self.from.path:match "[^/]+$", os.date("!%Y-%m-%d", math.floor(time.utc()))))
end

return nfs
