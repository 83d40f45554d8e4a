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

local function write_new(path, text)
  local core, effect = require "runbook.core.file", require "runbook.effect"
  local failed = effect.own(function()
    local there, _, code = core.lstat(path)
    if there or code ~= "ENOENT" then
      return { kind = "conflict", exit = 73, target = path, message = ("%s is there already, and is not overwritten"):format(path),
        hint = "take another name, or move it away" }
    end
    errors.check(path, "write", core.write(path, text, { mode = tonumber("644", 8) }))
  end)
  if failed then
    errors.raise(failed)
  end
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
  local yaml = require("runbook.params").template(from.declaration, base)
  write_new(path .. ".lua", renamed(from.source, from.name, path))
  if #from.declaration > 0 then
    write_new(path .. ".yaml", yaml)
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
