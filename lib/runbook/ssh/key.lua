--- A key for as long as one copy takes: made in memory, on nobody's disk, and taken away again.
---
---     local key = ssh.with_key { from = new, to = old, expires = 86400 }
---     new:job { name = "pull", argv = key:argv { "rsync", ... }, stdin = key.private }
---     key:done()
---
--- The public half goes into `authorized_keys` of the login there, restricted, with an end and with our mark as its comment;
--- its removal is an obligation from before it is added. The private half lives in an ssh-agent that runs only as long as
--- the command, and reaches it by stdin.

local command = require "runbook.place.command"
local digest = require "runbook.core.digest"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local obligation = require "runbook.obligation"
local options = require "runbook.options"
local shell = require "runbook.shell"
local task = require "runbook.core.task"
local time = require "runbook.core.time"

local key = {}

local scripts = {}

-- One writer at a time: a rewrite must not lose a line that somebody adds meanwhile. A lock a minute old has no owner.
local locked = [[
umask 077
mkdir -p "$HOME/.ssh" || exit 1
file=$HOME/.ssh/authorized_keys
if [ -L "$file" ]; then file=$(readlink -f "$file") || exit 1; fi
lock=$file.rb~lock stage=$file.rb~new
i=0
until mkdir "$lock" 2>/dev/null; do
  if [ ! -d "$HOME/.ssh" ] || [ ! -w "${file%/*}" ]; then echo "$file: Permission denied" >&2; exit 1; fi
  i=$((i + 1))
  if [ "$i" -gt 300 ]; then rmdir "$lock"; fi
  sleep 0.2 2>/dev/null || sleep 1
done
trap 'rm -f "$stage"; rmdir "$lock"' EXIT
trap 'exit 1' HUP INT PIPE TERM
]]

-- $1 mark, $2 options, $3 key, $4 seconds since 1970 when it ends.
scripts.add = locked .. [[
if [ -f "$file" ] && grep -qF -e "$1" "$file"; then exit 0; fi
ends=$(date -d "@$4" +%Y%m%d%H%M) || exit 1
if [ -s "$file" ] && [ -n "$(tail -c 1 "$file")" ]; then echo >>"$file" || exit 1; fi
printf '%s,expiry-time="%s" %s\n' "$2" "$ends" "$3" >>"$file"]]

-- $1 mark. The file is replaced whole, so that nobody is ever locked out by half of it.
scripts.remove = locked .. [[
if [ ! -f "$file" ] || ! grep -qF -e "$1" "$file"; then exit 0; fi
cp -p "$file" "$stage" || exit 1
grep -vF -e "$1" "$file" >"$stage"
if [ $? -gt 1 ]; then exit 1; fi
mv -f "$stage" "$file"]]

-- $1 line for known_hosts or nothing, $2 options of ssh; then the command. Runs under the agent, whose key comes by stdin.
-- rsync takes its ssh from RSYNC_RSH; other programs find the same options in RUNBOOK_SSH.
scripts.under_agent = [[
trap 'kill "$SSH_AGENT_PID"' EXIT
ssh-add -q - || exit 1
exec </dev/null
known=$1 ssh="ssh -o BatchMode=yes $2"; shift 2
if [ -n "$known" ]; then
  umask 077
  file=$(mktemp) || exit 1
  trap 'rm -f "$file"; kill "$SSH_AGENT_PID"' EXIT
  trap 'exit 143' TERM
  printf '%s\n' "$known" >"$file"
  ssh="$ssh -o StrictHostKeyChecking=yes -o UserKnownHostsFile=$file -o GlobalKnownHostsFile=/dev/null -o HostKeyAlias=runbook-source"
fi
RUNBOOK_SSH=$ssh RSYNC_RSH=$ssh
export RUNBOOK_SSH RSYNC_RSH
"$@" &
pid=$!
trap 'kill "$pid" 2>/dev/null' TERM
wait "$pid"
status=$?
trap - TERM
exit "$status"]]

-- authorized_keys belongs to the login, whatever rights its commands get.
local function as_login(at)
  return at:with { sudo = false }
end

local removal = obligation.kind("ssh-key", function(what)
  command.script(as_login(what.place), scripts.remove, { what.mark }, { message = "removing the key " .. what.mark, change = true })
end, function(what) return ("remove the key %s from ~/.ssh/authorized_keys"):format(what.mark) end)

local add = effect.verb {
  name = "ssh.add_key", class = "change", repeatable = true, quiet = true, inverse = effect.NOT_NEEDED,
  target = function(at) return at.name end,
  summary = function(_, mark) return "allow the key " .. mark end,
  by_hand = function(at, mark) return as_login(at):by_hand { "vi", ".ssh/authorized_keys" } .. "   # " .. mark end,
  body = function(at, mark, restrictions, public, ends)
    command.script(as_login(at), scripts.add, { mark, restrictions, public, ("%.0f"):format(ends) },
      { message = "adding the key " .. mark, change = true })
  end,
}

---@class runbook.ssh.Key
---@field private runbook.secret  for the stdin of what runs under `argv`
---@field public string
---@field mark string  the comment by which it is found again
---@field fingerprint string
local Key = {}

local key_mt = { __name = "runbook.ssh.key", __index = Key }

local function quoted(text)
  return '"' .. text:gsub('"', '\\"') .. '"'
end

--- A `command` for a key: a script, on one line, whose last argument is what the other end asks for. Each of its lines has to
--- end so that they may stand on one.
---@param name string  $0
---@param script string
---@param values string[]  $1…
---@param sudo? boolean|string  as of a place
---@return string
function key.forced(name, script, values, sudo)
  local argv = table.move(values, 1, #values, 5, { "sh", "-c", (script:gsub("\n%s*", " ")), name })
  if sudo then
    local words = type(sudo) == "string" and { "sudo", "-n", "-u", sudo, "--" } or { "sudo", "-n", "--" }
    argv = table.move(argv, 1, #argv, #words + 1, words)
  end
  return shell.join(argv) .. ' "$SSH_ORIGINAL_COMMAND"'
end

local check = options.declare("ssh.with_key", {
  from = { "table", "the place that will connect" },
  to = { "table", "the place that lets it in" },
  command = { "string", "the only command it may run", optional = true },
  expires = { "number", "seconds", default = 7 * 86400 },
  from_address = { "string", "address or pattern it may come from", optional = true },
  job = { "string", "the name of the job that uses it: it stays while that runs, whatever becomes of us", optional = true },
})

--- Make a key with which one place can enter another.
---@async
---@param o { from: runbook.Place, to: runbook.Place, command?: string, expires?: number, from_address?: string, job?: string }
---@return runbook.ssh.Key
function key.with(o)
  o = check(o, 2)
  local mark = ("runbook:%s:%s"):format(task.context().run or "once", digest.hex(digest.random(6)))
  if mark:find "[%s\"]" then
    errors.raise({ kind = "usage", message = "a run's name holds no spaces or quotes" }, 2)
  end
  local pair = digest.ed25519(mark, "key of " .. mark)
  local restrictions = "restrict"
  if o.from_address then
    restrictions = restrictions .. ",from=" .. quoted(o.from_address)
  end
  if o.command then
    restrictions = restrictions .. ",command=" .. quoted(o.command)
  end
  local self = setmetatable({
    private = pair.private, public = pair.public, fingerprint = pair.fingerprint, mark = mark, to = o.to, from = o.from,
  }, key_mt)
  self.owed = removal:owe({ place = o.to, mark = mark }, { job = o.job })
  add(o.to, mark, restrictions, pair.public, time.utc() + o.expires)
  return self
end

--- The arguments that run a command under an agent holding the key. Its stdin must be `key.private`; the command's own is
--- empty. With `host_key` ("ssh-ed25519 AAAA...") only that server is believed.
---@param argv string[]
---@param o? { host_key?: string, port?: integer, user?: string }
---@return string[]
function Key:argv(argv, o) -- luacheck: no self
  o = o or {}
  local given = ""
  if o.port then
    given = given .. (" -p %d"):format(o.port)
  end
  if o.user then
    given = given .. " -l " .. o.user
  end
  local words = { "ssh-agent", "sh", "-c", scripts.under_agent, "sh", o.host_key and "runbook-source " .. o.host_key or "", given }
  return table.move(argv, 1, #argv, #words + 1, words)
end

--- The key is needed no more: its line is removed there.
---@async
function Key:done()
  if not effect.planning() then
    self.owed:meet()
  end
end

return key
