--- Removing what dead runs left behind: every obligation of every run that no process works on.

local errors = require "runbook.errors"
local events = require "runbook.events"
local obligation = require "runbook.obligation"
local session = require "runbook.run.session"
local store = require "runbook.store"

local sweep = {}

local function sweep_run(row, o, with_session)
  local self = session.new { name = row.name, directory = store.directory(row.name), options = o }
  return with_session(self, function()
    -- Loading the book declares the kinds of obligations that it and its libraries know.
    self.book = require("runbook.run").book_of(row.name, {}, false)
    return self:in_phase(nil, "clean-up", obligation.meet_all, self, { keep_jobs = true })
  end)
end

--- Meet the obligations of runs that are not being worked on.
---@async
---@param o { name?: string, dry_run?: boolean }
---@param with_session function
---@return integer exit_code  0: nothing is left; 4: something could not be removed (it was said what)
function sweep.sweep(o, with_session)
  local left = 0
  for _, row in ipairs(o.name and { store.get(o.name, true) } or store.list()) do
    if #row.owes > 0 and row.alive then
      events.notice(("%s is being worked on; left alone"):format(row.name))
    elseif #row.owes > 0 then
      for _, owed in ipairs(row.owes) do
        events.emit { type = "leftover", run = row.name, kind = owed.kind, costs = owed.costs, tries = owed.tries }
      end
      if not o.dry_run then
        local ok, n = xpcall(sweep_run, errors.handler, row, o, with_session)
        if not ok then
          events.notice(("%s: %s"):format(row.name, tostring(errors.from(n))), "warning")
        end
        left = left + (ok and n or #row.owes)
      end
    end
  end
  return left == 0 and 0 or 4
end

return sweep
