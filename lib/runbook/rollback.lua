--- Going back: steps newest first, the effects of each newest first, from the journal and the sources that ran.

local consent = require "runbook.run.consent"
local data = require "runbook.data"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local failure = require "runbook.failure"
local jobs = require "runbook.run.jobs"
local lock = require "runbook.lock"
local obligation = require "runbook.obligation"
local session = require "runbook.run.session"
local store = require "runbook.store"
local supervisor = require "runbook.run.supervisor"
local task = require "runbook.core.task"
local time = require "runbook.core.time"

local rollback = {}

local OF_THE_STEP = 0 -- undoes no single effect

-- Steps that did something, newest first.
local function steps_of(self)
  return self.journal:query([[SELECT * FROM step WHERE state NOT IN ('pending', 'undone')
    ORDER BY started DESC, position DESC]])
end

local function effects_of(self, step)
  return self.journal:query([[SELECT * FROM effect WHERE step = ? AND state IN ('intended', 'unknown', 'done', 'failed')
    AND undoes IS NULL ORDER BY id DESC]], step)
end

--- What an effect's undoing would be: "inverse", "not needed", or "none".
---@param row table
---@return string how
---@return table? inverse  { verb, arguments... }
function rollback.how(row)
  if row.inverse == nil then
    return "none"
  end
  local inverse = data.decode(row.inverse)
  if inverse == effect.NOT_NEEDED then
    return "not needed"
  end
  return "inverse", inverse
end

local function item_of(self, id)
  return self.book.ids[id] or { id = id, title = id, options = {} }
end

-- Somebody has said, with a reason, that this step's undo is settled.
local function overruled(self, item)
  for _, one in ipairs(self.options.overrule or {}) do
    if one.id == item.id then
      self.journal:decide("overrule", item.id, one.reason)
      return true
    end
  end
  return false
end

-- What cannot be undone stays as it is, where somebody has said with a reason that this is settled.
local function or_leave(settled, fn, ...)
  local ok, err = xpcall(fn, errors.handler, ...)
  if not ok and (errors.is_cancelled(err) or not settled) then
    error(err, 0)
  elseif not ok then
    events.notice("left as it is: " .. tostring(err), "warning")
  end
end

local function undo_effect(self, item, row, settled)
  local how, inverse = rollback.how(row)
  if how == "none" and row.state ~= "failed" and not settled then
    return ("%s (%s): has no undo; as it was left%s"):format(row.summary, row.target or "here",
      row.by_hand and "; it was: " .. row.by_hand or "")
  elseif how == "inverse" then
    local context = setmetatable({ undoes = row.id, unit = row.unit }, { __index = self:context(item, "undo") })
    or_leave(settled, task.with_context, context, effect.call, table.unpack(inverse, 1, #inverse))
  end
  self.journal:move("effect", row.id, "undone")
end

-- A guard that raises stops; one that returns rows has them asked about.
local function hold_guard(self, item)
  local rows = self:in_phase(item, "guard", item.options.undo_guard)
  if rows == nil then
    return
  end
  local given, flag = consent.obtain(self, item, consent.rows(rows), "rollback")
  if not given then
    errors.raise {
      kind = "refused", code = "EASK", target = item.id,
      message = flag and "needs input: " .. flag or "declined: everything newer is undone, and this stays as it is",
      hint = ("runbook rollback %s%s"):format(self.name, flag and " " .. flag or ""),
    }
  end
end

local function guard(self, item)
  if item.options.undo_guard == nil then
    return false
  end
  local ok, err = xpcall(hold_guard, errors.handler, self, item)
  if ok then
    return false
  elseif errors.is_cancelled(err) or not overruled(self, item) then
    error(err, 0)
  end
  return true
end

-- Newest first; what could not be undone, in words.
local function undo_effects(self, item, row, settled)
  local left = {}
  for _, one in ipairs(effects_of(self, row.id)) do
    left[#left + 1] = undo_effect(self, item, one, settled)
  end
  return left
end

local function undo_body(self, item, row)
  local settled = guard(self, item) or overruled(self, item)
  if not item.options.undo then
    return undo_effects(self, item, row, settled)
  end
  local left = {}
  -- What it does is part of going back: a second try must not undo it.
  local context = setmetatable({ undoes = OF_THE_STEP }, { __index = self:context(item, "undo") })
  or_leave(settled, task.with_context, context, item.options.undo, function()
    left = undo_effects(self, item, row, settled)
  end)
  for _, one in ipairs(effects_of(self, row.id)) do
    self.journal:move("effect", one.id, "undone")
  end
  return left
end

local function undo_step(self, row)
  local item = item_of(self, row.id)
  local began = time.utc()
  self.journal:move("step", row.id, "undo")
  self.journal:commit()
  events.emit { type = "step-start", step = row.id, title = "undo: " .. (row.title or row.id), kind = "undo" }
  local ok, left = xpcall(undo_body, errors.handler, self, item, row)
  if not ok and errors.is_cancelled(left) then
    error(left, 0)
  end
  local done = ok and #left == 0
  local err = not ok and errors.from(left) or nil
  self.journal:move("step", row.id, done and "undone" or "stuck", { error = err and data.encode(errors.record(err), "error") })
  self.journal:commit()
  events.emit { type = "step-end", step = row.id, title = row.title, outcome = done and "undone" or "failed",
    seconds = time.utc() - began, error = err and errors.record(err), text = ok and left[1] and table.concat(left, "\n") or nil }
  return ok, done
end

-- A step that was skipped, or found to be so already, may have done half of itself before.
local function did_something(self, row)
  return row.state ~= "already" and row.state ~= "skipped" or #effects_of(self, row.id) > 0
end

-- After a step whose undo failed, older ones are left alone: they may be what it stands on. What never had an undo is said,
-- and the rest goes back.
local function work(self)
  local stuck
  for _, row in ipairs(steps_of(self)) do
    if did_something(self, row) then
      local ok, done = undo_step(self, row)
      stuck = stuck or not done and row.id or nil
      if not ok then
        break
      end
    end
  end
  return stuck
end

-- What an inverse does, as its verb says it.
local function in_words(inverse)
  return effect.find(inverse[1]).summary(table.unpack(inverse, 2, #inverse))
end

local function list_only(self)
  for _, row in ipairs(steps_of(self)) do
    local item = item_of(self, row.id)
    local lines = {}
    if item.options.undo then
      lines[1] = "its own undo"
    else
      for _, one in ipairs(effects_of(self, row.id)) do
        local how, inverse = rollback.how(one)
        local text = how == "inverse" and in_words(inverse) or how == "none" and "has no undo" or how
        lines[#lines + 1] = ("%s (%s): %s"):format(one.summary, one.target or "here", text)
      end
    end
    events.emit { type = "undo-plan", step = row.id, title = row.title, lines = lines }
  end
  return 0
end

local function finish(self, ok, stuck, left)
  local exit, event = 0, "undone"
  if not ok and not self.stopping then
    events.notice(tostring(errors.from(stuck)), "warning")
  end
  if not ok or stuck or left > 0 then
    exit, event = self.stopping and supervisor.exit_code(self) or failure.EXIT_ROLLBACK_INCOMPLETE, "stuck"
  end
  self.journal:move("run", "run", event)
  self.journal:commit()
  events.emit {
    type = "run-end", state = event == "undone" and "rolled-back" or "rollback-incomplete", exit = exit,
    seconds = time.utc() - self.began, step = ok and stuck or nil, next = exit ~= 0 and "runbook rollback " .. self.name or nil,
  }
  return exit
end

--- Undo a run. Exit 0: everything is as it was; 4: something needs a person (it says what), and it can be called again.
---@async
---@param name string?  nil: the only open one
---@param o { dry_run?: boolean, overrule?: table[], deadline?: any, no_input?: boolean }
---@param with_session function
---@return integer exit_code
function rollback.rollback(name, o, with_session)
  local row = store.get(name, true)
  local self = session.new { name = row.name, directory = store.directory(row.name), options = o }
  return with_session(self, function()
    self.book = require("runbook.run").book_of(row.name, o, false)
    self.began = time.utc()
    if o.dry_run then
      return list_only(self)
    elseif row.state == "rolled-back" then
      events.notice(row.name .. " is rolled back already")
      return 0
    end
    for id, state in pairs(self.journal.states.effect) do
      if state == "intended" then
        self.journal:move("effect", id, "lose")
      end
    end
    self.journal:move("run", "run", "rollback")
    self.journal:commit()
    self:announce { title = "Going back: " .. self.book.title, resumed = true, rollback = true }
    return supervisor.supervise(self, function()
      self:in_phase(nil, "clean-up", effect.outside_of_step, jobs.stop_all, self)
      self:in_phase(nil, "clean-up", obligation.meet_all, self, { scope = "step" })
      lock.retake(self, true)
      local stuck, left = work(self), 0
      if stuck == nil then
        left = self:in_phase(nil, "clean-up", obligation.meet_all, self, {})
        self:in_phase(nil, "clean-up", effect.outside_of_step, jobs.forget_all, self)
      end
      return stuck, left
    end, function(ok, stuck, left)
      return finish(self, ok, stuck, left)
    end)
  end)
end

return rollback
