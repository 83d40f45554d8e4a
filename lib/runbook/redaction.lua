--- One redactor for everything shown, logged or reported: every secret of this process is known to it.

local core = require "runbook.core.redact"
local secret = require "runbook.core.secret"

local redaction = {}

local redactor = core.host() -- learns those that C makes by itself

--- Make a secret known. Called by runbook.secret for each one it makes.
---@param name string
---@param bytes any  a secret value, or its bytes
---@return boolean known  false: too short to be told from ordinary text
function redaction.add(name, bytes)
  return redactor:add(name, bytes)
end

--- A text without secrets.
---@param text string
---@return string
function redaction.text(text)
  return redactor:text(text)
end

--- A filter for text that comes in pieces: `:feed(bytes)` and, at the end, `:flush()`.
function redaction.stream()
  return redactor:stream()
end

--- A copy of plain data with every string redacted, keys too; secrets are their names.
---@param value any
---@return any
function redaction.value(value)
  if type(value) == "string" then
    return redactor:text(value)
  elseif secret.is(value) then
    return tostring(value)
  elseif type(value) ~= "table" or getmetatable(value) and getmetatable(value).__name then
    return value
  end
  local copy = setmetatable({}, getmetatable(value))
  for k, v in pairs(value) do
    copy[redaction.value(k)] = redaction.value(v)
  end
  return copy
end

return redaction
