--- URLs, as far as requests need them.

local errors = require "runbook.errors"
local units = require "runbook.units"

local url = {}

local DEFAULT_PORT = { http = "80", https = "443" }

-- scheme, user part, host, port, the rest; nil when it is none of ours
local function parts(text)
  local scheme, authority, rest = text:match("^(%a+)://([^/?#]*)(.*)$")
  scheme = scheme and scheme:lower()
  if not DEFAULT_PORT[scheme] then
    return nil
  end
  local user, place = authority:match("^(.*)@(.*)$")
  place = place or authority
  local host, port = place:match("^(%[[%x:.]+%]):?(%d*)$")
  if not host then
    host, port = place:match("^([^:%[%]]+):?(%d*)$")
  end
  if not host then
    return nil
  end
  return scheme, user, host:lower(), port ~= "" and port or DEFAULT_PORT[scheme], rest
end

--- Raise kind `usage` unless it is a URL requests may use.
---@param text any
---@param level integer
function url.check(text, level)
  local problem
  if type(text) ~= "string" then
    problem = "http: a URL is expected"
  elseif text:find("[%c%s]") then
    problem = "http: a URL has no spaces or line breaks; encode them"
  else
    local scheme, user = parts(text)
    if not scheme then
      problem = ("http: %s is not a URL that begins with http:// or https://"):format(units.quote(url.shown(text)))
    elseif user then
      problem = "http: a URL with a password in it would be shown and kept; use `basic` or `bearer`"
    end
  end
  if problem then
    errors.raise({ kind = "usage", message = problem }, level + 1)
  end
end

--- For messages: without user, query and fragment.
---@param text string
---@return string
function url.shown(text)
  return (text:gsub("[?#].*$", ""):gsub("^(%a+://)[^/]*@", "%1"))
end

---@param text string
---@return string "https"|"http"
function url.scheme(text)
  return (parts(text))
end

--- Whom an error is about: the host, with its port unless it is the usual one.
---@param text string
---@return string
function url.host(text)
  local scheme, _, host, port = parts(text)
  if not scheme then
    return "?"
  end
  return port == DEFAULT_PORT[scheme] and host or host .. ":" .. port
end

--- Equal for URLs of one server.
---@param text string
---@return string
function url.origin(text)
  local scheme, _, host, port = parts(text)
  return ("%s://%s:%s"):format(scheme, host, port)
end

--- What libcurl calls connect-to: the URL's server is reached at another host, by the same port.
---@param text string
---@param host string
---@return string
function url.connect_to(text, host)
  local _, _, name, port = parts(text)
  local there = host:find(":", 1, true) and not host:find "^%[" and "[" .. host .. "]" or host
  return ("%s:%s:%s:%s"):format(name, port, there, port)
end

local function encoded(value)
  return (tostring(value):gsub("[^%w%-._~]", function(c) return ("%%%02X"):format(c:byte()) end))
end

--- A URL with name = value pairs put to its query, sorted by name; a list gives its name several times.
---@param text string
---@param query table<string, any>?
---@return string
function url.with_query(text, query)
  local names, pairs_ = {}, {}
  for name in pairs(query or {}) do
    names[#names + 1] = name
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local value = query[name]
    for _, one in ipairs(type(value) == "table" and value or { value }) do
      pairs_[#pairs_ + 1] = encoded(name) .. "=" .. encoded(one)
    end
  end
  if #pairs_ == 0 then
    return text
  end
  local before, fragment = text:match("^([^#]*)(.*)$")
  return before .. (before:find("?", 1, true) and "&" or "?") .. table.concat(pairs_, "&") .. fragment
end

local months = {}
for i, name in ipairs { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" } do
  months[name] = i
end

--- Seconds since 1970 of "Sun, 06 Nov 1994 08:49:37 GMT", the one form HTTP still sends.
---@param text string
---@return number?
function url.parse_date(text)
  local day, month, year, time = text:match("^%a%a%a, (%d%d) (%a%a%a) (%d%d%d%d) (%d%d:%d%d:%d%d) GMT$")
  if not months[month] then
    return nil
  end
  return (units.parse_time(("%s-%02d-%sT%sZ"):format(year, months[month], day, time)))
end

return url
