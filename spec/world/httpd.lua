--- An HTTP server that answers as told (httpd.py).

local json = require "dkjson"

return function(world)
  ---@class world.Httpd: world.Server
  local Httpd = world.server_class()
  local lines = Httpd.requests

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
    for i, line in ipairs(lines(self)) do
      list[i] = json.decode(line)
    end
    return list
  end

  --- An HTTP server on 127.0.0.1. Without a script it echoes: the answer's body is the request as JSON.
  ---@async
  ---@param o { tls?: "good"|"expired"|"wrong_name"|"self_signed", client_certificate?: boolean, script?: table }?
  ---@return world.Httpd
  function world.httpd(o)
    o = o or {}
    local server = world.server(Httpd, "httpd")
    server:script(o.script or {})
    world.serve(server, { "python3", "-u", "spec/world/httpd.py" }, o)
    return server
  end
end
