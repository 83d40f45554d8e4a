--- `runbook mark [RUN] STEP done|skipped --reason TEXT`: what a person knows of a step.

local arguments = require "runbook.arguments"

local mark = {}

mark.example = [[
runbook mark temple-3 stop-writers done --reason "hubs are off since 21:50, see INFRA-1234"
runbook mark lower-ttl skipped --reason "TTL is 60 already"]]

function mark.declare(parser)
  parser:usage "Usage: runbook mark [RUN] STEP done|skipped --reason TEXT"
  parser:argument "words" :argname { "RUN", "STEP", "done|skipped" } :args "2-3"
    :description "The run (without: the only open one), the step, and what it is from now on."
  parser:option "--reason" :argname "TEXT" :description "Why; it is kept with the run. Needed."
  arguments.declare_places(parser)
  arguments.declare_voice(parser)
end

function mark.main(args)
  local words = args.words
  local state = table.remove(words)
  if state ~= "done" and state ~= "skipped" then
    arguments.refuse(("a step is marked `done` or `skipped`, not `%s`"):format(state))
  elseif args.reason == nil or args.reason:match("^%s*$") then
    arguments.refuse("say why, with --reason TEXT: it is all anyone will know of it later")
  end
  local step = table.remove(words)
  return require("runbook.stage").play(args, function()
    return require("runbook.run").mark(words[1], step, { state = state, reason = args.reason })
  end)
end

return mark
