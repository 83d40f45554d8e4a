--- `runbook new NAME --from PROCEDURE`: a copy to edit, and its parameter file to fill in. Nothing is overwritten.

local arguments = require "runbook.arguments"
local errors = require "runbook.errors"
local output = require "runbook.output"

local new = {}

new.example = [[
runbook new temple --from nfs-move               temple.lua and temple.yaml
runbook new hubs/temple --from ./our-move.lua
runbook new --list]]

function new.declare(parser)
  parser:argument "name" :argname "NAME" :args "?" :description "NAME.lua and NAME.yaml are made; may have a directory."
  parser:option "--from" :argname "PROCEDURE" :description "What to copy: the name of a procedure, or a file."
  parser:flag "--list" :description "The procedures that are built in."
end

local function list()
  local book = require "runbook.book"
  local lines = {}
  for _, name in ipairs(book.built_in()) do
    lines[#lines + 1] = ("%-16s %s\n"):format(name, book.load(name, { placeholders = true }).title)
  end
  output.result(table.concat(lines))
  return 0
end

-- Writes all of the files, or none when one is there already.
local function write_new(files)
  local core = require "runbook.core.file"
  require("runbook.effect").own(function()
    for _, file in ipairs(files) do
      local there = core.lstat(file.path)
      if there then
        errors.raise { kind = "conflict", exit = 73, target = file.path, hint = "take another name, or move it away",
          message = ("%s is there already, and is not overwritten"):format(file.path) }
      end
    end
    for _, file in ipairs(files) do
      errors.check(file.path, "write", core.write(file.path, file.text, { mode = tonumber("644", 8) }))
    end
  end)
end

-- The usage line of the header names the copy.
local function renamed(text, original, copy)
  local head, rest = text:match("^(.-\n)([^%-].*)$")
  if not head then
    return text
  end
  original = original:gsub("%p", "%%%0")
  return (head:gsub("runbook run " .. original .. "%.lua[^\n]*", function()
    return "runbook run " .. copy .. ".lua"
  end)) .. rest
end

local function copy(args)
  local book = require "runbook.book"
  local path = args.name:gsub("%.lua$", "")
  local base = path:match("([^/]+)$") or ""
  if not base:match("^[%w][%w_.-]*$") then
    arguments.refuse(("`%s` is no name for a file"):format(args.name))
  end
  local from = book.load(args.from, { placeholders = true })
  local files = { { path = path .. ".lua", text = renamed(from.source, from.name, path) } }
  if #from.declaration > 0 then
    files[2] = { path = path .. ".yaml", text = require("runbook.params").template(from.declaration, base) }
  end
  write_new(files)
  if files[2] then
    output.say(("%s.lua    the procedure: %s\n%s.yaml   its parameters; fill in what is required\n\nNext: runbook plan %s.lua\n")
      :format(path, from.title, path, path))
  else
    output.say(("%s.lua    the procedure: %s\n\nNext: runbook plan %s.lua\n"):format(path, from.title, path))
  end
  return 0
end

function new.main(args)
  if args.list then
    return list()
  elseif args.name == nil or args.from == nil then
    arguments.refuse("say what to make and from what: runbook new NAME --from PROCEDURE; `runbook new --list` names the procedures")
  end
  return copy(args)
end

return new
