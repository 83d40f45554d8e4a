--- The REST API of a hub, asked by a port-forward to its pod: it answers whether or not people can reach the hub.
---
---     hub:with_api({}, function(api)
---       for _, user in ipairs(api:users()) do rb.say(user.name) end
---       api:get("/info")
---       api:stop_server("carla", "gpu")
---     end)
---
--- Lists are whole: every page is asked for, the last one too, and when people come or go meanwhile the list begins again.
---
--- Source: jupyterhub/apihandlers/base.py (`get_api_pagination`, `paginated_model`) and users.py, 1.0 to 5.

local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local handle = require "runbook.hub.handle"
local http = require "runbook.http"
local human = require "runbook.human"
local json = require "runbook.json"
local options = require "runbook.options"
local shell = require "runbook.shell"
local task = require "runbook.task"
local time = require "runbook.core.time"
local tokens = require "runbook.hub.token"
local units = require "runbook.units"
require "runbook.ssh" -- place:tunnel

local Hub = handle.Hub

local api = {}

local PORT = 8081
local PAGES = "application/jupyterhub-pagination+json" -- without it a hub cuts a list off and says nothing
local AT_ONCE = 8 -- servers that are asked to stop
local BEGINNINGS = 5 -- of one list

api.poll = 1 -- seconds between two looks at servers that are stopping
api.ending = 300 -- seconds a hub may take to stop servers

--- What reading users takes.
api.READING = { "list:users", "read:users:activity", "read:servers" }
--- What stopping their servers takes as well.
api.STOPPING = "delete:servers"
--- What starting one and stopping it again takes.
api.STARTING = "servers"

---@class runbook.hub.Api
---@field hub runbook.Hub
---@field who string      whose token it is, for messages
---@field major integer   of the hub's version
local Api = {}
local api_mt = { __name = "runbook.hub.api", __index = Api }

--- A client of a hub that answers at a port of this machine. For `with_api`, and for specs.
---@param of { hub: runbook.Hub, port: integer, base: string, token: runbook.secret, who: string, major: integer }
---@return runbook.hub.Api
function api.new(of)
  return setmetatable(of, api_mt)
end

-- ---- one request ----

-- A name as part of a path.
local function encode(name)
  return (name:gsub("[^%w._~-]", function(c) return ("%%%02X"):format(c:byte()) end))
end

local function server_path(user, server)
  return ("/users/%s/%s"):format(encode(user), server == "" and "server" or "servers/" .. encode(server))
end

local function said_by(answer)
  local ok, value = pcall(json.decode, answer.body or "")
  return ok and type(value) == "table" and type(value.message) == "string" and value.message or ""
end

-- What the hub refuses, in words. From 2.0 on it names the scopes of which one would do.
local function refuse(self, o, answer)
  local said = said_by(answer)
  local what = ("%s %s"):format(o.method or "GET", o.path)
  local wanted = said:match "requires any of %[(.-)%]"
  if answer.status == 403 and wanted then
    errors.raise {
      kind = "refused", code = "ESCOPE", status = 403, target = self.hub.name, tried = what,
      message = ("%s may not do this: it lacks the scope %s"):format(self.who, wanted:gsub(", ", " or ")),
      hint = "give it to a service under hub.loadRoles, or name a token that has it: `token:` below the hub",
    }
  elseif answer.status == 401 or answer.status == 403 then
    errors.raise { kind = "auth", code = "HTTP" .. answer.status, status = answer.status, target = self.hub.name, tried = what,
      message = ("the hub does not accept %s%s"):format(self.who, said ~= "" and ": " .. said or "") }
  end
  errors.raise {
    kind = answer.status == 404 and "missing" or answer.status >= 500 and "busy" or "refused", code = "HTTP" .. answer.status,
    status = answer.status, target = self.hub.name, tried = what,
    message = ("the hub answers %d%s"):format(answer.status, said ~= "" and ": " .. said or ""),
  }
end

-- Any answer. Wants a permit. What cannot be reached is the hub, not the port here that leads to it.
local function send(self, o)
  local ok, answer = xpcall(http.request, errors.handler, {
    ("http://127.0.0.1:%d%shub/api%s"):format(self.port, self.base, o.path), method = o.method, query = o.query, proxy = "",
    headers = { Authorization = { "token ", self.token }, Accept = o.accept or "application/json" },
  })
  if ok then
    return answer
  elseif errors.is(answer) and not errors.is_cancelled(answer) then
    answer.target = self.hub.name
    answer.message = answer.message:gsub("http://127%.0%.0%.1:%d+", "the hub's ")
  end
  error(answer, 0)
end

local function by_hand(self, o)
  local words = { "curl", "-H", "Authorization: token ...", "-H", "Accept: " .. (o.accept or "application/json") }
  if o.method then
    table.move({ "-X", o.method }, 1, 2, #words + 1, words)
  end
  words[#words + 1] = ("http://127.0.0.1:%d%shub/api%s"):format(PORT, self.base, o.path)
  local way = self.hub.cluster:by_hand { "-n", self.hub.namespace, "port-forward", "deploy/hub", ("%d:%d"):format(PORT, PORT) }
  return ("%s & %s"):format(way, shell.join(words))
end

local ask = effect.verb {
  name = "hub.ask", class = "read",
  target = function(self) return self.hub.name end,
  summary = function(_, o) return ("GET %s of the hub"):format(o.path) end,
  by_hand = by_hand,
  body = function(self, o)
    local answer = send(self, o)
    if answer.status // 100 ~= 2 then
      refuse(self, o, answer)
    end
    return json.decode(answer.body or "", { name = self.hub.name })
  end,
}

--- What the hub says at a path below `/hub/api`.
---@async
---@param path string  like "/info"
---@param query? table<string, any>
---@return any
function Api:get(path, query)
  return ask(self, { path = path, query = query })
end

-- ---- lists ----

local function page_of(self, path, query, offset)
  local q = {}
  for key, value in pairs(query or {}) do
    q[key] = value
  end
  q.offset = offset > 0 and offset or nil
  return ask(self, { path = path, query = q, accept = PAGES })
end

-- Where the page after this one begins; nil after the last.
local function next_of(self, path, answer, offset)
  local following = answer._pagination and answer._pagination.next
  if type(following) ~= "table" or following == json.null then
    return nil
  elseif math.type(following.offset) ~= "integer" or following.offset <= offset then
    errors.raise { kind = "exit", code = "EPAGES", target = self.hub.name, tried = "GET " .. path,
      message = ("the page at %d names none that follows it"):format(offset) }
  end
  return following.offset
end

-- Every item once; nil when people came or went between two pages. A selection of them changes all the time.
local function whole_list(self, path, query, key)
  local list, seen, offset, total = {}, {}, 0, nil
  while offset do
    local answer = page_of(self, path, query, offset)
    if json.kind(answer) == "array" then -- of a hub before 2.0, which gives all at once
      return answer
    end
    local now = answer._pagination and answer._pagination.total
    if total and now ~= total and not query then
      return nil
    end
    total = now
    for _, item in ipairs(answer.items) do
      if not seen[item[key]] then
        seen[item[key]] = true
        list[#list + 1] = item
      end
    end
    offset = next_of(self, path, answer, offset)
  end
  return list
end

--- A list, whole.
---@async
---@param path string
---@param query? table<string, any>
---@param key? string  what tells its items apart
---@return table[]
function Api:list(path, query, key)
  for _ = 1, BEGINNINGS do
    local list = whole_list(self, path, query, key or "name")
    if list then
      return list
    end
  end
  errors.raise { kind = "busy", code = "EPAGES", target = self.hub.name, tried = "GET " .. path,
    message = ("the list changed between two pages, %d times"):format(BEGINNINGS) }
end

--- Users as the API has them; with `state = "active"` those with a server.
---@async
---@param query? { state: string?, name_filter: string? }
---@return table[]
function Api:users(query)
  return self:list("/users", query)
end

-- ---- servers ----

local function is_there(server)
  return server.ready == true or type(server.pending) == "string"
end

--- Servers that run, start or end; the one without a name is "".
---@param user table
---@return { user: string, name: string, pending: string? }[]
function api.servers_of(user)
  local list = {}
  for name, server in pairs(type(user.servers) == "table" and user.servers or {}) do
    if is_there(server) then
      list[#list + 1] = { user = user.name, name = name, pending = type(server.pending) == "string" and server.pending or nil }
    end
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

-- True once it has ended. One that is only starting cannot be stopped yet.
local ask_to_stop = effect.verb {
  name = "hub.stop_server", class = "change", repeatable = true, inverse = effect.NOT_NEEDED,
  target = function(self) return self.hub.name end,
  summary = function(_, user, server)
    return ("stop %s's server%s; it is not started again by going back"):format(user, server ~= "" and " " .. server or "")
  end,
  by_hand = function(self, user, server) return by_hand(self, { method = "DELETE", path = server_path(user, server) }) end,
  body = function(self, user, server)
    local o = { method = "DELETE", path = server_path(user, server) }
    local answer = send(self, o)
    local starting = answer.status == 400 and said_by(answer):find("pending", 1, true)
    if answer.status // 100 ~= 2 and answer.status ~= 404 and not starting then
      refuse(self, o, answer)
    end
    return answer.status == 204 or answer.status == 404
  end,
}

local function late(self, left, at_most)
  local words = {}
  for i, one in ipairs(left) do
    words[i] = ("%s%s: %s"):format(one.user, one.name ~= "" and ", server " .. one.name or "", one.pending or "runs")
  end
  errors.raise {
    kind = "timeout", code = "ESTOPPING", target = self.hub.name,
    message = ("the hub has not stopped %s after %s\n%s"):format(human.plural(#left, "server"), units.duration(at_most),
      human.first_five(words)),
  }
end

-- Stops what `look()` finds until it finds nothing: 202 means that a server is ending, not that it has.
local function stop_until_none(self, look)
  local deadline, most, shown = time.now() + api.ending, 0, nil
  while true do
    local left = look()
    most = math.max(most, #left)
    if #left ~= shown then
      shown = #left
      events.emit { type = "progress", target = self.hub.name, done = most - #left, total = most, unit_name = "servers",
        text = "stopped by the hub" }
    end
    if #left == 0 then
      return most
    elseif time.now() > deadline then
      late(self, left, api.ending)
    end
    task.each(left, { limit = AT_ONCE }, function(one)
      if one.pending ~= "stop" then
        ask_to_stop(self, one.user, one.name)
      end
    end)
    task.sleep(api.poll)
  end
end

--- Stop a server and wait until the hub says that it has ended. One that does not run is fine.
---@async
---@param user string
---@param server? string  of several, this one
function Api:stop_server(user, server)
  server = server or ""
  if effect.planning() then
    ask_to_stop(self, user, server)
    return
  end
  stop_until_none(self, function()
    local left = {}
    for _, one in ipairs(api.servers_of(self:get("/users/" .. encode(user)))) do
      left[#left + 1] = one.name == server and one or nil
    end
    return left
  end)
end

--- Stop every server, and those that start meanwhile; raises kind `timeout` with what is left.
---@async
---@return integer stopped
function Api:stop_servers()
  return stop_until_none(self, function()
    local left = {}
    for _, user in ipairs(self:users { state = "active" }) do
      for _, one in ipairs(api.servers_of(user)) do
        left[#left + 1] = one
      end
    end
    return left
  end)
end

local ask_to_start = effect.verb {
  name = "hub.start_server", class = "change", repeatable = true, inverse = effect.NOT_NEEDED,
  target = function(self) return self.hub.name end,
  summary = function(_, user) return ("start %s's server"):format(user) end,
  by_hand = function(self, user) return by_hand(self, { method = "POST", path = server_path(user, "") }) end,
  body = function(self, user)
    local o = { method = "POST", path = server_path(user, "") }
    local answer = send(self, o)
    local already = answer.status == 400 and (said_by(answer):find("already running", 1, true) or said_by(answer):find("pending", 1, true))
    if answer.status // 100 ~= 2 and not already then
      refuse(self, o, answer)
    end
  end,
}

--- Start a user's server and wait until the hub says that it is ready. One that runs is fine.
---@async
---@param user string
function Api:start_server(user)
  ask_to_start(self, user)
  effect.wait(("wait until %s's server is ready"):format(user), function()
    local deadline = time.now() + api.ending
    while true do
      local server = (self:get("/users/" .. encode(user)).servers or {})[""]
      if server and server.ready then
        return
      elseif time.now() > deadline or not (server and server.pending) then
        errors.raise { kind = "timeout", code = "ESTARTING", target = self.hub.name,
          message = ("%s's server is not ready%s"):format(user, server and server.pending and " after " .. units.duration(api.ending) or
            ": the hub gave it up"),
          hint = self.hub.cluster:by_hand { "-n", self.hub.namespace, "get", "events", "--sort-by=.lastTimestamp" } }
      end
      task.sleep(api.poll)
    end
  end)
end

-- ---- whose token ----

-- Does this token do? Otherwise why not. Hubs before 2.0 know admins and others only.
local suffices = effect.verb {
  name = "hub.look_at_token", class = "read",
  target = function(self) return self.hub.name end,
  summary = function(self) return "see what " .. self.who .. " may do" end,
  by_hand = function(self) return by_hand(self, { path = "/user" }) end,
  body = function(self, scopes)
    local answer = send(self, { path = self.major < 2 and "/users" or "/user" })
    if answer.status ~= 200 then
      return false, "the hub does not accept it"
    elseif self.major < 2 then
      return true
    end
    local has, missing = {}, {}
    for _, scope in ipairs(json.decode(answer.body).scopes or {}) do
      has[scope] = true
    end
    for _, scope in ipairs(scopes) do
      missing[#missing + 1] = not has[scope] and scope or nil
    end
    return #missing == 0, "it lacks " .. table.concat(missing, ", ")
  end,
}

local function version_of(hub, port, base)
  local client = api.new { hub = hub, port = port, base = base, token = "none", who = "nobody", major = 0 }
  return math.tointeger(tonumber(tostring(ask(client, { path = "/" }).version):match "^%d+")) or 0
end

-- The first of the known tokens that does; else nil and what each of them lacks.
local function find(hub, o, connection)
  local faults = {}
  for i, one in ipairs(tokens.known(hub)) do
    local client = api.new { hub = hub, port = connection.port, base = connection.base, major = connection.major, token = one.token,
      who = one.who }
    local enough, fault = suffices(client, o.scopes)
    if enough then
      return client
    end
    faults[i] = ("%s: %s"):format(one.who, fault)
  end
  return nil, faults
end

local function raise_no_token(hub, faults)
  errors.raise {
    kind = "auth", code = "ETOKEN", target = hub.name,
    message = "no token of the hub's API may do this" .. (#faults > 0 and "\n" .. human.first_five(faults) or ""),
    hint = "name one that has these scopes: `token:` below the hub, or give them to a service under hub.loadRoles",
  }
end

local check_with = options.declare("hub:with_api", {
  scopes = { "list", "what the token must be allowed to do", default = api.READING },
  make_token = { "boolean", "where no token will do, make one in the hub's pod, and remove it again", default = false },
})

-- A hub's own pod listens where its deployment says.
local function port_of(hub)
  local _, _, own = hub:deployment()
  for _, port in ipairs(own.ports or {}) do
    if port.name == "http" then
      return port.containerPort
    end
  end
  return PORT
end

--- Call fn(api) with a client of the hub's REST API. Whose token: that of the hub's parameter `token`; else that of a service of
--- the hub's configuration that may do what is needed (the culler's does, mostly); else, if wanted, one made for this.
---@async
---@param given { scopes: string[]?, make_token: boolean? }
---@param fn async fun(client: runbook.hub.Api): any
---@return any result
function Hub:with_api(given, fn)
  local o = check_with(given, 2)
  local base = self:settings().base_url
  return self:container():tunnel({ to = ("localhost:%d"):format(port_of(self)) }, function(port)
    local connection = { port = port, base = base, major = version_of(self, port, base) }
    local client, faults = find(self, o, connection)
    if client then
      return fn(client)
    elseif self.token or not o.make_token then
      raise_no_token(self, faults)
    elseif effect.planning() then
      errors.raise { kind = "unknown", plan_end = true, target = self.name, message = "the rest depends on a token that a run makes" }
    end
    return tokens.with_made(self, o.scopes, function(made)
      return fn(api.new { hub = self, port = port, base = base, major = connection.major, token = made, who = "a token made for this" })
    end)
  end)
end

return api
