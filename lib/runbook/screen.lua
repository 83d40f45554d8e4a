--- What people see while something runs: events, written to stderr.
---
--- On a terminal a few lines at the bottom are alive (the present step, its progress); what has happened scrolls away above
--- them. Elsewhere every event is one line with its time, and progress is said once a minute. What comes from other machines
--- passes `runbook.visible`, so that no output of theirs is obeyed by this terminal.

local failure = require "runbook.failure"
local human = require "runbook.human"
local live = require "runbook.live"
local visible = require "runbook.visible"

local screen = {}

local OUTPUT_LINES = 500     -- kept for folding before they are shown anyway
local PROGRESS_SECONDS = 60  -- between two lines of progress where there is no terminal
local FAILED_UNITS = 5       -- named under a step that failed
local KEPT = 16 * 1024 * 1024 -- bytes of lines, while nobody takes them

local COLOURS = { bold = "1", dim = "2", red = "31", green = "32", yellow = "33" }

---@class runbook.Screen
local Screen = {}
local screen_mt = { __name = "runbook.screen", __index = Screen }

---@class runbook.screen.opts
---@field write fun(text: string)
---@field ready? fun(): boolean    may more be written now?
---@field keep? integer           bytes kept while not
---@field now fun(): number       seconds since 1970
---@field terminal? boolean       lines may be written over
---@field colour? boolean
---@field ascii? boolean          nothing but ASCII can be shown
---@field width? fun(): integer
---@field quiet? boolean          failures, warnings and what waits for somebody, nothing else
---@field verbose? integer        1: effects; 2: also what each is by hand

--- Make a screen; events are given to `Screen:event`, and `Screen:tick` is called some times a second.
---@param o runbook.screen.opts
---@return runbook.Screen
function screen.new(o)
  return setmetatable({
    put = o.write, ready = o.ready or function() return true end, now = o.now, terminal = o.terminal, colour = o.colour, ascii = o.ascii,
    width = o.width or function() return 100 end, quiet = o.quiet, verbose = o.verbose or 0,
    lines = {}, kept = 0, keep = o.keep or KEPT, lost = 0, shown = 0, held = 0, output = {}, said_progress = {},
  }, screen_mt)
end

function Screen:paint(colour, text)
  return self.colour and ("\27[%sm%s\27[0m"):format(COLOURS[colour], text) or text
end

function Screen:clean(text)
  return visible.text(text, self.ascii)
end

local function clock(at)
  return os.date("!%H:%M:%SZ", math.floor(at))
end

-- A line, or several, that stay. Where there is no terminal the first gets the time and the step.
function Screen:say(text, e)
  if not self.terminal then
    local step = e and e.step and e.step .. " " or ""
    text = ("%s %s%s"):format(clock(e and e.at or self.now()), step, text)
  end
  self:block { text }
end

function Screen:block(lines)
  for _, line in ipairs(lines) do
    if self.kept > self.keep then -- the older half goes: what is new says how things are
      local half = (#self.lines + 1) // 2
      self.lines, self.lost = table.move(self.lines, half + 1, #self.lines, 1, {}), self.lost + half
      self.kept = self.kept // 2
    end
    self.lines[#self.lines + 1] = line
    self.kept = self.kept + #line
  end
end

-- Up to the first living line; each is written over, for clearing all of them first would flicker.
local function bytes_of(lines, alive, shown)
  local over = shown > 0
  local newline = over and "\27[K\n" or "\n"
  local out = { shown > 1 and ("\r\27[%dA"):format(shown - 1) or over and "\r" or "" }
  for _, line in ipairs(lines) do
    out[#out + 1] = line .. newline
  end
  out[#out + 1] = table.concat(alive, newline) .. (over and "\27[J" or "")
  return table.concat(out)
end

--- Write what is waiting, and the living lines anew.
function Screen:flush()
  if self.held > 0 or not self.ready() then
    return
  end
  if self.lost > 0 then
    local text = ("(%s not shown: nobody took them; `runbook show --log` has all)"):format(human.plural(self.lost, "line"))
    table.insert(self.lines, 1, text)
    self.lost = 0
  end
  local alive = (self.quiet or not self.terminal) and {} or live.lines(self)
  local looks = table.concat(alive, "\n")
  if #self.lines == 0 and looks == self.looks and #alive == self.shown then
    return
  end
  local text = bytes_of(self.lines, alive, self.shown)
  self.lines, self.kept, self.shown, self.looks = {}, 0, #alive, looks
  if text ~= "" then
    self.put(text)
  end
end

--- Take the living lines away until `release`: somebody is being asked.
function Screen:hold()
  self:fold_output()
  self:flush()
  if self.terminal and self.held == 0 and self.shown > 0 then
    self.put(self.shown > 1 and ("\r\27[%dA\27[J"):format(self.shown - 1) or "\r\27[J")
    self.shown = 0
  end
  self.held = self.held + 1
end

function Screen:release()
  self.held = self.held - 1
  self:flush()
end

-- Hosts that said the same thing are named once, before it.
function Screen:fold_output()
  if #self.output == 0 then
    return
  end
  local by_target, targets = {}, {}
  for _, e in ipairs(self.output) do
    local said = by_target[e.target]
    if not said then
      said = { step = e.step, at = e.at }
      by_target[e.target] = said
      targets[#targets + 1] = e.target
    end
    said[#said + 1] = (e.stream == "stderr" and "! " or "| ") .. e.line
  end
  self.output = {}
  local groups, order = {}, {}
  for _, target in ipairs(targets) do
    local key = table.concat(by_target[target], "\n")
    if not groups[key] then
      groups[key] = { said = by_target[target] }
      order[#order + 1] = groups[key]
    end
    table.insert(groups[key], target)
  end
  for _, group in ipairs(order) do
    self:output_group(human.fold(group), group.said)
  end
end

function Screen:output_group(who, said)
  local e, i = { step = said.step, at = said.at }, 1
  who = self:clean(who)
  while i <= #said do
    local times = 1
    while said[i + times] == said[i] do
      times = times + 1
    end
    local text = ("%s %s"):format(who, visible.line(said[i], self.ascii))
    if times > 1 then
      text = ("%s   (%d times)"):format(text, times)
    end
    self:say(self.terminal and "   " .. text or text, e)
    i = i + times
  end
end

local function number_of(step)
  return step.index and ("%2d "):format(step.index) or "   "
end

-- Rows but for those that the line above them says already.
local function without_heads(rows)
  local rest = {}
  for _, row in ipairs(rows) do
    rest[#rest + 1] = row[1] ~= "what" and row[1] ~= "where" and row or nil
  end
  return rest
end

-- Findings of checks are shown together, when the last is in.
function Screen:close_checks()
  local c = self.checks
  if not c then
    return
  end
  self.checks = nil
  if self.quiet and #c.stop == 0 then
    return
  end
  self:say(("%s: %d good, %d to know, %d stop"):format(c.id or "checks", c.good, #c.know, #c.stop), { at = c.at })
  for _, one in ipairs(c.know) do
    self:finding(".", one)
  end
  for _, one in ipairs(failure.fold(c.stop)) do
    self:finding(self:paint("red", "x"), one)
    if one.error then
      self:block(human.rows(without_heads(failure.rows(one.error)), self.width(), 6))
    end
  end
end

function Screen:finding(mark, one)
  local title, text = self:clean(one.title or ""), self:clean(one.text or "")
  local several = text:find("\n", 1, true)
  local first = (text == "" or text == title) and title or several and title .. ":" or ("%s: %s"):format(title, text)
  local lines = human.wrap(first, math.max(40, self.width() - 4))
  for i, line in ipairs(lines) do
    lines[i] = (i == 1 and "  " .. mark .. " " or "    ") .. line
  end
  self:block(lines)
  if several then
    self:block(human.rows({ { "", text, whole = true } }, self.width(), 0))
  end
end

local handlers = {}

handlers["run-start"] = function(self, e)
  self.run, self.title = e.run, e.title
  if self.quiet then
    return
  end
  local what = e.resumed and "goes on" or nil
  if self.terminal then
    self:say(self:paint("bold", self:clean(e.title or e.runbook or "")) .. "   " .. e.run .. (what and " " .. what or ""))
  else
    self:say(("%s: %s%s"):format(e.run, what and what .. ": " or "", self:clean(e.title or e.runbook or "")), e)
  end
end

handlers.section = function(self, e)
  if not self.quiet and self.terminal then
    self:say("")
    self:say(self:paint("bold", self:clean(e.title)))
  end
end

handlers["step-start"] = function(self, e)
  self.current = {
    id = e.step, title = self:clean(e.title or ""), index = e.index, count = e.count, since = e.at, units = {}, failed = {},
    done = 0, left = 0,
  }
  if not self.quiet and not self.terminal then
    local place = e.index and e.count and ("%d/%d "):format(e.index, e.count) or ""
    self:say(("begins: %s%s"):format(place, self.current.title), e)
  end
end

local OUTCOMES = {
  done = { "ok", "green", "done" }, already = { "ok", "green", "so already" }, skipped = { "--", "dim", "skipped" },
  left = { "--", "dim", "left" }, waiting = { "..", "yellow", "waits" }, cancelled = { "..", "yellow", "stopped" },
  failed = { "x ", "red", "failed" }, stopped = { "..", "yellow", "stopped" }, declined = { "..", "yellow", "declined" },
  undone = { "ok", "green", "undone" },
}

local function unit_summary(step)
  if step.done + #step.failed == 0 then
    return ""
  elseif #step.failed == 0 then
    return ", " .. human.count(step.done) .. " done"
  end
  return (": %s failed, %s done and stay done"):format(human.count(#step.failed),
    step.done == 1 and "1 is" or human.count(step.done) .. " are")
end

function Screen:step_failed(step, e)
  if e.error then
    self.explained = true
    self:block(human.rows(failure.rows(e.error, { unit = e.unit }), self.width()))
  end
  if e.text then
    self:block(human.rows({ { "left", self:clean(e.text) } }, self.width()))
  end
  for i, one in ipairs(step.failed) do
    if i > FAILED_UNITS then
      self:block { ("   %s more"):format(human.count(#step.failed - FAILED_UNITS)) }
      break
    elseif one.error then
      local rows = failure.rows(one.error, { unit = one.unit })
      if #rows > 3 then -- unit, what and at: the line of the unit has said that
        self:block { "" }
        self:block(human.rows(rows, self.width()))
      end
    end
  end
end

handlers["step-end"] = function(self, e)
  local step = self.current or { id = e.step, title = self:clean(e.title or ""), units = {}, failed = {}, done = 0, left = 0 }
  self.finished = step.index or self.finished
  self.count = step.count or self.count
  local look = OUTCOMES[e.outcome] or { "  ", "dim", tostring(e.outcome) }
  self.current = nil
  self.said_progress[step.id or ""] = nil
  if self.quiet and e.outcome ~= "failed" then
    return
  end
  local seconds = e.seconds and e.seconds >= 0.05 and human.duration(e.seconds) or nil
  if self.terminal then
    local head = ("%s %s%s  %s"):format(self:paint(look[2], look[1]), number_of(step), step.id or "", step.title)
    local tail = (e.outcome == "done" and "" or "  " .. look[3]) .. unit_summary(step) .. (seconds and "   " .. seconds or "")
    self:say(head .. tail)
  else
    self:say(look[3] .. unit_summary(step) .. (seconds and " after " .. seconds or ""), e)
  end
  if e.outcome == "failed" then
    self:block { "" }
    self:step_failed(step, e)
    self:block { "" }
  elseif e.text then
    self:block(human.rows({ { "because", self:clean(e.text) } }, self.width()))
  end
end

handlers["unit-start"] = function(self, e)
  if self.current then
    self.current.units[e.unit] = e.at
  end
end

handlers["unit-end"] = function(self, e)
  local step = self.current
  if not step then
    return
  end
  step.units[e.unit] = nil
  if e.outcome == "done" or e.outcome == "already" then
    step.done = step.done + 1
  elseif e.outcome == "failed" then
    step.failed[#step.failed + 1] = { unit = e.unit, error = e.error }
    local message = self:clean(e.error and e.error.message or "failed"):match("[^\n]*")
    self:say(("%s%s: %s"):format(self.terminal and " " .. self:paint("red", "x") .. " " or "", self:clean(e.unit), message), e)
  elseif e.outcome == "left" then
    step.left = step.left + 1
  end
end

handlers.check = function(self, e)
  local c = self.checks or { id = e.step, at = e.at, good = 0, know = {}, stop = {} }
  self.checks = c
  if e.outcome == "good" then
    c.good = c.good + 1
  else
    table.insert(c[e.outcome] or c.know, e)
  end
end

handlers.table = function(self, e)
  self:close_checks()
  if self.quiet then
    return
  end
  local rows = {}
  for i, row in ipairs(e.rows) do
    rows[i] = {}
    for j, value in ipairs(row) do
      rows[i][j] = type(value) == "string" and self:clean(value) or value
    end
  end
  self:say(self:clean(e.title), e)
  self:block(human.table(e.columns, rows, math.max(60, self.width()), 3))
end

handlers.say = function(self, e)
  if not self.quiet then
    for line in (self:clean(e.text) .. "\n"):gmatch("(.-)\n") do
      self:say(self.terminal and "   " .. line or line, e)
    end
  end
end

handlers.output = function(self, e)
  if self.quiet then
    return
  end
  self.output[#self.output + 1] = e
  if #self.output >= OUTPUT_LINES then
    self:fold_output()
  end
end

handlers.progress = function(self, e)
  local key = e.step or ""
  if self.current and (e.step == nil or e.step == self.current.id) then
    self.current.progress = e
  end
  if self.terminal or self.quiet then
    return
  end
  local before = self.said_progress[key]
  if before == nil then -- the first minute is quiet: most steps are over by then
    self.said_progress[key] = e.at
  elseif e.at - before >= PROGRESS_SECONDS then
    self.said_progress[key] = e.at
    self:say(self:clean(live.progress_line(e, self.current)), e)
  end
end

handlers.effect = function(self, e)
  if e.verb == "attach" and e.phase == "done" then
    self.files = self.files or {}
    table.insert(self.files, (e.summary:gsub("^write ", "")))
  end
  if self.current and e.phase == "intent" then
    self.current.effect = self:clean(("%s: %s"):format(e.target or "here", e.summary or e.verb))
  end
  if self.verbose == 0 or self.quiet or e.phase ~= "intent" then
    return
  end
  local text = ("%s: %s"):format(self:clean(e.target or "here"), self:clean(e.summary or e.verb))
  self:say(self.terminal and "   > " .. text or text, e)
  if self.verbose > 1 and e.by_hand then
    self:block { "       " .. self:clean(e.by_hand) }
  end
end

handlers.notice = function(self, e)
  if self.quiet and e.level ~= "warning" then
    return
  end
  local mark = e.level == "warning" and self:paint("yellow", "! ") or ""
  for i, line in ipairs(human.wrap(self:clean(e.text), self.terminal and self.width() - 6 or nil)) do
    self:say((self.terminal and " " or "") .. (i == 1 and mark or mark ~= "" and "  " or "") .. line, e)
  end
end

handlers.job = function(self, e)
  if self.verbose > 0 and not self.quiet then
    local text = ("%s: job %s %s"):format(self:clean(e.target or "here"), self:clean(e.name or ""), e.text or e.state or "")
    self:say(self.terminal and "   > " .. text or text, e)
  end
end

local ENDS = {
  done = { "ok", "green", "is done" }, failed = { "x ", "red", "failed" }, stopped = { "..", "yellow", "stopped" },
  waiting = { "..", "yellow", "waits" }, declined = { "..", "yellow", "was not begun: you said no" },
  ["rolled-back"] = { "ok", "green", "is undone" },
  ["rollback-incomplete"] = { "x ", "red", "is not undone completely" },
}

local function end_rows(e, explained, kept)
  local rows = {}
  local function row(label, text, whole)
    if type(text) == "string" and text ~= "" then
      rows[#rows + 1] = { label, text, whole = whole }
    end
  end
  row("why", not explained and e.text ~= "cancelled" and e.text)
  row("goes on", e.jobs and table.concat(e.jobs, "\n"))
  row("end it", e.end_jobs, true)
  row("unsure", e.unconfirmed and table.concat(e.unconfirmed, "\n"))
  row("kept", kept and table.concat(kept, "\n"), true)
  if e.state == "rollback-incomplete" then
    row("again", e.next, true)
  elseif e.state ~= "done" then
    row("go on", e.next, true)
  end
  if e.state == "failed" or e.state == "stopped" or e.state == "waiting" then
    row("back", e.run and "runbook rollback " .. e.run, true)
  end
  return rows
end

handlers["run-end"] = function(self, e)
  local look = ENDS[e.state] or { "  ", "dim", tostring(e.state) }
  self.current = nil
  if self.quiet and (e.state == "done" or e.state == "rolled-back") then
    return
  end
  local title = self:clean(self.title or e.run or "the run")
  local took = e.seconds and e.seconds >= 0.05 and human.duration(e.seconds) or ""
  if self.terminal then
    local parts = { ("%s %s %s"):format(self:paint(look[2], look[1]), title, look[3]), e.run or "" }
    if e.state == "done" and self.count and self.finished == self.count then
      parts[#parts + 1] = ("%d of %d steps"):format(self.finished, self.count)
    end
    parts[#parts + 1] = took ~= "" and took or nil
    parts[#parts + 1] = os.date("%a %Y-%m-%d %H:%M", math.floor(e.at))
    self:block { "", table.concat(parts, "   ") }
  else
    self:say(("%s %s%s"):format(e.run or "the run", look[3], took ~= "" and " after " .. took or ""), { at = e.at })
  end
  local rows = end_rows(e, self.explained, self.files)
  for _, row in ipairs(rows) do
    row[2] = self:clean(row[2])
  end
  if #rows > 0 then
    self:block { "" }
    self:block(human.rows(rows, self.width()))
  end
end

handlers["undo-plan"] = function(self, e)
  self:say(("%s  %s"):format(e.step, self:clean(e.title or "")), { at = e.at })
  for _, line in ipairs(e.lines or {}) do
    self:block { "    " .. self:clean(line) }
  end
end

handlers.leftover = function(self, e)
  local costs = e.costs and ", which costs money while it exists" or ""
  self:say(("%s left behind: %s%s"):format(e.run, self:clean(e.text or e.kind), costs), { at = e.at })
end

handlers.planned = function(self, e)
  self.current = self.current or { id = "plan", title = "looking at the real thing; nothing is changed", since = e.at, units = {},
    failed = {}, done = 0, left = 0 }
  self.current.effect = "seen: " .. self:clean(e.step or "")
end

-- These may come in the middle of anything, and do not end a group of findings or of output lines.
local PASSING = { progress = true, ["unit-start"] = true, check = true, output = true, effect = true, job = true }

--- Show an event.
---@param e table
function Screen:event(e)
  if not PASSING[e.type] then
    self:fold_output()
    self:close_checks()
  end
  local handle = handlers[e.type]
  if handle then
    handle(self, e)
  end
  if not PASSING[e.type] or not self.terminal then
    self:flush()
  end
end

--- Called some times a second: shows what was gathered, and how time passes.
function Screen:tick()
  self:fold_output()
  self:flush()
end

--- Take the living lines away and write what is left.
function Screen:close()
  self.current = nil
  self.held = 0
  self:fold_output()
  self:close_checks()
  self:flush()
end

return screen
