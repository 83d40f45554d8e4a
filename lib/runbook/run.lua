--- Runs: started, resumed, stopped; what `runbook run` and `runbook resume` do.

local book = require "runbook.book"
local data = require "runbook.data"
local digest = require "runbook.core.digest"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local failure = require "runbook.failure"
local identity = require "runbook.run.identity"
local interrupted = require "runbook.run.interrupted"
local jobs = require "runbook.run.jobs"
local journal = require "runbook.journal"
local lock = require "runbook.lock"
local json = require "runbook.json"
local obligation = require "runbook.obligation"
local params = require "runbook.params"
local recorder = require "runbook.run.recorder"
local session = require "runbook.run.session"
local steps = require "runbook.run.steps"
local store = require "runbook.store"
local supervisor = require "runbook.run.supervisor"
local task = require "runbook.core.task"
local time = require "runbook.core.time"
local units = require "runbook.units"

local run = {}

local RUN_EVENT = { done = "finish", failed = "fail", stopped = "stop", waiting = "wait", declined = "decline" }

run.request_stop = supervisor.request_stop
run.request_kill = supervisor.request_kill
run.stop_requested = supervisor.stop_requested
run.active = supervisor.active

local function wants(list, id)
  for _, one in ipairs(list or {}) do
    if one == id or type(one) == "table" and one.id == id then
      return one
    end
  end
end

local function must_know(the_book, o)
  local known = {}
  for _, item in ipairs(the_book.items) do
    if item.id then
      known[item.id] = true
    end
  end
  local function check(what, id)
    if id and not known[id] then
      local names = {}
      for name in pairs(known) do
        names[#names + 1] = name
      end
      local near = require("runbook.nearest")(id, names)
      errors.raise { kind = "usage", code = "EUSAGE", message = ("%s %s: no step is called that%s"):format(what, id,
        near and ("; did you mean `" .. near .. "`?") or "") }
    end
  end
  check("--until", o.until_)
  check("--from", o.from)
  check("--only", o.only)
  for what, list in pairs { ["--skip"] = o.skip or {}, ["--again"] = o.again or {}, ["--overrule"] = o.overrule or {} } do
    for _, one in ipairs(list) do
      check(what, type(one) == "table" and one.id or one)
    end
  end
  for what, map in pairs { ["--confirm"] = o.confirm or {}, ["--done"] = o.done or {} } do
    for id in pairs(map) do
      check(what, id)
    end
  end
end

local function duration(value)
  return type(value) == "string" and units.parse_duration(value) or value
end

local function is_stale(item, row)
  local fresh = duration(item.options.fresh)
  return fresh and row and row.ended and time.utc() - row.ended > fresh
end

-- Checks run at every start; asked-for and outdated outcomes run again; everything else that is finished stays so.
local function reopen(self)
  local changed = {}
  for _, item in ipairs(self.book.items) do
    local state = item.id and self.journal:state("step", item.id)
    if state == "done" or state == "already" or state == "skipped" then
      local row = self.journal:step(item.id)
      local asked = wants(self.options.again, item.id)
      if item.kind == "checks" or asked or state == "done" and is_stale(item, row) then
        if asked then
          self.journal:decide("again", item.id)
        end
        self.journal:move("step", item.id, "redo")
        self.results[item.id] = nil
        self.journal:forget_units(item.id)
      elseif row and (row.source and row.source ~= item.source_digest
          or row.parameters and row.parameters ~= self.parameters_digest) then
        changed[#changed + 1] = item.id
      end
    end
  end
  self.journal:commit()
  if #changed > 0 then
    events.notice(("changed since they ran, and kept as they are: %s (--again STEP does one again)")
      :format(table.concat(changed, ", ")))
  end
end

local function leave_units(self)
  for _, one in ipairs(self.options.leave or {}) do
    local found = false
    for id, state in pairs(self.journal.states.unit) do
      if id:sub(-#one.unit - 1) == "/" .. one.unit and state ~= "done" and state ~= "left" then
        self.journal:move("unit", id, "leave", { reason = one.reason })
        found = true
      end
    end
    if not found then
      errors.raise { kind = "usage", code = "EUSAGE",
        message = ("--leave %s: no unit that is still to do is called that"):format(one.unit) }
    end
    self.journal:decide("leave", one.unit, one.reason)
  end
  self.journal:commit()
end

local FINISHED = { done = true, skipped = true, already = true }

local function skip(self, item, reason)
  self.journal:move("step", item.id, "skip", { reason = reason, title = item.title })
  self.journal:decide("skip", item.id, reason)
  self.journal:commit()
  events.emit { type = "step-end", step = item.id, title = item.title, outcome = "skipped", text = reason }
end

-- Works through the items; runs in a task of its own, so that it can be cancelled while the driver still writes.
local function work(self, position_of, count)
  local o, begun = self.options, self.options.from == nil
  lock.retake(self)
  for _, item in ipairs(self.book.items) do
    begun = begun or item.id == o.from
    if item.kind == "section" then
      events.emit { type = "section", title = item.title }
    elseif begun and (o.only == nil or o.only == item.id) and not FINISHED[self.journal:state("step", item.id)] then
      local skipped = wants(o.skip, item.id)
      if skipped then
        skip(self, item, skipped.reason)
      else
        self.current = item
        local outcome, detail = steps.run_one(self, item, position_of[item.id], count)
        self.current = nil
        if not FINISHED[outcome] then
          return outcome, detail, item
        end
      end
    end
    if item.id and item.id == o.until_ then
      return "waiting", { text = ("--until %s"):format(item.id), exit = 0 }, item
    end
  end
  if o.from or o.only then
    for _, item in ipairs(self.book.items) do
      if item.id and not FINISHED[self.journal:state("step", item.id)] then
        return "waiting", { text = ("step %s is still to be done"):format(item.id), exit = 0 }, item
      end
    end
  end
  self:in_phase(nil, "clean-up", effect.outside_of_step, jobs.forget_all, self)
  self:in_phase(nil, "clean-up", obligation.meet_all, self, { keep_jobs = true })
  return "done"
end

local function positions(the_book)
  local position_of, n = {}, 0
  for _, item in ipairs(the_book.items) do
    if item.id then
      n = n + 1
      position_of[item.id] = n
    end
  end
  return position_of, n
end

-- Something that a killed process had begun to say it would do: nobody knows whether it did.
local function recover(self)
  for id, state in pairs(self.journal.states.effect) do
    if state == "intended" then
      self.journal:move("effect", id, "lose")
    end
  end
  self.journal:commit()
  self:in_phase(nil, "clean-up", obligation.meet_all, self, { scope = "step", keep_jobs = true })
end

local function finish(self, outcome, detail, item)
  local exit = failure.EXIT_OF_OUTCOME[outcome]
  if outcome == "stopped" then
    exit = supervisor.exit_code(self)
  elseif detail and detail.exit then
    exit = detail.exit
  elseif outcome == "failed" and (item == nil or errors.is(detail, "identity") or detail.code == "ELOCKED") then
    exit = failure.exit_code(detail)
  end
  local text = detail and (detail.text or errors.is(detail) and tostring(detail)) or nil
  self.journal:move("run", "run", RUN_EVENT[outcome], { detail = text })
  self.journal:commit()
  local left = jobs.left_running(self)
  local resume = ("runbook resume %s%s"):format(self.name, detail and detail.flag and " " .. detail.flag or "")
  local unsure = outcome == "stopped" and interrupted.unconfirmed(self) or {}
  events.emit {
    type = "run-end", jobs = #left > 0 and left or nil, end_jobs = #left > 0 and ("runbook sweep %s --jobs"):format(self.name) or nil,
    unconfirmed = #unsure > 0 and unsure or nil,
    state = outcome, exit = exit, seconds = time.utc() - self.began, step = item and item.id, text = text,
    error = errors.is(detail) and errors.record(detail) or nil, next = outcome ~= "done" and resume or nil,
  }
  return exit
end

local function drive(self)
  local position_of, count = positions(self.book)
  self.began = time.utc()
  return supervisor.supervise(self, work, function(ok, a, b, c)
    if ok then
      return finish(self, a, b, c)
    elseif self.stopping then
      return finish(self, "stopped", nil, self.current)
    end
    return finish(self, "failed", errors.from(a), self.current)
  end, position_of, count)
end

-- Something that is no step's failure ended the work: its output cannot be written, its units are not what --leave says. A run
-- that "runs" would be taken for one whose process was killed. When even this cannot be written, that is what it will be.
local function give_up(self, err)
  local event = errors.is_cancelled(err) and "stop" or "fail"
  self.journal:move("run", "run", event, { detail = tostring(err) })
  xpcall(self.journal.commit, errors.handler, self.journal)
end

-- Opens what every kind of work on a run needs, and closes it however that ends.
local function with_session(self, fn)
  local lock <close> = store.lock(self.name) -- luacheck: ignore lock
  local record <close> = recorder.open(self) -- luacheck: ignore record
  self.journal = self.journal or store.journal(self.name)
  local ok, result = xpcall(task.with_context, errors.handler, { run = self.name, session = self, mode = "live" }, fn, self)
  if not ok and self.begun and self.journal:state("run", "run") == "running" then
    give_up(self, errors.from(result))
  end
  self.journal:close()
  if not ok then
    error(result, 0)
  end
  return result
end

local function keep_sources(self)
  effect.own(function()
    local core = require "runbook.core.file"
    errors.check(nil, nil, core.write(self.directory .. "/run.lua", self.book.source, { mode = tonumber("600", 8) }))
    errors.check(nil, nil, core.write(self.directory .. "/sources.json", json.encode(self.book.sources, { sorted = true }),
      { mode = tonumber("600", 8) }))
  end)
end

local function begin(self, resumed)
  self.begun = true
  self.parameters_digest = params.digest(self.book.values)
  self:announce { title = self.book.title, resumed = resumed, steps = select(2, positions(self.book)) }
end

local function base_name(the_book, o)
  local file = o.files and o.files[#o.files]
  if o.name then
    return o.name
  elseif file and file ~= "-" then
    return (file:match("([^/]+)$"):gsub("%.ya?ml$", ""))
  end
  return the_book.name
end

-- The same for runs that would do the same: the runbook and its parameters.
local function subject_of(the_book)
  local path = not the_book.baked and effect.own(require("runbook.core.file").realpath, the_book.path) or the_book.path
  return ("%s %s"):format(path, params.digest(the_book.values))
end

local function new_session(the_book, o, name, directory)
  local self = session.new { name = name, directory = directory, book = the_book, options = o }
  self.journal = journal.create(directory .. "/journal.db", {
    name = name, id = ("%s.%s"):format(name, digest.hex(digest.random(4))), runbook = the_book.path, title = the_book.title,
    version = require("runbook.core.embed").version(),
    started = tostring(time.utc()), host = journal.hostname(), steps = tostring(select(2, positions(the_book))),
    parameters = data.encode(params.freeze(the_book.values), "parameters"), subject = subject_of(the_book),
  })
  keep_sources(self)
  return self
end

--- Start a run of a book.
---@async
---@param the_book runbook.Book
---@param o table  name until_ from only skip again leave overrule confirm done no_input deadline files sets
---@return integer exit_code
function run.start(the_book, o)
  must_know(the_book, o)
  local identities = identity.look(the_book)
  local self = new_session(the_book, o, store.create(base_name(the_book, o)))
  return with_session(self, function()
    self.journal:move("run", "run", "start") -- committed with the first step's start
    identity.keep(self, identities)
    begin(self, false)
    return drive(self)
  end)
end

-- What taking over a run is to its journal: a step before all others, and so the last that going back undoes.
local function adopting(closed, hubs)
  local adopt = require "runbook.hub.adopt"
  return {
    kind = "step", id = "adopt", title = "Take over what another machine closed", file = "runbook adopt", line = 0,
    options = { disrupts = function() return adopt.rows(closed, hubs) end, again = true },
    body = function() adopt.take(closed) end,
  }
end

local function drive_adoption(self, item)
  self.began = time.utc()
  return supervisor.supervise(self, function()
    local outcome, detail = steps.run_one(self, item, 0, 0)
    if outcome == "done" then
      return "waiting", { exit = 0, text = ("taken over: `runbook resume %s` goes on, `runbook rollback %s` opens the hub again")
        :format(self.name, self.name) }, item
    end
    return outcome, detail, item
  end, function(ok, a, b, c)
    if ok then
      return finish(self, a, b, c)
    end
    return finish(self, self.stopping and "stopped" or "failed", not self.stopping and errors.from(a) or nil, item)
  end)
end

--- Take over a run whose machine is gone, from what it left on the hubs among the parameters; by the same name.
---@async
---@param the_book runbook.Book
---@param o table  confirm no_input deadline files sets
---@return integer exit_code
function run.adopt(the_book, o)
  local hubs = {}
  for _, one in ipairs(the_book.declaration) do
    hubs[#hubs + 1] = one[2] == "hub" and the_book.values[one[1]] or nil
  end
  if #hubs == 0 then
    errors.raise { kind = "usage", code = "EUSAGE", message = "none of this runbook's parameters is a hub: there is nothing to take over" }
  end
  local identities = identity.look(the_book)
  local closed, name = effect.reading(require("runbook.hub.adopt").look, hubs)
  local self = new_session(the_book, o, name, store.create_as(name))
  return with_session(self, function()
    self.journal:move("run", "run", "start")
    identity.keep(self, identities)
    begin(self, false)
    return drive_adoption(self, adopting(closed, hubs))
  end)
end

-- The files of a run as it left them, by the path they had.
local function sources_of(directory)
  local text = effect.own(require("runbook.core.file").read, directory .. "/sources.json")
  return text and data.decode(text)
end

--- Load the book of an earlier run: the file as it is now (`edited`), else the sources that ran.
---@async
---@param name string
---@param o table  sets, files
---@param edited boolean
---@return runbook.Book
function run.book_of(name, o, edited)
  local directory = store.directory(name)
  local j = store.journal(name)
  local path, thaw = j.meta.runbook, data.decode(j.meta.parameters)
  j:close()
  local sources = sources_of(directory)
  if edited and pcall(book.find, path) then
    sources = nil
  end
  return book.load(path, { thaw = thaw, sets = o.sets, files = o.files, sources = sources })
end

-- Where data lies and which machines are meant stays as the run began (params.thaw refuses); what else changed is said.
local function keep_changes(self)
  local before = effect.own(params.thaw, self.book.declaration, data.decode(self.journal.meta.parameters))
  local changes = params.changes(before, self.book.values)
  if #changes == 0 then
    return
  end
  for _, change in ipairs(changes) do
    events.notice(("parameter %s: %s -> %s"):format(change.name, change.old, change.new))
    self.journal:decide("parameter", change.name, change.new)
  end
  self.journal:set_meta("parameters", data.encode(params.freeze(self.book.values), "parameters"))
  self.journal:set_meta("subject", subject_of(self.book))
  self.journal:commit()
end

--- Go on with a run.
---@async
---@param name string?  nil: the only open one
---@param o table  as for `run.start`
---@return integer exit_code
function run.resume(name, o)
  local row = store.get(name)
  if row.state:match("^roll") then
    errors.raise { kind = "usage", code = "EUSAGE", message = ("%s is %s and does not go on"):format(row.name, row.state),
      hint = row.state ~= "rolled-back" and ("runbook rollback %s"):format(row.name) or "start another run" }
  end
  local self = session.new { name = row.name, directory = store.directory(row.name), options = o }
  return with_session(self, function()
    self.book = run.book_of(row.name, o, true)
    must_know(self.book, o)
    identity.keep(self, identity.look(self.book))
    if row.state == "done" and not (o.again and #o.again > 0) then
      events.notice(("%s is done; --again STEP does a step again"):format(row.name))
      return 0
    end
    keep_changes(self)
    keep_sources(self)
    self.journal:move("run", "run", self.journal:state("run", "run") == "new" and "start" or "recover")
    self.journal:commit()
    begin(self, true)
    recover(self)
    leave_units(self)
    reopen(self)
    return drive(self)
  end)
end

--- Go back: see runbook.rollback.
---@async
function run.rollback(name, o)
  return require("runbook.rollback").rollback(name, o, with_session)
end

--- Write down that a step is done, or is not to be done. Not while a process works on the run.
---@async
---@param name string?
---@param id string
---@param o { state: "done"|"skipped", reason: string }
function run.mark(name, id, o)
  local row = store.get(name, true)
  local self = session.new { name = row.name, directory = store.directory(row.name), options = {} }
  return with_session(self, function()
    self.book = run.book_of(row.name, {}, true)
    must_know(self.book, { only = id })
    local event = o.state == "done" and "mark" or "skip"
    self.journal:move("step", id, event, { reason = o.reason, ended = time.utc() })
    for _, lost in ipairs(self.journal:query("SELECT id FROM effect WHERE step = ? AND state = 'unknown'", id)) do
      self.journal:move("effect", lost.id, "settle")
    end
    jobs.settle_lost(self, id)
    self.journal:decide("mark " .. o.state, id, o.reason)
    self.journal:commit()
    events.emit { type = "step-end", step = id, outcome = o.state, text = o.reason }
    return 0
  end)
end

--- Take away a lock whose holder is gone; see runbook.lock.
---@async
function run.unlock(name, o)
  return require("runbook.lock").unlock(name, o, with_session)
end

--- Remove what dead runs left; see runbook.sweep.
---@async
function run.sweep(o)
  return require("runbook.sweep").sweep(o, with_session)
end

return run
