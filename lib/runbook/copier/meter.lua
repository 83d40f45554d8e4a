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

-- What a file costs beside its bytes: about what the far side moves in the time it takes to make a name.
local FILE_WEIGHT = 64 << 10
local WINDOW = 60 -- seconds that a rate is taken from

local Meter = {}
Meter.__index = Meter

--- A meter for a pass over these units.
---@param list table[]
---@param loose table[]
---@param o? { rate?: number }  bytes a second at most
function meter.new(list, loose, o)
  local m = setmetatable({
    total = #list + #loose, done = 0, bytes = 0, bytes_total = 0, files = 0, files_total = 0, now = {}, began = time.now(), said = -1,
    samples = {}, limit = o and o.rate, again = {},
  }, Meter)
  for _, units in ipairs { list, loose } do
    for _, unit in ipairs(units) do
      m.bytes_total, m.files_total = m.bytes_total + unit.bytes, m.files_total + unit.files
    end
  end
  return m
end

--- What is to be sent, where that is known better than by what there is.
---@param files integer
---@param bytes integer
function Meter:expect(files, bytes)
  self.bytes_total, self.files_total = self.bytes + bytes, self.files + files
end

--- So much of what is to be sent came in an earlier pass.
---@param bytes integer
function Meter:resume(bytes)
  self.bytes = self.bytes + bytes
end

-- How much has come, with what is on its way. What was cut within a segment came twice.
local function so_far(self)
  local bytes, files = self.bytes, self.files
  for _, one in pairs(self.now) do
    bytes, files = bytes + math.min(one.bytes, one.total), files + (one.files or 0)
  end
  return math.min(bytes, self.bytes_total), files
end

--- What is done so far, files counted by what they cost.
---@return number
function Meter:weight()
  local bytes, files = so_far(self)
  return bytes + files * FILE_WEIGHT
end

-- Rate and seconds to go, from the last minute.
local function outlook(self, now, bytes, files)
  local list = self.samples
  list[#list + 1] = { now, bytes, bytes + files * FILE_WEIGHT }
  while now - list[1][1] > WINDOW do
    table.remove(list, 1)
  end
  local first = list[1]
  local seconds = now - first[1]
  if seconds < 3 then
    return nil, nil
  end
  local left = (self.bytes_total - bytes) + (self.files_total - files) * FILE_WEIGHT
  local speed = (bytes + files * FILE_WEIGHT - first[3]) / seconds
  return (bytes - first[2]) / seconds, speed > 0 and left >= 0 and left / speed or nil
end

local function notes(self)
  local lines = {}
  if self.stat then
    lines[1] = ("source  a stat takes %.1f ms"):format(self.stat * 1e3)
  end
  if self.workers then
    lines[#lines + 1] = ("workers %d of at most %d"):format(self.workers.width, self.workers.most)
  end
  local again = {}
  for name, why in pairs(self.again) do
    again[#again + 1] = ("%s (%s)"):format(meter.shown(name), why)
  end
  if #again > 0 then
    table.sort(again)
    lines[#lines + 1] = ("again   %s%s"):format(table.concat(again, ", ", 1, math.min(3, #again)),
      #again > 3 and (", %d more"):format(#again - 3) or "")
  end
  return lines
end

-- Tells people, at most once a second.
function Meter:tell(always)
  local now = time.now()
  if not always and now - self.said < 1 then
    return
  end
  self.said = now
  local running = {}
  for name, one in pairs(self.now) do
    running[#running + 1] = {
      name = one.name or meter.shown(name), bytes = one.bytes, bytes_total = one.total, rate = one.bytes / math.max(0.5, now - one.began),
    }
  end
  table.sort(running, function(a, b) return a.bytes_total > b.bytes_total end)
  local bytes, files = so_far(self)
  local rate, eta = outlook(self, now, bytes, files)
  local counted = self.counts_files
  events.emit {
    type = "progress", unit_name = "homes", done = self.done, total = self.total, bytes = bytes, bytes_total = self.bytes_total,
    files = counted and files or nil, files_total = counted and self.files_total or nil, rate = rate, limit = self.limit, eta = eta,
    units = running, notes = notes(self),
  }
end

function Meter:start(unit)
  self.now[unit.name] = { bytes = 0, total = unit.bytes, began = time.now() }
end

function Meter:move(unit, bytes)
  self.now[unit.name].bytes = bytes
  self:tell(false)
end

function Meter:finish(unit, good)
  self.now[unit.name] = nil
  if good then
    self.done, self.bytes, self.files = self.done + 1, self.bytes + unit.bytes, self.files + unit.files
  end
  self:tell(self.done == self.total)
end

--- A shard has begun.
---@param shard runbook.core.manifest.shard
function Meter:begin(shard)
  self.counts_files = true
  self.now[shard] = { bytes = 0, files = 0, total = shard.size, began = time.now(), name = meter.of_units(shard.units) }
end

--- How far a shard is.
---@param status { bytes: integer, files: integer, stat_seconds?: number }
function Meter:follow(shard, status)
  local one = self.now[shard]
  one.bytes, one.files, self.stat = status.bytes, status.files, status.stat_seconds or self.stat
  self:tell(false)
end

--- It has ended; what it did not bring is still to be done.
function Meter:done_with(shard)
  local one = self.now[shard]
  self.bytes, self.files = self.bytes + math.min(one.bytes, one.total), self.files + one.files
  self.now[shard] = nil
  self:tell(false)
end

--- A unit is done, whatever carried it.
function Meter:count(unit)
  self.again[unit.name] = nil
  self.done = self.done + 1
  self:tell(self.done == self.total)
end

--- A unit is to be tried once more.
function Meter:once_more(unit, why)
  self.again[unit.name] = why
end

return meter
