--- The report of a run: what its journal and its events say, as one table that `report/document.lua` puts into words, and
--- `show --report --json` prints.
---
--- Here nothing is read from disk or asked of a machine: `report/facts.lua` has done that. Names stay the bytes they are.

local copies = require "runbook.report.copies"
local json = require "runbook.json"
local story = require "runbook.report.story"

local report = {}

--- Fields may be added within a version.
report.SCHEMA = 1

local function by_id(rows)
  local map = {}
  for _, row in ipairs(rows) do
    map[row.id] = row
  end
  return map
end

local function error_of(row)
  return row.error and json.decode(row.error) or nil
end

local function tries_of(told, id)
  local count, seconds = 0, 0
  for _, try in ipairs(told.tries) do
    if try.step == id and not try.undo and try.process > 0 then
      count, seconds = count + 1, seconds + (try.seconds or (try.ended or try.at) - try.at)
    end
  end
  return count, seconds
end

local function units_of(rows, id)
  local counts, failed = {}, {}
  for _, unit in ipairs(rows) do
    if unit.id:sub(1, #id + 1) == id .. "/" then
      counts[unit.state] = (counts[unit.state] or 0) + 1
      if unit.state == "failed" or unit.state == "left" then
        failed[#failed + 1] = { name = unit.id:sub(#id + 2), state = unit.state, error = error_of(unit), reason = unit.reason }
      end
    end
  end
  return next(counts) and counts or nil, failed
end

local function step_of(told, facts, row)
  local count, seconds = tries_of(told, row.id)
  if count == 0 and row.started and row.ended then -- what people saw was not kept
    count, seconds = row.try or 1, row.ended - row.started
  end
  local units, failed = units_of(facts.unit, row.id)
  return {
    id = row.id, title = row.title, state = row.state or "pending", position = row.position, tries = count, seconds = seconds,
    started = row.started, ended = row.ended, reason = row.reason, units = units, units_not_done = failed,
    error = row.state ~= "done" and error_of(row) or nil,
  }
end

-- In the order of the file, where that still loads; what it does not know any more comes last.
local function steps_of(told, facts)
  local kept, list, seen = by_id(facts.step), {}, {}
  for _, item in ipairs(facts.items or {}) do
    seen[item.id] = true
    local row = kept[item.id] or { id = item.id }
    row.title = row.title or item.title
    list[#list + 1] = step_of(told, facts, row)
    list[#list].disrupts = item.disrupts or nil
  end
  for _, row in ipairs(facts.step) do
    if not seen[row.id] then
      list[#list + 1] = step_of(told, facts, row)
    end
  end
  return list
end

-- When the same was asked again.
local function asked_again(list, i)
  for j = i + 1, #list do
    if list[j].step == list[i].step then
      return list[j].at
    end
  end
  return math.huge
end

-- Each time somebody was asked, with what was said to it. Asked again before anybody answered, it is one question.
local function questions_of(told, decisions)
  local list = {}
  for i, question in ipairs(told.questions) do
    local till = asked_again(told.questions, i)
    for _, said in ipairs(decisions) do
      if said.subject == question.step and said.at >= question.at and said.at < till
          and (said.what == "confirm" or said.what == "done") then
        question.answered, question.who, question.answer = said.at, said.who, said.what == "done" and said.reason or said.what
      end
    end
    if question.answered or till == math.huge then
      list[#list + 1] = question
    end
  end
  return list
end

local function last_end(told, id, outcome, undo)
  local at
  for _, try in ipairs(told.tries) do
    if (id == nil or try.step == id) and try.outcome == outcome and (try.undo or false) == undo then
      at = try.ended
    end
  end
  return at
end

-- The steps that lock people out: those that the file says disrupt, else those at which rows were shown and agreed to.
local function disruptive(steps, questions)
  local ids, said = {}, {}
  for _, question in ipairs(questions) do
    said[question.step] = question.rows and true or said[question.step]
  end
  for _, step in ipairs(steps) do
    if step.disrupts or said[step.id] then
      ids[#ids + 1] = step.id
    end
  end
  return ids
end

-- From the word that began it to the end of the last step that disrupts (which opens again what the first one closed); where one
-- step alone does, to the end of the run. Whoever goes back opens with the undo of the first.
local function lock_out(told, run, steps, questions)
  local ids = disruptive(steps, questions)
  local began
  for _, question in ipairs(questions) do
    if question.step == ids[1] and question.answered then
      began = began and math.min(began, question.answered) or question.answered
    end
  end
  if not began then
    return nil
  end
  local ended = last_end(told, ids[1], "undone", true)
  if not ended and #ids > 1 then
    ended = last_end(told, ids[#ids], "done", false)
  elseif not ended and run.state == "done" then
    ended = last_end(told, nil, "done", false)
  end
  local found = { began = began, ended = ended, seconds = ended and ended - began, from = ids[1], till = ended and ids[#ids] or nil }
  for _, forecast in ipairs(told.forecasts) do
    if forecast.at <= began then
      found.forecast = forecast
    end
  end
  return found
end

local function not_carried(facts, list)
  local aside = {}
  for _, row in ipairs(facts.effect) do
    if row.verb == "sync.set_aside" and row.state == "done" then
      aside[#aside + 1] = { what = "set aside", text = row.summary, at = row.changed, where = row.target }
    end
  end
  local reasons = {}
  for _, said in ipairs(facts.decision) do
    if said.what == "leave" then
      reasons[said.subject] = said
    end
  end
  for _, copy in ipairs(list) do
    for _, receipt in ipairs(copy.receipts) do
      if receipt.level == "left" then
        local said = reasons[require("runbook.copier.record").unit_name(receipt.unit)] or {}
        aside[#aside + 1] = { what = "left out", unit = receipt.unit, text = said.reason, who = said.who, at = said.at, where = copy.to }
      end
    end
  end
  return aside
end

local function effects_of(rows)
  local list = {}
  for i, row in ipairs(rows) do
    list[i] = {
      id = row.id, at = row.started, state = row.state, step = row.step, unit = row.unit, try = row.try, verb = row.verb, class = row.class,
      target = row.target, summary = row.summary, by_hand = row.by_hand, undoes = row.undoes, error = error_of(row),
      has_undo = row.inverse ~= nil,
    }
  end
  return list
end

local function obligations_of(rows, describe)
  local list = {}
  for i, row in ipairs(rows) do
    list[i] = {
      kind = row.kind, state = row.state, text = describe(row), step = row.step, scope = row.scope, tries = row.tries, costs = row.costs,
      error = row.state == "owed" and error_of(row) or nil,
    }
  end
  return list
end

local function run_of(facts)
  local row = facts.row
  local state = row.state
  if row.alive then
    state = "running"
  elseif state == "running" or state == "rolling-back" then
    state = "interrupted" -- its process is gone, and had no time to say so
  end
  return {
    name = row.name, id = facts.meta.id, title = facts.meta.title, runbook = facts.meta.runbook, state = state, detail = row.detail,
    back = row.state:match "^roll" and true or nil, step = row.step, started = tonumber(facts.meta.started), changed = row.ended,
    host = facts.meta.host,
  }
end

-- Who ran which version, each once.
local function versions_of(facts, told)
  local list, seen = { { what = "began with", version = facts.meta.version } }, { [facts.meta.version or ""] = true }
  for _, process in ipairs(told.processes) do
    if process.version and not seen[process.version] then
      seen[process.version] = true
      list[#list + 1] = { what = "went on with", version = process.version }
    end
  end
  list[#list + 1] = { what = "report by", version = facts.version }
  return list
end

local function decisions_of(rows)
  local list = {}
  for _, row in ipairs(rows) do
    if row.what ~= "confirm" and row.what ~= "done" then -- those are answers
      list[#list + 1] = { at = row.at, who = row.who, what = row.what, subject = row.subject, reason = row.reason }
    end
  end
  return list
end

--- Everything that is known of a run.
---@param facts table  see report/facts.lua
---@return table model  plain data
function report.model(facts)
  local told = story.read(facts.events, facts.row.alive)
  local run, steps = run_of(facts), steps_of(told, facts)
  local copied = copies.of(facts.meta, facts.receipt)
  local questions = questions_of(told, facts.decision)
  run.finished = told.last or run.changed
  run.active = 0
  for _, process in ipairs(told.processes) do
    run.active = run.active + process.ended - process.at
  end
  return {
    schema = report.SCHEMA, run = run, steps = steps, processes = told.processes, tries = told.tries, questions = questions,
    lock_out = lock_out(told, run, steps, questions), copies = copied, not_carried = not_carried(facts, copied),
    tables = told.tables, checks = told.checks, decisions = decisions_of(facts.decision), failures = told.failures,
    notices = told.notices, effects = effects_of(facts.effect), obligations = obligations_of(facts.obligation, facts.describe),
    jobs = facts.jobs, attachments = facts.attachment, parameters = facts.parameters, sources = facts.sources,
    versions = versions_of(facts, told), logs = told.logs,
  }
end

return report
