--- Objects as bodies of requests and answers. What a Secret holds is a secret value on our side.

local core = require "runbook.core.secret"
local digest = require "runbook.core.digest"
local errors = require "runbook.errors"
local json = require "runbook.json"
local secret = require "runbook.secret"

local body = {}

local LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration" -- holds all of it once more

-- ---- in ----

local function name_of(object, key)
  local metadata = type(object.metadata) == "table" and object.metadata or {}
  return ("%s/%s"):format(metadata.name or "secret", key)
end

-- A text that is a secret; its bytes go into the redactor now, or when they are first needed.
local function hidden(name, text, later)
  if later then
    return secret.held(name, text)
  end
  return (core.new(name, text))
end

local function is_map(value)
  return type(value) == "table" and value ~= json.null
end

-- Everybody knows these; a name like "temple" taken for a secret would blacken every line there is.
local PUBLIC = {
  ["kubernetes.io/service-account-token"] = { namespace = true, ["ca.crt"] = true },
  ["kubernetes.io/tls"] = { ["tls.crt"] = true, ["ca.crt"] = true },
}

local function hide_data(object, data, o)
  local shown, public = {}, PUBLIC[object.type] or {}
  for key, text in pairs(data) do
    local bytes = not public[key] and type(text) == "string" and digest.unbase64(text)
    if bytes and o.plain[key] then
      shown[key] = bytes
    elseif bytes then
      data[key] = hidden(name_of(object, key), bytes, o.later)
    end
  end
  if next(shown) then
    object.stringData = json.object(shown)
    for key in pairs(shown) do
      data[key] = nil
    end
  end
end

--- Make secret values of what a Secret holds; other objects stay as they are. A key that is asked for as text moves to
--- `stringData`, where the API has text, too.
---@param object table
---@param o? { plain?: table<string, boolean>, later?: boolean }  later: the redactor learns the bytes when they are first needed
---@return table object
function body.hide(object, o)
  o = { plain = o and o.plain or {}, later = o and o.later }
  if object.kind == "Secret" and object.apiVersion == "v1" then
    if is_map(object.data) then
      hide_data(object, object.data, o)
    end
    local annotations = type(object.metadata) == "table" and object.metadata.annotations
    if type(annotations) == "table" and annotations[LAST_APPLIED] then
      annotations[LAST_APPLIED] = hidden(name_of(object, "last-applied"), annotations[LAST_APPLIED], true)
    end
  end
  return object
end

-- ---- out ----

local function has_secret(value)
  if core.is(value) then
    return true
  elseif not is_map(value) then
    return false
  end
  for _, inner in next, value do
    if has_secret(inner) then
      return true
    end
  end
  return false
end

local function only_text(map)
  local copy = json.object {}
  for key, value in next, map do
    copy[key] = not core.is(value) and value or nil
  end
  return copy
end

local Marks = {}
Marks.__index = Marks

function Marks:of(value)
  self[#self + 1] = secret.ready(value)
  return ("%s%d;"):format(self.mark, #self)
end

-- `data` of a Secret with base64 for what is secret, whichever of its two maps that stood in.
function Marks:data_of(object)
  local data = setmetatable({}, getmetatable(object.data))
  for _, map in ipairs { is_map(object.data) and object.data or {}, is_map(object.stringData) and object.stringData or {} } do
    for key, value in next, map do
      if core.is(value) then
        data[key] = self:of(value)
      elseif map == object.data then
        data[key] = value
      end
    end
  end
  return data
end

-- A copy in which marks stand for secrets.
function Marks:copy(value, where)
  if core.is(value) then
    errors.raise { kind = "usage",
      message = ("%s: %s; a secret may stand in `data` of a Secret and nowhere else"):format(where, tostring(value)) }
  elseif not is_map(value) then
    return value
  end
  local copy, is_secret = setmetatable({}, getmetatable(value)), value.kind == "Secret"
  for key, inner in next, value do
    if is_secret and (key == "data" or key == "stringData") then
      copy.data = self:data_of(value)
      if key == "stringData" then
        copy.stringData = only_text(inner)
      end
    else
      copy[key] = self:copy(inner, ("%s.%s"):format(where, key))
    end
  end
  return copy
end

local function parts_of(text, marks)
  local parts, at = {}, 1
  while true do
    local first, last, n = text:find(marks.mark .. "(%d+);", at)
    if not first then
      parts[#parts + 1] = text:sub(at)
      return parts
    end
    parts[#parts + 1] = text:sub(at, first - 1)
    parts[#parts + 1] = core.base64(marks[tonumber(n)])
    at = last + 1
  end
end

--- A value as JSON. With secrets in it, which stand in `data` or `stringData` of a Secret, the text is a secret, too.
---@async
---@param value any
---@return string|runbook.secret
function body.encode(value)
  if not has_secret(value) then
    return json.encode(value)
  end
  local marks = setmetatable({ mark = "m" .. digest.hex(digest.random(12)) .. ":" }, Marks)
  return core.join("a request", parts_of(json.encode(marks:copy(value, "object")), marks))
end

return body
