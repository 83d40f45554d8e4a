-- run.lua - the suite: each file of specs in a process of its own, several at a time.
--
--     build/runbook lua spec/run.lua FILE or directory... [busted's options]
--
-- JOBS files run at once, by default as many as there are processors, and one of those that take turns with clusters, two when
-- there are no others left; the longest first: by how long each took the last time, which BUILD/spec.times tells. Those of ALONE
-- follow one by one. Each has a home of its own, and no longer than RUNBOOK_SPEC_FILE_SECONDS (default 1500). What a file printed
-- is shown when it has ended, and only if it failed; one file alone is shown as it goes. The last line is always
-- "N passed, N failed"; a file that crashes or hangs has failed.

local gate = require "runbook.core.gate"
local process = require "runbook.core.process"
local task = require "runbook.task"
local time = require "runbook.core.time"
local world = require "spec.world"

-- Files that hold what they measure against a clock, closely; whatever runs beside them would count.
local ALONE = { ["spec/ssh_core_spec.lua"] = true }

-- What takes longest, where nobody has measured yet: seconds with sanitizers. Of the others, those that start machines.
local SECONDS = {
  move_hub = 450, move_hub_luck = 380, move_hub_homes = 400, copier_claim = 300, copier_same = 70,
  mover_parts = 380, mover_luck = 290, kill_walk = 230, mover = 200, mover_homes = 150, sync = 130, hub_database = 170, job = 105,
  hub_closing = 170, back_plain = 50, hub_merge = 35, place = 72, user_pods = 70, nfs_move = 55, far = 60, manifest_far = 50, ctrl_c = 47,
  hub_pair = 46, far_faults = 45,
  tunnel = 32, bad_luck = 31, world_hub = 30, report_move = 30, cli_run = 30, secrets = 30, oracle = 29, slowfs = 28, world_kube = 24,
  kube = 22, hub_api = 90, active_users = 110, hub_watch = 80,
}

local WIDEST = 300 -- bytes of what a failed test said, where the failed ones are listed
local SLOW = 20 -- seconds after which a file is named at the end
local times_path = world.build .. "/spec.times"
local longest = tonumber(os.getenv "RUNBOOK_SPEC_FILE_SECONDS") or 1500

local function lines_of(text)
  return (text or ""):gmatch "[^\n]+"
end

local function files_and_options()
  local files, options = {}, {}
  for i, word in ipairs(arg) do
    if word:sub(1, 1) == "-" then
      table.move(arg, i, #arg, 1, options)
      break
    end
    local found = select(2, world.sh("test -d " .. world.quote(word))) == 0
    for file in lines_of(found and world.must(("find %s -name '*_spec.lua' | sort"):format(world.quote(word))) or word) do
      files[#files + 1] = file
    end
  end
  return files, options
end

local function times()
  local known = {}
  for line in lines_of(world.read(times_path)) do
    local seconds, file = line:match "^(%S+) (.*)$"
    known[file] = tonumber(seconds)
  end
  return known
end

local function guess(file)
  local text = world.read(file) or ""
  for _, word in ipairs { "world.sshd", "spec.support.lab", "spec.support.walk", "world.kube", "world.moving", "world.bind" } do
    if text:find(word, 1, true) then
      return 20
    end
  end
  return 2
end

local function longest_first(files)
  local known, guessed = times(), {}
  for _, file in ipairs(files) do
    guessed[file] = known[file] or SECONDS[file:match "([^/]*)_spec%.lua$"] or guess(file)
  end
  table.sort(files, function(a, b)
    return guessed[a] == guessed[b] and a < b or guessed[a] > guessed[b]
  end)
end

-- For the next time; a file that failed says nothing of how long it takes.
local function keep_times(results)
  local known, lines = times(), {}
  for _, r in ipairs(results) do
    if r.failed == 0 and r.file:find "^spec/" then
      known[r.file] = r.seconds
    end
  end
  for file, seconds in pairs(known) do
    lines[#lines + 1] = ("%.1f %s\n"):format(seconds, file)
  end
  table.sort(lines)
  world.write(times_path, table.concat(lines))
end

-- What it printed, without its closing line, and the numbers of that. How it ended counts, too: a leak is found after the last test.
local function result_of(file, text, ended, seconds, late)
  local output, passed, failed = text:match "^(.-)(%d+) passed, (%d+) failed\n$"
  local r = { file = file, seconds = seconds, output = output or text, passed = tonumber(passed) or 0, failed = tonumber(failed) or 0 }
  local how = ended.signal and "killed by " .. ended.signal or ("ended with %d"):format(ended.status)
  if late then
    r.failed, r.why = 1, ("no end after %d s"):format(longest)
  elseif not passed then
    r.failed, r.why = 1, how .. " before its last test was over"
  elseif r.failed == 0 and ended.status ~= 0 then
    r.failed, r.why = 1, how .. " after its last test"
  elseif r.failed == 0 and r.passed == 0 then
    r.failed, r.why = 1, "no test in it"
  end
  return r
end

local function start(file, options, log, suite)
  local home = world.folder "home"
  return assert(gate.call("change", process.open, {
    argv = { "sh", "-c", [[exec "$@" >"$0" 2>&1 </dev/null]], log, world.runbook, "lua", "spec/one.lua", file, table.unpack(options) },
    env = { HOME = home, RUNBOOK_SUITE = suite, XDG_CACHE_HOME = os.getenv "XDG_CACHE_HOME" or (os.getenv "HOME" or "/root") .. "/.cache" },
  }))
end

-- Shows what comes into a file as it comes, but for the closing line, which is ours to say.
local function follow(path)
  local shown = 0
  return function()
    local text = (world.read(path) or ""):gsub("%d+ passed, %d+ failed\n$", "")
    io.stdout:write(text:sub(shown + 1))
    io.stdout:flush()
    shown = math.max(shown, #text)
  end
end

local function run_file(file, options, live, suite)
  local began, log, late = time.now(), world.folder "log" .. "/log", false
  local show = live and follow(log) or function() end
  local child <close> = start(file, options, log, suite)
  local watch = task.spawn(function()
    while not late do
      task.sleep(0.2)
      show()
      if time.now() - began > longest then
        late = true
        child:signal "KILL"
      end
    end
  end)
  local ended = assert(child:wait())
  watch:cancel()
  task.join(watch)
  show()
  return result_of(file, world.read(log) or "", ended, time.now() - began, late)
end

local function say(r, live)
  if r.failed > 0 and not live then
    io.stdout:write(("\n== %s\n%s"):format(r.file, r.output))
  end
  if r.why then
    io.stdout:write(r.output:find "[^\n]$" and "\n" or "", ("%s: %s\n"):format(r.file, r.why))
  end
  if not live then
    io.stdout:write(("%4.0f s  %s  %d passed%s\n"):format(r.seconds, r.file, r.passed,
      r.failed > 0 and (", %d FAILED"):format(r.failed) or ""))
  end
  io.stdout:flush()
end

local function run_all(files, options)
  local jobs = math.max(1, math.tointeger(tonumber(os.getenv "JOBS")) or tonumber(world.must "nproc"))
  local results, crowd, turns, alone = {}, {}, {}, {}
  longest_first(files)
  for _, file in ipairs(files) do
    local text = world.read(file) or ""
    local shares = text:find "world%.kube" or text:find "world%.moving"
    table.insert(ALONE[file] and alone or shares and turns or crowd, file)
  end
  local ours, second = world.kube.suite(), nil
  local function run(file, suite)
    local r = run_file(file, options, #files == 1, suite or ours)
    say(r, #files == 1)
    results[#results + 1] = r
  end
  local function work_on(list, suite)
    while #list > 0 do
      run(table.remove(list, 1), suite)
    end
  end
  local workers = { function() work_on(turns) end } -- beside the others: those mostly wait for a cluster
  for _ = 1, jobs do
    workers[#workers + 1] = function()
      work_on(crowd)
      if #turns > 0 and not second then
        second = world.kube.another_suite()
        work_on(turns, second)
      end
    end
  end
  task.all(workers)
  work_on(alone)
  return results
end

-- What failed in a file, a line for each, from what busted's handler prints: "Failure -> file @ line", the test's name, what it said.
local function failures_of(r)
  local found = {}
  for where, name, said in (r.output .. "\n"):gmatch "%f[^\n\0]%u%l+ %-> ([^\n]+)\n([^\n]*)\n([^\n]*)" do
    local line = where:find " @ %d+$" and ("%s: %s"):format(name, said) or where -- a file that does not load has no test
    found[#found + 1] = ("  %s\n"):format(line:sub(1, WIDEST))
  end
  return table.concat(found) .. (r.why and ("  %s\n"):format(r.why) or "")
end

local function closing_lines(results, began)
  local passed, failed, working = 0, 0, 0
  table.sort(results, function(a, b) return a.seconds > b.seconds end)
  io.stdout:write(#results > 1 and "\n" or "")
  for _, r in ipairs(results) do
    passed, failed, working = passed + r.passed, failed + r.failed, working + r.seconds
    if r.seconds >= SLOW then
      io.stdout:write(("%4.0f s  %s\n"):format(r.seconds, r.file))
    end
  end
  for _, r in ipairs(results) do
    if r.failed > 0 then
      io.stdout:write(("failed: %s\n%s"):format(r.file, failures_of(r)))
    end
  end
  if #results > 1 then
    io.stdout:write(("%.0f s for %d files that take %.0f s one after another\n"):format(time.now() - began, #results, working))
  end
  io.stdout:write(("%d passed, %d failed\n"):format(passed, failed))
  io.stdout:flush()
  return failed == 0 and passed > 0 and 0 or 1
end

local began = time.now()
local files, options = files_and_options()
local ok, results = xpcall(run_all, debug.traceback, files, options)
world.stop()
if not ok or #files == 0 then
  io.stdout:write(ok and "no file of specs was named\n" or results .. "\n", "0 passed, 1 failed\n")
  return 1
end
keep_times(results)
return closing_lines(results, began)
