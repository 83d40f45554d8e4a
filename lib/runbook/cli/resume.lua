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

--- A run that was begun with libraries of its own goes on with them. Which runbook it is, is known too late to choose them.
---@param row table  from `store.get`
---@param directory string?  `--lib`
function resume.must_have_its_libraries(row, directory)
  local overlay = require "runbook.overlay"
  local beside = not directory and overlay.beside(row.runbook)
  if beside and next(overlay.find(beside)) then
    arguments.refuse(("%s has libraries of its own in %s/lib/runbook; to go on with them: --lib %s"):format(row.runbook, beside, beside))
  end
end

function resume.main(args)
  local o = arguments.run_options(args)
  return require("runbook.stage").play(args, function()
    local row = require("runbook.store").get(args.run)
    resume.must_have_its_libraries(row, args.lib)
    return require("runbook.run").resume(row.name, o)
  end)
end

return resume
