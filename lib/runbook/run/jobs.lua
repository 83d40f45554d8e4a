--- The jobs of a run, as its journal knows them: written down before they start, asked first on resume, forgotten at the end.

local data = require "runbook.data"
local errors = require "runbook.errors"
local events = require "runbook.events"
local task = require "runbook.core.task"

local jobs = {}

local function rows_of(session)
  return session.journal:query("SELECT * FROM job WHERE state IN ('starting', 'running', 'lost') ORDER BY id")
end

--- The jobs that go on without this process, for people.
---@async
---@return string[]
function jobs.left_running(session)
  local list = {}
  for _, row in ipairs(session.journal:query("SELECT * FROM job WHERE state IN ('starting', 'running') ORDER BY id")) do
    list[#list + 1] = ("%s on %s, of %s%s"):format(data.decode(row.reference).name or row.name, row.place, row.step or "the run",
      row.unit and " " .. row.unit or "")
  end
  return list
end

-- The row of a job by its key on the far side; a job that is found again keeps its row.
local function row_of(session, key)
  if session.job_rows == nil then
    session.job_rows = {}
    for _, row in ipairs(session.journal:query("SELECT id, name FROM job")) do
      session.job_rows[row.name] = row.id
    end
  end
  return session.job_rows[key]
end

local function add_row(session, reference, place)
  local context = task.context()
  local id = session.journal:add("job", { step = context.step, unit = context.unit, name = reference.key, place = place,
    reference = data.encode(reference, "job") })
  session.job_rows[reference.key] = id
  session.journal:commit()
  return id
end

local LIVES = { starting = true, running = true, lost = true }

--- What becomes of a job. Its start is durable before anything is sent; its end joins the next commit.
---@async
---@param session table
---@param reference table  what `job:reference()` gives
---@param moment "starting"|"started"|"ended"|"forgotten"
---@param o { place: string, status?: integer }
function jobs.note(session, reference, moment, o)
  local journal, id = session.journal, row_of(session, reference.key)
  if moment == "forgotten" then
    if id then
      journal:later { "UPDATE job SET detail = 'forgotten' WHERE id = ?", id }
    end
    return
  end
  id = id or add_row(session, reference, o.place)
  local state = journal:state("job", id)
  if moment == "started" and state ~= "running" and state ~= "done" then
    journal:move("job", id, "started")
    journal:commit()
  elseif moment == "ended" and LIVES[state] then
    journal:move("job", id, "finish", { detail = tostring(o.status) })
  end
end

-- Most runs have no job and do not need its library.
local function attach(row)
  return require("runbook.job").attach(nil, data.decode(row.reference))
end

local EVENT = { done = "finish", lost = "lose", never = "lose" }

--- Ask the far side about jobs; each is then done, running or lost in the journal.
---@async
---@param session table
---@param rows table[]
function jobs.settle(session, rows)
  for _, row in ipairs(rows) do
    local handle = attach(row)
    local found = handle:state()
    local known = session.journal:state("job", row.id)
    if EVENT[found.state] and not (known == "lost" and found.state ~= "done") then
      session.journal:move("job", row.id, EVENT[found.state], { detail = found.code and tostring(found.code) })
    elseif (found.state == "running" or found.state == "starting") and known ~= "running" then
      session.journal:move("job", row.id, "started")
    end
    events.emit { type = "job", target = row.place, name = row.name, state = found.state }
  end
  session.journal:commit()
end

--- The jobs of a step, settled.
---@async
function jobs.settle_step(session, step)
  local rows = {}
  for _, row in ipairs(rows_of(session)) do
    rows[#rows + 1] = row.step == step and row or nil
  end
  jobs.settle(session, rows)
end

--- End every job that may still run, with all it started.
---@async
---@return integer stopped
function jobs.stop_all(session)
  local stopped = 0
  for _, row in ipairs(rows_of(session)) do
    local ok, err = xpcall(function()
      local handle = attach(row)
      if handle:state().state == "running" then
        handle:stop()
        stopped = stopped + 1
        session.journal:move("job", row.id, "stop")
        events.emit { type = "job", target = row.place, name = row.name, state = "stopped" }
      end
    end, errors.handler)
    if not ok then
      events.notice(("%s may still run on %s: %s"):format(row.name, row.place, tostring(errors.from(err))), "warning")
    end
  end
  session.journal:commit()
  return stopped
end

--- Remove what jobs left on the far sides; what still runs is not forgotten.
---@async
---@return integer left  how many could not be
function jobs.forget_all(session)
  local left = 0
  jobs.settle(session, rows_of(session))
  for _, row in ipairs(session.journal:query("SELECT * FROM job WHERE state <> 'running' AND coalesce(detail, '') <> 'forgotten'")) do
    local ok, err = xpcall(function()
      attach(row):forget()
    end, errors.handler)
    if not ok then
      left = left + 1
      events.notice(("the traces of job %s stay on %s: %s"):format(row.name, row.place, tostring(errors.from(err))), "warning")
    end
  end
  session.journal:commit()
  return left
end

--- Is one of the jobs still at work, as far as is known?
function jobs.running(session)
  local names = {}
  for _, row in ipairs(rows_of(session)) do
    names[#names + 1] = { name = row.name, place = row.place }
  end
  return names
end

return jobs
