--- A real cluster and a fake one, so that specs ask the same of both and the fake cannot drift from what is real.

local kube = require "runbook.kube"
local world = require "spec.world"

local clusters = {}

---@class spec.Cluster
---@field name string
---@field cluster runbook.Cluster
---@field image string   has sh, echo, sleep
---@field fake? world.FakeKube
---@field real? world.Cluster
local Peer = {}
Peer.__index = Peer

local n = 0

--- A fresh namespace.
---@param prefix string
---@return string
function Peer:namespace(prefix)
  if self.real then
    return self.real:namespace(prefix)
  end
  n = n + 1
  local name = ("%s-%d-%d"):format(prefix, world.pid, n)
  self.cluster:create { apiVersion = "v1", kind = "Namespace", metadata = { name = name } }
  self.made[#self.made + 1] = name
  return name
end

--- The same cluster as somebody who may do little: a service account with these rules.
---@param namespace string
---@param rules table[]
---@return runbook.Cluster
function Peer:as_someone(namespace, rules)
  local c, account = self.cluster, "someone"
  c:apply { apiVersion = "v1", kind = "ServiceAccount", metadata = { name = account, namespace = namespace } }
  c:apply { apiVersion = "rbac.authorization.k8s.io/v1", kind = "Role", metadata = { name = account, namespace = namespace }, rules = rules }
  c:apply { apiVersion = "rbac.authorization.k8s.io/v1", kind = "RoleBinding", metadata = { name = account, namespace = namespace },
    roleRef = { apiGroup = "rbac.authorization.k8s.io", kind = "Role", name = account },
    subjects = { { kind = "ServiceAccount", name = account, namespace = namespace } } }
  local yaml = require "runbook.yaml"
  local config = yaml.decode(world.read(self.kubeconfig))
  for _, user in ipairs(config.users) do
    user.user.as = ("system:serviceaccount:%s:%s"):format(namespace, account)
  end
  local path = world.folder "someone" .. "/kubeconfig"
  world.write(path, require("runbook.json").encode(config))
  return kube.cluster { kubeconfig = path }
end

--- Remove what was made, and end what is nobody else's.
function Peer:close()
  for _, name in ipairs(self.made) do
    self.cluster:delete { "Namespace", name, wait = false }
  end
  if self.fake then
    self.fake:close()
  end
end

local function peer(name, fields)
  fields.name, fields.made = name, {}
  fields.cluster = kube.cluster { kubeconfig = fields.kubeconfig }
  return setmetatable(fields, Peer)
end

--- A fake cluster.
---@async
---@return spec.Cluster
function clusters.fake()
  local fake = world.fake_kube()
  return peer("a fake cluster", { fake = fake, kubeconfig = fake.kubeconfig, image = "busybox" })
end

--- A real one.
---@async
---@return spec.Cluster
function clusters.real()
  local real = world.kube.up "old"
  return peer("a real cluster", { kubeconfig = real.kubeconfig, image = "world/busybox:1", real = real })
end

--- Both, by name: `for name, start in pairs(clusters.both) do`.
clusters.both = { ["a real cluster"] = clusters.real, ["a fake cluster"] = clusters.fake }

return clusters
