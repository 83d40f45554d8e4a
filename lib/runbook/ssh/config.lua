--- What ssh itself would do for a host: asked of `ssh -G`, so that Match, Include and tokens mean what they always mean.

local embed = require "runbook.core.embed"
local errors = require "runbook.errors"
local file = require "runbook.core.file"
local process = require "runbook.core.process"

local config = {}

local cache = {}

-- Keys whose value is a list of words, and keys that may come more than once.
local words = { userknownhostsfile = true, globalknownhostsfile = true }
local many = { identityfile = true, certificatefile = true }

local function home()
  return os.getenv "HOME" or "/"
end

--- A path as ssh_config writes it: `~` and the tokens that ssh itself expands late.
---@param path string
---@param c table  hostname, user, alias
---@return string
function config.expand(path, c)
  path = path:gsub("^~/", home() .. "/")
  local values = { d = home(), h = c.hostname, n = c.alias, r = c.user, p = c.port, u = embed.user(), ["%"] = "%" }
  return (path:gsub("%%(.)", function(token) return values[token] and tostring(values[token]) end))
end

local function split(text)
  local list = {}
  for word in text:gmatch "%S+" do
    list[#list + 1] = word
  end
  return list
end

local function unquoted(text)
  return text:match '^"(.*)"$' or text
end

--- The lines of `ssh -G` as a table.
---@param text string
---@return table<string, string|string[]>
function config.parse(text)
  local c = {}
  for key, value in text:gmatch "(%S+) ([^\n]*)\n" do
    if many[key] then
      c[key] = c[key] or {}
      table.insert(c[key], unquoted(value))
    elseif words[key] then
      c[key] = split(value)
    elseif c[key] == nil then
      c[key] = value
    end
  end
  for _, key in ipairs { "proxyjump", "proxycommand", "identityagent", "hostkeyalias" } do
    if c[key] == "none" then
      c[key] = key == "identityagent" and "none" or nil
    end
  end
  return c
end

-- Without the ssh program there is no configuration to honour, only what it would say without one.
local function defaults(o)
  local c = { hostname = o.host, user = o.user or embed.user(), port = tostring(o.port or 22) }
  c.userknownhostsfile = { home() .. "/.ssh/known_hosts", home() .. "/.ssh/known_hosts2" }
  c.globalknownhostsfile = { "/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2" }
  c.identityfile = { "~/.ssh/id_rsa", "~/.ssh/id_ecdsa", "~/.ssh/id_ed25519" }
  return c
end

--- ssh's configuration for a host.
---@async
---@param o { host: string, user?: string, port?: integer, config?: string }  config: a file instead of the usual ones
---@return table
function config.of(o)
  if o.host:sub(1, 1) == "-" or o.host:find "[%s%c]" then
    errors.raise({ kind = "usage", message = ("`%s` is no name of a host"):format(o.host) }, 2)
  end
  local file_name = o.config or os.getenv "RUNBOOK_SSH_CONFIG"
  local argv = { "ssh", "-G" }
  for _, pair in ipairs { { "-F", file_name }, { "-l", o.user }, { "-p", o.port and ("%d"):format(o.port) } } do
    if pair[2] then
      table.move(pair, 1, 2, #argv + 1, argv)
    end
  end
  table.move({ "--", o.host }, 1, 2, #argv + 1, argv)
  local key = table.concat(argv, "\0")
  if cache[key] then
    return cache[key]
  end
  local r, message, code = process.exec { argv = argv, env = { LC_ALL = "C" } }
  local c
  if r and r.status == 0 then
    c = config.parse(r.stdout)
  elseif not r and code == "ENOENT" then
    c = defaults(o)
  else
    errors.raise {
      kind = "usage", target = o.host, tried = table.concat(argv, " "), stderr = r and r.stderr,
      message = "ssh_config cannot be read: " .. (r and r.stderr:match "[^\n]+" or message or "?"),
    }
  end
  c.alias = o.host
  cache[key] = c
  return c
end

--- A key to try, with the certificate beside it first where there is one; the key may be welcome by itself, too.
---@async
---@param id { path: string, passphrase?: runbook.secret }
---@return { path: string, certificate?: string }[]
function config.with_certificate(id)
  local certificate = id.path .. "-cert.pub"
  if not file.stat(certificate) then
    return { id }
  end
  return { { path = id.path, passphrase = id.passphrase, certificate = certificate }, id }
end

--- Key files to try: those that are there.
---@async
---@param c table
---@return { path: string, certificate?: string }[]
function config.identities(c)
  local found = {}
  for _, name in ipairs(c.identityfile or {}) do
    local path = config.expand(name, c)
    if file.stat(path) then
      found[#found + 1] = { path = path }
    end
  end
  local list = {}
  for i, id in ipairs(found) do
    local named = c.certificatefile and c.certificatefile[i]
    if named then
      list[#list + 1] = { path = id.path, certificate = config.expand(named, c) }
      list[#list + 1] = id
    else
      table.move(config.with_certificate(id), 1, 2, #list + 1, list)
    end
  end
  return list
end

--- The agent's socket, or nil.
function config.agent(c)
  local agent = c.identityagent
  if agent == "none" then
    return nil
  elseif agent == nil or agent == "SSH_AUTH_SOCK" then
    return os.getenv "SSH_AUTH_SOCK"
  elseif agent:sub(1, 1) == "$" then
    return os.getenv(agent:sub(2))
  end
  return config.expand(agent, c)
end

--- Files of known host keys.
---@return string[]
function config.known_hosts(c)
  local list = {}
  for _, key in ipairs { "userknownhostsfile", "globalknownhostsfile" } do
    for _, name in ipairs(c[key] or {}) do
      if name ~= "none" then
        list[#list + 1] = config.expand(name, c)
      end
    end
  end
  return list
end

return config
