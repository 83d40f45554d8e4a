--- How the data goes from source to target: straight, the target pulling, or on one machine without any connection.
---
--- A key is made for each pass. It may do one thing on the source: send units of one directory (copier/rsync.lua).

local effect = require "runbook.effect"
local ends = require "runbook.copier.ends"
local errors = require "runbook.errors"
local events = require "runbook.events"
local rsync = require "runbook.copier.rsync"

local route = {}

local DAY = 86400

-- $1 a host, $2 its port. What keys are shown there; a machine without ssh-keyscan says so.
local KEYS = [[
command -v ssh-keyscan >/dev/null || { echo "ssh-keyscan is missing: install openssh-client" >&2; exit 3; }
ssh-keyscan -T 10 -p "$2" -- "$1" 2>&1 || :]]

-- The addresses under which a machine may be seen.
local ADDRESSES = [[hostname -I 2>/dev/null || ip -o addr 2>/dev/null | awk '{ sub("/.*", "", $4); print $4 }']]

local function split_port(text, port)
  local host, given = text:match("^%[(.-)%]:?(%d*)$")
  if not host then
    host, given = text:match("^([^:]+):(%d+)$")
  end
  return host or text, math.tointeger(tonumber(given)) or port
end

-- Where the target may find the source, best first.
local function candidates(pair, info)
  if pair.from.place.seen_from_target then
    local host, port = split_port(pair.from.place.seen_from_target, info.port)
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

local function raise_no_route(pair, tried)
  local lines = {}
  for i, one in ipairs(tried) do
    lines[i] = ("  %s port %d: %s"):format(one.host, one.port, one.said)
  end
  errors.raise {
    kind = "unreachable", code = "EROUTE", target = pair.to.place.name,
    message = ("%s cannot open a connection to the ssh server of %s\n%s"):format(pair.to.place.name, pair.from.place.name,
      table.concat(lines, "\n")),
    hint = ("a firewall rule is missing: from %s to %s, TCP port %d; or the source has another address there: give seen_from_target")
      :format(pair.to.place.name, tried[1].host, tried[1].port),
  }
end

local function find_source(pair, info)
  local tried = {}
  for _, one in ipairs(candidates(pair, info)) do
    local said = pair.to.place:query_sh(KEYS, one.host, one.port, { timeout = 60 })
    if shows_key("\n" .. said, info) then
      return one
    end
    one.said = said:find(" ssh%-") and "another server answers there" or said:match("([^\n]*[%a][^\n]*)%s*$") or "no answer"
    one.said = one.said:gsub("^#.*$", "no answer")
    tried[#tried + 1] = one
  end
  raise_no_route(pair, tried)
end

--- The route of a pair: reads only.
---@async
---@param pair table
---@param from table  facts
---@param to table
---@return { kind: "local"|"pull", host?: string, port?: integer, user?: string, host_key?: string, text: string }
function route.find(pair, from, to)
  if ends.are_one_machine(from, to) then
    return { kind = "local", text = ("both directories are on %s: no connection is needed"):format(pair.to.place.name) }
  elseif not pair.from.place:identity() then
    errors.raise {
      kind = "unreachable", code = "EROUTE", message = ("%s is reached without ssh, so that no other machine can pull from it")
        :format(pair.from.place.name), hint = "name the source as a host, with an ssh server the target can reach",
    }
  end
  local info = require("runbook.ssh").identity(pair.from.place)
  local found = find_source(pair, info)
  return {
    kind = "pull", host = found.host, port = found.port, user = info.user, host_key = info.key_type .. " " .. info.key,
    text = ("the target pulls from %s port %d"):format(found.host, found.port),
  }
end

local function addresses_of(place)
  local list = {}
  for address in place:query_sh(ADDRESSES):gmatch("%S+") do
    if address ~= "127.0.0.1" and address ~= "::1" and not address:find("^fe80:") then
      list[#list + 1] = address
    end
  end
  return #list > 0 and table.concat(list, ",") or nil
end

local function make_key(pair, gently, addresses, job)
  return require("runbook.ssh").with_key {
    from = pair.to.place, to = pair.from.place, expires = 7 * DAY, from_address = addresses, job = job,
    command = rsync.sender { path = pair.from.path, sudo = pair.from.place.sudo, gently = gently },
  }
end

-- Does the key open the door? The source's end answers, and refuses, what is no request of ours.
local function try_key(pair, r, key)
  local argv = key:argv({ "sh", "-c", '$RUNBOOK_SSH $1 "$2" true', "sh", rsync.ssh_options(), r.host },
    { host_key = r.host_key, port = r.port, user = r.user })
  argv.stdin, argv.reads, argv.timeout = key.private, true, 60
  local _, _, stderr = pair.to.place:exec(argv)
  return stderr:find("runbook: refused", 1, true) ~= nil, stderr
end

local function raise_refused(pair, r, stderr)
  local said = stderr:match("([^\n]+)%s*$") or "nothing was said"
  local auth = stderr:find("Permission denied", 1, true) or stderr:find("password is required", 1, true)
  errors.raise {
    kind = auth and "auth" or "unreachable", code = "EROUTE", target = pair.to.place.name, stderr = stderr,
    message = ("%s cannot log in to %s as %s with the key of this pass: %s"):format(pair.to.place.name, r.host, r.user, said),
    hint = auth and ("the ssh server of %s must let %s in by ~/.ssh/authorized_keys"):format(pair.from.place.name, r.user) or nil,
  }
end

--- Open the route for a pass: a key is made, put on the source and tried.
---@async
---@param pair table
---@param r table  what `find` gave
---@param gently boolean  the source has users
---@param job string  the name of the jobs that use it
---@return { remote: boolean, stdin?: any, source: fun(unit: string): string, wrap: fun(argv: string[]): string[] }
function route.open(pair, r, gently, job)
  if r.kind == "local" then
    local base = pair.from.path
    return {
      remote = false,
      source = function(unit) return unit == "." and base .. "/" or ("%s/%s/"):format(base, unit) end,
      wrap = function(argv) return argv end,
    }
  end
  local addresses = not pair.unbound and addresses_of(pair.to.place) or nil
  local key = make_key(pair, gently, addresses, job)
  if not effect.planning() then
    local good, said = try_key(pair, r, key)
    if not good and addresses and said:find("Permission denied", 1, true) then
      key:done()
      pair.unbound = true
      events.notice(("%s sees %s under another address than its own; the key is not bound to one"):format(pair.from.place.name,
        pair.to.place.name))
      key = make_key(pair, gently, nil, job)
      good, said = try_key(pair, r, key)
    end
    if not good then
      key:done()
      raise_refused(pair, r, said)
    end
  end
  local host = r.host:find(":", 1, true) and "[" .. r.host .. "]" or r.host
  return {
    remote = true, key = key, stdin = key.private,
    source = function() return host .. ":." end,
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
