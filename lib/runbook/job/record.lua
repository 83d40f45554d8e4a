--- Which jobs of a run a step may find again; the rows are written by lib/runbook/run/jobs.lua.
---
--- A job belongs to one attempt at its step, from the first start to the outcome; kills and Ctrl-C in between do not end an
--- attempt. Once the step has an outcome its jobs are history: a step that is done again starts new ones.

local task = require "runbook.core.task"

local record = {}

local function closed(journal, step)
  return math.tointeger(tonumber(journal.meta["jobs-closed:" .. tostring(step)])) or 0
end

--- The step has an outcome: what it started is not found again by a later attempt. Joins the next commit.
---@param session table
---@param step string
function record.close(session, step)
  local journal = session.journal
  if journal.next_id.job - 1 > closed(journal, step) then
    journal:set_meta("jobs-closed:" .. step, tostring(journal.next_id.job - 1))
  end
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
  local last = closed(session.journal, task.context().step)
  local rows = session.journal:query("SELECT id, name FROM job WHERE substr(name, 1, ?) = ? ORDER BY id", #prefix + 1, prefix .. "/")
  for _, row in ipairs(rows) do
    local n = math.tointeger(tonumber(row.name:match "/(%d+)$"))
    history[row.name] = row.id <= last or nil
    try = row.id <= last and n + 1 or n
  end
  return try, history
end

return record
