-- kubeconfig and credentials, against a server that echoes what it is asked.

local config = require "runbook.kube.config"
local digest = require "runbook.core.digest"
local errors = require "runbook.errors"
local events = require "runbook.events"
local json = require "runbook.json"
local kube = require "runbook.kube"
local plugin = require "runbook.kube.plugin"
local retry = require "runbook.retry"
local secret = require "runbook.secret"
local task = require "runbook.task"
local world = require "spec.world"

local function complaint(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  assert.is_true(errors.is(err), tostring(err))
  return err
end

-- What the server was asked, as it echoes it.
local function asked(cluster, o)
  o = o or {}
  o.path = o.path or "/"
  return cluster:request(o).json
end

local function notices(fn)
  local seen = {}
  local stop = events.subscribe(function(e) seen[#seen + 1] = e.type == "notice" and e.text or nil end)
  local ok, err = pcall(fn)
  stop()
  return table.concat(seen, "\n"), ok, err
end

local web, mutual, real_getenv, real_delay
local env = {}

setup(function()
  web = world.httpd { tls = "good" }
  mutual = world.httpd { tls = "good", client_certificate = true }
  real_getenv, real_delay = os.getenv, retry.longest_delay
  retry.longest_delay = 0.02
  os.getenv = function(name) -- luacheck: ignore 122
    if env[name] ~= nil then
      return env[name] or nil
    end
    return real_getenv(name)
  end
end)

teardown(function()
  os.getenv = real_getenv -- luacheck: ignore 122
  retry.longest_delay = real_delay
  web:close()
  mutual:close()
end)

before_each(function()
  env = { KUBECONFIG = false, HOME = world.folder "home", KUBERNETES_SERVICE_HOST = false, KUBERNETES_SERVICE_PORT = false }
  web:script {}
end)

-- A kubeconfig of one context, as values; `user` and `cluster` are what stands below them.
local function one(user, cluster, more)
  cluster = cluster or {}
  cluster.server = cluster.server or web.url
  if not cluster["certificate-authority"] and not cluster["insecure-skip-tls-verify"] then
    cluster["certificate-authority-data"] = digest.base64(world.read(world.certificate "ca" .. ".pem"))
  end
  local value = { apiVersion = "v1", kind = "Config", ["current-context"] = "one",
    clusters = { { name = "c", cluster = cluster } }, users = { { name = "u", user = json.object(user) } },
    contexts = { { name = "one", context = { cluster = "c", user = "u" } } } }
  for key, one_more in pairs(more or {}) do
    value[key] = one_more
  end
  return value
end

local function write(value, name, folder)
  local path = ("%s/%s"):format(folder or world.folder "kubeconfig", name or "config")
  world.write(path, type(value) == "string" and value or json.encode(value))
  return path
end

local function open(user, cluster, more)
  return kube.cluster { kubeconfig = write(one(user, cluster, more)) }
end

describe("kubeconfig", function()
  it("is the files of KUBECONFIG, of which the first to name a thing wins", function()
    local a, b = world.folder "a", world.folder "b"
    world.write(a .. "/ca", world.read(world.certificate "ca" .. ".pem"))
    world.write(b .. "/token", "of-b-file\n")
    local first = write({ ["current-context"] = "mine", clusters = { { name = "c", cluster = { server = web.url,
      ["certificate-authority"] = "ca" } } }, users = { { name = "u", user = { token = "of-the-first" } } } }, "config", a)
    local second = write({ ["current-context"] = "yours",
      clusters = { { name = "c", cluster = { server = "https://127.0.0.1:1" } } },
      users = { { name = "u", user = { token = "of-the-second" } }, { name = "v", user = { tokenFile = "token" } } },
      contexts = { { name = "mine", context = { cluster = "c", user = "u", namespace = "prod" } },
        { name = "other", context = { cluster = "c", user = "v" } } } }, "config", b)
    env.KUBECONFIG = table.concat({ "/nonexistent/kubeconfig", first, second, first }, ":")
    local mine = kube.cluster {}
    assert.equal("Bearer of-the-first", asked(mine).headers.authorization)
    assert.equal("mine", mine.name)
    assert.equal("prod", mine:default_namespace())
    local other = kube.cluster { context = "other" }
    assert.equal("Bearer of-b-file", asked(other).headers.authorization)
    assert.equal("default", other:default_namespace())
    assert.is_true(other == kube.cluster { context = "other" })
    assert.is_false(other == mine)
  end)

  it("is ~/.kube/config without KUBECONFIG, and YAML as kubectl writes it", function()
    world.must("mkdir " .. env.HOME .. "/.kube")
    write(([[
apiVersion: v1
kind: Config
preferences: {}
current-context: home
clusters:
- cluster:
    certificate-authority: %s
    server: %s/
  name: k
contexts:
- context: {cluster: k, user: ""}
  name: home
users: null
]]):format(world.certificate "ca" .. ".pem", web.url), "config", env.HOME .. "/.kube")
    local echo = asked(kube.cluster {})
    assert.equal("/", echo.path)
    assert.is_nil(echo.headers.authorization)
  end)

  it("may come from memory: a secret, whose parts no message shows", function()
    local s = secret.new("kubeconfig", json.encode(one { token = "token-of-memory" }))
    local c = kube.cluster { kubeconfig = s }
    assert.equal("Bearer token-of-memory", asked(c).headers.authorization)
    local err = complaint(c.reference, c)
    assert.equal("usage", err.kind)
    assert.matches("in memory only", err.message)
    local path = write(one { token = "token-of-reference" })
    c = kube.cluster { kubeconfig = "file:" .. path, context = "one" }
    assert.equal("Bearer token-of-reference", asked(c).headers.authorization)
    local reference = c:reference()
    assert.same({ kind = "kube", context = "one", kubeconfig = "file:" .. path }, reference)
    assert.equal("Bearer token-of-reference", asked(require("runbook.place").open(reference)).headers.authorization)
  end)

  it("is what a pod finds about its own cluster, where there is none", function()
    local folder = world.folder "serviceaccount"
    world.write(folder .. "/ca.crt", world.read(world.certificate "ca" .. ".pem"))
    world.write(folder .. "/token", "token-of-the-pod")
    world.write(folder .. "/namespace", "temple\n")
    local real = config.in_cluster
    config.in_cluster = folder
    finally(function() config.in_cluster = real end)
    env.KUBERNETES_SERVICE_HOST, env.KUBERNETES_SERVICE_PORT = "127.0.0.1", tostring(web.port)
    local c = kube.cluster { in_cluster = true }
    assert.equal("Bearer token-of-the-pod", asked(c).headers.authorization)
    assert.equal("temple", c:default_namespace())
    assert.equal("Bearer token-of-the-pod", asked(kube.cluster { in_cluster = true, cluster = nil }).headers.authorization)
    local err = complaint(asked, kube.cluster { context = "elsewhere" })
    assert.matches("no context is called `elsewhere`", err.message)
    env.KUBERNETES_SERVICE_HOST = false
    config.in_cluster = "/nonexistent"
    assert.matches("this is no pod", complaint(config.access, { in_cluster = true }).message)
  end)

  it("is refused in words where it makes no sense", function()
    local function says(value, wanted, o)
      o = o or {}
      o.kubeconfig = write(value)
      local err = complaint(asked, kube.cluster(o))
      assert.matches(wanted, err.message .. "\n" .. (err.hint or ""))
      return err
    end
    says(one {}, "no context is called `onne`.*did you mean `one`.*there are: one", { context = "onne" })
    says({ contexts = {} }, "no context is chosen")
    says("a: [", "line %d")
    says("[]", "no context is chosen")
    says({ clusters = { a = 1 } }, "clusters is no list")
    says(one({}, { server = "127.0.0.1:6443" }), "`server` is no URL like")
    says(one({}, { server = "https://user:pw@h" }), "`server` is no URL like")
    says(one { ["client-certificate-data"] = "YQ==" }, "a client certificate without its key")
    says(one { ["client-key-data"] = "%%%", ["client-certificate-data"] = "YQ==" }, "`client%-key%-data` is no base64")
    says(one { token = "abcdefgh", username = "op", password = "correct horse" }, "a token and a username exclude each other")
    says(one { ["auth-provider"] = { name = "gcp" } }, "auth%-provider is gone.*gke%-gcloud%-auth%-plugin")
    says(one { ["as-groups"] = { "g" } }, "need `as`")
    says(one({}, { ["insecure-skip-tls-verify"] = true, ["certificate-authority-data"] = "YQ==" }), "exclude each other")
    says(one({}, nil, { contexts = { { name = "one", context = { cluster = "c", user = "uu" } } } }), "no user is called `uu`.*`u`")
    says(one({}, nil, { contexts = { { name = "one", context = { cluster = "gone", user = "u" } } } }), "no cluster is called `gone`")
    local err = complaint(asked, kube.cluster { kubeconfig = "/nonexistent/config" })
    assert.equal("missing", err.kind)
    err = says(one { tokenFile = "/nonexistent/token" }, "tokenFile /nonexistent/token cannot be read")
    assert.equal("auth", err.kind)
    assert.matches("did you mean `context`", complaint(kube.cluster, { contxt = "x" }).message)
  end)
end)

describe("credentials of kubeconfig", function()
  it("are a certificate, from files or from the file itself", function()
    local pair = world.certificate "client"
    local c = open({ ["client-certificate"] = pair .. ".pem", ["client-key"] = pair .. ".key" }, { server = mutual.url })
    assert.equal("GET", asked(c).method)
    local data = { ["client-certificate-data"] = digest.base64(world.read(pair .. ".pem")),
      ["client-key-data"] = digest.base64(world.read(pair .. ".key")), ["client-certificate"] = "/nonexistent" }
    assert.equal("GET", asked(open(data, { server = mutual.url })).method)
    local endpoint = open(data, { server = mutual.url }):endpoint()
    assert.equal("«secret:client-key»", tostring(endpoint.tls.key))
    assert.matches("BEGIN CERTIFICATE", endpoint.tls.cert)
  end)

  it("are a name and password, or a token that is read again when it is refused", function()
    assert.equal("Basic b3A6Y29ycmVjdCBob3JzZQ==", asked(open { username = "op", password = "correct horse" }).headers.authorization)
    local path = write("first-token\n", "token")
    local c = open { tokenFile = path, token = "stale-token" }
    assert.equal("Bearer first-token", asked(c).headers.authorization)
    world.write(path, "second-token")
    assert.equal("Bearer first-token", asked(c).headers.authorization) -- not a minute old
    web:script { ["GET /"] = { { status = 401, body = "expired" }, { headers = { ["Content-Type"] = "application/json" }, body = "{}" } } }
    asked(c)
    local requests = web:requests()
    assert.equal("Bearer second-token", requests[#requests].headers.authorization)
    assert.equal("Bearer first-token", requests[#requests - 1].headers.authorization)
    web:script { ["GET /"] = { { status = 401, headers = { ["Content-Type"] = "text/plain" }, body = "bad token second-token" } } }
    local before = #web:requests()
    local err = complaint(asked, c)
    assert.equal("auth", err.kind)
    assert.matches("log in again", err.hint)
    assert.equal(1, #web:requests() - before) -- there is nothing newer to try
    assert.is_nil(json.encode(errors.record(err)):find("second-token", 1, true))
  end)

  it("may be somebody else's, by impersonation", function()
    local headers = asked(open { token = "abcdefgh", as = "ada", ["as-uid"] = "42", ["as-groups"] = { "ops", "dev" },
      ["as-user-extra"] = { ["Example.org/Scope"] = { "read" } } }).headers
    assert.equal("ada", headers["impersonate-user"])
    assert.equal("42", headers["impersonate-uid"])
    assert.equal("ops, dev", headers["impersonate-group"])
    assert.equal("read", headers["impersonate-extra-example.org%2fscope"])
  end)
end)

describe("the way to a cluster", function()
  it("is verified by the authority of kubeconfig alone, and by the name that it says", function()
    local ca = world.certificate "ca" .. ".pem"
    local err = complaint(asked, open({}, { ["certificate-authority"] = world.certificate "self_signed" .. ".pem" }))
    assert.equal("identity", err.kind)
    assert.matches("authority that kubeconfig names", err.hint)
    local other <close> = world.httpd { tls = "wrong_name" }
    err = complaint(asked, open({}, { server = other.url, ["certificate-authority"] = ca }))
    assert.equal("identity", err.kind)
    local c = open({}, { server = other.url, ["certificate-authority"] = ca, ["tls-server-name"] = "elsewhere.example" })
    local echo = asked(c, { path = "/api/v1?x=1" })
    assert.equal("/api/v1?x=1", echo.path)
    assert.equal("127.0.0.1:" .. other.port, echo.headers.host)
    assert.equal("elsewhere.example", c:endpoint().tls.server_name)
  end)

  it("is said loudly where nothing is verified", function()
    local other <close> = world.httpd { tls = "self_signed" }
    local c = open({ token = "for-anybody" }, { server = other.url, ["insecure-skip-tls-verify"] = true })
    local said = notices(function() asked(c) asked(c) end)
    assert.matches("ANYBODY between here and " .. other.url, said, 1, true)
    assert.equal(1, select(2, said:gsub("ANYBODY", "")))
  end)

  it("is compressed, unless kubeconfig says otherwise", function()
    assert.matches("gzip", asked(open {}).headers["accept-encoding"])
    assert.equal("identity", asked(open({}, { ["disable-compression"] = true })).headers["accept-encoding"])
  end)

  it("may lead through a proxy, which sees no header of ours", function()
    local folder = world.folder "proxy"
    local leash = world.start({ "python3", "-u", "spec/world/proxy.py", folder }, { log = folder .. "/log" })
    local port = world.wait_until("a proxy", function() return tonumber(world.read(folder .. "/port") or "") end)
    local c = open({ token = "through-the-tunnel" }, { ["proxy-url"] = "http://127.0.0.1:" .. port })
    assert.equal("Bearer through-the-tunnel", asked(c).headers.authorization)
    local seen = world.read(folder .. "/requests")
    assert.matches("CONNECT 127.0.0.1:" .. web.port, seen, 1, true)
    assert.is_nil(seen:find("through-the-tunnel", 1, true))
    leash:stop()
  end)

  it("is tried again where nobody is there, and given up in words", function()
    local c = open({}, { server = "https://127.0.0.1:1" })
    local err = complaint(c.request, c, { path = "/version", tries = nil, timeout = 1 })
    assert.equal("unreachable", err.kind)
    assert.equal(retry.same_error, err.tries)
    assert.matches("https://127.0.0.1:1", err.message, 1, true)
  end)
end)

describe("a plugin of kubeconfig", function()
  local function script(text)
    local path = write("#!/bin/sh\n" .. text, "plugin")
    world.must("chmod +x " .. path)
    return path
  end

  local function exec(path, more)
    local given = { apiVersion = "client.authentication.k8s.io/v1beta1", command = path }
    for key, value in pairs(more or {}) do
      given[key] = value
    end
    return { exec = given }
  end

  local function credential(status, version)
    return ([[{"apiVersion":"client.authentication.k8s.io/%s","kind":"ExecCredential","status":%s}]]):format(version or "v1beta1", status)
  end

  it("is run once for all who wait, and again when its token expires", function()
    local folder = world.folder "counts"
    local path = script(([[
cd %s; n=$(($(cat n 2>/dev/null || echo 0) + 1)); echo $n > n; sleep 0.2
echo '%s' | sed "s/NNN/$n/; s/WHEN/$(cat when)/"
]]):format(folder, credential '{"token":"token-number-NNN","expirationTimestamp":"WHEN"}'))
    world.write(folder .. "/when", "2999-01-01T00:00:00Z")
    local c = open(exec(path))
    local all = task.all { function() return asked(c) end, function() return asked(c) end, function() return asked(c) end }
    for _, echo in ipairs(all) do
      assert.equal("Bearer token-number-1", echo.headers.authorization)
    end
    world.write(folder .. "/when", os.date("!%Y-%m-%dT%H:%M:%S.5Z", os.time() + 5)) -- within the leeway
    web:script { ["GET /401"] = { { status = 401 }, { headers = { ["Content-Type"] = "application/json" }, body = "{}" } } }
    asked(c, { path = "/401" }) -- refused, so it is run again; and what that gives expires too soon to be kept
    assert.equal("2\n", world.read(folder .. "/n"))
    assert.equal("Bearer token-number-3", asked(c).headers.authorization)
  end)

  it("is told what it needs to know, and finds its own environment", function()
    local folder = world.folder "told"
    local path = script(([[
printf '%%s' "$KUBERNETES_EXEC_INFO" > %s/info; printf '%%s ' "$EXTRA" "$@" > %s/rest
echo "go to https://login.example/ and type ABC" >&2
echo '%s']]):format(folder, folder, credential('{"token":"v1-token"}', "v1")))
    local given = exec(path, { apiVersion = "client.authentication.k8s.io/v1", interactiveMode = "IfAvailable", provideClusterInfo = true,
      args = { "get-token", "a b" }, env = { { name = "EXTRA", value = "put there" } } })
    local c = open(given, { extensions = { { name = "client.authentication.k8s.io/exec", extension = { audience = "me" } } } })
    local said = notices(function() assert.equal("Bearer v1-token", asked(c).headers.authorization) end)
    assert.matches("plugin: go to https://login.example/ and type ABC", said, 1, true)
    local info = json.decode(world.read(folder .. "/info"))
    assert.equal("client.authentication.k8s.io/v1", info.apiVersion)
    assert.is_false(info.spec.interactive)
    assert.equal(web.url, info.spec.cluster.server)
    assert.equal("me", info.spec.cluster.config.audience)
    assert.equal(world.read(world.certificate "ca" .. ".pem"), digest.unbase64(info.spec.cluster["certificate-authority-data"]))
    assert.equal("put there get-token a b ", world.read(folder .. "/rest"))
  end)

  it("may give a certificate", function()
    local pair, folder = world.certificate "client", world.folder "certificate"
    world.write(folder .. "/out", json.encode { apiVersion = "client.authentication.k8s.io/v1beta1", kind = "ExecCredential",
      status = { clientCertificateData = world.read(pair .. ".pem"), clientKeyData = world.read(pair .. ".key") } })
    assert.equal("GET", asked(open(exec(script("cat " .. folder .. "/out")), { server = mutual.url })).method)
  end)

  it("that fails, prints rubbish or answers wrongly is explained without what it printed", function()
    local function says(text, wanted, more)
      local err = complaint(asked, open(exec(script(text), more)))
      assert.matches(wanted, err.message)
      assert.is_nil(err.message:find("hush", 1, true))
      return err
    end
    local err = says("echo 'no profile called prod' >&2; exit 3", "ended with exit status 3: no profile called prod")
    assert.equal("auth", err.kind)
    assert.equal(3, err.status)
    assert.matches("by hand: ", err.hint)
    says("kill -9 $$", "ended with signal KILL, and said nothing")
    says("echo hush", "it printed 5 bytes that are no ExecCredential")
    says("true", "it printed 0 bytes")
    says(("echo '%s'"):format(credential('{"token":"hush-hush"}', "v1")), "it answers in client.authentication.k8s.io/v1, and kubeconfig says")
    says(("echo '%s'"):format(credential "{}"), "neither a token nor a certificate")
    says(("echo '%s'"):format(credential '{"clientKeyData":"hush"}'), "a certificate without key, or a key without certificate")
    says(("echo '%s'"):format(credential '{"token":"hush-hush","expirationTimestamp":"soon"}'), "is no time: soon")
    says("yes hush", "more than 1 MiB")
    says("true", "interactiveMode Always", { interactiveMode = "Always" })
    says("true", "interactiveMode is missing", { apiVersion = "client.authentication.k8s.io/v1" })
    says("true", "known are client", { apiVersion = "client.authentication.k8s.io/v1alpha1" })
    err = complaint(asked, open(exec("no-such-plugin", { installHint = "get it from example.org" })))
    assert.equal("missing", err.kind)
    assert.equal("get it from example.org", err.hint)
  end)

  it("that hangs is ended", function()
    local seconds = plugin.seconds
    plugin.seconds = 0.5
    finally(function() plugin.seconds = seconds end)
    local err = complaint(asked, open(exec(script "echo 'waiting for your browser' >&2; exec sleep 600")))
    assert.equal("timeout", err.kind)
    assert.matches("no credentials within 0.5 s: waiting for your browser", err.message)
  end)
end)
