--- Which machines a run works on: the identity of every host among its parameters is kept at its start and compared by
--- every later process, before the first step.

local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local task = require "runbook.task"

local identity = {}

-- The places among the parameters, by name of the parameter: themselves, those of directories, both ends of copiers.
local function places_of(book)
  local found = {}
  local function add(name, value)
    local place = type(value) == "table" and (rawget(value, "place") or value)
    if place and type(place.identity) == "function" then
      found[#found + 1] = { name = name, place = place }
    end
  end
  for _, one in ipairs(book.declaration) do
    local name, value = one[1], book.values[one[1]]
    add(name, value)
    if one[2] == "copier" and type(value) == "table" then
      add(name .. ".from", rawget(value, "from"))
      add(name .. ".to", rawget(value, "to"))
    end
  end
  return found
end

--- Ask every host among the parameters who it is. A host that cannot be reached is said, and left to the checks and steps
--- that need it; what the others say of keys and logins is raised. What is looked at first thing afterwards belongs to the
--- same look (`book.look`, see lib/runbook/ssh/pool.lua).
---@async
---@param book runbook.Book
---@return table<string, string> identities  by parameter
function identity.look(book)
  local identities, problems = {}, {}
  book.look = {}
  local looking = setmetatable({ look = book.look }, { __index = task.context() })
  task.with_context(looking, task.each, places_of(book), { limit = 8 }, function(found)
    local ok, now = xpcall(effect.reading, errors.handler, found.place.identity, found.place)
    if ok then
      identities[found.name] = now
    elseif errors.is(now, "unreachable") or errors.is(now, "timeout") or errors.is(now, "lost") then
      events.notice(("%s: %s"):format(found.name, tostring(now)), "warning")
    elseif errors.is_cancelled(now) then
      error(now, 0)
    else
      problems[#problems + 1] = errors.from(now)
    end
  end)
  if #problems > 0 then
    local texts, seen = {}, {}
    for _, problem in ipairs(problems) do
      texts[#texts + 1] = not seen[tostring(problem)] and tostring(problem) or nil
      seen[tostring(problem)] = true
    end
    local first = problems[1]
    errors.raise { kind = first.kind, code = first.code, message = table.concat(texts, "\n"), cause = first,
      hint = #texts == 1 and first.hint or nil }
  end
  return identities
end

--- Keep the identities that this run sees for the first time; raise kind `identity` when one has changed.
---@async
---@param session table
---@param identities table<string, string>
function identity.keep(session, identities)
  for name, now in pairs(identities) do
    local key = "identity:" .. name
    local before = session.journal.meta[key]
    if before == nil then
      session.journal:set_meta(key, now)
    elseif before ~= now then
      errors.raise {
        kind = "identity", code = "EIDENTITY",
        message = ("`%s` is another machine than when this run began: %s, it was %s"):format(name, now, before),
        hint = "find out which one answers at that name; a run does not change its machines",
      }
    end
  end
end

return identity
