--- An API server of Kubernetes in memory (fake_kube.py, its objects in fake_kube_store.py), which misbehaves as told.

local json = require "dkjson"

return function(world)
  ---@class world.FakeKube
  ---@field kubeconfig string  a path; its context is called "fake"
  ---@field port integer
  local Fake = {}
  Fake.__index = Fake

  --- Tell it to do what no server does when asked: see FAULTS in fake_kube.py.
  ---@param name string
  ---@param given? table
  ---@return table
  function Fake:tell(name, given)
    local text = world.must(("curl -fsS --cacert %s -H 'Content-Type: application/json' -d %s https://127.0.0.1:%d/fake/%s"):format(
      self.ca, world.quote(json.encode(given or {})), self.port, name))
    return json.decode(text)
  end

  --- The request lines since it began.
  ---@return string[]
  function Fake:requests()
    local list = {}
    for line in (world.read(self.folder .. "/requests") or ""):gmatch "[^\n]+" do
      list[#list + 1] = line
    end
    return list
  end

  ---@async
  function Fake:close()
    self.leash:stop()
  end

  Fake.__close = Fake.close

  --- A fake API server on 127.0.0.1.
  ---@async
  ---@return world.FakeKube
  function world.fake_kube()
    local fake = setmetatable({ folder = world.folder "fake-kube", ca = world.certificate "ca" .. ".pem" }, Fake)
    fake.leash = world.start({ "python3", "-Bu", "spec/world/fake_kube.py", fake.folder, world.certificate "good" },
      { log = fake.folder .. "/log" })
    fake.port = world.wait_until("a fake API server", function()
      assert(fake.leash:alive(), world.read(fake.folder .. "/log"))
      return tonumber(world.read(fake.folder .. "/port") or "")
    end)
    fake.kubeconfig = fake.folder .. "/kubeconfig"
    world.write(fake.kubeconfig, json.encode {
      ["current-context"] = "fake",
      clusters = { { name = "fake", cluster = { server = ("https://127.0.0.1:%d"):format(fake.port), ["certificate-authority"] = fake.ca } } },
      users = { { name = "fake", user = { token = "fake-kube-token" } } },
      contexts = { { name = "fake", context = { cluster = "fake", user = "fake" } } },
    })
    return fake
  end
end
