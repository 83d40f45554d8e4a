-- What scans say, merged into manifests, and the files those are kept in. Streams are made by hand here; the work that follows
-- is in manifest_work_spec.lua, what comes of it in manifest_settle_spec.lua, the real program in manifest_far_spec.lua.

local far = require "spec.support.far"
local file = require "runbook.core.file"
local frames = require "spec.support.frames"
local gate = require "runbook.core.gate"
local manifest = require "runbook.core.manifest"
local streams = require "spec.support.streams"
local task = require "runbook.core.task"
local world = require "spec.world"

local S = 1000000000

local directory

local function change(fn, ...)
  return gate.call("change", fn, ...)
end

local function feed(bytes, o, size)
  return change(function()
    return far.feed(assert(manifest.scan { directory = o.directory or directory, side = o.side or "source", owner = o.owner, only = o.only }), bytes, size)
  end)
end

local function learn(side, units, o)
  return assert(feed(streams.scan(units, o), { side = side }))
end

local function compare(unit, o)
  return assert(change(manifest.compare, directory, unit or "home", o))
end

local function kinds(c)
  local list = {}
  for i, kind in ipairs(c.kinds) do
    list[i] = ("%s %d: %s"):format(kind.kind, kind.count, table.concat(kind.examples, ","))
  end
  return table.concat(list, "\n")
end

local function known()
  return assert(change(manifest.units, directory))
end

local function unit(name, ...)
  return { name = name, { "", type = "d" }, ... }
end

before_each(function() directory = far.directory() end)

describe("a scan", function()
  it("is reported as it was said", function()
    local report = learn("source", { {
      name = "home", { "", type = "d", changed = 10 * S }, { "a", size = 5, changed = 4000 * S + 5 },
      problems = { { "b", 13, "open" }, { "c", 0, "leftover" } },
    } }, { clock = 5000 * S + S // 2 })
    assert.equal(1, report.version)
    assert.same({ "boot", 5000.5, 7, 2, "ext4", 4096, 1.5e-6 }, { report.boot, report.clock, report.device, report.inode,
      report.file_system, report.page, report.stat_seconds })
    assert.same({}, report.vanished)
    local u = report.units[1]
    assert.same({ "home", false, true, "digest of home", 2, 0, 0, "4000.000000005" }, { u.name, u.same, u.first, u.digest, u.added, u.changed, u.removed,
      u.newest_ns })
    assert.equal(4000.000000005, u.newest)
    assert.same({ { path = "a", at = 4000.000000005, type = "f" }, { path = "", at = 10, type = "d" } }, u.examples)
    assert.equal(2, u.problem_count)
    assert.same({ { path = "b", errno = 13, code = "EACCES", what = "open" }, { path = "c", errno = 0, code = "", what = "leftover" } }, u.problems)
    assert.same({ { name = "home", rows = 2, source = { entries = 2, bytes = 5, problems = 2 } } }, known())
  end)

  it("is compared with the other side on the way, where somebody goes through it", function()
    learn("target", { unit("home", { "a", size = 5 }, { "extra" }) })
    local report = learn("source", { unit("home", { "a", size = 7 }, { "b", size = 3 }) })
    assert.same(compare(), report.units[1].compared)
    assert.same({ 3, 1, 1, 1, 10 }, { report.units[1].compared.entries, report.units[1].compared.missing, report.units[1].compared.different,
      report.units[1].compared.extra, report.units[1].compared.to_send.bytes })
    local same = feed(streams.scan { { name = "home", same = true, digest = report.units[1].digest } }, {})
    assert.is_nil(same.units[1].compared)
  end)

  it("comes in pieces of any size, byte by byte, too", function()
    local bytes = streams.scan { unit("home", { "a", size = 5 }, { "b", type = "l" }), unit("other") }
    local whole = assert(feed(bytes, { directory = far.directory() }))
    assert.same(whole, assert(feed(bytes, {}, 1)))
  end)

  it("counts what was added, changed and removed since the one before, and shows the newest ten", function()
    learn("source", { unit("home", { "a" }, { "b" }, { "gone" }) })
    local now = unit("home", { "a", changed = 3000 * S }, { "b" })
    for i = 10, 30 do
      now[#now + 1] = { "n" .. i, changed = (3000 + i) * S }
    end
    local u = learn("source", { now }).units[1]
    assert.same({ 21, 1, 1 }, { u.added, u.changed, u.removed })
    assert.is_nil(u.first)
    assert.equal(10, #u.examples)
    assert.same({ "n30", "n21" }, { u.examples[1].path, u.examples[10].path })
  end)

  it("knows every unit's names in any bytes", function()
    for _, name in ipairs { ".", "-rf", "a b", "new\nline", "\xff\xfe", ("n"):rep(255), ("\1"):rep(255), "x.manifest", "%41", "A", "...", ".hidden" } do
      local odd = ("\xff"):rep(255)
      learn("source", { unit(name, { odd }, { odd .. "2" }) })
      assert.equal(3, compare(name).missing)
      local list = known()
      assert.same({ 1, name }, { #list, list[1].name })
      assert.equal("1", world.must(("ls -A %s | grep -v '^.lock$' | wc -l"):format(directory)))
      assert.equal(1, change(manifest.forget, directory))
    end
    assert.same({}, known())
  end)

  it("tells long names apart that begin alike", function()
    local a, b = ("x"):rep(254) .. "1", ("x"):rep(254) .. "2"
    learn("source", { unit(a, { "in a" }), unit(b) })
    assert.same({ 2, 1 }, { compare(a).missing, compare(b).missing })
  end)

  it("drops the side of units that are not there any more, when it was whole", function()
    learn("source", { unit("a"), unit("b", { "f" }), unit("c") })
    learn("target", { unit("b", { "f" }) })
    local report = learn("source", { unit("a") })
    table.sort(report.vanished)
    assert.same({ "b", "c" }, report.vanished)
    local list = known()
    assert.same({ "a", "b" }, { list[1].name, list[2].name })
    assert.is_nil(list[2].source)
    assert.equal(2, list[2].target.entries)
    assert.same({}, learn("source", { unit("a") }).vanished)
    assert.is_true(learn("source", { unit("a"), unit("b") }).units[2].first)
  end)

  it("takes nothing for vanished that it was not asked for, or when it was cut", function()
    learn("source", { unit("a"), unit("b") })
    assert.same({}, assert(feed(streams.scan { unit("a") }, { only = { "a" } })).vanished)
    local report, _, code = feed(streams.scan({ unit("a") }, { cut = true }), {})
    assert.same({ nil, "ECUT" }, { report, code })
    assert.equal(2, #known())
  end)

  it("keeps the units that came whole when it is cut anywhere", function()
    local first, second = streams.hello {} .. streams.unit(unit("a", { "f" })), streams.unit(unit("b", { "f" }))
    for at = 0, #second - 1 do
      local report, _, code = feed(first .. second:sub(1, at), {})
      assert.same({ nil, "ECUT" }, { report, code })
      assert.same({ 1, "a" }, { #known(), known()[1].name })
    end
    local _, _, code = feed("", {})
    assert.equal("ECUT", code)
  end)

  it("of both sides may come at once", function()
    local units = {}
    for i = 1, 40 do
      units[i] = unit("home-" .. i, { "a", size = 1 }, { "b" })
    end
    local bytes = streams.scan(units)
    local tasks = {}
    for i, side in ipairs { "source", "target" } do
      tasks[i] = task.spawn(function() return assert(feed(bytes, { side = side }, 4096)) end)
    end
    task.join_all(tasks)
    assert.is_true(tasks[1]:result())
    assert.is_true(tasks[2]:result())
    for i = 1, 40 do
      assert.equal(3, compare("home-" .. i).equal)
    end
  end)
end)

describe("a unit that is the same", function()
  local entries = unit("home", { "a", size = 5 })
  local same = { name = "home", same = true, digest = "digest of home" }

  it("costs nothing, and is believed when that digest is known", function()
    learn("source", { entries })
    local u = learn("source", { same }).units[1]
    assert.same({ true, 0, 0, 0, "digest of home" }, { u.same, u.added, u.changed, u.removed, u.digest })
    assert.equal(2, compare().missing)
    local _, _, code = feed(streams.scan { { name = "home", same = true, digest = "another" } }, {})
    assert.equal("EFORMAT", code)
    _, _, code = feed(streams.scan { same }, { side = "target" })
    assert.equal("EFORMAT", code)
    _, _, code = feed(streams.scan { { name = "other", same = true } }, {})
    assert.equal("EFORMAT", code)
    _, _, code = feed(streams.scan { { name = "home", same = true, digest = "" } }, {})
    assert.equal("EFORMAT", code)
  end)

  local function asked(o)
    o = o or {}
    o.directory, o.side = directory, o.side or "source"
    return assert(change(manifest.request, o))
  end

  it("is asked for with its digest, but not when something in it was too new, or could not be looked at", function()
    local with = frames.frame("U", frames.text "home", frames.text "digest of home")
    learn("source", { entries })
    assert.truthy(asked():find(with, 1, true))
    assert.is_nil(asked({ fresh = true }):find(with, 1, true))
    assert.is_nil(asked({ side = "target" }):find(with, 1, true))
    for clock, is_asked in pairs { [2002 * S] = false, [2002 * S + S - 1] = false, [2003 * S] = true, [1000 * S] = false } do
      learn("source", { entries }, { clock = clock })
      assert.equal(is_asked, asked():find(with, 1, true) ~= nil, clock)
    end
    learn("source", { { name = "home", { "", type = "d" }, problems = { { "a" } } } })
    assert.is_nil(asked():find(with, 1, true))
  end)

  it("is asked for with all that a scan can be told", function()
    local text, number, frame = frames.text, frames.number, frames.frame
    assert.equal(frame("O", number(1), number(3), number(1)) .. frame("X", number(1), text "./x") .. frame("X", number(0), text "./y")
      .. frame("N", text ".*") .. frame("L", text "a") .. frame("L", text "b") .. frame("G"),
      asked { threads = 3, gently = true, exclude = { { regex = "./x", directories = true }, { regex = "./y" } }, not_units = { ".*" }, only = { "a", "b" } })
    assert.equal(frame("O", number(1), number(0), number(0)) .. frame("G"), asked())
  end)

  it("cannot be asked for with nonsense", function()
    for _, o in ipairs { { side = "both" }, { threads = -1 }, { threads = "many" }, { exclude = { "x" } }, { exclude = "x" }, { only = { 5 } },
                         { only = { "a\0b" } }, { exclude = { {} } } } do
      o.directory, o.side = directory, o.side or "source"
      assert.is_false((pcall(change, manifest.request, o)))
    end
  end)
end)

describe("nonsense of the far side", function()
  local number, text, frame, entry = frames.number, frames.text, frames.frame, streams.entry
  local hello = streams.hello {}
  local top = frame("E", number(0), text "", entry { type = "d" })
  local finish = frame("Z", number(1), number(0))

  local function in_unit(...)
    local body = table.concat { ... }
    return hello .. frame("U", text "home") .. body .. streams.unit({ name = "home" }):sub(#frame("U", text "home") + 1) .. finish
  end

  local function name(path, o)
    return frame("E", number(0), text(path), entry(o or {}))
  end

  it("is refused, and what was known stays", function()
    learn("source", { unit("home", { "kept" }) })
    local long = ("x"):rep(9 << 20)
    for what, bytes in pairs {
      ["no hello"] = frame("U", text "home"), ["two hellos"] = hello .. hello, ["another version"] = streams.hello { version = 2 },
      ["an unknown frame"] = hello .. frame("?"), ["more after the end"] = streams.scan { unit("home", { "kept" }) } .. frame "?",
      ["a wrong count of units"] = hello .. frame("Z", number(3), number(0)), ["a unit in a unit"] = hello .. frame("U", text "a") .. frame("U", text "b"),
      ["an end in a unit"] = hello .. frame("U", text "a") .. frame("Z", number(1), number(0)), ["an entry of no unit"] = hello .. top,
      ["a problem of no unit"] = hello .. frame("P", text "", number(1), text ""), ["the end of no unit"] = hello .. frame("V"),
      ["a frame that is too long"] = hello .. "U" .. number(#long) .. long, ["a length without end"] = hello .. "U" .. ("\xff"):rep(20),
      ["a hello without its fields"] = frame("H", number(1)), ["a unit without entries"] = in_unit(),
      ["a unit that says only of a name that it cannot be seen"] = in_unit(frame("P", text "x", number(13), text "open")),
      ["a unit with nothing but a leftover"] = in_unit(frame("P", text "", number(0), text "leftover")),
      ["names before their directory"] = in_unit(name "a", top), ["two tops"] = in_unit(top, top), ["a top that is a file"] = in_unit(name ""),
      ["names out of order"] = in_unit(top, name "b", name "a"), ["a name twice"] = in_unit(top, name "a", name "a"),
      ["a directory after what is in it"] = in_unit(top, name "a/b", name("a", { type = "d" })),
      ["a name in a file"] = in_unit(top, name "a", name "a/b"), ["a name in a directory that is not there"] = in_unit(top, name "x/y"),
      ["a name in a directory that is over"] = in_unit(top, name("a", { type = "d" }), name "b", name "a/x"),
      ["a name beside"] = in_unit(top, name "../x"), ["a dot"] = in_unit(top, name "."), ["an absolute name"] = in_unit(top, name "/etc"),
      ["an empty component"] = in_unit(top, name("a", { type = "d" }), name "a//b"), ["a zero byte"] = in_unit(top, name "a\0b"),
      ["a slash at the end"] = in_unit(top, name("a", { type = "d" }), name "a/"),
      ["more shared than there is"] = in_unit(top, frame("E", number(9), text "x", entry {})),
      ["a type that there is not"] = in_unit(top, name("a", { type = "z" })), ["a mode that there is not"] = in_unit(top, name("a", { mode = 65536 })),
      ["an owner that there is not"] = in_unit(top, name("a", { uid = 1 << 33 })), ["half an entry"] = in_unit(top, frame("E", number(0), text "a", "f")),
      ["a nanosecond too many"] = in_unit(top, frame("E", number(0), text "a", "f", number(0):rep(4), number(0) .. number(S))),
      ["a path without end"] = in_unit(top, name(("x"):rep((1 << 20) + 1))),
      ["a target without end"] = in_unit(top, name("l", { type = "l", target = ("x"):rep((1 << 20) + 1) })),
      ["a problem at a bad path"] = in_unit(top, frame("P", text "../x", number(1), text "")),
      ["an errno that there is not"] = in_unit(top, frame("P", text "x", number(5000), text "")),
    } do
      local report, message, code = feed(bytes, {})
      assert.same({ nil, "EFORMAT" }, { report, code }, what)
      assert.truthy(message, what)
      assert.equal(2, compare().missing, what)
      assert.equal(1, #known(), what)
    end
    for _, odd in ipairs { "", "..", "a/b", "a\0b", "/", ("x"):rep(256) } do
      local _, _, code = feed(hello .. frame("U", text(odd)), {})
      assert.equal("EFORMAT", code, odd)
    end
  end)

  it("does not take back the units before it", function()
    local _, _, code = feed(hello .. streams.unit(unit("a")) .. frame("?"), {})
    assert.equal("EFORMAT", code)
    assert.equal("a", known()[1].name)
    local both = streams.unit(unit("a", { "f" }))
    _, _, code = feed(hello .. both .. both .. frame("Z", number(2), number(0)), {})
    assert.equal("EFORMAT", code)
  end)

  it("ends a write that comes after it", function()
    change(function()
      local sink <close> = assert(manifest.scan { directory = directory, side = "source" })
      local taken, message, code = true, nil, nil
      for _ = 1, 100 do
        taken, message, code = sink:write(frame("?"):rep(100000))
        if not taken then
          break
        end
      end
      assert.same({ nil, "EFORMAT" }, { taken, code })
      assert.truthy(message)
      assert.same({ nil, "EFORMAT" }, { (sink:finish()), (select(3, feed(frame("?"), {}))) })
    end)
  end)
end)

describe("what differs", function()
  local function pair(source, target, o)
    local name = o and o.unit or "home"
    learn("source", { unit(name, table.unpack(source)) })
    learn("target", { unit(name, table.unpack(target)) })
    return kinds(compare(name, o and { owner = o.owner }))
  end

  local cases = {
    { "missing on the target 1: a", { { "a" } }, {} },
    { "only on the target 1: a", {}, { { "a" } } },
    { "type differs 1: a", { { "a" } }, { { "a", type = "l" } } },
    { "type differs 1: a", { { "a", type = "c", node = 5 } }, { { "a", type = "c", node = 6 } } },
    { "size differs 1: a", { { "a", size = 5 } }, { { "a", size = 6 } } },
    { "mode differs 1: a", { { "a", mode = 384 } }, { { "a", mode = 420 } } },
    { "owner differs 1: a", { { "a", uid = 1 } }, { { "a", uid = 2 } } }, { "owner differs 1: a", { { "a", gid = 1 } }, { { "a", gid = 2 } } },
    { "time differs 1: a", { { "a", modified = 1 } }, { { "a", modified = 2 } } },
    { "time differs 1: a", { { "a", modified = -1 } }, { { "a", modified = 0 } } },
    { "time differs 1: a", { { "a", type = "l", modified = 1 } }, { { "a", type = "l", modified = 2 } } },
    { "link target differs 1: a", { { "a", type = "l", target = "x" } }, { { "a", type = "l", target = "y" } } },
    { "hardlinks differ 1: b", { { "a", inode = 5, links = 2 }, { "b", inode = 5, links = 2 } }, { { "a", inode = 5 }, { "b", inode = 6 } } },
    { "hardlinks differ 1: b", { { "a", inode = 5 }, { "b", inode = 6 } }, { { "a", inode = 5, links = 2 }, { "b", inode = 5, links = 2 } } },
    { "hardlinks differ 2: b,c", { { "b", inode = 5, links = 2 }, { "c", inode = 5, links = 2 } },
      { { "a", inode = 9, links = 3 }, { "b", inode = 9, links = 3 }, { "c", inode = 9, links = 3 } } },
    { "size differs 1: a\nmode differs 1: a\ntime differs 1: a", { { "a", size = 5, mode = 384, modified = 3 } }, { { "a" } } },
  }

  it("is told by its kind", function()
    for i, case in ipairs(cases) do
      directory = far.directory()
      local told = pair(case[2], case[3])
      told = told:gsub("\n?not proven.*", ""):gsub("only on the target 1: a\n(hardlinks)", "%1")
      assert.equal(case[1], told, i)
    end
  end)

  it("is not the mode of a symlink, the ctime, an inode, a device, blocks, or how many links a directory has", function()
    assert.equal("not proven 3: ,a,l", pair(
      { { "a", inode = 5, device = 1, blocks = 8, changed = 5, links = 2 }, { "l", type = "l", mode = 511 } },
      { { "a", inode = 6, device = 2, blocks = 0, changed = 6, links = 3 }, { "l", type = "l", mode = 493 } }))
  end)

  it("is not an owner who was mapped", function()
    local source, target = { { "a", uid = 5, gid = 6 } }, { { "a", uid = 0, gid = 9 } }
    learn("source", { { name = "home", { "", type = "d", uid = 1 }, table.unpack(source) } })
    learn("target", { { name = "home", { "", type = "d", uid = 0, gid = 9 }, table.unpack(target) } })
    assert.equal("owner differs 2: ,a", kinds(compare "home"))
    assert.equal("not proven 2: ,a", kinds(compare("home", { owner = "0:9" })))
    assert.equal("owner differs 2: ,a", kinds(compare("home", { owner = "keep" })))
    for _, odd in ipairs { "root", "1", "1:", ":1", "1:2:3", "-1:2", "1: 2", "4294967295:1", "99999999999:1", "" } do
      assert.is_false((pcall(compare, "home", { owner = odd })), odd)
    end
  end)

  it("adds up", function()
    pair({ { "a", size = 5 }, { "b", size = 7 }, { "c", size = 9 } }, { { "b", size = 8 }, { "c", size = 9 }, { "d" } })
    local c = compare()
    assert.same({ 4, 2, 0, 1, 1, 1, 0 }, { c.entries, c.equal, c.proven, c.missing, c.different, c.extra, c.extra_ours })
    assert.same({ files = 1, bytes = 9 }, c.unproven)
    assert.same({ files = 2, bytes = 12 }, c.to_send)
    assert.same({ { name = "home", rows = 5, source = { entries = 4, bytes = 21, problems = 0 },
      target = { entries = 4, bytes = 17, problems = 0, ours = 2 } } }, known())
  end)

  it("is asked of what is known only", function()
    local c, message, code = change(manifest.compare, directory, "home")
    assert.same({ nil, "ENOENT" }, { c, code })
    assert.truthy(message:find("home", 1, true))
    assert.equal("ENOENT", (select(3, change(manifest.compare, directory .. "/nowhere", "home"))))
    for _, odd in ipairs { "", "a/b", "..", "a\0b" } do
      assert.is_false((pcall(change, manifest.compare, directory, odd)), odd)
    end
  end)
end)

describe("a manifest's file", function()
  local path, whole

  before_each(function()
    learn("source", { unit("home", { "a", size = 5 }, { "b", type = "l" }), unit("other") })
    path = directory .. "/home.manifest"
    whole = world.read(path)
  end)

  local function is_not_there(what)
    local list = known()
    assert.same({ "home.manifest", true, 0 }, { list[1].name, list[1].corrupt, list[1].rows }, what)
    assert.same({ 2, "other" }, { #list, list[2].name }, what)
    local _, _, code = change(manifest.compare, directory, "home")
    assert.equal("ENOENT", code, what)
    assert.is_nil(change(manifest.request, { directory = directory, side = "source" }):find("digest of home", 1, true), what)
  end

  it("is its owner's alone", function()
    assert.equal("600", world.must("stat -c %a " .. path))
    assert.equal("", world.must(("ls -A %s | grep -v 'manifest$\\|^.lock$' || true"):format(directory)))
  end)

  it("is not believed when it is torn anywhere", function()
    for at = 0, #whole - 1 do
      world.write(path, whole:sub(1, at))
      is_not_there(at)
    end
  end)

  it("is not believed when any of its bits is another", function()
    for at = 1, #whole do
      world.write(path, whole:sub(1, at - 1) .. string.char(whole:byte(at) ~ 1 << at % 8) .. whole:sub(at + 1))
      is_not_there(at)
    end
  end)

  it("is not believed when it is another unit's, longer, a link, a directory or a pipe", function()
    local other = world.read(directory .. "/other.manifest")
    world.write(path, other)
    is_not_there "another's"
    world.write(path, whole .. "x")
    is_not_there "longer"
    world.write(path, ("x"):rep(70000))
    is_not_there "foreign"
    world.must(("rm %s && mkfifo %s"):format(path, path))
    is_not_there "a pipe"
    world.must(("rm %s && mkdir %s"):format(path, path))
    is_not_there "a directory"
    world.must(("rmdir %s && ln -s other.manifest %s"):format(path, path))
    local _, _, code = change(manifest.compare, directory, "home")
    assert.equal("ELOOP", code)
  end)

  it("is made anew by the next scan when it is not believed", function()
    world.write(path, whole:sub(1, 50))
    local report = learn("source", { unit("home", { "a" }), unit("other") })
    assert.is_true(report.units[1].first)
    assert.same({ "home", nil }, { known()[1].name, known()[1].corrupt })
  end)

  it("stays when the disk is full, and nothing half is left", function()
    local full <close> = world.filesystem { size = "1M", kind = "tmpfs" }
    directory = full.path
    learn("source", { unit("home", { "a" }) })
    full:fill(4096)
    local many = unit("home")
    for i = 1, 20000 do
      many[i + 1] = { ("name-%05d"):format(i), inode = i }
    end
    local report, message, code = feed(streams.scan { many }, {})
    assert.same({ nil, "ENOSPC" }, { report, code })
    assert.truthy(message)
    assert.equal(2, compare().missing)
    assert.equal("", world.must(("ls -A %s | grep -v 'manifest$\\|^.lock$\\|^.filler$' || true"):format(directory)))
  end)

  it("cannot be made where there is no directory", function()
    local report, _, code = feed(streams.scan { unit("home") }, { directory = directory .. "/nowhere" })
    assert.same({ nil, "ENOENT" }, { report, code })
    for _, fn in ipairs { manifest.units, manifest.forget, manifest.distrust } do
      assert.equal("ENOENT", (select(3, change(fn, directory .. "/nowhere"))))
    end
    assert.equal("ENOENT", (select(3, change(manifest.request, { directory = directory .. "/nowhere", side = "source" }))))
  end)

  it("is dropped whole, or one side of it", function()
    learn("target", { unit("home", { "a", size = 5 }), unit("other") })
    assert.equal(2, change(manifest.forget, directory, "source"))
    assert.equal("only on the target 2: ,a", kinds(compare()))
    learn("source", { unit("home", { "a", size = 5 }), unit("other") })
    assert.equal(2, compare().equal)
    assert.equal(2, change(manifest.forget, directory, "target"))
    assert.equal("missing on the target 2: ,a", kinds(compare()))
    assert.equal(2, change(manifest.forget, directory))
    assert.same({}, known())
    assert.equal(0, change(manifest.forget, directory))
    assert.is_false((pcall(change, manifest.forget, directory, "both")))
  end)
end)

describe("a sink", function()
  local bytes = streams.scan { unit("home", { "a" }) }

  local function sink()
    return assert(change(manifest.scan, { directory = directory, side = "source" }))
  end

  local function threads()
    return #world.must(("ls /proc/%d/task"):format(world.pid)):gsub("[^\n]", "")
  end

  it("that is closed has taken nothing up, and can be closed again", function()
    local one = sink()
    assert(one:write(bytes:sub(1, -2)))
    one:close()
    one:close()
    assert.is_false((pcall(one.write, one, "x")))
    assert.is_false((pcall(one.finish, one)))
    assert.same({ 0, 0 }, { one:status().bytes, one:status().files })
    do
      local _ <close> = sink()
    end
    sink()
    collectgarbage()
    collectgarbage()
  end)

  it("is finished once", function()
    local one = sink()
    assert(one:write(bytes))
    assert(one:finish())
    local ok, why = pcall(one.write, one, "x")
    assert.is_false(ok)
    assert.truthy(tostring(why):find("finished", 1, true))
    one:close()
  end)

  it("leaves no thread behind when a task that waits in it is cancelled", function()
    local before = threads()
    for _, wait in ipairs { "write", "finish" } do
      local one = sink()
      local waiter = task.spawn(function()
        if wait == "write" then
          one:write(streams.hello {} .. ("x"):rep(64 << 20))
        else
          one:write(bytes)
          one:finish()
        end
      end)
      task.sleep(0)
      waiter:cancel()
      task.join_all { waiter }
      assert.is_false((pcall(one.write, one, "x")))
    end
    world.wait_until("the end of its threads", function() return threads() <= before end)
  end)

  it("ends the wait of another task when it is closed", function()
    local one, code = sink(), nil
    local waiter = task.spawn(function()
      for _ = 1, 1000 do
        local taken, _, why = one:write(frames.frame("U", ("x"):rep(1 << 20)))
        if not taken then
          code = why
          return
        end
      end
    end)
    task.sleep(0)
    local ok, why = pcall(one.write, one, "x")
    one:close()
    task.join_all { waiter }
    assert.is_true(waiter:result())
    assert.is_true(not ok and tostring(why):find("another task", 1, true) ~= nil or code ~= nil)
  end)

  it("is not given without leave", function()
    assert.is_false((pcall(manifest.scan, { directory = directory, side = "source" })))
    assert.is_false((pcall(gate.call, "read", manifest.scan, { directory = directory, side = "source" })))
    assert.is_false((pcall(gate.call, "read", manifest.forget, directory)))
    assert.same({}, (gate.call("read", manifest.units, directory)))
    assert.is_function(file.chmod)
  end)
end)
