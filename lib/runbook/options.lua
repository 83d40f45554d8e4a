--- Options are declared data: a name, a type, a help line. One checker for every table of options.
---
---     local check = options.declare("sync.pair", {
---       from = { "table", "where the files are" },
---       rate = { "number", "bytes a second", optional = true },
---     })
---     local o = check(t)
---
--- Types: string number integer boolean table function list duration any, or several as "string|table". A duration is seconds,
--- or text like "1m 30s", which comes out as seconds.

local errors = require "runbook.errors"
local nearest = require "runbook.nearest"
local units = require "runbook.units"

local options = {}

local function type_matches(value, wanted)
  for one in wanted:gmatch("[^|]+") do
    local kind = math.type(value) == "integer" and one == "integer" and "integer" or type(value)
    if one == "any" or kind == one then
      return true
    elseif one == "duration" and (type(value) == "number" or units.parse_duration(value)) then
      return true
    elseif one == "number" and type(value) == "number" then
      return true
    elseif one == "list" and type(value) == "table" and (#value > 0 or next(value) == nil) then
      return true
    end
  end
  return false
end

local function names_of(declared)
  local names = {}
  for name in pairs(declared) do
    if type(name) == "string" then
      names[#names + 1] = name
    end
  end
  table.sort(names)
  return names
end

--- Declare a table of options and get its checker.
---@param where string  the function people call, for messages
---@param declared table<string, table>  name = { type, help, optional =, default =, choices = }
---@return fun(given: table?, level?: integer): table checked  a new table, defaults filled in; list items are kept
function options.declare(where, declared)
  local names = names_of(declared)

  local function problem(key, value)
    local d = declared[key]
    if d == nil then
      local near = nearest(key, names)
      return ("unknown option `%s`%s"):format(tostring(key), near and ("; did you mean `" .. near .. "`?") or "")
    elseif not type_matches(value, d[1]) then
      return ("option `%s` takes a %s, not a %s"):format(key, d[1]:gsub("|", " or a "), type(value))
    elseif d.choices then
      for _, choice in ipairs(d.choices) do
        if choice == value then
          return nil
        end
      end
      return ("option `%s` is one of %s"):format(key, table.concat(d.choices, ", "))
    end
  end

  return function(given, level)
    local checked, problems = {}, {}
    for key, value in pairs(given or {}) do
      if math.type(key) == "integer" then
        checked[key] = value
      else
        problems[#problems + 1] = problem(key, value)
        checked[key] = value
      end
    end
    for _, name in ipairs(names) do
      local d = declared[name]
      if checked[name] == nil and d.default ~= nil then
        checked[name] = d.default
      elseif checked[name] == nil and not d.optional then
        problems[#problems + 1] = ("option `%s` is missing: %s"):format(name, d[2] or d[1])
      end
      if d[1] == "duration" and type(checked[name]) == "string" then
        checked[name] = units.parse_duration(checked[name])
      end
    end
    if #problems > 0 then
      table.sort(problems)
      errors.raise({ kind = "usage", message = where .. ": " .. table.concat(problems, "; ") }, (level or 1) + 1)
    end
    return checked
  end
end

return options
