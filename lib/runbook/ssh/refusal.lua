--- Why there is no connection, for people: what the connecting engine found out, as an error value.

local certificate = require "runbook.ssh.certificate"
local errors = require "runbook.errors"
local file = require "runbook.core.file"
local secret = require "runbook.core.secret"
local time = require "runbook.core.time"
local visible = require "runbook.visible"

local refusal = {}

local LONGEST = 1 << 20

local function key_kind(details)
  return (details.key_type or ""):gsub("^ssh%-", ""):gsub("^ecdsa%-sha2.*", "ecdsa"):gsub("^rsa%-sha2.*", "rsa")
end

local function unknown_host(name, details, written_at)
  local kind = key_kind(details)
  return {
    message = table.concat({
      name .. ": I have never met this server.",
      ("  It says   %s %s"):format(kind:upper(), details.fingerprint),
      ("  Compare   on its console: ssh-keygen -lf /etc/ssh/ssh_host_%s_key.pub"):format(kind),
      "  Then      host_key: " .. details.fingerprint .. (written_at and "      " .. written_at or ""),
    }, "\n"),
    hint = ("host_key: %s"):format(details.fingerprint),
  }
end

local function changed_host(name, details)
  return {
    message = ("%s: this is not the server it was: its host key is %s %s now%s"):format(name, key_kind(details):upper(),
      details.fingerprint, details.known_at and ", and " .. details.known_at .. " has another" or ", not the one that was pinned"),
    hint = "somebody may be in between; only when the change is known to be right, correct the pin or that line",
  }
end

-- The server asked, and had no answer.
local function unanswered(name, details, silent)
  local prompts = details.prompts or {}
  local texts = {}
  for i, prompt in ipairs(prompts) do
    texts[i] = "`" .. visible.line(prompt.text:match "([^\n]-)%s*$") .. "`"
  end
  local why = details.unanswered
    or silent and "ssh_config says BatchMode, so nobody is asked" or "nobody can be asked here"
  return {
    message = ("%s asks %s, and %s"):format(name, #texts > 0 and table.concat(texts, ", ") or "something", why),
    hint = details.unanswered and "go on with `runbook resume`, which asks again"
      or "run it at a terminal, or give what it asks for, in that order: answers: [sops:FILE#KEY, ...]",
  }
end

-- A sentence on each certificate that was shown.
local function certificates(identities, user)
  local lines = {}
  for _, id in ipairs(identities) do
    if id.certificate or id.certificate_text then
      local text = id.certificate_text or file.read(id.certificate, LONGEST)
      if not secret.is(text) then
        lines[#lines + 1] = ("  %s %s"):format(id.certificate or "the certificate", certificate.judge(text, user, time.utc()))
      end
    end
  end
  return lines
end

local function not_let_in(name, message, details, user, identities, password)
  local e = { message = message }
  local shown = certificates(identities, user)
  if #shown > 0 then
    e.message = message .. "\n" .. table.concat(shown, "\n")
    e.hint = ("have it signed for %s: ssh-keygen -s CA -I ID -n %s -V +12h KEY.pub"):format(user, user)
  elseif details.locked then
    e.hint = "load the key into an agent: ssh-add " .. details.locked
  else
    local offered = ("," .. (details.offered or "") .. ","):find(",password,", 1, true)
    e.hint = ("see what ssh says: ssh -v %s true%s"):format(name, offered and not password
      and "; or type the password at a terminal, or give it: password: sops:FILE#KEY" or "")
  end
  return e
end

--- What to raise for a connection that did not come about.
---@param o table  options of ssh.host
---@param message string
---@param code string
---@param details? runbook.core.ssh.details
---@param login { user: string, identities: table[], silent: boolean }
---@return table e  for errors.raise
function refusal.error(o, message, code, details, login)
  local name = o.name or o.host
  details = details or {}
  local e = { message = message }
  if code == "EHOSTKEY_UNKNOWN" then
    e = unknown_host(name, details, o.written_at)
  elseif code == "EHOSTKEY_CHANGED" then
    e = changed_host(name, details)
  elseif code == "EPROMPT" then
    e = unanswered(name, details, login.silent)
  elseif code == "EAUTH" then
    e = not_let_in(name, message, details, login.user, login.identities, o.password)
  end
  e.kind, e.code, e.target = errors.kind(code), code, name
  e.fingerprint, e.known_at, e.host_key = details.fingerprint, details.known_at, details.key
  return e
end

return refusal
