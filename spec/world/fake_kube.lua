--- An API server of Kubernetes in memory (fake_kube.py, its objects in fake_kube_store.py), which misbehaves as told.

local json = require "dkjson"

return function(world)
  ---@class world.FakeKube: world.Server
  ---@field kubeconfig string  a path; its context is called "fake"
  local Fake = world.server_class()

  --- Tell it to do what no server does when asked: see FAULTS in fake_kube.py.
  ---@param name string
  ---@param given? table
  ---@return table
  function Fake:tell(name, given)
    local text = world.must(("curl -fsS --cacert %s -H 'Content-Type: application/json' -d %s https://127.0.0.1:%d/fake/%s"):format(
      self.ca, world.quote(json.encode(given or {})), self.port, name))
    return json.decode(text)
  end

  --- A fake API server on 127.0.0.1.
  ---@async
  ---@return world.FakeKube
  function world.fake_kube()
    local fake = world.server(Fake, "fake-kube")
    world.serve(fake, { "python3", "-Bu", "spec/world/fake_kube.py" }, { tls = "good" })
    fake.kubeconfig = fake.folder .. "/kubeconfig"
    world.write(fake.kubeconfig, json.encode {
      ["current-context"] = "fake",
      clusters = { { name = "fake", cluster = { server = fake.url, ["certificate-authority"] = fake.ca } } },
      users = { { name = "fake", user = { token = "fake-kube-token" } } },
      contexts = { { name = "fake", context = { cluster = "fake", user = "fake" } } },
    })
    return fake
  end
end
