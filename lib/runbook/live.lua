--- The living lines at the bottom of a terminal: what runs now, how far it is, how long it will take.

local human = require "runbook.human"
local visible = require "runbook.visible"

local live = {}

local BAR = 31
local UNITS = 3

-- Seconds that are left, or the time it will be over: the copiers know the one or the other.
local function seconds_left(eta, now)
  if eta == nil then
    return nil
  end
  return eta > 1e9 and eta - now or eta
end

--- How much is done, from 0 to 1; bytes say it better than counts.
---@param p table  a progress event
---@return number?
function live.fraction(p)
  local done, total = p.bytes, p.bytes_total
  if not done or not total or total <= 0 then
    done, total = p.done, p.total
  end
  if not done or not total or total <= 0 then
    return nil
  end
  return math.max(0, math.min(1, done / total))
end

local function per_cent(fraction)
  return ("%d %%"):format(math.floor(fraction * 100)) -- never 100 % before it is all
end

local function amounts(p)
  local parts = {}
  if p.bytes and p.bytes_total then
    parts[#parts + 1] = human.bytes_of(p.bytes, p.bytes_total)
  elseif p.bytes then
    parts[#parts + 1] = human.bytes(p.bytes)
  end
  if p.rate and p.rate > 0 then
    parts[#parts + 1] = human.bytes(p.rate) .. "/s" .. (p.limit and (" (limit %s/s)"):format(human.bytes(p.limit)) or "")
  end
  return parts
end

local function counts(p, step)
  local name = p.unit_name or "done"
  local texts = {}
  if p.done and p.total then
    texts[1] = ("%s of %s %s"):format(human.count(p.done), human.count(p.total), name)
  elseif p.done then
    texts[1] = ("%s %s"):format(human.count(p.done), name)
  end
  if p.files and p.files_total then
    texts[#texts + 1] = ("%s of %s files"):format(human.count(p.files), human.count(p.files_total))
  end
  if step and #step.failed > 0 then
    texts[#texts + 1] = human.count(#step.failed) .. " failed"
  end
  return #texts > 0 and table.concat(texts, ", ") or nil
end

--- Progress in one line, for logs.
---@param p table  a progress event
---@param step? table
---@return string
function live.progress_line(p, step)
  local fraction = live.fraction(p)
  local parts = amounts(p)
  if fraction then
    table.insert(parts, 1, per_cent(fraction))
  end
  parts[#parts + 1] = counts(p, step)
  local left = seconds_left(p.eta, p.at)
  if left then
    parts[#parts + 1] = "eta " .. os.date("!%H:%MZ", math.floor(p.at + left))
  end
  if p.text then
    parts[#parts + 1] = p.text
  end
  return #parts > 0 and table.concat(parts, ", ") or "goes on"
end

local function bar(fraction)
  local full = math.floor(fraction * BAR)
  return ("#"):rep(full) .. ("-"):rep(BAR - full)
end

local function unit_lines(p, lines)
  local units = type(p.units) == "table" and p.units or {}
  for i, unit in ipairs(units) do
    if i > UNITS then
      lines[#lines + 1] = ("     %d more"):format(#units - UNITS)
      break
    end
    local parts = amounts(unit)
    parts[#parts + 1] = unit.text
    lines[#lines + 1] = ("     %-16s %s"):format(tostring(unit.name), table.concat(parts, "   "))
  end
end

local function step_lines(step, now)
  local p = step.progress or {}
  local place = step.index and ("%2d "):format(step.index) or "   "
  local head = (" %s%s  %s"):format(place, step.id or "", step.title)
  local since = human.duration(math.floor(now - step.since))
  local left = seconds_left(p.eta, now)
  if left and left > 0 then
    since = ("%s; about %s to go"):format(since, human.duration(left))
  end
  local lines = { head .. "   " .. since }
  local fraction, parts = live.fraction(p), amounts(p)
  if fraction then
    table.insert(parts, 1, ("%s  %s"):format(bar(fraction), per_cent(fraction)))
  end
  if #parts > 0 then
    lines[#lines + 1] = "   " .. table.concat(parts, "   ")
  end
  local counted = counts(p, step)
  if counted then
    lines[#lines + 1] = "   " .. counted
  end
  if p.text then
    lines[#lines + 1] = "   " .. p.text
  elseif step.effect and not fraction then
    lines[#lines + 1] = "   " .. step.effect
  end
  unit_lines(p, lines)
  for _, note in ipairs(type(p.notes) == "table" and p.notes or {}) do
    lines[#lines + 1] = "   " .. note
  end
  return lines
end

--- The lines of a screen that are alive, each short enough not to be broken by the terminal.
---@param screen runbook.Screen
---@return string[]
function live.lines(screen)
  local step = screen.current
  if not step then
    return {}
  end
  local now = screen.now()
  local lines = step_lines(step, now)
  if now - step.since > 30 then
    lines[#lines + 1] = "   Ctrl-C stops within seconds and loses nothing; `runbook resume` goes on."
  end
  local width = screen.width() - 1
  for i, line in ipairs(lines) do
    lines[i] = visible.cut(visible.line(line, screen.ascii), width)
  end
  return lines
end

return live
