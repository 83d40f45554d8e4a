--- The one error value of runbook.
---
--- Everything above the C modules raises it; `rb.try` is the only place that takes one as a value. Fields, all optional but
--- `kind` and `message`: `code` (the other side's own word), `target`, `tried`, `stderr`, `status`, `signal`, `hint` (the next
--- thing to do), `cause` (another error value), `trace`, and whatever a raiser adds for its readers.

local redaction = require "runbook.redaction"
local task = require "runbook.core.task"

local errors = {}

---@class runbook.Error
---@field kind "usage"|"auth"|"identity"|"unreachable"|"lost"|"refused"|"exit"|"timeout"|"cancelled"|"conflict"|"missing"|"full"|"limit"|"busy"|"unknown"|"internal"
---@field message string
---@field code? string
---@field target? string
---@field tried? string
---@field stderr? string
---@field status? integer
---@field signal? string
---@field hint? string
---@field cause? any
---@field trace? string

local Error = debug.getregistry()["runbook.error"] -- made by src/host.c, so that C can raise the same value

-- What the codes of the C modules mean. A code that is not here is `internal`, so that a new one is noticed.
local kind_of = {
  EAUTH = "auth", EKEY = "auth", EAGENT = "auth", EPROMPT = "auth",
  EHOSTKEY_UNKNOWN = "identity", EHOSTKEY_CHANGED = "identity", EHOSTKEY_REVOKED = "identity", EHOSTKEY_CA = "identity",
  EHOSTKEY = "identity", ETLS = "identity", EFORGED = "identity",
  ECONNREFUSED = "unreachable", EHOSTUNREACH = "unreachable", ENETUNREACH = "unreachable", ERESOLVE = "unreachable",
  EAI_NONAME = "unreachable", EAI_AGAIN = "unreachable", EAI_FAIL = "unreachable", EHOSTDOWN = "unreachable",
  EADDRNOTAVAIL = "unreachable", EHANDSHAKE = "unreachable", ENETDOWN = "unreachable", ECONNECT = "unreachable",
  ELOST = "lost", ESTALLED = "lost", ECONNRESET = "lost", EPIPE = "lost", ECLOSED = "lost", ECONNABORTED = "lost", ESHUTDOWN = "lost",
  ETIMEDOUT = "timeout", ECANCELED = "cancelled",
  EACCES = "refused", EPERM = "refused", EROFS = "refused", EREADONLY = "refused", EDENIED = "refused",
  EEXIST = "conflict", ECONSTRAINT = "conflict", ENOTEMPTY = "conflict", ECHANGED = "conflict", EXDEV = "conflict",
  ENOENT = "missing", ENOTDIR = "missing", ESRCH = "missing", ENXIO = "missing",
  ENOSPC = "full", EDQUOT = "full", EFULL = "full", EFBIG = "full",
  ELIMIT = "limit", EMFILE = "limit", ENFILE = "limit", ENOMEM = "limit", E2BIG = "limit", EDEPTH = "limit",
  EBUSY = "busy", EAGAIN = "busy", EADDRINUSE = "busy", ETXTBSY = "busy",
  EINVAL = "usage", ESYNTAX = "usage", EDUPLICATE = "usage", EISDIR = "usage", ENAMETOOLONG = "usage", ELOOP = "usage",
  EUTF8 = "usage", EUNSUPPORTED = "usage", ESQL = "usage", ENOTSUP = "usage",
  ECORRUPT = "unknown", EIO = "unknown", EPROTO = "unknown",
  -- The words of Kubernetes: the reason of a Status.
  Unauthorized = "auth", Forbidden = "refused", NotFound = "missing", AlreadyExists = "conflict", Conflict = "conflict",
  Gone = "missing", Expired = "missing", Invalid = "usage", BadRequest = "usage", MethodNotAllowed = "usage", NotAcceptable = "usage",
  UnsupportedMediaType = "usage", RequestEntityTooLarge = "limit", TooManyRequests = "busy", ServerTimeout = "busy", Timeout = "timeout",
  ServiceUnavailable = "busy", InternalError = "unknown", StoreReadError = "unknown", BadGateway = "lost", GatewayTimeout = "lost",
}

local function text(e)
  local head = e.message or e.kind
  if e.target and not head:find(e.target, 1, true) then
    head = e.target .. ": " .. head
  end
  return head
end

Error.__name = "runbook.error"
Error.__tostring = text

--- Make an error value without raising it.
---@param e table
---@return runbook.Error
function errors.new(e)
  assert(e.kind and e.message, "an error needs a kind and a message")
  return setmetatable(e, Error)
end

--- Raise an error value, with the place in Lua that asked for it.
---@param e table
---@param level? integer  as for `error`; 2 is the caller
function errors.raise(e, level)
  e.trace = e.trace or debug.traceback(nil, (level or 1) + 1)
  error(errors.new(e), 0)
end

--- The kind that a code of the C modules means.
---@param code string?
---@return string kind
function errors.kind(code)
  return kind_of[code] or "internal"
end

--- Hand on what a C module returned, or raise what it said.
---@param target string?  whom it was about
---@param tried string?   what was tried, in words or as a command
---@param value any
---@param message? string
---@param code? string
---@return any value  all of them, when there is no failure
function errors.check(target, tried, value, message, code, ...)
  if value == nil and code ~= nil then
    errors.raise({
      kind = errors.kind(code), code = code, message = message, target = target, tried = tried, details = (...),
    }, 2)
  end
  return value, message, code, ...
end

--- Is this an error value (of that kind)?
---@param e any
---@param kind? string
---@return boolean
function errors.is(e, kind)
  return getmetatable(e) == Error and (kind == nil or e.kind == kind)
end

--- Was the task cancelled? Such an error is never swallowed.
---@param e any
---@return boolean
function errors.is_cancelled(e)
  return rawequal(e, task.cancelled) or errors.is(e, "cancelled")
end

--- Any raised value as an error value; a plain string is a mistake in Lua and so of kind `internal`.
---@param e any
---@return runbook.Error
function errors.from(e)
  if getmetatable(e) == Error then
    return e
  end
  local message, trace = tostring(e):match("^(.-)\n(stack traceback:.*)$")
  return errors.new { kind = "internal", message = message or tostring(e), trace = trace }
end

--- A message handler for xpcall: turns strings into error values while the stack still stands.
function errors.handler(e)
  if getmetatable(e) == Error then
    return e
  end
  return errors.new { kind = "internal", message = tostring(e), trace = debug.traceback(nil, 2) }
end

--- The part of an error that is kept in the journal and in events: strings, without secrets, and numbers only.
---@param e any
---@return table
function errors.record(e)
  e = errors.from(e)
  local record = {}
  for _, field in ipairs { "kind", "code", "target", "tried", "message", "stderr", "status", "signal", "hint", "trace", "where" } do
    if type(e[field]) == "string" or type(e[field]) == "number" then
      record[field] = redaction.value(e[field])
    end
  end
  if e.cause ~= nil then
    record.cause = errors.record(e.cause)
  end
  return record
end

return errors
