--- Writes to stderr without ever making the loop wait: a terminal that was stopped (Ctrl-S) or a pager that nobody scrolls
--- must not keep leases from being renewed.
---
--- Terminals and pipes are opened a second time and written by a worker; files, which take everything, directly.

local core = require "runbook.core.file"
local effect = require "runbook.effect"
require "runbook.core.stream"
local task = require "runbook.core.task"

local writer = {}

local FULL = 64 * 1024      -- bytes that may wait before whoever writes is told to keep its lines

local SLOW = { ["character device"] = true, fifo = true }

---@class runbook.Writer
local Writer = {}
local writer_mt = { __name = "runbook.writer", __index = Writer }

local function open_stream(path)
  return effect.own(function()
    local stat = core.stat(path)
    return stat and SLOW[stat.type] and core.open(path, "a") or nil
  end)
end

--- A writer to stderr.
---@async
---@return runbook.Writer
function writer.open()
  return setmetatable({ stream = open_stream "/dev/stderr", queue = {}, waiting = 0 }, writer_mt)
end

-- One task at a time, and only while there is something to write.
local function drain(self)
  while #self.queue > 0 do
    local text = table.concat(self.queue)
    self.queue = {}
    self.stream:write(text) -- a reader that is gone is no reason to stop
    self.waiting = self.waiting - #text
  end
  self.busy = nil
end

--- Write some time soon.
---@param text string
function Writer:write(text)
  if not self.stream then
    io.stderr:write(text)
    return
  end
  self.queue[#self.queue + 1] = text
  self.waiting = self.waiting + #text
  self.busy = self.busy or task.spawn(drain, self)
end

--- Is there room for more? Whoever hears no keeps its lines for later.
---@return boolean
function Writer:ready()
  return self.waiting < FULL
end

--- Wait until everything is out.
---@async
function Writer:drained()
  while self.busy do
    task.join_all { self.busy }
  end
end

--- Bring out what waits, and let go.
---@async
function Writer:close()
  self:drained()
  if self.stream then
    self.stream:close()
    self.stream = nil
  end
end

return writer
