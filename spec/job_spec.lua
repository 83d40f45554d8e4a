local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local job = require "runbook.job"
local json = require "runbook.json"
local place = require "runbook.place"
local places = require "spec.support.places"
local process = require "runbook.core.process"
local secret = require "runbook.core.secret"
local task = require "runbook.task"
local world = require "spec.world"

local function raised(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  assert.is_true(errors.is(err), tostring(err))
  return err
end

-- What is not in coreutils or POSIX is not there: no setsid, no perl, no python, no bash.
local minimal_programs = {
  "sh", "base64", "cat", "chmod", "chown", "date", "dd", "df", "dirname", "env", "find", "grep", "head", "id", "ls", "mkdir", "mktemp",
  "mv", "printf", "readlink", "rm", "rmdir", "sed", "seq", "sha256sum", "sleep", "sort", "stat", "sync", "tail", "timeout", "touch", "tr",
  "true", "wc", "kill", "ln",
}

local function minimal()
  local m = world.sshd { name = "minimal", programs = minimal_programs }
  return require("runbook.ssh").host { m.address, port = m.port, user = "root", identity = world.key(), host_key = m.fingerprint }
end

local function without_groups() -- a busybox built without setsid and timeout
  local at = places.kinds[2][2]()
  at:sh [[rm -f "$PATH/setsid" "$PATH/timeout"]]
  return at
end

local kinds = { { "minimal", minimal }, { "no setsid", without_groups }, table.unpack(places.kinds) }

local function collect(handle, o)
  local got = { stdout = {}, stderr = {} }
  local how = handle:wait {
    on_line = function() end,
    on_data = function(bytes, name)
      table.insert(got[name], bytes)
      if o and o.on_data then
        o.on_data(bytes, name)
      end
    end,
  }
  return how, table.concat(got.stdout), table.concat(got.stderr)
end

for _, kind in ipairs(kinds) do
  describe("a job (" .. kind[1] .. ")", function()
    local at

    setup(function() at = kind[2]() end)

    local function start(script, o)
      o = o or {}
      o.name, o.argv = o.name or "spec", { "sh", "-c", script, "sh", table.unpack(o.values or {}) }
      o.values = nil
      return at:job(o)
    end

    it("gives every byte of both outputs and its status", function()
      local j = start "seq 1 20000; seq 1 20000 | sed s/^/e/ >&2; printf '\\0end'; exit 3"
      local how, out, err = collect(j)
      assert.same({ status = 3 }, how)
      local expected = {}
      for i = 1, 20000 do
        expected[i] = tostring(i)
      end
      assert.is_true(out == table.concat(expected, "\n") .. "\n\0end")
      assert.is_true(err == "e" .. table.concat(expected, "\ne") .. "\n")
      local s = j:state()
      assert.same({ "done", 3, #out, #err }, { s.state, s.code, s.stdout, s.stderr })
      j:forget()
      j:forget()
      assert.equal("never", j:state().state)
    end)

    it("shows its lines as they come, also those that a carriage return ends", function()
      local lines = {}
      local unsubscribe = events.subscribe(function(e)
        lines[#lines + 1] = e.type == "output" and e.stream .. ":" .. e.line or nil
      end)
      local j = start [[printf '10%%\r20%%\r\n'; printf 'last']]
      local ok, err = pcall(j.must_succeed, j)
      unsubscribe()
      assert(ok, err)
      assert.same({ "stdout:10%", "stdout:20%", "stdout:last" }, lines)
      j:forget()
    end)

    it("hands arguments on as they are, and env, cwd and stdin", function()
      local odd = { "", "a b", "'", "$HOME", "*", "a\nb", "-n" }
      local j = start([[printf '%s|' "$@"; cat; echo "$RB_A$PWD"]],
        { values = odd, stdin = "in\0put", env = { RB_A = "x" }, cwd = "/" })
      local _, out = collect(j)
      assert.equal(table.concat(odd, "|") .. "|in\0putx/\n", out)
      j:forget()
      j = start "cat; echo end"
      assert.equal("end\n", (select(2, collect(j))))
      j:forget()
    end)

    it("gets a secret by stdin, and leaves it on no disk and in no command line", function()
      local word = secret.new("key", "very-hush-hush\n")
      local j = start([[cat >/dev/null; sleep 1]], { stdin = word })
      local dir = j:state().dir
      assert.equal("", at:query_sh([[grep -rl very-hush "$1" || :]], dir))
      assert.equal("", at:query_sh [[cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' ' ' | grep -o 'very-[h]ush' || :]])
      j:must_succeed()
      j:forget()
    end)

    it("is one job however often it is started at once", function()
      local folder = at:query { "mktemp", "-d", "/tmp/rb-job.XXXXXX" }
      local prefix = ("spec/%d/_/once"):format(world.pid)
      local start_verb = effect.find("place.job").body
      local handles = task.all((function()
        local fns = {}
        for i = 1, 6 do
          fns[i] = function()
            return effect.reading(function()
              return start_verb(at, { name = "once", prefix = prefix, argv = { "sh", "-c", [[echo x >>"$1"/ran; sleep 0.5]], "sh", folder } })
            end)
          end
        end
        return fns
      end)())
      for _, j in ipairs(handles) do
        assert.equal(handles[1].key, j.key)
        assert.equal(0, j:must_succeed())
      end
      assert.equal("x\n", at:read(folder .. "/ran"))
      handles[1]:forget()
      at:remove(folder, { tree = true })
    end)

    it("serves two readers, each with every byte", function()
      local j = start "i=0; while [ $i -lt 300 ]; do echo $i; i=$((i + 1)); if [ $((i % 100)) -eq 0 ]; then sleep 0.3; fi; done"
      local second = job.attach(nil, j:reference())
      local results = task.all {
        function() return select(2, collect(j)) end,
        function() return select(2, collect(second)) end,
      }
      assert.equal(results[1], results[2])
      assert.matches("^0\n1\n.*299\n$", results[1])
      j:forget()
    end)

    it("is stopped with its signal said, and KILL where it ignores TERM", function()
      local j = start "exec sleep 60"
      j:stop()
      assert.same({ status = 143, signal = "TERM" }, (collect(j)))
      j:forget()
      if kind[1] == "no setsid" then
        return -- without a group of its own only the command itself can be ended
      end
      j = start "trap '' TERM; echo begun; sleep 61 & sleep 62; sleep 63"
      world.wait_until("it to begin", function() return j:state().stdout > 0 end)
      j:stop { seconds = 1 }
      assert.same({ status = 137, signal = "KILL" }, (collect(j)))
      assert.equal("", at:query_sh [[cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' ' ' | grep -o 'sleep 6[123]' || :]])
      j:forget()
    end)

    it("is not forgotten while it runs", function()
      local j = start "sleep 2"
      assert.matches("still runs", tostring(raised(j.forget, j)))
      j:stop()
      collect(j)
      j:forget()
    end)

    it("says what failed", function()
      local j = start("echo 'cannot copy: No space left on device' >&2; exit 11", { name = "copy" })
      local err = raised(j.must_succeed, j)
      assert.same({ "full", 11, at.name }, { err.kind, err.status, err.target })
      assert.matches("job copy ended with status 11: cannot copy", err.message)
      assert.equal(11, j:must_succeed { allowed = { 11 } })
      j:forget()
      j = start "exec nonesuch-program"
      assert.equal(127, raised(j.must_succeed, j).status)
      j:forget()
    end)

    it("is lost when its supervisor was killed and it ended unseen, and a number alone does not make it alive", function()
      local j = start "sleep 3"
      local dir = j:state().dir
      local supervisor = at:read(dir .. "/supervisor"):match "%d+"
      at:sh([[kill -KILL "$1"]], supervisor)
      assert.equal("running", j:state().state) -- the command itself still is
      local pid = at:read(dir .. "/pid"):match "%d+"
      at:sh([[kill -KILL "$1"; sleep 0.2]], pid)
      assert.equal("lost", j:state().state)
      local err = raised(j.wait, j)
      assert.equal("lost", err.kind)
      assert.matches("nobody knows how the job", err.message)
      -- Another process gets the number: it is neither believed nor ended.
      local other = at:query_sh [[sleep 30 >/dev/null 2>&1 & echo $!]]
      for _, name in ipairs { "pid", "supervisor" } do
        local rest = at:read(dir .. "/" .. name):match "^%d+( .*)$"
        at:write(dir .. "/" .. name, other .. rest)
      end
      assert.equal("lost", j:state().state)
      j:stop { seconds = 0 }
      at:sh([[kill -0 "$1" && kill "$1"]], other)
      j:forget()
    end)

    it("never began when its starter died before", function()
      local j = start "true"
      collect(j)
      local dir = j:state().dir
      at:sh([[cd "$1" && rm -rf claim supervisor pid exit.* && echo >running && echo "1 2 3" >starter]], dir)
      assert.equal("never", j:state().state)
      assert.equal("never", j:state().state)
      assert.equal("missing", raised(j.wait, j).kind)
      j:forget()
    end)
  end)
end

describe("a job over a bad network", function()
  it("gives every byte once, in order, though the connection is cut again and again", function()
    local m, at = places.machine(), places.by_ssh()
    local j = at:job { name = "count", argv = { "sh", "-c", "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i + 1)); " ..
      "if [ $((i % 200)) -eq 0 ]; then sleep 0.4; fi; done; exit 5" } }
    local cutter = task.spawn(function()
      for _ = 1, 3 do
        task.sleep(0.8)
        m:drop_connections()
      end
    end)
    local n, right = 0, true
    local how = j:wait { on_line = function(line)
      right = right and line == "line " .. n
      n = n + 1
    end }
    cutter:cancel()
    task.join(cutter)
    assert.is_true(right)
    assert.equal(2000, n)
    assert.same({ status = 5 }, how)
    j:forget()
    assert.same({}, job.list(at, j.key:match "^[^/]+"))
  end)

  it("goes on in another process at the byte where this one stopped", function()
    local at = places.by_ssh()
    local j = at:job { name = "handed-over", argv = { "sh", "-c", "seq 1 5000; sleep 1; seq 5001 10000; exit 9" } }
    local first = {}
    local ok = pcall(j.wait, j, { on_line = function() end, on_data = function(bytes)
      first[#first + 1] = bytes
      error "this process has had enough"
    end })
    assert.is_false(ok)
    local script = world.folder "attach" .. "/attach.lua"
    world.write(script, ([[
      local json, job = require "runbook.json", require "runbook.job"
      local how = job.attach(nil, json.decode(%q)):wait { on_line = function() end, on_data = function(bytes) io.stdout:write(bytes) end }
      io.stdout:write("status ", how.status)
    ]]):format(json.encode(j:reference())))
    local rest = world.must(("%s lua %s"):format(world.runbook, script))
    local expected = {}
    for i = 1, 10000 do
      expected[i] = tostring(i)
    end
    assert.is_true(table.concat(first) .. rest == table.concat(expected, "\n") .. "\nstatus 9")
    j:forget()
  end)

  it("leaves no follower behind when nobody listens any more", function()
    local m, at = places.machine(), places.by_ssh()
    local j = at:job { name = "quiet", argv = { "sleep", "30" } }
    local t = task.spawn(function() j:wait() end)
    local function followers()
      local count = 0
      for _, p in ipairs(m:processes()) do
        count = count + (p.command:find("tail -c", 1, true) and 1 or 0)
      end
      return count
    end
    world.wait_until("somebody to follow", function() return followers() > 0 end)
    m:drop_connections()
    t:cancel()
    task.join(t)
    world.wait_until("the follower to go", function() return followers() == 0 end)
    j:stop()
    collect(j)
    j:forget()
  end)

  it("is lost with its machine, and not taken for one that runs there later", function()
    local m = world.sshd { name = "doomed" }
    local at = require("runbook.ssh").host { m.address, port = m.port, user = "root", identity = world.key(), host_key = m.fingerprint }
    local j = at:job { name = "long", argv = { "sh", "-c", "echo begun; sleep 60" } }
    world.wait_until("it to begin", function() return j:state().stdout > 0 end)
    m:crash()
    m:boot()
    assert.equal("lost", j:state().state)
    assert.equal("lost", raised(j.wait, j).kind)
    j:forget()
    assert.equal("never", j:state().state)
    m:close()
  end)
end)

describe("a job on a full disk", function()
  -- This machine with the directory of jobs on a small file system.
  local function on(folder)
    local env = { XDG_STATE_HOME = folder, LC_ALL = "C" }
    local backend = {}
    function backend:open(argv) -- luacheck: no self
      return process.open { argv = argv, env = env }
    end
    function backend:by_hand(argv) -- luacheck: no self
      return table.concat(argv, " ")
    end
    function backend:reference() -- luacheck: no self
      return { kind = "here" }
    end
    return place.new(backend, { name = "small" })
  end

  for _, fs in ipairs { "ext4", "tmpfs" } do
    it("keeps its exit code and says that its output was cut (" .. fs .. ")", function()
      local small <close> = world.filesystem { size = "16M", kind = fs }
      local at = on(small.path)
      local j = at:job { name = "flood", argv = { "sh", "-c", "head -c 1073741824 /dev/zero; echo $? >&2; exit 42" } }
      local bytes, seen = 0, {}
      local unsubscribe = events.subscribe(function(e) seen[#seen + 1] = e.type == "notice" and e.text or nil end)
      local ok, how = pcall(j.wait, j, { on_line = function() end, on_data = function(chunk) bytes = bytes + #chunk end })
      unsubscribe()
      assert(ok, how)
      assert.same({ status = 42, full = true }, how)
      assert.is_true(bytes > 1 << 20 and bytes < 16 << 20)
      assert.matches("no space left for the output of flood", table.concat(seen, "\n"))
      j:forget()
    end)
  end

  it("is refused in words when there is no room to begin", function()
    local small <close> = world.filesystem { size = "1M", kind = "tmpfs" }
    local at = on(small.path)
    small:fill()
    local ok, j = pcall(at.job, at, { name = "none", argv = { "true" } })
    if ok then -- the other directory for jobs had room
      assert.matches("^/var/tmp/", j:state().dir)
      j:wait()
      j:forget()
    else
      assert.equal("full", j.kind)
    end
  end)
end)

describe("jobs of a run", function()
  it("are told apart by step, unit, name and order of the calls", function()
    local here = place.here
    local keys = {}
    task.with_context({ run = "spec one", step = "s/1", unit = ".home" }, function()
      for _ = 1, 2 do
        local j = here:job { name = "x", argv = { "true" } }
        keys[#keys + 1] = j.key
        j:wait()
        j:forget()
      end
    end)
    assert.same({ "spec%20one/s%2F1/%2Ehome/x/1", "spec%20one/s%2F1/%2Ehome/x.2/1" }, keys)
  end)

  it("find what an earlier process started: done is used, failed makes room, lost is asked about", function()
    local here = place.here
    local run = ("spec-%d"):format(world.pid)
    local function again(script, o)
      local j
      task.with_context({ run = run, step = "s" }, function()
        o = o or {}
        o.name, o.argv = "x", { "sh", "-c", script }
        j = here:job(o)
      end)
      return j
    end
    local first = again "exit 3"
    first:wait()
    local second = again "exit 0"
    assert.matches("/x/1$", first.key)
    assert.matches("/x/2$", second.key)
    second:wait()
    local third = again "exit 4" -- finished well before: its result is read, it is not run again
    assert.equal(second.key, third.key)
    assert.equal(0, third:must_succeed())
    -- And one nobody knows the end of.
    second:forget()
    first:forget()
    local lost = again "sleep 30"
    local dir = lost:state().dir
    here:sh([[read -r p rest <"$1"/supervisor; kill -KILL $p; read -r p rest <"$1"/pid; kill -KILL $p]], dir)
    world.wait_until("it to be lost", function() return lost:state().state == "lost" end)
    assert.equal("lost", raised(again, "true").kind)
    local new = again("true", { again = true })
    assert.matches("/x/2$", new.key)
    assert.equal(0, new:must_succeed())
    for _, j in ipairs(job.list(here, run)) do
      j:forget()
    end
    assert.same({}, job.list(here, run))
  end)
end)
