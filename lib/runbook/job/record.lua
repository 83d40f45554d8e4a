--- Which jobs of a run a step may find again; the rows are written by lib/runbook/run/jobs.lua.
---
--- A job belongs to one attempt at its step, from the first start to the outcome; kills and Ctrl-C in between do not end an
--- attempt. Once the step has an outcome its jobs are history, and a step that is done again starts new ones. Not so a job
--- whose end the failed attempt did not see: the next one finds it, at work or ended. One that was stopped, or that somebody
--- has said to count as over though nobody knows its end, is history at once.

local task = require "runbook.core.task"

local record = {}

local OVER = { stopped = true, settled = true }
local AT_WORK = { starting = true, running = true }

-- "17 12 13": of the jobs up to 17, all but 12 and 13 are history.
local function closed(journal, step)
  local last, open = 0, {}
  for number in (journal.meta["jobs-closed:" .. tostring(step)] or ""):gmatch "%d+" do
    if last == 0 then
      last = math.tointeger(tonumber(number))
    else
      open[math.tointeger(tonumber(number))] = true
    end
  end
  return last, open
end

--- The step has an outcome: what it started is not found again by a later attempt. Joins the next commit.
---@async
---@param session table
---@param step string
---@param outcome string  "done": whatever still runs was not waited for, and is history too
function record.close(session, step, outcome)
  local journal = session.journal
  local last, open = closed(journal, step)
  if journal.next_id.job - 1 <= last and next(open) == nil then
    return
  end
  local ids = { journal.next_id.job - 1 }
  for _, row in ipairs(outcome ~= "done" and journal:query("SELECT id FROM job WHERE step = ?", step) or {}) do
    if AT_WORK[journal:state("job", row.id)] and (row.id > last or open[row.id]) then
      ids[#ids + 1] = row.id
    end
  end
  journal:set_meta("jobs-closed:" .. step, table.concat(ids, " "))
end

--- What the journal knows of a job: the try to begin with, and the keys that are history.
---@async
---@param prefix string  key without the try
---@return integer try
---@return table<string, boolean> history
function record.find(prefix)
  local session = task.context().session
  local try, history = 1, {}
  if not session or not session.journal then
    return try, history
  end
  local last, open = closed(session.journal, task.context().step)
  local rows = session.journal:query("SELECT id, name, state FROM job WHERE substr(name, 1, ?) = ? ORDER BY id",
    #prefix + 1, prefix .. "/")
  for _, row in ipairs(rows) do
    local n = math.tointeger(tonumber(row.name:match "/(%d+)$"))
    local is_history = OVER[row.state] or row.id <= last and not open[row.id] and not AT_WORK[row.state]
    history[row.name] = is_history or nil
    try = is_history and n + 1 or n
  end
  return try, history
end

return record
