--- Real peers for the specs: started on demand, ended with the suite.
---
---     local world = require "spec.world"
---     local old = world.sshd { name = "nfs-old", max_sessions = 10 }   -- spec/world/sshd.lua
---     local relay = world.relay { to = old, one = true }               -- spec/world/relay.lua
---     local web = world.httpd { tls = "good" }                         -- spec/world/httpd.lua
---     local names = world.bind()                                       -- spec/world/bind.lua
---     local small = world.filesystem { size = "8M" }
---     local pods = world.websocketd()                               -- spec/world/websocketd.lua
---     local far = world.slowfs { from = path, at = other }             -- spec/world/slowfs.lua
---     local here, there = world.kube.up("old", "new")                  -- spec/world/kube.lua
---
--- What was started dies with this process, even when that is killed: see leash.c. Plain popen is enough
--- here; it is the program under test that must not block.

local task = require "runbook.core.task"

local world = {}

world.build = os.getenv "RUNBOOK_BUILD" or "build"
world.runbook = world.build .. "/runbook"

--- One word of a shell line.
---@param word string
---@return string
function world.quote(word)
  return "'" .. word:gsub("'", [['\'']]) .. "'"
end

--- Run a shell line to its end.
---@param line string
---@return string output  stdout and stderr together, without the last newline
---@return integer code  128 + n when a signal ended it
function world.sh(line)
  local pipe = assert(io.popen("{ " .. line .. "\n} 2>&1", "r"))
  local output = pipe:read "a"
  local _, how, code = pipe:close()
  return (output:gsub("\n$", "")), how == "signal" and 128 + code or code
end

--- The same, but it has to succeed.
---@param line string
---@return string output
function world.must(line)
  local output, code = world.sh(line)
  if code ~= 0 then
    error(("%s\nexit code %d: %s"):format(line, code, output), 2)
  end
  return output
end

---@param path string
---@return string?
function world.read(path)
  local file <close> = io.open(path, "rb")
  return file and file:read "a"
end

---@param path string
---@param text string
function world.write(path, text)
  local file <close> = assert(io.open(path, "wb"))
  assert(file:write(text))
end

--- Wait until `fn` returns something true, and return that.
---@async
---@param what string  for the message when it never does
---@param fn fun(): any
---@param seconds number?
function world.wait_until(what, fn, seconds)
  for _ = 1, (seconds or 10) * 100 do
    local result = fn()
    if result then
      return result
    end
    task.sleep(0.01)
  end
  error("never happened: " .. what, 2)
end

world.pid = tonumber(world.read("/proc/self/stat"):match "^%d+")

--- The processes a process has started, as this machine numbers them.
function world.children(pid)
  local pids = {}
  for child in (world.read(("/proc/%d/task/%d/children"):format(pid, pid)) or ""):gmatch "%d+" do
    pids[#pids + 1] = tonumber(child)
  end
  return pids
end

local function alive(pid)
  local state = (world.read(("/proc/%d/stat"):format(pid)) or ""):match "%) (%a)"
  return state ~= nil and state ~= "Z"
end
world.alive = alive

---@class world.Leash
---@field pid integer  of the leash; what it runs is its child
local Leash = {}
Leash.__index = Leash

--- Kill what it runs and everything that started, and wait for that.
function Leash:stop()
  if alive(self.pid) then
    world.sh(("kill -TERM %d"):format(self.pid))
  end
  world.wait_until("the end of " .. self.what, function() return not alive(self.pid) end, 60)
end

function Leash:alive()
  return alive(self.pid)
end

--- Start a command that ends with the suite at the latest.
---@param argv string[]  empty: only `at_end` matters
---@param options { log?: string, at_end?: string, env?: string, owner?: integer }?  at_end: a shell line; owner: the
---        process it ends with, if not this one
---@return world.Leash
function world.start(argv, options)
  options = options or {}
  local words = {}
  assert(world.read(world.build .. "/world/leash"), "the world is not built: make test, demo or bench does it")
  for i, word in ipairs(argv) do
    words[i] = world.quote(word)
  end
  local pid = world.must(("%s setsid %s/world/leash %d %s %s </dev/null >%s 2>&1 & echo $!"):format(options.env or "",
    world.build, options.owner or world.pid, options.at_end and "-e " .. world.quote(options.at_end) or "",
    table.concat(words, " "), world.quote(options.log or "/dev/null")))
  return world.leash(tonumber(pid), argv[1] or "the world")
end

--- One that was started before, maybe by another process of the suite.
---@param pid integer
---@param what string
---@return world.Leash
function world.leash(pid, what)
  return setmetatable({ pid = pid, what = what }, Leash)
end

local directory, guard
local count = 0

--- A fresh folder, gone with the suite.
---@param name string?
---@return string path
function world.folder(name)
  if not directory then
    directory = world.must "mktemp -d \"${TMPDIR:-/tmp}/runbook-world.XXXXXX\""
    guard = world.start({}, { at_end = ([[
      awk -v at=%s 'index($2, at) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r umount -l
      for i in 1 2 3 4 5; do rm -rf --one-file-system %s && break; sleep 1; done]]):format(directory, directory) })
  end
  count = count + 1
  local path = ("%s/%s-%d"):format(directory, name or "folder", count)
  world.must("mkdir -p " .. path)
  return path
end

--- A file system of its own, to be filled.
---@param o { size: string, kind?: "ext4"|"tmpfs" }  size as "8M"
---@return { path: string, fill: fun(self, leave: integer?), close: fun(self) }
function world.filesystem(o)
  local path = world.folder "fs"
  if o.kind == "tmpfs" then
    world.must(("mount -t tmpfs -o size=%s spec %s"):format(o.size, path))
  else
    world.must(("truncate -s %s %s.img && mkfs.ext4 -q -m 0 %s.img && mount -o loop %s.img %s"):format(
      o.size, path, path, path, path))
  end
  local filesystem = { path = path }

  --- Leave at most so many bytes free (default none).
  function filesystem:fill(leave)
    local free = tonumber(world.must("df -B1 --output=avail " .. self.path .. " | tail -1"))
    local take = free - (leave or 0)
    world.sh(("head -c %d /dev/zero >> %s/.filler"):format(take > 0 and take or 0, self.path))
  end

  function filesystem:close()
    if self.path then
      world.must(("umount -l %s && rm -rf --one-file-system %s %s.img"):format(self.path, self.path, self.path))
      self.path = nil
    end
  end

  return setmetatable(filesystem, { __close = filesystem.close })
end

--- Fill a folder with home directories (homes.py): the same numbers give the same tree.
---@param path string  as this machine sees it
---@param o { homes?: integer, files?: integer }?  default 60 homes and about 2,000 files
function world.homes(path, o)
  o = o or {}
  world.must(("python3 spec/world/homes.py %s %d %d"):format(world.quote(path), o.homes or 60, o.files or 2000))
end

--- Everything a copy must keep, a line per name (tree.py). Two trees are equal when their texts are.
---@param path string  as this machine sees it
---@param left_out string[]?  names below it that do not count
---@return string
function world.tree(path, left_out)
  local words = { "python3", "spec/world/tree.py", world.quote(path) }
  for _, name in ipairs(left_out or {}) do
    words[#words + 1] = world.quote(name)
  end
  return world.must(table.concat(words, " "))
end

--- The first lines in which two trees differ; "" when they are the same.
---@param a string  paths, as this machine sees them
---@param b string
---@param left_out string[]?
---@return string
function world.tree_difference(a, b, left_out)
  local folder = world.folder "trees"
  world.write(folder .. "/a", world.tree(a, left_out))
  world.write(folder .. "/b", world.tree(b, left_out))
  return (world.sh(("diff -U0 %s/a %s/b | grep -v '^@@\\|^+++\\|^---' | head -20; rm -r %s"):format(folder, folder, folder)))
end

local last_host = 0
local network = ("127.%d.%d"):format(world.pid % 250 + 2, world.pid // 250 % 250 + 2)

--- A loopback address nobody else in this suite has.
---@return string
function world.address()
  last_host = last_host % 250 + 1
  return ("%s.%d"):format(network, last_host)
end

local function must_be_gone(path)
  local _, code = world.sh("test -e " .. path)
  assert(code ~= 0, path .. " is still there")
end

--- End everything. Called by whoever began the suite, however it ends.
---@async
function world.stop()
  if guard then
    world.stop_machines()
    world.kube.stop()
    guard:stop()
    must_be_gone(directory)
    directory, guard = nil, nil
  end
end

require("spec.world.keys")(world)
require("spec.world.sshd")(world)
require("spec.world.relay")(world)
require("spec.world.server")(world)
require("spec.world.httpd")(world)
require("spec.world.bind")(world)
require("spec.world.fake_kube")(world)
require("spec.world.slowfs")(world)
require("spec.world.websocketd")(world)
require("spec.world.trees")(world)
require("spec.world.kube")(world)
require("spec.world.hub")(world)
require("spec.world.moving")(world)

return world
