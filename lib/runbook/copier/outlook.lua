--- How long the rest will take, from what the passes took; and the rows of the question that depends on it.

local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local record = require "runbook.copier.record"
local time = require "runbook.core.time"
local units = require "runbook.units"

local outlook = {}

local SPREAD = 0.2 -- of what was measured, at least

-- Passes after the first one show what a pass over little costs. One alone is all there is to go by, and it was longer.
local function measured(passes)
  local list = {}
  for _, row in ipairs(passes) do
    if row.kind == "converge" or row.kind == "final" then
      list[#list + 1] = row
    end
  end
  if #list == 0 then
    list[1] = passes[#passes]
  end
  return list
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
  local list = measured(passes)
  local last = list[#list]
  local before = list[#list - 1]
  -- Both ends are walked at once; the walk of the source by itself is part of each pass.
  local proof = last.scan * 2
  local low = math.min(last.seconds, before and before.seconds or last.seconds) * (1 - SPREAD)
  local high = math.max(last.seconds, before and math.min(before.seconds, last.seconds * 1.5) or last.seconds) * (1 + SPREAD)
  low, high = low + proof * (1 - SPREAD), high + proof * (1 + SPREAD)
  return {
    seconds = last.seconds + proof, low = low, high = high, pass = last.seconds, proof = proof, passes = #passes,
    text = ("final %s, proof %s: %s"):format(units.duration(last.seconds), units.duration(proof), units.range(low, high)),
    ended = last.began, bytes = last.bytes,
  }
end

--- Raises with the figures unless it fits. A plan made before anything was measured has nothing to compare.
---@async
---@param pair table
---@param window number  seconds
function outlook.must_fit(pair, window)
  if effect.planning() and #record.passes(pair) == 0 then
    return
  end
  local f = outlook.forecast(pair)
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
---@return string[][]
function outlook.impact(pair, window, starts)
  local rows = { { "who", ("everyone whose home is in %s, until both ends are proven the same"):format(tostring(pair.from)) } }
  if #record.passes(pair) == 0 then
    rows[2] = { "forecast", "known after the first pass" }
  else
    local f = outlook.forecast(pair)
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
