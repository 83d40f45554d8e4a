--- Libraries on disk that come before the built-in ones: of `--lib DIR`, or in lib/runbook beside the runbook.
---
--- Chosen before any of them is loaded: half of a library from here and half from there would be neither.

local embed = require "runbook.core.embed"
local errors = require "runbook.errors"

local overlay = {}

local used = {} -- name = path

local function read(path)
  local file = io.open(path, "rb")
  local text = file and file:read("a")
  if file then
    file:close()
  end
  return text
end

--- The libraries of a directory that differ from the built-in ones.
---@param directory string  its lib/runbook holds e.g. sync.lua
---@return table<string, string>  name = path
function overlay.find(directory)
  local found = {}
  local there = io.open(directory .. "/lib/runbook")
  if not there then
    return found
  end
  there:close()
  for _, name in ipairs(embed.list("runbook")) do
    local path = ("%s/lib/%s.lua"):format(directory, (name:gsub("%.", "/")))
    local text = name:match("^runbook%f[.\0]") and read(path)
    if text and text ~= embed.source(name) then
      found[name] = path
    end
  end
  return found
end

local function search(name)
  local path = used[name]
  if path then
    return assert(loadfile(path, "t")), path
  end
end

--- Put the libraries of a directory before the built-in ones.
---@param directory string
---@param asked boolean  by `--lib`: then there must be some
function overlay.use(directory, asked)
  local found = overlay.find(directory)
  if asked and not io.open(directory .. "/lib/runbook") then
    errors.raise { kind = "missing", target = directory, message = ("%s has no lib/runbook"):format(directory), tried = "--lib" }
  end
  for name, path in pairs(found) do
    used[name] = not package.loaded[name] and path or nil -- what reads the command line is in use already
  end
  if next(used) then
    table.insert(package.searchers, 2, search)
  end
end

--- The directory beside which a runbook on disk looks for libraries; nil for one that is built in.
---@param file string
---@return string?
function overlay.beside(file)
  return read(file) and (file:match("^(.*)/[^/]*$") or ".") or nil
end

--- One line for each library that is not the built-in one.
---@return string[]
function overlay.lines()
  local lines = {}
  for name, path in pairs(used) do
    lines[#lines + 1] = ("using %s, not the built-in %s"):format(path, name)
  end
  table.sort(lines)
  return lines
end

return overlay
