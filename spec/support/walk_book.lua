--- The runbook of the kill walks: every kind of change that places have, a job, units, obligations, a lock, a result that a
--- later step uses, a step of a person. Written so that it may be killed anywhere: its one change that is neither
--- repeatable nor has an inverse (the key) looks first and has an `undo` of its own.

return [=[
local scratch = rb.obligation("walk-scratch", function(o) o.place:sh([[rm -rf "$1"]], o.path) end)
local tag = rb.obligation("walk-tag", function(o) o.place:sh([[sed -i "/ $1\$/d" "$2"]], o.tag, o.keys) end)
local INDEX = "echo begun; sleep 0.2; while [ -e /srv/hold ]; do sleep 0.1; done; echo index > /srv/scratch/index; echo ended"
local KEYS = "/root/.ssh/authorized_keys"

rb.checks("look", "Look at both", { { "old has data", function() return old:query { "ls", "/srv/data" } end } })

local found = rb.step("read", "Read what there is", function()
  return { names = old:query_sh([[cd "$1" && ls]], "/srv/data"), count = #old:list "/srv/data" }
end)

rb.step("dirs", "Make directories and tell where things are", function()
  new:ensure_dir("/srv/new/data", { mode = "0750" })
  rb.lock(new:dir "/srv/new")
  new:write("/srv/motd", "moved from old\n")
  old:write("/srv/MOVED", ("%d names are on new:\n%s\n"):format(found().count, found().names))
end)

rb.step("key", "Let old in for a while", { undo = function() new:sh([[sed -i "/ walk\$/d" "$1"]], KEYS) end }, function()
  tag:owe({ place = new, tag = "walk", keys = KEYS }, { scope = "run" })
  new:sh([[grep -q " walk\$" "$1" || echo "ssh-ed25519 AAAA walk" >> "$1"]], KEYS)
end)

local built = rb.step("build", "Build an index", { undo = function() new:sh([[rm -rf "$1"]], "/srv/scratch") end }, function()
  scratch:owe { place = new, path = "/srv/scratch" }
  new:ensure_dir "/srv/scratch"
  local job = new:job { name = "index", argv = { "sh", "-c", INDEX } }
  local said = {}
  job:must_succeed { on_line = function(line) said[#said + 1] = line end }
  return { index = new:read "/srv/scratch/index", said = said }
end)

local called = rb.manual("call", "Call the users")

rb.step("homes", "Bring the homes over", function()
  local sizes = rb.each({ "ann", "bob", "cyd", "dan" }, { limit = 2 }, function(name)
    local text = old:read("/srv/data/" .. name)
    new:write("/srv/new/data/" .. name, text)
    return #text
  end)
  return { ann = sizes.ann, dan = sizes.dan }
end)

rb.step("report", "Write what was done", function()
  new:write("/srv/new/report", ("%s%s %s %s\n"):format(built().index, table.concat(built().said, ","), called().who, "done"))
end)
]=]
