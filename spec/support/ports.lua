--- Ports of 127.0.0.1: listeners, who connects to them, and servers in Lua behind them. Machines share our loopback network.

local gate = require "runbook.core.gate"
local listen = require "runbook.core.listen"
local places = require "spec.support.places"
local ssh = require "runbook.ssh"
local task = require "runbook.task"
local world = require "spec.world"

local ports = {}

--- A stream to a port.
---@async
---@param port integer
---@return runbook.stream
function ports.connect(port)
  return ssh.dial(places.by_ssh(), "127.0.0.1", port)
end

--- A listener of this machine; it has to come about.
---@param host string
---@param port integer
function ports.listener(host, port)
  return assert(gate.call("read", listen.open, host, port))
end

---@param port integer
function ports.is_free(port)
  local listener <close> = gate.call("read", listen.open, "127.0.0.1", port)
  return listener ~= nil
end

--- A port nobody listens on. Not one of those the kernel gives out by itself: somebody's next connection might get it.
---@return integer
function ports.free()
  for _ = 1, 100 do
    local port = math.random(10000, 19999) -- the machines' own are above
    if ports.is_free(port) then
      return port
    end
  end
  error "all ports are taken"
end

--- Wait until nobody listens there: a server that is far away has yet to hear of it.
---@async
---@param port integer
function ports.must_be_free(port)
  world.wait_until("a free port", function() return ports.is_free(port) end)
end

--- Calls `fn("127.0.0.1:PORT", port)` while every connection to that port is served by `serve(stream)`.
---@async
---@param serve async fun(s: runbook.stream)
---@param fn async fun(to: string, port: integer)
function ports.served(serve, fn)
  local listener <close> = ports.listener("127.0.0.1", 0)
  local workers = {}
  local first = task.spawn(function()
    while true do
      local near, _, code = listener:accept()
      if not near then
        return code
      end
      workers[#workers + 1] = task.spawn(function()
        local s <close> = near
        serve(s)
      end)
    end
  end)
  local r = table.pack(pcall(fn, ("127.0.0.1:%d"):format(listener:port()), listener:port()))
  listener:close()
  task.join(first)
  for _, worker in ipairs(workers) do
    worker:cancel()
    task.join(worker)
  end
  if not r[1] then
    error(r[2], 0)
  end
end

return ports
