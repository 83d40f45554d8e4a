--- What the events of a run tell: which processes worked on it, how each try of a step went, what was found, asked and said.

local screen = require "runbook.screen"

local story = {}

local FIRST_LINES, LAST_LINES = 100, 900 -- kept of what a step showed; what is between is in events.ndjson

---@class runbook.report.process
---@field at number  when it began
---@field ended number  its end, or the last that was seen of it
---@field who? string
---@field version? string
---@field resumed boolean
---@field rollback boolean
---@field outcome string  of the run as this process left it; "killed" when it had no time to say so, "running"
---@field exit? integer
---@field text? string
---@field handed_over? boolean  another person or machine than before

---@class runbook.report.try
---@field step string
---@field at number
---@field ended? number
---@field seconds? number
---@field outcome string  done failed ...; "cut off" when its process was killed, "running"
---@field undo? boolean
---@field text? string
---@field error? table
---@field process integer  its number; 0: none, somebody marked it

---@class runbook.report.story
---@field processes runbook.report.process[]
---@field tries runbook.report.try[]
---@field checks table<string, table[]>  by step: those of its last try
---@field questions table[]
---@field forecasts table[]
---@field failures table[]
---@field notices table[]  retries and warnings
---@field tables table[]
---@field logs table<string, runbook.report.log>  by step; "" is what belongs to none
local Story = {}
Story.__index = Story

local function cut_off(self)
  local try = self.open
  if try then
    try.outcome, try.ended = self.process and self.process.outcome == "killed" and "cut off" or "stopped", self.last
    self.open = nil
  end
end

-- A process that did not say how it ended was killed, or it is still at work.
local function close_process(self, outcome)
  local process = self.process
  if process then
    process.outcome, process.ended = outcome, self.last
    cut_off(self)
    self.process = nil
  end
end

local hear = {}

hear["run-start"] = function(self, e)
  close_process(self, "killed")
  local before = self.processes[#self.processes]
  self.process = {
    at = e.at, ended = e.at, who = e.who, version = e.version, resumed = e.resumed or false, rollback = e.rollback or false,
    handed_over = before and before.who and e.who and before.who ~= e.who or nil,
  }
  self.processes[#self.processes + 1] = self.process
end

hear["run-end"] = function(self, e)
  self.last = e.at
  if self.process then
    self.process.exit, self.process.text = e.exit, e.text
    close_process(self, e.state)
  end
end

hear["step-start"] = function(self, e)
  cut_off(self)
  self.open = {
    step = e.step, at = e.at, undo = e.kind == "undo" or nil, outcome = "running", process = self.process and #self.processes or 0,
  }
  self.tries[#self.tries + 1] = self.open
  if e.kind ~= "undo" then
    self.checks[e.step] = nil
  end
end

local function add_failure(self, e)
  if e.error then
    table.insert(self.failures, { at = e.at, step = e.step, unit = e.unit, error = e.error })
  end
end

hear["step-end"] = function(self, e)
  local try = self.open
  if try and try.step == e.step then
    self.open = nil
  else -- skipped or marked by hand: it never began
    try = { step = e.step, at = e.at, process = self.process and #self.processes or 0 }
    self.tries[#self.tries + 1] = try
  end
  try.ended, try.seconds, try.outcome, try.text, try.error = e.at, e.seconds, e.outcome, e.text, e.error
  add_failure(self, e)
end

hear["unit-end"] = add_failure

function hear.check(self, e)
  local step = e.step or ""
  self.checks[step] = self.checks[step] or {}
  table.insert(self.checks[step], { title = e.title, outcome = e.outcome, text = e.text, error = e.error })
end

function hear.question(self, e)
  table.insert(self.questions, { at = e.at, step = e.step or "", title = e.title, text = e.text, rows = e.rows })
end

function hear.forecast(self, e)
  table.insert(self.forecasts, { at = e.at, low = e.low, high = e.high, text = e.text, window = e.window })
end

function hear.notice(self, e)
  if e.tries or e.level == "warning" then
    table.insert(self.notices, { at = e.at, step = e.step, text = e.text, again = e.tries and true or nil })
  end
end

hear["table"] = function(self, e)
  local found
  for i, one in ipairs(self.tables) do
    found = one.name == e.name and i or found
  end
  self.tables[found or #self.tables + 1] = { name = e.name, title = e.title, text = e.text, columns = e.columns or {}, rows = e.rows or {} }
end

---@class runbook.report.log
---@field first string[]
---@field left_out integer  lines between the two
---@field last string[]

local function add_line(log, line)
  if #log.first < FIRST_LINES then
    log.first[#log.first + 1] = line
    return
  end
  log.last[#log.last + 1] = line
  if #log.last >= 2 * LAST_LINES then -- not at every line
    log.left_out = log.left_out + #log.last - LAST_LINES
    log.last = table.move(log.last, #log.last - LAST_LINES + 1, #log.last, 1, {})
  end
end

-- What was shown, as lines with times, by the same words as `show --log`.
local function new_log(self)
  local step = ""
  local shown = screen.new {
    now = function() return self.last or 0 end, verbose = 1,
    write = function(text)
      self.logs[step] = self.logs[step] or { first = {}, left_out = 0, last = {} }
      for line in text:gmatch("[^\n]*") do
        if line ~= "" then
          add_line(self.logs[step], line)
        end
      end
    end,
  }
  return function(e)
    if (e.step or "") ~= step then
      shown:close()
      step = e.step or ""
    end
    shown:event(e)
  end, function() shown:close() end
end

--- Read the events of a run, in their order.
---@param events fun(): table?
---@param alive boolean  a process works on it now
---@return runbook.report.story
function story.read(events, alive)
  local self = setmetatable({
    processes = {}, tries = {}, checks = {}, questions = {}, forecasts = {}, failures = {}, notices = {}, tables = {}, logs = {},
  }, Story)
  local log, close_log = new_log(self)
  for e in events do
    if hear[e.type] then
      hear[e.type](self, e)
    end
    self.last = e.at or self.last
    log(e)
  end
  close_log()
  if alive and self.process then
    self.process.outcome, self.process.ended = "running", self.last
  else
    close_process(self, "killed")
  end
  return self
end

return story
