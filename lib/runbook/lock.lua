--- Locks on what is written: a directory on the far side says who writes there.
---
--- The lock of a directory is `.runbook/lock` in it, made by mkdir and so by one run only. Its holder renews it every 15 s. A
--- run whose last renewal is over 40 s old starts no change (the gate asks); one that finds a lock of another run stops
--- with exit 75 and says who holds it. A dead holder's lock goes by `resume` of that run or by `unlock`, never by itself:
--- a job of its may still be writing.

local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local journal = require "runbook.journal"
local obligation = require "runbook.obligation"
local task = require "runbook.core.task"
local time = require "runbook.core.time"

local lock = {}

local RENEW_SECONDS, TRUST_SECONDS = 15, 40

-- $1 the lock's directory, $2 the run, $3 its holder in words. Answers "taken", or "held", age in seconds, run and holder.
local TAKE = [[
mkdir -p "${1%/*}" || exit 1
if mkdir "$1" 2>/dev/null; then :; elif [ "$(cat "$1/run" 2>/dev/null)" = "$2" ]; then :; else
  now=$(date +%s); then=$(stat -c %Y "$1/holder" 2>/dev/null || stat -c %Y "$1")
  printf 'held %s\n' $((now - then)); cat "$1/run" "$1/holder" 2>/dev/null; exit 0
fi
printf '%s\n' "$3" > "$1/holder" && printf '%s\n' "$2" > "$1/run" && echo taken
]]

-- $1 the lock's directory, $2 the run. A lock that became somebody else's is not renewed.
local RENEW = [[ [ "$(cat "$1/run" 2>/dev/null)" = "$2" ] && touch "$1/holder" ]]

local GIVE = [[
[ -d "$1" ] || exit 0
[ "$(cat "$1/run" 2>/dev/null)" = "$2" ] || exit 0
rm -f "$1/run" "$1/holder" && rmdir "$1" && rmdir "${1%/*}" 2>/dev/null; exit 0
]]

local Lock = {}
local lock_mt = { __name = "runbook.lock", __index = Lock }

local give = obligation.kind("lock", function(o)
  o.place:sh(GIVE, o.path, o.run)
end)

local function held_by_another(place, path, answer)
  local age, run, holder = answer:match("^held (%-?%d+)\n([^\n]*)\n?([^\n]*)")
  errors.raise {
    kind = "busy", code = "ELOCKED", target = place.name,
    message = ("%s is locked by run %s (%s), renewed %s s ago"):format(path, run or "?", holder or "?", age or "?"),
    hint = tonumber(age) and tonumber(age) < 60 and "wait until it ends"
      or ("if that run is dead: resume it where it ran, or by hand: %s"):format(place:by_hand { "rm", "-r", path }),
  }
end

local take = effect.verb {
  name = "lock.take", class = "change", repeatable = true, quiet = true, inverse = effect.NOT_NEEDED,
  target = function(place) return place.name end,
  summary = function(_, path) return "lock " .. path end,
  by_hand = function(place, path) return ("%s: mkdir %s"):format(place.name, path) end,
  body = function(place, path, run, holder)
    local answer = place:query_sh(TAKE, path, run, holder)
    if not answer:match("^taken") then
      held_by_another(place, path, answer)
    end
  end,
}

local renew = effect.verb {
  name = "lock.renew", class = "read",
  target = function(place) return place.name end,
  body = function(place, path, run)
    return place:exec { "sh", "-c", RENEW, "sh", path, run, timeout = 20, reads = true } == 0
  end,
}

local function split(where, name)
  if where.place and where.path then
    return where.place, where.path .. "/.runbook/lock"
  end
  return where, ("/tmp/runbook-lock-%s"):format((name or "place"):gsub("[^%w_.-]", "-"))
end

--- Take the lock of a directory for this run; held, and renewed, until the run ends.
---@async
---@param where table  a directory of a place, or a place
---@param name? string  for a place: what is locked
function lock.take(where, name)
  local context = task.context()
  local session = context.session
  local place, path = split(where, name)
  if session == nil or session.journal == nil then
    return take(place, path, "ad-hoc", "ad-hoc")
  end
  for _, one in ipairs(session.locks) do
    if one.path == path and one.place.name == place.name then
      return one
    end
  end
  local identity = session.journal.meta.id
  local holder = ("%s on %s, process %d"):format(os.getenv("USER") or "?", journal.hostname(), require("runbook.core.embed").pid())
  local owed = give:owe({ place = place, path = path, run = identity }, { scope = "run" })
  local ok, err = xpcall(take, errors.handler, place, path, identity, holder)
  if not ok then
    if errors.is(err, "busy") then
      owed:waive()
    end
    error(err, 0)
  end
  local self = setmetatable({ place = place, path = path, run = identity, owed = owed, renewed = time.boottime() }, lock_mt)
  session.locks[#session.locks + 1] = self
  return self
end

--- Raises when the last renewal is so old that somebody may have taken it away.
function Lock:must_be_held()
  local age = time.boottime() - self.renewed
  if self.lost or age > TRUST_SECONDS then
    errors.raise {
      kind = "busy", code = "ELOCKED", target = self.place.name,
      message = self.lost and ("the lock %s was taken away"):format(self.path)
        or ("the lock %s could not be renewed for %.0f s; no change is started"):format(self.path, age),
      hint = "`runbook resume` takes it again",
    }
  end
end

local function renew_one(one)
  local ok, held = xpcall(renew, errors.handler, one.place, one.path, one.run)
  if ok and held then
    one.renewed = time.boottime()
  elseif ok then
    one.lost = true
    events.notice(("the lock %s on %s is gone; no further change is started"):format(one.path, one.place.name), "warning")
  elseif errors.is_cancelled(held) then
    error(held, 0)
  end
end

--- A task that renews the locks of a session until it is cancelled.
function lock.keeper(session)
  return task.spawn(function()
    while true do
      task.sleep(RENEW_SECONDS)
      for _, one in ipairs(session.locks) do
        renew_one(one)
      end
    end
  end)
end

--- Give up every lock of a session whose obligation is still open.
---@async
function lock.release_all(session)
  for _, one in ipairs(session.locks) do
    one.owed:meet()
  end
  session.locks = {}
end

--- Take away the lock of a directory, whoever has it. Shows the holder; refuses while it is renewed.
---@async
---@param place table
---@param path string  the directory
---@return string said  who held it
lock.break_lock = effect.verb {
  name = "lock.break", class = "destroy",
  target = function(place) return place.name end,
  summary = function(_, path) return "take away the lock of " .. path end,
  body = function(place, path)
    local at = path .. "/.runbook/lock"
    local answer = place:query_sh(TAKE, at, "\1", "\1")
    if answer:match("^taken") then
      place:sh(GIVE, at, "\1")
      return "nobody held it"
    end
    local age = tonumber(answer:match("^held (%-?%d+)"))
    if age and age < 60 then
      held_by_another(place, path, answer)
    end
    place:sh([[rm -f "$1/run" "$1/holder" && rmdir "$1"]], at)
    return (answer:gsub("^held (%S+)\n", "renewed %1 s ago by run "):gsub("\n", ", "))
  end,
}

--- Let go of a run whose process is gone (the far-side locks it still owes).
---@async
function lock.unlock(name, o, with_session)
  local store = require "runbook.store"
  local row = store.get(name, true)
  local session = require("runbook.run.session").new { name = row.name, directory = store.directory(row.name), options = o }
  return with_session(session, function()
    session.book = require("runbook.run").book_of(row.name, {}, false)
    local rows = session.journal:query("SELECT * FROM obligation WHERE state = 'owed' AND kind = 'lock'")
    local left = 0
    for _, owed in ipairs(rows) do
      left = left + (session:in_phase(nil, "clean-up", obligation.meet, session, owed) and 0 or 1)
    end
    session.journal:decide("unlock", row.name, o.reason)
    session.journal:commit()
    events.notice(("%s: %d of %d locks given up"):format(row.name, #rows - left, #rows))
    return left == 0 and 0 or 4
  end)
end

return lock
