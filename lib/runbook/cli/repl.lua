--- `runbook repl [FILE]`: Lua line by line, with the libraries at hand. What it changes is changed at once, and not journaled.

local arguments = require "runbook.arguments"
local embed = require "runbook.core.embed"
local errors = require "runbook.errors"
local failure = require "runbook.failure"
local file = require "runbook.core.file"
local output = require "runbook.output"
local visible = require "runbook.visible"

local repl = {}

repl.example = [[
runbook repl
runbook repl temple.lua --params hubs/temple.yaml      its parameters are in `p`: p.from:space()]]

local DEPTH, ITEMS = 3, 40

function repl.declare(parser)
  parser:argument "file" :argname "FILE" :args "?" :description "A runbook whose parameters are wanted, as `p`."
  arguments.declare_parameters(parser)
end

-- A library by its last name: `ssh` is require "runbook.ssh".
local function library(env, name)
  if _G[name] ~= nil then
    return _G[name]
  end
  local full = "runbook." .. name
  if type(name) == "string" and embed.source(full) then
    local value = require(full)
    rawset(env, name, value)
    return value
  end
end

--- What its lines see.
---@param values? table  parameters
---@return table env
function repl.environment(values)
  local rb = require "runbook"
  return setmetatable({ rb = rb, p = values, print = rb.say }, { __index = library })
end

local function quoted(text)
  return ('"%s"'):format(visible.line(text):gsub('"', '\\"'))
end

local function key_text(key)
  if type(key) == "string" and key:match("^[%a_][%w_]*$") then
    return key .. " = "
  end
  return ("[%s] = "):format(type(key) == "string" and quoted(key) or tostring(key))
end

local function sorted_keys(t)
  local keys = {}
  for key in next, t do
    if not (math.type(key) == "integer" and key >= 1 and key <= #t) then
      keys[#keys + 1] = key
    end
  end
  table.sort(keys, function(a, b)
    return tostring(a) < tostring(b)
  end)
  return keys
end

--- A value as text a person can read; tables to a certain depth and length.
---@param value any
---@param depth? integer
---@return string
function repl.inspect(value, depth)
  depth = depth or DEPTH
  local mt = type(value) == "table" and getmetatable(value)
  if type(value) == "string" then
    return quoted(value)
  elseif type(value) ~= "table" or mt and (mt.__tostring or mt.__name) then
    return visible.text(tostring(value))
  elseif next(value) == nil then
    return "{}"
  elseif depth == 0 then
    return "{ ... }"
  end
  local parts = {}
  for i = 1, math.min(#value, ITEMS) do
    parts[#parts + 1] = repl.inspect(value[i], depth - 1)
  end
  for _, key in ipairs(sorted_keys(value)) do
    parts[#parts + 1] = #parts < ITEMS and key_text(key) .. repl.inspect(value[key], depth - 1) or nil
  end
  local line = "{ " .. table.concat(parts, ", ") .. " }"
  if #line > 90 then
    return "{\n  " .. table.concat(parts, ",\n"):gsub("\n", "\n  ") .. "\n}"
  end
  return line
end

--- Compile what was typed so far.
---@param text string
---@param env table
---@return function? chunk
---@return string? message
---@return boolean? incomplete  more lines are needed
function repl.compile(text, env)
  local chunk = load("return " .. text, "=typed", "t", env)
  if chunk then
    return chunk
  end
  local whole, message = load(text, "=typed", "t", env)
  if whole then
    return whole
  end
  return nil, message, message:find("<eof>", 1, true) ~= nil
end

local function evaluate(chunk)
  local r = table.pack(xpcall(chunk, errors.handler))
  if r[1] then
    local texts = {}
    for i = 2, r.n do
      texts[#texts + 1] = repl.inspect(r[i])
    end
    if #texts > 0 then
      output.result(table.concat(texts, "\n") .. "\n")
    end
  elseif errors.is_cancelled(r[2]) then
    error(r[2], 0)
  else
    local e = errors.from(r[2])
    if e.kind == "internal" then -- a slip in what was typed; the trace is ours
      output.say(visible.text(e.message) .. "\n")
    else
      output.say(failure.text(errors.record(e), output.width()))
    end
  end
  output.flush()
end

-- Where the lines of earlier times are; nil when there is no place for them.
local function history()
  local store = require "runbook.store"
  local made = require("runbook.effect").own(file.mkdir, store.root(), { parents = true, mode = tonumber("700", 8) })
  return made and store.root() .. "/repl-history"
end

-- A line from the terminal, or from whatever stdin is.
local function reader()
  local terminal = require "runbook.terminal"
  if terminal.is "stdin" and terminal.available() then
    local editor = terminal.editor(history())
    return function(prompt)
      if editor then
        return editor:read(prompt)
      end
      return terminal.ask { prompt = prompt }
    end, true
  end
  return function()
    return io.read "l"
  end, false
end

local function guarded(fn)
  local value
  local code = require("runbook.signals").guard(function()
    value = fn()
    return 0
  end)
  return code, value
end

-- Ctrl-C at the prompt leaves, during a call it stops the call.
local function loop(env, read)
  local typed
  while true do
    local code, line = guarded(function()
      return read(typed and "   .. " or "rb> ")
    end)
    if code ~= 0 or line == nil then
      return code
    end
    typed = typed and typed .. "\n" .. line or line
    local chunk, message, incomplete = repl.compile(typed, env)
    if chunk then
      if guarded(function() evaluate(chunk) end) ~= 0 then
        output.say "stopped\n"
      end
      typed = nil
    elseif not incomplete or line == "" then
      output.say(visible.text(message) .. "\n")
      typed = nil
    end
  end
end

function repl.main(args)
  local read, interactive = reader()
  local events = require "runbook.events"
  local book = args.file and require("runbook.cli.run").load(args) or nil
  local screen = require("runbook.screen").new {
    write = output.say, now = os.time, width = function() return output.width "stderr" end,
  }
  local unsubscribe = events.subscribe(function(event)
    if event.type == "say" then
      output.result(visible.text(event.text) .. "\n")
    else
      screen:event(event)
      screen:tick()
    end
  end)
  if interactive then
    output.say "Libraries by their names: ssh, sync, json ...; rb is the language. What you change is changed at once. Ctrl-D leaves.\n"
  end
  local _ <close> = setmetatable({}, { __close = unsubscribe })
  return loop(repl.environment(book and book.values), read)
end

return repl
