--- All that move-hub.lua needs, for real: a hub with people on one cluster, an empty one on another, a file server for each, and
--- the zone their name is in.
---
---     local move = world.moving { users = 6, running = 2 }
---     world.write(folder .. "/temple.yaml", move:parameters())

return function(world)
  ---@class world.Move
  ---@field old world.Hub
  ---@field new world.Hub
  ---@field from world.Machine  file server of the old hub
  ---@field to world.Machine
  ---@field bind world.Bind
  ---@field name string  what people type
  local Move = {}
  Move.__index = Move

  local PARAMETERS = [[
old:
  context: %s
  cluster: %s
  kubeconfig: %s
  namespace: temple
new:
  context: %s
  cluster: %s
  kubeconfig: %s
  namespace: prod
  ca: %s
homes:
  kind: nfs
  from:
    ssh: %s
    port: %d
    user: %s
    sudo: true
    path: /srv/homes/temple
    host_key: %s
    identity: %s
  to:
    ssh: %s
    port: %d
    user: %s
    sudo: true
    path: /srv/homes/prod
    host_key: %s
    identity: %s
names: [%s]
dns:
  kind: rfc2136
  zone: hubs.test
  server: %s
  port: %d
  via: [%s]
  key: { name: rbkey, secret: "file:%s" }
window:
  starts: 2026-01-01T22:00Z
  lasts: 2h
  agreed: INFRA-1234
database: copy
quiet: 2s
silent: 3s
]]

  local function share(machine, path)
    machine:must(("mkdir -p %s"):format(path))
    return { server = machine.address, path = path, folder = machine.folder .. "/disk" .. path }
  end

  --- The world of a move. Clusters "old" and "new" are the suite's.
  ---@async
  ---@param o { users?: integer|string[], running?: integer, groups?: table }?
  ---@return world.Move
  function world.moving(o)
    o = o or {}
    local old, new = world.kube.up("old", "new")
    local self = setmetatable({ name = "temple.hubs.test" }, Move)
    self.from, self.to = world.sshd { name = "nfs-old" }, world.sshd { name = "nfs-new" }
    self.bind = world.bind()
    self.old = world.kube.hub(old, { namespace = "temple", host = self.name, users = o.users or 6, running = o.running or 0,
      groups = o.groups, homes = share(self.from, "/srv/homes/temple") })
    self.new = world.kube.hub(new, { namespace = "prod", host = self.name, users = 0, homes = share(self.to, "/srv/homes/prod") })
    self.bind:edit(("update delete %s A\nupdate add %s 30 A %s"):format(self.name, self.name, old.front))
    self.certificate = world.folder "moving" .. "/ca.pem"
    local data = old:kubectl { "-n", "temple", "get", "secret", "https-auto-tls", "-o", "jsonpath={.data.tls\\.crt}" }
    world.must(("chmod 600 %s"):format(self.bind.key_file))
    world.must(("echo %s | base64 -d > %s"):format(data, self.certificate))
    return self
  end

  --- The parameter file of the move, and what else it should say.
  ---@param more string?
  ---@return string yaml
  function Move:parameters(more)
    local old, new, from, to = self.old.cluster, self.new.cluster, self.from, self.to
    return PARAMETERS:format(old.name, old.uid, old.kubeconfig, new.name, new.uid, new.kubeconfig, self.certificate,
      from.address, from.port, from.user_sudo, from.fingerprint, from.key, to.address, to.port, to.user_sudo, to.fingerprint, to.key,
      self.name, self.bind.primary, self.bind.port, self.bind.resolver, self.bind.key_file) .. (more or "")
  end

  --- Where the name leads, by the primary.
  ---@return string
  function Move:address()
    return self.bind:data(self.bind.primary, self.name)
  end

  function Move:close()
    self.bind:close()
    self.from:close()
    self.to:close()
  end
end
