--- Directories that are slow the way a file server is: each metadata call takes a millisecond, many at once take no
--- longer (spec/world/slowfs/main.c).

return function(world)
  ---@class world.SlowDirectory
  ---@field path string  where it is, as this machine sees it
  local Slow = {}
  Slow.__index = Slow

  --- How many calls were delayed until now.
  ---@return integer
  function Slow:calls()
    return tonumber((world.must("getfattr --absolute-names --only-values -n trusted.slowfs.calls " .. world.quote(self.path))))
  end

  --- Unmount it; who still has a file open keeps that one.
  ---@async
  function Slow:close()
    if self.leash:alive() then
      local where = self.machine and ("nsenter -t %d -m "):format(self.machine.pid) or ""
      world.sh(("%sumount %s || %sumount -l %s"):format(where, world.quote(self.at), where, world.quote(self.at)))
      self.leash:stop()
    end
  end

  Slow.__close = Slow.close

  --- Show a directory a second time, slowly.
  ---@async
  ---@param o { from: string, at: string, machine?: world.Machine, microseconds?: integer, threads?: integer, cache?: number, poor?: boolean }
  --- `at` is made when it is not there and may be `from`. With `machine` both are paths there. `microseconds`: of each
  --- call, default 1000. `threads`: calls that wait together, default 128. `cache`: seconds the kernel believes what it
  --- was told, default 0. `poor`: two cases of a name are one, names have at most 100 bytes, and there are no xattrs.
  ---@return world.SlowDirectory
  function world.slowfs(o)
    assert(world.read "/proc/filesystems":find("\tfuse\n", 1, true) and select(2, world.sh "test -c /dev/fuse") == 0,
      "this machine has no FUSE (no /dev/fuse): without it nothing can be as slow as a file server")
    local inside = o.machine and function(line) o.machine:must(line) end or world.must
    inside("mkdir -p " .. world.quote(o.at))
    local log = world.folder "slowfs" .. "/log"
    local argv = { world.build .. "/world/slowfs", "-d", tostring(o.microseconds or 1000), "-t", tostring(o.threads or 128), "-c",
      tostring(o.cache or 0) }
    if o.machine then
      argv[#argv + 1] = "-n"
      argv[#argv + 1] = tostring(o.machine.pid)
    end
    argv[#argv + 1] = o.poor and "-p" or nil
    argv[#argv + 1] = o.from
    argv[#argv + 1] = o.at
    local slow = setmetatable({ at = o.at, machine = o.machine, path = o.machine and o.machine:path(o.at) or o.at }, Slow)
    slow.leash = world.start(argv, { log = log })
    world.wait_until("a slow directory", function()
      local text = world.read(log) or ""
      assert(slow.leash:alive() or text:find "mounted", "slowfs: " .. text)
      return text:find "mounted"
    end)
    return slow
  end
end
