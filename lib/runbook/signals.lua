--- Ctrl-C and its kin while a command works: the first stops it, the second ends its jobs too, the third leaves at once.
--- SIGUSR1 lists every task and what it waits for.

local core = require "runbook.core.signal"
local embed = require "runbook.core.embed"
local errors = require "runbook.errors"
local events = require "runbook.events"
local failure = require "runbook.failure"
local output = require "runbook.output"
local task = require "runbook.core.task"
local terminal = require "runbook.terminal"

local signals = {}

local SAID = {
  "stopping: nothing new starts, jobs on other machines go on. Once more ends those jobs too.",
  "ending the jobs on other machines too. Once more leaves at once.",
}

local MOMENT = 3 -- seconds that somebody at a terminal has for a second Ctrl-C when jobs go on

--- Every task as text: its step, what it waits for, where in Lua.
---@return string
function signals.tasks_text()
  local lines = {}
  for _, t in ipairs(task.list()) do
    if not t.self then
      local context = t.context or {}
      local place = (t.trace or ""):match("%s*([^%s:]+%.lua:%d+):") or ""
      local who = table.concat({ context.step or "-", context.unit }, " ")
      lines[#lines + 1] = ("  task %-4d %-24s waits for %-24s %s"):format(t.serial, who, t.waits or "its turn", place)
    end
  end
  table.insert(lines, 1, ("%d tasks"):format(#lines))
  return table.concat(lines, "\n") .. "\n"
end

local function stop(name, times, worker)
  local supervisor = package.loaded["runbook.run.supervisor"] -- not loaded: nothing is being worked on yet
  if times == 1 then
    local moment = name == "INT" and not embed.has_sink() and terminal.is "stdin" and terminal.is "stderr" and MOMENT or nil
    if supervisor and supervisor.request_stop(name, moment) then
      events.notice(SAID[1], "warning")
    else
      worker:cancel()
    end
  elseif times == 2 then
    if supervisor and supervisor.request_kill() then
      events.notice(SAID[2], "warning")
    else
      worker:cancel()
    end
  elseif embed.has_sink() then
    worker:cancel()
  else
    os.exit(failure.EXIT_OF_STOP[name]) -- the journal stands a kill at any point
  end
end

--- Call `fn` and let signals stop it.
---@async
---@param fn async fun(): integer
---@return integer exit_code
function signals.guard(fn)
  local last
  local worker = task.spawn(function()
    return fn()
  end)
  local watcher = task.spawn(function()
    local times = 0
    while true do
      local name = core.next()
      if failure.EXIT_OF_STOP[name] then
        times, last = times + 1, name
        stop(name, times, worker)
      elseif name == "USR1" then
        output.say(signals.tasks_text())
      end
    end
  end)
  task.join_all { worker }
  watcher:cancel()
  task.join_all { watcher }
  local ok, result = worker:result()
  if ok then
    return result
  elseif last and errors.is_cancelled(result) then
    return failure.EXIT_OF_STOP[last]
  end
  error(result, 0)
end

return signals
