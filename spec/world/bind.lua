--- A name system of its own, of BIND: a root that delegates, a primary that takes signed updates, a secondary, a resolver.
--- Each has an address; all listen on one port, where named also looks for the others.

local BOOT = [[
include "%s/key.conf";
options {
  port %d; directory "%s"; pid-file none; session-keyfile "%s/session.key"; managed-keys-directory "%s";
  listen-on { %s; }; listen-on-v6 { none; }; query-source address %s; transfer-source %s; notify-source %s;
  recursion %s; allow-query { any; }; dnssec-validation no; empty-zones-enable no; minimal-responses no;
  allow-transfer { %s }; max-cache-ttl 3600; %s
};
controls { inet %s port %d allow { any; } keys { "rbkey"; }; };
]]

local ROOT_ZONE = [[
$TTL 300
@ IN SOA a.root. root.root. ( 1 3600 600 86400 60 )
@ IN NS a.root.
a.root. IN A %s
]]

local HUBS_ZONE = [[
$TTL 300
@ IN SOA ns1.hubs.test. root.hubs.test. ( 1 3600 600 86400 60 )
@ IN NS ns1.hubs.test.
%s
ns1 IN A %s
%s
@ IN MX 10 mail
mail IN A 192.0.2.9
temple 1799 IN A 203.0.113.10
* 300 IN CNAME old-lb.clouds.test.
_dmarc IN TXT "v=DMARC1; p=none"
]]

return function(world)
  ---@class world.Bind
  ---@field port integer
  ---@field root string       an address; it also serves test., clouds.test. and lame.test.
  ---@field primary string    of hubs.test.
  ---@field secondary string
  ---@field resolver string
  ---@field key string        the secret, in base64
  ---@field key_file string   as tsig-keygen writes it
  local Bind = {}
  Bind.__index = Bind

  local function boot(self, name, address, o)
    local folder = world.folder("named-" .. name)
    local dir = self.folder
    world.write(folder .. "/named.conf", BOOT:format(dir, self.port, folder, folder, folder, address, address, address, address,
      o.recursion and "yes" or "no", o.transfer or "none;", o.more or "", address, self.control) .. o.zones)
    for file, text in pairs(o.files or {}) do
      world.write(folder .. "/" .. file, text)
    end
    local argv = { "/usr/sbin/named", "-c", folder .. "/named.conf", "-n", "1", "-g" }
    if o.ahead then -- not for the leash: it may have sanitizers, which want to come first
      argv = table.move(argv, 1, #argv, 4, { "env", "RUNBOOK_LATE=" .. o.ahead, ("LD_PRELOAD=%s/world/late.so"):format(world.build) })
    end
    local leash = world.start(argv, { log = folder .. "/log" })
    self.servers[name] = { leash = leash, folder = folder, address = address }
  end

  --- What dig says of a name at a server, without what surrounds it.
  function Bind:dig(server, name, type, more)
    return (world.sh(("dig +noall +answer +time=2 +tries=2 -p %d @%s %s %s %s"):format(self.port, server, name, type or "A",
      more or "+norecurse")))
  end

  --- The data of a name at a server, a line each.
  function Bind:data(server, name, type)
    return (world.sh(("dig +short +time=2 +tries=2 +norecurse -p %d @%s %s %s"):format(self.port, server, name, type or "A")))
  end

  --- The zone as it is, sorted, without its SOA.
  function Bind:zone()
    return world.must(("dig +noall +answer +onesoa -p %d -k %s @%s hubs.test AXFR | grep -vw SOA | tr -s '\\t ' ' ' | sort")
      :format(self.port, self.key_file, self.primary))
  end

  --- The primary gets another secret for the key: what `key_file` says from now on.
  function Bind:change_key()
    local old = self.folder .. "/key.before"
    world.must(("cp -p %s %s && tsig-keygen rbkey > %s"):format(self.key_file, old, self.key_file))
    self.key = world.read(self.key_file):match 'secret "([^"]+)"'
    world.must(("rndc -s %s -p %d -k %s reconfig"):format(self.primary, self.control, old))
  end

  --- Somebody else changes the zone, by nsupdate.
  function Bind:edit(lines)
    local file = world.folder "edit" .. "/lines"
    world.write(file, ("server %s %d\nzone hubs.test\n%s\nsend\n"):format(self.primary, self.port, lines))
    world.must(("nsupdate -k %s %s"):format(self.key_file, file))
  end

  --- The secondary of a world made with `lags` looks what is new.
  function Bind:catch_up()
    world.must(("rndc -s %s -p %d -k %s refresh hubs.test"):format(self.secondary, self.control, self.key_file))
  end

  --- The resolver forgets what it heard.
  function Bind:forget()
    world.must(("rndc -s %s -p %d -k %s flush"):format(self.resolver, self.control, self.key_file))
  end

  --- Something that stands before a server and spoils what passes (nameproxy.py says how); it listens on the same port.
  ---@async
  ---@return { address: string, mode: fun(self, how: string), seen: (fun(self): string), close: fun(self) }
  function Bind:proxy(server)
    local folder, address = world.folder "nameproxy", world.address()
    local proxy = { address = address }
    function proxy:mode(how) -- luacheck: no self
      world.write(folder .. "/mode.new", how)
      assert(os.rename(folder .. "/mode.new", folder .. "/mode"))
    end
    function proxy:seen() -- luacheck: no self
      local letters = world.read(folder .. "/seen") or ""
      os.remove(folder .. "/seen")
      return letters
    end
    function proxy:close()
      self.leash:stop()
    end
    proxy:mode "pass"
    proxy.leash = world.start({ "python3", "-u", "spec/world/nameproxy.py", folder, address, server, tostring(self.port) },
      { log = folder .. "/log" })
    world.wait_until("a proxy", function()
      assert(proxy.leash:alive(), world.read(folder .. "/log"))
      return world.read(folder .. "/ready")
    end, 60)
    return setmetatable(proxy, { __close = proxy.close })
  end

  --- A server falls silent.
  ---@async
  function Bind:stop(name)
    self.servers[name].leash:stop()
  end

  ---@async
  function Bind:close()
    for _, server in pairs(self.servers) do
      server.leash:stop()
    end
    self.addresses:stop()
  end

  Bind.__close = Bind.close

  local function must_serve(self, name, question)
    local server = self.servers[name]
    world.wait_until("named " .. name, function()
      assert(server.leash:alive(), world.read(server.folder .. "/log"))
      return self:data(server.address, question, "SOA") ~= "" and not self:data(server.address, question, "SOA"):find ";;"
    end, 60)
  end

  local function start_root(self, o)
    local lame = o.lame and ("hubs NS ns3.hubs\nns3.hubs A %s\n"):format(self.root) or ""
    boot(self, "root", self.root, {
      zones = 'zone "." { type primary; file "root.db"; };\nzone "test" { type primary; file "test.db"; };\n'
        .. 'zone "clouds.test" { type primary; file "clouds.db"; };\n',
      files = {
        ["root.db"] = ROOT_ZONE:format(self.root) .. "test. IN NS a.root.\n",
        ["test.db"] = ROOT_ZONE:format(self.root):gsub("a%.root%. IN A[^\n]*\n", "") .. ([[
hubs NS ns1.hubs
hubs NS ns2.hubs
ns1.hubs A %s
ns2.hubs A %s
clouds NS a.root.
%s]]):format(self.primary, self.secondary, lame),
        ["clouds.db"] = ROOT_ZONE:format(self.root):gsub("a%.root%. IN A[^\n]*\n", "") ..
          "old-lb A 203.0.113.10\nnew-lb A 198.51.100.7\n",
      },
    })
  end

  local function start_hubs(self, o)
    local lame = o.lame and ("@ IN NS ns3\nns3 IN A %s\n"):format(self.root) or ""
    local notify = o.lags and "notify no;" or ("notify explicit; notify-delay 0; also-notify { %s port %d; };"):format(self.secondary, self.port)
    boot(self, "primary", self.primary, {
      ahead = o.ahead,
      transfer = 'key "rbkey"; ' .. (o.transfer ~= false and self.secondary .. "; " or ""),
      zones = ('key "other" { algorithm hmac-sha512; secret "%s"; };\n'):format(self.other_key) ..
        ('zone "hubs.test" { type primary; file "hubs.db"; %s %s update-policy { grant rbkey zonesub ANY; grant other name ' ..
        'nothing.hubs.test A; }; };\n'):format(notify, o.signed and "dnssec-policy default; inline-signing yes;" or ""),
      files = { ["hubs.db"] = HUBS_ZONE:format("@ IN NS ns2\nns2 IN A " .. self.secondary, self.primary, lame .. (o.records or "")) },
    })
  end

  local function start_secondary(self)
    boot(self, "secondary", self.secondary, {
      zones = ('zone "hubs.test" { type secondary; primaries { %s port %d; }; file "hubs.db"; };\n')
        :format(self.primary, self.port),
    })
  end

  local function start_resolver(self)
    boot(self, "resolver", self.resolver, {
      recursion = true, zones = 'zone "." { type hint; file "hints.db"; };\n',
      files = { ["hints.db"] = (". 3600 NS a.root.\na.root. 3600 A %s\n"):format(self.root) },
    })
  end

  -- named listens on what it finds at an interface, not on all of 127/8.
  local function take_addresses(self)
    local give, take = {}, {}
    for i, name in ipairs { "root", "primary", "secondary", "resolver" } do
      self[name] = world.address()
      give[i] = ("ip address add %s/32 dev lo"):format(self[name])
      take[i] = ("ip address del %s/32 dev lo"):format(self[name])
    end
    self.addresses = world.start({}, { at_end = table.concat(take, "; ") })
    world.must(table.concat(give, " && "))
  end

  --- A root with test. below it, and hubs.test. on a primary and a secondary.
  ---@async
  ---@param o { lags?: boolean, lame?: boolean, signed?: boolean, records?: string, ahead?: integer, algorithm?: string }?
  --- lags: nobody tells the secondary of changes; lame: a third server is named that does not serve the zone; records: more of
  --- them; ahead: seconds of the primary's clock
  ---@return world.Bind
  function world.bind(o)
    o = o or {}
    local self = setmetatable({ servers = {}, folder = world.folder "bind" }, Bind)
    take_addresses(self)
    local ports = require "spec.support.ports"
    self.port, self.control = ports.free(), ports.free()
    self.key_file = self.folder .. "/key.conf"
    world.must(("tsig-keygen -a %s rbkey > %s"):format(o.algorithm or "hmac-sha256", self.key_file))
    self.key = world.read(self.key_file):match 'secret "([^"]+)"'
    self.other_key = world.must "tsig-keygen -a hmac-sha512 other":match 'secret "([^"]+)"'
    start_root(self, o)
    start_resolver(self)
    start_hubs(self, o)
    must_serve(self, "root", "test")
    must_serve(self, "primary", "hubs.test")
    start_secondary(self) -- one that finds nobody would try again much later
    must_serve(self, "secondary", "hubs.test")
    return self
  end
end
