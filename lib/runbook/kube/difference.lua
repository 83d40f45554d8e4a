--- What differs between two objects: as a patch that makes one of the other, and in words.

local core = require "runbook.core.secret"
local json = require "runbook.json"
local secret = require "runbook.secret"

local difference = {}

local LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
local OF_THE_SERVER = { "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "generation", "managedFields",
  "resourceVersion", "selfLink", "uid" }
local SHOWN, WIDE = 6, 60 -- paths, in words, and bytes of a value

local function is_map(value)
  return type(value) == "table" and value ~= json.null and (json.kind(value) == "object" or json.kind(value) == nil and #value == 0)
end

local function copy(value)
  if type(value) ~= "table" or value == json.null then
    return value
  end
  local new = setmetatable({}, getmetatable(value))
  for key, inner in next, value do
    new[key] = copy(inner)
  end
  return new
end
difference.copy = copy

--- A copy of an object as a person would have written it: without what the server adds, and without its state.
---@param object table
---@return table
function difference.strip(object)
  local new = copy(object)
  new.status = nil
  for _, key in ipairs(OF_THE_SERVER) do
    new.metadata[key] = nil
  end
  if is_map(new.metadata.annotations) then
    new.metadata.annotations[LAST_APPLIED] = nil
  end
  return new
end

local function same(a, b)
  if core.is(a) and core.is(b) then
    return secret.same(a, b)
  elseif type(a) ~= "table" or type(b) ~= "table" or a == json.null or b == json.null then
    return a == b
  end
  for key, value in next, a do
    if b[key] == nil or not same(value, b[key]) then
      return false
    end
  end
  for key in next, b do
    if a[key] == nil then
      return false
    end
  end
  return true
end
difference.same = same

--- The JSON merge patch that makes `to` of `from`; nil when they are the same. Lists are replaced as a whole.
---@async
---@param from table
---@param to table
---@return table? patch
function difference.patch(from, to)
  local patch = json.object {}
  for key, value in next, to do
    if from[key] == nil or not (is_map(value) and is_map(from[key])) then
      patch[key] = not (from[key] ~= nil and same(from[key], value)) and value or nil
    else
      patch[key] = difference.patch(from[key], value)
    end
  end
  for key in next, from do
    if to[key] == nil then
      patch[key] = json.null
    end
  end
  return next(patch) ~= nil and patch or nil
end

--- What a merge patch would make of an object.
---@param object table
---@param patch table
---@return table new
function difference.merged(object, patch)
  local new = setmetatable({}, getmetatable(object))
  for key, value in next, object do
    new[key] = value
  end
  for key, value in next, patch do
    if value == json.null then
      new[key] = nil
    elseif is_map(value) then
      new[key] = difference.merged(is_map(new[key]) and new[key] or json.object {}, value)
    else
      new[key] = value
    end
  end
  return new
end

--- The part of an object that a merge patch speaks of; null where there is nothing.
---@param object table
---@param patch table
---@return table
function difference.touched(object, patch)
  local part = json.object {}
  for key, value in next, patch do
    local there = object[key]
    if is_map(value) and is_map(there) then
      part[key] = difference.touched(there, value)
    else
      part[key] = there == nil and json.null or there
    end
  end
  return part
end

-- ---- in words ----

local function shown(value)
  if value == nil or value == json.null then
    return "nothing"
  elseif core.is(value) then
    return tostring(value)
  elseif type(value) == "table" then
    local ok, text = pcall(json.encode, value)
    return ok and #text <= WIDE and text or ("%d things"):format(#value)
  end
  local text = tostring(value):gsub("%s+", " ")
  return #text <= WIDE and text or text:sub(1, (utf8.offset(text, 0, WIDE) or WIDE) - 1) .. "..."
end

local function collect(from, patch, path, rows)
  local keys = {}
  for key in next, patch do
    keys[#keys + 1] = tostring(key)
  end
  table.sort(keys)
  for _, key in ipairs(keys) do
    local before, after = from and from[key], patch[key]
    local at = path == "" and key or path .. "." .. key
    if is_map(after) and (is_map(before) or before == nil) and next(after) then
      collect(before, after, at, rows)
    elseif core.is(before) and core.is(after) then -- their names say nothing
      rows[#rows + 1] = { at, "as it is", "another" }
    else
      rows[#rows + 1] = { at, shown(before), shown(after) }
    end
  end
end

local function line(rows, column)
  local parts = {}
  for i = 1, math.min(#rows, SHOWN) do
    parts[i] = ("%s %s"):format(rows[i][1], rows[i][column])
  end
  if #rows > SHOWN then
    parts[#parts + 1] = ("%d more"):format(#rows - SHOWN)
  end
  return table.concat(parts, ", ")
end

--- A change in two lines of words: what is there, what will be.
---@param from table?  nil: nothing is there yet
---@param patch table?  as `difference.patch` makes it
---@return { before: string, after: string }
function difference.words(from, patch)
  if patch == nil then
    return { before = "as it is to be", after = "the same" }
  end
  local rows = {}
  collect(from, patch, "", rows)
  return { before = from and line(rows, 2) or "nothing", after = line(rows, 3) }
end

-- The element of `list` that element `i` of `wanted` became; nil where lists cannot be compared.
local function element(wanted, i, list)
  local name = type(wanted[i]) == "table" and wanted[i].name
  if name then
    for _, one in ipairs(list) do
      if type(one) == "table" and one.name == name then
        return one
      end
    end
    return nil
  end
  return #wanted == #list and list[i] or nil
end

local function says_nothing(value)
  return value == json.null or value == false or type(value) == "table" and next(value) == nil
end

--- Paths of `wanted` that `real` lacks: what a server has dropped without a word, because it does not know it.
---@param wanted table
---@param real table
---@return string[] paths
function difference.dropped(wanted, real)
  local paths = {}
  local function walk(a, b, path)
    for key, value in next, a do
      local in_list = math.type(key) == "integer"
      local there = b[key]
      if in_list then
        there = element(a, key, b)
      end
      local at = in_list and ("%s[%d]"):format(path, key - 1) or path == "" and key or path .. "." .. key
      if there == nil and not in_list and not says_nothing(value) and at ~= "stringData" then
        paths[#paths + 1] = at
      elseif type(value) == "table" and value ~= json.null and type(there) == "table" then
        walk(value, there, at)
      end
    end
  end
  walk(wanted, real, "")
  table.sort(paths)
  return paths
end

return difference
