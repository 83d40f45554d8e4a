--- Machines by ssh.
---
---     local old = ssh.host { "nfs-old.example.org", user = "ubuntu", sudo = true }
---     old:query { "uptime" }
---     local nfs = ssh.host { "10.0.0.7", via = cluster:dial { deployment = "hub" } }       -- through a pod
---     old:tunnel({ to = "127.0.0.1:5432" }, function(port) ... end)                        -- its port, here
---     new:reverse_tunnel({ to = "127.0.0.1:22", via = old }, function(port) ... end)       -- old's port, on new
---
--- ssh_config is honoured (jump hosts, keys, agents, ports); nothing is connected before the first command. Sessions are
--- kept and shared. A host key must be known: pinned with `host_key`, or in known_hosts.

local certificate = require "runbook.ssh.certificate"
local config = require "runbook.ssh.config"
local core = require "runbook.core.ssh"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local json = require "runbook.json"
local login = require "runbook.ssh.login"
local options = require "runbook.options"
local place = require "runbook.place"
local pool = require "runbook.ssh.pool"
local process = require "runbook.core.process"
local refusal = require "runbook.ssh.refusal"
local secret = require "runbook.secret"
local shell = require "runbook.shell"
local tunnel = require "runbook.ssh.tunnel"

local ssh = {}

local Backend = {}
Backend.__index = Backend

local pools = {}
local unshared = setmetatable({}, { __mode = "k" }) -- sessions for one purpose

local check_host = options.declare("ssh.host", {
  host = { "string", "name, as ssh knows it", optional = true },
  user = { "string", "login", optional = true },
  port = { "integer", "if ssh_config does not say it", optional = true },
  sudo = { "boolean|string", "commands run as root, or as that user", optional = true },
  sudo_password = { "any", "a secret, where sudo wants one", optional = true },
  host_key = { "string|table", "the host key's fingerprint, `SHA256:...`, or several", optional = true },
  identity = { "any", "a key file, or a secret with a key", optional = true },
  passphrase = { "any", "a secret, of `identity`", optional = true },
  certificate = { "any", "of `identity`: a file, or the text of one; without it the `-cert.pub` beside the key", optional = true },
  password = { "any", "a secret", optional = true },
  answers = { "table", "secrets, for what the server asks, in order; a person is asked the others", optional = true },
  jump = { "string", "hosts to go through, instead of ssh_config's ProxyJump", optional = true },
  via = { "table", "a way that is no host: `cluster:dial { ... }`", optional = true },
  config = { "string", "an ssh_config file instead of the usual ones", optional = true },
  known_hosts = { "string", "a file instead of the usual ones", optional = true },
  seen_from_target = { "string", "where the other server finds it, if elsewhere", optional = true },
  name = { "string", "what messages call it", optional = true },
  written_at = { "string", "where a person wrote it down, for messages", optional = true },
  timeout = { "number", "seconds to connect", default = 15 },
  keepalive = { "number", "seconds of silence before we ask whether it is there", default = 15 },
})

-- Options that make two places use the same connections.
local function pool_key(o)
  local parts = {}
  for _, field in ipairs { "host", "user", "port", "jump", "config", "known_hosts", "identity", "certificate" } do
    parts[#parts + 1] = field .. "=" .. tostring(o[field] or "")
  end
  local pins = type(o.host_key) == "table" and table.concat(o.host_key, ",") or o.host_key or ""
  parts[#parts + 1] = o.via and "via=" .. json.encode(o.via:reference(), { sorted = true }) or nil
  return table.concat(parts, "\0") .. "\0" .. pins
end

local function pins_of(o)
  if type(o.host_key) == "string" then
    return { o.host_key }
  end
  return o.host_key
end

local function identities_of(o, c)
  if not o.identity then
    return config.identities(c)
  end
  local id = { passphrase = o.passphrase }
  if type(o.identity) == "string" then
    id.path = config.expand(o.identity, c)
  else
    id.key = o.identity
  end
  if secret.is(o.certificate) or certificate.is_text(o.certificate) then
    id.certificate_text = o.certificate
  elseif o.certificate then
    id.certificate = config.expand(o.certificate, c)
  elseif id.path then
    return config.with_certificate(id)
  end
  return { id }
end

local function host_of_jump(text)
  local user, host, port = text:match "^([^@]+)@([^:]+):?(%d*)$"
  if not user then
    host, port = text:match "^([^:]+):?(%d*)$"
  end
  return { host = host, user = user, port = math.tointeger(tonumber(port)) }
end

local borrow

-- A stream to the server through the hosts of a ProxyJump, the last of which is nearest to it.
local function through_jump(o, c, jump)
  local before, last = jump:match "^(.*),([^,]+)$"
  local hop = host_of_jump(last or jump)
  hop.jump, hop.config, hop.timeout, hop.keepalive = before, o.config, o.timeout, o.keepalive
  local stream, message, code = borrow(hop, function(session)
    return session:dial(c.hostname, math.tointeger(tonumber(c.port)))
  end)
  if not stream then
    errors.raise {
      kind = errors.kind(code), code = code, target = o.host, message = ("through %s: %s"):format(hop.host, message),
    }
  end
  return stream
end

local function through_command(c, line)
  line = line:gsub("%%(.)", { h = c.hostname, p = c.port, r = c.user, n = c.alias, ["%"] = "%" })
  local child, message, code = process.open { argv = { "sh", "-c", "exec " .. line }, duplex = true }
  if not child then
    errors.raise { kind = errors.kind(code), code = code, target = c.alias, message = "ProxyCommand: " .. message }
  end
  return child:stdin(), child
end

-- What a ProxyCommand said before it gave up is the reason, not the end of its stream.
local function said_by(carrier)
  if carrier then
    local stderr = carrier:stderr()
    carrier:close()
    local line = stderr:line()
    return line and ("; %s said: %s"):format(carrier.name or "its ProxyCommand", line)
  end
end

-- A stream to the server where it is not simply reached, and the program that is behind it.
local function way_to(o, c)
  local jump = o.jump or c.proxyjump
  if o.via then
    return o.via:open(c.hostname, math.tointeger(tonumber(c.port)))
  elseif jump then
    return through_jump(o, c, jump)
  elseif c.proxycommand then
    return through_command(c, c.proxycommand)
  end
end

-- A session, and the program behind its stream. `shared`: the pool it is for, which keeps the password that was typed;
-- nothing, when another came about meanwhile that will do, unless it is to be a session `apart` from those.
local function connect(o, shared, apart)
  secret.ready_all(o.identity, o.passphrase, o.certificate, o.password, o.answers)
  local c = config.of(o)
  local identities = identities_of(o, c)
  local carrier
  local function try(may_ask)
    local stream
    stream, carrier = way_to(o, c)
    return core.connect {
      host = c.hostname, port = math.tointeger(tonumber(c.port)), user = c.user, alias = c.hostkeyalias,
      stream = stream, timeout = o.timeout, keepalive = o.keepalive,
      known_hosts = o.known_hosts and { o.known_hosts } or config.known_hosts(c), pins = pins_of(o),
      identities = identities, identities_only = o.identity ~= nil or c.identitiesonly == "yes", agent = config.agent(c),
      password = o.password or shared.typed, answers = o.answers, ask = may_ask,
    }
  end
  local silent = c.batchmode == "yes"
  local session, message, code, details, typed = login.enter(try, {
    host = o.name or o.host, user = c.user, lost = shared.reached, silent = silent,
    needless = function() return shared.narrow and not apart and #shared.connections > 0 end,
  })
  if not session and code then
    shared.typed = nil
    errors.raise(refusal.error(o, message .. (said_by(carrier) or ""), code, details,
      { user = c.user, identities = identities, silent = silent }))
  elseif session and typed then
    shared.narrow = true -- nobody wants to answer again for each connection
    shared.typed = not o.password and session:info().method == "password" and typed[1] or nil
  end
  return session, carrier
end

local function pool_of(o)
  local key = pool_key(o)
  if not pools[key] then
    local carriers = setmetatable({}, { __mode = "k" }) -- a ProxyCommand lives as long as the session over it
    pools[key] = pool.new(function(shared)
      local session, carrier = connect(shared.options, shared)
      if session then
        carriers[session] = carrier
      end
      return session
    end)
    pools[key].options = o
  elseif o.password or o.answers or o.passphrase then
    pools[key].options = o -- one from a reference, which holds no secrets, may have been first
  end
  return pools[key]
end

-- Calls `fn(session, give_back)` on a connection with room. Unless `keep`, the room is given back when it returns; a server
-- that opens no more channels teaches the pool its limit.
function borrow(o, fn, keep)
  local shared = pool_of(o)
  for _ = 1, 3 do
    local connection = shared:acquire()
    local function give_back(how)
      if connection then
        shared:release(connection, how)
        connection = nil
      end
    end
    local r = table.pack(pcall(fn, connection.session, give_back))
    if not keep or not r[1] or r[2] == nil then
      give_back(r[1] and r[4] == "EBUSY" and "refused" or nil)
    end
    if not r[1] then
      error(r[2], 0)
    elseif r[2] ~= nil or r[4] ~= "EBUSY" then
      return table.unpack(r, 2, r.n)
    end
  end
  return nil, o.host .. " opens no more channels", "EBUSY"
end

-- One language for messages; env and not an assignment, so that any login shell understands it.
local function line_of(argv)
  return "exec env LC_ALL=C " .. shell.join(argv)
end

local Child = {}
Child.__index = Child

function Child:stdin() return self.channel:stdin() end
function Child:stdout() return self.channel:stdout() end
function Child:stderr() return self.channel:stderr() end

function Child:wait() return self.channel:wait() end

function Child:close()
  self.channel:close()
  self.give_back()
end

--- It does not answer. Its server counts it as a session until it ends, if it ever does, so others go another way.
function Child:give_up()
  self.channel:close()
  self.give_back("retire")
end

Child.__close = Child.close

function Backend:open(argv)
  local line = line_of(argv)
  return borrow(self.options, function(session, give_back)
    local channel, message, code = session:open(line)
    if not channel then
      return nil, message, code
    end
    return setmetatable({ channel = channel, give_back = give_back }, Child)
  end, true)
end

--- How often a connection is tried: a server never met may well be a wrong name.
function Backend:tries()
  return pool_of(self.options).reached and 10 or 3
end

-- What a person would type: `ssh`, `words` for it, what finds the server, and perhaps a command for it.
function Backend:line_by_hand(words, command)
  local o = self.options
  words = table.move(words, 1, #words, 2, { "ssh" })
  if o.config then
    table.move({ "-F", o.config }, 1, 2, #words + 1, words)
  end
  if o.port then
    table.move({ "-p", ("%d"):format(o.port) }, 1, 2, #words + 1, words)
  end
  words[#words + 1] = (o.user and o.user .. "@" or "") .. o.host
  words[#words + 1] = command
  return shell.join(words)
end

function Backend:by_hand(argv)
  return self:line_by_hand({}, shell.join(argv))
end

-- Be connected; raises why not.
function Backend:reach()
  return borrow(self.options, function() return true end)
end

-- A stream to a port that the server can reach. Such channels do not count for MaxSessions, so the room is given back at
-- once.
function Backend:dial(host, port)
  return borrow(self.options, function(session)
    return session:dial(host, port)
  end)
end

-- A connection that nobody shares, the caller's to close; and what must live as long as it.
function Backend:fresh()
  local shared = pool_of(self.options)
  local session, carrier = connect(shared.options, shared, true)
  unshared[session] = true
  return session, carrier
end

function Backend:reference()
  local o = self.options
  return {
    kind = "ssh", host = o.host, user = o.user, port = o.port, host_key = o.host_key, jump = o.jump, config = o.config,
    via = o.via and o.via:reference() or nil, known_hosts = o.known_hosts, identity = type(o.identity) == "string" and o.identity or nil,
    certificate = type(o.certificate) == "string" and o.certificate or nil,
    seen_from_target = o.seen_from_target, name = o.name,
  }
end

--- A machine by ssh; nothing is connected yet. See the options above; the first may also be given by itself.
---@param o { [1]: string, host?: string, user?: string, port?: integer, sudo?: boolean|string, host_key?: string, identity?: any,
---   certificate?: any, password?: runbook.secret, answers?: runbook.secret[] }
---@return runbook.Place
function ssh.host(o)
  o = check_host(o, 2)
  o.host = o.host or o[1]
  o[1] = nil
  if type(o.host) ~= "string" or o.host == "" then
    errors.raise({ kind = "usage", message = 'ssh.host: which one? as in ssh.host { "nfs-old" }' }, 2)
  end
  if o.via and o.jump then
    errors.raise({ kind = "usage", message = "ssh.host: `via` or `jump`, not both" }, 2)
  elseif o.certificate and not o.identity then
    errors.raise({ kind = "usage", message = "ssh.host: `certificate`: of which key? `identity` says it" }, 2)
  end
  local user, rest = o.host:match "^([^@]+)@(.+)$"
  if user then
    o.user, o.host = o.user or user, rest
  end
  local backend = setmetatable({ options = o }, Backend)
  return place.new(backend, {
    name = o.name or o.host, user = o.user, sudo = o.sudo, sudo_password = o.sudo_password, seen_from_target = o.seen_from_target,
  })
end

place.register("ssh", function(reference)
  local o = {}
  for key, value in pairs(reference) do
    o[key] = key ~= "kind" and value or nil
  end
  o.via = o.via and place.open(o.via)
  return ssh.host(o)
end)

local function must_be_ssh(at, what)
  if getmetatable(at.backend) ~= Backend then
    errors.raise({ kind = "usage", message = ("%s: %s is not reached by ssh"):format(what, at.name) }, 3)
  end
end

local function must_reach_ports(at, what)
  if not at.backend.dial then
    errors.raise({ kind = "usage", message = ("%s: %s is not reached by ssh, and is no container"):format(what, at.name) }, 3)
  end
end

local identity = effect.verb {
  name = "ssh.identity", class = "read",
  target = function(at) return at.name end,
  summary = function(at) return "see the host key of " .. at.name end,
  by_hand = function(at) return "ssh-keyscan " .. at.backend.options.host end,
  body = function(at)
    return borrow(at.backend.options, function(session) return session:info() end)
  end,
}

--- Who the server proved to be: `fingerprint` of its host key, `key_type`, `user`, `address`, `port`.
---@async
---@param at runbook.Place
---@return table
function ssh.identity(at)
  must_be_ssh(at, "ssh.identity")
  return identity(at)
end

local dial = effect.verb {
  name = "ssh.dial", class = "read",
  target = function(at) return at.name end,
  summary = function(at, host, port) return ("connect to %s port %d from %s"):format(host, port, at.name) end,
  by_hand = function(at, host, port) return ("ssh -W %s:%d %s"):format(host, port, at.backend.options.host) end,
  body = function(at, host, port)
    return (errors.check(at.name, "connecting to " .. host, at.backend:dial(host, port)))
  end,
}

--- A stream to a port that the server can reach.
---@async
---@param at runbook.Place
---@param host string
---@param port integer
---@return runbook.stream
function ssh.dial(at, host, port)
  must_be_ssh(at, "ssh.dial")
  return dial(at, host, port)
end

--- Is this place reached by ssh?
---@param at runbook.Place
---@return boolean
function ssh.is(at)
  return getmetatable(at.backend) == Backend
end

--- What pins a place: the fingerprint of its host key, which container or claim it is, or nil for this machine.
---@async
---@return string?
function place.Place:identity()
  if ssh.is(self) then
    return ssh.identity(self).fingerprint
  end
  return self.backend.identity and self.backend:identity() or nil
end

--- Have a port that a server, or a container, can reach on 127.0.0.1 here while `fn(port)` runs. Connections that are still open when it
--- returns are closed. When the far port refuses, or the server is lost, the local connection is closed and a notice says
--- why; the others go on. A plan opens it too.
---@async
---@param o { to: string }  "127.0.0.1:873", as the server finds it
---@param fn async fun(port: integer): any
---@return any ...  what `fn` returns
function place.Place:tunnel(o, fn)
  must_reach_ports(self, "place:tunnel")
  return tunnel.there(self, o, fn)
end

--- Have a port on 127.0.0.1 of this server while `fn(port)` runs. Each connection there goes through this process to a port
--- that another server can reach, so that two that do not see each other can talk: `{ to = "127.0.0.1:22", via = old }`. When
--- the server is lost, it is connected anew and the port is the same. Everybody on that server may connect to it. A plan
--- lists it and does not open it; `port` is unknown there.
---@async
---@param o { to: string|(async fun(): runbook.stream), via?: runbook.Place }  a function gives a stream for each connection
---@param fn async fun(port: integer): any
---@return any ...  what `fn` returns
function place.Place:reverse_tunnel(o, fn)
  must_be_ssh(self, "place:reverse_tunnel")
  if type(o) == "table" and place.is(o.via) then
    must_be_ssh(o.via, "place:reverse_tunnel")
  end
  return tunnel.back(self, o, fn)
end

--- Hang up everywhere. What still runs on a connection ends with ECLOSED.
function ssh.close()
  for key, shared in pairs(pools) do
    shared:close()
    pools[key] = nil
  end
  for session in pairs(unshared) do
    session:close()
  end
end

ssh.with_key = require "runbook.ssh.key".with

require "runbook.job" -- so that every process that knows a place can clean up after its jobs

return ssh
