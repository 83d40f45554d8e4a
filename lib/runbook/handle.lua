--- What `rb.step` returns: called, it gives what the body returned; passed to a primitive, it stands for that.

local errors = require "runbook.errors"
local task = require "runbook.core.task"
local unknown = require "runbook.unknown"

local handle = {}

local Handle = { __name = "runbook.handle" }

local function read(h)
  local context = task.context()
  if context.session == nil then
    errors.raise({
      kind = "usage",
      message = ("the result of step `%s` (line %d) is read while the file loads"):format(h.item.id, h.item.line),
      hint = "read it in the body of a later step",
    }, 3)
  end
  return context.session:step_result(h.item)
end

function Handle.__call(h)
  local known, value = read(h)
  if known then
    return value
  end
  local where = debug.getinfo(2, "Sl")
  local at = where and ("%s:%d"):format(where.short_src, where.currentline)
  if task.context().mode == "plan" then
    errors.raise({
      kind = "unknown", plan_end = true, unknown = h.item.id, where = at,
      message = ("the result of `%s`, which only a run can know"):format(h.item.id),
    }, 2)
  end
  errors.raise({
    kind = "usage", where = at,
    message = ("step `%s` (line %d) has not run, and its result is needed at %s"):format(h.item.id, h.item.line, at or "?"),
    hint = ("run it first: --from %s"):format(h.item.id),
  }, 2)
end

function Handle.__tostring(h)
  return "«step:" .. h.item.id .. "»"
end

--- A handle for a declared step.
function handle.new(item)
  return setmetatable({ item = item }, Handle)
end

--- Is it a handle?
function handle.is(value)
  return getmetatable(value) == Handle
end

--- The value a handle stands for: its step's result, or an unknown in a plan. Anything else is returned as it is.
function handle.resolve(value)
  if getmetatable(value) ~= Handle then
    return value
  end
  local known, result = read(value)
  if known then
    return result
  elseif task.context().mode == "plan" then
    return unknown.new(value.item.id)
  end
  return value()
end

return handle
