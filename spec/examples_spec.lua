-- Every example is run as its header says, between real servers.

local book = require "runbook.book"
local command = require "spec.support.command"
local world = require "spec.world"

local binary = world.must("realpath " .. world.runbook)

describe("the examples", function()
  local machines, config

  setup(function()
    machines = {}
    for i = 1, 3 do
      machines[i] = world.sshd { name = "web-" .. i }
    end
    config = world.ssh_config(machines)
  end)

  teardown(function()
    for _, machine in ipairs(machines) do
      machine:close()
    end
  end)

  local function example(words, files)
    local folder = command.folder(files)
    world.must(("cp examples/*.lua examples/*.yaml runbooks/*.lua %s"):format(folder))
    return command.run(folder, words, { env = { RUNBOOK_SSH_CONFIG = config } }), folder
  end

  it("run a command on all hosts, and say once what several of them say", function()
    local r = example { "run", "on-all-hosts.lua", "-p", "hosts=web-1,web-2,web-3", "-p",
      "command=echo all is well; test $(uname -n) != web-2" }
    assert.equal(1, r.code, r.err)
    local _, times = r.err:gsub("all is well\n", "")
    assert.equal(1, times, r.err)
    assert.truthy(r.err:find("web-[1-3]", 1, true), r.err)
    assert.truthy(r.err:find("1 of 3 failed", 1, true), r.err)
    assert.truthy(r.err:find("web-2", 1, true))
  end)

  it("copy a directory between two servers, and prove it", function()
    local old, new = machines[1], machines[2]
    world.homes(old:path "/srv/models", { homes = 4, files = 60 })
    new:must "mkdir -p /srv/models"
    local r = example { "run", "copy-directory.lua", "-p", "from=web-1:/srv/models", "-p", "to=web-2:/srv/models" }
    assert.equal(0, r.code, r.err)
    assert.equal("", world.tree_difference(old:path "/srv/models", new:path "/srv/models", { "lost+found", ".runbook" }))
    assert.truthy(r.err:find("5 of 5 homes are the same on both ends", 1, true), r.err)
  end)

  it("post to a webhook what is nearly full, with a secret nobody sees", function()
    local web = world.httpd()
    local words = { "run", "post-webhook.lua", "-p", "disks=/,web-3:/srv", "-p", "webhook=" .. web.url .. "/echo", "-p", "token=file:token",
      "-p", "least=101" }
    local r, folder = example(words, { token = "open sesame and more\n" })
    assert.equal(0, r.code, r.err)
    assert.truthy(r.err:find("2 of 2 disks are nearly full", 1, true), r.err)
    local state = world.sh("grep -rl 'open sesame' " .. folder .. "/state")
    assert.equal("", state)
    words[#words] = "least=0"
    assert.truthy(example(words, { token = "open sesame and more\n" }).err:find("0 of 2 disks are nearly full", 1, true))
  end)

  it("give nfs-move.lua a parameter file that it understands", function()
    local folder = command.folder()
    local function load(text)
      world.write(folder .. "/homes.yaml", text)
      return pcall(book.load, "nfs-move.lua", { files = { folder .. "/homes.yaml" } })
    end
    local text = world.read "examples/temple-homes.yaml"
    local ok, loaded = load(text)
    assert.truthy(ok, tostring(loaded))
    assert.equal("/export/home-01/homes/temple", loaded.values.from.path)
    assert.equal(7200, loaded.values.window)
    for _, line in ipairs { "rate: fast", "owner: nobody", "windw: 2h", "exclude: 3" } do
      local name = line:match "^%l+"
      local good, err = load(text:gsub("\n" .. name .. ":[^\n]*", "") .. line .. "\n")
      assert.truthy(not good and tostring(err):find(name, 1, true), line)
    end
  end)

  it("give move-names.lua a parameter file that it understands", function()
    local ok, loaded = pcall(book.load, "examples/move-names.lua", { files = { "examples/names.yaml" }, sets = { "to=lb.example.net" } })
    assert.truthy(ok, tostring(loaded))
    assert.equal("uni.example", loaded.values.dns.zone)
    assert.equal("hmac-sha256", loaded.values.dns.key.algorithm)
  end)

  it("show as documents", function()
    for _, name in ipairs { "on-all-hosts", "copy-directory", "move-names", "post-webhook" } do
      local out, code = world.sh(("%s view examples/%s.lua"):format(binary, name))
      assert.equal(0, code, out)
    end
  end)
end)
