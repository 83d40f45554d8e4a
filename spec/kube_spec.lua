-- What there is in a cluster, and how it changes: the same of a real and of a fake one. The real one is of world.kube.

local clusters = require "spec.support.clusters"
local discovery = require "runbook.kube.discovery"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local happened = require "runbook.kube.events"
local json = require "runbook.json"
local kube = require "runbook.kube"
local lease = require "runbook.kube.lease"
local reads = require "runbook.kube.reads"
local runs = require "spec.support.runs"
local secret = require "runbook.secret"
local task = require "runbook.task"
local time = require "runbook.core.time"
local wait = require "runbook.kube.wait"

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

-- What a verb would do to undo this, asked before it is done.
local function inverse(name, ...)
  return effect.reading(effect.find(name).inverse, ...)
end

local function preview(name, ...)
  return effect.reading(effect.find(name).preview, ...)
end

local function config_map(namespace, name, data, labels)
  return { apiVersion = "v1", kind = "ConfigMap", metadata = { name = name, namespace = namespace, labels = labels }, data = data }
end

local function deployment(peer, namespace, name, command, image)
  return { apiVersion = "apps/v1", kind = "Deployment", metadata = { name = name, namespace = namespace }, spec = {
    replicas = 1, selector = { matchLabels = { app = name } }, template = { metadata = { labels = { app = name } }, spec = {
      terminationGracePeriodSeconds = 0, containers = { { name = "c", image = image or peer.image, command = { "sh", "-c", command } } } } } } }
end

local function names_of(list)
  local names = {}
  for i, object in ipairs(list) do
    names[i] = object.metadata.name
  end
  table.sort(names)
  return table.concat(names, " ")
end

local peers = {}

setup(function()
  for name, start in pairs(clusters.both) do
    peers[name] = start()
  end
end)

teardown(function()
  for _, peer in pairs(peers) do
    peer:close()
  end
end)

for peer_name in pairs(clusters.both) do
  describe("In " .. peer_name .. ",", function()
    local peer, c, ns

    setup(function()
      peer = peers[peer_name]
      c = peer.cluster
      ns = peer:namespace "objects"
    end)

    it("kinds are found by every name they have, those of CRDs too", function()
      for word, api in pairs { Deployment = "apps/v1", deploy = "apps/v1", ["deployments.apps"] = "apps/v1", ["Pod.v1"] = "v1", po = "v1",
        ["deployments.v1.apps"] = "apps/v1", Lease = "coordination.k8s.io/v1", ingress = "networking.k8s.io/v1" } do
        assert.equal(api, effect.reading(discovery.find, c, word).api, word)
      end
      local err = complaint(c.list, c, { "Deploymnt" })
      assert.equal("missing", err.kind)
      assert.matches("it has no kind `Deploymnt`; did you mean `Deployment`?", err.message, 1, true)
      assert.matches("no kind `Deployment` in apps/v9", complaint(c.get, c, { "Deployment", "x", api = "apps/v9" }).message)
      local again = discovery.again_seconds
      discovery.again_seconds = 0
      finally(function()
        discovery.again_seconds = again
        c:delete { "CustomResourceDefinition", "hubs.runbook.example" }
      end)
      c:apply { apiVersion = "apiextensions.k8s.io/v1", kind = "CustomResourceDefinition", metadata = { name = "hubs.runbook.example" },
        spec = { group = "runbook.example", scope = "Namespaced", names = { plural = "hubs", singular = "hub", kind = "Hub" },
          versions = { { name = "v1", served = true, storage = true,
            schema = { openAPIV3Schema = { type = "object", ["x-kubernetes-preserve-unknown-fields"] = true } } } } } }
      c:wait { "crd", "hubs.runbook.example", condition = "Established", timeout = 30 }
      c:apply { apiVersion = "runbook.example/v1", kind = "Hub", metadata = { name = "temple", namespace = ns }, spec = { users = 841 } }
      assert.equal(841, c:get({ "hub", "temple", namespace = ns }).spec.users)
      assert.equal(842, c:patch({ "Hub", "temple", namespace = ns, merge = { spec = { users = 842 } } }).spec.users)
      assert.equal("usage", complaint(c.patch, c, { "Hub", "temple", namespace = ns, strategic = { spec = { users = 1 } } }).kind)
    end)

    it("objects are got one by one, or said to be missing", function()
      c:create(config_map(ns, "one", { a = "1" }))
      assert.equal("1", c:get({ "ConfigMap", "one", namespace = ns }).data.a)
      local err = complaint(c.get, c, { "cm", "two", namespace = ns })
      assert.equal("missing", err.kind)
      assert.equal("NotFound", err.code)
      assert.is_nil(c:find { "cm", "two", namespace = ns })
      assert.matches("cluster:get: which ConfigMap", complaint(c.get, c, { "ConfigMap" }).message)
      assert.matches("did you mean `namespace`", complaint(c.get, c, { "ConfigMap", "one", namspace = ns }).message)
      assert.equal("conflict", complaint(c.create, c, config_map(ns, "one", {})).kind)
      assert.matches("generateName is not", complaint(c.create, c, { apiVersion = "v1", kind = "ConfigMap",
        metadata = { generateName = "x-" } }).hint)
    end)

    it("many objects come page by page, each once", function()
      local space, page = peer:namespace "pages", reads.page
      reads.page = 3
      finally(function() reads.page = page end)
      for i = 1, 10 do
        c:create(config_map(space, "cm-" .. i, {}, { odd = tostring(i % 2 == 1) }))
      end
      local seen = {}
      c:each({ "ConfigMap", namespace = space, labels = { odd = "true" } }, function(object)
        assert.equal("ConfigMap", object.kind)
        seen[#seen + 1] = object
      end)
      assert.equal("cm-1 cm-3 cm-5 cm-7 cm-9", names_of(seen))
      assert.equal(5, #c:list { "ConfigMap", namespace = space, labels = "odd=false" })
      assert.equal("cm-7", names_of(c:list { "cm", namespace = space, fields = { ["metadata.name"] = "cm-7" } }))
      local taken = 0
      assert.equal("enough", c:each({ "cm", namespace = space }, function()
        taken = taken + 1
        return taken == 4 and "enough" or nil
      end))
      assert.equal(4, taken)
      assert.is_true(#c:list { "cm", all_namespaces = true } >= 10)
    end)

    it("what a Secret holds never comes as text, unless it is asked for", function()
      local token = secret.new("a token", "very-hush-hush")
      c:apply { apiVersion = "v1", kind = "Secret", metadata = { name = "hub", namespace = ns },
        data = { token = token }, stringData = { other = "in the open", more = secret.new("more", "hush-again") } }
      local object = c:get { "Secret", "hub", namespace = ns }
      assert.equal("«secret:hub/token»", tostring(object.data.token))
      assert.is_nil(object.metadata.annotations)
      assert.error(function() json.encode(object) end)
      local key = "0123456789abcdef"
      assert.equal(secret.digest(token, key), secret.digest(object.data.token, key))
      local listed = c:list({ "Secret", namespace = ns, fields = { ["metadata.name"] = "hub" } })[1]
      assert.equal(secret.digest(token, key), secret.digest(listed.data.token, key))
      local shown = c:get { "Secret", "hub", namespace = ns, plain = { "other", "more" } }
      assert.equal("in the open", shown.stringData.other)
      assert.equal("hush-again", shown.stringData.more)
      assert.is_nil(shown.data.other)
      local err = complaint(c.apply, c, config_map(ns, "leak", { a = token }))
      assert.matches("a secret may stand in `data` of a Secret and nowhere else", err.message)
      local run = { "kube.patch", c, { kind = "Secret", name = "hub", namespace = ns, merge = { stringData = { token = "new" } }, patch_kind = "merge" } }
      local undo = inverse(table.unpack(run))
      assert.equal("kube.put_back_kept", undo[1])
      assert.same({ before = "data.other as it is, data.token as it is", after = "data.other another, data.token another" },
        preview("kube.apply", c, { apiVersion = "v1", kind = "Secret", metadata = { name = "hub", namespace = ns },
          stringData = { token = "x", other = "y", more = secret.new("more", "hush-again") } }, { force = true }))
      c:patch { "Secret", "hub", namespace = ns, merge = { stringData = { token = "new-token" } } }
      assert.equal("new-token", c:get({ "Secret", "hub", namespace = ns, plain = { "token" } }).stringData.token)
      assert.equal(1, #c:list { "Secret", namespace = ns, labels = { ["runbook.io/kept"] = "true" } })
      effect.call(table.unpack(undo))
      effect.call(table.unpack(undo)) -- twice is once
      assert.equal("very-hush-hush", c:get({ "Secret", "hub", namespace = ns, plain = { "token" } }).stringData.token)
      assert.equal(0, #c:list { "Secret", namespace = ns, labels = { ["runbook.io/kept"] = "true" } })
    end)

    it("apply makes, changes, says whose a field is, and can be undone", function()
      local object = config_map(ns, "applied", { a = "1", b = "1" })
      assert.same({ before = "nothing", after = "made" }, preview("kube.apply", c, object, {}))
      local unmake = inverse("kube.apply", c, object, {})
      assert.equal("kube.unmake", unmake[1])
      c:apply(object)
      local version = c:get({ "cm", "applied", namespace = ns }).metadata.resourceVersion
      c:apply(object)
      assert.equal(version, c:get({ "cm", "applied", namespace = ns }).metadata.resourceVersion)
      object.data = { a = "2", c = "2" }
      assert.same({ before = "data.a 1, data.b 1, data.c nothing", after = "data.a 2, data.b nothing, data.c 2" },
        preview("kube.apply", c, object, {}))
      local back = inverse("kube.apply", c, object, {})
      assert.same({ a = "2", c = "2" }, c:apply(object).data)
      effect.call(table.unpack(back))
      effect.call(table.unpack(back))
      assert.same({ a = "1", b = "1" }, c:get({ "cm", "applied", namespace = ns }).data)
      c:request { method = "PATCH", path = ("/api/v1/namespaces/%s/configmaps/applied"):format(ns), query = { fieldManager = "helm" },
        content_type = "application/merge-patch+json", json = { data = { a = "helm's" } } }
      local err = complaint(c.apply, c, object)
      assert.equal("conflict", err.kind)
      assert.matches('.data.a belongs to "helm"', err.message, 1, true)
      assert.matches("`force = true` takes the fields over", err.message, 1, true)
      assert.equal("2", c:apply(object, { force = true }).data.a)
      effect.call(table.unpack(unmake))
      effect.call(table.unpack(unmake))
      assert.is_nil(c:find { "cm", "applied", namespace = ns })
      err = complaint(c.apply, c, { apiVersion = "v1", kind = "ConfigMap", metadata = { name = "x", namespace = ns }, dta = {} })
      assert.equal("usage", err.kind)
      assert.matches("dta", err.message)
      assert.matches("an object has apiVersion, kind and metadata", complaint(c.apply, c, { kind = "Pod" }).message)
      local last = c:apply(("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: y1}\n---\n---\n"
        .. "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: y2}\ndata: {on: off}\n"), { namespace = ns })
      assert.equal("off", last.data.on)
      assert.is_table(c:find { "cm", "y1", namespace = ns })
    end)

    it("what somebody else has made is not removed by an undo", function()
      c:request { method = "POST", path = ("/api/v1/namespaces/%s/configmaps"):format(ns), query = { fieldManager = "kubectl" },
        json = config_map(nil, "theirs", {}) }
      local err = complaint(effect.call, "kube.unmake", c, { api = "v1", kind = "ConfigMap", name = "theirs", namespace = ns })
      assert.equal("conflict", err.kind)
      assert.matches("was not made by this run", err.message)
      assert.is_table(c:find { "cm", "theirs", namespace = ns })
    end)

    it("a patch changes what it says, in the state that was looked at, and can be undone", function()
      c:create(config_map(ns, "patched", { a = "1", b = "1" }))
      local o = { kind = "ConfigMap", name = "patched", namespace = ns, merge = { data = { a = json.null, c = "3" } }, patch_kind = "merge" }
      local undo = inverse("kube.patch", c, o)
      assert.same({ before = "data.a 1, data.c nothing", after = "data.a nothing, data.c 3" }, preview("kube.patch", c, o))
      assert.same({ b = "1", c = "3" }, c:patch({ "cm", "patched", namespace = ns, merge = o.merge }).data)
      c:patch { "cm", "patched", namespace = ns, strategic = { metadata = { labels = { later = "yes" } } } }
      effect.call(table.unpack(undo))
      effect.call(table.unpack(undo))
      local now = c:get { "cm", "patched", namespace = ns }
      assert.same({ a = "1", b = "1" }, now.data)
      assert.equal("yes", now.metadata.labels.later)
      assert.equal("9", c:patch({ "cm", "patched", namespace = ns, json = { { op = "replace", path = "/data/b", value = "9" } } }).data.b)
      local err = complaint(c.patch, c, { "cm", "patched", namespace = ns, merge = { data = { a = "x" } },
        resource_version = now.metadata.resourceVersion })
      assert.equal("conflict", err.kind)
      assert.matches("was changed since it was looked at", err.message)
      err = complaint(c.patch, c, { "cm", "patched", namespace = ns, merge = { data = {} }, uid = "6f0d3c1e-0b52-4c7e-9a57-2f5f9c1f7d10" })
      assert.matches("it was removed and made again", err.message)
      assert.matches("one of merge, strategic and json", complaint(c.patch, c, { "cm", "x", namespace = ns, merge = {}, json = {} }).message)
      assert.matches("says what changes", complaint(c.patch, c, { "cm", "x", namespace = ns }).message)
      c:delete { "cm", "patched", namespace = ns }
      c:create(config_map(ns, "patched", {}))
      assert.equal("conflict", complaint(effect.call, table.unpack(undo)).kind) -- another one by its name is left alone
    end)

    it("a deployment is scaled and waited for, and says why it does not get ready", function()
      c:apply(deployment(peer, ns, "web", "sleep 1000"))
      local ready = c:wait { "Deployment", "web", namespace = ns, timeout = 60 }
      assert.equal(1, ready.status.readyReplicas)
      local o = { kind = "Deployment", name = "web", namespace = ns, replicas = 0 }
      assert.same({ before = "replicas 1", after = "replicas 0" }, preview("kube.scale", c, o))
      local undo = inverse("kube.scale", c, o)
      c:scale { "deploy", "web", namespace = ns, replicas = 0 }
      c:wait { "Deployment", "web", namespace = ns, timeout = 60, is = function(d) return (d.status.replicas or 0) == 0 end }
      effect.call(table.unpack(undo))
      assert.equal(1, c:get({ "deploy", "web", namespace = ns, subresource = "scale" }).spec.replicas)
      undo[3].uid = "6f0d3c1e-0b52-4c7e-9a57-2f5f9c1f7d10"
      assert.equal("conflict", complaint(effect.call, table.unpack(undo)).kind)
      local list = c:events { "Deployment", "web", namespace = ns }
      assert.equal("ScalingReplicaSet", list[1].reason)
      assert.equal("Deployment web", list[1].object)
      c:patch { "Deployment", "web", namespace = ns, strategic = { spec = { template = { spec = { containers = {
        { name = "c", image = "nope/nope:1" } } } } } } }
      c:watch({ "Pod", namespace = ns, labels = { app = "web" }, timeout = 60 }, function(_, pod)
        return pod and happened.trouble_of_pod(pod)[1] and happened.trouble_of_pod(pod)[1]:find "Image" and true or nil
      end)
      local err = complaint(c.wait, c, { "Deployment", "web", namespace = ns, timeout = 0.5 })
      assert.equal("timeout", err.kind)
      assert.matches("Deployment web in " .. ns .. " is not ready after 0.5 s", err.message, 1, true)
      assert.matches("Pod web%-.-: container c: %a+Image%a+", err.message)
      local hope = wait.hope
      wait.hope = 0.5
      finally(function() wait.hope = hope end)
      local pod = c:list({ "Pod", namespace = ns, labels = { app = "web" } })[1].metadata.name
      err = complaint(c.wait, c, { "Pod", pod, namespace = ns, condition = "Ready", timeout = 600 })
      assert.equal("exit", err.kind)
      assert.matches("is not Ready: it does not start: %a+Image%a+", err.message)
      c:delete { "Deployment", "web", namespace = ns }
    end)

    it("a wait ends when it is so, when it is gone, and when it will never be", function()
      local function job(name, command)
        return { apiVersion = "batch/v1", kind = "Job", metadata = { name = name, namespace = ns }, spec = { backoffLimit = 0, template = {
          spec = { restartPolicy = "Never", containers = { { name = "c", image = peer.image, command = { "sh", "-c", command } } } } } } }
      end
      c:apply { job("good", "exit 0"), job("bad", "exit 3") }
      assert.equal("good", c:wait({ "Job", "good", namespace = ns, timeout = 60 }).metadata.name)
      local err = complaint(c.wait, c, { "Job", "bad", namespace = ns, timeout = 60 })
      assert.equal("exit", err.kind)
      assert.matches("it failed: .*backoff limit", err.message)
      assert.matches("container c ended with exit status 3", err.message)
      err = complaint(c.wait, c, { "Pod", "nobody", namespace = ns, timeout = 0.3 })
      assert.equal("timeout", err.kind)
      assert.matches("it is not there", err.message)
      assert.is_nil(c:wait { "Pod", "nobody", namespace = ns, gone = true })
      c:create(config_map(ns, "grows", {}))
      local seen = task.all {
        function() return c:wait { "cm", "grows", namespace = ns, timeout = 30, is = function(m)
            return m.data ~= nil and m.data.there == "yes" or "no data"
          end } end,
        function()
          task.sleep(0.2)
          return c:patch { "cm", "grows", namespace = ns, merge = { data = { there = "yes" } } }
        end,
      }
      assert.equal("yes", seen[1].data.there)
      err = complaint(c.wait, c, { "cm", "grows", namespace = ns, timeout = 0.3, is = function() return "no bread" end })
      assert.matches("is not as it should be after 0.3 s: no bread", err.message)
    end)

    it("delete waits until it is gone, removes no other, and can be undone", function()
      c:create(config_map(ns, "doomed", { a = "1" }, { l = "m" }))
      local first = c:get { "cm", "doomed", namespace = ns }
      local undo = inverse("kube.delete", c, { kind = "cm", name = "doomed", namespace = ns })
      c:delete { "cm", "doomed", namespace = ns }
      assert.is_nil(c:find { "cm", "doomed", namespace = ns })
      assert.matches("ConfigMap doomed in .* is not there", notices(function() c:delete { "ConfigMap", "doomed", namespace = ns } end))
      effect.call(table.unpack(undo))
      effect.call(table.unpack(undo))
      local again = c:get { "cm", "doomed", namespace = ns }
      assert.same({ a = "1" }, again.data)
      assert.equal("m", again.metadata.labels.l)
      c:delete { "cm", "doomed", namespace = ns, uid = first.metadata.uid } -- that one is gone; this is another
      assert.is_table(c:find { "cm", "doomed", namespace = ns })
      c:patch { "cm", "doomed", namespace = ns, merge = { metadata = { finalizers = { "runbook.example/hold" } } } }
      local err = complaint(c.delete, c, { "cm", "doomed", namespace = ns, timeout = 0.5 })
      assert.equal("timeout", err.kind)
      assert.matches("it waits for its finalizers: runbook.example/hold", err.message)
      c:patch { "cm", "doomed", namespace = ns, merge = { metadata = { finalizers = json.null } } }
      c:wait { "cm", "doomed", namespace = ns, gone = true, timeout = 30 }
      assert.equal("destroy", effect.find("kube.destroy").class)
      assert.is_nil(effect.find("kube.destroy").inverse)
    end)

    it("a watch tells what is there and what happens to it", function()
      local space = peer:namespace "watch"
      c:create(config_map(space, "first", {}))
      local told = {}
      local result = c:watch({ "ConfigMap", namespace = space, fields = "metadata.name!=kube-root-ca.crt", timeout = 60 },
        function(event, object)
          told[#told + 1] = event .. (object and " " .. object.metadata.name or "")
          if event == "SYNCED" then
            c:create(config_map(space, "second", {}))
            c:patch { "cm", "second", namespace = space, merge = { data = { a = "1" } } }
            c:delete { "cm", "first", namespace = space, wait = false }
          end
          return event == "DELETED" and "seen" or nil
        end)
      assert.equal("seen", result)
      assert.same({ "ADDED first", "SYNCED", "ADDED second", "MODIFIED second", "DELETED first" }, told)
      local err = complaint(c.watch, c, { "cm", namespace = space, timeout = 0.2 }, function() end)
      assert.equal("timeout", err.kind)
      assert.error_matches(function() c:watch({ "cm", namespace = space }, function() error "mine" end) end, "mine")
    end)

    it("logs are text, or lines as they come", function()
      c:apply { apiVersion = "v1", kind = "Pod", metadata = { name = "talks", namespace = ns }, spec = { restartPolicy = "Never",
        containers = { { name = "c", image = peer.image, command = { "sh", "-c", "echo one; echo two; echo three" } } } } }
      c:wait { "Pod", "talks", namespace = ns, timeout = 60, is = function(pod) return pod.status.phase == "Succeeded" end }
      assert.equal("one\ntwo\nthree", c:logs { "talks", namespace = ns, container = "c" })
      assert.equal("three", c:logs { "talks", namespace = ns, tail = 1 })
      assert.matches("^%d+%-%d+%-%d+T[%d:.]+Z two\n", (c:logs { "talks", namespace = ns, tail = 2, timestamps = true }))
      local lines = {}
      assert.is_nil(c:logs { "talks", namespace = ns, follow = true, timeout = 60, on_line = function(line) lines[#lines + 1] = line end })
      assert.equal("one two three", table.concat(lines, " "))
      assert.equal("two", c:logs { "talks", namespace = ns, follow = true, on_line = function(line) return line == "two" and line or nil end })
      assert.equal("missing", complaint(c.logs, c, { "silent", namespace = ns }).kind)
      assert.matches("which pod", complaint(c.logs, c, {}).message)
    end)

    it("what is not allowed is said with the rule that is missing", function()
      local someone = peer:as_someone(ns, { { apiGroups = { "" }, resources = { "pods", "configmaps" }, verbs = { "get", "list" } } })
      assert.is_table(someone:list { "pods", namespace = ns })
      local err = complaint(someone.delete, someone, { "cm", "one", namespace = ns })
      assert.equal("refused", err.kind)
      assert.equal(('this rule is missing in a Role of namespace %s:\n- apiGroups: [""]\n  resources: ["configmaps"]\n  verbs: ["delete"]')
        :format(ns), err.hint)
      assert.matches("in a ClusterRole", complaint(someone.list, someone, { "nodes" }).hint)
      assert.is_true((someone:can { "get", "pods", namespace = ns }))
      assert.is_false((someone:can { "create", "pods/exec", namespace = ns }))
      assert.is_true((c:can { "create", "pods/exec", namespace = ns }))
      someone:must_be_allowed { namespace = ns, { "get", "pods" }, { "list", "configmaps" } }
      err = complaint(someone.must_be_allowed, someone, { namespace = ns, { "get", "pods" }, { "create", "pods/exec" },
        { "patch", "deployments/scale" }, { "get", "deployments/scale" }, { "list", "nodes" } })
      assert.equal("refused", err.kind)
      assert.equal("we may not: create pods/exec; patch, get deployments/scale; list nodes", err.message)
      assert.matches('- apiGroups: ["apps"]\n  resources: ["deployments/scale"]\n  verbs: ["patch","get"]\nin a ClusterRole:', err.hint, 1, true)
    end)

    it("a lease is one run's, says whose, and is taken over only when nobody renews it", function()
      local way, path, seconds = c.lock_of, ns .. "/runbook", lease.seconds
      lease.seconds = 1
      finally(function() lease.seconds = seconds end)
      local function take(...)
        return effect.outside_of_step(way.take, c, path, ...)
      end
      take("run-1", "ada on laptop, process 1")
      take("run-1", "ada on laptop, process 2") -- resumed
      assert.is_true(effect.reading(way.renew, c, path, "run-1"))
      assert.is_false(effect.reading(way.renew, c, path, "run-2"))
      local err = complaint(take, "run-2", "bob on bastion, process 3")
      assert.equal("busy", err.kind)
      assert.equal("ELOCKED", err.code)
      assert.matches("held by run run%-1 %(ada on laptop, process 2%), renewed %d s ago", err.message)
      local keeper = task.spawn(function()
        while true do
          task.sleep(0.2)
          effect.reading(way.renew, c, path, "run-1")
        end
      end)
      err = complaint(take, "run-2", "bob")
      assert.equal("ELOCKED", err.code)
      keeper:cancel()
      task.join(keeper)
      local before = time.boottime()
      task.sleep(1.1)
      assert.matches("looks abandoned; watching it for 1 s", notices(function() take("run-2", "bob") end))
      assert.is_true(time.boottime() - before >= 2)
      local held = c:get { "Lease", "runbook", namespace = ns }
      assert.equal("run-2", held.spec.holderIdentity)
      assert.equal(1, held.spec.leaseTransitions)
      effect.outside_of_step(way.give, c, path, "run-1")
      assert.is_table(c:find { "Lease", "runbook", namespace = ns })
      effect.outside_of_step(way.give, c, path, "run-2")
      effect.outside_of_step(way.give, c, path, "run-2")
      assert.is_nil(c:find { "Lease", "runbook", namespace = ns })
    end)

    it("a run locks it, changes it, and puts it back", function()
      local space = peer:namespace "run"
      c:apply(deployment(peer, space, "hub", "sleep 1000"))
      c:apply { apiVersion = "v1", kind = "Secret", metadata = { name = "hub", namespace = space }, stringData = { key = "old-key" } }
      runs.fresh()
      finally(runs.clean)
      local source = ([[
        local kube = require "runbook.kube"
        local p = rb.params { { "hub", "cluster", "where it is", default = { kubeconfig = "%s", cluster = "%s" } } }
        rb.step("close", "Close it", function()
          p.hub:lock { namespace = "%s" }
          p.hub:scale { "Deployment", "hub", namespace = "%s", replicas = 0 }
          p.hub:apply { apiVersion = "v1", kind = "ConfigMap", metadata = { name = "freeze", namespace = "%s" }, data = { by = "run" } }
          p.hub:patch { "Secret", "hub", namespace = "%s", merge = { stringData = { key = "new-key" } } }
        end)
        rb.step("stop", "Stop", function() rb.fail "on purpose" end)
      ]]):format(peer.kubeconfig, c:uid(), space, space, space, space)
      local _, seen = runs.start(source)
      local outcomes = runs.outcomes(seen)
      assert.equal("done", outcomes.close, runs.last_error(seen))
      assert.equal(0, c:get({ "Deployment", "hub", namespace = space }).spec.replicas)
      assert.equal("new-key", c:get({ "Secret", "hub", namespace = space, plain = { "key" } }).stringData.key)
      local code, back = runs.rollback()
      assert.equal(0, code, runs.last_error(back))
      assert.equal(1, c:get({ "Deployment", "hub", namespace = space }).spec.replicas)
      assert.is_nil(c:find { "ConfigMap", "freeze", namespace = space })
      assert.equal("old-key", c:get({ "Secret", "hub", namespace = space, plain = { "key" } }).stringData.key)
      assert.is_nil(c:find { "Lease", "runbook", namespace = space })
    end)
  end)
end

describe("A watch of a real cluster", function()
  it("goes on when the API server is killed and comes back", function()
    local peer = peers["a real cluster"]
    local c, ns = peer.cluster, peer:namespace "restart"
    c:create(config_map(ns, "before", {}))
    local told, restart = {}, nil
    c:watch({ "ConfigMap", namespace = ns, fields = "metadata.name!=kube-root-ca.crt", timeout = 180 }, function(event, object)
      told[#told + 1] = event .. (object and " " .. object.metadata.name or "")
      if event == "SYNCED" then
        restart = task.spawn(function()
          peer.real:restart_apiserver()
          c:delete { "cm", "before", namespace = ns, wait = false }
          c:create(config_map(ns, "after", {}))
        end)
      end
      return object and object.metadata.name == "after" and true or nil
    end)
    assert.is_true((task.join(restart)))
    assert.same({ "ADDED before", "SYNCED", "DELETED before", "ADDED after" }, told)
  end)
end)

describe("Between two clusters,", function()
  it("an object is copied without what belongs to where it was, as a whole or some keys of it", function()
    for _, pair in ipairs { { "a real cluster", "a fake cluster" }, { "a fake cluster", "a real cluster" } } do
      local from, to = peers[pair[1]].cluster, peers[pair[2]].cluster
      local old, new = peers[pair[1]]:namespace "temple", peers[pair[2]]:namespace "prod"
      from:apply { apiVersion = "v1", kind = "Secret", metadata = { name = "hub", namespace = old, labels = { app = "hub" } },
        stringData = { crypt = "keys-of-old", cookie = "cookie-of-old" } }
      kube.copy_object { from = { from, "Secret", "hub", namespace = old }, to = { to, namespace = new, name = "whole" },
        strip = { "metadata.labels" } }
      local whole = to:get { "Secret", "whole", namespace = new, plain = { "crypt", "cookie" } }
      assert.same({ crypt = "keys-of-old", cookie = "cookie-of-old" }, { crypt = whole.stringData.crypt, cookie = whole.stringData.cookie })
      assert.is_nil(whole.metadata.labels)
      to:apply { apiVersion = "v1", kind = "Secret", metadata = { name = "hub", namespace = new },
        stringData = { crypt = "keys-of-new", own = "stays here" } }
      local o = { cluster = to, namespace = new, from = from, keys = { "crypt" }, strip = {},
        what = { kind = "Secret", name = "hub", namespace = old } }
      assert.same({ before = "data.crypt as it is", after = "data.crypt another" }, preview("kube.copy", o))
      local undo = inverse("kube.copy", o)
      kube.copy_object { from = { from, "Secret", "hub", namespace = old }, to = { to, namespace = new }, keys = { "crypt" } }
      local now = to:get({ "Secret", "hub", namespace = new, plain = { "crypt", "own", "cookie" } }).stringData
      assert.equal("keys-of-old", now.crypt)
      assert.equal("stays here", now.own)
      assert.is_nil(now.cookie)
      effect.call(table.unpack(undo))
      assert.equal("keys-of-new", to:get({ "Secret", "hub", namespace = new, plain = { "crypt" } }).stringData.crypt)
      local err = complaint(kube.copy_object, { from = { from, "Secret", "hub", namespace = old }, to = { to, namespace = new }, keys = { "x" } })
      assert.matches("has no key x", err.message)
    end
  end)

  it("all that is in a namespace is kept as YAML, and no secret with it", function()
    for _, peer in pairs(peers) do
      local ns, c = peer:namespace "kept", peer.cluster
      c:apply { config_map(ns, "settings", { a = "on" }), deployment(peer, ns, "web", "sleep 1000"),
        { apiVersion = "v1", kind = "Secret", metadata = { name = "s", namespace = ns }, stringData = { k = "not-in-the-file" } } }
      local text = kube.manifests(c, { namespace = ns })
      local list = require("runbook.yaml").decode(text, { many = true })
      local found = {}
      for _, object in ipairs(list) do
        if object ~= json.null then
          found[("%s %s"):format(object.kind, object.metadata.name)] = object
        end
      end
      assert.equal("on", found["ConfigMap settings"].data.a)
      assert.is_nil(found["Deployment web"].status)
      assert.is_nil(found["Deployment web"].metadata.uid)
      assert.matches("hmac%-sha256", found["Secret s"].data.k)
      assert.is_nil(text:find("not-in-the-file", 1, true))
      assert.is_nil(text:find("kind: Pod\n", 1, true)) -- the deployment makes them again
    end
  end)
end)
