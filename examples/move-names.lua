--- Point names to another address, and back.
---
---     runbook plan move-names.lua -p names=temple.uni.example -p to=lb.example.net --params names.yaml
---
--- names.yaml says who changes the zone: `kind: manual` prints what to change and waits until every server says so; `kind: rfc2136`
--- changes it with a key. Hours before, `--until lower-ttl`; then `runbook resume`. `runbook rollback` puts everything back, and
--- refuses where somebody else has changed a name since.

local rb = require "runbook"

local p = rb.params {
  { "names", "fqdns",  "the names" },
  { "dns",   "zone",   "who serves them" },
  { "to",    "string", "an address, or the name of a load balancer" },
  { "ttl",   "integer", "seconds that resolvers keep what they heard", default = 60 },
}

rb.checks("preflight", "Look at the zone and the names", p.dns:checks(p.names))

rb.step("lower-ttl", "Make resolvers forget the old address quickly", function()
  p.dns:lower_ttl { names = p.names, to = p.ttl }
end)

rb.step("point", "Point the names, and wait until every server says so", function()
  p.dns:point { names = p.names, to = p.to, ttl = p.ttl }
end)
