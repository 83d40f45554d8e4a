--- How long the rest will take, from what the passes took; and the rows of the question that depends on it.

local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local record = require "runbook.copier.record"
local time = require "runbook.core.time"
local units = require "runbook.units"

local outlook = {}

local SPREAD = 0.2 -- of what was measured, at least
local SLACK = 0.5 -- seconds, either way: a process or a login more, a busy moment
local RECENT = 3 -- looks at both ends that are asked
local FILE_WEIGHT = 64 << 10 -- what a file costs beside its bytes
local LITTLE = 8 << 20 -- up to here a pass is not longer for what it carries

local function median(values)
  local list = table.move(values, 1, #values, 1, {})
  table.sort(list)
  local middle = #list // 2
  return #list % 2 == 1 and list[middle + 1] or (list[middle] + list[middle + 1]) / 2
end

local function look_of(row)
  return row.look or row.scan -- rows of earlier versions hold the walk alone
end

local function amount_of(row)
  return row.bytes + (row.files or 0) * FILE_WEIGHT
end

local function are_alike(a, b)
  local most, least = math.max(a, b), math.min(a, b)
  return most <= LITTLE or most <= 2 * least
end

-- Passes after the first one show what a pass over little costs. One alone is all there is to go by, and it was longer.
local function later(passes)
  local list = table.move(passes, 2, #passes, 1, {})
  return #list > 0 and list or { passes[1] }
end

-- Seconds for both ends to be looked at: that is done to everything each time, so several passes say the same.
local function looks(rows)
  local values = {}
  for i = math.max(1, #rows - RECENT + 1), #rows do
    values[#values + 1] = look_of(rows[i])
  end
  return values
end

-- Seconds a pass takes beside that. The last one says how much there is to carry; those that carried about as much say, too, what
-- that takes. One that found nothing to do did not even begin to write.
local function works(rows)
  local last = rows[#rows]
  local amount, values = amount_of(last), {}
  for _, row in ipairs(rows) do
    local mine = amount_of(row)
    if row == last or are_alike(mine, amount) and (mine > 0) == (amount > 0) then
      values[#values + 1] = math.max(0, row.seconds - look_of(row))
    end
  end
  return values
end

--- What final pass and proof will take. Raises when nothing was measured yet.
---@async
---@param pair table
---@return { seconds: number, low: number, high: number, pass: number, proof: number, text: string, passes: integer }
function outlook.forecast(pair)
  local passes = record.passes(pair)
  if #passes == 0 then
    errors.raise({
      kind = "missing", code = "EFORECAST", message = "no pass was made yet, so nobody knows how long the rest will take",
      hint = "run bulk and converge first",
    }, 2)
  end
  local rows = later(passes)
  local seen, carried, last = looks(rows), works(rows), rows[#rows]
  local look = median(seen)
  local final = look + median(carried)
  local proof = 2 * look -- the proof looks at both ends, too, and then walks the target
  local low = 3 * math.min(table.unpack(seen)) + math.min(table.unpack(carried))
  local high = 3 * math.max(table.unpack(seen)) + math.max(table.unpack(carried))
  low, high = math.max(0, low * (1 - SPREAD) - SLACK), high * (1 + SPREAD) + SLACK
  return {
    seconds = final + proof, low = low, high = high, pass = final, proof = proof, passes = #passes,
    text = ("final %s, proof %s: %s"):format(units.duration(final), units.duration(proof), units.range(low, high)),
    ended = last.began, bytes = last.bytes,
  }
end

-- All that people wait for: when nothing may change before the final pass, that, a look at the source before and after it, and one
-- more after the proof. Where something does change, it begins anew.
local function standstill(pair, quiet)
  local f = outlook.forecast(pair)
  if not quiet or quiet <= 0 then
    return f
  end
  local looks_more = 1.5 * f.proof
  f.low, f.high = f.low + quiet + looks_more, f.high + 2 * quiet + 2 * looks_more
  f.seconds = f.seconds + quiet + looks_more
  f.text = ("quiet %s, final %s, proof %s: %s"):format(units.duration(quiet), units.duration(f.pass), units.duration(f.proof),
    units.range(f.low, f.high))
  return f
end

--- Raises with the figures unless it fits. A plan made before anything was measured has nothing to compare.
---@async
---@param pair table
---@param window number  seconds
---@param quiet? number  seconds that nothing may change before the final pass
function outlook.must_fit(pair, window, quiet)
  if effect.planning() and #record.passes(pair) == 0 then
    return
  end
  local f = standstill(pair, quiet)
  events.emit { type = "forecast", low = f.low, high = f.high, text = f.text, window = window }
  if f.high > window then
    errors.raise({
      kind = "timeout", code = "EWINDOW",
      message = ("what is left may take %s, and the window is %s (%s)"):format(units.duration(f.high), units.duration(window), f.text),
      hint = "let `converge` run again, or choose a longer window",
    }, 2)
  end
end

--- Rows for the question.
---@async
---@param pair table
---@param window? number  seconds
---@param starts? number  when it begins, if that is agreed
---@param quiet? number  seconds that nothing may change before the final pass
---@return string[][]
function outlook.impact(pair, window, starts, quiet)
  local rows = { { "who", ("everyone whose home is in %s, until both ends are proven the same"):format(tostring(pair.from)) } }
  if #record.passes(pair) == 0 then
    rows[2] = { "forecast", "known after the first pass" }
  else
    local f = standstill(pair, quiet)
    rows[1][2] = ("%s: %s"):format(rows[1][2], units.range(f.low, f.high))
    rows[2] = { "forecast", f.text }
    rows[3] = { "", ("from %d passes; the last one sent %s"):format(f.passes, units.size(f.bytes)) }
    if window and starts then
      local by = starts + window - f.high
      rows[4] = { "decide", ("by %s: begun later, it does not fit the window"):format(units.clock(by)) }
    elseif window then
      rows[4] = { "decide", ("begun now, it is over by %s; the window of %s would end %s"):format(units.clock(time.utc() + f.high),
        units.duration(window), units.clock(time.utc() + window)) }
    end
  end
  rows[#rows + 1] = { "back", "start the writers again: the source is only read, nothing is lost" }
  return rows
end

return outlook
