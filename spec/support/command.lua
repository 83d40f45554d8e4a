--- The command as people call it: a process of its own, with a state directory of its own.

local gate = require "runbook.core.gate"
local json = require "runbook.json"
local process = require "runbook.core.process"
require "runbook.core.stream"
local world = require "spec.world"

local command = {}

local binary = world.must("realpath " .. world.runbook)

--- A folder to work in, with files written into it.
---@param files? table<string, string>
---@return string path
function command.folder(files)
  local folder = world.folder "command"
  for name, text in pairs(files or {}) do
    world.write(folder .. "/" .. name, text)
  end
  return folder
end

local function environment(folder, env)
  local all = {
    PWD = folder, XDG_STATE_HOME = folder .. "/state", NO_COLOR = "", COLUMNS = "100", LC_ALL = "C.UTF-8", TERM = "xterm", TZ = "UTC0",
  }
  for name, value in pairs(env or {}) do
    all[name] = value
  end
  return all
end

--- Run `runbook WORDS...` in a folder, without a terminal.
---@async
---@param folder string
---@param words string[]
---@param o? { stdin?: string, env?: table<string, string> }
---@return { code: integer, out: string, err: string }
function command.run(folder, words, o)
  o = o or {}
  return gate.call("change", function()
    local r = assert(process.exec {
      argv = { binary, table.unpack(words) }, cwd = folder, stdin = o.stdin or "", env = environment(folder, o.env),
    })
    return { code = r.status or r.signal, out = r.stdout, err = r.stderr }
  end)
end

--- The objects of an NDJSON text.
---@param text string
---@return table[]
function command.records(text)
  local list = {}
  for line in text:gmatch("[^\n]+") do
    list[#list + 1] = json.decode(line)
  end
  return list
end

-- Reads until a text has been shown that was not shown before.
local function wait_for(out, state, text)
  while not state.seen:find(text, state.from, true) do
    local bytes = out:read()
    assert(bytes, ("it ended before showing %q:\n%s"):format(text, state.seen))
    state.seen = state.seen .. bytes
  end
  state.from = select(2, state.seen:find(text, state.from, true)) + 1
end

--- The same at a terminal of its own. `steps` are { text to wait for, what is typed then or a function }.
---@async
---@param folder string
---@param words string[]
---@param steps table[]
---@param env? table<string, string>
---@return string shown  all bytes the terminal got, without "\r"
---@return integer code
function command.at_terminal(folder, words, steps, env)
  return gate.call("change", function()
    local line = { world.quote(binary) }
    for i, word in ipairs(words) do
      line[i + 1] = world.quote(word)
    end
    local all = environment(folder, env)
    all.SHELL = "/bin/sh"
    local child <close> = assert(process.open {
      argv = { "script", "-qec", "stty cols 100; exec " .. table.concat(line, " "), "/dev/null" }, cwd = folder, env = all,
    })
    local out, keys, state = child:stdout(), child:stdin(), { seen = "", from = 1 }
    for _, step in ipairs(steps) do
      wait_for(out, state, step[1])
      if type(step[2]) == "function" then
        step[2](child)
      elseif step[2] then
        assert(keys:write(step[2]))
      end
    end
    for bytes in function() return out:read() end do
      state.seen = state.seen .. bytes
    end
    local status = child:wait()
    return (state.seen:gsub("\r", "")), type(status) == "table" and status.status or status
  end)
end

return command
