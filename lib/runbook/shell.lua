--- Quoting for a POSIX shell. Nothing else in runbook builds a command line.

local errors = require "runbook.errors"

local shell = {}

--- One argument as a word of a command line.
---@param word string
---@return string
function shell.quote(word)
  if word:find("\0", 1, true) then
    errors.raise({ kind = "usage", message = "an argument holds a zero byte" }, 2)
  elseif word:find("^[%w%%+,./:@_-]+$") then -- no `=`, which in front of a command would assign; no `~`
    return word
  end
  return "'" .. word:gsub("'", [['\'']]) .. "'"
end

--- An argument list as a command line.
---@param argv string[]
---@return string
function shell.join(argv)
  local words = {}
  for i, word in ipairs(argv) do
    words[i] = shell.quote(word)
  end
  return table.concat(words, " ")
end

local SIGNALS = {
  "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
}

--- The signal that ended a command, by the status that a shell gives for it. One that exits with 143 by itself looks the same.
---@param status integer
---@return string?
function shell.signal_of(status)
  return status > 128 and status <= 192 and (SIGNALS[status - 128] or tostring(status - 128)) or nil
end

return shell
