local core = require "runbook.core.http"
local errors = require "runbook.errors"
local gate = require "runbook.core.gate"
local http = require "runbook.http"
local json = require "runbook.json"
local process = require "runbook.core.process"
local retry = require "runbook.retry"
local secret = require "runbook.secret"
local task = require "runbook.core.task"
local time = require "runbook.core.time"
local url = require "runbook.http.url"
local world = require "spec.world"
require "runbook.core.stream"

local function complaint(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  assert.is_true(errors.is(err), tostring(err))
  return err
end

local function proxy(credentials)
  local folder = world.folder "proxy"
  local argv = { "python3", "-u", "spec/world/proxy.py", folder, credentials }
  local leash = world.start(argv, { log = folder .. "/log" })
  local port = world.wait_until("a proxy", function() return tonumber(world.read(folder .. "/port") or "") end)
  return { port = port, leash = leash, requests = function() return world.read(folder .. "/requests") or "" end }
end

local first_delay

setup(function()
  first_delay, retry.first_delay = retry.first_delay, 0.01
end)

teardown(function()
  retry.first_delay = first_delay
end)

describe("an HTTP request", function()
  local web

  setup(function() web = world.httpd() end)
  teardown(function() web:close() end)

  it("sends what it is told to, and gives status, headers and body", function()
    local answer = http.request { web.url .. "/a/b?x=1", headers = { ["X-Plain"] = "p", ["X-Empty"] = "", ["X-Number"] = 3 },
      query = { q = "a b&c=é", list = { 1, 2 } } }
    assert.equal(200, answer.status)
    assert.equal("application/json", answer.headers["CONTENT-TYPE"])
    assert.equal(tostring(#answer.body), answer.headers["content-length"])
    assert.is_nil(answer.headers["x-nothing"])
    local asked = answer:json()
    assert.equal("GET", asked.method)
    assert.equal("/a/b?x=1&list=1&list=2&q=a%20b%26c%3D%C3%A9", asked.path)
    assert.equal("p", asked.headers["x-plain"])
    assert.equal("", asked.headers["x-empty"])
    assert.equal("3", asked.headers["x-number"])
    assert.equal("runbook", asked.headers["user-agent"])
    assert.is_nil(asked.headers["content-type"])
  end)

  it("sends bodies: bytes, JSON, nothing", function()
    local asked = http.post({ web.url, body = "a=1\n" }):json()
    assert.equal("POST", asked.method)
    assert.equal("a=1\n", asked.body)
    assert.is_nil(asked.headers["content-type"])
    asked = http.put({ web.url, json = { b = json.array {} } }):json()
    assert.equal("PUT", asked.method)
    assert.equal('{"b":[]}', asked.body)
    assert.equal("application/json", asked.headers["content-type"])
    asked = http.patch({ web.url, json = {}, headers = { ["content-type"] = "application/merge-patch+json" } }):json()
    assert.equal("PATCH", asked.method)
    assert.equal("application/merge-patch+json", asked.headers["content-type"])
    asked = http.post(web.url):json()
    assert.equal("0", asked.headers["content-length"])
    assert.equal("DELETE", http.delete(web.url):json().method)
    assert.equal("", http.head(web.url).body)
  end)

  it("sends secrets that Lua never sees", function()
    local token = secret.new("spec token", "s3cr3t-t0ken")
    local asked = http.get({ web.url, bearer = token, headers = { ["X-Api-Key"] = token, Cookie = { "sid=", token, ";" } } }):json()
    assert.equal("Bearer s3cr3t-t0ken", asked.headers.authorization)
    assert.equal("s3cr3t-t0ken", asked.headers["x-api-key"])
    assert.equal("sid=s3cr3t-t0ken;", asked.headers.cookie)
    asked = http.get({ web.url, basic = { "op", token } }):json()
    assert.equal("Basic b3A6czNjcjN0LXQwa2Vu", asked.headers.authorization)
    assert.equal("s3cr3t-t0ken", http.post({ web.url, body = token }):json().body)
  end)

  it("refuses what could smuggle a header or a password", function()
    local token = secret.new("bad token", "two\r\nX-Evil: 1")
    assert.error_matches(function() http.get { web.url, headers = { A = "b\r\nC: d" } } end, "holds a line break")
    assert.error_matches(function() http.get { web.url, bearer = token } end, "the value of Authorization holds a line break")
    assert.error_matches(function() http.get { web.url, headers = { ["A b"] = "c" } } end, "no name of a header")
    assert.matches("password in it", complaint(http.get, "http://op:pw@127.0.0.1/").message)
    assert.matches("no spaces or line breaks", complaint(http.get, "http://127.0.0.1/a b").message)
    for _, bad in ipairs { "ftp://x/", "file:///etc/passwd", "127.0.0.1", "http://", "http:///x", "http://[::1", "http://a:b:c/" } do
      local err = complaint(http.get, bad)
      assert.equal("usage", err.kind)
    end
    assert.matches("unknown option `timeuot`; did you mean `timeout`", complaint(http.get, { web.url, timeuot = 1 }).message)
    assert.matches("a URL is expected", complaint(http.get, {}).message)
  end)

  it("may be made outside of a verb by nobody", function()
    local err = complaint(core.request, { method = "GET", url = web.url })
    assert.equal("ungated", err.code)
    err = complaint(gate.call, "read", core.request, { method = "POST", url = web.url })
    assert.equal("ungated", err.code)
    assert.equal(200, gate.call("read", core.request, { method = "POST", url = web.url, reads = true }).status)
  end)

  it("raises unless the answer is 2xx, with what the server says and without what is private", function()
    web:script {
      ["GET /404"] = { { status = 404, headers = { ["Content-Type"] = "text/plain" }, body = "no such hub\n" } },
      ["GET /401"] = { { status = 401, headers = { ["Content-Type"] = "text/plain" }, body = "bad token abcdefgh for op" } },
      ["GET /html"] = { { status = 500, headers = { ["Content-Type"] = "text/html" }, body = "<h1>x</h1>" } },
      ["POST /409"] = { { status = 409 } }, ["POST /503"] = { { status = 503 } },
    }
    local err = complaint(http.get, web.url .. "/404?token=abcdefgh")
    assert.equal("missing", err.kind)
    assert.equal(404, err.status)
    assert.equal("HTTP404", err.code)
    assert.equal(web.url .. "/404 answers 404: no such hub", err.message)
    assert.equal("GET " .. web.url .. "/404", err.tried)
    assert.equal("127.0.0.1:" .. web.port, err.target)
    err = complaint(http.get, { web.url .. "/401", headers = { Authorization = "token abcdefgh" } })
    assert.equal("auth", err.kind)
    assert.equal(web.url .. "/401 answers 401: bad «private» «private» for op", err.message)
    assert.equal(web.url .. "/html answers 500", complaint(http.get, web.url .. "/html").message)
    assert.equal("conflict", complaint(http.post, web.url .. "/409").kind)
    assert.equal("busy", complaint(http.post, web.url .. "/503").kind)
    assert.equal(404, http.request(web.url .. "/404").status)
    assert.equal(409, http.request({ web.url .. "/409", method = "post" }).status)
  end)

  it("tries reads again while the server is busy, and waits as long as it asks for", function()
    web:script {
      ["GET /busy"] = { { status = 503 }, { status = 429, headers = { ["Retry-After"] = "1" } }, { status = 200, body = "in" } },
      ["GET /down"] = { { status = 502 } }, ["GET /broken"] = { { status = 500 } }, ["POST /busy"] = { { status = 503 }, { status = 200 } },
      ["POST /query"] = { { status = 503 }, { status = 200 } },
    }
    local began, before = time.now(), #web:requests()
    assert.equal("in", http.get(web.url .. "/busy").body)
    assert.is_true(time.now() - began >= 1)
    assert.equal(3, #web:requests() - before)
    before = #web:requests()
    assert.equal("lost", complaint(http.get, { web.url .. "/down", tries = 3 }).kind)
    assert.equal(3, #web:requests() - before)
    assert.equal(502, http.request({ web.url .. "/down", tries = 2 }).status)
    before = #web:requests()
    assert.equal(500, http.request(web.url .. "/broken").status)
    assert.equal(1, #web:requests() - before)
    complaint(http.post, web.url .. "/busy")
    assert.equal(200, http.post({ web.url .. "/query", reads = true }).status)
  end)

  it("never sends a change twice when nobody knows what became of it", function()
    web:script { ["POST /cut"] = { { body = ("x"):rep(100), cut = 10 } },
      ["GET /cut"] = { { body = ("x"):rep(100), cut = 10 }, { body = "ok" } } }
    local before = #web:requests()
    local err = complaint(http.post, web.url .. "/cut")
    assert.equal("lost", err.kind)
    assert.equal(1, #web:requests() - before)
    assert.equal("ok", http.get(web.url .. "/cut").body)
  end)

  it("ends at its deadlines, and says which", function()
    web:script { ["GET /slow"] = { { delay = 5 } }, ["GET /drip"] = { { body = ("x"):rep(1000), drip = 0.05 } } }
    local err = complaint(http.get, { web.url .. "/slow", timeout = 0.2, tries = 1 })
    assert.equal("timeout", err.kind)
    assert.matches("no whole answer within 0.2 s", err.message)
    assert.matches("no whole answer", complaint(http.get, { web.url .. "/drip", timeout = 0.3, tries = 1 }).message)
    assert.matches("no byte for 1 s", complaint(http.get, { web.url .. "/slow", stall = 1, tries = 1 }).message)
  end)

  it("keeps no more of an answer than it may", function()
    web:script { ["GET /big"] = { { body = ("x"):rep(1024), times = 64 } } }
    local err = complaint(http.get, { web.url .. "/big", max = 65535 })
    assert.equal("limit", err.kind)
    assert.matches("longer than 65535 bytes", err.message)
    assert.equal(65536, #http.get({ web.url .. "/big", max = 65536 }).body)
  end)

  it("follows redirects of reads only", function()
    web:script {
      ["GET /from"] = { { status = 302, headers = { Location = "/to" } } }, ["GET /to"] = { { body = "there" } },
      ["GET /loop"] = { { status = 301, headers = { Location = "/loop" } } },
      ["POST /from"] = { { status = 303, headers = { Location = "/to" } } },
      ["POST /keep"] = { { status = 307, headers = { Location = "/kept" } } },
    }
    local answer = http.get(web.url .. "/from")
    assert.equal("there", answer.body)
    assert.equal(web.url .. "/to", answer.url)
    assert.equal(302, http.request({ web.url .. "/from", follow = false }).status)
    assert.matches("more than 10 redirects", complaint(http.get, web.url .. "/loop").message)
    assert.matches("answers 303, a redirect to " .. web.url .. "/to", complaint(http.post, web.url .. "/from").message, 1, true)
    assert.equal("there", http.post({ web.url .. "/from", follow = true, body = "x" }).body)
    local asked = http.post({ web.url .. "/keep", follow = true, body = "again" }):json()
    assert.equal("POST /kept again", ("%s %s %s"):format(asked.method, asked.path, asked.body))
  end)

  it("takes nothing private along to another server", function()
    local other <close> = world.httpd()
    web:script { ["GET /away"] = { { status = 302, headers = { Location = other.url .. "/x" } } },
      ["GET /stay"] = { { status = 302, headers = { Location = "/y" } } } }
    local o = { headers = { Authorization = "Bearer abc", ["X-Api-Key"] = "k", Cookie = "c", ["X-Plain"] = "p",
      ["X-Odd"] = secret.new("odd", "oddities") } }
    o[1] = web.url .. "/away"
    local asked = http.get(o):json().headers
    assert.same({ "p" }, { asked["x-plain"], asked.authorization, asked["x-api-key"], asked.cookie, asked["x-odd"] })
    asked = http.get({ web.url .. "/away", bearer = "t", basic = nil }):json().headers
    assert.is_nil(asked.authorization)
    asked = http.get({ web.url .. "/stay", bearer = "t" }):json().headers
    assert.equal("Bearer t", asked.authorization)
  end)

  it("puts an answer into a file, which is there when it is whole", function()
    local path = world.folder "download" .. "/image"
    web:script {
      ["GET /image"] = { { body = ("0123456789abcdef"):rep(1000), times = 400, cut = 3000000 },
        { body = ("0123456789abcdef"):rep(1000), times = 400 } },
      ["GET /none"] = { { status = 404, body = "<none>" } }, ["GET /cut"] = { { body = ("x"):rep(10000), cut = 5000 } },
    }
    local answer = http.get { web.url .. "/image", to = path }
    assert.is_nil(answer.body)
    assert.equal(6400000, answer.length)
    assert.equal(("0123456789abcdef"):rep(400000), world.read(path))
    os.remove(path)
    assert.equal("<none>", http.request({ web.url .. "/none", to = path }).body)
    complaint(http.get, { web.url .. "/cut", to = path, tries = 2 })
    assert.is_nil(world.read(path))
    assert.is_nil(world.read(path .. ".part"))
    assert.equal("missing", complaint(http.get, { web.url .. "/image", to = "/nonexistent/x" }).kind)
  end)

  it("gives an answer to a stream no faster than that takes it", function()
    web:script { ["GET /image"] = { { body = ("0123456789abcdef"):rep(1000), times = 2000 } } }
    gate.call("change", function()
      local slow <close> = assert(process.open { argv = { "sh", "-c", "sleep 0.5; wc -c" } })
      local into = slow:stdin()
      local answer = http.get { web.url .. "/image", to = into }
      assert.equal(32000000, answer.length)
      into:close()
      assert.equal("32000000\n", slow:stdout():read())
    end)
    gate.call("change", function()
      local gone <close> = assert(process.open { argv = { "true" } })
      gone:wait()
      local err = complaint(http.get, { web.url .. "/image", to = gone:stdin() })
      assert.equal("lost", err.kind)
      assert.equal("EPIPE", err.code)
    end)
  end)

  it("sends a stream as it comes", function()
    gate.call("change", function()
      local slow <close> = assert(process.open { argv = { "sh", "-c", "for i in 1 2 3; do echo line $i; sleep 0.1; done" } })
      local asked = http.post({ web.url, body = slow:stdout() }):json()
      assert.equal("line 1\nline 2\nline 3\n", asked.body)
      assert.equal("chunked", asked.headers["transfer-encoding"])
    end)
  end)

  it("can be cancelled at any moment, and leaves nothing behind", function()
    web:script { ["GET /slow"] = { { delay = 3, body = "x" } }, ["GET /drip"] = { { body = ("x"):rep(1000), drip = 0.01 } } }
    for _, path in ipairs { "/slow", "/drip" } do
      for _, wait in ipairs { 0, 0.005, 0.1 } do
        local asker = task.spawn(http.get, web.url .. path)
        task.sleep(wait)
        local began = time.now()
        asker:cancel()
        task.join_all { asker }
        assert.is_true(time.now() - began < 2) -- the answer comes after 3
        assert.is_false((asker:result()))
        collectgarbage()
      end
    end
    assert.is_table(http.get(web.url))
  end)

  it("runs many at once, on connections that are used again", function()
    local tasks = {}
    for i = 1, 100 do
      tasks[i] = task.spawn(function() return http.get({ web.url .. "/" .. i }):json().path end)
    end
    task.join_all(tasks)
    for i, one in ipairs(tasks) do
      local ok, path = one:result()
      assert.is_true(ok)
      assert.equal("/" .. i, path)
    end
  end)
end)

describe("an HTTP request that finds nobody", function()
  it("is unreachable, and tried again whatever it is", function()
    for place, code in pairs { ["http://127.0.0.1:1/"] = "ECONNREFUSED", ["http://nobody.invalid/"] = "ERESOLVE" } do
      for _, method in ipairs { "GET", "POST" } do
        local err = complaint(http.request, { place, method = method, tries = 2 })
        assert.equal("unreachable", err.kind)
        assert.equal(code, err.code)
        assert.equal(2, err.tries)
      end
    end
  end)

  it("gives up a connection that nobody takes", function()
    local err = complaint(http.post, { "http://192.0.2.1/", connect_timeout = 0.2, tries = 1, proxy = "" })
    assert.equal("unreachable", err.kind)
  end)

  it("never reaches the server twice when it changes something, on a used connection either", function()
    local web <close> = world.httpd { script = { ["POST /slow"] = { { delay = 0.5 } }, ["GET /slow"] = { { delay = 0.5 }, { body = "x" } } } }
    local relay <close> = world.relay { to = web }
    local place = ("http://%s:%d"):format(relay.address, relay.port)
    for method, reached in pairs { POST = 1, GET = 2 } do
      http.get(place) -- a connection that is kept
      local before = #web:requests()
      local asker = task.spawn(http.request, { place .. "/slow", method = method, body = method == "POST" and "x" or nil })
      world.wait_until("the request", function() return #web:requests() > before end)
      relay:cut()
      relay:go()
      task.join_all { asker }
      assert.equal(method == "GET", (asker:result()))
      assert.equal(reached, #web:requests() - before)
    end
  end)

  it("goes on through a relay that passes one byte at a time, and tells a cut from an end", function()
    local web <close> = world.httpd()
    local relay <close> = world.relay { to = web }
    local place = ("http://%s:%d/x"):format(relay.address, relay.port)
    relay:one()
    assert.equal("/x", http.get(place):json().path)
    relay:one(false)
    relay:cut(200)
    assert.equal("lost", complaint(http.post, { place, body = ("x"):rep(5000) }).kind)
    relay:go()
    assert.equal("/x", http.get(place):json().path)
  end)
end)

describe("HTTPS", function()
  local function trusting(web, o)
    o = o or {}
    o[1], o.ca, o.tries = web.url, world.read(web.ca), 1
    return o
  end

  it("trusts the authority it is given, and nobody else", function()
    local web <close> = world.httpd { tls = "good" }
    assert.equal(200, http.get(trusting(web)).status)
    local err = complaint(http.get, { web.url, tries = 1 })
    assert.equal("identity", err.kind)
    assert.equal("ETLS", err.code)
    assert.matches("private authority is given with `ca`", err.hint)
  end)

  it("refuses certificates that are old, for another name, or their own authority", function()
    for _, kind in ipairs { "expired", "wrong_name", "self_signed" } do
      local web <close> = world.httpd { tls = kind }
      local err = complaint(http.get, trusting(web))
      assert.equal("identity", err.kind)
      assert.equal("ETLS", err.code)
      assert.equal(0, #web:requests())
    end
  end)

  it("shows a certificate of ours from memory", function()
    local web <close> = world.httpd { tls = "good", client_certificate = true }
    -- with TLS 1.3 the refusal comes after the handshake, and may be overtaken by the end of the connection
    local err = complaint(http.get, trusting(web))
    assert.is_true(err.kind == "identity" or err.kind == "lost", err.kind)
    local pair = world.certificate "client"
    local key = secret.new("client key", world.read(pair .. ".key"))
    assert.equal(200, http.get(trusting(web, { cert = world.read(pair .. ".pem"), key = key })).status)
    assert.equal(1, #web:requests())
    err = complaint(http.get, trusting(web, { cert = "nonsense", key = key }))
    assert.equal("ETLS", err.code)
  end)

  it("does not go on where a redirect leaves encryption", function()
    local plain <close> = world.httpd()
    local web <close> = world.httpd { tls = "good", script = { ["GET /"] = { { status = 302, headers = { Location = plain.url } } } } }
    local o = trusting(web)
    o[1] = web.url .. "/"
    assert.matches("which is not encrypted", complaint(http.get, o).message)
    assert.equal(0, #plain:requests())
  end)

  it("tells a server that hangs up in the handshake from a wrong certificate", function()
    local web <close> = world.httpd { tls = "good" }
    local relay <close> = world.relay { to = web }
    relay:cut(300)
    local o = trusting(web)
    o[1] = ("https://%s:%d/"):format(relay.address, relay.port)
    assert.equal("unreachable", complaint(http.get, o).kind)
  end)
end)

describe("a proxy", function()
  it("is asked for plain requests and for tunnels, and gets none of the headers", function()
    local plain <close> = world.httpd()
    local web <close> = world.httpd { tls = "good" }
    local through = proxy()
    local o = { plain.url .. "/p", proxy = "http://127.0.0.1:" .. through.port, headers = { ["X-Plain"] = "p" } }
    assert.equal("/p", http.get(o):json().path)
    o = { web.url .. "/t", proxy = o.proxy, ca = world.read(web.ca), bearer = "tunnelled-token" }
    assert.equal("Bearer tunnelled-token", http.get(o):json().headers.authorization)
    assert.matches("GET " .. plain.url .. "/p", through.requests(), 1, true)
    assert.matches(("CONNECT 127.0.0.1:%d"):format(web.port), through.requests(), 1, true)
    assert.is_nil(through.requests():find("tunnelled-token", 1, true))
    through.leash:stop()
  end)

  it("that refuses is no answer of the server", function()
    local web <close> = world.httpd { tls = "good" }
    local through = proxy "op:pw"
    local o = { web.url, proxy = "http://127.0.0.1:" .. through.port, ca = world.read(web.ca), tries = 1 }
    assert.equal("auth", complaint(http.get, o).kind)
    o.proxy = "http://op:pw@127.0.0.1:" .. through.port
    assert.equal(200, http.get(o).status)
    o[1] = "https://127.0.0.1:1/"
    assert.equal("unreachable", complaint(http.get, o).kind)
    o.proxy = "http://127.0.0.1:1"
    assert.equal("unreachable", complaint(http.get, o).kind)
    through.leash:stop()
  end)
end)

describe("URLs", function()
  it("are shown without what may be private in them", function()
    assert.equal("http://h/p", url.shown "http://u:p@h/p?token=x#f")
    assert.equal("h:81", url.host "http://u@H:81/p")
    assert.equal("[::1]", url.host "https://[::1]:443/")
    assert.equal(url.origin "https://a/x", url.origin "HTTPS://A:443/y")
    assert.not_equal(url.origin "https://a/x", url.origin "http://a/x")
  end)

  it("carry dates as HTTP writes them", function()
    assert.equal(784111777, url.parse_date "Sun, 06 Nov 1994 08:49:37 GMT")
    assert.is_nil(url.parse_date "soon")
  end)
end)

describe("the command", function()
  it("loads libcurl with the first request, and not before", function()
    local folder = world.folder "curl"
    world.write(folder .. "/p.lua", [[
      require "runbook.http"
      local function loaded() return io.open("/proc/self/maps"):read("a"):find("libcurl", 1, true) ~= nil end
      io.write(tostring(loaded()), " ")
      pcall(require("runbook.http").post, { "http://127.0.0.1:1/", tries = 1 })
      io.write(tostring(loaded()))
    ]])
    assert.equal("false true", world.must(("%s lua %s/p.lua"):format(world.runbook, folder)))
  end)
end)

