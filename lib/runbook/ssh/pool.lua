--- Connections to one server, shared by everybody who runs commands there.
---
--- A connection carries as many channels as its server allows (MaxSessions: 10 unless it says otherwise, learnt when it
--- refuses). When all are taken another connection is opened, up to a number; then one waits for one's turn.
---
--- Where everything is looked at at once (a plan, a list of checks) the context of the tasks has a table `look`: a server that
--- lets nobody in is tried once per look, and all who need it hear what the first heard.

local core = require "runbook.core.task"
local errors = require "runbook.errors"

local pool = {}

local CHANNELS = 10
local CONNECTIONS = 8
local FOR_EVER = 1e9

---@class runbook.ssh.Pool
---@field reached boolean  it was connected to before
---@field options? table  with which it connects
---@field narrow? boolean  one connection only: each would cost a person an answer
---@field typed? runbook.secret  the password that somebody typed
local Pool = {}
Pool.__index = Pool

--- A pool that opens connections with `connect(pool)`, which returns a session, or nil when another has come about, or raises.
---@param connect async fun(pool: runbook.ssh.Pool): runbook.core.ssh.session?
---@return runbook.ssh.Pool
function pool.new(connect)
  return setmetatable({ connect = connect, connections = {}, retired = {}, waiting = {}, opening = 0, reached = false }, Pool)
end

local function wake(self, n)
  for _ = 1, math.min(n, #self.waiting) do
    table.remove(self.waiting, 1):cancel()
  end
end

-- Waits until somebody gives a channel back or a connection is there.
local function wait_turn(self)
  local turn = core.spawn(core.sleep, FOR_EVER)
  table.insert(self.waiting, turn)
  local ok, err = pcall(core.join_all, { turn })
  for i, other in ipairs(self.waiting) do
    if other == turn then
      table.remove(self.waiting, i)
    end
  end
  if not ok then
    error(err, 0)
  end
end

local function forget_dead(self)
  for i = #self.connections, 1, -1 do
    if not self.connections[i].session:alive() then
      table.remove(self.connections, i).session:close()
    end
  end
end

local function least_used(self)
  local best
  for _, connection in ipairs(self.connections) do
    if connection.used < connection.limit and (not best or connection.used < best.used) then
      best = connection
    end
  end
  return best
end

local function open_another(self)
  self.opening = self.opening + 1
  local ok, session = pcall(self.connect, self)
  self.opening = self.opening - 1
  wake(self, ok and CHANNELS or #self.waiting) -- after a failure the others see for themselves
  if not ok then
    local look = core.context().look
    if look and errors.is(session) and not errors.is_cancelled(session) then
      session.again = false -- who looks has no patience, and can look again
      look[self] = session
    end
    error(session, 0)
  elseif session == nil then
    return
  end
  self.reached = true
  table.insert(self.connections, { session = session, used = 0, limit = CHANNELS })
end

-- Those who wait for a connection that is being opened need no second one as long as they fit into it.
local function may_open(self)
  return #self.connections + self.opening < (self.narrow and 1 or CONNECTIONS) and #self.waiting >= self.opening * CHANNELS
end

--- A connection with room for one more channel; give it back with `release`.
---@async
---@return table connection
function Pool:acquire()
  while true do
    forget_dead(self)
    local connection, look = least_used(self), core.context().look
    if connection then
      connection.used = connection.used + 1
      return connection
    elseif look and look[self] then
      error(look[self], 0)
    elseif may_open(self) then
      open_another(self)
    else
      wait_turn(self)
    end
  end
end

-- What runs on it goes on.
local function retire(self, connection)
  for i, one in ipairs(self.connections) do
    if one == connection then
      table.remove(self.connections, i)
      self.retired[connection] = true
    end
  end
end

--- The channel is closed.
---@param connection table
---@param how? "refused"|"retire"  refused: the server did not open it, so many it allows; retire: nothing new goes this way
function Pool:release(connection, how)
  connection.used = connection.used - 1
  if how == "refused" then
    connection.limit = math.max(1, math.min(connection.limit, connection.used))
  elseif how == "retire" and not self.narrow then
    retire(self, connection)
  end
  if self.retired[connection] and connection.used == 0 then
    connection.session:close()
    self.retired[connection] = nil
  end
  wake(self, 1)
end

--- Hang up everywhere.
function Pool:close()
  for _, connection in ipairs(self.connections) do
    connection.session:close()
  end
  for connection in pairs(self.retired) do
    connection.session:close()
  end
  self.connections, self.retired = {}, {}
end

return pool
