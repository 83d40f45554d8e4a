--- Keys and certificates of the suite: each is made once, when first asked for.

return function(world)
  local folder
  local made = {}

  local function once(name, line)
    folder = folder or world.folder "keys"
    local path = folder .. "/" .. name
    if not made[name] then
      world.must(line:gsub("%%", path))
      made[name] = true
    end
    return path
  end

  local kinds = {
    ed25519 = "ssh-keygen -q -t ed25519 -N '' -C ed25519 -f %",
    rsa = "ssh-keygen -q -t rsa -b 3072 -N '' -C rsa -f %",
    ecdsa = "ssh-keygen -q -t ecdsa -b 256 -N '' -C ecdsa -f %",
    rsa_pem = "ssh-keygen -q -t rsa -b 3072 -m PEM -N '' -C rsa_pem -f %",
    locked = "ssh-keygen -q -t ed25519 -N 'open sesame' -C locked -f %", -- its passphrase is "open sesame"
    stranger = "ssh-keygen -q -t ed25519 -N '' -C stranger -f %", -- no server lets it in
    ca = "ssh-keygen -q -t ed25519 -N '' -C ca -f %",
  }

  --- The path of a private ssh key; the public one is beside it.
  ---@param kind string?  "ed25519" (default), "rsa", "ecdsa", "rsa_pem", "locked", "stranger", "ca", "cert": signed by the ca
  ---@return string
  function world.key(kind)
    kind = kind or "ed25519"
    if kind == "cert" then
      local ca = world.key "ca"
      return once("cert", ("ssh-keygen -q -t ed25519 -N '' -C cert -f %% && ssh-keygen -q -s %s -I spec"):format(ca)
        .. " -n root,rb-sudo,rb-plain %.pub")
    end
    return once("id_" .. kind, assert(kinds[kind], "no such kind of key"))
  end

  local certificate = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout %.key -out %.pem -subj "
  local leaf = "openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout %%.key -out %%.csr -subj /CN=%s && "
    .. "printf 'subjectAltName=%s\n' > %%.ext && "
    .. "openssl x509 -req -in %%.csr -CA %s.pem -CAkey %s.key -CAcreateserial -out %%.pem -extfile %%.ext %s"

  --- The path of a certificate without its ending: .pem and .key.
  ---@param kind "ca"|"good"|"expired"|"wrong_name"|"self_signed"|"client"
  ---@return string
  function world.certificate(kind)
    if kind == "ca" then
      return once("tls_ca", certificate .. "'/CN=ca of the specs' -days 2")
    elseif kind == "self_signed" then
      return once("tls_self", certificate .. "/CN=self -days 2 -addext subjectAltName=IP:127.0.0.1,DNS:localhost")
    end
    local ca = world.certificate "ca"
    local names = ({
      good = "IP:127.0.0.1,DNS:localhost",
      expired = "IP:127.0.0.1,DNS:localhost",
      wrong_name = "DNS:elsewhere.example",
      client = "DNS:client.example",
    })[kind]
    assert(names, "no such kind of certificate")
    return once("tls_" .. kind, leaf:format(kind, names, ca, ca, kind == "expired" and "-days -1" or "-days 2"))
  end
end
