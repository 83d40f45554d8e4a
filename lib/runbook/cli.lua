--- The command: finds the verb and hands it the rest of the words.

local cli = {}

--- `runbook lua FILE [words]`: plain Lua with the C modules, for specs and for looking inside.
local function lua_verb(words)
  local path = words[1]
  local chunk, message = loadfile(path, "t")
  if not chunk then
    io.stderr:write("runbook: ", message, "\n")
    return 65
  end
  _G.arg = table.move(words, 2, #words, 1, { [0] = path })
  local code = chunk(table.unpack(_G.arg))
  return math.type(code) == "integer" and code or 0
end

--- What src/main.c calls.
---@param words string[]
---@return integer exit_code
function cli.main(words)
  if words[1] == "lua" then
    return lua_verb(table.move(words, 2, #words, 1, {}))
  end
  io.stderr:write("usage: runbook lua FILE\n")
  return 64
end

return cli
