--- Commands that go on when nobody is connected: supervised on the far side, found again by name.
---
---     local copy = place:job { name = "rsync", argv = { "rsync", "-a", from, to } }
---     local how = copy:wait { on_line = print }        -- { status = 0 }; survives lost connections
---
--- A job started by the same run, step, unit and name is the same job: after a crash `place:job` finds it done, running,
--- lost, or never begun. A try that failed makes room for the next one; one that nobody knows the end of is an error
--- unless `again = true` says that the command may be run after half of itself.

local command = require "runbook.place.command"
local digest = require "runbook.core.digest"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local options = require "runbook.options"
local place = require "runbook.place"
local record = require "runbook.job.record"
local retry = require "runbook.retry"
local scripts = require "runbook.job.scripts"
local shell = require "runbook.shell"
local task = require "runbook.task"
local time = require "runbook.core.time"
local unknown = require "runbook.unknown"

local job = {}

local CHUNK = 256 * 1024
local LINE = 64 * 1024

---@class runbook.Job
---@field place runbook.Place
---@field key string  run/step/unit/name/try
---@field offset { stdout: integer, stderr: integer }  bytes already handed on
local Job = {}

local job_mt = { __name = "runbook.job", __index = Job }

function job_mt.__tostring(self)
  return self.place.name .. ": job " .. self.key
end

-- The run writes a job down before anything is sent, so that a resume knows whom to ask, and what becomes of it.
local function tell(handle, moment, status, dir)
  local session = task.context().session
  if session and session.note_job then
    session:note_job(handle:reference(), moment, { place = handle.place.name, status = status, dir = dir })
  end
end

-- FNV-1a, to keep long names apart; nobody attacks the names of their own steps.
local function short(text)
  local h = 0xcbf29ce484222325
  for i = 1, #text do
    h = (h ~ text:byte(i)) * 0x100000001b3
  end
  return ("%016x"):format(h)
end

-- A part of a key is a file name: bytes that are not safe in one are written %XX, long ones are cut and told apart.
function job.part(text)
  text = tostring(text):gsub("[^%w._-]", function(c) return ("%%%02X"):format(c:byte()) end):gsub("^[.-]", { ["."] = "%2E", ["-"] = "%2D" })
  if #text > 160 then
    text = text:sub(1, 140) .. "%" .. short(text)
  end
  return text
end

-- Which job of that name in this body: a name used twice is two jobs, in the order of the calls.
local function ordinal(context, name)
  local used = rawget(context, "job_names")
  if not used then
    used = {}
    rawset(context, "job_names", used)
  end
  used[name] = (used[name] or 0) + 1
  return used[name] == 1 and name or name .. "." .. used[name]
end

-- Without a run there is no journal to find a job again by, so its name is this process's own.
local own_run

local function run_of(context)
  if context.run_id or context.run then
    return context.run_id or context.run
  end
  own_run = own_run or ("once.%d.%x"):format(time.utc() // 1, math.random(0, 0xffffffff))
  return own_run
end

local function prefix_of(name)
  local context = task.context()
  return table.concat({
    job.part(run_of(context)), job.part(context.step or "_"), job.part(context.unit or "_"), job.part(ordinal(context, name)),
  }, "/")
end

local function handle(at, key, offset)
  return setmetatable({
    place = at, key = key, offset = offset or { stdout = 0, stderr = 0 }, partial = { stdout = "", stderr = "" },
  }, job_mt)
end

-- Runs one of the scripts; none is harmed by being run twice, so a lost connection is no reason to stop.
local function ask(self, script, ...)
  local values = { self.key, ... }
  return (command.script(self.place, script, values, { message = "job " .. self.key }))
end

local function parse_state(line)
  local state, code, out, err, full, dir = line:match("^(%a+) (%S+) (%d+) (%d+) (%S+) (.-)%s*$")
  return {
    state = state, code = math.tointeger(tonumber(code)), full = full == "full", dir = dir ~= "-" and dir or nil,
    stdout = math.tointeger(out), stderr = math.tointeger(err),
  }
end

local function look(self)
  local s
  for _ = 1, 20 do
    s = parse_state(ask(self, scripts.state))
    if s.state ~= "starting" then
      return s
    end
    task.sleep(0.25)
  end
  return s
end

local function outcome(s)
  return { status = s.code, signal = shell.signal_of(s.code), full = s.full or nil }
end

local function raise_lost(self, s)
  errors.raise({
    kind = "lost", target = self.place.name, again = false,
    message = "nobody knows how the job " .. self.key .. " ended: its supervisor is gone (killed, or the machine was restarted)",
    hint = s.dir and self.place:by_hand { "tail", s.dir .. "/out", s.dir .. "/err" } or nil,
  }, 3)
end

local function send(self, o)
  -- A mark at the end of its stdin, because a secret does not tell its length.
  local mark = o.stdin ~= nil and digest.hex(digest.random(16)) or ""
  local values = table.move(o.argv, 1, #o.argv, 4, { self.key, mark, scripts.supervise })
  local argv = table.move(values, 1, #values, 5, { "sh", "-c", scripts.start, "sh" })
  return retry.call({ target = self.place.name, what = "starting the job", reads = true }, function()
    -- Sent twice it finds its own directory, so a cut connection does no harm.
    local r = command.run(self.place, argv, { stdin = o.stdin ~= nil and { o.stdin, mark } or nil, change = true })
    if r.status ~= 0 then
      command.fail(self.place, o.argv, r, { by_words = true, message = "starting the job " .. self.key })
    end
    return r.stdout:match("%a+")
  end)
end

-- Whether the try that is there is the one that is wanted. `nil`: the next number is.
local function settle_try(h, o, history)
  local s = look(h)
  if s.state == "never" then
    ask(h, scripts.forget, "")
    return "again"
  elseif s.state == "running" or s.state == "starting" or s.state == "done" and s.code == 0 and not history[h.key] then
    return "found"
  elseif s.state == "lost" then
    if not o.again and not history[h.key] then
      tell(h, "lost", nil, s.dir)
      raise_lost(h, s)
    end
    tell(h, "settled")
  end
  return nil
end

local function begin(at, o)
  local try, history = record.find(o.prefix)
  local given = { argv = command.wrap(at:with { sudo = false }, o.argv, o), stdin = o.stdin }
  while true do
    local h = handle(at, ("%s/%d"):format(o.prefix, try))
    h.name, h.again, h.about = o.name, o.again or nil, o.about
    tell(h, "starting")
    local what = send(h, given) == "started" and "started" or settle_try(h, o, history)
    if what == "started" or what == "found" then
      tell(h, "started")
      return h, what
    elseif what == nil then
      try = try + 1
    end
  end
end

local start_verb = effect.verb {
  name = "place.job", class = "change", repeatable = true, -- it finds what it started
  target = function(at) return at.name end,
  summary = function(_, o) return ("start job %s: %s"):format(o.name, command.show(o.argv)) end,
  by_hand = function(at, o) return at:by_hand(o.argv) end,
  answer = function(at, o) -- nothing was started; what it would say is unknown
    local planned = handle(at, o.prefix .. "/1")
    planned.planned, planned.name = true, o.name
    return planned
  end,
  body = function(at, o)
    local h, what = begin(at, o)
    events.emit { type = "job", target = at.name, name = o.name, key = h.key, text = what == "started" and what or "found again" }
    return h
  end,
}

local check_start = options.declare("place:job", {
  name = { "string", "what it is called: unique in the step and unit" },
  argv = { "list", "the command" },
  stdin = { "any", "a string or secret; never on that machine's disk", optional = true },
  env = { "table", "environment variables", optional = true },
  cwd = { "string", "directory it runs in", optional = true },
  again = { "boolean", "it may be run after half of itself", default = false },
  about = { "string", "what it does, in words, for messages about it", optional = true },
})

--- Start a job, or find the one that this run, step and unit started by that name; `place:job` is the same.
---@async
---@param at runbook.Place
---@param o { name: string, argv: string[], stdin?: string|runbook.secret, env?: table, cwd?: string, again?: boolean, about?: string }
---@return runbook.Job
function job.start(at, o)
  o = check_start(o, 3)
  o.argv = command.argv(o.argv, "place:job")
  o.prefix = prefix_of(o.name)
  return start_verb(at, o)
end

--- A handle on a job of another process.
---@param at runbook.Place?  by default the place of the reference
---@param reference table  what `job:reference()` gave
---@return runbook.Job
function job.attach(at, reference)
  local h = handle(at or place.open(reference.place), reference.key, {
    stdout = reference.offset and reference.offset.stdout or 0, stderr = reference.offset and reference.offset.stderr or 0,
  })
  h.name, h.again, h.about = reference.name, reference.again, reference.about
  return h
end

place.register("job", function(reference)
  return job.attach(nil, reference)
end)

--- Plain data for the journal; `offset` counts the bytes handed on so far.
---@return { kind: string, place: table, key: string, name: string, again?: boolean, about?: string, offset: table }
function Job:reference()
  return {
    kind = "job", place = self.place:reference(), key = self.key, name = self.name, again = self.again, about = self.about,
    offset = { stdout = self.offset.stdout, stderr = self.offset.stderr },
  }
end

local function job_verb(name, class, what, body)
  return effect.verb {
    name = "job." .. name, class = class, repeatable = true,
    target = function(self) return self.place.name end,
    summary = function(self) return what .. " job " .. self.key end,
    by_hand = function(self) return self.place:by_hand { "ls", "~/.local/state/runbook/jobs/" .. self.key } end,
    body = body,
  }
end

local state_verb = job_verb("state", "read", "look at", look)

--- How it is: `state` is done, running, never, lost (or starting); with done `code`; bytes of `stdout` and `stderr`.
---@async
---@return { state: string, code?: integer, stdout: integer, stderr: integer, full: boolean, dir?: string }
function Job:state()
  return state_verb(self)
end

-- Complete lines of what came so far; a carriage return ends one, too, as programs with a progress line use it.
local function hand_on_lines(self, name, chunk, on_line)
  local text, from = self.partial[name] .. chunk, 1
  while true do
    local at = text:find("[\r\n]", from)
    if not at and #text - from + 1 >= LINE then
      at = from + LINE
      on_line(text:sub(from, at - 1), name)
      from = at
    elseif not at or text:sub(at) == "\r" then -- perhaps the first half of "\r\n"
      break
    else
      on_line(text:sub(from, at - 1), name)
      from = at + (text:sub(at, at + 1) == "\r\n" and 2 or 1)
    end
  end
  self.partial[name] = text:sub(from)
end

local function last_lines(self, on_line)
  for name, rest in pairs(self.partial) do
    if rest ~= "" and on_line then
      on_line((rest:gsub("\r$", "")), name)
      self.partial[name] = ""
    end
  end
end

-- One connection's worth of output, from where we are. True: it ended well, and this was all of it.
local function follow(self, o, on_line)
  local whole = 0
  local values = { self.key, ("%d"):format(self.offset.stdout), ("%d"):format(self.offset.stderr) }
  local argv = table.move(values, 1, #values, 5, { "sh", "-c", scripts.follow, "sh" })
  local function reader(name)
    return function(from, seen)
      while true do
        local chunk, _, code = from:read(CHUNK)
        if not chunk then
          whole = whole + (code and 0 or 1)
          return
        end
        seen.last = time.now()
        self.offset[name] = self.offset[name] + #chunk
        if name == "stderr" then
          self.said = ((self.said or "") .. chunk):sub(-4096)
        end
        if o.on_data then
          o.on_data(chunk, name)
        end
        if on_line then
          hand_on_lines(self, name, chunk, on_line)
        end
      end
    end
  end
  local how, message, code = command.converse(self.place, command.wrap(self.place, argv, {}), {
    what = self.name or self.key, hold = true, stall = false, -- it is the job that is silent, and the job goes on
  }, reader "stdout", reader "stderr")
  if not how then
    errors.raise { kind = errors.kind(code), code = code, target = self.place.name, message = message }
  end
  return how.status == scripts.ALL_SAID and whole == 2
end

local function wait_body(self, o)
  local on_line = o.on_line or not o.on_data and function(line, name)
    events.emit { type = "output", target = self.place.name, stream = name, line = line, job = self.name }
  end
  while true do
    local s = retry.call({ target = self.place.name, what = "attaching", reads = true }, function()
      if follow(self, o, on_line) then
        return { state = "done", code = 0, stdout = self.offset.stdout, stderr = self.offset.stderr }
      end
      return look(self)
    end)
    if s.state == "lost" then
      last_lines(self, on_line)
      tell(self, "lost", nil, s.dir)
      raise_lost(self, s)
    elseif s.state == "never" then
      errors.raise { kind = "missing", target = self.place.name, message = "the job " .. self.key .. " was never started" }
    elseif s.state == "done" and self.offset.stdout >= s.stdout and self.offset.stderr >= s.stderr then
      last_lines(self, on_line)
      if s.full then
        events.emit {
          type = "notice", target = self.place.name,
          text = ("%s: no space left for the output of %s; it may be cut"):format(self.place.name, self.name or self.key),
        }
      end
      tell(self, "ended", s.code)
      return outcome(s)
    end
  end
end

local wait_verb = effect.verb {
  name = "job.wait", class = "read",
  target = function(self) return self.place.name end,
  summary = function(self) return "wait for job " .. self.key end,
  by_hand = function(self) return self.place:by_hand { "tail", "-f", "~/.local/state/runbook/jobs/" .. self.key .. "/out" } end,
  body = wait_body,
}

-- In a plan the wait is listed; what it would have brought is unknown.
local function planned_wait(self)
  effect.wait(("job %s on %s"):format(self.name, self.place.name), function() end)
  return unknown.new("the end of job " .. self.name)
end

local check_wait = options.declare("job:wait", {
  on_line = { "function", "called with each line and `stdout` or `stderr`, instead of showing it", optional = true },
  on_data = { "function", "called with the bytes as they come, and `stdout` or `stderr`; alone, nothing is shown", optional = true },
})

--- Wait for its end and hand on what it prints, every byte once. A lost connection is made again.
---@async
---@param o? { on_line?: fun(line: string, stream: string), on_data?: fun(bytes: string, stream: string) }
---@return { status: integer, signal?: string, full?: boolean }  status is 128 + n after signal n
function Job:wait(o)
  if self.planned then
    return planned_wait(self)
  end
  return wait_verb(self, check_wait(o, 2))
end

--- Wait for its end; raises unless it ended with status 0 (or one of `allowed`).
---@async
---@param o? { on_line?: function, on_data?: function, allowed?: integer[] }
---@return integer status
function Job:must_succeed(o)
  if self.planned then
    return planned_wait(self)
  end
  local allowed = o and o.allowed or {}
  local how = self:wait { on_line = o and o.on_line, on_data = o and o.on_data }
  if how.status == 0 then
    return 0
  end
  for _, status in ipairs(allowed) do
    if status == how.status then
      return status
    end
  end
  local said = (self.said or ""):match("([^\n]+)%s*$")
  errors.raise({
    kind = command.kind_of(self.said or ""), target = self.place.name, status = how.status, signal = how.signal,
    stderr = self.said,
    message = ("job %s %s%s%s"):format(self.name or self.key,
      how.signal and "was ended by signal " .. how.signal or "ended with status " .. how.status,
      how.full and "; no space was left for its output" or "", said and ": " .. said or ""),
  }, 2)
end

local stop_verb = job_verb("stop", "change", "stop", function(self, seconds)
  ask(self, scripts.stop, ("%d"):format(seconds))
end)

--- End it with all it started: TERM to its group, KILL after some seconds. A process that only has its number is left alone.
---@async
---@param o? { seconds?: integer }
function Job:stop(o)
  stop_verb(self, math.max(0, math.floor(o and o.seconds or 5)))
end

local forget_verb = job_verb("forget", "change", "remove the traces of", function(self)
  ask(self, scripts.forget, "")
  tell(self, "forgotten")
end)

--- Remove its directory there. What still runs is not forgotten.
---@async
function Job:forget()
  forget_verb(self)
end

local list_verb = effect.verb {
  name = "job.list", class = "read",
  target = function(at) return at.name end,
  summary = function(_, run) return "list the jobs of " .. run end,
  by_hand = function(at, run) return at:by_hand { "find", "~/.local/state/runbook/jobs/" .. run } end,
  body = function(at, run)
    local found = {}
    for key in ask(handle(at, job.part(run)), scripts.list):gmatch("[^\n]+") do
      found[#found + 1] = handle(at, key)
    end
    return found
  end,
}

--- The jobs a run left at a place, whatever their state.
---@async
---@param at runbook.Place
---@param run string
---@return runbook.Job[]
function job.list(at, run)
  return list_verb(at, run)
end

return job
