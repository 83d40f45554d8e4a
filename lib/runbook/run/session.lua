--- A run while a process works on it: what the gate, `rb.each` and handles talk to.

local data = require "runbook.data"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local task = require "runbook.core.task"

---@class runbook.Session
---@field name string
---@field journal runbook.Journal
---@field book runbook.Book
---@field directory string
---@field options table
local Session = {}
local session_mt = { __name = "runbook.session", __index = Session }

local session = {}

--- A session over an opened journal.
---@param fields { name: string, journal: table, book: table, directory: string, options: table }
---@return runbook.Session
function session.new(fields)
  fields.reads, fields.results, fields.locks = 0, {}, {}
  return setmetatable(fields, session_mt)
end

function Session:count_read()
  self.reads = self.reads + 1
end

--- Tell everybody that this process begins to work on the run.
---@param fields { title: string, resumed: boolean, rollback?: boolean, steps?: integer }
function Session:announce(fields)
  fields.type, fields.runbook, fields.directory = "run-start", self.book.path, self.directory
  fields.who, fields.version = require("runbook.journal").who(), require("runbook.core.embed").version()
  events.emit(fields)
end

--- The tables tasks carry while a phase of a step runs.
function Session:context(item, phase)
  return {
    session = self, book = self.book, mode = "live", run = self.name, run_id = self.journal.meta.id,
    step = item and item.id, item = item, phase = phase, try = self.try,
  }
end

--- Call `fn` as a phase of a step.
---@async
function Session:in_phase(item, phase, fn, ...)
  return task.with_context(self:context(item, phase), fn, ...)
end

-- Nothing new starts once somebody asked to stop, or when a lock may have passed to another.
local function must_go_on(self)
  if self.stopping then
    error(task.cancelled, 0)
  end
  for _, lock in ipairs(self.locks) do
    lock:must_be_held()
  end
end

local function keep_inverse(d, ...)
  if type(d.inverse) ~= "function" then
    return d.inverse and data.encode(d.inverse, d.name) or nil
  end
  return data.encode(effect.reading(d.inverse, ...), d.name .. ": inverse")
end

-- Nobody knows whether it happened: cut off, timed out or cancelled in the middle.
local function is_unsure(err)
  return errors.is_cancelled(err) or errors.is(err, "lost") or errors.is(err, "timeout") or errors.is(err, "unknown")
end

local function announce(described, id, phase, err)
  events.emit {
    type = "effect", id = id, phase = phase, verb = described.verb, class = described.class, target = described.target,
    summary = described.summary, by_hand = described.by_hand, error = err and errors.record(err),
  }
end

local function add_by_hand(err, described)
  if errors.is(err) and err.by_hand == nil then
    err.by_hand = described.by_hand
  end
end

--- Make one change: its intent and inverse are committed before it; its outcome joins the next commit.
---@async
function Session:perform(d, run_body, context, ...)
  must_go_on(self)
  local described = effect.describe(d, ...)
  local journal = self.journal
  local id = journal:add("effect", {
    step = context.step, unit = context.unit, try = context.try, verb = d.name, class = d.class, target = described.target,
    summary = described.summary, by_hand = described.by_hand, inverse = keep_inverse(d, ...), undoes = context.undoes,
    repeatable = described.repeatable and 1 or 0, started = require("runbook.core.time").utc(),
  })
  journal:commit()
  announce(described, id, "intent")
  local r = table.pack(xpcall(run_body, errors.handler, d, context, ...))
  if r[1] then
    journal:move("effect", id, "finish")
    announce(described, id, "done")
    return table.unpack(r, 2, r.n)
  end
  local unsure = is_unsure(r[2])
  journal:move("effect", id, unsure and "lose" or "fail", { error = data.encode(errors.record(r[2]), "error") })
  announce(described, id, unsure and "unknown" or "failed", r[2])
  add_by_hand(r[2], described)
  error(r[2], 0)
end

--- The result of a step: `true, value` when it is finished.
---@async
---@return boolean known
---@return any value
function Session:step_result(item)
  local state = self.journal:state("step", item.id)
  if state ~= "done" then
    return state == "already" or state == "skipped", nil
  end
  if self.results[item.id] == nil then
    self.results[item.id] = { self.journal:result("step", item.id) }
  end
  return true, self.results[item.id][1]
end

--- See runbook.run.jobs.
---@async
function Session:note_job(reference, moment, o)
  require("runbook.run.jobs").note(self, reference, moment, o)
end

local function unit_id(step, key)
  return step .. "/" .. key
end

--- The name of a unit of rb.each: what `key` says, the item itself, its `key` or `name`, else its place in the list.
---@param opts { key?: fun(item): any }
---@param item any
---@param index integer
---@return string
function session.key_of(opts, item, index)
  if opts.key then
    return tostring(opts.key(item))
  elseif type(item) == "string" or type(item) == "number" then
    return tostring(item)
  elseif type(item) == "table" and (type(item.name) == "string" or type(item.key) == "string") then
    return item.key or item.name
  end
  return tostring(index)
end

-- Units with their keys; a key that comes twice would hide one of them.
local function units_of(items, opts)
  local units, seen = {}, {}
  for i, item in ipairs(items) do
    local key = session.key_of(opts, item, i)
    if seen[key] then
      errors.raise({ kind = "usage", message = ("rb.each: two items are called `%s`; give `key = function(item) ... end`"):format(key) }, 3)
    end
    seen[key] = true
    units[i] = { key = key, item = item, index = i }
  end
  return units
end

local function finish_unit(self, id, ok, result)
  local journal = self.journal
  if ok then
    journal:move("unit", id, "finish", { result = data.encode(result, id) })
  elseif errors.is_cancelled(result) then
    journal:move("unit", id, "stop")
    error(result, 0)
  else
    journal:move("unit", id, "fail", { error = data.encode(errors.record(result), "error") })
  end
  journal:commit()
end

local function run_unit(self, context, unit, fn)
  local id = unit_id(context.step, unit.key)
  self.journal:move("unit", id, "start")
  local inner = setmetatable({ unit = unit.key }, { __index = context })
  return task.with_context(inner, function()
    events.emit { type = "unit-start", name = unit.key }
    local ok, result = xpcall(fn, errors.handler, unit.item, unit.index)
    finish_unit(self, id, ok, result)
    events.emit {
      type = "unit-end", name = unit.key, outcome = ok and "done" or "failed", error = not ok and errors.record(result) or nil,
    }
    return ok, result
  end)
end

local function raise_collected(context, units, failures, done)
  local first = failures[1]
  local lines, keys = {}, {}
  for i, failure in ipairs(failures) do
    lines[i], keys[i] = ("  %s: %s"):format(failure.key, tostring(failure.error)), failure.key
  end
  errors.raise {
    kind = first.error.kind, code = "EUNITS", units = keys, cause = first.error,
    message = ("%d of %d failed, %d are done and stay done\n%s"):format(#failures, #units, done,
      require("runbook.human").first_five(lines)),
    hint = ("`runbook resume` tries them again; `--leave %s --reason TEXT` goes on without"):format(context.unit or first.key),
  }
end

--- See rb.each.
---@async
function Session:each(items, opts, fn)
  local context = task.context()
  local units, todo, results, failures, done = units_of(items, opts), {}, {}, {}, 0
  for _, unit in ipairs(units) do
    local state = self.journal:state("unit", unit_id(context.step, unit.key))
    if state == "done" then
      done = done + 1
    elseif state ~= "left" then
      todo[#todo + 1] = unit
    end
  end
  require("runbook.task").each(todo, { limit = opts.limit }, function(unit)
    must_go_on(self)
    local ok, result = run_unit(self, context, unit, fn)
    if ok then
      done, results[unit.key] = done + 1, result
    else
      failures[#failures + 1] = { key = unit.key, error = errors.from(result) }
    end
  end)
  if #failures > 0 then
    raise_collected(context, units, failures, done)
  end
  return setmetatable(results, {
    __index = function(_, key) -- of units that an earlier process finished
      if self.journal:state("unit", unit_id(context.step, tostring(key))) == "done" then
        return self.journal:result("unit", unit_id(context.step, tostring(key)))
      end
    end,
  })
end

return session
