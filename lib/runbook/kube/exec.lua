--- Commands in containers.
---
--- The protocol cannot be relied on for three things, so a small script in front of the command sees to them: stdin ends where
--- pieces with their lengths say so (v4 cannot say it), the output ends at a mark (else one that broke off looks complete, and
--- a container that stops at once loses its tail), and a long command line does not become part of a URL. It needs `sh` and
--- `dd`. How the command ended is in the Status; a connection that ends without one is lost, and never success.

local channels = require "runbook.kube.channels"
local digest = require "runbook.core.digest"
local errors = require "runbook.errors"
local shell = require "runbook.shell"

local exec = {}

local LONGEST_IN_URL = 3000 -- bytes of arguments; proxies between us and the server have limits of 8 KiB
local LONGEST = 1 << 20 -- of a command line: what goes as one piece

-- $1 the mark, then the command; without one it is the first piece of stdin. The left side of the pipe says who it is, then hands
-- stdin on without lengths; when the command is over, nobody waits for more of it.
local WRAPPER = [[
LC_ALL=C; export LC_ALL
mark=$1; shift
command -v dd >/dev/null || { echo 'runbook: the image has no `dd`' >&2; exit 126; }
if [ $# = 0 ]; then
  read -r n
  line=$(dd bs="$n" count=1 iflag=fullblock 2>/dev/null; echo .)
  eval "set -- ${line%.}"
fi
sh -c 'echo $$; while read -r n && [ "$n" -gt 0 ]; do dd bs="$n" count=1 iflag=fullblock 2>/dev/null || exit; done' | {
  read -r feeder
  (exec "$@")
  status=$?
  kill -PIPE "$feeder" 2>/dev/null # of the others some shells speak
  printf '%s\n' "$mark"
  printf '%s%s\n' "$mark" "$status" >&2
  exit "$status"
}]]

local function path_of(at, what)
  return ("/api/v1/namespaces/%s/pods/%s/%s"):format(at.namespace, at.pod, what)
end

---@class runbook.kube.Target
---@field cluster runbook.Cluster
---@field namespace string
---@field pod string
---@field container? string

--- What a person would type.
---@param at runbook.kube.Target
---@param argv string[]
---@param o? { stdin?: boolean }
---@return string
function exec.by_hand(at, argv, o)
  local words = { "-n", at.namespace, "exec" }
  if o and o.stdin then
    words[#words + 1] = "-i"
  end
  words[#words + 1] = at.pod
  if at.container then
    table.move({ "-c", at.container }, 1, 2, #words + 1, words)
  end
  words[#words + 1] = "--"
  return at.cluster:by_hand(table.move(argv, 1, #argv, #words + 1, words))
end

-- ---- a command as it is ----

---@class runbook.kube.Child
local Child = {}
Child.__index = Child

function Child:stdin() return self.input end
function Child:stdout() return self.output end
function Child:stderr() return self.errors end

--- What a Status says that is no exit code: the command was never run.
local function not_run(said)
  local message = type(said.message) == "string" and said.message or "the server does not say why"
  if message:find 'exec: "[^"]*": executable file not found' or message:find 'exec: "[^"]*": stat [^:]*: no such file' then
    return nil, message, "ENOEXEC"
  end
  return nil, "the command could not be run: " .. message, "EPROTO"
end

-- What the server's Status says; nil, message, code when it is no exit code.
local function by_status(self)
  if self.closed then
    return nil, "it was given up", "ECLOSED"
  end
  local said, why = channels.status(self.said)
  if not said then
    return nil, (why or "the connection ended") .. ", and nobody knows how the command ended", "ELOST"
  end
  local code = channels.exit_code(said)
  if not code then
    return not_run(said)
  end
  return code
end

-- All of a few bytes, if their end comes.
local function whole(from)
  local text = ""
  while true do
    local bytes, _, code = from:read()
    if not bytes then
      return not code and text or nil
    end
    text = text .. bytes
  end
end

-- What stands behind both marks: then the output is whole, too.
local function by_marks(self)
  local code = whole(self.after_errors)
  if code and whole(self.after_output) then
    return math.tointeger(tonumber(code))
  end
end

--- How it ended; nil, message, code when nobody knows.
---@async
---@return { status?: integer, signal?: string }? how
---@return string? message
---@return string? code
function Child:wait()
  if self.after_errors == nil then
    local status, message, code = by_status(self)
    return status and { status = status } or nil, message, code
  end
  local status = by_marks(self)
  if status then
    local signal = shell.signal_of(status)
    return { status = not signal and status or nil, signal = signal }
  end
  local ended, message, code = by_status(self)
  if ended then
    return nil, "the end of its output was lost", "ELOST"
  end
  return nil, message, code
end

function Child:close()
  self.closed = true
  for _, one in ipairs(self.all) do
    one:close()
  end
end

Child.__close = Child.close

-- Streams are made at once, before anything can come.
local function child_of(ws, mark)
  local child = setmetatable({ all = { ws } }, Child)
  local function stream(o)
    child.all[#child.all + 1] = ws:stream(o)
    return child.all[#child.all]
  end
  child.input = stream {
    write = channels.STDIN, sized = mark ~= nil,
    finish = mark and "\0" .. "0\n" or channels.end_of_stdin(ws), -- of the pieces, whatever the protocol can
  }
  child.output = stream { read = channels.STDOUT, mark = mark }
  child.errors = stream { read = channels.STDERR, mark = mark }
  child.said = stream { read = channels.STATUS }
  if mark then
    child.after_output = stream { read = channels.STDOUT, mark = "\n" }
    child.after_errors = stream { read = channels.STDERR, mark = "\n" }
  end
  return child
end

local function open(at, argv, o)
  return channels.open(at.cluster, {
    path = path_of(at, "exec"), reads = o.reads, v4 = o.v4,
    query = { command = argv, container = at.container, stdin = "true", stdout = "true", stderr = "true" },
  })
end

--- Run a command as it is, with nothing in front of it: its stdin can be ended with v5 only.
---@async
---@param at runbook.kube.Target
---@param argv string[]
---@param o? { reads?: boolean, v4?: boolean }
---@return runbook.kube.Child
function exec.bare(at, argv, o)
  o = o or {}
  return child_of(open(at, argv, o))
end

--- The same, as one stream to its stdin and from its stdout: when it ends, the stream does, and all is over when the stream is
--- closed. For commands that are a way to somewhere.
---@async
---@param at runbook.kube.Target
---@param argv string[]
---@return runbook.stream stream
---@return runbook.stream stderr
function exec.duplex(at, argv)
  local ws <close> = open(at, argv, { reads = true }) -- whether what goes through it changes anything is not ours to know
  return ws:stream { read = channels.STDOUT, write = channels.STDIN, finish = channels.end_of_stdin(ws), main = true },
    ws:stream { read = channels.STDERR }
end

-- ---- a command whose ends are known ----

local function length_of(argv)
  local n = 0
  for _, word in ipairs(argv) do
    n = n + #word * 2 -- about what is left of it in a URL
  end
  return n
end

--- Run a command so that neither end of its input nor of its output can be mistaken.
---@async
---@param at runbook.kube.Target
---@param argv string[]
---@param o? { reads?: boolean, v4?: boolean }
---@return runbook.kube.Child
function exec.open(at, argv, o)
  o = o or {}
  local mark = "runbook:end:" .. digest.hex(digest.random(16))
  local words = { "sh", "-c", WRAPPER, "sh", mark }
  local line
  if length_of(argv) <= LONGEST_IN_URL then
    table.move(argv, 1, #argv, #words + 1, words)
  else
    line = shell.join(argv)
    if #line > LONGEST then
      errors.raise { kind = "limit", target = at.pod, message = "the command line is longer than 1 MiB; give it through stdin" }
    end
  end
  local child = child_of(open(at, words, o), mark)
  local ok, message, code = true, nil, nil
  if line then
    ok, message, code = child.input:write(line)
  end
  if not ok then
    child:close()
    return nil, message, code
  end
  return child
end

-- ---- attach ----

--- Look at, and speak to, the program that a container runs.
---@async
---@param at runbook.kube.Target
---@param o? { stdin?: boolean, reads?: boolean }
---@return runbook.kube.Child
function exec.attach(at, o)
  o = o or {}
  local ws = channels.open(at.cluster, {
    path = path_of(at, "attach"), reads = o.reads,
    query = { container = at.container, stdin = o.stdin and "true" or nil, stdout = "true", stderr = "true" },
  })
  return child_of(ws)
end

return exec
