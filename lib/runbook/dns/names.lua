--- What names and records are, without asking anybody: where a name belongs, what it may point to, what is the same.

local errors = require "runbook.errors"
local units = require "runbook.units"

local names = {}

--- The types that say where a name points.
names.POINTING = { "A", "AAAA", "CNAME" }
local pointing = { A = true, AAAA = true, CNAME = true }

---@class runbook.dns.Record
---@field type string
---@field ttl integer
---@field data string  as zone files write it

---@class runbook.dns.State  what a zone says of one name
---@field name string
---@field records runbook.dns.Record[]  those of the name itself
---@field wildcard? string  what serves it, when the name has no record of its own
---@field served? runbook.dns.Record[]  what that gives

---@class runbook.dns.Edit  a change of one name's A, AAAA and CNAME records
---@field name string
---@field from runbook.dns.Record[]  what is there, and has to be there still
---@field to runbook.dns.Record[]
---@field unused boolean  the name has no record of any type, and must not have one
---@field wildcard? string

--- A name without its last dot, in lower case.
---@param text string
---@return string
function names.plain(text)
  return (text:lower():gsub("%.$", ""))
end

--- Is the name in the zone?
---@param name string
---@param zone string
---@return boolean
function names.within(name, zone)
  return name == zone or zone == "" or name:sub(-#zone - 1) == "." .. zone
end

--- The wildcards that could serve a name, the nearest first.
---@param name string
---@param zone string
---@return string[]
function names.wildcards(name, zone)
  local list = {}
  while name ~= zone and name:find(".", 1, true) do
    name = name:match "^[^.]*%.(.*)$"
    list[#list + 1] = "*." .. name
  end
  return list
end

-- ---- what a name points to ----

local function is_ipv4(text)
  local parts = { text:match "^(%d+)%.(%d+)%.(%d+)%.(%d+)$" }
  for _, part in ipairs(parts) do
    if #part > 3 or tonumber(part) > 255 or part:match "^0%d" then
      return false
    end
  end
  return #parts == 4
end

local function groups_of(text)
  local list = {}
  for group in text:gmatch "[^:]+" do
    if not group:match "^%x%x?%x?%x?$" then
      return nil
    end
    list[#list + 1] = tonumber(group, 16)
  end
  return list
end

-- The address as name servers write it, shortest and in lower case; nil when it is none.
local function ipv6(text)
  local before, after = text:match "^(.-)::(.*)$"
  local head = groups_of(before or text)
  local tail = groups_of(after or "")
  if not text:find(":", 1, true) or text:find ":::" or after and after:find("::", 1, true) or not head or not tail
    or #head + #tail > (before and 7 or 8)
    or not before and #head < 8 or (before or text):find "^:." or text:find "[^:]:$" then
    return nil
  end
  local groups = {}
  table.move(head, 1, #head, 1, groups)
  for i = #head + 1, 8 - #tail do
    groups[i] = 0
  end
  table.move(tail, 1, #tail, 9 - #tail, groups)
  local best, length, i = 0, 1, 1
  while i <= 8 do
    local stop = i
    while stop <= 8 and groups[stop] == 0 do
      stop = stop + 1
    end
    if stop - i > length then
      best, length = i, stop - i
    end
    i = stop + 1
  end
  for n = 1, 8 do
    groups[n] = ("%x"):format(groups[n])
  end
  if best == 0 then
    return table.concat(groups, ":")
  end
  return table.concat(groups, ":", 1, best - 1) .. "::" .. table.concat(groups, ":", best + length)
end

local function record_of(text)
  if is_ipv4(text) then
    return { type = "A", data = text }
  elseif ipv6(text) then
    return { type = "AAAA", data = ipv6(text) }
  end
  local host = names.plain(text)
  if #host <= 253 and host:find(".", 1, true) and not host:find "[^%w._-]" and not host:find "%.%." and not host:match "^[%d.]+$" then
    return { type = "CNAME", data = host .. "." }
  end
  errors.raise({ kind = "usage", message = ("%s: a name points to an address or to a full host name"):format(units.quote(text)) }, 4)
end

--- The records that make a name point there: A and AAAA for addresses, CNAME for a host name.
---@param to string|string[]
---@return { type: string, data: string }[]
function names.target(to)
  local list, seen = {}, {}
  for _, text in ipairs(type(to) == "table" and to or { to }) do
    local record = record_of(tostring(text))
    list[#list + 1] = not seen[record.data] and record or nil
    seen[record.data] = true
  end
  if #list == 0 then
    errors.raise({ kind = "usage", message = "`to` names no address and no host" }, 3)
  end
  for _, record in ipairs(list) do
    if record.type == "CNAME" and #list > 1 then
      errors.raise({ kind = "usage", message = ("a name that points to the host %s can have no other record beside that")
        :format(record.data) }, 3)
    end
  end
  return list
end

-- ---- records ----

--- Those of A, AAAA and CNAME.
---@param records runbook.dns.Record[]
---@return runbook.dns.Record[]
function names.pointing(records)
  local list = {}
  for _, r in ipairs(records) do
    list[#list + 1] = pointing[r.type] and r or nil
  end
  return list
end

--- The types of the others, sorted.
---@param records runbook.dns.Record[]
---@return string[]
function names.other_types(records)
  local list, seen = {}, {}
  for _, r in ipairs(records) do
    if not pointing[r.type] and not seen[r.type] then
      seen[r.type] = true
      list[#list + 1] = r.type
    end
  end
  table.sort(list)
  return list
end

local function keys_of(records, with_ttl)
  local list = {}
  for i, r in ipairs(records) do
    local data = r.type == "CNAME" and r.data:lower() or r.data
    list[i] = ("%s %s%s"):format(r.type, data, with_ttl and " " .. r.ttl or "")
  end
  table.sort(list)
  return table.concat(list, "\n")
end

--- Do they say the same? TTLs count only when asked for.
---@param a runbook.dns.Record[]
---@param b runbook.dns.Record[]
---@param with_ttl? boolean
---@return boolean
function names.same(a, b, with_ttl)
  return keys_of(a, with_ttl) == keys_of(b, with_ttl)
end

--- The largest TTL; nil without records.
---@param records runbook.dns.Record[]
---@return integer?
function names.ttl(records)
  local ttl
  for _, r in ipairs(records) do
    ttl = math.max(ttl or 0, r.ttl)
  end
  return ttl
end

--- "A 203.0.113.10, TTL 1799".
---@param records runbook.dns.Record[]
---@return string
function names.words(records)
  local list = {}
  for i, r in ipairs(records) do
    list[i] = ("%s %s"):format(r.type, (r.data:gsub("%.$", "")))
  end
  table.sort(list)
  return #list == 0 and "nothing" or ("%s, TTL %d"):format(table.concat(list, ", "), names.ttl(records))
end

--- The same of a state: also says what only a wildcard gives.
---@param state runbook.dns.State
---@return string
function names.state_words(state)
  local own = names.pointing(state.records)
  if #own == 0 and state.wildcard then
    return ("%s, by the wildcard %s"):format(names.words(names.pointing(state.served)), state.wildcard)
  end
  return names.words(own)
end

--- Lines as a zone file has them.
---@param name string
---@param records runbook.dns.Record[]
---@return string[]
function names.lines(name, records)
  local lines = {}
  for i, r in ipairs(records) do
    lines[i] = ("%s. %d IN %s %s"):format(name, r.ttl, r.type, r.data)
  end
  return lines
end

-- ---- changes ----

local DEFAULT_TTL = 300

local function with_ttl(records, ttl)
  local list = {}
  for i, r in ipairs(records) do
    list[i] = { type = r.type, data = r.data, ttl = ttl and ttl(r) or r.ttl }
  end
  return list
end

---@class runbook.dns.Change
---@field to? string|string[]  where names are to point; nil: where they do
---@field ttl? integer
---@field lower? boolean  a TTL that is lower already stays

--- The A, AAAA and CNAME records a name is to have.
---@param state runbook.dns.State
---@param change runbook.dns.Change
---@return runbook.dns.Record[]
function names.wanted(state, change)
  local own = names.pointing(#state.records > 0 and state.records or state.served or {})
  if change.to == nil then
    return with_ttl(own, function(r) return change.lower and math.min(r.ttl, change.ttl) or change.ttl or r.ttl end)
  end
  local ttl = change.ttl or names.ttl(own) or DEFAULT_TTL
  return with_ttl(names.target(change.to), function() return ttl end)
end

--- What has to be done so that a name has these records; nil when it has.
---@param state runbook.dns.State
---@param wanted runbook.dns.Record[]
---@return runbook.dns.Edit?
function names.edit(state, wanted)
  local own = names.pointing(state.records)
  if names.same(own, wanted, true) then
    return nil
  end
  return { name = state.name, from = own, to = wanted, unused = #state.records == 0, wildcard = state.wildcard }
end

local function refuse(name, message, hint)
  errors.raise({ kind = "refused", target = name, message = message, hint = hint }, 3)
end

--- Raise, in words, when a name may not get these records.
---@param zone string
---@param state runbook.dns.State
---@param wanted runbook.dns.Record[]
function names.must_be_possible(zone, state, wanted)
  local name, others = state.name, names.other_types(state.records)
  for _, r in ipairs(wanted) do
    if r.type == "CNAME" and name == zone then
      refuse(name, ("%s is the zone's own name and cannot be a CNAME: it has SOA and NS records, and a CNAME allows none beside it")
        :format(name), ("point it to the addresses of %s, or use what the provider calls ALIAS, ANAME or flattening"):format(r.data))
    elseif r.type == "CNAME" and names.plain(r.data) == name then
      refuse(name, ("%s cannot point to itself"):format(name))
    elseif r.type == "CNAME" and #others > 0 then
      refuse(name, ("%s has %s records, and a CNAME allows none beside it"):format(name, table.concat(others, ", ")),
        ("point it to the addresses of %s, or move those records elsewhere"):format(r.data))
    end
  end
end

return names
