-- What will not be the same on the target is told before it is copied, in one table: for people, as JSON, in the receipts.

local lab = require "spec.support.lab"
local world = require "spec.world"

local json = require "runbook.json"

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

  local function check(homes)
    for _, one in ipairs(homes:checks()) do
      if one[1] == "what will not be the same" then
        return one[2]()
      end
    end
  end

  -- The rows of the table by what they are about.
  local function table_of(o)
    local rows, finding = {}, nil
    lab.must(function() finding = check(servers:pair(o)) end)
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
