--- What is looked at before anything is written: each check says what it found, is silent when all is well, or stops.

local ends = require "runbook.copier.ends"
local errors = require "runbook.errors"
local meter = require "runbook.copier.meter"
local pass = require "runbook.copier.pass"
local quota = require "runbook.copier.quota"
local record = require "runbook.copier.record"
local rsync = require "runbook.copier.rsync"
local scan = require "runbook.copier.scan"
local shards = require "runbook.copier.shards"
local survival = require "runbook.copier.survival"
local units = require "runbook.units"
local workers = require "runbook.copier.workers"

local preflight = {}

local NEEDED = { "awk", "find", "paste", "sed", "sha256sum", "sort", "xargs" }
local SKEW_SECONDS = 60

local function stop(e)
  errors.raise(e, 2)
end

local function check_tools(dir, facts, know)
  local at = dir.place.name
  if not facts.version then
    stop { kind = "missing", target = at, message = ("there is no rsync on %s"):format(at),
      hint = dir.place:by_hand { "apt-get", "install", "rsync" } }
  elseif facts.version < rsync.version(rsync.OLDEST) then
    stop { kind = "refused", target = at, message = ("%s has %s; %s is the oldest that keeps times to the nanosecond"):format(at,
      facts.rsync, rsync.OLDEST) }
  elseif not (facts.acls and facts.xattrs) then
    stop { kind = "refused", target = at, message = ("the rsync of %s keeps no ACLs or xattrs"):format(at),
      hint = "install the distribution's own rsync" }
  end
  for _, tool in ipairs(NEEDED) do
    if not facts.has[tool] then
      stop { kind = "missing", target = at, message = ("there is no %s on %s"):format(tool, at) }
    end
  end
  if not facts.has.getfattr then
    know[#know + 1] = ("%s has no getfattr: ACLs and xattrs are copied, but not compared (apt-get install attr)"):format(at)
  end
  if facts.version < 30103 then
    know[#know + 1] = ("%s has %s: a file changed twice within a second is found by the comparison, not by the copy"):format(
      at, facts.rsync)
  end
end

local function tools(pair, look)
  local know = {}
  if look.engine.name == "rsync" then
    check_tools(pair.from, look.from, know)
    check_tools(pair.to, look.to, know)
  end
  local kind = pair:route(look).kind
  if kind == "pull" or kind == "push" then
    local by, facts = pair.to.place, look.to
    if kind == "push" then
      by, facts = pair.from.place, look.from
    end
    for _, tool in ipairs { "ssh", "ssh-add", "ssh-agent" } do
      if not facts.has[tool] then
        stop { kind = "missing", target = by.name, message = ("there is no %s on %s"):format(tool, by.name),
          hint = by:by_hand { "apt-get", "install", "openssh-client" } }
      end
    end
  end
  return know
end

local function two_directories(pair, look)
  ends.must_differ(pair, look.from, look.to)
end

local PATIENCE = 7200 -- seconds that a search may print nothing: there are millions of files

local UNREADABLE = [[
cd -P -- "$1" || exit 1
find . ! -type l ! -readable -printf '%P\n' 2>/dev/null | head -n 1000]]

local function source_is_whole(pair, look)
  pass.must_be_complete(pair, look.survey, look.passes, look.known)
  if look.from.root then
    return
  end
  local unreadable, n = pair.from.place:query_sh(UNREADABLE, pair.from.path, { stall = PATIENCE }), 0
  for _ in unreadable:gmatch("[^\n]+") do
    n = n + 1
  end
  if n > 0 then
    stop {
      kind = "refused", code = "EUNREADABLE", target = pair.from.place.name,
      message = ("%s%d %s cannot be read as this user: %s"):format(n >= 1000 and "more than " or "", n, n == 1 and "name" or "names",
        unreadable:match("[^\n]+")),
      hint = "`sudo: true` below the source",
    }
  end
end

-- Once homes are proven people may be on the target, and what is new there is theirs; every pass still refuses it.
local function is_proven(pair)
  for _, receipt in pairs(record.receipts(pair)) do
    if receipt.level == "hashed" or receipt.level == "scanned" then
      return true
    end
  end
  return false
end

local function target_is_ours(pair, look)
  local foreign = record.foreign(pair, look.to, look.known, look.source)
  if #foreign > 0 and is_proven(pair) then
    return ("%s on %s came after the proof: no pass goes on while %s there"):format(meter.of_units(foreign), tostring(pair.to),
      #foreign == 1 and "it is" or "they are")
  end
  record.must_have_no_foreign(pair, foreign)
  if not look.to.there then
    return ("%s is not there yet and is made"):format(tostring(pair.to))
  elseif look.known then
    return ("goes on with what was begun there %s"):format(look.known.began)
  elseif not look.to.writable then
    stop { kind = "refused", target = pair.to.place.name, message = tostring(pair.to) .. " cannot be written as this user",
      hint = "`sudo: true` below the target" }
  end
end

-- What is there already need not find room again.
local function room(pair, look)
  local need, inodes = look.survey.total.disk, look.survey.total.entries
  if look.known then
    local there = scan.survey(pair.to, pair.exclude).total
    need, inodes = math.max(0, need - there.disk), math.max(0, inodes - there.entries)
  end
  local to = pair.to.place.name
  if need > look.to.free then
    stop { kind = "full", target = to, message = ("%s are needed and %s are free on %s"):format(units.size(need),
      units.size(look.to.free), to) }
  elseif look.to.inodes > 0 and inodes > look.to.inodes_free then
    stop { kind = "full", target = to, message = ("%s inodes are needed and %s are free on %s"):format(units.count(inodes),
      units.count(look.to.inodes_free), to) }
  elseif need > look.to.free * 0.9 then
    return ("%s of %s free on %s will be taken"):format(units.size(need), units.size(look.to.free), to)
  end
end

local function histogram(owners)
  local list, total = {}, 0
  for owner, n in pairs(owners) do
    list[#list + 1] = { owner = owner, n = n }
    total = total + n
  end
  table.sort(list, function(a, b) return a.n > b.n or a.n == b.n and a.owner < b.owner end)
  local words = {}
  for i = 1, math.min(4, #list) do
    words[i] = ("%s %s"):format(list[i].owner, units.count(list[i].n))
  end
  if #list > 4 then
    words[5] = ("%d more"):format(#list - 4)
  end
  return table.concat(words, ", "), #list, list
end

local function owners(pair, look)
  local text, n, list = histogram(look.survey.owners)
  if not look.to.root then
    local able = look.to.uid .. ":" .. look.to.gid
    local wanted = pair.owner == "keep" and (n == 1 and list[1].owner or "several owners") or pair.owner
    if wanted ~= able then
      stop {
        kind = "refused", code = "EOWNER", target = pair.to.place.name,
        message = ("user %s on %s cannot give files to %s"):format(look.to.uid, pair.to.place.name,
          wanted == "several owners" and text or wanted),
        hint = ("`sudo: true` below the target, or owner: %s"):format(able),
      }
    end
  end
  if pair.owner ~= "keep" then
    return ("every file will belong to %s; now they belong to %s"):format(pair.owner, text)
  elseif n > 1 then
    return ("owners are kept: %s"):format(text)
  end
end

local function clocks(pair, look)
  local skew = look.from.skew - look.to.skew
  if math.abs(skew) > SKEW_SECONDS then
    return ("the clock of %s is %s %s of that of %s; times are compared as they are, so that nothing is lost by it"):format(
      pair.from.place.name, units.duration(math.abs(skew)), skew > 0 and "ahead" or "behind", pair.to.place.name)
  end
end

local ODD = [[
cd -P -- "$1" || exit 1
find . -name '.rb~*' -printf 'ours %P\0' -o -name '*
*' -printf 'newline %P\0' 2>/dev/null | head -c 1000000]]

local function names(pair)
  local lines = 0
  for kind, name in pair.from.place:query_sh(ODD, pair.from.path, { stall = PATIENCE }):gmatch("(%a+) ([^%z]*)%z") do
    if kind == "ours" then
      stop { kind = "conflict", target = pair.from.place.name, hint = "remove or rename it",
        message = ("the source holds %s, a name we use while we copy"):format(name) }
    end
    lines = lines + 1
  end
  if lines > 0 then
    return ("%s names hold a newline; they are copied like the others"):format(units.count(lines))
  end
end

local function the_route(pair, look)
  return pair:route(look).text
end

-- Of passes while people work; what little is left later comes over the connections there are.
local function at_a_time(pair, look)
  local way = pair:route(look).kind
  local connect = way == "pull" or way == "push"
  if look.engine.name == "rsync" then
    return ("%d homes%s"):format(pair.workers, connect and ", with a connection between the servers for each" or "")
  end
  local what = connect and "connections between the servers" or "workers"
  return workers.forecast { most = pair.workers, width = pair.width, fixed = pair.rate ~= nil, near = shards.lanes { look = look } == 1,
    quiet = pair.quiet ~= math.huge and pair.quiet or nil, what = what }
end

local function size(pair, look)
  local t = look.survey.total
  return ("%s -> %s, contents into contents: %s directories, %s, %s files"):format(tostring(pair.from), tostring(pair.to),
    units.count(#look.survey.units - 1), units.size(t.bytes), units.count(t.files))
end

--- The checks of a pair, for rb.checks. What the ends are like is looked at once for all of them.
---@param pair table
---@return table[]
function preflight.checks(pair)
  local list = {}
  for _, row in ipairs {
    { "both servers answer and have what a copy needs", tools }, { "source and target are two directories", two_directories },
    { "the source is all there and can be read", source_is_whole }, { "the target is empty, or filled by us", target_is_ours },
    { "what is copied", size }, { "the target has room", room }, { "homes fit their quotas", quota.check },
    { "owners", owners }, { "clocks", clocks }, { "names", names },
    { "what will not be the same", survival.check }, { "the two ends reach each other", the_route },
    { "how many copy at a time", at_a_time },
  } do
    list[#list + 1] = { row[1], function() return row[2](pair, pair:look()) end }
  end
  return list
end

return preflight
