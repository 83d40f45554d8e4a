--- What becomes of a hub's users, groups, admins and tokens: whether its database is copied, merged into the new hub's, or left.
---
---     for _, line in ipairs(hub.database_evidence(old, new, "copy")) do rb.say(line) end
---
--- Each choice loses something else. What it is can be read from both databases before anything is changed, and a choice that
--- would lose something stops there, with names.

local database = require "runbook.hub.database"
local errors = require "runbook.errors"
local human = require "runbook.human"
local json = require "runbook.json"
local options = require "runbook.options"
local settings = require "runbook.hub.settings"
local task = require "runbook.task"

local evidence = {}

local SHOWN = 5 -- names
local CHOICES = { "copy", "merge", "leave" }
local FIRST_CLOSED_CHART = 4 -- its JupyterHub 5 is the first that lets in nobody who is not named

-- ---- who is let in without the database ----

local function add_names(list, set)
  for _, name in ipairs(type(list) == "table" and list ~= json.null and list or {}) do
    set[name] = true
  end
end

---@class runbook.hub.Doors
---@field everybody boolean          who can log in is made a user
---@field named table<string, true>  by the configuration
---@field admins table<string, true>
---@field rules string[]             other settings that let people in
---@field groups boolean             the authenticator says who is in which group

--- Whom a hub lets in by its configuration alone.
---@param s runbook.hub.Settings
---@return runbook.hub.Doors
function evidence.doors(s)
  local doors = { everybody = false, named = {}, admins = {}, rules = {}, groups = false }
  for _, section in pairs(settings.at(s.values, "hub.config") or {}) do
    for key, value in pairs(type(section) == "table" and section ~= json.null and section or {}) do
      local holds = value ~= json.null and value ~= false and (type(value) ~= "table" or next(value) ~= nil)
      if key == "allow_all" then
        doors.everybody = doors.everybody or value == true
      elseif key == "allowed_users" or key == "admin_users" then
        add_names(value, doors.named)
        add_names(key == "admin_users" and value or nil, doors.admins)
        doors.list = doors.list or key == "allowed_users" and holds
      elseif holds and key ~= "allow_existing_users" and (key:find "^allow_" or key:find "^allowed_") then
        doors.rules[#doors.rules + 1] = key
      elseif key == "manage_groups" then
        doors.groups = doors.groups or value == true
      end
    end
  end
  table.sort(doors.rules)
  local major = tonumber((s.chart or ""):match "^v?(%d+)%.")
  if major and major > 0 and major < FIRST_CLOSED_CHART and not doors.list then
    doors.everybody = #doors.rules == 0 or doors.everybody
  end
  return doors
end

-- ---- what is lost ----

local function index(list, field)
  local by = {}
  for _, one in ipairs(list) do
    by[one[field]] = one
  end
  return by
end

local function names_of(list, field)
  local names, seen = {}, {}
  for _, one in ipairs(list) do
    local name = one[field or "name"]
    if not seen[name] then
      seen[name] = true
      names[#names + 1] = name
    end
  end
  local more = #names - SHOWN
  return table.concat(names, ", ", 1, math.min(#names, SHOWN)) .. (more > 0 and (" and %d more"):format(more) or "")
end

-- Those of a list that `lost` is true of.
local function those(list, lost)
  local found = {}
  for _, one in ipairs(list) do
    found[#found + 1] = lost(one) and one or nil
  end
  return found
end

local function add(lines, list, what, of, field)
  if #list > 0 then
    lines[#lines + 1] = ("%s %s (%s)"):format(human.plural(#list, what), of, names_of(list, field))
  end
end

---@class runbook.hub.Side
---@field name string
---@field known runbook.hub.Known
---@field doors runbook.hub.Doors
---@field template string?  of homes

local function numbered_homes(side, lines)
  if (side.template or ""):find("{userid}", 1, true) then
    lines[#lines + 1] = ("every home: %s names them by numbers of users, who get others"):format(side.template)
  end
end

local function lost_by_copy(old, new)
  local lines, users, groups, tokens = {}, index(old.known.users, "name"), index(old.known.groups, "name"),
    index(old.known.tokens, "same")
  add(lines, those(new.known.users, function(one) return not users[one.name] end), "user", "of " .. new.name)
  add(lines, those(new.known.groups, function(one) return one.members > 0 and not groups[one.name] end), "group", "of " .. new.name)
  add(lines, those(new.known.tokens, function(one) return not tokens[one.same] end), "token", "of users of " .. new.name, "user")
  return lines
end

local function lost_by_merge(old)
  local lines = {}
  for _, one in ipairs(old.known.others) do
    lines[#lines + 1] = ("table %s of %s, which is none of JupyterHub's (%s)"):format(one.table, old.name, human.plural(one.rows, "row"))
  end
  numbered_homes(old, lines)
  return lines
end

-- Users that nothing but a database makes users.
local function only_in_database(side)
  if side.doors.everybody then
    return {}
  end
  return those(side.known.users, function(one) return not side.doors.named[one.name] end)
end

local function lost_by_leave(old, new)
  local lines = lost_by_merge(old)
  local users, groups, tokens = index(new.known.users, "name"), index(new.known.groups, "name"), index(new.known.tokens, "same")
  add(lines, those(only_in_database(old), function(one) return not users[one.name] end), "user", "whom nothing but the database lets in")
  add(lines, those(old.known.users, function(one)
    return one.admin and not old.doors.admins[one.name] and not (users[one.name] or {}).admin
  end), "admin", "by the database only")
  if not old.doors.groups then
    add(lines, those(old.known.groups, function(one)
      return one.members > 0 and (groups[one.name] or {}).same ~= one.same
    end), "group", "with members")
  end
  add(lines, those(old.known.tokens, function(one) return not tokens[one.same] end), "token", "that somebody made", "user")
  if old.known.named_servers > new.known.named_servers then
    lines[#lines + 1] = human.plural(old.known.named_servers, "named server")
  end
  return lines
end

local LOSSES = { copy = lost_by_copy, merge = lost_by_merge, leave = lost_by_leave }

--- What a choice would lose, in words; nothing when it loses nothing.
---@param choice "copy"|"merge"|"leave"
---@param old runbook.hub.Side
---@param new runbook.hub.Side
---@return string[]
function evidence.losses(choice, old, new)
  return LOSSES[choice](old, new)
end

-- ---- what to know ----

local function size(side)
  local known = side.known
  local admins = those(known.users, function(one) return one.admin end)
  return ("%s: %s, %s, %s, %s, %s"):format(side.name, human.plural(#known.users, "user"), human.plural(#admins, "admin"),
    human.plural(#known.groups, "group"), human.plural(#known.tokens, "kept token"), human.plural(known.named_servers, "named server"))
end

local function authenticator(old)
  local doors, list = old.doors, only_in_database(old)
  if doors.everybody then
    return "its authenticator lets everybody in who can log in: users come back by themselves, their groups, admin flags and tokens do not"
  elseif #list == 0 then
    return "its configuration names all its users"
  end
  return ("%s of %s in the database only: %s%s"):format(human.plural(#list, "user"), old.name, names_of(list),
    #doors.rules > 0 and ("; some may come in by %s"):format(table.concat(doors.rules, ", ")) or "")
end

local function known_twice(choice, old, new, lines)
  local users = index(new.known.users, "name")
  local both = those(old.known.users, function(one) return users[one.name] ~= nil end)
  if choice == "merge" and #both > 0 then
    lines[#lines + 1] = ("by name the same person on both: %s"):format(names_of(both))
  end
  local there = index(old.known.users, "name")
  local kept = those(new.known.users, function(one)
    return one.keeps_login and not (there[one.name] or {}).keeps_login
  end)
  if choice == "merge" and #kept > 0 then
    lines[#lines + 1] = ("log in once more, for the keys to what their authenticator kept are replaced: %s"):format(names_of(kept))
  end
end

local function schema(choice, old, new, lines)
  local a, b = old.known.revision, new.known.revision
  if choice == "leave" or b == nil then
    return
  end
  database.must_know_schema(new.name, a, b)
  if a ~= b then
    lines[#lines + 1] = ("the database (schema %s) is older than %s (%s), whose JupyterHub brings it up to date"):format(a or "none",
      new.name, b)
    if #old.known.tokens > 0 and database.compare(a, database.FIRST_WITH_ROLES) < 0 then
      lines[#lines + 1] = "tokens do not outlive that: JupyterHub 2 takes none of an older one's; people make new ones"
    end
  end
end

--- What is to be known of a choice, of what is in both databases. Raises where they cannot be brought together.
---@param choice "copy"|"merge"|"leave"
---@param old runbook.hub.Side
---@param new runbook.hub.Side
---@return string[]
function evidence.lines(choice, old, new)
  local lines = { size(old), size(new), authenticator(old) }
  schema(choice, old, new, lines)
  known_twice(choice, old, new, lines)
  for _, other in ipairs(CHOICES) do
    local losses = evidence.losses(other, old, new)
    lines[#lines + 1] = ("`%s` loses %s"):format(other, #losses == 0 and "nothing" or table.concat(losses, "; "))
  end
  return lines
end

-- ---- two hubs ----

-- Nothing of a hub that is stopped: a look would need a pod with its claim, and only looking is allowed here. Nor of one that is
-- closed: the choice was made, and its pod may be ending.
local function look(hub)
  local _, replicas = hub:deployment()
  return replicas > 0 and not hub:freeze() and database.look(hub:container()) or nil
end

local function side(hub, choice)
  local s = hub:settings()
  if choice ~= "leave" then
    settings.must_be_sqlite(hub)
  end
  return {
    name = hub.name, doors = evidence.doors(s), template = s.storage.template, kind = s.database,
    known = s.database == "sqlite-pvc" and look(hub) or nil,
  }
end

local function unread(one)
  return one.kind ~= "sqlite-pvc" and ("%s: its database is %s, and nobody looked into it"):format(one.name, one.kind)
    or ("%s is closed or stopped; its database is looked at when it runs, and before another is put there"):format(one.name)
end

local check = options.declare("hub.database_evidence", {
  lose = { "boolean", "what would be lost is said, and stops nothing", default = false },
})

local function better(old, new)
  for _, choice in ipairs { "merge", "copy" } do
    if #evidence.losses(choice, old, new) == 0 then
      return ("`database: %s` loses nothing"):format(choice)
    end
  end
  return "bring it over by hand first"
end

--- For preflight: what speaks for copying, merging or leaving the database. Raises where the choice would lose something, where
--- the schemas do not allow it, where the new hub's claim has no room, and, unless it is `leave`, where one of them is no sqlite on
--- a claim.
---@async
---@param old runbook.Hub
---@param new runbook.Hub
---@param choice "copy"|"merge"|"leave"
---@param o? { lose?: boolean }
---@return string[] to_know  one, of several lines; one for each hub that could not be looked at
function evidence.hubs(old, new, choice, o)
  local lose = check(o or {}, 2).lose
  if not LOSSES[choice] then
    errors.raise({ kind = "usage", message = ("hub.database_evidence: %s is none of %s"):format(tostring(choice),
      table.concat(CHOICES, ", ")) }, 2)
  end
  local a, b = table.unpack(task.all {
    function() return side(old, choice) end,
    function() return side(new, choice) end,
  })
  local lines = {}
  for _, one in ipairs { a, b } do
    lines[#lines + 1] = not one.known and unread(one) or nil
  end
  if #lines > 0 then
    return lines
  end
  local losses = evidence.losses(choice, a, b)
  if #losses > 0 and not lose then
    errors.raise {
      kind = "conflict", code = "ELOSES", target = new.name,
      message = ("`database: %s` would lose:\n%s\n%s"):format(choice, table.concat(losses, "\n"), better(a, b)),
      hint = "or say that it may go, in the runbook's own words: `lose: true`, or `leave: {database: REASON}`",
    }
  end
  if choice ~= "leave" then
    database.must_have_room(new, a.known.bytes, choice == "merge", b.known)
  end
  return { table.concat(evidence.lines(choice, a, b), "\n") }
end

return evidence
