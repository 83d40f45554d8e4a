--- User certificates: what stands in one, and why a server may not take it. The server says only no; who signs certificates
--- wants to know whether it has expired, names somebody else, or is not trusted there.

local digest = require "runbook.core.digest"

local certificate = {}

-- How many strings the key itself takes, before what the authority says of it.
local key_strings = {
  ["ssh-rsa-cert-v01@openssh.com"] = 2, ["ssh-dss-cert-v01@openssh.com"] = 4, ["ssh-ed25519-cert-v01@openssh.com"] = 1,
  ["ecdsa-sha2-nistp256-cert-v01@openssh.com"] = 2, ["ecdsa-sha2-nistp384-cert-v01@openssh.com"] = 2,
  ["ecdsa-sha2-nistp521-cert-v01@openssh.com"] = 2, ["sk-ecdsa-sha2-nistp256-cert-v01@openssh.com"] = 3,
  ["sk-ssh-ed25519-cert-v01@openssh.com"] = 2,
}

local USER, HOST = 1, 2

--- Is this the text of a certificate, and not a path?
---@param text any
---@return boolean
function certificate.is_text(text)
  return type(text) == "string" and key_strings[text:match "^%s*(%S+) " or ""] ~= nil
end

local function strings_of(bytes)
  local list, at = {}, 1
  while at <= #bytes do
    list[#list + 1], at = string.unpack(">s4", bytes, at)
  end
  return list
end

local function unpack_blob(blob)
  local c = {}
  local kind, at = string.unpack(">s4", blob)
  for _ = 0, key_strings[kind] do -- and the nonce
    at = select(2, string.unpack(">s4", blob, at))
  end
  local principals, options, signer, _
  c.serial, c.type, c.id, principals, c.after, c.before, options, _, _, signer = string.unpack(">I8I4s4s4I8I8s4s4s4s4", blob, at)
  c.principals = strings_of(principals)
  c.authority = digest.fingerprint("authority " .. digest.base64(signer))
  local pairs_of_options = strings_of(options)
  for i = 1, #pairs_of_options, 2 do
    if pairs_of_options[i] == "source-address" then
      c.source_address = strings_of(pairs_of_options[i + 1])[1]
    end
  end
  return c
end

---@class runbook.ssh.Certificate
---@field type integer  1: a user's, 2: a host's
---@field id string
---@field principals string[]
---@field after integer   seconds since 1970
---@field before integer  negative: for ever
---@field authority string  "SHA256:..." of the key that signed it
---@field source_address? string  where its holder may come from

--- What stands in a `-cert.pub`.
---@param text string
---@return runbook.ssh.Certificate?  nil: it is no certificate
function certificate.parse(text)
  local word = certificate.is_text(text) and text:match "^%s*%S+ (%S+)"
  local blob = word and digest.unbase64(word)
  local ok, c = pcall(unpack_blob, blob or "")
  return ok and c or nil
end

local function moment(seconds)
  return os.date("!%Y-%m-%d %H:%M UTC", seconds)
end

local function has(list, word)
  for _, one in ipairs(list) do
    if one == word then
      return true
    end
  end
  return false
end

--- Why a server may not let this user in with it, in words.
---@param text string?  nil: it cannot be read
---@param user string
---@param now number  seconds since 1970
---@return string
function certificate.judge(text, user, now)
  local c = text and certificate.parse(text)
  if not c then
    return "is no ssh certificate"
  end
  local named = ("(id %q, signed by %s)"):format(c.id, c.authority)
  local whom = table.concat(c.principals, ", ")
  if c.type == HOST then
    return ("is a host's certificate, not a user's %s"):format(named)
  elseif c.before >= 0 and c.before <= now then
    return ("expired on %s %s"):format(moment(c.before), named)
  elseif c.type == USER and c.after > now then
    return ("is valid from %s on only; is the clock right? %s"):format(moment(c.after), named)
  elseif whom == "" then
    return ("names no principal, so no server lets anybody in with it %s"):format(named)
  elseif not has(c.principals, user) then
    return ("is for %s, and not for %s %s"):format(whom, user, named)
  end
  return ("is valid for %s%s%s; the server may not trust who signed it (TrustedUserCAKeys), or want another principal %s"):format(
    user, c.before >= 0 and " until " .. moment(c.before) or "", c.source_address and ", from " .. c.source_address .. " only" or "", named)
end

return certificate
