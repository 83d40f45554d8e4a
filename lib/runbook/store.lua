--- The runs kept on this machine: `$XDG_STATE_HOME/runbook/runs/<name>/`.

local core = require "runbook.core.file"
local effect = require "runbook.effect"
local embed = require "runbook.core.embed"
local errors = require "runbook.errors"
local journal = require "runbook.journal"
local states = require "runbook.states"
local time = require "runbook.core.time"

local store = {}

local NETWORK = { nfs = true, nfs4 = true, cifs = true, smb = true, smb2 = true, smbfs = true, afs = true, ceph = true, ["9p"] = true,
  fuse = false, lustre = true, gpfs = true }

local chosen

--- Use another directory than the default (`--state DIR`).
---@param directory string
function store.use(directory)
  chosen = directory
end

--- The state directory.
---@return string
function store.root()
  local base = os.getenv("XDG_STATE_HOME")
  if base == nil or base == "" then
    base = (os.getenv("HOME") or "/root") .. "/.local/state"
  end
  return chosen or os.getenv("RUNBOOK_STATE") or base .. "/runbook"
end

local function own(fn, ...)
  return effect.own(fn, ...)
end

local function check(...)
  return errors.check(nil, nil, ...)
end

-- SQLite's write-ahead log and flock are not safe on network file systems (https://www.sqlite.org/wal.html).
local function must_be_local(directory)
  local space = check(own(core.statfs, directory))
  if NETWORK[space.type] then
    errors.raise {
      kind = "usage", code = "ENETFS", target = directory,
      message = ("the state directory is on a network file system (%s), where a journal is not safe"):format(space.type),
      hint = "runbook --state DIRECTORY, with a directory on a local disk",
    }
  end
end

local function runs_directory()
  local directory = store.root() .. "/runs"
  check(own(core.mkdir, directory, { parents = true, mode = tonumber("700", 8) }))
  must_be_local(directory)
  return directory
end

--- Directory of a run.
---@param name string
function store.directory(name)
  return store.root() .. "/runs/" .. name
end

--- Directory of what is known of a pair of a copy; made when it is not there.
---@async
---@param id string
---@return string
function store.pair(id)
  local directory = ("%s/pairs/%s"):format(store.root(), id)
  check(own(core.mkdir, directory, { parents = true, mode = tonumber("700", 8) }))
  must_be_local(directory)
  return directory
end

--- Make the directory of a new run: `temple-1`, `temple-2`, ...
---@async
---@param base string
---@return string name
---@return string directory
function store.create(base)
  local runs = runs_directory()
  base = base:gsub("[^%w_.-]", "-")
  local n = 1
  for _, entry in ipairs(check(own(core.list, runs))) do
    local name = entry.name
    local number = name:sub(1, #base + 1) == base .. "-" and tonumber(name:sub(#base + 2))
    n = number and math.max(n, math.tointeger(number) + 1) or n
  end
  while true do
    local name = ("%s-%d"):format(base, n)
    local ok, message, code = own(core.mkdir, runs .. "/" .. name, { mode = tonumber("700", 8) })
    if ok then
      return name, runs .. "/" .. name
    elseif code ~= "EEXIST" then
      errors.check(runs, "make a run's directory", ok, message, code)
    end
    n = n + 1
  end
end

--- Make the directory of a run of just this name.
---@async
---@param name string
---@return string directory
function store.create_as(name)
  local directory = runs_directory() .. "/" .. name
  local ok, message, code = own(core.mkdir, directory, { mode = tonumber("700", 8) })
  if code == "EEXIST" then
    errors.raise { kind = "conflict", target = name, message = ("run %s is known here"):format(name),
      hint = ("runbook resume %s, or runbook rollback %s"):format(name, name) }
  end
  errors.check(directory, "make a run's directory", ok, message, code)
  return directory
end

--- Names of all runs, newest first.
---@async
---@return string[]
function store.names()
  local entries = own(core.list, store.root() .. "/runs")
  local names, times = {}, {}
  for _, entry in ipairs(entries or {}) do
    local name = entry.name
    local stat = own(core.stat, store.directory(name) .. "/journal.db")
    if stat then
      names[#names + 1] = name
      local first = own(core.stat, store.directory(name) .. "/run.lua") or stat
      times[name] = first.mtime
    end
  end
  table.sort(names, function(a, b)
    if times[a] ~= times[b] then
      return times[a] > times[b]
    end
    return a > b
  end)
  return names
end

--- Who holds a run's lock, from the file itself.
---@return { pid: integer, host: string, since: number }?
function store.holder(name)
  local text = own(core.read, store.directory(name) .. "/lock")
  local pid, host, since = (text or ""):match("^(%d+) (%S+) (%d+)")
  return pid and { pid = math.tointeger(tonumber(pid)), host = host, since = tonumber(since) } or nil
end

--- Take a run's lock; exit 75 when another process has it.
---@async
---@return table handle  closed to let go
function store.lock(name)
  local path = store.directory(name) .. "/lock"
  local handle, message, code = own(core.lock, path)
  if handle == nil and code == "EBUSY" then
    local holder = store.holder(name)
    errors.raise {
      kind = "busy", code = "ELOCKED", target = name,
      message = holder and ("process %d on %s has been working on this run for %d min"):format(holder.pid, holder.host,
        math.floor((time.utc() - holder.since) / 60)) or "another process is working on this run",
      hint = holder and ("watch it: runbook show %s --follow; stop it: kill -INT %d"):format(name, holder.pid) or nil,
    }
  end
  check(handle, message, code)
  check(own(handle.write, handle, ("%d %s %d\n"):format(embed.pid(), journal.hostname(), time.utc() // 1)))
  return handle
end

--- Open a run's journal.
---@async
function store.journal(name)
  return journal.open(store.directory(name) .. "/journal.db")
end

local function is_alive(name)
  local handle, _, code = own(core.lock, store.directory(name) .. "/lock")
  if handle then
    handle:close()
  end
  return code == "EBUSY"
end

-- It asked, looked and perhaps failed, and left nothing: no change begun, no job, nothing owed, nothing a person has said.
local IS_IDLE = [[SELECT NOT EXISTS (SELECT 1 FROM effect) AND NOT EXISTS (SELECT 1 FROM job) AND NOT EXISTS (SELECT 1 FROM decision)
  AND NOT EXISTS (SELECT 1 FROM obligation WHERE state = 'owed') AS idle]]

local function describe(name)
  local j = store.journal(name)
  local run = j:query("SELECT * FROM run")[1]
  local counts = j:query("SELECT count(*) AS n, sum(state IN ('done', 'skipped', 'already')) AS done FROM step")[1]
  local current = j:query([[SELECT id FROM step WHERE state NOT IN ('done', 'skipped', 'already', 'undone')
    ORDER BY started DESC LIMIT 1]])[1]
  local owes = j:query("SELECT kind, costs, tries, error FROM obligation WHERE state = 'owed' ORDER BY id")
  local idle = j:query(IS_IDLE)[1].idle == 1
  j:close()
  local holder = store.holder(name) or {}
  return {
    name = name, state = run.state, detail = run.detail, runbook = j.meta.runbook, title = j.meta.title,
    started = tonumber(j.meta.started), ended = run.changed, step = current and current.id, steps_done = counts.done or 0,
    steps_all = tonumber(j.meta.steps), host = holder.host, pid = holder.pid, alive = is_alive(name), owes = owes,
    changed_nothing = idle, subject = j.meta.subject,
  }
end

-- A run that changed nothing is over once there is a newer one of the same runbook and parameters.
local function pass_over(list)
  local newest = {}
  for _, row in ipairs(list) do
    local other = row.subject and newest[row.subject]
    newest[row.subject or ""] = (other == nil or row.started > other.started) and row or other
  end
  for _, row in ipairs(list) do
    local newer = row.subject and newest[row.subject]
    if newer and newer ~= row and row.changed_nothing and not row.alive and states.gives_way(row.state) then
      row.passed_over = newer.name
    end
  end
end

--- What is known of every run, newest first. A journal that cannot be read is listed with its `error`.
---@async
---@return table[]
function store.list()
  local list = {}
  for _, name in ipairs(store.names()) do
    local ok, row = xpcall(describe, errors.handler, name)
    if ok or row.code ~= "ENEVER" then
      list[#list + 1] = ok and row or { name = name, state = "unreadable", error = errors.from(row), owes = {} }
    end
  end
  pass_over(list)
  return list
end

local CLOSED = { done = true, ["rolled-back"] = true }

--- Runs that are not finished. One that changed nothing does not count when there is a newer one of the same runbook and
--- parameters.
---@async
function store.open_runs()
  local open = {}
  for _, row in ipairs(store.list()) do
    if not CLOSED[row.state] and not row.passed_over then
      open[#open + 1] = row
    end
  end
  return open
end

--- One run: by name, or the only open one; `closed` allows the newest finished one when none is open.
---@async
---@param name string?
---@param closed? boolean
---@return table row
function store.get(name, closed)
  if name then
    if not own(core.stat, store.directory(name) .. "/journal.db") then
      errors.raise { kind = "missing", target = name, message = ("no run is called %s in %s"):format(name, store.root()),
        hint = "`runbook runs` lists them" }
    end
    return describe(name)
  end
  local open = store.open_runs()
  if #open == 1 then
    return open[1]
  elseif #open == 0 then
    local newest = closed and store.list()[1]
    if newest then
      return newest
    end
    errors.raise { kind = "missing", message = "no run is open", hint = "`runbook runs` lists all of them" }
  end
  local names = {}
  for i, row in ipairs(open) do
    names[i] = ("  %s  %s"):format(row.name, row.state)
  end
  errors.raise { kind = "usage", code = "EUSAGE", message = "several runs are open; say which\n" .. table.concat(names, "\n") }
end

return store
