-- What the far side's program makes of streams that are cut, broken or hostile: nothing outside of its root, nothing half,
-- and an answer in words.

local far = require "spec.support.far"
local frames = require "spec.support.frames"
local oracle = require "spec.support.oracle"
local world = require "spec.world"

local PROTOCOL = 76 -- sysexits(3)

describe("streams of the far side", function()
  local folder, source, target, outside, sent
  local number, text, expect, entry, frame = frames.number, frames.text, frames.expect, frames.entry, frames.frame

  --- Frames that a sender answers to work with, for index n the n-th.
  local function send(work)
    local output, errors = far.run(work, ("FAR send %s --threads=1"):format(source))
    assert.equal("", errors)
    return frames.all(output)
  end

  --- A frame that names a path after its index, with another path.
  local function with_path(f, path, where)
    local r = frames.reader(f.payload)
    local id = f.type == "b" and number(r:number()) or ""
    local index = r:number()
    r:text()
    local rest = r.bytes:sub(r.at)
    if where then
      rest = where .. rest:sub(2) -- nothing was expected there
    end
    return frame(f.type, id, number(index), text(path), rest)
  end

  local function whole(list)
    local out = {}
    for i, f in ipairs(list) do
      out[i] = frame(f.type, f.payload)
    end
    return table.concat(out)
  end

  --- What a receiver answers: status words by index, its exit code, and what it said.
  local function receive(bytes, options)
    local output, errors = far.run(bytes, ("FAR receive %s %s; echo exit $? >&2"):format(target, options or ""))
    local code = tonumber(errors:match "exit (%d+)\n$")
    local answers = {}
    for _, f in ipairs(frames.all(output)) do
      if f.type == "r" then
        local r = frames.reader(f.payload)
        answers[r:number()] = far.status[r:number()]
      end
    end
    return answers, code, errors
  end

  local function leftovers()
    return (world.sh(("find %s -name '.rb~*'"):format(target)))
  end

  before_each(function()
    folder = world.folder "frames"
    source, target, outside = folder .. "/source", folder .. "/target", folder .. "/outside"
    world.must(([[mkdir -p %s/ann/sub %s %s/sub && cd %s/ann && echo small > small && head -c 700000 /dev/urandom > large && ln -s small link && ln small hard
      echo precious > %s/small; echo precious > %s/large; cp -a %s/small %s/sub/; chmod 4755 %s/small]]):format(
      source, target, outside, source, outside, outside, outside, outside, outside))
    local function unit(...)
      return frame("B", text "ann") .. table.concat { ... } .. frame "Q"
    end
    sent = {}
    for _, f in ipairs(send(unit(frame("F", number(0), text "small", expect()), frame("N", number(1), text "link", expect()),
      frame "R", frame("H", number(2), text "hard", expect(), text "small"), frame("D", number(3), text "sub"),
      frame("X", number(4), text "gone", "f", expect()), frame("F", number(5), text "large", expect())))) do
      sent[f.type] = sent[f.type] or f
      table.insert(sent, f)
    end
  end)

  it("are what these specs take them for", function()
    local answers, code, errors = receive(whole(sent))
    assert.equal(0, code, errors)
    assert.same({ [0] = "done", "done", "done", "done", "done", "done" }, answers)
    world.must(("cmp %s/ann/large %s/ann/large"):format(source, target))
  end)

  describe("with a path", function()
    for name, path in pairs {
      ["that goes up"] = "../outside/small", ["that goes up in the middle"] = "ann/../../outside/small", ["that is absolute"] = "/etc/x",
      ["with an empty component"] = "ann//small", ["that ends in a slash"] = "ann/", ["with a dot"] = "ann/./small", ["that is a dot"] = ".",
      ["with a zero byte"] = "ann/small\0x", ["that is two dots"] = "..",
    } do
      it(name .. " are refused, whatever is to be done there", function()
        local before = oracle.digest(outside)
        for _, type in ipairs { "f", "b", "N", "H", "D", "X" } do
          local answers, code, errors = receive(with_path(sent[type], path) .. frame "Q")
          assert.same({ type, {}, PROTOCOL }, { type, answers, code })
          assert.truthy(errors:find "malformed")
        end
        local linked = frame("H", number(2), text "hard", expect(), text(path))
        assert.same({ [2] = "source" }, (receive(linked .. frame "Q")))
        assert.equal("", world.must("ls -A " .. target))
        assert.equal(before, oracle.digest(outside))
      end)
    end
  end)

  it("never go through a symlink that was planted in the target", function()
    local before = oracle.digest(outside)
    world.must(("ln -s ../outside %s/ann; mkdir %s/bob; ln -s %s/sub %s/bob/sub; ln -s ../../outside/small %s/bob/small"):format(
      target, target, outside, target, target))
    local function at(path) return expect(tonumber(world.must(("stat -L -c %%i %s/%s"):format(target, path)))) end
    local large = {}
    for _, f in ipairs(sent) do
      large[#large + 1] = (f.type == "c" or f.type == "e") and frame(f.type, f.payload) or nil
    end
    large = table.concat(large)
    for _, path in ipairs { "ann/small", "bob/sub/small", "ann/sub/small", "bob/sub/new" } do
      for _, where in ipairs { expect(), path ~= "bob/sub/new" and at(path) or expect() } do
        assert.same({ [0] = "conflict" }, (receive(with_path(sent.f, path, where) .. frame "Q")))
        assert.same({ [5] = "conflict" }, (receive(with_path(sent.b, path, where) .. large .. frame "Q")))
        assert.same({ "conflict" }, (receive(with_path(sent.N, path, where) .. frame "Q")))
        assert.same({ [2] = "conflict" }, (receive(frame("H", number(2), text(path), where, text "small") .. frame "Q")))
        assert.same({ [4] = "conflict" }, (receive(frame("X", number(4), text(path), "f", where) .. frame "Q")))
      end
      assert.same({ [3] = "conflict" }, (receive(with_path(sent.D, path) .. frame "Q")))
      assert.same({ [2] = "conflict" }, (receive(frame("H", number(2), text "new", expect(), text(path)) .. frame "Q")))
    end
    -- the symlink itself: as a directory, and in place of the file that it leads to
    for _, path in ipairs { "ann", "bob/sub" } do
      assert.same({ [3] = "conflict" }, (receive(with_path(sent.D, path) .. frame "Q")))
    end
    assert.same({ [0] = "conflict" }, (receive(with_path(sent.f, "bob/small", at "bob/small") .. frame "Q")))
    local check = frame("M", number(0), text "bob/small", at "bob/small", entry { size = 6, uid = 5, mode = 511 }, text "\0", number(0), ("\0"):rep(16))
    assert.same({ [0] = "conflict" }, (receive(check .. frame "Q")))
    assert.equal(before, oracle.digest(outside))
    assert.equal("", world.sh(("find %s ! -type l ! -type d"):format(target)))
  end)

  it("cannot say of the target what only the receiver may say", function()
    local forged = frame("V", number(0), number(0), number(1), entry { type = "f" }, ("\0"):rep(24))
    local _, code = receive(forged .. frame "Q")
    assert.equal(PROTOCOL, code)
    for status, word in pairs { "vanished", "changing", "source" } do
      assert.same({ [0] = word }, (receive(frame("V", number(0), number(status), number(2), text "x") .. frame "Q")))
    end
    for status = 4, 7 do
      assert.equal(PROTOCOL, select(2, receive(frame("V", number(0), number(status), number(2), text "x") .. frame "Q")))
    end
  end)

  describe("with contents", function()
    it("that are not what was hashed leave what stood there", function()
      world.must(("mkdir %s/ann && echo old > %s/ann/small && echo old > %s/ann/large"):format(target, target, target))
      local function at(path) return expect(tonumber(world.must(("stat -c %%i %s/%s"):format(target, path)))) end
      local small = with_path(sent.f, "ann/small", at "ann/small"):gsub("small\n", "smell\n")
      assert.same({ [0] = "target" }, (receive(small .. frame "Q")))
      local large = { with_path(sent.b, "ann/large", at "ann/large") }
      for _, f in ipairs(sent) do
        if f.type == "c" then
          large[#large + 1] = frame("c", f.payload:sub(1, -2), string.char(f.payload:byte(-1) ~ 1))
        elseif f.type == "e" then
          large[#large + 1] = frame("e", f.payload)
        end
      end
      assert.same({ [5] = "target" }, (receive(table.concat(large) .. frame "Q")))
      assert.equal("old\nold", world.must(("cat %s/ann/small %s/ann/large"):format(target, target)))
      assert.equal("", leftovers())
    end)

    it("out of bounds, without an end, of no known file or of impossible size do no harm", function()
      local function file(fields, parts)
        return frame("f", number(0), text "ann/x", expect(), entry(fields), text "\0", number(0), ("\0"):rep(16), number(#parts), table.concat(parts))
      end
      local function part(offset, bytes) return number(offset) .. text(bytes) end
      for _, bytes in ipairs {
        file({ size = 3 }, { part(0, "four") }), file({ size = 3 }, { part(-1, "x") }), file({ size = 3 }, { part(3, "x") }),
        file({ size = 1 << 62 }, {}), file({ size = -1 }, {}), file({ size = -1 }, { part(-2, "x") }), file({ size = 4 }, { number(0) .. number(9) }),
        file({ type = "d" }, {}), file({ mode = 1 << 20 }, {}),
      } do
        local answers, code = receive(bytes .. frame "Q")
        assert.equal(0, code)
        assert.truthy(answers[0] == "target" or answers[0] == "source", answers[0])
      end
      for _, bytes in ipairs {
        frame("c", number(9), number(0), text "x"), frame("e", number(9)), frame("a", number(9)), frame("z", number(9)), frame("b", number(1)),
        frame("c"), "\xff", "f\xff\xff\xff\xff\xff\xff", frame("?"), frame("B", text "x"), frame("f"), frame("S") .. frame("b"), with_path(sent.b, "ann/x"),
      } do
        assert.equal(PROTOCOL, (select(2, receive(bytes .. frame "Q"))), bytes)
      end
      assert.equal("", world.must(("find %s -type f"):format(target)))
    end)

    it("and attributes that are not ours to set are refused", function()
      local function attributes(list)
        local out = { number(#list) }
        for _, one in ipairs(list) do
          out[#out + 1] = text(one[1]) .. text(one[2])
        end
        return text(table.concat(out))
      end
      for _, bytes in ipairs {
        attributes { { "security.selinux", "x" } }, attributes { { "user.a\0b", "x" } }, attributes { { "system.nfs4_acl", "x" } },
        attributes { { "user." .. ("n"):rep(300), "x" } },
        text(number(3) .. text "user.a" .. text "b"), text "",
      } do
        local node = frame("N", number(0), text "pipe", expect(), entry { type = "p", mode = 420 }, bytes, number(0))
        assert.same({ [0] = "target" }, (receive(node .. frame "Q")))
      end
      assert.equal("", world.must("ls -A " .. target))
    end)
  end)

  it("that are cut leave nothing half, say what was done, and go on from there", function()
    local all, at = whole(sent), 0
    local cuts = {}
    for _, f in ipairs(sent) do
      at = at + #frame(f.type, f.payload)
      for _, cut in ipairs { at - #f.payload // 2, at } do
        cuts[cut] = true
      end
    end
    cuts[#all] = nil
    for cut in pairs(cuts) do
      world.must(("rm -rf %s && mkdir %s"):format(target, target))
      local answers, code, errors = receive(all:sub(1, cut))
      assert.equal(PROTOCOL, code)
      assert.truthy(errors:find "cut")
      assert.equal("", leftovers())
      for index, file in pairs { [0] = "small", [5] = "large" } do
        local _, same = world.sh(("cmp -s %s/ann/%s %s/ann/%s"):format(source, file, target, file))
        assert.equal(answers[index] == "done", same == 0)
      end
      local pair = far.pair { source = source, target = target }
      assert.same({}, pair:copy().failures)
      world.must(("touch -r %s %s"):format(source, target))
      oracle.identical(source, target)
    end
  end)

  it("whose listener goes away leave nothing half either", function()
    world.must(("cd %s/ann && for i in $(seq 3000); do echo $i > f$i; done"):format(source))
    local work = { frame("B", text "ann"), frame("F", number(0), text "large", expect()) }
    for i = 1, 3000 do
      work[#work + 1] = frame("F", number(i), text("f" .. i), expect())
    end
    local _, errors = far.run(table.concat(work) .. frame "Q", ("{ FAR send %s | FAR receive %s; } | head -c 1000 > /dev/null"):format(source, target))
    assert.truthy(errors:find "whom to tell")
    assert.equal("", leftovers())
  end)

  describe("broken at random", function()
    --- Some bytes are others, are left out, or come twice.
    local function broken(bytes, seed)
      math.randomseed(seed)
      for _ = 1, math.random(3) do
        local at, length = math.random(#bytes), math.random(0, 3)
        local kind = math.random(4)
        local middle = kind == 1 and "" or kind == 2 and bytes:sub(at, at + length) or string.char(math.random(0, 255))
        bytes = bytes:sub(1, at - 1) .. middle .. bytes:sub(at + (kind == 4 and 0 or length))
      end
      return bytes
    end

    local good = { [0] = true, [64] = true, [66] = true, [71] = true, [PROTOCOL] = true }

    it("never crash a receiver, nor let it out of its root", function()
      world.must(("ln -s ../outside %s/ann; mkdir %s/bob; ln -s ../../outside %s/bob/ann"):format(target, target, target))
      world.must(("head -c 300000 /dev/urandom > %s/ann/large"):format(source))
      local all, before = {}, oracle.digest(outside)
      for _, f in ipairs(sent) do
        if f.type ~= "c" and f.type ~= "b" and f.type ~= "e" then
          all[#all + 1] = frame(f.type, f.payload)
          all[#all + 1] = (f.type == "f" or f.type == "N" or f.type == "D") and with_path(f, "bob/new") or nil
        end
      end
      all[#all] = frame("b", number(1), number(9), text "bob/l", expect(), number(9))
        .. frame("c", number(1), number(2), text "abc") .. frame("a", number(1)) .. frame("c", number(1), number(0), text "abc")
        .. frame("e", number(1), entry { size = 9 }, text "\0", number(0), ("\0"):rep(16)) .. frame "R" .. frame "Q"
      all = table.concat(all)
      for seed = 1, 250 do
        local _, code, errors = receive(broken(all, seed), seed % 2 == 0 and "--owner=5:5" or "")
        assert.is_true(good[code], ("seed %d: exit %s\n%s"):format(seed, code, errors))
        assert.is_nil(errors:find "Sanitizer", errors)
      end
      assert.equal(before, oracle.digest(outside))
      assert.equal("", leftovers())
    end)

    it("never crash whoever only reads, nor change what is read", function()
      local work = frame("B", text "ann") .. frame("F", number(0), text "small", expect(1, 2, 3))
        .. frame("M", number(1), text "large", expect(1), ("x"):rep(16))
        .. frame("N", number(2), text "link", expect()) .. frame("H", number(3), text "hard", expect(), text "small") .. frame("D", number(4), text "sub")
        .. frame("X", number(5), text "gone", "f", expect(1)) .. frame "R" .. frame "Q"
      local proof = frame("B", text "ann") .. frame("K", number(0), text "small") .. frame("K", number(1), text "")
        .. frame("K", number(2), text "link") .. frame "Q"
      local request = frame("O", number(1), number(0), number(0)) .. frame("X", number(1), text "./s.*b|a[0-9]+(x|y)*") .. frame("N", text "*.x")
        .. frame("U", text "ann", text(("d"):rep(16))) .. frame("L", text "ann") .. frame "G"
      local before = oracle.digest(folder)
      for command, bytes in pairs { send = work, prove = proof, scan = request } do
        for seed = 1, 150 do
          local _, errors = far.run(broken(bytes, seed), ("FAR %s %s; echo exit $? >&2"):format(command, source))
          assert.is_true(good[tonumber(errors:match "exit (%d+)\n$")], ("%s, seed %d: %s"):format(command, seed, errors))
          assert.is_nil(errors:find "Sanitizer", errors)
        end
      end
      assert.equal(before, oracle.digest(folder))
    end)
  end)
end)
