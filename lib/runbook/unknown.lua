--- What a change would have returned, in a plan that makes no change.
---
--- Lua cannot see a test for truth or for equality, so the promise is this: arithmetic, `<`, `#`, `pairs`, a call and
--- the like end the plan of that body with the line; concatenation, format and tostring leave a mark in the text that
--- the gate recognises.

local errors = require "runbook.errors"

local unknown = {}

local MARK = "«unknown:"
local names = setmetatable({}, { __mode = "k" })

local Unknown = { __name = "runbook.unknown" }

local function ends(what)
  return function(a, b)
    local u = names[a] and a or b
    local where = debug.getinfo(2, "Sl")
    errors.raise({
      kind = "unknown", plan_end = true, unknown = names[u],
      where = where and ("%s:%d"):format(where.short_src, where.currentline),
      message = ("%s of %s, which only a run can know"):format(what, names[u]),
    }, 2)
  end
end

for event, what in pairs {
  __add = "arithmetic", __sub = "arithmetic", __mul = "arithmetic", __div = "arithmetic", __mod = "arithmetic",
  __pow = "arithmetic", __unm = "arithmetic", __idiv = "arithmetic", __band = "arithmetic", __bor = "arithmetic",
  __bxor = "arithmetic", __shl = "arithmetic", __shr = "arithmetic", __bnot = "arithmetic", __len = "the length",
  __lt = "a comparison", __le = "a comparison", __eq = "a comparison", __call = "a call", __pairs = "the contents",
  __newindex = "a change",
} do
  Unknown[event] = ends(what)
end

function Unknown.__tostring(u)
  return MARK .. names[u] .. "»"
end

function Unknown.__concat(a, b)
  return tostring(a) .. tostring(b)
end

function Unknown.__index(u, key)
  return unknown.new(names[u] .. "." .. tostring(key))
end

--- An unknown value.
---@param name string  what it stands for, in words
---@return any
function unknown.new(name)
  local u = {}
  names[u] = name
  return setmetatable(u, Unknown)
end

--- Is it unknown, or a text or table with something unknown in it?
---@param value any
---@return boolean
function unknown.is(value)
  if type(value) == "string" then
    return value:find(MARK, 1, true) ~= nil
  elseif type(value) ~= "table" then
    return false
  elseif names[value] then
    return true
  elseif getmetatable(value) ~= nil then
    return false
  end
  for _, v in pairs(value) do
    if unknown.is(v) then
      return true
    end
  end
  return false
end

return unknown
