describe("clusters of the world", function()
  local task = require "runbook.core.task"
  local world = require "spec.world"
  local old, new, ns

  local function pod(name, command, more)
    return ([[
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {app: %s}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: world/busybox:1
    command: [sh, -c, %q]
%s
---
]]):format(name, name, command, more or "")
  end

  setup(function()
    old, new = world.kube.up("old", "new")
    ns = old:namespace "proof"
    old:apply(pod("web", "echo it began; mkdir /www; echo from old > /www/index.html; exec httpd -f -p 8080 -h /www") .. [[
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: pending, annotations: {world/address: never}}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec:
  rules:
  - host: hub.world.test
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
  - host: empty.world.test
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: nothing, port: {number: 80}}}}]}
]], ns)
    old:kubectl { "-n", ns, "wait", "--for=condition=Ready", "pod/web", "--timeout=120s" }
  end)

  teardown(function()
    old:drop(ns)
  end)

  it("are given again, and are two", function()
    local again = world.kube.up "old"
    assert.equal(old, again)
    assert.not_equal(old.uid, new.uid)
    local output, code = new:try { "-n", ns, "get", "pods" }
    assert.equal(0, code)
    assert.matches("No resources found", output)
    assert.matches("Ready", old:kubectl { "get", "nodes" })
  end)

  it("take no credentials of each other's", function()
    local text = world.read(new.kubeconfig):gsub("server: %S+", "server: https://" .. old.address .. ":6443")
    local file = world.folder "mixed" .. "/config"
    world.write(file, text)
    local output, code = world.sh(("%s --kubeconfig %s get pods"):format(world.kube.kubectl, file))
    assert.not_equal(0, code)
    assert.matches("certificate signed by unknown authority", output)
  end)

  it("run commands in pods, keep their logs and copy files both ways", function()
    assert.equal("from old", old:kubectl { "-n", ns, "exec", "web", "--", "cat", "/www/index.html" })
    assert.equal("", old:kubectl { "-n", ns, "exec", "web", "--", "sh", "-c", "ls -d " .. world.must "pwd" .. " 2>/dev/null || :" })
    assert.equal("it began", old:kubectl { "-n", ns, "logs", "web" })
    local folder = world.folder "cp"
    world.must(("head -c 3000000 /dev/urandom > %s/a"):format(folder))
    old:kubectl { "-n", ns, "cp", folder .. "/a", "web:/tmp/a" }
    old:kubectl { "-n", ns, "cp", "web:/tmp/a", folder .. "/b" }
    world.must(("cmp %s/a %s/b"):format(folder, folder))
  end)

  it("answer at a load balancer's address, from here and from pods of the other", function()
    local address = old:wait_value("service/web", "{.status.loadBalancer.ingress[0].ip}", ns)
    assert.equal("from old", world.must("curl -s http://" .. address))
    local there <close> = setmetatable({ ns = new:namespace "proof" }, { __close = function(it) new:drop(it.ns) end })
    new:apply(pod("client", "sleep 600"), there.ns)
    new:kubectl { "-n", there.ns, "wait", "--for=condition=Ready", "pod/client", "--timeout=120s" }
    assert.equal("from old", new:kubectl { "-n", there.ns, "exec", "client", "--", "wget", "-q", "-O", "-", "http://" .. address })
  end)

  it("leave a service waiting that shall get no address, and say so", function()
    local event = old:wait_value("events", "{.items[?(@.reason=='SyncLoadBalancerFailed')].message}", ns)
    assert.matches("no addresses left", event)
    assert.equal("", old:kubectl { "-n", ns, "get", "service/pending", "-o", "jsonpath={.status.loadBalancer.ingress}" })
  end)

  it("answer to names by their ingresses", function()
    assert.equal(old.front, old:wait_value("ingress/web", "{.status.loadBalancer.ingress[0].ip}", ns))
    local function get(name, scheme)
      return world.must(("curl -sk -w ' %%{http_code}' --connect-to ::%s: %s://%s/"):format(old.front, scheme or "http", name))
    end
    assert.equal("from old\n 200", get "hub.world.test")
    assert.equal("from old\n 200", get("hub.world.test", "https"))
    assert.matches("404$", get "other.world.test")
    assert.matches("503$", get "empty.world.test")
  end)

  it("find services by name and give claims volumes, as large as they say", function()
    old:apply(([[
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: small}
spec: {storageClassName: sized, accessModes: [ReadWriteOnce], resources: {requests: {storage: 8Mi}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: plain}
spec: {accessModes: [ReadWriteMany], resources: {requests: {storage: 8Mi}}}
---
]]) .. pod("writer", "cd /small; dd if=/dev/zero of=x bs=1M count=20; echo there > /plain/x; wget -q -O - http://web; sleep 600", [[
    volumeMounts: [{name: small, mountPath: /small}, {name: plain, mountPath: /plain}]
  volumes:
  - {name: small, persistentVolumeClaim: {claimName: small}}
  - {name: plain, persistentVolumeClaim: {claimName: plain}}
]]), ns)
    old:kubectl { "-n", ns, "wait", "--for=condition=Ready", "pod/writer", "--timeout=120s" }
    local log = world.wait_until("the writer's words", function()
      local text = old:kubectl { "-n", ns, "logs", "writer" }
      return text:match "from old" and text or task.sleep(0.2)
    end, 60)
    assert.matches("No space left", log)
    assert.is_true(tonumber(old:kubectl { "-n", ns, "exec", "writer", "--", "stat", "-c", "%s", "/small/x" }) < 8000000)
    local volume = old:kubectl { "-n", ns, "get", "pvc/plain", "-o", "jsonpath={.spec.volumeName}" }
    local path = old:kubectl { "get", "pv", volume, "-o", "jsonpath={.spec.hostPath.path}" }
    assert.equal("there\n", world.read(path .. "/x"))
  end)

  it("know their objects again after the API server was killed", function()
    old:stop_apiserver()
    local _, code = old:try { "get", "nodes" }
    assert.not_equal(0, code)
    old:start_apiserver()
    assert.equal("Running", old:kubectl { "-n", ns, "get", "pod/web", "-o", "jsonpath={.status.phase}" })
    assert.equal("13", old:kubectl { "-n", ns, "exec", "web", "--", "sh", "-c", "echo $((3 * 4 + 1))" })
  end)

  it("are reached through a relay, too", function()
    local relay <close> = world.relay { to = old }
    local config = old:kubeconfig_through(relay)
    assert.matches("web", world.must(("%s --kubeconfig %s -n %s get pods"):format(world.kube.kubectl, config, ns)))
    assert.is_true(relay:passed().connections > 0)
  end)
end)
