--- Does each home fit its quota at the target? Told before a pass, so that nobody hears of it from a home that failed.
---
--- A quota of a directory (project quotas of xfs and ext4, a file system for each home) shows in the statfs of the home, once
--- it is there; homes that share one project share it. Quotas of users and groups are asked of `repquota`, which root may; a
--- home counts for whom most of its names belong to. Where they are on and nobody could be asked, that is said.

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

-- $1 the directory; names of homes on stdin. What `lsattr -p` says of a directory begins with its project.
local PROJECTS = [[
LC_ALL=C; export LC_ALL
cd -P -- "$1" 2>/dev/null && command -v lsattr >/dev/null || exit 0
xargs -0 -r -n 1 sh -fc 'set -- "$1" $(lsattr -pd -- "$1" 2>/dev/null); printf "%s %s\0" "${2:-0}" "$1"' sh]]

-- $1 a mount point. What is mounted there, with options; then what `repquota` says of users and of groups: #id, flags, blocks
-- used, soft, hard (kB), grace, names used, soft, hard, grace.
local ACCOUNTS = [[
LC_ALL=C PATH=$PATH:/usr/sbin:/sbin; export LC_ALL PATH
mount=
while read -r _ at type options _; do
  if [ "$at" = "$1" ]; then mount="$type $options"; fi
done </proc/self/mounts
echo "mount $mount"
if command -v repquota >/dev/null; then
  for kind in u g; do
    echo "report $kind"
    repquota "-$kind" -n -p -- "$1" 2>/dev/null
  done
else
  echo "no repquota"
fi
:]]

local function nul_ended(list)
  local names = {}
  for i, unit in ipairs(list) do
    names[i] = "./" .. unit.name .. "\0"
  end
  return table.concat(names)
end

local function too_small(whose, bytes, entries, limit, what)
  if limit.bytes > 0 and bytes > limit.bytes then
    return ("%s: %s at the source, and %s is %s"):format(whose, human.bytes(bytes), what, human.bytes(limit.bytes))
  elseif limit.inodes > 0 and entries > limit.inodes then
    return ("%s: %s names at the source, and %s is %s"):format(whose, units.count(entries), what, units.count(limit.inodes))
  end
end

-- What units of one account or project need together, by its id; and the ids, as they came.
local function sums(list, id_of)
  local need, order = {}, {}
  for _, unit in ipairs(list) do
    local id = id_of(unit)
    if id and not need[id] then
      need[id], order[#order + 1] = { bytes = 0, entries = 0, names = {}, first = unit.name }, id
    end
    if id then
      local n = need[id]
      n.bytes, n.entries = n.bytes + unit.disk, n.entries + unit.entries
      n.names[#n.names + 1] = unit.name
    end
  end
  return need, order
end

-- Homes in one project have one limit together, and each shows all of it. Only those are asked that have the same one.
local function by_project(pair, list, limits)
  local alike, asked = {}, {}
  local function key_of(unit)
    local l = limits[unit.name]
    return l and ("%.0f %.0f"):format(l.bytes, l.inodes) or ""
  end
  for _, unit in ipairs(list) do
    alike[key_of(unit)] = (alike[key_of(unit)] or 0) + 1
  end
  for _, unit in ipairs(list) do
    asked[#asked + 1] = limits[unit.name] and alike[key_of(unit)] > 1 and unit or nil
  end
  local project_of = {}
  local said = #asked > 0 and pair.to.place:query_sh(PROJECTS, pair.to.path, { stdin = nul_ended(asked) }) or ""
  for project, name in said:gmatch("(%d+) %./([^%z]+)%z") do
    project_of[name] = project ~= "0" and project or nil
  end
  local need, order = sums(asked, function(unit) return project_of[unit.name] end)
  local lines = {}
  for _, id in ipairs(order) do
    local n = need[id]
    lines[#lines + 1] = #n.names > 1 and too_small(("project %s (%s)"):format(id, meter.of_units(n.names)), n.bytes, n.entries,
      limits[n.first], "its quota") or nil
  end
  return lines
end

local function by_home(pair, list)
  local said = pair.to.place:query_sh(STATFS, pair.to.path, { stdin = nul_ended(list) })
  local found, own = {}, { bytes = 0, inodes = 0 }
  for size, blocks, inodes, name in said:gmatch("(%d+) (%d+) (%d+) ([^%z]+)%z") do
    local one = { bytes = tonumber(size) * tonumber(blocks), inodes = tonumber(inodes) }
    if name == "." then
      own = one
    else
      found[name:sub(3)] = one
    end
  end
  local lines, limits = {}, {}
  for _, unit in ipairs(list) do
    local there = found[unit.name]
    local limit = there and {
      bytes = there.bytes ~= own.bytes and there.bytes or 0, inodes = there.inodes ~= own.inodes and there.inodes or 0,
    }
    if limit and limit.bytes + limit.inodes > 0 then
      limits[unit.name] = limit
      lines[#lines + 1] = too_small(meter.shown(unit.name), unit.disk, unit.entries, limit, "its quota")
    end
  end
  local shared = by_project(pair, list, limits)
  return table.move(shared, 1, #shared, #lines + 1, lines)
end

-- To which user, or group, most names of a unit belong there.
local function owner_of(pair, unit, pattern)
  if pair.owner ~= "keep" then
    return pair.owner:match(pattern)
  end
  local counts, id, most = {}, nil, 0
  for owner, n in pairs(unit.owners or {}) do
    local one = owner:match(pattern)
    counts[one] = (counts[one] or 0) + n
    if counts[one] > most then
      id, most = one, counts[one]
    end
  end
  return id
end

local ACCOUNT = { u = { name = "user", pattern = "^%d+" }, g = { name = "group", pattern = "%d+$" } }

-- As mount options say it.
local ON = {
  u = { "usrquota", "uquota", "usrjquota=[^,]+", "quota" }, g = { "grpquota", "gquota", "grpjquota=[^,]+" },
}

local function is_on(options, kind)
  for _, pattern in ipairs(ON[kind]) do
    if ("," .. options .. ","):find("," .. pattern .. ",") then
      return true
    end
  end
  return false
end

local function ask_accounts(pair, look)
  local said = pair.to.place:query_sh(ACCOUNTS, look.to.mount)
  local file_system, options = said:match("^mount (%S*) ?([^\n]*)")
  local found = { file_system = file_system, options = options, has = not said:find("\nno repquota\n", 1, true), limits = {} }
  local kind
  for line in said:gmatch("[^\n]+") do
    kind = line:match("^report ([ug])$") or kind
    local id, blocks, inodes = line:match("^#(%d+)%s+%S+%s+%d+%s+%d+%s+(%d+)%s+%S+%s+%d+%s+%d+%s+(%d+)%s+%S+")
    if id then
      found.limits[kind] = found.limits[kind] or {}
      found.limits[kind][id] = { bytes = tonumber(blocks) * 1024, inodes = tonumber(inodes) }
    end
  end
  return found
end

local function by_account(pair, all, kind, limits)
  local account = ACCOUNT[kind]
  local need, order = sums(all, function(unit) return owner_of(pair, unit, account.pattern) end)
  local lines = {}
  for _, id in ipairs(order) do
    local n = need[id]
    lines[#lines + 1] = limits[id] and too_small(("%s %s (%s)"):format(account.name, id, meter.of_units(n.names)), n.bytes, n.entries,
      limits[id], ("the %s's quota"):format(account.name))
  end
  return lines
end

local SERVED = { nfs = true, nfs4 = true, cifs = true, smb3 = true, ceph = true, ["fuse.sshfs"] = true, ["9p"] = true }

--- What there is, and could not be asked for.
---@param at string  the mount point, for people
---@param accounts { file_system: string, options: string, has: boolean, limits: table }  as mounted; is there repquota, what it said by kind
---@param root boolean  may it be asked?
---@return string?
function quota.not_looked_at(at, accounts, root)
  if SERVED[accounts.file_system] then
    return ("%s is served by another machine (%s): quotas of users and groups were not looked at, ask there: repquota -a -u -g"):format(
      at, accounts.file_system)
  end
  local kinds = {}
  for _, kind in ipairs { "u", "g" } do
    kinds[#kinds + 1] = is_on(accounts.options, kind) and not accounts.limits[kind] and ACCOUNT[kind].name .. "s" or nil
  end
  if #kinds == 0 then
    return nil
  end
  return ("quotas of %s are on at %s and were not looked at: %s"):format(table.concat(kinds, " and "), at,
    not accounts.has and "there is no repquota (apt-get install quota)" or not root and "only root may (`sudo: true`)"
      or "repquota says nothing of them")
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
  local lines, accounts = #there > 0 and by_home(pair, there) or {}, ask_accounts(pair, look)
  for _, kind in ipairs { "u", "g" } do
    local more = look.to.root and accounts.limits[kind] and by_account(pair, all, kind, accounts.limits[kind]) or {}
    table.move(more, 1, #more, #lines + 1, lines)
  end
  local unseen = quota.not_looked_at(("%s of %s"):format(look.to.mount, pair.to.place.name), accounts, look.to.root)
  if #lines == 0 then
    return unseen
  end
  return ("%s on %s, and will fail: raise it there, or have them tidied up\n%s%s"):format(
    #lines == 1 and "a quota is too small" or ("%d quotas are too small"):format(#lines), pair.to.place.name,
    human.first_five(lines), unseen and "\n" .. unseen or "")
end

return quota
