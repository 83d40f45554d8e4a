--- `runbook unlock [RUN]`: give up the locks of a run whose process is gone.

local arguments = require "runbook.arguments"

local unlock = {}

unlock.example = [[runbook unlock temple-3 --reason "the laptop is broken; no job of it runs, I looked"]]

function unlock.declare(parser)
  parser:argument "run" :argname "RUN" :args "?" :description "Its name; without: the only open one, else the newest."
  parser:option "--reason" :argname "TEXT" :description "How you know that nothing of it still writes. Needed."
  arguments.declare_places(parser)
  arguments.declare_voice(parser)
end

function unlock.main(args)
  if args.reason == nil or args.reason:match("^%s*$") then
    arguments.refuse("say how you know that nothing of this run still writes, with --reason TEXT")
  end
  return require("runbook.stage").play(args, function()
    return require("runbook.run").unlock(args.run, { reason = args.reason })
  end)
end

return unlock
