--- A cluster as a handle: which one it is, and one request. What else it can do is in the files beside this one.

local client = require "runbook.kube.client"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local json = require "runbook.json"
local options = require "runbook.options"
local secret = require "runbook.secret"
local shell = require "runbook.shell"
local types = require "runbook.types"

local cluster = {}

---@class runbook.Cluster
---@field name string     for messages: the context
---@field package client runbook.kube.Client
---@field package pin? string  uid of kube-system, as a person has written it down
local Cluster = {}
local cluster_mt = { __name = "runbook.cluster" }

-- Its name is its client's, which learns it from kubeconfig: the same for every handle of one cluster.
function cluster_mt.__index(self, key)
  if key == "name" then
    return self.client.name
  end
  return Cluster[key]
end

function cluster_mt.__tostring(self)
  return self.name
end

-- Two parameters may name one cluster.
function cluster_mt.__eq(a, b)
  return a.client == b.client
end

--- The class, for the modules that add methods to it.
cluster.Cluster = Cluster

local check_cluster = options.declare("kube.cluster", {
  context = { "string", "the context in kubeconfig; the current one, when missing", optional = true },
  cluster = { "string", "uid of its namespace kube-system; another cluster by that name is refused", optional = true },
  kubeconfig = { "any", "a file, a secret, or a reference to one, instead of KUBECONFIG or ~/.kube/config", optional = true },
  in_cluster = { "boolean", "the cluster that this very process runs in", optional = true },
})

local SCHEMES = { sops = true, age = true, file = true, ["env-file"] = true }

local function kubeconfig_of(given)
  if given == nil or secret.is(given) then
    return given
  elseif type(given) ~= "string" then
    errors.raise({ kind = "usage", message = "kube.cluster: kubeconfig is a file, a secret, or a reference to one" }, 4)
  elseif SCHEMES[given:match "^([%l-]+):" or ""] then
    return secret.reference(given, { name = "kubeconfig" })
  end
  return types.resolve_path(given, { base = os.getenv "PWD" or "." })
end

--- A handle. Nothing is read or asked before its first use.
---@param given { context?: string, cluster?: string, kubeconfig?: string|runbook.secret, in_cluster?: boolean }
---@return runbook.Cluster
function cluster.new(given)
  local o = check_cluster(given, 3)
  local kubeconfig = kubeconfig_of(o.kubeconfig)
  local self = { pin = o.cluster, client = client.open { context = o.context, kubeconfig = kubeconfig, in_cluster = o.in_cluster },
    options = { context = o.context, kubeconfig = kubeconfig, in_cluster = o.in_cluster } }
  return setmetatable(self, cluster_mt)
end

--- Is this value a cluster?
function cluster.is(value)
  return getmetatable(value) == cluster_mt
end

--- What another process needs to open it again: no secrets, no connection.
---@return table
function Cluster:reference()
  local kubeconfig = self.options.kubeconfig
  if secret.is(kubeconfig) then
    kubeconfig = secret.source(kubeconfig)
    if kubeconfig == nil then
      errors.raise { kind = "usage", target = self.name,
        message = "its kubeconfig is in memory only, and a later process could not undo what is done there",
        hint = "name the secret by a reference: `kubeconfig: sops:FILE#KEY`" }
    end
  end
  return { kind = "kube", context = self.options.context, cluster = self.pin or self.client.uid, kubeconfig = kubeconfig,
    in_cluster = self.options.in_cluster }
end

-- ---- which one it is ----

local function ask_uid(self)
  local c = self.client
  if c.uid == nil then
    c.uid = c:json({ path = "/api/v1/namespaces/kube-system" }).metadata.uid
  end
  return c.uid
end

local function verify(self)
  if self.pin == nil or self.verified then
    return
  end
  local uid = ask_uid(self)
  if uid ~= self.pin then
    errors.raise { kind = "identity", code = "ECLUSTER", target = self.client.name,
      message = ("this is another cluster: its kube-system is %s, and %s is pinned"):format(uid, self.pin),
      hint = ("is the context the right one? `cluster: %s` would name this one"):format(uid) }
  end
  self.verified = true
end

--- Uid of the namespace kube-system: no other cluster has it.
---@async
---@return string
Cluster.uid = effect.verb {
  name = "kube.uid", class = "read",
  target = function(self) return self.name end,
  by_hand = function(self) return self:by_hand { "get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}" } end,
  body = function(self)
    verify(self)
    return ask_uid(self)
  end,
}

--- What a run keeps of a cluster among its parameters: its uid, or where that may not be read, its server.
---@async
---@return string
function Cluster:identity()
  local ok, uid = xpcall(self.uid, errors.handler, self)
  if ok then
    return uid
  elseif errors.is(uid, "refused") and self.pin == nil then
    return self.client:server()
  end
  error(uid, 0)
end

-- ---- one request ----

--- One request that has to succeed, for the modules beside this: they are verbs. As `Client:request`.
---@async
---@return table answer
function Cluster:send(o)
  verify(self)
  return self.client:request(o)
end

--- The same, and its answer as a value.
---@async
---@return any
function Cluster:send_json(o)
  return json.decode(self:send(o).body, { name = self.name, max = 256 << 20 })
end

--- An answer that comes in pieces, for the modules beside this; see `Client:open_stream`.
---@async
---@return runbook.kube.Reader
function Cluster:open_stream(o)
  verify(self)
  return self.client:open_stream(o)
end

--- Where it is and who we are there, for what speaks to it by itself; see `Client:endpoint`.
---@async
---@return runbook.kube.Endpoint
function Cluster:endpoint()
  return effect.reading(function()
    verify(self)
    return self.client:endpoint()
  end)
end

--- The namespace of its context.
---@async
---@return string
function Cluster:default_namespace()
  return self.client:namespace()
end

--- The same as a line for a person's terminal.
---@param argv string[]
---@return string
function Cluster:by_hand(argv)
  local words = { "kubectl" }
  if type(self.options.kubeconfig) == "string" then
    table.move({ "--kubeconfig", self.options.kubeconfig }, 1, 2, 2, words)
  end
  if self.options.context then
    table.move({ "--context", self.options.context }, 1, 2, #words + 1, words)
  end
  return shell.join(table.move(argv, 1, #argv, #words + 1, words))
end

local check_request = options.declare("cluster:request", {
  method = { "string", "GET, when missing", default = "GET" },
  path = { "string", "of the API, like /api/v1/nodes" },
  query = { "table", "name = value", optional = true },
  body = { "any", "a string or a secret", optional = true },
  json = { "any", "a value, sent as JSON", optional = true },
  content_type = { "string", "of the body; application/json", optional = true },
  accept = { "string", "what we take; application/json", optional = true },
  timeout = { "number", "seconds for one try", optional = true },
  reads = { "boolean", "it changes nothing on the server, whatever its method", optional = true },
  stream = { "boolean", "the answer comes in pieces: returns what reads it line by line", default = false },
})

local function summary(_, o)
  return ("%s %s"):format(o.method, o.path)
end

local function raw_by_hand(self, o)
  local verb = ({ GET = "get", POST = "create", PUT = "replace", DELETE = "delete" })[o.method]
  if verb == nil then
    return ("%s %s"):format(o.method, o.path)
  end
  local argv = { verb, "--raw", o.path }
  return self:by_hand(verb ~= "get" and verb ~= "delete" and table.move({ "-f", "-" }, 1, 2, 4, argv) or argv)
end

local function request_verb(name, class)
  return effect.verb {
    name = name, class = class, summary = summary, by_hand = raw_by_hand,
    target = function(self) return self.name end,
    body = function(self, o)
      if o.stream then
        return self:open_stream(o)
      end
      local answer = self:send(o)
      local kind = require("runbook.kube.status").header(answer, "content-type") or ""
      answer.json = kind:find("json", 1, true) and json.decode(answer.body, { name = self.name }) or nil
      return answer
    end,
  }
end

local request_read = request_verb("kube.read", "read")
local request_change = request_verb("kube.change", "change")

--- Any request to the API. It has no undo when it changes something: `apply`, `patch` and `delete` have.
---@async
---@param o table  method, path, query, body or json
---@return table answer  status, headers, body, json; with `stream` a reader: `line()`, `finish()`, `close()`
function Cluster:request(o)
  o = check_request(o, 2)
  if o.method == "GET" or o.reads then
    return request_read(self, o)
  end
  return request_change(self, o)
end

return cluster
