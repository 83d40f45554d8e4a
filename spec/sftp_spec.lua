local gate = require "runbook.core.gate"
local process = require "runbook.core.process"
local sftp = require "runbook.core.sftp"
local ssh = require "runbook.core.ssh"
local stream = require "runbook.core.stream"
local task = require "runbook.task"
local world = require "spec.world"

local function changing(fn)
  return function() gate.call("change", fn) end
end

local function read_all(s)
  local pieces = {}
  while true do
    local piece, message, code = s:read(1 << 20)
    if not piece then
      return table.concat(pieces), message, code
    end
    pieces[#pieces + 1] = piece
  end
end

local function random_bytes(count)
  local file <close> = assert(io.open("/dev/urandom", "rb"))
  return file:read(count)
end

describe("runbook.core.sftp", function()
  local server

  setup(function() server = world.sshd { name = "files" } end)
  teardown(function() server:close() end)

  local function session_to(m)
    return assert(ssh.connect {
      host = m.address, port = m.port, user = "root", identities = { world.key() }, pins = { server.fingerprint }, timeout = 30,
    })
  end

  -- How to get a client, where it sees this folder, and how much is worth moving.
  local ways = {
    ["over ssh"] = function()
      local s = session_to(server)
      return sftp.over(assert(s:subsystem "sftp")), function() s:close() end, "/tmp", server:path "/tmp", 5000000
    end,
    ["over ssh, one byte at a time"] = function()
      local relay = world.relay { to = server, one = true }
      local s = session_to(relay)
      return sftp.over(assert(s:subsystem "sftp")), function()
        s:close()
        relay:close()
      end, "/tmp", server:path "/tmp", 100000
    end,
    ["with a server of our own"] = function()
      local child = assert(process.open { argv = { "/usr/lib/openssh/sftp-server" }, duplex = true })
      local folder = world.folder "sftp"
      return sftp.over(child:stdin()), function() child:close() end, folder, folder, 20000000
    end,
  }

  for name, open in pairs(ways) do
    describe(name, function()
      local client, close, there, here, bulk

      setup(changing(function()
        client, close, there, here, bulk = open()
        there, here = there .. "/d", here .. "/d"
        assert(client:mkdir(there, 0x1ED))
      end))

      teardown(function()
        client:close()
        close()
        world.sh("rm -rf " .. here)
      end)

      it("puts files in place and reads them", changing(function()
        for _, length in ipairs { 0, 1, 32767, 32768, 32769, bulk } do
          local text = random_bytes(length)
          assert.is_true(client:write(there .. "/f", text))
          assert.is_true(world.read(here .. "/f") == text)
          local s <close> = client:read(there .. "/f")
          assert.is_true(read_all(s) == text)
          assert.equal(length, client:stat(there .. "/f").size)
        end
        assert.same({ "f" }, (function(list)
          local names = {}
          for i, entry in ipairs(list) do
            names[i] = entry.name
          end
          return names
        end)(client:list(there)))
      end))

      it("gives a file its mode, owner and times, and never shows it before", changing(function()
        assert.is_true(client:write(there .. "/m", "secret", { mode = 0x180, uid = 4001, gid = 4002, atime = 1e9 // 1 | 0, mtime = 1100000000 }))
        assert.equal("600 4001 4002 1100000000", world.sh("stat -c '%a %u %g %Y' " .. here .. "/m"))
        local a = client:stat(there .. "/m")
        assert.same({ type = "file", size = 6, mode = 0x180, uid = 4001, gid = 4002, atime = 1000000000, mtime = 1100000000 }, a)
        assert.is_true(client:setstat(there .. "/m", { mode = 0x1A4 }))
        assert.equal(0x1A4, client:stat(there .. "/m").mode)
      end))

      it("takes the content from a stream", changing(function()
        local text = random_bytes(bulk)
        assert.is_true(client:write(there .. "/source", text))
        local from <close> = client:read(there .. "/source")
        assert.is_true(client:write(there .. "/target", from))
        assert.is_true(world.read(here .. "/target") == text)
        local a, b = stream.pair()
        a:write "slow "
        local t = task.spawn(function() return client:write(there .. "/slow", b) end)
        task.sleep(0.02)
        a:write "but sure"
        a:close()
        assert.same({ true, true }, { task.join(t) })
        assert.equal("slow but sure", world.read(here .. "/slow"))
        b:close()
      end))

      it("leaves nothing when the content breaks off or nobody wants it any more", changing(function()
        assert.is_true(client:write(there .. "/kept", "old"))
        local a, b = stream.pair()
        a:write "half"
        local t = task.spawn(function() return client:write(there .. "/kept", b) end)
        task.sleep(0.05)
        b:close()
        assert.equal("ECLOSED", select(4, task.join(t)))
        local c, d = stream.pair()
        c:write "half"
        t = task.spawn(function() return client:write(there .. "/kept", d) end)
        task.sleep(0.05)
        t:cancel()
        task.join(t)
        t = task.spawn(function() return client:write(there .. "/kept", ("x"):rep(bulk)) end)
        task.sleep(0)
        t:cancel()
        task.join(t)
        collectgarbage()
        assert.equal("old", world.read(here .. "/kept"))
        world.wait_until("the staged files to go", function() return world.sh("ls " .. here .. " | grep -c rb~") == "0" end)
        a:close()
        c:close()
        d:close()
      end))

      it("knows directories, links and names", changing(function()
        assert.is_true(client:symlink(there .. "/link", "kept of\nold"))
        assert.equal("kept of\nold", client:readlink(there .. "/link"))
        assert.equal("link", client:lstat(there .. "/link").type)
        assert.is_true(client:mkdir(there .. "/sub"))
        assert.equal("directory", client:stat(there .. "/sub").type)
        assert.is_true(client:write(there .. "/sub/\255 odd\nname", "x"))
        assert.equal("\255 odd\nname", client:list(there .. "/sub")[1].name)
        assert.is_true(client:rename(there .. "/sub/\255 odd\nname", there .. "/sub/plain"))
        assert.is_true(client:write(there .. "/sub/other", "y"))
        assert.is_true(client:rename(there .. "/sub/other", there .. "/sub/plain")) -- over it
        assert.equal("y", world.read(here .. "/sub/plain"))
        assert.is_true(client:remove(there .. "/sub/plain"))
        assert.is_true(client:rmdir(there .. "/sub"))
        assert.equal(there, client:realpath(there .. "/../d/."))
      end))

      it("lists many", changing(function()
        world.must(("mkdir %s/many && cd %s/many && seq 1 %d | xargs touch"):format(here, here, bulk // 5000))
        assert.equal(bulk // 5000, #client:list(there .. "/many"))
      end))

      it("says what the server says", changing(function()
        local function failure(_, message, code)
          return code .. " " .. message
        end
        assert.equal("ENOENT " .. there .. "/no: No such file", failure(client:stat(there .. "/no")))
        assert.equal("ENOENT " .. there .. "/no: No such file", failure(client:list(there .. "/no")))
        assert.equal("ENOENT No such file", failure(client:read(there .. "/no"):read()))
        assert.equal("ENOENT " .. there .. "/no/f: No such file", failure(client:write(there .. "/no/f", "x")))
        assert.equal("EIO " .. there .. "/f: Failure", failure(client:mkdir(there .. "/f")))
        assert.equal("EIO " .. there .. ": Failure", failure(client:write(there, "x")))
        assert.equal("0", world.sh("ls " .. here .. "/.. | grep -c rb~"))
      end))

      it("does many things at once", changing(function()
        local tasks = {}
        for i = 1, 20 do
          tasks[i] = task.spawn(function()
            local path, text = there .. "/at-once-" .. i, ("%d "):format(i):rep(1000)
            assert(client:write(path, text))
            local s <close> = client:read(path)
            assert.equal(text, (read_all(s)))
            return client:stat(path).size
          end)
        end
        for i = 1, 20 do
          assert.same({ true, #("%d "):format(i) * 1000 }, { task.join(tasks[i]) })
        end
      end))

      it("may stop reading anywhere", changing(function()
        assert(client:write(there .. "/long", ("x"):rep(bulk)))
        for _, count in ipairs { 0, 1, 40000 } do
          local s <close> = client:read(there .. "/long")
          if count > 0 then
            s:read(count)
          end
        end
        assert.equal(bulk, client:stat(there .. "/long").size)
      end))
    end)
  end

  it("needs a permit", function()
    local client = gate.call("read", function() return sftp.over(assert(session_to(server):subsystem "sftp")) end)
    local calls = {
      list = 1, lstat = 1, stat = 1, readlink = 1, realpath = 1, read = 1, mkdir = 2, remove = 2, rmdir = 2,
      rename = { 2, "x" }, symlink = { 2, "x" }, write = { 2, "x" }, setstat = { 2, { mode = 1 } },
    }
    for name, what in pairs(calls) do
      local needed, argument = type(what) == "table" and what[1] or what, type(what) == "table" and what[2] or nil
      for i, class in ipairs { "none", "read" } do
        if i <= needed then
          local ok, e = pcall(gate.call, class, client[name], client, "/tmp/x", argument)
          assert.is_false(ok, name)
          assert.equal("ungated", e.code, name)
        end
      end
    end
    client:close()
  end)

  it("ends what is under way when it is closed or cut off", changing(function()
    local relay <close> = world.relay { to = server }
    local s <close> = session_to(relay)
    local client = assert(sftp.over(assert(s:subsystem "sftp")))
    local file = client:read "/dev/zero"
    file:read(1)
    local a, b = stream.pair()
    local tasks = {
      task.spawn(function() return client:write("/tmp/never", b) end),
      task.spawn(function()
        local _, message, code = read_all(file)
        return nil, message, code
      end),
    }
    task.sleep(0.1)
    relay:cut()
    for _, t in ipairs(tasks) do
      assert.equal("ELOST", select(4, task.join(t)))
    end
    assert.equal("ELOST", select(3, client:stat "/"))
    file:close()
    client:close()
    client:close()
    assert.has_error(function() client:stat "/" end, "calling 'stat' on bad self (client is closed)")
    a:close()
    b:close()

    local again <close> = session_to(server)
    client = assert(sftp.over(assert(again:subsystem "sftp")))
    local t = task.spawn(function() return client:list "/usr/bin" end)
    task.sleep(0)
    client:close()
    assert.equal("ECLOSED", select(4, task.join(t)))
  end))

  it("is not fooled by what is no sftp server", changing(function()
    for _, text in ipairs {
      "Welcome to nfs-old!\n", "", "\0\0\0\5\2\0\0\0\4", "\255\255\255\255", "\0\0\0\0", "\0\0\0\5\7\0\0\0\3", "\0\0\0\6\2\0\0\0\3\1\0\0\0\1\1",
    } do
      local a, b = stream.pair()
      a:write(text)
      a:half_close()
      local client, message, code = sftp.over(b)
      if client then -- a greeting with rubbish behind it
        assert.is_nil((client:stat "/"))
        client:close()
      else
        assert.is_truthy(({ EPROTO = true, ELOST = true })[code], message)
      end
      a:close()
    end
  end))
end)
