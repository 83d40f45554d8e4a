-- one.lua - one file of specs: busted inside the binary, inside a task, so that specs may wait. Called by run.lua.
--
--     build/runbook lua spec/one.lua FILE [busted's options]
--
-- After each test no task may be left that was not there before it. A test that takes longer than
-- RUNBOOK_SPEC_SECONDS (default 600) ends the file and shows what every task waits for. The last line
-- is always "N passed, N failed"; a pending test has not passed. When its parent has ended, it ends.

local core = require "runbook.core.task"
local world = require "spec.world"

local longest = tonumber(os.getenv "RUNBOOK_SPEC_SECONDS") or 600
local passed, failed = 0, 0
local running, started -- the name of the present test, and when it began

local function closing_line()
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

local function parent()
  return world.read("/proc/self/stat"):match "%) %a (%d+)"
end

local function watch()
  local mine = parent()
  while true do
    core.sleep(1)
    if parent() ~= mine then
      world.stop()
      os.exit(1)
    end
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
package.preload["spec.one.helper"] = function()
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

table.insert(arg, 1, "--helper=spec.one.helper")
local watcher = core.spawn(watch)
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
