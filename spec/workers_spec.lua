-- How many workers there are, from what they bring; and a server that lets few in.

local lab = require "spec.support.lab"
local sync = require "runbook.sync"
local task = require "runbook.task"
local workers = require "runbook.copier.workers"
local world = require "spec.world"

describe("workers", function()
  --- Widths after each half second in which so much came; `rate` is of a width.
  local function course(crew, seconds, rate, o)
    o = o or {}
    local widths, done, now = {}, o.done or 0, o.from or 100
    for i = 1, seconds * 2 do
      now, done = now + 0.5, done + rate(crew.width) / 2
      crew:tell { now = now, done = done, running = o.running or crew.width, waiting = o.waiting ~= false, stat = o.stat and o.stat(now) }
      widths[i] = crew.width
    end
    return widths
  end

  local function linear(width) return width * 1e6 end
  local function flat() return 1e6 end

  it("begin with two and grow as long as each brings something", function()
    local widths = course(workers.new { most = 6 }, 60, linear)
    assert.equal(2, widths[1])
    assert.equal(6, widths[#widths])
    for i = 2, #widths do
      assert.is_true(widths[i] - widths[i - 1] <= 1 and widths[i] >= widths[i - 1])
    end
  end)

  it("begin with four where a disk of its own answers at once, within what is allowed", function()
    local function first(o) return workers.new(o).width end
    assert.equal(4, first { most = 8, near = true, quiet = 0.00001 })
    assert.equal(3, first { most = 3, near = true, quiet = 0.00001 })
    assert.equal(2, first { most = 8, near = true, quiet = 0.001 })
    assert.equal(2, first { most = 8, near = true })
    assert.equal(2, first { most = 8, near = false, quiet = 0.00001 })
    assert.equal(1, first { most = 8, near = true, quiet = 0.00001, width = 1 })
  end)

  it("stay where one more brought nothing, and try again only after a while", function()
    local widths = course(workers.new { most = 8 }, 50, flat)
    assert.equal(2, widths[#widths])
    local tries = 0
    for i = 2, #widths do
      tries = tries + (widths[i] > widths[i - 1] and 1 or 0)
    end
    assert.equal(1, tries)
    widths = course(workers.new { most = 8 }, 60, function(width) return math.min(width, 4) * 1e6 end)
    assert.equal(4, widths[#widths])
  end)

  it("are never more than allowed, nor fewer than one", function()
    assert.equal(1, workers.new { most = 1 }.width)
    local widths = course(workers.new { most = 1 }, 30, linear)
    assert.equal(1, widths[#widths])
    local crew = workers.new { most = 4 }
    for _ = 1, 9 do
      crew:refused(crew.width)
    end
    assert.same({ 1, 1 }, { crew.width, crew.most })
  end)

  it("go on with what an earlier pass found", function()
    assert.equal(5, workers.new { most = 8, width = 5 }.width)
    assert.equal(3, workers.new { most = 3, width = 5 }.width)
  end)

  it("learn nothing from a time in which not all had work", function()
    for _, o in ipairs { { running = 1 }, { waiting = false } } do
      local widths = course(workers.new { most = 8 }, 30, linear, o)
      assert.equal(2, widths[#widths])
    end
  end)

  it("give way to people whose source has become slow", function()
    local crew = workers.new { most = 8, width = 6, quiet = 0.001 }
    local widths = course(crew, 10, linear, { stat = function() return 0.01 end })
    assert.is_true(widths[#widths] < 6 and widths[#widths] >= 1)
    widths = course(crew, 300, linear, { from = 110, stat = function() return 0.001 end })
    assert.equal(8, widths[#widths])
    local fast = workers.new { most = 4, quiet = 0.00001 } -- a stat of a tenth of a millisecond disturbs nobody
    widths = course(fast, 30, linear, { stat = function() return 0.0001 end })
    assert.equal(4, widths[#widths])
  end)

  it("stay as many as were asked for where each has its share of a rate", function()
    local widths = course(workers.new { most = 3, fixed = true }, 30, flat, { stat = function() return 9 end })
    assert.same({ 3, 3 }, { widths[1], widths[#widths] })
  end)

  it("are fewer after a login was refused, and do not grow beyond that again", function()
    local crew = workers.new { most = 8, width = 4 }
    assert.equal(3, crew:refused(4))
    local widths = course(crew, 90, linear)
    assert.equal(3, widths[#widths])
    for said, refused in pairs {
      ["kex_exchange_identification: Connection closed by remote host\n"] = true, ["Connection reset by 127.0.0.1 port 22\n"] = true,
      ["Not allowed at this time\r\n"] = true, ["root@nfs: Permission denied (publickey).\n"] = false, [""] = false,
    } do
      assert.equal(refused, workers.was_refused(said), said)
    end
    assert.is_false(workers.was_refused(nil))
  end)

  it("wait for a server that lets nobody in at the moment, and bring everything", function()
    local old <close> = world.sshd { name = "nfs-old", max_startups = 2, max_sessions = 2 }
    local new <close> = world.sshd { name = "nfs-new" }
    old:must "mkdir -p /srv/homes/ann && echo a > /srv/homes/ann/a"
    lab.fresh(new, "/srv/homes")
    lab.must(function()
      local homes = sync.pair { from = lab.place(old):dir "/srv/homes", to = lab.place(new):dir "/srv/homes", route = "pull" }
      homes:bulk()
      old:must "echo b > /srv/homes/ann/b"
      local busy = {} -- two that never log in are all it has room for
      local crowd = task.spawn(function()
        world.wait_until("the key of the pass", function()
          return old:must "grep -c runbook: /root/.ssh/authorized_keys || :" ~= "0"
        end, 120)
        for i = 1, 2 do
          busy[i] = world.start({ "bash", "-c", ("exec 3<>/dev/tcp/%s/%d && sleep 600"):format(old.address, old.port) })
        end
        task.sleep(3)
        for _, one in ipairs(busy) do
          one:stop()
        end
      end)
      homes:final()
      task.join(crowd)
      homes:verify()
    end)
    lab.identical(old, "/srv/homes", new, "/srv/homes")
    require("runbook.ssh").close()
  end)

  it("are told before there are any", function()
    local function told(o)
      o.most, o.what = o.most or 4, "workers"
      return workers.forecast(o)
    end
    assert.equal("4 workers, fewer when the source or an ssh server has enough", told { near = true, quiet = 0.0001 })
    assert.matches("^2 workers at first, and at most 4: ", told { near = true, quiet = 0.01 })
    assert.matches("^3 workers at first, and at most 8: ", told { most = 8, width = 3 })
    assert.equal("8 workers at most, which share the rate", told { most = 8, fixed = true })
  end)
end)
