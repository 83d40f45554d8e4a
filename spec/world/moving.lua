--- All that move-hub.lua needs, for real: a hub with people on one cluster, an empty one on another, a file server for each, and
--- the zone their name is in. With `homes = "claim"` the homes are in a claim of each cluster instead, with "same" both mount one
--- share.
---
---     local move = world.moving { users = 6, running = 2 }
---     world.write(folder .. "/temple.yaml", move:parameters())

return function(world)
  ---@class world.Move
  ---@field old world.Hub
  ---@field new world.Hub
  ---@field from world.Machine?  file server of the old hub
  ---@field to world.Machine?
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
%snames: [%s]
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

  local SERVERS = [[
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
]]

  local CLAIMS = [[
homes:
  kind: %s
  from: { context: %s, kubeconfig: %s, namespace: temple, claim: home-nfs, image: "world/tools:1" }
  to: { context: %s, kubeconfig: %s, namespace: prod, claim: home-nfs, image: "world/tools:1" }
]]

  local function share(machine, path)
    machine:must(("mkdir -p %s"):format(path))
    return { server = machine.address, path = path, folder = machine.folder .. "/disk" .. path }
  end

  -- Where each hub has its homes; nil: in a claim of its cluster.
  local function shares(self, kind)
    if kind == "nfs" then
      self.from, self.to = world.sshd { name = "nfs-old" }, world.sshd { name = "nfs-new" }
      return share(self.from, "/srv/homes/temple"), share(self.to, "/srv/homes/prod")
    elseif kind == "same" then
      local one = { server = "10.77.0.1", path = "/export/homes", folder = world.folder "homes" }
      return one, one
    end
  end

  --- The world of a move. Clusters "old" and "new" are the suite's.
  ---@async
  ---@param o { users?: integer|string[], running?: integer, groups?: table, homes?: "nfs"|"claim"|"same" }?
  ---@return world.Move
  function world.moving(o)
    o = o or {}
    local old, new = world.kube.up("old", "new")
    local self = setmetatable({ name = "temple.hubs.test", kind = o.homes or "nfs" }, Move)
    local from, to = shares(self, self.kind)
    if self.kind ~= "nfs" then
      old:image "tools"
      new:image "tools"
    end
    self.bind = world.bind()
    self.old = world.kube.hub(old, { namespace = "temple", host = self.name, users = o.users or 6, running = o.running or 0,
      groups = o.groups, homes = from })
    self.new = world.kube.hub(new, { namespace = "prod", host = self.name, users = 0, homes = to })
    self.bind:edit(("update delete %s A\nupdate add %s 30 A %s"):format(self.name, self.name, old.front))
    self.certificate = world.folder "moving" .. "/ca.pem"
    local data = old:kubectl { "-n", "temple", "get", "secret", "https-auto-tls", "-o", "jsonpath={.data.tls\\.crt}" }
    world.must(("chmod 600 %s"):format(self.bind.key_file))
    world.must(("echo %s | base64 -d > %s"):format(data, self.certificate))
    return self
  end

  local function homes_of(self)
    local old, new, from, to = self.old.cluster, self.new.cluster, self.from, self.to
    if self.kind ~= "nfs" then
      return CLAIMS:format(self.kind, old.name, old.kubeconfig, new.name, new.kubeconfig)
    end
    return SERVERS:format(from.address, from.port, from.user_sudo, from.fingerprint, from.key, to.address, to.port, to.user_sudo,
      to.fingerprint, to.key)
  end

  --- The parameter file of the move, and what else it should say.
  ---@param more string?
  ---@return string yaml
  function Move:parameters(more)
    local old, new = self.old.cluster, self.new.cluster
    return PARAMETERS:format(old.name, old.uid, old.kubeconfig, new.name, new.uid, new.kubeconfig, self.certificate, homes_of(self),
      self.name, self.bind.primary, self.bind.port, self.bind.resolver, self.bind.key_file) .. (more or "")
  end

  --- Where the name leads, by the primary.
  ---@return string
  function Move:address()
    return self.bind:data(self.bind.primary, self.name)
  end

  function Move:close()
    self.bind:close()
    for _, machine in ipairs { self.from, self.to } do
      machine:close()
    end
  end
end
