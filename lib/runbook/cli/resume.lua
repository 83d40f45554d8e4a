--- `runbook resume [RUN]`: go on with a run.

local arguments = require "runbook.arguments"

local resume = {}

resume.example = [[
runbook resume                                   the only open run
runbook resume temple-3 --leave m-2e-ito --reason "full; gets the copy of 21:22"
runbook resume temple-3 --again verify]]

function resume.declare(parser)
  parser:argument "run" :argname "RUN" :args "?" :description "Its name; without: the only open one."
  arguments.declare_parameters(parser)
  arguments.declare_steps(parser)
  arguments.declare_run(parser)
  parser:option "--lib" :argname "DIR" :description "DIR/lib/runbook/*.lua replace the built-in libraries."
  arguments.declare_places(parser)
  arguments.declare_voice(parser)
end

function resume.main(args)
  local o = arguments.run_options(args)
  return require("runbook.stage").play(args, function()
    local row = require("runbook.store").get(args.run)
    require("runbook.cli.run").prefer(args.lib, row.runbook)
    return require("runbook.run").resume(row.name, o)
  end)
end

return resume
