--- What surrounds a verb that works on something: its events on the screen or as NDJSON, questions, signals.

local ask = require "runbook.ask"
local embed = require "runbook.core.embed"
local events = require "runbook.events"
local output = require "runbook.output"
local screen = require "runbook.screen"
local signals = require "runbook.signals"
local task = require "runbook.core.task"
local terminal = require "runbook.terminal"
local time = require "runbook.core.time"

local stage = {}

local TICK = 0.25

local function say(text)
  output.say(text)
end

local function open_screen(args)
  return screen.new {
    write = say, now = time.utc, quiet = args.quiet, verbose = args.verbose,
    terminal = terminal.moves "stderr" and not (args.json and terminal.is "stdout"),
    colour = not args.no_colour and terminal.colour "stderr", ascii = terminal.is "stderr" and not terminal.unicode(),
    width = function() return output.width "stderr" end,
  }
end

-- Whoever sits there can be asked; a pipe or --no-input cannot.
local function open_questions(args, the_screen)
  if args.no_input or args.json or not terminal.available() then
    return
  end
  ask.use {
    write = say, now = time.utc, screen = the_screen,
    width = function() return output.width "stderr" end,
    read = function(prompt, echo) return terminal.ask { prompt = prompt, echo = echo } end,
  }
end

local function subscribe(args, the_screen, only)
  return events.subscribe(function(event)
    if args.json then
      output.record(event)
    end
    if not only or only[event.type] then
      the_screen:event(event)
    end
  end)
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
  local the_screen = open_screen(args)
  open_questions(args, the_screen)
  if args.json then
    output.version()
  end
  local unsubscribe = subscribe(args, the_screen, only)
  local ticker = task.spawn(function()
    while true do
      task.sleep(TICK)
      the_screen:tick()
    end
  end)
  local _ <close> = setmetatable({}, { __close = function()
    ticker:cancel()
    unsubscribe()
    ask.use(nil)
    the_screen:close()
  end })
  return signals.guard(fn)
end

return stage
