--- Ports of pods: a TCP connection to what listens in a pod, over one websocket each.
---
---     local stream = cluster:forward({ pod = "db-0", port = 5432 })
---
--- One connection a websocket, so that one that dies takes no other with it. A connection cannot be half-closed.

local channels = require "runbook.kube.channels"
local cluster = require "runbook.kube.cluster"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local options = require "runbook.options"
local task = require "runbook.core.task"

local forward = {}

local DATA, ERROR = 0, 1
local PORT_BYTES = 2 -- each channel begins with its port

-- Exactly so many bytes.
local function take(from, n)
  local bytes = ""
  while #bytes < n do
    local more, message, code = from:read(n - #bytes)
    if not more then
      return nil, message or "the connection ended", code or "ELOST"
    end
    bytes = bytes .. more
  end
  return bytes
end

local function raise(at, port, message, code)
  errors.raise({ kind = errors.kind(code), code = code, target = ("%s/%s"):format(at.namespace, at.pod),
    message = ("port %d: %s"):format(port, message) }, 3)
end

-- What the server says of a port that it cannot reach: in words, on a channel of its own.
local function refusal(from)
  local text = ""
  for bytes in function() return (from:read()) end do
    text = text .. bytes
  end
  return text ~= "" and text:gsub("%s+$", "") or nil
end

--- A stream to a port of a pod. Nothing listens there: the stream ends, and `why()` says what the server says. Wants a permit.
---@async
---@param at runbook.kube.Target
---@param port integer
---@return runbook.stream stream
---@return fun(): string? why
function forward.open(at, port)
  local ws <close> = channels.open(at.cluster, {
    path = ("/api/v1/namespaces/%s/pods/%s/portforward"):format(at.namespace, at.pod), query = { ports = ("%d"):format(port) },
    v4 = true, reads = true,
  })
  local data, said = ws:stream { read = DATA, write = DATA, main = true }, ws:stream { read = ERROR }
  for _, one in ipairs { data, said } do
    local bytes, message, code = take(one, PORT_BYTES)
    if not bytes then
      data:close()
      said:close()
      raise(at, port, message, code)
    end
  end
  local listener = task.spawn(refusal, said)
  return data, function()
    task.join_all { listener }
    local ok, text = listener:result()
    return ok and text or nil
  end
end

local check = options.declare("cluster:forward", {
  pod = { "string", "its name", optional = true },
  deployment = { "string", "a pod of this one", optional = true },
  selector = { "string", "a pod with these labels", optional = true },
  namespace = { "string", "that of the context, when missing", optional = true },
  port = { "integer", "in the pod" },
})

local open = effect.verb {
  name = "kube.forward", class = "read",
  target = function(at) return at.name end,
  summary = function(_, port) return ("connect to port %d"):format(port) end,
  by_hand = function(at, port) return at.backend:by_hand_forward(port) end,
  body = function(at, port)
    return forward.open(at.backend:target(), port)
  end,
}

--- A stream to a port of a pod.
---@async
---@param o { pod?: string, deployment?: string, selector?: string, namespace?: string, port: integer }
---@return runbook.stream stream
---@return fun(): string? why  after it ended: what the server said
function cluster.Cluster:forward(o)
  o = check(o, 2)
  local port = o.port
  o.port = nil
  return open(self:container(o), port)
end

return forward
