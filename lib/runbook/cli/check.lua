--- `runbook check FILE...`: mistakes that can be seen without running anything.

local human = require "runbook.human"
local output = require "runbook.output"

local check = {}

check.example = [[
runbook check temple.lua
runbook check *.lua                              exit code 1 when there is a finding]]

function check.declare(parser)
  parser:argument "files" :argname "FILE" :args "+" :description "Runbooks, or names of procedures."
  parser:flag "--json" :description "Findings as JSON, one object a line."
end

local function place_of(one)
  if one.line then
    return ("%s:%d: "):format(one.file, one.line)
  end
  return one.text:find(one.file, 1, true) and "" or one.file .. ": "
end

local function write(one, as_json)
  if as_json then
    output.record { type = "finding", file = one.file, line = one.line, text = one.text, fatal = one.fatal or false }
  else
    output.result(place_of(one) .. require("runbook.visible").text(one.text) .. "\n")
  end
end

function check.main(args)
  local findings, exit = 0, 0
  if args.json then
    output.version()
  end
  for _, path in ipairs(args.files) do
    for _, one in ipairs(require("runbook.check").file(path)) do
      findings = findings + 1
      exit = math.max(exit, one.fatal and 65 or 1)
      write(one, args.json)
    end
  end
  if not args.json then
    local found = findings == 0 and "nothing found" or human.plural(findings, "finding")
    output.say(("%s, %s\n"):format(human.plural(#args.files, "file"), found))
  end
  return exit
end

return check
