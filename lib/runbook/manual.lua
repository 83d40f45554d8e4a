--- The manual pages runbook(1) and runbook-lua(3), in roff, from the verbs' options and the libraries' docstrings.

local arguments = require "runbook.arguments"
local cli = require "runbook.cli"
local doc = require "runbook.cli.doc"
local embed = require "runbook.core.embed"
local errors = require "runbook.errors"

local manual = {}

-- A backslash is roff's own, and so is a dot or a quote that begins a line; `-` would become a hyphen nobody can copy.
local function escape(text)
  text = text:gsub("[\xc2-\xf4][\x80-\xbf]+", function(c)
    return ("\1[u%04X]"):format(utf8.codepoint(c)) -- troff reads bytes
  end)
  text = text:gsub("\\", "\\e"):gsub("%-", "\\-"):gsub("'", "\\(aq"):gsub("`", "\\`")
  return (text:gsub("^%.", "\\&."):gsub("\n%.", "\n\\&."):gsub("\1", "\\"))
end

local Page = {}
Page.__index = Page

function Page:put(...)
  for _, line in ipairs { ... } do
    self[#self + 1] = line
  end
end

function Page:section(title)
  self:put(".SH " .. title:upper())
end

function Page:paragraph(text)
  self:put(".PP", escape(text))
end

function Page:example(text)
  self:put(".PP", ".RS 4", ".nf", escape(text), ".fi", ".RE")
end

-- Text as docstrings have it: paragraphs, and examples that are indented by four.
function Page:prose(text)
  local prose, code = {}, {}
  local function flush()
    if #prose > 0 then
      self:paragraph(table.concat(prose, "\n"))
    elseif #code > 0 then
      self:example(table.concat(code, "\n"))
    end
    prose, code = {}, {}
  end
  for line in (text .. "\n"):gmatch("(.-)\n") do
    if line == "" then
      flush()
    elseif line:match("^    ") and #prose == 0 then
      code[#code + 1] = line:sub(5)
    else
      if #code > 0 then
        flush()
      end
      prose[#prose + 1] = line
    end
  end
  flush()
end

function Page:item(head, text)
  self:put(".TP", ".B " .. escape(head), escape(text ~= "" and text or "\\&"))
end

local function new(name, section, title)
  return setmetatable({
    ('.TH %s %d "" "runbook %s" "%s"'):format(name:upper(), section, embed.version(), title),
  }, Page)
end

local function usage(name, parser)
  local parts = { "runbook " .. name, "[OPTIONS]" }
  if parser._usage then
    return (parser._usage:gsub("^Usage: ", ""))
  end
  for _, argument in ipairs(parser._arguments) do
    local value = argument._argname
    if argument._minargs == 0 then
      value = "[" .. value .. "]"
    end
    parts[#parts + 1] = value .. (argument._maxargs > 9 and "..." or "")
  end
  return table.concat(parts, " ")
end

local function verb_section(page, row)
  local verb = require("runbook.cli." .. row[1])
  local parser = arguments.parser(row[1], verb, row[2])
  page:put(".SS " .. escape(usage(row[1], parser)))
  page:paragraph(row[2]:sub(1, 1):upper() .. row[2]:sub(2) .. ".")
  page:example(verb.example)
  for _, argument in ipairs(parser._arguments) do
    page:item(arguments.head(argument), argument._description or "")
  end
  for _, option in ipairs(parser._options) do
    if option._name ~= "-h" then
      page:item(arguments.head(option), option._description or "")
    end
  end
end

local EXIT = {
  { "0", "Done; or there was nothing to do." }, { "1", "A step failed; `runbook resume` goes on. Of plan: a run would stop." },
  { "2", "Of `plan --detailed-exitcode`: a run would change something." },
  { "4", "Something could not be undone or removed; it was said what, and the same command tries again." },
  { "5", "Waits: for input that nobody was there to give (the flag that gives it was said), or for a time." },
  { "6", "Declined: the question before a disruption was answered with no." },
  { "64", "A mistake on the command line." }, { "65", "A mistake in a runbook or a parameter file." },
  { "66", "A file or a run that is not there." }, { "69", "A machine that cannot be reached." },
  { "70", "A mistake in runbook itself." }, { "73", "A file that is there already and is not overwritten." },
  { "74", "The output could not be written." }, { "75", "Another run or process holds the lock; try later." },
  { "77", "A key or a permission was refused, or a machine is not the one it was." },
  { "78", "The state directory cannot be used." }, { "124", "The --deadline passed." },
  { "129, 130, 143", "Stopped by HUP, INT (Ctrl-C) or TERM." },
  { "141", "Nobody reads standard output any more; a run with --json stops as by Ctrl-C." },
}

local EVENTS = {
  { "version", "First: schema, runbook. Fields may be added within a schema; ignore what you do not know." },
  { "failure", "Instead of a run-end, when nothing could begin: exit, error." },
  { "run-start, run-end", "runbook, title, directory, resumed, who, version; state (done failed stopped waiting declined rolled-back "
    .. "rollback-incomplete), exit, seconds, next (the command that goes on), jobs (left running), error." },
  { "section, step-start, step-end", "title; index, count, kind; outcome (done failed skipped already waiting declined stopped undone), "
    .. "seconds, text, error." },
  { "unit-start, unit-end", "unit; outcome, error." },
  { "check", "title, outcome (good know stop), text, error." },
  { "effect", "phase (intent done failed unknown), verb, class, target, summary, by_hand." },
  { "progress", "done, total, unit_name, bytes, bytes_total, rate, eta, text, units. Not kept in events.ndjson." },
  { "output", "target, stream, line: what a command elsewhere printed." },
  { "forecast", "low, high, window (seconds), text: how long a disruption will take, as far as is measured." },
  { "table", "name, title, text, columns, rows: what the report shows as a table." },
  { "say, notice, job, question, leftover", "text; text, level; target, name, state; title, rows, expect; kind, text, costs." },
}

local SIGNALS = {
  { "INT, TERM, HUP", "Once: nothing new starts, jobs on other machines go on, the rest stops within seconds, and the command that "
    .. "resumes is shown. Twice: the jobs are ended too. A third time: leaves at once. The journal stands a kill at any point." },
  { "USR1", "Lists every task: its step, what it waits for, its line in Lua." },
}

local ENVIRONMENT = {
  { "XDG_STATE_HOME", "Runs are kept in $XDG_STATE_HOME/runbook, else in ~/.local/state/runbook." },
  { "RUNBOOK_STATE", "Another state directory; --state comes before it." },
  { "NO_COLOR", "No colours, when it is not empty. FORCE_COLOR asks for them where there is no terminal." },
  { "COLUMNS", "The width of texts where no terminal says it." },
  { "SSH_AUTH_SOCK", "The agent that holds your keys; ~/.ssh/config is honoured." },
}

local FILES = {
  { "$XDG_STATE_HOME/runbook/runs/NAME/", "One run: journal.db (what resume needs), events.ndjson (what was shown), out/ (what it kept), "
    .. "and the sources it ran. It belongs on a local disk." },
  { "NAME.yaml", "Parameters of NAME.lua beside it, found by themselves." },
}

local function items(page, title, list)
  if title then
    page:section(title)
  end
  for _, one in ipairs(list) do
    page:item(one[1], one[2])
  end
end

local pages = {}

pages["runbook.1"] = function()
  local page = new("runbook", 1, "User Commands")
  page:section "Name"
  page:put "runbook \\- procedures for moving hubs that you can stop, resume and undo"
  page:section "Synopsis"
  page:put(".B runbook", ".I VERB", "[\\fIOPTIONS\\fR] ...")
  page:section "Description"
  page:prose [[
A runbook is a Lua file of named steps. runbook says what it will do before it does it (plan), does it (run), can be stopped or killed at
any point and goes on (resume), and goes back (rollback). What a run did is kept in a journal on this machine.

Results go to standard output, everything people read to standard error. With --json, output is one JSON object a line; the first has
the version of the schema. At most two questions are asked in a good move, each before a disruption; each has a flag that answers it.]]
  page:section "Verbs"
  for _, row in ipairs(cli.VERBS) do
    verb_section(page, row)
  end
  items(page, "Exit status", EXIT)
  page:section "Events"
  page:prose "With --json, and in events.ndjson: one object a line, each with type, at (seconds since 1970, UTC) and, where there is one, \
run, step and unit. An error has kind, message and, where known, code, target, tried, stderr, status, signal, hint, where and cause."
  items(page, nil, EVENTS)
  items(page, "Signals", SIGNALS)
  items(page, "Environment", ENVIRONMENT)
  items(page, "Files", FILES)
  page:section "See also"
  page:put ".BR runbook\\-lua (3), ssh_config (5), rsync (1)"
  return page
end

local function function_item(page, one)
  page:put(".TP", ".B " .. escape(doc.signature(one)))
  local lines = { escape(one.text) }
  for _, row in ipairs(doc.value_rows(one)) do
    lines[#lines + 1] = ".br\n\\fI" .. escape(row[1]) .. "\\fR  " .. escape(row[2])
  end
  page:put((table.concat(lines, "\n"):gsub("\n\n+", "\n.sp\n")))
end

pages["runbook-lua.3"] = function()
  local page = new("runbook-lua", 3, "Runbook Language")
  page:section "Name"
  page:put "runbook\\-lua \\- what runbooks can use"
  page:section "Description"
  page:prose [[
Runbooks are plain Lua 5.4 with string, table, math, utf8 and the usual functions, without io, load, debug and os.execute. While a file
loads nothing outside is touched; steps are declared then and run afterwards. Everything that fails raises one error value: kind, code,
target, what was tried, stderr, hint, cause.]]
  for _, name in ipairs(doc.libraries()) do
    local library = doc.library(name)
    page:section(escape(name))
    page:prose(library.text)
    for _, one in ipairs(library.functions) do
      function_item(page, one)
    end
  end
  local types = require "runbook.types"
  page:section "Types of parameters"
  for _, name in ipairs(types.names()) do
    local one = types.find(name)
    page:item(name, one.help or "")
    if one.example then
      page:example(table.concat(one.example, "\n"))
    end
  end
  page:section "See also"
  page:put ".BR runbook (1)"
  return page
end

--- A page as roff.
---@param name "runbook.1"|"runbook-lua.3"
---@return string
function manual.page(name)
  if not pages[name] then
    errors.raise { kind = "usage", code = "EUSAGE", message = ("there is no page `%s`"):format(name) }
  end
  return table.concat(pages[name](), "\n") .. "\n"
end

return manual
