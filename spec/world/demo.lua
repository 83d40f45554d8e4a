-- demo.lua - `make demo`: two throw-away ssh servers, homes on one of them, and nfs-move.lua between the two: what it would
-- do, the first copy, people who go on working, the last copy, the proof.
--
-- What a person would answer is given on the command line, so it runs by itself. Then another program (tree.py)
-- compares both servers. Nothing is left behind but the report, in build/demo.

local telling = require "spec.world.telling"
local world = require "spec.world"

local HOMES = 60

local say, show = telling.say, telling.show

local function directory(m)
  return ([[
  ssh: %s
  port: %d
  user: %s
  sudo: true
  path: /srv/homes
  host_key: %s
  identity: %s
]]):format(m.address, m.port, m.user_sudo, m.fingerprint, m.key)
end

local function demo()
  say "Two throw-away servers, reached by ssh on addresses of this machine"
  local old, new = world.sshd { name = "nfs-old" }, world.sshd { name = "nfs-new" }
  world.homes(old:path "/srv/homes", { homes = HOMES })
  new:must "mkdir /srv/homes"
  say("%s %s:%d has %d homes with %s files and folders; %s %s:%d has none", old.name, old.address, old.port,
    HOMES, old:must "find /srv/homes -mindepth 1 -printf x | wc -c", new.name, new.address, new.port)

  local folder = world.folder "demo"
  local params = folder .. "/demo.yaml"
  world.write(params, ("from:\n%sto:\n%swindow: 1h\nquiet: 5s\nreceipts: %s/receipts.json\n"):format(
    directory(old), directory(new), folder))
  local state = { "--state", folder .. "/state", "--no-input" }
  local function runbook(...)
    local argv = { world.runbook, ... }
    telling.must(table.move(state, 1, 3, #argv + 1, argv))
  end

  say "What it would do; nothing is changed"
  show { world.runbook, "plan", "nfs-move.lua", "--params", params }
  say "The first copy, while people work"
  runbook("run", "nfs-move.lua", "--params", params, "--until", "bulk")
  say "Meanwhile: files change, appear, vanish and are renamed; a home is new, one is gone"
  world.mutate(old:path "/srv/homes", { percent = 3, delete = true, rename = true, seed = 1 })
  local gone = old:must "cd /srv/homes && mkdir new-user && echo hello > new-user/notes && ls -d [a-z]* | tail -n 1"
  old:must(("rm -r /srv/homes/%s"):format(gone))
  local before = world.tree(old:path "/srv/homes")

  say "The rest, with the two answers a person would give"
  runbook("resume", "--confirm", "stop-writers=demo", "--done", "stop-writers=demo")
  say "The proof"
  os.execute(("%s show --receipts --state %s/state | head -n 8"):format(world.runbook, folder))

  say "Both servers compared by another program: type, bytes, mode, owner, time, links, xattrs, ACLs, holes"
  local difference = world.tree_difference(old:path "/srv/homes", new:path "/srv/homes", { "lost+found", ".runbook" })
  if world.tree(old:path "/srv/homes") ~= before then
    difference = "the source has changed\n" .. difference
  end
  io.stdout:write(difference == "" and "identical, and the source is as it was\n" or difference .. "\n")
  say "The report: Markdown for a ticket, and one HTML file"
  world.must(("mkdir -p %s/demo"):format(world.build)) -- it stays, to be looked at
  show { world.runbook, "show", "--report", "--output", world.build .. "/demo", "--state", folder .. "/state" }
  return difference == "" and 0 or 1
end

return telling.perform(demo)
