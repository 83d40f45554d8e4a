-- The far side's program where it is not root, on either side.

local far = require "spec.support.far"
local frames = require "spec.support.frames"
local oracle = require "spec.support.oracle"
local world = require "spec.world"

describe("the far side's program without root", function()
  local frame, number, text = frames.frame, frames.number, frames.text
  local pair, program

  before_each(function()
    pair = far.pair()
    program = pair.folder .. "/far"
    -- the suite's folders are nobody else's
    world.must(("chmod 711 %s/.. && cp %s/far/runbook-far %s && chmod 755 %s"):format(pair.folder, world.build, program, program))
  end)

  local function as(uid)
    return ("setpriv --reuid %d --regid %d --clear-groups %s"):format(uid, uid, program)
  end

  local function line(sender, receiver)
    return ("%s send %s | %s receive %s"):format(sender, pair.source, receiver, pair.target)
  end

  local function failures(outcome)
    local found = {}
    for _, f in ipairs(outcome.failures) do
      local key = f.status .. " " .. f.code
      found[key] = (found[key] or 0) + f.count
    end
    return found
  end

  local function identical()
    world.must(("touch -r %s %s"):format(pair.source, pair.target))
    oracle.identical(pair.source, pair.target)
  end

  it("keeps all that is its own, in directories that are closed to it, too", function()
    world.must(([[cd %s && mkdir -p ann/closed/below/open ann/dark && cd ann && for d in . closed closed/below closed/below/open dark; do
      for m in 000 200 444 755 1644; do echo $m > $d/f$m; chmod $m $d/f$m; done; ln -s x $d/link; mkfifo $d/pipe; ln $d/f444 $d/hard; done
      head -c 2000000 /dev/urandom > closed/large; chmod 0 closed/below dark; chmod 555 closed
      chown -hR 1234:1234 ..; chown 1234:1234 %s]]):format(pair.source, pair.target))
    local before = oracle.digest(pair.source)
    assert.same({}, pair:copy({ line = line(program, as(1234)) }).failures)
    identical()
    -- into directories that are closed by now, and only through some
    world.must(([[cd %s/ann && echo new > closed/below/open/new; echo new >> closed/below/open/f000; rm closed/below/f444;
      echo x > dark/another; ln -f dark/f755 dark/pipe; chmod 640 closed/f444
      setfattr -n user.x -v y closed/below/open/f200; chown -hR 1234:1234 .]]):format(pair.source))
    local changed = oracle.digest(pair.source)
    assert.is_true(before ~= changed)
    local closed = world.must(("stat -c '%%a %%Y' %s/ann/closed"):format(pair.target))
    assert.same({}, pair:copy({ line = line(program, as(1234)), deletions = true }).failures)
    assert.equal(closed, world.must(("stat -c '%%a %%Y' %s/ann/closed"):format(pair.target)))
    identical()
    assert.equal(changed, oracle.digest(pair.source))
  end)

  it("says of each name what it could not keep, and lets nobody run it as somebody else", function()
    world.must(([[mkdir %s/ann && cd %s/ann && echo 1 > mine; echo 2 > theirs; echo 3 > suid; mknod null c 1 3; ln -s x link; mkdir dir;
      chown 1234:1234 .. . mine
      chown -h 5:5 theirs suid link dir; chmod 4755 suid; chown 1234:1234 %s]]):format(pair.source, pair.source, pair.target))
    local outcome = pair:copy { line = line(program, as(1234)) }
    assert.same({ ["unkept EPERM"] = 4, ["target EPERM"] = 1 }, failures(outcome))
    for _, f in ipairs(outcome.failures) do
      assert.truthy(f.words:find(f.status == "unkept" and "owner 5:5" or "not permitted"), f.words)
    end
    assert.equal("755 1234\n644 1234", world.must(("cd %s/ann && stat -c '%%a %%u' suid theirs"):format(pair.target)))
    assert.equal("1\n2\n3", world.must(("cd %s/ann && cat mine theirs suid"):format(pair.target)))
  end)

  it("keeps all of it when it is to be its own", function()
    world.must(([[mkdir %s/ann && cd %s/ann && echo 1 > mine; echo 2 > theirs; ln -s x link; mkdir dir; echo x > dir/x; ln theirs hard;
      chown -h 5:5 theirs link dir
      chmod 4755 theirs; chown 1234:1234 %s]]):format(pair.source, pair.source, pair.target))
    assert.same({}, pair:copy({ owner = "1234:1234", line = line(program, as(1234)):gsub("$", " --owner=1234:1234") }).failures)
    oracle.identical(pair.source .. "/ann", pair.target .. "/ann", { owner = "1234:1234" })
  end)

  it("says what it cannot read, and brings the rest", function()
    world.must(([[mkdir -p %s/ann/closed %s/bob && cd %s/ann && echo 1 > open; echo 2 > secret; chmod 600 secret; echo 3 > closed/in;
      chmod 700 closed; echo 4 > ../bob/x; chmod 700 ../bob]])
      :format(pair.source, pair.source, pair.source))
    local before = oracle.digest(pair.source)
    pair:scan()
    local outcome = pair:copy { scan = false, line = line(as(1234), program) }
    assert.same({ ["source EACCES"] = 5 }, failures(outcome))
    assert.equal("1", world.must(("cat %s/ann/open"):format(pair.target)))
    assert.equal("", world.must(("find %s -type f ! -name open"):format(pair.target)))
    assert.equal(before, oracle.digest(pair.source))
    -- and whoever scans says it, too: of names below nothing is known
    local output = far.run(frame("O", number(1), number(0), number(0)) .. frame "G", as(1234) .. " scan " .. pair.source)
    local problems, seen, unit = {}, {}, nil
    for _, f in ipairs(frames.all(output)) do
      local r = frames.reader(f.payload)
      if f.type == "U" then
        unit = r:text()
      elseif f.type == "P" then
        local path, error, what = r:text(), r:number(), r:text()
        table.insert(problems, ("%s/%s %d %s"):format(unit, path, error, what))
      elseif f.type == "E" then
        r:number()
        seen[unit .. "/" .. r:text()] = true
      end
    end
    table.sort(problems)
    assert.same({ "ann/closed 13 open", "bob/ 13 open" }, problems)
    assert.is_true(seen["ann/secret"])
    -- hashes of what it may not read, likewise
    local proofs = {}
    output = far.run(frame("B", text "ann") .. frame("K", number(0), text "open") .. frame("K", number(1), text "secret") ..
      frame("K", number(2), text "closed/in")
      .. frame("K", number(3), text "none") .. frame "Q", as(1234) .. " prove " .. pair.source)
    for _, f in ipairs(frames.all(output)) do
      local r = frames.reader(f.payload)
      if f.type == "k" then
        local index = r:number()
        proofs[index] = r:number()
      end
    end
    assert.same({ [0] = 0, 13, 13, 2 }, proofs)
  end)
end)
