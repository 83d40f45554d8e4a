-- The parts of the nfs copier that need no server: patterns, what rsync says and what that means, forecasts.

local outlook = require "runbook.copier.outlook"
local patterns = require "runbook.copier.patterns"
local place = require "runbook.place"
local rsync = require "runbook.copier.rsync"
local scan = require "runbook.copier.scan"
local shell = require "runbook.shell"
local world = require "spec.world"

describe("the clock of a file server", function()
  local clocks = require "runbook.copier.clocks"

  local function report(o)
    return { file_system = o.on or "nfs", clock = 1000, seconds = o.took or 1, units = { { newest = o.newest - 500 }, { newest = o.newest } } }
  end

  it("is that of the machine for file systems of its own", function()
    assert.is_nil(clocks.behind(report { on = "xfs", newest = 1 }))
    assert.is_nil(clocks.flag {})
  end)

  it("is at least at the latest time that was seen: 10 seconds behind while somebody works, and never believed to be before ours", function()
    assert.equal(11, clocks.behind(report { newest = 990 }))
    assert.equal(0, clocks.behind(report { newest = 1010 }))
    assert.equal("--behind=11", clocks.flag { behind = clocks.behind(report { newest = 990 }) })
  end)

  it("is not known where nothing changes, so that whatever has changed since is looked at again", function()
    assert.equal(903, clocks.behind(report { newest = 100, took = 3 }))
  end)
end)

describe("a copier among the parameters", function()
  it("has, of whatever kind, all that copiers can do, and touches nothing yet", function()
    local sync = require "runbook.sync"
    local here = require "runbook.here"
    local function claim(context)
      return require("runbook.kube").cluster { context = context }:claim { namespace = "prod", claim = "homes" }
    end
    local ends = { nfs = { here:dir "/a", here:dir "/b" }, same = { claim "a", claim "b" }, claim = { claim "a", here:dir "/b" } }
    for _, kind in ipairs(sync.KINDS) do
      local homes = sync.pair { kind = kind, from = ends[kind][1], to = ends[kind][2] }
      for _, method in ipairs { "units_now", table.unpack(sync.METHODS) } do
        assert.equal("function", type(homes[method]), kind .. ":" .. method)
      end
      assert.equal(tostring(ends[kind][1]) .. " -> " .. tostring(ends[kind][2]), tostring(homes))
      assert.equal(homes.to, ends[kind][2])
    end
  end)

  it("is kept to its two ends, whoever answers there", function()
    local identity = require "runbook.run.identity"
    local function at(name)
      return { place = { identity = function() return name end } }
    end
    local ends = { from = at "SHA256:old", to = at "SHA256:new" }
    local meta = {}
    local session = { journal = { meta = meta, set_meta = function(_, key, value) meta[key] = value end } }
    local book = { declaration = { { "homes", "copier" }, { "spare", "copier" } }, values = { homes = ends } }
    identity.keep(session, identity.look(book))
    assert.same({ ["identity:homes.from"] = "SHA256:old", ["identity:homes.to"] = "SHA256:new" }, meta)
    ends.to = at "SHA256:other"
    local ok, err = pcall(identity.keep, session, identity.look(book))
    assert.is_false(ok)
    assert.equal("identity", err.kind)
    assert.truthy(err.message:find("`homes.to` is another machine", 1, true), err.message)
  end)
end)

describe("the name of a home", function()
  it("is one line of UTF-8 for people, as messages and records hold nothing else", function()
    local shown = require("runbook.copier.meter").shown
    assert.equal("jos\u{e9}", shown "jos\u{e9}")
    assert.equal("two?lines", shown "two\nlines")
    assert.equal("not-utf8-%FF%FE", shown "not-utf8-\xff\xfe")
    assert.equal("the loose files", shown ".")
  end)
end)

describe("patterns of what is not copied", function()
  local folder

  setup(function()
    folder = world.folder "patterns"
    world.must(([[mkdir -p %s/from && cd %s/from && mkdir -p .cache/pip a/b/c a/.cache tmp/x sub/tmp d[1] 'sp ace' cache
      touch .cache/pip/1 a/b/c/2 a/.cache/3 tmp/x/4 sub/tmp/5 'd[1]/6' 'sp ace/7.tmp' cache/8 9.pyc a/b/10.pyc 'star*' '?q' ^caret x.y xzy
      touch 'new
line.tmp' $(printf 'bad\377') a/b/end 'back\slash' '(p)' 'pl+us' '{b}' '$d' 'a|b' .tmp a/tmp]]):format(folder, folder))
  end)

  local function by_find(list)
    local argv = patterns.for_find(list)
    table.insert(argv, 1, ".")
    table.insert(argv, 1, "find")
    return world.must(("cd %s/from && LC_ALL=C %s -print0 | LC_ALL=C sort -z | tr '\\0' '\\n'"):format(folder, shell.join(argv)))
  end

  local function by_rsync(list)
    world.must(("rm -rf %s/to && LC_ALL=C rsync -a %s %s/from/ %s/to/"):format(folder, shell.join(patterns.for_rsync(list)), folder, folder))
    return world.must(("cd %s/to && find . -print0 | LC_ALL=C sort -z | tr '\\0' '\\n'"):format(folder))
  end

  it("leave out the same names for rsync and for find", function()
    for _, list in ipairs {
      {}, { ".cache/" }, { ".cache" }, { "/tmp" }, { "tmp/" }, { "/tmp/" }, { "*.pyc" }, { "*.tmp" }, { "a/b" }, { "b/c/" }, { "/a/*" },
      { "a/**" }, { "**/tmp" }, { "**/tmp/" }, { "**/b/c" },
      { "/**/c" }, { "**.tmp" }, { "a**c" }, { "a/**/end" }, { "?q" }, { "x.y" }, { "d[[]1]" }, { "[!a-z]*" }, { "[^a-z.]*" }, { "[sx]*" }, { "^caret" },
      { "(p)" }, { "pl+us" }, { "{b}" }, { "$d" }, { "a|b" }, { "sp ace/" }, { "bad*" }, { "*cache*" }, { "/*/b" }, { ".*" },
      { "star\\*" }, { "*.pyc", ".cache/", "/sub" }, { "c", "x" },
    } do
      assert.equal(by_rsync(list), by_find(list), table.concat(list, " "))
    end
  end)

  it("name one thing at the top, whatever it is called", function()
    for name in by_find({}):gmatch "%./([^/\n]+)" do
      if name ~= "new" and name ~= "line.tmp" and name ~= "back\\slash" then
        assert.falsy(("\n" .. by_find { patterns.literal(name) } .. "\n"):find("\n./" .. name .. "\n", 1, true), name)
      end
    end
  end)

  it("are refused when they are none", function()
    for _, bad in ipairs { "", "/", " ", "+ x", "- x", "a/***", "a\nb", 3 } do
      assert.falsy((pcall(patterns.check, { bad }, 1)), tostring(bad))
    end
  end)
end)

describe("what rsync says", function()
  local function output(lines)
    local out = rsync.output()
    for _, line in ipairs(lines) do
      out:line(line, line:find "^rsync" and "stderr" or line:find "vanished" and "stderr" or "stdout")
    end
    return out
  end

  local function failure(status, settled, ...)
    local f = output({ ... }):failure(status, settled)
    return f and f.kind or nil, f and f.message
  end

  it("is counted", function()
    local out = output {
      "     32,768   0%    0.00kB/s    0:00:00", "  31457280  99%  422.1MB/s    0:00:00 (xfr#100, to-chk=300/302)",
      "Number of files: 302 (reg: 301, dir: 1)", "Number of created files: 7 (reg: 7)", "Number of deleted files: 2",
      "Number of regular files transferred: 9", "Total transferred file size: 12345 bytes", "Literal data: 345 bytes",
    }
    assert.same({ entries = 302, created = 7, deleted = 2, transferred = 9, bytes = 12345, literal = 345 }, out.stats)
    assert.equal(31457280, out.bytes_so_far)
    assert.equal(100, out.files_so_far)
  end)

  it("is no failure when files vanished while people work", function()
    local line = 'file has vanished: "/srv/homes/ann/x"'
    assert.is_nil((failure(24, false, line)))
    assert.equal(1, output({ line }):vanished())
    assert.is_nil((failure(0, true)))
  end)

  it("is told apart in words", function()
    for _, row in ipairs {
      { 11, 'rsync: [receiver] write failed on "/b/x": No space left on device (28)', "full", "No space left on device" },
      { 11, 'rsync: [receiver] write failed on "/b/x": Disk quota exceeded (122)', "full", "quota" },
      { 23, 'rsync: [sender] send_files failed to open "/a/x": Permission denied (13)', "refused", "Permission denied (1 name)" },
      { 23, 'rsync: [receiver] mkstemp "/b/x" failed: Read-only file system (30)', "refused", "read-only" },
      { 23, 'rsync: [sender] read errors mapping "/a/x": Input/output error (5)', "unknown", "Input/output error" },
      { 12, "rsync: connection unexpectedly closed (123 bytes received so far) [receiver]", "lost", "connection" },
      { 30, "rsync error: timeout in data send/receive (code 30) at io.c(204)", "timeout", "15 min" },
      { 255, "rsync: ssh: connect to host x port 22: Connection refused", "unreachable", "refused" },
      { 255, "rsync: Host key verification failed.", "identity", "host key" },
      { 255, "rsync: root@x: Permission denied (publickey).", "auth", "key" },
      { 127, "rsync: sh: 1: rsync: not found", "missing", "no rsync on the source" },
      { 137, "rsync: killed", "lost", "killed" }, { 99, "rsync: something new", "exit", "status 99" },
    } do
      local kind, message = failure(row[1], false, row[2])
      assert.equal(row[3], kind, row[2])
      assert.truthy(message:find(row[4], 1, true), message)
    end
  end)

  it("leaves a file that changes while it is read to a later pass, but not to none", function()
    local line = "rsync: ERROR: big.bin failed verification -- update discarded."
    assert.is_nil((failure(23, false, line)))
    assert.equal("busy", (failure(23, true, line)))
  end)

  it("is known by its version", function()
    assert.equal(30101, rsync.version "rsync  version 3.1.1  protocol version 31")
    assert.equal(30500, rsync.version "rsync  version 3.5.0  protocol version 32")
    assert.is_nil(rsync.version "")
    local function has(version, flag)
      local flags = table.concat(rsync.flags { version = version, owner = "keep", exclude = {}, loose = false }, " ")
      return flags:find(flag, 1, true) ~= nil
    end
    assert.truthy(has(30103, "--modify-window=-1"))
    assert.falsy(has(30102, "--modify-window"))
    assert.falsy(has(30500, "--delete"))
  end)
end)

describe("a survey", function()
  it("counts what is there, in units and beside them, and takes no symlink for a unit", function()
    local folder = world.folder "survey"
    world.must(([[cd %s && mkdir -p ann/x bob lost+found .snapshot .runbook && ln -s ann alias && echo 12345 > ann/x/five
      ln ann/x/five ann/x/again; mkfifo bob/pipe; touch loose .nfs0001 && truncate -s 1M bob/hole]]):format(folder))
    local s = scan.survey(place.here:dir(folder), {})
    local names = {}
    for _, unit in ipairs(s.units) do
      names[#names + 1] = unit.name
    end
    assert.same({ "ann", "bob", "." }, names)
    assert.equal(4, s.by_name.ann.entries)
    assert.equal(2, s.by_name.ann.linked)
    assert.equal(1, s.by_name.bob.special)
    assert.equal(1 << 20, s.by_name.bob.bytes)
    assert.truthy(s.by_name.bob.disk <= 16384, "a hole takes room")
    assert.equal(3, s.by_name["."].entries) -- itself, alias, loose
    assert.equal(0, #scan.changed(place.here:dir(folder), s.mark, {}))
    world.must(("sleep 0.02; chmod 600 %s/ann/x/five"):format(folder))
    assert.equal("ann/x/again", scan.changed(place.here:dir(folder), s.mark, {})[2].path:gsub("five", "again"))
  end)
end)

describe("a quota that nobody could be asked for", function()
  local quota = require "runbook.copier.quota"

  local function unseen(o)
    return quota.not_looked_at("/srv of nfs-new", { file_system = o.on or "ext4", options = o.options or "rw", has = o.has ~= false,
      limits = o.limits or {} }, o.root ~= false)
  end

  it("is told where mount options say that it is on", function()
    assert.is_nil(unseen {})
    assert.is_nil(unseen { on = "xfs", options = "rw,attr2,inode64,noquota" })
    assert.equal("quotas of users and groups are on at /srv of nfs-new and were not looked at: there is no repquota (apt-get install quota)",
      unseen { on = "xfs", options = "rw,usrquota,grpquota", has = false })
    assert.matches("^quotas of groups are on .* only root may", unseen { options = "rw,grpjquota=aquota.group,jqfmt=vfsv1", root = false })
    assert.matches("^quotas of users are on .* repquota says nothing of them$", unseen { options = "rw,usrquota,grpquota", limits = { g = {} } })
    assert.is_nil(unseen { options = "rw,usrquota", limits = { u = {} } })
  end)

  it("is told where another machine serves the target", function()
    assert.matches("^/srv of nfs%-new is served by another machine %(nfs4%)", unseen { on = "nfs4" })
  end)
end)

describe("a forecast", function()
  local function pair(...)
    return { id = "a -> b", from = "nfs-old:/a", memory = { passes = { ... }, receipts = {} } }
  end

  local function pass(kind, seconds, look, o)
    o = o or {}
    return { kind = kind, seconds = seconds, look = look or 1, scan = look or 1, bytes = o.bytes or 1e6, files = o.files or 20,
      began = "2026-12-05T22:00:00Z" }
  end

  it("follows the passes over little, not the first one over everything", function()
    local f = outlook.forecast(pair(pass("bulk", 20000, 900, { bytes = 1e12 }), pass("converge", 900, 60)))
    assert.equal(1020, f.seconds)
    assert.same({ 900, 120 }, { f.pass, f.proof })
    assert.truthy(f.low < 1020 and f.high > 1020 and f.high < 1500)
    assert.truthy(f.text:find("final 15 min", 1, true), f.text)
  end)

  it("takes the first pass when there is no other, and a row that knows only of the walk", function()
    local row = pass("bulk", 100, 10)
    row.look, row.files = nil, nil
    assert.equal(120, outlook.forecast(pair(row)).seconds)
  end)

  it("has a wider spread when passes differ", function()
    local close = outlook.forecast(pair(pass("bulk", 900), pass("converge", 100), pass("converge", 100)))
    local apart = outlook.forecast(pair(pass("bulk", 900), pass("converge", 300), pass("converge", 100)))
    assert.truthy(apart.high > close.high)
  end)

  it("takes the median of the looks at both ends, as one may meet a busy moment", function()
    local f = outlook.forecast(pair(pass("bulk", 900, 90), pass("converge", 20, 10), pass("converge", 40, 30), pass("converge", 21, 11)))
    assert.equal(22, f.proof)
    assert.equal(21, f.pass)
    assert.truthy(f.high > 100)
  end)

  it("takes the median of what passes took that carried about as much as the last one", function()
    local much, little = { bytes = 9e9 }, { bytes = 9e8 }
    local f = outlook.forecast(pair(pass("bulk", 5000, 1, much), pass("converge", 901, 1, much), pass("converge", 101, 1, little),
      pass("converge", 201, 1, little), pass("converge", 121, 1, little)))
    assert.equal(121, f.pass)
    f = outlook.forecast(pair(pass("bulk", 5000, 1, much), pass("converge", 101, 1, little)))
    assert.equal(101, f.pass)
  end)

  it("does not take a pass that found nothing to do for one that carried something", function()
    local nothing = { bytes = 0, files = 0 }
    local f = outlook.forecast(pair(pass("bulk", 900), pass("bulk", 2, 1, nothing), pass("converge", 11, 1)))
    assert.equal(11, f.pass)
  end)

  it("counts the quiet that is waited for before the final pass, and the looks it needs", function()
    local p = pair(pass("bulk", 900), pass("converge", 110, 10))
    outlook.must_fit(p, 230)
    local err = select(2, pcall(outlook.must_fit, p, 230, 60))
    assert.equal("EWINDOW", err.code)
    assert.truthy(err.message:find("quiet 1 min, final 1 min 50 s, proof 20 s: ", 1, true), err.message)
    local rows = outlook.impact(p, nil, nil, 60)
    assert.truthy(rows[2][2]:find("quiet 1 min", 1, true), rows[2][2])
  end)

  it("stops what does not fit, with the figures", function()
    local p = pair(pass("converge", 7000, 100))
    local ok, err = pcall(outlook.must_fit, p, 7200)
    assert.falsy(ok)
    assert.equal("EWINDOW", err.code)
    assert.truthy(err.message:find("the window is 2 h", 1, true), err.message)
    outlook.must_fit(p, 4 * 3600)
  end)

  it("says by when to decide, when the window has a beginning", function()
    local rows = outlook.impact(pair(pass("converge", 600, 10)), 7200, 1796504400)
    assert.equal("decide", rows[4][1])
    assert.truthy(rows[4][2]:find("^by %d%d:%d%d: begun later"), rows[4][2])
    assert.equal("back", rows[5][1])
    assert.equal("known after the first pass", outlook.impact(pair())[2][2])
  end)
end)

