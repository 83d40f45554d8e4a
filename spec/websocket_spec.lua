local core = require "runbook.core.websocket"
local gate = require "runbook.core.gate"
local http = require "runbook.core.http"
local listen = require "runbook.core.listen"
local stream = require "runbook.core.stream"
local task = require "runbook.core.task"
local world = require "spec.world"

local function connect(o)
  return gate.call("change", core.connect, o)
end

local function open(o)
  local ws, message, code = connect(o)
  assert(ws, code and code .. ": " .. message)
  return ws
end

--- All that comes until the end, and why it ended if not well.
local function all(from)
  local parts = {}
  while true do
    local bytes, message, code = from:read()
    if not bytes then
      return table.concat(parts), code, message
    end
    parts[#parts + 1] = bytes
  end
end

describe("a websocket", function()
  local server

  setup(function() server = world.websocketd { protocols = "v5.channel.k8s.io v4.channel.k8s.io" } end)
  teardown(function() server:close() end)

  local function at(path, o)
    o = o or {}
    o.url = server.url .. path
    return o
  end

  it("is a stream of bytes", function()
    local ws = open(at "/echo")
    local s <close> = ws:stream { read = 0, write = 0 }
    assert.is_nil(ws:closed())
    ws:close()
    assert(s:write "hello ")
    assert.equal("hello ", s:read())
    assert.error_matches(function() ws:closed() end, "websocket is closed")
  end)

  it("moves many bytes both ways at once, as they are, and waits for who is slow", function()
    local ws <close> = open(at("/echo", { channels = true }))
    local s <close> = ws:stream { read = 3, write = 3 }
    local sent, size = {}, 0
    for i = 1, 40 do
      sent[i] = string.rep(string.char(i % 256, 0, 255, i * 7 % 256), 16384 + i)
      size = size + #sent[i]
    end
    local writer = task.spawn(function()
      for _, bytes in ipairs(sent) do
        assert(s:write(bytes))
      end
    end)
    local got, length = {}, 0
    while length < size do
      got[#got + 1] = assert(s:read(1 << 20))
      length = length + #got[#got]
      if #got == 3 then
        task.sleep(0.05)
      end
    end
    task.join_all { writer }
    assert.is_true((writer:result()))
    assert.is_true(table.concat(sent) == table.concat(got))
  end)

  it("tells channels apart, puts fragments together, and answers pings between them", function()
    local ws <close> = open(at("/pieces", { channels = true }))
    local one <close> = ws:stream { read = 1 }
    local two <close> = ws:stream { read = 2 }
    assert.equal("one two threetext", (all(one)))
    assert.equal("other channel", (all(two)))
    assert.same({ 1000, "" }, { ws:closed() })
  end)

  it("ends well where it was closed well, and says so where it was not", function()
    for query, wanted in pairs {
      ["code=1000"] = {}, ["code=1001&reason=bye"] = {},
      ["code=1011&reason=out+of+disk"] = { "ELOST", "websocket: the server closed the connection with code 1011: out of disk" },
    } do
      local ws <close> = open(at("/close?" .. query))
      local s <close> = ws:stream { read = 0, write = 0 }
      local bytes, code, message = all(s)
      assert.same({ "", wanted[1], wanted[2] }, { bytes, code, message })
      assert.equal(tonumber(query:match "%d+"), (ws:closed()))
      assert.is_nil((s:write "x"))
    end
    local ws <close> = open(at("/cut?bytes=100000", { channels = true }))
    local s <close> = ws:stream { read = 1 }
    local bytes, code = all(s)
    assert.equal("ELOST", code)
    assert.is_true(#bytes <= 100000)
  end)

  it("knows where what it reads ends, when a mark says so", function()
    local ws <close> = open(at("/echo", { channels = true }))
    local s <close> = ws:stream { read = 1, write = 1, mark = "--end-0123456789" }
    local after <close> = ws:stream { read = 1, mark = "\n" }
    local more <close> = ws:stream { read = 2, write = 2, mark = "--end-0123456789" }
    assert(more:write "--end-01234")
    assert(s:write "some --end-012 bytes--end-")
    assert.equal("some --end-012 bytes", s:read()) -- what can be no mark does not wait
    assert(s:write "0123456789 and what follows\nwhich nobody reads")
    assert(s:write "any more")
    local rest, code = all(s)
    assert.equal("", rest)
    assert.is_nil(code)
    assert.equal(" and what follows", (all(after)))
    assert(more:write "5678x")
    assert.equal("-", more:read(1)) -- it was none
    assert(more:write(string.rep("x", 100) .. "--end-01234567"))
    local cut <close> = open(at("/send?bytes=1000", { channels = true }))
    local never <close> = cut:stream { read = 1, mark = "--end-" }
    rest, code = all(never)
    assert.equal(1000, #rest)
    assert.equal("ELOST", code)
    assert.equal(1000, (cut:closed()))
  end)

  it("says lengths in front of what it writes, and when it is over", function()
    local ws <close> = open(at("/echo", { channels = true }))
    local s <close> = ws:stream { read = 0, write = 0, sized = true, finish = "\0" .. "0\n" }
    assert(s:write "hello")
    assert(s:write(string.rep("y", (1 << 20) + 7)))
    assert(s:half_close())
    assert(s:half_close())
    assert.same({ nil, "websocket: write after half-close", "EPIPE" }, { s:write "more" })
    local got = ""
    while #got < 2 + 5 + 8 + (1 << 20) + 2 + 7 + 2 do
      got = got .. assert(s:read(1 << 20))
    end
    assert.equal("5\nhello1048576\n", got:sub(1, 15))
    assert.equal("y7\nyyyyyyy0\n", got:sub(-12))
    local plain <close> = ws:stream { read = 5, write = 5 }
    assert.same({ nil, "websocket: has no half to close", "ENOTSUP" }, { plain:half_close() })
  end)

  it("sends what was written before it goes, and waits for nobody", function()
    local file = server.folder .. "/written"
    local query = "command=sh&command=-c&command=" .. ("cat > written"):gsub(" ", "+")
    local ws = open(at("/api/v1/namespaces/n/pods/p/exec?" .. query,
      { channels = true, protocols = { "v5.channel.k8s.io" } }))
    local s = ws:stream { write = 0, finish = "\255\0" }
    ws:close()
    assert(s:write(string.rep("z", 300000)))
    s:close()
    world.wait_until("the bytes", function() return #(world.read(file) or "") == 300000 end)
  end)

  it("is over with its main stream, whoever has others", function()
    local ws <close> = open(at("/echo", { channels = true }))
    local main = ws:stream { read = 1, write = 1, main = true }
    local other <close> = ws:stream { read = 2 }
    assert(main:write "x")
    assert.equal("x", main:read())
    local reader = task.spawn(all, other)
    main:close()
    task.join_all { reader }
    assert.same({ true, "" }, { reader:result() })
  end)

  it("takes the subprotocol that the server likes", function()
    local ws <close> = open(at("/echo", { protocols = { "v9.channel.k8s.io", "v4.channel.k8s.io" } }))
    assert.equal("v4.channel.k8s.io", ws:protocol())
    local none <close> = open(at "/echo")
    assert.is_nil(none:protocol())
    assert.error_matches(function() connect(at("/echo", { protocols = { "a, b" } })) end, "is no name of one")
  end)

  it("keeps what a server says that opens none", function()
    local secret = require "runbook.secret"
    local ws, message, code, details = connect(at("/refuse?status=403", {
      headers = { { "Authorization", { "Bearer ", secret.new("token of the spec", "t0ken-of-the-spec") } } },
    }))
    assert.is_nil(ws)
    assert.equal("the server answers 403 and does not open a websocket", message)
    assert.equal("EREFUSED", code)
    assert.equal(403, details.status)
    assert.matches('"message": "not for you"', details.body)
    local seen
    for i = 1, #details.headers, 2 do
      seen = details.headers[i] == "X-Seen" and details.headers[i + 1] or seen
    end
    assert.equal("Bearer t0ken-of-the-spec", seen)
  end)

  it("takes no answer for one that is none", function()
    local head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    for answer, wanted in pairs {
      ["HTTP/1.1 101 Switching Protocols\r\n\r\n"] = "does not speak websocket",
      [head .. "Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n"] = "is not one to our request",
      ["SSH-2.0-OpenSSH_9.2\r\n\r\n"] = "does not speak HTTP/1.1",
      ["HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes"] = "answers 200",
      ["HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n0\r\n\r\n"]
        = "answers 404",
    } do
      server:answer(answer)
      local ws, message, _, details = connect { url = server.raw_url, connect_timeout = 20 }
      assert.is_nil(ws)
      assert.truthy(message:find(wanted, 1, true), message)
      assert.equal(wanted:find "^answers" and "yes" or "", details.body or "")
    end
    server:answer("HTTP/1.1 200", true)
    assert.equal("ELOST", select(3, connect { url = server.raw_url, connect_timeout = 20 }))
  end)

  it("gives up when there is no answer, and when pings are not answered", function()
    server:answer ""
    local _, message, code = connect { url = server.raw_url, connect_timeout = 0.1 }
    assert.same({ "ETIMEDOUT", "no answer within 0.1 s" }, { code, message })
    local ws <close> = open(at("/deaf", { keepalive = 0.05 }))
    local s <close> = ws:stream { read = 0 }
    local _, lost = all(s)
    assert.equal("ELOST", lost)
    local alive <close> = open(at("/echo", { keepalive = 20 }))
    local still <close> = alive:stream { read = 0, write = 0 }
    assert(still:write "x")
    assert.equal("x", still:read())
  end)

  it("is not reached where nobody listens", function()
    assert.equal("ECONNREFUSED", select(3, connect { url = "http://127.0.0.1:1/" }))
    assert.equal("EINVAL", select(3, connect { url = "ftp://127.0.0.1:1/" }))
    assert.equal("ERESOLVE", select(3, connect { url = "http://nowhere.invalid/" }))
  end)

  it("may be abandoned at any time, with a task that waits for it", function()
    server:answer ""
    local waiting = task.spawn(connect, { url = server.raw_url, connect_timeout = 60 })
    task.sleep(0.05)
    waiting:cancel()
    task.join_all { waiting }
    local ws = open(at "/echo")
    local s = ws:stream { read = 0, write = 0 }
    local reader = task.spawn(s.read, s)
    task.sleep(0)
    ws:close()
    s:close()
    task.join_all { reader }
    assert.same({ true, nil, "the stream was closed", "ECLOSED" }, { reader:result() })
    ws = open(at "/echo")
    ws:close()
    ws:close()
    open(at "/echo")
    collectgarbage()
  end)

  it("can be joined with other streams", function()
    local ws <close> = open(at("/send?bytes=3000000", { channels = true }))
    local s <close> = ws:stream { read = 1 }
    local near, far = stream.pair()
    local reader = task.spawn(all, far)
    assert.equal(3000000, stream.pump(s, near))
    near:close()
    task.join_all { reader }
    assert.equal(3000000, #select(2, reader:result()))
    far:close()
  end)

  it("leaves the loop before its descriptor is somebody else's", function()
    local ws = open(at "/close?code=1000")
    local s = ws:stream { read = 0, write = 0 }
    assert.same({ "" }, { all(s) }) -- its connection is closed; the number of that is the next one given out
    local listener <close> = assert(gate.call("read", listen.open, "127.0.0.1", 0))
    local accepting = task.spawn(listener.accept, listener)
    task.sleep(0.05) -- the loop has begun to look at it
    s:close()
    ws:close()
    local asking = task.spawn(gate.call, "read", http.request,
      { method = "GET", url = ("http://127.0.0.1:%d/"):format(listener:port()), timeout = 10 })
    task.join_all { asking, task.spawn(function()
      while not accepting:done() and not asking:done() do
        task.sleep(0.01)
      end
      if accepting:done() then
        select(2, accepting:result()):close()
      else
        listener:close()
      end
    end) }
    task.join_all { accepting }
    assert.equal("runbook.stream", (getmetatable(select(2, accepting:result())) or {}).__name)
  end)

  it("leaves requests their connections", function()
    local many = {}
    for i = 1, 40 do
      many[i] = open(at "/echo")
    end
    server:answer "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    assert.equal("ok", gate.call("read", http.request, { method = "GET", url = server.raw_url, timeout = 20 }).body)
    for _, ws in ipairs(many) do
      ws:close()
    end
  end)
end)

describe("a websocket over TLS", function()
  local function pem(path)
    return world.read(path)
  end

  it("trusts whom it is told to, shows its certificate, and has all of it in memory", function()
    local server <close> = world.websocketd { tls = "good", client_certificate = true }
    local client = world.certificate "client"
    local o = { url = server.url .. "/echo", ca = pem(server.ca), certificate = pem(client .. ".pem"), key = pem(client .. ".key") }
    local ws = open(o)
    local s <close> = ws:stream { read = 0, write = 0 }
    ws:close()
    assert(s:write(string.rep("tls ", 200000)))
    local got = 0
    while got < 800000 do
      got = got + #assert(s:read())
    end
    local picky <close> = world.httpd { tls = "good", client_certificate = true }
    o.url, o.certificate, o.key = picky.url, nil, nil
    local _, message, code = connect(o)
    if code ~= "ELOST" then -- a reset may overtake what the server says
      assert.equal("ETLS", code, message)
    end
  end)

  it("refuses others, unless it is told not to look", function()
    local server <close> = world.websocketd { tls = "wrong_name" }
    local o = { url = server.url .. "/echo", ca = pem(server.ca) }
    assert.equal("ETLS", select(3, connect(o)))
    o.insecure = true
    open(o):close()
    o.insecure, o.ca = nil, nil
    assert.equal("ETLS", select(3, connect(o)))
  end)
end)
