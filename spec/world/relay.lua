--- Networks that are bad: a TCP relay between a client and a server (relay.c).

return function(world)
  ---@class world.Relay
  ---@field address string
  ---@field port integer
  local Relay = {}
  Relay.__index = Relay

  --- Give it a command of relay.c and wait until it has obeyed.
  ---@async
  function Relay:tell(...)
    self.told = self.told + 1
    world.write(self.folder .. "/control", table.concat({ ... }, " ") .. "\n")
    world.wait_until("the relay to obey", function()
      return tonumber(world.read(self.folder .. "/done")) >= self.told
    end)
  end

  --- Reset every connection: now, or when so many more bytes have passed (both ways together).
  function Relay:cut(after) self:tell("cut", after or 0) end

  --- The same with a clean end instead of a reset.
  function Relay:hang_up(after) self:tell("close", after or 0) end

  --- Pass nothing more, but keep the connections.
  function Relay:stop(after) self:tell("stop", after or 0) end

  --- Pass again; an earlier stop, cut or refuse is over.
  function Relay:go() self:tell "go" end

  --- Reset new connections.
  function Relay:refuse() self:tell "refuse" end

  ---@param seconds number  how long each piece is held
  function Relay:delay(seconds) self:tell("delay", seconds) end

  --- One byte per packet, or not.
  function Relay:one(yes) self:tell(yes == false and "whole" or "one") end

  --- What has passed since it began.
  ---@return { connections: integer, there: integer, back: integer }
  function Relay:passed()
    local connections, there, back = world.read(self.folder .. "/state"):match "(%d+) +(%d+) +(%d+)"
    return { connections = tonumber(connections), there = tonumber(there), back = tonumber(back) }
  end

  ---@async
  function Relay:close()
    self.leash:stop()
  end

  Relay.__close = Relay.close

  --- A relay to a machine, or to an address and port.
  ---@async
  ---@param o { to: world.Machine|{ address: string, port: integer }, cut_after?: integer, stop_after?: integer,
  ---           delay?: number, one?: boolean, refuse?: boolean }
  ---@return world.Relay
  function world.relay(o)
    local folder = world.folder "relay"
    local address = world.address()
    local argv = { world.build .. "/world/relay", address, o.to.address, tostring(o.to.port), folder }
    local commands = {
      o.cut_after and "cut " .. o.cut_after, o.stop_after and "stop " .. o.stop_after,
      o.delay and "delay " .. o.delay, o.one and "one", o.refuse and "refuse",
    }
    for i = 1, 5 do
      argv[#argv + 1] = commands[i] or nil
    end
    local relay = setmetatable({ folder = folder, address = address, told = 0 }, Relay)
    relay.leash = world.start(argv, { log = folder .. "/log" })
    relay.port = world.wait_until("a relay", function()
      return relay.leash:alive() and tonumber(world.read(folder .. "/port") or "")
    end)
    return relay
  end
end
