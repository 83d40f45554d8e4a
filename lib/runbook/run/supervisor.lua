--- The work on a run as something that signals and deadlines can stop, while its driver lives on to write what became of it.

local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local failure = require "runbook.failure"
local task = require "runbook.core.task"
local units = require "runbook.units"

local supervisor = {}

-- A process works on one run at a time; two hosts in one process have a Lua state, and so a supervisor, each.
local active

--- A first Ctrl-C: nothing new starts, jobs are left running, the rest stops.
---@param signal string  "INT"
---@return boolean stopping  false when no run is worked on
function supervisor.request_stop(signal)
  if active == nil then
    return false
  end
  active.stopping = active.stopping or signal
  if active.worker then
    active.worker:cancel()
  end
  return true
end

--- A second Ctrl-C: the jobs' process groups are ended too.
function supervisor.request_kill()
  if active then
    active.kill_jobs = true
  end
end

--- Is a stop under way?
---@return boolean
function supervisor.stop_requested()
  return active ~= nil and active.stopping ~= nil
end

--- The session at work, for messages; nil when there is none.
function supervisor.active()
  return active
end

--- The exit code of work that was stopped.
function supervisor.exit_code(session)
  return failure.EXIT_OF_STOP[session.stopping] or failure.EXIT_OF_STOP.INT
end

local function start_deadline(session)
  local deadline = session.options.deadline
  if deadline == nil then
    return nil
  end
  return task.spawn(function()
    task.sleep(type(deadline) == "string" and units.parse_duration(deadline) or deadline)
    supervisor.request_stop("DEADLINE")
  end)
end

local function stop_jobs(session)
  if session.stopping and session.kill_jobs then
    session:in_phase(nil, "clean-up", effect.outside_of_step, require("runbook.run.jobs").stop_all, session)
  end
end

-- While a job goes on without us the locks stay: it may write where they are, and `resume` or `rollback` of this run takes
-- them again.
local function release_locks(session)
  if session.keeper then
    session.keeper:cancel()
    task.join_all { session.keeper }
    session.keeper = nil
  end
  local going_on = "SELECT 1 FROM job WHERE state IN ('starting', 'running')"
  if #session.locks > 0 and #session.journal:query(going_on) > 0 then
    events.notice "a job goes on, so its run keeps its locks"
  else
    for _, one in ipairs(session.locks) do
      one.owed:meet()
    end
  end
  session.locks = {}
end

--- Run `fn(session, ...)` in a task that can be stopped, then `finish(ok, results...)` in this one.
---@async
---@return any ...  what `finish` returns
function supervisor.supervise(session, fn, finish, ...)
  active = session
  local deadline = start_deadline(session)
  session.worker = task.spawn(fn, session, ...)
  task.join_all { session.worker }
  if deadline then
    deadline:cancel()
    task.join_all { deadline }
  end
  stop_jobs(session)
  local r = table.pack(xpcall(finish, errors.handler, session.worker:result()))
  session:in_phase(nil, "clean-up", release_locks, session)
  active = nil
  if not r[1] then
    error(r[2], 0)
  end
  return table.unpack(r, 2, r.n)
end

return supervisor
