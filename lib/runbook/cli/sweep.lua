--- `runbook sweep [RUN]`: remove what runs left that nobody works on any more. Of all runs also what is known of pairs that no
--- open run uses, 30 days after its last use or when somebody else has copied there since; and runs that only looked, a week after
--- they failed, are closed.

local arguments = require "runbook.arguments"

local sweep = {}

sweep.example = [[
runbook sweep --dry-run                          what is left, and where
runbook sweep
runbook sweep temple-3 --jobs                    ends what it left at work on other machines]]

function sweep.declare(parser)
  parser:argument "run" :argname "RUN" :args "?" :description "Only this run's leftovers; without: of all runs kept here."
  parser:flag "--jobs" :description "End the jobs that RUN left at work, with all they started; a later resume starts them anew."
  parser:flag "-n --dry-run" :target "dry_run" :description "Say what is left, and remove nothing."
  arguments.declare_places(parser)
  arguments.declare_voice(parser)
end

function sweep.main(args)
  if args.jobs and args.run == nil then
    arguments.refuse "whose jobs? `runbook sweep RUN --jobs`; `runbook runs` lists the runs"
  end
  return require("runbook.stage").play(args, function()
    return require("runbook.run").sweep { name = args.run, dry_run = args.dry_run, jobs = args.jobs }
  end)
end

return sweep
