describe("a hub of the world", function()
  local json = require "dkjson"
  local task = require "runbook.core.task"
  local world = require "spec.world"
  local hub, cluster, nfs

  local function pods(selector)
    return json.decode(cluster:kubectl { "-n", "temple", "get", "pods", "-l", selector, "-o", "json" }).items
  end

  setup(function()
    cluster = world.kube.up "old"
    nfs = world.folder "nfs"
    hub = world.kube.hub(cluster, { users = 20, running = 1, homes = { server = "127.9.8.7", path = "/export/homes/temple", folder = nfs } })
  end)

  it("has its users, admins, groups and tokens", function()
    local page = hub:api("GET", "/users?limit=200")
    assert.equal(20, #page)
    local by_name = {}
    for _, user in ipairs(page) do
      by_name[user.name] = user
    end
    for _, name in ipairs(hub.users) do
      assert.is_table(by_name[name], name)
    end
    assert.is_true(by_name.carla.admin)
    assert.is_false(by_name["o'neil"].admin)
    assert.same({ "course-a" }, by_name["alice@uni.edu"].groups)
    local me, status = hub:api("GET", "/user", nil, hub.tokens["auth0|5f"])
    assert.same({ "auth0|5f", 200 }, { me.name, status })
    assert.equal(403, select(2, hub:api("GET", "/user", nil, "0123456789abcdef")))
  end)

  it("gives servers kubespawner's names, labels and annotations", function()
    local pod = pods("component=singleuser-server")[1]
    assert.equal("jupyter-carla", pod.metadata.name)
    assert.equal("carla", pod.metadata.annotations["hub.jupyter.org/username"])
    assert.equal("kubespawner", pod.metadata.labels["app.kubernetes.io/managed-by"])
    local mount = pod.spec.containers[1].volumeMounts[1]
    assert.same({ "/home/jovyan", "carla" }, { mount.mountPath, mount.subPath })
    assert.equal("127.9.8.7:/export/homes/temple", cluster:kubectl { "get", "pv", "temple-home-nfs", "-o",
      "jsonpath={.spec.nfs.server}:{.spec.nfs.path}" })
  end)

  it("keeps writing into the homes of those who work", function()
    local journal = nfs .. "/carla/work/journal.txt"
    local before = #world.wait_until("something written", function() return world.read(journal) or task.sleep(0.1) end, 60)
    world.wait_until("more of it", function() return #world.read(journal) > before or task.sleep(0.1) end, 60)
  end)

  it("lets a user with an awkward name log in, start a server and find the files", function()
    local name = "alice@uni.edu"
    local browser = hub:login(name)
    hub:start_server(name)
    local page, status = browser:get(hub:page(name))
    assert.equal(200, status)
    assert.matches("the files of alice@uni.edu", page, 1, true)
    local names = json.decode((browser:get(hub:page(name, "api/contents/")))).content
    assert.same({ "data.bin", "shared", "whose.txt", "work" }, names)
    assert.equal(name, json.decode((browser:get(hub:page(name, "api/contents/whose.txt")))).content)
    assert.matches("everybody", (browser:get(hub:page(name, "api/contents/shared/course/plan.txt"))))
    local _, refused = hub:login("dan"):get(hub:page(name, "api/contents/"))
    assert.equal(403, refused)
    local with_token = hub:curl { "-H", "Authorization: token " .. hub.tokens[name], hub:url(hub:page(name, "api/status")) }
    assert.equal(name, json.decode(with_token).user)
  end)

  it("runs servers beside the first, by names of their own", function()
    hub:start_server("1234", "gpu box")
    local pod = pods("hub.jupyter.org/servername=gpu-20box")[1]
    assert.equal("jupyter-1234--gpu-20box", pod.metadata.name)
    assert.equal("gpu box", pod.metadata.annotations["hub.jupyter.org/servername"])
    hub:api("DELETE", "/users/1234/servers/gpu%20box")
    world.wait_until("the end of that", function()
      return #pods "hub.jupyter.org/servername=gpu-20box" == 0 or task.sleep(0.3)
    end, 120)
  end)

  it("answers by its name over TLS, too, with its own certificate", function()
    local subject = hub:curl { "-kvo", "/dev/null", "https://" .. hub.host .. "/hub/login" }
    assert.matches("subject: CN=temple.world.test", subject, 1, true)
    assert.matches("HTTP/1.1 200", subject, 1, true)
  end)

  it("knows everybody again after it was stopped, and finds their servers", function()
    cluster:kubectl { "-n", "temple", "scale", "deployment/hub", "--replicas=0" }
    cluster:kubectl { "-n", "temple", "wait", "--for=delete", "pod", "-l", "component=hub", "--timeout=120s" }
    assert.equal("503", hub:curl { "-o", "/dev/null", "-w", "%{http_code}", hub:url "/hub/login" })
    cluster:kubectl { "-n", "temple", "scale", "deployment/hub", "--replicas=1" }
    hub:wait_ready()
    local me = hub:api("GET", "/user", nil, hub.tokens["auth0|5f"])
    assert.equal("auth0|5f", me.name)
    assert.is_true(hub:api("GET", "/users/carla").servers[""].ready)
  end)
end)
