--- The far side's program, run here, and its streams fed into manifests.

local assert = require "luassert"
local file = require "runbook.core.file"
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
    return assert(far.feed(assert(manifest.scan { directory = o.directory, side = o.side, owner = o.owner, only = o.only }), output))
  end)
end

--- Do all work, a shard at a time, and settle it.
---@param source string
---@param target string
---@param o table  of manifest.work, and `receive`: more options of the receiver
---@return table[] outcomes  each with its shard
function far.work(source, target, o)
  return gate.call("change", function()
    local receive = o.receive or ""
    o.receive = nil
    local work <close> = manifest.work(o)
    local outcomes = {}
    for shard in work.next, work do
      local output, errors = far.run(shard.bytes, ("FAR send %s | FAR receive %s%s %s"):format(
        world.quote(source), world.quote(target), o.owner and " --owner=" .. o.owner or "", receive))
      assert.equal("", errors)
      local outcome = assert(far.feed(shard:results(), output))
      outcome.shard = shard
      outcomes[#outcomes + 1] = outcome
    end
    for _, unit in ipairs(o.units) do
      assert(work:settle(unit))
    end
    return outcomes
  end)
end

--- Prove what is equal by metadata.
---@param source string
---@param target string
---@param o table  of manifest.unproven
---@return table[] outcomes  of both sides, each with its shard
function far.prove(source, target, o)
  return gate.call("change", function()
    local proof <close> = manifest.unproven(o)
    local outcomes = {}
    for shard in proof.next, proof do
      for side, root in pairs { source = source, target = target } do
        local output, errors = far.run(shard.bytes, "FAR prove " .. world.quote(root))
        assert.equal("", errors)
        local outcome = assert(far.feed(shard:results(side), output))
        outcome.shard = shard
        outcomes[#outcomes + 1] = outcome
      end
    end
    for _, unit in ipairs(o.units) do
      assert(proof:settle(unit))
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

return far
