--- A step that a killed process left in the middle: what is known of its changes, and whether it may run again.

local errors = require "runbook.errors"
local events = require "runbook.events"
local ask = require "runbook.ask"
local jobs = require "runbook.run.jobs"
local json = require "runbook.json"

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

--- From now on its changes count as done, and its lost jobs as over: somebody has looked, or the step's own check has.
---@async
function interrupted.settle(session, item)
  for _, row in ipairs(doubtful(session, item)) do
    session.journal:move("effect", row.id, "settle")
  end
  jobs.settle_lost(session, item.id)
end

-- Changes and jobs whose outcome nobody knows, one text each, with what a person can look at them with.
local function doubts(session, item)
  local list = {}
  for _, row in ipairs(doubtful(session, item)) do
    list[#list + 1] = ("nobody knows whether this happened: %s (%s)%s"):format(row.summary, row.target or "here",
      row.by_hand and "\n  by hand: " .. row.by_hand or "")
  end
  for _, row in ipairs(jobs.doubtful(session, item.id)) do
    local look = jobs.look_by_hand(row)
    list[#list + 1] = ("nobody knows how this job ended, for it was killed or its machine restarted: %s%s")
      :format(jobs.describe(row), look and "\n  what it said: " .. look or "")
  end
  return list
end

--- What nobody knows of a run that was stopped, in words: its next process asks about these.
---@async
---@return string[]
function interrupted.unconfirmed(session)
  local list = {}
  for _, row in ipairs(session.journal:query [[SELECT * FROM effect WHERE state = 'unknown' AND repeatable = 0 AND undoes IS NULL
    ORDER BY id]]) do
    list[#list + 1] = ("%s on %s"):format(row.summary, row.target or "here")
  end
  for _, row in ipairs(session.journal:query "SELECT * FROM job WHERE state = 'lost' ORDER BY id") do
    list[#list + 1] = not json.decode(row.reference).again and jobs.describe(row) or nil
  end
  return table.move(session.unsure_jobs or {}, 1, #(session.unsure_jobs or {}), #list + 1, list)
end

--- Return when the body may run from its top again; else ask, or end with exit 5.
---@async
---@param needs_input fun(flag: string, alternative: string)
function interrupted.must_be_repeatable(session, item, needs_input)
  local rows = doubts(session, item)
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
  for _, text in ipairs(rows) do
    events.notice(text, "warning")
  end
  if session.options.no_input or not ask.available() then
    needs_input(("--again %s"):format(item.id), (", or `runbook mark %s %s done --reason TEXT`"):format(session.name, item.id))
  end
  local answer = ask.choice {
    text = ("%s was interrupted. Look at what is said above. Run the step again from its top?"):format(item.id),
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
