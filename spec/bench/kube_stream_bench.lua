-- Commands and copies in containers of a real cluster, beside kubectl. SCALE=0.1 makes the files a tenth; ROWS=plain or cuts measures
-- those alone.

local task = require "runbook.core.task"
local time = require "runbook.core.time"

local scale = tonumber(os.getenv "SCALE") or 1
local COMMANDS, SIZE, CUTS = 50, math.floor((500 << 20) * scale), 20
local LONGEST = 400 -- seconds for a copy that is cut

local RUNBOOK = [[
local rb = require "runbook"
local kube = require "runbook.kube"

local p = rb.params {
  { "config", "path", "kubeconfig" },
  { "namespace", "string", "where" },
  { "times", "integer", "how often" },
  { "put", "string", "a file to copy", optional = true },
  { "get", "string", "where it comes back to", optional = true },
}

rb.main(function()
  local at = kube.cluster({ kubeconfig = p.config }):container { pod = "bench", namespace = p.namespace }
  for _ = 1, p.times do
    at:query { "true" }
  end
  if p.put then
    at:put(p.put, "/tmp/large")
  end
  if p.get then
    at:get("/tmp/large", p.get)
  end
end)
]]

local POD = [[
apiVersion: v1
kind: Pod
metadata: { name: bench }
spec:
  terminationGracePeriodSeconds: 0
  containers: [{ name: main, image: "world/busybox:1", command: ["sleep", "100000"] }]
]]

-- A pod with nothing to do, and a large file beside it.
local function setting(bench)
  local world = bench.world
  local s = { folder = world.folder "kube-stream", cluster = world.kube.up "old" }
  s.namespace = s.cluster:namespace "bench"
  s.cluster:apply(POD, s.namespace)
  s.cluster:kubectl { "-n", s.namespace, "wait", "--for=condition=Ready", "pod/bench", "--timeout=120s" }
  world.write(s.folder .. "/it.lua", RUNBOOK)
  world.must(("head -c %d /dev/urandom > %s/large"):format(SIZE, s.folder))

  function s.ours(config, times, ...)
    return { world.runbook, "run", s.folder .. "/it.lua", "--state", s.folder .. "/state", "-q", "-p", "config=" .. config,
      "-p", "namespace=" .. s.namespace, "-p", "times=" .. times, ... }
  end

  function s.kubectl(config, ...)
    return { world.kube.kubectl, "--kubeconfig", config, "-n", s.namespace, ... }
  end

  return s
end

-- ---- a bad network ----

-- Resets all connections of the relay when as much more has passed as its random turn says, until all cuts are done.
local function cut_again_and_again(world, relay, told)
  local function passed()
    local now = relay:passed()
    return now.there + now.back
  end
  for _ = 1, CUTS do
    local after = math.random(SIZE // 40, SIZE // 25)
    local due = passed() + after
    relay:cut(after)
    world.wait_until("a cut", function() return passed() >= due or task.sleep(0.05) end, LONGEST)
    told.cuts = told.cuts + 1
  end
end

-- How a command that goes through such a relay ends: seconds, exit code, cuts.
local function under_cuts(world, s, argv_of)
  local relay <close> = world.relay { to = s.cluster }
  local told, log, begun = { cuts = 0 }, s.folder .. "/cut.log", time.now()
  local argv = argv_of(s.cluster:kubeconfig_through(relay))
  local cutter = task.spawn(cut_again_and_again, world, relay, told)
  local leash = world.start({ "sh", "-c", 'timeout "$@"; echo "ended $?"', "sh", tostring(LONGEST), table.unpack(argv) }, { log = log })
  world.wait_until("a copy under cuts", function() return not leash:alive() or task.sleep(0.05) end, LONGEST + 30)
  cutter:cancel()
  task.join_all { cutter }
  local text = world.read(log)
  return { seconds = time.now() - begun, code = text:match "ended (%d+)\n$", cuts = told.cuts, said = text }
end

local function bench_cuts(bench, s)
  local world = bench.world
  local right = world.must(("sha256sum %s/large"):format(s.folder)):match "^%x+"
  local function there(path)
    local output = s.cluster:try { "-n", s.namespace, "exec", "bench", "--", "sha256sum", path }
    return output:match "^%x+" == right
  end
  local function here(path)
    return world.sh("sha256sum " .. path):match "^%x+" == right
  end
  local function row(name, result, intact, goals)
    bench.row { name = name, figure = ("%.1f s"):format(result.seconds), value = result.seconds, goals = goals,
      beside = ("%d cuts, exit %s, %s"):format(result.cuts, result.code, intact and "intact" or "NOT intact") }
  end
  for _, way in ipairs {
    { name = "put", is_right = function(path) return there(path) end, ours = { "/tmp/large", "put=" .. s.folder .. "/large" },
      theirs = { "/tmp/kubectl", "cp", s.folder .. "/large", "bench:/tmp/kubectl" } },
    { name = "get", is_right = here, ours = { s.folder .. "/cut", "get=" .. s.folder .. "/cut" },
      theirs = { s.folder .. "/kubectl-cut", "cp", "bench:/tmp/large", s.folder .. "/kubectl-cut" } },
  } do
    local ours = under_cuts(world, s, function(config) return s.ours(config, 0, "-p", way.ours[2]) end)
    local intact = ours.code == "0" and way.is_right(way.ours[1])
    assert(ours.code == "0" or ours.cuts > 0, ours.said)
    row(("%s of %d MiB under %d cuts"):format(way.name, SIZE >> 20, CUTS), ours, intact, {
      bench.goal("intact", intact and 1 or 0, 1, { at_least = true, format = "%d" }),
      bench.goal("cut so often", ours.cuts, CUTS, { at_least = true, format = "%d" }),
    })
    local theirs = under_cuts(world, s, function(config) return s.kubectl(config, table.unpack(way.theirs, 2)) end)
    row("kubectl cp through the same", theirs, theirs.code == "0" and way.is_right(way.theirs[1]))
  end
end

-- ---- a good one ----

local function bench_plain(bench, s)
  local world, folder = bench.world, s.folder

  local function ours(times, runs, ...)
    return bench.command(runs, s.ours(s.cluster.kubeconfig, times, ...))
  end

  local function kubectl(runs, ...)
    return bench.command(runs, s.kubectl(s.cluster.kubeconfig, ...))
  end

  local one, many = ours(1, 3), ours(COMMANDS + 1, 2)
  local each = { wall = (many.best - one.best) / COMMANDS, cpu = (many.cpu - one.cpu) / COMMANDS, rss = many.rss,
    name = ("%d times `true` in one container, each"):format(COMMANDS) }
  local other = kubectl(5, "exec", "bench", "--", "true")
  other.name = "kubectl exec bench -- true"
  each.goals = { bench.goal("at most a third of kubectl exec", each.wall / other.wall, 1 / 3, { format = "%.2f times" }) }
  bench.beside(each, { other })

  local config = s.cluster.kubeconfig
  for _, way in ipairs {
    { "put", s.ours(config, 0, "-p", "put=" .. folder .. "/large"), s.kubectl(config, "cp", folder .. "/large", "bench:/tmp/large") },
    { "get", s.ours(config, 0, "-p", "get=" .. folder .. "/back"), s.kubectl(config, "cp", "bench:/tmp/large", folder .. "/kubectl-back") },
  } do
    local cost, beside = bench.in_turn(2, { way[2], way[3] })
    cost.name = ("%s of %d MiB, hashed at both ends"):format(way[1], SIZE >> 20)
    beside.name = "kubectl cp, not hashed"
    cost.goals = { bench.goal("not slower than kubectl cp", cost.wall / beside.wall, 1, { format = "%.2f times" }) }
    bench.beside(cost, { beside })
  end
  world.must(("cmp %s/large %s/back"):format(folder, folder))
end

return function(bench)
  local s = setting(bench)
  local rows = os.getenv "ROWS" or ""
  if rows == "" or rows:find "plain" then
    bench_plain(bench, s)
  end
  if rows == "" or rows:find "cuts" then
    bench_cuts(bench, s)
  end
end
