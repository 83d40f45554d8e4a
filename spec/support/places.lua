--- Places for specs: this machine, busybox alone, and a machine by ssh, so that one spec runs on all of them.

local place = require "runbook.place"
local process = require "runbook.core.process"
local world = require "spec.world"

local places = {}

-- A place whose programs are busybox and nothing else: POSIX sh and coreutils are all that is promised.
local function busybox()
  local bin, home = world.folder "busybox", world.folder "home"
  world.must("busybox --install -s " .. bin)
  local env = { PATH = bin, HOME = home, LC_ALL = "C", XDG_STATE_HOME = home .. "/state" }
  -- As a login shell there would start it, so that a missing program is status 127.
  local function by_shell(argv)
    return table.move(argv, 1, #argv, 5, { "sh", "-c", 'exec "$@"', "sh" })
  end
  local backend = {}
  function backend:open(argv) -- luacheck: no self
    return process.open { argv = by_shell(argv), env = env }
  end
  function backend:by_hand(argv) -- luacheck: no self
    return table.concat(argv, " ")
  end
  function backend:reference() -- luacheck: no self
    return { kind = "busybox" }
  end
  local at = place.new(backend, { name = "busybox" })
  place.register("busybox", function() return at end)
  return at
end

local machine

--- A machine with an ssh server, the same for a whole file of specs.
---@async
---@return world.Machine
function places.machine()
  if not machine or not machine.leash:alive() then
    machine = world.sshd { name = "far" }
  end
  return machine
end

--- It by ssh, as root unless told otherwise.
---@async
---@param o? table  options of ssh.host
---@return runbook.Place
function places.by_ssh(o)
  local m = places.machine()
  local given = { m.address, port = m.port, user = "root", identity = world.key(), host_key = m.fingerprint, name = "far" }
  for key, value in pairs(o or {}) do
    given[key] = value
  end
  return require("runbook.ssh").host(given)
end

local pods

--- A server that speaks as Kubernetes does and runs what containers would on this machine; the same for a file of specs.
---@async
---@return world.Websocketd
function places.pods()
  if not pods or not pods.leash:alive() then
    pods = world.websocketd { protocols = "v4.channel.k8s.io" }
    world.write(pods.folder .. "/token", "t0ken-of-the-pods")
  end
  return pods
end

--- A cluster that is this server.
---@param server world.Websocketd|{ url: string, ca: string? }
---@param token string?
---@return runbook.Cluster
function places.cluster_of(server, token)
  local path = world.folder "kubeconfig" .. "/config"
  world.write(path, ([[
apiVersion: v1
kind: Config
clusters: [{ name: it, cluster: { server: "%s" } }]
users: [{ name: us, user: { token: %s } }]
contexts: [{ name: pods, context: { cluster: it, user: us, namespace: rooms } }]
current-context: pods
]]):format(server.url, token or "t0ken-of-the-pods"))
  return require("runbook.kube").cluster { kubeconfig = path, context = "pods" }
end

--- One of each kind: `{ name, function that makes the place }`.
places.kinds = {
  { "here", function() return place.here end },
  { "busybox", busybox },
  { "ssh", function() return places.by_ssh() end },
  { "container", function() return places.cluster_of(places.pods()):container { pod = "far" } end },
}

return places
