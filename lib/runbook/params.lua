--- Parameters: declared by a runbook, given in YAML files, on the command line, or at a prompt.
---
---     local values, from = params.load {
---       declaration = { { "from", "dir", "the homes as they are" }, { "window", "duration", "at most", default = "2h" } },
---       files = { "hubs/temple.yaml" }, sets = { "window=1h" },
---     }
---     values.from      --> a directory at a place        from.from    --> "hubs/temple.yaml:14"
---     values.window    --> 3600                          from.window  --> "-p"
---
--- What is wrong is said all at once, each with its line; see lib/runbook/params/report.lua. What is kept in a journal is what
--- was given (params.freeze): handles are made again from it, and of a secret there is only the reference.

local effect = require "runbook.effect"
local errors = require "runbook.errors"
local file = require "runbook.core.file"
local json = require "runbook.json"
local nearest = require "runbook.nearest"
local placeholders = require "runbook.params.placeholders"
local report = require "runbook.params.report"
local types = require "runbook.types"
local yaml = require "runbook.yaml"

local params = {}

local loads = setmetatable({}, { __mode = "k" }) -- values = the load they came from

-- ---- declarations ----

local item_keys = { "default", "optional", "choices" }

local function key_problem(key)
  for _, known in ipairs(item_keys) do
    if key == known then
      return nil
    end
  end
  local near = nearest(key, item_keys)
  return ("unknown key `%s`%s"):format(tostring(key), near and ("; did you mean `" .. near .. "`?") or "")
end

local function type_problem(item)
  if types.find(item[2]) == nil then
    local near = nearest(item[2], types.names())
    return ("no type is called `%s`%s"):format(tostring(item[2]), near and ("; did you mean `" .. near .. "`?") or "")
  elseif type(item[3]) ~= "string" then
    return "a line of help is missing"
  elseif item.choices ~= nil and not (types.is_list(item.choices) and #item.choices > 0) or item[2] == "choice" and item.choices == nil then
    return "choices = { ... } is missing"
  elseif item.default ~= nil and item.optional then
    return "has a default, so `optional` says nothing"
  end
end

local function item_problem(item, seen)
  if type(item) ~= "table" then
    return "each parameter is { name, type, help, default =, optional =, choices = }"
  elseif type(item[1]) ~= "string" or not item[1]:match("^[%a_][%w_]*$") then
    return ("`%s` is no name: letters, digits and _"):format(tostring(item[1]))
  elseif seen[item[1]] then
    return ("`%s` is declared twice"):format(item[1])
  end
  seen[item[1]] = true
  for key in pairs(item) do
    local problem = not (math.type(key) == "integer" and key <= 3) and key_problem(key)
    if problem then
      return ("`%s`: %s"):format(item[1], problem)
    end
  end
  local problem = type_problem(item)
  return problem and ("`%s`: %s"):format(item[1], problem)
end

--- See that a declaration is one; raises kind `usage` with all that is wrong in it.
---@param list table[]
function params.declare(list)
  local problems, seen = {}, {}
  if not types.is_list(list) then
    problems[1] = "a list is expected: { { name, type, help }, ... }"
  else
    for _, item in ipairs(list) do
      problems[#problems + 1] = item_problem(item, seen)
    end
  end
  if #problems > 0 then
    errors.raise({ kind = "usage", message = "rb.params: " .. table.concat(problems, "; ") }, 3)
  end
end

-- Two files of one runbook may name the same parameter, if they mean the same.
local function without_repeats(declaration)
  local list, seen = {}, {}
  for _, item in ipairs(declaration) do
    local first = seen[item[1]]
    if first == nil then
      seen[item[1]] = item
      list[#list + 1] = item
    elseif first[2] ~= item[2] then
      errors.raise { kind = "usage",
        message = ("parameter `%s` is declared twice, as %s and as %s"):format(item[1], first[2], item[2]) }
    end
  end
  return list
end

-- ---- where values stand ----

---@class runbook.At
local At = {}
local at_mt = { __name = "runbook.At", __index = At }

local function at_path(load, path, above)
  local origin = load.origins[path]
  local known = origin or above
  return setmetatable({
    load = load, path = path, base = known.base, file = known.file, line = known.line, label = known.label,
    typed = known.typed, words = origin and origin.words,
  }, at_mt)
end

function At:below(key)
  return at_path(self.load, self.path == "" and key or self.path .. "." .. key, self)
end

-- The same place, for a value that stands in no file.
function At:default()
  return setmetatable({ load = self.load, path = self.path, base = ".", is_default = true }, at_mt)
end

function At:problem(message)
  local problems = self.load.problems
  if self.is_default then
    message = "its default is wrong: " .. message
  end
  problems[#problems + 1] = {
    path = self.path, message = message, file = self.file, line = self.line, label = self.label,
  }
  return problems[#problems]
end

function At:missing(help)
  local problem = self:problem("missing: " .. help)
  problem.missing = true
  if self.path:find(".", 1, true) == nil then
    problem.file, problem.line, problem.label = nil, nil, nil
  end
end

-- ---- collecting what was given ----

local function directory_of(path)
  local directory = path:match("^(.*)/[^/]*$")
  if directory == nil then
    return "."
  end
  return directory == "" and "/" or directory
end

local function merge(target, source, path)
  for key, value in pairs(source) do
    local below = path == "" and key or path .. "." .. key
    if value == json.null then
      target[key] = nil
    elseif types.is_map(value) and types.is_map(target[key]) and next(target[key]) ~= nil then
      merge(target[key], value, below)
    else
      target[key] = value
    end
  end
end

local function read_file(path)
  if path == "-" then
    return io.read("a"), "standard input"
  end
  local opened, reason, number = io.open(path, "rb")
  if opened == nil then
    errors.raise { kind = "missing", code = number == 2 and "ENOENT" or nil, target = path, message = reason,
      tried = "read the parameters" }
  end
  local text, failure = opened:read("a")
  opened:close()
  if text == nil then
    errors.raise { kind = "usage", target = path, message = ("%s: %s"):format(path, failure), tried = "read the parameters" }
  end
  return text, path
end

-- Absolute, so that a run means the same when it is resumed from elsewhere.
local function base_of(path)
  local directory = directory_of(path)
  return (errors.check(path, "find its directory", effect.own(file.realpath, directory)))
end

local function add_file(load, path)
  local text, name = read_file(path)
  local ok, tree, lines, words = pcall(yaml.decode, text, { marks = true, name = name })
  if ok and tree ~= json.null and not types.is_map(tree) then
    ok, tree = false, errors.new { kind = "usage", message = "a map is expected: name: value" }
  end
  if not ok then
    if not errors.is(tree) then
      error(tree, 0)
    end
    local line, rest = tree.message:match("^line (%d+), column %d+: (.*)$")
    load.problems[#load.problems + 1] = {
      file = name, line = math.tointeger(line), path = "", message = rest or tree.message,
    }
    load.unreadable = true
    return
  end
  local base = base_of(path == "-" and "." or path)
  for at, line in pairs(lines) do
    load.origins[at] = { file = name, line = line, base = base, words = words[at] }
  end
  load.files[#load.files + 1] = name
  merge(load.tree, tree == json.null and {} or tree, "")
end

local function parse_word(text)
  if text:match("^%s*[%[{]") then
    local ok, value = pcall(yaml.decode, text)
    if not ok then
      error(errors.is(value, "usage") and "no list or map: " .. value.message:gsub("^line %d+, column %d+: ", "") or value, 0)
    end
    return value
  end
  return text
end

-- Puts a value at its path; the maps above it are made where there is nothing yet.
local function put(load, path, value, origin)
  local parent, above = load.tree, ""
  for part in path:gmatch("([^.]+)%.") do
    above = above == "" and part or above .. "." .. part
    if parent[part] == nil then
      parent[part] = json.object {}
      load.origins[above] = origin
    elseif not types.is_map(parent[part]) then
      load.problems[#load.problems + 1] = {
        label = origin.label, path = path, message = ("`%s` is no map here; give the whole of it"):format(above),
      }
      return
    end
    parent = parent[part]
  end
  parent[path:match("([^.]+)$")] = value
  load.origins[path] = origin
end

-- "homes.rate=10MB/s": the word is taken as it is, only [lists] and {maps} are read as YAML.
local function add_set(load, set, origin)
  local path, text = set:match("^([%a_][%w_.-]*)=(.*)$")
  local ok, value
  if path and not path:find("..", 1, true) and path:sub(-1) ~= "." then
    ok, value = pcall(parse_word, text)
  else
    ok, value, path = false, "a parameter is given as name=value", set
  end
  if not ok then
    load.problems[#load.problems + 1] = { label = origin.label, path = path, message = errors.from(value).message }
    return
  end
  put(load, path, value, origin)
end

-- For words that stand in no file: "-p", "prompt".
local function typed_at(label)
  return { label = label, base = base_of ".", typed = true }
end

-- ---- values ----

local function parse_all(load)
  local root = at_path(load, "", { base = ".", file = load.files[1] })
  load.problems = {}
  return types.map(load.declaration, load.tree, root)
end

local function only_missing(problems)
  for _, problem in ipairs(problems) do
    if not problem.missing or problem.path:find(".", 1, true) then
      return false
    end
  end
  return true
end

-- Asks for each missing one until its answer is good; no answer leaves it missing.
local function ask_for_missing(load, ask)
  local prompt = typed_at "prompt"
  for _, item in ipairs(load.declaration) do
    local name = item[1]
    local message
    while load.tree[name] == nil and item.default == nil and not item.optional do
      local answer = ask { name = name, type = item[2], help = item[3], choices = item.choices, message = message }
      if answer == nil or answer == "" then
        break
      end
      load.problems = {}
      local ok, value = pcall(parse_word, answer)
      if ok then
        load.tree[name], load.origins[name] = value, prompt
        types.value(item, value, at_path(load, name, prompt))
      end
      message = not ok and errors.from(value).message or load.problems[1] and load.problems[1].message
      if message then
        load.tree[name], load.origins[name] = nil, nil
      end
    end
  end
end

local function provenance_of(load, item)
  local origin = load.origins[item[1]]
  if load.tree[item[1]] == nil then
    return item.default ~= nil and "default" or nil
  elseif origin == nil then
    return nil
  end
  return origin.label or ("%s:%d"):format(origin.file, origin.line)
end

local function finish(load, ask)
  if load.unreadable then
    report.raise(load.problems, load.files)
  end
  local set_problems = load.problems
  local values = parse_all(load)
  if values == nil and #set_problems == 0 and ask and only_missing(load.problems) then
    ask_for_missing(load, ask)
    values = parse_all(load)
  end
  local problems = table.move(load.problems, 1, #load.problems, #set_problems + 1, set_problems)
  if #problems > 0 then
    report.raise(problems, load.files)
  end
  local provenance = {}
  for _, item in ipairs(load.declaration) do
    provenance[item[1]] = provenance_of(load, item)
  end
  loads[values] = load
  return values, provenance
end

local function new_load(declaration)
  return { declaration = without_repeats(declaration), tree = json.object {}, origins = {}, problems = {}, files = {} }
end

local function add_sources(load, o)
  for _, path in ipairs(o.files or {}) do
    add_file(load, path)
  end
  local sets = o.sets or {}
  local origin = #sets > 0 and typed_at "-p" or nil
  for _, set in ipairs(sets) do
    add_set(load, set, origin)
  end
end

--- Values of declared parameters. Raises one error of kind `usage` that lists everything that is wrong.
---@param o { declaration: table[], files?: string[], sets?: string[], ask?: fun(question: table): string? }
---  files: later ones win, maps are merged; sets: "name=value" or "name.key=value"; ask: called with name, type, help,
---  choices and, the second time, message, for what is missing
---@return table values
---@return table<string, string> provenance  "hubs/temple.yaml:14", "-p", "prompt", "default"
function params.load(o)
  local load = new_load(o.declaration)
  add_sources(load, o)
  return finish(load, o.ask)
end

-- ---- kept in a journal ----

local function walk(tree, path, fn)
  for key, value in pairs(tree) do
    local below = path == "" and tostring(key) or path .. "." .. key
    fn(below)
    if type(value) == "table" then
      walk(value, below, fn)
    end
  end
end

--- What was given, as plain data: references instead of secrets, no handles.
---@param values table  from params.load or params.thaw
---@return table data
function params.freeze(values)
  local load = assert(loads[values], "values of params.load are expected")
  local origins = json.object {}
  walk(load.tree, "", function(path)
    origins[path] = load.origins[path]
  end)
  return { values = load.tree, origins = origins, files = json.array(load.files) }
end

local function same(a, b)
  return json.encode(json.array { a == nil and json.null or a }) == json.encode(json.array { b == nil and json.null or b })
end

local function copy(value)
  return json.decode(json.encode(value))
end

local function refuse_pinned(load, path, kind, before, after)
  if same(before, after) then
    return
  end
  local origin = load.origins[path] or {}
  load.problems[#load.problems + 1] = {
    path = path, file = origin.file, line = origin.line, label = origin.label,
    message = ("a run keeps its %s; to use another, start a new run"):format(kind),
  }
end

-- Which cluster, which host, which path: a run that changed them half-way would be two runs.
local function check_pinned(load, before)
  for _, item in ipairs(load.declaration) do
    local name, kind = item[1], item[2]
    local pinned, old, new = types.find(kind).pinned, before[name], load.tree[name]
    if type(pinned) == "table" and types.is_map(old) and types.is_map(new) then
      for _, key in ipairs(pinned) do
        refuse_pinned(load, name .. "." .. key, key, old[key], new[key])
      end
    elseif pinned then
      refuse_pinned(load, name, kind, old, new)
    end
  end
end

--- Values again from what params.freeze gave, with changes on top; what says where the run works cannot be changed.
---@param declaration table[]
---@param data table
---@param o? { files?: string[], sets?: string[] }
---@return table values
---@return table<string, string> provenance
function params.thaw(declaration, data, o)
  local load = new_load(declaration)
  data = copy(data)
  load.tree, load.origins, load.files = data.values, data.origins, data.files
  local before = copy(data.values)
  add_sources(load, o or {})
  check_pinned(load, before)
  return finish(load, nil)
end

-- ---- looking at values ----

local function raw_of(load, item)
  local raw = load.tree[item[1]]
  if raw == nil then
    return item.default
  end
  return raw
end

local function text_of(item, value, raw)
  if value == nil then
    return "-"
  end
  local show = types.find(item[2]).show
  if show then
    return show(value, raw, item[1])
  end
  return type(raw) == "table" and json.encode(raw) or tostring(raw)
end

--- The values as text, in the order they were declared; secrets as their names.
---@param values table
---@return { name: string, text: string, help: string }[]
function params.show(values)
  local load = assert(loads[values], "values of params.load are expected")
  local rows = {}
  for i, item in ipairs(load.declaration) do
    rows[i] = { name = item[1], text = text_of(item, values[item[1]], raw_of(load, item)), help = item[3] }
  end
  return rows
end

--- One word for all values: equal when nothing that was given has changed.
---@param values table
---@return string
function params.digest(values)
  local load = assert(loads[values], "values of params.load are expected")
  local effective = json.object {}
  for _, item in ipairs(load.declaration) do
    effective[item[1]] = raw_of(load, item)
  end
  return require("runbook.core.digest").sha256(json.encode(effective))
end

--- What differs between two sets of values of the same runbook.
---@param old table
---@param new table
---@return { name: string, old: string, new: string }[]
function params.changes(old, new)
  local before, after = assert(loads[old]), assert(loads[new])
  local list = {}
  for _, item in ipairs(after.declaration) do
    local a, b = raw_of(before, item), raw_of(after, item)
    if not same(a, b) then
      list[#list + 1] = { name = item[1], old = text_of(item, old[item[1]], a), new = text_of(item, new[item[1]], b) }
    end
  end
  return list
end

--- What preflight looks at outside: { title, function } for each value whose type can be looked at.
---@param values table
---@return table[]
function params.checks(values)
  local load = assert(loads[values], "values of params.load are expected")
  local list = {}
  for _, item in ipairs(load.declaration) do
    local check, value = types.find(item[2]).check, values[item[1]]
    if check and value ~= nil then
      list[#list + 1] = { ("%s: %s"):format(item[1], item[3]), function() return check(value) end }
    end
  end
  return list
end

-- ---- without values ----

local function default_value(item)
  local load = { origins = {}, problems = {} }
  local value = types.value(item, item.default, at_path(load, item[1], { base = "." }):default())
  if value == nil then
    errors.raise { kind = "usage", message = ("parameter `%s`: %s"):format(item[1], load.problems[1].message) }
  end
  return value
end

--- What stands for the values where there are none (`steps`, `view`, `doc`): defaults, the first of the choices, and objects
--- that answer every call with themselves and print their name.
---@param declaration table[]
---@return table
function params.placeholders(declaration)
  return placeholders.of(declaration, default_value)
end

params.is_placeholder = placeholders.is
params.template = report.template

return params
