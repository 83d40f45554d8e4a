-- Commands on other machines, beside the programs people use for that.

local core = require "runbook.core.ssh"
local gate = require "runbook.core.gate"
local task = require "runbook.core.task"

local COMMANDS, HOSTS = 200, 100

-- `true` on every host, `times` one after the other on each.
local RUNBOOK = [[
local rb = require "runbook"
local ssh = require "runbook.ssh"
local task = require "runbook.task"

local p = rb.params {
  { "hosts", "list", "where" },
  { "config", "path", "for ssh" },
  { "times", "integer", "how often" },
}

rb.main(function()
  task.each(p.hosts, { limit = 100 }, function(name)
    local host = ssh.host { name, config = p.config }
    for _ = 1, p.times do
      host:query { "true" }
    end
  end)
end)
]]

local function yaml_list(words)
  return "[" .. table.concat(words, ", ") .. "]"
end

local function ours(bench, folder, hosts, config, times, runs)
  return bench.command(runs, { bench.world.runbook, "run", folder .. "/true.lua", "--state", folder .. "/state", "-q",
    "-p", "hosts=" .. yaml_list(hosts), "-p", "config=" .. config, "-p", "times=" .. times })
end

-- One host: what each further command costs, once the connection is there.
local function one_host(bench, folder)
  local world = bench.world
  local m <close> = world.sshd { name = "bench" }
  local config = world.ssh_config { m }
  local one, many = ours(bench, folder, { "bench" }, config, 1, 5), ours(bench, folder, { "bench" }, config, COMMANDS + 1, 3)
  local each = { wall = (many.best - one.best) / COMMANDS, cpu = (many.cpu - one.cpu) / COMMANDS, rss = many.rss }

  local socket = folder .. "/master"
  world.must(("ssh -F %s -o ControlMaster=yes -o ControlPath=%s -o ControlPersist=yes bench true"):format(config, socket))
  local loop = bench.command(1, { "sh", "-c", ("for i in $(seq %d); do ssh -F %s -o ControlPath=%s bench true; done"):format(
    COMMANDS, config, socket) })
  world.must(("ssh -F %s -o ControlPath=%s -O exit bench 2>&1"):format(config, socket))
  local others = {
    { name = "a loop of ssh over ControlMaster, each", wall = loop.wall / COMMANDS, cpu = loop.cpu / COMMANDS, rss = loop.rss },
  }
  if bench.has "ansible" then
    local cost = bench.command(2, { "ansible", "all", "-i", "bench,", "-m", "raw", "-a", "true", "--ssh-common-args", "-F " .. config })
    cost.name = "ansible -m raw, each"
    others[2] = cost
  end
  each.name = ("%d times `true` on one host, each"):format(COMMANDS)
  each.goals = {
    bench.goal("at most 1 ms of our CPU", each.cpu * 1000, 1, { format = "%.2f ms" }),
    bench.goal("at least 8 times ssh over ControlMaster", others[1].wall / each.wall, 8, { at_least = true, format = "%.1f times" }),
  }
  bench.beside(each, others)
end

-- How many times the network is crossed for one command: through a relay that holds each piece for 50 ms.
local function round_trips(bench, folder)
  local world = bench.world
  local m <close> = world.sshd { name = "far" }
  local relay <close> = world.relay { to = m, delay = 0.05 }
  local config = world.ssh_config({ m })
  world.write(config, world.read(config):gsub("HostName %S+\n  Port %d+", ("HostName %s\n  Port %d\n  HostKeyAlias [%s]:%d"):format(
    relay.address, relay.port, m.address, m.port)))
  local one, eleven = ours(bench, folder, { "far" }, config, 1, 1), ours(bench, folder, { "far" }, config, 11, 1)
  local trips = (eleven.wall - one.wall) / 10 / 0.1
  bench.row {
    name = "round trips of a command, network of 100 ms", figure = ("%.2f"):format(trips),
    goals = { bench.goal("one each", trips, 1.2, { format = "%.2f" }) },
  }
end

local function hundred_hosts(bench, folder)
  local world = bench.world
  local addresses = {}
  for i = 1, HOSTS do
    addresses[i] = world.address()
  end
  local m <close> = world.sshd { name = "bench", addresses = addresses, config = { "LogLevel ERROR" } }
  local config = world.ssh_config { m }
  world.write(config, ("Host 127.*\n  Port %d\n  ControlMaster no\n"):format(m.port) .. world.read(config))
  local cold = ours(bench, folder, addresses, config, 1, 2)
  local list = table.concat(addresses, ",")
  local others = {}
  if bench.has "clush" then
    others[#others + 1] = bench.command(1, { "clush", "-f", "100", "-w", list, "-o", "-F " .. config, "true" })
    others[#others].name = "clush -f 100"
  end
  if bench.has "pdsh" then
    others[#others + 1] = bench.command(1, { "pdsh", "-R", "ssh", "-f", "100", "-w", list, "true" },
      { env = "PDSH_SSH_ARGS_APPEND='-F " .. config .. "'" })
    others[#others].name = "pdsh -f 100"
  end
  cold.name, cold.goals = ("%d hosts, `true`, cold"):format(HOSTS), {}
  for _, other in ipairs(others) do
    table.insert(cold.goals, bench.goal("wall at most half of " .. other.name, cold.wall / other.wall, 0.5, { format = "%.2f" }))
    table.insert(cold.goals, bench.goal("CPU at most 0.15 of " .. other.name, cold.cpu / other.cpu, 0.15, { format = "%.2f" }))
  end
  bench.beside(cold, others)
end

local EACH = 4000000

-- Read one channel of a session to its end; returns how much that was.
local function drain(session)
  local channel <close> = assert(session:open(("head -c %d /dev/zero"):format(EACH)))
  local out, bytes = channel:stdout(), 0
  while true do
    local piece, problem = out:read()
    if piece == nil then
      assert(problem == nil, problem)
      return bytes
    end
    bytes = bytes + #piece
  end
end

-- 10 channels on each of 5 connections read as fast as they can; nobody reads one of them.
local function fifty_channels(m)
  local sessions, readers = {}, {}
  for i = 1, 5 do
    sessions[i] = assert(core.connect {
      host = m.address, port = m.port, user = "root", identities = { m.key }, pins = { m.fingerprint },
    })
  end
  local stalled = assert(sessions[1]:open "cat /dev/zero")
  stalled:stdout()
  for i = 1, 49 do
    readers[i] = task.spawn(gate.call, "read", drain, sessions[i % 5 + 1])
  end
  task.join_all(readers)
  for _, reader in ipairs(readers) do
    local ok, bytes = reader:result()
    assert(ok and bytes == EACH, bytes)
  end
  stalled:close()
  for _, session in ipairs(sessions) do
    session:close()
  end
end

local function turns(bench)
  local m <close> = bench.world.sshd { name = "bench" }
  local shortest
  for _ = 1, 3 do -- what is long because the machine was busy is not long every time
    local longest = bench.longest_turn(function() gate.call("read", fifty_channels, m) end)
    shortest = math.min(shortest or longest, longest)
  end
  bench.row {
    name = "longest turn, 50 channels on 5 connections", figure = ("%.1f ms"):format(shortest * 1000),
    goals = { bench.goal("at most 20 ms", shortest * 1000, 20, { format = "%.1f ms" }) },
  }
end

return function(bench)
  local folder = bench.world.folder "ssh"
  bench.world.write(folder .. "/true.lua", RUNBOOK)
  one_host(bench, folder)
  round_trips(bench, folder)
  hundred_hosts(bench, folder)
  turns(bench)
end
