--- A step that a killed process left in the middle: what is known of its changes, and whether it may run again.

local errors = require "runbook.errors"
local events = require "runbook.events"
local ask = require "runbook.ask"
local jobs = require "runbook.run.jobs"

local interrupted = {}

--- Ask the far side about the jobs of a step; each is then done, running or lost in the journal.
---@async
function interrupted.settle_jobs(session, item)
  session:in_phase(item, "check", jobs.settle_step, session, item.id)
end

-- Changes whose outcome nobody knows and that do not say they may be repeated.
local function doubtful(session, item)
  return session.journal:query([[SELECT * FROM effect WHERE step = ? AND state = 'unknown' AND repeatable = 0
    AND undoes IS NULL ORDER BY id]], item.id)
end

--- From now on they count as done: somebody has looked, or the step's own check has.
---@async
function interrupted.settle(session, item)
  for _, row in ipairs(doubtful(session, item)) do
    session.journal:move("effect", row.id, "settle")
  end
end

--- Return when the body may run from its top again; else ask, or end with exit 5.
---@async
---@param needs_input fun(flag: string)
function interrupted.must_be_repeatable(session, item, needs_input)
  local rows = doubtful(session, item)
  if #rows == 0 then
    return
  elseif item.options.again then
    return interrupted.settle(session, item)
  end
  for _, id in ipairs(session.options.again or {}) do
    if id == item.id then
      session.journal:decide("again", item.id)
      return interrupted.settle(session, item)
    end
  end
  for _, row in ipairs(rows) do
    events.notice(("nobody knows whether this happened: %s (%s)%s"):format(row.summary, row.target or "here",
      row.by_hand and "\n  by hand: " .. row.by_hand or ""), "warning")
  end
  if session.options.no_input or not ask.available() then
    needs_input(("--again %s, or `runbook mark %s %s done --reason TEXT`"):format(item.id, session.name, item.id))
  end
  local answer = ask.choice {
    text = ("%s was interrupted. Look at the changes above. Run the step again from its top?"):format(item.id),
    choices = { "again", "stop" },
  }
  if answer ~= "again" then
    errors.raise { kind = "unknown", message = ("%s was interrupted, and nobody has said how to go on"):format(item.id),
      hint = ("runbook resume %s --again %s, or runbook mark %s %s done --reason TEXT")
        :format(session.name, item.id, session.name, item.id) }
  end
  session.journal:decide("again", item.id, "asked")
  interrupted.settle(session, item)
end

return interrupted
