--- Whether two trees are the same in all that a copy must keep, said by a program that shares nothing with ours
--- (spec/world/oracle/main.c).
---
---     local before = oracle.digest(old:path "/srv/homes")
---     oracle.identical(old:path "/srv/homes", new:path "/srv/homes", { exclude = { "lost+found" } })
---     assert.equal(before, oracle.digest(old:path "/srv/homes"))

local world = require "spec.world"

local oracle = {}

---@class spec.oracle.options
---@field exclude? string[]  names at the top that do not count; the target's .runbook never does
---@field owner? string  "UID:GID": what everything on the target must belong to
---@field threads? integer

local function run(o, words)
  o = o or {}
  local line = { world.build .. "/world/oracle" }
  for _, name in ipairs(o.exclude or {}) do
    line[#line + 1] = "--exclude-top " .. world.quote(name)
  end
  line[#line + 1] = o.owner and "--owner " .. o.owner or nil
  line[#line + 1] = o.threads and "--threads " .. o.threads or nil
  for _, word in ipairs(words) do
    line[#line + 1] = world.quote(word)
  end
  local text, code = world.sh(table.concat(line, " "))
  if code ~= 0 and code ~= 1 then
    error(("the oracle could not see everything (exit code %d):\n%s"):format(code, text), 3)
  end
  return text, code
end

--- What differs. Raises when something could not be seen.
---@param source string  as this machine sees it
---@param target string
---@param o? spec.oracle.options
---@return table<string, integer> kinds  "content", "mode", ... to how many names; empty when identical
---@return string text  with examples
function oracle.differences(source, target, o)
  local text, code = run(o, { source, target })
  local kinds = {}
  for kind, count in ("\n" .. text):gmatch "\n([%a-]+) (%d+)%f[\n\0]" do
    kinds[kind] = tonumber(count)
  end
  assert((code == 0) == (next(kinds) == nil), text)
  return kinds, text
end

--- Raises with what differs unless the target is identical.
---@param source string
---@param target string
---@param o? spec.oracle.options
---@return string text  how much was compared
function oracle.identical(source, target, o)
  local text, code = run(o, { source, target })
  if code ~= 0 then
    error(("%s is not identical to %s:\n%s"):format(target, source, text), 2)
  end
  return text
end

--- All that a copy must keep of one tree, as one line: the same as long as nothing changed.
---@param tree string
---@param o? spec.oracle.options
---@return string
function oracle.digest(tree, o)
  return (run(o, { "--print", tree }))
end

return oracle
