--- What can go wrong with a unit while its shards are carried, folded into a few kinds, and what that means.

local errors = require "runbook.errors"
local meter = require "runbook.copier.meter"

local faults = {}

-- What the far side's codes mean for people; others are said as the system says them.
local TARGET = {
  ENOSPC = { "full", "No space left on device" }, EDQUOT = { "full", "the quota there is exceeded" },
  EROFS = { "refused", "the target is read-only" }, EACCES = { "refused", "Permission denied on the target" },
  EPERM = { "refused", "Operation not permitted on the target" }, EFBIG = { "full", "a file is too large for the target" },
  ENAMETOOLONG = { "refused", "a name is too long for the target" }, EIO = { "unknown", "Input/output error: the disk or its server" },
}

local SOURCE = {
  EACCES = { "refused", "Permission denied at the source" }, EIO = { "unknown", "Input/output error at the source" },
}

--- Something that went wrong with names of a unit. The worst kind decides what is done.
---@class runbook.copier.Fault
---@field kind string
---@field text string
---@field again boolean  another try may mend it
---@field cut? boolean   nobody knows what was done on the target
---@field later? boolean a later pass puts it right by itself
---@field count? integer names
---@field examples? string[]
---@field error? runbook.Error  of a whole shard

--- A failure that the far side counted, as a fault.
---@param failure runbook.core.manifest.failure
---@return runbook.copier.Fault
function faults.of(failure)
  local f = { count = failure.count, examples = failure.examples, again = false, code = failure.code }
  if failure.status == "changing" then
    f.kind, f.text, f.again, f.later = "busy", "still changing while it is read", true, true
  elseif failure.status == "source" then
    local known = SOURCE[failure.code] or { "unknown", ("cannot be read at the source (%s)"):format(failure.words) }
    f.kind, f.text = known[1], known[2]
  elseif failure.status == "target" then
    local known = TARGET[failure.code] or { "unknown", ("cannot be written on the target (%s)"):format(failure.words) }
    f.kind, f.text = known[1], known[2]
  elseif failure.status == "torn" then -- what is there of it is looked at again, and the rest sent
    f.kind, f.text, f.again, f.cut = "busy", ("parts of large files did not come (%s)"):format(failure.words), true, true
  elseif failure.status == "unkept" then
    f.kind, f.text = "refused", ("the target's file system cannot keep it (%s)"):format(failure.words)
  else
    f.kind, f.text, f.again = "conflict", ("something else stands on the target (%s)"):format(failure.words), true
  end
  return f
end

local PASSING = { lost = true, timeout = true, unreachable = true, busy = true }

--- May another try mend it?
---@param e runbook.Error
---@return boolean
function faults.passes(e)
  return PASSING[e.kind] or false
end

--- A shard that broke: nobody knows what it did.
---@param e runbook.Error
---@return runbook.copier.Fault
function faults.of_shard(e)
  return { error = e, kind = e.kind, again = faults.passes(e), cut = true }
end

local RANK = { full = 5, refused = 4, unknown = 3, conflict = 2, busy = 1 }

local function rank(f)
  return f.error and 6 or RANK[f.kind] or 3
end

--- The worse of two.
---@param a? runbook.copier.Fault
---@param b runbook.copier.Fault
---@return runbook.copier.Fault
function faults.worse(a, b)
  if not a then
    return b
  end
  local worst = rank(a) >= rank(b) and a or b
  worst.cut = a.cut or b.cut
  worst.again = worst.cut and (worst.error == nil or worst.again) or worst.again
  return worst
end

--- In a line.
---@param f runbook.copier.Fault
---@return string
function faults.words(f)
  if f.error then
    return tostring(f.error)
  end
  return f.count and ("%s (%d %s)"):format(f.text, f.count, f.count == 1 and "name" or "names") or f.text
end

--- The error of a unit.
---@async
---@param p table
---@param unit table
---@param f runbook.copier.Fault
---@return runbook.Error
function faults.error_of(p, unit, f)
  local text, example = faults.words(f), f.examples and f.examples[1]
  if f.code == "ENOSPC" and p.pair.to.place:space(p.pair.to.path).bytes_free > unit.bytes + (64 << 20) then
    text = text:gsub("No space left on device", "No space left on device, while the disk has room: it is the home's quota", 1)
  end
  local e = errors.new {
    kind = f.error and f.error.kind or f.kind, code = f.error and f.error.code or f.code or "ESYNC", target = p.pair.to.place.name,
    message = ("%s: %s%s"):format(meter.shown(unit.name), f.error and f.error.message or text,
      example and "\n  " .. meter.shown(example == "" and unit.name or example) or ""),
    stderr = f.error and f.error.stderr, hint = f.hint or f.error and f.error.hint,
  }
  e.unit = unit.name
  return e
end

return faults
