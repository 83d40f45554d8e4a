-- What will not be the same on the target is told before it is copied, in one table: for people, as JSON, in the receipts.

local lab = require "spec.support.lab"
local world = require "spec.world"

local json = require "runbook.json"

local function check(homes, title)
  for _, one in ipairs(homes:checks()) do
    if one[1] == title then
      return one[2]()
    end
  end
end

describe("a quota at the target", function()
  local servers, old, new

  setup(function()
    servers = lab.servers()
    old, new = servers.old, servers.new
    old:must [[mkdir -p /srv/homes/ann /srv/homes/bob /srv/homes/cyd && cd /srv/homes && head -c 1M /dev/urandom > ann/a && echo b > bob/b
      echo c > cyd/c && chown -R 1001 ann && chown -R 1002:1002 bob cyd]]
  end)

  teardown(function() servers:close() end)

  local function said()
    local text
    lab.must(function() text = check(servers:pair(), "homes fit their quotas") end)
    return text
  end

  it("of a home is compared with what the home holds at the source, before it is sent", function()
    lab.must(function() servers:pair():bulk() end)
    assert.is_nil(said())
    new:must [[mount -t tmpfs -o size=3m,nr_inodes=50 quota /mnt && cp -a /srv/homes/ann/. /mnt && mount --move /mnt /srv/homes/ann]]
    assert.is_nil(said())
    old:must "head -c 6M /dev/urandom > /srv/homes/ann/big"
    assert.matches("a quota is too small on nfs%-new, and will fail: .*\nann: 7%.3%d MB at the source, and its quota is 3%.15 MB", said())
    old:must "rm /srv/homes/ann/big; cd /srv/homes/ann && seq 60 | xargs touch"
    assert.matches("\nann: 62 names at the source, and its quota is 50", said())
    new:must "umount /srv/homes/ann"
    old:must "cd /srv/homes/ann && seq 60 | xargs rm"
  end)

  it("is not all that is said beforehand: so is how many copy at a time, for each engine and way", function()
    local function told(o)
      local text
      lab.must(function() text = check(servers:pair(o), "how many copy at a time") end)
      return text
    end
    assert.matches("^%d connections between the servers.* has enough$", told())
    assert.equal("3 workers at most, which share the rate", told { route = "operator", workers = 3, rate = 1e6 })
    assert.equal("2 homes, with a connection between the servers for each", told { engine = "rsync", workers = 2 })
  end)

  -- The kernel of a machine that runs specs may know no quotas; what these programs say is all that is gone by.
  local function stand_in(name, script)
    new:write("/usr/local/bin/" .. name, "#!/bin/sh\n" .. script)
    new:must("chmod 755 /usr/local/bin/" .. name)
  end

  local function repquota(users, groups)
    local report = [[
*** Report for %s quotas on device /dev/vdb
Block grace time: 7days; Inode grace time: 7days
                        Block limits                File limits
User            used    soft    hard  grace    used  soft  hard  grace
----------------------------------------------------------------------
#0        --      20       0       0      0       2     0     0     0
%s
]]
    stand_in("repquota", ([[
case "$*" in
  "-u -n -p -- $(stat -c %%m /srv)") cat <<'end'
%send
  ;;
  "-g -n -p -- $(stat -c %%m /srv)") cat <<'end'
%send
  ;;
  *) exit 1 ;;
esac
]]):format(users and report:format("user", users) or "", groups and report:format("group", groups) or ""))
  end

  local PLENTY = "#1001     --      20       0    2048      0       2     0     0     0\n#1002     --      20       0    2048      0       2     0     0     0"

  it("of a user or a group is compared with all homes that are mostly theirs", function()
    new:must "mount -t tmpfs -o mode=755 none /usr/local/bin"
    repquota(PLENTY, PLENTY)
    assert.is_nil(said())
    repquota "#1001     +-     600     500     512   7days   2     0     0     0\n#1002     --      20       0    2048      0       2     0     3     0"
    local text = said()
    assert.matches("2 quotas are too small", text)
    assert.matches("user 1001 %(ann%): 1%.0%d MB at the source, and the user's quota is 524 kB", text)
    assert.matches("user 1002 %(bob and 1 more%): 4 names at the source, and the user's quota is 3", text)
    repquota(PLENTY, "#1002     --       4       0      64      0       2     0     3     0\n"
      .. "#1001     --      20       0     512      0       2     0     0     0")
    text = said()
    assert.matches("a quota is too small", text)
    assert.matches("group 1002 %(bob and 1 more%): 4 names at the source, and the group's quota is 3", text)
    assert.falsy(text:find("1001", 1, true), text) -- her files are of root's group
    new:must "umount /usr/local/bin"
  end)

  it("of a project that several homes share is compared with all of them", function()
    new:must "mount -t tmpfs -o mode=755 none /usr/local/bin"
    for _, home in ipairs { "ann", "bob", "cyd" } do
      new:must(("mount -t tmpfs -o size=1200k quota /mnt && cp -a /srv/homes/%s/. /mnt && mount --move /mnt /srv/homes/%s"):format(home, home))
    end
    stand_in("lsattr", [[
[ "$1" = -pd ] || exit 1
case $3 in ./bob) id=0 ;; *) id=77 ;; esac
printf '%5d --------------e----P- %s\n' $id "$3"
]])
    assert.is_nil(said())
    old:must "head -c 500k /dev/urandom > /srv/homes/cyd/more"
    assert.matches("a quota is too small on nfs%-new, and will fail: .*\nproject 77 %(ann and 1 more%): 1%.5%d MB at the source, and its quota is 1%.23 MB",
      said())
    stand_in("lsattr", "echo 'lsattr: Operation not supported' >&2; exit 1\n")
    assert.is_nil(said())
    old:must "rm /srv/homes/cyd/more"
    new:must "umount /srv/homes/ann /srv/homes/bob /srv/homes/cyd /usr/local/bin"
  end)
end)

describe("what will not be the same on the target", function()
  local servers, old, new

  setup(function()
    servers = lab.servers()
    old, new = servers.old, servers.new
    old:must [[mkdir -p /srv/homes/ann/deep /srv/homes/bob && cd /srv/homes && echo name > ann/name && ln ann/name bob/name && ln ann/name /srv/elsewhere
      mkfifo ann/pipe && mknod ann/null c 1 3 && python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("ann/socket")'
      echo a > bob/Case && echo b > bob/case && touch bob/$(printf 'bad\377') bob/$(head -c 120 /dev/zero | tr '\0' n)
      setfattr -n user.a -v b ann/name && setfacl -m u:77:r bob/case && chown 7:8 ann/pipe]]
  end)

  teardown(function() servers:close() end)

  -- The rows of the table by what they are about.
  local function table_of(o)
    local rows, finding = {}, nil
    lab.must(function() finding = check(servers:pair(o), "what will not be the same") end)
    for _, row in ipairs(finding and finding.table.rows or {}) do
      assert.equal(#finding.table.columns, #row)
      rows[row[1]] = row
    end
    return rows, finding
  end

  it("is little where a file system of the usual kind is there", function()
    local rows, finding = table_of()
    assert.equal(1, rows.pipes[2])
    assert.equal("ann/pipe", rows.pipes[3])
    assert.equal("ann/null", rows.devices[3])
    assert.equal("ann/socket", rows.sockets[3])
    assert.equal("ann/name and bob/name", rows["hardlinks from home to home"][3])
    assert.is_nil(rows["names that differ in letter case only"])
    assert.is_nil(rows["names with xattrs"])
    assert.truthy(finding.text:find("1 pipes", 1, true), finding.text)
  end)

  it("is more where names are short, case is not told and attributes are not kept", function()
    new:must "mkdir -p /srv/kept /srv/poor/homes"
    local poor <close> = world.slowfs { from = "/srv/kept", at = "/srv/poor", machine = new, microseconds = 0, poor = true }
    new:must "mkdir -p /srv/poor/homes"
    local homes = { to = servers.to:dir "/srv/poor/homes" }
    local rows = table_of(homes)
    assert.equal(1, rows["names over 100 bytes"][2])
    assert.truthy(rows["names over 100 bytes"][3]:find("^bob/nnnn"))
    assert.equal("bob/case", rows["names that differ in letter case only"][3])
    assert.same({ 2, "ann/name" }, { rows["names with xattrs"][2], (rows["names with xattrs"][3]:gsub("bob/name", "ann/name")) })
    assert.equal("bob/case", rows["names with ACLs"][3])
    -- and so it comes: nothing is lost in silence
    local err = lab.live(function() servers:pair(homes):bulk() end)
    assert.truthy(err and err.message:find("bob: ", 1, true), err and err.message)
    assert.truthy(poor:calls())
  end)

  it("is whose files they are, where they are given to somebody else or cannot be", function()
    local rows = table_of { owner = "0:0" }
    assert.equal("7:8 1", rows["names of others than 0:0"][3])
    local plain = lab.place(new, { user = "rb-plain" })
    new:must "mkdir -p /srv/plain && chown rb-plain:rb-plain /srv/plain"
    rows = table_of { to = plain:dir "/srv/plain" }
    assert.truthy(rows["names of others than 4002:4002"][3]:find("7:8 1", 1, true))
    assert.truthy(rows.devices[4]:find("cannot make them", 1, true))
  end)

  it("is said as far as plain tools know it", function()
    local rows = table_of { engine = "rsync" }
    assert.equal(3, rows["pipes, sockets and devices"][2])
  end)

  it("stands in the plan, in the run, in JSON and in the receipts", function()
    local folder = world.folder "survival"
    local words = { OLD = old.name, NEW = new.name, CONFIG = world.ssh_config { old, new }, PROOF = folder .. "/receipts.json" }
    local source = ([[
-- Copy homes.
local rb = require "runbook"
local ssh = require "runbook.ssh"
local homes = require("runbook.sync").pair {
  from = ssh.host { OLD, config = CONFIG }:dir "/srv/homes", to = ssh.host { NEW, config = CONFIG }:dir "/srv/there" }
rb.checks("preflight", "Look first", homes:checks())
rb.step("copy", "Copy", function() homes:final() homes:verify() rb.attach(homes:receipts(), PROOF) end)
]]):gsub("%f[%u]%u%u%u+%f[%U]", function(word) return words[word] and ("%q"):format(words[word]) end)
    world.write(folder .. "/copy.lua", source)
    local function runbook(line)
      local text, code = world.sh(("%s %s %s/copy.lua --state %s/state --no-input 2>&1"):format(world.runbook, line, folder, folder))
      assert.equal(0, code, text)
      return text
    end
    local plan = runbook "plan"
    assert.truthy(plan:find("what +how many +example +what happens +what to do"), plan)
    assert.truthy(plan:find("pipes +1 +ann/pipe +made anew; nothing"), plan)
    local found
    for line in world.sh(("%s plan %s/copy.lua --json --no-input --state %s/state 2>/dev/null"):format(world.runbook, folder, folder)):gmatch "[^\n]+" do
      local record = json.decode(line)
      for _, one in ipairs(record.checks and record.checks.know or {}) do
        found = one.table or found
      end
    end
    assert.same({ "what", "how many", "example", "what happens", "what to do" }, found.columns)
    local run = runbook "run"
    assert.truthy(run:find("pipes +1 +ann/pipe"), run)
    local receipts = json.decode(world.read(folder .. "/receipts.json"))
    assert.equal(#found.rows, #receipts.not_kept)
    assert.same({ found.rows[1][1], found.rows[1][5] }, { receipts.not_kept[1].what, receipts.not_kept[1].advice })
  end)
end)
