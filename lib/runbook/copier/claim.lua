--- The copier for home directories in a PersistentVolumeClaim: to a claim of another cluster, or to or from a server.
---
--- What copies is that of NFS servers (copier/nfs.lua), in pods that mount the claim while a step is at work (kube/claim.lua): our
--- own program in both, and all bytes through this machine, as a pod is reached through its cluster only. The source is
--- mounted to be read only.

local claim = require "runbook.kube.claim"
local dir = require "runbook.place.dir"
local errors = require "runbook.errors"
local nfs = require "runbook.copier.nfs"

local kind = {}

local OF_SERVERS = { from = true, to = true, engine = true, route = true } -- chosen between by pairs of servers

--- As a parameter of type `copier`.
kind.FIELDS = {
  { "from", "dir", "the directory as it is: context, namespace, claim, path" },
  { "to", "dir", "where its contents go: the same, or a server and path" },
}
for _, field in ipairs(nfs.FIELDS) do
  kind.FIELDS[#kind.FIELDS + 1] = not OF_SERVERS[field[1]] and field or nil
end

--- See sync.pair.
---@param o table  as for copier/nfs.lua; from, to: `cluster:claim { … }`, or one of them a place's `dir`
---@param level integer
---@return runbook.Copier
function kind.new(o, level)
  local given = { engine = "mover", route = "operator" }
  for key, value in pairs(o) do
    if key == "engine" or key == "route" then
      errors.raise({ kind = "usage", message = ("sync.pair: `%s` is not chosen: a pod is reached through its cluster only"):format(key) },
        level + 1)
    end
    given[key] = value
  end
  local in_claims, directories = 0, 0
  for _, one in ipairs { o.from or false, o.to or false } do
    directories = directories + (dir.is(one) and 1 or 0)
    in_claims = in_claims + (dir.is(one) and claim.of(one) and 1 or 0)
  end
  if directories == 2 and in_claims == 0 then -- while a file loads they may be placeholders
    errors.raise({ kind = "usage", message = "sync.pair: neither end is in a claim", hint = "`kind: nfs` copies between servers" },
      level + 1)
  end
  return nfs.new(given, level + 1)
end

return kind
