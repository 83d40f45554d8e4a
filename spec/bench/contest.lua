-- contest.lua - two servers, a tree, and tools that copy it from one to the other; ours is one of them.
--
-- Everybody goes over the same sshd, from the same source, each into a folder of its own. What a copy costs is the CPU of
-- both servers and, for ours, of the operator's side; what it is worth is what the oracle says afterwards.

local json = require "runbook.json"
local oracle = require "spec.support.oracle"
local time = require "runbook.core.time"

local contest = {}

-- A step for each thing that is timed; the benchmark stops after each and goes on with `resume`, or has them all done by one
-- process, in which case what people do in between is a step, too.
local RUNBOOK = [[
local here = require "runbook.here"
local rb = require "runbook"
local sync = require "runbook.sync"

local p = rb.params {
  { "from", "dir", "the homes" },
  { "to", "dir", "where they go" },
}
local homes = sync.pair { from = p.from, to = p.to }

rb.step("bulk", "Copy", function() homes:bulk() end)
rb.step("second", "Copy again", function() homes:bulk() end)
rb.step("converge", "Copy until it is short", function()
  homes:converge { within = "1h" }
  local f = homes:forecast()
  rb.say(("forecast %.3f low %.3f high %.3f pass %.3f proof %.3f"):format(f.seconds, f.low, f.high, f.pass, f.proof))
end)
local people = os.getenv "BENCH_PEOPLE" or ""
rb.step("people", "People go on working", { when = function() return people ~= "" end }, function() here:sh(people) end)
rb.step("final", "Copy for the last time", function() homes:final() end)
rb.step("verify", "Prove it", function() homes:verify() end)
]]

-- What a line of shell needs to know: where it comes from, where it goes to, by which names.
local TOOLS = {
  {
    name = "rsync", program = "rsync", on = "new",
    first = "rsync -aHAX --numeric-ids --delete nfs-old:%s/ %s/",
    again = "rsync -aHAX --numeric-ids --delete nfs-old:%s/ %s/",
    final = "rsync -aHAX --numeric-ids --delete nfs-old:%s/ %s/",
  },
  {
    name = "fpsync", program = "fpsync", on = "old",
    first = "fpsync -n 8 -f 2000 -t /tmp/fpsync -o '-lptgoDAX --numeric-ids' %s/ nfs-new:%s/",
    again = "fpsync -n 8 -f 2000 -t /tmp/fpsync -o '-lptgoDAX --numeric-ids' %s/ nfs-new:%s/",
    final = "fpsync -E -n 8 -f 200 -t /tmp/fpsync -o '-lptgoDAX --numeric-ids' %s/ nfs-new:%s/",
  },
  {
    name = "tar | ssh tar", program = "tar", on = "old",
    first = "tar --numeric-owner --acls --xattrs --xattrs-include='*' -C %s -cf - . | "
      .. "ssh nfs-new tar --numeric-owner --acls --xattrs --xattrs-include=\\'*\\' -C %s -xpf -",
  },
  { name = "scp -r", program = "scp", on = "old", first = "scp -qrp %s/. nfs-new:%s/" },
  {
    name = "rclone", program = "rclone", on = "old", first = "rclone sync -q -l -M --transfers 8 --checkers 16 %s :sftp:%s RCLONE",
    again = "rclone sync -q -l -M --transfers 8 --checkers 16 %s :sftp:%s RCLONE",
    final = "rclone sync -q -l -M --transfers 8 --checkers 16 %s :sftp:%s RCLONE",
  },
}

-- Seconds a slow directory may be believed: as NFS, which asks for a file once and not for each folder above it at each
-- call. Without, who goes by path is slower than anywhere; with much, a pass is helped by the one before.
local CACHE = 1

---@class bench.Contest
local Contest = {}
Contest.__index = Contest

local function tools_of(bench, wanted)
  local list = {}
  for _, tool in ipairs(TOOLS) do
    if (not wanted or wanted[tool.name:match "^%a+"]) and bench.has(tool.program) then
      list[#list + 1] = tool
    end
  end
  return list
end

-- Root of one machine may log in on the other, under its name.
local function introduce(world, m, other, at)
  m:write("/root/.ssh/key", world.read(world.key()))
  m:write("/root/.ssh/known_hosts", (other:known_hosts():gsub("%[[^]]*%]:%d+", ("[%s]:%d"):format(at.address, at.port))))
  m:write("/root/.ssh/config", ("Host %s\n  HostName %s\n  Port %d\n  IdentityFile /root/.ssh/key\n  IdentitiesOnly yes\n"):format(
    other.name, at.address, at.port))
  m:must "chmod 600 /root/.ssh/*"
end

--- Two servers.
---@async
---@param bench table
---@param o? { slow?: boolean, delay?: number, tools?: table<string, boolean> }  slow: trees are on directories whose
--- metadata calls take 1 ms; delay: seconds each way, for everybody; tools: only these
---@return bench.Contest
function contest.open(bench, o)
  o = o or {}
  local world = bench.world
  local self = setmetatable({ bench = bench, world = world, slow = o.slow, closing = {} }, Contest)
  self.old, self.new = world.sshd { name = "nfs-old" }, world.sshd { name = "nfs-new" }
  self.old_at, self.new_at = self.old, self.new
  if o.delay then
    self.old_at, self.new_at = world.relay { to = self.old, delay = o.delay }, world.relay { to = self.new, delay = o.delay }
    self.closing = { self.old_at, self.new_at }
  end
  introduce(world, self.new, self.old, self.old_at)
  introduce(world, self.old, self.new, self.new_at)
  for _, m in ipairs { self.old, self.new } do
    m:must "mkdir -p /srv/fast /tmp/fpsync"
    if o.slow then
      self.closing[#self.closing + 1] = world.slowfs { machine = m, from = "/srv/fast", at = "/srv/slow", cache = CACHE }
    end
  end
  self.base = o.slow and "/srv/slow/" or "/srv/fast/"
  self.tools = tools_of(bench, o.tools)
  self.folder = world.folder "contest"
  world.write(self.folder .. "/copy.lua", RUNBOOK)
  return self
end

function Contest:close()
  for _, thing in ipairs(self.closing) do
    thing:close()
  end
  self.old:close()
  self.new:close()
end

Contest.__close = Contest.close

--- Where a tree really is, as this machine sees it.
function Contest:source() return self.old:path "/srv/fast/homes" end

local function folder_of(who) return (who:gsub("%W", "")) end

function Contest:target(who) return self.new:path("/srv/fast/" .. folder_of(who)) end

--- What the oracle says of a copy.
---@return string text  "equal", or kinds with counts
---@return boolean equal
---@return string details
function Contest:judge(who)
  local kinds, details = oracle.differences(self:source(), self:target(who))
  local words = {}
  for kind, count in pairs(kinds) do
    words[#words + 1] = ("%s %d"):format(kind, count)
  end
  table.sort(words)
  return #words == 0 and "equal" or "NOT equal: " .. table.concat(words, ", "), #words == 0, details
end

-- Runs a function, and what both servers spent on it.
function Contest:costing(fn)
  local file = self.world.folder "cost" .. "/cost"
  self.world.must "sync"
  local watch = self.world.start { self.world.build .. "/world/cost", file, tostring(self.old.pid), tostring(self.new.pid) }
  self.world.wait_until("the first look", function() return (self.world.read(file) or "") ~= "" end)
  local start = time.now()
  local ok, result = pcall(fn)
  local wall = time.now() - start
  require("runbook.core.task").sleep(0.1)
  watch:stop()
  local cpu, peak = self.world.read(file):match "([%d.]+) +(%d+)"
  if not ok then
    error(result, 0)
  end
  return { wall = wall, cpu = tonumber(cpu), far = tonumber(peak) / 1024, result = result }
end

--- Let another tool make a pass: "first", "again" or "final". nil when it has none.
---@return { name: string, wall: number, cpu: number, far: number }?
function Contest:theirs(tool, pass)
  local line = tool[pass]
  if not line then
    return nil
  end
  local from, to = self.base .. "homes", self.base .. folder_of(tool.name)
  self.new:must("mkdir -p " .. to)
  line = line:format(from, to):gsub("RCLONE", ("--sftp-host %s --sftp-port %d --sftp-user root --sftp-key-file /root/.ssh/key "
    .. "--sftp-known-hosts-file /root/.ssh/known_hosts --sftp-set-modtime"):format(self.new_at.address, self.new_at.port))
  local cost = self:costing(function()
    local output, code = self[tool.on]:sh(line)
    return code ~= 0 and ("ended with %d: %s"):format(code, output:match "[^\n]*$") or nil
  end)
  cost.name, cost.failed = tool.name, cost.result
  return cost
end

local function directory(m, at, path, seen)
  return ("\n  ssh: %s\n  port: %d\n  path: %s\n  user: root\n  host_key: %s\n  identity: %s\n%s"):format(at.address, at.port, path,
    m.fingerprint, m.key, seen and ("  seen_from_target: %s:%d\n"):format(seen.address, seen.port) or "")
end

local function step_events(folder)
  local steps = { seconds = {} }
  for path in io.popen(("ls -d %s/state/runs/*/events.ndjson"):format(folder)):lines() do
    for line in io.lines(path) do
      local event = json.decode(line)
      if event.type == "step-end" then
        steps.seconds[event.step] = event.seconds
      elseif event.type == "say" then
        for key, number in event.text:gmatch "(%a+) ([%d.]+)" do
          steps[key] = tonumber(number)
        end
      end
    end
  end
  return steps
end

--- Let ours go on until a step. A fresh `round` is another run into a folder of its own.
---@param step string  bulk, second, converge, final or verify
---@param round? integer
---@param people? string  a line of shell that is run before the final pass
---@return { wall: number, cpu: number, far: number, rss: number, steps: table }
function Contest:ours(step, round, people)
  local who = "ours" .. (round or "")
  local folder = self.folder .. "/" .. who
  local to = self.base .. who
  local argv = { self.world.runbook, "resume" }
  if not self.world.read(folder .. "/params.yaml") then
    self.world.must("mkdir -p " .. folder)
    self.new:must("mkdir -p " .. to)
    local seen = self.old_at ~= self.old and self.old_at or nil
    self.world.write(folder .. "/params.yaml", ("from:%sto:%s"):format(directory(self.old, self.old_at, self.base .. "homes", seen),
      directory(self.new, self.new_at, to)))
    argv = { self.world.runbook, "run", self.folder .. "/copy.lua", "--params", folder .. "/params.yaml" }
  end
  for _, word in ipairs { "--state", folder .. "/state", "--no-input", "-q", "--until", step } do
    argv[#argv + 1] = word
  end
  local near
  local cost = self:costing(function() near = self.bench.command(1, argv, { env = "BENCH_PEOPLE=" .. self.world.quote(people or "") }) end)
  return { wall = near.wall, cpu = near.cpu + cost.cpu, far = cost.far, rss = near.rss, steps = step_events(folder) }
end

return contest
