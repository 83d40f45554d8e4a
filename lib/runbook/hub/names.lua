--- A user's name as kubespawner writes it into pods, labels, claims and directories.
---
--- Two schemes are in use. `escape`, the only one before kubespawner 7, writes every byte outside `a-z0-9` as `-` and its
--- hexadecimal number; two names never meet, but what comes out may be no name Kubernetes takes. `safe`, the default of
--- kubespawner 7 and of the chart's version 4, keeps a name that is a DNS label and gives any other one a digest.
--- A hub whose directories follow another scheme or template than the old hub's shows every user an empty home.
--- Source: kubespawner 7.1, `slugs.py` and `KubeSpawner._expand_user_properties`; python-escapism 1.0.

local digest = require "runbook.core.digest"
local errors = require "runbook.errors"
local nearest = require "runbook.nearest"

local names = {}

local DIGEST = 8 -- hexadecimal digits of a name's SHA-256
local LONGEST = 48 -- of a user's or a server's name, and of both together
local LONGEST_LABEL = 63

-- Letters outside ASCII whose lower case is, or begins with, one of ASCII: KELVIN SIGN and I WITH DOT ABOVE.
local LOWER = { ["\u{212A}"] = "k", ["\u{130}"] = "i\u{307}" }

local function lower(name)
  for letter, small in pairs(LOWER) do
    name = name:gsub(letter, small)
  end
  return name:lower()
end

local function is_dns_label(name)
  return #name <= LONGEST_LABEL and name:find("^[a-z][a-z0-9-]*$") ~= nil and not name:find("%-$")
end

-- Letters, digits and single hyphens, beginning with a letter; `x` when nothing of the name is left.
local function plain(name, longest)
  local kept = lower(name):gsub("[^a-z0-9]+", "-"):gsub("^%-+", ""):sub(1, longest):gsub("%-+$", "")
  if kept == "" then
    return "x"
  end
  return kept:find("^[a-z]") and kept or "x-" .. kept:sub(1, longest - 2)
end

local function short_digest(bytes)
  return digest.sha256(bytes):sub(1, DIGEST)
end

--- The scheme `escape`.
---@param name string  any bytes
---@return string
function names.escape(name)
  return (name:gsub("[^a-z0-9]", function(byte)
    return ("-%x"):format(byte:byte())
  end))
end

--- The scheme `safe`.
---@param name string  any bytes
---@return string
function names.safe(name)
  if #name <= LONGEST and is_dns_label(name) and not name:find("--", 1, true) then
    return name
  end
  return plain(name, LONGEST - DIGEST - #"---") .. "---" .. short_digest(name)
end

-- A user and a server of theirs in one word, by the scheme `safe`.
local function safe_pair(user, server)
  local left, right = names.safe(user), server == "" and "" or names.safe(server)
  if #left + #right + #"--" <= LONGEST then
    return server == "" and left or left .. "--" .. right
  end
  local each = (LONGEST - DIGEST - 1) // 2 - #"--"
  return plain(user, each) .. "--" .. plain(server, each) .. "---" .. short_digest(user .. "\xff" .. server)
end

local function escaped_pair(user, server)
  return names.escape(user) .. "--" .. names.escape(server)
end

local function fields(user)
  local name, server = user.name, user.server or ""
  local escaped = {
    username = names.escape(name),
    servername = names.escape(server),
    user_server = server == "" and names.escape(name) or escaped_pair(name, server),
  }
  local safe = {
    username = names.safe(name),
    servername = server == "" and "" or names.safe(server),
    user_server = safe_pair(name, server),
  }
  local own = user.scheme == "escape" and escaped or safe
  return {
    userid = user.id and tostring(user.id),
    unescaped_username = name,
    unescaped_servername = server,
    hubnamespace = user.namespace == "default" and "user" or user.namespace,
    username = own.username,
    servername = own.servername,
    user_server = own.user_server,
    safe_username = safe.username,
    safe_servername = safe.servername,
    safe_user_server = safe.user_server,
    escaped_username = escaped.username,
    escaped_servername = escaped.servername,
    escaped_user_server = escaped_pair(name, server),
    legacy_escape_username = lower(name):gsub("[\x80-\xff][\x80-\xbf]*", "-"):gsub("[^a-z0-9]", "-"),
  }
end

local function unknown_field(template, field, known)
  local list = {}
  for name in pairs(known) do
    list[#list + 1] = name
  end
  table.sort(list)
  local near = nearest(field, list)
  errors.raise {
    kind = "usage", target = template,
    message = ("`%s` has {%s}, which is not known here for a user"):format(template, field),
    hint = near and ("did you mean {%s}?"):format(near) or nil,
  }
end

--- A template of kubespawner (`subPath`, `pvc_name_template`, `pod_name_template`), filled in for a user.
---@param template string  e.g. "{escaped_username}"; `{{` and `}}` are braces
---@param user { name: string, scheme: "safe"|"escape", id?: integer, server?: string, namespace?: string }
---@return string  raises kind `usage` for a field that is not known
function names.expand(template, user)
  local known = fields(user)
  local out, at = {}, 1
  while at <= #template do
    local brace, field = template:match("^([{}])%1", at), template:match("^{([^{}]*)}", at)
    if brace then
      out[#out + 1], at = brace, at + 2
    elseif field then
      out[#out + 1], at = known[field] or unknown_field(template, field, known), at + #field + 2
    else
      out[#out + 1], at = template:sub(at, at), at + 1
    end
  end
  local filled = table.concat(out)
  if not template:find("%-$") then
    filled = filled:gsub("%-+$", "") -- what an empty server name leaves of `{username}--{servername}`
  end
  return filled
end

return names
