--- The far side's program, run here, and its streams fed into manifests.

local assert = require "luassert"
local file = require "runbook.core.file"
local frames = require "spec.support.frames"
local gate = require "runbook.core.gate"
local manifest = require "runbook.core.manifest"
local world = require "spec.world"

local far = {}

local program = world.build .. "/far/runbook-far"

--- What a command line answers to some bytes.
---@param input string
---@param line string  with FAR for the program
---@return string output
---@return string errors
function far.run(input, line)
  local folder = world.folder "far"
  world.write(folder .. "/in", input)
  world.sh(("exec < %s/in > %s/out 2> %s/err\n%s"):format(folder, folder, folder, (line:gsub("FAR", program))))
  local output, errors = world.read(folder .. "/out"), world.read(folder .. "/err")
  world.must("rm -r " .. folder)
  return output, errors
end

--- Feed a sink in pieces.
---@param sink runbook.core.manifest.sink
---@param bytes string
---@param size integer?  of a piece; 64 KiB
---@return table? report
---@return string? message
---@return string? code
function far.feed(sink, bytes, size)
  size = size or 65536
  for at = 1, #bytes, size do
    local taken, message, code = sink:write(bytes:sub(at, at + size - 1))
    if not taken then
      sink:close()
      return nil, message, code
    end
  end
  return sink:finish()
end

--- Scan a tree into manifests.
---@param root string
---@param o { directory: string, side: string, owner?: string, only?: string[], fresh?: boolean, exclude?: table, not_units?: string[] }
---@return runbook.core.manifest.report report
function far.scan(root, o)
  return gate.call("change", function()
    local request = assert(manifest.request {
      directory = o.directory, side = o.side, only = o.only, fresh = o.fresh, exclude = o.exclude, not_units = o.not_units,
    })
    local output, errors = far.run(request, "FAR scan " .. world.quote(root))
    assert.equal("", errors)
    return assert(far.feed(assert(manifest.scan {
      directory = o.directory, side = o.side, owner = o.owner, only = o.only, ours_during = o.ours_during,
    }), output))
  end)
end

--- What was counted on the way is what comparing says.
---@param directory string
---@param unit string
---@param compared runbook.core.manifest.comparison?
---@param owner? string
function far.must_be_compared(directory, unit, compared, owner)
  local found, _, code = gate.call("read", manifest.compare, directory, unit, { owner = owner })
  if code == "ENOENT" then
    assert.same({ 0, 0 }, { compared and compared.entries or 0, compared and compared.extra or 0 })
  elseif compared then
    assert.same(found, compared)
  end
end

--- Do all work, a shard at a time, and settle it.
---@param source string
---@param target string
---@param o table  of manifest.work, and `receive`: more options of the receiver, or `line`: another command line
---@return table[] outcomes  each with its shard
function far.work(source, target, o)
  return gate.call("change", function()
    local receive, line = o.receive or "", o.line
    o.receive, o.line = nil, nil
    local work <close> = manifest.work(o)
    local outcomes = {}
    for shard in work.next, work do
      local output, errors = far.run(shard.bytes, line or ("FAR send %s | FAR receive %s%s %s"):format(
        world.quote(source), world.quote(target), o.owner and " --owner=" .. o.owner or "", receive))
      assert.equal("", errors)
      local outcome = assert(far.feed(shard:results(), output))
      outcome.shard = shard
      outcomes[#outcomes + 1] = outcome
    end
    for _, unit in ipairs(o.units) do
      far.must_be_compared(o.directory, unit, assert(work:settle(unit)).compared, o.owner)
    end
    return outcomes
  end)
end

--- Prove what is equal by metadata.
---@param source string
---@param target string
---@param o table  of manifest.unproven, and `flags` of the program
---@return table[] outcomes  of both sides, each with its shard
function far.prove(source, target, o)
  return gate.call("change", function()
    local proof <close> = manifest.unproven(o)
    local outcomes = {}
    for shard in proof.next, proof do
      for side, root in pairs { source = source, target = target } do
        local output, errors = far.run(shard.bytes, ("FAR prove %s %s"):format(world.quote(root), o.flags or ""))
        assert.equal("", errors)
        local outcome = assert(far.feed(shard:results(side), output))
        outcome.shard = shard
        outcomes[#outcomes + 1] = outcome
      end
    end
    for _, unit in ipairs(o.units) do
      far.must_be_compared(o.directory, unit, assert(proof:settle(unit)).compared, o.owner)
    end
    return outcomes
  end)
end

--- A fresh directory for manifests.
---@return string
function far.directory()
  local path = world.folder "manifests"
  gate.call("change", file.chmod, path, tonumber("700", 8))
  return path
end

---@class spec.far.Pair
---@field folder string  that all of it is in
---@field source string
---@field target string
---@field directory string  of manifests
---@field units string[]  that any scan has seen
local Pair = {}
Pair.__index = Pair

--- Two trees, and what is known of them.
---@param o? { source?: string, target?: string }  default: new, empty ones
---@return spec.far.Pair
function far.pair(o)
  o = o or {}
  local folder = world.folder "pair"
  local pair = { folder = folder, source = o.source or folder .. "/source", target = o.target or folder .. "/target" }
  pair.directory, pair.units = far.directory(), {}
  world.must(("mkdir -p %s %s"):format(pair.source, pair.target))
  return setmetatable(pair, Pair)
end

--- Look at both sides, or at one.
---@param o? table  of far.scan, with `side`
---@return table<string, runbook.core.manifest.report> reports  by side
function Pair:scan(o)
  o = o or {}
  local reports, known = {}, {}
  for _, unit in ipairs(self.units) do
    known[unit] = true
  end
  for _, side in ipairs(o.side and { o.side } or { "source", "target" }) do
    reports[side] = far.scan(self[side], {
      directory = self.directory, side = side, owner = o.owner, only = o.only, fresh = o.fresh, exclude = o.exclude, not_units = o.not_units,
      ours_during = side == "target" and o.ours_during or nil,
    })
    for _, unit in ipairs(reports[side].units) do
      if not known[unit.name] then
        known[unit.name] = true
        table.insert(self.units, unit.name)
      end
    end
  end
  table.sort(self.units)
  return reports
end

local numbers = { "done", "bytes", "files", "created", "replaced", "metadata", "linked", "removed", "vanished", "unanswered" }

--- Scan and bring what is missing: one pass. The top of the target was there before: so it may be overwritten.
---@param o? table  of manifest.work and far.work; `scan` false: it was scanned already
---@return table outcome  sums over all shards; `failures` and `refused` as lists of what shards had
function Pair:copy(o)
  o = o or {}
  if o.scan ~= false then
    self:scan { owner = o.owner, ours_during = o.ours_during }
  end
  local sum = { failures = {}, refused = {} }
  for _, name in ipairs(numbers) do
    sum[name] = 0
  end
  local outcomes = far.work(self.source, self.target, {
    directory = self.directory, units = self.units, owner = o.owner, deletions = o.deletions, overwrite = o.overwrite ~= false, entries = o.entries,
    bytes = o.bytes, parts = o.parts, receive = o.receive, line = o.line,
  })
  for _, outcome in ipairs(outcomes) do
    for _, name in ipairs(numbers) do
      sum[name] = sum[name] + outcome[name]
    end
    for unit, list in pairs(outcome.failures) do
      for _, failure in ipairs(list) do
        failure.unit = unit
        table.insert(sum.failures, failure)
      end
    end
    for _, refusal in ipairs(outcome.shard.refused) do
      table.insert(sum.refused, refusal)
    end
  end
  return sum
end

--- How both sides differ, by what is known: kinds with their counts.
---@param o? { owner?: string }
---@return table<string, integer>
function Pair:compare(o)
  local kinds = {}
  for _, unit in ipairs(self.units) do
    local comparison = gate.call("read", manifest.compare, self.directory, unit, o)
    for _, kind in ipairs(comparison and comparison.kinds or {}) do
      kinds[kind.kind] = (kinds[kind.kind] or 0) + kind.count
    end
  end
  return kinds
end

--- Hash what is equal and unproven.
---@param o? { owner?: string, flags?: string }
function Pair:prove(o)
  return far.prove(self.source, self.target, {
    directory = self.directory, units = self.units, owner = o and o.owner, flags = o and o.flags,
  })
end

--- The program's own answers to work, without manifests: by index what became of it.
---@param work string  frames
---@param o? { receive?: string, line?: string }  line: a command line instead of send and receive
---@return table<integer, { status: integer, errno?: integer, words?: string, flags?: integer }> answers
---@return boolean ended
---@return string errors
function Pair:run(work, o)
  o = o or {}
  local output, errors = far.run(work, o.line or ("FAR send %s | FAR receive %s %s"):format(self.source, self.target, o.receive or ""))
  local answers, ended = {}, false
  for _, frame in ipairs(frames.all(output)) do
    if frame.type == "r" then
      local r = frames.reader(frame.payload)
      local index, status = r:number(), r:number()
      assert(not answers[index], "answered twice")
      answers[index] = { status = status }
      if status == 0 then
        answers[index].flags = r:number()
      else
        answers[index].errno, answers[index].words = r:number(), r:text()
      end
    end
    ended = ended or frame.type == "Q"
  end
  return answers, ended, errors
end

--- What happened on the receiver, in words that a spec can compare.
far.status = { [0] = "done", "vanished", "changing", "source", "target", "conflict", "unkept", "torn" }

return far
