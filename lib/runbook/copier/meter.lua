--- How far a pass is: what people see while it runs.

local events = require "runbook.events"
local human = require "runbook.human"
local record = require "runbook.copier.record"
local time = require "runbook.core.time"

local meter = {}

--- A unit's name for people: one line of UTF-8, whatever its bytes.
---@param name string
---@return string
function meter.shown(name)
  if name == "." then
    return "the loose files"
  elseif not utf8.len(name) then
    return record.printable(name)
  end
  return (name:gsub("[%c]", "?"))
end

--- Units in a few words.
---@param names string[]
---@return string
function meter.of_units(names)
  if #names == 1 then
    return meter.shown(names[1])
  end
  return ("%s and %d more"):format(meter.shown(names[1] or "?"), #names - 1)
end

--- The names of what failed, sorted, and a text that lists the first of them.
---@param failures table<string, runbook.Error>
---@return string[] names
---@return string listed
function meter.failed(failures)
  local names, lines = {}, {}
  for name in pairs(failures) do
    names[#names + 1] = name
  end
  table.sort(names)
  for i, name in ipairs(names) do
    lines[i] = "  " .. tostring(failures[name])
  end
  return names, human.first_five(lines)
end

local Meter = {}
Meter.__index = Meter

--- A meter for a pass over these units.
---@param list table[]
---@param loose table[]
---@param text? string  what else people should know meanwhile
function meter.new(list, loose, text)
  local m = setmetatable({
    total = #list + #loose, done = 0, bytes = 0, bytes_total = 0, sent = 0, now = {}, began = time.now(), said = -1, text = text,
  }, Meter)
  for _, units in ipairs { list, loose } do
    for _, unit in ipairs(units) do
      m.bytes_total = m.bytes_total + unit.bytes
    end
  end
  return m
end

-- Tells people, at most once a second.
function Meter:tell(always)
  local now = time.now()
  if not always and now - self.said < 1 then
    return
  end
  self.said = now
  local running, moving = {}, 0
  for name, one in pairs(self.now) do
    running[#running + 1] = {
      name = one.name or meter.shown(name), bytes = one.bytes, bytes_total = one.total, rate = one.bytes / math.max(0.5, now - one.began),
    }
    moving = moving + math.min(one.bytes, one.total)
  end
  table.sort(running, function(a, b) return a.bytes_total > b.bytes_total end)
  local bytes, seconds = self.bytes + moving, now - self.began
  events.emit {
    type = "progress", unit_name = "homes", done = self.done, total = self.total, bytes = bytes, bytes_total = self.bytes_total,
    rate = seconds > 1 and self.sent / seconds or nil, units = running, text = self.text,
    eta = bytes > 0 and seconds > 5 and (self.bytes_total - bytes) * seconds / bytes or nil,
  }
end

function Meter:start(unit)
  self.now[unit.name] = { bytes = 0, total = unit.bytes, began = time.now() }
end

function Meter:move(unit, bytes)
  local one = self.now[unit.name] or self.now[unit]
  self.sent = self.sent + math.max(0, bytes - one.bytes)
  one.bytes = bytes
  self:tell(false)
end

function Meter:finish(unit, good)
  self.now[unit.name] = nil
  if good then
    self.done, self.bytes = self.done + 1, self.bytes + unit.bytes
  end
  self:tell(self.done == self.total)
end

--- A shard has begun: what it sends is what there is to do, as far as is known by then.
---@param shard runbook.core.manifest.shard
function Meter:begin(shard)
  if not self.sharded then
    self.sharded, self.bytes_total = true, 0
  end
  self.bytes_total = self.bytes_total + shard.size
  self.now[shard] = { bytes = 0, total = shard.size, began = time.now(), name = meter.of_units(shard.units) }
end

---@param status { bytes: integer, files: integer, answered: integer }
function Meter:follow(shard, status)
  self:move(shard, status.bytes)
end

function Meter:done_with(shard)
  local one = self.now[shard]
  self.bytes = self.bytes + one.total
  self.now[shard] = nil
  self:tell(false)
end

--- A unit is done, whatever carried it.
function Meter:count()
  self.done = self.done + 1
  self:tell(self.done == self.total)
end

return meter
