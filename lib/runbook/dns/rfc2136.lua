--- Zones whose primary server takes updates signed with a key (RFC 2136, RFC 8945): BIND, Knot, PowerDNS, Windows, ...
---
---     dns: { kind: rfc2136, zone: uni.example, server: ns1.uni.example, key: { name: hubs, secret: file:hubs.key } }
---
--- One message changes all names or none, and only if they are still what they were when we looked.

local ask = require "runbook.dns.ask"
local authority = require "runbook.dns.authority"
local core = require "runbook.core.dns"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local names = require "runbook.dns.names"
local shell = require "runbook.shell"

local rfc2136 = {}

--- Of the parameter, besides what every kind has.
rfc2136.fields = {
  { "server", "string", "the primary server, which takes updates" },
  { "key", "dns key", "what it knows us by" },
}

local function server_of(zone)
  return { name = zone.server, address = authority.addresses(zone.server)[1] }
end

local function send(zone, server, lines)
  local answer, message, code = core.update {
    address = server.address, port = zone.port, zone = zone.zone .. ".", lines = table.concat(lines, "\n"), key = zone.key,
    timeout = ask.timeout * 2,
  }
  if not answer then
    errors.raise { kind = errors.kind(code), code = code, target = server.name, tried = "nsupdate", message =
      ("%s (%s): %s"):format(server.name, server.address, message) }
  end
  return answer
end

-- The server tells whether a name is there or only served by a wildcard: a prerequisite without a change.
local function is_used(zone, server, name)
  local answer = send(zone, server, { ("prereq yxdomain %s."):format(name) })
  if answer.rcode == "NXDOMAIN" then
    return false
  elseif answer.rcode ~= "NOERROR" then
    ask.refused(zone, server, answer, ("nsupdate: prereq yxdomain %s"):format(name))
  end
  return true
end

--- What the primary server says of names.
---@async
function rfc2136.read(zone, list)
  local server, states = server_of(zone), {}
  for i, name in ipairs(list) do
    states[i] = ask.state(zone, server, name, function(one) return is_used(zone, server, one) end)
  end
  return states
end

local function line(format, name, r)
  return (format:format(name, r and r.type, r and r.data))
end

local function prerequisites(edit, lines)
  if edit.unused then
    lines[#lines + 1] = line("prereq nxdomain %s.", edit.name)
    return
  end
  for _, type in ipairs(names.POINTING) do
    local before = #lines
    for _, r in ipairs(edit.from) do
      lines[#lines + 1] = r.type == type and line("prereq yxrrset %s. %s %s", edit.name, r) or nil
    end
    if #lines == before then
      lines[#lines + 1] = line("prereq nxrrset %s. %s", edit.name, { type = type })
    end
  end
end

local function updates(edit, lines)
  for _, type in ipairs(names.POINTING) do
    for _, r in ipairs(edit.from) do
      if r.type == type then
        lines[#lines + 1] = line("update delete %s. %s", edit.name, r)
        break
      end
    end
  end
  for _, r in ipairs(edit.to) do
    lines[#lines + 1] = ("update add %s. %d %s %s"):format(edit.name, r.ttl, r.type, r.data)
  end
end

local function lines_of(edits)
  local lines = {}
  for _, edit in ipairs(edits) do
    prerequisites(edit, lines)
  end
  for _, edit in ipairs(edits) do
    updates(edit, lines)
  end
  return lines
end

-- Without a look nobody knows what has to go, so all of it does.
local function blind_lines(edits)
  local lines = {}
  for _, edit in ipairs(edits) do
    for _, type in ipairs(names.POINTING) do
      lines[#lines + 1] = ("update delete %s. %s"):format(edit.name, type)
    end
    updates({ name = edit.name, from = {}, to = edit.to }, lines)
  end
  return lines
end

--- The same with nsupdate.
function rfc2136.by_hand(zone, edits)
  local lines = edits[1].from and lines_of(edits) or blind_lines(edits)
  table.insert(lines, 1, ("server %s %d\nzone %s"):format(zone.server, zone.port, zone.zone))
  lines[#lines + 1] = "send\n"
  return ("printf %s | nsupdate -k KEYFILE"):format(shell.quote((table.concat(lines, "\n"):gsub("\n", "\\n"))))
end

-- ---- that nothing else changed ----

local OURS_TO_EXPECT = { SOA = true, RRSIG = true, NSEC = true, NSEC3 = true, NSEC3PARAM = true, TYPE65534 = true }

-- The whole zone as a set of lines, where the server gives it to us; nil where not.
local function whole(zone, server)
  local answer = ask.query(zone, server, zone.zone, "AXFR", { key = zone.key })
  if answer.rcode ~= "NOERROR" then
    return nil
  end
  local set = {}
  for _, r in ipairs(answer.answer) do
    if not OURS_TO_EXPECT[r.type] then
      set[("%s %d %s %s"):format(names.plain(r.name), r.ttl, r.type, r.data)] = true
    end
  end
  return set
end

local function is_ours(text, edits)
  local name, _, type = text:match "^(%S+) (%d+) (%S+)"
  for _, edit in ipairs(edits) do
    if edit.name == name and (type == "A" or type == "AAAA" or type == "CNAME") then
      return true
    end
  end
  return false
end

local function strange_lines(before, after, edits)
  local list = {}
  for text in pairs(before) do
    list[#list + 1] = not after[text] and not is_ours(text, edits) and "- " .. text or nil
  end
  for text in pairs(after) do
    list[#list + 1] = not before[text] and not is_ours(text, edits) and "+ " .. text or nil
  end
  table.sort(list)
  return list
end

-- Updates of this kind touch what they name only, so whatever else changed was somebody else; it is worth knowing.
local function report_others(zone, before, after, edits)
  local list = before and after and strange_lines(before, after, edits) or {}
  if #list > 0 then
    events.notice(("while we changed %s, somebody else changed %d more: %s"):format(zone.zone, #list,
      table.concat(list, "; ", 1, math.min(5, #list))), "warning")
  end
end

-- ---- changing ----

local function states_by_name(zone, edits)
  local list = {}
  for i, edit in ipairs(edits) do
    list[i] = edit.name
  end
  return rfc2136.read(zone, list)
end

local function is_done(states, edits)
  for i, edit in ipairs(edits) do
    if not names.same(names.pointing(states[i].records), edit.to, true) then
      return false
    end
  end
  return true
end

local function conflict(zone, states, edits)
  local lines = {}
  for i, edit in ipairs(edits) do
    if not names.same(names.pointing(states[i].records), edit.from, true) then
      lines[#lines + 1] = ("%s was %s, and is now %s"):format(edit.name, names.words(edit.from), names.state_words(states[i]))
    end
  end
  errors.raise({
    kind = "conflict", target = zone.server, tried = "nsupdate", again = false,
    message = ("somebody else changed %s between our look and our change, so nothing was changed: %s"):format(zone.zone,
      #lines > 0 and table.concat(lines, "; ") or "it is as it was again"),
    hint = "find out who, then resume: it looks again",
  }, 2)
end

local CHANGED = { YXDOMAIN = true, YXRRSET = true, NXDOMAIN = true, NXRRSET = true }
local LOST = { lost = true, timeout = true }

-- Sends it; when nobody knows what became of it, looks. Sending it twice does nothing the second time.
local function send_update(zone, server, edits)
  local ok, answer = xpcall(send, errors.handler, zone, server, lines_of(edits))
  local states
  if not ok and not (errors.is(answer) and LOST[answer.kind]) then
    error(answer, 0)
  elseif not ok or CHANGED[answer.rcode] then
    states = states_by_name(zone, edits)
    if is_done(states, edits) then
      return
    elseif not ok then
      error(answer, 0)
    end
    conflict(zone, states, edits)
  elseif answer.rcode ~= "NOERROR" then
    ask.refused(zone, server, answer, "nsupdate of " .. zone.zone)
  end
end

--- Make the edits, all or none, and look that they are there and nothing else is another.
---@async
function rfc2136.change(zone, edits)
  local server = server_of(zone)
  local before = whole(zone, server)
  send_update(zone, server, edits)
  local states = states_by_name(zone, edits)
  if not is_done(states, edits) then
    local lines = {}
    for i, edit in ipairs(edits) do
      lines[i] = ("%s is %s instead of %s"):format(edit.name, names.state_words(states[i]), names.words(edit.to))
    end
    errors.raise { kind = "conflict", target = zone.server, tried = "nsupdate", again = false,
      message = ("%s took the change, and does not say so: %s"):format(zone.server, table.concat(lines, "; ")),
      hint = "somebody else may have changed it right afterwards; look before you go on" }
  end
  report_others(zone, before, whole(zone, server), edits)
end

local takes_key = effect.verb {
  name = "dns.try_key", class = "read",
  target = function(zone) return zone.server end,
  summary = function(zone) return ("try our key at %s"):format(zone.server) end,
  by_hand = function(zone) return ("printf 'server %s %d\\nzone %s\\nprereq yxdomain %s\\nsend\\n' | nsupdate -k KEYFILE"):format(
    zone.server, zone.port, zone.zone, zone.zone) end,
  body = function(zone)
    local server = server_of(zone)
    is_used(zone, server, zone.zone)
    return (select(2, ask.serial(zone, server)))
  end,
}

--- What is looked at before the first change.
function rfc2136.checks(zone)
  return {
    { ("%s takes our key for %s"):format(zone.server, zone.zone), function()
      local primary = takes_key(zone)
      if primary ~= names.plain(zone.server) then
        return ("the zone names %s as its primary; %s takes our updates"):format(primary, zone.server)
      end
    end },
  }
end

return rfc2136
