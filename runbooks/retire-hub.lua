--- Put away a hub that has moved.
---
---     runbook run retire-hub.lua -p run=temple-3
---
--- Replaces "Clean up" (section 9) of "Move a hub across clusters". Weeks after the move, on the computer that has its run.
---
--- Before:   the move is done, and everybody has worked on the new hub for a while.
--- After:    the old homes have another name, so that whatever still uses them is noticed; nothing of the move is left on
---           either cluster; what costs money on the old one is listed, and a person takes it down.
--- Half-way: nothing is deleted but what the move itself left. `runbook rollback` gives the homes their name again; the move
---           cannot be rolled back any more once `forget` has run.
--- Asks you: at `set-aside`.

local rb = require "runbook"
local hub = require "runbook.hub"

local p = rb.params {
  { "run", "run", "the move, like temple-3" },
}

local was = p.run.values
local old, new, homes = was.old, was.new, was.homes
local ledger = hub.ledger { old = old, new = new, homes = homes, names = was.names, zone = was.dns, leave = was.leave }

rb.checks("preflight", "See that nobody needs the old hub any more", {
  { "the move is done", function() return p.run:must_be_done() end },
  { "the new hub is well", function() new:must_be_healthy() end },
  { "the names lead to it", function()
    new:must_answer { names = was.names, address = new:ingress_address(), within = 0 }
  end },
})

-- Not removed: a person does that, when nobody has missed anything for long enough.
rb.step("set-aside", "Give the old homes another name", {
  guard = function()
    old:must_be_closed()
    ledger:must_be_closed()       -- every home is proven on the new hub
    homes:must_be_quiet()         -- and nobody has written to the old ones since
  end,
  disrupts = function()
    return { { "who", "nobody who is on " .. tostring(new) .. "; whatever still mounts the old homes will fail" },
      { "back", "runbook rollback gives them their name again" } }
  end,
}, function()
  homes:set_aside()
end)

rb.step("forget", "Remove what the move left on both clusters", function()
  old:forget_closing()
  new:forget_kept()
end)

rb.step("list", "See what is left on the old cluster", function()
  old:belongings()
end)

rb.manual("tear-down", "Take down what is left", {
  text = [[
    What `list` shows costs money until it is gone: the namespace, its volumes and load balancers, then the cluster and the
    file server, where nobody else uses them. Mostly that is Terraform's and helm's, and takes a review.]],
})
