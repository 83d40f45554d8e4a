--- YAML, as version 1.2 has it: `no` and `12:30` are strings, `true` and `12` are not.
---
---     local values, lines = yaml.decode(text, { marks = true })    -- lines["homes.from"] is 14
---     local text = yaml.encode(values, { order = { "old", "new" }, comments = { old = "the hub to move" } })
---
--- Values look as those of `runbook.json`. Written text means the same to a reader of YAML 1.1: what that would take for
--- something else is quoted.

local core = require "runbook.core.yaml"
local errors = require "runbook.errors"
local json = require "runbook.json"
local options = require "runbook.options"

local yaml = { null = json.null, array = json.array, object = json.object }

local MAX_DEPTH = 100
local LONG_KEY = 900 -- a reader looks for the `:` of a plain key in 1024 bytes only

local decode_options = options.declare("yaml.decode", {
  many = { "boolean", "a list of all documents, instead of the only one", default = false },
  marks = { "boolean", "also return the line of every path, and the words of every plain scalar", default = false },
  name = { "string", "where the text came from, for messages", default = "YAML" },
})

local encode_options = options.declare("yaml.encode", {
  comments = { "table", "path = text to stand before that key", default = {} },
  order = { "list", "keys that come first, in this order; the rest is sorted", default = {} },
})

--- Read a text. Refused: a key twice in one map, keys that are no strings, the merge key `<<`, tags beyond the core schema,
--- and what grows too large or too deep. With `marks` two tables come with the value: the line of each path
--- ("homes.from", "names.2"), and for plain scalars that are no strings the words as they stand ("0x1F", "1.10").
---@param text string
---@param opts? { many: boolean?, marks: boolean?, name: string? }
---@return any value
---@return table<string, integer>? lines
---@return table<string, string>? words
function yaml.decode(text, opts)
  local o = decode_options(opts, 2)
  if type(text) ~= "string" then
    errors.raise({ kind = "usage", message = ("yaml.decode: a text is expected, not a %s"):format(type(text)) }, 2)
  end
  return errors.check(o.name, nil, core.decode(text, o.many, o.marks))
end

-- What a reader of YAML 1.1 takes for a boolean, null, a merge or a default value.
local words_of_1_1 = {}
for word in ("~ null true false yes no on off y n << ="):gmatch("%S+") do
  words_of_1_1[word] = true
end

local number_shapes = {
  "^[-+]?[%d_.,:]+[eE]?[-+]?[%d_]*$", -- decimals, octals, sexagesimals, exponents
  "^[-+]?0[xXoObB][%x_]+$",
  "^[-+]?%.[iInN][nNaA][fFnN]$",
  "^%d%d%d%d%-%d%d?%-%d%d?",          -- dates
}

---@param s string
---@return boolean
local function stands_plain(s)
  if s == "" or s:find("^[%s%-?:,%[%]{}#&*!|>'\"%%@`]") or s:find("[%s:]$") or s:find(": ", 1, true)
    or s:find(" #", 1, true) or s:find("[^\x20-\x7e\xa0-\xff\x80-\xbf]") or words_of_1_1[s:lower()] or core.resolves(s) then
    return false
  end
  for _, shape in ipairs(number_shapes) do
    if s:find(shape) then
      return false
    end
  end
  return true
end

local escapes = {
  ["\0"] = "\\0", ["\a"] = "\\a", ["\b"] = "\\b", ["\t"] = "\\t", ["\n"] = "\\n", ["\v"] = "\\v", ["\f"] = "\\f",
  ["\r"] = "\\r", ["\27"] = "\\e", ['"'] = '\\"', ["\\"] = "\\\\",
}

-- Code points a reader breaks lines at, refuses, or does not show: C1 controls, U+2028 and U+2029, U+FEFF, U+FFFE, U+FFFF.
local hidden = { "\xc2[\x80-\x9f]", "\xe2\x80[\xa8\xa9]", "\xef\xbb\xbf", "\xef\xbf[\xbe\xbf]" }

local function has_hidden(s)
  for _, pattern in ipairs(hidden) do
    if s:find(pattern) then
      return true
    end
  end
  return false
end

local function quoted(s)
  local text = s:gsub('[%c"\\]', function(c)
    return escapes[c] or ("\\x%02x"):format(c:byte())
  end)
  for _, pattern in ipairs(hidden) do
    text = text:gsub(pattern, function(c)
      return ("\\u%04x"):format(utf8.codepoint(c, 1, 1, true))
    end)
  end
  return '"' .. text .. '"'
end

-- As a block of lines, or nil where only quotes keep every byte.
local function literal(s, indent)
  if not s:find("\n", 1, true) or s:find("^[%s]") or s:find("[%z\1-\8\11-\31\127]") or has_hidden(s) then
    return nil
  end
  local body, ending = s:match("^(.-)(\n*)$")
  local pad = (" "):rep(math.max(indent + 2, 2))
  local mark = ending == "" and "|-" or ending == "\n" and "|" or "|+"
  local lines = {}
  for line in (body .. "\n"):gmatch("(.-)\n") do
    lines[#lines + 1] = line == "" and "" or pad .. line
  end
  return mark .. "\n" .. table.concat(lines, "\n") .. ("\n"):rep(math.max(#ending, 1) - 1)
end

local function refuse(path, what)
  errors.raise({ kind = "usage", message = ("yaml.encode: %s: %s"):format(path == "" and "the value" or path, what) }, 4)
end

local function number_text(n)
  if math.type(n) == "integer" then
    return ("%d"):format(n)
  elseif n ~= n then
    return ".nan"
  elseif n == math.huge or n == -math.huge then
    return n > 0 and ".inf" or "-.inf"
  end
  local text
  for precision = 15, 17 do
    text = ("%%.%dg"):format(precision):format(n)
    if tonumber(text) == n then
      break
    end
  end
  return text:find(".", 1, true) and text or (text:gsub("^(-?%d+)", "%1.0", 1))
end

local function scalar(v, indent, path)
  if v == yaml.null then
    return "null"
  elseif type(v) == "boolean" then
    return tostring(v)
  elseif type(v) == "number" then
    return number_text(v)
  elseif type(v) ~= "string" then
    refuse(path, "a " .. type(v) .. " has no YAML")
  elseif not utf8.len(v) then
    refuse(path, "not UTF-8")
  end
  if stands_plain(v) and not has_hidden(v) then
    return v
  end
  return literal(v, indent) or quoted(v)
end

---@return "list"|"map"
local function shape_of(t, path)
  local kind = json.kind(t)
  local n, strings = 0, 0
  for key in next, t do
    n = n + 1
    strings = strings + (type(key) == "string" and 1 or 0)
  end
  if n == 0 then
    return kind == "array" and "list" or "map"
  elseif strings == n and kind ~= "array" then
    return "map"
  elseif strings == 0 and kind ~= "object" and n == #t then
    return "list"
  end
  return refuse(path, "neither a list nor a map")
end

local function ordered_keys(t, order)
  local keys, seen = {}, {}
  for _, key in ipairs(order) do
    if t[key] ~= nil and not seen[key] then
      keys[#keys + 1], seen[key] = key, true
    end
  end
  local rest = {}
  for key in next, t do
    if not seen[key] then
      rest[#rest + 1] = key
    end
  end
  table.sort(rest)
  return table.move(rest, 1, #rest, #keys + 1, keys)
end

local Writer = {}
Writer.__index = Writer

function Writer:put(...)
  for i = 1, select("#", ...) do
    self[#self + 1] = (select(i, ...))
  end
end

function Writer:comment(path, indent)
  for line in ((self.comments[path] or "") .. "\n"):gmatch("(.-)\n") do
    if self.comments[path] then
      self:put((" "):rep(indent), line == "" and "#" or "# " .. line, "\n")
    end
  end
end

-- Writes what stands after `-` or `key:`, with the line's end. `inline`: a map or list may begin on this very line.
function Writer:value(v, indent, path, inline)
  if type(v) ~= "table" then
    self:put(" ", scalar(v, indent, path), "\n")
    return
  elseif self.above[v] then
    refuse(path, "a table that contains itself")
  elseif self.depth == MAX_DEPTH then
    refuse(path, "nested more than 100 deep")
  end
  local shape = shape_of(v, path)
  if next(v) == nil then
    self:put(shape == "list" and " []\n" or " {}\n")
    return
  end
  self.above[v] = true
  self.depth = self.depth + 1
  self[shape](self, v, indent + 2, path, inline)
  self.above[v] = nil
  self.depth = self.depth - 1
end

local function below(path, key)
  return path == "" and tostring(key) or path .. "." .. key
end

function Writer:begin(first, indent, inline)
  if first and inline then
    self:put(" ")
  else
    self:put(first and "\n" or "", (" "):rep(indent))
  end
end

function Writer:list(t, indent, path, inline)
  for i, item in ipairs(t) do
    self:begin(i == 1, indent, inline)
    self:put("-")
    self:value(item, indent, below(path, i), true)
  end
end

function Writer:map(t, indent, path, inline)
  local keys = ordered_keys(t, self.order)
  inline = inline and not self.comments[below(path, keys[1])]
  for i, key in ipairs(keys) do
    local child = below(path, key)
    if self.comments[child] then
      self:put(i == 1 and "\n" or "")
      self:comment(child, indent)
      self:put((" "):rep(indent))
    else
      self:begin(i == 1, indent, inline)
    end
    if not utf8.len(key) then
      refuse(child, "not UTF-8")
    end
    local text = stands_plain(key) and not has_hidden(key) and key or quoted(key)
    if #text > LONG_KEY then
      self:put("? ", text, "\n", (" "):rep(indent))
      text = ""
    end
    self:put(text, ":")
    self:value(t[key], indent, child, false)
  end
end

--- Write a value: block style, keys in a fixed order, text of several lines as a block. What YAML cannot say is refused,
--- with the path to it.
---@param v any
---@param opts? { order: string[]?, comments: table<string, string>? }
---@return string text
function yaml.encode(v, opts)
  local o = encode_options(opts, 2)
  local writer = setmetatable({ order = o.order, comments = o.comments, above = {}, depth = 0 }, Writer)
  writer:value(v, -2, "", false)
  local text = table.concat(writer)
  return (text:gsub("^[ \n]", "", 1))
end

return yaml
