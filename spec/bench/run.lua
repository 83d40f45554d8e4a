-- run.lua - `make bench`: every *_bench.lua here, a table for people and build/bench.json for programs.
--
--     build/runbook lua spec/bench/run.lua [FILE]...
--
-- A bench file returns a function that is given `bench` (below). Each figure stands beside another tool's in the
-- same run: on another machine, or a busy one, the ratio is what counts. Ends with 1 when a goal was missed.

local core = require "runbook.core.task"
local json = require "runbook.json"
local time = require "runbook.core.time"
local world = require "spec.world"

local bench = { rows = {}, world = world }

local function median(values)
  table.sort(values)
  local middle = #values // 2
  return #values % 2 == 1 and values[middle + 1] or (values[middle] + values[middle + 1]) / 2
end

---@class bench.Cost
---@field wall number  seconds, the median; what others do on this machine is in it
---@field cpu number  seconds, the median
---@field rss number  MB, the largest
---@field best number  seconds, the shortest: what a goal in milliseconds is held against

-- What runs of one command cost together; each has wall, cpu and rss.
local function cost_of(samples)
  local wall, cpu, rss = {}, {}, 0
  for i, one in ipairs(samples) do
    wall[i], cpu[i], rss = one.wall, one.cpu, math.max(rss, one.rss)
  end
  local middle = median(wall) -- sorts
  return { wall = middle, best = wall[1], cpu = median(cpu), rss = rss }
end

--- What a command costs. Raises when it fails: a fast failure is no figure.
---@param times integer
---@param argv string[]
---@param options { env?: string, exit?: integer }?  env: shell assignments; exit: the code it has to end with
---@return bench.Cost
function bench.command(times, argv, options)
  options = options or {}
  local words = {}
  for i, word in ipairs(argv) do
    words[i] = world.quote(word)
  end
  local output = world.must(("%s %s/world/measure %d %s"):format(
    options.env and "env " .. options.env or "", world.build, times, table.concat(words, " ")))
  local samples = {}
  for w, c, r, code in output:gmatch "([%d.]+) ([%d.]+) (%d+) (%d+)" do
    if tonumber(code) ~= (options.exit or 0) then
      error(("%s ended with %s"):format(table.concat(argv, " "), code), 2)
    end
    samples[#samples + 1] = { wall = tonumber(w), cpu = tonumber(c), rss = tonumber(r) / 1024 }
  end
  return cost_of(samples)
end

--- The same for several commands, each in turn: what else the machine does falls upon all of them.
---@param times integer
---@param argvs string[][]
---@return bench.Cost ...
function bench.in_turn(times, argvs)
  local samples, costs = {}, {}
  for i = 1, times do
    for k, argv in ipairs(argvs) do
      samples[k] = samples[k] or {}
      samples[k][i] = bench.command(1, argv)
    end
  end
  for k, list in ipairs(samples) do
    costs[k] = cost_of(list)
  end
  return table.unpack(costs)
end

local function peak_rss()
  return tonumber(world.read("/proc/self/status"):match "VmHWM:%s*(%d+)") / 1024
end

--- What a piece of work costs inside this process.
---@async
---@return bench.Cost
function bench.inside(fn, ...)
  collectgarbage()
  local start, cpu = time.now(), os.clock()
  fn(...)
  local wall = time.now() - start
  return { wall = wall, best = wall, cpu = os.clock() - cpu, rss = peak_rss() }
end

-- Seconds our main thread was ready to run and another had the processor.
local function waited()
  local text = world.read(("/proc/self/task/%d/schedstat"):format(world.pid))
  return tonumber(text:match "^%d+ (%d+)") / 1e9
end

--- The longest time the loop does not come round while `fn` runs, without the time other programs had the processor.
---@async
---@return number seconds
function bench.longest_turn(fn)
  local longest, last, lost = 0, time.now(), waited()
  local ticker = core.spawn(function()
    while true do
      core.sleep(0.001)
      local now, lost_now = time.now(), waited()
      longest = math.max(longest, now - last - 0.001 - (lost_now - lost))
      last, lost = now, lost_now
    end
  end)
  local ok, err = pcall(fn)
  ticker:cancel()
  core.join_all { ticker }
  if not ok then
    error(err, 0)
  end
  return longest
end

--- Whether a program is there; says so where it is not.
function bench.has(program)
  local _, code = world.sh("command -v " .. program)
  if code ~= 0 then
    print(("  %s is not installed: left out"):format(program))
  end
  return code == 0
end

local function cell(value, format, factor)
  return value and format:format(value * (factor or 1)) or ""
end

local LINE = "  %-44s %12s %12s %9s %-16s"

local function show(row)
  print(LINE:format(row.name, row.figure or cell(row.wall, "%.1f ms", 1000), cell(row.cpu, "%.1f ms", 1000),
    cell(row.rss, "%.1f MB"), row.beside or ""))
  for _, goal in ipairs(row.goals or {}) do
    print(("      %s %s: %s"):format(goal.met and "ok    " or "MISSED", goal.what, goal.seen))
  end
end

--- A figure, with the goals it is held against.
---@param row { name: string, wall?: number, cpu?: number, rss?: number, figure?: string, value?: number,
---             beside?: string, goals?: { what: string, seen: string, met: boolean }[] }
function bench.row(row)
  row.group = bench.group
  bench.rows[#bench.rows + 1] = row
  show(row)
end

--- A goal: `value` is at most (or, with at_least, at least) `limit`.
function bench.goal(what, value, limit, o)
  o = o or {}
  local met = o.at_least and value >= limit or not o.at_least and value <= limit
  return { what = what, seen = (o.format or "%.3g"):format(value), value = value, limit = limit, met = met }
end

--- Our cost and those of others, in one block: theirs are rows with our ratio to them.
---@param ours table  as for `row`
---@param others table<string, bench.Cost>[]  { name =, wall =, cpu =, rss = } each
function bench.beside(ours, others)
  bench.row(ours)
  for _, other in ipairs(others) do
    other.beside = ("ours is %.3gx"):format(ours.wall / other.wall)
    bench.row(other)
  end
end

local function files()
  if #arg > 0 then
    return arg
  end
  local list = {}
  for path in world.must("ls spec/bench/*_bench.lua"):gmatch "[^\n]+" do
    list[#list + 1] = path
  end
  return list
end

local function run_all()
  print(LINE:format("", "", "CPU", "peak", ""))
  for _, path in ipairs(files()) do
    bench.group = path:match "([^/]+)_bench%.lua$"
    print(bench.group)
    assert(loadfile(path))()(bench)
  end
end

local ok, err = xpcall(run_all, debug.traceback)
world.stop()
world.write(world.build .. "/bench.json", json.encode({
  version = 1, at = os.date "!%Y-%m-%dT%H:%M:%SZ", cores = tonumber(world.must "nproc"), rows = json.array(bench.rows),
}, { indent = 1 }) .. "\n")
if not ok then
  io.stderr:write(tostring(err), "\n")
  return 70
end
local missed = 0
for _, row in ipairs(bench.rows) do
  for _, goal in ipairs(row.goals or {}) do
    missed = missed + (goal.met and 0 or 1)
  end
end
print(("%d figures in %s/bench.json; %d goals missed"):format(#bench.rows, world.build, missed))
return missed > 0 and 1 or 0
