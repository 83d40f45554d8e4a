--- What stands for parameters while there are no values.

local errors = require "runbook.errors"
local types = require "runbook.types"

local placeholders = {}

local Placeholder = { __name = "runbook.placeholder" }
local placeholder_names = setmetatable({}, { __mode = "k" })

local function placeholder(name)
  local p = {}
  placeholder_names[p] = name
  return setmetatable(p, Placeholder)
end

function Placeholder.__index(p, key)
  if math.type(key) == "integer" then -- a list of nothing: whoever goes through it comes to its end
    return nil
  end
  return placeholder(placeholder_names[p] .. "." .. tostring(key))
end

function Placeholder.__call(p)
  return p
end

function Placeholder.__tostring(p)
  return "<" .. placeholder_names[p] .. ">"
end

function Placeholder.__concat(a, b)
  return tostring(a) .. tostring(b)
end

function Placeholder.__len()
  return 0
end

function Placeholder.__pairs()
  return function() return nil end
end

--- Does it stand for a value that is not there yet?
---@param value any
---@return boolean
function placeholders.is(value)
  return getmetatable(value) == Placeholder
end

local function placeholder_for(item, default_value)
  local given = types.find(item[2]).placeholder
  if item.default ~= nil and given ~= nil then
    return default_value(item)
  elseif item.choices then
    return item.choices[1]
  elseif item.optional then
    return nil
  elseif type(given) == "function" then
    return given(item[1])
  elseif given ~= nil then
    return given
  end
  return placeholder(item[1])
end

--- Placeholders by name; names that are not declared raise.
---@param declaration table[]
---@param default_value fun(item: table): any  what a declared default means
---@return table
function placeholders.of(declaration, default_value)
  local values, names = {}, {}
  for _, item in ipairs(declaration) do
    names[item[1]] = true
    values[item[1]] = placeholder_for(item, default_value)
  end
  return setmetatable(values, {
    __name = "runbook.parameters",
    __index = function(_, name)
      if not names[name] then
        errors.raise({ kind = "usage", message = ("no parameter `%s` is declared"):format(tostring(name)) }, 2)
      end
    end,
  })
end

return placeholders
