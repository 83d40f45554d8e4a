local binary = (os.getenv "RUNBOOK_BUILD" or "build") .. "/runbook"

-- A parent that holds the other end of the socket; how is what it does when a name has come.
local PARENT = [[
import os, socket, subprocess, sys
how, binary, child = sys.argv[1:4]
ours, theirs = socket.socketpair()
os.set_inheritable(theirs.fileno(), how in ("answer", "leave"))
value = {"garbage": "12x", "closed": "999", "negative": "-1"}.get(how, str(theirs.fileno()))
p = subprocess.Popen([binary, "lua", child], close_fds=False, env=dict(os.environ, RUNBOOK_POINTS=value))
theirs.close()
seen = []
if how in ("answer", "leave"):
    names = ours.makefile("r")
    for name in iter(names.readline, ""):
        seen.append(name.strip())
        if how == "leave":
            ours.shutdown(socket.SHUT_RDWR)
            break
        ours.send(b".")
ours.close()
print(p.wait(), " ".join(seen))
]]

local CHILD = [[
local sqlite, gate, process = require "runbook.core.sqlite", require "runbook.core.gate", require "runbook.core.process"
gate.call("change", function()
  local db = assert(sqlite.open("%s/x", { create = true, journal = true }))
  assert(db:run { "CREATE TABLE t (a)" })
  local r = assert(process.exec { argv = { "sh", "-c", "echo [$RUNBOOK_POINTS]; ls -l /proc/self/fd | grep -c socket: " } })
  io.write(r.stdout)
  assert(db:run { "INSERT INTO t VALUES (1)" })
end)
]]

describe("points", function()
  local directory

  local function walk(how)
    local function write(name, text)
      local file <close> = assert(io.open(directory .. "/" .. name, "w"))
      assert(file:write(text))
    end
    write("parent.py", PARENT)
    write("child.lua", CHILD:format(directory))
    os.remove(directory .. "/x")
    return assert(io.popen(("python3 %s/parent.py %s %s %s/child.lua 2>&1"):format(directory, how, binary, directory))):read "a"
  end

  before_each(function()
    directory = assert(io.popen "mktemp -d"):read "l"
  end)

  after_each(function()
    os.execute("rm -rf " .. directory)
  end)

  it("are told one by one to the parent that asked for them, and to no program we start", function()
    assert.equal("[]\n0\n0 commit committed commit committed\n", walk "answer")
  end)

  it("are passed in silence once the parent has gone", function()
    assert.equal("[]\n0\n0 commit\n", walk "leave")
  end)

  it("do not exist when nobody can be told", function()
    for _, how in ipairs { "garbage", "closed", "negative" } do
      assert.equal("[]\n0\n0 \n", walk(how), how)
    end
  end)
end)
