--- Removing what dead runs left behind: every obligation of every run that no process works on, and when asked the jobs of one.
---
--- Of all runs together, also: what is known of pairs that nobody needs any more, and runs that only looked, failed, and were
--- never taken up again. Those are closed; what they said stays.

local data = require "runbook.data"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local failure = require "runbook.failure"
local jobs = require "runbook.run.jobs"
local obligation = require "runbook.obligation"
local session = require "runbook.run.session"
local states = require "runbook.states"
local store = require "runbook.store"
local time = require "runbook.core.time"
local units = require "runbook.units"

local sweep = {}

-- Loading the book declares the kinds of obligations that it and its libraries know.
local function book_of(name)
  return require("runbook.run").book_of(name, {}, false)
end

local function sweep_run(row, o, with_session)
  local self = session.new { name = row.name, directory = store.directory(row.name), options = o }
  return with_session(self, function()
    self.book = book_of(row.name)
    local unsure = {}
    if o.jobs then
      local _
      _, unsure = self:in_phase(nil, "clean-up", effect.outside_of_step, jobs.stop_all, self)
    end
    return #unsure + self:in_phase(nil, "clean-up", obligation.meet_all, self, { keep_jobs = true })
  end)
end

-- In the order in which they are met. A file that no longer loads is no reason to show nothing: then the data stand for the words.
local function say_what_is_left(row)
  pcall(book_of, row.name)
  local j = store.journal(row.name)
  local going_on = jobs.left_running { journal = j }
  local list = j:query "SELECT kind, data, job, costs, tries FROM obligation WHERE state = 'owed' ORDER BY id DESC"
  j:close()
  for _, what in ipairs(going_on) do
    events.notice(("%s: this job goes on: %s"):format(row.name, what))
  end
  for _, owed in ipairs(list) do
    local text = obligation.describe(owed.kind, data.decode(owed.data))
    if owed.job then
      text = ("%s; stays while the job %s runs"):format(text, owed.job)
    end
    events.emit { type = "leftover", run = row.name, kind = owed.kind, text = text, costs = owed.costs, tries = owed.tries }
  end
end

local function must_be_left(row)
  errors.raise {
    kind = "busy", code = "ELOCKED", target = row.name,
    message = ("process %s is working on %s"):format(row.pid or "?", row.name),
    hint = ("press Ctrl-C there, then `runbook sweep %s --jobs`"):format(row.name),
  }
end

local IDLE = 7 * 86400 -- seconds after which a run that only looked is not taken up again

-- A run that changed nothing has nothing to undo: its rollback is over as soon as it has begun.
local function close_idle(row)
  local handle <close> = store.lock(row.name)
  local j = store.journal(row.name)
  j:move("run", "run", "rollback")
  j:move("run", "run", "undone", { detail = "it changed nothing; closed by sweep" })
  j:commit()
  j:close()
  return handle
end

local function sweep_idle(o)
  for _, row in ipairs(store.list()) do
    local age = time.utc() - (row.ended or time.utc())
    if row.changed_nothing and not row.alive and states.gives_way(row.state) and age > IDLE then
      events.emit { type = "leftover", run = row.name, kind = "run",
        text = ("a run that only looked, %s %s ago"):format(row.state, units.duration(age)) }
      if not o.dry_run then
        close_idle(row)
      end
    end
  end
end

local function sweep_pairs(o)
  local kept = require "runbook.copier.pairs"
  for _, one in ipairs(kept.unneeded()) do
    events.emit { type = "leftover", run = "copies", kind = "pair",
      text = ("what is known of %s: %s, last used %s ago; %s"):format(one.text, units.size(one.bytes), units.duration(one.age), one.why) }
    if not o.dry_run then
      kept.remove(one.id)
    end
  end
end

--- Meet the obligations of runs that are not being worked on; with `jobs` end what a run left at work, first. Without a name,
--- close runs that only looked, a week after they failed, and forget pairs that nobody needs any more.
---@async
---@param o { name?: string, dry_run?: boolean, jobs?: boolean }
---@param with_session function
---@return integer exit_code  0: nothing is left; 4: something could not be removed or ended (it was said what)
function sweep.sweep(o, with_session)
  local left = 0
  for _, row in ipairs(o.name and { store.get(o.name, true) } or store.list()) do
    if row.alive and o.jobs then
      must_be_left(row)
    elseif #row.owes > 0 and row.alive then
      events.notice(("%s is being worked on; left alone"):format(row.name))
    elseif #row.owes > 0 or o.jobs then
      say_what_is_left(row)
      if not o.dry_run then
        local ok, n = xpcall(sweep_run, errors.handler, row, o, with_session)
        if not ok then
          events.notice(("%s: %s"):format(row.name, tostring(errors.from(n))), "warning")
        end
        left = left + (ok and n or math.max(1, #row.owes))
      end
    end
  end
  if not o.name then
    sweep_idle(o)
    sweep_pairs(o)
  end
  return left == 0 and 0 or failure.EXIT_ROLLBACK_INCOMPLETE
end

return sweep
