--- The work on a run as something that signals and deadlines can stop, while its driver lives on to write what became of it.

local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local failure = require "runbook.failure"
local jobs = require "runbook.run.jobs"
local obligation = require "runbook.obligation"
local task = require "runbook.core.task"
local tasks = require "runbook.task"
local units = require "runbook.units"

local supervisor = {}

local KILL_SECONDS = 15  -- for a job to end once it was told to, with the way there
local CLOSE_SECONDS = 4  -- for clean-up after a stop

-- A process works on one run at a time; two hosts in one process have a Lua state, and so a supervisor, each.
local active

--- A first Ctrl-C: nothing new starts, jobs are left running, the rest stops.
---@param signal string  "INT"
---@param moment? number  seconds to wait for a second one when jobs go on: the rest has stopped before anybody could press it
---@return boolean stopping  false when no run is worked on
function supervisor.request_stop(signal, moment)
  if active == nil then
    return false
  end
  active.stopping, active.moment = active.stopping or signal, moment
  if active.worker then
    active.worker:cancel()
  end
  return true
end

--- A second Ctrl-C: the jobs' process groups are ended too, and nothing else is waited for.
---@return boolean stopping  false when no run is worked on
function supervisor.request_kill()
  if active == nil then
    return false
  end
  active.kill_jobs = true
  local waiting = active.pause or active.closing
  if waiting then
    waiting:cancel()
  end
  return true
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

-- At a terminal: a moment for the second Ctrl-C, when there is something for it to end.
local function give_a_moment(session)
  if not session.stopping or session.kill_jobs or not session.moment then
    return
  end
  session.journal:commit()
  local left = jobs.left_running(session)
  if #left > 0 then
    events.notice(("%s: %s. Ctrl-C within %d s ends %s; later `runbook sweep %s --jobs` does"):format(
      #left == 1 and "this job goes on" or "these jobs go on", table.concat(left, "; "), session.moment,
      #left == 1 and "it" or "them", session.name), "warning")
    session.pause = task.spawn(task.sleep, session.moment)
    task.join_all { session.pause }
    session.pause = nil
  end
end

local function end_jobs(session)
  if session.kill_jobs and not session.unsure_jobs then
    local _
    _, session.unsure_jobs = session:in_phase(nil, "clean-up", effect.outside_of_step, jobs.stop_all, session, KILL_SECONDS)
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

-- In a task of its own, which a second Ctrl-C ends; after a first one it has some seconds.
local function close(session)
  local limit = session.stopping and CLOSE_SECONDS or nil
  session.closing = task.spawn(tasks.timeout, limit, "giving up the locks", session.in_phase, session, nil, "clean-up", function()
    release_locks(session)
    obligation.meet_planned(session)
  end)
  task.join_all { session.closing }
  local ok, err = session.closing:result()
  session.closing = nil
  if not ok and (session.stopping and errors.is(err, "timeout") or errors.is_cancelled(err)) then
    events.notice(("a lock of this run may still be held; `runbook resume %s` takes it again, `runbook sweep %s` gives it up")
      :format(session.name, session.name), "warning")
  elseif not ok then
    error(err, 0)
  end
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
  local r = table.pack(xpcall(function(...)
    give_a_moment(session)
    end_jobs(session)
    return finish(...)
  end, errors.handler, session.worker:result()))
  close(session)
  end_jobs(session)
  active = nil
  if not r[1] then
    error(r[2], 0)
  end
  return table.unpack(r, 2, r.n)
end

return supervisor
