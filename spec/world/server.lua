--- What servers of this world that are Python programs have in common: a folder of their own, in which they write the port they
--- found, and what they were asked.

return function(world)
  ---@class world.Server
  ---@field folder string
  ---@field address string
  ---@field port integer
  ---@field url string  without a slash at its end
  ---@field ca string?  the certificate to trust

  --- A class of them.
  ---@return table
  function world.server_class()
    local Server = {}
    Server.__index = Server

    --- What it was asked, a line each, in order.
    ---@return string[]
    function Server:requests()
      local list = {}
      for line in (world.read(self.folder .. "/requests") or ""):gmatch "[^\n]+" do
        list[#list + 1] = line
      end
      return list
    end

    ---@async
    function Server:close()
      self.leash:stop()
    end

    Server.__close = Server.close
    return Server
  end

  --- Its folder, before it is started.
  function world.server(class, name)
    return setmetatable({ folder = world.folder(name), address = "127.0.0.1" }, class)
  end

  --- Start it: a program that is given the folder, the certificate to show and that of those whose clients it takes.
  ---@async
  ---@param argv string[]
  ---@param o { tls?: "good"|"expired"|"wrong_name"|"self_signed", client_certificate?: boolean }
  function world.serve(server, argv, o)
    argv = table.move(argv, 1, #argv, 1, {})
    argv[#argv + 1] = server.folder
    if o.tls then
      server.ca = world.certificate "ca" .. ".pem"
      argv[#argv + 1] = world.certificate(o.tls)
      argv[#argv + 1] = o.client_certificate and server.ca or nil
    end
    server.leash = world.start(argv, { log = server.folder .. "/log" })
    server.port = world.wait_until("the port of " .. server.folder, function()
      assert(server.leash:alive(), world.read(server.folder .. "/log"))
      return tonumber(world.read(server.folder .. "/port") or "")
    end)
    server.url = ("%s://%s:%d"):format(o.tls and "https" or "http", server.address, server.port)
  end
end
