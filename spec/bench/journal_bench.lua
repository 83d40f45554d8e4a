-- What is written down before and after each step, and how soon a long run goes on.

local core = require "runbook.core.task"
local journal = require "runbook.journal"

local TASKS, STEPS = 100, 5000

-- One transaction per row by another program, on the same disk and with the same promise.
local PYTHON = [[
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode=WAL")
db.execute("PRAGMA synchronous=FULL")
db.execute("CREATE TABLE step (id TEXT PRIMARY KEY, state TEXT)")
for i in range(int(sys.argv[2])):
    db.execute("INSERT INTO step VALUES (?, 'done')", (str(i),))
]]

local UNITS = 100000
local MANY = ([[
local rb = require "runbook"
local p = rb.params { { "fail", "boolean", "whether one unit fails", default = true } }
rb.step("many", "A great many units", function()
  local names = {}
  for i = 1, %d do
    names[i] = ("unit-%%06d"):format(i)
  end
  rb.each(names, { limit = 100 }, function(name)
    if p.fail and name == "unit-000001" then
      error "not yet"
    end
  end)
end)
]]):format(UNITS + 1)

local function steps_per_second(folder)
  local j = journal.create(folder .. "/journal.db", { name = "bench", runbook = "bench.lua" })
  local left = STEPS
  local function work()
    while left > 0 do
      local id = "step-" .. left
      left = left - 1
      j:move("unit", id, "start")
      j:commit()
      j:move("unit", id, "finish")
    end
  end
  local tasks = {}
  for i = 1, TASKS do
    tasks[i] = core.spawn(work)
  end
  core.join_all(tasks)
  for _, t in ipairs(tasks) do
    assert(t:result())
  end
  j:commit()
  j:close()
end

return function(bench)
  local world = bench.world
  local folder = world.folder "journal"
  local ours = bench.inside(steps_per_second, folder)
  local rate = STEPS / ours.wall
  ours.name, ours.figure = ("durable steps, %d tasks at once"):format(TASKS), ("%.0f /s"):format(rate)
  ours.goals = { bench.goal("at least 2,000 a second", rate, 2000, { at_least = true, format = "%.0f" }) }
  world.write(folder .. "/one.py", PYTHON)
  local python = bench.command(1, { "python3", folder .. "/one.py", folder .. "/other.db", "1000" })
  python.name, python.figure = "python3 sqlite3, a transaction each", ("%.0f /s"):format(1000 / python.wall)
  python.wall = python.wall * STEPS / 1000
  bench.beside(ours, { python })

  world.write(folder .. "/many.lua", MANY)
  local state = folder .. "/state"
  local first = bench.command(1, { world.runbook, "run", folder .. "/many.lua", "--state", state }, { exit = 1 })
  first.name = ("a run of %d units, the first of which fails"):format(UNITS + 1)
  first.goals = { bench.goal("memory for what is open, not for what is finished", first.rss, 150, { format = "%.0f MB" }) }
  bench.row(first)
  local again = bench.command(1, { world.runbook, "resume", "--state", state, "-p", "fail=false" })
  again.name = ("its resume, %d units finished"):format(UNITS)
  again.goals = { bench.goal("at most 1 s", again.wall, 1, { format = "%.2f s" }) }
  bench.row(again)
end
