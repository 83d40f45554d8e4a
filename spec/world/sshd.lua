--- Machines with an ssh server. Each has its own root, home, srv, tmp, users, processes, host name, boot id
--- and host keys (machine.sh); what it shares with this one is the programs and the loopback network.

return function(world)
  local quote, must = world.quote, world.must

  ---@class world.Machine
  ---@field name string
  ---@field address string
  ---@field port integer
  ---@field user_sudo string  may sudo without a password
  ---@field user_plain string  may not
  ---@field password string  of both users; root has none
  ---@field key string  a private key every user's authorized_keys holds
  ---@field fingerprint string  "SHA256:…" of the first host key
  ---@field host_keys string[]  public keys, as in known_hosts
  local Machine = {}
  Machine.__index = Machine

  local machines = {}
  local users = { ["rb-sudo"] = 4001, ["rb-plain"] = 4002 }
  local password = "open sesame"
  local folders = "root home/rb-sudo home/rb-plain srv tmp var/tmp opt mnt"

  local function write_accounts(etc, name)
    local passwd, shadow, group = world.read "/etc/passwd", world.read "/etc/shadow", world.read "/etc/group"
    local hash = must("openssl passwd -6 " .. quote(password))
    for user, uid in pairs(users) do
      passwd = passwd .. ("%s:x:%d:%d::/home/%s:/bin/bash\n"):format(user, uid, uid, user)
      shadow = shadow .. ("%s:%s:19000:0:99999:7:::\n"):format(user, hash)
      group = group .. ("%s:x:%d:\n"):format(user, uid)
    end
    world.write(etc .. "/passwd", passwd)
    world.write(etc .. "/shadow", shadow)
    world.write(etc .. "/group", group)
    world.write(etc .. "/hostname", name .. "\n")
    world.write(etc .. "/hosts", "127.0.0.1 localhost " .. name .. "\n")
    world.write(etc .. "/sudoers.d/world", "rb-sudo ALL=(ALL:ALL) NOPASSWD: ALL\n")
    must(("chmod 440 %s/sudoers.d/world && chmod 640 %s/shadow && chgrp shadow %s/shadow"):format(etc, etc, etc))
  end

  local function write_homes(disk, authorized)
    local keys = {}
    for _, kind in ipairs(authorized) do
      keys[#keys + 1] = world.read(world.key(kind) .. ".pub")
    end
    for home, uid in pairs { root = 0, ["home/rb-sudo"] = 4001, ["home/rb-plain"] = 4002 } do
      local ssh = ("%s/%s/.ssh"):format(disk, home)
      must(("mkdir -m 700 %s"):format(ssh))
      world.write(ssh .. "/authorized_keys", table.concat(keys))
      must(("chmod 600 %s/authorized_keys && chown -R %d:%d %s/%s && chmod 700 %s/%s"):format(
        ssh, uid, uid, disk, home, disk, home))
    end
  end

  -- A PATH of nothing but these, for machines that lack things.
  local function write_programs(etc, programs)
    must(("mkdir -p %s/bin"):format(etc))
    for _, program in ipairs(programs) do
      must(("ln -s \"$(command -v %s)\" %s/bin/"):format(quote(program), etc))
    end
    return "/run/world/bin"
  end

  local function write_config(m, o)
    local lines = {
      "Port " .. m.port,
      "TrustedUserCAKeys /run/world/ca.pub",
      "AuthorizedKeysFile .ssh/authorized_keys",
      "StrictModes no",
      "UsePAM " .. (o.pam and "yes" or "no"),
      "UseDNS no",
      "PrintMotd no",
      "PermitRootLogin yes",
      "MaxStartups " .. (o.max_startups or 300),
      "MaxSessions " .. (o.max_sessions or 10),
      "LogLevel VERBOSE",
      "AcceptEnv LANG LC_* RB_*",
      -- root's own .bashrc is not read, and its 140 ms not spent, by a shell that thinks it is nested
      "SetEnv SHLVL=5" .. (o.programs and " PATH=" .. write_programs(m.etc, o.programs) or ""),
      "Subsystem sftp internal-sftp",
    }
    for _, kind in ipairs(m.host_key_kinds) do
      lines[#lines + 1] = ("HostKey /run/world/ssh_host_%s_key"):format(kind)
    end
    table.move(o.config or {}, 1, #(o.config or {}), #lines + 1, lines)
    world.write(m.etc .. "/sshd_config", table.concat(lines, "\n") .. "\n")
  end

  local function make_host_keys(m)
    m.host_keys = {}
    for i, kind in ipairs(m.host_key_kinds) do
      local file = ("%s/ssh_host_%s_key"):format(m.etc, kind)
      must(("ssh-keygen -q -t %s -N '' -C '' -f %s"):format(kind, file))
      m.host_keys[i] = world.read(file .. ".pub"):match "^%S+ %S+"
    end
    m.fingerprint = must(("ssh-keygen -lf %s/ssh_host_%s_key.pub"):format(m.etc, m.host_key_kinds[1])):match "SHA256:%S+"
  end

  -- How sshd asks, in place of this machine's own /etc/pam.d/sshd.
  local function write_pam(m)
    must(("cp %s/world/pam_ask.so %s/"):format(world.build, m.etc))
    local lines = {}
    for i, line in ipairs(m.options.pam) do
      lines[i] = "auth requisite " .. line:gsub("MODULE", "/run/world/pam_ask.so")
    end
    lines[#lines + 1] = "account required pam_permit.so\nsession required pam_permit.so\n"
    world.write(m.etc .. "/pam_sshd", table.concat(lines, "\n"))
    m:must "mount --bind /run/world/pam_sshd /etc/pam.d/sshd"
  end

  --- A machine with an ssh server.
  ---@async
  ---@param o { name?: string, max_sessions?: integer, address?: string, addresses?: string[], host_keys?: string[],
  ---           authorized?: string[], config?: string[], disks?: table<string, string>, programs?: string[],
  ---           pam?: boolean|string[] }?
  --- `addresses` more than one: the same server on all of them, one port. `authorized`: kinds of world.key (all but the
  --- stranger's). `pam`: lines for its auth stack, instead of this machine's; MODULE stands for pam_ask.c.
  --- `disks`: mount point below /srv, /opt or /mnt to "SIZE" or "SIZE:tmpfs". `programs`: all that is on PATH.
  ---@return world.Machine
  function world.sshd(o)
    o = o or {}
    local name = o.name or ("machine%d"):format(#machines + 1)
    local folder = world.folder(name)
    local addresses = o.addresses or { o.address or world.address() }
    local m = setmetatable({
      name = name, folder = folder, etc = folder .. "/etc", options = o,
      address = addresses[1], addresses = addresses,
      host_key_kinds = o.host_keys or { "ed25519", "ecdsa" },
      user_sudo = "rb-sudo", user_plain = "rb-plain", password = password, key = world.key(),
    }, Machine)
    must(("cd %s && mkdir -p etc/sudoers.d disks log && mkdir disk && cd disk && mkdir -p %s && chmod 1777 tmp var/tmp"):format(
      folder, folders))
    for mountpoint in pairs(o.disks or {}) do
      must(("mkdir -p %s/disk%s"):format(folder, quote(mountpoint)))
    end
    write_accounts(m.etc, name)
    write_homes(folder .. "/disk", o.authorized or { "ed25519", "rsa", "ecdsa", "rsa_pem", "locked" })
    must(("cp %s.pub %s/ca.pub"):format(world.key "ca", m.etc))
    make_host_keys(m)
    machines[#machines + 1] = m
    m:boot()
    return m
  end

  --- Switch it on. Disks are as they were; processes are gone and the boot id is another.
  ---@async
  function Machine:boot()
    local argv = { "unshare", "--mount", "--propagation", "unchanged", "--uts", "--pid", "--fork", "--kill-child",
      "spec/world/machine.sh", self.folder, self.name }
    for mountpoint, size in pairs(self.options.disks or {}) do
      argv[#argv + 1] = mountpoint .. "=" .. size
    end
    os.remove(self.etc .. "/up")
    self.leash = world.start(argv, { log = self.folder .. "/log/machine" })
    world.wait_until(self.name .. " to boot", function()
      if not self.leash:alive() then
        error("cannot make a machine (this needs root): " .. world.read(self.folder .. "/log/machine"))
      end
      return world.read(self.etc .. "/up")
    end)
    self.pid = world.children(world.children(self.leash.pid)[1])[1]
    if type(self.options.pam) == "table" then
      write_pam(self)
    end
    self:start_sshd()
  end

  --- Run a shell line on the machine, not through ssh.
  ---@param line string
  ---@param user string?  default root
  ---@return string output, integer code
  function Machine:sh(line, user)
    local login = user and ("setpriv --reuid %d --regid %d --clear-groups "):format(users[user], users[user]) or ""
    local home = user and "/home/" .. user or "/root"
    return world.sh(("nsenter -t %d -m -u -p -r --wd=/proc/%d/root%s env -i HOME=%s PATH=/usr/sbin:/usr/bin:/sbin:/bin %ssh -c %s"):format(
      self.pid, self.pid, home, home, login, quote(line)))
  end

  --- The same, but it has to succeed.
  function Machine:must(line, user)
    local output, code = self:sh(line, user)
    if code ~= 0 then
      error(("%s: %s\nexit code %d: %s"):format(self.name, line, code, output), 2)
    end
    return output
  end

  -- sshd listens on 16 addresses at most; for more there are several, with one configuration.
  local function listener_lines(m)
    local lines = {}
    for first = 1, #m.addresses, 16 do
      local words = {}
      for i = first, math.min(first + 15, #m.addresses) do
        words[#words + 1] = "-o ListenAddress=" .. m.addresses[i]
      end
      lines[#lines + 1] = ("/usr/sbin/sshd -f /run/world/sshd_config -E /run/world/sshd.log -o PidFile=/run/world/sshd.pid.%d %s"):format(
        #lines + 1, table.concat(words, " "))
    end
    return lines
  end

  local function master_pids(m)
    local pids = {}
    for i = 1, (#m.addresses + 15) // 16 do
      pids[i] = (world.read(("%s/sshd.pid.%d"):format(m.etc, i)) or ""):match "(%d+)\n"
    end
    return pids
  end

  -- sshd leaves its terminal before it listens, so its log has to be asked. true, or what is wrong.
  local function try_sshd(m)
    write_config(m, m.options)
    m:must "rm -f /run/world/sshd.pid.*; : > /run/world/sshd.log"
    local lines = listener_lines(m)
    m:must(table.concat(lines, " && "))
    return world.wait_until("sshd to listen", function()
      local log = m:log()
      return log:match "[^\n]*Bind to port[^\n]*failed[^\n]*" or log:match "[^\n]*fatal:[^\n]*" or #master_pids(m) == #lines
    end)
  end

  ---@async
  function Machine:start_sshd()
    local known, result = self.port ~= nil, nil
    for _ = 1, 20 do
      self.port = self.port or math.random(20000, 32000)
      result = try_sshd(self)
      if result == true then
        return
      end
      self:stop_sshd()
      self.port = known and self.port or nil
    end
    error(("%s: sshd does not start: %s"):format(self.name, result))
  end

  --- No new connections; those there are stay.
  function Machine:stop_sshd()
    self:sh "cat /run/world/sshd.pid.* 2>/dev/null | xargs -r kill; rm -f /run/world/sshd.pid.*"
  end

  --- What runs there, without the machine's first process and its ssh server.
  ---@return { pid: integer, command: string }[]  pids as the machine numbers them
  function Machine:processes()
    local list, masters = {}, {}
    for _, pid in ipairs(master_pids(self)) do
      masters[pid] = true
    end
    local inside = world.read(("/proc/%d/stat"):format(self.pid)) and self:must "ps -ww -eo pid=,args=" or ""
    for pid, command in inside:gmatch "(%d+) ([^\n]+)" do
      if pid ~= "1" and not masters[pid] and not command:find("ps -ww -eo", 1, true) then
        list[#list + 1] = { pid = tonumber(pid), command = command }
      end
    end
    return list
  end

  --- Signal every process whose command line contains `text`.
  ---@param text string  plain, no pattern
  ---@param signal string?  default "KILL"
  ---@return integer count
  function Machine:kill(text, signal)
    local count = 0
    for _, process in ipairs(self:processes()) do
      if process.command:find(text, 1, true) then
        self:sh(("kill -%s %d"):format(signal or "KILL", process.pid))
        count = count + 1
      end
    end
    return count
  end

  --- End every ssh connection from the server's side; what they started may live on.
  function Machine:drop_connections()
    return self:kill "sshd: "
  end

  --- Pull the plug: every process is gone at once. `boot` brings it back.
  ---@async
  function Machine:crash()
    self.leash:stop()
  end

  --- Where this machine sees a path of that one.
  ---@param path string  absolute
  function Machine:path(path)
    return ("/proc/%d/root%s"):format(self.pid, path)
  end

  function Machine:read(path)
    return world.read(self:path(path))
  end

  function Machine:write(path, text)
    world.write(self:path(path), text)
  end

  --- What sshd wrote to its log.
  function Machine:log()
    return world.read(self.etc .. "/sshd.log") or ""
  end

  --- Lines for a known_hosts file.
  function Machine:known_hosts()
    local lines = {}
    for _, address in ipairs(self.addresses) do
      for _, key in ipairs(self.host_keys) do
        lines[#lines + 1] = ("[%s]:%d %s\n"):format(address, self.port, key)
      end
    end
    return table.concat(lines)
  end

  ---@async
  function Machine:close()
    if self.leash:alive() then
      self:crash()
      must("rm -rf --one-file-system " .. self.folder)
    end
  end

  Machine.__close = Machine.close

  --- A file for `ssh -F` in which the machines are known by their names, with keys and host keys.
  ---@param list world.Machine[]
  ---@param o { user?: string, key?: string }?  default root, and the key everybody has
  ---@return string path
  function world.ssh_config(list, o)
    o = o or {}
    local folder = world.folder "ssh"
    local known, lines = {}, {}
    for _, m in ipairs(list) do
      known[#known + 1] = m:known_hosts()
      lines[#lines + 1] = ("Host %s\n  HostName %s\n  Port %d\n"):format(m.name, m.address, m.port)
    end
    lines[#lines + 1] = ("Host *\n  User %s\n  IdentityFile %s\n  IdentitiesOnly yes\n  IdentityAgent none\n"):format(
      o.user or "root", o.key or world.key())
    lines[#lines + 1] = ("  UserKnownHostsFile %s/known_hosts\n  GlobalKnownHostsFile none\n  BatchMode yes\n"):format(folder)
    world.write(folder .. "/known_hosts", table.concat(known))
    world.write(folder .. "/config", table.concat(lines))
    return folder .. "/config"
  end

  ---@async
  function world.stop_machines()
    for i = #machines, 1, -1 do
      machines[i]:close()
      machines[i] = nil
    end
  end
end
