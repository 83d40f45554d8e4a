--- What people did on the new hub since it opened: what going back has to carry, and what it loses.

local human = require "runbook.human"
local options = require "runbook.options"

local work = {}

local SHOWN = 5

local function shown(list)
  local text = table.concat(list, ", ", 1, math.min(#list, SHOWN))
  return #list > SHOWN and ("%s and %d more"):format(text, #list - SHOWN) or text
end

-- Users that only the new hub knows; nil when that cannot be read any more.
local function new_users(old, new)
  local _, replicas = new:deployment()
  if replicas == 0 then -- what a closing kept of its users is from before they came
    return nil
  end
  local known, list = {}, {}
  for _, user in ipairs(old:known_users()) do
    known[user.name] = true
  end
  for _, user in ipairs(new:known_users()) do
    list[#list + 1] = not known[user.name] and user.name or nil
  end
  table.sort(list)
  return list
end

local check_since = options.declare("hub.work_since", {
  old = { "any", "the hub that is opened again" },
  new = { "any", "the hub that people are on" },
  homes = { "any", "the copier that filled the new hub's homes" },
})

--- For the undo_guard of a step that let people in: rows about what they did since, nil when nobody did anything.
---@async
---@param o { old: runbook.Hub, new: runbook.Hub, homes: runbook.Copier }
---@return string[][]? rows
function work.since(o)
  o = check_since(o, 2)
  local changed, users = o.homes:changed_since_receipts(), new_users(o.old, o.new)
  local running = #o.new:server_pods()
  if #changed == 0 and users and #users == 0 and running == 0 then
    return nil
  end
  local lost = users == nil and ("not known: %s is stopped"):format(o.new.name)
    or #users == 0 and "no new user; groups, tokens and logins made since are lost"
    or ("%s will be unknown again: %s"):format(human.plural(#users, "new user"), shown(users))
  return {
    { "who", ("everyone on %s, until %s is open again"):format(o.new.name, o.old.name) },
    { "now", running == 0 and "nobody's server runs"
      or ("%s stopped"):format(human.plural(running, "running server is", "running servers are")) },
    { "homes", #changed == 0 and "none has changed since its receipt"
      or ("%s changed since the receipts, copied back first: %s"):format(human.plural(#changed, "home"), shown(changed)) },
    { "database", ("%s is opened with its own, as it was; %s"):format(o.old.name, lost) },
  }
end

return work
