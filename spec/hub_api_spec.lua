-- The REST API of a real hub, through the Kubernetes API, page by page; and what no real hub of ours can say, by a server that
-- answers as told.

local api = require "runbook.hub.api"
local complaint = require "spec.support.complaint"
local events = require "runbook.events"
local hubs = require "runbook.hub"
local json = require "runbook.json"
local redaction = require "runbook.redaction"
local retry = require "runbook.retry"
local secret = require "runbook.secret"
local time = require "runbook.core.time"
local world = require "spec.world"

local function names_of(list)
  local names = {}
  for i, user in ipairs(list) do
    names[i] = user.name
  end
  table.sort(names)
  return names
end

describe("the API of a hub", function()
  local cluster, peer, hub

  -- Pages are small, and two services may not do everything.
  local CONFIG = [[
c.JupyterHub.api_page_default_limit = 5
c.JupyterHub.api_page_max_limit = 5
c.JupyterHub.services += [{"name": "reader", "api_token": "reads-and-no-more"}]
c.JupyterHub.load_roles += [{"name": "reader", "services": ["reader"], "scopes": ["list:users", "read:users:activity", "read:servers"]}]
]]

  setup(function()
    cluster = world.kube.up "old"
    peer = world.kube.hub(cluster, { users = 20, running = 2, extra_config = { pages = CONFIG } })
    peer:start_server("alice@uni.edu", "gpu 1")
    hub = hubs.open { context = "old", uid = cluster.uid, kubeconfig = cluster.kubeconfig, namespace = "temple" }
  end)

  local function with_token(token)
    return hubs.open { context = "old", kubeconfig = cluster.kubeconfig, namespace = "temple", token = secret.new("token", token) }
  end

  local function notes()
    return cluster:kubectl { "-n", "temple", "exec", "deploy/hub", "-c", "hub", "--", "python3", "-c",
      "import sqlite3; print([row[0] for row in sqlite3.connect('file:/srv/jupyterhub/jupyterhub.sqlite?mode=ro', uri=True)"
        .. ".execute(\"select note from api_tokens where note like 'runbook %'\")])" }
  end

  local function pods()
    return cluster:kubectl { "-n", "temple", "get", "pods", "-l", "component=singleuser-server", "-o", "name" }
  end

  it("gives every user of every page, the last one too", function()
    local list = hub:with_api({}, function(client)
      assert.equal("service hub-health", client.who)
      return client:users()
    end)
    local wanted = table.move(peer.users, 1, #peer.users, 1, {})
    table.sort(wanted)
    assert.same(wanted, names_of(list))
    for _, user in ipairs(list) do
      assert.equal(user.name == "carla", user.admin)
    end
  end)

  it("gives what a selection has, and anything else that it is asked for", function()
    hub:with_api({}, function(client)
      assert.same({ "alice@uni.edu", "carla", "user-17" }, names_of(client:users { state = "active" }))
      assert.equal("3", client:get("/info").version:match "^%d+")
    end)
  end)

  it("says who there is and who works where the database is not to be read", function()
    local remote = with_token "reads-and-no-more"
    local settings = remote.settings
    function remote.settings(self)
      local s = settings(self)
      s.database = "postgres"
      return s
    end
    local by_name = {}
    for _, person in ipairs(remote:users()) do
      by_name[person.name] = person
    end
    assert.equal(1, by_name["alice@uni.edu"].running)
    assert.equal(0, by_name.eve.running)
    assert.truthy(math.abs(time.utc() - by_name.carla.active) < 3600)
    assert.truthy(remote:impact()[2][2]:find("3 servers of 3 users", 1, true))
    local recent = remote:recently_active { within = "1h" }
    assert.truthy(({ carla = true, ["user-2d17"] = true, ["alice-40uni-2eedu"] = true })[recent[1]], recent[1])
  end)

  it("names the scope that is missing, and what each token lacks", function()
    local reader = with_token "reads-and-no-more"
    local err = complaint("refused", reader.with_api, reader, {}, function(client) client:stop_server "carla" end)
    assert.equal("the token of this hub's parameters may not do this: it lacks the scope delete:servers", err.message)
    err = complaint("auth", reader.with_api, reader, { scopes = { "list:users", "delete:servers" } }, error)
    assert.truthy(err.message:find("the token of this hub's parameters: it lacks delete:servers", 1, true), err.message)
    local stranger = with_token "nobody-knows-this-one"
    err = complaint("auth", stranger.with_api, stranger, { make_token = true }, error)
    assert.truthy(err.message:find("the hub does not accept it", 1, true), err.message)
  end)

  it("is asked with a token made for the moment, where no service may do it, and that is gone afterwards", function()
    local scopes = { "list:users", "read:metrics" }
    local err = complaint("auth", hub.with_api, hub, { scopes = scopes }, error)
    assert.truthy(err.message:find("service hub-health: it lacks read:metrics\nservice runbook: it lacks read:metrics", 1, true), err.message)
    err = complaint("missing", hub.with_api, hub, { scopes = scopes, make_token = true }, function(client)
      assert.truthy(notes():find("['runbook ad-hoc ", 1, true))
      assert.equal("a token made for this", client.who)
      assert.equal("«secret:token of old/temple»", tostring(client.token))
      local own = client:get "/user"
      assert.equal("carla", own.name) -- the only admin
      assert.same({ "list:users", "read:metrics" }, table.move(own.scopes, 1, 2, 1, {})) -- then what it may know of itself
      client:get "/users/nobody"
    end)
    assert.equal("HTTP404", err.code)
    assert.equal("[]", notes())
  end)

  it("stops a server, and nobody else's", function()
    hub:with_api({ scopes = { "read:servers", api.STOPPING } }, function(client)
      client:stop_server("alice@uni.edu", "gpu 1")
      client:stop_server("alice@uni.edu", "gpu 1") -- twice is once
      assert.same({ "carla", "user-17" }, names_of(client:users { state = "active" }))
    end)
    assert.falsy(pods():find("alice", 1, true))
    assert.truthy(pods():find("carla", 1, true))
  end)

  it("stops everybody's server: the hub by itself, and says how far it is", function()
    local seen = {}
    local stop_listening = events.subscribe(function(event)
      seen[#seen + 1] = { type = event.type, text = event.text, done = event.done, total = event.total }
    end)
    hub:stop_servers()
    stop_listening()
    assert.equal("", pods())
    local last
    for _, event in ipairs(seen) do
      assert.truthy(event.type == "progress", event.text)
      last = event
    end
    assert.same({ 2, 2, "stopped by the hub" }, { last.done, last.total, last.text })
    assert.same({}, names_of((peer:api("GET", "/users?state=active"))))
  end)

  it("is not needed to stop them: then their pods go, and it is said why", function()
    peer:start_server "carla"
    local seen = {}
    local stop_listening = events.subscribe(function(event) seen[#seen + 1] = event.text or "" end)
    with_token "nobody-knows-this-one":stop_servers()
    stop_listening()
    assert.equal("", pods())
    assert.truthy(table.concat(seen, "\n"):find("the hub has not stopped them all by itself", 1, true), table.concat(seen, "\n"))
  end)
end)

describe("an API that answers", function()
  local server, poll, ending, first_delay

  setup(function()
    server = world.httpd()
    poll, ending = api.poll, api.ending
    api.poll = 0.01
    first_delay, retry.first_delay = retry.first_delay, 0.001
  end)

  teardown(function()
    api.poll, retry.first_delay = poll, first_delay
    server:close()
  end)

  after_each(function()
    api.ending = ending
  end)

  local function client(script)
    local answers = {}
    for line, list in pairs(script) do
      answers[line] = {}
      for i, answer in ipairs(list) do
        answers[line][i] = { status = answer.status or 200, headers = { ["Content-Type"] = "application/json" },
          body = answer.body or json.encode(answer) }
      end
    end
    server:script(answers)
    return api.new { hub = { name = "old/temple" }, port = server.port, base = "/", token = secret.new("token", "t0psecret"), who = "service x",
      major = 3 }
  end

  local function page(offset, total, following, ...)
    local items = {}
    for i, name in ipairs { ... } do
      items[i] = { name = name, servers = json.object {} }
    end
    return { items = json.array(items), _pagination = { offset = offset, limit = #items, total = total,
      next = following and { offset = following, limit = #items } or json.null } }
  end

  it("with a plain list, as hubs before 2.0 do, has given all of it", function()
    local list = client { ["GET /hub/api/users"] = { json.array { { name = "ann" }, { name = "bob" } } } }:users()
    assert.same({ "ann", "bob" }, names_of(list))
  end)

  it("with another total on the second page is asked once more from the first", function()
    local list = client { ["GET /hub/api/users"] = { page(0, 3, 2, "ann", "bob"), page(2, 2, nil, "dan"), page(0, 3, 2, "ann", "bob"),
      page(2, 3, nil, "cyd") } }:users()
    assert.same({ "ann", "bob", "cyd" }, names_of(list))
  end)

  it("with the same page for ever is refused, not read for ever", function()
    local c = client { ["GET /hub/api/users"] = { page(0, 9, 0, "ann") } }
    assert.equal("the page at 0 names none that follows it", complaint("exit", c.users, c).message)
  end)

  it("that a server is ending is asked until it has ended", function()
    local busy = { name = "ann", servers = { gpu = { ready = false, pending = "stop" } } }
    local c = client {
      ["GET /hub/api/users/ann"] = { { name = "ann", servers = { gpu = { ready = false, pending = "spawn" } } },
        { name = "ann", servers = { gpu = { ready = true, pending = json.null } } }, busy, busy, { name = "ann", servers = json.object {} } },
      ["DELETE /hub/api/users/ann/servers/gpu"] = { { status = 400, body = '{"message": "ann:gpu is pending spawn, please wait"}' },
        { status = 202, body = "" } },
    }
    local before = #server:requests()
    c:stop_server("ann", "gpu")
    local deletes = 0
    for i = before + 1, #server:requests() do
      deletes = deletes + (server:requests()[i].method == "DELETE" and 1 or 0)
    end
    assert.equal(2, deletes)
  end)

  it("that a server never ends is an error that says whose", function()
    api.ending = 0.05
    local c = client { ["GET /hub/api/users"] = { { items = json.array { { name = "ann", servers = { [""] = { pending = "stop" } } } },
      _pagination = { total = 1, next = json.null } } } }
    local err = complaint("timeout", c.stop_servers, c)
    assert.truthy(err.message:find("the hub has not stopped 1 server after", 1, true), err.message)
    assert.truthy(err.message:find("ann: stop", 1, true), err.message)
  end)

  it("with nonsense, or not at all, is named as the hub, and no token is shown", function()
    local c = client { ["GET /hub/api/info"] = { { status = 500, body = '{"message": "t0psecret"}' } } }
    local err = complaint("busy", c.get, c, "/info")
    assert.equal("old/temple", err.target)
    assert.equal("the hub answers 500: «secret:token»", redaction.value(err.message))
    c.port = 1
    err = complaint("unreachable", c.get, c, "/info")
    assert.equal("old/temple", err.target)
  end)
end)
