--- `runbook adopt FILE`: take over a run whose machine is gone, from what it left in the cluster.

local arguments = require "runbook.arguments"

local adopt = {}

adopt.example = [[
runbook adopt move-hub.lua --params hubs/temple.yaml
runbook resume temple-3                          goes on: what is there already is not done again
runbook rollback temple-3                        opens the hub again]]

function adopt.declare(parser)
  parser:argument "file" :argname "FILE" :description "The runbook that the run is of."
  arguments.declare_parameters(parser)
  arguments.declare_run(parser)
  parser:option "--lib" :argname "DIR" :description "DIR/lib/runbook/*.lua replace the built-in libraries."
  arguments.declare_places(parser)
  arguments.declare_voice(parser)
end

function adopt.main(args)
  local o = arguments.run_options(args)
  return require("runbook.stage").play(args, function()
    return require("runbook.run").adopt(require("runbook.cli.run").load(args), o)
  end)
end

return adopt
