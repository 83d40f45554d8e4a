describe("a stream", function()
  local stream = require "runbook.core.stream"
  local task = require "runbook.task"

  local a, b

  before_each(function() a, b = stream.pair() end)

  after_each(function()
    a:close()
    b:close()
    collectgarbage()
  end)

  it("gives what was written, and nil at the end", function()
    assert.is_true(a:write "one")
    assert.equal("on", b:read(2))
    assert.equal("e", b:read())
    assert.is_true(a:half_close())
    assert.is_nil(b:read())
    assert.equal(1, select("#", b:read()))
  end)

  it("waits for bytes that have not come", function()
    local reader = task.spawn(function() return b:read() end)
    task.sleep(0)
    assert.is_false(reader:done())
    a:write "late"
    assert.same({ true, "late" }, { task.join(reader) })
  end)

  it("holds a writer back until somebody reads, and loses nothing", function()
    local text = ("0123456789abcdef"):rep(256 * 1024) -- 4 MiB
    local writer = task.spawn(function() return a:write(text) end)
    task.sleep(0.05)
    assert.is_false(writer:done())
    local pieces, length = {}, 0
    while length < #text do
      pieces[#pieces + 1] = b:read(1024 * 1024)
      length = length + #pieces[#pieces]
    end
    assert.is_true(table.concat(pieces) == text)
    assert.same({ true, true }, { task.join(writer) })
  end)

  it("cuts into lines, the last one without a newline too", function()
    a:write "one\n\nthree\r\nfour"
    a:half_close()
    assert.equal("one", b:line())
    assert.equal("", b:line())
    assert.equal("three\r", b:line())
    assert.equal("four", b:line())
    assert.is_nil(b:line())
  end)

  it("gives every line that came in one piece, however many, though nothing comes after them", function()
    a:write(("x\n"):rep(500))
    for _ = 1, 500 do
      assert.equal("x", b:line())
    end
    a:half_close()
    assert.is_nil(b:line())
  end)

  it("splits lines over 64 KiB and says so", function()
    local long = ("x"):rep(65536)
    local writer = task.spawn(function()
      a:write(long .. "\n")
      a:write(long .. "yz\n")
      a:write "end\n"
      a:half_close()
    end)
    assert.same({ long }, { b:line() })
    assert.same({ long, true }, { b:line() })
    assert.same({ "yz" }, { b:line() })
    assert.same({ "end" }, { b:line() })
    assert.same({ n = 1 }, table.pack(b:line()))
    task.join(writer)
  end)

  it("gives to read() what line() has read too far", function()
    a:write "head\nbody"
    assert.equal("head", b:line())
    assert.equal("body", b:read())
  end)

  it("reads lines byte by byte", function()
    local writer = task.spawn(function()
      for c in ("ab\ncd\n"):gmatch "." do
        a:write(c)
        task.sleep(0)
      end
    end)
    assert.equal("ab", b:line())
    assert.equal("cd", b:line())
    task.join(writer)
  end)

  it("takes bytes of every value", function()
    local all = {}
    for i = 0, 255 do
      all[#all + 1] = string.char(i)
    end
    a:write(table.concat(all))
    assert.equal(table.concat(all), b:read())
  end)

  it("ends whoever waits when it is closed, with ECLOSED", function()
    local reader = task.spawn(function() return b:read() end)
    local writer = task.spawn(function() return b:write(("x"):rep(8 * 1024 * 1024)) end)
    task.sleep(0.01)
    b:close()
    b:close()
    assert.same({ true, nil, "the stream was closed", "ECLOSED" }, { task.join(reader) })
    assert.same({ true, nil, "the stream was closed", "ECLOSED" }, { task.join(writer) })
    assert.has_error(function() b:read() end, "calling 'read' on bad self (stream is closed)")
    assert.equal("stream (closed)", tostring(b))
  end)

  it("says what the other side did", function()
    b:close()
    local done, message, code
    repeat
      done, message, code = a:write "x"
    until not done
    assert.equal("EPIPE", code)
    assert.matches("broken pipe", message)
  end)

  it("is read by one task at a time", function()
    local reader = task.spawn(function() return b:read() end)
    task.sleep(0)
    assert.has_error(function() b:read() end, "calling 'read' on bad self (another task reads from it)")
    assert.has_error(function() stream.pump(b, a) end, "bad argument #1 to 'pump' (another task reads from it)")
    a:write "x"
    task.join(reader)
  end)

  it("can be read again after a reader was cancelled", function()
    local reader = task.spawn(function() return b:read() end)
    task.sleep(0)
    reader:cancel()
    assert.is_false((task.join(reader)))
    a:write "still here"
    assert.equal("still here", b:read())
  end)

  it("lets others run while it never has to wait", function()
    local turns, stop = 0, false
    local other = task.spawn(function()
      while not stop do
        turns = turns + 1
        task.sleep(0)
      end
    end)
    for _ = 1, 1000 do
      a:write "x"
      b:read()
    end
    stop = true
    task.join(other)
    assert.is_true(turns >= 20)
  end)

  describe("pumped into another", function()
    local c, d

    before_each(function() c, d = stream.pair() end)

    after_each(function()
      c:close()
      d:close()
    end)

    it("moves everything, half-closes, and says how much", function()
      local text = ("abc\n"):rep(300000)
      local writer = task.spawn(function()
        a:write("first line\n" .. text)
        a:half_close()
      end)
      assert.equal("first line", b:line()) -- so that something was read ahead
      local pump = task.spawn(function() return stream.pump(b, c) end)
      local pieces = {}
      for piece in function() return d:read() end do
        pieces[#pieces + 1] = piece
      end
      assert.is_true(table.concat(pieces) == text)
      assert.same({ true, #text }, { task.join(pump) })
      task.join(writer)
      c:write "the pumped stay open"
    end)

    it("moves what fills its buffer exactly", function()
      local pump = task.spawn(function() return stream.pump(b, c) end)
      for _ = 1, 3 do
        local writer = task.spawn(function() a:write(("x"):rep(256 * 1024)) end)
        local length = 0
        while length < 256 * 1024 do
          length = length + #d:read(1024 * 1024)
        end
        task.join(writer)
      end
      a:half_close()
      assert.same({ true, 3 * 256 * 1024 }, { task.join(pump) })
    end)

    it("keeps at most 256 KiB in flight", function()
      local sent = 0
      local writer = task.spawn(function()
        local piece = ("x"):rep(65536)
        while a:write(piece) do
          sent = sent + #piece
        end
      end)
      local pump = task.spawn(function() return stream.pump(b, c) end)
      task.sleep(0.1)
      local before = sent
      task.sleep(0.1)
      assert.equal(before, sent) -- everything is full
      pump:cancel()
      task.join(pump)
      writer:cancel()
      task.join(writer)
    end)

    it("ends with the failure of either side", function()
      local pump = task.spawn(function() return stream.pump(b, c) end)
      task.sleep(0)
      c:close()
      a:write "x"
      assert.same({ true, nil, "the stream was closed", "ECLOSED" }, { task.join(pump) })

      local back = task.spawn(function() return stream.pump(b, d) end)
      task.sleep(0)
      b:close()
      assert.same({ true, nil, "the stream was closed", "ECLOSED" }, { task.join(back) })
    end)

    it("stops when its task is cancelled", function()
      local pump = task.spawn(function() return stream.pump(b, c) end)
      task.sleep(0)
      pump:cancel()
      assert.is_false((task.join(pump)))
      a:write "mine"
      assert.equal("mine", b:read())
    end)
  end)
end)
