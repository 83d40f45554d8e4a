--- `runbook sweep [RUN]`: remove what runs left that nobody works on any more.

local arguments = require "runbook.arguments"

local sweep = {}

sweep.example = [[
runbook sweep --dry-run                          what is left, and where
runbook sweep]]

function sweep.declare(parser)
  parser:argument "run" :argname "RUN" :args "?" :description "Only this run's leftovers; without: of all runs kept here."
  parser:flag "-n --dry-run" :target "dry_run" :description "Say what is left, and remove nothing."
  arguments.declare_places(parser)
  arguments.declare_voice(parser)
end

function sweep.main(args)
  return require("runbook.stage").play(args, function()
    return require("runbook.run").sweep { name = args.run, dry_run = args.dry_run }
  end)
end

return sweep
