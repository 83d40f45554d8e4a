--- The terminal: what it can show, and what somebody types there.
---
---     if terminal.available() then
---       local name = terminal.ask { prompt = "Name: " }
---       local password = terminal.ask { prompt = "Password: ", secret = "nfs-old password" }
---     end

local core = require "runbook.core.terminal"
local errors = require "runbook.errors"
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
