-- The reader of known_hosts files, judged by ssh-keygen -F: which lines are about a server is its business, what follows
-- from them stands here.

local core = require "runbook.core.ssh"
local gate = require "runbook.core.gate"
local world = require "spec.world"

describe("known_hosts", function()
  local server, folder, file, others

  setup(function()
    server = world.sshd { name = "known", host_keys = { "ed25519" } }
    folder = world.folder "known_hosts"
    file = folder .. "/file"
    others = {}
    for _, kind in ipairs { "ed25519", "ecdsa", "rsa" } do
      others[#others + 1] = world.read(world.key(kind) .. ".pub"):match "^%S+ %S+"
    end
  end)

  teardown(function() server:close() end)

  local function verdict(o)
    local s, message, code, details = gate.call("read", core.connect, {
      host = o.host or server.address, port = server.port, alias = o.alias, user = "nobody-there", known_hosts = o.files or { file },
      order = { "agent" }, timeout = 10,
    })
    assert.is_nil(s)
    -- getting as far as being refused entry means that the key was good
    return code == "EAUTH" and "MATCH" or code:match "^EHOSTKEY_(.+)$" or message, details
  end

  -- Lines of the file that ssh-keygen takes to be about this name: { marker =, key =, line = }
  local function oracle(name)
    local found = {}
    for line in (world.sh(("ssh-keygen -F %s -f %s"):format(world.quote(name), file)) .. "\n"):gmatch "(.-)\n" do
      local marker, key = line:match "^(@%S+)%s+%S+%s+(%S+%s+%S+)"
      if not marker then
        key = line:match "^[^#%s]%S*%s+(%S+%s+%S+)"
      end
      if key then
        found[#found + 1] = { marker = marker, key = key }
      end
    end
    return found
  end

  local function expected(name, bare)
    local ours, result = server.host_keys[1], "UNKNOWN"
    local rank = { UNKNOWN = 0, CA = 1, CHANGED = 2, MATCH = 3, REVOKED = 4 }
    local function say(word)
      result = rank[word] > rank[result] and word or result
    end
    for _, exact in ipairs { true, false } do
      for _, entry in ipairs(exact and oracle(name) or bare and oracle(bare) or {}) do
        if entry.marker == "@revoked" then
          say(entry.key == ours and "REVOKED" or "UNKNOWN")
        elseif entry.marker == "@cert-authority" then
          say(exact and "CA" or "UNKNOWN")
        elseif entry.key == ours then
          say "MATCH"
        elseif exact then
          say "CHANGED"
        end
      end
    end
    return result
  end

  it("are read as ssh-keygen reads them", function()
    math.randomseed(20)
    local function one_of(list)
      return list[math.random(#list)]
    end
    local port_name = ("[%s]:%d"):format(server.address, server.port)
    local patterns = {
      port_name, server.address, "*", "[127.*]:*", "[127.0.0.?]:" .. server.port, "127.*", "!" .. port_name, "![127.*]:*", "!10.*",
      "[127.*", "?" .. port_name:sub(2), "nfs.example.org", "*.EXAMPLE.org", "nfs-??.example.org", "NFS-01.example.org", "!*.example.org",
      "", "**", "nfs*", "[" .. server.address .. "]:22", ("x"):rep(600),
    }
    local function hosts()
      local list = {}
      for i = 1, math.random(3) do
        list[i] = one_of(patterns)
      end
      return table.concat(list, ",")
    end
    local keys = { server.host_keys[1], server.host_keys[1], others[1], others[2], others[3] }
    local seen = {}
    for round = 1, 80 do
      local lines = {}
      for i = 1, math.random(0, 4) do
        lines[i] = one_of { "", "", "", "@revoked ", "@cert-authority " } .. hosts() .. one_of { " ", "\t", "  " } .. one_of(keys)
          .. one_of { "", " comment", " a b c" }
      end
      world.write(file, table.concat(lines, "\n") .. one_of { "", "\n" })
      if round % 3 == 0 then
        world.sh(("ssh-keygen -q -H -f %s 2>/dev/null; rm -f %s.old"):format(file, file))
      end
      local name, bare, alias = port_name, server.address, nil
      if round % 2 == 0 then
        alias = one_of { "nfs.example.org", "nfs-01.example.org", "Nfs-02.Example.org", "plain" }
        name, bare = alias, nil
      end
      local want = expected(name, bare)
      assert.equal(want, (verdict { alias = alias }), ("%s in:\n%s"):format(name, world.read(file)))
      seen[want] = true
    end
    assert.same({ UNKNOWN = true, CA = true, CHANGED = true, MATCH = true, REVOKED = true }, seen)
  end)

  it("may hold anything else", function()
    local good = ("[%s]:%d %s\n"):format(server.address, server.port, server.host_keys[1])
    for _, text in ipairs {
      "", "\n\n\n", "# only a comment\n", "host\n", "host ssh-rsa\n", "@revoked\n", "@unknown * ssh-rsa AAAA\n", "|1|\n",
      "|1|x ssh-rsa AAAA\n", "|1||| ssh-rsa AAAA\n", "* ssh-rsa not-base64!\n", "* 2048 35 1234567890\n", ("y"):rep(100000) .. "\n",
      "\0\1\2\255\n", "*,*,*,* x y\n",
      ("*,"):rep(20000) .. "a ssh-rsa AAAA\n", ("*a"):rep(2000) .. " ssh-rsa AAAA\n",
    } do
      world.write(file, text)
      assert.is_truthy(({ UNKNOWN = true, CHANGED = true })[verdict {}], text)
      world.write(file, text .. good)
      assert.equal("MATCH", (verdict {}), text)
      world.write(file, ((text .. good):gsub("\n", "\r\n")))
      assert.equal("MATCH", (verdict {}), text)
    end
  end)

  it("are several, and all count", function()
    local good = ("[%s]:%d %s\n"):format(server.address, server.port, server.host_keys[1])
    local second = folder .. "/second"
    world.write(file, "")
    world.write(second, good)
    assert.equal("MATCH", (verdict { files = { folder .. "/missing", file, second } }))
    world.write(file, "@revoked * " .. server.host_keys[1] .. "\n")
    local word, details = verdict { files = { second, file } }
    assert.equal("REVOKED", word)
    assert.equal(file .. ":1", details.known_at)
  end)
end)
