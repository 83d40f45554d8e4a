--- A server of websockets (websocketd.py), which also speaks as the pods of a Kubernetes do.

return function(world)
  ---@class world.Websocketd: world.Server  requests: the paths of pods that were asked for
  ---@field raw_url string  where every connection gets the bytes of `answer`
  local Websocketd = world.server_class()

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

  --- A server of websockets on 127.0.0.1.
  ---@async
  ---@param o { tls?: "good"|"expired"|"wrong_name"|"self_signed", client_certificate?: boolean, protocols?: string,
  ---           path?: string }?  path: where commands are found
  ---@return world.Websocketd
  function world.websocketd(o)
    o = o or {}
    local server = world.server(Websocketd, "websocketd")
    if o.protocols then
      world.write(server.folder .. "/protocols", o.protocols)
    end
    if o.path then
      world.write(server.folder .. "/path", o.path)
    end
    -- Debian's own, which has the package
    world.serve(server, { "/usr/bin/python3", "-u", "spec/world/websocketd.py" }, o)
    server.raw_url = "http://127.0.0.1:" .. world.read(server.folder .. "/raw_port")
    return server
  end
end
