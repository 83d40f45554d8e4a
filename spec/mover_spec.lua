-- Our own program at both ends (lib/runbook/copier/mover.lua) between real servers: the ways the data goes, what is known from
-- pass to pass, and what somebody else does to the target meanwhile. Whether two trees are the same is said by the oracle.

local errors = require "runbook.errors"
local lab = require "spec.support.lab"
local runs = require "spec.support.runs"
local store = require "runbook.store"
local world = require "spec.world"

describe("the mover", function()
  local servers, old, new, from

  setup(function()
    servers = lab.servers()
    old, new, from = servers.old, servers.new, servers.from
  end)

  teardown(function() servers:close() end)

  local function pair(o)
    return servers:pair(o)
  end

  before_each(function()
    lab.fresh(old, "/srv/homes")
    lab.fresh(new, "/srv/homes")
    old:must [[cd /srv/homes && for home in ann bob cyd; do
      mkdir -p $home/work/deep && echo $home > $home/work/name && echo d > $home/work/deep/er && ln $home/work/name $home/linked; done
      echo loose > README]]
  end)

  local function same(o)
    return servers:same(o)
  end

  local function clean()
    servers:clean()
  end

  local function check_said(homes, title)
    for _, check in ipairs(homes:checks()) do
      if check[1] == title then
        return check[2]()
      end
    end
  end

  describe("goes", function()
    local function moves(o)
      old:must "cd /srv/homes && mkdir -p bob cyd/work/deep && touch bob/linked && rm -rf dan && echo d > cyd/work/deep/er"
      lab.fresh(new, "/srv/homes")
      lab.must(function()
        local homes = pair(o)
        homes:bulk()
        old:must "cd /srv/homes && echo more >> ann/work/name && rm bob/linked && mkdir dan && echo d > dan/d && rm -r cyd/work/deep"
        homes:final()
        homes:verify()
        assert.equal("hashed", homes:receipts().level)
      end)
      same()
      clean()
    end

    it("by pulling, by pushing, or through us, as it is told", function()
      for route, words in pairs { pull = "the target pulls from", push = "the source pushes to", operator = "all bytes go through this machine" } do
        moves { route = route }
        lab.must(function()
          assert.truthy(check_said(pair { route = route }, "the two ends reach each other"):find(words, 1, true), route)
        end)
      end
    end)

    it("with a key that is bound to no address, where the other end sees another one than is known", function()
      local number = 0 -- nobody takes it for a loopback address
      for byte in old.address:gmatch "%d+" do
        number = number << 8 | math.tointeger(tonumber(byte))
      end
      local seen = lab.place(old, { seen_from_target = ("%d:%d"):format(number, old.port) })
      lab.fresh(new, "/srv/homes")
      local events = lab.must(function()
        local homes = pair { from = seen:dir "/srv/homes" }
        homes:bulk()
        old:must "head -c 5M /dev/urandom > /srv/homes/bob/work/new" -- too much to go through us
        homes:converge { within = "1h" }
      end)
      local told = 0
      for _, event in ipairs(runs.only(events, "notice")) do
        told = told + (event.text:find("the key is not bound to one", 1, true) and 1 or 0)
      end
      assert.equal(1, told)
      same()
      clean()
    end)

    it("from a file server, whose clock nobody knows", function()
      local slow <close> = world.slowfs { from = "/srv/homes", at = "/srv/slow", machine = old, microseconds = 0 }
      lab.must(function()
        local homes = pair { from = from:dir "/srv/slow" }
        homes:bulk()
        assert.truthy(homes.behind)
        old:must "cd /srv/slow && echo ANN > ann/work/name && touch -r bob/linked ann/work/name && rm bob/linked && mkdir dan && echo d > dan/d"
        homes:final()
        homes:verify()
      end)
      assert.truthy(slow:calls() > 0)
      same()
      clean()
    end)

    it("the other way round where only one end reaches the other, and through us where none does", function()
      local hidden_old = lab.place(old, { seen_from_target = "127.0.0.1:9" })
      local hidden_new = lab.place(new, { seen_from_target = "127.0.0.1:9" })
      moves { from = hidden_old:dir "/srv/homes" }
      moves { from = hidden_old:dir "/srv/homes", to = hidden_new:dir "/srv/homes" }
      lab.must(function()
        local text = check_said(pair { from = hidden_old:dir "/srv/homes" }, "the two ends reach each other")
        assert.truthy(text:find("the source pushes to " .. new.address, 1, true), text)
        text = check_said(pair { from = hidden_old:dir "/srv/homes", to = hidden_new:dir "/srv/homes" }, "the two ends reach each other")
        assert.truthy(text:find("all bytes go through this machine", 1, true), text)
        assert.truthy(text:find("a firewall rule is missing: from nfs-new to 127.0.0.1, TCP port 9", 1, true), text)
      end)
    end)

    it("through us when little is left, and by its way when much is", function()
      local function by_jobs(amounts, o)
        lab.fresh(new, "/srv/homes")
        local seen = lab.must(function()
          local homes = pair(o)
          homes:bulk()
          for _, amount in ipairs(amounts) do
            old:must(("cd /srv/homes && head -c %s /dev/urandom > bob/work/new && rm -f cyd/linked && echo >> ann/work/name"):format(amount))
            homes:final()
          end
          homes:verify()
        end)
        same()
        clean()
        local passes = {}
        for _, event in ipairs(runs.only(seen, "job")) do
          passes[tonumber(event.name:match "^pass%-(%d+)")] = true
        end
        return passes
      end
      assert.same({ true, nil, true }, by_jobs { "1M", "5M" })
      assert.same({ true, true }, by_jobs({ "1M" }, { route = "pull" }))
    end)

    it("nowhere when the way that was asked for is not there, and says which rule is missing", function()
      local hidden = lab.place(new, { seen_from_target = "127.0.0.1:9" })
      local err = lab.live(function() pair({ to = hidden:dir "/srv/homes", route = "push" }):bulk() end)
      assert.equal("EROUTE", err.code)
      assert.truthy(err.hint:find("from nfs-old to 127.0.0.1, TCP port 9", 1, true), err.hint)
      clean()
    end)
  end)

  -- What the key of a pass opens, asked by somebody who stole it.
  it("lets the key of a pass do nothing but what the pass needs", function()
    old:must "mkdir -p /srv/other && echo secret > /srv/other/file && printf '#!/bin/sh\necho ran \"$@\"\n' > /srv/far && chmod 755 /srv/far"
    local forced = require("runbook.copier.pipe").forced
    local function ask(kind, request)
      local program = { path = "/srv/far" }
      local line = forced {
        route = { kind = kind }, programs = { from = program, to = program }, pair = { from = from:dir "/srv/homes", to = from:dir "/srv/homes" },
      }
      return (old:sh(("SSH_ORIGINAL_COMMAND=%s; export SSH_ORIGINAL_COMMAND; %s </dev/null"):format(world.quote(request), line)))
    end
    for kind, word in pairs { pull = "runbook-send", push = "runbook-receive" } do
      for _, request in ipairs {
        "", "true", "sh -c id", "cat /srv/other/file", "runbook-sendx", "runbook-far", word .. " /srv/other", word .. " ..", word .. " -",
        word .. " --", word .. " --root=/", word .. " --gently;id", word .. " --rate=1 /srv/other", word .. " $(id)", word .. " `id`",
        word .. " --help", word .. "\nid", word .. " *", kind == "pull" and "runbook-receive" or "runbook-send",
        word .. (kind == "pull" and " --sync" or " --gently"),
      } do
        local said = ask(kind, request)
        assert.truthy(said:find("runbook: refused", 1, true), ("%q was not refused: %s"):format(request, said))
        assert.falsy(said:find("ran", 1, true), request)
      end
    end
    assert.equal("ran send /srv/homes --behind=9 --gently --rate=5", ask("pull", "runbook-send --behind=9 --gently --rate=5"))
    assert.equal("ran receive /srv/homes --sync --owner=1:1", ask("push", "runbook-receive --sync --owner=1:1"))
  end)

  describe("knows", function()
    local function state(what)
      world.must(what:gsub("STATE", store.root() .. "/pairs"))
    end

    it("that nothing changed, and starts nothing then", function()
      lab.must(function() pair():bulk() end)
      local seen = lab.must(function()
        pair():bulk()
      end)
      assert.equal(0, lab.shards(seen))
      seen = lab.must(function()
        local homes = pair()
        homes:bulk()
        homes:converge { within = "1h" }
        homes:final()
        homes:final()
        homes:verify()
        assert.equal(0, homes:receipts().passes[4].files)
      end)
      assert.equal(0, lab.shards(seen))
      same()
      clean()
    end)

    it("what to do when all it knew is lost: the other machine compares everything", function()
      lab.must(function() pair():bulk() end)
      old:must "cd /srv/homes && echo more >> ann/work/name && rm -r bob/work && rm cyd/linked README && mkdir cyd/new && echo l > late"
      lab.must(function()
        local homes = pair()
        homes:final()
        homes:verify()
      end)
      same()
    end)

    it("what to do when all it knew is lost in the middle of a pass", function()
      lab.must(function() pair():bulk() end)
      old:must "cd /srv/homes && echo more >> ann/work/name && rm -r bob/work && echo late > cyd/late"
      new:must "cd /srv/homes && echo 'abcd open' > .runbook/stamp && touch ann/.rb~cut && echo more >> ann/work/name && cp -a cyd/linked cyd/late"
      lab.must(function()
        local homes = pair()
        homes:final()
        homes:verify()
      end)
      same()
      clean()
    end)

    it("when what it knows is of an older time than the target", function()
      lab.must(function()
        pair():bulk()
        state "cp -a STATE STATE.then"
        old:must "cd /srv/homes && echo more >> ann/work/name && rm -r bob/work && echo new > cyd/new && mkdir dan && echo d > dan/d"
        pair():converge { within = "1h" }
        state "rm -r STATE && mv STATE.then STATE"
        old:must "cd /srv/homes && rm cyd/new && echo even >> ann/work/name && echo back > bob/back && rm -r dan/d"
        local homes = pair()
        homes:final()
        homes:verify()
      end)
      same()
    end)

    it("when the target has lost its stamp, or what is known is nonsense", function()
      for _, damage in ipairs { "rm /srv/homes/.runbook/stamp", ": > /srv/homes/.runbook/stamp", "true" } do
        lab.fresh(new, "/srv/homes")
        old:must "cd /srv/homes && mkdir -p ann/gone && echo 1 > ann/gone/1 && echo 1 > bob/edited"
        lab.must(function()
          pair():bulk()
          new:must(damage)
          if damage == "true" then
            state "for f in $(find STATE -type f); do echo nonsense > $f; done"
          end
          old:must "cd /srv/homes && rm -r ann/gone && echo 2 > bob/edited"
          local homes = pair()
          homes:final()
          homes:verify()
        end)
        same()
      end
    end)

    it("nothing of other patterns of what is left out", function()
      old:must "cd /srv/homes && mkdir ann/.cache && echo c > ann/.cache/c && echo p > bob/p.pyc"
      lab.must(function()
        pair({ exclude = { ".cache/" } }):bulk()
        assert.equal("p", new:must "cat /srv/homes/bob/p.pyc; test ! -e /srv/homes/ann/.cache")
        pair({ exclude = { "*.pyc" } }):bulk()
        assert.equal("c", new:must "cat /srv/homes/ann/.cache/c")
        local homes = pair { exclude = { "*.pyc", ".cache/" } }
        old:must "rm -r /srv/homes/bob/p.pyc /srv/homes/ann/.cache"
        homes:final()
        homes:verify()
        assert.equal("pc", new:must "tr -d '\\n' < /srv/homes/bob/p.pyc; cat /srv/homes/ann/.cache/c")
        local all = pair()
        all:final()
        all:verify()
      end)
      same()
    end)

    it("that a target which was restarted may have lost what it was sent", function()
      lab.must(function()
        pair():bulk()
        new:crash()
        new:boot()
        new:must [[cd /srv/homes && was=$(stat -c %y ann/work/name) && printf '\0\0\0\n' > ann/work/name && touch -d "$was" ann/work/name]]
        local homes = pair { to = lab.place(new):dir "/srv/homes" }
        local err = select(2, pcall(homes.verify, homes))
        assert.truthy(errors.is(err, "conflict") and err.message:find("contents differ", 1, true), tostring(err))
      end)
    end)
  end)

  describe("leaves to others", function()
    local function refused(words, fn)
      local err = lab.live(fn)
      assert.truthy(err, "nobody noticed: " .. words)
      assert.truthy(err.message:find(words, 1, true), err.message)
      return err
    end

    it("what was edited on the target, when it was edited, removed or replaced at the source, too", function()
      for change in pairs {
        ["echo theirs > ann/work/name"] = true, ["rm ann/work/name ann/linked; echo theirs > ann/work/name"] = true,
        ["rm -r ann/work; echo theirs > ann/work"] = true,
        ["rm -r ann/work/name; mkdir ann/work/name; echo theirs > ann/work/name/x"] = true,
      } do
        for _, ours in ipairs { "echo longer > ann/work/name", "rm ann/work/name ann/linked", "rm -r ann/work; mkdir ann/work" } do
          lab.fresh(new, "/srv/homes")
          old:must "cd /srv/homes && rm -r ann && mkdir -p ann/work && echo ann > ann/work/name && ln ann/work/name ann/linked"
          local err = lab.live(function()
            pair():bulk()
            new:must("cd /srv/homes && " .. change)
            old:must("cd /srv/homes && " .. ours .. "; echo more > bob/more")
            local homes = pair()
            homes:final()
            homes:verify()
          end)
          assert.truthy(err, change .. " / " .. ours .. ": nobody noticed")
          assert.equal("conflict", err.kind, err.message)
          assert.equal("theirs", new:must "cd /srv/homes/ann && cat work 2>/dev/null || cat work/name 2>/dev/null || cat work/name/x")
          assert.equal("more", new:must "cat /srv/homes/bob/more", "the other homes are done")
          clean()
        end
      end
    end)

    it("what was put into a home on the target, also when the home's own is removed around it", function()
      refused("only on the target", function()
        pair():bulk()
        new:must "cd /srv/homes && echo theirs > ann/theirs && echo theirs > bob/work/deep/theirs"
        old:must "cd /srv/homes && rm -r bob/work/deep && echo 1 > ann/1"
        local homes = pair()
        local err = select(2, pcall(homes.final, homes))
        assert.truthy(errors.is(err, "conflict"), tostring(err))
        assert.equal("theirs\ntheirs", new:must "cat /srv/homes/ann/theirs /srv/homes/bob/work/deep/theirs")
        homes:verify()
      end)
      assert.equal("theirs\ntheirs", new:must "cat /srv/homes/ann/theirs /srv/homes/bob/work/deep/theirs")
      lab.live(function() pair():final() end) -- from another machine
      assert.equal("theirs\ntheirs", new:must "cat /srv/homes/ann/theirs /srv/homes/bob/work/deep/theirs")
    end)

    -- A pass that is cut makes names that nobody was told of; they are ours, but what stood there before it is not.
    it("what was put into a home before a pass that is cut in the middle", function()
      refused("only on the target", function()
        pair():bulk()
        new:must "cd /srv/homes && echo theirs > ann/theirs && echo theirs > bob/theirs && echo theirs > cyd/work/name"
        old:must "cd /srv/homes && head -c 60M /dev/urandom > ann/big && echo more > ann/work/name"
        local task = require "runbook.task"
        local killer = task.spawn(function()
          world.wait_until("a file on its way", function()
            return new:must "find /srv/homes/ann -name '.rb~*' -size +0 2>/dev/null || :" ~= ""
          end, 30)
          assert.truthy(new:kill "far receive" > 0)
        end)
        local homes = pair()
        pcall(homes.final, homes)
        task.join(killer)
        homes = pair()
        pcall(homes.final, homes)
        homes:verify()
      end)
      assert.equal("theirs\ntheirs\ntheirs", new:must "cd /srv/homes && cat ann/theirs bob/theirs cyd/work/name")
      clean()
    end)

    it("what it removed there, and brings it again", function()
      lab.must(function()
        pair():bulk()
        require("runbook.task").sleep(2.1) -- what is older may be known to be as it was
        new:must "cd /srv/homes && rm ann/work/deep/er && rm -r bob"
        old:must "cd /srv/homes && echo other > ann/work/deep/er"
        local homes = pair()
        homes:final()
        local ok, err = pcall(homes.verify, homes)
        if not ok then -- nothing changed in bob at the source, so maybe nobody looked
          assert.truthy(errors.is(err, "conflict") and err.message:find("bob", 1, true), tostring(err))
          homes:final()
          homes:verify()
        end
      end)
      same()
    end)

    it("a home it removed there, of which nothing changed at the source, once a proof has found that", function()
      lab.must(function()
        local homes = pair()
        homes:bulk()
        require("runbook.task").sleep(3) -- what is older than that is known by its digest
        homes:converge { within = "1h" }
        new:must "rm -r /srv/homes/bob"
        homes:final()
        local ok, err = pcall(homes.verify, homes)
        assert.is_false(ok)
        assert.truthy(errors.is(err, "conflict") and err.message:find("bob: missing on the target", 1, true), tostring(err))
        homes:final()
        homes:verify()
      end)
      same()
    end)

    it("what it changed in modes, owners and times only, and says so", function()
      for _, change in ipairs { "chmod 600 ann/work/name", "chown 7:7 ann/work/deep/er", "setfattr -n user.a -v b ann/work/deep/er",
        "touch -d @1 ann/work/name" } do
        lab.fresh(new, "/srv/homes")
        refused("ann: ", function()
          pair():bulk()
          new:must("cd /srv/homes && " .. change)
          local homes = pair()
          homes:final()
          homes:verify()
        end)
      end
    end)
  end)
end)
