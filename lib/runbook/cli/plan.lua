--- `runbook plan FILE`: what a run would do, seen by doing every read and no change.

local arguments = require "runbook.arguments"
local errors = require "runbook.errors"
local failure = require "runbook.failure"
local human = require "runbook.human"
local output = require "runbook.output"
local visible = require "runbook.visible"

local plan = {}

plan.example = [[
runbook plan nfs-move.lua --params hubs/temple-homes.yaml
runbook plan temple.lua -v                       each change also as a command
runbook plan temple.lua --detailed-exitcode      2 when there is something to do]]

local SHOWN = 6 -- changes of one step without -v

function plan.declare(parser)
  parser:argument "file" :argname "FILE" :description "A runbook, or the name of a procedure."
  arguments.declare_parameters(parser)
  parser:option "--until" :argname "STEP" :target "until_" :description "Plan no further than this step."
  parser:option "--deadline" :argname "TIME" :description "Stop looking after this long (10m)."
  parser:flag "--detailed-exitcode" :target "detailed" :description "Exit code 2 when a run would change something."
  parser:flag "--no-input" :target "no_input" :description "Never ask for missing parameters."
  parser:option "--lib" :argname "DIR" :description "DIR/lib/runbook/*.lua replace the built-in libraries."
  arguments.declare_places(parser)
  arguments.declare_voice(parser)
end

local function clean(text)
  return visible.text(require("runbook.redaction").text(tostring(text)))
end

local function heading(made, width)
  local right = "plan: read only, nothing changed"
  return visible.pad(clean(made.title), width - #right) .. (visible.width(made.title) + #right < width and "" or "   ") .. right
end

local function parameter_rows(book)
  local rows = {}
  for _, one in ipairs(book.values and require("runbook.params").show(book.values) or {}) do
    rows[#rows + 1] = { one.name, clean(one.text) }
  end
  return rows
end

local function table_lines(t, width)
  local rows = {}
  for i, row in ipairs(t.rows) do
    rows[i] = {}
    for j, value in ipairs(row) do
      rows[i][j] = type(value) == "string" and clean(value) or value
    end
  end
  local lines = human.table(t.columns, rows, width, 4)
  table.insert(lines, 1, "")
  table.insert(lines, 2, "  " .. clean(t.title))
  return lines
end

local function finding_lines(checks, width)
  local lines = { ("  checks: %d good, %d to know, %d stop"):format(checks.good, #checks.know, #checks.stop) }
  local function add(mark, one, text)
    for i, line in ipairs(human.wrap(clean(one.title) .. (text and ": " .. clean(text) or ""), width - 6)) do
      lines[#lines + 1] = (i == 1 and "    " .. mark .. " " or "      ") .. line
    end
  end
  for _, one in ipairs(checks.know) do
    add(".", one, one.text)
  end
  for _, one in ipairs(failure.fold(checks.stop)) do
    add("x", one, one.text)
  end
  for _, one in ipairs(checks.know) do
    if one.table then
      local more = table_lines(one.table, width)
      table.move(more, 1, #more, #lines + 1, lines)
    end
  end
  return lines
end

local EMPTY = {
  manual = function() return "you" end,
  pause = function() return "--- stops here; days may pass ---" end,
  checks = function(entry)
    return ("(looks: %d good, %d to know, %d stop)"):format(entry.checks and entry.checks.good or 0,
      entry.checks and #entry.checks.know or 0, entry.checks and #entry.checks.stop or 0)
  end,
  step = function() return "(reads)" end,
}

-- A unit's name stays on its line, as in the summaries of the copier.
local function unit_name(unit)
  return clean((unit:gsub("%c", "?")))
end

-- What belongs together: the parts of one thing, and the same change of many units.
local function kind_of(change)
  if change.part then
    return ("%s\0%s"):format(change.part.name, change.part.target)
  end
  return change.unit and ("%s\0%s"):format(change.verb, change.target)
end

-- Without -v, what belongs together is one line: { change, others = { units } }.
local function grouped(changes, verbose)
  local list, by_kind = {}, {}
  for _, change in ipairs(changes) do
    local kind = kind_of(change)
    local first = verbose == 0 and kind and by_kind[kind]
    if first and not change.part then
      first.others[#first.others + 1] = unit_name(change.unit)
    elseif not first then
      first = { change = change, others = {} }
      list[#list + 1] = first
      by_kind[kind or first] = first
    end
  end
  return list
end

local function and_others(units)
  if #units == 0 then
    return ""
  end
  local shown = table.concat(units, ", ", 1, math.min(3, #units))
  return ("; the same for %s%s"):format(shown, #units > 3 and (" and %s more"):format(human.count(#units - 3)) or "")
end

local function change_lines(change, others, verbose, lines)
  if change.part and verbose == 0 then
    lines[#lines + 1] = ("%s%s: %s"):format(change.tilde and "~ " or "", clean(change.part.target), clean(change.part.name))
    return
  end
  local summary = clean(change.summary)
  local name = change.unit and unit_name(change.unit)
  local unit = name and not summary:find(name, 1, true) and name .. ": " or ""
  lines[#lines + 1] = (change.tilde and "~ " or "") .. clean(change.target or "here") .. ": " .. unit .. summary .. and_others(others)
  if verbose > 0 then
    if change.before ~= nil or change.after ~= nil then
      lines[#lines + 1] = ("    %s -> %s"):format(clean(change.before == nil and "nothing" or change.before), clean(change.after or ""))
    end
    if change.by_hand then
      lines[#lines + 1] = "    " .. clean(change.by_hand)
    end
  end
end

-- The middle column of a step.
local function lines_of(entry, verbose, stopped)
  if entry.skipped then
    return { "(skipped: its `when` is false)" }
  elseif entry.already then
    return { "(is so already)" }
  end
  local lines, groups = {}, grouped(entry.changes, verbose)
  for i, group in ipairs(groups) do
    if verbose == 0 and i > SHOWN then
      lines[#lines + 1] = ("%d more; -v shows them"):format(#groups - SHOWN)
      break
    end
    change_lines(group.change, group.others, verbose, lines)
  end
  for _, wait in ipairs(entry.waits) do
    if verbose > 0 or not entry.part_waits[wait] then
      lines[#lines + 1] = "waits: " .. clean((wait:gsub("^wait ", "")))
    end
  end
  if #lines == 0 and not (entry.would_stop and entry.kind == "step") then
    lines[1] = EMPTY[entry.kind](entry)
  end
  if entry.would_stop then
    local like = stopped[entry.would_stop]
    lines[#lines + 1] = like and ("would stop as `%s` does"):format(like) or "would stop: " .. clean(entry.would_stop)
    stopped[entry.would_stop] = like or entry.id
  end
  if entry.ended then
    lines[#lines + 1] = clean(entry.ended)
  end
  return lines
end

local function step_table(made, verbose, width)
  local rows, stopped, left, middle = {}, {}, 22, 7
  for _, entry in ipairs(made.steps) do
    if entry.kind ~= "section" then
      local head = ("  %2d %s%s"):format(entry.index, entry.id, entry.asks and "  ASKS" or "")
      local row = { head, lines_of(entry, verbose, stopped), entry.undo or "" }
      rows[#rows + 1] = row
      left = math.max(left, #row[1] + 2)
    end
  end
  local room = math.max(30, width - left - 14)
  for _, row in ipairs(rows) do
    local wrapped = {}
    for _, line in ipairs(row[2]) do -- a command is not broken: it is there to be copied
      local parts = line:match("^    ") and { line } or human.wrap(line, room)
      table.move(parts, 1, #parts, #wrapped + 1, wrapped)
    end
    row[2] = wrapped
    for _, line in ipairs(wrapped) do
      local w = visible.width(line)
      middle = math.max(middle, w <= room and w or 0)
    end
  end
  local function line(a, b, c)
    return (((visible.pad(visible.pad(a, left) .. b, left + middle + 2)) .. c):gsub("%s+$", ""))
  end
  local lines = { line("  step", "changes", "undo") }
  for _, row in ipairs(rows) do
    for i, text in ipairs(row[2]) do
      lines[#lines + 1] = line(i == 1 and row[1] or "", text, i == 1 and row[3] or "")
    end
  end
  return lines
end

local TIMES = { [0] = "Asks nothing.", "Asks once, at %s.", "Asks twice, at %s." }

local function closing(made, verbose)
  local asks = {}
  for _, entry in ipairs(made.steps) do
    asks[#asks + 1] = entry.asks and not entry.skipped and not entry.already and entry.id or nil
  end
  local times = (TIMES[#asks] or #asks .. " questions, at %s."):format(table.concat(asks, ", "))
  local lines = { "", "  " .. times .. (verbose == 0 and " -v shows the same by hand." or "") }
  for _, entry in ipairs(made.steps) do
    if entry.would_stop then
      lines[#lines + 1] = ("  A run would stop at %s."):format(entry.id)
      break
    end
  end
  lines[#lines + 1] = "  Next: " .. made.next
  return lines
end

--- The plan as text.
---@param made table  what `runbook.plan` made
---@param book runbook.Book
---@param verbose integer
---@param width integer
---@return string
function plan.text(made, book, verbose, width)
  local lines = { heading(made, width), "" }
  local function add(more)
    table.move(more, 1, #more, #lines + 1, lines)
  end
  local rows = parameter_rows(book)
  if #rows > 0 then
    add(human.rows(rows, width, 2))
    lines[#lines + 1] = ""
  end
  if made.checks.good + #made.checks.know + #made.checks.stop > 0 then
    add(finding_lines(made.checks, width))
    lines[#lines + 1] = ""
  end
  add(step_table(made, verbose, width))
  add(closing(made, verbose))
  return table.concat(lines, "\n") .. "\n"
end

local function record(t)
  output.record(require("runbook.redaction").value(t))
end

local function write_records(made)
  local array = require("runbook.json").array
  for _, entry in ipairs(made.steps) do
    if entry.kind == "section" then
      record { type = "plan-section", title = entry.title }
    else
      record {
        type = "plan-step", index = entry.index, id = entry.id, title = entry.title, kind = entry.kind, asks = entry.asks or false,
        changes = array(entry.changes), reads = entry.reads, waits = array(entry.waits),
        undo = entry.undo, would_stop = entry.would_stop, error = entry.error, ended = entry.ended, skipped = entry.skipped,
        already = entry.already,
      }
    end
  end
  local stop = array {}
  for i, one in ipairs(made.checks.stop) do
    stop[i] = { title = one.title, error = errors.record(one.error) }
  end
  record {
    type = "plan", runbook = made.runbook, title = made.title, changes = made.changes, stops = made.stops, next = made.next,
    checks = { good = made.checks.good, know = array(made.checks.know), stop = stop },
  }
end

-- While it looks, only what cannot wait is shown: the plan itself says the rest, once and in order.
local SHOWN_MEANWHILE = { planned = true, notice = true, question = true }

function plan.main(args)
  local made, book
  local voice = { quiet = args.quiet, no_colour = args.no_colour, no_input = args.no_input, verbose = args.verbose }
  local code = require("runbook.stage").play(voice, function()
    book = require("runbook.cli.run").load(args)
    made = require("runbook.plan").make(book, { until_ = args.until_, files = args.files, deadline = args.deadline })
    for _, set in ipairs(args.sets) do
      made.next = ("%s -p %s"):format(made.next, require("runbook.shell").quote(set))
    end
    return 0
  end, SHOWN_MEANWHILE)
  if made == nil then
    return code
  end
  if args.json then
    output.version()
    write_records(made)
  else
    output.result(plan.text(made, book, args.verbose or 0, output.width "stdout"))
  end
  if made.stops > 0 then
    return 1
  end
  return args.detailed and made.changes > 0 and 2 or 0
end

return plan
