--- `runbook runs`: every run kept on this machine, newest first.

local arguments = require "runbook.arguments"
local output = require "runbook.output"
local visible = require "runbook.visible"

local runs = {}

runs.example = [[
runbook runs
runbook runs --open]]

function runs.declare(parser)
  parser:flag "--open" :description "Only those that are not finished."
  parser:flag "--json" :description "One JSON object a line."
  arguments.declare_places(parser)
end

--- A time as people on this machine say it, with the date when it was not today.
---@param at number
---@param now? number
---@return string
function runs.when(at, now)
  local second = math.floor(at)
  local today = os.date("%Y-%m-%d", math.floor(now or os.time()))
  if os.date("%Y-%m-%d", second) == today then
    return os.date("%H:%M", second)
  end
  return os.date("%Y-%m-%d %H:%M", second)
end

local function state_of(row)
  if row.alive then
    return ("%s (process %s)"):format(row.state == "rolling-back" and "going back" or "running", row.pid or "?")
  elseif row.state == "running" or row.state == "rolling-back" then
    return "interrupted" -- its process is gone, and had no time to say so
  end
  return row.state
end

local function lines_of(row)
  if row.error then
    return { { row.name, "unreadable", "", "", tostring(row.error) } }
  end
  local progress = ("%d of %s"):format(row.steps_done, row.steps_all or "?")
  local what = row.step and row.state ~= "done" and "at " .. row.step or ""
  if row.passed_over then
    what = ("%s%schanged nothing, and %s is newer"):format(what, what ~= "" and "; " or "", row.passed_over)
  end
  local lines = { { row.name, state_of(row), progress, row.started and runs.when(row.started) or "", what } }
  for _, owed in ipairs(row.owes) do
    local costs = owed.costs and "costs money while it exists: " .. owed.costs or "is still there"
    lines[#lines + 1] = { "", "", "", "", ("owes: %s %s"):format(owed.kind, costs) }
  end
  return lines
end

local function table_text(rows)
  local widths, lines = {}, {}
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do
      row[i] = visible.line(tostring(cell))
      widths[i] = math.max(widths[i] or 0, visible.width(row[i]))
    end
  end
  for _, row in ipairs(rows) do
    local cells = {}
    for i, cell in ipairs(row) do
      cells[i] = visible.pad(cell, widths[i])
    end
    lines[#lines + 1] = (table.concat(cells, "  "):gsub("%s+$", ""))
  end
  return table.concat(lines, "\n") .. "\n"
end

local function write_records(list)
  local errors, json = require "runbook.errors", require "runbook.json"
  output.version()
  for _, row in ipairs(list) do
    row.type, row.subject = "run", nil
    row.error = row.error and errors.record(row.error)
    row.owes = json.array(row.owes)
    output.record(row)
  end
end

function runs.main(args)
  local store = require "runbook.store"
  local list = args.open and store.open_runs() or store.list()
  if args.json then
    write_records(list)
    return 0
  elseif #list == 0 then
    output.say(("no run is %s in %s\n"):format(args.open and "open" or "kept", store.root()))
    return 0
  end
  local rows = { { "run", "state", "steps", "started", "" } }
  for _, row in ipairs(list) do
    local lines = lines_of(row)
    table.move(lines, 1, #lines, #rows + 1, rows)
  end
  output.result(table_text(rows))
  return 0
end

runs.state_of = state_of

return runs
