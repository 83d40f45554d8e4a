--- The type `copier`: what is copied, from where, to where, and by which kind of copier. Making it touches nothing.

local sync = require "runbook.sync"
local types = require "runbook.types"
local units = require "runbook.units"

local kind_field = { "kind", "choice", "what copies", choices = sync.KINDS }

types.register("copier", {
  help = "what is copied from where to where: kind, from, to",
  pinned = { "kind", "from", "to" },
  parse = function(raw, at)
    if not types.is_map(raw) then
      return nil, units.quote(raw) .. ": a map is expected, like {kind: nfs, from: nfs-old:/export, to: nfs-new:/export}"
    end
    local rest = {}
    for key, value in pairs(raw) do
      rest[key] = value
    end
    rest.kind = nil
    local kind = types.map({ kind_field }, { kind = raw.kind }, at)
    if not kind then
      return nil
    end
    local fields = types.map(sync.kind(kind.kind).FIELDS, rest, at)
    if not fields then
      return nil
    end
    fields.kind = kind.kind
    return sync.pair(fields)
  end,
  show = tostring,
  example = { "kind: nfs", "from: nfs-old:/export/homes", "to: nfs-new:/export/homes", "rate: 100 MB/s" },
})
