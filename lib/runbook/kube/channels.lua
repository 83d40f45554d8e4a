--- What runs in a pod, over one websocket: the channels that exec, attach and port-forward have.
---
--- v5 can say that stdin ends, v4 cannot. What a server says that opens none is an error value, as for every request. Wants a
--- permit: callers are verbs.

local client = require "runbook.kube.client"
local core = require "runbook.core.websocket"
local errors = require "runbook.errors"
local json = require "runbook.json"
local secret = require "runbook.core.secret"
local status = require "runbook.kube.status"
local url = require "runbook.http.url"

local channels = {}

channels.STDIN, channels.STDOUT, channels.STDERR, channels.STATUS, channels.RESIZE = 0, 1, 2, 3, 4

local CONNECT_TIMEOUT, KEEPALIVE = 15, 15
local LARGEST_STATUS = 1 << 20

local V5, V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"

-- libcurl would send user and password with requests of its own only.
local function basic(e)
  local both = secret.join("basic authentication", { e.basic, ":", e.password or "" })
  return { "Authorization", { "Basic ", secret.base64(both) } }
end

local function attempt(o, e, protocols)
  local base, connect_to, authority = client.way(e)
  local headers = table.move(e.headers, 1, #e.headers, 1, {})
  if e.basic then
    headers[#headers + 1] = basic(e)
  end
  if authority then
    headers[#headers + 1] = { "Host", authority }
  end
  return core.connect {
    url = url.with_query(base .. o.path, o.query), connect_to = connect_to, headers = headers, proxy = e.proxy,
    ca = e.tls.ca, certificate = e.tls.cert, key = e.tls.key, insecure = e.tls.insecure,
    protocols = protocols, channels = true, keepalive = KEEPALIVE, connect_timeout = CONNECT_TIMEOUT, reads = o.reads,
  }
end

local function raise_refused(cluster, o, e, message, code, details)
  local tried = ("GET %s%s"):format(e.url, o.path)
  if code == "EREFUSED" then
    status.raise(details, { target = cluster.client.name, tried = tried })
  end
  errors.raise({ kind = errors.kind(code), code = code, target = cluster.client.name, tried = tried,
    message = ("%s: %s"):format(e.url, message) }, 3)
end

--- Open the channels of a path; raises what the server says.
---@async
---@param cluster runbook.Cluster
---@param o { path: string, query: table, reads?: boolean, v4?: boolean }  reads: nothing changes by it; v4: that, and no other
---@return runbook.core.websocket.websocket
function channels.open(cluster, o)
  local protocols = o.v4 and { V4 } or { V5, V4 }
  local e = cluster:endpoint()
  local ws, message, code, details = attempt(o, e, protocols)
  if not ws and code == "EREFUSED" and details.status == 401 and cluster.client:refused(e) then
    e = cluster:endpoint()
    ws, message, code, details = attempt(o, e, protocols)
  end
  if not ws then
    raise_refused(cluster, o, e, message, code, details)
  end
  return ws
end

--- The message that half-closes stdin, where the protocol has one.
---@param ws runbook.core.websocket.websocket
---@return string?
function channels.end_of_stdin(ws)
  return ws:protocol() == V5 and "\255\0" or nil
end

--- The Status at the end of a command: read to its end, which is the connection's. nil: none came, or not all of it.
---@async
---@param from runbook.stream
---@return table? status
---@return string? message  why it broke off
function channels.status(from)
  local text = ""
  while #text < LARGEST_STATUS do
    local bytes, message = from:read()
    if not bytes then
      return nil, message
    end
    text = text .. bytes
    local ok, value = pcall(json.decode, text)
    if ok and type(value) == "table" and value.status then
      return value
    end
  end
end

--- The exit code that a Status means; nil, when it says that the command could not be run.
---@param said table
---@return integer?
function channels.exit_code(said)
  if said.status == "Success" then
    return 0
  end
  for _, cause in ipairs(said.reason == "NonZeroExitCode" and said.details and said.details.causes or {}) do
    if cause.reason == "ExitCode" then
      return math.tointeger(tonumber(cause.message))
    end
  end
end

return channels
