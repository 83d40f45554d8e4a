--- Sessions of the core for specs.

local core = require "runbook.core.ssh"
local gate = require "runbook.core.gate"
local world = require "spec.world"

local sessions = {}

--- Every such spec may read the world; what may change it says so.
---@param fn async fun()
---@return async fun()
function sessions.reading(fn)
  return function() gate.call("read", fn) end
end

--- Connect as root with the key that every machine knows, unless told otherwise.
---@async
---@param m world.Machine  or a relay to one
---@param o? table  options of core.connect
---@return any ...  what that returns
function sessions.connect(m, o)
  local options = {
    host = m.address, port = m.port, user = "root", identities = { world.key() }, pins = { m.fingerprint }, timeout = 20,
  }
  for key, value in pairs(o or {}) do
    options[key] = value
  end
  return core.connect(options)
end

--- The same, but it has to succeed.
---@async
---@return runbook.core.ssh.session
function sessions.to(m, o)
  local s, message, code = sessions.connect(m, o)
  return assert(s, ("%s: %s"):format(code, message))
end

return sessions
