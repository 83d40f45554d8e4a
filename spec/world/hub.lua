--- A real JupyterHub in a cluster of the world (kube/hub/): Debian's 3.0 behind its proxy and an ingress, with sqlite on a
--- claim, users, groups, tokens, homes, and servers that are pods and write into them.
---
---     local hub = world.kube.hub(old, { namespace = "temple", users = 20, running = 4 })
---     hub.tokens["alice@uni.edu"]                          -- still works wherever the database goes
---     hub:api("GET", "/users?limit=100")                   -- as a service with every scope
---     hub:login "carla":get "/user/carla/api/contents/"    -- as a browser, by the hub's name

return function(world)
  local json = require "dkjson"
  local task = require "runbook.core.task"
  local quote, must = world.quote, world.must
  local folder = "spec/world/kube/hub"

  ---@class world.Hub
  ---@field cluster world.Cluster
  ---@field namespace string
  ---@field host string  the name it answers to, at cluster.front
  ---@field users string[]
  ---@field admins string[]
  ---@field tokens table<string, string>  one of each of some users
  ---@field running string[]  whose servers were started, and write
  ---@field service_token string
  ---@field password string  everybody's
  ---@field homes string  the folder of all homes, on this machine
  local Hub = {}
  Hub.__index = Hub

  -- Names that people have: what one scheme of kubespawner keeps the other one changes.
  local names = {
    "carla", "user-17", "alice@uni.edu", "auth0|5f", "josé", "1234", "a--b", "bob.builder", "x_y", "o'neil", "alice-b", "-dash",
    "very.long.name.of.somebody.with.many.names@students.university.example", "李雷", "tab\\slash", "plus+tag@uni.edu", "dan",
    "eve", "frank", "grace",
  }

  --- A folder with what is in the hub's image but its proxy, to be run by chroot: a hub's JupyterHub without a cluster.
  ---@return string
  function world.kube.hub_root()
    local root = world.folder "hub-root"
    local image = quote(world.kube.build "hub" .. "/hub.tar")
    must(("layer=$(tar tvf %s | sort -rnk3 | awk 'NR == 1 { print $NF }') && tar xOf %s \"$layer\" | tar x -C %s "
      .. "--exclude='usr/share/node*' --exclude='*/libnode*' --exclude='*/libicu*'")
      :format(image, image, quote(root)))
    return root
  end

  --- The folder of a user's home, as kubespawner below 7 names it: {escaped_username}.
  ---@param name string
  ---@return string
  function world.kube.escaped(name)
    return (name:gsub("[^a-z0-9]", function(c) return ("-%02x"):format(c:byte()) end))
  end

  -- A person's name in an URL as JupyterHub spells it: cookies go by that.
  local function encode(name)
    return (name:gsub("[^%w_.~@-]", function(c) return ("%%%02X"):format(c:byte()) end))
  end

  local function first(count)
    local list = {}
    for i = 1, count do
      list[i] = names[i] or ("user-%d"):format(i)
    end
    return list
  end

  local function object(hub, kind, name, fields)
    fields.apiVersion, fields.kind = fields.apiVersion or "v1", kind
    fields.metadata = { name = name, labels = { app = "jupyterhub", release = hub.namespace } }
    return json.encode(fields) .. "\n---\n"
  end

  -- Homes: an NFS share (of a machine that has them), else a claim that every pod may mount.
  local function homes_objects(hub, o)
    if not o.homes then
      return object(hub, "PersistentVolumeClaim", "home-nfs", { spec = {
        accessModes = { "ReadWriteMany" }, storageClassName = "folder", resources = { requests = { storage = "10Gi" } } } })
    end
    local volume = hub.namespace .. "-home-nfs"
    hub.cluster:export(o.homes.server, o.homes.path, o.homes.folder)
    hub.cluster:kubectl { "delete", "pv", volume, "--ignore-not-found" }
    return object(hub, "PersistentVolume", volume, { spec = {
      capacity = { storage = "1Mi" }, accessModes = { "ReadWriteMany" }, storageClassName = "",
      mountOptions = { "soft", "noatime" }, persistentVolumeReclaimPolicy = "Retain",
      nfs = { server = o.homes.server, path = o.homes.path } } })
      .. object(hub, "PersistentVolumeClaim", "home-nfs", { spec = {
        accessModes = { "ReadWriteMany" }, storageClassName = "", volumeName = volume,
        resources = { requests = { storage = "1Mi" } } } })
  end

  local function random(bytes)
    return must(("openssl rand -hex %d"):format(bytes))
  end

  local function secret_object(hub, o)
    local values = {
      password = hub.password, image = "world/hub:1", admins = hub.admins, slugScheme = o.slug_scheme or "escape",
      homeSubPath = o.home_subpath or "{escaped_username}", sharedSubPath = "_shared", uid = 1000, writers = hub.running,
      -- The same once more as the chart has it, for those who read what a hub is set up to do.
      Chart = { Name = "jupyterhub", Version = o.slug_scheme == "safe" and "4.1.0" or "3.3.8" },
      Release = { Name = hub.namespace, Namespace = hub.namespace },
      hub = { baseUrl = "/", db = { type = "sqlite-pvc" }, config = {
        JupyterHub = { authenticator_class = "dummy" }, DummyAuthenticator = { password = hub.password },
        KubeSpawner = { slug_scheme = o.slug_scheme } } },
      singleuser = { storage = { type = "static", homeMountPath = "/home/jovyan",
        static = { pvcName = "home-nfs", subPath = o.home_subpath or "{escaped_username}" } } },
      services = { "hub-health", "runbook" }, extraConfig = setmetatable(o.extra_config or {}, { __jsontype = "object" }),
    }
    for _, list in ipairs { "admins", "writers" } do
      setmetatable(values[list], { __jsontype = "array" })
    end
    return object(hub, "Secret", "hub", { type = "Opaque", stringData = {
      ["values.yaml"] = json.encode(values),
      ["hub.config.JupyterHub.cookie_secret"] = random(32),
      ["hub.config.CryptKeeper.keys"] = random(32),
      ["hub.config.ConfigurableHTTPProxy.auth_token"] = random(32),
      ["hub.services.hub-health.apiToken"] = random(32),
      ["hub.services.runbook.apiToken"] = hub.service_token,
    } })
  end

  -- A certificate nobody signed, as cert-manager would keep one.
  local function certificate_object(hub)
    local at = world.folder "certificate"
    must(("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 90 -subj /CN=%s -addext subjectAltName=DNS:%s "
      .. "-keyout %s/key -out %s/crt 2>/dev/null"):format(hub.host, hub.host, at, at))
    return object(hub, "Secret", "https-auto-tls", { type = "kubernetes.io/tls", stringData = {
      ["tls.crt"] = world.read(at .. "/crt"), ["tls.key"] = world.read(at .. "/key") } })
  end

  local function ingress_object(hub)
    return object(hub, "Ingress", "jupyterhub", { apiVersion = "networking.k8s.io/v1", spec = {
      rules = { { host = hub.host, http = { paths = { {
        path = "/", pathType = "Prefix", backend = { service = { name = "proxy-public", port = { name = "http" } } } } } } } },
      tls = { { hosts = { hub.host }, secretName = "https-auto-tls" } } } })
  end

  local function chart(hub, o)
    local values = {
      NAMESPACE = hub.namespace, IMAGE = "world/hub:1", DATABASE_SIZE = o.database_size or "1Gi",
      DATABASE_CLASS = o.database_class or "folder", PROXY_TYPE = o.proxy_type or "ClusterIP",
    }
    return world.read(folder .. "/chart.yaml"):gsub("@([A-Z_]+)@", values) .. "---\n"
      .. object(hub, "ConfigMap", "hub", { data = {
        ["jupyterhub_config.py"] = world.read(folder .. "/jupyterhub_config.py"),
        ["spawner.py"] = world.read(folder .. "/spawner.py"),
      } })
  end

  local function find_homes(hub, o)
    if o.homes then
      return o.homes.folder
    end
    local volume = hub.cluster:wait_value("pvc/home-nfs", "{.spec.volumeName}", hub.namespace)
    return hub.cluster:wait_value("pv/" .. volume, "{.spec.hostPath.path}", hub.namespace)
  end

  -- Each has files of its own, and folders that are nobody's stand beside them.
  local function fill_homes(hub)
    local lines = { "set -e", "cd " .. quote(hub.homes), "mkdir -p _shared/course", "echo everybody > _shared/course/plan.txt" }
    for i, name in ipairs(hub.users) do
      local home = quote("./" .. world.kube.escaped(name))
      lines[#lines + 1] = ("mkdir -p %s/work && printf '%%s' %s > %s/whose.txt && head -c %d /dev/urandom > %s/data.bin")
        :format(home, quote(name), home, 1000 * i, home)
    end
    lines[#lines + 1] = "chown -R 1000:100 ."
    must("(" .. table.concat(lines, "\n") .. ")")
  end

  local function create_users(hub, o)
    local others, admin = {}, {}
    for _, name in ipairs(hub.admins) do
      admin[name] = true
    end
    for _, name in ipairs(hub.users) do
      others[#others + 1] = not admin[name] and name or nil
    end
    hub:api("POST", "/users", { usernames = setmetatable(others, { __jsontype = "array" }) })
    for group, members in pairs(o.groups or { ["course-a"] = { hub.users[2], hub.users[3] }, staff = { hub.users[1] } }) do
      hub:api("POST", "/groups/" .. group)
      hub:api("POST", ("/groups/%s/users"):format(group), { users = members })
    end
    for i = 1, math.min(5, #hub.users) do
      local name = hub.users[i]
      hub.tokens[name] = hub:api("POST", ("/users/%s/tokens"):format(encode(name)), { note = "kept by " .. name }).token
    end
  end

  --- A hub, up and with people in it; in tens of seconds, most of them Kubernetes'.
  ---@async
  ---@param cluster world.Cluster
  ---@param o { namespace?: string, host?: string, users?: integer|string[], admins?: string[], running?: integer,
  ---           groups?: table<string, string[]>, homes?: { server: string, path: string, folder: string },
  ---           slug_scheme?: "escape"|"safe", home_subpath?: string, extra_config?: table<string, string>,
  ---           proxy_type?: string, database_size?: string, database_class?: string }?
  ---        homes: folder is where this machine has what server exports at path. running: how many users' servers run
  ---        and write. users: 0 for a hub that waits for its people
  ---@return world.Hub
  function world.kube.hub(cluster, o)
    o = o or {}
    local namespace = o.namespace or "temple"
    local users = type(o.users) == "table" and o.users or first(o.users or 20)
    local hub = setmetatable({
      cluster = cluster, namespace = namespace, host = o.host or namespace .. ".world.test", users = users,
      admins = o.admins or { users[1] }, tokens = {}, running = table.move(users, 1, o.running or 0, 1, {}),
      service_token = random(32), password = "open sesame",
    }, Hub)
    cluster:image "hub"
    cluster:fresh_namespace(namespace)
    -- YAML first, for kubectl goes by the first character
    cluster:apply(chart(hub, o) .. homes_objects(hub, o) .. secret_object(hub, o) .. certificate_object(hub) .. ingress_object(hub),
      namespace)
    hub.homes = find_homes(hub, o)
    if #users > 0 then
      fill_homes(hub)
    end
    hub:wait_ready()
    if #users > 0 then
      create_users(hub, o)
      for _, name in ipairs(hub.running) do
        hub:start_server(name)
      end
    end
    return hub
  end

  --- Wait until it answers by its name.
  ---@async
  function Hub:wait_ready()
    self.cluster:kubectl { "-n", self.namespace, "rollout", "status", "deployment/proxy", "--timeout=240s" }
    self.cluster:kubectl { "-n", self.namespace, "rollout", "status", "deployment/hub", "--timeout=240s" }
    world.wait_until("the hub to answer by its name", function()
      return select(2, self:curl { "-f", self:url "/hub/health" }) == 0 or task.sleep(0.3)
    end, 120)
  end

  function Hub:url(path)
    return "http://" .. self.host .. path
  end

  --- curl, to which the hub's name is known.
  ---@param argv string[]
  ---@return string output, integer code
  function Hub:curl(argv)
    local words = { "curl -s --max-time 60" }
    for _, port in ipairs { 80, 443 } do
      words[#words + 1] = ("--resolve %s:%d:%s"):format(self.host, port, self.cluster.front)
    end
    for _, word in ipairs(argv) do
      words[#words + 1] = quote(word)
    end
    return world.sh(table.concat(words, " "))
  end

  --- Ask its REST API.
  ---@param method string
  ---@param path string  below /hub/api
  ---@param body table?
  ---@param token string?  default: of a service that may do everything
  ---@return any answer, integer status
  function Hub:api(method, path, body, token)
    local text = self:curl { "-X", method, "-H", "Authorization: token " .. (token or self.service_token), "-w", "\n%{http_code}",
      "-d", body and json.encode(body) or "", self:url("/hub/api" .. path) }
    local answer, status = text:match "^(.*)\n(%d+)$"
    if not status then
      answer, status = "", text:match "%d+$"
    end
    status = tonumber(status)
    assert(token or status < 400, ("%s %s: %s"):format(method, path, text))
    return json.decode(answer), status
  end

  --- A user's server, up.
  ---@async
  ---@param name string
  ---@param server string?  of several, this one
  function Hub:start_server(name, server)
    local path = "/users/" .. encode(name)
    self:api("POST", path .. (server and "/servers/" .. encode(server) or "/server"))
    world.wait_until(name .. "'s server", function()
      local it = (self:api("GET", path).servers or {})[server or ""]
      return it and it.ready or task.sleep(0.3)
    end, 240)
  end

  --- A browser in which a user has logged in.
  ---@param name string
  ---@return { get: fun(self, path: string): string, integer }
  function Hub:login(name)
    local cookies = world.folder "browser" .. "/cookies"
    local browser, hub = {}, self
    local function visit(argv)
      local text = hub:curl(table.move(argv, 1, #argv, 8, { "-L", "-b", cookies, "-c", cookies, "-w", "\n%{http_code}" }))
      local answer, status = text:match "^(.*)\n(%d+)$"
      return answer or "", tonumber(status or text:match "%d+$")
    end
    function browser.get(_, path)
      return visit { hub:url(path) }
    end
    local _, status = visit { "--data-urlencode", "username=" .. name, "--data-urlencode", "password=" .. self.password,
      self:url "/hub/login?next=%2Fhub%2Ftoken" }
    assert(status == 200, ("%s cannot log in: %s"):format(name, status))
    return browser
  end

  --- The address of a page of a user's server.
  ---@param name string
  ---@param page string?
  function Hub.page(_, name, page)
    return ("/user/%s/%s"):format(encode(name), page or "")
  end
end
