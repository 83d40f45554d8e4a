--- What a run would do: every body runs against the real thing, reads are done, changes are listed and not made.
---
--- A change hands out an unknown (runbook.unknown). Where a body needs what only a run can know, its plan ends there with the
--- line, and the plan goes on with the next step. What comes after an unknown was handed out is marked `~`: it may differ.

local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local identity = require "runbook.run.identity"
local session = require "runbook.run.session"
local steps = require "runbook.run.steps"
local supervisor = require "runbook.run.supervisor"
local task = require "runbook.core.task"
local unknown = require "runbook.unknown"

local plan = {}

---@class runbook.PlanSession
local Planner = {}
local planner_mt = { __name = "runbook.planner", __index = Planner }

function Planner:count_read()
  local entry = task.context().entry
  if entry then
    entry.reads = entry.reads + 1
  end
end

function Planner:context(item, phase, entry)
  return { session = self, book = self.book, mode = "plan", step = item and item.id, phase = phase, item = item, entry = entry,
    look = self.look }
end

--- Call `fn` as a phase of a step.
---@async
function Planner:in_phase(item, phase, fn, ...)
  return task.with_context(self:context(item, phase, item and self.entries[item.id]), fn, ...)
end

-- What the run itself takes away again (a lock) is not what people ask about.
local function undo_of(d)
  if d.owed or d.inverse == effect.NOT_NEEDED then
    return "not needed"
  end
  return d.inverse and "yes" or "no"
end

--- A change that a run would make.
---@async
function Planner:perform(d, _, context, ...)
  local entry = context.entry
  local described = effect.describe(d, ...)
  local change = {
    verb = described.verb, class = described.class, target = described.target, summary = described.summary,
    by_hand = described.by_hand, undo = undo_of(d), tilde = entry.tainted, unit = context.unit,
    part = context.part,
  }
  if d.preview then
    local ok, seen = xpcall(effect.reading, errors.handler, d.preview, ...)
    if ok and seen then
      change.before, change.after = seen.before, seen.after
    elseif not ok and (errors.is_cancelled(seen) or seen.plan_end) then
      error(seen, 0)
    elseif not ok then
      change.before = "cannot be seen: " .. tostring(seen)
    end
  end
  entry.changes[#entry.changes + 1] = change
  self.changed = true
  events.emit { type = "effect", phase = "planned", verb = change.verb, class = change.class, target = change.target,
    summary = change.summary, by_hand = change.by_hand, tilde = change.tilde }
  if d.answer then
    return d.answer(...)
  elseif d.quiet then
    return
  end
  entry.tainted = true
  return unknown.new("the result of " .. described.summary)
end

--- A wait that a run would wait for.
function Planner:plan_wait(text)
  local context = task.context()
  local entry = context.entry
  entry.waits[#entry.waits + 1] = text
  entry.part_waits[text] = context.part ~= nil
  entry.tainted = true
  return unknown.new("what comes of waiting: " .. text)
end

--- A step's result: known in a plan when its body only read, and nil as in a run when there is no need of it.
function Planner:step_result(item)
  local entry = self.entries[item.id]
  if entry and (entry.known or entry.skipped or entry.already) then
    return true, entry.value
  end
  return false
end

--- See rb.each: every unit is planned, one after the other.
---@async
function Planner:each(items, opts, fn)
  local context, results = task.context(), {}
  for i, item in ipairs(items) do
    local key = session.key_of(opts, item, i)
    local inner = setmetatable({ unit = key }, { __index = context })
    results[key] = task.with_context(inner, fn, item, i)
  end
  return results
end

local function ended_at(err)
  local where = err.where or tostring(err.trace or ""):match("([^%s]+%.lua:%d+)")
  return ("%s: the rest depends on %s"):format(where or "?", err.unknown or tostring(err))
end

-- The body's own line, not the library's where the unknown was touched; a plain Lua error has it in its message.
local function line_in_book(self, err)
  for path in pairs(self.book.sources) do
    local pattern = path:gsub("%p", "%%%0") .. ":(%d+)"
    local line = tostring(err.trace or ""):match(pattern) or tostring(err):match(pattern)
    if line then
      return ("%s:%s"):format(path:match("([^/]+)$"), line)
    end
  end
  return err.where
end

local function phase(self, item, entry, name, fn, ...)
  local r = table.pack(xpcall(self.in_phase, errors.handler, self, item, name, fn, ...))
  if r[1] then
    return true, table.unpack(r, 2, r.n)
  end
  local err = errors.from(r[2])
  if errors.is_cancelled(err) then
    error(err, 0)
  elseif err.plan_end then
    err.where = line_in_book(self, err) or err.where
    entry.ended = ended_at(err)
  elseif name == "body" and self.changed then -- it may well go on once the changes above are made
    entry.ended = ("%s: the rest depends on changes a plan does not make (%s)"):format(line_in_book(self, err) or "?", tostring(err))
  else
    entry.would_stop = tostring(err)
    entry.error = errors.record(err)
  end
  return false
end

local function value_of(v, ...)
  if type(v) == "function" then
    return v(...)
  end
  return v
end

local function summarize_undo(item, entry)
  if item.options.undo then
    return item.options.undo_guard and "looks first" or "yes"
  end
  local seen, first = {}, nil
  for _, change in ipairs(entry.changes) do
    if change.undo ~= "not needed" then
      seen[change.undo] = true
      first = first or change.undo
    end
  end
  if first == nil then
    return #entry.changes > 0 and "not needed" or ""
  end
  return seen.yes and seen.no and "partly" or first
end

local function plan_body(self, item, entry)
  if item.kind == "checks" then
    local ok, found = phase(self, item, entry, "checks", steps.run_checks, item.checks, self.look)
    if ok then
      entry.checks = found
      if #found.stop > 0 then
        entry.would_stop = tostring(found.stop[1].error)
        entry.error = errors.record(found.stop[1].error)
      end
    end
  elseif item.kind == "step" then
    local ok, value = phase(self, item, entry, "body", item.body)
    entry.known = ok and not entry.tainted and not unknown.is(value)
    entry.value = value
  end
end

local function plan_item(self, item, index)
  local entry = { index = index, id = item.id, title = item.title, kind = item.kind, changes = {}, waits = {}, part_waits = {}, reads = 0,
    tainted = false, asks = item.options.disrupts ~= nil or item.kind == "manual" }
  self.entries[item.id] = entry
  if item.options.when ~= nil then
    local ok, applies = phase(self, item, entry, "when", value_of, item.options.when)
    if ok and not applies then
      entry.skipped = true
      return entry
    end
  end
  if item.options.check then
    local ok, so = phase(self, item, entry, "check", item.options.check)
    if ok and so == true then
      entry.already = true
      return entry
    end
  end
  if item.options.guard then
    phase(self, item, entry, "guard", item.options.guard)
  end
  if item.options.disrupts ~= nil then
    local ok, rows = phase(self, item, entry, "guard", value_of, item.options.disrupts)
    entry.disrupts = ok and rows or nil
  end
  plan_body(self, item, entry)
  entry.undo = summarize_undo(item, entry)
  return entry
end

local function collect_checks(entries)
  local all = { good = 0, know = {}, stop = {} }
  for _, entry in ipairs(entries) do
    if entry.checks then
      all.good = all.good + entry.checks.good
      table.move(entry.checks.know, 1, #entry.checks.know, #all.know + 1, all.know)
      table.move(entry.checks.stop, 1, #entry.checks.stop, #all.stop + 1, all.stop)
    end
  end
  return all
end

local function work(self, o)
  local list, index = {}, 0
  for _, item in ipairs(self.book.items) do
    if item.kind == "section" then
      list[#list + 1] = { kind = "section", title = item.title }
    else
      index = index + 1
      list[#list + 1] = plan_item(self, item, index)
      events.emit { type = "planned", step = item.id, index = index }
      if o.until_ == item.id then
        break
      end
    end
  end
  return list
end

--- Plan a run of a book.
---@async
---@param the_book runbook.Book
---@param o table  until_, files, deadline
---@return table plan  { runbook, title, checks, steps, next, changes = n, stops = n }
function plan.make(the_book, o)
  identity.look(the_book)
  local self = setmetatable({ book = the_book, look = the_book.look, options = o, entries = {}, locks = {} }, planner_mt)
  local function finish(ok, entries)
    if not ok then
      error(entries, 0)
    end
    local made = { runbook = the_book.path, title = the_book.title, steps = entries, checks = collect_checks(entries),
      changes = 0, stops = 0 }
    for _, entry in ipairs(entries) do
      made.changes = made.changes + #(entry.changes or {})
      made.stops = made.stops + (entry.would_stop and 1 or 0)
    end
    local files = {}
    for i, file in ipairs(o.files or {}) do
      files[i] = " --params " .. file
    end
    made.next = ("runbook run %s%s"):format(the_book.path:gsub("^runbooks/", ""), table.concat(files))
    return made
  end
  return supervisor.supervise(self, work, finish, o)
end

return plan
