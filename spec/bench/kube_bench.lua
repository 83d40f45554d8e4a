-- Big clusters, beside kubectl. SCALE=0.1 makes it a tenth; the pods of 1 take some minutes to be made.

local kube = require "runbook.kube"
local task = require "runbook.task"

local scale = tonumber(os.getenv "SCALE") or 1
local PODS = math.floor(10000 * scale)
local OBJECTS, RATE, CHANGES = math.floor(10000 * scale), 1000, math.floor(20000 * scale)

local EACH = [[
local c = require "runbook.kube".cluster { kubeconfig = %q }
local n = 0
c:each({ "Pod", namespace = %q }, function(pod) n = n + (pod.spec.containers[1].name == "notebook" and 1 or 0) end)
assert(n == %d, n)
]]

-- Every change of every object, in order, and none twice; prints when it is ready to be told.
local FOLLOW = [[
local c = require "runbook.kube".cluster { kubeconfig = %q }
local last, total, final, objects, changes = {}, 0, 0, %d, %d
c:watch({ "ConfigMap", namespace = %q }, function(event, object)
  if event == "SYNCED" then
    io.open(%q, "w"):close()
  elseif event == "MODIFIED" then
    local n = tonumber(object.data.n)
    assert(n > (last[object.metadata.name] or -1), "twice, or out of order")
    last[object.metadata.name], total = n, total + 1
    return total == changes and true or nil
  end
end)
]]

-- A pod as kubespawner makes them; the scheduler it names is nobody, so that no node has work with it.
local function user_pod(namespace, i)
  local user = ("user-%05d"):format(i)
  return { apiVersion = "v1", kind = "Pod", metadata = { name = "jupyter-" .. user, namespace = namespace,
    labels = { app = "jupyterhub", component = "singleuser-server", ["hub.jupyter.org/username"] = user },
    annotations = { ["hub.jupyter.org/username"] = user } },
    spec = { schedulerName = "nobody", volumes = { { name = "home", emptyDir = {} } }, containers = { {
      name = "notebook", image = "world/bare:1", args = { "jupyterhub-singleuser", "--ip=0.0.0.0" },
      env = { { name = "JUPYTERHUB_USER", value = user }, { name = "CPU_LIMIT", value = "2.0" } },
      ports = { { containerPort = 8888, name = "notebook-port" } }, volumeMounts = { { name = "home", mountPath = "/home/jovyan" } } } } } }
end

local function bench_list(bench)
  local world = bench.world
  local real = world.kube.up "bench"
  local ns, c = real:namespace "pods", kube.cluster { kubeconfig = real.kubeconfig }
  local numbers = {}
  for i = 1, PODS do
    numbers[i] = i
  end
  task.each(numbers, { limit = 24 }, function(i) c:create(user_pod(ns, i)) end)
  local script = world.folder "list" .. "/list.lua"
  world.write(script, EACH:format(real.kubeconfig, ns, PODS))
  local kubectl = { world.kube.kubectl, "--kubeconfig", real.kubeconfig, "-n", ns, "get", "pods" }
  local ours, table_ = bench.in_turn(5, { { world.runbook, "lua", script }, kubectl })
  local names = bench.command(2, table.move({ "-o", "name" }, 1, 2, #kubectl + 1, table.move(kubectl, 1, #kubectl, 1, {})))
  ours.name, table_.name, names.name = ("every one of %d pods, all its fields"):format(PODS), "kubectl get pods, which shows five",
    "kubectl get pods -o name"
  ours.goals = {
    bench.goal("twice as fast as kubectl", table_.wall / ours.wall, 2, { at_least = true, format = "%.1f x" }),
    bench.goal("a third of its memory", ours.rss / table_.rss, 1 / 3, { format = "%.2f x" }),
  }
  bench.beside(ours, { table_, names })
end

local function bench_watch(bench)
  local world = bench.world
  local fake <close> = world.fake_kube()
  fake:tell("make", { count = OBJECTS, namespace = "default", size = 1500 })
  local folder = world.folder "watch"
  world.write(folder .. "/follow.lua", FOLLOW:format(fake.kubeconfig, OBJECTS, CHANGES, "default", folder .. "/ready"))
  local teller = task.spawn(function()
    world.wait_until("a watch that has seen all", function() return world.read(folder .. "/ready") end, 120)
    fake:tell("churn", { count = CHANGES, rate = RATE, objects = OBJECTS, namespace = "default" })
  end)
  local follower = task.spawn(function()
    local leash = world.start({ world.build .. "/world/measure", "1", world.runbook, "lua", folder .. "/follow.lua" },
      { log = folder .. "/cost" })
    world.wait_until("every change", function() return not leash:alive() end, 600)
  end)
  for _, one in ipairs { teller, follower } do
    local ok, err = task.join(one)
    assert(ok, err)
  end
  local wall, cpu, rss, code = world.read(folder .. "/cost"):match "([%d.]+) ([%d.]+) (%d+) (%d+)\n$"
  assert(code == "0", world.read(folder .. "/cost"))
  local row = { name = ("%d changes of %d objects, each seen once"):format(CHANGES, OBJECTS), wall = tonumber(wall), cpu = tonumber(cpu),
    rss = tonumber(rss) / 1024 }
  row.goals = { bench.goal("at most 60 MB", row.rss, 60, { format = "%.1f MB" }) }
  bench.row(row)
end

return function(bench)
  bench_watch(bench)
  bench_list(bench)
end
