local world = require "spec.world"
local json = require "runbook.json"

-- Runs files in one process, a host each; the events by number of host, and the exit code.
local function embed(sources)
  local directory = world.folder "embed"
  local words = { world.build .. "/examples/embed", directory .. "/state" }
  for i, source in ipairs(sources) do
    local path = ("%s/book%d.lua"):format(directory, i)
    world.write(path, 'local rb = require "runbook"\n' .. source)
    words[#words + 1] = path
  end
  for i, word in ipairs(words) do
    words[i] = world.quote(word)
  end
  local output, code = world.sh(table.concat(words, " "))
  local events, other = {}, {}
  for line in output:gmatch("[^\n]+") do
    local number, event = line:match("^(%d+): ({.*})$")
    if number then
      events[#events + 1] = { number = tonumber(number), event = json.decode(event) }
    else
      other[#other + 1] = line
    end
  end
  return events, code, table.concat(other, "\n")
end

local function said(events, number)
  local list = {}
  for _, one in ipairs(events) do
    if one.number == number and one.event.type == "say" then
      list[#list + 1] = one.event.text
    end
  end
  return list
end

describe("a program that embeds runbook", function()
  it("gets every event, gives primitives of its own, and nothing is printed past it", function()
    local events, code, other = embed { 'local site = require "site"\nrb.main(function() rb.say(site.motto()) end)' }
    assert.equal(0, code)
    assert.equal("", other)
    assert.same({ "measure twice" }, said(events, 1))
    assert.equal("run-end", events[#events].event.type)
  end)

  it("runs several at once in one process, none held up or harmed by another", function()
    local events, code = embed {
      'rb.main(function() for i = 1, 5 do rb.say("a" .. i) rb.sleep(0.05) end end)',
      'rb.main(function() for i = 1, 5 do rb.say("b" .. i) rb.sleep(0.05) end end)',
      'rb.main(function() error "broken" end)',
    }
    assert.equal(1, code)
    assert.same({ "a1", "a2", "a3", "a4", "a5" }, said(events, 1))
    assert.same({ "b1", "b2", "b3", "b4", "b5" }, said(events, 2))
    local order = {}
    for _, one in ipairs(events) do
      order[#order + 1] = one.event.type == "say" and one.event.text:sub(1, 1) or nil
    end
    assert.matches("ab.*ab", table.concat(order))
  end)

  it("is told what is wrong with a file by the exit code, and lives on", function()
    local events, code = embed { "this is not Lua", 'rb.main(function() rb.say "fine" end)' }
    assert.equal(65, code)
    assert.same({ "fine" }, said(events, 2))
  end)
end)
