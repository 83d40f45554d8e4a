--- What people and programs are told while something runs: one stream of events, many readers.
---
--- An event is a table with `type`, `at` (seconds since 1970, UTC) and, where there is one, `run`, `step` and `unit`.
--- Every string in it is redacted before anyone sees it. Readers are added with `events.subscribe`; the program that
--- embeds us gets each as JSON.

local embed = require "runbook.core.embed"
local json = require "runbook.json"
local redaction = require "runbook.redaction"
local task = require "runbook.core.task"
local time = require "runbook.core.time"

local events = {}

--- Of what `events.ndjson` and `--json` hold. Fields may be added within a version; readers ignore what they do not know.
events.SCHEMA = 1

local readers = {}

--- Add a reader; it gets every event table and must not keep or change it.
---@param fn fun(event: table)
---@return fun() unsubscribe
function events.subscribe(fn)
  readers[#readers + 1] = fn
  return function()
    for i, reader in ipairs(readers) do
      if reader == fn then
        table.remove(readers, i)
        return
      end
    end
  end
end

--- An event as one line of JSON, bytes that are not UTF-8 replaced.
---@param event table
---@return string
function events.encode(event)
  return json.encode(event, { lossy = true, sorted = true })
end

--- Tell everybody.
---@param event table
function events.emit(event)
  local context = task.context()
  event.at = event.at or time.utc()
  event.run = event.run or context.run
  event.step = event.step or context.step
  event.unit = event.unit or context.unit
  event = redaction.value(event)
  for _, reader in ipairs(readers) do
    reader(event)
  end
  if embed.has_sink() then
    embed.send(events.encode(event))
  end
end

--- A line that is worth reading though nothing failed.
---@param text string
---@param level? "info"|"warning"
function events.notice(text, level)
  events.emit { type = "notice", text = text, level = level or "info" }
end

--- Rows that people will want to see again: in the report of the run, where the last table of a name stands. A library that
--- finds out something worth a table of its own (a ledger, what will not survive a copy) says it with this.
---@param t { name: string, title: string, columns: string[], rows: any[][], text?: string }  text: a sentence before it
function events.table(t)
  events.emit { type = "table", name = t.name, title = t.title, columns = t.columns, rows = t.rows, text = t.text }
end

return events
