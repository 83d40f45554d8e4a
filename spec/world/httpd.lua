--- An HTTP server that answers as told (httpd.py).

local json = require "dkjson"

return function(world)
  ---@class world.Httpd
  ---@field url string  without a slash at its end
  ---@field address string
  ---@field port integer
  ---@field ca string?  the certificate to trust
  local Httpd = {}
  Httpd.__index = Httpd

  --- Say what it answers from now on: "METHOD /path" to a list of answers, given in turn, the last one for ever.
  --- An answer: { status =, headers =, body =, delay = seconds, cut = bytes of the body after which the connection
  --- is reset, drip = seconds between bytes, chunked = true }.
  function Httpd:script(answers)
    world.write(self.folder .. "/script.new", json.encode(answers))
    assert(os.rename(self.folder .. "/script.new", self.folder .. "/script"))
  end

  --- What was asked: { method =, path =, headers =, body = } each, in order.
  function Httpd:requests()
    local list = {}
    for line in (world.read(self.folder .. "/requests") or ""):gmatch "[^\n]+" do
      list[#list + 1] = json.decode(line)
    end
    return list
  end

  ---@async
  function Httpd:close()
    self.leash:stop()
  end

  Httpd.__close = Httpd.close

  --- An HTTP server on 127.0.0.1. Without a script it echoes: the answer's body is the request as JSON.
  ---@async
  ---@param o { tls?: "good"|"expired"|"wrong_name"|"self_signed", client_certificate?: boolean, script?: table }?
  ---@return world.Httpd
  function world.httpd(o)
    o = o or {}
    local server = setmetatable({ folder = world.folder "httpd", address = "127.0.0.1" }, Httpd)
    local argv = { "python3", "-u", "spec/world/httpd.py", server.folder }
    if o.tls then
      server.ca = world.certificate "ca" .. ".pem"
      argv[#argv + 1] = world.certificate(o.tls)
      argv[#argv + 1] = o.client_certificate and server.ca or nil
    end
    server:script(o.script or {})
    server.leash = world.start(argv, { log = server.folder .. "/log" })
    server.port = world.wait_until("an HTTP server", function()
      assert(server.leash:alive(), world.read(server.folder .. "/log"))
      return tonumber(world.read(server.folder .. "/port") or "")
    end)
    server.url = ("%s://127.0.0.1:%d"):format(o.tls and "https" or "http", server.port)
    return server
  end
end
