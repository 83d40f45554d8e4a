--- Where runbooks live: string, table, math, utf8 and the usual functions; no io, no load, no debug.
---
--- A guard against mistakes, not against malice. An unknown global is found before anything runs.

local errors = require "runbook.errors"
local globals = require "runbook.globals"
local nearest = require "runbook.nearest"

local sandbox = {}

-- What pcall and xpcall let through: a task that was cancelled has to end, and so has a body's plan.
local function must_pass(err)
  return errors.is_cancelled(err) or errors.is(err) and err.plan_end == true
end

local function pass(ok, err, ...)
  if not ok and must_pass(err) then
    error(err, 0)
  end
  return ok, err, ...
end

local function safe_pcall(fn, ...)
  return pass(pcall(fn, ...))
end

local function safe_xpcall(fn, handler, ...)
  return pass(xpcall(fn, function(e)
    return must_pass(e) and e or handler(e)
  end, ...))
end

local function copy(t)
  local c = {}
  for k, v in pairs(t) do
    c[k] = v
  end
  return c
end

--- An environment for the files of one runbook.
---@param require_function fun(name: string): any
---@param say fun(...)
---@return table
function sandbox.environment(require_function, say)
  local env = {
    assert = assert, error = error, ipairs = ipairs, next = next, pairs = pairs, rawequal = rawequal, rawget = rawget,
    rawlen = rawlen, rawset = rawset, select = select, tonumber = tonumber, tostring = tostring, type = type,
    getmetatable = getmetatable, setmetatable = setmetatable, _VERSION = _VERSION,
    math = copy(math), string = copy(string), table = copy(table), utf8 = copy(utf8),
    os = { time = os.time, date = os.date, clock = os.clock, getenv = os.getenv },
    pcall = safe_pcall, xpcall = safe_xpcall, print = say, require = require_function,
  }
  env.string.dump = nil
  env._G = env
  return env
end

local function names_of(env)
  local names = {}
  for name in pairs(env) do
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

local function problem_of(use, env, names)
  if use.write then
    return ("line %d  %s is set as a global; write `local %s`"):format(use.line, use.name, use.name)
  elseif env[use.name] ~= nil then
    return nil
  end
  local withheld = { io = true, load = true, dofile = true, loadfile = true, debug = true, coroutine = true, collectgarbage = true }
  if withheld[use.name] then
    return ("line %d  `%s` is not for runbooks; places read, write and run (`runbook lua` has plain Lua)"):format(use.line, use.name)
  end
  local near = nearest(use.name, names)
  return ("line %d  unknown global `%s`%s"):format(use.line, use.name, near and ("; did you mean `" .. near .. "`?") or "")
end

--- Compile a file of a runbook. Raises one error of kind `usage` with every unknown global.
---@param source string
---@param path string
---@param env table
---@return function chunk
function sandbox.load(source, path, env)
  local chunk, message = load(source, "@" .. path, "t", env)
  if chunk == nil then
    errors.raise { kind = "usage", code = "ESYNTAX", target = path, message = message }
  end
  local problems, names, seen = {}, names_of(env), {}
  for _, use in ipairs(globals.used(chunk)) do
    local text = problem_of(use, env, names)
    if text and not seen[text] then
      seen[text] = true
      problems[#problems + 1] = "  " .. text
    end
  end
  if #problems > 0 then
    errors.raise {
      kind = "usage", code = "EGLOBAL", target = path,
      message = ("%s: %d %s to fix\n%s"):format(path, #problems, #problems == 1 and "thing" or "things", table.concat(problems, "\n")),
    }
  end
  return chunk
end

return sandbox
