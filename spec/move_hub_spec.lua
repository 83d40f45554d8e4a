-- runbooks/move-hub.lua by the command: a real hub with people on it goes from one real cluster to another, and comes back.

local command = require "spec.support.command"
local lab = require "spec.support.lab"
local world = require "spec.world"

describe("move-hub.lua", function()
  local move, folder

  setup(function()
    move = world.moving { users = 6, running = 2 }
    folder = command.folder { ["temple.yaml"] = move:parameters() }
  end)

  teardown(function() move:close() end)

  local function runbook(...)
    return command.run(folder, { ... })
  end

  local function must(...)
    local r = runbook(...)
    assert.equal(0, r.code, r.err .. r.out)
    return r.out .. r.err
  end

  it("plans everything and touches nothing", function()
    local shown = must("plan", "move-hub.lua", "--params", "temple.yaml")
    for _, text in ipairs { "0 stop", "freeze", "open" } do
      assert.truthy(shown:find(text, 1, true), text .. " is missing from\n" .. shown)
    end
  end)

  it("moves", function()
    local r = runbook("run", "move-hub.lua", "--params", "temple.yaml", "--no-input", "--confirm", "freeze=temple", "--confirm", "open=temple",
      "--done", "announce=spec")
    print(r.err, r.out)
    assert.equal(0, r.code)
    assert.equal(move.new.cluster.front, move:address())
    assert.equal("", lab.difference(move.from, "/srv/homes/temple", move.to, "/srv/homes/prod"))
  end)
end)
