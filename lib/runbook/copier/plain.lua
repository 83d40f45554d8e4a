--- The engine of plain tools: a supervised rsync for each unit, and find to compare. For machines that do not run our program.

local digest = require "runbook.core.digest"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local faults = require "runbook.copier.faults"
local meter = require "runbook.copier.meter"
local record = require "runbook.copier.record"
local route = require "runbook.copier.route"
local rsync = require "runbook.copier.rsync"
local scan = require "runbook.copier.scan"
local task = require "runbook.task"
local time = require "runbook.core.time"
local units = require "runbook.units"

local plain = { name = "rsync", level = "scanned", routes = { pull = true } }

local ROUNDS = 3

--- Count what is at the source.
---@async
---@param pair table
---@param gently boolean
---@return table survey
function plain.look(pair, gently)
  return scan.survey(pair.from, pair.exclude, gently)
end

--- What `look` gave, as the passes go by it.
---@return table survey
function plain.survey(seen)
  return seen
end

--- What is to be known before the first unit.
---@async
---@param p table  the pass
function plain.prepare(p)
  p:note_units()
  p.job = ("pass-%d"):format(p.number)
  if not effect.planning() and p.kind ~= "back" then -- the other engine has to look at what this one does
    p.stamped = digest.hex(digest.random(8))
    record.stamp(p.pair.to, p.stamped, "open")
  end
  p.rate = not p.settled and p.pair.rate and p.pair.rate / p.pair.workers or nil
  p.command = rsync.sender { path = p.pair.from.path, sudo = p.pair.from.place.sudo, gently = not p.settled }
end

-- What stands on the target where a home belongs, and is no directory: a person has to look at it.
local function in_the_way(p)
  local list = {}
  for _, unit in ipairs(p.look.survey.units) do
    list[#list + 1] = p.look.to.loose[unit.name] and unit.name or nil
  end
  return list
end

local function argv_of(p, unit)
  local loose = unit.name == scan.LOOSE
  local base = p.pair.from.path
  local flags = rsync.flags {
    version = math.min(p.look.from.version, p.look.to.version), owner = p.pair.owner, exclude = p.pair.exclude, loose = loose,
    protect = loose and in_the_way(p) or nil, delete = p.delete, force = p.ours, rate = p.rate,
  }
  return p.opened.wrap(rsync.puller {
    tree = p.pair.to.path, unit = unit.name, ours = p.ours, remote = p.opened.remote, flags = flags,
    source = p.opened.remote and p.opened.host .. ":." or loose and base .. "/" or ("%s/%s/"):format(base, unit.name),
  })
end

local function describe_failure(p, unit, err)
  err.target = p.pair.to.place.name
  err.unit = unit.name
  local example = err.message
  if err.what == "full" and p.pair.to.place:space(p.pair.to.path).bytes_free > unit.bytes + (64 << 20) then
    example = example:gsub("No space left on device", "No space left on device, while the disk has room: it is the home's quota", 1)
  end
  err.message = ("%s: %s"):format(meter.shown(unit.name), example)
  return err
end

--- Bring one unit up to date.
---@async
---@param p table
---@param unit table
---@return table row  what was sent
function plain.unit(p, unit)
  local began, mark = time.utc(), time.now()
  local out = rsync.output(function(bytes) p.meter:move(unit, bytes) end)
  p.meter:start(unit)
  local ok, how = xpcall(function()
    local job = p.pair.to.place:job {
      name = p.job, argv = argv_of(p, unit), stdin = p.opened.stdin, again = true,
      about = ("copy %s from %s:%s to %s"):format(meter.shown(unit.name), p.pair.from.place.name, p.pair.from.path, p.pair.to.path),
    }
    local ended = job:wait { on_line = function(line, stream) out:line(line, stream) end }
    local failure = out:failure(ended.status, p.settled)
    if failure and (failure.status ~= rsync.GONE or p.settled) then
      error(describe_failure(p, unit, failure), 0)
    elseif failure then
      events.notice(("%s is gone from the source since it was looked at"):format(meter.shown(unit.name)))
    end
    job:forget()
  end, errors.handler)
  p.meter:finish(unit, ok)
  if not ok then
    error(how, 0)
  end
  local row = {
    bytes = out.stats.bytes or 0, files = out.stats.transferred or 0, created = out.stats.created or 0, deleted = out.stats.deleted or 0,
    vanished = out:vanished(), seconds = time.now() - mark, began = units.timestamp(began),
  }
  record.add_receipt(p.pair, unit.name, "sent", {
    entries = unit.entries, files = unit.files, bytes = unit.bytes, sent = row.bytes, seconds = row.seconds,
  })
  return row
end

--- What an operator would type for a unit.
---@param p table
---@param unit table
---@return string
function plain.by_hand(p, unit)
  local loose, r = unit.name == scan.LOOSE, p.route
  local source = (r.user and r.user .. "@" .. r.host .. ":" or "") .. p.pair.from.path
  return p.pair.to.place:by_hand(rsync.by_hand {
    owner = p.pair.owner, exclude = p.pair.exclude, delete = p.delete, loose = loose,
    source = source .. (loose and "/" or "/" .. unit.name .. "/"),
    target = p.pair.to.path .. (loose and "/" or "/" .. unit.name .. "/"),
  })
end

-- Those whose connection broke come again at the end, when the others are through.
local function carry_all(p, list)
  for round = 1, ROUNDS do
    p:each(list, p.pair.workers)
    local again = {}
    for _, unit in ipairs(list) do
      if p.failures[unit.name] and faults.passes(p.failures[unit.name]) then
        again[#again + 1] = unit
      end
    end
    if #again == 0 or round == ROUNDS then
      return
    end
    events.notice(("%d of %d homes once more: %s"):format(#again, #list, tostring(p.failures[again[1].name])))
    task.sleep(2 * round)
    list = again
  end
end

--- Bring all units up to date; failures are left in `p.failures`.
---@async
---@param p table
---@param list table[]
---@param loose table[]  the loose files, which come last
function plain.carry(p, list, loose)
  p.opened = route.open(p.pair, p:way(), { command = p.command, job = p.job })
  local ok, err = xpcall(function()
    carry_all(p, list)
    carry_all(p, loose)
  end, errors.handler)
  if not ok and errors.is_cancelled(err) then
    error(err, 0) -- what was cancelled does not wait; the key is an obligation
  end
  route.close(p.opened)
  if not ok then
    error(err, 0)
  end
end

--- The pass is over.
---@async
---@param p table  the pass
function plain.finish(p)
  if p.stamped and not next(p.failures) then
    record.stamp(p.pair.to, p.stamped, "closed")
  end
end

local AT_ONCE = 4

local function same(a, b)
  return a.names == b.names and (a.attributes == b.attributes or a.attributes == "none" or b.attributes == "none")
end

-- Both ends of one unit, side by side.
local function fingerprints(pair, unit, exclude)
  local a, b
  task.all {
    function() a = scan.fingerprint(pair.from, unit, { owner = pair.owner, exclude = exclude }) end,
    function() b = scan.fingerprint(pair.to, unit, { owner = "keep", exclude = exclude }) end,
  }
  for _, one in ipairs { { pair.from, a }, { pair.to, b } } do
    if #one[2].problems > 0 then
      errors.raise {
        kind = "refused", code = "EUNREADABLE", target = one[1].place.name,
        message = ("%s: %d names cannot be read: %s"):format(meter.shown(unit), #one[2].problems, one[2].problems[1]),
      }
    end
  end
  return a, b
end

local function describe(name, differences)
  local words = {}
  for i, one in ipairs(differences) do
    words[i] = ("%s (%d): %s"):format(one.kind, one.count, meter.shown(table.concat(one.examples, ", ")))
  end
  return ("%s: %s"):format(meter.shown(name), #words > 0 and table.concat(words, "; ") or "changed while it was compared")
end

local function prove(pair, unit, exclude)
  local a, b = fingerprints(pair, unit, exclude)
  if not same(a, b) then
    local differences = scan.differences(pair.from, pair.to, unit, { owner = pair.owner, exclude = exclude })
    errors.raise { kind = "conflict", code = "EDIFFERENT", target = pair.to.place.name, message = describe(unit, differences) }
  end
  local compared = a.attributes ~= "none" and b.attributes ~= "none"
  record.add_receipt(pair, unit, "scanned", {
    entries = b.entries, files = b.files, bytes = b.bytes, names = b.names, attributes = compared and b.attributes or "none",
    source_names = a.names, source_attributes = a.attributes,
  })
end

--- Compare units at both ends and keep receipts of those that are the same.
---@async
---@param pair table
---@param _ table  look
---@param o { units: string[], exclude_of: fun(unit: string): string[], tell: fun(done: integer) }
---@return table<string, runbook.Error> failures
function plain.verify(pair, _, o)
  local failures, done = {}, 0
  task.each(o.units, { limit = AT_ONCE }, function(unit)
    local ok, err = xpcall(prove, errors.handler, pair, unit, o.exclude_of(unit))
    if not ok and errors.is_cancelled(err) then
      error(err, 0)
    end
    failures[unit] = not ok and err or nil
    done = done + 1
    o.tell(done)
  end)
  return failures
end

--- Units of one side that are not what their receipts say.
---@async
---@param pair table
---@param side "source"|"target"
---@param list string[]  units that are there
---@param receipts table<string, table>
---@return string[] changed
function plain.changed_since_receipts(pair, side, list, receipts)
  local changed = {}
  local dir = side == "source" and pair.from or pair.to
  task.each(list, { limit = AT_ONCE }, function(unit)
    local r = receipts[unit]
    local now = scan.fingerprint(dir, unit, { owner = side == "source" and pair.owner or "keep", exclude = pair.exclude })
    local before = side == "source" and { names = r.source_names, attributes = r.source_attributes } or r
    if not same(before, now) then
      changed[#changed + 1] = unit
    end
  end)
  return changed
end

--- In what a unit differs.
---@async
---@return { kind: string, count: integer, examples: string[] }[]
function plain.differences(pair, unit)
  return scan.differences(pair.from, pair.to, unit, { owner = pair.owner, exclude = pair.exclude })
end

--- What changed at the source after a moment, newest first.
---@async
function plain.changed(pair, mark)
  return scan.changed(pair.from, mark, pair.exclude)
end

return plain
