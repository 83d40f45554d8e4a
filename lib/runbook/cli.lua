--- The command: finds the verb, reads its words, runs it, and turns what it raises into words and an exit code.

local embed = require "runbook.core.embed"
local errors = require "runbook.errors"
local output = require "runbook.output"

local cli = {}

--- The verbs in the order people meet them; each is lib/runbook/cli/VERB.lua, loaded when it is called.
cli.VERBS = {
  { "new", "a copy of a procedure to edit, and its parameter file to fill in" },
  { "plan", "what a run would do, looking at the real thing; changes nothing" },
  { "run", "do it" },
  { "resume", "go on with a run that stopped" },
  { "rollback", "undo what a run did" },
  { "runs", "what is open, what is closed" },
  { "show", "one run: its steps, log, receipts" },
  { "mark", "write down that a step is done, or need not be" },
  { "unlock", "take away a lock whose holder is gone" },
  { "sweep", "remove what dead runs left behind" },
  { "adopt", "take over a run whose machine is gone" },
  { "check", "look for mistakes in a runbook without running it" },
  { "view", "a runbook as a document" },
  { "doc", "the language, the libraries and the procedures" },
  { "repl", "try Lua and the libraries line by line" },
  { "lua", "run a plain Lua file with the C modules" },
  { "completion", "completion for bash, zsh or fish" },
}

local GROUPS = { { 1, 6, "every day" }, { 7, 11, "when something is stuck" }, { 12, 17, "when you write" } }

--- What `runbook` alone says.
---@return string
function cli.greeting()
  local procedures, example = {}, "PROCEDURE"
  for _, path in ipairs(embed.list("runbooks/")) do
    local name = path:match("^runbooks/(.*)%.lua$")
    procedures[#procedures + 1] = name
    example = (name == "move-hub" or example == "PROCEDURE") and name or example
  end
  local lines = { "runbook: procedures for moving hubs that you can stop, resume and undo", "" }
  for _, row in ipairs {
    { "new temple --from " .. example, cli.VERBS[1][2] }, { "plan temple.lua", cli.VERBS[2][2] }, { "run temple.lua", "do it" },
    { "resume / rollback", "after it stopped" }, { "runs", "what is open, what is closed" },
  } do
    lines[#lines + 1] = ("  runbook %-30s %s"):format(row[1], row[2])
  end
  lines[#lines + 1] = ""
  lines[#lines + 1] = "  runbook new --list    " .. table.concat(procedures, ", ")
  lines[#lines + 1] = "  runbook doc           all of it, as pages      make demo    try it on throw-away servers"
  return table.concat(lines, "\n") .. "\n"
end

local function help()
  local lines = { cli.greeting() }
  for _, group in ipairs(GROUPS) do
    lines[#lines + 1] = group[3]
    for i = group[1], group[2] do
      lines[#lines + 1] = ("  %-12s %s"):format(cli.VERBS[i][1], cli.VERBS[i][2])
    end
    lines[#lines + 1] = ""
  end
  lines[#lines + 1] = "`runbook VERB -h` shows a verb's options; runbook(1) has exit codes, files and signals."
  return table.concat(lines, "\n") .. "\n"
end

--- The row of a verb; raises with the nearest one when there is none.
---@param name string
---@return table row  { name, summary }
function cli.verb(name)
  local names = {}
  for i, row in ipairs(cli.VERBS) do
    if row[1] == name then
      return row
    end
    names[i] = row[1]
  end
  local near = require "runbook.nearest"(name, names)
  errors.raise {
    kind = "usage", code = "EUSAGE", message = ("there is no verb `%s`%s"):format(name, near and "; did you mean `" .. near .. "`?" or ""),
    hint = "`runbook --help` lists them",
  }
end

local wants_json = false -- of the verb that is running

-- Those of `--lib`, else those beside the runbook.
local function choose_libraries(name, args)
  if args.lib then
    require("runbook.overlay").use(args.lib, true)
  elseif name == "run" or name == "plan" then
    local overlay = require "runbook.overlay"
    local beside = overlay.beside(args.file)
    if beside then
      overlay.use(beside, false)
    end
  end
end

local function call_verb(words)
  local row = cli.verb(words[1])
  local name = row[1]
  local verb = require("runbook.cli." .. name)
  local rest = table.move(words, 2, #words, 1, {})
  if verb.words then -- its words are not ours to read
    return verb.main(rest)
  end
  local arguments = require "runbook.arguments"
  local parser = arguments.parser(name, verb, row[2])
  local args = arguments.parse(parser, name, rest)
  if args == nil then
    output.result(arguments.help(parser, verb))
    return 0
  end
  wants_json = args.json
  choose_libraries(name, args)
  if args.state then
    require("runbook.store").use(args.state)
  end
  return verb.main(args)
end

local function dispatch(words)
  local first = words[1]
  local code = 0
  if first == nil then
    output.result(cli.greeting())
  elseif first == "-h" or first == "--help" or first == "help" and words[2] == nil then
    output.result(help())
  elseif first == "help" then
    code = call_verb { words[2], "--help" }
  elseif first == "--version" then
    output.result(("runbook %s\n"):format(embed.version()))
  elseif first:sub(1, 1) == "-" then
    errors.raise { kind = "usage", code = "EUSAGE", message = ("the verb comes first, then %s"):format(first),
      hint = "`runbook --help` lists them" }
  else
    code = call_verb(words)
  end
  output.flush()
  return code or 0
end

-- A reader that went away (`| head`) wants to hear no more.
local function explain(err)
  local failure = require "runbook.failure"
  local code = failure.exit_code(err)
  if code == 141 or errors.is_cancelled(err) then
    return code
  end
  local record = require("runbook.redaction").value(errors.record(err))
  if wants_json and err.code ~= "ESTDOUT" or embed.has_sink() then
    output.version()
    output.record { type = "failure", exit = code, error = record }
    output.flush()
  end
  output.say(failure.text(record, output.width()))
  return code
end

--- What src/main.c calls.
---@async
---@param words string[]
---@return integer exit_code
function cli.main(words)
  local ok, result = xpcall(dispatch, errors.handler, words)
  if ok then
    return result
  end
  return explain(result)
end

return cli
