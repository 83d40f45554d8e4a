local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local place = require "runbook.place"
local places = require "spec.support.places"
local retry = require "runbook.retry"
local secret = require "runbook.core.secret"
local task = require "runbook.task"
local time = require "runbook.core.time"
local world = require "spec.world"

local function raised(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  assert.is_true(errors.is(err), tostring(err))
  return err
end

-- Events of one type while `fn` runs.
local function events_of(type, fn)
  local seen = {}
  local unsubscribe = events.subscribe(function(e) seen[#seen + 1] = e.type == type and e or nil end)
  local ok, err = pcall(fn)
  unsubscribe()
  if not ok then
    error(err, 0)
  end
  return seen
end

local odd = { "", " ", "a b", "$HOME", "`id`", "'", '"', "*", "a\nb", "\\", "ü", "-n", "A=b" }

for _, kind in ipairs(places.kinds) do
  describe("a place (" .. kind[1] .. ")", function()
    local at

    setup(function() at = kind[2]() end)

    describe("running commands", function()
      it("hands every argument on as it is", function()
        local expected = table.concat(odd, "|") .. "|"
        assert.equal(expected, at:query { "printf", "%s|", table.unpack(odd) })
        assert.equal(expected, at:query_sh([[printf '%s|' "$@"]], table.unpack(odd)))
        assert.equal("1.5 3 4", at:query { "echo", 1.5, 3, 4.0 })
      end)

      it("takes one newline from the end of what a query prints", function()
        assert.equal("a\n", at:query { "printf", "a\n\n" })
        assert.equal("", at:query { "true" })
      end)

      it("says status, output and the last words of what fails", function()
        local err = raised(at.query, at, { "sh", "-c", "echo first >&2; echo last >&2; exit 7" })
        assert.same({ "exit", 7, at.name, "first\nlast\n" }, { err.kind, err.status, err.target, err.stderr })
        assert.matches("ended with status 7: last$", err.message)
        assert.matches("exit 7", err.tried)
        err = raised(at.run, at, { "sh", "-c", "kill -KILL $$" })
        assert.equal("KILL", err.signal)
        err = raised(at.query, at, { "nonesuch-program" })
        assert.equal(127, err.status)
        assert.matches("there is no `nonesuch%-program`", err.message)
      end)

      it("gives whatever exec ended with", function()
        assert.same({ 3, "out\n", "err\n" }, { at:exec { "sh", "-c", "echo out; echo err >&2; exit 3" } })
        assert.same({ 0, "", "" }, { at:exec { "true", reads = true } })
        local status, _, _, signal = at:exec { "sh", "-c", "kill -TERM $$" }
        assert.same({ 128, "TERM" }, { status, signal })
      end)

      it("puts in stdin, environment and directory", function()
        assert.equal("a\0b", at:query { "cat", stdin = "a\0b" })
        assert.equal("", at:query { "cat" })
        assert.equal("x y /", at:query { "sh", "-c", "echo $RB_A $PWD", env = { RB_A = "x y" }, cwd = "/" })
        assert.equal("usage", raised(at.query, at, { "true", env = { ["a b"] = "x" } }).kind)
      end)

      it("shows the output of a run line by line, and keeps that of a query to itself", function()
        local seen = events_of("output", function()
          at:query { "echo", "quiet" }
          at:run { "sh", "-c", "echo one; echo two >&2; printf three" }
        end)
        local lines = {}
        for _, e in ipairs(seen) do
          assert.equal(at.name, e.target)
          lines[#lines + 1] = e.stream .. ":" .. e.line
        end
        table.sort(lines)
        assert.same({ "stderr:two", "stdout:one", "stdout:three" }, lines)
        local got = {}
        at:run { "seq", "1", "5000", on_line = function(line) got[#got + 1] = line end }
        assert.equal(5000, #got)
        assert.equal("5000", got[5000])
      end)

      it("ends what takes too long", function()
        local began = time.now()
        local err = raised(at.query, at, { "sleep", "30", timeout = 0.3 })
        assert.equal("timeout", err.kind)
        assert.is_true(time.now() - began < 10)
      end)

      it("stops keeping output at its limit", function()
        local err = raised(at.query, at, { "head", "-c", "200000", "/dev/zero", limit = 100000 })
        assert.equal("limit", err.kind)
      end)

      it("may be given up before anything was fed to it", function()
        local command = require "runbook.place.command"
        local reader = function() error("enough", 0) end
        local ok, err = pcall(effect.reading, command.converse, at, { "sleep", "20" }, { what = "sleep", stdin = "x" }, reader, function() end)
        assert.same({ false, "enough" }, { ok, errors.from(err).message })
      end)

      it("refuses secrets in arguments and gives them through stdin", function()
        local word = secret.new("pw", "hush-hush")
        local err = raised(at.run, at, { "echo", word })
        assert.equal("usage", err.kind)
        assert.matches("secret", err.message)
        assert.matches("secret", raised(at.sh, at, "true", word).message)
        assert.equal("9", at:query_sh("wc -c | tr -d ' '", { stdin = word }))
      end)

      it("says when nothing was heard for long, and goes on", function()
        local command = require "runbook.place.command"
        local usual = command.stalled_after
        command.stalled_after = 0.2
        local seen = events_of("notice", function()
          local ok, err = pcall(at.run, at, { "sh", "-c", "echo begun; sleep 0.7" })
          command.stalled_after = usual
          assert(ok, err)
        end)
        assert.is_true(#seen >= 1)
        assert.matches("has said nothing", seen[1].text)
        assert.matches("its last line: begun", seen[1].text)
      end)

      describe("that is silent for too long", function()
        local command = require "runbook.place.command"
        local usual, first, longest

        before_each(function()
          usual, first, longest = command.given_up_after, retry.first_delay, retry.longest_delay
          command.given_up_after, retry.first_delay, retry.longest_delay = 0.4, 0.01, 0.02
        end)

        after_each(function()
          command.given_up_after, retry.first_delay, retry.longest_delay = usual, first, longest
        end)

        local function in_file()
          return at:query { "mktemp", "/tmp/rb-stall.XXXXXX" }
        end

        local function tries(path)
          return select(2, at:read(path):gsub("x", ""))
        end

        it("is tried again when it reads, and that is said", function()
          local path = in_file()
          local seen = events_of("notice", function()
            assert.equal("there", at:query_sh([[
              printf x >>"$1"
              if [ "$(wc -c <"$1")" -lt 3 ]; then sleep 20; fi
              echo there]], path))
          end)
          assert.equal(3, tries(path))
          assert.equal(2, #seen)
          assert.matches("said nothing for .* and was given up; trying again", seen[1].text)
          at:remove(path)
        end)

        it("is tried ten times at most", function()
          local path = in_file()
          command.given_up_after = 0.2
          local err = raised(at.query_sh, at, [[printf x >>"$1"; sleep 20]], path)
          assert.same({ "lost", "ESTALLED", 10 }, { err.kind, err.code, err.tries })
          command.given_up_after = 5
          assert.equal(10, tries(path))
          at:remove(path)
        end)

        it("is not tried again when it changes something: nobody knows what it did", function()
          local path = in_file()
          for _, change in ipairs {
            function() at:sh([[printf x >>"$1"; sleep 20]], path) end,
            function() at:exec { "sh", "-c", [[printf x >>"$1"; sleep 20]], "sh", path } end,
          } do
            local err = raised(change)
            assert.same({ "lost", "ESTALLED", at.name }, { err.kind, err.code, err.target })
            assert.matches("nobody knows what it did", err.message)
            assert.matches("stall = false", err.hint)
          end
          assert.equal(2, tries(path))
          at:remove(path)
        end)

        it("may say that it is so", function()
          assert.equal("x", at:query { "sh", "-c", "sleep 0.8; echo x", stall = false })
          assert.equal("x", at:query_sh("sleep 0.8; echo x", { stall = 5 }))
          at:run { "sleep", "0.8", stall = false }
          assert.equal(0, (at:exec { "sleep", "0.8", stall = 10 }))
          assert.equal("lost", raised(at.run, at, { "sleep", "5", stall = 0.1 }).kind)
          assert.equal("usage", raised(at.run, at, { "true", stall = true }).kind)
        end)

        it("is not, as long as it prints or reads", function()
          assert.equal("1\n2\n3\n4\n5\n6", at:query { "sh", "-c", "for i in 1 2 3 4 5 6; do echo $i; sleep 0.15; done" })
          at:run { "sh", "-c", "for i in 1 2 3 4 5 6; do echo $i >&2; sleep 0.15; done" }
          assert.equal("", at:query { "sh", "-c", "while dd bs=1000000 count=1 2>/dev/null | grep -q .; do sleep 0.01; done",
            stdin = ("x"):rep(12000000), stall = 2 })
        end)
      end)

      -- sshd itself waits for all that holds the output, as everybody knows it from ssh.
      it("does not wait for what is left in the background", kind[1] ~= "ssh" and function()
        local began = time.now()
        at:sh("sleep 20 & echo $! >/dev/null")
        assert.is_true(time.now() - began < 8)
      end or function()
        local began = time.now()
        at:sh("sleep 20 >/dev/null 2>&1 </dev/null &")
        assert.is_true(time.now() - began < 8)
      end)
    end)

    describe("with files", function()
      local dir

      before_each(function()
        local path = at:query { "mktemp", "-d", "/tmp/rb-place.XXXXXX" }
        dir = at:dir(path)
      end)

      after_each(function()
        at:remove(dir.path, { tree = true })
      end)

      it("writes and reads every byte", function()
        local bytes = {}
        for i = 0, 255 do
          bytes[#bytes + 1] = string.char(i)
        end
        local text = table.concat(bytes):rep(1000)
        dir:write("a b\n'", text)
        assert.is_true(dir:read "a b\n'" == text)
        dir:write("empty", "")
        assert.equal("", dir:read "empty")
        assert.same({ { name = "a b\n'", type = "file" }, { name = "empty", type = "file" } }, dir:list())
      end)

      it("keeps mode and owner of what it replaces, and sets what it is told", function()
        dir:write("a", "1", { mode = 416 })
        assert.equal(416, dir:stat("a").mode)
        dir:write("a", "2")
        assert.equal(416, dir:stat("a").mode)
        dir:write("a", "3", { mode = "0600", owner = "12:34" })
        dir:write("a", "4")
        local st = dir:stat "a"
        assert.same({ 384, 12, 34, 1, "file" }, { st.mode, st.uid, st.gid, st.size, st.type })
      end)

      it("writes through a link and not over it", function()
        dir:write("real", "1")
        at:sh([[ln -s real "$1"/link]], dir.path)
        dir:write("link", "2")
        assert.equal("2", dir:read "real")
        assert.equal("link", dir:stat("link").type)
        assert.equal("file", dir:stat("link", { follow = true }).type)
      end)

      it("never takes a cut stream for an end", function()
        dir:write("a", "old")
        local command = require "runbook.place.command"
        local usual = command.run
        command.run = function(p, argv, o) -- what arrives when the connection is cut in the middle
          o.stdin = type(o.stdin) == "string" and o.stdin:sub(1, 3) or o.stdin
          return usual(p, argv, o)
        end
        local ok, err = pcall(dir.write, dir, "a", "new content")
        command.run = usual
        assert.is_false(ok)
        assert.matches("only 3 of 11 bytes arrived", tostring(err))
        assert.equal("old", dir:read "a")
        assert.equal(1, #dir:list())
      end)

      it("writes a secret without telling its length", function()
        local word = secret.new("key", "hush\0hush\n")
        dir:write("a", word, { mode = 384 })
        assert.equal("hush\0hush\n", dir:read "a")
        dir:put({ bytes = word }, "b")
        assert.equal("hush\0hush\n", dir:read "b")
        assert.equal(2, #dir:list())
      end)

      it("tells kinds of failure apart", function()
        dir:write("a", "x")
        assert.equal("missing", raised(dir.read, dir, "nonesuch").kind)
        assert.equal("missing", raised(dir.list, dir, "nonesuch").kind)
        assert.equal("conflict", raised(at.write, at, dir.path, "x").kind)
        assert.equal("conflict", raised(dir.ensure_dir, dir, "a").kind)
        assert.equal("conflict", raised(at.remove, at, dir.path).kind)
        assert.equal("missing", raised(dir.write, dir, "no/where", "x").kind)
        assert.is_false(dir:exists "nonesuch")
        assert.is_false(dir:exists "a/b")
        assert.is_nil(dir:stat "nonesuch")
        assert.is_true(dir:exists "a")
      end)

      it("wants absolute paths, and names that stay in the directory", function()
        assert.equal("usage", raised(at.read, at, "etc/passwd").kind)
        assert.equal("usage", raised(dir.read, dir, "../x").kind)
        assert.equal("usage", raised(dir.read, dir, "/etc/passwd").kind)
        assert.equal("usage", raised(dir.remove, dir).kind)
        assert.equal(dir.path .. "/a/b", dir:dir("a"):join "b")
      end)

      it("makes directories once", function()
        dir:ensure_dir("a/b c", { mode = 448, owner = "5:6" })
        dir:ensure_dir("a/b c")
        local st = dir:stat "a/b c"
        assert.same({ "directory", 448, 5, 6 }, { st.type, st.mode, st.uid, st.gid })
      end)

      it("renames a directory beside itself, and never over another", function()
        dir:ensure_dir "a/b"
        dir:ensure_dir "c"
        local away = dir:dir("a"):rename "a, away"
        assert.equal(dir.path .. "/a, away", away.path)
        assert.equal("directory", dir:stat("a, away/b").type)
        assert.equal("exit", raised(away.rename, away, "c").kind)
        assert.equal("usage", raised(away.rename, away, "../c").kind)
        away:rename "a"
        dir:remove("c", { tree = true })
        dir:remove("a", { tree = true })
      end)

      it("removes what it is told and refuses what it must not", function()
        dir:ensure_dir "a/b"
        at:sh([[ln -s / "$1"/root; ln -s nowhere "$1"/broken]], dir.path)
        assert.equal("conflict", raised(dir.remove, dir, "a").kind)
        dir:remove("a", { tree = true })
        dir:remove("root", { tree = true })
        dir:remove "broken"
        dir:remove "never there"
        assert.same({}, dir:list())
        for _, path in ipairs { "/", "//", "/tmp/..", "/tmp/./a" } do
          assert.equal("usage", raised(at.remove, at, path).kind, path)
        end
        assert.equal("usage", raised(at.remove, at, "/tmp", { tree = true }).kind)
        assert.equal("usage", raised(at.remove, at, "").kind)
      end)

      it("sees the room and the mount", function()
        local space = dir:space()
        assert.is_true(space.bytes_total > 0 and space.bytes_free <= space.bytes_total)
        assert.is_true(space.inodes_free <= space.inodes_total)
        assert.is_string(space.type)
        local mount = at:mount "/proc/self"
        assert.same({ "proc", "/proc" }, { mount.type, mount.point })
        assert.is_false(mount.read_only)
        assert.equal("missing", raised(at.mount, at, "/nonesuch/at/all").kind)
      end)

      it("copies files there and back", function()
        local folder = world.folder "local"
        local text = ("0123456789abcdef\n"):rep(100000)
        world.write(folder .. "/a", text)
        dir:put(folder .. "/a", "copy", { mode = 384 })
        assert.equal(384, dir:stat("copy").mode)
        dir:get("copy", folder .. "/b")
        assert.is_true(world.read(folder .. "/b") == text)
        assert.equal("missing", raised(dir.get, dir, "nonesuch", folder .. "/c").kind)
        assert.is_nil(world.read(folder .. "/c"))
        assert.equal("missing", raised(dir.put, dir, folder .. "/nonesuch", "d").kind)
        assert.equal("2", (world.must("ls -A " .. folder .. " | wc -l")))
      end)

      describe("undoing", function()
        -- The inverse of a verb called with these arguments, then the verb itself.
        local function undo_of(name, verb, ...)
          local inverse = effect.reading(effect.find(name).inverse, at, ...)
          verb(at, ...)
          return inverse
        end

        local function undo(inverse)
          return effect.call(table.unpack(inverse))
        end

        it("puts back what a write replaced, as often as it is asked", function()
          local path = dir:join "a"
          at:write(path, "old\0", { mode = 416, owner = "7:8" })
          local inverse = undo_of("place.write", at.write, path, "new", { mode = 384 })
          for _ = 1, 2 do
            undo(inverse)
            local st = at:stat(path)
            assert.same({ "old\0", 416, 7, 8 }, { at:read(path), st.mode, st.uid, st.gid })
          end
        end)

        it("takes a new file away, and leaves one that somebody changed", function()
          local path = dir:join "a"
          local inverse = undo_of("place.write", at.write, path, "new", {})
          undo(inverse)
          undo(inverse)
          assert.is_false(at:exists(path))
          at:write(path, "new")
          at:sh([[echo more >>"$1"]], path)
          assert.equal("conflict", raised(undo, inverse).kind)
          assert.equal("newmore\n", at:read(path))
        end)

        it("puts back after half of a write", function()
          local path = dir:join "a"
          at:write(path, "old")
          local inverse = effect.reading(effect.find("place.write").inverse, at, path, "new", {})
          undo(inverse) -- the write never happened
          assert.equal("old", at:read(path))
        end)

        it("takes copies away, there and here, and leaves those that somebody changed", function()
          local folder = world.folder "copies"
          world.write(folder .. "/a", "one")
          local put = undo_of("place.put", function(_, path, from) at:put(from, path) end, dir:join "a", folder .. "/a", {})
          local get = undo_of("place.get", at.get, dir:join "a", folder .. "/b")
          undo(get)
          undo(get)
          assert.is_nil(world.read(folder .. "/b"))
          at:get(dir:join "a", folder .. "/b")
          world.write(folder .. "/b", "mine")
          assert.equal("conflict", raised(undo, get).kind)
          dir:write("a", "theirs")
          assert.equal("conflict", raised(undo, put).kind)
          dir:write("a", "one")
          undo(put)
          undo(put)
          assert.same({}, dir:list())
        end)

        it("keeps no secret for the journal", function()
          local path = dir:join "a"
          at:write(path, "old secret")
          assert.is_nil(effect.reading(effect.find("place.write").inverse, at, path, (secret.new("s", "new secret")), {}))
        end)

        it("removes the directories it made while nobody uses them", function()
          local inverse = undo_of("place.ensure_dir", at.ensure_dir, dir:join "a/b/c", {})
          dir:write("a/b/theirs", "x")
          assert.equal("conflict", raised(undo, inverse).kind)
          assert.equal("x", dir:read "a/b/theirs")
          dir:remove "a/b/theirs"
          undo(inverse)
          undo(inverse)
          assert.same({}, dir:list())
        end)

        it("gives a directory its old mode and owner", function()
          at:ensure_dir(dir:join "a", { mode = 448, owner = "3:4" })
          local inverse = undo_of("place.ensure_dir", at.ensure_dir, dir:join "a", { mode = 493, owner = "5:6" })
          undo(inverse)
          undo(inverse)
          local st = dir:stat "a"
          assert.same({ 448, 3, 4 }, { st.mode, st.uid, st.gid })
        end)
      end)
    end)

    it("is itself again from its reference", function()
      local again = place.open(at:reference())
      assert.equal(at.name, again.name)
      assert.equal("x", again:query { "echo", "x" })
      assert.equal(tostring(at:dir "/tmp"), tostring(place.open(at:dir("/tmp"):reference())))
    end)
  end)
end

describe("places", function()
  local here = place.here

  it("name a wrong option and the nearest right one", function()
    local err = raised(here.query, here, { "true", timeuot = 5 })
    assert.equal("usage", err.kind)
    assert.matches("did you mean `timeout`", err.message)
    assert.equal("usage", raised(here.query, here, "ls -l").kind)
    assert.equal("usage", raised(here.query, here, {}).kind)
    assert.equal("usage", raised(here.sh, here, "echo", nil, "x").kind)
  end)

  it("tell a full disk from other failures, and leave what was there", function()
    local small <close> = world.filesystem { size = "1M", kind = "tmpfs" }
    here:write(small.path .. "/a", "old")
    local err = raised(here.write, here, small.path .. "/a", ("x"):rep(2 << 20))
    assert.equal("full", err.kind)
    assert.equal("old", here:read(small.path .. "/a"))
    assert.equal(1, #here:list(small.path))
  end)

  it("do not remove a mount point", function()
    local small <close> = world.filesystem { size = "1M", kind = "tmpfs" }
    here:write(small.path .. "/a", "x")
    assert.equal("busy", raised(here.remove, here, small.path, { tree = true }).kind)
    assert.equal("x", here:read(small.path .. "/a"))
    local mount = here:mount(small.path .. "/a")
    assert.same({ "tmpfs", small.path, "spec" }, { mount.type, mount.point, mount.source })
  end)

  it("give arguments of commands the results of steps and marks of unknowns", function()
    local unknown = require "runbook.unknown"
    local command = require "runbook.place.command"
    local argv = command.argv({ "echo", unknown.new "address" }, "spec")
    assert.is_true(unknown.is(argv[2]))
  end)

  it("end a command with its task", function()
    local marker = ("rb-spec-%d"):format(world.pid)
    local t = task.spawn(function() here:run { "sh", "-c", "sleep 61; :", marker } end)
    world.wait_until("the command to start", function() return select(2, world.sh("pgrep -f " .. marker:gsub("^r", "[r]"))) == 0 end)
    t:cancel()
    task.join(t)
    world.wait_until("its end", function() return select(2, world.sh("pgrep -f " .. marker:gsub("^r", "[r]"))) ~= 0 end)
  end)
end)
