--- What surrounds a verb that works on something: its events on the screen or as NDJSON, questions, signals.

local ask = require "runbook.ask"
local embed = require "runbook.core.embed"
local errors = require "runbook.errors"
local events = require "runbook.events"
local output = require "runbook.output"
local screen = require "runbook.screen"
local signals = require "runbook.signals"
local supervisor = require "runbook.run.supervisor"
local task = require "runbook.core.task"
local terminal = require "runbook.terminal"
local time = require "runbook.core.time"
local writer = require "runbook.writer"

local stage = {}

local TICK = 0.25

local function open_screen(args, out)
  return screen.new {
    write = function(text) out:write(text) end, ready = function() return out:ready() end, now = time.utc,
    quiet = args.quiet, verbose = args.verbose,
    terminal = terminal.moves "stderr" and not (args.json and terminal.is "stdout"),
    colour = not args.no_colour and terminal.colour "stderr", ascii = terminal.is "stderr" and not terminal.unicode(),
    width = function() return output.width "stderr" end,
  }
end

-- Whoever sits there can be asked; a pipe or --no-input cannot.
local function open_questions(args, the_screen, out)
  if args.no_input or args.json or not (terminal.is "stdin" and terminal.available()) then
    return
  end
  ask.use {
    write = function(text) out:write(text) end, now = time.utc, screen = the_screen, yes = args.yes,
    width = function() return output.width "stderr" end,
    read = function(prompt, echo, secret_name)
      out:drained() -- the prompt goes another way, and would come before what explains it
      return terminal.ask { prompt = prompt, echo = echo, secret = secret_name }
    end,
  }
end

-- Events to stdout. When nobody takes them any more the work is stopped, as Ctrl-C would: it must not fail in its middle.
local function recorder()
  local gone = false
  return function(event)
    if gone then
      return
    end
    local ok, err = pcall(function()
      output.record(event)
      output.flush() -- who reads a pipe wants each event when it happens
    end)
    if not ok and err.code == "ESTDOUT" and supervisor.request_stop(err.exit == 141 and "PIPE" or "OUTPUT") then
      gone = true
      events.notice(("%s; stopping: nothing new starts, jobs on other machines go on"):format(err.message), "warning")
    elseif not ok then
      error(err, 0)
    end
  end
end

local function subscribe(args, the_screen, only)
  local record = args.json and recorder()
  return events.subscribe(function(event)
    if record then
      record(event)
    end
    if not only or only[event.type] then
      the_screen:event(event)
    end
  end)
end

-- Somebody may have stopped the terminal; nothing is held any more, so waiting for it hurts nobody. Ctrl-C waits no longer:
-- a worker that is stuck in a write cannot be called back.
local function close(the_screen, out, code)
  local left = signals.guard(function()
    out:drained()
    the_screen:close()
    out:close()
    return 0
  end)
  if left ~= 0 then
    os.exit(code or left)
  end
end

--- Run `fn` with everything around it.
---@async
---@param args table  quiet, verbose, json, no_colour, no_input
---@param fn async fun(): integer
---@param only? table<string, true>  types of events the screen shows; nil: all
---@return integer exit_code
function stage.play(args, fn, only)
  if embed.has_sink() then -- it gets every event by itself
    return signals.guard(fn)
  end
  if args.json then
    output.version()
    output.flush() -- what cannot be written is known before anything begins
  end
  local out = writer.open()
  local the_screen = open_screen(args, out)
  open_questions(args, the_screen, out)
  local unsubscribe = subscribe(args, the_screen, only)
  for _, line in ipairs(require("runbook.overlay").lines()) do
    events.notice(line)
  end
  local ticker = task.spawn(function()
    while true do
      task.sleep(TICK)
      the_screen:tick()
    end
  end)
  local watchdog = task.spawn(function()
    while true do
      local seconds, place = task.slow_turn()
      events.notice(("nothing else could happen for %.1f s: %s"):format(seconds, place), "warning")
    end
  end)
  local ok, code = xpcall(signals.guard, errors.handler, fn)
  ticker:cancel()
  watchdog:cancel()
  unsubscribe()
  ask.use(nil)
  close(the_screen, out, ok and code)
  if not ok then
    error(code, 0)
  end
  return code
end

return stage
