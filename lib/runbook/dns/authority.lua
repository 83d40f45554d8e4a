--- Who answers for a zone, as its parent says, and what each of them says now. Everything here runs inside of a read.

local ask = require "runbook.dns.ask"
local core = require "runbook.core.dns"
local errors = require "runbook.errors"
local file = require "runbook.core.file"
local names = require "runbook.dns.names"
local task = require "runbook.task"
local time = require "runbook.core.time"

local authority = {}

local REMEMBERED = 60 -- seconds that the list of servers counts

-- ---- resolvers ----

local function system_resolvers()
  local text = errors.check("/etc/resolv.conf", "who resolves names here", file.read("/etc/resolv.conf", 1 << 16))
  local list = {}
  for address in text:gmatch "nameserver[ \t]+([%x.:]+)" do
    list[#list + 1] = address
  end
  return list
end

--- The addresses of a host given by name or address.
---@async
---@param host string
---@return string[]
function authority.addresses(host)
  if host:match "^[%d.]+$" or host:find(":", 1, true) then
    return { host }
  end
  return errors.check(host, "the addresses of " .. host, core.addresses(host))
end

---@async
---@param hosts string[]
---@return runbook.dns.Server[]
local function servers_of(hosts)
  local list = {}
  for _, host in ipairs(hosts) do
    for _, address in ipairs(authority.addresses(host)) do
      list[#list + 1] = { name = host, address = address }
    end
  end
  return list
end

--- The resolvers that have to agree; none unless the parameter names them.
---@async
---@return runbook.dns.Server[]
function authority.resolvers(zone)
  return servers_of(zone.resolvers or {})
end

-- Who finds the servers of zones for us.
local function finders(zone)
  local list = servers_of(zone.via and #zone.via > 0 and zone.via or system_resolvers())
  if #list == 0 then
    errors.raise { kind = "missing", target = "/etc/resolv.conf", message = "this machine has no resolver",
      hint = "name one in the parameter: via: [9.9.9.9]" }
  end
  return list
end

-- An answer of the first resolver that has one.
local function resolve(zone, name, type)
  local failure
  for _, resolver in ipairs(finders(zone)) do
    local ok, answer = xpcall(ask.query, errors.handler, zone, resolver, name, type, { recurse = true })
    if ok and (answer.rcode == "NOERROR" or answer.rcode == "NXDOMAIN") then
      return answer
    elseif not ok and errors.is_cancelled(answer) then
      error(answer, 0)
    end
    failure = ok and select(2, xpcall(ask.refused, errors.handler, zone, resolver, answer, ("dig %s %s"):format(name, type))) or answer
  end
  error(failure, 0)
end

-- ---- who is named ----

local function hosts_of(records, zone_name)
  local list = {}
  for _, r in ipairs(records) do
    if r.type == "NS" and names.plain(r.name) == zone_name then
      list[#list + 1] = names.plain(r.data)
    end
  end
  table.sort(list)
  return list
end

local function resolved(zone, host)
  local list = {}
  for _, type in ipairs { "A", "AAAA" } do
    for _, r in ipairs(resolve(zone, host, type).answer) do
      list[#list + 1] = r.type == type and r.data or nil
    end
  end
  return list
end

-- The zone above: the owner of the SOA that covers the name above ours.
local function parent_of(zone)
  local above = zone.zone:match "^[^.]*%.(.*)$" or ""
  local answer = resolve(zone, above, "SOA")
  for _, section in ipairs { "answer", "authority" } do
    for _, r in ipairs(answer[section]) do
      if r.type == "SOA" then
        return names.plain(r.name)
      end
    end
  end
  errors.raise { kind = "missing", target = zone.zone, message = ("nobody says which zone is above %s"):format(zone.zone) }
end

local function glue_of(answer, host)
  local list = {}
  for _, r in ipairs(answer.additional) do
    if (r.type == "A" or r.type == "AAAA") and names.plain(r.name) == host then
      list[#list + 1] = r.data
    end
  end
  return list
end

-- What the first server of the parent that answers says of our zone.
local function delegation(zone)
  local parent, failure = parent_of(zone), nil
  for _, host in ipairs(hosts_of(resolve(zone, parent, "NS").answer, parent)) do
    for _, address in ipairs(resolved(zone, host)) do
      local ok, answer = xpcall(ask.query, errors.handler, zone, { name = host, address = address }, zone.zone, "NS")
      if ok then
        local hosts = hosts_of(answer.authority, zone.zone)
        hosts = #hosts > 0 and hosts or hosts_of(answer.answer, zone.zone)
        if #hosts > 0 then
          return hosts, answer, parent
        end
      elseif errors.is_cancelled(answer) then
        error(answer, 0)
      end
      failure = not ok and answer or failure
    end
  end
  if failure then
    error(failure, 0)
  end
  errors.raise { kind = "missing", target = zone.zone, code = "NXDOMAIN",
    message = ("the servers of %s know no zone %s: it is not delegated"):format(parent == "" and "the root" or parent, zone.zone),
    hint = "is the zone's name right? A zone that only this network knows needs `servers` in the parameter" }
end

local function look_up(zone)
  local found = { servers = {}, hosts = {}, notes = {} }
  local glue
  if zone.servers and #zone.servers > 0 then
    found.hosts = zone.servers
  else
    found.hosts, glue, found.parent = delegation(zone)
  end
  for _, host in ipairs(found.hosts) do
    local addresses = glue and glue_of(glue, host) or authority.addresses(host)
    if #addresses == 0 then
      addresses = resolved(zone, host)
    end
    for _, address in ipairs(addresses) do
      found.servers[#found.servers + 1] = { name = host, address = address }
    end
    if #addresses == 0 then
      found.notes[#found.notes + 1] = ("%s is named as a server of %s and has no address"):format(host, zone.zone)
    end
  end
  return found
end

--- The servers of a zone: each address of each server that the zone above names.
---@async
---@param zone runbook.Zone
---@return { servers: runbook.dns.Server[], hosts: string[], notes: string[], parent: string? }
function authority.find(zone)
  local known = zone.known
  if known == nil or time.now() - known.at > REMEMBERED then
    known = { at = time.now(), found = look_up(zone) }
    zone.known = known
  end
  return known.found
end

-- ---- what they say ----

local function row_of(zone, server, list)
  local row = { server = server, records = {} }
  local ok, err = xpcall(function()
    row.serial = ask.serial(zone, server)
    for _, name in ipairs(list) do
      local records = {}
      for _, type in ipairs(names.POINTING) do
        local found = ask.records(zone, server, name, type)
        table.move(found, 1, #found, #records + 1, records)
      end
      row.records[name] = records
    end
  end, errors.handler)
  if not ok then
    if errors.is_cancelled(err) or not errors.is(err) or err.kind == "internal" then
      error(err, 0)
    end
    row.problem = err
  end
  return row
end

--- What every server of the zone says of these names.
---@async
---@param zone runbook.Zone
---@param list string[]
---@return { server: runbook.dns.Server, serial: integer?, problem: runbook.Error?, records: table<string, runbook.dns.Record[]> }[]
function authority.rows(zone, list)
  local rows = {}
  task.each(authority.find(zone).servers, { limit = 16 }, function(server, i)
    rows[i] = row_of(zone, server, list)
  end)
  return rows
end

--- What a resolver gives for a name: the name's own records, with the seconds it will keep them.
---@async
---@return runbook.dns.Record[]
function authority.resolver_records(zone, resolver, name)
  local list = {}
  for _, type in ipairs { "A", "AAAA" } do
    local answer = ask.query(zone, resolver, name, type, { recurse = true })
    if answer.rcode ~= "NOERROR" and answer.rcode ~= "NXDOMAIN" then
      ask.refused(zone, resolver, answer, ("dig @%s %s %s"):format(resolver.name, name, type))
    end
    local seen = {}
    for _, r in ipairs(list) do
      seen[r.type .. r.data] = true
    end
    for _, r in ipairs(answer.answer) do
      if names.plain(r.name) == name and (r.type == type or r.type == "CNAME") and not seen[r.type .. r.data] then
        list[#list + 1] = { type = r.type, ttl = r.ttl, data = r.data }
      end
    end
  end
  return list
end

return authority
