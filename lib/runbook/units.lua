--- Durations, sizes, rates and times: words into numbers, and numbers into words.
---
---     units.parse_duration "1m 30s"          --> 90            (seconds)
---     units.parse_size "2.00 TB"             --> 2000000000000 (bytes; kB is 1000, KiB is 1024)
---     units.parse_rate "100 MB/s"            --> 100000000     (bytes a second)
---     units.parse_time "2026-12-05T22:00-05:00"
---     units.size(2.01e12), units.duration(2412), units.rate(92e6)   --> "2.01 TB", "40 min 12 s", "92.0 MB/s"

local value = require "runbook.core.value"

local units = {}

local seconds_in = { ms = 0.001, s = 1, m = 60, h = 3600, d = 86400, w = 604800 }

for unit, words in pairs {
  s = { "sec", "second", "seconds" }, m = { "min", "minute", "minutes" }, h = { "hour", "hours" },
  d = { "day", "days" }, w = { "week", "weeks" },
} do
  for _, word in ipairs(words) do
    seconds_in[word] = seconds_in[unit]
  end
end

local prefixes = { [""] = 0, k = 1, m = 2, g = 3, t = 4, p = 5, e = 6 }

-- A whole number as an integer: it is shown, compared and journaled as one.
local function tidy(n)
  return math.tointeger(n) or n
end

local function plain_number(v)
  if type(v) == "string" and v:match("^%s*%d+%.?%d*%s*$") then
    return tonumber(v)
  end
  return type(v) == "number" and v or nil
end

local function checked(n)
  if n ~= n or n < 0 or n == math.huge then
    return nil
  end
  return tidy(n)
end

--- Seconds in "2h", "1m 30s", "1.5 d"; a number without a unit is seconds.
---@param v any
---@return number? seconds
---@return string? err
function units.parse_duration(v)
  local bad = ("%s: a duration like 2h or 1m 30s"):format(units.quote(v))
  local n = plain_number(v)
  if n then
    n = checked(n)
    return n, n == nil and bad or nil
  elseif type(v) ~= "string" then
    return nil, bad
  end
  local total, rest, smallest = 0, v:match("^%s*(.-)%s*$"), math.huge
  while rest ~= "" do
    local amount, unit, after = rest:match("^(%d+%.?%d*)%s*(%a+)%s*(.*)$")
    local seconds = amount and seconds_in[unit]
    if not seconds or seconds >= smallest then -- 30s 1m, or 1h 1h, is a slip
      return nil, bad
    end
    total, rest, smallest = total + tonumber(amount) * seconds, after, seconds
  end
  if smallest == math.huge then
    return nil, bad
  end
  return tidy(total)
end

local function bytes_of(v)
  local n = plain_number(v)
  if n then
    return checked(n)
  elseif type(v) ~= "string" then
    return nil
  end
  local amount, prefix, binary, unit = v:match("^%s*(%d+%.?%d*)%s*([kKMGTPE]?)(i?)(%a*)%s*$")
  local power = amount and prefixes[prefix:lower()]
  if not power or binary == "i" and power == 0 then
    return nil
  end
  n = tonumber(amount) * (binary == "i" and 1024 or 1000) ^ power
  if unit == "bit" then
    return n / 8
  end
  return (unit == "" or unit == "B") and n or nil
end

local function whole(n)
  return n and n < 2 ^ 63 and math.floor(n + 0.5) or nil
end

--- Bytes in "100 MB", "10G", "512 KiB"; a number without a unit is bytes.
---@param v any
---@return integer? bytes
---@return string? err
function units.parse_size(v)
  local n = not (type(v) == "string" and v:find("bit")) and whole(bytes_of(v)) or nil
  if n == nil then
    return nil, ("%s: a size like 100 MB, 2.5 TB or 512 MiB"):format(units.quote(v))
  end
  return n
end

--- Bytes a second in "100 MB/s", "10M", "1 Gbit/s"; a number without a unit is bytes a second.
---@param v any
---@return integer? bytes
---@return string? err
function units.parse_rate(v)
  local n = whole(bytes_of(type(v) == "string" and v:gsub("%s*/%s*s%s*$", "") or v))
  if n == nil or n == 0 then
    return nil, ("%s: a rate like 100 MB/s"):format(units.quote(v))
  end
  return n
end

--- Text of a value for a message, shortened: "Saturday 22:00".
---@param v any
---@return string
function units.quote(v)
  if type(v) == "string" then
    local text = v:gsub("[%c]", "?")
    if #text > 60 then
      text = text:sub(1, (utf8.offset(text, 0, 58) or 58) - 1) .. "..."
    end
    return '"' .. text .. '"'
  elseif type(v) == "table" then
    return (#v > 0 or value.kind(v) == "array") and "a list" or "a map"
  end
  return tostring(v)
end

-- Days from 1970-01-01 in the calendar of ISO 8601.
local function days_since_epoch(year, month, day)
  local y = month > 2 and year or year - 1
  local era = y // 400
  local of_era = y - era * 400
  local of_year = (153 * (month + (month > 2 and -3 or 9)) + 2) // 5 + day - 1
  return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468
end

local function days_in(year, month)
  local next_year, next_month = year + month // 12, month % 12 + 1
  return days_since_epoch(next_year, next_month, 1) - days_since_epoch(year, month, 1)
end

--- A moment in "2026-12-05T22:00-05:00". The offset has to be there: a window is agreed by people in several zones.
---@param v any
---@return number? moment  seconds since 1970, UTC
---@return integer|string offset  seconds east of UTC, to print it as it was meant; or what is wrong
function units.parse_time(v)
  local bad = ("%s: a time like 2026-12-05T22:00-05:00"):format(units.quote(v))
  if type(v) ~= "string" then
    return nil, bad
  end
  local year, month, day, hour, minute, rest = v:match("^(%d%d%d%d)%-(%d%d)%-(%d%d)[T ](%d%d):(%d%d)(.*)$")
  if not year then
    return nil, bad
  end
  year, month, day = math.tointeger(year), math.tointeger(month), math.tointeger(day)
  hour, minute = math.tointeger(hour), math.tointeger(minute)
  local second, zone = rest:match("^:(%d%d%.?%d*)(.*)$")
  second, zone = tonumber(second or 0), zone or rest
  if month < 1 or month > 12 or day < 1 or day > days_in(year, month) or hour > 23 or minute > 59 or second >= 60 then
    return nil, bad
  elseif zone == "" then
    return nil, bad .. ", with its offset from UTC"
  end
  local offset
  if zone == "Z" then
    offset = 0
  else
    local sign, h, m = zone:match("^([+-])(%d%d):?(%d%d)$")
    if not sign or tonumber(h) > 14 or tonumber(m) > 59 then
      return nil, bad
    end
    offset = (math.tointeger(h) * 3600 + math.tointeger(m) * 60) * (sign == "-" and -1 or 1)
  end
  local moment = days_since_epoch(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - offset
  return tidy(moment), offset
end

-- Name, seconds, and the seconds that make one of the next.
local steps = { { "s", 1, 60 }, { "min", 60, 3600 }, { "h", 3600, 86400 }, { "d", 86400, math.huge } }

--- "40 min 12 s": the two largest units, rounded to the smaller.
---@param seconds number
---@return string
function units.duration(seconds)
  if seconds < 0 then
    return "-" .. units.duration(-seconds)
  elseif seconds > 0 and seconds < 0.9995 then
    return ("%.0f ms"):format(seconds * 1000)
  elseif seconds < 10 and seconds % 1 ~= 0 then
    return ("%.1f s"):format(seconds)
  end
  for i, step in ipairs(steps) do
    local name, size, full = step[1], step[2], step[3]
    local below = steps[i - 1] or step
    local rounded = math.floor(seconds / below[2] + 0.5) * below[2]
    if rounded < full then
      local more = rounded % size // below[2]
      local head = ("%d %s"):format(rounded // size, name)
      return more > 0 and ("%s %d %s"):format(head, more, below[1]) or head
    end
  end
end

--- "5 s to 1 min": from one duration to another.
---@param low number   seconds
---@param high number
---@return string
function units.range(low, high)
  local a, b = units.duration(low), units.duration(high)
  return a == b and a or ("%s to %s"):format(a, b)
end

--- A size in the largest unit that leaves a number below 1000.
---@param bytes number
---@param names string[]  of the units: bytes first, each a thousand of the one before
---@param format_of fun(n: number, power: integer): string  how a number is written
---@return string
function units.scaled(bytes, names, format_of)
  if bytes < 0 then
    return "-" .. units.scaled(-bytes, names, format_of)
  end
  local n, power = bytes, 0
  while power + 1 < #names and tonumber(format_of(n, power):format(n)) >= 1000 do
    n, power = n / 1000, power + 1
  end
  return format_of(n, power):format(n) .. " " .. names[power + 1]
end

local size_names = { "B", "kB", "MB", "GB", "TB", "PB", "EB" }

local function size_format(_, power)
  return power >= 4 and "%.2f" or power > 0 and "%.1f" or "%.0f"
end

--- "2.01 TB", "102.7 GB", "999 B".
---@param bytes number
---@return string
function units.size(bytes)
  return units.scaled(bytes, size_names, size_format)
end

--- "92.0 MB/s".
---@param bytes number
---@return string
function units.rate(bytes)
  return units.size(bytes) .. "/s"
end

--- "14,213,877".
---@param n integer
---@return string
function units.count(n)
  local text = ("%.0f"):format(n)
  local sign, digits = text:match("^(%-?)(%d+)$")
  digits = digits:reverse():gsub("(%d%d%d)", "%1,"):reverse():gsub("^,", "")
  return sign .. digits
end

local function shifted(format, moment, offset)
  if offset then
    return os.date("!" .. format, math.floor(moment) + offset)
  end
  return os.date(format, math.floor(moment))
end

--- "23:17", here or at an offset from UTC.
---@param moment number  seconds since 1970
---@param offset? integer  seconds east of UTC; here, when missing
---@return string
function units.clock(moment, offset)
  return shifted("%H:%M", moment, offset)
end

local function offset_text(offset)
  return ("%s%02d:%02d"):format(offset < 0 and "-" or "+", math.abs(offset) // 3600, math.abs(offset) % 3600 // 60)
end

--- "Sat 2026-12-05 22:00 -05:00".
---@param moment number
---@param offset? integer
---@return string
function units.time(moment, offset)
  local zone = offset and offset_text(offset) or (os.date("%z", math.floor(moment)):gsub("(%d%d)(%d%d)$", "%1:%2"))
  return shifted("%a %Y-%m-%d %H:%M ", moment, offset) .. zone
end

--- "2026-12-05T22:00:00Z": a moment as records keep it.
---@param moment number
---@return string
function units.timestamp(moment)
  return shifted("%Y-%m-%dT%H:%M:%SZ", moment, 0)
end

return units
