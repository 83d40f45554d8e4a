--- A failure as an operator reads it: what, where, what the other side said, what to try. And its exit code.

local errors = require "runbook.errors"
local human = require "runbook.human"
local visible = require "runbook.visible"

local failure = {}

-- What ends the command before a step could fail, or instead of one. A step that failed is always 1.
local EXIT = {
  usage = 65, missing = 66, unreachable = 69, lost = 69, timeout = 69, internal = 70, full = 74, busy = 75, limit = 75,
  auth = 77, identity = 77, refused = 77, cancelled = 130,
}

-- Most mistakes stand in a file; these on the command line, or in how this machine is set up.
local EXIT_BY_CODE = { ENETFS = 78, ESCHEMA = 78, EUSAGE = 64 }

--- How a run ended, as an exit code; `stopped` is said by what stopped it, and some failures by `failure.exit_code`.
failure.EXIT_OF_OUTCOME = { done = 0, failed = 1, waiting = 5, declined = 6 }

--- What stopped it: a signal, an output that nobody takes any more (PIPE) or that fails, the deadline.
failure.EXIT_OF_STOP = { HUP = 129, INT = 130, PIPE = 141, TERM = 143, OUTPUT = 74, DEADLINE = 124 }

--- Something could not be undone.
failure.EXIT_ROLLBACK_INCOMPLETE = 4

local SAID_LINES = 20

--- The exit code of an error that reached the command.
---@param e any
---@return integer
function failure.exit_code(e)
  e = errors.from(e)
  if math.type(e.exit) == "integer" then
    return e.exit
  end
  return EXIT_BY_CODE[e.code] or EXIT[e.kind] or 1
end

--- The last lines of what was said, the same line several times in a row only once.
---@param text string
---@param limit? integer
---@return string
function failure.said(text, limit)
  local lines, last, times = {}, nil, 0
  local function close()
    if times > 1 then
      lines[#lines] = ("%s   (%d times)"):format(last, times)
    end
  end
  for line in visible.text(text):gmatch("[^\n]+") do
    if line == last then
      times = times + 1
    else
      close()
      lines[#lines + 1], last, times = line, line, 1
    end
  end
  close()
  limit = limit or SAID_LINES
  if #lines > limit then
    local left = #lines - limit
    lines = table.move(lines, left + 1, #lines, 2, { ("(%s before this)"):format(human.plural(left, "line")) })
  end
  return table.concat(lines, "\n")
end

--- The line of the runbook that led to an error.
---@param e table
---@return string? place  "move-hub.lua:116"
function failure.place(e)
  for line in (e.trace or ""):gmatch("[^\n]+") do
    local place, file = line:match("^%s*((.-%.lua):%d+):")
    if place and not file:find("lib/runbook", 1, true) and not file:find("^%[C%]") then
      return place
    end
  end
  return e.where
end

local function ended_how(e)
  if e.signal then
    return "killed by signal " .. e.signal
  elseif e.status then
    return ("exit status %d"):format(e.status)
  end
end

-- The chain of causes, those that say something new.
local function because(e, message)
  local texts, cause = {}, e.cause
  while type(cause) == "table" do
    local text = cause.message
    if text and not message:find(text, 1, true) then
      texts[#texts + 1] = cause.target and not text:find(cause.target, 1, true) and cause.target .. ": " .. text or text
    end
    cause = cause.cause
  end
  return #texts > 0 and visible.text(table.concat(texts, "\nbecause ")) or nil
end

-- Lua puts a line before the message of a mistake: one of the runbook is its author's, and the trace tells him nothing.
local function is_ours(e, message)
  if e.kind ~= "internal" or not e.trace then
    return false
  end
  local file = message:match("^([^\n]-%.lua):%d+:")
  return file and file:find("lib/runbook/", 1, true) ~= nil or not file and not e.hint
end

--- The rows that explain an error, for `human.rows`.
---@param e table  an error value or the record of one
---@param extra? { unit: string? }
---@return table[]
function failure.rows(e, extra)
  local message = visible.text(e.message or e.kind or "no reason was given")
  local rows = {}
  local function row(label, text, whole)
    if text and text ~= "" then
      rows[#rows + 1] = { label, text, whole = whole }
    end
  end
  row("unit", extra and extra.unit and visible.line(extra.unit))
  row("what", message)
  if e.target and not message:find(e.target, 1, true) then
    row("where", visible.line(e.target))
  end
  row("tried", e.tried and e.tried ~= message and visible.text(e.tried), true)
  local how = ended_how(e)
  row("ended", how and not message:find(how:match("%S+ %S+$"), 1, true) and how)
  row("said", e.stderr and not message:find(e.stderr, 1, true) and failure.said(e.stderr), true)
  row("because", because(e, message))
  row("at", failure.place(e), true)
  row("try", e.hint and not message:find(e.hint, 1, true) and visible.text(e.hint))
  if is_ours(e, message) then
    row("trace", visible.text((e.trace:gsub("^stack traceback:\n", ""):gsub("\t", ""))), true)
    row("please", "this is a mistake in runbook itself, not in what you did; the lines above show where")
  end
  return rows
end

-- Whose messages of several lines are little pages of their own.
local PLAIN = { usage = true, identity = true }

--- An error that ended the command before anything was begun, as text.
---@param e table  an error value or the record of one
---@param width integer
---@return string
function failure.text(e, width)
  local rows = failure.rows(e)
  local head = table.remove(rows, 1)[2]
  if e.target and not head:find(e.target, 1, true) then
    head = visible.line(e.target) .. ": " .. head
    table.remove(rows, 1)
  end
  local lines = human.rows(rows, width)
  table.insert(lines, 1, (PLAIN[e.kind] and head:find("\n", 1, true) and "" or "runbook: ") .. head)
  return table.concat(lines, "\n") .. "\n"
end

--- Findings that stop for the same reason, as one: an unreachable host stops every check that asks it.
---@param stops { title: string, error: any }[]
---@return { title: string, text: string, error: any }[]
function failure.fold(stops)
  local list, by_text = {}, {}
  for _, one in ipairs(stops) do
    local text = one.text or errors.is(one.error) and tostring(one.error) or one.error and one.error.message or ""
    local first = by_text[text]
    if first then
      first.others[#first.others + 1] = one.title
    else
      first = { title = one.title, text = text, error = one.error, others = { one.title } }
      by_text[text], list[#list + 1] = first, first
    end
  end
  for _, one in ipairs(list) do
    if #one.others > 1 then
      local more = #one.others > 2 and (", %d more"):format(#one.others - 2) or ""
      one.title = ("%d checks (%s%s)"):format(#one.others, table.concat(one.others, ", ", 1, 2), more)
    end
  end
  return list
end

return failure
