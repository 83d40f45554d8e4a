--- `runbook completion SHELL`: a script for the shell; it asks `runbook completion --words ...` what fits.

local arguments = require "runbook.arguments"
local cli = require "runbook.cli"
local output = require "runbook.output"

local completion = { words = true }

completion.example = [[
source <(runbook completion bash)                in ~/.bashrc
runbook completion zsh > ~/.zfunc/_runbook       a directory of $fpath
runbook completion fish > ~/.config/fish/completions/runbook.fish]]

local SCRIPTS = {}

SCRIPTS.bash = [==[
_runbook() {
    local line answer=()
    COMPREPLY=()
    while IFS= read -r line; do answer+=("$line"); done < <(
        "${COMP_WORDS[0]}" completion --words "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    for line in "${answer[@]}"; do
        if [[ $line == @files ]]; then
            compopt -o filenames 2>/dev/null
            while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")
        else
            COMPREPLY+=("${line%%$'\t'*}")
        fi
    done
}
complete -F _runbook runbook
]==]

SCRIPTS.zsh = [==[
#compdef runbook
_runbook() {
    local line
    local -a described
    for line in "${(@f)$("${words[1]}" completion --words "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        if [[ $line == @files ]]; then
            _files
        elif [[ -n $line ]]; then
            described+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
        fi
    done
    (( $#described )) && _describe runbook described
    return 0
}
if [[ $funcstack[1] == _runbook ]]; then _runbook "$@"; else compdef _runbook runbook; fi
]==]

SCRIPTS.fish = [==[
function __runbook_words
    set -l words (commandline -opc)
    for line in (runbook completion --words $words[2..-1] (commandline -ct) 2>/dev/null)
        if test "$line" = @files
            __fish_complete_path (commandline -ct)
        else
            echo $line
        end
    end
end
complete -c runbook -f -a '(__runbook_words)'
]==]

function completion.declare(parser)
  parser:argument "shell" :argname "SHELL" :choices { "bash", "zsh", "fish" } :description "bash, zsh or fish."
end

local function run_names(open_only)
  local store = require "runbook.store"
  if not open_only then
    return store.names()
  end
  local names = {}
  for i, row in ipairs(store.open_runs()) do
    names[i] = row.name
  end
  return names
end

local function procedures()
  local list = { "@files" }
  for _, name in ipairs(require("runbook.book").built_in()) do
    list[#list + 1] = name
  end
  return list
end

-- Step ids of the runbook or run that stands on the line already.
local function steps(words)
  local book = require "runbook.book"
  for _, word in ipairs(words) do
    if word:sub(1, 1) ~= "-" then
      local ok, loaded = pcall(book.load, word, { placeholders = true })
      if not ok then
        ok, loaded = pcall(function()
          return require("runbook.run").book_of(word, {}, false)
        end)
      end
      if ok then
        local ids = {}
        for _, item in ipairs(loaded.items) do
          ids[#ids + 1] = item.id and ("%s\t%s"):format(item.id, item.title) or nil
        end
        return ids
      end
    end
  end
  return {}
end

local function values_of(argname, words, verb)
  if argname == "STEP" or argname == "STEP=TEXT" or argname == "STEP=WHO" then
    return steps(words)
  elseif argname == "RUN" then
    return run_names(verb == "resume")
  elseif argname == "PROCEDURE" or verb ~= "lua" and argname == "FILE" and words.positional then
    return procedures()
  elseif argname == "FILE" or argname == "DIR" then
    return { "@files" }
  elseif argname == "SHELL" then
    return { "bash", "zsh", "fish" }
  elseif argname == "SUBJECT" then
    local list = { "types" }
    for _, name in ipairs(require("runbook.cli.doc").libraries()) do
      list[#list + 1] = name
    end
    table.move(procedures(), 2, 100, #list + 1, list)
    return list
  end
  return {}
end

local function first_name(argname)
  return type(argname) == "table" and argname[1] or argname
end

local function option_called(parser, name)
  for _, option in ipairs(parser._options) do
    for _, alias in ipairs(option._aliases) do
      if alias == name then
        return option
      end
    end
  end
end

-- The positional argument that the last word is.
local function argument_at(parser, words)
  local n, skip = 0, false
  for i = 1, #words - 1 do
    local option = option_called(parser, words[i])
    if skip then
      skip = false
    elseif option then
      skip = option._maxargs > 0
    elseif words[i]:sub(1, 1) ~= "-" then
      n = n + 1
    end
  end
  for _, argument in ipairs(parser._arguments) do
    if n < argument._maxargs then
      return argument
    end
    n = n - argument._maxargs
  end
end

local function of_verb(name, words)
  local row = cli.verb(name)
  local verb = require("runbook.cli." .. name)
  local parser = arguments.parser(name, verb, row[2])
  local current, before = words[#words], option_called(parser, words[#words - 1])
  if before and before._maxargs > 0 then
    return values_of(first_name(before._argname), words, name)
  elseif current:sub(1, 1) == "-" then
    local list = {}
    for _, option in ipairs(parser._options) do
      list[#list + 1] = ("%s\t%s"):format(option._public_aliases[#option._public_aliases], option._description or "")
    end
    return list
  end
  local argument = argument_at(parser, words)
  words.positional = true
  if argument and name == "mark" then
    local list = steps(words)
    table.move({ "done", "skipped", table.unpack(run_names()) }, 1, 100, #list + 1, list)
    return list
  end
  return argument and values_of(first_name(argument._argname), words, name) or {}
end

--- What fits at the end of a command line: words, with a description after a tab; `@files` stands for file names.
---@async
---@param words string[]  after `runbook`; the last is what is being typed
---@return string[]
function completion.candidates(words)
  local list = {}
  if #words <= 1 then
    for i, row in ipairs(cli.VERBS) do
      list[i] = ("%s\t%s"):format(row[1], row[2])
    end
  else
    local ok, found = pcall(of_verb, words[1], table.move(words, 2, #words, 1, {}))
    list = ok and found or {}
  end
  local prefix, fitting = words[#words] or "", {}
  for _, one in ipairs(list) do
    if one == "@files" or one:sub(1, #prefix) == prefix then
      fitting[#fitting + 1] = one
    end
  end
  return fitting
end

function completion.main(words)
  if words[1] == "--words" then
    for _, one in ipairs(completion.candidates(table.move(words, 2, #words, 1, {}))) do
      output.result(one .. "\n")
    end
    return 0
  end
  local parser = arguments.parser("completion", completion, cli.verb("completion")[2])
  local args = arguments.parse(parser, "completion", words)
  if args == nil then
    output.result(arguments.help(parser, completion))
  else
    output.result(SCRIPTS[args.shell])
  end
  return 0
end

return completion
