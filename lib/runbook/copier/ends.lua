--- The two ends of a pair: what is there, whether they are two, and what each can do.

local errors = require "runbook.errors"
local patterns = require "runbook.copier.patterns"
local rsync = require "runbook.copier.rsync"
local time = require "runbook.core.time"

local ends = {}

-- $1 a directory. Lines of facts; the names found in it come last, `d` before those of directories and `-` before the others,
-- each ended by a zero byte. A directory that is not there yet is looked at through the nearest parent.
local LOOK = [[
LC_ALL=C; export LC_ALL
dir=$1
there=yes missing=
while [ ! -d "$dir" ]; do
  if [ -e "$dir" ] || [ -L "$dir" ]; then echo "$dir: Not a directory" >&2; exit 1; fi
  case ${dir##*/} in ''|.) ;; *) missing=/${dir##*/}$missing ;; esac
  there=no dir=${dir%/*}
  [ -n "$dir" ] || dir=/
done
cd -P -- "$dir" || exit 1
newline='
'
boot= machine=
{ read -r boot </proc/sys/kernel/random/boot_id; } 2>/dev/null
{ read -r machine </etc/machine-id; } 2>/dev/null
rsync=$(rsync --version 2>/dev/null)
mount=$(stat -c %m .)
real=$(pwd -P; echo /)
real=${real%??}
echo "there $there"
echo "boot $boot"
echo "machine ${machine:-$(uname -n)}"
echo "clock $(date +%s.%N)"
echo "uid $(id -u)"
echo "gid $(id -g)"
echo "rsync ${rsync%%"$newline"*}"
case $rsync in *' ACLs,'*) echo "acls yes" ;; esac
case $rsync in *' xattrs'*) echo "xattrs yes" ;; esac
for tool in awk find getfattr paste sed sha256sum sort ssh ssh-add ssh-agent ssh-keyscan stdbuf xargs; do
  if command -v "$tool" >/dev/null; then echo "has $tool"; fi
done
if find . -maxdepth 0 -printf '' 2>/dev/null && printf 'x\0' | sort -z >/dev/null 2>&1 && printf x | sed -z s/x/y/ >/dev/null 2>&1; then
  echo "gnu yes"
fi
echo "mount $mount"
set -- $(stat -f -c '%S %a %c %d %T' .)
echo "space $1 $2 $3 $4 $5"
if [ -w . ]; then echo "writable yes"; fi
echo "source $(awk -v d="$mount" '$2 == d { s = $1 " " $3 } END { print s }' /proc/self/mounts)"
up=. rest=${real%/}
set -- .
while [ "${rest%/*}" != "$rest" ]; do up=$up/.. rest=${rest%/*}; set -- "$@" "$up"; done
stat -c 'above %d:%i' "$@"
case $missing in ?*) real=${real%/}$missing ;; esac
echo "real $(printf %s "$real" | od -An -v -tx1 | tr -d ' \n')"
echo end
if [ "$there" = yes ]; then
  for name in * .[!.]* ..?*; do
    if [ -d "$name" ] && [ ! -L "$name" ]; then printf 'd%s\0' "$name"
    elif [ -e "$name" ] || [ -L "$name" ]; then printf -- '-%s\0' "$name"; fi
  done
fi]]

local function is_ours(name)
  for _, pattern in ipairs(patterns.NOT_UNITS) do
    local lua = "^" .. pattern:gsub("%p", function(c) return c == "*" and ".*" or "%" .. c end) .. "$"
    if name:find(lua) then
      return true
    end
  end
  return false
end

--- Is this the name of nothing that is copied (`lost+found`)?
---@param name string
---@return boolean
ends.is_no_unit = is_ours

local function from_hex(text)
  return (text:gsub("%x%x", function(h) return string.char(tonumber(h, 16)) end))
end

-- Others know no nanoseconds, and print nothing that looks could go by.
local function must_be_gnu(dir, facts)
  if not facts.gnu then
    errors.raise {
      kind = "refused", code = "ENOTGNU", target = dir.place.name,
      message = ("date, find, sed and sort of %s are not GNU's, and looks need those"):format(dir.place.name),
      hint = dir.place.backend.fleeting and "another `image`, like debian:12-slim" or nil,
    }
  end
end

local function parse(dir, stdout, sent)
  local head, rest = stdout:match("^(.-\n)end\n(.*)$")
  local facts = { has = {}, above = {}, names = {}, loose = {} }
  for key, value in head:gmatch("(%a+) ([^\n]*)\n") do
    if key == "has" then
      facts.has[value] = true
    elseif key == "above" then
      facts.above[#facts.above + 1] = value
    else
      facts[key] = value
    end
  end
  must_be_gnu(dir, facts)
  for kind, name in rest:gmatch("(.)([^\0]+)\0") do
    if not is_ours(name) then
      facts.names[#facts.names + 1] = name
      facts.loose[name] = kind == "-" or nil
    end
  end
  local unit, free, inodes, inodes_free, kind = facts.space:match("^(%d+) (%d+) (%d+) (%d+) (%S+)")
  facts.there = facts.there == "yes"
  facts.free, facts.file_system = tonumber(unit) * tonumber(free), kind
  facts.inodes, facts.inodes_free = tonumber(inodes), tonumber(inodes_free)
  facts.version, facts.root = rsync.version(facts.rsync), facts.uid == "0"
  facts.real = from_hex(facts.real)
  facts.skew = tonumber(facts.clock) - sent
  return facts
end

--- What is to be known of one end.
---@async
---@param dir runbook.Dir
---@return table facts  there boot machine host uid gid rsync version acls xattrs has gnu mount free inodes inodes_free file_system
---  writable above real names loose (those that are no directories) skew
function ends.look(dir)
  local sent = time.utc()
  local status, stdout, stderr = dir.place:exec { "sh", "-c", LOOK, "sh", dir.path, reads = true, limit = 64 << 20 }
  if status ~= 0 then
    errors.raise {
      kind = stderr:find("Permission denied", 1, true) and "refused" or "missing", target = dir.place.name, stderr = stderr,
      message = ("%s cannot be looked at: %s"):format(tostring(dir), stderr:match("([^\n]+)%s*$") or "status " .. status),
    }
  end
  local facts = parse(dir, stdout, (sent + time.utc()) / 2)
  -- A server is known by its host key; what has none, by what it calls itself.
  if dir.place.backend.machine then -- a container sees the kernel of its node, and not the files of its neighbours
    facts.host, facts.boot = dir.place.backend:machine(), ""
  else
    facts.host = dir.place:identity() or facts.machine
  end
  return facts
end

local function contains(list, value)
  for _, one in ipairs(list) do
    if one == value then
      return true
    end
  end
  return false
end

local function refuse(message, hint)
  errors.raise({ kind = "usage", code = "ESAME", message = message, hint = hint }, 2)
end

--- Are they on one machine? Then no connection is needed between them.
---@param from table
---@param to table
---@return boolean
function ends.are_one_machine(from, to)
  if from.boot ~= "" and to.boot ~= "" then
    return from.boot == to.boot -- machines made from one image may share host keys
  end
  return from.host == to.host
end

local function lies_in(path, other)
  return path:sub(1, #other + 1) == other .. "/"
end

--- Raises unless they are two directories, neither in the other. By device and inode, so that a bind mount or a symlink is
--- seen through, and by path, as two pods give one claim two devices; where the machines differ, by what they mount.
---@param pair table
---@param from table  facts
---@param to table
function ends.must_differ(pair, from, to)
  if from.real == "/" or to.real == "/" then
    refuse(("%s is the root of a whole system, not a directory of homes"):format(tostring(from.real == "/" and pair.from or pair.to)))
  end
  local one_export = from.source:match("^%S+:%S+ nfs") and from.source == to.source
  if one_export and from.real:sub(#from.mount + 1) == to.real:sub(#to.mount + 1) then
    refuse(("both ends are %s, mounted on two machines"):format(from.source:match("^%S+")))
  elseif not ends.are_one_machine(from, to) then
    return
  elseif from.real == to.real or to.there and from.above[1] == to.above[1] then
    refuse(("%s and %s are the same directory"):format(tostring(pair.from), tostring(pair.to)))
  elseif lies_in(to.real, from.real) or contains(to.above, from.above[1]) then
    refuse(("the target %s lies inside the source %s"):format(tostring(pair.to), tostring(pair.from)))
  elseif lies_in(from.real, to.real) or to.there and contains(from.above, to.above[1]) then
    refuse(("the source %s lies inside the target %s"):format(tostring(pair.from), tostring(pair.to)))
  end
end

--- An owner as written: `keep`, or numbers.
---@param owner string
---@param level integer
function ends.check_owner(owner, level)
  if owner ~= "keep" and not owner:find("^%d+:%d+$") then
    errors.raise({ kind = "usage", message = ("sync.pair: owner is `keep` or uid:gid, not `%s`"):format(owner) }, level + 1)
  end
end

return ends
