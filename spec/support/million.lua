-- A unit of a million names, all that is done with one: run by a spec in a process of its own, whose memory is measured.
--
--     runbook lua spec/support/million.lua DIRECTORY [NAMES]

local frames = require "spec.support.frames"
local gate = require "runbook.core.gate"
local manifest = require "runbook.core.manifest"
local streams = require "spec.support.streams"
local time = require "runbook.core.time"

local directory, names = arg[1], tonumber(arg[2] or 1000000)
local number, text, frame = frames.number, frames.text, frames.frame
local PER_DIRECTORY = 1000
local began = time.now()

local function say(what)
  local status = assert(io.open "/proc/self/status"):read "a"
  io.stdout:write(("%-10s %5.1f s, most %d MB\n"):format(what, time.now() - began, tonumber(status:match "VmHWM:%s+(%d+)") // 1024))
end

local function feed(sink, pieces)
  local out, length = {}, 0
  for piece in pieces do
    out[#out + 1], length = piece, length + #piece
    if length > 200000 then
      assert(sink:write(table.concat(out)))
      out, length = {}, 0
    end
  end
  assert(sink:write(table.concat(out)))
  return assert(sink:finish())
end

local file, folder = streams.entry { size = 5 }, streams.entry { type = "d" }

local function entries()
  coroutine.yield(streams.hello {} .. frame("U", text "ann") .. frame("E", number(0), text "", folder))
  local shared = 0
  for i = 0, names - 1 do
    if i % PER_DIRECTORY == 0 then
      coroutine.yield(frame("E", number(0), text(("d%06d"):format(i)), folder))
      shared = 0
    end
    local rest = ("/f%06d"):format(i)
    coroutine.yield(frame("E", number(7 + shared), text(rest:sub(shared + 1)), file))
    shared = 0
  end
  coroutine.yield(streams.unit({ name = "ann" }):sub(#frame("U", text "ann") + 1) .. frame("Z", number(1), number(0)))
end

local function answers(shard)
  local place = ("\0"):rep(8)
  local done = place .. ("h"):rep(16) .. number(9) .. number(8) .. streams.moment(3000000000000) .. number(8) .. number(5)
  local made = place .. number(9) .. number(8) .. streams.moment(3000000000000) .. number(8) .. number(0)
  for _, f in ipairs(frames.all(shard.bytes)) do
    if f.type == "F" or f.type == "D" then
      local index = number(frames.reader(f.payload):number())
      coroutine.yield(f.type == "F" and frame("r", index, number(0), number(1), file, done) or frame("r", index, number(0), number(0), folder, made))
    end
  end
  coroutine.yield(streams.finished)
end

local function pieces(fn, ...)
  local one = coroutine.create(fn)
  local given = table.pack(...)
  return function()
    local ok, piece = coroutine.resume(one, table.unpack(given))
    given = {}
    return assert(ok and { piece } or nil, piece)[1]
  end
end

gate.call("change", function()
  feed(assert(manifest.scan { directory = directory, side = "source" }), pieces(entries))
  say "scanned"
  local work = manifest.work { directory = directory, units = { "ann" } }
  for shard in work.next, work do
    feed(shard:results(), pieces(answers, shard))
    collectgarbage()
  end
  say "brought"
  assert(work:settle "ann")
  say "settled"
  work:close()
  local c = assert(manifest.compare(directory, "ann"))
  say "compared"
  local directories = names // PER_DIRECTORY + 1
  print(("proven %d of %d"):format(c.proven - directories + 1, c.entries - directories + 1))
  assert(manifest.distrust(directory))
  local proof = manifest.unproven { directory = directory, units = { "ann" } }
  local asked = 0
  for shard in proof.next, proof do
    asked = asked + shard.entries
  end
  assert(asked == c.entries, asked)
  proof:close()
  say "asked"
end)
