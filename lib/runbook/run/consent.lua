--- The question before people are hurt, forward or back: what it means, and the name of what is worked on to be typed.

local ask = require "runbook.ask"
local errors = require "runbook.errors"
local events = require "runbook.events"
local shell = require "runbook.shell"

local consent = {}

-- What is worked on, as its run is called: not the runbook's name, which is the same for the wrong hub.
local function name_to_type(session)
  return (session.name:gsub("%-%d+$", ""))
end

--- Rows for the question, of a text or a list of { label, text }.
---@param value any
---@return string[][]
function consent.rows(value)
  return type(value) == "table" and value or { { "who", tostring(value) } }
end

--- Ask, or take the answer that `--confirm` gave. A yes is on the record.
---@async
---@param session table
---@param item { id: string, title: string }
---@param rows string[][]
---@param again string  the command that asks again
---@return boolean? given  false: declined; nil: nobody can be asked here
---@return string? flag    what the command that goes on has to say, where nobody can be asked
function consent.obtain(session, item, rows, again)
  local expect = name_to_type(session)
  local given = session.options.confirm and session.options.confirm[item.id]
  events.emit { type = "question", step = item.id, title = item.title, rows = rows, expect = expect }
  if given == expect then
    session.journal:decide("confirm", item.id, "--confirm")
  elseif given ~= nil then
    errors.raise { kind = "usage", message = ("--confirm %s=%s: the name to type is %s"):format(item.id, given, expect) }
  elseif session.options.no_input or not ask.available() then
    return nil, ("--confirm %s=%s"):format(item.id, shell.quote(expect))
  elseif not ask.disrupt { step = item.id, title = item.title, rows = rows, expect = expect, again = again } then
    return false
  else
    session.journal:decide("confirm", item.id, "typed")
  end
  session.journal:commit()
  return true
end

return consent
