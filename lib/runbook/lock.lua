--- Locks on what is written: a directory on the far side says who writes there.
---
--- The lock of a directory is `.runbook/lock` in it, made by a rename and so by one run only. Its holder renews it every 15 s. A
--- run whose last renewal is over 40 s old starts no change (the gate asks); one that finds a lock of another run stops
--- with exit 75 and says who holds it. A dead holder's lock goes by `resume` of that run or by `unlock`, never by itself:
--- a job of its may still be writing.
---
--- What is no directory, or one that is not always there, brings its own way to be locked, `lock_of`: take, renew, give, by_hand
--- (a cluster, and a claim: a Lease).

local command = require "runbook.place.command"
local data = require "runbook.data"
local effect = require "runbook.effect"
local embed = require "runbook.core.embed"
local errors = require "runbook.errors"
local events = require "runbook.events"
local journal = require "runbook.journal"
local obligation = require "runbook.obligation"
local task = require "runbook.core.task"
local time = require "runbook.core.time"

local lock = {}

lock.renew_seconds = 15
lock.trust_seconds = 40 -- the gate starts no change when the last renewal is older

-- $1 the lock's directory, $2 the run, $3 its holder in words. Answers "taken", or "held", age in seconds, run and holder.
-- It is made aside and renamed, which fails where there is one: so none is ever seen, or left behind, without its holder.
-- What is written goes through cat: a shell's own printf says "I/O error", whatever is wrong.
local TAKE = [[
LC_ALL=C; export LC_ALL
why=$(mkdir "${1%/*}" 2>&1) || [ -d "${1%/*}" ] || { echo "$why" >&2; exit 1; }
if [ "$(cat "$1/run" 2>/dev/null)" = "$2" ]; then printf '%s\n' "$3" | cat > "$1/holder" && echo taken; exit; fi
stage=$(mktemp -d "$1.XXXXXX") || exit 1
trap 'rm -rf "$stage"' EXIT
trap 'exit 1' HUP INT PIPE TERM
printf '%s\n' "$2" | cat > "$stage/run" && printf '%s\n' "$3" | cat > "$stage/holder" && chmod 755 "$stage" || exit 1
if why=$(mv -T "$stage" "$1" 2>&1); then echo taken; exit; fi
[ -e "$1/run" ] || { echo "$why" >&2; exit 1; }
printf 'held %s\n' $(($(date +%s) - $(stat -c %Y "$1/holder"))); cat "$1/run" "$1/holder"
]]

-- $1 the lock's directory, $2 the run. A lock that became somebody else's is not renewed.
local RENEW = [[ [ "$(cat "$1/run" 2>/dev/null)" = "$2" ] && touch "$1/holder" ]]

local GIVE = [[
[ "$(cat "$1/run" 2>/dev/null)" = "$2" ] || exit 0
rm -f "$1/holder" "$1/run" && rmdir "$1" || exit 1
case $1 in */.runbook/lock) rmdir "${1%/*}" 2>/dev/null ;; esac
exit 0
]]

local Lock = {}
local lock_mt = { __name = "runbook.lock", __index = Lock }

local directory = {} -- how the directory of a place is locked

local function way_of(place)
  return place.lock_of or directory
end

local function held_here(session, place, path)
  for i, one in ipairs(session.locks) do
    if one.path == path and one.place.name == place.name then
      return one, i
    end
  end
end

-- Its keeper may just be about to renew it, and then says nothing.
local give = obligation.kind("lock", function(o)
  local session = task.context().session
  local one = session and held_here(session, o.place, o.path)
  if one then
    one.given = true
  end
  way_of(o.place).give(o.place, o.path, o.run)
end, function(o) return ("remove the lock %s of run %s"):format(o.path, o.run) end)

local function held_by_another(place, path, answer)
  local age, run, holder = answer:match("^held (%-?%d+)\n([^\n]*)\n?([^\n]*)")
  errors.raise {
    kind = "busy", code = "ELOCKED", target = place.name,
    message = ("%s is locked by run %s (%s), renewed %s s ago"):format(path, run or "?", holder or "?", age or "?"),
    hint = tonumber(age) and tonumber(age) < 60 and "wait until it ends"
      or ("if that run is dead: resume it where it ran, or by hand: %s"):format(place:by_hand { "rm", "-r", path }),
  }
end

function directory.take(place, path, run, holder)
  -- Sent twice it finds itself, so it is tried again as a read would be.
  local answer = command.script(place, TAKE, { path, run, holder }, { message = "locking " .. path })
  if not answer:match("^taken") then
    held_by_another(place, path, answer)
  end
end

function directory.renew(place, path, run)
  return place:exec { "sh", "-c", RENEW, "sh", path, run, timeout = 20, reads = true } == 0
end

function directory.give(place, path, run)
  command.script(place, GIVE, { path, run }, { message = "unlocking " .. path, change = true })
end

function directory.by_hand(place, path, verb)
  return place:by_hand(verb == "take" and { "mkdir", path } or { "rm", "-r", path })
end

local take = effect.verb {
  name = "lock.take", class = "change", repeatable = true, quiet = true, owed = true,
  -- By then all that was done under it is undone; and the directory it lies in may be ours to remove.
  inverse = function(place, path, run) return { "lock.give", place, path, run } end,
  target = function(place) return place.name end,
  summary = function(_, path) return "lock " .. path end,
  by_hand = function(place, path) return way_of(place).by_hand(place, path, "take") end,
  body = function(place, path, run, holder) way_of(place).take(place, path, run, holder) end,
}

local renew = effect.verb {
  name = "lock.renew", class = "read",
  target = function(place) return place.name end,
  body = function(place, path, run) return way_of(place).renew(place, path, run) end,
}

local function split(where, name)
  if where.place and where.path then
    return where.place, where.path .. "/.runbook/lock"
  elseif where.lock_of then
    return where, name
  end
  return where, ("/tmp/runbook-lock-%s"):format((name or "place"):gsub("[^%w_.-]", "-"))
end

--- Who we are, for those who find what we hold: "ann on bastion, process 4711".
---@return string
function lock.holder()
  return ("%s on %s, process %d"):format(embed.user(), journal.hostname(), embed.pid())
end

-- The obligation of a lock: the one an earlier process of this run left open, or a new one.
local function owe(session, what)
  local text = data.encode(what, "lock")
  local row = session.journal:query("SELECT * FROM obligation WHERE kind = 'lock' AND state = 'owed' AND data = ?", text)[1]
  return row and obligation.found(session, row) or give:owe(what, { scope = "run" })
end

local function renew_one(one)
  local asked = time.boottime()
  local ok, held = xpcall(renew, errors.handler, one.place, one.path, one.run)
  if ok and held then
    one.renewed = asked
  elseif ok and not one.given then
    one.lost = true
    events.notice(("the lock %s on %s is gone; no further change is started"):format(one.path, one.place.name), "warning")
  elseif not ok and errors.is_cancelled(held) then
    error(held, 0)
  end
end

-- Renews the session's locks until its supervisor cancels it.
local function keep(session)
  session.keeper = session.keeper or session:in_phase(nil, "checks", task.spawn, function()
    while true do
      task.sleep(lock.renew_seconds)
      for _, one in ipairs(session.locks) do
        renew_one(one)
      end
    end
  end)
end

local function hold(session, place, path)
  local identity, asked = session.journal.meta.id, time.boottime()
  local holder = lock.holder()
  local owed = owe(session, { place = place, path = path, run = identity })
  local ok, err = xpcall(take, errors.handler, place, path, identity, holder)
  if not ok then
    if errors.is(err, "busy") or errors.is(err, "missing") then
      owed:waive()
    end
    error(err, 0)
  end
  local self = setmetatable({ place = place, path = path, run = identity, owed = owed, renewed = asked }, lock_mt)
  session.locks[#session.locks + 1] = self
  keep(session)
  return self
end

--- Take the lock of a directory for this run; held, and renewed, until the run ends.
---@async
---@param where table  a directory of a place, which has to be there, or a place
---@param name? string  for a place: what is locked
function lock.take(where, name)
  local session = task.context().session
  local place, path = split(where, name)
  if session == nil or session.journal == nil then
    return take(place, path, "ad-hoc", "ad-hoc")
  end
  return held_here(session, place, path) or hold(session, place, path)
end

effect.verb {
  name = "lock.give", class = "change", repeatable = true, quiet = true, inverse = effect.NOT_NEEDED,
  target = function(place) return place.name end,
  summary = function(_, path) return "give up the lock " .. path end,
  by_hand = function(place, path) return way_of(place).by_hand(place, path, "give") end,
  body = function(place, path, run)
    local session = task.context().session
    local one, i = held_here(session, place, path)
    if one then
      table.remove(session.locks, i)
      one.owed:meet()
    else
      way_of(place).give(place, path, run)
    end
  end,
}

--- Take again what earlier processes of this run had taken and nothing has undone: a step that is done does not run again to
--- do so. On the way back one that cannot be reached is said: what is near can still be undone.
---@async
---@param session table
---@param back? boolean
function lock.retake(session, back)
  local rows = session.journal:query [[SELECT DISTINCT inverse FROM effect WHERE verb = 'lock.take' AND step IS NOT NULL
    AND state IN ('done', 'unknown') ORDER BY id]]
  for _, row in ipairs(rows) do
    local _, place, path = table.unpack(data.decode(row.inverse))
    if not held_here(session, place, path) then
      local ok, err = xpcall(hold, errors.handler, session, place, path)
      if not ok and back and (errors.is(err, "unreachable") or errors.is(err, "timeout")) then
        events.notice(("%s is not locked by us: %s"):format(place.name, tostring(err)), "warning")
      elseif not ok and not errors.is(err, "missing") then -- what was locked is gone, and there is nothing to protect
        error(err, 0)
      end
    end
  end
end

--- Raises when the last renewal is so old that somebody may have taken it away.
function Lock:must_be_held()
  local age = time.boottime() - self.renewed
  if self.lost or age > lock.trust_seconds then
    errors.raise {
      kind = "busy", code = "ELOCKED", target = self.place.name,
      message = self.lost and ("the lock %s was taken away"):format(self.path)
        or ("the lock %s could not be renewed for %.0f s; no change is started"):format(self.path, age),
      hint = "`runbook resume` takes it again",
    }
  end
end

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
