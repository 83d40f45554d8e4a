--- What a report is made of, read from the directory of a run.

local data = require "runbook.data"
local effect = require "runbook.effect"
local embed = require "runbook.core.embed"
local errors = require "runbook.errors"
local json = require "runbook.json"
local obligation = require "runbook.obligation"
local redaction = require "runbook.redaction"
local store = require "runbook.store"

local facts = {}

-- An event is a line; the last one of a process that was killed may be half a line.
local function events_of(directory)
  local file = io.open(directory .. "/events.ndjson", "rb")
  return function()
    while file do
      local line = file:read "l"
      if line == nil then
        file:close()
        file = nil
        return nil
      end
      local ok, event = pcall(json.decode, line)
      if ok and type(event) == "table" and event.type then
        return event
      end
    end
  end
end

-- Loading the file gives the words of its parameters, its steps in order and its kinds of obligations. One that no longer
-- loads is no reason to report nothing.
local function book_of(name)
  local ok, book = xpcall(require("runbook.run").book_of, errors.handler, name, {}, false)
  if not ok and errors.is_cancelled(book) then
    error(book, 0)
  end
  return ok and book or nil
end

local function items_of(book)
  local list = {}
  for _, item in ipairs(book.items) do
    if item.id then
      list[#list + 1] = { id = item.id, title = item.title, disrupts = item.options and item.options.disrupts ~= nil }
    end
  end
  return list
end

local function parameters_of(book, meta)
  if book then
    return require("runbook.params").show(book.values)
  end
  local list = {}
  for name, value in pairs((data.decode(meta.parameters) or {}).values or {}) do
    list[#list + 1] = { name = name, text = type(value) == "table" and json.encode(value) or tostring(value) }
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

-- The file that was run first, then what it required.
local function sources_of(directory, path)
  local text = effect.own(require("runbook.core.file").read, directory .. "/sources.json")
  local list = {}
  for name, source in pairs(text and json.decode(text) or {}) do
    list[#list + 1] = { path = name, text = source }
  end
  table.sort(list, function(a, b)
    if (a.path == path) ~= (b.path == path) then
      return a.path == path
    end
    return a.path < b.path
  end)
  return list
end

local TABLES = {
  step = "SELECT * FROM step ORDER BY position, started", unit = "SELECT * FROM unit ORDER BY id",
  effect = "SELECT * FROM effect ORDER BY id", obligation = "SELECT * FROM obligation ORDER BY id",
  decision = "SELECT * FROM decision ORDER BY id", receipt = "SELECT * FROM receipt",
  attachment = "SELECT * FROM attachment ORDER BY at, name",
}

--- Read a run. No secret is in what this gives.
---@async
---@param row table  of the store
---@return table facts
function facts.read(row)
  local directory = store.directory(row.name)
  local j = store.journal(row.name)
  local found = { row = row, meta = j.meta, version = embed.version() }
  for name, sql in pairs(TABLES) do
    found[name] = j:query(sql)
  end
  found.jobs = require("runbook.run.jobs").left_running { journal = j }
  j:close()
  local book = book_of(row.name)
  found.items = book and items_of(book)
  found.parameters = parameters_of(book, j.meta)
  found.sources = sources_of(directory, j.meta.runbook)
  found = redaction.value(found)
  found.describe = function(owed) -- of a kind that nothing loaded knows, the data are the words
    return redaction.text(obligation.describe(owed.kind, data.decode(owed.data)))
  end
  local events = events_of(directory)
  found.events = function()
    return redaction.value(events())
  end
  return found
end

return facts
