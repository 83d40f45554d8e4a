-- Copies of homes, beside the tools people use for that. Whole it takes an hour; a part of it:
--
--     make bench SPEC=spec/bench/sync_bench.lua ROWS=small,big SCALE=0.05 TOOLS=rsync,fpsync
--
-- ROWS of: small slow big million delay reader forecast. SCALE: the share of the sizes in README's table (a ratio at a small
-- scale is no figure for the table). TOOLS of: rsync fpsync tar scp rclone.

local contest = require "spec.bench.contest"
local task = require "runbook.core.task"

local function set_of(text)
  local set = {}
  for word in (text or ""):gmatch "[^%s,]+" do
    set[word] = true
  end
  return next(set) and set or nil
end

local SCALE = tonumber(os.getenv "SCALE" or "") or 1
local ROWS, TOOLS = set_of(os.getenv "ROWS"), set_of(os.getenv "TOOLS")

local function scaled(count)
  return math.max(1, math.floor(count * SCALE))
end

-- A pass of ours and what the others took for it; goals are ratios to `fastest` or to a tool by name.
local function compare(bench, name, run, others, goals)
  local ok, ours = pcall(run)
  if not ok then
    bench.row { name = name, figure = "failed", goals = { { what = "works", seen = tostring(ours):match "[^\n]*", met = false } } }
    return nil
  end
  local best = {}
  for _, other in ipairs(others) do
    if not other.failed then
      best[other.name] = other.wall
      best.fastest = math.min(best.fastest or math.huge, other.wall)
    end
  end
  local met = {}
  for _, goal in ipairs(goals) do
    local beside = best[goal[1]]
    met[#met + 1] = beside and bench.goal(("at least %gx %s"):format(goal[2], goal[1]), beside / ours.wall, goal[2],
      { at_least = true, format = "%.2fx" }) or nil
  end
  ours.name, ours.figure = name, ("%.2f s"):format(ours.wall)
  ours.beside = ("far side %.0f MB"):format(ours.far)
  if ours.judged then
    met[#met + 1] = { what = "identical, says the oracle", seen = ours.judged, met = ours.judged == "equal" }
  end
  ours.goals = met
  ours.steps = nil
  bench.row(ours)
  for _, other in ipairs(others) do
    other.figure = other.failed and "failed" or ("%.2f s"):format(other.wall)
    other.beside = other.failed or ("ours is %.2fx as fast; %s"):format(other.wall / ours.wall, other.judged or "")
    other.name = "  " .. other.name
    bench.row(other)
  end
  return ours
end

-- One pass by everybody.
local function pass(c, name, which, step, goals, judge)
  local others = {}
  for _, tool in ipairs(c.tools) do
    local cost = c:theirs(tool, which)
    if cost then
      cost.judged = judge and not cost.failed and c:judge(tool.name) or nil
      others[#others + 1] = cost
    end
  end
  return compare(c.bench, name, function()
    local cost = c:ours(step)
    cost.judged = judge and c:judge "ours" or nil
    return cost
  end, others, goals)
end

local function homes(bench, o)
  local label = ("%d files in 64 homes%s"):format(o.files, o.slow and ", 1 ms a call" or "")
  local c <close> = contest.open(bench, { slow = o.slow, tools = o.tools })
  bench.world.grow("many", c:source(), { files = o.files })
  if not pass(c, "bulk, " .. label, "first", "bulk", o.first, true) then
    return
  end
  pass(c, "second pass, nothing changed", "again", "second", o.again)
  c:ours "converge" -- so that the next step is the final pass alone
  bench.world.mutate(c:source(), { percent = 0.1, delete = true, rename = true, seed = 7 })
  pass(c, "final pass, 0.1 % changed", "final", "final", o.final, true)
  local ok, proof = pcall(c.ours, c, "verify")
  bench.row { name = "verify", figure = ok and ("%.2f s"):format(proof.wall) or "failed", wall = ok and proof.wall or nil,
    cpu = ok and proof.cpu or nil, goals = not ok and { { what = "works", seen = tostring(proof):match "[^\n]*", met = false } } or nil }
end

local rows = {}

function rows.small(bench)
  homes(bench, {
    files = scaled(200000), tools = TOOLS, first = { { "fastest", 1 } }, again = { { "rsync", 5 } }, final = { { "rsync", 4 } },
  })
end

-- A tenth of the files: one rsync takes ten minutes for them.
function rows.slow(bench)
  homes(bench, {
    files = scaled(20000), slow = true, tools = TOOLS or { rsync = true, fpsync = true },
    first = { { "rsync", 3 }, { "fpsync", 1.2 } }, again = { { "rsync", 10 } }, final = { { "rsync", 8 }, { "fpsync", 1.5 } },
  })
end

-- Each copy is removed before the next one, or the cache would hold neither.
function rows.big(bench)
  local c <close> = contest.open(bench, { tools = TOOLS })
  local bytes = math.max(1000000, scaled(200000000))
  bench.world.grow("big", c:source(), { bytes = bytes })
  local others = {}
  for _, tool in ipairs(c.tools) do
    local cost = c:theirs(tool, "first")
    cost.judged = not cost.failed and c:judge(tool.name) or nil
    bench.world.must("rm -rf " .. bench.world.quote(c:target(tool.name)))
    others[#others + 1] = cost
  end
  compare(bench, ("bulk, 20 files of %.0f MB"):format(bytes / 1e6), function()
    local cost = c:ours "bulk"
    cost.judged = c:judge "ours"
    return cost
  end, others, { { "fastest", 0.95 } })
end

function rows.million(bench)
  local c <close> = contest.open(bench, { tools = { rsync = true } })
  local files = scaled(1000000)
  bench.world.grow("million", c:source(), { files = files })
  local ours = pass(c, ("bulk, one home with %d files"):format(files), "first", "bulk", { { "rsync", 1 } }, true)
  if ours then
    bench.row { name = "  memory of it", figure = "", goals = {
      bench.goal("at most 100 MB on the operator's side", ours.rss, 100, { format = "%.0f MB" }),
      bench.goal("at most 300 MB on a far side", ours.far, 300, { format = "%.0f MB" }),
    } }
  end
end

-- Ours alone: how much longer with 50 ms there and back than without. Each process begins with logins; in a move the final pass is
-- made by the process that converged, which has its connections, so that is a row of its own.
function rows.delay(bench)
  local walls, files = {}, scaled(50000)
  for _, delay in ipairs { 0, 0.025 } do
    local c <close> = contest.open(bench, { delay = delay > 0 and delay or nil, tools = {} })
    bench.world.grow("many", c:source(), { files = files })
    local bulk = c:ours "bulk"
    c:ours "converge"
    bench.world.mutate(c:source(), { delete = true, rename = true, seed = 8 })
    local final = c:ours "final"
    local people = ("python3 spec/world/trees.py mutate %s --seed 9 --delete --rename"):format(bench.world.quote(c:source()))
    walls[#walls + 1] = { ["bulk"] = bulk.wall, ["final, new process"] = final.wall, judged = c:judge "ours",
      ["final, same process"] = c:ours("final", 2, people).steps.seconds.final }
  end
  for _, which in ipairs { "bulk", "final, new process", "final, same process" } do
    local near, far = walls[1][which], walls[2][which]
    bench.row { name = ("%s, %d files, 50 ms"):format(which, files), figure = ("%.2f s"):format(far), wall = far,
      beside = ("%.2f s without, %s"):format(near, walls[2].judged),
      goals = { bench.goal("at most 1.3x of no delay", far / near, 1.3, { format = "%.2fx" }) } }
  end
end

-- Median and 95th percentile of what a reader of the source waits for a file, in ms, while `fn` runs.
local function reading(c, fn)
  local world = c.world
  local out = world.folder "reader" .. "/out"
  local reader <close> = setmetatable({
    leash = world.start { "python3", "spec/bench/reader.py", c:source(), out },
  }, { __close = function(self) self.leash:stop() end })
  world.wait_until("a reader", function() return (world.read(out) or "") ~= "" end)
  fn()
  reader.leash:stop()
  local list = {}
  for number in world.read(out):gmatch "(%d+)\n" do
    list[#list + 1] = tonumber(number) / 1000
  end
  table.sort(list)
  return { median = list[(#list + 1) // 2], late = list[math.ceil(#list * 0.95)] }
end

function rows.reader(bench)
  local c <close> = contest.open(bench, { tools = { rsync = true, fpsync = true } })
  bench.world.grow("many", c:source(), { files = scaled(100000) })
  local quiet = reading(c, function() task.sleep(8) end)
  local function row(name, seen, goal)
    bench.row { name = name, figure = ("%.2f ms"):format(seen.median), beside = ("%.2f ms in the worst 5 %%; %.2fx of quiet"):format(
      seen.late, seen.median / quiet.median), goals = goal and { goal } or nil }
  end
  local ours = reading(c, function() c:ours "bulk" end)
  row("a reader of the source during bulk", ours, bench.goal("at most 2x of quiet", ours.median / quiet.median, 2, { format = "%.2fx" }))
  row("  quiet", quiet)
  for _, tool in ipairs(c.tools) do
    row("  during " .. tool.name, reading(c, function() c:theirs(tool, "first") end))
  end
end

-- Ten moves of different size and unrest: what was forecast, and what it took. A forecast is for those who plan by minutes: passes
-- of a blink would only tell how busy this machine is. As in a move, what is forecast is what the last copy before it saw, and
-- people go on working until they are locked out.
function rows.forecast(bench)
  local c <close> = contest.open(bench, { tools = {} })
  local hits, within, words = 0, 0, {}
  for round = 1, 10 do
    bench.world.must("rm -rf " .. bench.world.quote(c:source()))
    bench.world.grow("many", c:source(), { files = scaled(10000 * round), homes = 4 * round })
    c:ours("second", round)
    bench.world.mutate(c:source(), { percent = 0.1 * round, delete = true, rename = true, seed = round })
    local said = c:ours("converge", round).steps
    bench.world.mutate(c:source(), { percent = 0.1 * round, delete = true, rename = true, seed = 100 + round })
    local took = c:ours("verify", round).steps.seconds
    local seconds = took.final + took.verify
    local ratio = seconds / said.forecast
    hits = hits + (ratio > 0.7 and ratio < 1.3 and 1 or 0)
    within = within + (seconds >= said.low and seconds <= said.high and 1 or 0)
    words[#words + 1] = ("%.2f"):format(ratio)
    print(("    %2d: forecast %.2f + %.2f s, %.2f to %.2f s; it took %.2f + %.2f s: %.2fx"):format(round, said.pass, said.proof,
      said.low, said.high, took.final, took.verify, ratio))
    bench.world.must("rm -rf " .. bench.world.quote(c:target("ours" .. round)))
  end
  bench.row { name = "final pass and proof, of what was forecast", figure = table.concat(words, " "),
    beside = ("%d of 10 in the range that was said"):format(within),
    goals = { bench.goal("within 30 % in 8 of 10", hits, 8, { at_least = true, format = "%d of 10" }) } }
end

return function(bench)
  for _, name in ipairs { "small", "slow", "big", "million", "delay", "reader", "forecast" } do
    if not ROWS or ROWS[name] then
      rows[name](bench)
    end
  end
end
