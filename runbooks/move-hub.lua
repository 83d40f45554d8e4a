--- Move a hub to another cluster.
---
---     runbook run move-hub.lua --params hubs/temple.yaml
---
--- Replaces "Move a hub across clusters", sections 1 to 8; retire-hub.lua is section 9, weeks later.
--- The numbers below are the document's. 6 comes before 5: a database copied under a running hub is not a copy.
---
--- Before:   the new hub is installed and healthy; nobody uses it.
--- After:    the names answer from the new cluster, with every home, user, group, token and admin.
--- Half-way: until `freeze` users notice nothing. From `freeze` to `open` they are locked out, and
---           `runbook rollback` reopens the old hub in a minute with nothing lost.
---           From `open` on they write to the new hub: going back copies their new work back first.
--- Asks you: at `freeze` and at `open`.

local rb = require "runbook"
local hub = require "runbook.hub"
local kube = require "runbook.kube"

local p = rb.params {
  { "old",      "hub",      "the hub to move: cluster and namespace" },
  { "new",      "hub",      "the same hub on the new cluster" },
  { "homes",    "copier",   "home directories: kind, from, to" },
  { "names",    "fqdns",    "every name people type for this hub" },
  { "dns",      "zone",     "who serves those names; `manual` if that is a ticket" },
  { "window",   "window",   "when users may be locked out, how long, and who agreed" },
  { "database", "choice",   "users, groups, admins, tokens", choices = { "copy", "merge", "leave" }, default = "copy" },
  { "patience", "duration", "how long running servers may finish before they are stopped", default = "0m" },
  { "quiet",    "duration", "how long nothing may change at the old homes before the final copy", default = "1m" },
  { "silent",   "duration", "how long nobody may come to the old address for it to count as silent", default = "10m" },
  { "probes",   "list",     "users whose homes are opened on the new hub before it opens", default = {} },
  { "leave",    "map",      "what is left behind on purpose: thing = reason", default = {} },
}

local old, new, homes, zone = p.old, p.new, p.homes, p.dns
local ledger = hub.ledger { old = old, new = new, homes = homes, names = p.names, zone = zone, leave = p.leave }
local downtime = hub.downtime { old = old, new = new, homes = homes, zone = zone, probes = p.probes, database = p.database,
  quiet = p.quiet }

-- Guards every step of the downtime: a deploy, a colleague or a user must not wake the old hub, nor have woken it meanwhile.
local drained
local function still_closed()
  old:must_be_closed { since = drained }
end

rb.section "1 Set up a new hub"

rb.checks("preflight", "Look at everything before anything is changed",
  old:checks(), new:checks(), homes:checks(), zone:checks(p.names), {
    { "old and new are not swapped", function() return hub.direction(old, new) end },
    { "the new hub is configured like the old one", function() return hub.differences(old, new) end },
    { "users, groups, admins and tokens", function()
      return hub.database_evidence(old, new, p.database, { lose = p.leave.database ~= nil })
    end },
    { "every user has the same directory name on both", function() return hub.same_directories(old, new) end },
    { "the old hub mounts the directory the copy takes", function() return old:may_mount(homes.from) end },
    { "the new hub mounts the directory the copy fills", function() return new:must_mount(homes.to) end },
    { "only this hub mounts the new directory (not staging)", function() return new:must_mount_alone { but = old } end },
    { "the new cluster has an address", function() new:ingress_address { within = "10s" } end },
  })

rb.step("carry-secrets", "Give the new hub the old one's keys and certificate", function()
  hub.carry_secrets(old, new)
end)

rb.section "2 Copy home directories"

rb.step("bulk", "Copy every home while the old hub serves", function()
  homes:bulk { first = old:recently_active() }
end)

rb.step("converge", "Copy again until the last pass fits the window", { fresh = "12h" }, function()
  homes:converge { within = p.window.lasts }
end)

rb.section "3 Grafana dashboards"

rb.step("dashboards", "See that the new cluster is watched as the old one was", function()
  for _, line in ipairs(hub.compare_monitoring(old, new)) do
    rb.say(line)
  end
end)

rb.step("lower-ttl", "Make resolvers forget the old address quickly", function()
  zone:lower_ttl { names = p.names, to = 60 }
end)

-- The run stops here, on purpose, until the window. Days may pass; `converge` is then done again.
rb.pause("ready", "What can be done before the downtime is done", {
  starts = p.window.starts,
  text = "Tell the hub's representatives when it closes, for how long, and to save their work.",
})

rb.section "4 Take down the old hub"

-- Nobody uses it yet, so it costs no time of anybody's; the old one is untouched.
rb.step("stop-new", "Close and stop the new hub, until it gets its users", function()
  new:close()
  new:stop_servers()
  new:stop_hub()
end)

rb.step("freeze", "Close the old hub", {
  guard = function()
    downtime:must_fit(p.window)
    ledger:must_be_closed { homes = "sent" }
  end,
  disrupts = function() return old:impact { downtime = downtime } end,
}, function()
  old:block_servers()                       -- what runs goes on, nothing new starts
  old:wait_idle { at_most = p.patience }    -- overnight, if nobody is to be thrown out
  old:close { page = "maintenance" }        -- the ingress answers 503; proxy-public is kept
end)

rb.section "6 Delete all user pods"

drained = rb.step("drain", "Stop every server, then the hub", {
  verify = function()
    old:must_have_no_writers()              -- no pod mounts the homes any more, labelled or not
    homes:must_be_quiet(p.quiet)            -- a node may still be flushing what a stopped pod wrote
  end,
}, function()
  old:stop_servers()
  rb.attach(old:logs(), "logs-of-the-old-hub.txt")
  return old:stop_hub()
end)

rb.section "5 Transfer the database"

local database = rb.step("save-database", "Take a consistent copy", { when = p.database ~= "leave" }, function()
  return old:save_database()
end)

rb.section "7 One final copy"

rb.step("final", "Copy what changed, remove what was removed", { guard = still_closed }, function()
  homes:final()
end)

rb.step("verify", "Prove that both ends are the same", { guard = still_closed }, function()
  homes:verify()
  ledger:must_be_closed()
  rb.attach(homes:receipts(), "receipts.json")
end)

rb.step("install-database", "Give the new hub its users", { when = p.database ~= "leave" }, function()
  new:install_database { from = database, merge = p.database == "merge", lose = p.leave.database ~= nil }
end)

rb.step("start", "Start the new hub, still closed to users", {
  timeout = "15m", verify = function() new:must_be_healthy() end,
}, function()
  new:start_hub { servers = "blocked" }
end)

rb.step("probe", "Open some homes the way users will", function()
  rb.each(p.probes, { limit = 5 }, function(user)
    new:must_show_home(user, homes:receipt(new:directory_of(user)))
  end)
end)

rb.section "8 Transfer DNS"

local address = rb.step("address", "Find the new cluster's address", function()
  return new:ingress_address { within = "1m" } -- it had one before anybody was locked out
end)

rb.step("switch-names", "Point the names at the new cluster", {
  guard = function()
    still_closed()
    homes:must_be_quiet()                   -- since the final copy
  end,
}, function()
  zone:point { names = p.names, to = address(), ttl = 60 }
  new:must_answer { names = p.names, address = address() }
end)

rb.step("open", "Let users in", {
  guard = still_closed,
  disrupts = "nobody; but from here users write to the new hub, and going back means copying that back",
  undo_guard = function() return hub.work_since { old = old, new = new, homes = homes } end,
  undo = function(close_again)
    close_again()
    new:stop_servers()
    new:stop_hub()
    homes:back()
  end,
}, function()
  new:unblock_servers()
end)

rb.step("watch", "See the old address fall silent", { timeout = "2h" }, function()
  hub.watch { old = old, new = new, silent = p.silent }
end)

rb.section "9 Before the clean-up"

rb.step("keep-records", "Keep the old hub's manifests", function()
  rb.attach(kube.manifests(old.cluster, { namespace = old.namespace }), "manifests.yaml")
end)

rb.manual("announce", "Tell the hub's representatives; keep pipelines off the old hub", {
  text = [[
    Remove the old hub from the deployment configuration, or CI will start it again.
    The old homes stay, read-only to this procedure, until `runbook run retire-hub.lua`.]],
})
