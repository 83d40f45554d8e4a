-- Pods that are told to end and do not, of a cluster that is plain data: what is said of them, and when it is given up.

local ending = require "runbook.hub.ending"
local errors = require "runbook.errors"
local events = require "runbook.events"
local task = require "runbook.task"

describe("a pod that does not end", function()
  local pods, nodes, hope, longest

  local hub = { name = "old/temple", namespace = "temple", cluster = {
    list = function() return pods end,
    find = function(_, o) return nodes[o.name] end,
    by_hand = function(_, argv) return "kubectl " .. table.concat(argv, " ") end,
  } }

  local function node(ready)
    return { status = { conditions = { { type = "MemoryPressure", status = "False" }, { type = "Ready", status = ready, message = "silent" } } } }
  end

  local function pod(state, finalizers)
    return { metadata = { name = "jupyter-ann", namespace = "temple", uid = "1", finalizers = finalizers, deletionGracePeriodSeconds = 0,
      deletionTimestamp = "2026-12-05T22:00:30Z" }, spec = { nodeName = "n1" }, status = { containerStatuses = { { state = state } } } }
  end

  before_each(function()
    hope, longest = ending.hope, ending.longest
    ending.hope = 0.01
    nodes = { n1 = node "True" }
  end)

  after_each(function() ending.hope, ending.longest = hope, longest end)

  local function failure(fn)
    local ok, err = pcall(ending.guarded, hub, "x=y", fn)
    assert.is_false(ok)
    assert.same({ "timeout", "EENDING" }, errors.is(err) and { err.kind, err.code } or tostring(err))
    return err
  end

  local function ever()
    task.sleep(1000)
  end

  it("is named with its finalizer, since when, and how that is taken off", function()
    pods = { pod({ terminated = {} }, { "a.example/hold", "b.example/hold" }) }
    local err = failure(ever)
    assert.equal("pod jupyter-ann does not end: it is Terminating since 2026-12-05T22:00:30Z; nothing of it runs any more, and its "
      .. "finalizer a.example/hold, b.example/hold keeps it", err.message)
    assert.truthy(err.hint:find("kubectl -n temple patch pod jupyter-ann --type json", 1, true), err.hint)
  end)

  it("was told when its time began, not when that ended", function()
    pods = { pod({ terminated = {} }, { "a.example/hold" }) }
    pods[1].metadata.deletionGracePeriodSeconds = 0.02
    pods[1].metadata.deletionTimestamp = "2026-12-05T22:01:00Z"
    assert.truthy(failure(ever).message:find("since 2026-12-05T22:00:59Z", 1, true))
  end)

  it("is left alone where its node is silent or gone: that may still write", function()
    for _, case in ipairs { { node "Unknown", "its node n1 is not ready: silent" }, { nil, "its node n1 is gone" } } do
      pods, nodes = { pod({ running = {} }, { "a.example/hold" }) }, { n1 = case[1] }
      local err = failure(ever)
      assert.truthy(err.message:find(case[2], 1, true), err.message)
      assert.truthy(err.hint:find("kubectl describe node n1", 1, true), err.hint)
    end
  end)

  it("is said once and waited for while it still runs", function()
    pods = { pod { running = {} } }
    local said = {}
    local stop = events.subscribe(function(e) said[#said + 1] = e.type == "notice" and e.text or nil end)
    ending.guarded(hub, "x=y", function()
      while #said == 0 do
        task.sleep(0.01)
      end
      task.sleep(0.1)
      pods = {}
      ending.wait(hub, "x=y")
    end)
    stop()
    assert.equal(1, #said)
    assert.truthy(said[1]:find("pod jupyter-ann does not end: it is Terminating since 2026-12-05T22:00:30Z; it still runs", 1, true), said[1])
  end)

  it("is given up in the end, and others are told to end meanwhile", function()
    ending.longest = 0.9
    ending.hope = 1000
    local other = pod { running = {} }
    other.metadata.deletionTimestamp = nil
    pods = { other }
    local told = 0
    local err = failure(function()
      ending.wait(hub, "x=y", function(one)
        told = told + 1
        assert.equal(other, one)
      end)
    end)
    assert.equal(1, told)
    assert.matches("^1 pod still not ended after .+: jupyter%-ann$", err.message)
  end)
end)
