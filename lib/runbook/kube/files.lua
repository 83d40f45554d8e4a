--- Large files to and from containers, which go on where they were cut.
---
--- A copy grows beside its target under a name made from what is copied, so that a later try finds it, in this process or
--- another. What is there already is compared by hash before anything is put behind it, and every byte is hashed at both ends
--- before the file gets its name. `kubectl cp` does none of this: a copy that was cut looks whole to it.

local command = require "runbook.place.command"
local digest = require "runbook.core.digest"
local errors = require "runbook.errors"
local events = require "runbook.events"
local file = require "runbook.core.file"
local retry = require "runbook.retry"
local task = require "runbook.task"
local time = require "runbook.core.time"

local files = {}

local BLOCK = 1 << 20 -- offsets are counted in these
local CHUNK = 256 * 1024
local PROGRESS = 1 -- seconds between two events

--- Files smaller than this go in one command, which is faster.
files.large = 4 << 20

-- $1 file, $2 first block, $3 blocks, $4 bytes after them. A pipe more for all of it would cost busybox more than the hash.
local SUM = [[
{
  dd if="$1" bs=1048576 skip="$2" count="$3" 2>/dev/null
  if [ "$4" -gt 0 ]; then dd if="$1" bs=1048576 skip=$(($2 + $3)) count=1 2>/dev/null | head -c "$4"; fi
} | sha256sum]]

-- $1 path, $2 what the copy is called, $3 blocks that are known to be right, $4 blocks of the whole. Says where the copy is,
-- its blocks, and the hash of those that are not known.
local BEGIN = [[
path=$1
if [ -L "$path" ]; then path=$(readlink -f "$path") || exit 1; fi
if [ -d "$path" ]; then echo "$path: Is a directory" >&2; exit 1; fi
stage=$path.rb~$2
if [ -L "$stage" ] || [ ! -f "$stage" ]; then rm -rf "$stage"; (umask 077; touch "$stage") || exit 1; fi
have=$(($(wc -c <"$stage") / 1048576))
if [ "$have" -gt "$4" ]; then have=$4; fi
sum=-
if [ "$have" -gt "$3" ]; then
  sum=$(dd if="$stage" bs=1048576 skip="$3" count=$((have - $3)) 2>/dev/null | sha256sum) || exit 1
fi
printf '%s %s %s' "$have" "${sum%% *}" "$stage"]]

-- $1 the copy, $2 first block, $3 whole blocks to come, $4 bytes after them. Written where it belongs, so that one of these that
-- outlived its connection can do no harm.
local TAKE = [[
if [ "$3" -gt 0 ]; then dd of="$1" bs=1048576 seek="$2" count="$3" iflag=fullblock conv=notrunc || exit 1; fi
if [ "$4" -gt 0 ]; then head -c "$4" | dd of="$1" bs=1048576 seek=$(($2 + $3)) conv=notrunc; fi]]

-- $1 file, $2 first block.
local GIVE = [[exec dd if="$1" bs=1048576 skip="$2"]]

-- $1 path, $2 the copy, $3 size, $4 mode, $5 owner.
local FINISH = [[
path=$1 stage=$2
if [ -L "$path" ]; then path=$(readlink -f "$path") || exit 1; fi
dd if=/dev/null of="$stage" bs=1 seek="$3" 2>/dev/null || exit 1
got=$(wc -c <"$stage")
if [ "$got" -ne "$3" ]; then echo "$path: only $got of $3 bytes arrived" >&2; exit 75; fi
mode=$4
if [ -e "$path" ]; then
  chmod "${mode:-$(stat -c %a "$path")}" "$stage" || exit 1
  [ -n "$5" ] || chown "$(stat -c %u:%g "$path")" "$stage" 2>/dev/null
else
  chmod "${mode:-$(printf %o $((0666 & ~0$(umask))))}" "$stage" || exit 1
fi
if [ -n "$5" ]; then chown "$5" "$stage" || exit 1; fi
dd if=/dev/null of="$stage" conv=notrunc,fsync 2>/dev/null || sync || exit 1
mv -f "$stage" "$path"]]

-- The hash of blocks of a file of ours, and of one there.
local function sum_here(path, first, count)
  return (errors.check("here", "reading " .. path, digest.sha256_file(path, false, first * BLOCK, count and count * BLOCK)))
end

local function sum_there(place, path, first, count, rest)
  local out = command.script(place, SUM, { path, ("%d"):format(first), ("%d"):format(count), ("%d"):format(rest) },
    { message = "hashing " .. path, stall = false })
  return out:match "^%x+"
end

-- The hashes of what is left of a copy, at both ends: of what lies in the files, not of what went by.
local function sums_of_rest(place, there, here, p)
  local sums = task.all {
    function() return sum_there(place, there, p.proven, p.blocks - p.proven, p.size - p.blocks * BLOCK) end,
    function() return sum_here(here, p.proven) end,
  }
  return sums[1], sums[2]
end

local function raise_lost(place, message, code)
  errors.raise({ kind = errors.kind(code), code = code, target = place.name, message = message }, 2)
end

local function raise_sum(place, path)
  errors.raise({ kind = "lost", code = "ESUM", target = place.name, message = path .. ": what arrived is not what was sent" }, 2)
end

-- Moves bytes from one stream to another, the next read beside a write, and says how far it is.
local function carry(from, to, p)
  local said = time.now()
  local function take()
    return table.pack(from:read(CHUNK))
  end
  local got = take()
  while got[1] do
    local bytes, ok, message, code = got[1], nil, nil, nil
    got = task.all({ take, function()
      ok, message, code = to:write(bytes)
    end })[1]
    if not ok then
      return false, message, code
    end
    p.done = p.done + #bytes
    if time.now() - said >= PROGRESS then
      said = time.now()
      events.emit { type = "progress", target = p.target, unit_name = p.what, done = p.done, total = p.size, bytes = p.done }
    end
  end
  return got[3] == nil, got[2], got[3]
end

-- What is left to be read, be it cut.
local function rest_of(from)
  local parts = {}
  for bytes in function() return (from:read(CHUNK)) end do
    parts[#parts + 1] = bytes
  end
  return table.concat(parts)
end

-- Goes on after a cut as long as each try brings it further.
local function keep_trying(p, round)
  local failures = 0
  while true do
    local before = p.proven
    local ok, err = xpcall(round, errors.handler)
    if ok then
      return
    elseif not retry.worthwhile(err, true) then
      error(err, 0)
    end
    failures = p.proven > before and 1 or failures + 1
    if failures >= retry.same_error then
      error(err, 0)
    end
    events.emit { type = "notice", target = p.target, text = ("%s: %s; going on with %s"):format(p.target, tostring(err), p.what) }
    task.sleep(retry.delay(failures))
  end
end

-- ---- there ----

-- What is there and right: p.proven blocks of it.
local function begin_put(place, p)
  local out = command.script(place, BEGIN, { p.path, p.id, ("%d"):format(p.proven), ("%d"):format(p.blocks) },
    { message = "writing " .. p.path, stall = false })
  local have, sum, stage = out:match "^(%d+) (%S+) (.*)$"
  have = math.tointeger(tonumber(have))
  if have > p.proven and sum_here(p.from, p.proven, have - p.proven) == sum then
    p.proven = have
  end
  p.stage = stage
end

local function send(place, p)
  local rest = p.size - p.blocks * BLOCK
  local words = command.wrap(place, { "sh", "-c", TAKE, "sh", p.stage, ("%d"):format(p.proven),
    ("%d"):format(p.blocks - p.proven), ("%d"):format(rest) }, {})
  local source <close> = errors.check("here", "reading " .. p.from, file.open(p.from, "r", { from = p.proven * BLOCK }))
  local child <close> = place.backend:open_bare(words)
  p.done = p.proven * BLOCK
  local sent, message, code = carry(source, child:stdin(), p)
  local stderr = rest_of(child:stderr())
  local how, why, why_code = child:wait()
  if how and how.status ~= 0 then -- that is why it took no more
    command.fail(place, words, { status = how.status, stderr = stderr }, { by_words = true, message = "writing " .. p.path })
  elseif not sent or not how then
    raise_lost(place, message or why, code or why_code)
  end
end

local function finish_put(place, p, o)
  local argv = { "sh", "-c", FINISH, "sh", p.path, p.stage, ("%d"):format(p.size),
    math.type(o.mode) == "integer" and ("%o"):format(o.mode) or o.mode or "", o.owner or "" }
  local r = command.run(place, argv, { stall = false })
  if r.status == 75 then
    raise_lost(place, r.stderr:match "([^\n]+)%s*$", "ELOST")
  elseif r.status ~= 0 then
    command.fail(place, argv, r, { by_words = true, message = "writing " .. p.path })
  end
end

--- Copy a file of this machine there. Part of a verb of places; what it began and could not end is left for the next try.
---@async
---@param place runbook.Place
---@param path string
---@param from string
---@param o { mode?: integer|string, owner?: string }
function files.put(place, path, from, o)
  local st = errors.check("here", "reading " .. from, file.stat(from))
  local p = {
    path = path, from = from, size = st.size, blocks = st.size // BLOCK, proven = 0, target = place.name, what = path,
    id = digest.sha256(("%s\0%s\0%d\0%s"):format(from, path, st.size, tostring(st.mtime))):sub(1, 12),
  }
  keep_trying(p, function()
    begin_put(place, p)
    send(place, p)
    local theirs, ours = sums_of_rest(place, p.stage, from, p)
    if theirs ~= ours then
      raise_sum(place, path)
    end
    finish_put(place, p, o)
  end)
end

-- ---- here ----

local LOOK = [[stat -L -c '%s %Y %i' "$1"]]

local function look(place, path)
  return (command.script(place, LOOK, { path }, { message = "reading " .. path }):gsub("%s+$", ""))
end

local function begin_get(place, p)
  local st = file.stat(p.stage)
  local have = st and math.min(st.size // BLOCK, p.blocks) or 0
  if have > p.proven and sum_here(p.stage, p.proven, have - p.proven) == sum_there(place, p.path, p.proven, have - p.proven, 0) then
    p.proven = have
  end
end

local function receive(place, p)
  local argv = { "sh", "-c", GIVE, "sh", p.path, ("%d"):format(p.proven) }
  local child <close> = errors.check(place.name, "reading " .. p.path, place.backend:open(command.wrap(place, argv, {}), {}))
  child:stdin():close()
  local sink <close> = errors.check("here", "writing " .. p.stage,
    file.open(p.stage, "a", { from = p.proven * BLOCK, mode = 384 })) -- 0600
  p.done = p.proven * BLOCK
  local got, message, code = carry(child:stdout(), sink, p)
  if not got then
    errors.raise { kind = errors.kind(code), code = code, target = place.name, message = message }
  end
  local stderr = rest_of(child:stderr())
  local how = errors.check(place.name, "reading " .. p.path, child:wait())
  if how.status ~= 0 then
    command.fail(place, argv, { status = how.status, signal = how.signal, stderr = stderr },
      { by_words = true, message = "reading " .. p.path })
  end
end

local function must_be_equal(place, p)
  local theirs, ours = sums_of_rest(place, p.path, p.stage, p)
  local size = errors.check("here", "reading " .. p.stage, file.stat(p.stage)).size
  if look(place, p.path) ~= p.looks then
    errors.raise { kind = "conflict", code = "ECHANGED", target = place.name,
      message = p.path .. " was changed while it was copied", hint = "copy it when nobody writes to it" }
  elseif ours ~= theirs or size ~= p.size then
    raise_sum(place, p.path)
  end
end

--- Copy a file from there to `stage` on this machine. Part of a verb of places.
---@async
---@param place runbook.Place
---@param path string
---@param stage string  what an earlier try has left there is used
function files.get(place, path, stage)
  local looks = look(place, path)
  local size = math.tointeger(tonumber(looks:match "^%d+"))
  local p = { path = path, stage = stage, looks = looks, size = size, blocks = size // BLOCK, proven = 0, target = place.name,
    what = path }
  keep_trying(p, function()
    begin_get(place, p)
    receive(place, p)
    must_be_equal(place, p)
  end)
end

return files
