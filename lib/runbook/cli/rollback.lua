--- `runbook rollback [RUN]`: undo what a run did, newest first.

local arguments = require "runbook.arguments"

local rollback = {}

rollback.example = [[
runbook rollback temple-3 --dry-run              what would be undone
runbook rollback temple-3]]

function rollback.declare(parser)
  parser:argument "run" :argname "RUN" :args "?" :description "Its name; without: the only open one."
  parser:flag "-n --dry-run" :target "dry_run" :description "Say what would be undone, and undo nothing."
  arguments.declare_run(parser)
  parser:option "--lib" :argname "DIR" :description "DIR/lib/runbook/*.lua replace the built-in libraries."
  arguments.declare_places(parser)
  arguments.declare_voice(parser)
end

function rollback.main(args)
  local o = arguments.run_options(args)
  o.dry_run = args.dry_run
  return require("runbook.stage").play(args, function()
    local row = require("runbook.store").get(args.run, true)
    require("runbook.cli.resume").must_have_its_libraries(row, args.lib)
    return require("runbook.run").rollback(row.name, o)
  end)
end

return rollback
