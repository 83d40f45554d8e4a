--- One shard on its way from source to target: `far send` there, `far receive` here, joined as the route says.
---
---     local   both on the target's machine, a pipe between them
---     pull    a job on the target:  ssh SOURCE runbook-send < work | far receive > results
---     push    a job on the source:  far send < work | ssh TARGET runbook-receive > results
---     operator  two commands of ours, joined here; a cut of either ends both, and the next round looks what was done
---
--- What a key opens on the other side is a command of ours, whose flags are looked at one by one.

local clocks = require "runbook.copier.clocks"
local command = require "runbook.place.command"
local digest = require "runbook.core.digest"
local errors = require "runbook.errors"
local events = require "runbook.events"
local far = require "runbook.copier.far"
local faults = require "runbook.copier.faults"
local key = require "runbook.ssh.key"
local meter = require "runbook.copier.meter"
local route = require "runbook.copier.route"
local rsync = require "runbook.copier.rsync"
local shell = require "runbook.shell"
local stream = require "runbook.core.stream"
local task = require "runbook.task"
local workers = require "runbook.copier.workers"

local pipe = {}

local LOGINS = 6 -- times that a shard tries to log in

-- $1 what may be asked for, $2 the program, $3 the directory, $4 what the other end asks. The program itself looks at numbers.
local FORCED = [[
set -f;
refuse() { echo "runbook: refused: $1" >&2; exit 64; };
what=$1 program=$2 root=$3;
set -- $4;
[ "$1" = "runbook-$what" ] || refuse "$1";
shift;
for word do
  case $what:$word in
    send:--gently|send:--behind=*|send:--rate=*|send:--quiet=*|send:--threads=*) ;;
    receive:--sync|receive:--owner=*|receive:--most-removed=*|receive:--threads=*) ;;
    *) refuse "$word" ;;
  esac;
done;
exec "$program" "$what" "$root" "$@"]]

--- The only command that the key of a pass may run, on one line.
---@param p table
---@return string?
function pipe.forced(p)
  local kind = p.route.kind
  if kind ~= "pull" and kind ~= "push" then
    return nil
  end
  local what, dir = kind == "pull" and "send" or "receive", kind == "pull" and p.pair.from or p.pair.to
  local program = kind == "pull" and p.programs.from or p.programs.to
  return key.forced("runbook-" .. what, FORCED, { what, program.path, dir.path }, dir.place.sudo)
end

local function send_flags(p)
  local flags = { clocks.flag(p.pair) }
  if not p.settled then
    flags[#flags + 1] = "--gently"
    if p.pair.quiet and p.pair.quiet < math.huge then
      flags[#flags + 1] = ("--quiet=%d"):format(math.max(1, p.pair.quiet * 1e9) // 1)
    end
    if p.pair.rate then
      flags[#flags + 1] = ("--rate=%d"):format(math.max(1, p.pair.rate // p.width))
    end
  end
  return flags
end

local function receive_flags(p)
  -- In a pod nobody could tell later whether its node has crashed since.
  local flags = { (p.settled or p.pair.to.place.backend.fleeting) and "--sync" or nil }
  if p.pair.owner ~= "keep" then
    flags[#flags + 1] = "--owner=" .. p.pair.owner
  end
  return flags
end

local function joined(...)
  local words = {}
  for _, list in ipairs { ... } do
    table.move(list, 1, #list, #words + 1, words)
  end
  return words
end

-- The two halves as lines of shell; the side with the connection runs the one that the key's agent helps.
local function halves(p)
  local from, to = p.pair.from, p.pair.to
  local send = shell.join(joined({ p.programs.from.path, "send", from.path }, send_flags(p)))
  local receive = shell.join(joined({ p.programs.to.path, "receive", to.path }, receive_flags(p)))
  local connect = ("$RUNBOOK_SSH %s %s "):format(rsync.ssh_options(), shell.quote(p.opened.host or ""))
  if p.route.kind == "pull" then
    send = connect .. shell.quote(table.concat(joined({ "runbook-send" }, send_flags(p)), " "))
  elseif p.route.kind == "push" then
    receive = connect .. shell.quote(table.concat(joined({ "runbook-receive" }, receive_flags(p)), " "))
  end
  return send, receive
end

-- The work is a file that nobody else sees, open before it is unlinked: nothing is left of it, whatever happens.
local function script_of(p, file)
  local send, receive = halves(p)
  local path = shell.quote(file)
  return ("LC_ALL=C; export LC_ALL; exec 3<%s && rm -f %s || exit 91; %s <&3 3<&- | %s 3<&-"):format(path, path, send, receive)
end

-- Of the commands between the two ends, in words of theirs.
local function link_failure(p, stderr, status)
  local kind, text = rsync.said(stderr)
  if not kind and stderr:find("runbook%-far: ") then
    local said = stderr:match("runbook%-far: ([^\n]+)")
    kind = command.kind_of(said)
    kind, text = kind ~= "exit" and kind or said:find "cut" and "lost" or "unknown", said
  end
  return errors.new {
    kind = kind or "lost", code = "ESYNC", target = p.pair.to.place.name, status = status, stderr = stderr,
    message = text or "the connection between the servers broke",
  }
end

local function ended(p, shard, sink, stderr, status, failure)
  local outcome, message, code = sink:finish()
  p.meter:follow(shard, sink:status()) -- what it read last was not counted yet
  if not outcome then
    local kind = code == "EFORMAT" and "internal" or errors.kind(code)
    errors.raise { kind = kind, code = code, target = p.pair.to.place.name, message = message }
  elseif outcome.complete and status == 0 then
    return outcome
  end
  return outcome, faults.of_shard(failure or link_failure(p, stderr, status))
end

local function write_work(at, program, shard)
  local file = ("%s/work-%s"):format(program.folder, digest.hex(digest.random(6)))
  at:write(file, shard.bytes, { mode = "600" })
  return file
end

local function run_job(p, shard, sink)
  local at = p.route.kind == "push" and p.pair.from.place or p.pair.to.place
  local file = write_work(at, p.route.kind == "push" and p.programs.from or p.programs.to, shard)
  shard.bytes = nil -- it is large, and there now
  local stderr = ""
  p.jobs = (p.jobs or 0) + 1
  local job = at:job {
    name = ("%s.%d"):format(p.job, p.jobs), argv = p.opened.wrap { "sh", "-c", script_of(p, file) }, stdin = p.opened.stdin, again = true,
    about = ("copy %s from %s:%s to %s"):format(meter.of_units(shard.units), p.pair.from.place.name, p.pair.from.path, p.pair.to.path),
  }
  local how = job:wait { on_data = function(bytes, name)
    if name == "stderr" then
      stderr = (stderr .. bytes):sub(-4096)
      return
    end
    errors.check(p.pair.to.place.name, "read the results", sink:write(bytes))
    p.meter:follow(shard, sink:status())
  end }
  job:forget()
  return stderr, how.status
end

-- Both ends are held by us, and what one says goes to the other. What failed first is why the other did.
local function run_between(p, shard, sink)
  local near, away = stream.pair()
  local failure
  local function run(place, args, input, on_data)
    local ok, err = xpcall(far.carry, errors.handler, place, args, { input = input, on_data = on_data })
    if not ok and errors.is_cancelled(err) then
      error(err, 0)
    elseif not ok then
      failure = failure or err
    end
  end
  task.all {
    function()
      run(p.pair.from.place, joined({ "send", p.pair.from.path }, send_flags(p)), shard.bytes, function(bytes)
        errors.check(p.pair.to.place.name, "pass it on", near:write(bytes))
      end)
      near:close()
    end,
    function()
      run(p.pair.to.place, joined({ "receive", p.pair.to.path }, receive_flags(p)), away, function(bytes)
        errors.check(p.pair.to.place.name, "read the results", sink:write(bytes))
        p.meter:follow(shard, sink:status())
      end)
      away:close()
    end,
  }
  return "", failure and 1 or 0, failure
end

local function run_once(p, shard, through_us)
  local sink <close> = shard:results()
  local run = (through_us or p:way().kind == "operator") and run_between or run_job
  return ended(p, shard, sink, run(p, shard, sink))
end

-- The key of this pass did not open the door: one is tried by itself, as the other end may see us under another address than we
-- thought, and what is wrong is said. Several shards may have found that out.
local function open_again(p, opened)
  while p.opening do
    task.sleep(0.05)
  end
  if p.opened ~= opened then
    return
  end
  p.opening = true
  local ok, result = xpcall(function()
    route.close(opened)
    return route.open(p.pair, p.route, { command = pipe.forced(p), job = p.job })
  end, errors.handler)
  p.opening = nil
  if not ok then
    error(result, 0)
  end
  p.opened = result
end

-- What became of the key with which a shard was carried. True: another one is there, and nothing was done yet.
local function note_door(p, shard, opened, outcome, fault)
  if not fault then
    opened.untried = nil
    p.known.state.doors = { [p.door] = opened.door }
  elseif opened.untried and outcome.unanswered == shard.entries and fault.error.kind == "auth" then
    open_again(p, opened)
    return true
  end
  return false
end

--- Carry a shard; raises when it could not begin. A server that refuses the login has enough for now: it is asked again.
---@async
---@param p table
---@param shard runbook.core.manifest.shard
---@param through_us boolean  whatever the route is
---@return runbook.core.manifest.outcome outcome
---@return runbook.copier.Fault? fault  of all its units
function pipe.run(p, shard, through_us)
  local bytes = shard.bytes
  for try = 1, LOGINS do
    shard.bytes = bytes
    local opened = not through_us and p.opened.remote and p.opened or nil
    local outcome, fault = run_once(p, shard, through_us)
    local another = opened and note_door(p, shard, opened, outcome, fault)
    local refused = fault and outcome.unanswered == shard.entries and workers.was_refused(fault.error.stderr)
    if not (refused or another) or try == LOGINS then
      return outcome, fault
    elseif not another then
      p.most_workers = p.workers:refused(p.workers.width)
      events.notice(("%s refused a login; %d at a time from now on"):format(
        (p:way().kind == "push" and p.pair.to or p.pair.from).place.name, p.most_workers))
      task.sleep(try + math.random())
    end
  end
end

return pipe
