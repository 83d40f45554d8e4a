--- What is known of pairs, kept on this machine ($STATE/pairs), and which of it nobody needs any more; for `runbook sweep`.
---
--- It is only ever a help: without it both ends are looked at again. An open run keeps what it has used; so does use within the
--- last 30 days, unless the target bears the stamp of somebody else's pass, which makes the greater part of it worthless.

local core = require "runbook.core.file"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local json = require "runbook.json"
local place = require "runbook.place"
local record = require "runbook.copier.record"
local store = require "runbook.store"
local time = require "runbook.core.time"

local pairs_kept = {}

local KEPT = 30 * 86400 -- seconds after its last use
local BEING_MADE = 3600 -- younger ones are left alone, whatever their stamp says: a pass may be on

local own = effect.own

local function directory_of(id)
  return ("%s/pairs/%s"):format(store.root(), id)
end

-- Bytes below a directory, and when the last of it changed.
local function measure(directory)
  local bytes, newest = 0, 0
  for _, entry in ipairs(own(core.list, directory) or {}) do
    local path = directory .. "/" .. entry.name
    if entry.type == "directory" then
      local more, at = measure(path)
      bytes, newest = bytes + more, math.max(newest, at)
    else
      local stat = own(core.lstat, path) or { blocks = 0, mtime = 0 }
      bytes, newest = bytes + stat.blocks * 512, math.max(newest, stat.mtime)
    end
  end
  return bytes, newest
end

local function state_of(directory)
  local ok, value = pcall(json.decode, own(core.read, directory .. "/state") or "")
  return ok and type(value) == "table" and value or {}
end

-- Pairs that runs which are not over have used, by the name of the run.
local function in_use()
  local used = {}
  for _, row in ipairs(store.list()) do
    if row.state ~= "done" and row.state ~= "rolled-back" and not row.error then
      local j = store.journal(row.name)
      for key in pairs(j.meta) do
        local id = key:match("^pair (%x+)$")
        used[id or ""] = row.name
      end
      j:close()
    end
  end
  return used
end

-- Does the target bear another stamp than that of our last pass? Nobody who does not answer is taken for changed.
local function is_overtaken(state)
  if not (state.token and state.target) then
    return false
  end
  local ok, there = xpcall(function()
    local at = place.open(state.target.place)
    if at.backend.fleeting then
      errors.raise { kind = "unreachable", target = at.name, message = "no pod is made to ask that" }
    end
    return record.read(at:dir(state.target.path))
  end, errors.handler)
  if not ok and errors.is_cancelled(there) then
    error(there, 0)
  end
  return ok and not (there and there.state == "closed" and there.token == state.token)
end

--- What nobody needs any more, the largest first.
---@async
---@return { id: string, text: string, bytes: integer, age: number, why: string }[]
function pairs_kept.unneeded()
  local list, used = {}, in_use()
  for _, entry in ipairs(own(core.list, store.root() .. "/pairs") or {}) do
    local directory = directory_of(entry.name)
    local bytes, newest = measure(directory)
    local age, state = time.utc() - newest, state_of(directory)
    local why = age > KEPT and "nobody used it" or age > BEING_MADE and is_overtaken(state) and "somebody else has copied there since"
    if entry.type == "directory" and not used[entry.name] and why then
      list[#list + 1] = { id = entry.name, text = state.pair or entry.name, bytes = bytes, age = age, why = why }
    end
  end
  table.sort(list, function(a, b) return a.bytes > b.bytes or a.bytes == b.bytes and a.id < b.id end)
  return list
end

local function remove(directory)
  for _, entry in ipairs(own(core.list, directory) or {}) do
    local path = directory .. "/" .. entry.name
    if entry.type == "directory" then
      remove(path)
    else
      errors.check(path, "remove", own(core.unlink, path))
    end
  end
  errors.check(directory, "remove", own(core.rmdir, directory))
end

--- Forget a pair.
---@async
---@param id string
function pairs_kept.remove(id)
  remove(directory_of(id))
end

return pairs_kept
