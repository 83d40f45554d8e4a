--- Runbooks as strings, run in this process on a state directory of their own, with verbs that touch a table.

local book = require "runbook.book"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local run = require "runbook.run"
local store = require "runbook.store"

local runs = {}

--- What the verbs of `require "toys"` did, and what they are told to do.
runs.world = { made = {}, fail = {}, hold = nil }

local function toys()
  local world = runs.world
  local toy = {}
  toy.make = effect.verb {
    name = "toy.make", class = "change",
    target = function() return "the toy box" end,
    summary = function(name) return "make " .. tostring(name) end,
    by_hand = function(name) return "make " .. tostring(name) .. " by hand" end,
    inverse = function(name) return { "toy.unmake", name } end,
    body = function(name)
      if world.fail[name] then
        errors.raise { kind = world.fail[name], message = name .. " will not be made", stderr = "no" }
      end
      if world.hold then
        world.hold(name)
      end
      world.made[name] = (world.made[name] or 0) + 1
      return "made " .. name
    end,
  }
  toy.unmake = effect.verb {
    name = "toy.unmake", class = "change", inverse = effect.NOT_NEEDED,
    summary = function(name) return "unmake " .. tostring(name) end,
    body = function(name)
      if world.fail["un" .. name] then
        errors.raise { kind = "exit", message = name .. " will not be unmade" }
      end
      world.made[name] = nil
    end,
  }
  toy.again = effect.verb {
    name = "toy.again", class = "change", repeatable = true, quiet = true, inverse = effect.NOT_NEEDED,
    summary = function(name) return "make " .. tostring(name) .. " again" end,
    body = function(name) world.made[name] = (world.made[name] or 0) + 1 end,
  }
  toy.scar = effect.verb {
    name = "toy.scar", class = "change", summary = function(name) return "scar " .. name end,
    body = function(name) world.made[name] = 1 end,
  }
  toy.count = effect.verb {
    name = "toy.count", class = "read", body = function(name) return world.made[name] or 0 end,
  }
  return toy
end

package.preload.toys = function()
  return toys()
end

local n = 0

--- A fresh directory for runs and runbooks, and a fresh world.
---@return string directory
function runs.fresh()
  n = n + 1
  local directory = os.tmpname()
  os.remove(directory)
  assert(os.execute("mkdir -p " .. directory))
  store.use(directory .. "/state")
  for k in pairs(runs.world.made) do
    runs.world.made[k] = nil
  end
  for k in pairs(runs.world.fail) do
    runs.world.fail[k] = nil
  end
  runs.world.hold = nil
  runs.directory = directory
  return directory
end

--- Remove what `fresh` made.
function runs.clean()
  if runs.directory then
    os.execute("rm -rf " .. runs.directory)
    runs.directory = nil
  end
end

--- Write a runbook (a header is put before it).
---@param source string
---@param name? string
---@return string path
function runs.write(source, name)
  local path = ("%s/%s.lua"):format(runs.directory, name or "toys")
  local f = assert(io.open(path, "w"))
  f:write('local rb = require "runbook"\nlocal toy = require "toys"\n', source)
  f:close()
  return path
end

--- Load one.
function runs.load(source, o, name)
  return book.load(runs.write(source, name), o)
end

--- Call something and keep the events of it.
---@return any result
---@return table[] events
function runs.watched(fn)
  local seen = {}
  local stop = events.subscribe(function(event) seen[#seen + 1] = event end)
  local r = table.pack(xpcall(fn, errors.handler))
  stop()
  if not r[1] then
    error(r[2], 0)
  end
  return r[2], seen
end

--- Start a run of a source without asking anybody.
---@return integer exit_code
---@return table[] events
function runs.start(source, o)
  o = o or {}
  o.no_input = o.no_input == nil and true or o.no_input
  local b = runs.load(source, { sets = o.sets }, o.file)
  return runs.watched(function() return run.start(b, o) end)
end

--- Start a run of a file that is there.
function runs.start_path(path)
  local b = book.load(path)
  return runs.watched(function() return run.start(b, { no_input = true }) end)
end

--- Resume the only open run.
function runs.resume(o)
  o = o or {}
  o.no_input = true
  return runs.watched(function() return run.resume(o.name, o) end)
end

--- Roll the newest run back.
function runs.rollback(o)
  o = o or {}
  return runs.watched(function() return run.rollback(o.name, o) end)
end

--- What the events say went wrong, for the message of an assertion.
---@return string
function runs.last_error(seen)
  local lines = {}
  for _, event in ipairs(seen) do
    if event.error or event.level == "warning" or event.type == "run-end" then
      local text = event.text or event.error and event.error.message or event.state
      lines[#lines + 1] = ("%s %s: %s"):format(event.type, event.step or "", text)
    end
  end
  return table.concat(lines, "\n")
end

--- The events of one type.
function runs.only(seen, type_)
  local list = {}
  for _, event in ipairs(seen) do
    if event.type == type_ then
      list[#list + 1] = event
    end
  end
  return list
end

--- Outcomes by step.
function runs.outcomes(seen)
  local outcome = {}
  for _, event in ipairs(runs.only(seen, "step-end")) do
    outcome[event.step] = event.outcome
  end
  return outcome
end

return runs
