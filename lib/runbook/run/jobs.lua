--- The jobs of a run, as its journal knows them: written down before they start, asked first on resume, forgotten at the end.

local data = require "runbook.data"
local errors = require "runbook.errors"
local events = require "runbook.events"
local json = require "runbook.json"
local task = require "runbook.core.task"
local tasks = require "runbook.task"

local jobs = {}

local function rows_of(session)
  return session.journal:query("SELECT * FROM job WHERE state IN ('starting', 'running', 'lost') ORDER BY id")
end

--- A job in words: what it does where its starter said so, else its name, and the step and unit it belongs to.
---@param row table  of the journal
---@return string
function jobs.describe(row)
  local reference = json.decode(row.reference)
  local what = reference.about and ("%s: %s"):format(reference.name, reference.about) or reference.name or row.name
  return ("%s on %s, of %s%s"):format(what, row.place, row.step or "the run",
    row.unit and not reference.about and " " .. row.unit or "")
end

--- The jobs that go on without this process, for people.
---@async
---@return string[]
function jobs.left_running(session)
  local list = {}
  for _, row in ipairs(session.journal:query("SELECT * FROM job WHERE state IN ('starting', 'running') ORDER BY id")) do
    list[#list + 1] = jobs.describe(row)
  end
  return list
end

--- The jobs of a step whose end nobody knows and that do not say they may be repeated.
---@async
---@param session table
---@param step string
---@return table[] rows
function jobs.doubtful(session, step)
  local list = {}
  for _, row in ipairs(session.journal:query("SELECT * FROM job WHERE step = ? AND state = 'lost' ORDER BY id", step)) do
    list[#list + 1] = not json.decode(row.reference).again and row or nil
  end
  return list
end

--- The command that shows what a lost job printed.
---@param row table  of the journal
---@return string? command  nil: nothing of it is left there
function jobs.look_by_hand(row)
  local folder = row.detail and row.detail:match "^/.*"
  return folder and require("runbook.place").open(data.decode(row.reference).place):by_hand { "tail", folder .. "/out", folder .. "/err" }
end

--- The lost jobs of a step count as over from now on; the next of their name starts anew.
---@async
function jobs.settle_lost(session, step)
  for _, row in ipairs(session.journal:query("SELECT id FROM job WHERE step = ? AND state = 'lost' ORDER BY id", step)) do
    session.journal:move("job", row.id, "settle")
  end
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

local LIVES = { starting = true, running = true, lost = true, never = true }

-- What the moments that end a job are called in the state table.
local END = { ended = "finish", lost = "lose", settled = "settle", forgotten = "settle" }

--- What becomes of a job. Its start is durable before anything is sent; its end joins the next commit.
---@async
---@param session table
---@param reference table  what `job:reference()` gives
---@param moment "starting"|"started"|"ended"|"lost"|"settled"|"forgotten"
---@param o { place: string, status?: integer, dir?: string }
function jobs.note(session, reference, moment, o)
  local journal, id = session.journal, row_of(session, reference.key)
  if id == nil and moment == "forgotten" then
    return
  end
  id = id or add_row(session, reference, o.place)
  local state = journal:state("job", id)
  if moment == "started" and state ~= "running" and state ~= "done" then
    journal:move("job", id, "started")
    journal:commit()
  elseif END[moment] and LIVES[state] and not (moment == "lost" and state == "lost") then
    journal:move("job", id, END[moment], { detail = o.status and tostring(o.status) or o.dir })
  end
  if moment == "forgotten" then
    journal:later { "UPDATE job SET detail = 'forgotten' WHERE id = ?", id }
  end
end

-- Most runs have no job and do not need its library.
local function attach(row)
  return require("runbook.job").attach(nil, data.decode(row.reference))
end

local EVENT = { done = "finish", lost = "lose", never = "never" }

-- One that was known to run and has left no trace there was not "never": the machine has lost its disk, or somebody tidied up.
local function event_of(known, found)
  if found.state == "never" and (known == "lost" or known == "running" and found.dir == nil) then
    return "lose"
  end
  return EVENT[found.state]
end

--- Ask the far side about jobs; each is then done, running or lost in the journal.
---@async
---@param session table
---@param rows table[]
function jobs.settle(session, rows)
  for _, row in ipairs(rows) do
    local handle = attach(row)
    local found = handle:state()
    local known = session.journal:state("job", row.id)
    local event = event_of(known, found)
    if event and not (known == "lost" and event == "lose") then
      session.journal:move("job", row.id, event, { detail = found.code and tostring(found.code) or found.dir })
    elseif (found.state == "running" or found.state == "starting") and known ~= "running" then
      session.journal:move("job", row.id, "started")
    end
    events.emit { type = "job", target = row.place, name = row.name, state = found.state }
  end
  session.journal:commit()
end

--- The jobs of a step, or of the whole run, settled.
---@async
---@param session table
---@param step string?
function jobs.settle_step(session, step)
  local rows = {}
  for _, row in ipairs(rows_of(session)) do
    rows[#rows + 1] = (step == nil or row.step == step) and row or nil
  end
  jobs.settle(session, rows)
end

--- Wait for the jobs of a step that an earlier process of the run left at work.
---@async
---@param session table
---@param step string
function jobs.wait_for_earlier(session, step)
  jobs.settle_step(session, step)
  for _, row in ipairs(session.journal:query("SELECT * FROM job WHERE step = ? AND state IN ('starting', 'running')", step)) do
    events.notice(("waiting for what still runs: %s"):format(jobs.describe(row)))
    local handle = attach(row)
    handle:wait { on_data = function() end }
    handle:forget()
  end
end

local function stop_one(session, row)
  jobs.settle(session, { row })
  if session.journal:state("job", row.id) ~= "running" then
    return false
  end
  local handle = attach(row)
  handle:stop()
  if handle:state().state == "running" then
    errors.raise { kind = "busy", target = row.place, message = "it does not end" }
  end
  session.journal:move("job", row.id, "stop")
  events.emit { type = "job", target = row.place, name = row.name, state = "stopped" }
  return true
end

--- End every job that may still run, with all it started.
---@async
---@param session table
---@param seconds? number  for each; nil: as long as it takes
---@return string[] stopped
---@return string[] unsure  those that may still run; it was said why
function jobs.stop_all(session, seconds)
  local stopped, unsure = {}, {}
  tasks.each(rows_of(session), { limit = 8 }, function(row)
    local what = jobs.describe(row)
    local ok, result = xpcall(tasks.timeout, errors.handler, seconds, "ending it", stop_one, session, row)
    if ok and result then
      stopped[#stopped + 1] = what
      events.notice("ended: " .. what)
    elseif not ok and errors.is_cancelled(result) then
      error(result, 0)
    elseif not ok then
      unsure[#unsure + 1] = what
      events.notice(("this may still run: %s: %s"):format(what, tostring(errors.from(result))), "warning")
    end
  end)
  session.journal:commit()
  return stopped, unsure
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
    if not ok and errors.is_cancelled(err) then
      error(err, 0)
    elseif not ok then
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
