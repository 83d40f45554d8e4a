--- Values as the journal keeps them: JSON, in which places and directories stand as references.

local errors = require "runbook.errors"
local json = require "runbook.json"
local unknown = require "runbook.unknown"

local data = {}

local function metaname(value)
  local mt = getmetatable(value)
  return type(mt) == "table" and mt.__name or nil
end

local function pack(value, where, seen)
  local kind = type(value)
  if value == nil or value == json.null or kind == "boolean" or kind == "number" or kind == "string" then
    return value
  elseif metaname(value) == "runbook.secret" then
    errors.raise { kind = "usage", message = where .. ": a secret is not kept; keep its reference instead" }
  elseif kind ~= "table" or unknown.is(value) then
    errors.raise { kind = "usage", message = ("%s: a %s cannot be kept, only nil, booleans, numbers, strings and tables of them")
      :format(where, metaname(value) or kind) }
  elseif type(value.reference) == "function" then
    return { ["$place"] = value:reference() }
  elseif seen[value] then
    errors.raise { kind = "usage", message = where .. ": a table that contains itself cannot be kept" }
  end
  seen[value] = true
  local copy = setmetatable({}, getmetatable(value))
  for k, v in pairs(value) do
    copy[k] = pack(v, ("%s.%s"):format(where, tostring(k)), seen)
  end
  seen[value] = nil
  return copy
end

local function unpack_value(value)
  if type(value) ~= "table" or value == json.null then
    return value
  elseif value["$place"] then
    return require("runbook.place").open(value["$place"])
  end
  for k, v in pairs(value) do
    value[k] = unpack_value(v)
  end
  return value
end

--- Data as text. Raises kind `usage` on what cannot be kept (functions, secrets, userdata, cycles).
---@param value any
---@param where string  what it is, for the message
---@return string? text  nil for nil
function data.encode(value, where)
  if value == nil then
    return nil
  end
  return json.encode(pack(value, where, {}), { sorted = true })
end

--- The data of a text that `data.encode` made.
---@param text string?
---@return any
function data.decode(text)
  if text == nil then
    return nil
  end
  return unpack_value(json.decode(text))
end

return data
