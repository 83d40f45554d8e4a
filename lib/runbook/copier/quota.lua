--- Does each home fit its quota at the target? Told before a pass, so that nobody hears of it from a home that failed.
---
--- A quota of a directory (project quotas of xfs and ext4, a file system for each home) shows in the statfs of the home, once
--- it is there. Quotas of users are asked of `repquota`, which root may; a home counts for whom most of its names belong to.

local human = require "runbook.human"
local meter = require "runbook.copier.meter"
local record = require "runbook.copier.record"
local scan = require "runbook.copier.scan"
local units = require "runbook.units"

local quota = {}

-- $1 the directory; names of homes on stdin, each ended by a zero byte. First the directory's own figures, then theirs.
local STATFS = [[
LC_ALL=C; export LC_ALL
cd -P -- "$1" 2>/dev/null || exit 0
stat -f --printf '%S %b %c .\0' .
xargs -0 -r stat -f --printf '%S %b %c %n\0' -- 2>/dev/null || :]]

-- $1 a mount point. Lines of `repquota -n -p`: #uid, flags, blocks used, soft, hard (kB), grace, names used, soft, hard, grace.
local REPQUOTA = [[
LC_ALL=C PATH=$PATH:/usr/sbin:/sbin; export LC_ALL PATH
command -v repquota >/dev/null || exit 0
repquota -u -n -p -- "$1" 2>/dev/null || :]]

local function by_home(pair, list)
  local names = {}
  for i, unit in ipairs(list) do
    names[i] = "./" .. unit.name .. "\0"
  end
  local said = pair.to.place:query_sh(STATFS, pair.to.path, { stdin = table.concat(names) })
  local found, own = {}, nil
  for size, blocks, inodes, name in said:gmatch("(%d+) (%d+) (%d+) ([^%z]+)%z") do
    local one = { bytes = tonumber(size) * tonumber(blocks), inodes = tonumber(inodes) }
    if name == "." then
      own = one
    else
      found[name:sub(3)] = one
    end
  end
  local lines = {}
  for _, unit in ipairs(list) do
    local limit = found[unit.name]
    if limit and limit.bytes ~= own.bytes and unit.disk > limit.bytes then
      lines[#lines + 1] = ("%s: %s at the source, and its quota is %s"):format(meter.shown(unit.name), human.bytes(unit.disk),
        human.bytes(limit.bytes))
    elseif limit and limit.inodes > 0 and limit.inodes ~= own.inodes and unit.entries > limit.inodes then
      lines[#lines + 1] = ("%s: %s names at the source, and its quota is %s"):format(meter.shown(unit.name), units.count(unit.entries),
        units.count(limit.inodes))
    end
  end
  return lines
end

-- To whom most names of a unit belong there.
local function user_of(pair, unit)
  if pair.owner ~= "keep" then
    return pair.owner:match("^%d+")
  end
  local uid, most = nil, 0
  for owner, n in pairs(unit.owners or {}) do
    if n > most then
      uid, most = owner:match("^%d+"), n
    end
  end
  return uid
end

local function by_user(pair, look, all)
  local need, order = {}, {}
  for _, unit in ipairs(all) do
    local uid = user_of(pair, unit)
    if uid and not need[uid] then
      need[uid], order[#order + 1] = { bytes = 0, entries = 0, names = {} }, uid
    end
    if uid then
      local n = need[uid]
      n.bytes, n.entries = n.bytes + unit.disk, n.entries + unit.entries
      n.names[#n.names + 1] = unit.name
    end
  end
  local limits = {}
  for uid, blocks, inodes in pair.to.place:query_sh(REPQUOTA, look.to.mount):gmatch(
    "#(%d+)[ \t]+%S+[ \t]+%d+[ \t]+%d+[ \t]+(%d+)[ \t]+%S+[ \t]+%d+[ \t]+%d+[ \t]+(%d+)[ \t]+%S+") do
    limits[uid] = { bytes = tonumber(blocks) * 1024, inodes = tonumber(inodes) }
  end
  local lines = {}
  for _, uid in ipairs(order) do
    local n, limit = need[uid], limits[uid]
    local whose = ("user %s (%s)"):format(uid, meter.of_units(n.names))
    if limit and limit.bytes > 0 and n.bytes > limit.bytes then
      lines[#lines + 1] = ("%s: %s at the source, and the user's quota is %s"):format(whose, human.bytes(n.bytes), human.bytes(limit.bytes))
    elseif limit and limit.inodes > 0 and n.entries > limit.inodes then
      lines[#lines + 1] = ("%s: %s names at the source, and the user's quota is %s"):format(whose, units.count(n.entries),
        units.count(limit.inodes))
    end
  end
  return lines
end

--- The check; see runbook.copier.preflight.
---@async
---@param pair table
---@param look table
---@return string?
function quota.check(pair, look)
  local is_there, there, all = {}, {}, {}
  for _, name in ipairs(look.to.names) do
    is_there[name] = not look.to.loose[name]
  end
  local sorted = table.move(look.survey.units, 1, #look.survey.units, 1, {}) -- they come as they were scanned
  table.sort(sorted, function(a, b) return a.name < b.name end)
  for _, unit in ipairs(sorted) do
    if not record.is_left(unit.name) then
      all[#all + 1] = unit
      there[#there + 1] = unit.name ~= scan.LOOSE and is_there[unit.name] and unit or nil
    end
  end
  local lines = #there > 0 and by_home(pair, there) or {}
  for _, line in ipairs(look.to.root and by_user(pair, look, all) or {}) do
    lines[#lines + 1] = line
  end
  if #lines == 0 then
    return nil
  end
  return ("%s on %s, and will fail: raise it there, or have them tidied up\n%s"):format(
    #lines == 1 and "a quota is too small" or ("%d quotas are too small"):format(#lines), pair.to.place.name,
    human.first_five(lines))
end

return quota
