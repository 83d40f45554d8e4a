--- The API server of a cluster: one request and its answer, with our credentials.
---
--- `client.open { context = "temple-eks" }` gives the client of that context, which is shared by all who ask for it. Nothing is
--- read or asked before the first request. Wants a permit: callers are verbs.
---
---     local answer = c:request { method = "GET", path = "/api/v1/pods", query = { limit = 1 } }
---     local e = c:endpoint()      -- for what speaks to the server by itself: url, tls, headers, proxy

local auth = require "runbook.kube.auth"
local body = require "runbook.kube.body"
local config = require "runbook.kube.config"
local core = require "runbook.core.http"
local errors = require "runbook.errors"
local events = require "runbook.events"
local json = require "runbook.json"
local retry = require "runbook.retry"
local secret = require "runbook.secret"
local status = require "runbook.kube.status"
local stream = require "runbook.core.stream"
local task = require "runbook.core.task"
local url = require "runbook.http.url"

local client = {}

local TIMEOUT, CONNECT_TIMEOUT = 30, 15
local LARGEST = 256 << 20

---@class runbook.kube.Client
---@field name string  for messages: the context, or the server
local Client = {}
local client_mt = { __name = "runbook.kube.client", __index = Client }

local shared, of_secrets = {}, setmetatable({}, { __mode = "k" })

--- The client of a context, or of the cluster that we are in.
---@param o { context?: string, kubeconfig?: string|runbook.secret, in_cluster?: boolean }
---@return runbook.kube.Client
function client.open(o)
  local clients = shared
  if secret.is(o.kubeconfig) then
    of_secrets[o.kubeconfig] = of_secrets[o.kubeconfig] or {}
    clients = of_secrets[o.kubeconfig]
  end
  local key = table.concat({ o.context or "", type(o.kubeconfig) == "string" and o.kubeconfig or os.getenv "KUBECONFIG" or "",
    tostring(o.in_cluster or false) }, "\0")
  clients[key] = clients[key] or setmetatable({ options = o, name = o.context or "the cluster", warned = {} }, client_mt)
  return clients[key]
end

-- What kubeconfig says, read at first use.
local function access(self)
  while self.reading do
    task.sleep(0.01)
  end
  if not self.access then
    self.reading = true
    local _ <close> = setmetatable({}, { __close = function() self.reading = nil end })
    local found = config.access(self.options)
    self.auth = auth.new(found.user, found.cluster)
    self.name = found.context or url.host(found.cluster.server)
    self.access = found
    if found.cluster.insecure then
      events.notice(("%s: insecure-skip-tls-verify: ANYBODY between here and %s can read and change everything, tokens included")
        :format(self.name, found.cluster.server), "warning")
    end
  end
  return self.access
end

--- The namespace of its context.
---@async
---@return string
function Client:namespace()
  return access(self).namespace
end

--- Its server's URL, without a slash at the end.
---@async
---@return string
function Client:server()
  return access(self).cluster.server
end

-- libcurl takes the name for the certificate from the URL, so the URL says that name, and the way leads to the server.
local function by_another_name(server, name)
  local authority, path = server:match "^https://([^/]+)(.*)$"
  if name == nil or authority == nil then
    return server
  end
  local host, port = authority:match "^(%[[%x:.]+%]):?(%d*)$"
  if not host then
    host, port = authority:match "^([^:]+):?(%d*)$"
  end
  port = port ~= "" and port or "443"
  return ("https://%s:%s%s"):format(name, port, path), ("%s:%s:%s:%s"):format(name, port, host, port), authority
end

--- The URL that libcurl is to be given for an endpoint, where it leads then (nil: where it says), and the header Host if
--- that is another.
---@param e runbook.kube.Endpoint
---@return string url
---@return string? connect_to
---@return string? authority
function client.way(e)
  return by_another_name(e.url, e.tls.server_name)
end

---@class runbook.kube.Endpoint
---@field url string            of the server, without a slash at the end
---@field tls { ca: string?, cert: string?, key: runbook.secret?, server_name: string?, insecure: boolean? }
---@field headers { [1]: string, [2]: any }[]  names and values; a value is a string, a secret, or a list of them to be joined
---@field basic string?         a user's name, for basic authentication
---@field password runbook.secret?
---@field proxy string?         nil: by the environment
---@field as_they_are boolean   no compression is wanted
---@field credentials table     for `refused`

--- How to get there and who we are, for one request.
---@async
---@return runbook.kube.Endpoint
function Client:endpoint()
  local cluster = access(self).cluster
  local given = self.auth:credentials()
  return {
    url = cluster.server, proxy = cluster.proxy, headers = given.headers, basic = given.basic, password = given.password,
    credentials = given, as_they_are = cluster.entry["disable-compression"] == true,
    tls = { ca = cluster.ca and cluster.ca(), cert = given.cert, key = given.key, server_name = cluster.server_name,
      insecure = cluster.insecure },
  }
end

--- The server answered 401 to this endpoint: is it worth asking for another and trying again?
---@async
---@param e runbook.kube.Endpoint
---@return boolean
function Client:refused(e)
  return self.auth:refresh(e.credentials)
end

local function header_list(o, e, authority)
  local list = { { "Accept", o.accept or "application/json" } }
  if e.as_they_are then
    list[2] = { "Accept-Encoding", "identity" }
  end
  if o.body ~= nil then
    list[#list + 1] = { "Content-Type", o.content_type or "application/json" }
  end
  if authority then
    list[#list + 1] = { "Host", authority }
  end
  return table.move(e.headers, 1, #e.headers, #list + 1, list)
end

local function tried(self, o)
  return ("%s %s%s"):format(o.method, self.access and self.access.cluster.server or "", o.path)
end

local function raise_lost(self, o, message, code)
  local hint = code == "ETLS" and "the certificate is not of the authority that kubeconfig names, or ours is not accepted"
    or nil
  errors.raise({ kind = errors.kind(code), code = code, target = self.name, tried = tried(self, o), hint = hint,
    message = ("%s: %s"):format(self.access.cluster.server, message) }, 2)
end

-- One try with one endpoint; any answer.
local function attempt(self, o, e)
  local base, connect_to, authority = client.way(e)
  local lasting = o.to ~= nil
  local answer, message, code = core.request {
    method = o.method, url = url.with_query(base .. o.path, o.query), headers = header_list(o, e, authority), body = o.body,
    to = o.to, lasting = lasting, max = LARGEST, timeout = o.timeout or not lasting and TIMEOUT or 0,
    connect_timeout = CONNECT_TIMEOUT, stall = o.stall, user = e.basic, password = e.password, proxy = e.proxy,
    ca = e.tls.ca, certificate = e.tls.cert, key = e.tls.key, insecure = e.tls.insecure, connect_to = connect_to,
    reads = o.reads,
  }
  if answer == nil then
    raise_lost(self, o, message, code)
  end
  return answer
end

-- What a server wants people to know: once each.
local function show_warnings(self, answer)
  for i = 1, #answer.headers, 2 do
    local text = answer.headers[i]:lower() == "warning" and answer.headers[i + 1]:match '^299 %S+ "(.*)"'
    if text and not self.warned[text] then
      self.warned[text] = true
      events.notice(("%s: %s"):format(self.name, text:gsub('\\(.)', "%1")), "warning")
    end
  end
end

--- One request; any answer: `status`, `headers` (name, value, name, ...), `body`. With other credentials after a 401.
---@async
---@param o table  as for `request`
---@return table answer
function Client:send(o)
  access(self)
  local e = self:endpoint()
  local answer = attempt(self, o, e)
  if answer.status == 401 and self:refused(e) then
    answer = attempt(self, o, self:endpoint())
  end
  show_warnings(self, answer)
  return answer
end

local function ready(o)
  local r = {}
  for key, value in pairs(o) do
    r[key] = value
  end
  r.method = o.method or "GET"
  if o.reads == nil then
    r.reads = r.method == "GET"
  end
  if o.json ~= nil then
    r.body = body.encode(o.json)
  end
  return r
end

local function check_answer(self, o, answer)
  if answer.status // 100 ~= 2 then
    status.raise(answer, { target = self.name, tried = tried(self, o) })
  end
  return answer
end

--- One request that has to succeed. What never reached the server, and what it asks to come back for, is tried again; so is
--- a read whose answer was lost.
---@async
---@param o { method?: string, path: string, query?: table, body?: any, json?: any, content_type?: string, accept?: string, reads?: boolean,
---   timeout?: number, tries?: integer }  reads: it changes nothing, whatever its method
---@return table answer  status, headers, body
function Client:request(o)
  o = ready(o)
  access(self)
  return retry.call({ target = self.name, what = tried(self, o), reads = o.reads, tries = o.tries }, function()
    return check_answer(self, o, self:send(o))
  end)
end

--- The same, and its answer as a value.
---@async
---@return any
function Client:json(o)
  return json.decode(self:request(o).body, { name = self.name, max = LARGEST })
end

-- ---- answers that last ----

---@class runbook.kube.Reader
---@field stream runbook.stream  what arrives
local Reader = {}
local reader_mt = { __name = "runbook.kube.reader", __index = Reader }

--- Ask for what comes in pieces, as long as it comes: a watch, a log. Close it, or read it to its end.
---@param o table  as for `request`, and `stall`: seconds without a byte
---@return runbook.kube.Reader
function Client:open_stream(o)
  o = ready(o)
  access(self)
  local near, far = stream.pair()
  o.to = far
  local reader = setmetatable({ stream = near, client = self, options = o }, reader_mt)
  reader.worker = task.spawn(function()
    local _ <close> = setmetatable({}, { __close = function() far:close() end })
    return self:send(o)
  end)
  return reader
end

--- The next line; nil at the end, which `finish` explains.
---@async
---@return string?
function Reader:line()
  local pieces
  while true do
    local line, split = self.stream:line()
    if split ~= true then
      if pieces and line then
        pieces[#pieces + 1] = line
      end
      return pieces and table.concat(pieces) or line
    end
    pieces = pieces or {}
    pieces[#pieces + 1] = line
  end
end

--- After the end: raises what the server refused, or why the connection broke.
---@async
function Reader:finish()
  task.join_all { self.worker }
  local ok, answer = self.worker:result()
  if not ok then
    error(answer, 0)
  end
  check_answer(self.client, self.options, answer)
end

--- At once.
function Reader:close()
  self.worker:cancel()
  self.stream:close()
end

reader_mt.__close = Reader.close

return client
