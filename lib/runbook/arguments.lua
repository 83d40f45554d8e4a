--- The words of a command line: options several verbs share, and reading them without ever leaving the process.

local argparse = require "argparse"
local errors = require "runbook.errors"
local human = require "runbook.human"

local arguments = {}

local WIDTH = 98

--- A parser for one verb, with what every verb understands.
---@param name string
---@param verb table  its module: example, declare
---@param summary string
---@return table parser
function arguments.parser(name, verb, summary)
  local parser = argparse("runbook " .. name, summary:sub(1, 1):upper() .. summary:sub(2) .. ".")
    :add_help(false):usage_max_width(WIDTH)
  verb.declare(parser)
  parser:flag "-h --help" :description "Show this text."
  return parser
end

--- How an option or argument is written: "-p, --param NAME=VALUE", "FILE".
---@param element table  of argparse
---@return string
function arguments.head(element)
  local names = element._public_aliases and table.concat(element._public_aliases, ", ") or ""
  local value = element._argname
  if type(value) == "table" then
    value = table.concat(value, " ")
  end
  return names .. (names ~= "" and value and " " or "") .. (value or "")
end

--- The help of a verb: examples first.
---@param parser table
---@param verb table
---@return string
function arguments.help(parser, verb)
  local examples = {}
  for line in verb.example:gmatch("[^\n]+") do
    examples[#examples + 1] = "  " .. line
  end
  local parts = { table.concat(examples, "\n"), parser:get_usage(), parser._description }
  for _, group in ipairs { { "Arguments", parser._arguments }, { "Options", parser._options } } do
    local rows = {}
    for i, element in ipairs(group[2]) do
      rows[i] = { arguments.head(element), element._description or "" }
    end
    if #rows > 0 then
      parts[#parts + 1] = group[1] .. ":\n" .. table.concat(human.rows(rows, WIDTH, 2), "\n")
    end
  end
  return table.concat(parts, "\n\n") .. "\n"
end

-- The same mistake in our words: back-quotes, and the suggestion in the same sentence.
local function in_our_words(message)
  message = message:gsub("%s*\nDid you mean (.-)%?$", function(what)
    return "; did you mean " .. what:gsub("one of these: ", ""):gsub("' '", "' or '") .. "?"
  end)
  return (message:gsub("'([^']*)'", "`%1`"))
end

--- Read the words; raises kind `usage` for what they should not be.
---@param parser table
---@param name string
---@param words string[]
---@return table? args  nil: help was asked for
function arguments.parse(parser, name, words)
  for _, word in ipairs(words) do
    if word == "--" then
      break
    elseif word == "-h" or word == "--help" then
      return nil
    end
  end
  local ok, result = parser:pparse(words)
  if not ok then
    errors.raise {
      kind = "usage", code = "EUSAGE", message = ("%s: %s"):format(name, in_our_words(result)),
      hint = ("`runbook %s -h` shows its options"):format(name),
    }
  end
  return result
end

--- Refuse the command line.
---@param message string
function arguments.refuse(message)
  errors.raise({ kind = "usage", code = "EUSAGE", message = message }, 2)
end

--- "step=text" of `--confirm`, `--done`.
---@param list string[]
---@param option string
---@return table<string, string>
function arguments.map(list, option)
  local map = {}
  for _, item in ipairs(list) do
    local key, value = item:match("^([^=]+)=(.+)$")
    if not key then
      arguments.refuse(("%s %s: it takes STEP=TEXT"):format(option, item))
    end
    map[key] = value
  end
  return map
end

--- Where the state and replaced libraries are.
function arguments.declare_places(parser)
  parser:option "--state" :argname "DIR" :description "Keep runs in DIR, not in $XDG_STATE_HOME/runbook."
end

--- How much is said, and to whom.
function arguments.declare_voice(parser)
  parser:flag "-q --quiet" :description "Say only what failed and what waits for somebody."
  parser:flag "-v --verbose" :count "0-2" :description "Say every change; twice: and how to do it by hand."
  parser:flag "--json" :description "Write events to stdout, one JSON object a line."
  parser:flag "--no-color" :target "no_colour" :description "No colours; NO_COLOR does the same."
end

--- Parameter files and values.
function arguments.declare_parameters(parser)
  parser:option "--params" :argname "FILE" :count "*" :target "files"
    :description "Take parameters from a YAML file; several: later ones win. Without: NAME.yaml beside NAME.lua."
  parser:option "-p --param" :argname "NAME=VALUE" :count "*" :target "sets" :description "Set one parameter."
end

-- `--skip A --leave B --reason TEXT`: the reason is for all before it that have none.
local function asks(kind)
  return function(result, _, value)
    result.asked = result.asked or {}
    table.insert(result.asked, { kind = kind, id = value })
  end
end

local function give_reason(result, _, text)
  local found = false
  for _, one in ipairs(result.asked or {}) do
    if one.reason == nil then
      one.reason, found = text, true
    end
  end
  if not found then
    result.stray_reason = text
  end
end

--- What `run` and `resume` may be told about single steps.
function arguments.declare_steps(parser)
  parser:option "--until" :argname "STEP" :target "until_" :description "Stop after this step."
  parser:option "--from" :argname "STEP" :description "Begin with this step."
  parser:option "--only" :argname "STEP" :description "Do this step alone."
  parser:option "--skip" :argname "STEP" :count "*" :action(asks "skip") :description "Do not do this step; needs --reason."
  parser:option "--again" :argname "STEP" :count "*" :description "Do this step again though it is done."
  parser:option "--leave" :argname "UNIT" :count "*" :action(asks "leave")
    :description "Go on without this home or other unit; needs --reason."
  parser:option "--done" :argname "STEP=WHO" :count "*" :description "This manual step is done, by WHO."
end

--- What `run`, `resume` and `rollback` may be told.
function arguments.declare_run(parser)
  parser:option "--confirm" :argname "STEP=TEXT" :count "*" :description "The answer to the question before this step."
  parser:option "--overrule" :argname "STEP" :count "*" :action(asks "overrule")
    :description "Go on though the guard of this step says no, once; needs --reason."
  parser:option "--reason" :argname "TEXT" :count "*" :action(give_reason) :description "Why; it is kept with the run."
  parser:option "--deadline" :argname "TIME" :description "Stop after this long (2h30m), with exit code 124."
  parser:flag "--no-input" :target "no_input" :description "Never ask; end with exit code 5 and the flag that would answer."
  parser:flag "-y --yes" :description "Yes to simple questions; never to one before a disruption."
end

--- The options of the engine, of what was read.
---@param args table
---@return table o
function arguments.run_options(args)
  local o = {
    until_ = args.until_, from = args.from, only = args.only, again = args.again, deadline = args.deadline,
    no_input = args.no_input, yes = args.yes, files = args.files, sets = args.sets, name = args.name,
    confirm = arguments.map(args.confirm or {}, "--confirm"), done = arguments.map(args.done or {}, "--done"),
    skip = {}, leave = {}, overrule = {},
  }
  if args.stray_reason then
    arguments.refuse("--reason stands after the --skip, --leave or --overrule it explains")
  end
  for _, one in ipairs(args.asked or {}) do
    if one.reason == nil or one.reason:match("^%s*$") then
      arguments.refuse(("--%s %s needs --reason TEXT after it"):format(one.kind, one.id))
    end
    table.insert(o[one.kind], { [one.kind == "leave" and "unit" or "id"] = one.id, reason = one.reason })
  end
  return o
end

return arguments
