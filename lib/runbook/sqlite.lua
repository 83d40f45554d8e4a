--- SQLite databases of this machine.
---
---     sqlite.query("jupyterhub.sqlite", "SELECT name FROM users WHERE admin = ?", true)   --> { { name = "ada" } }
---     sqlite.copy { from = "jupyterhub.sqlite", to = "backup.sqlite" }                    -- while the hub runs
---     sqlite.integrity "backup.sqlite"                                                    --> {}

local core = require "runbook.core.sqlite"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local file = require "runbook.core.file"
local options = require "runbook.options"
local process = require "runbook.core.process"
local shell = require "runbook.shell"
local task = require "runbook.task"

local sqlite = {}

local BUSY = 30 -- seconds to wait for whoever writes
local PROGRESS = 1 -- seconds between two events
local SIDE_FILES = { "-wal", "-journal", "-shm" }

local function open(path, tried)
  return errors.check(path, tried, core.open(path, { readonly = true, busy_timeout = BUSY }))
end

local function here()
  return "here"
end

--- Read from a database; somebody may write it meanwhile.
---@async
---@param path string
---@param sql string  one statement
---@param ... nil|boolean|number|string  its values
---@return table<string, any>[] records
sqlite.query = effect.verb {
  name = "sqlite.query", class = "read", target = here,
  summary = function(path) return "read " .. path end,
  by_hand = function(path, sql) return shell.join { "sqlite3", "-readonly", path, sql } end,
  body = function(path, sql, ...)
    local db <close> = open(path, sql)
    return (errors.check(path, sql, db:records(sql, ...)))
  end,
}

--- What is wrong inside a database: pages, indexes, references to rows that are not there.
---@async
---@param path string
---@return string[] problems  empty when it is whole
sqlite.integrity = effect.verb {
  name = "sqlite.integrity", class = "read", target = here,
  summary = function(path) return "check " .. path end,
  by_hand = function(path) return shell.join { "sqlite3", "-readonly", path, "PRAGMA integrity_check; PRAGMA foreign_key_check" } end,
  body = function(path)
    local db <close> = open(path, "integrity check")
    return (errors.check(path, "integrity check", db:integrity()))
  end,
}

-- ---- copies ----

local check_copy = options.declare("sqlite.copy", {
  from = { "string", "the database; it may be in use" },
  to = { "string", "where the copy goes" },
  replace = { "boolean", "take the place of the database that is there, which is kept beside it", default = false },
})

local function stat(path)
  local found, message, code = file.stat(path)
  if not found and code ~= "ENOENT" then
    errors.check(path, "stat", nil, message, code)
  end
  return found
end

local function do_or_raise(target, argv)
  local r = errors.check(target, shell.join(argv), process.exec { argv = argv })
  if r.status ~= 0 then
    errors.raise({
      kind = "exit", target = target, tried = shell.join(argv), status = r.status, signal = r.signal, stderr = r.stderr,
      message = ("`%s`: %s"):format(shell.join(argv), r.stderr:match "[^\n]+" or "failed"),
    }, 2)
  end
end

-- Names made of the file they are for, so that they are the same when asked again, and differ between files.
local function kept_name(path, old)
  return ("%s.before-%d"):format(path, old.ino)
end

local function undone_name(path, old)
  return ("%s.undone-%d"):format(path, old.ino)
end

-- A second name for a file; done already is done.
local function link(path, name)
  local now, named = stat(path), stat(name)
  if not (named and named.ino == now.ino and named.dev == now.dev) then
    do_or_raise(path, { "ln", path, name })
  end
end

-- Half a transaction beside the old file would be taken for part of the new one.
local function refuse_open_ends(path)
  for _, suffix in ipairs { "-wal", "-journal" } do
    local side = stat(path .. suffix)
    if side and side.size > 0 then
      errors.raise {
        kind = "busy", target = path, tried = "sqlite.copy",
        message = ("%s%s holds changes: somebody has this database open, or died with it open"):format(path, suffix),
        hint = ("stop what uses it; if nothing does: sqlite3 %s 'PRAGMA wal_checkpoint(TRUNCATE)'"):format(shell.quote(path)),
      }
    end
  end
end

local function refuse_taken(to, replace, source)
  local old = stat(to)
  if old and not replace then
    errors.raise {
      kind = "conflict", code = "EEXIST", target = to, tried = "sqlite.copy", message = to .. " exists already",
      hint = "replace = true keeps it beside the copy",
    }
  elseif old and old.type ~= "file" then
    errors.raise { kind = "conflict", target = to, tried = "sqlite.copy", message = ("%s is a %s"):format(to, old.type) }
  elseif old and old.ino == source.ino and old.dev == source.dev then
    errors.raise { kind = "usage", target = to, tried = "sqlite.copy", message = "a database is not copied onto itself" }
  end
  if old then
    refuse_open_ends(to)
  end
  return old
end

-- Mode and owner as of another file. Only root may give files away; a copy that its user cannot open is no copy.
local function dress(path, like)
  local now = errors.check(path, "stat", file.stat(path))
  if now.uid ~= like.uid or now.gid ~= like.gid then
    do_or_raise(path, { "chown", ("%d:%d"):format(like.uid, like.gid), path })
  end
  errors.check(path, "chmod", file.chmod(path, like.mode))
end

local function show_progress(db, path)
  return task.spawn(function()
    while true do
      task.sleep(PROGRESS)
      local done, total = db:progress()
      if total > 0 then
        events.emit { type = "progress", done = done, total = total, text = ("copying %s"):format(path) }
      end
    end
  end)
end

local function backup(from, staged)
  local db <close> = open(from, "sqlite.copy")
  local shown = show_progress(db, from)
  local _ <close> = setmetatable({}, { __close = function() shown:cancel() end })
  local done, message, code = db:backup(staged)
  shown:cancel()
  task.join(shown)
  errors.check(from, "sqlite.copy", done, message, code)
end

local function remove_side_files(path)
  for _, suffix in ipairs(SIDE_FILES) do
    local ok, message, code = file.unlink(path .. suffix)
    if not ok and code ~= "ENOENT" then
      errors.check(path .. suffix, "unlink", nil, message, code)
    end
  end
end

-- The copy is whole and on disk before its name is.
local function install(staged, to, old)
  if old then
    refuse_open_ends(to)
    link(to, kept_name(to, old))
    remove_side_files(to)
  end
  errors.check(to, "rename", file.rename(staged, to, { sync = true }))
end

local copy = effect.verb {
  name = "sqlite.copy", class = "change", target = here, repeatable = true, quiet = true,
  summary = function(o) return ("copy %s to %s%s"):format(o.from, o.to, o.replace and ", in place of what is there" or "") end,
  by_hand = function(o)
    return shell.join { "sqlite3", "-readonly", o.from, ".backup " .. shell.quote(o.to) }
  end,
  inverse = function(o)
    local old = stat(o.to)
    return old and { "sqlite.put_back", o.to, kept_name(o.to, old) } or { "sqlite.set_aside", o.to }
  end,
  preview = function(o)
    local old, source = stat(o.to), errors.check(o.from, "stat", file.stat(o.from))
    return { before = old and ("%d bytes"):format(old.size) or "nothing", after = ("a copy of %d bytes"):format(source.size) }
  end,
  body = function(o)
    local source = errors.check(o.from, "stat", file.stat(o.from))
    local old = refuse_taken(o.to, o.replace, source)
    local staged = o.to .. ".copying"
    os.remove(staged) -- of a copy that was killed
    local _ <close> = setmetatable({}, { __close = function() os.remove(staged) end })
    backup(o.from, staged)
    dress(staged, old or source)
    install(staged, o.to, old)
  end,
}

--- A consistent copy of a database that may be in use: made beside `to`, checked, synced, then given its name. Mode and owner
--- are those of the file it replaces, or of the source. What it replaces is kept beside it; stop what uses that first.
---@async
---@param o { from: string, to: string, replace: boolean? }
function sqlite.copy(o)
  copy(check_copy(o, 2))
end

effect.verb {
  name = "sqlite.put_back", class = "change", target = here, repeatable = true, quiet = true, inverse = effect.NOT_NEEDED,
  summary = function(to, kept) return ("put %s back in place of %s"):format(kept, to) end,
  by_hand = function(to, kept) return shell.join { "mv", kept, to } end,
  body = function(to, kept)
    if not stat(kept) then -- it never was replaced, or is back already
      return
    end
    local now = stat(to)
    if now then
      refuse_open_ends(to)
      link(to, undone_name(to, now))
      remove_side_files(to)
    end
    errors.check(to, "rename", file.rename(kept, to, { sync = true }))
  end,
}

effect.verb {
  name = "sqlite.set_aside", class = "change", target = here, repeatable = true, quiet = true, inverse = effect.NOT_NEEDED,
  summary = function(to) return ("set %s aside"):format(to) end,
  by_hand = function(to) return shell.join { "mv", to, to .. ".undone" } end,
  body = function(to)
    local now = stat(to)
    if now then
      refuse_open_ends(to)
      remove_side_files(to)
      errors.check(to, "rename", file.rename(to, undone_name(to, now), { sync = true }))
    end
  end,
}

return sqlite
