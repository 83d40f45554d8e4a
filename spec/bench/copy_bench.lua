-- Ctrl-C in the middle of a copy: how long until nothing moves here any more.

local time = require "runbook.core.time"

local function directory(m)
  return ("\n  ssh: %s\n  port: %d\n  path: /srv/homes\n  user: root\n  host_key: %s\n  identity: %s\n"):format(
    m.address, m.port, m.fingerprint, m.key)
end

-- Seconds from SIGINT to the end of the process.
local function interrupt(world, started, pid)
  local begun = time.now()
  world.must(("kill -INT %d"):format(pid))
  world.wait_until("the end of it", function() return not started:alive() end, 60)
  return time.now() - begun
end

return function(bench)
  local world = bench.world
  local old <close> = world.sshd { name = "nfs-old" }
  local new <close> = world.sshd { name = "nfs-new" }
  old:must "mkdir -p /srv/homes/a /srv/homes/b && head -c 300M /dev/urandom > /srv/homes/a/large && cp /srv/homes/a/large /srv/homes/b"
  new:must "mkdir /srv/homes"
  local folder = world.folder "copy"
  world.write(folder .. "/params.yaml", ("from:%sto:%srate: 10 MB/s\n"):format(directory(old), directory(new)))

  local state = folder .. "/state"
  local started = world.start({ world.runbook, "run", "nfs-move.lua", "--params", folder .. "/params.yaml", "--state", state,
    "--no-input", "--until", "bulk" }, { log = folder .. "/log" })
  world.wait_until("bytes on the target", function()
    assert(started:alive(), world.read(folder .. "/log"))
    return tonumber((new:must "du -sm /srv/homes | cut -f1")) > 5
  end, 60)
  local seconds = interrupt(world, started, world.children(started.pid)[1])
  local log = world.read(folder .. "/log")
  assert(log:find "resume", log)
  local config = world.ssh_config { old }
  local rsync = world.start({ "rsync", "-a", "--bwlimit=10m", "-e", "ssh -F " .. config, "nfs-old:/srv/homes/", folder .. "/here/" })
  world.wait_until("bytes here", function()
    return (tonumber((world.sh("du -sm " .. folder .. "/here 2>/dev/null | cut -f1"))) or 0) > 5
  end, 60)
  local others = { { name = "rsync over ssh, the same", wall = interrupt(world, rsync, world.children(rsync.pid)[1]) } }
  bench.beside({
    wall = seconds, name = "Ctrl-C in the middle of a copy, to quiet", figure = ("%.2f s"):format(seconds),
    goals = { bench.goal("at most 5 s", seconds, 5, { format = "%.2f s" }) },
  }, others)
end
