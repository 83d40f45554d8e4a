--- A server of websockets (websocketd.py), which also speaks as the pods of a Kubernetes do.

return function(world)
  ---@class world.Websocketd
  ---@field url string  without a slash at its end
  ---@field raw_url string  where every connection gets the bytes of `answer`
  ---@field address string
  ---@field port integer
  ---@field ca string?  the certificate to trust
  local Websocketd = {}
  Websocketd.__index = Websocketd

  --- What the raw server says to everybody.
  ---@param bytes string
  ---@param ends boolean?  and hangs up then
  function Websocketd:answer(bytes, ends)
    world.write(self.folder .. "/raw", bytes)
    world.sh(("rm -f %s/raw_ends"):format(self.folder))
    if ends then
      world.write(self.folder .. "/raw_ends", "")
    end
  end

  --- The paths of pods that were asked for.
  ---@return string[]
  function Websocketd:requests()
    local list = {}
    for line in (world.read(self.folder .. "/requests") or ""):gmatch "[^\n]+" do
      list[#list + 1] = line
    end
    return list
  end

  ---@async
  function Websocketd:close()
    self.leash:stop()
  end

  Websocketd.__close = Websocketd.close

  --- A server of websockets on 127.0.0.1.
  ---@async
  ---@param o { tls?: "good"|"expired"|"wrong_name"|"self_signed", client_certificate?: boolean, protocols?: string,
  ---           path?: string }?  path: where commands are found
  ---@return world.Websocketd
  function world.websocketd(o)
    o = o or {}
    local server = setmetatable({ folder = world.folder "websocketd", address = "127.0.0.1" }, Websocketd)
    -- Debian's own, which has the package
    local argv = { "/usr/bin/python3", "-u", "spec/world/websocketd.py", server.folder }
    if o.tls then
      server.ca = world.certificate "ca" .. ".pem"
      argv[#argv + 1] = world.certificate(o.tls)
      argv[#argv + 1] = o.client_certificate and server.ca or nil
    end
    if o.protocols then
      world.write(server.folder .. "/protocols", o.protocols)
    end
    if o.path then
      world.write(server.folder .. "/path", o.path)
    end
    server.leash = world.start(argv, { log = server.folder .. "/log" })
    server.port = world.wait_until("a server of websockets", function()
      assert(server.leash:alive(), world.read(server.folder .. "/log"))
      return tonumber(world.read(server.folder .. "/port") or "")
    end)
    server.url = ("%s://127.0.0.1:%d"):format(o.tls and "https" or "http", server.port)
    server.raw_url = "http://127.0.0.1:" .. world.read(server.folder .. "/raw_port")
    return server
  end
end
