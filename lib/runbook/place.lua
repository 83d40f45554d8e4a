--- Somewhere with files and commands: this machine, an ssh host, later a container. One interface for all.
---
---     local old = ssh.host { "nfs-old", user = "ubuntu", sudo = true }
---     local kernel = old:query { "uname", "-r" }                     -- reads; raises unless it exits with 0
---     old:run { "systemctl", "stop", "nfs-server", timeout = 60 }    -- changes; its output is shown as it comes
---     local n = old:query_sh([[find "$1" | wc -l]], "/export")       -- a script is a literal, values are $1…
---     old:dir("/export"):write("README", "moved\n")
---
--- Arguments are lists and are quoted in one place. Files: lib/runbook/place/files.lua; jobs: lib/runbook/job.lua.

local command = require "runbook.place.command"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local options = require "runbook.options"
local shell = require "runbook.shell"

local place = {}

---@class runbook.Place
---@field name string  for messages
---@field user? string
---@field sudo? boolean|string  true: as root; a name: as that user
---@field seen_from_target? string  where the other server of a pair finds it, if elsewhere
---@field package backend table
local Place = {}

local place_mt = { __name = "runbook.place", __index = Place }

function place_mt.__tostring(self)
  return self.name
end

-- A runbook writes p.from == p.to and means the same server, which two parameters may have opened.
function place_mt.__eq(a, b)
  return a.name == b.name and a.sudo == b.sudo
end

--- The class, for the modules that add methods to places.
place.Place = Place

local kinds = {}

--- Tell how a place of that kind is opened again from its reference.
---@param kind string
---@param open fun(reference: table): runbook.Place
function place.register(kind, open)
  kinds[kind] = open
end

--- A place again from what `place:reference()` gave, in this process or another.
---@param reference table
---@return runbook.Place
function place.open(reference)
  if not kinds[reference.kind] then
    require("runbook." .. reference.kind) -- registers itself
  end
  return kinds[reference.kind](reference)
end

--- Make a place on a backend; see place/command.lua for what that is.
---@param backend table
---@param fields { name: string, user?: string, sudo?: boolean|string, sudo_password?: any, seen_from_target?: string }
---@return runbook.Place
function place.new(backend, fields)
  local self = { backend = backend }
  for key, value in pairs(fields) do
    self[key] = value
  end
  return setmetatable(self, place_mt)
end

--- Is this value a place?
function place.is(value)
  return getmetatable(value) == place_mt
end

--- The same place with another user's rights.
---@param fields { sudo?: boolean|string, sudo_password?: any }
---@return runbook.Place
function Place:with(fields)
  local new = {}
  for key, value in pairs(self) do
    new[key] = value
  end
  for key, value in pairs(fields) do
    new[key] = value
  end
  return setmetatable(new, place_mt)
end

--- What `place.open` needs, as plain data: no secrets, no connection.
---@return table
function Place:reference()
  local reference = self.backend:reference()
  reference.sudo = self.sudo
  return reference
end

--- The same as a line for a person's terminal.
---@param argv string[]
---@return string
function Place:by_hand(argv)
  if self.sudo then
    local words = type(self.sudo) == "string" and { "sudo", "-u", self.sudo } or { "sudo" }
    argv = table.move(argv, 1, #argv, #words + 1, words)
  end
  return self.backend:by_hand(argv)
end

local common = {
  argv = { "list", "the command, one argument each", optional = true },
  cwd = { "string", "directory it runs in", optional = true },
  env = { "table", "environment variables: NAME = value", optional = true },
  stdin = { "any", "a string, a secret or a stream", optional = true },
  timeout = { "number", "seconds", optional = true },
  stall = { "number|boolean", "seconds of silence before it is given up, usually 900; false: it may be silent for ever", optional = true },
}

local function declare(where, more)
  local declared = {}
  for _, set in ipairs { common, more } do
    for name, option in pairs(set) do
      declared[name] = option
    end
  end
  local check = options.declare(where, declared)
  return function(given)
    if type(given) ~= "table" then
      errors.raise({ kind = "usage", message = where .. ': takes a list in braces, like { "ls", "-l" }' }, 3)
    end
    local o = check(given, 3)
    if o.stall == true then
      errors.raise({ kind = "usage", message = where .. ": stall: seconds, or false" }, 3)
    end
    o.argv = command.argv(o.argv or o, where)
    for i = #o, 1, -1 do
      o[i] = nil
    end
    return o
  end
end

local limit = { limit = { "integer", "bytes of output kept in memory", optional = true } }
local check_exec = declare("place:exec", {
  limit = limit.limit, reads = { "boolean", "it changes nothing: done in plan, and again when the connection is lost", default = false },
})
local check_query = declare("place:query", limit)
local check_run = declare("place:run", {
  on_line = { "function", "called with each line and `stdout` or `stderr`, instead of showing it", optional = true },
})

local function settings(o, more)
  local s = { stdin = o.stdin, timeout = o.timeout, stall = o.stall, env = o.env, cwd = o.cwd, limit = o.limit, on_line = o.on_line }
  for key, value in pairs(more) do
    s[key] = value
  end
  return s
end

-- Declares a verb over one command line. `body` gets the place and checked options.
local function command_verb(name, class, body, quiet)
  return effect.verb {
    name = name, class = class, quiet = quiet,
    target = function(self) return self.name end,
    summary = function(_, o) return command.show(o.argv) end,
    by_hand = function(self, o) return self:by_hand(o.argv) end,
    body = body,
  }
end

local function exec_body(class)
  return function(self, o)
    local r = command.run(self, o.argv, settings(o, { change = class ~= "read" }))
    return r.status or 128, r.stdout, r.stderr, r.signal
  end
end

local exec_read = command_verb("place.look", "read", exec_body "read")
local exec_change = command_verb("place.exec", "change", exec_body "change")

local query = command_verb("place.query", "read", function(self, o)
  local r = command.run(self, o.argv, settings(o, {}))
  if r.status ~= 0 then
    command.fail(self, o.argv, r)
  end
  return (r.stdout:gsub("\n$", ""))
end)

local run = command_verb("place.run", "change", function(self, o)
  local r = command.run(self, o.argv, settings(o, { change = true, live = true }))
  if r.status ~= 0 then
    command.fail(self, o.argv, r)
  end
end, true)

--- Run a command and say how it ended, whatever its status. Raises only when nobody knows.
---@async
---@param o { [integer]: string, stdin?: any, timeout?: number, reads?: boolean, env?: table, cwd?: string, limit?: integer }
---@return integer status  128 when a signal ended it
---@return string stdout
---@return string stderr  its last 64 KiB
---@return string? signal
function Place:exec(o)
  o = check_exec(o)
  if o.reads then
    return exec_read(self, o)
  end
  return exec_change(self, o)
end

--- Run a command that reads, and take what it prints. Done in plan too.
---@async
---@param o { [integer]: string, stdin?: any, timeout?: number, env?: table, cwd?: string, limit?: integer }
---@return string stdout  without its last newline
function Place:query(o)
  return query(self, check_query(o))
end

--- Run a command that changes something and has to succeed. What it prints is shown as it comes.
---@async
---@param o { [integer]: string, stdin?: any, timeout?: number, env?: table, cwd?: string, on_line?: function }
function Place:run(o)
  run(self, check_run(o))
end

-- script and values as argv; a table at the end holds the options.
local function script_options(where, check, script, ...)
  local values = table.pack(...)
  local o = {}
  local last = values[values.n]
  if type(last) == "table" and getmetatable(last) == nil then
    for key, value in pairs(last) do
      o[key] = value
    end
    values.n = values.n - 1
  end
  if type(script) ~= "string" then
    errors.raise({ kind = "usage", message = where .. ": the script is a string" }, 3)
  end
  o.argv = { "sh", "-c", script, "sh" }
  for i = 1, values.n do
    if values[i] == nil then
      errors.raise({ kind = "usage", message = ("%s: $%d is nil"):format(where, i) }, 3)
    end
    o.argv[i + 4] = values[i]
  end
  return check(o)
end

--- Run a shell script that changes something; its values are $1, $2, …, never part of the script.
---@async
---@param script string  a literal
---@param ... string|number  and at the end, if wanted, a table of options as for `run`
function Place:sh(script, ...)
  run(self, script_options("place:sh", check_run, script, ...))
end

--- Run a shell script that reads, and take what it prints.
---@async
---@param script string  a literal
---@param ... string|number  and at the end, if wanted, a table of options as for `query`
---@return string stdout  without its last newline
function Place:query_sh(script, ...)
  return query(self, script_options("place:query_sh", check_query, script, ...))
end

--- Start a supervised command there, or find the one that was started by that name; see lib/runbook/job.lua.
---@async
---@param o { name: string, argv: string[], stdin?: any, env?: table }
---@return runbook.Job
function Place:job(o)
  return require("runbook.job").start(self, o)
end

--- A command line that a person or another shell may run.
place.quote = shell.join

require "runbook.place.files"(place)

return setmetatable(place, {
  __index = function(_, key)
    return key == "here" and require "runbook.here" or nil
  end,
})
