--- Watching objects: what is there, and then every change, across restarts of the server and whatever else cuts a connection.
---
---     cluster:watch({ "Pod", namespace = "prod", timeout = 600 }, function(event, pod)
---       if event == "DELETED" and pod.metadata.name == "jupyter-ada" then return true end
---     end)
---
--- Events: ADDED, MODIFIED, DELETED, and SYNCED (without object) once all that was there has been given. What a lost connection
--- kept from us is found by asking where we were, and where the server has forgotten that, by listing again and comparing:
--- an object whose end nobody saw comes as DELETED with its name and uid alone.

local body = require "runbook.kube.body"
local cluster = require "runbook.kube.cluster"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local json = require "runbook.json"
local reads = require "runbook.kube.reads"
local retry = require "runbook.retry"
local status = require "runbook.kube.status"
local task = require "runbook.task"
local which = require "runbook.kube.which"

local Cluster = cluster.Cluster

local watch = {}

watch.seconds = 300 -- the server ends a watch after so long, or twice as long; then it is asked again from there

local check_watch = which.declare("cluster:watch", which.many, {
  timeout = { "number", "seconds, for all of it", optional = true },
  since = { "string", "resourceVersion to begin after, instead of what is there", optional = true },
})

local open = effect.verb {
  name = "kube.watch", class = "read",
  target = function(self) return self.name end,
  summary = function(_, o) return "watch " .. which.words(o) end,
  by_hand = function(self, o)
    local argv = which.argv(o, "get")
    argv[#argv + 1] = "--watch"
    return self:by_hand(argv)
  end,
  body = function(self, o, version)
    local resource, namespace = which.resolve(self, o)
    local seconds = math.floor(watch.seconds * (1 + math.random()))
    local query = reads.query(o)
    query.watch, query.resourceVersion, query.allowWatchBookmarks, query.timeoutSeconds = 1, version, true, seconds
    return self:open_stream { path = resource:path(namespace), query = query, stall = seconds + 60 }
  end,
}

---@class runbook.kube.Watcher
local Watcher = {}
Watcher.__index = Watcher

-- ---- what is there ----

-- What is kept of an object: enough to say later that it is gone. One text each: there may be very many.
local function mark_of(object)
  local m = object.metadata
  return ("%s\0%s\0%s\0%s\0%s"):format(m.resourceVersion, m.namespace or "", m.name, object.apiVersion, object.kind)
end

local function tombstone(uid, mark)
  local _, namespace, name, api, kind = mark:match "^(%Z*)%z(%Z*)%z(%Z*)%z(%Z*)%z(%Z*)$"
  return { apiVersion = api, kind = kind, metadata = { uid = uid, name = name, namespace = namespace ~= "" and namespace or nil } }
end

local function give_listed(self, object, present)
  local uid, mark = object.metadata.uid, mark_of(object)
  local before = self.known[uid]
  present[uid] = true
  if before == mark then
    return nil
  end
  self.known[uid] = mark
  return self.fn(before and "MODIFIED" or "ADDED", object)
end

local function give_gone(self, present)
  for uid, mark in pairs(self.known) do
    if not present[uid] then
      self.known[uid] = nil
      local result = self.fn("DELETED", tombstone(uid, mark))
      if result ~= nil then
        return result
      end
    end
  end
end

-- Lists, and tells what differs from what is known.
local function list(self)
  local present = {}
  local o = setmetatable({ restarted = function() present = {} end }, { __index = self.options })
  local result, version = reads.each(self.cluster, o, function(object)
    return give_listed(self, object, present)
  end)
  if result == nil then
    result = give_gone(self, present)
  end
  self.version = version
  if result == nil and not self.synced then
    self.synced = true
    result = self.fn("SYNCED")
  end
  return result
end

-- ---- what happens ----

-- Raises what the server says in the middle of a watch.
local function raise_said(self, said)
  error(status.error(said, { target = self.cluster.name, tried = "watch " .. which.words(self.options),
    answer = { status = math.tointeger(said.code) or 500, headers = {} } }), 0)
end

local function take_event(self, event)
  local object = event.object
  if event.type == "ERROR" then
    raise_said(self, object)
  end
  self.version = object.metadata.resourceVersion
  self.failures = 0
  if event.type == "BOOKMARK" then
    return nil
  end
  self.known[object.metadata.uid] = event.type ~= "DELETED" and mark_of(object) or nil
  return self.fn(event.type, body.hide(object, { later = true }))
end

-- Gives what comes until the server ends it, which is nil, or fn has a result.
local function follow(self)
  local reader <close> = open(self.cluster, self.options, self.version)
  for line in function() return reader:line() end do
    local ok, event = pcall(json.decode, line)
    if not ok then
      break -- cut in the middle; it comes again
    end
    local result = take_event(self, event)
    if result ~= nil then
      return result
    end
  end
  reader:finish()
end

-- After a failure: waits as long as is wise, or raises what will not get better.
local function bear(self, err)
  if errors.is(err) and err.status == 410 then
    self.version = nil -- the server has forgotten where we were
    return
  elseif not retry.worthwhile(err, true) then
    error(err, 0)
  end
  self.failures = self.failures + 1
  if self.failures >= retry.same_error then
    error(err, 0)
  end
  task.sleep(math.max(retry.delay(self.failures), err.retry_after or 0))
end

local function run(self)
  while true do
    local ok, result
    if self.version == nil then
      ok, result = true, list(self)
    else
      ok, result = xpcall(follow, errors.handler, self)
    end
    if not ok then
      if rawequal(result, self.raised) then
        error(result, 0) -- fn's own
      end
      bear(self, result)
    elseif result ~= nil then
      return result
    end
  end
end

--- Watch, for this library. `fn(event, object)` gets every event; what it returns, unless nil, ends the watch.
---@async
---@param self runbook.Cluster
---@param o table  a checked selection
---@param fn fun(event: string, object: table?): any
---@return any result
function watch.run(self, o, fn)
  local watcher = setmetatable({ cluster = self, options = o, known = {}, version = o.since, failures = 0, synced = o.since ~= nil },
    Watcher)
  watcher.fn = function(...)
    local r = table.pack(xpcall(fn, errors.handler, ...))
    if not r[1] then
      watcher.raised = r[2]
      error(r[2], 0)
    end
    return r[2]
  end
  return task.timeout(o.timeout, "watching " .. which.words(o), run, watcher)
end

--- Every object that is there, and every change from then on, until the function returns something or `timeout` seconds
--- are over, which raises. A plan lists it and does not wait.
---@async
---@param o table  as for `list`; name, timeout, since
---@param fn fun(event: "ADDED"|"MODIFIED"|"DELETED"|"SYNCED", object: table?): any
---@return any result  what it returned
function Cluster:watch(o, fn)
  o = check_watch(o)
  return effect.wait("watch " .. which.words(o), watch.run, self, o, fn)
end

return watch
