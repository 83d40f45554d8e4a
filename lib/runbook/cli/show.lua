--- `runbook show [RUN]`: one run, from its journal and from what people saw of it.

local arguments = require "runbook.arguments"
local errors = require "runbook.errors"
local failure = require "runbook.failure"
local human = require "runbook.human"
local json = require "runbook.json"
local output = require "runbook.output"
local runs = require "runbook.cli.runs"
local visible = require "runbook.visible"

local show = {}

show.example = [[
runbook show                                     the open run, else the last
runbook show temple-3 --follow                   watch it from another window
runbook show temple-3 --log | less
runbook show temple-3 --receipts --json
runbook show temple-3 --report --output .        for the ticket, and to keep]]

local POLL = 0.3

function show.declare(parser)
  parser:argument "run" :argname "RUN" :args "?" :description "Its name; without: the only open one, else the newest."
  parser:mutex(
    parser:flag "--log" :description "Everything that was shown, with its time.",
    parser:flag "--receipts" :description "What was proven of each unit. In JSON its name is exact: other bytes than ASCII's as %XX.",
    parser:flag "--report" :description ("What was done, how it went and what is proven, as Markdown for a ticket and as one HTML "
      .. "file; their paths are printed."),
    parser:flag "--follow" :description "What is shown now, until the run ends.")
  parser:option "-o --output" :argname "DIR" :description ("Where the report goes; otherwise beside the run. `-`: the Markdown to "
    .. "standard output.")
  parser:flag "--json" :description "The same as JSON, one object a line."
  arguments.declare_places(parser)
end

local MARK = { done = "ok", already = "ok", skipped = "--", failed = "x ", ["undo-failed"] = "x ", pending = "  " }

-- Steps that have not begun are only in the file; a file that no longer loads is no reason to show nothing.
local function titles_of(row)
  local ok, book = pcall(require("runbook.run").book_of, row.name, {}, false)
  local list = {}
  if ok then
    for _, item in ipairs(book.items) do
      list[#list + 1] = item.id and { id = item.id, title = item.title } or nil
    end
  end
  return list
end

local function steps_of(j, row)
  local kept, list, seen = {}, {}, {}
  for _, step in ipairs(j:query "SELECT * FROM step ORDER BY position, started") do
    kept[step.id] = step
    list[#list + 1] = step
  end
  for i, item in ipairs(titles_of(row)) do
    if not kept[item.id] then
      list[#list + 1] = { id = item.id, title = item.title, state = "pending", position = i }
    end
    seen[item.id] = i
  end
  for _, step in ipairs(list) do
    step.order = seen[step.id] or step.position or 0
  end
  table.sort(list, function(a, b)
    return a.order == b.order and a.id < b.id or a.order < b.order
  end)
  return list
end

local function unit_counts(j, step)
  local counts = {}
  for _, unit in ipairs(j:query("SELECT state, count(*) AS n FROM unit WHERE id LIKE ? || '/%' GROUP BY state ORDER BY state", step)) do
    counts[#counts + 1] = ("%s %s"):format(human.count(unit.n), unit.state)
  end
  return table.concat(counts, ", ")
end

local function step_lines(j, steps, width)
  local lines, widest = {}, 0
  for _, step in ipairs(steps) do
    widest = math.max(widest, #step.id)
  end
  for i, step in ipairs(steps) do
    local notes = {}
    if step.state ~= "done" and step.state ~= "pending" then
      notes[#notes + 1] = step.state
    end
    local counts = unit_counts(j, step.id)
    notes[#notes + 1] = counts ~= "" and counts or nil
    if step.started and step.ended and step.ended - step.started >= 0.05 then
      notes[#notes + 1] = human.duration(step.ended - step.started)
    end
    lines[#lines + 1] = (("  %s %2d %-" .. widest .. "s  %s   %s"):format(MARK[step.state] or "..", i, step.id,
      visible.line(step.title or ""), table.concat(notes, ", ")):gsub("%s+$", ""))
    local err = step.error and json.decode(step.error)
    if err and (step.state == "failed" or step.state == "undo-failed") then
      table.move(human.rows(failure.rows(err), width, 8), 1, 100, #lines + 1, lines)
    elseif step.reason and step.state ~= "done" then
      lines[#lines + 1] = "        " .. visible.line(step.reason)
    end
  end
  return lines
end

local function row_texts(j, row)
  local rows = { { "runbook", row.runbook, whole = true } }
  for _, owed in ipairs(row.owes) do
    rows[#rows + 1] = { "owes", owed.kind .. (owed.costs and " (costs money while it exists)" or "")
      .. (owed.error and ": could not be removed yet" or "") }
  end
  for _, job in ipairs(require("runbook.run.jobs").left_running { journal = j }) do
    rows[#rows + 1] = { "goes on", job }
  end
  if #rows > 0 and rows[#rows][1] == "goes on" and not row.alive then
    rows[#rows + 1] = { "end it", ("runbook sweep %s --jobs"):format(row.name), whole = true }
  end
  for _, one in ipairs(j:query "SELECT * FROM decision ORDER BY id") do
    rows[#rows + 1] = { "said", ("%s %s %s%s, by %s"):format(runs.when(one.at), one.what, one.subject or "",
      one.reason and one.reason ~= "" and ": " .. one.reason or "", one.who or "?") }
  end
  for _, one in ipairs(j:query "SELECT name, path FROM attachment ORDER BY name") do
    rows[#rows + 1] = { "kept", one.path, whole = true }
  end
  if row.alive then
    rows[#rows + 1] = { "watch", ("runbook show %s --follow"):format(row.name), whole = true }
  elseif row.state ~= "done" and row.state ~= "rolled-back" then
    local back = row.state:match("^roll") ~= nil
    rows[#rows + 1] = { "go on", ("runbook %s %s"):format(back and "rollback" or "resume", row.name), whole = true }
  end
  for _, one in ipairs(rows) do
    one[2] = visible.text(one[2])
  end
  return rows
end

local function summary(row)
  local j = require("runbook.store").journal(row.name)
  local _ <close> = setmetatable({}, { __close = function() j:close() end })
  local width = output.width "stdout"
  local lines = {
    ("%s   %s   %s, since %s"):format(row.name, visible.line(row.title or ""), runs.state_of(row), runs.when(row.started or row.ended)), "",
  }
  local function add(more)
    table.move(more, 1, #more, #lines + 1, lines)
  end
  add(step_lines(j, steps_of(j, row), width))
  lines[#lines + 1] = ""
  add(human.rows(row_texts(j, row), width, 2))
  output.result(table.concat(lines, "\n") .. "\n")
end

local function summary_records(row)
  local j = require("runbook.store").journal(row.name)
  local _ <close> = setmetatable({}, { __close = function() j:close() end })
  row.type, row.owes = "run", json.array(row.owes)
  output.version()
  output.record(row)
  for _, step in ipairs(steps_of(j, row)) do
    output.record {
      type = "step", id = step.id, title = step.title, state = step.state, started = step.started, ended = step.ended,
      try = step.try, reason = step.reason, result = step.result and json.decode(step.result),
      error = step.error and json.decode(step.error),
    }
  end
  for _, one in ipairs(j:query "SELECT * FROM decision ORDER BY id") do
    one.type = "decision"
    output.record(one)
  end
end

local function receipts(row, as_json)
  local j = require("runbook.store").journal(row.name)
  local list = j:query "SELECT * FROM receipt ORDER BY pair, unit"
  j:close()
  if as_json then
    output.version()
  elseif #list == 0 then
    output.say(("%s has no receipts yet\n"):format(row.name))
  end
  local unit_name = require("runbook.copier.record").unit_name
  local pair
  for _, one in ipairs(list) do
    if as_json then
      output.record { type = "receipt", pair = one.pair, unit = one.unit, level = one.level, at = one.at, data = json.decode(one.data) }
    else
      if one.pair ~= pair then
        pair = one.pair
        output.result(visible.line(pair) .. "\n")
      end
      output.result(("  %-8s %s  %s\n"):format(one.level, runs.when(one.at), visible.line(unit_name(one.unit))))
    end
  end
  if not as_json and #list > 0 then
    output.result(require("runbook.report.copies").explain(list) .. "\n")
  end
end

-- What was shown, as lines with times, whatever stdout is.
local function replay()
  local screen = require("runbook.screen").new {
    write = output.result, now = os.time, verbose = 1, width = function() return output.width "stdout" end,
  }
  return function(line)
    local ok, event = pcall(json.decode, line)
    if ok and type(event) == "table" and event.type then
      screen:event(event)
    end
    return ok and event or {}
  end, screen
end

local function open_log(row)
  local path = require("runbook.store").directory(row.name) .. "/events.ndjson"
  local file, message = io.open(path, "rb")
  if not file then
    errors.raise { kind = "missing", target = row.name, message = message }
  end
  return file
end

local function log(row, as_json)
  local play, screen = replay()
  for line in open_log(row):lines() do
    if as_json then
      output.result(line .. "\n")
    else
      play(line)
    end
  end
  screen:close()
end

-- Ends with the run, or when no process works on it any more.
local function follow(row, as_json)
  local task, store = require "runbook.core.task", require "runbook.store"
  local play, screen = replay()
  local file, rest, idle, ended = open_log(row), "", 0, not row.alive
  while true do
    local piece = file:read(65536)
    for line in (rest .. (piece or "")):gmatch("([^\n]*)\n") do
      if as_json then
        output.result(line .. "\n")
      else
        play(line)
      end
    end
    rest = (rest .. (piece or "")):match("([^\n]*)$")
    if piece == nil then
      screen:tick()
      output.flush()
      if ended then
        break
      end
      idle = idle + 1
      ended = idle % 10 == 0 and not store.get(row.name).alive
      task.sleep(POLL)
    end
  end
  screen:close()
end

local function write_files(directory, name, texts)
  local core, effect = require "runbook.core.file", require "runbook.effect"
  for _, kind in ipairs { "md", "html" } do
    local path = ("%s/%s.%s"):format(directory, name, kind)
    effect.own(function()
      errors.check(path, "write", core.write(path, texts[kind], { mode = tonumber("600", 8) }))
    end)
    output.result(path .. "\n")
  end
end

local function report(row, args)
  local model = require("runbook.report").model(require("runbook.report.facts").read(row))
  if args.json then
    model.type = "report"
    output.version()
    output.record(model)
    return
  end
  local doc = require("runbook.report.document").of(model)
  local markdown = require("runbook.report.markdown").render(doc)
  if args.output == "-" then
    output.result(markdown)
    return
  end
  local directory = args.output and args.output:gsub("(.)/+$", "%1") or require("runbook.store").directory(row.name)
  write_files(directory, row.name, { md = markdown, html = require("runbook.report.html").render(doc) })
end

function show.main(args)
  if args.output and not args.report then
    arguments.refuse("--output belongs to --report")
  end
  local row = require("runbook.store").get(args.run, true)
  if args.log then
    log(row, args.json)
  elseif args.receipts then
    receipts(row, args.json)
  elseif args.report then
    report(row, args)
  elseif args.follow then
    return require("runbook.signals").guard(function()
      follow(row, args.json)
      return 0
    end)
  elseif args.json then
    summary_records(row)
  else
    summary(row)
  end
  return 0
end

return show
