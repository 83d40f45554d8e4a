-- The report of a move between two real servers, with a home that failed, a resume, one left out and one that vanished, names of
-- odd bytes, and a rollback; and what a browser makes of its page.

local command = require "spec.support.command"
local json = require "runbook.json"
local lab = require "spec.support.lab"
local world = require "spec.world"

local BAD = "J\xf6rg\nx"
local LONG = ("long"):rep(60)

describe("the report of a move", function()
  local old, new, folder, model, markdown, page

  local function end_of(m)
    return ("\n  ssh: %s\n  port: %d\n  user: %s\n  sudo: true\n  path: /srv/homes\n  host_key: %s\n  identity: %s\n"):format(
      m.address, m.port, m.user_sudo, m.fingerprint, m.key)
  end

  local function runbook(code, ...)
    local r = command.run(folder, { ... })
    assert.equal(code, r.code, r.err)
    return r
  end

  setup(function()
    old, new = world.sshd { name = "nfs-old" }, world.sshd { name = "nfs-new" }
    lab.fresh(old, "/srv/homes")
    lab.fresh(new, "/srv/homes")
    old:must(([[cd /srv/homes && for home in ann bob cyd %s %s '<script>alert(1)<' 'd|e`f' $(seq -f user-%%g 8); do
      mkdir -p "$home/work" && echo hello > "$home/work/name" && chown -R 1000:1000 "$home"; done; echo loose > README]])
      :format(world.quote(BAD), LONG))
    folder = command.folder {
      ["homes.yaml"] = ("from:%sto:%swindow: 1h\nquiet: 1s\nreceipts: receipts.json\n"):format(end_of(old), end_of(new)),
    }
    runbook(0, "run", "nfs-move.lua", "--params", "homes.yaml", "--no-input", "--until", "bulk")
    new:must "mkdir /srv/aside && mv /srv/homes/bob /srv/aside/ && ln -s /srv/aside/bob /srv/homes/bob"
    old:must "echo more > /srv/homes/bob/more; rm -r /srv/homes/cyd"
    runbook(1, "resume", "--no-input", "--done", "stop-writers=ada")
    runbook(0, "resume", "--no-input", "--done", "stop-writers=ada", "--leave", "bob", "--reason", "left us in <May>")
    model = command.records(runbook(0, "show", "--report", "--json").out)[2]
    markdown = runbook(0, "show", "--report", "-o", "-").out
    runbook(0, "show", "--report", "-o", ".")
    page = folder .. "/homes-1.html"
  end)

  teardown(function()
    old:close()
    new:close()
  end)

  it("opens with what was moved, from where to where, and how it ended", function()
    assert.truthy(markdown:find(("14 of 15 homes (14 files, 84 bytes) moved from %s:/srv/homes to %s:/srv/homes; both ends are proven the "
      .. "same, and one was left out on purpose."):format(old.address, new.address), 1, true), markdown:sub(1, 500))
  end)

  it("tells each process and each try of a step", function()
    local ended, tries = {}, {}
    for i, process in ipairs(model.processes) do
      ended[i] = process.outcome
      assert.matches("^root@", process.who)
    end
    assert.same({ "waiting", "failed", "done" }, ended)
    for _, try in ipairs(model.tries) do
      tries[#tries + 1] = try.step ~= "preflight" and ("%d %s %s"):format(try.process, try.step, try.outcome) or nil
    end
    assert.same({ "1 bulk done", "2 converge failed", "3 converge done", "3 stop-writers done", "3 final done", "3 verify done" }, tries)
    assert.same({ done = 14, left = 1 }, { done = model.steps[3].units.done, left = model.steps[3].units.left })
  end)

  it("sets the forecast beside what was measured", function()
    local lock = model.lock_out
    assert.same({ "stop-writers", 3600 }, { lock.from, lock.forecast.window })
    assert.truthy(lock.forecast.low > 0 and lock.forecast.low <= lock.forecast.high)
    assert.truthy(lock.seconds > 1 and lock.ended > lock.began and lock.forecast.at <= lock.began)
    assert.same({ "who", "ada" }, { model.questions[1].rows[1][1], model.questions[1].answer })
  end)

  it("has the receipts of all that is there, and says what is not and why", function()
    local levels, copy = {}, model.copies[1]
    for _, one in ipairs(copy.receipts) do
      levels[one.unit] = one.level
    end
    assert.same({ "hashed", "hashed", "left", nil }, { levels["J%F6rg%0Ax"], levels["."], levels.bob, levels.cyd })
    assert.same({ 14, 1, "hashed" }, { copy.total.hashed, copy.total.left, copy.level })
    local kinds = { copy.passes[1].kind, copy.passes[2].kind, copy.passes[3].kind }
    assert.same({ "bulk", "converge", "final" }, kinds)
    assert.truthy(markdown:find("| set aside | set cyd aside: it is gone from the source |", 1, true), markdown)
    assert.truthy(markdown:find("| left out | `bob` | left us in &lt;May&gt; | root@", 1, true), markdown)
    assert.equal("hashed", json.decode(world.read(folder .. "/receipts.json")).units["ann"].level)
  end)

  it("says what failed, what was changed by hand, and that nothing is left", function()
    assert.same({ "bob", "EINWAY" }, { model.failures[1].unit, model.failures[1].error.code })
    local by_hand = 0
    for _, one in ipairs(model.effects) do
      by_hand = by_hand + (one.by_hand and 1 or 0)
    end
    assert.truthy(by_hand > 5)
    for _, one in ipairs(model.obligations) do
      assert.equal("met", one.state)
    end
    assert.truthy(#model.obligations > 3)
    assert.truthy(markdown:find("\n- left behind: nothing\n", 1, true))
    assert.truthy(markdown:find("| receipts.json | `" .. folder .. "/receipts.json` | `verify` |", 1, true))
  end)

  it("is read in a browser: wide and narrow, light and dark, and on paper", function()
    local views = json.decode((world.must("python3 spec/world/browser.py " .. page):match "%[.*$"))
    assert.equal(4, #views)
    local looks = {}
    for _, view in ipairs(views) do
      local name = ("%d %s"):format(view.view, view.scheme)
      for _, look in ipairs { view.closed, view.opened } do
        assert.same({ view.view, view.view }, { view.width, look.scroll }, name .. " scrolls sideways")
        assert.same({}, { table.unpack(look.beyond) }, name)
      end
      assert.same({}, { table.unpack(view.said) }, name)
      assert.equal(1, #view.asked_for) -- the page itself
      assert.same({ 0, true }, { view.scripts, view.reached })
      assert.truthy(view.text:find("<script>alert(1)<", 1, true))
      assert.truthy(view.text:find("J\\xf6rg\\x0ax", 1, true))
      assert.truthy(view.text:find("d|e`f", 1, true))
      assert.truthy(view.folded >= 10 and view.tables >= 12)
      assert.equal("Timeline", view.headings[2])
      looks[view.scheme] = view.page .. " " .. view.ink
      assert.truthy(view.paper == nil or view.paper > 10000)
    end
    assert.truthy(looks.light:find("^rgb%(255, 255, 255%)") and looks.dark:find("^rgb%(21, 24, 28%)"))
  end)

  it("tells of a run that was rolled back", function()
    new:must "rm -r /srv/homes /srv/aside && mkdir /srv/homes"
    runbook(0, "run", "nfs-move.lua", "--params", "homes.yaml", "--no-input", "--until", "bulk")
    runbook(0, "rollback", "homes-2")
    local back = command.records(runbook(0, "show", "homes-2", "--report", "--json").out)[2]
    assert.same({ "rolled-back", true, "rolled-back" }, { back.run.state, back.processes[2].rollback, back.processes[2].outcome })
    assert.same({ "bulk", true, "undone" }, { back.tries[3].step, back.tries[3].undo, back.tries[3].outcome })
    assert.truthy(runbook(0, "show", "homes-2", "--report", "-o", "-").out:find("was rolled back; what was copied stays on the target", 1, true))
  end)
end)
