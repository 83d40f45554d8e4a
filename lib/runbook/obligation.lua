--- What a run made and must remove, even when the process that made it is long dead.
---
--- A kind is a name and a function, declared at load; what is owed is data. `owe` is called before the thing is made, so that
--- no crash can make something that nobody remembers. The function runs when the scope ends, at the start of every
--- resume, at rollback and at `sweep`; already gone is success.

local data = require "runbook.data"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local options = require "runbook.options"
local retry = require "runbook.retry"
local task = require "runbook.core.task"

local obligation = {}

local kinds = {} -- name = what removes it
local words = {} -- name = what says so

local check_owe = options.declare("obligation:owe", {
  data = { "table", "what the function gets" },
  scope = { "string", "when it ends at the latest", choices = { "step", "run" }, default = "step" },
  job = { "string", "the name of a job of the step; it stays while that runs", optional = true },
  costs = { "string", "what it costs while it is left, for `runs`", optional = true },
  in_plan = { "boolean", "looks need it, so that a plan makes it, too; it is removed when the plan ends", default = false },
})

---@class runbook.Obligation
---@field name string
local Kind = {}
local kind_mt = { __name = "runbook.obligation", __index = Kind }

---@class runbook.Owed
local Owed = {}
local owed_mt = { __name = "runbook.owed", __index = Owed }

--- Declare a kind. Libraries and runbooks do so while they load, so that every later process knows it.
---@param name string
---@param fn fun(data: table)
---@param says? fun(data: table): string  what is removed, as in "remove the lock /srv/homes/.runbook/lock"
---@return runbook.Obligation
function obligation.kind(name, fn, says)
  kinds[name], words[name] = fn, says
  return setmetatable({ name = name }, kind_mt)
end

-- Where data that nobody has words for says it is, and its other fields in the order of their names.
local function places_and_fields(what)
  local names, where, fields = {}, {}, {}
  for name in pairs(what) do
    names[#names + 1] = tostring(name)
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local value = what[name] == nil and what[math.tointeger(tonumber(name))] or what[name]
    if type(value) == "table" and type(value.reference) == "function" then
      where[#where + 1] = tostring(value)
    else
      fields[#fields + 1] = ("%s %s"):format(name, type(value) == "table" and data.encode(value, name) or tostring(value))
    end
  end
  return table.concat(where, " and "), table.concat(fields, ", ")
end

--- What meeting an obligation would do, and where.
---@param kind string
---@param what table  its data
---@return string
function obligation.describe(kind, what)
  local where, fields = places_and_fields(what)
  local text = words[kind] and words[kind](what) or ("%s: clean up%s"):format(kind, fields ~= "" and " " .. fields or "")
  return where ~= "" and ("%s: %s"):format(where, text) or text
end

--- Write down that something will have to be removed. In a plan nothing is owed but what looks need.
---@async
---@param what table  data, of which places may be part
---@param o? { scope?: "step"|"run", job?: string, costs?: string, in_plan?: boolean }
---@return runbook.Owed
function Kind:owe(what, o)
  local given = { data = what }
  for k, v in pairs(o or {}) do
    given[k] = v
  end
  given = check_owe(given, 2)
  local context = task.context()
  local owed = setmetatable({ kind = self.name, data = what, session = context.session }, owed_mt)
  if context.mode == "plan" and given.in_plan then
    owed.planned = true
    context.session.owed = context.session.owed or {}
    table.insert(context.session.owed, owed)
  end
  if context.mode == "plan" or context.session == nil then
    return owed
  end
  local journal = context.session.journal
  owed.id = journal:add("obligation", {
    kind = self.name, data = data.encode(what, "obligation " .. self.name), scope = given.scope, step = context.step,
    job = given.job, costs = given.costs,
  })
  journal:commit()
  return owed
end

--- One that an earlier process of this run wrote down.
---@param session table
---@param row table  of the journal
---@return runbook.Owed
function obligation.found(session, row)
  return setmetatable({ kind = row.kind, data = data.decode(row.data), session = session, id = row.id }, owed_mt)
end

--- Meet it now: the thing is removed, or already gone.
---@async
function Owed:meet()
  if effect.planning() and not self.planned then
    return
  elseif self.planned then
    self.planned = nil
    effect.outside_of_step(kinds[self.kind], self.data)
  elseif self.session == nil or self.session.journal == nil then
    effect.outside_of_step(kinds[self.kind], self.data)
  elseif self.id and self.session.journal:state("obligation", self.id) == "owed" then
    obligation.meet(self.session, { id = self.id, kind = self.kind, data = self.data, tries = 0 })
  end
end

--- What a plan had to make for its looks is removed.
---@async
---@param session table
function obligation.meet_planned(session)
  for _, owed in ipairs(session.owed or {}) do
    owed:meet()
  end
  session.owed = nil
end

--- Meet it when `fn` has ended, however that was.
---@async
---@param fn async fun(): any
---@return any result
function Owed:after(fn)
  local ok, result = xpcall(fn, errors.handler)
  if not ok and errors.is_cancelled(result) then
    error(result, 0) -- a cancelled task waits for nothing; what is owed is met by whoever goes on
  end
  self:meet()
  if not ok then
    error(result, 0)
  end
  return result
end

--- The thing was never made: nothing is owed.
---@async
function Owed:waive()
  if self.id and self.session.journal:state("obligation", self.id) == "owed" then
    self.session.journal:move("obligation", self.id, "waive")
    self.session.journal:commit()
  end
end

--- Try to meet one row of the journal. A failure is kept and said; the row stays owed.
---@async
---@return boolean met
function obligation.meet(session, row)
  local fn = kinds[row.kind]
  local journal = session.journal
  local ok, err
  if fn == nil then
    ok, err = false, errors.new { kind = "internal", message = ("nothing that is loaded knows the obligation `%s`"):format(row.kind) }
  else
    local what = type(row.data) == "string" and data.decode(row.data) or row.data
    -- Already gone is success, so a removal may be made again after a connection that broke in its middle.
    ok, err = xpcall(retry.call, errors.handler, { target = row.kind, what = "cleaning up", reads = true, tries = 2 }, function()
      effect.outside_of_step(fn, what)
    end)
  end
  if ok then
    journal:move("obligation", row.id, "meet")
  else
    journal:move("obligation", row.id, "fail", { tries = (row.tries or 0) + 1, error = data.encode(errors.record(err), "error") })
    if errors.is_cancelled(err) then
      error(err, 0)
    end
    events.notice(("could not clean up yet (%s): %s; the next resume or `runbook sweep` tries again")
      :format(row.kind, tostring(errors.from(err))), "warning")
  end
  journal:commit()
  return ok
end

-- Does the job it names still run? Asked there; a machine that does not answer may well be at work. A lock has none, and
-- stays while any does: it may write where the lock is.
local function is_needed(session, row)
  local any = row.kind == "lock"
  if row.job == nil and not any then
    return false
  end
  local ok, err = xpcall(require("runbook.run.jobs").settle_step, errors.handler, session, not any and row.step or nil)
  if not ok and errors.is_cancelled(err) then
    error(err, 0)
  end
  local key = not any and require("runbook.job").part(row.job)
  for _, job in ipairs(session.journal:query "SELECT name, step FROM job WHERE state IN ('starting', 'running')") do
    local name = job.name:match "([^/]*)/%d+$" -- run/step/unit/name/try; the second of a name is called name.2
    if any or job.step == row.step and (name == key or name:match "^(.*)%.%d+$" == key) then
      return true
    end
  end
  return false
end

--- Meet everything that is owed, newest first.
---@async
---@param session table
---@param where { step?: string, scope?: string, keep_jobs?: boolean }  which; keep_jobs: not those whose job still runs
---@return integer left  how many are still owed
function obligation.meet_all(session, where)
  local left = 0
  local rows = session.journal:query("SELECT * FROM obligation WHERE state = 'owed' ORDER BY id DESC")
  for _, row in ipairs(rows) do
    local wanted = (where.step == nil or row.step == where.step) and (where.scope == nil or row.scope == where.scope)
    local busy = where.keep_jobs and is_needed(session, row)
    if wanted and not busy then
      left = left + (obligation.meet(session, row) and 0 or 1)
    elseif wanted then
      left = left + 1
    end
  end
  return left
end

return obligation
