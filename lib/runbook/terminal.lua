--- The terminal: what it can show, and what somebody types there.
---
---     if terminal.available() then
---       local name = terminal.ask { prompt = "Name: " }
---       local password = terminal.ask { prompt = "Password: ", secret = "nfs-old password" }
---     end

local core = require "runbook.core.terminal"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local file = require "runbook.core.file"
local options = require "runbook.options"

local terminal = {
  available = core.available, -- available(): can somebody be asked?
  is = core.is,               -- is(stream): is "stdin", "stdout" or "stderr" a terminal?
  restore = core.restore,     -- restore(): the terminal as it was before the open question
}

local check_ask = options.declare("terminal.ask", {
  prompt = { "string", "shown before the answer" },
  echo = { "boolean", "show what is typed; not for secrets", optional = true },
  secret = { "string|boolean", "the answer is a secret; its name, or true for `answer`", optional = true },
})

--- Wait for a line. Ctrl-C stays a signal; the terminal is given back however this ends.
---@async
---@param o { prompt: string, echo?: boolean, secret?: string|boolean }
---@return string|runbook.secret|nil answer  nil: the input has ended
function terminal.ask(o)
  o = check_ask(o, 2)
  local name = o.secret == true and "answer" or o.secret or nil
  local echo = o.echo
  if echo == nil then
    echo = name == nil
  end
  return (errors.check(nil, "ask at the terminal", core.ask(o.prompt, echo, name)))
end

local LINES_KEPT = 1000

local Editor = {}
local editor_mt = { __name = "runbook.terminal.editor", __index = Editor }

--- Read a line, which is remembered when it says something.
---@async
---@param prompt string
---@return string? line  nil: the input has ended
function Editor:read(prompt)
  local line = errors.check(nil, "read a line at the terminal", self.core:read(prompt))
  if line and line:find("%S") and line ~= self.latest then
    self.core:remember(line)
    self.latest = line
    local kept = self.path and io.open(self.path, "a")
    if kept then
      kept:write(line, "\n")
      kept:close()
    end
  end
  return line
end

--- Give the terminal back.
function Editor:close()
  self.core:close()
end

editor_mt.__close = Editor.close

-- The lines of earlier editors, oldest first; the file is made, for its owner alone, and kept short.
local function earlier_lines(path)
  local text, lines = file.read(path, 16 << 20), {}
  for line in (text or ""):gmatch("[^\n]+") do
    lines[#lines + 1] = line
  end
  if text == nil or #lines > 2 * LINES_KEPT then
    lines = table.move(lines, math.max(1, #lines - LINES_KEPT + 1), #lines, 1, {})
    file.write(path, table.concat(lines, "\n") .. (#lines > 0 and "\n" or ""), { mode = tonumber("600", 8) })
  end
  return lines
end

--- Lines that can be edited, with earlier ones at hand (arrow keys, Ctrl-R); nil where there is no terminal or no libedit.
---@async
---@param path? string  where lines are kept between two editors; that they cannot be is no reason to fail
---@return table? editor
function terminal.editor(path)
  local editor = core.editor()
  if editor == nil then
    return nil
  end
  local self = setmetatable({ core = editor, path = path, latest = nil }, editor_mt)
  for _, line in ipairs(path and effect.own(earlier_lines, path) or {}) do
    editor:remember(line)
    self.latest = line
  end
  return self
end

local function set(name)
  local value = os.getenv(name)
  return value ~= nil and value ~= ""
end

--- May colours be used there? NO_COLOR says no; FORCE_COLOR and CLICOLOR_FORCE say yes, where it is no terminal too;
--- TERM=dumb and what is no terminal say no. A caller's own `--color` comes before all of them.
---@param stream "stdout"|"stderr"
---@return boolean
function terminal.colour(stream)
  if set "NO_COLOR" then
    return false
  end
  for _, name in ipairs { "FORCE_COLOR", "CLICOLOR_FORCE" } do
    if set(name) then
      return os.getenv(name) ~= "0"
    end
  end
  return terminal.moves(stream)
end

--- Can lines be written over there? Not on what is no terminal, or one that only prints.
---@param stream "stdout"|"stderr"
---@return boolean
function terminal.moves(stream)
  local kind = os.getenv "TERM"
  return core.is(stream) and kind ~= nil and kind ~= "" and kind ~= "dumb"
end

--- Columns of the stream; COLUMNS where it does not say, and nil where nobody knows.
---@param stream "stdout"|"stderr"
---@return integer?
function terminal.width(stream)
  local columns = core.size(stream) or math.tointeger(tonumber(os.getenv "COLUMNS"))
  return columns and columns > 0 and columns or nil
end

--- Does it show more than ASCII? Asked as the C library does: LC_ALL, LC_CTYPE, LANG, the first that is set.
---@return boolean
function terminal.unicode()
  for _, name in ipairs { "LC_ALL", "LC_CTYPE", "LANG" } do
    if set(name) then
      local charset = os.getenv(name):match("%.([%w-]+)") or ""
      return charset:lower():gsub("-", "") == "utf8"
    end
  end
  return false
end

return terminal
