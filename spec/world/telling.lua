--- How a demonstration speaks: what it does in bold, then the command and what that says, on our terminal.

local world = require "spec.world"

local telling = {}

local plain = os.getenv "NO_COLOR" or not os.getenv "TERM" or os.getenv "TERM" == "dumb"

--- A line about what comes next.
---@param text string  as for string.format
function telling.say(text, ...)
  io.stdout:write((plain and "# %s\n" or "\27[1m# %s\27[0m\n"):format(text:format(...)))
  io.stdout:flush()
end

--- Run a command where people see what they would see.
---@param argv string[]
---@return integer code  128 + n when a signal ended it
function telling.show(argv)
  local words = {}
  for i, word in ipairs(argv) do
    words[i] = word:find "^[%w./=:@_-]+$" and word or world.quote(word)
  end
  local line = table.concat(words, " ")
  io.stdout:write("$ " .. line .. "\n")
  io.stdout:flush()
  local _, how, code = os.execute(line)
  return how == "signal" and 128 + code or code
end

--- The same, and it has to end well, or where it was told to stop.
---@param argv string[]
function telling.must(argv)
  local code = telling.show(argv)
  if code ~= 0 and code ~= 5 then
    error(("it ended with %d"):format(code), 0)
  end
end

--- Do it, and take the world down however it ends.
---@param demo async fun(): integer
---@return integer exit_code
function telling.perform(demo)
  local ok, result = xpcall(demo, debug.traceback)
  world.stop()
  if not ok then
    io.stderr:write(tostring(result), "\n")
    return 70
  end
  return result
end

return telling
