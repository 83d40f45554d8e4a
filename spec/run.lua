-- run.lua - busted inside the binary, inside a task, so that specs may wait.
--
--     build/runbook lua spec/run.lua [busted's options] [FILE or directory]...
--
-- After each test no task may be left that was not there before it. A test that takes longer than
-- RUNBOOK_SPEC_SECONDS (default 300) ends the suite and shows what every task waits for. The last line
-- is always "N passed, N failed"; a pending test has not passed.

local core = require "runbook.core.task"
local world = require "spec.world"

local longest = tonumber(os.getenv "RUNBOOK_SPEC_SECONDS") or 300
local passed, failed = 0, 0
local running, started -- the name of the present test, and when it began
local slow = {} -- files that took long, for whoever wonders where the time goes

local function closing_line()
  io.stdout:write(table.concat(slow))
  io.stdout:write(("%d passed, %d failed\n"):format(passed, failed))
  io.stdout:flush()
end

local function full_name(busted, element)
  local names = {}
  while element and element.descriptor ~= "suite" do
    table.insert(names, 1, element.name or element.descriptor)
    element = busted.parent(element)
  end
  return table.concat(names, " ")
end

local function describe_tasks(tasks)
  local lines = {}
  for _, t in ipairs(tasks) do
    lines[#lines + 1] = ("task %d waits for %s\n%s"):format(t.serial, t.waits, t.trace or "(this one)")
  end
  return table.concat(lines, "\n")
end

local function watch_for_hangs()
  while true do
    core.sleep(1)
    if running and os.time() - started > longest then
      io.stderr:write(("%s: no end after %d s\n%s\n"):format(running, longest, describe_tasks(core.list())))
      failed = failed + 1
      world.stop()
      closing_line()
      os.exit(1)
    end
  end
end

--- Tasks that live now and are not among `known`; those that are just ending get a second to do so.
local function strangers(known)
  local tries = 0
  while true do
    local found = {}
    for _, t in ipairs(core.list()) do
      if not t.self and not known[t.serial] then
        found[#found + 1] = t
      end
    end
    if #found == 0 or tries == 100 then
      return found
    end
    tries = tries + 1
    core.sleep(0.01)
  end
end

-- What busted loads as its helper: it may subscribe only once its runner has begun.
package.preload["spec.run.helper"] = function()
  local busted = require "busted"
  local known, latest, latest_passed

  busted.subscribe({ "test", "start" }, function(element)
    latest = full_name(busted, element)
    running, started = latest, os.time()
    return nil, true
  end)
  busted.subscribe({ "test", "end" }, function(_, _, status)
    running = nil
    latest_passed = status == "success"
    if latest_passed then
      passed = passed + 1
    else
      failed = failed + 1
    end
    return nil, true
  end)
  local file_began
  busted.subscribe({ "file", "start" }, function()
    file_began = os.time()
    return nil, true
  end)
  busted.subscribe({ "file", "end" }, function(file)
    local seconds = os.time() - file_began
    if seconds >= 20 then
      slow[#slow + 1] = ("%4d s  %s\n"):format(seconds, file.name)
    end
    return nil, true
  end)
  for _, event in ipairs { "error", "failure" } do -- those outside of any test; its own end with "test", "end"
    busted.subscribe({ event }, function(element)
      if element.descriptor ~= "it" then
        failed = failed + 1
      end
      return nil, true
    end)
  end

  busted.before_each(function()
    known, latest_passed = {}, false
    for _, t in ipairs(core.list()) do
      known[t.serial] = true
    end
  end)
  busted.after_each(function()
    local left = strangers(known)
    if #left > 0 then
      passed = latest_passed and passed - 1 or passed
      error(("%s: tasks were left behind:\n%s"):format(latest, describe_tasks(left)), 0)
    end
  end)
  return true
end

-- busted leaves by os.exit; here the world has to be taken down first.
local leaving = setmetatable({}, { __tostring = function() return "busted leaves" end })
require("busted.compatibility").exit = function(code)
  if code ~= 0 and failed == 0 then
    failed = 1 -- before any test could run: it has said why
  end
  error(leaving, 0)
end

table.insert(arg, 1, "--helper=spec.run.helper")
local watcher = core.spawn(watch_for_hangs)
local ok, err = xpcall(require "busted.runner", function(e)
  return e == leaving and e or debug.traceback(tostring(e))
end, { standalone = false })
watcher:cancel()
world.stop()
if not ok and err ~= leaving then
  io.stderr:write(err, "\n")
  failed = failed + 1
end
closing_line()
return failed > 0 and 1 or 0
