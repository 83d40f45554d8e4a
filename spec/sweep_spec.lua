-- What sweep does besides obligations and jobs: what is known of pairs, and runs that only looked.

local core = require "runbook.core.file"
local effect = require "runbook.effect"
local place = require "runbook.place"
local runs = require "spec.support.runs"
local store = require "runbook.store"
local sweep = require "runbook.run".sweep
local sync = require "runbook.sync"
local world = require "spec.world"

local folder

local function ids()
  local list = {}
  for i, entry in ipairs(effect.own(core.list, store.root() .. "/pairs") or {}) do
    list[i] = entry.name
  end
  return list
end

-- All files of a pair as old as that.
local function age(id, days)
  world.must(("find %s/pairs/%s -exec touch -d '%d days ago' {} +"):format(store.root(), id, days))
end

local function left(seen, kind)
  local texts = {}
  for _, event in ipairs(runs.only(seen, "leftover")) do
    texts[#texts + 1] = event.kind == kind and event.text or nil
  end
  return texts
end

-- A copy from directory to directory of this machine, as a run of its own.
local function copy(tail)
  folder = world.folder "sweep"
  world.must(("mkdir -p %s/a/ann %s/b && echo 1 > %s/a/ann/one"):format(folder, folder, folder))
  runs.body = function()
    sync.pair({ from = place.here:dir(folder .. "/a"), to = place.here:dir(folder .. "/b") }):final()
    if tail then
      tail()
    end
  end
  package.preload.sweep_of_spec = function() return runs end
  local code, seen = runs.start [[
    local runs = require "sweep_of_spec"
    rb.step("copy", "Copy", function() runs.body() end)
  ]]
  assert(code == (tail and 1 or 0) and #ids() == 1, runs.last_error(seen))
end

describe("sweep", function()
  before_each(function() runs.fresh() end)
  after_each(function() runs.clean() end)

  it("forgets a pair 30 days after its last use, and says what and how much it is first", function()
    copy()
    local id = ids()[1]
    local _, seen = runs.watched(function() return sweep {} end)
    assert.same({}, left(seen, "pair"))
    age(id, 31)
    _, seen = runs.watched(function() return sweep { dry_run = true } end)
    assert.matches("what is known of here:.*/a %-> here:.*/b: .* last used 31 d ago; nobody used it", left(seen, "pair")[1])
    assert.same({ id }, ids())
    _, seen = runs.watched(function() return sweep {} end)
    assert.equal(1, #left(seen, "pair"))
    assert.same({}, ids())
  end)

  it("leaves what an open run has used, however old it is", function()
    copy(function() error "no" end)
    age(ids()[1], 300)
    runs.watched(function() return sweep {} end)
    assert.equal(1, #ids())
  end)

  it("forgets a pair when somebody else has copied there since, unless it was used just now", function()
    copy()
    world.write(folder .. "/b/.runbook/stamp", "0123456789abcdef closed\n")
    runs.watched(function() return sweep {} end)
    assert.equal(1, #ids())
    age(ids()[1], 2)
    local _, seen = runs.watched(function() return sweep {} end)
    assert.matches("somebody else has copied there since", left(seen, "pair")[1])
    assert.same({}, ids())
  end)

  it("leaves a young pair that bears our stamp, or whose target does not answer", function()
    copy()
    age(ids()[1], 2)
    runs.watched(function() return sweep {} end)
    assert.equal(1, #ids())
  end)

  it("closes runs that only looked, a week after they failed", function()
    assert.equal(1, (runs.start [[rb.step("look", "Look", function() error "there is nothing to see" end)]]))
    local name = store.list()[1].name
    runs.watched(function() return sweep {} end)
    assert.equal("failed", store.get(name).state)
    local j = store.journal(name)
    j:later { "UPDATE run SET changed = changed - ?", 8 * 86400 }
    j:commit()
    j:close()
    local _, seen = runs.watched(function() return sweep { dry_run = true } end)
    assert.matches("a run that only looked, failed 8 d ago", left(seen, "run")[1])
    assert.equal("failed", store.get(name).state)
    runs.watched(function() return sweep {} end)
    assert.equal("rolled-back", store.get(name).state)
    assert.same({}, store.open_runs())
    _, seen = runs.watched(function() return sweep {} end)
    assert.same({}, left(seen, "run"))
  end)

  it("leaves runs that changed something", function()
    assert.equal(1, (runs.start [[rb.step("make", "Make", function() toy.make "it" error "and no more" end)]]))
    local name = store.list()[1].name
    local j = store.journal(name)
    j:later { "UPDATE run SET changed = changed - ?", 80 * 86400 }
    j:commit()
    j:close()
    runs.watched(function() return sweep {} end)
    assert.equal("failed", store.get(name).state)
  end)
end)
