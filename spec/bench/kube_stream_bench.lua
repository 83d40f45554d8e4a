-- Commands and copies in containers of a real cluster, beside kubectl.

local COMMANDS, SIZE = 50, 500 << 20

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

return function(bench)
  local world = bench.world
  local folder = world.folder "kube-stream"
  local cluster = world.kube.up "old"
  local namespace = cluster:namespace "bench"
  cluster:apply(POD, namespace)
  cluster:kubectl { "-n", namespace, "wait", "--for=condition=Ready", "pod/bench", "--timeout=120s" }
  world.write(folder .. "/it.lua", RUNBOOK)
  world.must(("head -c %d /dev/urandom > %s/large"):format(SIZE, folder))

  local function ours(times, runs, ...)
    return bench.command(runs, { world.runbook, "run", folder .. "/it.lua", "--state", folder .. "/state", "-q",
      "-p", "config=" .. cluster.kubeconfig, "-p", "namespace=" .. namespace, "-p", "times=" .. times, ... })
  end

  local function kubectl(runs, ...)
    return bench.command(runs, { world.kube.kubectl, "--kubeconfig", cluster.kubeconfig, "-n", namespace, ... })
  end

  local one, many = ours(1, 3), ours(COMMANDS + 1, 2)
  local each = { wall = (many.best - one.best) / COMMANDS, cpu = (many.cpu - one.cpu) / COMMANDS, rss = many.rss,
    name = ("%d times `true` in one container, each"):format(COMMANDS) }
  local other = kubectl(5, "exec", "bench", "--", "true")
  other.name = "kubectl exec bench -- true"
  each.goals = { bench.goal("at most a third of kubectl exec", each.wall / other.wall, 1 / 3, { format = "%.2f times" }) }
  bench.beside(each, { other })

  for _, way in ipairs {
    { "put", function() return ours(0, 2, "-p", "put=" .. folder .. "/large") end,
      function() return kubectl(2, "cp", folder .. "/large", "bench:/tmp/large") end },
    { "get", function() return ours(0, 2, "-p", "get=" .. folder .. "/back") end,
      function() return kubectl(2, "cp", "bench:/tmp/large", folder .. "/kubectl-back") end },
  } do
    local cost, beside = way[2](), way[3]()
    cost.name = ("%s of 500 MiB, hashed at both ends"):format(way[1])
    beside.name = "kubectl cp, not hashed"
    cost.goals = { bench.goal("not slower than kubectl cp", cost.wall / beside.wall, 1, { format = "%.2f times" }) }
    bench.beside(cost, { beside })
  end
  world.must(("cmp %s/large %s/back"):format(folder, folder))
end
