--- Manifests that are taught by hand (streams.lua): scans, work and what came of it, without any tree.

local assert = require "luassert"
local far = require "spec.support.far"
local gate = require "runbook.core.gate"
local manifest = require "runbook.core.manifest"
local streams = require "spec.support.streams"

local S = 1000000000

---@class spec.ledger
---@field directory string
---@field source table<string, table<string, table>>  entries by unit and path, as the source was scanned last
local ledger = {}
ledger.__index = ledger

---@return spec.ledger
function ledger.new()
  return setmetatable({ directory = far.directory(), source = {}, inodes = {}, next_inode = 100 }, ledger)
end

--- A unit with its own directory, for `scan`; entries have their path first.
---@param name string
---@param ... table
function ledger.unit(name, ...)
  return { name = name, { "", type = "d" }, ... }
end

--- Many files of one size.
function ledger.many(name, count, o)
  local unit = ledger.unit(name)
  for i = 1, count do
    unit[i + 1] = { ("f%06d"):format(i), size = o and o.size or 1, inode = o and o.inode and o.inode + i }
  end
  return unit
end

local function change(fn, ...)
  return gate.call("change", fn, ...)
end

---@return runbook.core.manifest.report
function ledger:scan(side, units, o)
  if side == "source" then
    for _, unit in ipairs(units) do
      if not unit.same then
        self.source[unit.name] = {}
        for _, e in ipairs(unit) do
          self.source[unit.name][e[1]] = e
        end
      end
    end
  end
  local report = assert(change(function()
    return far.feed(assert(manifest.scan { directory = self.directory, side = side, only = o and o.only, owner = o and o.owner }), streams.scan(units, o))
  end))
  for _, unit in ipairs(report.units) do
    far.must_be_compared(self.directory, unit.name, unit.compared, o and o.owner)
  end
  return report
end

---@return runbook.core.manifest.comparison
function ledger:compare(unit, o)
  return assert(change(manifest.compare, self.directory, unit or "home", o))
end

--- What differs, as "KIND: PATH,PATH" a line.
function ledger:kinds(unit, o)
  local list = {}
  for i, kind in ipairs(self:compare(unit, o).kinds) do
    list[i] = kind.kind .. ": " .. table.concat(kind.examples, ",") .. (kind.count > 3 and ",..." or "")
  end
  return table.concat(list, "\n")
end

local function all_shards(work)
  local shards, words = {}, {}
  for shard in work.next, work do
    shard.operations, shard.words = streams.work(shard.bytes)
    shards[#shards + 1], words[#words + 1] = shard, shard.words
  end
  return shards, table.concat(words, "\n")
end

local function made(self, make, o)
  o = o or {}
  o.directory, o.units = self.directory, o.units or { "home" }
  local work = change(make, o)
  local shards, words = all_shards(work)
  return shards, words, work
end

--- All shards of some work, with `words` and `operations` (streams.lua).
---@return table[] shards
---@return string words  of all of them
---@return runbook.core.manifest.work work  open
function ledger:work(o)
  return made(self, manifest.work, o)
end

function ledger:unproven(o)
  return made(self, manifest.unproven, o)
end

--- What an obedient far side says of an operation. Bytes are told apart by what `hash` of the source's entry says.
function ledger:done(op, more)
  local paths = self.source[op.unit] or {}
  local key = op.unit .. "/" .. op.path
  if op.op == "X" then
    self.inodes[key] = nil
    return {}
  elseif op.op == "H" then
    self.inodes[key] = self.inodes[op.words:match " ([^ ]+)$"]
  elseif op.op ~= "M" and not (op.op == "D" and self.inodes[key]) then
    self.next_inode = self.next_inode + 1
    self.inodes[key] = self.next_inode
  end
  local entry = paths[op.path]
  local answer = { entry = entry, hash = (entry and entry.hash or "h"):rep(16), inode = self.inodes[key], changed = 3000 * S,
                   sent = op.op == "F" and entry and entry.size or 0 }
  for k, v in pairs(more or {}) do
    answer[k] = v
  end
  return answer
end

--- The stream of a shard's results: what `say` answers to each operation; nil: it is not answered.
---@param shard table
---@param say? fun(op: table): table?  default: all is done
---@param o? { touched?: table[], cut?: boolean }
function ledger:results(shard, say, o)
  local out = {}
  for _, op in ipairs(shard.operations) do
    local answer
    if op.index and say then
      answer = say(op)
    elseif op.index then
      answer = self:done(op)
    end
    out[#out + 1] = answer and streams.answer(op, answer) or nil
  end
  for _, t in ipairs(o and o.touched or {}) do
    out[#out + 1] = streams.touched(t[1], t[2])
  end
  out[#out + 1] = not (o and o.cut) and streams.finished or nil
  return table.concat(out)
end

--- Feed a shard's results.
---@return runbook.core.manifest.outcome
function ledger:answer(shard, say, o)
  return assert(far.feed(shard:results(), self:results(shard, say, o)))
end

local function settle(self, work, o)
  local settled
  for _, unit in ipairs(o and o.units or { "home" }) do
    settled = assert(change(work.settle, work, unit))
    far.must_be_compared(self.directory, unit, settled.compared, o and o.owner)
    assert.equal(settled.patched > 0, settled.compared ~= nil)
    settled.compared = nil
  end
  return settled
end

--- Do all work as `say` says, and settle it.
---@param o? table  of manifest.work
---@return string words
---@return table settled
---@return table[] outcomes
function ledger:bring(o, say, more)
  local shards, words, work = self:work(o)
  local outcomes = {}
  for i, shard in ipairs(shards) do
    outcomes[i] = self:answer(shard, say, more)
  end
  local settled = settle(self, work, o)
  work:close()
  return words, settled, outcomes
end

--- Prove as `say(op, side)` says, and settle it.
---@return string words
---@return table settled
function ledger:prove(say, o)
  local shards, words, work = self:unproven(o)
  for _, shard in ipairs(shards) do
    for _, side in ipairs { "source", "target" } do
      local out = {}
      for _, op in ipairs(shard.operations) do
        local answer = op.index and say(op, side)
        out[#out + 1] = answer and streams.proof(op, answer) or nil
      end
      assert(far.feed(shard:results(side), table.concat(out) .. streams.finished))
    end
  end
  local settled = settle(self, work, o)
  work:close()
  return words, settled
end

return ledger
