--- What a cluster says when it refuses, as an error value: the API's `Status`, in words, with what mends it.

local errors = require "runbook.errors"
local json = require "runbook.json"
local time = require "runbook.core.time"
local url = require "runbook.http.url"

local status = {}

local LONGEST_WAIT = 120 -- seconds of a server's Retry-After that are sat out
local LONGEST_TEXT = 1200

-- Where the answer is no Status: a proxy, a load balancer, an API server that is starting.
local reason_of_code = {
  [400] = "BadRequest", [401] = "Unauthorized", [403] = "Forbidden", [404] = "NotFound", [405] = "MethodNotAllowed", [409] = "Conflict",
  [410] = "Expired", [413] = "RequestEntityTooLarge", [415] = "UnsupportedMediaType", [422] = "Invalid", [429] = "TooManyRequests",
  [500] = "InternalError", [502] = "BadGateway", [503] = "ServiceUnavailable", [504] = "GatewayTimeout",
}

--- A header of an answer, whatever its capitals.
---@param answer table
---@param name string  in small letters
---@return string?
function status.header(answer, name)
  for i = 1, #answer.headers, 2 do
    if answer.headers[i]:lower() == name then
      return answer.headers[i + 1]
    end
  end
end

-- Seconds the server asks to wait; nil when it does not say.
local function retry_after(answer, details)
  local said = status.header(answer, "retry-after")
  local seconds = said and tonumber(said)
  if said and not seconds then
    local moment = url.parse_date(said)
    seconds = moment and moment - time.utc()
  end
  seconds = seconds or details and math.tointeger(details.retryAfterSeconds)
  return seconds and math.max(0, math.min(seconds, LONGEST_WAIT)) or nil
end

--- The rule of RBAC that a refusal speaks of; nil when it is about something else (a quota, an admission).
---@param message string
---@return { verb: string, group: string, resource: string, namespace: string? }?
function status.missing_rule(message)
  local verb, resource, group, rest = message:match 'cannot (%S+) resource "([^"]+)" in API group "([^"]*)"(.*)$'
  if verb then
    return { verb = verb, resource = resource, group = group, namespace = rest:match '^ in the namespace "([^"]+)"' }
  end
end

--- A rule as it is pasted into a Role.
---@param rule { verb: string|string[], group: string, resource: string|string[] }
---@return string yaml
function status.rule_text(rule)
  local function list(value)
    return json.encode(json.array(type(value) == "table" and { table.unpack(value) } or { value }))
  end
  return ('- apiGroups: ["%s"]\n  resources: %s\n  verbs: %s'):format(rule.group, list(rule.resource), list(rule.verb))
end

local function hint_of_refusal(rule)
  return ("this rule is missing in a %s:\n%s"):format(
    rule.namespace and ("Role of namespace %s"):format(rule.namespace) or "ClusterRole", status.rule_text(rule))
end

-- What a conflict of server-side apply says: who owns which field.
local function owners_of(details)
  local lines = {}
  for _, cause in ipairs(details and details.causes or {}) do
    if cause.reason == "FieldManagerConflict" then
      local who = (cause.message or ""):match '^conflict with (.+)$' or cause.message
      lines[#lines + 1] = ("%s belongs to %s"):format(cause.field, who)
    end
  end
  return lines
end

local function is_text(answer)
  local kind = status.header(answer, "content-type") or ""
  return kind:find("^text/plain") or kind:find("json", 1, true)
end

-- The Status of an answer, or what stands for it.
local function status_of(answer)
  local ok, value = pcall(json.decode, answer.body or "")
  if ok and type(value) == "table" and value.kind == "Status" then
    return value
  end
  local text = is_text(answer) and answer.body or ""
  return { reason = reason_of_code[answer.status], message = (text:gsub("%s+$", "")):sub(1, 400) }
end

-- Some refusals repeat the whole object before they say what is wrong with it.
local function cut(text)
  text = text:gsub('Invalid value: "{.*}"', 'Invalid value: "..."')
  return #text > LONGEST_TEXT and text:sub(1, (utf8.offset(text, 0, LONGEST_TEXT) or LONGEST_TEXT) - 1) .. "..." or text
end

-- Nothing was done where the server says that somebody may come again.
local function kind_of(code, answer, said, wait)
  local text = said.message or ""
  if code == "InternalError" and text:find("etcdserver", 1, true) then
    return "lost"
  elseif code == "InternalError" and text:find("field not declared in schema", 1, true) then
    return "usage" -- so servers before 1.26 answer an apply with a field that is spelt wrong
  elseif (answer.status == 429 or answer.status >= 500) and wait then
    return "busy"
  end
  return errors.kind(code)
end

local HINTS = {
  Unauthorized = "the credentials are refused: log in again, or look at the user of this context in kubeconfig",
  Expired = "what was asked for is too old for the server; ask again from the start",
  RequestEntityTooLarge = "an object has 1.5 MiB at most",
}

--- The error value of a Status, be it an answer's or one that came in a stream.
---@param said table           the Status
---@param o { target: string, tried: string?, answer: table }
---@return runbook.Error
function status.error(said, o)
  local answer = o.answer
  for _, key in ipairs { "reason", "message", "details", "metadata" } do
    said[key] = said[key] ~= json.null and said[key] or nil
  end
  local code = said.reason or reason_of_code[answer.status] or "HTTP" .. answer.status
  local wait = retry_after(answer, said.details)
  local owners = owners_of(said.details)
  local rule = code == "Forbidden" and status.missing_rule(said.message or "")
  local message = said.message and said.message ~= "" and cut(said.message)
    or ("answers %d"):format(answer.status)
  if #owners > 0 then
    message = ("%s; `force = true` takes the fields over"):format(table.concat(owners, "; "))
  end
  return errors.new {
    kind = kind_of(code, answer, said, wait), code = code, status = answer.status, target = o.target, tried = o.tried,
    message = message, hint = rule and hint_of_refusal(rule) or HINTS[code], retry_after = wait, rule = rule,
    details = said.details, again = said.metadata and said.metadata.continue,
  }
end

--- Raise what an answer that is not 2xx says.
---@param answer table
---@param o { target: string, tried: string? }
function status.raise(answer, o)
  local e = status.error(status_of(answer), { target = o.target, tried = o.tried, answer = answer })
  e.trace = debug.traceback(nil, 2)
  error(e, 0)
end

--- What fn returns; nil when the server says that there is no such object.
---@async
---@generic T
---@param fn fun(...): T
---@return T?
function status.if_there(fn, ...)
  local results = table.pack(xpcall(fn, errors.handler, ...))
  local err = results[2]
  if results[1] then
    return table.unpack(results, 2, results.n)
  elseif errors.is(err, "missing") and err.code == "NotFound" then
    return nil
  end
  error(err, 0)
end

return status
