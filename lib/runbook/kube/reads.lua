--- Looking at objects: one, many, or many one after the other.
---
---     local hub = cluster:get { "Deployment", "hub", namespace = "prod" }
---     local claim = cluster:find { "PersistentVolumeClaim", "hub-db-dir", namespace = "prod" }     -- nil when it is not there
---     for _, pod in ipairs(cluster:list { "Pod", namespace = "prod", labels = { component = "hub" } }) do ... end
---     cluster:each({ "Pod", all_namespaces = true }, function(pod) ... end)                    -- never all in memory
---
--- Objects are tables as the API has them. What a Secret holds is a secret value.

local body = require "runbook.kube.body"
local cluster = require "runbook.kube.cluster"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local json = require "runbook.json"
local status = require "runbook.kube.status"
local task = require "runbook.task"
local which = require "runbook.kube.which"

local Cluster = cluster.Cluster

local reads = {}

reads.page = 500 -- objects in one answer

local RESTARTS = 5 -- of one list

local function target(self)
  return self.name
end

-- ---- one ----

local one_more = {
  plain = { "list", "keys of a Secret that are wanted as text; they come in `stringData`", optional = true },
  subresource = { "string", "a part of it: scale, status", optional = true },
}
local check_get = which.declare_one("cluster:get", one_more)
local check_find = which.declare_one("cluster:find", one_more)

local function set(list)
  local s = {}
  for _, key in ipairs(list or {}) do
    s[key] = true
  end
  return s
end

--- The object of a selection, for verbs of this library.
---@async
---@return table object
---@return runbook.kube.Resource
---@return string? namespace
function reads.object(self, o)
  local resource, namespace = which.resolve(self, o)
  local object = self:send_json { path = resource:path(namespace, o.name, o.subresource) }
  return body.hide(object, { plain = set(o.plain) }), resource, namespace
end

local get = effect.verb {
  name = "kube.get", class = "read", target = target,
  summary = function(_, o) return "get " .. which.words(o) end,
  by_hand = function(self, o) return self:by_hand(which.argv(o, "get")) end,
  body = function(self, o) return (reads.object(self, o)) end,
}

--- An object; raises kind `missing` when it is not there.
---@async
---@param o { kind: string, name: string, namespace?: string, api?: string, plain?: string[], subresource?: string }
---@return table object
function Cluster:get(o)
  return get(self, check_get(o))
end

--- An object, or nil when it is not there.
---@async
---@param o { kind: string, name: string, namespace?: string, api?: string, plain?: string[], subresource?: string }
---@return table? object
function Cluster:find(o)
  return (status.if_there(get, self, check_find(o)))
end

-- ---- many ----

local check_list = which.declare("cluster:list", which.many)
local check_each = which.declare("cluster:each", which.many)

--- The selectors of a selection as a query.
---@return table<string, any>
function reads.query(o)
  local fields = which.text(o.fields)
  if o.name then
    fields = ("metadata.name=%s%s"):format(o.name, fields and "," .. fields or "")
  end
  return { labelSelector = which.text(o.labels), fieldSelector = fields }
end

-- One page as text: what it holds becomes values later, while the next one is on its way.
local page = effect.verb {
  name = "kube.list", class = "read", target = target,
  summary = function(_, o) return "list " .. which.words(o) end,
  by_hand = function(self, o) return self:by_hand(which.argv(o, "get")) end,
  body = function(self, o, token)
    local resource, namespace = which.resolve(self, o)
    local query = reads.query(o)
    query.limit, query.continue = reads.page, token
    return self:send({ path = resource:path(namespace), query = query }).body
  end,
}

-- Items of a list say neither kind nor apiVersion.
local function complete(item, list)
  item.apiVersion = item.apiVersion or list.apiVersion
  item.kind = item.kind or list.kind:gsub("List$", "")
  return body.hide(item, { later = true })
end

-- The page after `token`. The server forgets where a list was after some minutes; it then says how to go on with what is there
-- now, or the list begins again.
local function next_page(self, o, token, state)
  local ok, text = xpcall(page, errors.handler, self, o, token)
  if ok then
    return text
  elseif not (errors.is(text, "missing") and text.status == 410 and token) or state.restarts == RESTARTS then
    error(text, 0)
  elseif text.again and not o.restarted then
    return page(self, o, text.again)
  end
  state.restarts = state.restarts + 1
  if o.restarted then
    o.restarted()
  end
  return page(self, o, nil)
end

-- Gives every item of a page to `fn` that was not given before; the first thing it returns, if anything. Who wants to be told
-- of a new beginning gets them all again.
local function give(list, items, o, state, fn)
  for item in items do
    local uid = item.metadata.uid or #state.seen + 1
    if o.restarted or not state.seen[uid] then
      state.seen[uid] = true
      local result = fn(complete(item, list))
      if result ~= nil then
        return result
      end
    end
  end
end

-- Where it goes on: a list says it before its items, and so before they are values.
local function token_of(text)
  local head = text:sub(1, 4096):match '^(.-)"items":%s*%['
  return head and head:match '"continue":%s*"([^"\\]+)"'
end

local function token_in(list)
  local token = list.metadata.continue
  return token ~= json.null and token ~= "" and token or nil
end

--- Call `fn` with every object, page by page: the next page is fetched meanwhile, and no more than two are in memory. What
--- `fn` returns, unless nil, ends it.
---@async
---@param self runbook.Cluster
---@param o table  a checked selection; `restarted`: called when a long list had to begin again
---@param fn fun(object: table): any
---@return any result
---@return string resource_version  of the list
function reads.each(self, o, fn)
  local state, ahead = { seen = {}, restarts = 0 }, nil
  local _ <close> = setmetatable({}, { __close = function()
    if ahead then
      ahead:cancel()
    end
  end })
  local text = next_page(self, o, nil, state)
  while true do
    local token = token_of(text)
    ahead = token and task.spawn(next_page, self, o, token, state) or nil
    local list, items = json.items(text, "items", { name = self.name, max = 256 << 20 })
    local result = give(list, items, o, state, fn)
    token = token or token_in(list)
    if result ~= nil or token == nil then
      return result, list.metadata.resourceVersion
    end
    local waiting = ahead or task.spawn(next_page, self, o, token, state)
    local ok, answer = task.join(waiting)
    ahead = nil
    if not ok then
      error(answer, 0)
    end
    text = answer
  end
end

--- All objects.
---@async
---@param o { kind: string, namespace?: string, all_namespaces?: boolean, labels?: string|table, fields?: string|table, api?: string }
---@return table[] objects
function Cluster:list(o)
  local all = json.array {}
  reads.each(self, check_list(o), function(object)
    all[#all + 1] = object
  end)
  return all
end

--- Call a function with every object, one after the other; memory holds a few hundred. What it returns, unless nil, ends it.
---@async
---@param o table  as for `list`
---@param fn fun(object: table): any
---@return any result
function Cluster:each(o, fn)
  return (reads.each(self, check_each(o), fn))
end

return reads
