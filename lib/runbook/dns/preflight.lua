--- What is looked at before names are moved: each check says what is worth knowing, is silent when all is well, or stops.

local ask = require "runbook.dns.ask"
local authority = require "runbook.dns.authority"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local names = require "runbook.dns.names"

local preflight = {}

local LOW = 300 -- seconds of a TTL that nobody minds waiting out

local function looking(name, title, body)
  return effect.verb {
    name = "dns." .. name, class = "read",
    target = function(zone) return zone.zone end,
    summary = function(zone) return ("%s %s"):format(title, zone.zone) end,
    by_hand = function(zone) return ("dig +nssearch %s; dig %s DNSKEY CAA"):format(zone.zone, zone.zone) end,
    body = body,
  }
end

-- ---- its servers ----

-- What the zone itself names, where that is another list than the one above it.
local function delegation_differs(zone, found, server)
  local own, above = {}, {}
  for _, r in ipairs(ask.records(zone, server, zone.zone, "NS")) do
    own[#own + 1] = names.plain(r.data)
  end
  for i, host in ipairs(found.hosts) do
    above[i] = host
  end
  table.sort(own)
  table.sort(above)
  own, above = table.concat(own, ", "), table.concat(above, ", ")
  if found.parent and own ~= above then
    return ("%s names the servers %s, and the zone itself %s"):format(found.parent == "" and "the root" or found.parent, above, own)
  end
end

local function serial_words(rows)
  local lines, serials = {}, {}
  for _, row in ipairs(rows) do
    if row.serial then
      lines[#lines + 1] = ("%s %d"):format(row.server.name, row.serial)
      serials[row.serial] = true
    end
  end
  local first = next(serials)
  return first and next(serials, first) and ("not all servers have the same zone: serials %s"):format(table.concat(lines, ", ")) or nil
end

local servers = looking("servers", "ask the servers of", function(zone)
  local found, rows = authority.find(zone), authority.rows(zone, {})
  local know, answering, failure = {}, nil, nil
  table.move(found.notes, 1, #found.notes, 1, know)
  for _, row in ipairs(rows) do
    if row.problem then
      failure = failure or row.problem
      know[#know + 1] = tostring(row.problem)
    else
      answering = answering or row.server
    end
  end
  if not answering then
    error(failure or errors.new { kind = "missing", target = zone.zone, message = "no server of " .. zone.zone .. " has an address" }, 0)
  end
  know[#know + 1] = delegation_differs(zone, found, answering)
  know[#know + 1] = serial_words(rows)
  return know
end)

-- ---- what is around it ----

local function first_answering(zone)
  local failure
  for _, server in ipairs(authority.find(zone).servers) do
    local ok, err = xpcall(ask.serial, errors.handler, zone, server)
    if ok then
      return server
    elseif errors.is_cancelled(err) then
      error(err, 0)
    end
    failure = err
  end
  error(failure, 0)
end

local function issuers(zone, server, name)
  while names.within(name, zone.zone) do
    local list = {}
    for i, r in ipairs(ask.records(zone, server, name, "CAA")) do
      list[i] = r.data
    end
    if #list > 0 then
      return ("CAA records at %s say who may issue certificates: %s"):format(name, table.concat(list, ", "))
    elseif name == zone.zone then
      return nil
    end
    name = name:match "^[^.]*%.(.*)$"
  end
end

local surroundings = looking("surroundings", "look for signatures and CAA in", function(zone, list)
  local server, know, said = first_answering(zone), {}, {}
  if #ask.records(zone, server, zone.zone, "DNSKEY") > 0 then
    know[1] = ("%s is signed (DNSSEC): %s"):format(zone.zone, zone.kind == "manual"
      and "whoever changes it has to sign it again, or nobody who verifies finds the new records"
      or "its server has to sign what it changes; look with delv afterwards")
  end
  for _, name in ipairs(list) do
    local text = issuers(zone, server, name)
    know[#know + 1] = text and not said[text] and text or nil
    said[text or ""] = true
  end
  return know
end)

local resolvers = looking("resolvers", "ask the resolvers named for", function(zone, list)
  for _, resolver in ipairs(authority.resolvers(zone)) do
    for _, name in ipairs(list) do
      authority.resolver_records(zone, resolver, name)
    end
  end
end)

-- ---- the names ----

local function words_of(state)
  local own = names.pointing(state.records)
  if state.wildcard then
    local others = names.other_types(state.served)
    return ("%s is served by the wildcard %s only; it gets a record of its own, and the wildcard stays%s%s"):format(state.name,
      state.wildcard, #others > 0 and (". Its %s are not served for this name then"):format(table.concat(others, ", ")) or "",
      "; names below it are not served by the wildcard any more")
  elseif #own == 0 then
    return ("%s points nowhere yet; it gets a record"):format(state.name)
  elseif names.ttl(own) > LOW then
    return ("%s: %s; lower the TTL %s before it is to be moved"):format(state.name, names.words(own),
      require("runbook.units").duration(names.ttl(own)))
  end
end

--- The checks of a zone and some of its names.
---@param zone runbook.Zone
---@param list string[]
---@param provided table[]  the provider's own
---@param look async fun(): runbook.dns.State[]
---@return table[]
function preflight.checks(zone, list, provided, look)
  local checks = {
    { ("the servers of %s answer, and say the same"):format(zone.zone), function() return servers(zone) end },
    { ("the names are in %s and can be moved"):format(zone.zone), function()
      local know = {}
      for _, state in ipairs(look()) do
        names.must_be_possible(zone.zone, state, {})
        know[#know + 1] = words_of(state)
      end
      return know
    end },
    { ("nothing about %s surprises afterwards"):format(zone.zone), function() return surroundings(zone, list) end },
  }
  if zone.resolvers and #zone.resolvers > 0 then
    checks[#checks + 1] = { "the resolvers that have to agree answer", function() return resolvers(zone, list) end }
  end
  return table.move(provided, 1, #provided, #checks + 1, checks)
end

return preflight
