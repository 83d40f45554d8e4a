-- A plan: every body runs against the real thing, nothing is changed, and a run makes exactly what was listed.

local book = require "runbook.book"
local effect = require "runbook.effect"
local plan = require "runbook.plan"
local places = require "spec.support.places"
local run = require "runbook.run"
local runs = require "spec.support.runs"
local ssh = require "runbook.ssh"
local store = require "runbook.store"
local walk = require "spec.support.walk"
local world = runs.world

-- More toys: one that shows before and after, one that takes whatever it is given, one that waits.
package.preload.plan_toys = function()
  local toy = {}
  toy.set = effect.verb {
    name = "plan_toy.set", class = "change", quiet = true,
    target = function() return "the shelf" end,
    summary = function(name, value) return ("set %s to %s"):format(name, tostring(value)) end,
    inverse = function(name) return { "plan_toy.set", name, world.made[name] or 0 } end,
    preview = function(name, value) return { before = tostring(world.made[name] or "nothing"), after = tostring(value) } end,
    body = function(name, value) world.made[name] = value end,
  }
  toy.wait = function(text)
    return effect.wait(text, function()
      world.made.waited = (world.made.waited or 0) + 1
      return "ready"
    end)
  end
  toy.drop = effect.verb {
    name = "plan_toy.drop", class = "destroy", summary = function(name) return "drop " .. name end,
    body = function(name) world.made[name] = nil end,
  }
  return toy
end

local function load(source, name)
  return runs.load('local shelf = require "plan_toys"\n' .. source, {}, name)
end

local function planned(source, o)
  return plan.make(load(source), o or {})
end

-- Steps of a plan by id.
local function steps(made)
  local by_id = {}
  for _, entry in ipairs(made.steps) do
    by_id[entry.id or ""] = entry
  end
  return by_id
end

local function summaries(entry)
  local list = {}
  for i, change in ipairs(entry.changes) do
    list[i] = (change.tilde and "~ " or "") .. change.summary
  end
  return list
end

before_each(runs.fresh)
after_each(runs.clean)

describe("a plan", function()
  it("lists changes with target, before, after, hand and undo, and makes none", function()
    world.made.lamp = 3
    local made = planned [[
      rb.step("a", "A", function() shelf.set("lamp", 4) toy.make "x" toy.scar "y" end)
      rb.section "Later"
      rb.step("b", "B", function() toy.again "z" shelf.drop "lamp" end)
    ]]
    assert.same({ lamp = 3 }, world.made)
    local a, b = steps(made).a, steps(made).b
    assert.same({ "set lamp to 4", "make x", "~ scar y" }, summaries(a))
    local set, make, scar = table.unpack(a.changes)
    assert.same({ "plan_toy.set", "change", "the shelf", "3", "4", "yes" },
      { set.verb, set.class, set.target, set.before, set.after, set.undo })
    assert.same({ "the toy box", "make x by hand", "yes" }, { make.target, make.by_hand, make.undo })
    assert.equal("no", scar.undo)
    assert.equal("partly", a.undo)
    assert.same({ "make z again", "drop lamp" }, summaries(b))
    assert.equal("destroy", b.changes[2].class)
    assert.same({ 5, 0 }, { made.changes, made.stops })
    assert.same({ "a", "section", "b" }, { made.steps[1].id, made.steps[2].kind, made.steps[3].id })
    assert.same({}, store.names())
  end)

  it("says many changes that are one to people in one line, and each with -v; a run makes them all", function()
    local source = [[
      local effect = require "runbook.effect"
      rb.step("a", "A", function()
        effect.part_of("the door", "shut it", function()
          effect.part_of("the lock", "turn it", function() shelf.set("key", 1) end)
          shelf.wait "until it is shut"
          shelf.set("bolt", 2)
        end)
        toy.make "x"
      end)
    ]]
    local made = planned(source)
    assert.same({ "set key to 1", "~ set bolt to 2", "~ make x" }, summaries(steps(made).a))
    local text = require("runbook.cli.plan").text(made, { params = {} }, 0, 92)
    assert.truthy(text:find("\n   1 a                the door: shut it  +yes\n +~ the toy box: make x\n"), text)
    assert.is_nil(text:find("bolt", 1, true) or text:find("until it is shut", 1, true), text)
    text = require("runbook.cli.plan").text(made, { params = {} }, 1, 92)
    assert.truthy(text:find("the shelf: set key to 1", 1, true) and text:find("waits: until it is shut", 1, true), text)
    assert.equal(0, (runs.start('local shelf = require "plan_toys"\n' .. source)))
    assert.same({ 1, 2 }, { world.made.key, world.made.bolt })
  end)

  it("counts no undo for what the run takes away by itself", function()
    local made = planned [[
      rb.step("a", "A", function() rb.lock(require "runbook.here":dir "/tmp") end)
      rb.step("b", "B", function() rb.lock(require "runbook.here":dir "/tmp") toy.scar "y" end)
    ]]
    assert.same({ "not needed", "no" }, { steps(made).a.undo, steps(made).b.undo })
  end)

  it("tries a host that lets nobody in once, and says so once", function()
    local relay <close> = require "spec.world".relay { to = places.machine(), stop_after = 1 }
    package.preload.plan_dead = function()
      return places.by_ssh { relay.address, port = relay.port, timeout = 0.3 }
    end
    finally(function() package.preload.plan_dead, package.loaded.plan_dead = nil, nil end)
    local checks = {}
    for i = 1, 12 do
      checks[i] = ('{ "check %d", function() dead:query { "true" } end }'):format(i)
    end
    local made = planned(([[
      local dead = require "plan_dead"
      rb.checks("look", "Look", { %s })
      rb.step("a", "A", function() dead:query { "true" } end)
    ]]):format(table.concat(checks, ", ")))
    assert.equal(1, relay:passed().connections)
    assert.same({ 0, 1 }, { made.checks.good, #made.checks.stop })
    assert.equal("check 1 (and 11 more)", made.checks.stop[1].title)
    assert.equal(steps(made).look.would_stop, steps(made).a.would_stop)
    relay:go()
    assert.equal("ready", places.by_ssh({ relay.address, port = relay.port }):query { "echo", "ready" })
  end)

  it("does reads, and shows what depends on them", function()
    world.made.box = 2
    local a = steps(planned [[
      rb.step("a", "A", function() for i = 1, toy.count "box" do toy.again("copy " .. i) end return toy.count "box" end)
    ]]).a
    assert.same({ "make copy 1 again", "make copy 2 again" }, summaries(a))
    assert.equal(2, a.reads)
    assert.same({ box = 2 }, world.made)
  end)

  it("knows the result of a step that only reads, and passes the others on", function()
    world.made.box = 2
    local made = steps(planned [[
      local size = rb.step("size", "Size", function() return toy.count "box" end)
      local one = rb.step("one", "One", function() return toy.make "one" end)
      rb.step("use", "Use", function() shelf.set("a", size() + 1) shelf.set("b", one) shelf.set("c", { from = 1 }) end)
      rb.step("read", "Read", function() toy.again "before" shelf.set("d", one()) toy.again "after" end)
      rb.step("next", "Next", function() toy.again "next" end)
    ]])
    assert.same({ "set a to 3", "set b to «unknown:one»", "set c to " }, { summaries(made.use)[1], summaries(made.use)[2],
      (summaries(made.use)[3]:gsub("table: .*", "")) })
    assert.same({ "make before again" }, summaries(made.read))
    assert.matches("^toys.lua:7: the rest depends on one$", made.read.ended)
    assert.is_nil(made.read.would_stop)
    assert.same({ "make next again" }, summaries(made.next))
    assert.is_nil(made.next.ended)
  end)

  it("marks with ~ what comes after something unknown was handed out, in that body only", function()
    local made = steps(planned [[
      rb.step("a", "A", function()
        toy.again "first"
        local what = toy.make "thing"
        toy.again "second"
        toy.again("made of " .. what)
        rb.say("it is " .. tostring(what) .. string.format(" %s", what))
      end)
      rb.step("b", "B", function() toy.again "third" end)
    ]])
    assert.same({ "make first again", "make thing", "~ make second again",
      "~ make made of «unknown:the result of make thing» again" }, summaries(made.a))
    assert.is_nil(made.a.ended)
    assert.same({ "make third again" }, summaries(made.b))
  end)

  it("ends a body at the line that needs what only a run can know, whatever the operator", function()
    local uses = { "u + 1", "1 - u", "u * 2", "u / 2", "u % 2", "u ^ 2", "-u", "u // 2", "u & 1", "u | 1", "u ~ 1", "~u", "u << 1",
      "u >> 1", "#u", "u < 1", "1 > u", "u <= u", "u()", "u == {}" }
    for _, use in ipairs(uses) do
      local a = steps(planned(([[
        rb.step("a", "A", function()
          local u = toy.make "thing"
          local x = %s
          toy.again("never " .. tostring(x))
        end)
      ]]):format(use))).a
      assert.same({ "make thing" }, summaries(a), use)
      assert.equal("toys.lua:6: the rest depends on the result of make thing", a.ended, use)
      assert.is_nil(a.would_stop, use)
    end
    assert.same({}, world.made)
  end)

  it("ends at loops over what is unknown, at a field that is set, and inside rb.try", function()
    for _, use in ipairs { "for _ in pairs(u) do end", "for _ in ipairs(u) do break end u.x = 1", "u.list.first = 2",
      "rb.try(function() return u + 1 end)", "pcall(function() return #u end)", "table.concat(u)", "string.rep('x', u)" } do
      local a = steps(planned(([[
        rb.step("a", "A", function()
          local u = toy.make "thing"
          %s
          toy.again "never"
        end)
      ]]):format(use))).a
      assert.same({ "make thing" }, summaries(a), use)
      assert.is_truthy(a.ended or a.would_stop, use)
    end
  end)

  it("lists waits and does not wait", function()
    local a = steps(planned [[
      rb.step("a", "A", function() shelf.wait "the other side" rb.sleep(3600) toy.again "then" end)
    ]]).a
    assert.same({ "the other side", "wait 3600 s" }, a.waits)
    assert.same({ "~ make then again" }, summaries(a))
    assert.same({}, world.made)
  end)

  it("shows the findings of checks, and what would stop the run", function()
    local made = planned [[
      local errors = require "runbook.errors"
      rb.checks("look", "Look", {
        { "fine", function() end },
        { "odd", function() return "the moon is full" end },
        { "bad", function() errors.raise { kind = "full", message = "no room" } end },
        { "sly", function() toy.make "in a check" end },
      })
      rb.step("a", "A", function() toy.again "a" end)
    ]]
    assert.same({ 1, "the moon is full", "no room" }, { made.checks.good, made.checks.know[1].text, made.checks.stop[1].error.message })
    assert.matches("a change inside `checks`: make in a check", made.checks.stop[2].error.message)
    assert.equal("no room", steps(made).look.would_stop)
    assert.same({ "make a again" }, summaries(steps(made).a))
    assert.equal(1, made.stops)
    assert.same({}, world.made)
  end)

  it("tells of guards that would stop, questions, steps that are so already, and steps that do not apply", function()
    local made = steps(planned [[
      local errors = require "runbook.errors"
      rb.step("a", "A", { guard = function() errors.raise { kind = "conflict", message = "too late" } end }, function() toy.again "a" end)
      rb.step("b", "B", { disrupts = function() return { { "who", toy.count "users" .. " users" } } end }, function() toy.again "b" end)
      rb.step("c", "C", { check = function() return toy.count "users" == 0 end }, function() toy.again "c" end)
      rb.step("d", "D", { when = function() return false end }, function() toy.again "d" end)
      rb.step("e", "E", { verify = function() error "verify is not run" end }, function() toy.again "e" end)
      rb.manual("g", "G")
      rb.pause("h", "H")
    ]])
    assert.equal("too late", made.a.would_stop)
    assert.same({ "make a again" }, summaries(made.a))
    assert.same({ true, "0 users" }, { made.b.asks, made.b.disrupts[1][2] })
    assert.same({ true, {} }, { made.c.already, made.c.changes })
    assert.same({ true, {} }, { made.d.skipped, made.d.changes })
    assert.is_nil(made.e.would_stop)
    assert.is_true(made.g.asks)
    assert.equal(7, made.h.index)
    assert.same({}, world.made)
  end)

  it("takes a failure for one of the run only where no change came before it", function()
    local made = planned [[
      rb.step("a", "A", function() error "a mistake" end)
      rb.step("b", "B", function() toy.again "b" end)
      rb.step("c", "C", function() error "perhaps one" end)
    ]]
    assert.matches("toys.lua:4: a mistake", steps(made).a.would_stop)
    assert.is_nil(steps(made).c.would_stop)
    assert.matches("^toys.lua:6: the rest depends on changes a plan does not make .*perhaps one", steps(made).c.ended)
    assert.equal(1, made.stops)
  end)

  it("gives the results of steps that do not apply, or are so already, as a run does", function()
    local made = steps(planned [[
      local a = rb.step("a", "A", { when = function() return false end }, function() return 1 end)
      local b = rb.step("b", "B", { check = function() return true end }, function() return 1 end)
      rb.step("c", "C", function() toy.again(tostring(a()) .. tostring(b())) end)
    ]])
    assert.same({ "make nilnil again" }, summaries(made.c))
  end)

  it("plans every unit of rb.each, under the names a run gives them", function()
    local source = [[
      rb.step("a", "A", function()
        local made = rb.each({ "x", "y" }, { limit = 2 }, function(name) toy.again(name) return name end)
        toy.again("after " .. made.x)
        rb.each({ { name = "p" }, { size = 1 } }, function(one) toy.again(one.name or "nameless") end)
      end)
    ]]
    local a = steps(planned(source)).a
    assert.same({ "make x again", "make y again", "make after x again", "make p again", "make nameless again" }, summaries(a))
    local units = {}
    for i = 1, 5 do
      units[i] = a.changes[i].unit or "-"
    end
    assert.same({ "x", "y", "-", "p", "2" }, units)
  end)

  it("owes nothing, and meets nothing that was not owed", function()
    local a = steps(planned [[
      local bin = rb.obligation("plan-bin", function(o) toy.unmake(o.name) end)
      rb.step("a", "A", function()
        local owed = bin:owe { name = "treasure" }
        toy.again "a"
        owed:meet()
        owed:waive()
        rb.lock(require("runbook.here"):dir "/nonexistent")
      end)
    ]]).a
    assert.is_nil(a.would_stop)
    assert.same({ "make a again", "lock /nonexistent/.runbook/lock" }, summaries(a))
  end)

  it("leaves alone what an obligation would remove", function()
    world.made.treasure = 1
    local a = steps(planned [[
      local bin = rb.obligation("plan-chest", function(o) toy.unmake(o.name) end)
      rb.step("a", "A", function() bin:owe({ name = "treasure" }):meet() end)
    ]]).a
    assert.same({ treasure = 1 }, world.made)
    assert.is_nil(a.would_stop)
  end)

  it("goes only as far as it is told", function()
    local source = 'rb.step("a", "A", function() toy.again "a" end)\nrb.step("b", "B", function() toy.again "b" end)'
    local made = planned(source, { until_ = "a" })
    assert.same({ 1, "a" }, { #made.steps, made.steps[1].id })
  end)

  it("keeps no traces in the state directory", function()
    planned 'rb.step("a", "A", function() toy.again "a" rb.attach({ x = 1 }, "x.json") end)'
    local found = io.popen(("find %s -mindepth 1 2>/dev/null"):format(store.root()))
    assert.equal("", found:read "a")
    found:close()
  end)
end)

describe("a plan between two servers", function()
  -- Each kind of change that places have; `here` stands for a file of this machine.
  local source = [[
    local bin = rb.obligation("plan-servers", function(o) o.place:remove(o.path) end)
    rb.checks("look", "Look", { { "kernel", function() return new:query { "uname", "-s" } end } })
    local list = rb.step("list", "List", function() return { names = old:query_sh([==[ls "$1"]==], "/srv/data") } end)
    local mark = rb.step("mark", "Mark", function()
      rb.lock(new:dir "/srv")
      new:ensure_dir("/srv/new/data", { mode = "0750" })
      new:write("/srv/motd", "moved\n")
      new:write("/srv/new/list", list().names .. "\n", { mode = "0600" })
      new:put("HERE", "/srv/new/copy")
      old:write("/srv/MOVED", "to new\n")
      return "marked"
    end)
    rb.step("run", "Run", function()
      bin:owe { place = new, path = "/srv/new/scratch" }
      new:sh([==[echo x > "$1"]==], "/srv/new/scratch")
      new:run { "touch", "/srv/new/touched" }
      local status = old:exec { "true", reads = true }
      if status == 0 then
        old:run { "cp", "/srv/data/ann", "/srv/data/eve" }
      end
      local build = new:job { name = "build", argv = { "sh", "-c", "echo made > /srv/new/made; echo said" } }
      build:must_succeed()
    end)
    rb.step("homes", "Homes", function()
      rb.each({ "ann", "bob" }, function(name)
        new:write("/srv/new/data/" .. name, old:read("/srv/data/" .. name))
      end)
      new:write("/srv/new/mark", mark)
    end)
    rb.step("clean", "Clean", function()
      old:remove "/srv/MOVED"
      old:remove("/srv/data", { tree = true })
    end)
  ]]

  local pair

  setup(function() pair = walk.pair "-p" end)
  after_each(function() ssh.close() end)

  -- What a plan lists, and what a run's journal says it did.
  local function listed(made)
    local lines = {}
    for _, entry in ipairs(made.steps) do
      for _, change in ipairs(entry.changes or {}) do
        lines[#lines + 1] = ("%s %s %s: %s"):format(change.verb, change.class, change.target, change.summary)
      end
    end
    return lines
  end

  local function journaled(name)
    local journal = store.journal(name)
    local lines = {}
    for i, row in ipairs(journal:query "SELECT * FROM effect WHERE step IS NOT NULL ORDER BY id") do
      assert.equal("done", row.state)
      lines[i] = ("%s %s %s: %s"):format(row.verb, row.class, row.target, row.summary)
    end
    journal:close()
    return lines
  end

  it("changes nothing there or here, and lists exactly what a run then does", function()
    local folder = runs.directory
    local path = pair:write(folder, (source:gsub("HERE", folder .. "/file")), "servers")
    local file <close> = assert(io.open(folder .. "/file", "w"))
    file:write "from here\n"
    file:flush()
    local servers, here = pair:state { times = true }, require("spec.world").tree(folder)

    local made = plan.make(book.load(path), {})
    ssh.close()
    assert.equal("", walk.difference(servers, pair:state { times = true }))
    assert.equal("", walk.difference(here, require("spec.world").tree(folder)))

    for _, entry in ipairs(made.steps) do
      assert.is_nil(entry.ended, entry.id)
      assert.is_nil(entry.would_stop, entry.id)
    end
    assert.same({ "the end of job build on " .. pair.new.name }, { (made.steps[4].waits[1]:gsub("^job", "the end of job")) })
    local lines = listed(made)
    assert.equal(15, #lines)
    assert.equal(15, made.changes)
    assert.same({ "nothing here yet\n", "moved\n" }, { made.steps[3].changes[3].before, made.steps[3].changes[3].after })

    local code, seen = runs.watched(function() return run.start(book.load(path), { no_input = true }) end)
    assert.equal(0, code, runs.last_error(seen))
    local done = journaled "servers-1"
    assert.equal(#lines, #done)
    for i, line in ipairs(lines) do
      assert.equal(line, done[i])
    end
    assert.equal("marked", pair.new:read "/srv/new/mark")
    assert.equal("made\n", pair.new:read "/srv/new/made")
  end)

  it("leaves everything alone also when the body fails, is cut off, or is stopped", function()
    local path = pair:write(runs.directory, [[
      rb.step("a", "A", function() new:write("/srv/never", "x") error "a mistake" end)
      rb.step("b", "B", function() new:run { "touch", "/srv/never" } new:query { "false" } end)
      rb.step("c", "C", function() new:write("/srv/never", old:read "/srv/nothing/here") end)
    ]], "fails")
    local servers = pair:state { times = true }
    local made = plan.make(book.load(path), {})
    ssh.close()
    assert.equal("", walk.difference(servers, pair:state { times = true }))
    assert.equal(2, made.changes)
    assert.matches("fails.lua:6: .*a mistake", made.steps[1].ended)
    assert.matches("fails.lua:7: ", made.steps[2].ended)
    assert.is_truthy(made.steps[3].would_stop or made.steps[3].ended)
  end)
end)
