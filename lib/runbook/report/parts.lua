--- The sections of a report: each gives the blocks of one, none when there is nothing to say. See report/document.lua.

local copies = require "runbook.report.copies"
local failure = require "runbook.failure"
local human = require "runbook.human"
local record = require "runbook.copier.record"
local units = require "runbook.units"
local visible = require "runbook.visible"

local parts = {}

local SHORT = 12 -- rows of a table that is shown without being asked for
local MOST = 500 -- rows of changes and failures; `--json` has all

--- "2026-12-05 22:04:10"; the report says once that its times are UTC.
---@param at number?
---@return string
function parts.time(at)
  return at and os.date("!%Y-%m-%d %H:%M:%S", math.floor(at)) or ""
end

local TONE = {
  done = "good", undone = "good", met = "good", hashed = "good", scanned = "good", already = "good", skipped = "dim", waived = "dim",
  failed = "bad", ["undo-failed"] = "bad", unknown = "bad", ["cut off"] = "bad", killed = "bad", owed = "bad", stop = "bad",
  waiting = "warn", stopped = "warn", declined = "warn", left = "warn", running = "warn", know = "warn", pending = "dim",
}

local function state(word)
  return { text = (word:gsub("%-", " ")), tone = TONE[word] }
end

local function code(text)
  return text and { text = text, code = true } or ""
end

local function took(seconds)
  return seconds and seconds >= 0.05 and human.duration(seconds) or ""
end

local function unit_name(word)
  local name = record.unit_name(word)
  return name == "." and "the loose files" or code(visible.line(name))
end

local function fold(title, ...)
  return { kind = "fold", title = title, blocks = { ... } }
end

-- A table, put away when it is long.
local function long_table(title, made)
  made.kind = "table"
  return #made.rows > SHORT and fold(title, made) or made
end

local function first_rows(rows)
  if #rows <= MOST then
    return rows
  end
  local shown = table.move(rows, 1, MOST, 1, {})
  shown[MOST + 1] = { head = ("%s more; `show --report --json` has all"):format(human.count(#rows - MOST)), at = "" }
  return shown
end

-- ---- timeline ----

local function how_it_began(process)
  local who = process.who and " by " .. process.who or ""
  if process.rollback then
    return "rollback" .. who
  elseif process.handed_over then
    return ("handed over: resumed%s"):format(who)
  end
  return (process.resumed and "resumed" or "begun") .. who
end

local SAYS_NOTHING = { done = true, ["rolled-back"] = true, running = true }

local function how_it_ended(process)
  if process.outcome == "killed" then
    return "killed: its process had no time to say how it ended"
  end
  local text = process.text and process.text ~= "" and ": " .. process.text:match "[^\n]*" or ""
  return process.outcome:gsub("%-", " ") .. text
end

local function units_text(step)
  local words, names = {}, {}
  for name in pairs(step and step.units or {}) do
    names[#names + 1] = name
  end
  table.sort(names)
  for i, name in ipairs(names) do
    words[i] = ("%s %s"):format(human.count(step.units[name]), name)
  end
  return #words > 0 and " (" .. table.concat(words, ", ") .. ")" or ""
end

local function steps_by_id(model)
  local map, longest = {}, 0
  for _, step in ipairs(model.steps) do
    map[step.id] = step
  end
  for _, try in ipairs(model.tries) do
    longest = math.max(longest, try.seconds or 0)
  end
  return map, longest
end

local function last_tries(model)
  local last = {}
  for _, try in ipairs(model.tries) do
    last[try.step] = not try.undo and try or last[try.step]
  end
  return last
end

local function try_row(try, step, is_last, longest)
  local ended = state(try.outcome)
  ended.text = ended.text .. (is_last and units_text(step) or "")
    .. (try.process == 0 and ", said by a person" or "") .. (try.text and ": " .. try.text or "")
  return {
    parts.time(try.at), code(try.step), (try.undo and "undo: " or "") .. (step and step.title or ""), ended,
    { text = took(try.seconds), bar = longest > 0 and (try.seconds or 0) / longest or nil },
  }
end

--- Every try of every step, below the process that made it.
function parts.timeline(model)
  local rows, steps, longest = {}, steps_by_id(model)
  local last, said = last_tries(model), 0
  local function up_to(number)
    while said < number do
      local before = model.processes[said]
      if before and not SAYS_NOTHING[before.outcome] then
        rows[#rows + 1] = { at = parts.time(before.ended), head = how_it_ended(before), tone = TONE[before.outcome] }
      end
      said = said + 1
      local process = model.processes[said]
      if process then
        rows[#rows + 1] = { at = parts.time(process.at), head = how_it_began(process) }
      end
    end
  end
  for _, try in ipairs(model.tries) do
    up_to(try.process)
    rows[#rows + 1] = try_row(try, steps[try.step], last[try.step] == try, longest)
  end
  up_to(#model.processes + 1)
  for _, step in ipairs(model.steps) do
    if not last[step.id] and step.state == "pending" and not model.run.back then
      rows[#rows + 1] = { "", code(step.id), step.title or "", { text = "not begun", tone = "dim" }, "" }
    end
  end
  return { { kind = "table", columns = { "UTC", "step", "", "how it ended", "took" }, rows = rows } }
end

-- ---- locked out ----

local function against(lock)
  local low, high = lock.forecast.low, lock.forecast.high
  local seconds = lock.seconds
  if not seconds then
    return ""
  elseif seconds > high then
    return (": it took %s longer"):format(units.duration(seconds - high))
  elseif seconds < low then
    return (": it took %s less"):format(units.duration(low - seconds))
  end
  return ": it was so"
end

--- How long nobody could work, beside what was promised.
function parts.lock_out(model)
  local lock = model.lock_out
  if not lock then
    return {}
  end
  local rows = {
    { "from", ("%s, when `%s` was agreed to"):format(parts.time(lock.began), lock.from) },
    { "until", lock.ended and parts.time(lock.ended) or { text = "it goes on", tone = "bad" } },
    { "measured", lock.seconds and units.duration(lock.seconds) or "" },
  }
  local forecast = lock.forecast
  if forecast then
    rows[#rows + 1] = { "forecast", ("%s to %s, said %s%s"):format(units.duration(forecast.low), units.duration(forecast.high),
      parts.time(forecast.at), against(lock)) }
    rows[#rows + 1] = { "", forecast.text }
  end
  if forecast and forecast.window then
    local over = lock.seconds and lock.seconds > forecast.window
    rows[#rows + 1] = { "window", { text = units.duration(forecast.window) .. (over and ": it did not fit" or ""),
      tone = over and "bad" or nil } }
  end
  return { { kind = "table", rows = rows } }
end

-- ---- copies ----

local function passes_table(copy)
  local rows = {}
  for i, pass in ipairs(copy.passes) do
    rows[i] = {
      pass.kind, (pass.began or ""):gsub("[TZ]", " "), took(pass.seconds), human.bytes(pass.bytes or 0), human.count(pass.files or 0),
      human.count(pass.created or 0), human.count(pass.deleted or 0), human.count(pass.vanished or 0),
    }
  end
  return { kind = "table", columns = { "pass", "began", "took", "sent", "files", "new", "removed", "vanished" }, rows = rows }
end

local function receipts_table(copy)
  local rows = {}
  for i, one in ipairs(copy.receipts) do
    rows[i] = {
      unit_name(one.unit), state(one.level), one.entries and human.count(one.entries) or "", one.files and human.count(one.files) or "",
      one.bytes and human.bytes(one.bytes) or "", parts.time(one.at),
    }
  end
  return long_table(("The receipts of %s"):format(human.plural(#rows, "home")), {
    columns = { "home", "proof", "names", "files", "size", "when" }, rows = rows,
  })
end

--- Passes and receipts of each copy.
function parts.copies(model)
  local blocks = {}
  for _, copy in ipairs(model.copies) do
    blocks[#blocks + 1] = { kind = "text", text = ("%s -> %s"):format(copy.from, copy.to), code = true }
    if #copy.passes > 0 then
      blocks[#blocks + 1] = passes_table(copy)
    end
    if #copy.receipts > 0 then
      blocks[#blocks + 1] = receipts_table(copy)
      blocks[#blocks + 1] = { kind = "text", text = copies.explain(copy.receipts) .. ".", tone = "dim" }
    end
  end
  return blocks
end

--- What is not on the target as it was at the source, and who said so.
function parts.not_carried(model)
  local rows = {}
  for i, one in ipairs(model.not_carried) do
    local what = one.unit and unit_name(one.unit) or one.text
    local why = one.unit and one.text or ""
    rows[i] = { { text = one.what, tone = "warn" }, what, why or "", one.who or "", one.where or "", parts.time(one.at) }
  end
  local made = { columns = { "", "what", "why", "who", "where", "when" }, rows = rows }
  return #rows > 0 and { long_table(human.plural(#rows, "name"), made) } or {}
end

local function cell(value)
  if type(value) == "table" then
    return { text = tostring(value.text or ""), code = value.code, tone = value.tone }
  end
  return value == nil and "" or tostring(value)
end

--- Tables of libraries; see events.table.
function parts.tables(model)
  local blocks = {}
  for _, one in ipairs(model.tables) do
    local rows = {}
    for i, row in ipairs(one.rows) do
      rows[i] = {}
      for j = 1, #one.columns do
        rows[i][j] = cell(row[j])
      end
    end
    blocks[#blocks + 1] = { kind = "heading", text = one.title or one.name }
    blocks[#blocks + 1] = one.text and { kind = "text", text = one.text } or nil
    blocks[#blocks + 1] = long_table(human.plural(#rows, "row"), { columns = one.columns, rows = rows })
  end
  return blocks
end

-- ---- checks, questions, failures ----

local function add_checks(step, list, rows, good)
  for _, one in ipairs(list) do
    if one.outcome == "good" then
      good[#good + 1] = { code(step), one.title or "" }
    else
      rows[#rows + 1] = { code(step), state(one.outcome), one.title or "", one.text ~= one.title and one.text or "" }
    end
  end
end

--- What the checks of the last start found.
function parts.checks(model)
  local rows, good, done = {}, {}, {}
  for _, step in ipairs(model.steps) do
    done[step.id] = true
    add_checks(step.id, model.checks[step.id] or {}, rows, good)
  end
  for step, list in pairs(model.checks) do
    if not done[step] then
      add_checks(step, list, rows, good)
    end
  end
  local blocks = {}
  if #rows > 0 then
    blocks[1] = { kind = "table", columns = { "step", "", "looked at", "found" }, rows = rows }
  end
  if #good > 0 then
    blocks[#blocks + 1] = fold(("%s good"):format(human.plural(#good, "check") .. (#good == 1 and " is" or " are")),
      { kind = "table", columns = { "step", "looked at" }, rows = good })
  end
  return blocks
end

local function question_blocks(question, blocks)
  local rows = { { "asked", parts.time(question.at) } }
  for _, row in ipairs(question.rows or {}) do
    rows[#rows + 1] = { row[1], row[2] }
  end
  if question.answered then
    local how = question.answer == "confirm" and "agreed to" or ("done, says %s"):format(question.answer or "?")
    rows[#rows + 1] = { "answered", ("%s: %s, by %s"):format(parts.time(question.answered), how, question.who or "?") }
  else
    rows[#rows + 1] = { "answered", { text = "not yet", tone = "warn" } }
  end
  blocks[#blocks + 1] = { kind = "text", text = ("%s: %s"):format(question.step or "", question.title or ""), strong = true }
  blocks[#blocks + 1] = { kind = "table", rows = rows }
end

--- What was asked, by whom it was answered, and what people decided besides.
function parts.questions(model)
  local blocks, rows = {}, {}
  for _, question in ipairs(model.questions) do
    question_blocks(question, blocks)
  end
  for i, one in ipairs(model.decisions) do
    rows[i] = { parts.time(one.at), one.who or "", one.what, one.subject and code(one.subject) or "", one.reason or "" }
  end
  if #rows > 0 then
    blocks[#blocks + 1] = long_table(human.plural(#rows, "decision"), { columns = { "UTC", "who", "said", "of", "why" }, rows = rows })
  end
  return blocks
end

local function failure_block(one)
  local rows = {}
  for i, row in ipairs(failure.rows(one.error)) do
    rows[i] = { row[1], row.whole and code(row[2]) or row[2] }
  end
  local where = one.unit and one.unit ~= "" and ("%s, %s"):format(one.step or "", one.unit) or one.step or ""
  return { kind = "text", text = ("%s  %s"):format(parts.time(one.at), where), strong = true }, { kind = "table", rows = rows }
end

--- What failed and what was tried again.
function parts.failures(model)
  local blocks, rows = {}, {}
  for i, one in ipairs(model.failures) do
    if i <= SHORT then
      blocks[#blocks + 1], blocks[#blocks + 2] = failure_block(one)
    end
  end
  if #model.failures > SHORT then
    blocks[#blocks + 1] = { kind = "text", text = ("%s more; `show --report --json` has all"):format(
      human.count(#model.failures - SHORT)), tone = "dim" }
  end
  for i, one in ipairs(model.notices) do
    local kind = { text = one.again and "again" or "warning", tone = "warn" }
    rows[i] = { parts.time(one.at), one.step and code(one.step) or "", kind, one.text or "" }
  end
  if #rows > 0 then
    blocks[#blocks + 1] = long_table(human.plural(#rows, "retry or warning", "retries and warnings"),
      { columns = { "UTC", "step", "", "" }, rows = first_rows(rows) })
  end
  return blocks
end

-- ---- changes and what is left ----

-- The same change several times is one row.
local function effect_rows(list)
  local rows, by_key = {}, {}
  for _, one in ipairs(list) do
    local key = table.concat({ one.state, one.target or "", one.summary or "", one.by_hand or "", one.undoes and "undo" or "" }, "\0")
    local row = by_key[key]
    if row then
      row.times = row.times + 1
      row[3] = ("%s (%d times)"):format(one.summary or one.verb, row.times)
    else
      row = { state(one.state), one.target or "", one.summary or one.verb, code(one.by_hand), times = 1 }
      by_key[key], rows[#rows + 1] = row, row
    end
  end
  return first_rows(rows)
end

--- Every change that was made, by step, newest last, as a person would type it.
function parts.effects(model)
  local by_step, order = {}, {}
  for _, one in ipairs(model.effects) do
    local step = one.step or ""
    if not by_step[step] then
      by_step[step], order[#order + 1] = {}, step
    end
    table.insert(by_step[step], one)
  end
  local blocks = {}
  for i, step in ipairs(order) do
    blocks[i] = fold(("%s: %s"):format(step ~= "" and step or "between the steps", human.plural(#by_step[step], "change")),
      { kind = "table", columns = { "", "where", "what", "by hand" }, rows = effect_rows(by_step[step]) })
  end
  return blocks
end

--- What the run made for itself, and whether it is gone.
function parts.obligations(model)
  local rows, left = {}, {}
  for _, one in ipairs(model.obligations) do
    local row = { state(one.state == "met" and "gone" or one.state), one.text, one.step and code(one.step) or "",
      one.error and one.error.message or one.costs and "costs money while it exists" or "" }
    row[1].tone = TONE[one.state]
    table.insert(one.state == "owed" and left or rows, row)
  end
  local blocks, columns = {}, { "", "what", "step", "" }
  if #left > 0 then
    blocks[1] = { kind = "text", text = ("%s still there; `runbook sweep` tries again."):format(
      #left == 1 and "One thing is" or #left .. " things are"), tone = "bad" }
    blocks[2] = { kind = "table", columns = columns, rows = left }
  end
  for _, job in ipairs(model.jobs) do
    blocks[#blocks + 1] = { kind = "text", text = "goes on: " .. job, tone = "bad" }
  end
  if #rows > 0 then
    blocks[#blocks + 1] = fold(("%s that the run made for itself, gone"):format(human.plural(#rows, "thing")),
      { kind = "table", columns = columns, rows = rows })
  end
  return blocks
end

--- What the run wrote for people.
function parts.attachments(model)
  local rows = {}
  for i, one in ipairs(model.attachments) do
    rows[i] = { one.name, code(one.path), one.step and code(one.step) or "", parts.time(one.at) }
  end
  return #rows > 0 and { { kind = "table", columns = { "name", "file", "step", "when" }, rows = rows } } or {}
end

-- ---- where it comes from ----

--- Parameters, the sources that ran, and the program's versions.
function parts.origin(model)
  local rows, blocks = {}, {}
  for i, one in ipairs(model.parameters) do
    rows[i] = { code(one.name), one.text, one.help or "" }
  end
  if #rows > 0 then
    blocks[1] = { kind = "table", columns = { "parameter", "value", "what it is" }, rows = rows }
  end
  local words = {}
  for i, one in ipairs(model.versions) do
    words[i] = ("%s runbook %s"):format(one.what, one.version or "?")
  end
  local text = ("%s. Journal of %s."):format(table.concat(words, "; "), model.run.id or model.run.name)
  blocks[#blocks + 1] = { kind = "text", text = text, tone = "dim" }
  for _, one in ipairs(model.sources) do
    blocks[#blocks + 1] = fold("Source: " .. one.path, { kind = "code", text = one.text })
  end
  return blocks
end

--- What each step showed.
function parts.logs(model)
  local order, blocks = { "" }, {}
  for _, step in ipairs(model.steps) do
    order[#order + 1] = step.id
  end
  for _, id in ipairs(order) do
    local log = model.logs[id]
    if log then
      local lines = table.move(log.first, 1, #log.first, 1, {})
      if log.left_out > 0 then
        lines[#lines + 1] = ("(%s left out; `runbook show %s --log` has all)"):format(human.plural(log.left_out, "line"), model.run.name)
      end
      table.move(log.last, 1, #log.last, #lines + 1, lines)
      blocks[#blocks + 1] = fold(("%s: %s"):format(id ~= "" and id or "the run", human.plural(#lines + log.left_out, "line")),
        { kind = "code", text = table.concat(lines, "\n") })
    end
  end
  return blocks
end

return parts
