--- Names in zones: who serves them, where they point, how to change that, and back.
---
---     local zone = dns.zone { kind = "rfc2136", zone = "uni.example", server = "ns1.uni.example",
---       key = { name = "hubs", secret = "file:hubs.key" } }
---     zone:lower_ttl { names = { "temple.uni.example" }, to = 60 }                       -- and waits the old TTL out
---     zone:point { names = { "temple.uni.example" }, to = "lb.example.net", ttl = 60 }   -- and waits for every server
---
--- As a parameter: `{ "dns", "zone", "who serves those names" }`. A name gets A or AAAA records for addresses and a CNAME for a
--- host name. Each change is looked at before, kept so that it can be undone, made only if nobody else made one meanwhile, and
--- looked at afterwards. A wildcard is never edited: a name that only a wildcard serves gets a record of its own, and undoing
--- removes that. Every server that the zone above names is asked, at each of its addresses.
---
--- Who changes a zone is a provider, one file lib/runbook/dns/KIND.lua. It returns a table with `fields` (of the parameter,
--- besides those every kind has), `read(zone, names)` (a state per name: name, records, wildcard, served), `change(zone, edits)`
--- (an edit: name, from, to, unused, wildcard; all or none, raises `conflict` unless a name is as its edit's `from` says),
--- `by_hand(zone, edits)` (what a person would type; edits without `from` when nobody has looked) and `checks(zone)` (for rb.checks). Rules, waiting and undo are here.

local agreement = require "runbook.dns.agreement"
local authority = require "runbook.dns.authority"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local names = require "runbook.dns.names"
local nearest = require "runbook.nearest"
local options = require "runbook.options"
local place = require "runbook.place"
local preflight = require "runbook.dns.preflight"
local retry = require "runbook.retry"
local secret = require "runbook.secret"
local task = require "runbook.task"
local time = require "runbook.core.time"
local units = require "runbook.units"
local unknown = require "runbook.unknown"

local dns = {}

--- The kinds of providers there are.
dns.KINDS = { "manual", "rfc2136" }

---@class runbook.Zone
---@field zone string
---@field kind string
---@field port integer
---@field servers? string[]
---@field resolvers? string[]
---@field via? string[]
---@field server? string
---@field key? { name: string, algorithm: string, secret: runbook.secret }
---@field package provider table
local Zone = {}
local zone_mt = { __name = "runbook.zone", __index = Zone }

function zone_mt.__tostring(zone)
  return ("%s (%s)"):format(zone.zone, zone.kind)
end

--- Of the parameter, for every kind.
dns.FIELDS = {
  { "kind", "choice", "who changes the zone", choices = dns.KINDS },
  { "zone", "string", "its name" },
  { "servers", "list", "its servers, where the zone above does not tell", optional = true },
  { "resolvers", "list", "resolvers that have to agree, too", optional = true },
  { "via", "list", "resolvers that find the zone's servers; this machine's, when missing", optional = true },
  { "port", "port", "where all of them listen", default = 53 },
}

-- ---- handles ----

local opened = {} -- the latest handle of each zone: what the journal keeps has no secrets

local function identity(o)
  return table.concat({ o.kind, o.zone, o.server or "", o.port }, " ")
end

--- The provider of a kind; raises kind `usage` when there is none.
---@param kind string
---@return table
function dns.provider(kind)
  local found, provider = pcall(require, "runbook.dns." .. kind)
  if not found or type(provider) ~= "table" or not provider.change then
    local near = nearest(kind, dns.KINDS)
    errors.raise({ kind = "usage", message = ("dns.zone: nobody knows the kind `%s`%s"):format(kind,
      near and "; did you mean `" .. near .. "`?" or "") }, 3)
  end
  return provider
end

local check_key = options.declare("dns.zone: key", {
  name = { "string", "as the server knows it" },
  algorithm = { "string", "how it signs", default = "hmac-sha256", choices = { "hmac-sha256", "hmac-sha512", "hmac-sha1" } },
  secret = { "any", "a secret, or the reference to one", optional = true },
})

local function key_of(given)
  local key = check_key(given, 4)
  if type(key.secret) == "string" then
    key.secret = secret.reference(key.secret, { name = "DNS key " .. key.name })
  end
  return key
end

local function checker_of(provider)
  local declared = {
    kind = { "string", "who changes it" }, zone = { "string", "its name" }, port = { "integer", "where they listen", default = 53 },
    servers = { "list", "its servers", optional = true }, resolvers = { "list", "that have to agree", optional = true },
    via = { "list", "that find its servers", optional = true },
  }
  for _, field in ipairs(provider.fields) do
    declared[field[1]] = { "any", field[3], optional = field.optional }
  end
  return options.declare("dns.zone", declared)
end

--- A zone and who changes it. Nothing is asked yet.
---@param o table  kind, zone, port, servers, resolvers, and what that kind takes
---@return runbook.Zone
function dns.zone(o)
  if type(o) ~= "table" or type(o.kind) ~= "string" then
    errors.raise({ kind = "usage", message = "dns.zone takes a table: { kind = …, zone = … }" }, 2)
  end
  local provider = dns.provider(o.kind)
  local zone = checker_of(provider)(o, 2)
  zone.zone = names.plain(zone.zone)
  zone.key = zone.key and key_of(zone.key)
  zone.provider = provider
  local known = opened[identity(zone)]
  if known == nil or zone.key == nil or zone.key.secret ~= nil then
    opened[identity(zone)] = zone
  end
  return setmetatable(zone, zone_mt)
end

--- Is this value a zone?
---@param value any
---@return boolean
function dns.is(value)
  return getmetatable(value) == zone_mt
end

--- What the journal keeps of it: everything but secrets.
---@return table
function Zone:reference()
  local kept = { kind = "dns", provider = self.kind }
  for key, value in pairs(self) do
    if type(value) == "string" or type(value) == "number" then
      kept[key == "kind" and "provider" or key] = value
    end
  end
  kept.servers, kept.resolvers, kept.via = self.servers, self.resolvers, self.via
  kept.key = self.key and { name = self.key.name, algorithm = self.key.algorithm }
  return kept
end

place.register("dns", function(reference)
  local o = {}
  for key, value in pairs(reference) do
    o[key] = value
  end
  o.kind, o.provider = reference.provider, nil
  return opened[identity(o)] or dns.zone(o)
end)

-- Secrets are read when they are first needed.
local function ready(zone)
  if zone.key and zone.key.secret == nil then
    errors.raise { kind = "auth", target = zone.zone, message = ("the secret of the key %s is not known here"):format(zone.key.name),
      hint = "give the parameter that names it" }
  elseif zone.key then
    secret.ready(zone.key.secret)
  end
  return zone.provider
end

-- ---- looking ----

local function target_of(zone)
  return zone.server or zone.zone
end

local function dig_lines(zone, list)
  return ("dig %s%s"):format(zone.server and ("@%s "):format(zone.server) or "", table.concat(list, " "))
end

local look = effect.verb {
  name = "dns.look", class = "read", target = target_of,
  summary = function(_, list) return "look at " .. table.concat(list, ", ") end,
  by_hand = dig_lines,
  body = function(zone, list)
    return retry.call({ target = target_of(zone), what = "looking", reads = true }, function()
      return ready(zone).read(zone, list)
    end)
  end,
}

-- The names as the zone has them; raises on what is no name of it.
local function names_in(zone, given, level)
  local list, seen = {}, {}
  for _, name in ipairs(type(given) == "table" and given or { given }) do
    name = names.plain(tostring(name))
    if name:find("*", 1, true) then
      errors.raise({ kind = "usage", message = ("%s is a wildcard, which serves others, too, and is never edited"):format(name),
        hint = "give the names themselves; each gets a record of its own" }, level + 1)
    elseif not names.within(name, zone.zone) then
      errors.raise({ kind = "usage", message = ("%s is not in the zone %s"):format(name, zone.zone) }, level + 1)
    end
    list[#list + 1] = not seen[name] and name or nil
    seen[name] = true
  end
  if #list == 0 then
    errors.raise({ kind = "usage", message = "`names` is empty" }, level + 1)
  end
  return list
end

--- What the zone says of names now, as data that `restore` takes.
---@async
---@param list string|string[]
---@return runbook.dns.State[]
function Zone:get(list)
  return look(self, names_in(self, list, 2))
end

--- What is looked at before anything is changed; for rb.checks.
---@param list string[]
---@return table[]
function Zone:checks(list)
  local provided = self.provider.checks(self)
  for i, check in ipairs(provided) do
    provided[i] = { check[1], function()
      ready(self)
      return check[2]()
    end }
  end
  return preflight.checks(self, list, provided, function() return look(self, names_in(self, list, 2)) end)
end

-- ---- changing ----

local function edits_for(zone, states, change)
  local edits = {}
  for _, state in ipairs(states) do
    local wanted = names.wanted(state, change)
    names.must_be_possible(zone.zone, state, wanted)
    edits[#edits + 1] = names.edit(state, wanted)
  end
  return edits
end

local function change_names(zone, list, change)
  local provider = ready(zone)
  local edits = edits_for(zone, provider.read(zone, list), change)
  if #edits > 0 then
    provider.change(zone, edits)
  end
end

local function inverse_of(zone, list, change)
  return { "dns.restore", zone, look(zone, list), change }
end

local function preview_of(zone, list, change)
  local before, after = {}, {}
  for i, state in ipairs(look(zone, list)) do
    local head = #list > 1 and state.name .. " " or ""
    before[i] = head .. names.state_words(state)
    if unknown.is(change.to) then
      after[i] = head .. "where it will be found to be"
    else
      local wanted = names.wanted(state, change)
      names.must_be_possible(zone.zone, state, wanted)
      after[i] = head .. names.words(wanted)
    end
  end
  return { before = table.concat(before, "; "), after = table.concat(after, "; ") }
end

-- What a person would type, without knowing what is there.
local function by_hand_of(zone, list, change)
  local edits = {}
  for i, name in ipairs(list) do
    local to = {}
    if change.to and not unknown.is(change.to) then
      to = names.wanted({ name = name, records = {} }, change)
    end
    edits[i] = { name = name, to = to }
  end
  if change.to == nil then
    return dig_lines(zone, list)
  end
  return zone.provider.by_hand(zone, edits)
end

local function to_words(to)
  return unknown.is(to) and tostring(to) or type(to) == "table" and table.concat(to, ", ") or tostring(to)
end

local point = effect.verb {
  name = "dns.point", class = "change", target = target_of, repeatable = true, quiet = true,
  summary = function(_, list, change) return ("point %s to %s"):format(table.concat(list, ", "), to_words(change.to)) end,
  by_hand = by_hand_of, inverse = inverse_of, preview = preview_of, body = change_names,
}

local set_ttl = effect.verb {
  name = "dns.lower_ttl", class = "change", target = target_of, repeatable = true, quiet = true,
  summary = function(_, list, change) return ("lower the TTL of %s to %d"):format(table.concat(list, ", "), change.ttl) end,
  by_hand = by_hand_of, inverse = inverse_of, preview = preview_of, body = change_names,
}

-- ---- waiting ----

local WITHIN = 600 -- seconds for secondaries to fetch a change that we made

local function within_of(zone, given)
  if type(given) == "string" then
    local seconds, message = units.parse_duration(given)
    if seconds == nil then
      errors.raise({ kind = "usage", message = message }, 3)
    end
    return seconds
  end
  return given or zone.kind ~= "manual" and WITHIN or nil
end

local check_wait = options.declare("zone:wait", {
  names = { "list|string", "which" },
  to = { "any", "where they are to point: addresses, or a host name" },
  within = { "number|string", "how long at most", optional = true },
})

--- Wait until every server of the zone, and every resolver of the parameter, says that the names point there.
---@async
---@param o { names: string[], to: string|string[], within?: number|string }
function Zone:wait(o)
  o = check_wait(o, 2)
  local list, within = names_in(self, o.names, 2), within_of(self, o.within)
  effect.wait(("until every server of %s says so"):format(self.zone), function()
    local wishes = {}
    for i, name in ipairs(list) do
      wishes[i] = { name = name, records = names.wanted({ name = name, records = {} }, { to = o.to }) }
    end
    agreement.reach(self, wishes, { within = within, resolvers = true })
  end)
end

local check_point = options.declare("zone:point", {
  names = { "list|string", "which" },
  to = { "any", "addresses, or a host name" },
  ttl = { "integer", "seconds; as it is, when missing", optional = true },
  within = { "number|string", "how long every server may take to say so", optional = true },
})

--- Point names to addresses (A, AAAA) or to a host name (CNAME), and wait until every server of the zone says so.
---@async
---@param o { names: string[], to: string|string[], ttl?: integer, within?: number|string }
function Zone:point(o)
  o = check_point(o, 2)
  local list = names_in(self, o.names, 2)
  if not unknown.is(o.to) then
    names.target(o.to)
  end
  point(self, list, { to = o.to, ttl = o.ttl })
  self:wait { names = list, to = o.to, within = o.within }
end

-- ---- going back ----

-- A change that found a name as it wanted it changed nothing, and has nothing to put back.
local function changed_nothing(saved, change)
  return change ~= nil and names.same(names.pointing(saved.records), names.wanted(saved, change), true)
end

-- Back to what the name was; raises when it is neither that nor what was made of it.
local function way_back(zone, saved, now, change)
  local was, is = names.pointing(saved.records), names.pointing(now.records)
  local set = change and names.wanted(saved, change)
  if change and not names.same(is, was) and not names.same(is, set) then
    errors.raise({ kind = "conflict", target = saved.name, again = false,
      message = ("somebody else changed %s: it is %s; it was %s, and was set to %s"):format(saved.name, names.state_words(now),
        names.state_words(saved), names.words(set)),
      hint = ("find out who; put it back by hand, or keep it and say so: --overrule STEP. Zone %s"):format(zone.zone) }, 3)
  end
  local edit = names.edit(now, was)
  if edit and #was == 0 then
    edit.wildcard, edit.wildcard_gives = saved.wildcard, saved.served
  end
  return edit
end

local function states_by_name(zone, saved)
  local list, now = {}, {}
  for i, state in ipairs(saved) do
    list[i] = state.name
  end
  for _, state in ipairs(ready(zone).read(zone, list)) do
    now[state.name] = state
  end
  return now
end

local restore = effect.verb {
  name = "dns.restore", class = "change", target = target_of, repeatable = true, quiet = true, inverse = effect.NOT_NEEDED,
  summary = function(_, saved)
    local parts = {}
    for i, state in ipairs(saved) do
      parts[i] = ("%s to %s"):format(state.name, names.state_words(state))
    end
    return "put back " .. table.concat(parts, "; ")
  end,
  by_hand = function(zone, saved)
    local edits = {}
    for i, state in ipairs(saved) do
      edits[i] = { name = state.name, to = names.pointing(state.records) }
    end
    return zone.provider.by_hand(zone, edits)
  end,
  body = function(zone, saved, change)
    local now, edits, wishes = states_by_name(zone, saved), {}, {}
    for _, state in ipairs(saved) do
      if not changed_nothing(state, change) then
        edits[#edits + 1] = way_back(zone, state, now[state.name], change)
        wishes[#wishes + 1] = { name = state.name, records = names.wanted(state, {}) }
      end
    end
    if #edits > 0 then
      ready(zone).change(zone, edits)
    end
    agreement.reach(zone, wishes, { within = within_of(zone) })
  end,
}

--- Put names back to what `get` returned, and wait until every server says so.
---@async
---@param saved runbook.dns.State[]
function Zone:restore(saved)
  restore(self, saved)
end

-- ---- TTLs ----

local check_lower = options.declare("zone:lower_ttl", {
  names = { "list|string", "which" },
  to = { "integer", "seconds", default = 60 },
  within = { "number|string", "how long every server may take to say so", optional = true },
})

-- Each name once, by its key, so that a resumed run knows when the old TTL has run out.
local function each_once(list, fn)
  local session = task.context().session
  if session and not task.context().unit then
    return session:each(list, { key = function(name) return "ttl of " .. name end }, fn), "ttl of "
  end
  local results = {}
  for _, name in ipairs(list) do
    results[name] = fn(name)
  end
  return results, ""
end

-- A TTL that was low already when we came may have been lowered a moment ago: what resolvers still keep tells.
local remaining = effect.verb {
  name = "dns.remaining", class = "read", target = target_of,
  summary = function(_, name) return "see how long resolvers keep " .. name end,
  by_hand = function(_, name) return "dig " .. name end,
  body = function(zone, name)
    local longest = 0
    for _, resolver in ipairs(authority.resolvers(zone)) do
      local ok, records = xpcall(authority.resolver_records, errors.handler, zone, resolver, name)
      if not ok and errors.is_cancelled(records) then
        error(records, 0)
      end
      longest = math.max(longest, ok and names.ttl(records) or 0)
    end
    return longest
  end,
}

-- Lowers one TTL and says how long the old one counts from now on.
local function lower(zone, name, to, within)
  local state = look(zone, { name })[1]
  local own = names.wanted(state, {})
  local old = names.ttl(own)
  if old == nil then
    events.notice(("%s has no address yet; there is no TTL to lower"):format(name))
    return { old = 0, at = time.utc() }
  elseif old <= to then
    return { old = remaining(zone, name), at = time.utc(), already = true }
  end
  set_ttl(zone, { name }, { ttl = to, lower = true })
  effect.wait(("until every server of %s gives %s the TTL %d"):format(zone.zone, name, to), function()
    agreement.reach(zone, { { name = name, records = own, ttl = to } }, { within = within })
  end)
  return { old = old, at = time.utc() }
end

--- Lower TTLs, wait until every server of the zone gives the lower one, and then until the old one has run out everywhere. A TTL
--- that is low enough stays. A name that only a wildcard serves gets a record of its own that says the same.
---@async
---@param o { names: string[], to?: integer, within?: number|string }
function Zone:lower_ttl(o)
  o = check_lower(o, 2)
  local list, within = names_in(self, o.names, 2), within_of(self, o.within)
  if o.to < 0 then
    errors.raise({ kind = "usage", message = "zone:lower_ttl: a TTL is not negative" }, 2)
  end
  local results, prefix = each_once(list, function(name) return lower(self, name, o.to, within) end)
  local over, longest = 0, 0
  for _, name in ipairs(list) do
    local one = results[prefix .. name]
    over, longest = math.max(over, one.at + one.old), math.max(longest, one.old)
  end
  if longest <= o.to then
    return
  end
  effect.wait(("%s, until the old TTL has run out"):format(units.duration(longest)), function()
    local left = over - time.utc()
    while left > 0 do
      events.emit { type = "progress", text = ("resolvers may keep the old TTL until %s"):format(units.clock(over)), eta = over }
      task.sleep(math.min(60, left))
      left = over - time.utc()
    end
  end)
end

return dns
