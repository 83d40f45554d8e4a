--- The journal of a run: a SQLite database that holds what resume, rollback and sweep need, and nothing else.
---
--- All writing goes through `Journal:commit` and `Journal:later`. `later` keeps statements until the next commit, so that an
--- outcome and the intent that follows it are one transaction. States are set by `Journal:move` alone.

local core = require "runbook.core.sqlite"
local data = require "runbook.data"
local effect = require "runbook.effect"
local embed = require "runbook.core.embed"
local errors = require "runbook.errors"
local redaction = require "runbook.redaction"
local states = require "runbook.states"
local time = require "runbook.core.time"

local journal = {}

--- Raised by one with each change of the tables below; a newer one is refused.
journal.SCHEMA = 1

local TABLES = {
  [[CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID]],
  [[CREATE TABLE run (id TEXT PRIMARY KEY, state TEXT NOT NULL, detail TEXT, changed REAL NOT NULL) WITHOUT ROWID]],
  [[CREATE TABLE step (id TEXT PRIMARY KEY, state TEXT NOT NULL, position INTEGER, title TEXT, try INTEGER NOT NULL DEFAULT 0,
     started REAL, ended REAL, result TEXT, error TEXT, source TEXT, parameters TEXT, reason TEXT, changed REAL NOT NULL) WITHOUT ROWID]],
  [[CREATE TABLE unit (id TEXT PRIMARY KEY, state TEXT NOT NULL, result TEXT, error TEXT, reason TEXT,
     changed REAL NOT NULL) WITHOUT ROWID]],
  [[CREATE TABLE effect (id INTEGER PRIMARY KEY, state TEXT NOT NULL, step TEXT, unit TEXT, try INTEGER, verb TEXT, class TEXT,
     target TEXT, summary TEXT, by_hand TEXT, inverse TEXT, undoes INTEGER, repeatable INTEGER, error TEXT, started REAL,
     changed REAL NOT NULL)]],
  [[CREATE TABLE obligation (id INTEGER PRIMARY KEY, state TEXT NOT NULL, kind TEXT NOT NULL, data TEXT, scope TEXT NOT NULL,
     step TEXT, job TEXT, costs TEXT, tries INTEGER NOT NULL DEFAULT 0, error TEXT, changed REAL NOT NULL)]],
  [[CREATE TABLE job (id INTEGER PRIMARY KEY, state TEXT NOT NULL, step TEXT, unit TEXT, name TEXT, place TEXT, reference TEXT,
     detail TEXT, changed REAL NOT NULL)]],
  [[CREATE TABLE decision (id INTEGER PRIMARY KEY, at REAL, who TEXT, what TEXT, subject TEXT, reason TEXT)]],
  [[CREATE TABLE receipt (pair TEXT, unit TEXT, level TEXT, data TEXT, at REAL, PRIMARY KEY (pair, unit)) WITHOUT ROWID]],
  [[CREATE TABLE attachment (name TEXT PRIMARY KEY, path TEXT, step TEXT, at REAL) WITHOUT ROWID]],
  [[CREATE INDEX effect_step ON effect (step, state)]],
}

-- The columns an event may set besides the state.
local COLUMNS = {
  run = { "detail" },
  step = { "position", "title", "try", "started", "ended", "result", "error", "source", "parameters", "reason" },
  unit = { "result", "error", "reason" },
  effect = { "error" },
  obligation = { "tries", "error" },
  job = { "reference", "detail" },
}

---@class runbook.Journal
---@field path string
local Journal = {}
local journal_mt = { __name = "runbook.journal", __index = Journal }

local function check(path, ...)
  return errors.check(path, "journal", ...)
end

local function open_database(path, create)
  return check(path, core.open(path, {
    create = create, journal = true, busy_timeout = 5,
    pragmas = { journal_mode = "WAL", synchronous = "FULL", foreign_keys = "ON" },
  }))
end

local function wrap(path, db)
  return setmetatable({ path = path, db = db, pending = {}, states = {}, next_id = {} }, journal_mt)
end

--- Make the journal of a new run.
---@async
---@param path string
---@param meta table<string, string>  what never changes: name, runbook, version
---@return runbook.Journal
function journal.create(path, meta)
  return effect.own(function()
    local j = wrap(path, open_database(path, true))
    local statements = {}
    for _, sql in ipairs(TABLES) do
      statements[#statements + 1] = { sql }
    end
    meta.schema = tostring(journal.SCHEMA)
    for key, value in pairs(meta) do
      statements[#statements + 1] = { "INSERT INTO meta VALUES (?, ?)", key, tostring(value) }
    end
    statements[#statements + 1] = { "INSERT INTO run (id, state, changed) VALUES ('run', 'new', ?)", time.utc() }
    check(path, j.db:run(table.unpack(statements)))
    j:load()
    return j
  end)
end

-- Killed before its first commit, a run has done nothing: it is as if it had never been.
local function must_have_begun(j)
  if #j:query "SELECT 1 FROM sqlite_master WHERE name = 'meta'" == 0 then
    j:close()
    errors.raise { kind = "missing", code = "ENEVER", target = j.path, message = "this run was ended before it began; nothing was done",
      hint = "start it again" }
  end
end

--- Open the journal of a run that was made before. Code ENEVER when that was killed before its first commit.
---@async
---@param path string
---@return runbook.Journal
function journal.open(path)
  return effect.own(function()
    local j = wrap(path, open_database(path, false))
    must_have_begun(j)
    j:load()
    local schema = tonumber(j.meta.schema)
    if schema ~= journal.SCHEMA then
      j:close()
      errors.raise {
        kind = "usage", code = "ESCHEMA", target = path,
        message = ("a journal of schema %s; this runbook reads %d"):format(tostring(schema), journal.SCHEMA),
        hint = "use the runbook that wrote it, or a newer one",
      }
    end
    return j
  end)
end

--- Rows of a query, each a table by column name.
---@async
function Journal:query(sql, ...)
  return effect.own(function(...)
    return check(self.path, self.db:records(sql, ...))
  end, ...)
end

--- Read all states into memory; from then on memory and file change together.
function Journal:load()
  self.meta = {}
  for _, row in ipairs(self:query("SELECT key, value FROM meta")) do
    self.meta[row.key] = row.value
  end
  for kind in pairs(COLUMNS) do
    local known = {}
    for _, row in ipairs(self:query(("SELECT id, state FROM %s"):format(kind))) do
      known[row.id] = row.state
    end
    self.states[kind] = known
  end
  for _, kind in ipairs { "effect", "obligation", "job" } do
    self.next_id[kind] = self:query(("SELECT coalesce(max(id), 0) + 1 AS n FROM %s"):format(kind))[1].n
  end
end

--- The state of something; the first state of its table when the journal has never heard of it.
---@return string
function Journal:state(kind, id)
  return self.states[kind][id] or states[kind].first
end

local function statement_of(self, kind, id, state, fields)
  local columns, values = { "state", "changed" }, { state, time.utc() }
  for _, name in ipairs(COLUMNS[kind]) do
    if fields[name] ~= nil then
      columns[#columns + 1] = name
      values[#values + 1] = fields[name]
    end
  end
  if self.states[kind][id] == nil then
    return { ("INSERT INTO %s (id, %s) VALUES (?%s)"):format(kind, table.concat(columns, ", "), (", ?"):rep(#columns)),
      id, table.unpack(values) }
  end
  values[#values + 1] = id
  return { ("UPDATE %s SET %s = ? WHERE id = ?"):format(kind, table.concat(columns, " = ?, ")), table.unpack(values) }
end

--- Move something to its next state; the statement joins the next commit.
---@param kind "run"|"step"|"unit"|"effect"|"obligation"|"job"
---@param id string|integer
---@param event string  one that `runbook.states` lists for the present state
---@param fields? table  columns to set with it
function Journal:move(kind, id, event, fields)
  local state = self:state(kind, id)
  local next_state = states.after(kind, state, event)
  if next_state == nil then
    errors.raise { kind = "internal", message = ("%s %s is %s: `%s` is not listed"):format(kind, id, state, event) }
  end
  local statement = statement_of(self, kind, id, next_state, fields or {})
  self.states[kind][id] = next_state
  self:later(statement)
end

--- Keep a statement for the next commit. Whatever it says, no secret is written; data that must come back whole has been
--- looked at by `data.encode` and holds none.
---@param statement any[]  SQL and its values
function Journal:later(statement)
  for i = 2, statement.n or #statement do
    statement[i] = redaction.value(statement[i])
  end
  self.pending[#self.pending + 1] = statement
end

--- Commit what was kept, durably. Waits; the commits of several tasks share one fsync.
---@async
function Journal:commit()
  local statements = self.pending
  if #statements == 0 then
    return
  end
  self.pending = {}
  effect.own(function()
    local ok, message, code = self.db:run(table.unpack(statements))
    if not ok then
      errors.raise {
        kind = errors.kind(code), code = code, target = self.path, tried = "commit", journal = true,
        message = "the journal cannot be written: " .. message,
        hint = code == "EFULL" and "make room on that disk, then `runbook resume`" or nil,
      }
    end
  end)
end

local function insert(self, kind, row)
  local id = self.next_id[kind]
  self.next_id[kind] = id + 1
  local columns, marks, values = { "id", "state", "changed" }, { "?", "?", "?" }, { id, states[kind].first, time.utc() }
  for name, value in pairs(row) do
    columns[#columns + 1] = name
    marks[#marks + 1] = "?"
    values[#values + 1] = value
  end
  self.states[kind][id] = states[kind].first
  self:later { ("INSERT INTO %s (%s) VALUES (%s)"):format(kind, table.concat(columns, ", "), table.concat(marks, ", ")),
    table.unpack(values) }
  return id
end

--- Add an effect, obligation or job in its first state; it joins the next commit.
---@param kind "effect"|"obligation"|"job"
---@param row table  column = value
---@return integer id
function Journal:add(kind, row)
  return insert(self, kind, row)
end

--- Who works on this machine, for records: "ada@bastion".
---@return string
function journal.who()
  return ("%s@%s"):format(embed.user(), journal.hostname())
end

--- What a person decided, for the record.
---@param what string  "skip", "mark", "overrule", "confirm", "leave", "unlock"
---@param subject string?
---@param reason string?
function Journal:decide(what, subject, reason)
  self:later { "INSERT INTO decision (at, who, what, subject, reason) VALUES (?, ?, ?, ?, ?)", time.utc(), journal.who(), what,
    subject, reason, n = 5 }
end

--- Set a fact about the run that later processes read.
function Journal:set_meta(key, value)
  self.meta[key] = value
  self:later { "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", key, value }
end

--- A finished step's or unit's result; nil when there is none.
---@async
function Journal:result(kind, id)
  local rows = self:query(("SELECT result FROM %s WHERE id = ?"):format(kind), id)
  return rows[1] and data.decode(rows[1].result)
end

--- A step is done again: its units start from nothing.
---@param step string
function Journal:forget_units(step)
  local prefix = step .. "/"
  self:later { "DELETE FROM unit WHERE substr(id, 1, ?) = ?", #prefix, prefix }
  for id in pairs(self.states.unit) do
    if id:sub(1, #prefix) == prefix then
      self.states.unit[id] = nil
    end
  end
end

--- One step's row.
---@async
function Journal:step(id)
  return self:query("SELECT * FROM step WHERE id = ?", id)[1]
end

function Journal:close()
  self.db:close()
end

local hostname
--- The name of this machine, for locks and records.
function journal.hostname()
  if hostname == nil then
    local f = io.open("/proc/sys/kernel/hostname")
    hostname = f and f:read("l") or "?"
    if f then
      f:close()
    end
  end
  return hostname
end

return journal
