--- The type `run`: an earlier run on this machine, and the parameters it had. For procedures that come after it.

local errors = require "runbook.errors"
local types = require "runbook.types"
local units = require "runbook.units"

---@class runbook.EarlierRun
---@field name string
---@field values table  its parameters, as handles
local Run = {}
local run_mt = { __name = "runbook.earlier run", __index = Run }

function run_mt.__tostring(self)
  return self.name
end

--- For preflight: raises unless it was done to its end.
---@async
---@return string to_know  when that was
function Run:must_be_done()
  local row = require("runbook.store").get(self.name)
  if row.state ~= "done" then
    errors.raise { kind = "conflict", code = "ENOTDONE", target = self.name, message = ("run %s is %s"):format(self.name, row.state),
      hint = ("runbook resume %s, or runbook rollback %s"):format(self.name, self.name) }
  end
  return ("%s, done %s"):format(row.title or self.name, units.time(row.ended or row.started))
end

types.register("run", {
  help = "an earlier run on this machine, like temple-3",
  pinned = true,
  parse = function(raw)
    if type(raw) ~= "string" or not raw:match "^[%w_][%w_.-]*$" then
      return nil, units.quote(raw) .. ": the name of a run is expected, like temple-3"
    end
    local ok, book = pcall(function()
      require("runbook.store").get(raw)
      return require("runbook.run").book_of(raw, {}, false)
    end)
    if not ok then
      return nil, errors.is(book) and book.message or tostring(book)
    end
    for _, one in ipairs(book.declaration) do
      if one[2] == "copier" then -- its passes and receipts are in that run's journal
        book.values[one[1]].of_run = raw
      end
    end
    return setmetatable({ name = raw, values = book.values }, run_mt)
  end,
  show = tostring,
  example = { "temple-1" },
})
