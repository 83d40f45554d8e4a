-- Bad luck with an API server, as only a fake one has it when asked.

local clusters = require "spec.support.clusters"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local json = require "runbook.json"
local kube = require "runbook.kube"
local reads = require "runbook.kube.reads"
local retry = require "runbook.retry"
local runs = require "spec.support.runs"
local task = require "runbook.task"
local world = require "spec.world"

local function complaint(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  assert.is_true(errors.is(err), tostring(err))
  return err
end

local function notices(fn)
  local seen = {}
  local stop = events.subscribe(function(e) seen[#seen + 1] = e.type == "notice" and e.text or nil end)
  local ok, err = pcall(fn)
  stop()
  if not ok then
    error(err, 0)
  end
  return table.concat(seen, "\n")
end

local function config_map(namespace, name, data)
  return { apiVersion = "v1", kind = "ConfigMap", metadata = { name = name, namespace = namespace }, data = data }
end

local peer, c, fake, ns, delay

setup(function()
  peer = clusters.fake()
  c, fake, ns = peer.cluster, peer.fake, peer:namespace "faults"
  delay, retry.longest_delay = retry.longest_delay, 0.05
end)

teardown(function()
  retry.longest_delay = delay
  peer:close()
end)

before_each(function() fake:tell "clear" end)

-- How many requests with such a line there were while `fn` ran.
local function asked(pattern, fn)
  local before = #fake:requests()
  fn()
  local n = 0
  for i, line in ipairs(fake:requests()) do
    n = n + (i > before and line:find(pattern) and 1 or 0)
  end
  return n
end

describe("An API server that", function()
  it("asks to come again later is asked again, for changes too", function()
    fake:tell("fault", { match = "^GET .*/configmaps", status = 429, headers = { ["Retry-After"] = "0" }, times = 2 })
    assert.equal(3, asked("^GET .*configmaps", function() c:list { "cm", namespace = ns } end))
    fake:tell("fault", { match = "^POST .*/configmaps", status = 429, reason = "TooManyRequests", headers = { ["Retry-After"] = "0" }, times = 2 })
    assert.equal(3, asked("^POST", function() c:create(config_map(ns, "late", {})) end))
    fake:tell("fault", { match = "^PATCH", status = 503, times = 1, reason = "ServiceUnavailable" })
    assert.equal("1", c:patch({ "cm", "late", namespace = ns, merge = { data = { a = "1" } } }).data.a)
    fake:tell("fault", { match = "^GET", status = 429, times = 99, message = "too many, really" })
    local err = complaint(c.get, c, { "cm", "late", namespace = ns })
    assert.equal("busy", err.kind)
    assert.equal(retry.same_error, err.tries)
    assert.matches("too many, really", err.message)
  end)

  it("fails inside is asked again only where that helps and does no harm", function()
    c:apply(config_map(ns, "inside", {}))
    fake:tell("fault", { match = "^GET", status = 500, reason = "InternalError", message = "etcdserver: leader changed", times = 2 })
    assert.is_table(c:get { "cm", "inside", namespace = ns })
    fake:tell("fault", { match = "^GET", status = 500, reason = "InternalError", message = "a bug" })
    assert.equal("unknown", complaint(c.get, c, { "cm", "inside", namespace = ns }).kind)
    fake:tell("fault", { match = "^PATCH", status = 500, reason = "InternalError", message = "etcdserver: request timed out" })
    local err
    assert.equal(1, asked("^PATCH", function() err = complaint(c.patch, c, { "cm", "inside", namespace = ns, merge = { data = { a = "1" } } }) end))
    assert.equal("lost", err.kind)
    fake:tell("fault", { match = "^GET", status = 502, body = "<html>bad gateway</html>", times = 1 })
    assert.is_table(c:get { "cm", "inside", namespace = ns })
    fake:tell("fault", { match = "^DELETE", status = 413 })
    assert.equal("limit", complaint(c.delete, c, { "cm", "inside", namespace = ns }).kind)
  end)

  it("hangs up in the middle is asked again for reads, and said to be lost for changes", function()
    c:apply(config_map(ns, "cut", {}))
    fake:tell("fault", { match = "^GET", cut = true, times = 2 })
    assert.is_table(c:get { "cm", "cut", namespace = ns })
    fake:tell("fault", { match = "^PATCH", cut = true, times = 1 })
    local err
    assert.equal(0, asked("^PATCH", function() -- the one that was cut is not written down
      err = complaint(c.patch, c, { "cm", "cut", namespace = ns, merge = { data = { a = "1" } } })
    end))
    assert.equal("lost", err.kind)
  end)

  it("no longer takes our token is asked with a new one, or says so", function()
    fake:tell("fault", { match = "^GET", status = 401, reason = "Unauthorized", message = "Unauthorized" })
    local err = complaint(c.get, c, { "cm", "x", namespace = ns })
    assert.equal("auth", err.kind)
    assert.matches("log in again", err.hint)
  end)

  it("warns is heard, once", function()
    local said = notices(function()
      for _ = 1, 2 do
        fake:tell("fault", { match = "^GET .*ingresses", status = 200, body = { kind = "IngressList", apiVersion = "v1", metadata = {}, items = {} },
          headers = { Warning = '299 - "extensions is \\"old\\""' } })
        c:list { "Ingress", namespace = ns }
      end
    end)
    assert.matches('fake: extensions is "old"', said, 1, true)
    assert.equal(1, select(2, said:gsub("is \"old\"", "")))
  end)

  it("has a group that is down still has all the others", function()
    local other <close> = world.fake_kube()
    other:tell("fault", { name = "plain discovery" })
    other:tell("fault", { match = "^GET /apis/batch/v1 ", status = 503, times = 99 })
    local cluster = kube.cluster { kubeconfig = other.kubeconfig }
    retry.same_error = 2
    finally(function() retry.same_error = 10 end)
    assert.equal(0, #cluster:list { "Deployment", all_namespaces = true })
    assert.matches("these groups did not answer: batch/v1", complaint(cluster.list, cluster, { "Job" }).hint)
  end)
end)

describe("Somebody else who", function()
  it("changes what a patch touches is a conflict, and elsewhere is none", function()
    c:apply(config_map(ns, "shared", { mine = "1", theirs = "1" }))
    local function meanwhile(patch)
      fake:tell("fault", { match = "^PATCH .*configmaps/shared", times = 1,
        meanwhile = { plural = "configmaps", name = "shared", namespace = ns, patch = patch } })
    end
    meanwhile { data = { theirs = "2" } }
    assert.equal("2", c:patch({ "cm", "shared", namespace = ns, merge = { data = { mine = "2" } } }).data.mine)
    meanwhile { data = { mine = "X" } }
    local err = complaint(c.patch, c, { "cm", "shared", namespace = ns, merge = { data = { mine = "3" } } })
    assert.equal("conflict", err.kind)
    assert.matches("somebody changed what this patch touches: data.mine X, it was data.mine 2", err.message, 1, true)
    meanwhile { data = { mine = "Y" } }
    err = complaint(c.patch, c, { "cm", "shared", namespace = ns, json = { { op = "replace", path = "/data/mine", value = "3" } } })
    assert.equal("conflict", err.kind)
    assert.equal("Y", c:get({ "cm", "shared", namespace = ns }).data.mine)
  end)

  it("may not try things out gets a plan all the same", function()
    c:apply(config_map(ns, "trial", { a = "1" }))
    for _, refusal in ipairs { { status = 403, reason = "Forbidden", message = "no" },
      { status = 400, reason = "BadRequest", message = "admission webhook does not support dry run" } } do
      refusal.match, refusal.times = "dryRun", 9
      fake:tell("fault", refusal)
      local d = effect.find "kube.apply"
      assert.same({ before = "data.a 1", after = "data.a 2" },
        effect.reading(d.preview, c, config_map(ns, "trial", { a = "2" }), {}))
      local undo = effect.reading(d.inverse, c, config_map(ns, "trial", { a = "2" }), {})
      assert.same({ data = { a = "1" } }, undo[5])
      fake:tell "clear"
    end
  end)
end)

describe("A list whose place the server forgets", function()
  local page

  setup(function()
    page, reads.page = reads.page, 4
    fake:tell("make", { count = 15, namespace = ns, size = 5 })
  end)

  teardown(function() reads.page = page end)

  local function names_with(fault)
    local seen, twice, told = {}, 0, 0
    c:each({ "ConfigMap", namespace = ns }, function(object)
      local name = object.metadata.name
      twice = twice + (seen[name] and 1 or 0)
      seen[name] = true
      told = told + 1
      if told == 6 then
        fake:tell("compact")
        if fault then
          fake:tell("fault", fault)
        end
      end
    end)
    local n = 0
    for name in pairs(seen) do
      n = n + (name:find "^made%-" and 1 or 0)
    end
    return n, twice
  end

  it("begins again, and gives nothing twice", function()
    local n, twice = names_with()
    assert.same({ 15, 0 }, { n, twice })
  end)

  it("goes on from where the server says, where it does", function()
    local n, twice = names_with { name = "fresh" }
    assert.same({ 15, 0 }, { n, twice })
  end)

  it("and goes on forgetting, is given up", function()
    fake:tell("fault", { match = "continue=", status = 410, reason = "Expired", times = 99 })
    local err = complaint(c.list, c, { "cm", namespace = ns })
    assert.equal("missing", err.kind)
    assert.equal("Expired", err.code)
  end)
end)

describe("A watch", function()
  -- Every object as the watch has told of it, through whatever `happens(step)` does to it.
  local function follow(space, steps)
    local known, told, step = {}, {}, 0
    c:watch({ "ConfigMap", namespace = space, timeout = 60 }, function(event, object)
      told[#told + 1] = event .. (object and " " .. object.metadata.name or "")
      if event == "DELETED" then
        known[object.metadata.name] = nil
      elseif object then
        known[object.metadata.name] = object.data and object.data.n or "?"
      end
      if event == "SYNCED" or object and object.metadata.name:find "^go" then
        step = step + 1
        return steps[step](known)
      end
    end)
    return known, told
  end

  it("goes on where it was when the connection is cut, torn, or ended", function()
    local space = peer:namespace "cuts"
    local steps = {}
    for i, how in ipairs { "cut", "torn", "bookmark" } do
      steps[i] = function()
        fake:tell("watches", { how = how })
        c:create(config_map(space, "go" .. i, {}))
      end
    end
    steps[4] = function() return true end
    local _, told = follow(space, steps)
    assert.same({ "SYNCED", "ADDED go1", "ADDED go2", "ADDED go3" }, told)
  end)

  it("finds what it has missed when the server has forgotten where it was", function()
    local space = peer:namespace "forgets"
    for _, name in ipairs { "stays", "changes", "leaves" } do
      c:create(config_map(space, name, { n = "0" }))
    end
    local function behind_its_back(how)
      return function()
        fake:tell("fault", { match = "watch=1", status = 503, times = 2 }) -- nobody looks meanwhile
        fake:tell("watches", { how = how })
        if how == "expired" then
          c:patch { "cm", "changes", namespace = space, merge = { data = { n = "1" } } }
          c:request { method = "DELETE", path = ("/api/v1/namespaces/%s/configmaps/leaves"):format(space) }
          c:create(config_map(space, "go-on", {}))
        else
          c:create(config_map(space, "go-further", {}))
        end
        fake:tell "compact"
      end
    end
    local known, told = follow(space, { behind_its_back "expired", behind_its_back "cut", function() return true end })
    table.sort(told)
    assert.same({ "ADDED changes", "ADDED go-further", "ADDED go-on", "ADDED leaves", "ADDED stays", "DELETED leaves", "MODIFIED changes",
      "SYNCED" }, told)
    assert.same({ stays = "0", changes = "1", ["go-on"] = "?", ["go-further"] = "?" }, known)
  end)

  it("loses no event among thousands, whatever cuts it", function()
    local space = peer:namespace "many"
    fake:tell("make", { count = 200, namespace = space, size = 100 })
    local last, total, final = {}, 0, 0
    local cutter
    c:watch({ "ConfigMap", namespace = space, timeout = 120 }, function(event, object)
      if event == "SYNCED" then
        fake:tell("churn", { count = 3000, rate = 2000, objects = 200, namespace = space })
        cutter = task.spawn(function()
          for i = 1, 8 do
            task.sleep(0.15)
            fake:tell("watches", { how = ({ "cut", "torn", "expired", "bookmark" })[i % 4 + 1] })
          end
        end)
      elseif event == "MODIFIED" then
        local n = tonumber(object.data.n)
        assert.is_true(n > (last[object.metadata.name] or -1), "an event came twice, or out of order")
        last[object.metadata.name], total, final = n, total + 1, final + (n >= 2800 and 1 or 0)
        return final == 200 and true or nil
      end
    end)
    task.join(cutter)
    for i = 0, 199 do
      assert.equal(2800 + i, last["made-" .. i])
    end
    assert.is_true(total <= 3000)
  end)

  it("that can never be is given up with what the server says", function()
    fake:tell("fault", { match = "watch=1", status = 403, reason = "Forbidden", message = "no watching" })
    assert.equal("refused", complaint(c.watch, c, { "cm", namespace = ns }, function() end).kind)
    fake:tell("fault", { match = "watch=1", status = 503, times = 99, message = "gone fishing" })
    local err = complaint(c.watch, c, { "cm", namespace = ns }, function() end)
    assert.equal("busy", err.kind)
    assert.matches("gone fishing", err.message)
  end)
end)

describe("A log that is followed", function()
  it("goes on after a cut, each line once", function()
    c:apply { apiVersion = "v1", kind = "Pod", metadata = { name = "talks", namespace = ns }, spec = { containers = { {
      name = "c", image = "busybox", command = { "sh", "-c", "echo one; echo two; echo three; echo four; sleep 1000" } } } } }
    fake:tell("fault", { name = "break logs", lines = 2, times = 1 })
    fake:tell("fault", { name = "break logs", lines = 3, times = 1 })
    local lines = {}
    assert.equal("end", c:logs { "talks", namespace = ns, follow = true, timeout = 60, on_line = function(line)
      lines[#lines + 1] = line
      return line == "four" and "end" or nil
    end })
    assert.same({ "one", "two", "three", "four" }, lines)
  end)
end)

describe("A cluster", function()
  it("is the one whose uid was written down, or no request is made", function()
    local uid = c:uid()
    local right = kube.cluster { kubeconfig = peer.kubeconfig, cluster = uid }
    assert.equal(uid, right:identity())
    local other <close> = world.fake_kube()
    local wrong = kube.cluster { kubeconfig = other.kubeconfig, cluster = uid }
    local err = complaint(wrong.list, wrong, { "cm", namespace = ns })
    assert.equal("identity", err.kind)
    assert.matches(("and %s is pinned"):format(uid), err.message, 1, true)
    for _, line in ipairs(other:requests()) do
      assert.is_truthy(line:find("/namespaces/kube-system ", 1, true) or line:find("/fake/", 1, true), line)
    end
    local someone = peer:as_someone(ns, {})
    assert.matches("^https://127", someone:identity()) -- who may not read kube-system knows its server at least
  end)

  it("is a parameter: a context, or a map with its uid", function()
    local types = require "runbook.types"
    local at = { path = "old", base = "/base", problems = {} }
    function at:below(key) return setmetatable({ path = key }, { __index = self }) end
    function at:problem(message) self.problems[#self.problems + 1] = ("%s: %s"):format(self.path, message) end
    function at:missing(help) self:problem("missing: " .. help) end
    local type_ = types.find "cluster"
    assert.equal("temple-eks", tostring(type_.parse("temple-eks", at)))
    local made = type_.parse({ context = "x", cluster = c:uid(), kubeconfig = "clusters.yaml" }, at)
    assert.same({ kind = "kube", context = "x", cluster = c:uid(), kubeconfig = "/base/clusters.yaml" }, made:reference())
    assert.same({}, at.problems)
    type_.parse({ contxt = "x" }, at)
    type_.parse({ context = "x", cluster = "temple" }, at)
    type_.parse(json.object {}, at)
    assert.matches("did you mean `context`", at.problems[1])
    assert.matches("a uid like .*kubectl get namespace kube%-system", at.problems[2])
    assert.matches("missing", at.problems[3])
    assert.matches("a context is expected", select(2, type_.parse(12, at)))
  end)
end)

describe("A plan", function()
  it("shows what is there and what will be, waits for nothing, and changes nothing", function()
    local space = peer:namespace "plan"
    c:apply { config_map(space, "page", { open = "yes" }), { apiVersion = "apps/v1", kind = "Deployment",
      metadata = { name = "hub", namespace = space }, spec = { replicas = 1, selector = { matchLabels = { a = "b" } },
        template = { metadata = { labels = { a = "b" } }, spec = { containers = { { name = "c", image = "busybox", command = { "sleep", "9" } } } } } } } }
    runs.fresh()
    finally(runs.clean)
    local book = runs.load(([[
      local kube = require "runbook.kube"
      local old = kube.cluster { kubeconfig = "%s" }
      rb.step("close", "Close it", function()
        old:scale { "Deployment", "hub", namespace = "%s", replicas = 0 }
        old:wait { "Deployment", "hub", namespace = "%s" }
        old:apply { apiVersion = "v1", kind = "ConfigMap", metadata = { name = "page", namespace = "%s" }, data = { open = "no" } }
        old:delete { "ConfigMap", "page", namespace = "%s" }
        old:delete { "Namespace", "%s" }
      end)
      local name = rb.step("name", "Choose a name", function()
        old:create { apiVersion = "v1", kind = "ConfigMap", metadata = { name = "made", namespace = "%s" } }
        return old:get({ "ConfigMap", "made", namespace = "%s" }).metadata.uid
      end)
      rb.step("use", "Use it", function()
        old:scale { "Deployment", name, namespace = "%s", replicas = 0 }
      end)
    ]]):format(peer.kubeconfig, space, space, space, space, space, space, space, space))
    local version = c:get({ "cm", "page", namespace = space }).metadata.resourceVersion
    local made = require("runbook.plan").make(book, {})
    local entry = made.steps[1]
    assert.is_nil(entry.would_stop, entry.would_stop)
    assert.same({ "kube.scale", "kube.apply", "kube.delete", "kube.destroy" }, { entry.changes[1].verb, entry.changes[2].verb,
      entry.changes[3].verb, entry.changes[4].verb })
    assert.equal("replicas 1", entry.changes[1].before)
    assert.equal("data.open no", entry.changes[2].after)
    assert.equal(("kubectl --kubeconfig %s -n %s scale Deployment hub --replicas 0"):format(peer.kubeconfig, space), entry.changes[1].by_hand)
    assert.same({ "yes", "yes", "yes", "no" }, { entry.changes[1].undo, entry.changes[2].undo, entry.changes[3].undo, entry.changes[4].undo })
    assert.equal("destroy", entry.changes[4].class)
    assert.same({ ("wait until Deployment hub in %s is ready"):format(space) }, entry.waits)
    assert.equal(version, c:get({ "cm", "page", namespace = space }).metadata.resourceVersion)
    assert.same({ false, true }, { entry.changes[1].tilde, entry.changes[2].tilde }) -- what comes of a wait nobody knows
    assert.matches("the rest depends on changes a plan does not make", made.steps[2].ended)
    assert.matches("`2` is «.*name.*», which only a run can know", made.steps[3].ended)
  end)
end)
