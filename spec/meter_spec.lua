-- How far a copy is: what people are told, from what the far side says.

local events = require "runbook.events"
local meter = require "runbook.copier.meter"
local time = require "runbook.core.time"

describe("a meter", function()
  local said, stop, clock, real

  before_each(function()
    said, clock, real = {}, 1000, time.now
    time.now = function() return clock end
    stop = events.subscribe(function(event) said[#said + 1] = event end)
  end)

  after_each(function()
    stop()
    time.now = real
  end)

  local function shard(bytes, ...)
    return { size = bytes, units = { ... } }
  end

  local list = { { name = "ann", bytes = 5e9, files = 10 }, { name = "bob", bytes = 5e9, files = 90 } }

  it("goes by what is to be sent, where that is known", function()
    local m = meter.new(list, { { name = ".", bytes = 1, files = 1 } })
    m:expect(4, 100)
    local one = shard(100, "ann", "bob")
    m:begin(one)
    clock = clock + 1
    m:follow(one, { bytes = 50, files = 2 })
    local last = said[#said]
    assert.same({ 50, 100, 2, 4, 0, 3 }, { last.bytes, last.bytes_total, last.files, last.files_total, last.done, last.total })
    assert.equal("ann and 1 more", last.units[1].name)
  end)

  it("takes its rate from the last minute, and counts a file as some bytes for the time that is left", function()
    local m = meter.new(list, {}, { rate = 100e6 })
    m:expect(1000000, 0)
    local one = shard(0, "ann")
    m:begin(one)
    for second = 1, 100 do
      clock = clock + 1
      m:follow(one, { bytes = 0, files = second <= 40 and 0 or (second - 40) * 1000 })
    end
    local last = said[#said]
    assert.equal(100e6, last.limit)
    assert.equal(0, last.rate)
    assert.near(940, last.eta, 10) -- a thousand files a second, and 940,000 to go
  end)

  it("says nothing of the time that is left while it does not know", function()
    local m = meter.new(list, {})
    local one = shard(100, "ann")
    m:begin(one)
    clock = clock + 2
    m:follow(one, { bytes = 10, files = 1 })
    assert.is_nil(said[#said].eta)
    assert.is_nil(said[#said].rate)
  end)

  it("tells how the source bears it, and who is to be tried again until he is done", function()
    local m = meter.new(list, {})
    local one = shard(100, "ann")
    m:begin(one)
    m:once_more(list[1], "the connection between the servers broke")
    clock = clock + 2
    m:follow(one, { bytes = 10, files = 1, stat_seconds = 0.0021 })
    assert.same({
      "source  a stat takes 2.1 ms", "again   ann (the connection between the servers broke)",
    }, said[#said].notes)
    m:done_with(one)
    clock = clock + 2
    m:count(list[1])
    m:count(list[2])
    assert.equal(1, #said[#said].notes)
    assert.same({ 2, 2 }, { said[#said].done, said[#said].total })
  end)

  it("keeps what a piece brought that was cut, and expects the rest again", function()
    local m = meter.new(list, {})
    m:expect(10, 1000)
    local one = shard(1000, "ann")
    m:begin(one)
    m:follow(one, { bytes = 400, files = 4 })
    m:done_with(one)
    clock = clock + 2
    m:count(list[1])
    assert.same({ 400, 4 }, { said[#said].bytes, said[#said].files })
    m:expect(6, 600)
    clock = clock + 2
    m:count(list[2])
    assert.same({ 400, 1000, 4, 10 }, { said[#said].bytes, said[#said].bytes_total, said[#said].files, said[#said].files_total })
  end)
end)
