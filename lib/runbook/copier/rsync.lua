--- rsync as the engine: its flags, the scripts around it on both sides, what it prints and how it fails.
---
--- The target pulls. On the source the key of a pass may do one thing: send a unit of one directory, chosen by a word that
--- cannot lead out of it. On the target rsync runs in the unit's own directory, with its temporary files in there, so that
--- a quota counts them where they belong and a rename is never across file systems.

local errors = require "runbook.errors"
local key = require "runbook.ssh.key"
local patterns = require "runbook.copier.patterns"

local rsync = {}

rsync.OLDEST = "3.1.1"

-- Names in a unit on the target while a pass works on it. `PARTIAL` is kept after a cut, so that a large file goes on.
rsync.STAGE, rsync.PARTIAL = ".rb~stage", ".rb~partial"

rsync.GONE = 65 -- the exit code of a unit that is not at the source any more
rsync.STALLED = 900 -- seconds without a byte before a try is given up

--- The version in what `rsync --version` prints, as a number that can be compared; nil when there is none.
---@param text string
---@return integer?
function rsync.version(text)
  local major, minor, patch = text:match("(%d+)%.(%d+)%.?(%d*)")
  return major and tonumber(major) * 10000 + tonumber(minor) * 100 + (tonumber(patch) or 0) or nil
end

--- The flags of a pass.
---@param o { version: integer, owner: string, exclude: string[], loose: boolean, protect?: string[], delete: boolean, force: boolean,
---  rate?: number }  protect: names beside the loose files that are not touched; rate: of this one process
---@return string[]
function rsync.flags(o)
  local argv = {
    "-aHAXS", "--numeric-ids", "--no-s", "--partial-dir=" .. rsync.PARTIAL, "--temp-dir=" .. rsync.STAGE,
    ("--timeout=%d"):format(rsync.STALLED), "--no-h", "--outbuf=L", "--info=progress2,stats2",
  }
  local function add(flag)
    argv[#argv + 1] = flag
  end
  if o.version >= 30103 then
    add "--modify-window=-1" -- older ones cannot compare nanoseconds
  end
  if o.owner ~= "keep" then
    add("--chown=" .. o.owner)
  end
  if o.force then
    add "--force" -- a directory that has become a file
  end
  if o.delete then
    add "--delete-delay"
  end
  if o.rate then
    add(("--bwlimit=%d"):format(math.max(1, o.rate // 1024)))
  end
  add("--exclude=/" .. rsync.STAGE)
  if o.loose then
    for _, name in ipairs(patterns.NOT_UNITS) do
      add("--exclude=/" .. name)
    end
    for _, name in ipairs(o.protect or {}) do
      add("--exclude=" .. patterns.literal(name))
    end
    add "--exclude=/*/"
  end
  for _, flag in ipairs(patterns.for_rsync(o.exclude)) do
    add(flag)
  end
  return argv
end

--- The unit as the one word that the source's end of a pass takes.
---@param unit string
---@return string
function rsync.encode(unit)
  return (unit:gsub("[^%w_]", function(c) return ("\\0%03o"):format(c:byte()) end))
end

-- $1 the directory, $2 `gently` or nothing, $3 what the other end asks for. It may ask for a unit and for no more. Every line ends
-- so that they may stand on one, as authorized_keys wants it.
local SEND = [[
set -f;
refuse() { echo "runbook: refused: $1" >&2; exit 64; };
base=$1 gently=$2;
set -- $3;
[ "$1" = runbook-send ] || refuse "$1";
unit=$(printf "%b." "$2"); unit=${unit%.};
case $unit in ""|..|*/*) refuse "unit"; esac;
shift 2;
case " $* " in " --server --sender "*" . . ") ;; *) refuse "$*"; esac;
for word do
  case $word in
    --server|--sender|--numeric-ids|--timeout=*|--bwlimit=*|--log-format=*|--info=*|--stats|--no-*|.) ;;
    -*[!A-Za-z.]*) refuse "$word" ;;
    -*) case ${word%%e.*} in *s*) refuse "$word"; esac ;;
    *) refuse "$word" ;;
  esac;
done;
cd -P -- "$base" || exit 66;
if [ "$unit" != . ]; then
  if [ -L "./$unit" ]; then refuse "a symlink"; fi;
  cd -P -- "./$unit" || exit 65;
fi;
if [ -n "$gently" ]; then
  gently="nice -n 19";
  if ionice -c 3 true 2>/dev/null; then gently="ionice -c 3 nice -n 19"; fi;
fi;
exec $gently rsync "$@"]]

--- The forced command of a pass's key on the source, on one line.
---@param o { path: string, sudo: boolean|string|nil, gently: boolean }
---@return string
function rsync.sender(o)
  return key.forced("runbook-send", SEND, { o.path, o.gently and "gently" or "" }, o.sudo)
end

-- What ssh is told on top of what the key's agent brings.
local SSH_OPTIONS = {
  "IdentityFile=none", "PreferredAuthentications=publickey", "ConnectTimeout=15", "ServerAliveInterval=15", "ServerAliveCountMax=3",
  "Compression=no", "ControlPath=none",
  "Ciphers=aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes128-ctr,aes256-ctr",
}

--- Options of the target's ssh, as words of a command line.
---@return string
function rsync.ssh_options()
  return "-F /dev/null -T -o " .. table.concat(SSH_OPTIONS, " -o ")
end

-- $1 more options for ssh, $2 the tree, $3 the unit, $4 `ours` when what stands in the way was put there by us, then rsync's
-- arguments. What runs as root still obeys a quota that counts for the home's owner, as the bytes never lie elsewhere.
local PULL = [[
LC_ALL=C; export LC_ALL
umask 077
if [ -n "$RSYNC_RSH" ]; then RSYNC_RSH="$RSYNC_RSH $1"; fi
tree=$2 unit=$3 ours=$4 stage=]] .. rsync.STAGE .. [[; shift 4
trap : HUP INT TERM
exec </dev/null
cd -P -- "$tree" || exit 91
if [ "$unit" != . ]; then
  if [ -L "./$unit" ]; then echo "runbook: a symlink stands on the target" >&2; exit 92; fi
  if [ -e "./$unit" ] && [ ! -d "./$unit" ]; then
    if [ -z "$ours" ]; then echo "runbook: a file stands on the target" >&2; exit 92; fi
    rm -f -- "./$unit"
  fi
  made=
  if [ ! -d "./$unit" ]; then mkdir -- "./$unit" || exit 91; made=1; fi
  cd -P -- "./$unit" || exit 91
fi
# A home may be read-only for its own user; what we do in it leaves its mode and its time as they were.
in_home() {
  at=$(stat -c %y .) mode=
  if [ ! -w . ]; then mode=$(stat -c %a .); chmod u+rwx . || return 1; fi
  "$@"; done=$?
  if [ -n "$mode" ]; then chmod "$mode" .; fi
  touch -m -d "$at" . 2>/dev/null
  return "$done"
}
in_home rm -rf -- "./$stage"
in_home mkdir -- "./$stage" || exit 91
lines=
if stdbuf -oL true 2>/dev/null; then lines="stdbuf -oL"; fi
exec 3>&1
status=$({
  { rsync "$@" ./ 3>&- 4>&-; echo $? >&4; } |
    $lines tr '\r' '\n' | sed -un '/(xfr#[0-9]*00, /p; /(xfr#/!p' >&3
} 4>&1)
in_home rm -rf -- "./$stage"
if [ "$status" -ne 0 ] && [ -n "$made" ]; then cd .. && rmdir -- "./$unit" 2>/dev/null; fi
exit "$status"]]

--- The command that pulls a unit; it runs under the agent of a key when there is one.
---@param o { tree: string, unit: string, ours: boolean, remote: boolean, flags: string[], source: string }
---@return string[] argv
function rsync.puller(o)
  local argv = { "sh", "-c", PULL, "runbook-pull", o.remote and rsync.ssh_options() or "", o.tree, o.unit, o.ours and "ours" or "" }
  table.move(o.flags, 1, #o.flags, #argv + 1, argv)
  if o.remote then
    argv[#argv + 1] = "--rsync-path=runbook-send " .. rsync.encode(o.unit)
  end
  argv[#argv + 1] = o.source
  return argv
end

--- What an operator would type for a unit; the flags without what is only for us.
function rsync.by_hand(o)
  local argv = { "rsync", "-aHAXS", "--numeric-ids" }
  if o.owner ~= "keep" then
    argv[#argv + 1] = "--chown=" .. o.owner
  end
  if o.delete then
    argv[#argv + 1] = "--delete-delay"
  end
  if o.loose then
    argv[#argv + 1] = "--exclude=/*/"
  end
  for _, flag in ipairs(patterns.for_rsync(o.exclude)) do
    argv[#argv + 1] = flag
  end
  argv[#argv + 1], argv[#argv + 2] = o.source, o.target
  return argv
end

local STATS = {
  ["Number of regular files transferred"] = "transferred", ["Number of created files"] = "created",
  ["Number of deleted files"] = "deleted", ["Total transferred file size"] = "bytes", ["Literal data"] = "literal",
  ["Number of files"] = "entries",
}

-- What the lines of its stderr mean, in order: kind in our words, and whether a later pass puts it right by itself.
local KINDS = {
  { "vanished", "vanished:", later = true },
  { "changing", "failed verification", later = true },
  { "quota", "Disk quota exceeded" },
  { "full", "No space left on device" },
  { "read-only", "Read%-only file system" },
  { "refused", "Permission denied %(13%)" },
  { "refused", "Operation not permitted" },
  { "broken", "Input/output error" },
  { "unsupported", "Operation not supported" },
  { "too long", "File name too long" },
}

local Output = {}
local output_mt = { __index = Output }

--- A reader of what one rsync prints.
---@param on_progress? fun(bytes: integer, files: integer?)
function rsync.output(on_progress)
  return setmetatable({ stats = {}, kinds = {}, order = {}, stderr = {}, on_progress = on_progress }, output_mt)
end

local function note(self, line)
  for _, row in ipairs(KINDS) do
    if line:find(row[2]) then
      local kind = self.kinds[row[1]]
      if not kind then
        kind = { kind = row[1], later = row.later or false, count = 0, examples = {} }
        self.kinds[row[1]] = kind
        self.order[#self.order + 1] = kind
      end
      kind.count = kind.count + 1
      if #kind.examples < 3 then
        kind.examples[#kind.examples + 1] = line
      end
      return
    end
  end
end

--- One line of its output.
---@param line string
---@param stream "stdout"|"stderr"
function Output:line(line, stream)
  if stream == "stderr" then
    note(self, line)
    self.stderr[#self.stderr + 1] = line
    if #self.stderr > 200 then
      table.remove(self.stderr, 1)
    end
    return
  end
  local bytes = line:match("^%s*(%d+)%s+%d+%%")
  if bytes then
    self.bytes_so_far = math.tointeger(bytes)
    self.files_so_far = math.tointeger(line:match("xfr#(%d+)")) or self.files_so_far
    if self.on_progress then
      self.on_progress(self.bytes_so_far, self.files_so_far)
    end
    return
  end
  if line:find("file has vanished: ", 1, true) then -- older ones say it on stdout
    note(self, line)
  end
  local name, n = line:match("^(%a[%a ]+): (%d+)")
  if name and STATS[name] then
    self.stats[STATS[name]] = math.tointeger(n)
  end
end

--- How many names were there when it began and gone when it came to them.
---@return integer
function Output:vanished()
  return self.kinds.vanished and self.kinds.vanished.count or 0
end

local WORDS = {
  quota = { "full", "the quota there is exceeded" }, full = { "full", "No space left on device" },
  ["read-only"] = { "refused", "the target is read-only" }, refused = { "refused", "Permission denied" },
  broken = { "unknown", "Input/output error: the disk or its server" },
  unsupported = { "refused", "the target's file system cannot keep it" },
  ["too long"] = { "refused", "a name is too long for the target" }, changing = { "busy", "still changing while it is read" },
}

-- Those of the whole process, by its exit code. Kinds lost, timeout and unreachable are tried again.
local CODES = {
  [1] = { "internal", "rsync does not know one of its options" }, [2] = { "refused", "the two rsyncs do not speak one protocol" },
  [10] = { "lost", "the connection between the servers broke" }, [11] = { "unknown", "a file could not be written" },
  [12] = { "lost", "the connection between the servers broke" }, [13] = { "unknown", "rsync stopped with an error" },
  [14] = { "unknown", "rsync lost one of its own processes" }, [20] = { "lost", "rsync was stopped" },
  [22] = { "limit", "out of memory there" }, [25] = { "conflict", "more would be removed than is allowed" },
  [30] = { "timeout", ("nothing moved for %d min"):format(rsync.STALLED // 60) }, [35] = { "timeout", "no answer" },
  [64] = { "internal", "the source's end refused the request" }, [65] = { "missing", "it is gone from the source" },
  [66] = { "missing", "the source's directory is gone" },
  [91] = { "refused", "the target's directory cannot be used" },
  [92] = { "conflict", "something else stands where the unit belongs" }, [126] = { "missing", "rsync cannot be run" },
  [127] = { "missing", "there is no rsync" }, [137] = { "lost", "rsync was killed" }, [143] = { "lost", "rsync was stopped" },
}

local SSH = {
  { "Host key verification failed", "identity", "the source shows another host key to the target than to us" },
  { "Permission denied %(", "auth", "the source refuses the key of this pass" },
  { "Connection refused", "unreachable", "connection refused" }, { "timed out", "unreachable", "no answer" },
  { "No route to host", "unreachable", "no route" }, { "Could not resolve", "unreachable", "its name is not known there" },
  { "Network is unreachable", "unreachable", "no network" },
  { "command not found", "missing", "there is no rsync on the source" }, { "not found", "missing", "there is no rsync on the source" },
  { "runbook: refused", "internal", "the source's end refused the request" },
  { "a password is required", "auth", "sudo asks for a password on the source" },
}

local function by_words(text)
  for _, row in ipairs(SSH) do
    if text:find(row[1]) then
      return { row[2], row[3] }
    end
  end
end

--- What ssh, or our end behind it, said of a connection between the two machines.
---@param text string
---@return string? kind
---@return string? words
function rsync.said(text)
  local found = by_words(text)
  if found then
    return found[1], found[2]
  end
end

--- What the end of a pass over a unit means. Returns nil when it is good, or good enough (`settled`: nobody writes any more, so
--- nothing is left to a later pass).
---@param status integer
---@param settled boolean
---@return runbook.Error?
function Output:failure(status, settled)
  local text = table.concat(self.stderr, "\n")
  local worst
  for _, kind in ipairs(self.order) do
    if WORDS[kind.kind] and (settled or not kind.later) then
      worst = worst or kind
    end
  end
  if status == 0 or status == 24 or (status == 23 and not worst and #self.order > 0 and not settled) then
    return nil
  end
  local said = CODES[status] or { "exit", "rsync ended with status " .. status }
  if status == 255 or status == 12 or status == 127 or status == 126 then
    said = by_words(text) or (status == 255 and { "lost", "the connection between the servers broke" }) or said
  end
  if worst and (status == 23 or status == 11) then
    local n = ("%d %s"):format(worst.count, worst.count == 1 and "name" or "names")
    said = { WORDS[worst.kind][1], ("%s (%s)"):format(WORDS[worst.kind][2], n) }
  elseif status == 23 then
    said = { "unknown", "some of it was not copied" }
  end
  local example = worst and worst.examples[1] or self.stderr[1]
  return errors.new {
    kind = said[1], code = "ESYNC", status = status, stderr = text, what = worst and worst.kind,
    message = example and said[2] .. "\n  " .. example or said[2],
  }
end

return rsync
