--- The program of ours that works where the files are (src/far/): brought there, run, and gone again.
---
--- What only looks is brought with the request and unlinked before it starts, so that nothing is left whatever becomes of us. What
--- jobs use has to outlive a connection: it is installed under a name of its own, and its removal is an obligation.

local command = require "runbook.place.command"
local digest = require "runbook.core.digest"
local effect = require "runbook.effect"
local embed = require "runbook.core.embed"
local errors = require "runbook.errors"
local obligation = require "runbook.obligation"
local retry = require "runbook.retry"
local time = require "runbook.core.time"

local far = {}

local CANNOT = 90 -- the exit code of a machine that does not run it

-- Seconds without a byte: a huge directory is sorted before it is said, and a huge file read before it is hashed.
local PATIENCE = 7200

-- Where it may lie: some of these do not exist, some run no programs. What only looks leaves no trace on a disk if it can.
local BASES = [[/var/tmp /tmp /dev/shm "${HOME:-/nonexistent}"]]
local MEMORY_FIRST = [[/dev/shm /var/tmp /tmp "${HOME:-/nonexistent}"]]

-- $1 its size, $2 the name of a directory for it. It comes first on stdin; afterwards $at is where it is. dd takes no byte more,
-- which head may.
local BRING = [[
LC_ALL=C; export LC_ALL
umask 077
size=$1 name=$2; shift 2
at= runs= why="there is no directory for it"
trap 'if [ -n "$at" ]; then rm -rf "$at"; fi; exit 1' HUP INT PIPE TERM
for base in BASES; do
  mkdir "$base/$name" 2>/dev/null || continue
  if [ -z "$at" ]; then dd bs="$size" count=1 iflag=fullblock >"$base/$name/far" 2>/dev/null || why="$base: No space left on device"
  else cp "$at/far" "$base/$name/far" 2>/dev/null; rm -rf "$at"
  fi
  at=$base/$name
  if chmod 700 "$at/far" && why=$("$at/far" version 2>&1); then runs=1; break; fi
done
if [ -z "$runs" ]; then
  if [ -n "$at" ]; then rm -rf "$at"; fi
  echo "$why" >&2
  exit ]] .. CANNOT .. [[

fi
]]

local ONCE = BRING:gsub("BASES", MEMORY_FIRST) .. [[
exec 3<"$at/far"
rm -rf "$at"
exec /proc/self/fd/3 "$@"]]

-- $1 the name of its directory.
local REMOVE = "for base in " .. BASES .. [[; do rm -rf "$base/$1" || exit 1; done]]

-- What a try that was cut left goes first.
local INSTALL = "( set -- \"$2\"; " .. REMOVE .. " ) || exit 1\n" .. BRING:gsub("BASES", BASES) .. [[printf %s "$at"]]

local function new_name()
  return "runbook-far." .. digest.hex(digest.random(8))
end

local function raise_failed(place, args, how, stderr)
  local said = stderr:match("([^\n]+)%s*$")
  if how.status == CANNOT then
    errors.raise({
      kind = "refused", code = "ENOFAR", target = place.name, stderr = stderr,
      message = ("our program cannot be run on %s: %s"):format(place.name, said or "nothing was said"),
    }, 3)
  end
  errors.raise({
    kind = stderr:find("^sudo: ") and "auth" or how.signal and "lost" or command.kind_of(stderr), target = place.name,
    status = how.status, signal = how.signal, stderr = stderr,
    message = ("%s of %s: %s"):format(args[1], args[2] or place.name, said and said:gsub("^runbook%-far: ", "") or how.signal
      and "ended by signal " .. how.signal or "ended with status " .. tostring(how.status)),
  }, 3)
end

local function run_once(place, args, o)
  local program = embed.source "far"
  local argv = table.move(args, 1, #args, 7, { "sh", "-c", ONCE, "sh", tostring(#program), new_name() })
  local stderr = ""
  local how, message, code = command.converse(place, command.wrap(place, argv, {}), {
    stdin = { program, o.input or "" }, what = "runbook-far " .. args[1], stall = PATIENCE,
  }, function(from, seen)
    for chunk in function() return from:read(256 * 1024) end do
      seen.last = time.now()
      o.on_data(chunk)
    end
  end, function(from)
    for chunk in function() return from:read(4096) end do
      stderr = (stderr .. chunk):sub(-4096)
    end
  end)
  if not how then
    errors.raise { kind = errors.kind(code), code = code, target = place.name, message = message }
  elseif how.status ~= 0 then
    raise_failed(place, args, how, stderr)
  end
end

local run_verb = effect.verb {
  name = "far.run", class = "read", quiet = true,
  target = function(place) return place.name end,
  summary = function(_, args) return ("look with runbook-far %s"):format(args[1]) end,
  body = run_once,
}

--- Look at something with it. `on_data` gets its output in pieces. Not tried again: who takes the output has to begin anew.
---@async
---@param place runbook.Place
---@param args string[]  `scan ROOT …`, `prove ROOT …`
---@param o { input?: string, on_data: async fun(bytes: string) }
function far.run(place, args, o)
  run_verb(place, args, o)
end

--- Send or receive with it, held by us: for ends that do not reach each other. A permit to change is the caller's.
---@async
---@param place runbook.Place
---@param args string[]  `send ROOT …`, `receive ROOT …`
---@param o { input: string|runbook.stream, on_data: async fun(bytes: string) }
function far.carry(place, args, o)
  run_once(place, args, o)
end

--- Does a machine run it? Asked once for a place.
---@async
---@param place runbook.Place
---@return boolean runs
---@return string? why not
function far.runs_on(place)
  return retry.call({ target = place.name, what = "asking", reads = true }, function()
    local ok, err = xpcall(far.run, errors.handler, place, { "version" }, { on_data = function() end })
    if not ok and err.code ~= "ENOFAR" then
      error(err, 0)
    end
    return ok, not ok and err.message or nil
  end)
end

-- Removes what a copy that was cut left; with `keep` not the large files it was at, and says how far it was with them.
far.clean = effect.verb {
  name = "far.clean", class = "change", repeatable = true, quiet = true, inverse = effect.NOT_NEEDED,
  target = function(dir) return dir.place.name end,
  summary = function(dir) return ("remove what a copy that was cut left in %s"):format(dir.path) end,
  by_hand = function(dir) return dir.place:by_hand { "find", dir.path, "-name", ".rb~*" } end,
  body = function(dir, request, keep)
    return retry.call({ target = dir.place.name, what = "cleaning up", reads = true }, function() -- it may be done again
      local said = {}
      run_once(dir.place, { "clean", dir.path, keep and "--keep-parts" or nil }, {
        input = request, on_data = keep and function(bytes) said[#said + 1] = bytes end or function() end,
      })
      return table.concat(said)
    end)
  end,
}

local removal = obligation.kind("far-program", function(what)
  what.place:sh(REMOVE, what.name)
end, function(what) return ("remove our program, %s in /var/tmp or /tmp"):format(what.name) end)

local install = effect.verb {
  name = "far.install", class = "change", repeatable = true, inverse = effect.NOT_NEEDED,
  target = function(place) return place.name end,
  summary = function() return "bring our program there, for as long as it is used" end,
  answer = function(_, name) return "/var/tmp/" .. name end,
  body = function(place, name)
    local program = embed.source "far"
    return retry.call({ target = place.name, what = "bringing our program", reads = true }, function()
      local r = command.run(place, { "sh", "-c", INSTALL, "sh", tostring(#program), name }, { stdin = program })
      if r.status ~= 0 then
        raise_failed(place, { "install" }, r, r.stderr)
      end
      return r.stdout
    end)
  end,
}

---@class runbook.far.Installed
---@field folder string  of ours, there: files of a job may lie in it
---@field path string
---@field done async fun(self)  it is needed no more

--- Install it for jobs.
---@async
---@param place runbook.Place
---@param job string  the name of the jobs that use it
---@return runbook.far.Installed
function far.install(place, job)
  local name = new_name()
  local owed = removal:owe({ place = place, name = name }, { job = job })
  local folder = install(place, name)
  return { folder = folder, path = folder .. "/far", done = function() owed:meet() end }
end

return far
