--- How the data goes from source to target: the target pulls, the source pushes, both talk through the operator, or they are
--- one machine and no connection is needed.
---
--- A key is made for each pass and lies at neither end. Where it opens a door it may do one thing: what the engine says.

local effect = require "runbook.effect"
local ends = require "runbook.copier.ends"
local errors = require "runbook.errors"
local events = require "runbook.events"
local retry = require "runbook.retry"
local rsync = require "runbook.copier.rsync"

local route = {}

local DAY = 86400

-- $1 a host, $2 its port, $3 a kind of key. What key is shown there; a machine without ssh-keyscan says so. For all kinds it
-- would make a connection each at once, which is more than some servers let in. Then the addresses under which the machine
-- that asks may be seen.
local KEYS = [[
command -v ssh-keyscan >/dev/null || { echo "ssh-keyscan is missing: install openssh-client" >&2; exit 3; }
ssh-keyscan -T 10 -t "$3" -p "$2" -- "$1" 2>&1
echo "seen as:"
hostname -I 2>/dev/null || ip -o addr 2>/dev/null | awk '{ sub("/.*", "", $4); print $4 }' || :]]

local function split_port(text, port)
  local host, given = text:match("^%[(.-)%]:?(%d*)$")
  if not host then
    host, given = text:match("^([^:]+):(%d+)$")
  end
  return host or text, math.tointeger(tonumber(given)) or port
end

-- Where one machine may find another, best first.
local function candidates(place, info)
  if place.seen_from_target then
    local host, port = split_port(place.seen_from_target, info.port)
    return { { host = host, port = port, given = true } }
  end
  local list, seen = {}, {}
  for _, host in ipairs { info.address, info.host } do
    if host and host ~= "" and not seen[host] then
      seen[host] = true
      list[#list + 1] = { host = host, port = info.port }
    end
  end
  return list
end

local function shows_key(text, info)
  for kind, blob in text:gmatch("\n?[^\n#]%S* (%S+) (%S+)") do
    if kind == info.key_type and blob == info.key then
      return true
    end
  end
  return false
end

-- As ssh-keyscan calls it.
local function kind_of(key_type)
  return key_type:find("^ecdsa") and "ecdsa" or key_type:find("^sk%-ecdsa") and "ecdsa-sk" or key_type:find("^sk%-") and "ed25519-sk"
    or key_type:match("^ssh%-(%w+)") or key_type
end

local function is_loopback(host)
  return host == "localhost" or host == "::1" or host:find("^127%.") ~= nil
end

-- Where a machine may be seen to come from. Who enters by a loopback address is on the same machine, or behind something that
-- forwards there, and is seen as such.
local function addresses_of(text, host)
  local list = is_loopback(host) and { "127.0.0.1", "::1" } or {}
  for address in text:gmatch("%S+") do
    if not is_loopback(address) and not address:find("^fe80:") then
      list[#list + 1] = address
    end
  end
  return #list > 0 and table.concat(list, ",") or nil
end

-- Does the ssh server of `there` answer `from`, with the key it shows us?
local function probe(from, there)
  local tried = { from = from, there = there }
  if not require("runbook.ssh").is(there) then
    tried[1] = { host = there.name, port = 22, said = "it is reached without ssh" }
    return nil, tried
  end
  local info = require("runbook.ssh").identity(there)
  for _, one in ipairs(candidates(there, info)) do
    local answer = from:query_sh(KEYS, one.host, one.port, kind_of(info.key_type), { timeout = 60 })
    local said, seen_as = ("\n" .. answer .. "\n"):match("^(.-)\nseen as:\n(.*)$")
    if shows_key(said, info) then
      return { host = one.host, port = one.port, user = info.user, host_key = info.key_type .. " " .. info.key,
        addresses = addresses_of(seen_as, one.host) }
    end
    one.said = said:find(" ssh%-") and "another server answers there" or said:match("([^\n]*[%a][^\n]*)%s*$") or "no answer"
    one.said = one.said:gsub("^#.*$", "no answer")
    tried[#tried + 1] = one
  end
  return nil, tried
end

local function describe(tried)
  local lines = { ("%s cannot open a connection to the ssh server of %s"):format(tried.from.name, tried.there.name) }
  for i, one in ipairs(tried) do
    lines[i + 1] = ("  %s port %d: %s"):format(one.host, one.port, one.said)
  end
  return table.concat(lines, "\n")
end

local function missing_rule(tried)
  return ("a firewall rule is missing: from %s to %s, TCP port %d"):format(tried.from.name, tried[1].host, tried[1].port)
end

local function raise_no_route(tried)
  errors.raise {
    kind = "unreachable", code = "EROUTE", target = tried.from.name, message = describe(tried),
    hint = missing_rule(tried) .. "; or the other end has another address there: give seen_from_target",
  }
end

-- Who opens the connection, and who is entered.
local function sides(pair, kind)
  if kind == "push" then
    return pair.from.place, pair.to.place
  end
  return pair.to.place, pair.from.place
end

local TEXT = { pull = "the target pulls from %s port %d", push = "the source pushes to %s port %d" }

local function straight(pair, kind)
  local found, tried = probe(sides(pair, kind))
  if found then
    found.kind, found.text = kind, TEXT[kind]:format(found.host, found.port)
  end
  return found, tried
end

-- One that is not there tomorrow has no ssh server, and no job on it could be found again.
local function fleeting_end(pair)
  return pair.from.place.backend.fleeting and pair.from.place or pair.to.place.backend.fleeting and pair.to.place or nil
end

local function past_fleeting(pair, at, can)
  local wanted = pair.route_wanted
  if wanted and wanted ~= "operator" then
    errors.raise { kind = "usage", message = ("the route `%s` cannot be gone: %s is in a pod, which is reached through its cluster only")
      :format(wanted, at.name) }
  elseif not can.operator then
    errors.raise { kind = "unreachable", code = "EROUTE", target = at.name,
      message = ("%s is in a pod, which is reached through its cluster only, and so only by our program"):format(at.name) }
  end
  return { kind = "operator", text = ("all bytes go through this machine: %s is in a pod, which is reached through its cluster only")
    :format(at.name) }
end

local function through_us(tried)
  local why = tried and (": %s; %s"):format(describe(tried):gsub("\n%s*", "; "), missing_rule(tried)) or ""
  return { kind = "operator", text = "all bytes go through this machine" .. why }
end

--- The route of a pair: reads only. What an engine cannot use is not tried.
---@async
---@param pair table  `route`: the one that is wanted
---@param from table  facts
---@param to table
---@param can table<string, true>  routes of the engine
---@return { kind: "local"|"pull"|"push"|"operator", host?: string, port?: integer, user?: string, host_key?: string, text: string,
---  addresses?: string }  addresses: from where the other end is seen to come
function route.find(pair, from, to, can)
  local wanted = pair.route_wanted
  if wanted and not can[wanted] then
    errors.raise { kind = "usage", message = ("the route `%s` needs our program at both ends"):format(wanted) }
  elseif fleeting_end(pair) then
    return past_fleeting(pair, fleeting_end(pair), can)
  elseif not wanted and ends.are_one_machine(from, to) then
    return { kind = "local", text = ("both directories are on %s: no connection is needed"):format(pair.to.place.name) }
  elseif wanted == "operator" then
    return through_us()
  end
  local found, tried
  if wanted ~= "push" then
    found, tried = straight(pair, "pull")
  end
  if not found and can.push and wanted ~= "pull" then
    local tried_push
    found, tried_push = straight(pair, "push")
    tried = tried or tried_push
  end
  if not found and (wanted or not can.operator) then
    raise_no_route(tried)
  end
  return found or through_us(tried)
end

local function make_key(pair, r, addresses, o)
  local by, into = sides(pair, r.kind)
  return require("runbook.ssh").with_key {
    from = by, to = into, expires = 7 * DAY, from_address = addresses, job = o.job, command = o.command,
  }
end

local CUT = { "Broken pipe", "Connection closed", "Connection reset", "closed by remote host", "kex_exchange_identification" }

local function was_cut(stderr)
  for _, words in ipairs(CUT) do
    if stderr:find(words, 1, true) then
      return true
    end
  end
  return false
end

-- Does the key open the door? The other end answers, and refuses, what is no request of ours. A connection that is cut before it
-- says so is tried again.
local function try_key(pair, r, key)
  local argv = key:argv({ "sh", "-c", '$RUNBOOK_SSH $1 "$2" true', "sh", rsync.ssh_options(), r.host },
    { host_key = r.host_key, port = r.port, user = r.user })
  argv.stdin, argv.reads, argv.timeout = key.private, true, 60
  local by, into = sides(pair, r.kind)
  return retry.call({ target = by.name, what = "trying the key of this pass", reads = true }, function()
    local _, _, stderr = by:exec(argv)
    local good = stderr:find("runbook: refused", 1, true) ~= nil
    if not good and was_cut(stderr) then
      errors.raise { kind = "lost", code = "EROUTE", target = by.name, stderr = stderr,
        message = ("the connection to %s was cut while the key of this pass was tried"):format(into.name) }
    end
    return good, stderr
  end)
end

local function raise_refused(pair, r, stderr)
  local by, into = sides(pair, r.kind)
  local said = stderr:match("([^\n]+)%s*$") or "nothing was said"
  local auth = stderr:find("Permission denied", 1, true) or stderr:find("password is required", 1, true)
  errors.raise {
    kind = auth and "auth" or "unreachable", code = "EROUTE", target = by.name, stderr = stderr,
    message = ("%s cannot log in to %s as %s with the key of this pass: %s"):format(by.name, r.host, r.user, said),
    hint = auth and ("the ssh server of %s must let %s in by ~/.ssh/authorized_keys"):format(into.name, r.user) or nil,
  }
end

--- Open the route for a pass: a key is made, put where it is needed and tried.
---@async
---@param pair table
---@param r table  what `find` gave
---@param o { command: string, job: string, door?: "bound"|"unbound", untried?: boolean }  the only thing the key may do; the name of the
---  jobs that use it; how such a key went through an earlier time: then it is not tried first; untried: nor then, as the first job shows
---@return { remote: boolean, stdin?: any, host?: string, key?: table, door?: string, wrap: fun(argv: string[]): string[] }
function route.open(pair, r, o)
  if r.kind == "local" or r.kind == "operator" then
    return { remote = false, wrap = function(argv) return argv end }
  end
  local by, into = sides(pair, r.kind)
  local addresses = not pair.unbound and o.door ~= "unbound" and r.addresses or nil
  local key = make_key(pair, r, addresses, o)
  if not effect.planning() and not o.door and not o.untried then
    local good, said = try_key(pair, r, key)
    if not good and addresses and said:find("Permission denied", 1, true) then
      key:done()
      pair.unbound = true
      events.notice(("%s sees %s under another address than its own; the key is not bound to one"):format(into.name, by.name))
      key = make_key(pair, r, nil, o)
      good, said = try_key(pair, r, key)
    end
    if not good then
      key:done()
      raise_refused(pair, r, said)
    end
  end
  return {
    remote = true, key = key, untried = o.untried and not o.door, door = (pair.unbound or o.door == "unbound") and "unbound" or "bound",
    stdin = key.private, host = r.host:find(":", 1, true) and "[" .. r.host .. "]" or r.host,
    wrap = function(argv) return key:argv(argv, { host_key = r.host_key, port = r.port, user = r.user }) end,
  }
end

--- The pass is over: its key is taken away.
---@async
function route.close(opened)
  if opened.key then
    opened.key:done()
  end
end

return route
