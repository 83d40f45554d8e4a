--- What a parameter may be: each type turns what stands in a file into what a runbook works with.
---
---     types.register("bucket", {
---       help = "a bucket: s3://name",
---       parse = function(raw, at) ... return value  -- or: return nil, "what is wrong"
---       end,
---     })
---
--- A type may also have `check(value)` (a look at the outside, made by preflight), `show(value, raw, name)` (its text),
--- `placeholder(name)` (what stands for it while there are no values), `pinned = true` (a resumed run may not change it;
--- or the keys it may not change) and `example` (lines for `runbook new`). `at` says where the value stands; see At below.

local json = require "runbook.json"
local nearest = require "runbook.nearest"
local units = require "runbook.units"

local types = {}

local registry = {}

-- Types whose modules register them; loaded when a runbook first names them.
local owners = {
  cluster = "runbook.types.kube",
  claim = "runbook.types.kube",
  copier = "runbook.types.copier",
  zone = "runbook.types.zone",
  fqdns = "runbook.types.zone",
  hub = "runbook.types.hub",
  run = "runbook.types.run",
  host = "runbook.types.place",
  place = "runbook.types.place",
  dir = "runbook.types.place",
}

---@class runbook.Type
---@field parse fun(raw: any, at: runbook.At): any, string?
---@field help string
---@field check? async fun(value: any)
---@field show? fun(value: any, raw: any): string
---@field placeholder? any|fun(name: string): any
---@field pinned? boolean|string[]  true: all of it; or the keys of a map that are
---@field internal? boolean  part of other types; not for parameters
---@field example? string[]

--- Add a type, from the module that owns it.
---@param name string
---@param definition runbook.Type
function types.register(name, definition)
  assert(type(definition.parse) == "function" and type(definition.help) == "string", name .. ": a type needs parse and help")
  definition.name = name
  registry[name] = definition
end

--- The type of that name; nil when there is none.
---@param name string
---@return runbook.Type?
function types.find(name)
  if registry[name] == nil and owners[name] then
    require(owners[name])
  end
  return registry[name]
end

--- The names parameters may use, sorted.
---@return string[]
function types.names()
  local list = {}
  for name in pairs(owners) do
    types.find(name)
  end
  for name, definition in pairs(registry) do
    if not definition.internal then
      list[#list + 1] = name
    end
  end
  table.sort(list)
  return list
end

---@class runbook.At
---@field path string       "homes.from": for messages
---@field base string       the directory that relative paths start from
---@field words? string     a plain scalar as written: `1.10`, where the value is 1.1
---@field typed? boolean    the value is a word from a command line or prompt, not from a file
---@field declared? table   the declaration of the value: `choices` and whatever else it has
---@field below fun(self: runbook.At, key: string): runbook.At  the place of a key in a map
---@field problem fun(self: runbook.At, message: string)  report what is wrong, and go on
---@field missing fun(self: runbook.At, help: string)     report that nothing stands here

local function keys_of(fields)
  local names = {}
  for i, field in ipairs(fields) do
    names[i] = field[1]
  end
  return names
end

local function sorted_keys(t)
  local keys = {}
  for key in pairs(t) do
    keys[#keys + 1] = tostring(key)
  end
  table.sort(keys)
  return keys
end

local function one_of(choices, value)
  for _, choice in ipairs(choices) do
    if choice == value then
      return true
    end
  end
  return false
end

local function not_one_of(choices, raw)
  local words = {}
  for i, choice in ipairs(choices) do
    words[i] = tostring(choice)
  end
  local near = type(raw) == "string" and nearest(raw, words)
  return ("%s: one of %s%s"):format(units.quote(raw), table.concat(words, ", "), near and ("; did you mean `" .. near .. "`?") or "")
end

--- Parse one declared value; reports what is wrong itself.
---@param field table  { name, type, help, ... }
---@param raw any
---@param at runbook.At
---@return any value  nil when it is wrong
function types.value(field, raw, at)
  at.declared = field
  local value, message = types.find(field[2]).parse(raw, at)
  if value ~= nil and field.choices and not one_of(field.choices, value) then
    value, message = nil, not_one_of(field.choices, raw)
  end
  if value == nil and message then
    at:problem(message)
  end
  return value
end

--- Parse a map with declared keys, the same form as parameters: { name, type, help, optional =, default =, choices = }.
--- Unknown keys, missing ones and wrong values are all reported, each with its own line.
---@param fields table[]
---@param raw any
---@param at runbook.At
---@return table? values  nil when something was reported
function types.map(fields, raw, at)
  local values, good = {}, true
  local names = keys_of(fields)
  local known = {}
  for _, field in ipairs(fields) do
    known[field[1]] = field
  end
  for _, key in ipairs(sorted_keys(raw)) do
    if known[key] == nil then
      local near = nearest(key, names)
      at:below(key):problem(near and ("unknown; did you mean `%s`?"):format(near) or "unknown")
      good = false
    end
  end
  for _, field in ipairs(fields) do
    local key = field[1]
    if raw[key] ~= nil and raw[key] ~= json.null then
      values[key] = types.value(field, raw[key], at:below(key))
      good = good and values[key] ~= nil
    elseif field.default ~= nil then
      values[key] = types.value(field, field.default, at:below(key):default())
    elseif not field.optional then
      at:below(key):missing(field[3])
      good = false
    end
  end
  return good and values or nil
end

---@param v any
---@return boolean
function types.is_map(v)
  return type(v) == "table" and json.kind(v) ~= "array" and #v == 0
end

---@param v any
---@return boolean
function types.is_list(v)
  return type(v) == "table" and json.kind(v) ~= "object" and (#v > 0 or next(v) == nil)
end

-- ---- scalars ----

-- What a person wrote, where that is a scalar: `1.10` stays `1.10`.
local function text_of(raw, at)
  if type(raw) == "string" then
    return raw
  elseif type(raw) == "number" or type(raw) == "boolean" then
    return at.words or tostring(raw)
  end
  return nil
end

local function scalar(name, help, parse, more)
  local definition = more or {}
  definition.help = help
  definition.parse = parse
  types.register(name, definition)
end

scalar("string", "text", function(raw, at)
  local text = text_of(raw, at)
  if text == nil then
    return nil, units.quote(raw) .. ": text is expected"
  end
  return text
end, { show = tostring, placeholder = function(name) return "<" .. name .. ">" end })

scalar("integer", "a whole number", function(raw)
  local n = type(raw) == "string" and raw:match("^[-+]?%d+$") and tonumber(raw) or raw
  if math.type(n) ~= "integer" then
    return nil, units.quote(raw) .. ": a whole number is expected"
  end
  return n
end, { placeholder = 1 })

scalar("number", "a number", function(raw)
  local n = type(raw) == "string" and raw:match("^[-+]?%d*%.?%d*[eE]?[-+]?%d*$") and tonumber(raw) or raw
  if type(n) ~= "number" or n ~= n or math.abs(n) == math.huge then
    return nil, units.quote(raw) .. ": a number is expected"
  end
  return n
end, { placeholder = 1 })

scalar("boolean", "true or false", function(raw)
  if type(raw) == "boolean" then
    return raw
  elseif raw == "true" or raw == "false" then
    return raw == "true"
  end
  return nil, units.quote(raw) .. ": true or false"
end, { placeholder = false })

scalar("duration", "a duration like 2h or 1m 30s", units.parse_duration, { placeholder = 1 })
scalar("size", "a size like 100 MB or 2 TiB", units.parse_size, { placeholder = 1 })
scalar("rate", "a rate like 100 MB/s", units.parse_rate, { placeholder = 1 })

scalar("choice", "one of several words", function(raw, at)
  local text = text_of(raw, at)
  for _, choice in ipairs(at.declared.choices) do
    if text == tostring(choice) then
      return choice
    end
  end
  return nil, not_one_of(at.declared.choices, raw)
end)

scalar("name", "a name: letters, digits, - _ .", function(raw, at)
  local text = text_of(raw, at)
  if text == nil or not text:match("^%w[%w._-]*$") or #text > 63 then
    return nil, units.quote(raw) .. ": a name has letters, digits, - _ . and begins with a letter or digit"
  end
  return text
end, { placeholder = function(name) return "<" .. name .. ">" end })

scalar("fqdn", "a full domain name", function(raw)
  local bad = units.quote(raw) .. ": a full domain name like temple.2i2c.cloud"
  if type(raw) ~= "string" or #raw > 254 then
    return nil, bad
  end
  local name = raw:lower():gsub("%.$", "")
  local labels = 0
  for label in (name .. "."):gmatch("(.-)%.") do
    labels = labels + 1
    if not label:match("^[%w_][%w_-]*$") or label:match("%-$") or #label > 63 then
      return nil, bad
    end
  end
  if labels < 2 or name:match("^[%d.]+$") then
    return nil, bad
  end
  return name
end, { placeholder = function(name) return "<" .. name .. ">" end })

scalar("owner", "`keep`, or one uid:gid for every file", function(raw)
  if raw == "keep" or type(raw) == "string" and raw:match("^%d+:%d+$") then
    return raw
  end
  return nil, units.quote(raw) .. ": `keep`, or numbers like 1000:1000"
end, { placeholder = "keep" })

-- ---- paths ----

--- A path of ours, seen from the file it stands in; `~/` is the home directory.
---@param text string
---@param at runbook.At
---@return string
function types.resolve_path(text, at)
  local home = os.getenv "HOME"
  if text:sub(1, 1) == "/" then
    return text
  elseif home and (text == "~" or text:sub(1, 2) == "~/") then
    return home .. text:sub(2)
  elseif at.base == "." or at.base == "" then
    return text
  end
  return (at.base == "/" and "" or at.base) .. "/" .. text
end

local function path_of(raw, at)
  if type(raw) ~= "string" or raw == "" or raw:find("\0", 1, true) then
    return nil, units.quote(raw) .. ": a path is expected"
  end
  return types.resolve_path(raw, at)
end

scalar("path", "a path, relative to the file it stands in", path_of, {
  pinned = true, placeholder = function(name) return "<" .. name .. ">" end,
})

local FILE_MAX = 1 << 20

scalar("file", "a file that is read, relative to the file it stands in", function(raw, at)
  local path, message = path_of(raw, at)
  if path == nil then
    return nil, message
  end
  local file, reason = io.open(path, "rb")
  if file == nil then
    return nil, reason
  end
  local text, failure = file:read(FILE_MAX + 1)
  file:close()
  if text == nil and failure then
    return nil, ("%s: %s"):format(path, failure)
  elseif text and #text > FILE_MAX then
    return nil, path .. ": more than 1 MiB"
  end
  text = text or ""
  return text
end, { placeholder = function(name) return "<" .. name .. ">" end })

-- ---- collections ----

types.register("list", {
  help = "a list",
  parse = function(raw, at)
    if at.typed and type(raw) == "string" then
      local items = json.array {}
      for item in raw:gmatch("[^,]+") do
        items[#items + 1] = item:match("^%s*(.-)%s*$")
      end
      return items
    elseif not types.is_list(raw) then
      return nil, units.quote(raw) .. ": a list is expected, like [a, b]"
    end
    return raw
  end,
  show = function(list)
    local words = {}
    for i, item in ipairs(list) do
      words[i] = type(item) == "table" and json.encode(item) or tostring(item)
    end
    return #words == 0 and "none" or table.concat(words, ", ")
  end,
  placeholder = function() return {} end,
  example = { "- ..." },
})

types.register("map", {
  help = "a map",
  parse = function(raw)
    if not types.is_map(raw) then
      return nil, units.quote(raw) .. ": a map is expected, like {a: b}"
    end
    return raw
  end,
  placeholder = function() return {} end,
  example = { "...: ..." },
})

-- ---- secrets ----

local keyed = { sops = true, ["env-file"] = true } -- files of several secrets

types.register("secret", {
  help = "a reference to a secret: sops:FILE#KEY, age:FILE, file:PATH, env-file:PATH#KEY or ask",
  parse = function(raw, at)
    local scheme = type(raw) == "string" and raw:match("^([%l-]+):.")
    if raw == "ask" or scheme == "file" or scheme == "age" or keyed[scheme] and raw:match("#.+$") then
      return require("runbook.secret").reference(raw, { base = at.base, name = at.path })
    end
    -- never shows what was given: it may be the secret itself
    return nil, "a reference is expected, not the secret itself: sops:FILE#KEY, age:FILE, file:PATH, env-file:PATH#KEY or ask"
  end,
  show = function(_, _, name)
    return "«secret:" .. name .. "»"
  end,
})

-- ---- windows ----

local moment = {
  help = "a time like 2026-12-05T22:00-05:00",
  parse = function(raw, at)
    local starts, offset = units.parse_time(type(raw) == "string" and raw or text_of(raw, at))
    if starts == nil then
      return nil, offset
    end
    return starts
  end,
  show = function(value)
    return units.time(value)
  end,
  placeholder = 0,
}
types.register("time", moment)

local window_fields = {
  { "starts", "time", "when users may be locked out" },
  { "lasts", "duration", "how long" },
  { "agreed", "string", "who agreed: a ticket, a name" },
}

local window_mt = { __name = "runbook.window" }

function window_mt.__tostring(w)
  return ("%s for %s, agreed: %s"):format(units.time(w.starts, w.offset), units.duration(w.lasts), w.agreed)
end

types.register("window", {
  help = "when users may be locked out, how long, and who agreed",
  parse = function(raw, at)
    if not types.is_map(raw) then
      return nil, units.quote(raw) .. ": a map is expected, with starts, lasts and agreed"
    end
    local window = types.map(window_fields, raw, at)
    if window then
      window.offset = select(2, units.parse_time(raw.starts))
      return setmetatable(window, window_mt)
    end
  end,
  show = tostring,
  placeholder = function(name)
    return setmetatable({ starts = 0, offset = 0, lasts = 1, agreed = "<" .. name .. ">" }, window_mt)
  end,
  example = { "starts: 2026-12-05T22:00-05:00", "lasts: 2h", "agreed: who said yes, or the ticket" },
})

return types
