-- A large hub database, saved while somebody writes it without a pause, beside what documents tell people to do. SCALE=0.1 makes
-- it a tenth.

local scale = tonumber(os.getenv "SCALE") or 1
local SIZE, TIMES = math.floor(1e9 * scale), 3

local RUNBOOK = [[
local rb = require "runbook"
require "runbook.hub"
local p = rb.params { { "hub", "hub", "whose database" } }
rb.main(function()
  p.hub:save_database()
end)
]]

-- $1 bytes. What a hub would hold after years, in rows that an index finds.
local GROW = [[
import os, sqlite3, sys
db = sqlite3.connect("/srv/jupyterhub/jupyterhub.sqlite", timeout=60)
db.execute("create table ballast (id integer primary key, name text, text blob)")
db.execute("create index ballast_name on ballast (name)")
for i in range(int(sys.argv[1]) // 4000):
    db.execute("insert into ballast values (?, ?, ?)", (i, os.urandom(20).hex(), os.urandom(3900)))
db.commit()
]]

-- Transactions over pages all over the file, until it is told to stop.
local WRITE = [[
import os, random, sqlite3
db = sqlite3.connect("/srv/jupyterhub/jupyterhub.sqlite", timeout=600, isolation_level=None)
last = db.execute("select max(id) from ballast").fetchone()[0]
db.execute("pragma synchronous = off")
open("/tmp/writes", "w").close()
while os.path.exists("/tmp/writes"):
    db.execute("begin immediate")
    for _ in range(50):
        db.execute("update ballast set name = ?, text = ? where id = ?",
            (os.urandom(20).hex(), os.urandom(random.randint(100, 7000)), random.randint(0, last)))
    db.execute("commit")
]]

return function(bench)
  local world = bench.world
  local cluster = world.kube.up "old"
  world.kube.hub(cluster, { users = 2, namespace = "temple", database_size = "10Gi" })
  local folder = world.folder "hub-bench"
  world.write(folder .. "/it.lua", RUNBOOK)

  local function in_hub(...)
    return cluster:kubectl { "-n", "temple", "exec", "deploy/hub", "-c", "hub", "--", ... }
  end

  local pod = cluster:kubectl { "-n", "temple", "get", "pods", "-l", "component=hub", "-o", "jsonpath={.items[0].metadata.name}" }

  -- Median of what each costs, and how many of the files are whole.
  local function measure(name, argv, file)
    local walls, whole, cost = {}, 0, nil
    for i = 1, TIMES do
      cost = bench.command(1, argv)
      walls[i] = cost.wall
      local path = world.must(("ls %s"):format(file))
      whole = whole + (world.sh(("sqlite3 -readonly %s 'pragma integrity_check' 2>&1"):format(path)) == "ok" and 1 or 0)
      world.must("rm -f " .. path)
    end
    table.sort(walls)
    cost.wall, cost.name = walls[TIMES // 2 + 1], ("%s; %d of %d whole"):format(name, whole, TIMES)
    return cost, whole
  end

  in_hub("python3", "-c", GROW, tostring(SIZE))
  in_hub("sh", "-c", "python3 -c \"$1\" >/dev/null 2>&1 & until [ -e /tmp/writes ]; do sleep 0.1; done", "sh", WRITE)
  local ours, whole = measure(("a database of %d MB under a writer"):format(SIZE // 1000000), { world.runbook, "run", folder .. "/it.lua",
    "--state", folder .. "/state", "-q", "-p", "hub.context=old", "-p", "hub.kubeconfig=" .. cluster.kubeconfig, "-p",
    "hub.namespace=temple" }, folder .. "/state/runs/*/out/temple.sqlite")
  local theirs = measure("kubectl cp", { world.kube.kubectl, "--kubeconfig", cluster.kubeconfig, "-n", "temple", "cp", "-c", "hub",
    pod .. ":/srv/jupyterhub/jupyterhub.sqlite", folder .. "/copied.sqlite" }, folder .. "/copied.sqlite")
  in_hub("rm", "/tmp/writes")
  ours.goals = { bench.goal("passes integrity_check each time", whole, TIMES, { at_least = true, format = "%d" }) }
  bench.beside(ours, { theirs })
end
