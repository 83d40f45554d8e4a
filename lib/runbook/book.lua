--- A runbook file, loaded: its parameters and its steps in order. Loading touches nothing outside.

local digest = require "runbook.core.digest"
local effect = require "runbook.effect"
local embed = require "runbook.core.embed"
local errors = require "runbook.errors"
local handle = require "runbook.handle"
local params = require "runbook.params"
local sandbox = require "runbook.sandbox"
local task = require "runbook.core.task"

local book = {}

---@class runbook.Book
---@field path string
---@field name string  the file's name without directory and `.lua`
---@field title string  the first line of its header
---@field header string  the comment it opens with
---@field declaration table  parameters, as declared
---@field values table
---@field provenance table<string, string>
---@field items table[]  sections and steps in order
---@field sources table<string, string>  path = text of every file it is made of
local Book = {}
local book_mt = { __name = "runbook.book", __index = Book }

local function read_disk(path)
  local file, message = io.open(path, "rb")
  if file == nil then
    return nil, message
  end
  local text = file:read("a")
  file:close()
  if text == nil then
    return nil, path .. ": is a directory"
  end
  return text
end

--- The text of a runbook: from disk, else one that is part of the binary.
---@param path string  a file, or the name of a procedure ("nfs-move")
---@return string text
---@return string path  "runbooks/nfs-move.lua" for a built-in one
---@return boolean baked
function book.find(path)
  local text, message = read_disk(path)
  if text then
    return text, path, false
  end
  local name = path:match("([^/]+)$"):gsub("%.lua$", "")
  if not path:find("/", 1, true) or path:match("^runbooks/") then
    text = embed.source("runbooks/" .. name .. ".lua")
    if text then
      return text, "runbooks/" .. name .. ".lua", true
    end
  end
  errors.raise {
    kind = "missing", code = "ENOENT", target = path, message = message,
    hint = "`runbook new --list` names the procedures that are built in",
  }
end

--- The names of the procedures that are part of the binary.
---@return string[]
function book.built_in()
  local names = {}
  for _, path in ipairs(embed.list("runbooks/")) do
    names[#names + 1] = path:match("^runbooks/(.*)%.lua$")
  end
  return names
end

local function header_of(text)
  local lines = {}
  for line in text:gmatch("([^\n]*)\n?") do
    local comment = line:match("^%-%-%-? ?(.*)$")
    if comment == nil then
      break
    end
    lines[#lines + 1] = comment
  end
  return table.concat(lines, "\n")
end

local function directory_of(path)
  return path:match("^(.*)/[^/]*$") or "."
end

-- What `require` means in a runbook: our libraries, and files beside it.
local function require_for(self)
  local loaded = {}
  return function(name)
    local ours = name == "runbook" or name:match("^runbook%.")
    if not name:match("^runbook%.core%f[%A]") and (ours or package.preload[name]) then -- preload: an embedding program's own
      return require(name)
    elseif loaded[name] ~= nil then
      return loaded[name]
    end
    for _, pattern in ipairs { "%s/%s.lua", "%s/lib/%s.lua" } do
      local path = pattern:format(directory_of(self.path), (name:gsub("%.", "/")))
      local text = self.given_sources and self.given_sources[path] or read_disk(path)
      if text then
        self.sources[path] = text
        local value = sandbox.load(text, path, self.env)(name, path)
        loaded[name] = value == nil and true or value
        return loaded[name]
      end
    end
    local hint = name:match("^runbook%.core") and "the C modules are for `runbook lua`; use the library of the same name" or nil
    errors.raise({ kind = "missing", message = ("no library `%s`, built in or beside the runbook"):format(name), hint = hint }, 2)
  end
end

local function load_file(self, path, text)
  self.sources[path] = text
  sandbox.load(text, path, self.env)()
end

local function run_load(self, text)
  self.items, self.ids, self.sources, self.prefix, self.params_at = {}, {}, {}, "", {}
  self.env = sandbox.environment(require_for(self), function(...)
    return require("runbook").say(...)
  end)
  local context = { book = self, mode = "loading" }
  local ok, err = xpcall(task.with_context, errors.handler, context, load_file, self, self.path, text)
  if not ok then
    err = errors.from(err)
    if err.kind == "internal" then -- a mistake in the runbook, not in us
      err.kind, err.code = "usage", "ELOAD"
    end
    error(err, 0)
  end
  if #self.items == 0 and #self.declaration == 0 then
    errors.raise { kind = "usage", code = "EEMPTY", target = self.path,
      message = "declares no step: use rb.step(id, title, function() ... end), or rb.main(function() ... end)" }
  end
end

-- `temple.yaml` beside `temple.lua` is found by itself.
local function parameter_files(self, given)
  if given and #given > 0 then
    return given
  end
  local beside = self.path:gsub("%.lua$", "") .. ".yaml"
  if not self.baked and beside ~= self.path and read_disk(beside) then
    return { beside }
  end
  return {}
end

--- Load a runbook.
---@async
---@param path string
---@param o? { files?: string[], sets?: string[], placeholders?: boolean, thaw?: any, ask?: function, sources?: table }
---@return runbook.Book
function book.load(path, o)
  o = o or {}
  local text, found, baked
  if o.sources then
    text, found, baked = o.sources[path], path, true
    assert(text, "the sources of a run hold its runbook")
  else
    text, found, baked = book.find(path)
  end
  local self = setmetatable({
    path = found, baked = baked, name = found:match("([^/]+)$"):gsub("%.lua$", ""), header = header_of(text),
    declaration = {}, source = text, values = nil, provenance = {}, given_sources = o.sources,
  }, book_mt)
  self.title = self.header:match("^([^\n]+)") or self.name
  self.title = self.title:gsub("%.$", "")

  -- Twice where there are parameters: first with placeholders, to learn every declaration; then with values, which may
  -- shape the steps.
  run_load(self, text)
  if o.placeholders then
    return self
  end
  effect.own(function()
    if o.thaw then
      self.values, self.provenance = params.thaw(self.declaration, o.thaw, { sets = o.sets or {}, files = o.files })
    else
      self.values, self.provenance = params.load {
        declaration = self.declaration, files = parameter_files(self, o.files), sets = o.sets or {}, ask = o.ask,
      }
    end
  end)
  if #self.declaration > 0 then
    run_load(self, text)
  end
  return self
end

local function declared_at(level)
  local info = debug.getinfo(level + 1, "Sl")
  return info.source:gsub("^@", ""), info.currentline
end

-- The lines from the call to the end of the body: when they change, the step has changed.
local function source_digest(self, file, first, body)
  local last = first
  if body then
    local info = debug.getinfo(body, "S")
    if info.source == "@" .. file then
      last = math.max(first, info.lastlinedefined)
    end
  end
  local n, lines = 0, {}
  for line in (self.sources[file] or ""):gmatch("([^\n]*)\n?") do
    n = n + 1
    if n >= first and n <= last then
      lines[#lines + 1] = line
    end
  end
  return digest.sha256(table.concat(lines, "\n"))
end

--- The book that is being loaded; raises when none is.
function book.loading(what, level)
  local context = task.context()
  if context.mode ~= "loading" then
    errors.raise({
      kind = "usage", message = what .. " declares, and declarations stand at the top of the file, not in a body",
    }, (level or 1) + 1)
  end
  return context.book
end

--- Add a step, checks, a manual step, a pause or a section. Called by `runbook`.
---@param item table  kind, id, title, options, body
---@param level integer  where the runbook's own call is
---@return table item
function Book:add(item, level)
  item.file, item.line = declared_at(level + 1)
  if item.kind ~= "section" then
    if type(item.id) ~= "string" or not item.id:match("^[%w][%w_.-]*$") then
      errors.raise({ kind = "usage", target = item.file, message = ("%s:%d: a step's id is letters, digits, - _ ., not %s")
        :format(item.file, item.line, tostring(item.id)) }, level + 1)
    end
    item.id = self.prefix .. item.id
    local first = self.ids[item.id]
    if first then
      errors.raise({ kind = "usage", code = "EDUPLICATE", target = item.file,
        message = ("%s:%d: step `%s` is declared already, at line %d"):format(item.file, item.line, item.id, first.line) }, level + 1)
    end
    self.ids[item.id] = item
    item.source_digest = source_digest(self, item.file, item.line, item.body)
  end
  self.items[#self.items + 1] = item
  item.handle = handle.new(item)
  return item
end

--- Declare parameters and get their values (placeholders while there are none).
function Book:parameters(declaration, level)
  params.declare(declaration)
  if self.values == nil then
    for _, one in ipairs(declaration) do
      self.declaration[#self.declaration + 1] = one
    end
    return params.placeholders(declaration)
  end
  local names, values = {}, self.values
  for _, one in ipairs(declaration) do
    names[one[1]] = true
  end
  local file, line = declared_at(level + 1)
  return setmetatable({}, {
    __name = "runbook.parameters",
    __index = function(_, name)
      if not names[name] then
        errors.raise({ kind = "usage", message = ("no parameter `%s` is declared at %s:%d"):format(tostring(name), file, line) }, 2)
      end
      return values[name]
    end,
    __newindex = function(_, name)
      errors.raise({ kind = "usage", message = ("parameter `%s` cannot be set"):format(tostring(name)) }, 2)
    end,
  })
end

--- Add the steps of another file as `group/id`.
function Book:include(path, group, level)
  local here = declared_at(level + 1)
  local full = path:match("^/") and path or directory_of(here) .. "/" .. path
  local text = self.given_sources and self.given_sources[full]
  if text == nil then
    local ok, found, where = pcall(book.find, full)
    if not ok then
      found, where = book.find(path)
    end
    text, full = found, where
  end
  local outer = self.prefix
  self.prefix = outer .. group .. "/"
  load_file(self, full, text)
  self.prefix = outer
end

return book
