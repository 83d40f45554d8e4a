--- How two hubs differ in what they were set up to do. Nobody compares 400 values by eye, and users meet every one of them.

local digest = require "runbook.core.digest"
local errors = require "runbook.errors"
local human = require "runbook.human"
local json = require "runbook.json"
local task = require "runbook.task"

local differences = {}

local SHOWN, WIDE = 40, 60 -- lines, and bytes of a value

-- Not of the hub's making, or said elsewhere in words.
local LEFT_OUT = { "^Release%.", "^Chart%.", "^global%.", "^hub%.db%.", "^ingress%.", "^proxy%.https%.", "^singleuser%.storage%.static%." }

-- Keys whose values are nobody's to read; that they differ is told, and no more.
local HIDDEN = { "secret", "token", "passw", "key", "credential", "cookie", "cert", "extraconfig", "extraenv", "extrafiles", "url$" }

local function matches(path, patterns)
  for _, pattern in ipairs(patterns) do
    if path:find(pattern) then
      return true
    end
  end
  return false
end

-- Every value below `value` by its path. A list is one value: its order means something.
local function flatten(value, path, flat)
  if type(value) == "table" and value ~= json.null and json.kind(value) ~= "array" and #value == 0 then
    for key, inner in pairs(value) do
      flatten(inner, path == "" and tostring(key) or path .. "." .. tostring(key), flat)
    end
  elseif value ~= json.null and value ~= nil then
    flat[path] = type(value) == "table" and json.encode(value) or tostring(value)
  end
  return flat
end

local function shown(path, value, key)
  if value == nil then
    return "nothing"
  elseif matches(path:lower(), HIDDEN) then
    return "«" .. digest.hmac("sha256", key, value):sub(1, 8) .. "»"
  end
  return #value > WIDE and value:sub(1, WIDE) .. "…" or value
end

--- Lines for what differs between two sets of values: path, before and after. Values that may be secret come as digests made
--- with a key of this one comparison.
---@param a table
---@param b table
---@return string[]
function differences.of_values(a, b)
  local left, right = flatten(a, "", {}), flatten(b, "", {})
  local paths, key = {}, digest.random(32)
  for path in pairs(left) do
    paths[#paths + 1] = path
  end
  for path in pairs(right) do
    if left[path] == nil then
      paths[#paths + 1] = path
    end
  end
  table.sort(paths)
  local lines = {}
  for _, path in ipairs(paths) do
    if left[path] ~= right[path] and not matches(path, LEFT_OUT) then
      lines[#lines + 1] = ("%s: %s, then %s"):format(path, shown(path, left[path], key), shown(path, right[path], key))
    end
  end
  return lines
end

-- What users would not survive: another way to log in, to find their home, or to reach the hub.
local STOPS = {
  { "authenticator", function(s) return s.authenticator end, "people would log in under other names" },
  { "base URL", function(s) return s.base_url end, "links, OAuth callbacks and running browsers point to the old one" },
  { "slug scheme", function(s) return s.scheme end, "users would find other, empty homes" },
  { "storage", function(s) return s.storage.kind end, "users would find other, empty homes" },
}

local function stop_where_it_matters(old, new, a, b)
  local lines = {}
  for _, rule in ipairs(STOPS) do
    local left, right = rule[2](a), rule[2](b)
    if left ~= right then
      lines[#lines + 1] = ("%s: %s, then %s: %s"):format(rule[1], left or "not said", right or "not said", rule[3])
    end
  end
  local left, right = a.storage.template, b.storage.template
  if left and right and left:match "[^/]+$" ~= right:match "[^/]+$" then
    lines[#lines + 1] = ("home directory: %s, then %s: users would find other, empty homes"):format(left, right)
  end
  if #lines > 0 then
    errors.raise {
      kind = "conflict", code = "ESETTINGS", target = new.name, message = table.concat(lines, "\n"),
      hint = ("deploy %s with the values of %s"):format(new.name, old.name),
    }
  end
end

--- For preflight: what the new hub does otherwise than the old one. Raises for another authenticator, base URL or way to make
--- directories of user names.
---@async
---@param old runbook.Hub
---@param new runbook.Hub
---@return string[] to_know
function differences.hubs(old, new)
  local both = task.all {
    function() return old:settings() end,
    function() return new:settings() end,
  }
  local a, b = both[1], both[2]
  stop_where_it_matters(old, new, a, b)
  local lines = differences.of_values(a.values, b.values)
  local know = {}
  if a.chart ~= b.chart then
    know[1] = ("chart %s, then %s"):format(a.chart or "unknown", b.chart or "unknown")
  end
  if #lines > SHOWN then
    local more = #lines - SHOWN
    lines = table.move(lines, 1, SHOWN, 1, {})
    lines[#lines + 1] = ("and %s"):format(human.plural(more, "other setting"))
  end
  if #lines > 0 then
    know[#know + 1] = ("new hub differs:\n%s"):format(table.concat(lines, "\n"))
  end
  return know
end

-- ---- is the new one the new one? ----

--- For preflight: did somebody swap old and new? The old hub has the users, and people are on it.
---@async
---@param old { hub: runbook.Hub, users: integer, servers: integer }
---@param new { hub: runbook.Hub, users: integer, servers: integer }
function differences.direction(old, new)
  if old.hub == new.hub then
    errors.raise { kind = "conflict", code = "ESAME", target = old.hub.name, message = "old and new are one hub" }
  elseif new.users > old.users and (new.servers > old.servers or old.users <= 1) then
    errors.raise {
      kind = "conflict", code = "ESWAPPED", target = new.hub.name,
      message = ("did you swap old and new? %s has %s and %s running, %s has %s and %s"):format(new.hub.name,
        human.plural(new.users, "user"), human.plural(new.servers, "server"), old.hub.name, human.plural(old.users, "user"),
        human.plural(old.servers, "server")),
      hint = "swap `old` and `new` among the parameters",
    }
  end
end

return differences
