--- The gate: every call on the outside world is a verb, declared once.
---
---     local put = effect.verb {
---       name = "place.put", class = "change",
---       target = function(place) return place.name end,
---       summary = function(place, path) return "write " .. path end,
---       body = function(place, path, bytes) ... end,
---     }
---
--- Who runs it decides what happens: a run journals a change before and after it, a plan lists it and hands out an
--- unknown, a loading file is refused. Core calls inside a body belong to that verb; a verb inside a verb too.

local errors = require "runbook.errors"
local gate = require "runbook.core.gate"
local handle = require "runbook.handle"
local options = require "runbook.options"
local redaction = require "runbook.redaction"
local secret = require "runbook.secret"
local task = require "runbook.core.task"
local unknown = require "runbook.unknown"

local effect = {}

local RANK = { read = 1, change = 2, destroy = 3 }
local verbs = {}

--- For `inverse`: what was done needs no undoing (a copy never deletes what it copied).
effect.NOT_NEEDED = "not needed"

local check_verb = options.declare("effect.verb", {
  name = { "string", "what it is called in the journal" },
  class = { "string", "what it does to the world", choices = { "read", "change", "destroy" } },
  target = { "function", "(...) -> whom it touches", optional = true },
  summary = { "function", "(...) -> one line, present tense", optional = true },
  by_hand = { "function", "(...) -> what a person would type", optional = true },
  inverse = { "function|string", "(...) -> { verb, arguments... }, asked before the effect", optional = true },
  owed = { "boolean", "an obligation takes it away when its step or run ends, so nobody waits for an undo", default = false },
  preview = { "function", "(...) -> { before =, after = }, reads only, for plans", optional = true },
  answer = { "function", "(...) -> what a plan may hand out instead of an unknown", optional = true },
  repeatable = { "boolean|function", "may be run again after half of itself; or (...) -> whether", default = false },
  quiet = { "boolean", "returns nothing, so a plan hands out nothing unknown", default = false },
  body = { "function", "(...) -> what the caller gets" },
})

-- What is asked about a verb's arguments must not break a plan or a message.
local function ask(fn, ...)
  if fn == nil then
    return nil
  end
  return fn(...)
end

--- What a verb would do with these arguments, in words. Used by plans, journal, errors and the report.
---@return table description  verb, class, target, summary, by_hand
function effect.describe(d, ...)
  return {
    verb = d.name, class = d.class,
    target = ask(d.target, ...),
    summary = redaction.value(ask(d.summary, ...) or d.name),
    by_hand = redaction.value(ask(d.by_hand, ...)),
    repeatable = effect.is_repeatable(d, ...),
  }
end

--- May this be run again when nobody knows whether it happened?
---@return boolean
function effect.is_repeatable(d, ...)
  if type(d.repeatable) == "function" then
    return d.repeatable(...)
  end
  return d.repeatable
end

local function run_body(d, context, ...)
  local inner = setmetatable({ effect = d }, { __index = context })
  secret.ready_all(...)
  return gate.call(d.class, task.with_context, inner, d.body, ...)
end

local READ_ONLY = { check = true, guard = true, when = true, verify = true, checks = true }

local function refuse_change(d, context, ...)
  local described = effect.describe(d, ...)
  errors.raise({
    kind = "usage", code = "ECHANGE", target = described.target,
    message = ("a change inside `%s`: %s"):format(context.phase, described.summary),
    hint = "only reads may be made there; move it into the body of a step",
  })
end

local function inside(d, context, ...)
  if RANK[d.class] > RANK[context.effect.class] then
    errors.raise({
      kind = "internal", code = "ungated",
      message = ("%s (%s) inside %s (%s)"):format(d.name, d.class, context.effect.name, context.effect.class),
    }, 3)
  end
  return d.body(...)
end

-- Handles of steps stand for their results, as arguments and in tables of options.
local function resolve(...)
  local given = table.pack(...)
  for i = 1, given.n do
    local value = given[i]
    if handle.is(value) then
      given[i] = handle.resolve(value)
    elseif type(value) == "table" and getmetatable(value) == nil then
      for k, v in pairs(value) do
        if handle.is(v) then
          value[k] = handle.resolve(v)
        end
      end
    end
  end
  return table.unpack(given, 1, given.n)
end

local function perform_checked(d, context, ...)
  if context.mode == "loading" then
    errors.raise({
      kind = "usage", code = "ELOADING",
      message = ("%s while the file loads; nothing outside is touched then"):format(d.name),
      hint = "put it into the body of a step, or into rb.main(function() ... end)",
    })
  elseif d.class == "read" then
    if context.session then
      context.session:count_read(d)
    end
    return run_body(d, context, ...)
  elseif READ_ONLY[context.phase] then
    refuse_change(d, context, ...)
  elseif context.session then
    return context.session:perform(d, run_body, context, ...)
  end
  return run_body(d, context, ...)
end

local function perform(d, ...)
  local context = task.context()
  if context.effect then -- its arguments were resolved at the outer verb
    return inside(d, context, ...)
  end
  return perform_checked(d, context, resolve(...))
end

--- Declare a verb; the value returned is called like a function.
---@param d table
---@return fun(...): any
function effect.verb(d)
  d = check_verb(d, 2)
  assert(verbs[d.name] == nil, "verb " .. d.name .. " is declared twice")
  verbs[d.name] = d
  return function(...)
    return perform(d, ...)
  end
end

--- Reads that a verb's declaration needs before its effect (an inverse, a preview).
---@return any ...  what `fn` returns
function effect.reading(fn, ...)
  return run_body({ name = "reading", class = "read", body = fn }, task.context(), ...)
end

--- Run a verb by its name, as undo does with what the journal kept.
function effect.call(name, ...)
  local d = verbs[name]
  if d == nil then
    errors.raise { kind = "internal", message = "no verb is called " .. tostring(name) }
  end
  return perform(d, ...)
end

--- The declaration of a verb; nil when there is none.
function effect.find(name)
  return verbs[name]
end

--- Names of all verbs, sorted.
function effect.names()
  local list = {}
  for name in pairs(verbs) do
    list[#list + 1] = name
  end
  table.sort(list)
  return list
end

--- Work on what is ours (state directory, parameter files, the terminal): no effect on the outside.
---@param fn function
---@return any ...  what `fn` returns
function effect.own(fn, ...)
  return gate.call("change", fn, ...)
end

--- Clean up: changes and removals are allowed and belong to no step's undo.
---@return any ...  what `fn` returns
function effect.outside_of_step(fn, ...)
  local d = { name = "clean-up", class = "destroy", body = fn }
  return run_body(d, setmetatable({ mode = "live" }, { __index = task.context() }), ...)
end

--- Wait for something outside. A plan lists the wait and does not wait.
---@async
---@param text string  what is waited for
---@param fn function
---@return any ...  what `fn` returns; an unknown in a plan
function effect.wait(text, fn, ...)
  local context = task.context()
  if context.mode == "plan" and not context.effect then
    return context.session:plan_wait(text)
  end
  return fn(...)
end

--- Changes that are one thing to people: a plan shows its name for them and for what they wait for, and each of them with -v.
---@async
---@param target string  where: "old/temple"
---@param name string  what is done, present tense
---@param fn function
---@return any ...  what `fn` returns
function effect.part_of(target, name, fn, ...)
  local context = task.context()
  if context.mode ~= "plan" or context.part then
    return fn(...)
  end
  local inner = setmetatable({ part = { target = target, name = name } }, { __index = context })
  return task.with_context(inner, fn, ...)
end

--- True in a plan: for libraries whose work makes no sense there (an obligation is not owed).
function effect.planning()
  return task.context().mode == "plan"
end

effect.is_unknown = unknown.is

return effect
