--- Secrets: where they come from. What a runbook holds is a value that prints as «secret:name»; its bytes are read when an
--- effect first needs them, and go to programs and servers only.
---
---     sops:FILE#KEY       a value in a file that sops encrypted; KEY like a.b.0, or ["a.b"]["c"]
---     age:FILE            a file that age encrypted
---     file:PATH           a file, without its last line end
---     env-file:PATH#KEY   KEY=value in a file of such lines
---     ask                 typed at the terminal, without echo

local core = require "runbook.core.secret"
local digest = require "runbook.core.digest"
local errors = require "runbook.errors"
local events = require "runbook.events"
local file = require "runbook.core.file"
local process = require "runbook.core.process"
local task = require "runbook.core.task"

local secret = {}

local LONGEST = 1 << 20 -- bytes of a secret, or of a file it is read from
local POLL = 0.02

local sources = setmetatable({}, { __mode = "k" }) -- secret -> { scheme, path, key, reference }
local reading = setmetatable({}, { __mode = "k" }) -- secret -> true while somebody reads it
--- Is it a secret?
---@param value any
---@return boolean
function secret.is(value)
  return core.is(value)
end

local function announce(s, redacted)
  if not redacted then
    events.notice(("%s is shorter than 4 bytes and cannot be kept out of what is shown"):format(s), "warning")
  end
end

--- A secret from bytes at hand.
---@param name string
---@param bytes string|runbook.secret
---@return runbook.secret
function secret.new(name, bytes)
  local s, redacted = core.new(name, bytes)
  announce(s, redacted)
  return s
end

--- A secret from bytes at hand, of which there may be thousands: nobody learns them before they are needed.
---@param name string
---@param bytes string
---@return runbook.secret
function secret.held(name, bytes)
  local s = core.later(name)
  sources[s] = { bytes = bytes }
  return s
end

--- Where its bytes come from, as text that is no secret; nil when they were given.
---@param s runbook.secret
---@return string? reference  absolute, for `secret.reference`
function secret.source(s)
  local source = sources[s]
  if source == nil or source.bytes then
    return nil
  end
  return source.scheme .. (source.path and ":" .. source.path or "") .. (source.key and "#" .. source.key or "")
end

--- Tells a rotated secret from the old one without telling either. The key is the run's.
---@async
---@param s runbook.secret
---@param key string
---@return string hex
function secret.digest(s, key)
  return digest.hmac("sha256", key, secret.ready(s))
end

-- ---- references ----

local KEYED = { sops = true, ["env-file"] = true }

local function absolute(path, base)
  if path:find "^~/" then
    return assert(os.getenv "HOME", "HOME is not set") .. path:sub(2)
  elseif path:find "^/" then
    return path
  end
  return (base or ".") .. "/" .. path -- never taken for an option
end

local function parse(text, base)
  if text == "ask" then
    return { scheme = "ask" }
  end
  local scheme, rest = text:match "^([%l-]+):(.+)$"
  if KEYED[scheme] then
    local path, key = rest:match "^(.-)#(.+)$"
    return path and path ~= "" and { scheme = scheme, path = absolute(path, base), key = key } or nil
  elseif scheme == "age" or scheme == "file" then
    return { scheme = scheme, path = absolute(rest, base) }
  end
end

--- Have two secrets the same bytes? Found with digests under a key made for this one question.
---@async
---@param a runbook.secret
---@param b runbook.secret
---@return boolean
function secret.same(a, b)
  local key = digest.random(32)
  return a == b or secret.digest(a, key) == secret.digest(b, key)
end

--- What a reference stands for. Nothing is read yet.
---@param text string
---@param o { name: string, base: string? }  base: the directory that relative paths start from
---@return runbook.secret
function secret.reference(text, o)
  local source = type(text) == "string" and parse(text, o.base)
  if not source then -- never shows what was given: it may be the secret itself
    errors.raise({
      kind = "usage", target = o.name,
      message = "a reference is expected, not the secret itself: sops:FILE#KEY, age:FILE, file:PATH, env-file:PATH#KEY or ask",
    }, 2)
  end
  local s = core.later(o.name)
  source.name = o.name
  sources[s] = source
  return s
end

-- ---- reading ----

local function fail(source, e)
  e.target = e.target or source.path or source.name
  e.tried = e.tried or "reading secret " .. source.name
  errors.raise(e, 2)
end

local function read_file(source)
  local stat = errors.check(source.path, "reading secret " .. source.name, file.stat(source.path))
  if stat.mode & 7 ~= 0 then
    events.notice(("%s holds a secret and everybody on this machine may read it (mode %04o); chmod 600 it")
      :format(source.path, stat.mode), "warning")
  end
  return errors.check(source.path, "reading secret " .. source.name, file.read(source.path, LONGEST))
end

local function run(source, argv, env, hint)
  local shown = table.concat(argv, " ")
  local r, message, code = process.exec { argv = argv, env = env, limit = LONGEST }
  if not r then
    fail(source, {
      kind = errors.kind(code), code = code, tried = shown, message = message,
      hint = code == "ENOENT" and ("install %s on this machine"):format(argv[1]) or nil,
    })
  elseif r.status ~= 0 then
    fail(source, {
      kind = "auth", tried = shown, status = r.status, signal = r.signal, stderr = r.stderr, hint = hint,
      message = ("%s could not decrypt it: %s"):format(argv[1], r.stderr:match "[^\n]+" or "no reason given"),
    })
  end
  return r.stdout
end

local function exists(path)
  return file.stat(path) ~= nil
end

-- As age and sops themselves look for them.
local function identities()
  local home = os.getenv "HOME" or ""
  local config = os.getenv "XDG_CONFIG_HOME" or home .. "/.config"
  local named = os.getenv "SOPS_AGE_KEY_FILE"
  local found = {}
  for _, path in ipairs { named or config .. "/sops/age/keys.txt", home .. "/.ssh/id_ed25519", home .. "/.ssh/id_rsa" } do
    if exists(path) then
      found[#found + 1] = path
    end
  end
  return found
end

-- a.b.0 as sops wants it; what begins with [ already is.
local function extract(key)
  if key:find "^%[" then
    return key
  end
  return (key:gsub("[^.]+", function(part)
    return part:find "^%d+$" and ("[%s]"):format(part) or ('["%s"]'):format(part:gsub('[\\"]', "\\%0"))
  end):gsub("%.", ""))
end

local function unquote(value)
  local single = value:match "^'([^']*)'%s*$" or value:match "^'([^']*)'%s+#"
  if single then
    return single
  end
  local double = value:match '^"(.*)"%s*$' or value:match '^"(.-)"%s+#'
  if double then
    local escapes = { n = "\n", r = "\r", t = "\t" }
    return (double:gsub("\\(.)", function(c) return escapes[c] or c end))
  end
  return (value:gsub("%s+#.*$", ""):gsub("%s+$", ""))
end

local readers = {}

function readers.file(source)
  return read_file(source)
end

readers["env-file"] = function(source)
  local found
  for line in (read_file(source) .. "\n"):gmatch "(.-)\r?\n" do
    local key, value = line:gsub("^%s*export%s+", ""):match "^%s*([%w_.-]+)%s*=%s*(.*)$"
    if key == source.key then
      found = unquote(value) -- the last one counts, as in a shell
    end
  end
  if not found then
    fail(source, { kind = "missing", message = ("no line `%s=` in this file"):format(source.key) })
  end
  return found
end

function readers.age(source)
  local argv = { "age", "--decrypt" }
  for _, path in ipairs(identities()) do
    table.insert(argv, "--identity")
    table.insert(argv, path)
  end
  argv[#argv + 1] = source.path
  return run(source, argv, nil,
    #argv == 3 and "no identity was found; SOPS_AGE_KEY_FILE names the file that holds it" or nil)
end

function readers.sops(source)
  return run(source, { "sops", "--decrypt", "--extract", extract(source.key), source.path })
end

function readers.ask(source)
  local ask = require "runbook.ask"
  if not ask.available() then
    fail(source, {
      kind = "usage", code = "ENOTTY", message = "this secret is to be typed, and nobody can be asked here",
      hint = ("give another reference: -p %s=file:PATH"):format(source.name),
    })
  end
  local text = ask.parameter { name = source.name, type = "secret" }
  if not text then
    fail(source, { kind = "cancelled", message = "no secret was typed" })
  end
  return text
end

local function read(s)
  local source = sources[s]
  if not source then
    errors.raise { kind = "internal", message = tostring(s) .. " has no source" }
  elseif source.bytes then
    core.fill(s, source.bytes)
    return
  end
  local bytes = require("runbook.effect").own(readers[source.scheme], source):gsub("\r?\n$", "")
  if bytes == "" then
    fail(source, { kind = "missing", message = "the secret is empty" })
  end
  announce(s, core.fill(s, bytes))
end

--- Have the bytes read, if they have not been; who needs them at the same time waits.
---@async
---@param s runbook.secret
---@return runbook.secret s
function secret.ready(s)
  while not s:known() do
    if reading[s] then
      task.sleep(POLL)
    else
      reading[s] = true
      local _ <close> = setmetatable({}, { __close = function() reading[s] = nil end })
      read(s)
    end
  end
  return s
end

--- The secret of a reference, read now.
---@async
---@param text string
---@param o { name: string, base: string? }
---@return runbook.secret
function secret.resolve(text, o)
  return secret.ready(secret.reference(text, o))
end

local function ready_inside(value, depth)
  if core.is(value) then
    secret.ready(value)
  elseif depth > 0 and type(value) == "table" and getmetatable(value) == nil then
    for _, inner in pairs(value) do
      ready_inside(inner, depth - 1)
    end
  end
end

--- Have every secret among these values read, also in plain tables (headers in a table of options).
---@async
---@param ... any
function secret.ready_all(...)
  for i = 1, select("#", ...) do
    ready_inside((select(i, ...)), 3)
  end
end

return secret
