--- HTTP, for whatever has no library of its own.
---
---     local status = http.get { "https://hub.example/hub/api", bearer = p.token }:json()
---     http.post { p.webhook, json = { text = "temple has moved" } }
---     http.get { "https://example.net/image.iso", to = "image.iso" }
---
--- `get`, `head`, `post`, `put`, `patch` and `delete` raise unless the answer is 2xx; `request` returns any answer, and raises
--- only when there is none. Certificates are always verified. Reads are tried again when the server is busy or gone.

local core = require "runbook.core.http"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local file = require "runbook.core.file"
local json = require "runbook.json"
local options = require "runbook.options"
local retry = require "runbook.retry"
local secret = require "runbook.secret"
local shell = require "runbook.shell"
local url = require "runbook.http.url"

local http = {}

local TIMEOUT, CONNECT_TIMEOUT, STALL = 30, 15, 300
local REDIRECTS = 10
local LONGEST_WAIT = 120 -- seconds of a server's Retry-After that we are willing to sit out

local check_options = options.declare("http", {
  url = { "string", "where to; may stand alone, without a name", optional = true },
  method = { "string", "GET, when missing", optional = true },
  headers = { "table", "name = value; a value may be a secret, or a list of strings and secrets", optional = true },
  query = { "table", "name = value, put to the URL", optional = true },
  body = { "any", "a string, a secret or a stream", optional = true },
  json = { "any", "a value, sent as JSON", optional = true },
  bearer = { "any", "a token, sent as `Authorization: Bearer`", optional = true },
  basic = { "list", "{ user, password }", optional = true },
  to = { "any", "a path or stream that gets the answer's body", optional = true },
  max = { "integer", "bytes of the answer kept in memory", default = 8 << 20 },
  timeout = { "number", "seconds for the whole; 30 unless a file or stream is sent or received", optional = true },
  connect_timeout = { "number", "seconds until there is a connection", default = CONNECT_TIMEOUT },
  stall = { "number", "seconds without a byte", default = STALL },
  proxy = { "string", "URL of a proxy; \"\" for none; by the environment, when missing", optional = true },
  connect_to = { "string", "go to this host and the URL's port, whatever the URL's host is", optional = true },
  ca = { "string", "certificates to trust instead of the system's, PEM", optional = true },
  cert = { "string", "our certificate, PEM", optional = true },
  key = { "any", "its key, PEM; may be a secret", optional = true },
  follow = { "boolean", "go where a redirect points; reads do", optional = true },
  reads = { "boolean", "it changes nothing on the server, whatever its method: done in plan, and tried again", default = false },
  tries = { "integer", "at most", optional = true },
})

local READS = { GET = true, HEAD = true, OPTIONS = true }

-- What no message may show, whatever its value.
local function is_private(name)
  name = name:lower()
  return name == "authorization" or name == "proxy-authorization" or name == "cookie" or name:find("token", 1, true)
    or name:find("key", 1, true) or name:find("secret", 1, true) or name:find("password", 1, true) or false
end

-- Only for messages: where it went, without what may be private in it.
local function shown(o)
  return url.shown(o.url)
end

local function header_list(o)
  local list, seen = {}, {}
  local function add(name, value)
    list[#list + 1] = { name, value }
    seen[name:lower()] = true
  end
  for name, value in pairs(o.headers or {}) do
    if type(name) ~= "string" then
      errors.raise { kind = "usage", message = "http: headers are { name = value }" }
    end
    add(name, type(value) == "number" and tostring(value) or value)
  end
  if o.bearer ~= nil then
    add("Authorization", { "Bearer ", o.bearer })
  end
  if o.json ~= nil and not seen["content-type"] then
    add("Content-Type", "application/json")
  end
  table.sort(list, function(a, b) return a[1] < b[1] end)
  return list
end

-- Texts that stand in private headers of this request, to be taken out of whatever the other side says.
local function private_texts(o)
  local texts = {}
  local function note(value)
    for _, part in ipairs(type(value) == "table" and value or { value }) do
      if type(part) == "string" then
        for word in part:gmatch("%S+") do
          texts[#texts + 1] = #word >= 4 and word:lower() ~= "bearer" and word:lower() ~= "basic" and word or nil
        end
      end
    end
  end
  for name, value in pairs(o.headers or {}) do
    if is_private(name) then
      note(value)
    end
  end
  note(o.bearer)
  note(o.basic and o.basic[2])
  return texts
end

local function scrub(o, text)
  for _, private in ipairs(private_texts(o)) do
    local from = 1
    while true do
      local first, last = text:find(private, from, true)
      if not first then
        break
      end
      text = text:sub(1, first - 1) .. "«private»" .. text:sub(last + 1)
      from = first + #"«private»"
    end
  end
  return text
end

local function tried(o)
  return ("%s %s"):format(o.method, shown(o))
end

local kind_of_status = {
  [401] = "auth", [403] = "refused", [404] = "missing", [408] = "timeout", [409] = "conflict", [410] = "missing", [412] = "conflict",
  [413] = "limit", [423] = "busy", [425] = "busy", [429] = "busy", [502] = "lost", [503] = "busy", [504] = "lost", [507] = "full",
}

-- What the server says about its refusal, where that is text.
local function said_by(answer)
  local kind = answer.headers["content-type"] or ""
  local said = answer.body and kind:find("^text/plain") or kind:find("json", 1, true)
  local text = said and answer.body or ""
  return #text > 400 and text:sub(1, (utf8.offset(text, 0, 400) or 400) - 1) .. "..." or text
end

-- Seconds a server asks to wait: a number, or a date.
local function retry_after(answer)
  local value = answer.headers["retry-after"]
  local seconds = value and tonumber(value)
  if value and not seconds then
    local moment = url.parse_date(value)
    seconds = moment and moment - require("runbook.core.time").utc()
  end
  return seconds and math.max(0, seconds) or nil
end

local function raise_status(o, answer, level)
  local said = said_by(answer)
  errors.raise({
    kind = kind_of_status[answer.status] or "refused", code = "HTTP" .. answer.status, status = answer.status,
    target = url.host(o.url), tried = tried(o), answer = answer, retry_after = math.min(retry_after(answer) or 0, LONGEST_WAIT),
    message = ("%s answers %d%s%s"):format(shown(o), answer.status,
      answer.redirect and ", a redirect to " .. url.shown(answer.redirect) or "",
      said ~= "" and ": " .. scrub(o, said):gsub("%s+$", "") or ""),
  }, (level or 1) + 1)
end

-- ---- one request ----

local Headers = { __name = "runbook.http.headers" }

--- A header by its name, whatever its capitals; the first, when there are several.
function Headers.__index(list, name)
  if type(name) == "string" then
    name = name:lower()
    for i = 1, #list do
      local pair = rawget(list, i)
      if pair[1]:lower() == name then
        return pair[2]
      end
    end
  end
end

---@class runbook.http.Answer
---@field status integer
---@field headers table  { name, value } each, and by name: headers["content-type"]
---@field body? string   nil when it went to a file or stream
---@field length integer
---@field url string     where it came from, after redirects
local Answer = {}
local answer_mt = { __name = "runbook.http.answer", __index = Answer }

--- The body as a value; raises when it is no JSON.
---@return any
function Answer:json()
  return json.decode(self.body or "", { name = url.shown(self.url) })
end

local function make_answer(given, from)
  local headers = {}
  for i = 1, #given.headers, 2 do
    headers[#headers + 1] = { given.headers[i], given.headers[i + 1] }
  end
  return setmetatable({
    status = given.status, headers = setmetatable(headers, Headers), body = given.body, length = given.length,
    redirect = given.redirect, url = from,
  }, answer_mt)
end

local function is_stream(value)
  local mt = type(value) == "userdata" and getmetatable(value)
  return mt and mt.__name == "runbook.stream"
end

-- Secrets are read when they are first needed.
local function ready(value)
  if type(value) == "table" then
    for i, part in ipairs(value) do
      value[i] = ready(part)
    end
    return value
  end
  return secret.is(value) and secret.ready(value) or value
end

local function ready_headers(o)
  local list = header_list(o)
  for _, pair in ipairs(list) do
    pair[2] = ready(pair[2])
  end
  return list
end

local function send(o, to)
  local body, from = ready(o.body), nil
  if o.json ~= nil then
    body = json.encode(o.json)
  elseif is_stream(body) then
    body, from = nil, body
  elseif body == nil and (o.method == "POST" or o.method == "PUT" or o.method == "PATCH") then
    body = ""
  end
  local streams = from ~= nil or to ~= nil
  local given, message, code = core.request {
    method = o.method, url = o.url, headers = ready_headers(o), body = body, from = from, to = to, max = o.max,
    timeout = o.timeout or not streams and TIMEOUT or 0, connect_timeout = o.connect_timeout, stall = o.stall,
    connect_to = o.connect_to and url.connect_to(o.url, o.connect_to),
    proxy = o.proxy, ca = o.ca, certificate = o.cert, key = ready(o.key), reads = o.is_read,
    user = o.basic and o.basic[1], password = o.basic and ready(o.basic[2]),
  }
  if given == nil then
    errors.raise({
      kind = errors.kind(code), code = code, target = url.host(o.url), tried = tried(o),
      message = ("%s: %s"):format(shown(o), scrub(o, message)),
      hint = code == "ETLS" and "certificates are always verified; a private authority is given with `ca`" or nil,
    }, 2)
  end
  return make_answer(given, o.url)
end

-- The options of the request that a redirect asks for. What is private stays with the server it was meant for.
local function redirected(o, answer)
  local to = answer.redirect
  if url.scheme(o.url) == "https" and url.scheme(to) ~= "https" then
    errors.raise { kind = "refused", code = "EREDIRECT", target = url.host(o.url), tried = tried(o),
      message = ("%s points to %s, which is not encrypted"):format(shown(o), url.shown(to)) }
  end
  local new = {}
  for key, value in pairs(o) do
    new[key] = value
  end
  new.url, new.connect_to = to, url.origin(o.url) == url.origin(to) and o.connect_to or nil
  if answer.status ~= 307 and answer.status ~= 308 and o.method ~= "HEAD" then
    new.method, new.body, new.json = "GET", nil, nil
  end
  if url.origin(o.url) ~= url.origin(to) then
    new.headers, new.bearer, new.basic, new.cert, new.key = {}, nil, nil, nil, nil
    for name, value in pairs(o.headers or {}) do
      new.headers[name] = type(value) == "string" and not is_private(name) and value or nil
    end
  end
  return new
end

local redirects = { [301] = true, [302] = true, [303] = true, [307] = true, [308] = true }

local function send_and_follow(o, to)
  local answer
  for _ = 0, REDIRECTS do
    answer = send(o, to)
    if not (o.follow and answer.redirect and redirects[answer.status]) then
      return answer, o
    elseif is_stream(o.body) then
      raise_status(o, answer)
    end
    o = redirected(o, answer)
  end
  errors.raise { kind = "refused", code = "EREDIRECT", target = url.host(o.url), tried = tried(o),
    message = ("%s: more than %d redirects"):format(shown(o), REDIRECTS) }
end

local function must(value, message, code, path)
  return errors.check(path, "write " .. path, value, message, code)
end

-- A file gets its name when it is whole.
local function send_to_path(o)
  local part = o.to .. ".part"
  local opened, message, code = effect.own(file.open, part, "w")
  local to <close> = must(opened, message, code, part)
  local ok, answer, last = pcall(send_and_follow, o, to)
  to:close()
  if not ok or answer.body ~= nil then
    effect.own(file.unlink, part)
    if not ok then
      error(answer, 0)
    end
    return answer, last
  end
  local renamed
  renamed, message, code = effect.own(file.rename, part, o.to, { sync = true })
  must(renamed, message, code, o.to)
  return answer, last
end

local AGAIN = { [429] = true, [502] = true, [503] = true, [504] = true }

-- The server may answer differently soon: it says so, or it usually means that.
local function worth_waiting(answer)
  return AGAIN[answer.status] or answer.status >= 500 and answer.headers["retry-after"] ~= nil
end

local function perform(o)
  local once_only = is_stream(o.body) or is_stream(o.to) -- neither can be had a second time
  local ok, result = pcall(retry.call, {
    target = url.host(o.url), what = tried(o), reads = o.is_read, tries = once_only and 1 or o.tries,
  }, function()
    local answer, last
    if type(o.to) == "string" then
      answer, last = send_to_path(o)
    else
      answer, last = send_and_follow(o, o.to)
    end
    if o.is_read and worth_waiting(answer) then
      raise_status(last, answer)
    end
    return answer
  end)
  if not ok and errors.is(result) and result.answer and not o.must then
    return result.answer -- any answer will do, also the last of several refusals
  elseif not ok then
    error(result, 0)
  end
  return result
end

local function perform_checked(o)
  local answer = perform(o)
  if o.must and answer.status // 100 ~= 2 then
    raise_status(o, answer)
  end
  return answer
end

-- ---- verbs ----

local function by_hand(o)
  local words = { "curl" }
  if o.method ~= "GET" then
    words[#words + 1] = "-X"
    words[#words + 1] = o.method
  end
  for _, pair in ipairs(header_list(o)) do
    local value = (type(pair[2]) ~= "string" or is_private(pair[1])) and "..." or pair[2]
    words[#words + 1] = "-H"
    words[#words + 1] = pair[1] .. ": " .. value
  end
  if o.basic then
    words[#words + 1] = "-u"
    words[#words + 1] = tostring(o.basic[1]) .. ":..."
  end
  if o.body ~= nil or o.json ~= nil then
    words[#words + 1] = "--data-binary"
    words[#words + 1] = "@-"
  end
  words[#words + 1] = shown(o)
  return shell.join(words)
end

local function declare(name, class, repeatable)
  return effect.verb {
    name = name, class = class, repeatable = repeatable,
    target = function(o) return url.host(o.url) end,
    summary = tried, by_hand = by_hand, body = perform_checked,
  }
end

local read = declare("http.read", "read", true)
local put = declare("http.put", "change", true) -- PUT and DELETE: twice is once
local change = declare("http.change", "change", false)

local function prepare(given, method, must_succeed)
  if type(given) == "string" then
    given = { given }
  end
  local o = check_options(given, 4)
  o.url, o[1] = o.url or o[1], nil
  o.method = (method or o.method or "GET"):upper()
  o.must = must_succeed
  o.is_read = READS[o.method] or o.reads
  if o.follow == nil then
    o.follow = o.is_read
  end
  url.check(o.url, 4)
  o.url = url.with_query(o.url, o.query)
  if effect.is_unknown(o.url) then
    errors.raise({ kind = "unknown", plan_end = true, message = "a URL that only a run can know: " .. o.url }, 4)
  end
  return o
end

local function dispatch(o)
  if o.is_read then
    return read(o)
  elseif o.method == "PUT" or o.method == "DELETE" then
    return put(o)
  end
  return change(o)
end

--- Any request; any answer is returned.
---@async
---@param o table  a URL, and options: see `check_options` above, or `runbook doc http`
---@return runbook.http.Answer
function http.request(o)
  return dispatch(prepare(o, nil, false))
end

for _, method in ipairs { "get", "head", "post", "put", "patch", "delete" } do
  http[method] = function(o)
    return dispatch(prepare(o, method, true))
  end
end

return http
