--- Ports that lead through an ssh server, or into a container, for as long as a function runs; both ways with ssh.
---
---     db:tunnel({ to = "127.0.0.1:5432" }, function(port)             -- port, here, is db's 5432
---       here:query { "psql", "-h", "127.0.0.1", "-p", port, "-c", "select 1" }
---     end)
---     new:reverse_tunnel({ to = "127.0.0.1:22", via = old }, function(port)  -- port, on new, is old's 22
---       new:run { "rsync", "-e", ("ssh -p %d"):format(port), "127.0.0.1:/srv/", "/srv/" }
---     end)
---
--- Either is a listener and something that dials: each connection that the one takes is joined to one of the other. Who
--- listens does so on 127.0.0.1 alone. What is done through a tunnel the gate does not see, unless it is done by verbs.

local core = require "runbook.core.task"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local listen = require "runbook.core.listen"
local options = require "runbook.options"
local retry = require "runbook.retry"
local stream = require "runbook.core.stream"

local tunnel = {}

local LOOPBACK = "127.0.0.1"
local PAUSE = 0.2 -- seconds, when no connection can be taken because no descriptor is left

-- Codes of a connection that one of its two ends gave up. They know; nobody else needs to.
local HUNG_UP = { EPIPE = true, ECONNRESET = true }

local MUST_ALLOW = {
  dial = "its sshd_config must allow it: AllowTcpForwarding (yes or local), PermitOpen, DisableForwarding; a key with "
    .. "`restrict` in authorized_keys needs `port-forwarding`",
  listen = "its sshd_config must allow it: AllowTcpForwarding (yes or remote), PermitListen, DisableForwarding; a key with "
    .. "`restrict` in authorized_keys needs `port-forwarding`",
}

local check_there = options.declare("place:tunnel", {
  to = { "string", '"host:port", as the server finds it' },
})

local check_back = options.declare("place:reverse_tunnel", {
  to = { "string|function", '"host:port", as `via` finds it; or what gives a stream for each connection' },
  via = { "table", "the server that connects to it", optional = true },
})

local function parse(where, to)
  local host, port = to:match "^%[(.-)%]:(%d+)$"
  if not host then
    host, port = to:match "^([^:%[%]%s]+):(%d+)$"
  end
  port = math.tointeger(tonumber(port))
  if not host or port < 1 or port > 65535 then
    errors.raise({ kind = "usage", message = ('%s: `to` is no address and port, as in "127.0.0.1:873": %s'):format(where, to) }, 4)
  end
  return host, port
end

local function must_be_function(where, fn)
  if type(fn) ~= "function" then
    errors.raise({ kind = "usage", message = where .. ": what shall run meanwhile? a function(port) is missing" }, 4)
  end
end

-- Once until it is well again: whoever cannot connect tries again and again.
local function complain(self, err)
  local text = ("%s: %s"):format(self.title, tostring(err))
  if errors.is(err) and err.hint then
    text = text .. "; " .. err.hint
  end
  if self.said ~= text then
    self.said = text
    events.emit { type = "notice", level = "warning", target = self.at.name, text = text }
  end
end

-- A task that close() waits for.
local function start(self, fn, ...)
  local mine
  mine = core.spawn(function(...)
    local ok, err = xpcall(fn, errors.handler, self, ...)
    self.tasks[mine] = nil
    if not ok and not errors.is_cancelled(err) then
      complain(self, err)
    end
  end, ...)
  self.tasks[mine] = true
end

local function raise(at, message, code, hint)
  errors.raise {
    kind = errors.kind(code), code = code, target = at.name, message = message, hint = code == "EDENIED" and hint or nil,
  }
end

-- Both ways at once; an end goes on as a half-close, a failure ends both.
local function carry(near, far)
  local failure
  local function one_way(from, to)
    local bytes, message, code = stream.pump(from, to)
    if not bytes then
      failure = failure or { message = message, code = code }
      near:close()
      far:close()
    end
  end
  core.join_all { core.spawn(one_way, near, far), core.spawn(one_way, far, near) }
  return failure
end

local function serve(self, near_end)
  local near <close> = near_end
  local far <close> = self.dial()
  if far == nil then
    errors.raise { kind = "usage", message = "`to` gave no stream" }
  end
  self.said = nil
  local failure = carry(near, far)
  if failure and not HUNG_UP[failure.code] then
    raise(self.at, failure.message, failure.code)
  end
end

-- The port stays what the function was told, so the next connection must listen on the same.
local function open_again(self, message)
  complain(self, message .. "; I open the tunnel again")
  self.session:close()
  local ok, got = xpcall(self.listen, errors.handler, self.port)
  if not ok and not errors.is_cancelled(got) then
    errors.raise { kind = "lost", target = self.at.name, cause = got, message = "it stays closed: " .. tostring(got) }
  elseif not ok then
    error(got, 0)
  end
  self.listener, self.said = got, nil
end

local function accept_all(self)
  while true do
    local near, message, code = self.listener:accept()
    if near then
      start(self, serve, near)
    elseif code == "ELOST" then
      open_again(self, message)
    elseif code == "ECLOSED" then
      return
    else
      complain(self, message)
      core.sleep(PAUSE)
    end
  end
end

-- Nothing of it runs when this returns, also in a task that was cancelled.
local function close(self)
  while next(self.tasks) do
    local list = {}
    for one in pairs(self.tasks) do
      one:cancel()
      list[#list + 1] = one
    end
    core.join_all(list)
  end
  if self.listener then
    self.listener:close()
  end
  if self.session then
    self.session:close()
  end
end

local function reaching(at, what, fn)
  return retry.call({ target = at.name, what = what, tries = at.backend:tries() }, fn)
end

-- `fn` and whatever opens it; all of it is over when this returns.
local function during(self, open, fn)
  self.tasks = {}
  local r = table.pack(xpcall(function()
    return fn(open(self))
  end, errors.handler))
  close(self)
  if not r[1] then
    error(r[2], 0)
  end
  return table.unpack(r, 2, r.n)
end

-- A socket of ours needs no root from 1024 on.
local function near_port(port)
  return port < 1024 and port + 20000 or port
end

local function dialler(at, host, port)
  return function()
    local far, message, code = at.backend:dial(host, port)
    return far or raise(at, message, code, MUST_ALLOW.dial)
  end
end

local function there_by_hand(at, host, port)
  if at.backend.tunnel_by_hand then
    return at.backend:tunnel_by_hand(near_port(port), host, port)
  end
  local far = host:find(":", 1, true) and "[" .. host .. "]" or host
  return at.backend:line_by_hand { "-N", "-L", ("%d:%s:%d"):format(near_port(port), far, port) }
end

local open_there = effect.verb {
  name = "place.tunnel", class = "read",
  target = function(self) return self.at.name end,
  summary = function(self) return "open a " .. self.title end,
  by_hand = function(self) return there_by_hand(self.at, self.host, self.far_port) end,
  body = function(self)
    reaching(self.at, "I connect", function() return self.at.backend:reach() end)
    self.listener = errors.check("here", "opening a tunnel", listen.open(LOOPBACK, 0))
    self.port = self.listener:port()
    start(self, accept_all)
    return self.port
  end,
}

--- See place:tunnel.
---@async
---@param at runbook.Place
---@param o { to: string }
---@param fn async fun(port: integer): any
---@return any ...  what `fn` returns
function tunnel.there(at, o, fn)
  o = check_there(o, 3)
  must_be_function("place:tunnel", fn)
  local host, port = parse("place:tunnel", o.to)
  return during({
    at = at, host = host, far_port = port, title = ("tunnel to %s from %s"):format(o.to, at.name), dial = dialler(at, host, port),
  }, open_there, fn)
end

local function back_by_hand(self)
  if not self.via then
    return nil
  end
  local port = near_port(self.far_port)
  return there_by_hand(self.via, self.host, self.far_port) .. " & "
    .. self.at.backend:line_by_hand { "-N", "-R", ("%s:0:%s:%d"):format(LOOPBACK, LOOPBACK, port) }
end

local open_back = effect.verb {
  name = "place.reverse_tunnel", class = "change", repeatable = true, inverse = effect.NOT_NEEDED,
  target = function(self) return self.at.name end,
  summary = function(self) return "open a " .. self.title end,
  by_hand = back_by_hand,
  body = function(self)
    if self.via then
      reaching(self.via, "I connect", function() return self.via.backend:reach() end)
    end
    self.listener = self.listen(0)
    self.port = self.listener:port()
    start(self, accept_all)
    return self.port
  end,
}

-- The server listens on a connection of its own: only a fresh one can, and closing it is what never has to wait.
local function listener_of(self)
  return function(port)
    return reaching(self.at, "the tunnel is tried", function()
      self.session, self.carrier = self.at.backend:fresh()
      local listener, message, code = self.session:listen(LOOPBACK, port)
      if not listener then
        self.session:close()
        raise(self.at, message, code, MUST_ALLOW.listen)
      end
      return listener
    end)
  end
end

--- See place:reverse_tunnel.
---@async
---@param at runbook.Place
---@param o { to: string|(async fun(): runbook.stream), via?: runbook.Place }
---@param fn async fun(port: integer): any
---@return any ...  what `fn` returns
function tunnel.back(at, o, fn)
  o = check_back(o, 3)
  must_be_function("place:reverse_tunnel", fn)
  local self = { at = at, via = o.via, dial = o.to }
  if (type(o.to) == "string") ~= (o.via ~= nil) then
    errors.raise({
      kind = "usage", message = "place:reverse_tunnel: " .. (o.via and "a function needs no `via`"
        or "which server finds `to`? name it: via = old"),
    }, 3)
  elseif o.via then
    self.host, self.far_port = parse("place:reverse_tunnel", o.to)
    self.dial = dialler(o.via, self.host, self.far_port)
  end
  self.title = ("tunnel on %s%s"):format(at.name, o.via and (" to %s from %s"):format(o.to, o.via.name) or "")
  self.listen = listener_of(self)
  return during(self, open_back, fn)
end

return tunnel
