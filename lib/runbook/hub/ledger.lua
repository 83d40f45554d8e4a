--- The ledger of a move: everything that has to be somewhere when it is over, and which of it is not there yet.
---
--- Rows classify themselves. Open are only: a user whose home is at the source and not proven at the target, a name that leads
--- to neither hub, a key or certificate the new hub lacks, and a Prometheus nobody has decided about. What stays behind on
--- purpose is said among the parameters with its reason: `leave: {prometheus: the history stays}`.

local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local here = require "runbook.here"
local human = require "runbook.human"
local monitoring = require "runbook.hub.monitoring"
local options = require "runbook.options"
local secrets = require "runbook.hub.secrets"
local settings = require "runbook.hub.settings"

local ledger = {}

local SHOWN = 6
local PROVEN = { hashed = true, scanned = true, same = true }

---@class runbook.hub.Row
---@field kind "user"|"home"|"name"|"secret"|"prometheus"
---@field thing string
---@field state "good"|"open"|"left"|"known"
---@field why string

---@class runbook.hub.Facts
---@field users { name: string, directory: string }[]
---@field homes table<string, boolean>   directories at the source
---@field receipts table<string, string>  level of each home's receipt
---@field enough? "sent"       a home that was sent counts, though it is not proven
---@field names { name: string, leads_to: string, good: boolean }[]
---@field secrets string[]     what the new hub lacks
---@field prometheus "none"|"moved"|"behind"

local function of_user(user, facts)
  local level = facts.receipts[user.directory]
  if not facts.homes[user.directory] then
    return "good", level and "its home is gone from the source" or "has no home yet"
  elseif level == "same" then
    return "good", "its home is in storage that both clusters mount"
  elseif PROVEN[level] or level == "sent" and facts.enough == "sent" then
    return "good", "home " .. level
  elseif not level and facts.enough == "sent" and next(facts.receipts) then
    return "known", "its home is new since the last pass; the final one brings it"
  end
  return "open", level and "its home was sent and is not proven" or "its home is not at the target"
end

local function homes_of_nobody(facts, add)
  local someones, list = {}, {}
  for _, user in ipairs(facts.users) do
    someones[user.directory] = true
  end
  for directory in pairs(facts.homes) do
    if not someones[directory] then
      list[#list + 1] = directory
    end
  end
  table.sort(list)
  for _, directory in ipairs(list) do
    add("home", directory, "known", "no user of the database has it; " .. (facts.receipts[directory] or "not sent yet"))
  end
end

--- What is known of a move as rows, in the order people read them.
---@param facts runbook.hub.Facts
---@param leave table<string, string>  thing = reason
---@return runbook.hub.Row[]
function ledger.classify(facts, leave)
  local rows = {}
  local function add(kind, thing, state, why)
    if state == "open" and leave[thing] then
      state, why = "left", leave[thing]
    end
    rows[#rows + 1] = { kind = kind, thing = thing, state = state, why = why }
  end
  for _, user in ipairs(facts.users) do
    add("user", user.name, of_user(user, facts))
  end
  homes_of_nobody(facts, add)
  for _, name in ipairs(facts.names) do
    add("name", name.name, name.good and "good" or "open", name.leads_to)
  end
  for _, key in ipairs(facts.secrets) do
    add("secret", key, "open", "the new hub does not have it as the old one has")
  end
  if facts.prometheus ~= "none" then
    add("prometheus", "prometheus", facts.prometheus == "moved" and "good" or "open",
      facts.prometheus == "moved" and "one cluster watches both"
        or "its history is on the old cluster, and nobody has said what becomes of it")
  end
  return rows
end

-- ---- what is known ----

local Ledger = {}
local ledger_mt = { __name = "runbook.hub.ledger", __index = Ledger }

local check_ledger = options.declare("hub.ledger", {
  old = { "any", "the hub to move" },
  new = { "any", "the hub it becomes" },
  homes = { "any", "a copier" },
  names = { "list", "what people type" },
  zone = { "any", "whose servers know where they lead; without, as this computer finds them", optional = true },
  leave = { "table", "thing = reason, for what stays behind on purpose", default = {} },
})

--- A ledger. Nothing is read before `rows`.
---@param o { old: runbook.Hub, new: runbook.Hub, homes: runbook.Copier, names: string[], zone: runbook.dns.Zone?,
---           leave: table<string, string>? }
---@return runbook.hub.Ledger
function ledger.new(o)
  return setmetatable(check_ledger(o, 2), ledger_mt)
end

local function users_of(self)
  local s = self.old:settings()
  local list = {}
  for _, user in ipairs(self.old:known_users()) do
    list[#list + 1] = { name = user.name, directory = settings.home(s, user, self.old.namespace) }
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

local function homes_of(self)
  local homes, levels = {}, {}
  for _, name in ipairs(self.homes:units_now()) do
    homes[name] = true
    local receipt = self.homes:receipt(name)
    levels[name] = receipt and receipt.level or nil
  end
  return homes, levels
end

-- Of many users somebody has a home. Where none has, the copy takes another directory than the hub's, and all would be well.
local function must_be_their_homes(self, users, homes)
  for _, user in ipairs(users) do
    if homes[user.directory] then
      return
    end
  end
  if #users > 0 then
    errors.raise {
      kind = "conflict", code = "ESOURCE", target = self.old.name,
      message = ("none of %s has a home in %s"):format(human.plural(#users, "user"), tostring(self.homes.from or self.homes)),
      hint = "does the copy take the directory that this hub mounts, and does the slug scheme of its spawner make these names?",
    }
  end
end

-- Where a name leads by the servers of its zone: addresses, or the name of a load balancer and the addresses that has.
local addresses_of

local function told_by_zone(zone, name)
  local state, list = zone:get({ name })[1], {}
  for _, record in ipairs(#state.records > 0 and state.records or state.served or {}) do
    if record.type == "CNAME" then
      local target = record.data:lower():gsub("%.$", "")
      list[#list + 1] = target
      table.move(addresses_of(target), 1, 16, #list + 1, list)
    elseif record.type == "A" or record.type == "AAAA" then
      list[#list + 1] = record.data
    end
  end
  return list
end

-- Addresses of a name, as this computer finds them.
function addresses_of(name)
  local list = {}
  local text = here:query_sh([[getent ahosts -- "$1" | awk '{ print $1 }' | sort -u || true]], name)
  for address in text:gmatch "%S+" do
    list[#list + 1] = address
  end
  return list
end

-- Addresses of both hubs: address -> whose.
local function hubs_by_address(self)
  local whose = {}
  for _, hub in ipairs { self.old, self.new } do
    local ok, address = xpcall(hub.ingress_address, errors.handler, hub, { within = 1 })
    if ok then
      whose[address] = hub.name
      for _, one in ipairs(addresses_of(address)) do
        whose[one] = hub.name
      end
    elseif not errors.is(address, "missing") and not errors.is(address, "timeout") then
      error(address, 0)
    end
  end
  return whose
end

local function names_of(self)
  local list, whose = {}, hubs_by_address(self)
  for _, name in ipairs(self.names) do
    local leads, found = nil, self.zone and told_by_zone(self.zone, name) or addresses_of(name)
    for _, address in ipairs(found) do
      leads = leads or whose[address]
    end
    list[#list + 1] = { name = name, good = leads ~= nil,
      leads_to = leads and "leads to " .. leads or #found == 0 and "nobody knows this name" or "leads to " .. table.concat(found, ", ") }
  end
  return list
end

local function prometheus_of(self)
  local old = monitoring.look(self.old, self.new)
  if not old["Prometheus history"] then
    return "none"
  end
  return self.old.cluster == self.new.cluster and "moved" or "behind"
end

local check_rows = options.declare("ledger", {
  homes = {
    "string", "what a home has to be: while people work it cannot be proven yet", choices = { "sent", "proven" }, default = "proven",
  },
})

--- All rows, looked at now.
---@async
---@param o? { homes?: "sent"|"proven" }
---@return runbook.hub.Row[]
function Ledger:rows(o)
  o = check_rows(o or {}, 2)
  local homes, levels = homes_of(self)
  local users = users_of(self)
  must_be_their_homes(self, users, homes)
  local rows = ledger.classify({
    users = users, homes = homes, receipts = levels, names = names_of(self),
    secrets = secrets.missing(self.old, self.new), prometheus = prometheus_of(self),
    enough = o.homes,
  }, self.leave)
  local cells = {}
  for i, row in ipairs(rows) do
    cells[i] = { row.kind, row.thing, row.state, row.why }
  end
  events.table { name = "ledger", title = "Ledger", columns = { "what", "name", "state", "why" }, rows = cells }
  return rows
end

-- What the steps before it bring about, and a plan does not.
local BROUGHT = { user = true, secret = true }

--- Raises, with what is open, until everything is where it has to be. A plan looks at what no step will change.
---@async
---@param o? { homes?: "sent"|"proven" }
function Ledger:must_be_closed(o)
  local open, count = {}, 0
  for _, row in ipairs(self:rows(o)) do
    if row.state == "open" and not (effect.planning() and BROUGHT[row.kind]) then
      count = count + 1
      if count <= SHOWN then
        open[count] = ("%s %s: %s"):format(row.kind, row.thing, row.why)
      end
    end
  end
  if count > 0 then
    errors.raise {
      kind = "conflict", code = "EOPEN",
      message = ("%s open in the ledger:\n%s%s"):format(count == 1 and "one row is" or ("%d rows are"):format(count),
        table.concat(open, "\n"), count > SHOWN and ("\nand %s"):format(human.plural(count - SHOWN, "more row", "more rows")) or ""),
      hint = "mend it, or say among the parameters why it stays: `leave: {THING: REASON}`",
    }
  end
end

return ledger
