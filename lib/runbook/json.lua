--- JSON: text to Lua values and back, with nothing lost on the way.
---
---     local pods = json.decode(text)
---     local text = json.encode { names = json.array {}, size = 12 }
---
--- Integers stay integers, `null` is `json.null`, and a decoded table remembers whether it was an array: an empty one is
--- written back as it was. A table made in Lua is an array when its keys are 1 to n; an empty one is an object unless it
--- was marked with `json.array`.

local core = require "runbook.core.json"
local errors = require "runbook.errors"
local options = require "runbook.options"
local value = require "runbook.core.value"

local json = {
  null = value.null,
  array = value.array,   -- array(table?): mark a table as an array, and return it
  object = value.object, -- object(table?): mark a table as an object, and return it
  kind = value.kind,     -- kind(v): "array", "object", "null", or nil when it carries no mark
}

local MAX_BYTES = 256 << 20

local decode_options = options.declare("json.decode", {
  max = { "integer", "most bytes", default = MAX_BYTES },
  name = { "string", "where the text came from, for messages", default = "JSON" },
})

local encode_options = options.declare("json.encode", {
  indent = { "integer", "spaces a level; 0 puts all on one line", default = 0 },
  lossy = { "boolean", "write U+FFFD for bytes that are not UTF-8, instead of refusing them", default = false },
  sorted = { "boolean", "keys in order, so that equal values have equal text", default = true },
})

--- Read a text. A key twice in one object, a number beyond 64 bits and more than 200 levels are refused.
---@param text string
---@param opts? { max: integer?, name: string? }
---@return any value
function json.decode(text, opts)
  if opts == nil then
    return (errors.check("JSON", nil, core.decode(text, MAX_BYTES)))
  end
  local o = decode_options(opts, 2)
  return (errors.check(o.name, nil, core.decode(text, o.max)))
end

--- Read an object with a long list in it, whose members become values one by one: never more than one of them is in memory.
---@param text string
---@param key string  where the list stands; without one there `rest` is all of it, and no member comes
---@param opts? { max: integer?, name: string? }
---@return any rest  the object without the list
---@return fun(): any next  for `for`
function json.items(text, key, opts)
  local o = decode_options(opts or {}, 2)
  return errors.check(o.name, nil, core.decode_items(text, o.max, key))
end

--- Write a value. What JSON cannot say (functions, NaN, a table that is neither list nor map, or contains itself) is
--- refused, with the path to it.
---@param v any
---@param opts? { indent: integer?, lossy: boolean?, sorted: boolean? }
---@return string text
function json.encode(v, opts)
  if opts == nil then
    return (errors.check(nil, "json.encode", core.encode(v, true, false, 0)))
  end
  local o = encode_options(opts, 2)
  return (errors.check(nil, "json.encode", core.encode(v, o.sorted, o.lossy, o.indent)))
end

return json
