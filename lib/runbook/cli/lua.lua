--- `runbook lua FILE [WORD...]`: plain Lua with the C modules, for specs and for looking inside.

local errors = require "runbook.errors"

local lua = { words = true }

lua.example = "runbook lua spec/run.lua spec/json_spec.lua"

--- Run the file; an integer it returns is the exit code.
---@param words string[]
---@return integer
function lua.main(words)
  local path = words[1]
  if path == nil or path == "-h" or path == "--help" then
    local arguments = require "runbook.arguments"
    require("runbook.output").result(arguments.help(arguments.parser("lua", lua, "run a plain Lua file with the C modules"), lua))
    return path and 0 or 64
  end
  local chunk, message = loadfile(path, "t")
  if not chunk then
    local missing = message:find("^cannot open") ~= nil
    errors.raise { kind = missing and "missing" or "usage", code = not missing and "ESYNTAX" or nil, message = message }
  end
  _G.arg = table.move(words, 2, #words, 1, { [0] = path })
  local code = chunk(table.unpack(_G.arg))
  return math.type(code) == "integer" and code or 0
end

--- Declare what it takes, for help and the manual; the words themselves are the file's.
function lua.declare(parser)
  parser:argument "file" :argname "FILE" :description "A Lua file; it sees all of Lua and runbook.core.*."
  parser:argument "words" :argname "WORD" :args "*" :description "Handed to it, as `...` and `arg`."
end

return lua
