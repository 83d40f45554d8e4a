--- Real clusters: Kubernetes 1.20, each on one node with an API server, kubelet, containerd, network and name server
--- of its own (kube/README.md). The first call of all on a machine builds them (kube/build.sh, about 7 minutes).
---
---     local old, new = world.kube.up("old", "new")    -- together, about 17 s; running ones are given again
---     local ns = old:namespace "temple"
---     old:apply(manifest, ns)
---     old:kubectl { "-n", ns, "wait", "--for=condition=Ready", "pod/web" }
---
--- They belong to the suite and not to a file of specs: a file takes its turn with them, until it ends, and finds
--- them as the one before left them, but for the namespaces that one made.

return function(world)
  local task = require "runbook.core.task"
  local quote, must = world.quote, world.must

  local kube = {}
  world.kube = kube

  ---@class world.Cluster
  ---@field name string  of its context, too
  ---@field address string  of its node; the API server's port is 6443
  ---@field port integer
  ---@field front string  where its ingresses answer, ports 80 and 443
  ---@field kubeconfig string  path; system:masters
  ---@field uid string  of kube-system
  ---@field folder string
  local Cluster = {}
  Cluster.__index = Cluster

  local known = {} -- name: cluster
  local suite, parts, turn
  local others = {} -- folders of sets beside ours

  --- Whose clusters these are, for the environment of those that share them.
  ---@return string
  function kube.suite()
    if not suite then
      local pid, folder = (os.getenv "RUNBOOK_SUITE" or ""):match "^(%d+) (.+)$"
      suite = pid and { pid = tonumber(pid), folder = folder, shared = true }
        or { pid = world.pid, folder = world.folder "clusters" }
    end
    return ("%d %s"):format(suite.pid, suite.folder)
  end

  --- A set of clusters beside those, for others that share one.
  ---@return string
  function kube.another_suite()
    others[#others + 1] = world.folder "clusters"
    return ("%d %s"):format(world.pid, others[#others])
  end

  local function keep(path, record)
    local lines = {}
    for key, value in pairs(record) do
      lines[#lines + 1] = ("%s=%s\n"):format(key, value)
    end
    world.write(path .. ".new", table.concat(lines))
    assert(os.rename(path .. ".new", path))
  end

  -- What was kept, while the process it names lives.
  local function kept(path)
    local record = {}
    for key, value in (world.read(path) or ""):gmatch "([^=\n]+)=([^\n]*)" do
      record[key] = math.tointeger(tonumber(value)) or value
    end
    return record.leash and world.alive(record.leash) and record or nil
  end

  -- The other files wait; the kernel gives the lock back however we end.
  local function take_turn()
    if turn or not suite.shared then
      return
    end
    local mark = world.folder "turn" .. "/mine"
    turn = world.start { "flock", suite.folder .. "/turn", "sh", "-c", "echo > \"$0\"; exec sleep infinity", mark }
    world.wait_until("our turn with the clusters", function()
      return world.read(mark) or task.sleep(0.2)
    end, 1100)
  end

  --- Where the parts of kube/build.sh are; builds those that are not there.
  ---@param ... string
  ---@return string ...
  function kube.build(...)
    local pipe = assert(io.popen("spec/world/kube/build.sh " .. table.concat({ ... }, " ")))
    local folders = {}
    for folder in pipe:lines() do
      folders[#folders + 1] = folder
    end
    assert(pipe:close(), "spec/world/kube/build.sh failed")
    return table.unpack(folders)
  end

  -- A network between the nodes and this machine, of its own. The kernel takes an interface's name once, so that two
  -- suites never share a subnet, and takes the interface away with the namespace of its other end.
  local function the_switch()
    local path = suite.folder .. "/switch"
    local there = kept(path)
    if there then
      return there
    end
    local leash = world.start({ "unshare", "--net", "sh", "-c", "ip link add switch type bridge forward_delay 0 " ..
      "&& ip link set switch up && exec sleep infinity" }, { owner = suite.pid })
    local pid
    world.wait_until("a switch", function()
      pid = world.children(leash.pid)[1]
      return pid and select(2, world.sh(("nsenter -t %d -n ip link show switch up | grep -q UP"):format(pid))) == 0
    end, 60)
    for _ = 1, 250 do
      local number = math.random(1, 250)
      local link = "runbook" .. number
      local _, code = world.sh(("ip link add %s type veth peer name machine netns %d"):format(link, pid))
      if code == 0 then
        local subnet = "198.18." .. number
        must(("ip address add %s.1/24 dev %s && ip link set %s up"):format(subnet, link, link))
        must(("nsenter -t %d -n ip link set machine master switch up"):format(pid))
        keep(path, { leash = leash.pid, pid = pid, subnet = subnet })
        return kept(path)
      end
    end
    error "no subnet of 198.18.0.0/16 is free"
  end

  local function plug_in(cluster)
    local switch, wire = the_switch(), "node" .. cluster.number
    must(("nsenter -t %d -n ip link add %s type veth peer name eth0 netns %d"):format(switch.pid, wire, cluster.pid))
    must(("nsenter -t %d -n ip link set %s master switch up"):format(switch.pid, wire))
  end

  local function write_settings(cluster, cgroup)
    local lines = {}
    for _, pair in ipairs {
      { "name", cluster.name }, { "address", cluster.address }, { "cgroup", cgroup },
      { "pivot", must(("realpath %s/world/pivot"):format(world.build)) },
      { "programs", parts.programs }, { "tools", parts.tools }, { "images", parts.images },
    } do
      lines[#lines + 1] = ("%s=%s\n"):format(pair[1], quote(pair[2]))
    end
    world.write(cluster.folder .. "/settings", table.concat(lines))
  end

  -- Each has 32 addresses of the subnet; the first block is the machine's.
  local function free_number()
    local taken = {}
    for record in must(("find %s -mindepth 2 -maxdepth 2 -name record"):format(suite.folder)):gmatch "[^\n]+" do
      taken[(kept(record) or {}).number or 0] = true
    end
    for number = 1, 7 do
      if not taken[number] then
        return number
      end
    end
    error "a suite has addresses for 7 clusters"
  end

  local function with_paths(record)
    record.front = ("%s.%d"):format(record.subnet, record.number * 32 + 1)
    record.kubeconfig = record.folder .. "/pki/kubeconfig"
    record.port, record.loaded, record.mine = 6443, {}, {}
    return setmetatable(record, Cluster)
  end

  local function begin(name)
    assert(name:match "^[a-z][a-z0-9-]*$" and #name < 20, "a cluster's name is short and for DNS")
    local subnet, number = the_switch().subnet, free_number()
    local record = { name = name, number = number, subnet = subnet, folder = suite.folder .. "/" .. name,
      address = ("%s.%d"):format(subnet, number * 32) }
    must(("rm -rf --one-file-system %s && mkdir %s && cd %s && mkdir log var-log root volumes"):format(
      record.folder, record.folder, record.folder))
    local cgroup = ("runbook-world-%d-%s-%s"):format(suite.pid, suite.folder:match "[^/]*$", name)
    write_settings(record, cgroup)
    must(("spec/world/kube/pki.sh %s/pki %s %s"):format(record.folder, name, record.address))
    record.leash = world.start({ must "pwd" .. "/spec/world/kube/node.sh", "outside", record.folder }, {
      log = record.folder .. "/log/node", owner = suite.pid,
      -- the kernel may still be busy with what was killed
      at_end = ("for i in 1 2 3 4 5; do find /sys/fs/cgroup -depth -type d -path '*/%s*' -exec rmdir {} + 2>/dev/null && break; sleep 1; done")
        :format(cgroup),
    }).pid
    keep(record.folder .. "/record", record)
    return with_paths(record)
  end

  local function check(cluster)
    if not world.alive(cluster.leash) then
      error(("cluster %s does not run (this needs root):\n%s"):format(cluster.name, cluster:log "node"), 0)
    end
  end

  local function finish(cluster)
    world.wait_until("the namespaces of " .. cluster.name, function()
      check(cluster)
      return world.read(cluster.folder .. "/inside") or task.sleep(0.05)
    end, 60)
    cluster.pid = world.children(world.children(cluster.leash)[1])[1]
    plug_in(cluster)
    for _ = 1, 3000 do
      check(cluster)
      if world.read(cluster.folder .. "/up") then
        return
      end
      task.sleep(0.1)
    end
    error(("cluster %s: not up after 5 minutes:\n%s"):format(cluster.name, must(("tail -n 8 %s/log/*"):format(cluster.folder))))
  end

  -- One that a file of specs before us started, whatever that did to it; nil when it does not run.
  local function adopt(name)
    local record = kept(("%s/%s/record"):format(suite.folder, name))
    if not record or not world.read(record.folder .. "/up") then
      return nil
    end
    local cluster = with_paths(record)
    cluster.pid = world.children(world.children(cluster.leash)[1])[1]
    cluster:start_apiserver()
    return cluster
  end

  local function find_parts()
    local programs, tools, images = kube.build("programs", "tools", "images")
    parts = { programs = programs, tools = tools, images = images, kubectl = tools .. "/usr/bin/kubectl" }
    kube.kubectl = parts.kubectl
  end

  --- Clusters by these names: started where they do not run, all at once.
  ---@async
  ---@param ... string
  ---@return world.Cluster ...
  function kube.up(...)
    kube.suite()
    take_turn()
    if not parts then
      find_parts()
    end
    local clusters, begun = {}, {}
    for i, name in ipairs { ... } do
      local cluster = known[name] or adopt(name)
      if not cluster then
        cluster = begin(name)
        begun[#begun + 1] = cluster
      end
      clusters[i], known[name] = cluster, cluster
    end
    for _, cluster in ipairs(begun) do
      finish(cluster)
    end
    for _, cluster in ipairs(clusters) do
      cluster.uid = cluster.uid or cluster:kubectl { "get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}" }
    end
    return table.unpack(clusters)
  end

  local function end_all(folder)
    local records = must(("find %s -maxdepth 2 -name record; ls -d %s/switch 2>/dev/null || :"):format(folder, folder))
    for path in records:gmatch "[^\n]+" do
      local record = kept(path)
      if record then
        world.leash(record.leash, path):stop()
      end
    end
  end

  --- Leave those of the suite to the next file, without what was made in them; end those that are our own.
  ---@async
  function kube.stop()
    if suite and suite.shared then
      for _, cluster in pairs(known) do
        for namespace in pairs(cluster.mine) do
          cluster:try { "delete", "namespace", namespace, "--wait=false" }
        end
      end
    elseif suite then
      for _, folder in ipairs { suite.folder, table.unpack(others) } do
        end_all(folder)
      end
    end
    known = {}
    if turn then
      turn:stop()
      turn = nil
    end
  end

  --- Run kubectl and say what came of it.
  ---@param argv string[]  `input` is given to it
  ---@return string output, integer code
  function Cluster:try(argv)
    local words = { quote(parts.kubectl), "--kubeconfig", quote(self.kubeconfig) }
    for _, word in ipairs(argv) do
      words[#words + 1] = quote(word)
    end
    local line = table.concat(words, " ")
    if argv.input then
      local file = world.folder "input" .. "/it"
      world.write(file, argv.input)
      local output, code = world.sh(line .. " < " .. file)
      os.remove(file)
      return output, code
    end
    return world.sh(line .. " < /dev/null")
  end

  --- The same, but it has to succeed.
  ---@param argv string[]
  ---@return string output
  function Cluster:kubectl(argv)
    local output, code = self:try(argv)
    if code ~= 0 then
      error(("%s: kubectl %s\nexit code %d: %s"):format(self.name, table.concat(argv, " "), code, output), 2)
    end
    return output
  end

  --- Make objects of YAML text be so.
  ---@param yaml string
  ---@param namespace string?
  function Cluster:apply(yaml, namespace)
    return self:kubectl { "apply", "-n", namespace or "default", "-f", "-", input = yaml }
  end

  local namespaces = 0

  -- A namespace that is ours and goes when we end, ready for pods.
  local function make_namespace(cluster, name)
    cluster:kubectl { "create", "namespace", name }
    cluster.mine[name] = true
    world.wait_until("the service account of " .. name, function()
      return cluster:try { "-n", name, "get", "serviceaccount", "default", "-o", "jsonpath={.secrets[0].name}" } ~= "" or
        task.sleep(0.1)
    end, 60)
  end

  --- A namespace of one's own, ready for pods, until this file of specs ends.
  ---@async
  ---@param prefix string
  ---@return string
  function Cluster:namespace(prefix)
    namespaces = namespaces + 1
    local name = ("%s-%d-%d"):format(prefix, world.pid, namespaces)
    make_namespace(self, name)
    return name
  end

  --- The same by a name that matters. One that is still there goes first.
  ---@async
  ---@param name string
  function Cluster:fresh_namespace(name)
    self:kubectl { "delete", "namespace", name, "--ignore-not-found", "--timeout=120s" }
    make_namespace(self, name)
    return name
  end

  --- The end of a namespace and of all in it begins; nobody waits for it.
  function Cluster:drop(namespace)
    self.mine[namespace] = nil
    self:kubectl { "delete", "namespace", namespace, "--wait=false" }
  end

  --- What a jsonpath says of an object, once it says something.
  ---@async
  ---@param what string  as kubectl takes it: "service/web"
  ---@param path string  "{.status…}"
  ---@param namespace string
  ---@return string
  function Cluster:wait_value(what, path, namespace)
    return world.wait_until(("%s of %s"):format(path, what), function()
      local output, code = self:try { "-n", namespace, "get", what, "-o", "jsonpath=" .. path }
      if code == 0 and output ~= "" then
        return output
      end
      task.sleep(0.2)
    end, 60)
  end

  --- Run a shell line on the node, in all its namespaces.
  ---@return string output, integer code
  function Cluster:sh(line)
    return world.sh(("nsenter -t %d -m -n -p -u -i -r -w env PATH=%s/usr/sbin:%s/usr/bin:/usr/sbin:/usr/bin:/sbin:/bin sh -c %s"):format(
      self.pid, parts.tools, parts.tools, quote(line)))
  end

  --- See to it that pods may use the image world/NAME:1: "tools" or "hub". "busybox" and "bare" are there from the start.
  ---@async
  ---@param name string
  function Cluster:image(name)
    if name == "tools" then
      world.wait_until("the image", function() return world.read(self.folder .. "/tools.ready") or task.sleep(0.1) end, 60)
    elseif not self.loaded[name] then
      local output, code = self:sh(("ctr -n k8s.io images import %s/%s.tar"):format(quote(kube.build(name)), name))
      assert(code == 0, output)
      self.loaded[name] = true
    end
  end

  --- Make a folder of this machine an NFS share to the cluster, as if SERVER exported PATH.
  ---@param server string
  ---@param path string
  ---@param folder string  where this machine has it
  function Cluster:export(server, path, folder)
    local file <close> = assert(io.open(self.folder .. "/exports", "a"))
    assert(file:write(("%s:%s\t%s\n"):format(server, path, folder)))
  end

  --- What one of its programs wrote: "node", "apiserver", "kubelet", "cloud", "manager", "containerd"…
  function Cluster:log(program)
    return world.read(("%s/log/%s"):format(self.folder, program)) or ""
  end

  local function pid_of(cluster, program)
    return tonumber(world.read(("%s/%s.pid"):format(cluster.folder, program)) or "")
  end

  --- Ends the API server at once and for now: who calls is refused.
  ---@async
  function Cluster:stop_apiserver()
    world.write(self.folder .. "/apiserver.hold", "")
    local pid = pid_of(self, "apiserver")
    self:sh(("kill -KILL %d"):format(pid))
    world.wait_until("the API server's end", function()
      return select(2, self:sh(("kill -0 %d"):format(pid))) ~= 0
    end, 60)
  end

  ---@async
  function Cluster:start_apiserver()
    os.remove(self.folder .. "/apiserver.hold") -- nothing to remove where it was never stopped
    world.wait_until("the API server", function()
      return self:try { "get", "--raw", "/readyz" } == "ok" or task.sleep(0.2)
    end, 120)
  end

  --- Every connection to it is cut; about 7 s later it answers again.
  ---@async
  function Cluster:restart_apiserver()
    self:stop_apiserver()
    self:start_apiserver()
  end

  --- A kubeconfig that goes through a relay before the API server.
  ---@param relay world.Relay
  ---@return string path
  function Cluster:kubeconfig_through(relay)
    local path = world.folder("kubeconfig") .. "/config"
    local text = world.read(self.kubeconfig)
    world.write(path, (text:gsub("server: %S+", ("server: https://%s:%d\n    tls-server-name: kubernetes"):format(
      relay.address, relay.port))))
    return path
  end

  --- Pull the plug. The next `up` starts another by that name.
  ---@async
  function Cluster:stop()
    known[self.name] = nil
    world.leash(self.leash, "cluster " .. self.name):stop()
    must("rm -rf --one-file-system " .. self.folder)
  end
end
