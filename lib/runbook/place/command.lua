--- One command at a place, from argument list to result: what the verbs of places stand on.
---
--- A place has a backend, and a backend has
---
---     backend:open(argv, { change = })    -> a child with stdin() stdout() stderr() wait() close(); or nil, message, code
---
--- (and `give_up()`, if hanging up on a command that does not answer is more than closing it; `put` with `large`, and `get`, if it
--- has a way of its own for files, see kube/files.lua), plus `by_hand(argv)`, the same as a line for a person, and `reference()`. Everything else is here and in place/files.lua.
---
--- A command shows that it lives by what it prints and what it reads. One that does neither for long is said to, and given up
--- in the end: what reads is tried again then, and of a change nobody knows.

local errors = require "runbook.errors"
local events = require "runbook.events"
local handle = require "runbook.handle"
local human = require "runbook.human"
local retry = require "runbook.retry"
local secret = require "runbook.secret"
local shell = require "runbook.shell"
local task = require "runbook.task"
local time = require "runbook.core.time"

local command = {}

command.stalled_after = 300 -- seconds without a byte before we say so
command.given_up_after = 900 -- ... before we hang up, unless the command said otherwise (`stall`)
command.grace = 1 -- seconds that something left in the background may hold the output open

local STDERR_KEPT = 64 * 1024
local CHUNK = 256 * 1024
local FOR_EVER = 1e9

local function class_of(value)
  local mt = debug.getmetatable(value)
  return type(mt) == "table" and mt.__name or nil
end

--- Is this value a secret? It may go to stdin and into files, never into arguments.
function command.is_secret(value)
  return class_of(value) == "runbook.secret"
end

function command.is_stream(value)
  return class_of(value) == "runbook.stream"
end

--- A text joined with a secret holds its name, not its bytes: whoever sends that on meant something else.
---@param text any
---@param where string
---@param level? integer  as for `error`
function command.must_not_name_a_secret(text, where, level)
  local name = type(text) == "string" and text:match "«secret:[^»]*»"
  if name then
    errors.raise({
      kind = "usage", message = ("%s: the text holds the name %s, not the secret"):format(where, name),
      hint = "give the secret by itself, through stdin or to place:write",
    }, (level or 1) + 2)
  end
end

--- The arguments of a command as strings. Handles of steps stand for their results, unknowns of a plan for marked text.
---@param list any[]
---@param where string  whose arguments, for messages
---@return string[]
function command.argv(list, where)
  local argv = {}
  for i, given in ipairs(list) do
    local word = handle.resolve(given)
    if command.is_secret(word) then
      errors.raise({
        kind = "usage", message = ("%s: argument %d is a secret; everybody on that machine can read arguments"):format(where, i),
        hint = "give it through stdin",
      }, 3)
    elseif type(word) == "table" and class_of(word) == nil or type(word) == "function" or type(word) == "boolean" then
      errors.raise({ kind = "usage", message = ("%s: argument %d is a %s"):format(where, i, type(word)) }, 3)
    end
    command.must_not_name_a_secret(word, where, 2)
    argv[i] = math.type(word) == "float" and word == math.floor(word) and ("%d"):format(word) or tostring(word)
  end
  if #argv == 0 then
    errors.raise({ kind = "usage", message = where .. ": no command" }, 3)
  end
  return argv
end

local function sorted_keys(t)
  local keys = {}
  for key in pairs(t) do
    keys[#keys + 1] = key
  end
  table.sort(keys)
  return keys
end

--- The argument list that does it with the place's sudo and the command's env and cwd.
---@param place runbook.Place
---@param argv string[]
---@param o table
---@return string[]
function command.wrap(place, argv, o)
  local words = {}
  if place.sudo then
    words = place.sudo_password and { "sudo", "-S", "-p", "" } or { "sudo", "-n" }
    if type(place.sudo) == "string" then
      table.move({ "-u", place.sudo }, 1, 2, #words + 1, words)
    end
    words[#words + 1] = "--"
  end
  if o.cwd then
    table.move({ "sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", o.cwd }, 1, 5, #words + 1, words)
  end
  if o.env and next(o.env) then
    words[#words + 1] = "env"
    for _, name in ipairs(sorted_keys(o.env)) do
      if not name:find("^[%a_][%w_]*$") then
        errors.raise { kind = "usage", message = "`" .. name .. "` is no name for an environment variable" }
      end
      words[#words + 1] = command.argv({ name .. "=" .. tostring(o.env[name]) }, "env")[1]
    end
  end
  return table.move(argv, 1, #argv, #words + 1, words)
end

local function shortened(text)
  text = text:gsub("%s*\n%s*", "; ")
  return #text > 120 and text:sub(1, 117) .. "..." or text
end

--- A command in a few words, for messages.
---@param argv string[]
---@return string
function command.show(argv)
  if argv[1] == "sh" and argv[2] == "-c" and argv[3] then
    return shortened("sh: " .. argv[3]:gsub("^%s+", ""):gsub("%s+$", ""))
  end
  return shortened(shell.join(argv))
end

local function last_line(text)
  return text:match("([^\n]+)%s*$")
end

-- What the system says in the C locale, and what that means.
local words_of_system = {
  { "No such file or directory", "missing" }, { "Permission denied", "refused" }, { "Operation not permitted", "refused" },
  { "Read%-only file system", "refused" }, { "No space left on device", "full" }, { "Disk quota exceeded", "full" },
  { "File too large", "full" }, { "Is a directory", "conflict" }, { "Not a directory", "conflict" }, { "File exists", "conflict" },
  { "Directory not empty", "conflict" }, { "Device or resource busy", "busy" }, { "Text file busy", "busy" },
  { "Input/output error", "unknown" }, { "Stale file handle", "unknown" },
}

--- The kind of error that a program's last words mean; `exit` when they mean nothing to us.
---@param stderr string
---@return string
function command.kind_of(stderr)
  for _, row in ipairs(words_of_system) do
    if stderr:find(row[1]) then
      return row[2]
    end
  end
  return "exit"
end

--- Raise for a command that did not end well.
---@param place runbook.Place
---@param argv string[]
---@param r table  the result
---@param o? { by_words?: boolean, message?: string, hint?: string }  by_words: the kind from what stderr says
function command.fail(place, argv, r, o)
  o = o or {}
  local how = r.signal and "was ended by signal " .. r.signal or "ended with status " .. tostring(r.status)
  local said = last_line(r.stderr or "")
  local message = o.message or ("`%s` %s"):format(command.show(argv), how)
  local hint = o.hint
  if r.status == 127 and not o.message then
    message = ("there is no `%s`"):format(argv[1])
    hint = hint or "install it there, or correct its name"
  end
  errors.raise({
    kind = o.by_words and command.kind_of(r.stderr or "") or "exit",
    target = place.name, tried = place:by_hand(argv), status = r.status, signal = r.signal,
    stderr = (r.stderr or ""):sub(-STDERR_KEPT), hint = hint,
    message = said and message .. ": " .. said or message,
  }, 3)
end

-- sudo's own refusals look like the command's status 1.
local function check_sudo(place, r)
  if place.sudo and r.status == 1 then
    local said = (r.stderr or ""):match("^sudo: [^\n]*password[^\n]*") or (r.stderr or ""):match("[^\n]* is not in the sudoers file[^\n]*")
    if said then
      errors.raise {
        kind = "auth", target = place.name, message = said, stderr = r.stderr,
        hint = "let the user run sudo without a password there, or give `sudo_password`",
      }
    end
  end
  return r
end

local function raise_world(place, argv, message, code)
  errors.raise({
    kind = errors.kind(code), code = code, target = place.name, tried = place:by_hand(argv), message = message,
    hint = code == "ESTALLED" and "if it may be silent that long, say so: `stall = 7200`, seconds; or `stall = false`" or nil,
  }, 3)
end

local function is_pieces(input)
  return type(input) == "table" and getmetatable(input) == nil
end

-- What it takes is a sign of life, too. A secret has no length to Lua and goes in one piece, as does a short text.
local function write_bytes(stdin, bytes, seen)
  if command.is_secret(bytes) then
    stdin:write(bytes)
    return
  end
  for from = 1, #bytes, CHUNK do
    if not stdin:write(from == 1 and #bytes <= CHUNK and bytes or bytes:sub(from, from + CHUNK - 1)) then
      return
    end
    seen.last = time.now()
  end
end

local function write_stream(stdin, input, seen)
  while true do
    local chunk, message, code = input:read(CHUNK)
    if code then -- what broke off must not look like the end of it
      errors.raise { kind = errors.kind(code), code = code, message = "its input broke off: " .. message }
    elseif not chunk or not stdin:write(chunk) then
      return
    end
    seen.last = time.now()
  end
end

local function write_input(stdin, input, seen)
  for _, piece in ipairs(is_pieces(input) and input or { input }) do
    if command.is_stream(piece) then
      write_stream(stdin, piece, seen)
    else
      write_bytes(stdin, piece, seen)
    end
  end
end

-- Feeds a child: sudo's password first, then what the command reads. A failure ends the child.
local function feed(place, child, o, seen)
  local ok, err = pcall(function()
    local stdin <close> = child:stdin()
    if place.sudo and place.sudo_password then
      secret.ready_all(place.sudo_password)
      stdin:write(place.sudo_password)
      stdin:write("\n")
    end
    write_input(stdin, o.stdin, seen)
    if o.hold then
      task.sleep(FOR_EVER)
    end
  end)
  if not ok and not seen.over then -- else nobody wants it any more, and what it met is no failure
    child:close()
    error(err, 0)
  end
end

local function tail(text, more)
  text = text .. more
  return #text > 2 * STDERR_KEPT and text:sub(-STDERR_KEPT) or text
end

-- Waits for the readers, but not for ever: a daemon the command left behind may hold its output open.
local function wait_for_readers(readers, seen)
  local ended = time.now()
  local function all_done()
    for _, reader in ipairs(readers) do
      if not reader:done() then
        return false
      end
    end
    return true
  end
  local pause = 0 -- most have ended already, or will in this turn
  while not all_done() and time.now() - math.max(ended, seen.last) < command.grace do
    task.sleep(pause)
    pause = math.min(0.02, pause + 0.001)
  end
end

local function say_quiet(place, what, seen, quiet)
  events.emit {
    type = "notice", target = place.name,
    text = ("%s: `%s` has said nothing for %s%s"):format(place.name, what, human.duration(quiet),
      seen.line and "; its last line: " .. seen.line or ""),
  }
end

-- Says when nothing was heard for long, and hangs up when it was for too long.
local function watch_for_stall(place, child, o, seen)
  local patience = o.stall == false and math.huge or o.stall or command.given_up_after
  local said = seen.last
  while true do
    local now = time.now()
    local quiet = now - seen.last
    if quiet >= patience then
      seen.stalled = patience;
      (child.give_up or child.close)(child)
      return
    end
    said = math.max(said, seen.last)
    if now - said >= command.stalled_after then
      say_quiet(place, o.what, seen, quiet)
      said = now
    end
    task.sleep(math.min(said + command.stalled_after, seen.last + patience) - now)
  end
end

local canceller = { __close = function(list)
  for _, t in ipairs(list) do
    t:cancel()
  end
end }

-- On the usual way out they have ended, too: a reader that still had bytes in hand must not hand them on later.
local function stop_tasks(tasks)
  canceller.__close(tasks)
  for _, t in ipairs(tasks) do
    task.join(t)
  end
end

-- Who takes the output has had enough, perhaps before anything was fed to the child.
local function give_up(seen)
  seen.over = true
  seen.child:close()
end

-- Who takes the output may fail at it; a command that nobody listens to any more is not waited for.
local function reading(read, from, seen)
  local ok, err = xpcall(read, errors.handler, from, seen)
  if not ok then
    give_up(seen)
    error(err, 0)
  end
end

--- Run a command with a task at each of its streams; the readers note in `seen` when they heard something.
---@param place runbook.Place
---@param argv string[]  as it is run there
---@param o { stdin?: any, hold?: boolean, change?: boolean, stall?: number|false, what: string }  hold: its stdin stays open
---   until it ends; stall: seconds of silence before it is given up, false: it never is
---@param read_out async fun(from: runbook.stream, seen: table)
---@param read_err async fun(from: runbook.stream, seen: table)
---@return { status?: integer, signal?: string }? how
---@return string? message
---@return string? code
function command.converse(place, argv, o, read_out, read_err)
  local opened, message, code = place.backend:open(argv, { change = o.change })
  if not opened then
    return nil, message, code
  end
  local child <close> = opened
  local seen = { last = time.now(), child = child }
  local tasks <close> = setmetatable({
    task.spawn(reading, read_out, child:stdout(), seen), task.spawn(reading, read_err, child:stderr(), seen),
    task.spawn(feed, place, child, o, seen), task.spawn(watch_for_stall, place, child, o, seen),
  }, canceller)
  local how
  how, message, code = child:wait()
  if how then
    wait_for_readers({ tasks[1], tasks[2] }, seen)
  end
  stop_tasks(tasks)
  if not how and seen.stalled then
    return nil, ("`%s` said nothing for %s and was given up%s"):format(o.what, human.duration(seen.stalled),
      o.change and "; nobody knows what it did" or ""), "ESTALLED"
  end
  for i = 3, 1, -1 do -- a source that failed is the reason for what the others saw
    local ok, failure = tasks[i]:result()
    if not ok and not errors.is_cancelled(failure) then
      error(failure, 0)
    end
  end
  return how, message, code
end

-- The output of a command line by line, as it comes.
local function run_live(place, argv, o)
  local stderr = ""
  local function reader(name)
    return function(from, seen)
      for line in function() return from:line() end do
        seen.last, seen.line = time.now(), line
        if name == "stderr" then
          stderr = tail(stderr, line .. "\n")
        end
        o.on_line(line, name)
      end
    end
  end
  local how, message, code = command.converse(place, argv, o, reader "stdout", reader "stderr")
  if not how then
    return nil, message, code
  end
  return { status = how.status, signal = how.signal, stdout = "", stderr = stderr }
end

-- All of its output, up to a limit; what prints more is ended.
local function collect(place, argv, o)
  local limit, out, length, stderr = o.limit or 8 << 20, {}, 0, ""
  local how, message, code = command.converse(place, argv, o, function(from, seen)
    for chunk in function() return from:read(CHUNK) end do
      seen.last, length = time.now(), length + #chunk
      if length > limit then
        give_up(seen)
        return
      end
      out[#out + 1] = chunk
    end
  end, function(from, seen)
    for chunk in function() return from:read(CHUNK) end do
      seen.last, stderr = time.now(), tail(stderr, chunk)
    end
  end)
  if length > limit then
    return nil, "its output is longer than can be kept in memory; send it to a file or a stream", "ELIMIT"
  elseif not how then
    return nil, message, code
  end
  return { status = how.status, signal = how.signal, stdout = table.concat(out), stderr = stderr:sub(-STDERR_KEPT) }
end

local function emit_output(place)
  return function(line, stream)
    events.emit { type = "output", target = place.name, stream = stream, line = line }
  end
end

local function once(place, words, argv, o)
  local given = {
    stdin = o.stdin, change = o.change, what = command.show(argv), on_line = o.on_line or emit_output(place), limit = o.limit,
    stall = o.stall,
  }
  return (o.live and run_live or collect)(place, words, given)
end

--- Run a command and say how it ended, whatever that was. Raises only when nobody knows.
---@async
---@param place runbook.Place
---@param argv string[]
---@param o { stdin?: string|runbook.secret|runbook.stream|any[], timeout?: number, stall?: number|false, env?: table, cwd?: string, limit?: integer,
---   change?: boolean, live?: boolean, on_line?: fun(line: string, stream: string) }  change: it may not be sent twice
---@return { status?: integer, signal?: string, stdout: string, stderr: string }
function command.run(place, argv, o)
  local words = command.wrap(place, argv, o)
  local what = ("%s: `%s`"):format(place.name, command.show(argv))

  local function try()
    local r, message, code = once(place, words, argv, o)
    if not r then
      raise_world(place, argv, message, code)
    end
    return check_sudo(place, r)
  end

  return task.timeout(o.timeout, what, function()
    return retry.call({
      target = place.name, what = "trying", reads = not o.change and not o.live,
      tries = command.is_stream(o.stdin) and 1 -- a stream was read from and cannot be given again
        or place.backend.tries and place.backend:tries(),
    }, try)
  end)
end

--- Run a shell script there, its values as $1, $2, …; raises unless it ends well.
---@async
---@param place runbook.Place
---@param script string
---@param values string[]
---@param o? table  as for run, and `message`, `hint` for the error
---@return string stdout
---@return string stderr
function command.script(place, script, values, o)
  o = o or {}
  local argv = table.move(values, 1, #values, 5, { "sh", "-c", script, "sh" })
  local r = command.run(place, argv, o)
  if r.status ~= 0 then
    command.fail(place, argv, r, { by_words = true, message = o.message, hint = o.hint })
  end
  return r.stdout, r.stderr
end

return command
