--- How many shards go at a time: few at first, one more as long as that brings something, fewer when a server or the people on
--- it have enough. What is decided depends on what is told and on nothing else.

local workers = {}

local FEW = 2
local QUICK = 4       -- to begin with, where nobody would feel it: to find that out takes longer than many a pass
local PERIOD = 3      -- seconds that a rate is taken from
local WORTH = 1.1     -- times the rate, for one more to be worth while
local REST = 60       -- seconds until what was no use is tried again
local SLOW = 3        -- times the stat of before: the governor's own limit (src/far/pace.c)
local FLOOR = 0.0002  -- seconds; below that nobody is disturbed

---@class runbook.copier.Workers
---@field width integer  so many may be at work now
---@field most integer
---@field package before? { width: integer, rate: number }  what fewer of them brought
---@field package from? { now: number, done: number }  where the present period began
---@field package quiet_until number  no more is tried before
---@field package calm_until number  what was given up last has to show first
local Workers = {}
Workers.__index = Workers

local function first(o)
  local few = o.near and o.quiet and o.quiet < FLOOR and QUICK or FEW
  return o.fixed and o.most or math.min(o.most, o.width or few)
end

--- How many there will be, before anybody is at work.
---@param o { most: integer, width?: integer, fixed?: boolean, quiet?: number, near?: boolean, what: string }  what: connections, ...
---@return string
function workers.forecast(o)
  local n = first(o)
  if o.fixed then
    return ("%d %s at most, which share the rate"):format(o.most, o.what)
  elseif n == o.most then
    return ("%d %s, fewer when the source or an ssh server has enough"):format(n, o.what)
  end
  return ("%d %s at first, and at most %d: one more as long as that brings something, fewer when the source or an ssh server has enough")
    :format(n, o.what, o.most)
end

--- Workers of a pass.
---@param o { most: integer, width?: integer, fixed?: boolean, quiet?: number, near?: boolean }  width: what an earlier pass found;
---  quiet: seconds that a stat at the source takes when nobody copies; near: no file server is behind either end
---@return runbook.copier.Workers
function workers.new(o)
  return setmetatable({ width = first(o), most = o.most, fixed = o.fixed, quiet = o.quiet, quiet_until = 0, calm_until = 0 }, Workers)
end

local function is_disturbed(self, stat)
  return stat ~= nil and self.quiet ~= nil and stat > math.max(FLOOR, SLOW * self.quiet)
end

local function step(self, now, rate)
  local before = self.before
  if before and before.width < self.width and rate < before.rate * WORTH then
    self.width, self.before, self.quiet_until = before.width, nil, now + REST
  elseif self.width < self.most and now >= self.quiet_until then
    self.before = { width = self.width, rate = rate }
    self.width = self.width + 1
  else
    self.before = nil
  end
end

--- What has been done so far. Only a period in which all were at work says anything.
---@param o { now: number, done: number, running: integer, waiting: boolean, stat?: number }  done: bytes, in whatever weight; waiting: there
---  is more work; stat: seconds that one takes at the source now
function Workers:tell(o)
  if not self.fixed and o.now >= self.calm_until and is_disturbed(self, o.stat) then
    self.width = math.max(1, self.width - 1)
    self.before, self.from, self.quiet_until, self.calm_until = nil, nil, o.now + REST, o.now + PERIOD
    return
  elseif self.fixed or o.running < self.width or not o.waiting then
    self.from = nil
    return
  elseif not self.from then
    self.from = { now = o.now, done = o.done }
    return
  end
  local seconds = o.now - self.from.now
  if seconds >= PERIOD then
    step(self, o.now, (o.done - self.from.done) / seconds)
    self.from = nil
  end
end

--- A server refused a login, or dropped it before it began: so many are too many for it.
---@param running integer
---@return integer width
function Workers:refused(running)
  self.most = math.max(1, math.min(self.most, running - 1))
  self.width = math.min(self.width, self.most)
  self.before, self.from = nil, nil
  return self.width
end

local DROPPED = { "kex_exchange_identification", "Connection closed by", "Connection reset by", "Not allowed at this time",
  "Exceeded MaxStartups", "closed by remote host" }

--- Does that look like a login that was refused because there are too many?
---@param stderr? string
---@return boolean
function workers.was_refused(stderr)
  for _, words in ipairs(DROPPED) do
    if stderr and stderr:find(words, 1, true) then
      return true
    end
  end
  return false
end

return workers
