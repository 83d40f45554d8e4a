local nearest = require "runbook.nearest"
local units = require "runbook.units"

describe("units", function()
  it("reads durations", function()
    for text, seconds in pairs {
      ["2h"] = 7200, ["1m 30s"] = 90, ["1m30s"] = 90, ["0m"] = 0, ["12h"] = 43200, ["4d"] = 345600, ["90"] = 90, ["1.5h"] = 5400,
      ["2 h"] = 7200, [" 5 min "] = 300, ["250ms"] = 0.25, ["1w 2d"] = 777600, ["2 hours"] = 7200, ["1 second"] = 1,
    } do
      assert.equal(seconds, units.parse_duration(text))
    end
    assert.equal(90, units.parse_duration(90))
    assert.equal("integer", math.type(units.parse_duration "1.5h"))
    assert.equal(1.5, units.parse_duration(1.5))
  end)

  it("refuses durations that are slips, showing them", function()
    for _, v in ipairs { "", " ", "h", "2", "2x", "1s 2h", "1h 1h", "-1h", "1h,", "1H", "2h30", "soon", -1, 0 / 0, math.huge, true, {} } do
      local n, message = units.parse_duration(v)
      if v == "2" then
        assert.equal(2, n)
      else
        assert.is_nil(n)
        assert.equal(units.quote(v) .. ": a duration like 2h or 1m 30s", message)
      end
    end
  end)

  it("reads sizes: kB is 1000, KiB is 1024", function()
    for text, bytes in pairs {
      ["100 MB"] = 100000000, ["2.00 TB"] = 2000000000000, ["10G"] = 10000000000, ["1 kB"] = 1000, ["1KB"] = 1000, ["1K"] = 1000,
      ["1 KiB"] = 1024, ["512Mi"] = 536870912, ["0"] = 0, ["17"] = 17, ["17 B"] = 17, ["1.5 k"] = 1500, ["1 PiB"] = 1 << 50,
    } do
      local n = units.parse_size(text)
      assert.equal(bytes, n)
      assert.equal("integer", math.type(n))
    end
    for _, v in ipairs { "", "MB", "-1 MB", "1 XB", "1 MB/s", "1 iB", "1 Mbit", "1 MBs", "9 EB 1", "99 EB", true, -1 } do
      local n, message = units.parse_size(v)
      assert.is_nil(n)
      assert.equal(units.quote(v) .. ": a size like 100 MB, 2.5 TB or 512 MiB", message)
    end
  end)

  it("reads rates, also as network people say them", function()
    for text, bytes in pairs { ["100 MB/s"] = 1e8, ["100MB / s"] = 1e8, ["10M"] = 1e7, ["1 Gbit/s"] = 1.25e8, ["1 MiB/s"] = 1048576,
      ["5"] = 5 } do
      assert.equal(bytes, units.parse_rate(text))
    end
    for _, v in ipairs { "0", "0 MB/s", "fast", "1 MB/h", -1, {} } do
      assert.is_nil((units.parse_rate(v)))
    end
  end)

  it("reads times that carry their offset", function()
    local moment, offset = units.parse_time "2026-12-05T22:00-05:00"
    assert.equal(1796526000, moment)
    assert.equal(-18000, offset)
    assert.equal(0, units.parse_time "1970-01-01T00:00Z")
    assert.equal(951782400, units.parse_time "2000-02-29 00:00:00Z")
    assert.equal(951782400.5, units.parse_time "2000-02-29T05:30:00.5+0530")
    assert.equal(-1, units.parse_time "1969-12-31T23:59:59Z")
  end)

  it("refuses times without an offset, and days that are none", function()
    local like = ": a time like 2026-12-05T22:00-05:00"
    for _, v in ipairs { "Saturday 22:00", "2026-02-29T00:00Z", "2026-13-01T00:00Z", "2026-04-31T00:00Z", "2026-12-05T24:00Z",
      "2026-12-05T22:60Z", "2026-12-05T22:00:60Z", "2026-12-05T22:00+15:00", "2026-12-05T22:00-5:00", "2026-12-05",
      "2026-00-10T00:00Z", 12 } do
      local moment, message = units.parse_time(v)
      assert.is_nil(moment)
      assert.equal(units.quote(v) .. like, message)
    end
    assert.equal('"2026-12-05T22:00"' .. like .. ", with its offset from UTC", select(2, units.parse_time "2026-12-05T22:00"))
  end)

  it("agrees with the C library on the calendar", function()
    for day = -30000, 60000, 367 do
      assert.equal(day * 86400, units.parse_time(os.date("!%Y-%m-%dT%H:%MZ", day * 86400)))
    end
  end)

  it("writes durations in two units", function()
    for seconds, text in pairs {
      [2412] = "40 min 12 s", [7200] = "2 h", [0] = "0 s", [12] = "12 s", [90061] = "1 d 1 h", [11520] = "3 h 12 min", [59.7] = "1 min",
      [3599.6] = "1 h", [86399] = "1 d", [0.35] = "350 ms", [1.25] = "1.2 s", [0.9999] = "1.0 s",
      [61] = "1 min 1 s", [-90] = "-1 min 30 s",
      [604800] = "7 d", [0.0001] = "0 ms",
    } do
      assert.equal(text, units.duration(seconds))
    end
  end)

  it("writes sizes, rates and counts", function()
    for bytes, text in pairs {
      [2.01e12] = "2.01 TB", [102.7e9] = "102.7 GB", [0] = "0 B", [999] = "999 B", [1000] = "1.0 kB", [999960] = "1.0 MB",
      [999.6] = "1.0 kB", [4.4e9] = "4.4 GB", [-1500] = "-1.5 kB", [5e18] = "5.00 EB", [5e21] = "5000.00 EB",
    } do
      assert.equal(text, units.size(bytes))
    end
    assert.equal("92.0 MB/s", units.rate(92e6))
    assert.equal("14,213,877", units.count(14213877))
    assert.equal("-1,000", units.count(-1000))
    assert.equal("999", units.count(999))
  end)

  it("writes moments where they were meant", function()
    local moment, offset = units.parse_time "2026-12-05T22:00-05:00"
    assert.equal("Sat 2026-12-05 22:00 -05:00", units.time(moment, offset))
    assert.equal("22:00", units.clock(moment, offset))
    assert.equal("03:00", units.clock(moment, 0))
    assert.equal("2026-12-06T03:00:00Z", units.timestamp(moment))
    assert.matches("^%a%a%a %d%d%d%d%-%d%d%-%d%d %d%d:%d%d [+-]%d%d:%d%d$", units.time(moment))
  end)

  it("quotes values for messages without cutting a letter in two", function()
    assert.equal('"a?b"', units.quote "a\nb")
    assert.equal("a list", units.quote { 1 })
    assert.equal("a map", units.quote { a = 1 })
    assert.equal("12", units.quote(12))
    for n = 50, 70 do
      assert.is_truthy(utf8.len(units.quote(("x"):rep(n % 2) .. ("é"):rep(n))))
    end
  end)
end)

describe("nearest", function()
  it("finds what was meant", function()
    assert.equal("timeout", nearest("timeuot", { "tries", "timeout", "user" }))
    assert.equal("from", nearest("form", { "from", "to", "exclude" }))
    assert.equal("host_key", nearest("hostkey", { "host", "host_key" }))
    assert.equal("host_key", nearest("host-key", { "host_kex", "host_key" }))
    assert.equal("user", nearest("User", { "user" }))
    assert.equal("namespace", nearest("namspce", { "name", "namespace" }))
  end)

  it("says nothing rather than something far-fetched", function()
    for _, word in ipairs { "x", "", "colour", ("long"):rep(30), "ab", 7 } do
      assert.is_nil(nearest(word, { "from", "to", "y", "rate" }))
    end
    assert.is_nil(nearest("from", {}))
  end)
end)
