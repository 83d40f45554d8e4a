--- A way to machines that only a pod can reach: ssh goes through it as it goes through a jump host.
---
---     local via = cluster:dial { deployment = "proxycommand" }
---     local nfs = ssh.host { "hubadmin@10.0.0.7", via = via }
---
--- Each connection is a command in the container, whichever of socat, nc, python3 and bash its image has. Nothing is left there
--- and nothing is shared: two connections do not know of each other. Names are looked up where the pod is. A port of the pod
--- itself (`localhost`) is reached without any command.

local cluster = require "runbook.kube.cluster"
local command = require "runbook.place.command"
local container = require "runbook.kube.container"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local exec = require "runbook.kube.exec"
local forward = require "runbook.kube.forward"
local place = require "runbook.place"

local dial = {}

-- Bytes go both ways until the far side has ended.
local PYTHON = [[
import os, select, socket, sys
try:
    s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
except OSError as e:
    sys.exit(str(e))
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
given = [0, s]
while True:
    for one in select.select(given, [], [])[0]:
        data = os.read(0, 65536) if one == 0 else s.recv(65536)
        if one == 0 and data:
            s.sendall(data)
        elif one == 0:
            given.remove(0)
            s.shutdown(socket.SHUT_WR)
        elif not data:
            sys.exit()
        while one != 0 and data:
            data = data[os.write(1, data):]
]]

local BASH = [[exec 3<>"/dev/tcp/$1/$2" && { cat <&0 >&3 2>/dev/null & exec cat <&3; }]]

local ways = {
  { "socat", function(host, port)
    return { "socat", "-", ("TCP:%s:%s,nodelay"):format(host:find(":", 1, true) and "[" .. host .. "]" or host, port) }
  end },
  { "nc", function(host, port) return { "nc", host, port } end },
  { "python3", function(host, port) return { "python3", "-c", PYTHON, host, port } end },
  { "bash", function(host, port) return { "bash", "-c", BASH, "bash", host, port } end },
}

local LOOK = [[for name do command -v "$name" >/dev/null 2>&1 && echo "$name"; done; :]]

local own = { localhost = true, ["127.0.0.1"] = true, ["::1"] = true }

---@class runbook.kube.Dial
---@field name string
local Dial = {}
local dial_mt = { __name = "runbook.kube.dial", __index = Dial }

function dial_mt.__tostring(self)
  return self.name
end

-- What says in the end why there was no connection; the connection is the stream's alone.
local Carrier = {}
Carrier.__index = Carrier

function Carrier:stderr() return self.said end

function Carrier:close() end

-- The first way that the image has.
local function way_of(self)
  if not self.way then
    local names = {}
    for i, way in ipairs(ways) do
      names[i] = way[1]
    end
    local has = command.script(self.at, LOOK, names, { message = "looking for a way out of " .. self.at.name })
    for _, way in ipairs(ways) do
      if ("\n" .. has):find("\n" .. way[1] .. "\n", 1, true) then
        self.way = way[2]
        return self.way
      end
    end
    errors.raise { kind = "missing", code = "ENODIAL", target = self.at.name,
      message = "the image has none of " .. table.concat(names, ", ") .. ": nothing in it can connect to another machine",
      hint = "use a pod whose image has one of them" }
  end
  return self.way
end

--- A stream to a machine as the pod finds it. Wants a permit; ssh and `dial:connect` have one.
---@async
---@param host string
---@param port integer
---@return runbook.stream stream
---@return table carrier
function Dial:open(host, port)
  if own[host] then
    local stream, why = forward.open(self.at.backend:target(), port)
    return stream, setmetatable({ said = { line = why }, name = "the cluster" }, Carrier)
  end
  local argv = way_of(self)(host, ("%d"):format(port))
  local stream, said = exec.duplex(self.at.backend:target(), argv)
  return stream, setmetatable({ said = said, name = self.name }, Carrier)
end

local connect = effect.verb {
  name = "kube.dial", class = "read",
  target = function(self) return self.name end,
  summary = function(self, host, port) return ("connect to %s port %d from %s"):format(host, port, self.name) end,
  by_hand = function(self, host, port) return self.at:by_hand { "nc", host, ("%d"):format(port) } end,
  body = function(self, host, port)
    return (self:open(host, port))
  end,
}

--- A stream to a machine as the pod finds it. One that cannot be reached ends at once.
---@async
---@param host string
---@param port integer
---@return runbook.stream
function Dial:connect(host, port)
  return connect(self, host, port)
end

--- What another process needs to find it again.
---@return table
function Dial:reference()
  local reference = self.at:reference()
  reference.kind = "kube.dial"
  return reference
end

local function new(at)
  return setmetatable({ at = at, name = at.name }, dial_mt)
end

--- Is this value one?
function dial.is(value)
  return getmetatable(value) == dial_mt
end

--- A way through a pod, for `ssh.host { via = }`. Nothing is asked before its first use.
---@param o { pod?: string, deployment?: string, selector?: string, container?: string, namespace?: string }
---@return runbook.kube.Dial
function cluster.Cluster:dial(o)
  return new(container.new(self, o))
end

place.register("kube.dial", function(reference)
  local o = {}
  for key, value in pairs(reference) do
    o[key] = value
  end
  o.kind = "kube.container"
  return new(place.open(o))
end)

-- ---- place:tunnel ----

local Backend = container.Backend

function Backend:reach()
  self:target()
end

--- How often it is tried to get there: as everything is.
function Backend.tries() end

--- A stream to what the container can reach, its own ports first of all. Wants a permit.
---@async
---@param host string
---@param port integer
---@return runbook.stream
function Backend:dial(host, port)
  self.way_out = self.way_out or new(place.new(self, { name = self.what }))
  return (self.way_out:open(host, port))
end

function Backend:tunnel_by_hand(near, host, port)
  if own[host] then
    return self:by_hand_forward(port, near)
  end
end

return dial
