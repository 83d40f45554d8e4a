--- Questions to name servers, with words for what goes wrong. Everything here runs inside of a read.

local core = require "runbook.core.dns"
local errors = require "runbook.errors"
local names = require "runbook.dns.names"
local task = require "runbook.task"

local ask = {}

ask.timeout = 5 -- seconds for one question to one server

---@class runbook.dns.Server
---@field name string
---@field address string

local function server_name(server, port)
  local name = server.name == server.address and server.name or ("%s (%s)"):format(server.name, server.address)
  return port == 53 and name or ("%s port %d"):format(name, port)
end

local RCODES = {
  REFUSED = { "refused", "refuses the question" },
  SERVFAIL = { "busy", "has trouble of its own (SERVFAIL): with the zone's data, its signatures, or the servers it asks" },
  NXDOMAIN = { "missing", "knows no such name (NXDOMAIN)" },
  FORMERR = { "unknown", "does not understand the question (FORMERR)" },
  NOTIMPL = { "refused", "cannot do this (NOTIMP)" },
  NOTZONE = { "usage", "says that a name is outside of the zone (NOTZONE)" },
}

-- Seconds in words a person compares clocks with.
local function skew_words(skew)
  local seconds = math.abs(skew)
  local text = seconds >= 120 and ("%d min"):format(seconds // 60) or ("%d s"):format(seconds)
  return ("%s %s ours"):format(text, skew > 0 and "ahead of" or "behind")
end

local function key_refusal(zone, answer)
  local key = zone.key and zone.key.name or "none"
  if answer.key_error == 17 then
    return ("does not know the key %s (BADKEY)"):format(key), "compare its name and algorithm with the server's configuration"
  elseif answer.key_error == 16 then
    return ("knows the key %s with another secret (BADSIG)"):format(key), "the secret or the algorithm of the key is not the server's"
  elseif answer.key_error == 18 then
    return ("refuses the key %s because of the time (BADTIME): its clock is %s"):format(key, skew_words(answer.skew)),
      "set the clock that is wrong; they may differ by 5 minutes"
  end
  return ("refuses the key %s (TSIG error %d)"):format(key, answer.key_error)
end

--- Raise what an answer's rcode means, in words.
---@param zone runbook.Zone
---@param server runbook.dns.Server
---@param answer table
---@param tried string
function ask.refused(zone, server, answer, tried)
  local who = server_name(server, zone.port)
  local e = { target = server.name, tried = tried, code = answer.rcode }
  if answer.key_error then
    local words, hint = key_refusal(zone, answer)
    e.kind, e.message, e.hint = "auth", ("%s %s"):format(who, words), hint
  elseif answer.rcode == "NOTAUTH" then
    e.kind, e.message = "refused", ("%s is not the one to change the zone %s (NOTAUTH)"):format(who, zone.zone)
    e.hint = ("name the primary server; dig %s SOA says it"):format(zone.zone)
  elseif answer.rcode == "REFUSED" and tried:find "^nsupdate" then
    e.kind, e.message = "refused", ("%s refuses the change: the key %s may not make it"):format(who, zone.key.name)
    e.hint = ("is it the primary server of %s, and do its rules (update-policy, allow-update) let this key change the name?"):format(
      zone.zone)
  else
    local known = RCODES[answer.rcode] or { "unknown", "answers " .. answer.rcode }
    e.kind, e.message = known[1], ("%s %s"):format(who, known[2])
  end
  errors.raise(e, 2)
end

-- Why there was no answer.
local function silent(zone, server, message, code, tried)
  local text, hint = message, nil
  if code == "ETIMEDOUT" then
    hint = ("does a firewall let UDP and TCP port %d through? dig -p %d @%s %s SOA"):format(zone.port, zone.port, server.address,
      zone.zone)
  elseif code == "EFORGED" then
    hint = "somebody else may have answered, or the server has another secret for this key"
  end
  return { kind = errors.kind(code), code = code, target = server.name, tried = tried, hint = hint,
    message = ("%s: %s"):format(server_name(server, zone.port), text) }
end

--- One question to one server; raises when there is no answer.
---@async
---@param zone runbook.Zone
---@param server runbook.dns.Server
---@param name string
---@param type string
---@param o? table  recurse, key, tcp, dnssec
---@return table answer
function ask.query(zone, server, name, type, o)
  o = o or {}
  local answer, message, code = core.query {
    address = server.address, port = zone.port, name = name .. ".", type = type, recurse = o.recurse, key = o.key, tcp = o.tcp,
    dnssec = o.dnssec, timeout = ask.timeout,
  }
  if not answer then
    errors.raise(silent(zone, server, message, code, ("dig @%s %s %s"):format(server.name, name, type)))
  end
  return answer
end

-- The records of exactly this name, as we keep them.
local function own(answer, name, type)
  local list = {}
  for _, r in ipairs(answer.answer) do
    if names.plain(r.name) == name and r.type == type then
      list[#list + 1] = { type = type, ttl = r.ttl, data = r.data }
    end
  end
  return list
end

-- The zone ends above the name: somebody else says what is there.
local function refuse_cut(zone, name, answer)
  for _, r in ipairs(answer.authority) do
    local owner = names.plain(r.name)
    if r.type == "NS" and owner ~= zone.zone and names.within(owner, zone.zone) and names.within(name, owner) then
      errors.raise({ kind = "refused", code = "ECUT", target = name, again = false,
        message = ("%s belongs to another zone: %s hands %s to %s"):format(name, zone.zone, owner, names.plain(r.data)),
        hint = ("name the zone %s in the parameter"):format(owner) }, 3)
    end
  end
end

--- The records of a name and type at a server of the zone. Raises when that does not serve the zone, or the name is not in it.
---@async
---@return runbook.dns.Record[]
---@return table answer
function ask.records(zone, server, name, type)
  local answer = ask.query(zone, server, name, type)
  if answer.rcode == "REFUSED" then
    ask.lame(zone, server, "it refuses to")
  elseif answer.rcode ~= "NOERROR" and answer.rcode ~= "NXDOMAIN" then
    ask.refused(zone, server, answer, ("dig @%s %s %s"):format(server.name, name, type))
  elseif not answer.authoritative then
    refuse_cut(zone, name, answer)
    ask.lame(zone, server, "it answers for others only")
  end
  return own(answer, name, type), answer
end

--- Raise that a server does not serve the zone; one that the zone above names should.
function ask.lame(zone, server, why)
  local who, ours = server_name(server, zone.port), server.name == zone.server
  errors.raise({ kind = "refused", code = "ELAME", target = server.name, again = false,
    message = ours and ("%s does not serve the zone %s: %s"):format(who, zone.zone, why)
      or ("%s is named as a server of %s and does not serve it: %s (a lame delegation)"):format(who, zone.zone, why),
    hint = ours and ("dig %s SOA names the primary"):format(zone.zone)
      or "have it taken out of the NS records, or the zone put on it" }, 2)
end

--- The serial of the zone at a server; raises when it does not serve the zone.
---@async
---@return integer serial
---@return string primary  the server its SOA names
function ask.serial(zone, server)
  local records = ask.records(zone, server, zone.zone, "SOA")
  if not records[1] then
    ask.lame(zone, server, "it has another zone")
  end
  local primary, _, serial = records[1].data:match "^(%S+) (%S+) (%d+)"
  return math.tointeger(tonumber(serial)), names.plain(primary)
end

-- Asked of each name: who has any of these has a name of its own.
local TYPES = { "A", "AAAA", "CNAME", "MX", "TXT", "NS", "CAA", "SRV", "HTTPS", "SVCB", "DNAME" }

-- Of the zone's own name the SOA is always there; it is nobody's to change here.
local function all_records(zone, server, name, types)
  local lists = {}
  task.each(types, { limit = 4 }, function(type, i)
    lists[i] = ask.records(zone, server, name, type)
  end)
  local records = {}
  for i = 1, #types do
    table.sort(lists[i], function(a, b) return a.data < b.data end)
    table.move(lists[i], 1, #lists[i], #records + 1, records)
  end
  return records
end

local function wildcard_of(zone, server, name, served)
  for _, candidate in ipairs(names.wildcards(name, zone.zone)) do
    local there = all_records(zone, server, candidate, names.POINTING)
    if #there > 0 and (not served or names.same(there, names.pointing(served))) then
      return candidate, there
    end
  end
end

-- Without a key nobody says whether a name is there or only served: a name that nobody has made tells.
local function only_served(zone, server, name, found)
  local wildcard = #found > 0 and name ~= zone.zone and wildcard_of(zone, server, name, found)
  if not wildcard then
    return false
  end
  local stranger = name:gsub("^[^.]*", ("rb-%x"):format(math.random(1 << 40)))
  return names.same(all_records(zone, server, stranger, names.POINTING), names.pointing(found))
end

--- What a server says of a name. `used` says whether the zone has it, where that is known.
---@async
---@param zone runbook.Zone
---@param server runbook.dns.Server
---@param name string
---@param used? fun(name: string): boolean
---@return runbook.dns.State
function ask.state(zone, server, name, used)
  local found = all_records(zone, server, name, TYPES)
  local served
  if used then
    served = #found > 0 and not used(name)
  else
    served = only_served(zone, server, name, found)
  end
  if not served then
    return { name = name, records = found }
  end
  return { name = name, records = {}, wildcard = wildcard_of(zone, server, name, found) or "a wildcard", served = found }
end

return ask
