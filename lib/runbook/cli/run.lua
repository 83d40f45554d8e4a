--- `runbook run FILE`: start a run.

local arguments = require "runbook.arguments"

local run = {}

run.example = [[
runbook run nfs-move.lua --params hubs/temple-homes.yaml
runbook run temple.lua --until converge          cannot hurt anybody yet
runbook run ad-hoc.lua -p host=nfs-old -n        only the plan]]

function run.declare(parser)
  parser:argument "file" :argname "FILE" :description "A runbook, or the name of a procedure."
  parser:flag "-n --dry-run" :target "dry_run" :description "Plan it instead: `runbook plan`."
  arguments.declare_parameters(parser)
  parser:option "--name" :argname "NAME" :description "Call the run NAME-1; without: after the parameter file or the runbook."
  arguments.declare_steps(parser)
  arguments.declare_run(parser)
  parser:option "--lib" :argname "DIR" :description "DIR/lib/runbook/*.lua replace the built-in libraries."
  arguments.declare_places(parser)
  arguments.declare_voice(parser)
end

--- Load the runbook a command line names, asking for parameters that are missing where somebody can be asked.
---@async
---@param args table
---@return runbook.Book
function run.load(args)
  local ask = require "runbook.ask"
  local book = require "runbook.book"
  return book.load(args.file, { files = args.files, sets = args.sets, ask = ask.available() and ask.parameter or nil })
end

function run.main(args)
  if args.dry_run then
    return require("runbook.cli.plan").main(args)
  end
  local o = arguments.run_options(args)
  return require("runbook.stage").play(args, function()
    return require("runbook.run").start(run.load(args), o)
  end)
end

return run
