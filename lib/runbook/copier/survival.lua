--- What of a source will not be on the target as it was, and why: one table, for people, for JSON and for the report.
---
--- Found by reading alone: what the target's file system can hold is asked of our program there (src/far/limits.c), what the
--- source holds is known since it was looked at. With plain tools only little of this is known.

local effect = require "runbook.effect"
local errors = require "runbook.errors"
local far = require "runbook.copier.far"
local human = require "runbook.human"
local manifest = require "runbook.core.manifest"
local meter = require "runbook.copier.meter"
local record = require "runbook.copier.record"
local units = require "runbook.units"

local survival = {}

survival.COLUMNS = { "what", "how many", "example", "what happens", "what to do" }

local PATH_MAX = 4096 -- of Linux, with the zero byte

-- What the target can hold; without our program nobody says.
local function limits_of(dir)
  local text, limits = "", {}
  far.run(dir.place, { "limits", dir.path }, { on_data = function(bytes) text = text .. bytes end })
  for key, value in text:gmatch("(%S+) (%S+)\n") do
    limits[key] = tonumber(value) or value
  end
  return limits
end

local function shown(examples, i)
  return examples and examples[i or 1] and meter.shown(examples[i or 1]) or ""
end

-- What the target does with each kind that the census has found; nil: nothing is lost.
local function fates(pair, look, limits)
  local fails = "cannot be kept there: its home fails"
  local rename = "rename it, or leave it out (`exclude`)"
  local device = { "devices", "made with their numbers", "nothing, or leave them out" }
  if not look.to.root then
    device = { "devices", ("user %s cannot make them: their homes fail"):format(look.to.uid), "`sudo: true` below the target" }
  end
  return {
    { "pipe", "pipes", "made anew; nothing lies in them", "nothing" },
    { "socket", "sockets", "made anew; who listens makes his own", "nothing" },
    { "device", table.unpack(device) },
    { "long name", ("names over %d bytes"):format(limits.name_max or 255), fails, rename },
    { "long path", ("paths over %s bytes below %s"):format(units.count(PATH_MAX - 1), pair.to.path),
      "copied, but no program opens them by their whole path", "a shorter directory as target" },
    { "not UTF-8", "names that are not UTF-8", fails, rename },
    { "case", "names that differ in letter case only", "one name there: the home fails", rename },
    { "large", ("files over %s"):format(human.bytes(limits.size_max or 0)), fails, "leave them out, or another file system" },
    { "linked", "hardlinks from home to home", "each home gets a file of its own", "nothing, or link them again there" },
    { "linked out", "hardlinks to names outside", "copied as files", "nothing" },
  }
end

local function census_rows(pair, look, limits, rows)
  local kinds = errors.check(pair.from.place.name, "look through what is known", effect.own(manifest.census, {
    directory = pair.known.directory, name_max = limits.name_max, path_max = PATH_MAX, base = #look.to.real,
    size_max = limits.size_max, folds = limits.folds == "yes", utf8 = limits.utf8 == "yes",
  }))
  for _, fate in ipairs(fates(pair, look, limits)) do
    local found = kinds[fate[1]]
    if found then
      local example = shown(found.examples)
      if fate[1] == "linked" then
        example = ("%s and %s"):format(example, shown(found.examples, 2))
      end
      rows[#rows + 1] = { fate[2], found.count, example, fate[3], fate[4] }
    end
  end
end

-- $1 directory, $2 a pattern of names of attributes. How many names have any, and the first of them.
local COUNT = [[
cd -P -- "$1" || exit 1
command -v getfattr >/dev/null || { echo unknown; exit 0; }
getfattr -R -P -h --absolute-names -m "$2" . 2>/dev/null | sed -n 's|^# file: \./||p' |
  awk 'NR == 1 { e = $0 } END { print NR; if (NR) print e }']]

local ATTRIBUTES = {
  { "xattrs", "^user[.]", "xattrs" }, { "acls", "^system[.]posix_acl", "ACLs" },
}

local function attribute_rows(pair, limits, rows)
  for _, one in ipairs(ATTRIBUTES) do
    if limits[one[1]] == "no" then
      local n, example = pair.from.place:query_sh(COUNT, pair.from.path, one[2], { stall = 7200 }):match("^(%S+)\n?([^\n]*)")
      if n ~= "0" then
        rows[#rows + 1] = { ("names with %s"):format(one[3]), tonumber(n) or n, example, "the target stores none: their homes fail",
          "another file system or mount options there" }
      end
    end
  end
end

local function by_number(owners)
  local list = {}
  for owner, n in pairs(owners) do
    list[#list + 1] = { owner = owner, n = n }
  end
  table.sort(list, function(a, b) return a.n > b.n or a.n == b.n and a.owner < b.owner end)
  return list
end

local function histogram(list)
  local words = {}
  for i = 1, math.min(4, #list) do
    words[i] = ("%s %s"):format(list[i].owner, units.count(list[i].n))
  end
  if #list > 4 then
    words[5] = ("%d more"):format(#list - 4)
  end
  return table.concat(words, ", ")
end

-- Those of which somebody else will be the owner.
local function others_than(owner, owners)
  local others, n = {}, 0
  for _, one in ipairs(by_number(owners)) do
    if one.owner ~= owner then
      others[#others + 1], n = one, n + one.n
    end
  end
  return histogram(others), n
end

local function owner_rows(pair, look, rows)
  local able = not look.to.root and look.to.uid .. ":" .. look.to.gid
  if pair.owner ~= "keep" then
    local text, n = others_than(pair.owner, look.survey.owners)
    rows[#rows + 1] = n > 0 and { ("names of others than %s"):format(pair.owner), n, text, ("belong to %s there"):format(pair.owner),
      "nothing, or `owner: keep`" } or nil
  elseif able then
    local text, n = others_than(able, look.survey.owners)
    rows[#rows + 1] = n > 0 and { ("names of others than %s"):format(able), n, text, ("user %s cannot give them away"):format(look.to.uid),
      ("`sudo: true` below the target, or `owner: %s`"):format(able) } or nil
  end
end

local function problem_rows(look, rows)
  local problems = look.survey.problems
  if #problems > 0 then
    rows[#rows + 1] = { "directories and names that cannot be read", #problems, meter.shown(problems[1]), "the copy does not begin",
      "`sudo: true` below the source" }
  end
end

-- What plain tools have counted.
local function plain_rows(look, rows)
  local total = look.survey.total
  if total.special > 0 then
    rows[#rows + 1] = { "pipes, sockets and devices", total.special, "", "made anew", "nothing" }
  end
  if total.linked > 0 then
    rows[#rows + 1] = { "hardlinks", total.linked, "", "kept within a home, not across homes", "nothing, or link them again there" }
  end
end

--- The rows of the table.
---@async
---@param pair table
---@param look table
---@return any[][]
function survival.rows(pair, look)
  local rows = {}
  problem_rows(look, rows)
  if look.engine.name == "mover" then
    local limits = limits_of(pair.to)
    if limits.bare == "yes" then
      rows[#rows + 1] = { "owners, modes, links, pipes", look.survey.total.entries, "",
        ("%s keeps none of them: homes fail"):format(limits.type), "another file system as target" }
    end
    census_rows(pair, look, limits, rows)
    attribute_rows(pair, limits, rows)
  else
    plain_rows(look, rows)
  end
  owner_rows(pair, look, rows)
  return rows
end

--- The check; see runbook.copier.preflight.
---@async
---@param pair table
---@param look table
---@return table?  a finding with a table
function survival.check(pair, look)
  local rows = survival.rows(pair, look)
  record.note_survival(pair, rows)
  if #rows == 0 then
    return nil
  end
  local words = {}
  for i, row in ipairs(rows) do
    words[i] = ("%s %s"):format(type(row[2]) == "number" and units.count(row[2]) or row[2], row[1])
  end
  return {
    text = table.concat(words, "; "),
    table = { name = "survival " .. pair.id, title = ("What of %s is not the same on the target"):format(tostring(pair.from)),
      columns = survival.COLUMNS, rows = rows },
  }
end

return survival
