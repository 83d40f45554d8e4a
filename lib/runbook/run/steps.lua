--- Running the steps of a book, in order, on a session.

local ask = require "runbook.ask"
local consent = require "runbook.run.consent"
local data = require "runbook.data"
local errors = require "runbook.errors"
local events = require "runbook.events"
local interrupted = require "runbook.run.interrupted"
local obligation = require "runbook.obligation"
local task = require "runbook.task"
local time = require "runbook.core.time"
local units = require "runbook.units"

local steps = {}

-- How a phase says that the step cannot go on now, without having failed: { outcome = "waiting"|"declined"|"skipped"|"already" }.
local Ending = { __name = "runbook.ending" }

local function ending(outcome, text, exit, flag)
  error(setmetatable({ outcome = outcome, text = text, exit = exit, flag = flag }, Ending), 0)
end

local function seconds(value)
  if type(value) == "string" then
    local n, message = units.parse_duration(value)
    if n == nil then
      errors.raise { kind = "usage", message = message }
    end
    return n
  end
  return value
end

local function called(value, ...)
  if type(value) == "function" then
    return value(...)
  end
  return value
end

local function must_apply(session, item)
  local when = item.options.when
  if when ~= nil and not session:in_phase(item, "when", called, when) then
    ending("skipped", "its `when` is false")
  end
end

local function already_so(session, item)
  if item.options.check and session:in_phase(item, "check", item.options.check) then
    ending("already", "it is so already")
  end
end

local function hold_guard(session, item)
  if item.options.guard == nil then
    return
  end
  local ok, err = xpcall(session.in_phase, errors.handler, session, item, "guard", item.options.guard)
  if ok then
    return
  end
  for _, one in ipairs(session.options.overrule or {}) do
    if one.id == item.id and errors.is(err) and not errors.is_cancelled(err) then
      session.journal:decide("overrule", item.id, one.reason)
      session.journal:commit()
      events.notice(("overruled (%s): %s"):format(one.reason, tostring(err)), "warning")
      return
    end
  end
  error(err, 0)
end

local function rows_of(session, item)
  return consent.rows(session:in_phase(item, "guard", called, item.options.disrupts))
end

-- `flag` is what `resume` wants to hear; the command that goes on repeats it.
local function needs_input(flag, alternative)
  ending("waiting", "needs input: " .. flag .. (alternative or ""), 5, flag)
end

local function agree(session, item)
  if item.options.disrupts == nil then
    return
  end
  local given, flag = consent.obtain(session, item, rows_of(session, item), "resume")
  if given == nil then
    needs_input(flag)
  elseif not given then
    ending("declined", "declined", 6)
  end
end

local body = {}

function body.step(session, item)
  return session:in_phase(item, "body", item.body)
end

function body.manual(session, item)
  local who = session.options.done and session.options.done[item.id]
  local rows = item.options.disrupts and rows_of(session, item)
  events.emit { type = "question", step = item.id, title = item.title, text = item.options.text, rows = rows }
  if who == nil then
    if session.options.no_input or not ask.available() then
      needs_input(("--done %s=WHO"):format(item.id))
    end
    who = ask.manual { step = item.id, title = item.title, text = item.options.text, rows = rows }
    if who == nil then
      ending("waiting", "nobody has done it yet", 5, ("--done %s=WHO"):format(item.id))
    end
  end
  session.journal:decide("done", item.id, who)
  return { who = who, at = os.date("!%Y-%m-%dT%H:%M:%SZ") }
end

local function start_of(value)
  if type(value) == "string" then
    local moment, problem = units.parse_time(value)
    if moment == nil then
      errors.raise { kind = "usage", message = problem }
    end
    return moment
  end
  return value
end

function body.pause(_, item)
  local starts = item.options.starts and start_of(item.options.starts)
  if starts and time.utc() < starts then
    ending("waiting", ("not before %s"):format(units.time(starts)), 5)
  elseif starts == nil and not item.paused_before then
    ending("waiting", item.options.text or item.title, 5)
  end
  return { at = os.date("!%Y-%m-%dT%H:%M:%SZ") }
end

local function say_check(check, outcome, text, err)
  events.emit { type = "check", title = check[1], outcome = outcome, text = text, error = err and errors.record(err) }
end

-- What a check says: nothing, a text, a finding with a table ({ text =, table = }, see events.table), or a list of these.
local function findings_of(value)
  if value == nil or value == true then
    return {}
  elseif type(value) == "table" and value.text == nil then
    return value
  end
  return { value }
end

-- One broken thing may fail many checks: it is shown once, with their number.
local function add_stop(found, check, err)
  found.stopped = found.stopped + 1
  for _, one in ipairs(found.stop) do
    if tostring(one.error) == tostring(err) then
      one.more = one.more + 1
      one.title = ("%s (and %d more)"):format(one.first, one.more)
      return
    end
  end
  found.stop[#found.stop + 1] = { title = check[1], first = check[1], more = 0, error = err }
end

--- Run a list of checks, at most eight at a time: findings of all, none hidden by another's failure.
---@async
---@param list table[]  { title, function }
---@param look? table  the look they are part of, see lib/runbook/ssh/pool.lua
---@return { good: integer, know: table[], stop: table[], stopped: integer }  stop: alike ones folded; stopped: how many
function steps.run_checks(list, look)
  local found = { good = 0, know = {}, stop = {}, stopped = 0 }
  local answers = {}
  local looking = setmetatable({ look = look or {} }, { __index = task.context() })
  task.with_context(looking, task.each, list, { limit = 8 }, function(check, i)
    local r = table.pack(xpcall(check[2], errors.handler))
    if not r[1] and errors.is_cancelled(r[2]) then
      error(r[2], 0)
    end
    answers[i] = r
  end)
  for i, check in ipairs(list) do
    local ok, value = answers[i][1], answers[i][2]
    if not ok then
      add_stop(found, check, errors.from(value))
    else
      local list_of = findings_of(value)
      found.good = found.good + (#list_of == 0 and 1 or 0)
      if #list_of == 0 then
        say_check(check, "good")
      end
      for _, one in ipairs(list_of) do
        one = type(one) == "table" and one or { text = tostring(one) }
        found.know[#found.know + 1] = { title = check[1], text = one.text, table = one.table }
        say_check(check, "know", one.text)
      end
    end
  end
  for _, one in ipairs(found.stop) do
    say_check({ one.title }, "stop", tostring(one.error), one.error)
  end
  for _, one in ipairs(found.know) do
    if one.table then
      events.table(one.table)
    end
  end
  return found
end

local function is_first(session, item)
  for _, one in ipairs(session.book.items) do
    if one.id then
      return one == item
    end
  end
end

function body.checks(session, item)
  local look = session.book.look -- of this start; the checks that come first are part of it
  session.book.look = nil
  local found = session:in_phase(item, "checks", steps.run_checks, item.checks, is_first(session, item) and look or nil)
  if #found.stop > 0 then
    local lines = {}
    for i, one in ipairs(found.stop) do
      lines[i] = ("  %s: %s"):format(one.title, tostring(one.error))
    end
    local first = found.stop[1].error
    errors.raise {
      kind = first.kind, code = first.code, cause = first, hint = first.hint, target = first.target,
      message = ("%d of %d checks stop the run\n%s"):format(found.stopped, #item.checks, table.concat(lines, "\n")),
    }
  end
  return { good = found.good, know = #found.know }
end

local function run_phases(session, item)
  must_apply(session, item)
  interrupted.settle_jobs(session, item)
  already_so(session, item)
  interrupted.must_be_repeatable(session, item, needs_input)
  hold_guard(session, item)
  if item.kind ~= "manual" then
    agree(session, item)
  end
  local result = body[item.kind](session, item)
  if item.options.verify then
    session:in_phase(item, "verify", item.options.verify)
  end
  return result
end

local function outcome_of(session, item, ok, result)
  if ok then
    return "done", result
  elseif getmetatable(result) == Ending then
    return result.outcome, nil, result
  elseif session.stopping or errors.is_cancelled(result) then
    return "stopped", nil, result
  end
  local err = errors.from(result)
  err.where = err.where or ("%s:%d"):format(item.file, item.line)
  return "failed", nil, err
end

local EVENT = {
  done = "finish", failed = "fail", stopped = "stop", waiting = "wait", declined = "stop", skipped = "skip", already = "already",
}

-- Obligations of the step end with it, however it ended; one that cannot be met stays owed.
local function clean_up(session, item, outcome)
  if outcome ~= "stopped" then
    require("runbook.job.record").close(session, item.id, outcome)
    if outcome == "done" or outcome == "already" then -- its body or its check was content
      require("runbook.run.jobs").settle_lost(session, item.id)
    end
    task.with_context(session:context(item, "clean-up"), obligation.meet_all, session,
      { step = item.id, scope = "step", keep_jobs = true })
  end
end

--- Run one step to an outcome: done failed skipped already waiting declined stopped.
---@async
---@return string outcome
---@return any detail  error value or ending
function steps.run_one(session, item, position, count)
  local journal, began = session.journal, time.utc()
  item.paused_before = journal:state("step", item.id) == "waiting"
  local row = journal:step(item.id)
  session.try = (row and row.try or 0) + 1
  journal:move("step", item.id, "start", {
    position = position, title = item.title, try = session.try, started = began, source = item.source_digest,
    parameters = session.parameters_digest,
  })
  journal:commit()
  events.emit { type = "step-start", step = item.id, title = item.title, index = position, count = count, kind = item.kind }
  local ok, result = xpcall(task.timeout, function(e)
    return getmetatable(e) == Ending and e or errors.handler(e)
  end, seconds(item.options.timeout), item.title, run_phases, session, item)
  local encoded
  if ok then
    ok, encoded = xpcall(data.encode, errors.handler, result, ("the result of step `%s`"):format(item.id))
    result = ok and result or encoded
  end
  local outcome, value, detail = outcome_of(session, item, ok, result)
  clean_up(session, item, outcome)
  journal:move("step", item.id, EVENT[outcome], {
    ended = time.utc(), result = outcome == "done" and encoded or nil,
    error = errors.is(detail) and data.encode(errors.record(detail), "error") or nil,
    reason = getmetatable(detail) == Ending and detail.text or nil,
  })
  if outcome == "done" then
    session.results[item.id] = { value }
  end
  if outcome ~= "stopped" then -- a cancelled task cannot wait; the driver commits
    journal:commit()
  end
  events.emit {
    type = "step-end", step = item.id, title = item.title, outcome = outcome, seconds = time.utc() - began, index = position,
    text = getmetatable(detail) == Ending and detail.text or nil, error = errors.is(detail) and errors.record(detail) or nil,
  }
  return outcome, detail
end

return steps
