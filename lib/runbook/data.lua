--- Values as the journal keeps them: JSON, in which places and directories stand as references.

local errors = require "runbook.errors"
local json = require "runbook.json"
local redaction = require "runbook.redaction"
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

local function count(text, what)
  local _, n = text:gsub(what:gsub("%p", "%%%0"), "")
  return n
end

-- A secret that came back as text, in the output of a command, must not be written down either.
local function refuse_secrets(text, where)
  local safe = redaction.text(text)
  if safe == text then
    return text
  end
  for mark in safe:gmatch "«secret:.-»" do
    if count(safe, mark) > count(text, mark) then
      errors.raise {
        kind = "usage", message = ("%s: the bytes of %s are in it, and they are not kept"):format(where, mark),
        hint = "return a part that does not hold them",
      }
    end
  end
end

--- Data as text. Raises kind `usage` on what cannot be kept (functions, secrets and their bytes, userdata, cycles).
---@param value any
---@param where string  what it is, for the message
---@return string? text  nil for nil
function data.encode(value, where)
  if value == nil then
    return nil
  end
  return refuse_secrets(json.encode(pack(value, where, {}), { sorted = true }), where)
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
