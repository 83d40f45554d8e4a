--- The types that are somewhere: `host`, `place` and `dir`. Making the handle touches nothing; its first use does.

local types = require "runbook.types"
local units = require "runbook.units"

local function host_text(raw, at)
  if type(raw) ~= "string" and not (type(raw) == "number" and at.words) then
    return nil
  end
  local text = type(raw) == "string" and raw or at.words
  return text:match("^[^%s%-][^%s]*$")
end

types.register("host name", {
  internal = true,
  help = "a host, or its name in ~/.ssh/config",
  parse = function(raw, at)
    local text = host_text(raw, at)
    if text == nil or text:find("[/\0-\31\127]") then
      return nil, units.quote(raw) .. ": a host name, or a name of ~/.ssh/config"
    end
    return text
  end,
})

types.register("port", {
  internal = true,
  help = "a port number",
  parse = function(raw)
    local n = type(raw) == "string" and math.tointeger(tonumber(raw)) or raw
    if math.type(n) ~= "integer" or n < 1 or n > 65535 then
      return nil, units.quote(raw) .. ": a port is a number from 1 to 65535"
    end
    return n
  end,
})

types.register("sudo", {
  internal = true,
  help = "true, or a user's name",
  parse = function(raw)
    if raw == "true" or raw == "false" then
      return raw == "true"
    elseif type(raw) == "boolean" or type(raw) == "string" and raw:match("^[%w_][%w_.-]*$") then
      return raw
    end
    return nil, units.quote(raw) .. ": true, or the name of the user to be"
  end,
})

types.register("user name", {
  internal = true,
  help = "a user's name",
  parse = function(raw, at)
    local text = type(raw) == "string" and raw or at.words
    if not text or not text:match("^[%w_][%w_.@\\-]*$") then
      return nil, units.quote(raw) .. ": a user's name is expected"
    end
    return text
  end,
})

types.register("host key", {
  internal = true,
  help = "the fingerprint of the host's key, as `ssh-keygen -lf` prints it",
  parse = function(raw, at)
    if types.is_list(raw) and #raw > 0 then
      local keys = {}
      for i, one in ipairs(raw) do
        keys[i] = types.value({ "host_key", "host key", "one of several" }, one, at)
      end
      return #keys == #raw and keys or nil
    end
    local text = type(raw) == "string" and raw:match("^%s*(.-)%s*$")
    if not text or not (text:match("^SHA256:[%w+/]+=*$") and #text >= 50 or text:match("^[%w@.-]+ [%w+/]+=*")) then
      return nil, units.quote(raw) .. ": a fingerprint like SHA256:Qk3VvN0x9sW0..., 43 letters and digits"
    end
    return text
  end,
})

types.register("certificate", {
  internal = true,
  help = "the certificate of `identity`, a file or its text",
  parse = function(raw, at)
    if require("runbook.ssh.certificate").is_text(raw) then
      return raw
    end
    return types.find("path").parse(raw, at)
  end,
})

types.register("answers", {
  internal = true,
  help = "references to secrets, in the order the server asks for them",
  parse = function(raw, at)
    local list = types.is_list(raw) and raw or { raw }
    local answers = {}
    for i, one in ipairs(list) do
      answers[i] = types.value({ "answers", "secret", "one of several" }, one, at:below(tostring(i)))
    end
    return #answers == #list and answers or nil
  end,
})

local host_fields = {
  { "ssh", "host name", "the host, or its name in ~/.ssh/config", optional = true },
  { "host", "host name", "the same as ssh", optional = true },
  { "user", "user name", "who logs in", optional = true },
  { "port", "port", "the port of its ssh server", optional = true },
  { "sudo", "sudo", "true: work as root", optional = true },
  { "host_key", "host key", "its fingerprint", optional = true },
  { "seen_from_target", "host name", "where the other server of a pair finds it, if elsewhere", optional = true },
  { "identity", "path", "the private key to log in with", optional = true },
  { "passphrase", "secret", "of that key", optional = true },
  { "certificate", "certificate", "of that key, if not the -cert.pub beside it", optional = true },
  { "password", "secret", "where the server wants one", optional = true },
  { "answers", "answers", "secrets, for what the server asks, in order", optional = true },
  { "sudo_password", "secret", "where sudo wants one", optional = true },
  { "jump", "host name", "hosts to go through, instead of those of ssh_config", optional = true },
  { "config", "path", "an ssh_config file instead of the usual ones", optional = true },
  { "known_hosts", "path", "a file of known hosts instead of the usual ones", optional = true },
}

local dir_fields = { { "path", "string", "the directory" } }
table.move(host_fields, 1, #host_fields, 2, dir_fields)

local ONE_HOST = "a host is expected, like nfs-old or {ssh: nfs-old, user: ubuntu, sudo: true}"

-- A place of the fields; the caller has seen to it that they are right.
local function open(fields, at)
  local name = fields.ssh or fields.host
  if name == nil then
    local here = require "runbook.here"
    return fields.sudo and here:with { sudo = fields.sudo } or here
  end
  local o = { name }
  if at.file then
    o.written_at = ("below `%s` in %s, line %d"):format(at.path:match("[^.]*$"), at.file, at.line)
  end
  for _, field in ipairs(host_fields) do
    local key = field[1]
    if key ~= "ssh" and key ~= "host" then
      o[key] = fields[key]
    end
  end
  return require("runbook.ssh").host(o)
end

-- "user@host" as fields.
local function split_user(text)
  local user, host = text:match("^([%w_][%w_.\\-]*)@(.+)$")
  return { ssh = host or text, user = user }
end

local function one_of_two(raw, at)
  if raw.ssh ~= nil and raw.host ~= nil then
    at:below "host":problem "says the same as `ssh`; keep one"
    return false
  end
  return true
end

-- Fields of a host from a string or a map; reports what is wrong.
local function host_parts(raw, at, here)
  if type(raw) == "string" or type(raw) == "number" then
    local text = host_text(raw, at)
    if text == nil or text:find("[/:\0-\31\127]") then
      at:problem(units.quote(raw) .. ": " .. ONE_HOST)
      return nil
    elseif here and text == "here" then
      return {}
    end
    return split_user(text)
  elseif not types.is_map(raw) then
    at:problem(units.quote(raw) .. ": " .. ONE_HOST)
    return nil
  end
  local fields = types.map(host_fields, raw, at)
  if not fields or not one_of_two(raw, at) then
    return nil
  elseif not here and fields.ssh == nil and fields.host == nil then
    at:below "ssh":missing "the host, or its name in ~/.ssh/config"
    return nil
  end
  return fields
end

local function reach(place)
  place:query { "true" }
end

types.register("host", {
  help = "a server reached by ssh",
  pinned = true,
  parse = function(raw, at)
    local fields = host_parts(raw, at, false)
    return fields and open(fields, at)
  end,
  check = reach,
  show = tostring,
  example = { "ssh: a host, or its name in ~/.ssh/config", "user: ubuntu", "sudo: true", "host_key: SHA256:..." },
})

types.register("place", {
  help = "`here`, or a server reached by ssh",
  pinned = true,
  parse = function(raw, at)
    local fields = host_parts(raw, at, true)
    return fields and open(fields, at)
  end,
  check = reach,
  show = tostring,
  example = { "ssh: a host, or its name in ~/.ssh/config", "user: ubuntu", "sudo: true", "host_key: SHA256:..." },
})

-- "nfs-old:/export", "ubuntu@nfs-old:/export", or a path of this machine.
local function dir_of_text(text, at)
  local host, path = text:match("^([^:/%s]+):(.*)$")
  if host and host ~= "here" then
    if host:sub(1, 1) == "-" then
      return nil, units.quote(text) .. ": a host's name does not begin with -"
    elseif path:sub(1, 1) ~= "/" then
      return nil, units.quote(text) .. ": the path on a server is absolute, like nfs-old:/export"
    end
    return open(split_user(host), at):dir(path)
  end
  path = host and path or text
  if path == "" or path:find("\0", 1, true) then
    return nil, units.quote(text) .. ": a directory like nfs-old:/export/homes"
  end
  return require("runbook.here"):dir(types.resolve_path(path, at))
end

types.register("dir", {
  help = "a server and a directory, or a claim",
  pinned = true,
  parse = function(raw, at)
    if type(raw) == "string" then
      return dir_of_text(raw, at)
    elseif not types.is_map(raw) then
      return nil, units.quote(raw) .. ": a directory is expected, like nfs-old:/export or {ssh: nfs-old, path: /export}"
    elseif raw.claim ~= nil then
      return types.find "claim".parse(raw, at)
    end
    local fields = types.map(dir_fields, raw, at)
    if not fields or not one_of_two(raw, at) then
      return nil
    end
    local remote = fields.ssh or fields.host
    if remote and fields.path:sub(1, 1) ~= "/" then
      at:below "path":problem(units.quote(fields.path) .. ": the path on a server is absolute")
      return nil
    end
    return open(fields, at):dir(remote and fields.path or types.resolve_path(fields.path, at:below "path"))
  end,
  check = function(dir)
    reach(dir.place)
  end,
  show = tostring,
  example = {
    "ssh: a host, or its name in ~/.ssh/config", "user: ubuntu", "sudo: true", "path: /export/...", "host_key: SHA256:...",
  },
})
