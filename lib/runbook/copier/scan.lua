--- Looking at a tree with plain tools: find, sort, sed, awk, stat, and getfattr where there is one.
---
--- `survey` counts what is there, unit by unit. `fingerprint` reduces a unit to digests of everything a copy must keep, computed
--- where the files are, so that millions of names do not travel; `listing` brings the names when two digests differ.

local errors = require "runbook.errors"
local patterns = require "runbook.copier.patterns"
local time = require "runbook.core.time"

local scan = {}

-- The loose files at the top are a unit of their own, called so.
scan.LOOSE = "."

local LISTING_LIMIT = 64 << 20

-- What the scripts share. A unit is entered before it is looked at, so that patterns see names from its top; one that has
-- become a symlink is refused: it would lead out of the tree.
local common = [[
LC_ALL=C; export LC_ALL
cd -P -- "$1" || exit 1
enter() {
  [ "$1" = . ] && return 0
  [ ! -L "$1" ] && cd -P -- "./$1"
}
]]

local function not_units(format, joint)
  local words = {}
  for i, name in ipairs(patterns.NOT_UNITS) do
    words[i] = format:format(name)
  end
  return table.concat(words, joint)
end

-- The names at the top that find looks at when the loose files are the unit: they, and the directory they lie in.
local LOOSE = "( -name . -o ! -type d " .. not_units("! -name %s", " ") .. " )"

-- $1 directory, $2 `gently` or nothing, then what find leaves out. First the tree itself, then each unit:
-- name, counts, owners, each ended by a zero byte.
local SURVEY = common .. [[
gently=$2; shift 2
if [ -n "$gently" ]; then
  gently="nice -n 19"
  if ionice -c 3 true 2>/dev/null; then gently="ionice -c 3 nice -n 19"; fi
fi
printf '%s\0' "$(date +%s) $(stat -c '%d:%i' .) $(stat -f -c %T .)" "$(stat -c %m .)"
count() {
  awk '
    { n++; disk += $3; owners[$5]++; split($6, c, ".") }
    $1 == "f" { files++; bytes += $2 }
    $1 == "d" { dirs++ }
    $1 ~ /[bcps]/ { special++ }
    $1 != "d" && $4 > 1 { linked++ }
    c[1] + 0 > s + 0 || (c[1] == s && c[2] > ns) { s = c[1]; ns = c[2] }
    END {
      printf "%.0f %.0f %.0f %.0f %.0f %.0f %.0f %s", n, files, dirs, bytes, disk * 512, special, linked, n ? s "." ns : "0.0"
      printf "%c", 0
      for (o in owners) printf "%s=%d ", o, owners[o]
      printf "%c", 0
    }'
}
for u in * .[!.]* ..?*; do
  case $u in ]] .. not_units("%s", "|") .. [[) continue; esac
  if [ -d "$u" ] && [ ! -L "$u" ]; then
    printf '%s\0' "$u"
    (enter "$u" && $gently find . "$@" -printf '%y %s %b %n %U:%G %C@\n') | count
  fi
done
printf '.\0'
set -f
$gently find . -maxdepth 1 "$@" ]] .. LOOSE:gsub("[()]", "\\%0") .. [[ -printf '%y %s %b %n %U:%G %C@\n' | count]]

-- One line per name, sorted: path, link target, then type, mode, owner, size, time and the first name of its hardlink group.
-- A zero byte, tab or newline in a name cannot make two lines of one. Sizes and link counts of directories are a matter
-- of the file system, and link counts include names outside of the unit: neither is compared.
local LIST = [==[
list() {
  find . $top "$@" $only -printf '%P\0%l\0%y %m %U:%G %s %T@ %n %D:%i\0' |
    sed -z 's/\\/\\\\/g; s/\t/\\t/g; s/\n/\\n/g' | tr '\0' '\n' | paste - - - | sort |
    awk -F '\t' -v owner="$owner" -v loose="$loose" '
      {
        split($3, a, " ")
        if (a[1] == "f") { files++; bytes += a[4] } else a[4] = "-"
        if (owner != "keep") a[3] = owner
        if (loose != "" && $1 == "") a[5] = "-"
        first = "-"
        if (a[1] != "d" && a[6] > 1) { if (a[7] in group) first = group[a[7]]; else group[a[7]] = $1 }
        print $1 "\t" $2 "\t" a[1] " " a[2] " " a[3] " " a[4] " " a[5] " " first
      }
      END { if (totals != "") printf "totals %.0f %.0f %.0f\n", NR, files, bytes >totals }' totals="$totals"
  find . $top "$@" $only \( -type b -o -type c \) -exec stat --printf '%n\0%t:%T\0' {} + |
    sed -z 's/\\/\\\\/g; s/\t/\\t/g; s/\n/\\n/g' | tr '\0' '\n' | paste - - | sort
}
attributes() {
  find . $top "$@" $only -print0 | xargs -0 -r getfattr -h -d -e hex --absolute-names \
    -m '^(user[.]|trusted[.]|system[.]posix_acl|security[.]capability)' -- |
    awk '/^# file: / { f = substr($0, 9); sub(/^[.]\//, "", f); next } NF { print f "\t" $0 }' | sort
}
]==]

-- $1 directory, $2 unit, $3 `keep` or the owner that every name gets, $4 digest or names, then what find leaves out.
local WALK = common .. LIST .. [[
unit=$2 owner=$3 what=$4 loose= top= only=; shift 4
enter "$unit" || { echo "$unit: not a directory" >&2; exit 1; }
set -f
if [ "$unit" = . ]; then loose=yes top="-maxdepth 1" only="]] .. LOOSE .. [["; fi
if command -v getfattr >/dev/null; then has=yes; else has=no; fi
if [ "$what" = names ]; then
  totals=
  list "$@"
  if [ "$has" = yes ]; then attributes "$@"; fi
  exit 0
fi
totals=/dev/fd/3
{
  list "$@" | sha256sum
  if [ "$has" = yes ]; then attributes "$@" | sha256sum; else echo none; fi
} 3>&1]]

local function with_patterns(first, exclude)
  local argv = patterns.for_find(exclude)
  return table.move(argv, 1, #argv, #first + 1, first)
end

local function parse_owners(text, into)
  for owner, n in text:gmatch("(%S+)=(%d+)") do
    into[owner] = (into[owner] or 0) + math.tointeger(n)
  end
end

--- Is a moment, as "SECONDS.NANOSECONDS", after another?
---@param a string
---@param b string
---@return boolean
function scan.is_later(a, b)
  local as, an = a:match("^(%d+)%.?(%d*)")
  local bs, bn = b:match("^(%d+)%.?(%d*)")
  as, bs = math.tointeger(as), math.tointeger(bs)
  return as > bs or as == bs and an > bn
end

local function problems_of(stderr, what)
  local list = {}
  for line in stderr:gmatch("[^\n]+") do
    list[#list + 1] = line:gsub("^find: ", "")
  end
  if #list > 0 then
    list.what = what
  end
  return list
end

local PATIENCE = 7200 -- seconds that it may print nothing: the answer comes at its end

local function run(dir, script, argv, limit)
  local words = table.move(argv, 1, #argv, 5, { "sh", "-c", script, "sh" })
  words.reads, words.limit, words.stall = true, limit, PATIENCE
  local status, stdout, stderr, signal = dir.place:exec(words)
  if status ~= 0 then
    local said = stderr:match("([^\n]+)%s*$")
    errors.raise {
      kind = stderr:find("No such file or directory", 1, true) and "missing"
        or stderr:find("Permission denied", 1, true) and "refused" or "exit",
      target = dir.place.name, status = status, signal = signal, stderr = stderr,
      message = ("%s cannot be looked at: %s"):format(tostring(dir), said or "status " .. status),
    }
  end
  return stdout, stderr
end

local function totals_of(units)
  local sum = { entries = 0, files = 0, directories = 0, bytes = 0, disk = 0, special = 0, linked = 0 }
  for _, unit in ipairs(units) do
    for key, n in pairs(sum) do
      sum[key] = n + unit[key]
    end
  end
  return sum
end

--- Count what is in a tree.
---@async
---@param dir runbook.Dir
---@param exclude string[]
---@param gently? boolean  with the least claim on the disk
---@return table survey  units (name entries files directories bytes disk special linked), by name too; total, owners, mark (the
---  latest ctime), device, mount, file_system, clock, skew, seconds, problems
function scan.survey(dir, exclude, gently)
  local began, sent = time.now(), time.utc()
  local stdout, stderr = run(dir, SURVEY, with_patterns({ dir.path, gently and "gently" or "" }, exclude))
  local fields, n = {}, 0
  for field in stdout:gmatch("([^\0]*)\0") do
    n = n + 1
    fields[n] = field
  end
  local clock, device, file_system = fields[1]:match("^(%d+) (%S+) (%S+)")
  local s = {
    units = {}, by_name = {}, owners = {}, mark = "0.0", device = device, file_system = file_system, mount = fields[2],
    clock = tonumber(clock), skew = tonumber(clock) - sent, problems = problems_of(stderr, "find"),
  }
  for i = 3, n - 2, 3 do
    local c = {}
    for word in fields[i + 1]:gmatch("%S+") do
      c[#c + 1] = word
    end
    local unit = { name = fields[i] }
    for j, key in ipairs { "entries", "files", "directories", "bytes", "disk", "special", "linked" } do
      unit[key] = math.tointeger(c[j])
    end
    s.mark = scan.is_later(c[8], s.mark) and c[8] or s.mark
    parse_owners(fields[i + 2], s.owners)
    s.units[#s.units + 1], s.by_name[unit.name] = unit, unit
  end
  s.total, s.seconds = totals_of(s.units), time.now() - began
  -- A file of the future would hide every later change; then the server's own clock has to do.
  if tonumber(s.mark:match("^%d+")) > s.clock then
    s.mark = ("%d.0"):format(s.clock)
  end
  return s
end

--- Everything a copy must keep of a unit, as digests made where it is.
---@async
---@param dir runbook.Dir
---@param unit string
---@param o { owner: string, exclude: string[] }  owner: what each name is taken to belong to, or `keep`
---@return { entries: integer, files: integer, bytes: integer, names: string, attributes: string, problems: string[] }
function scan.fingerprint(dir, unit, o)
  local stdout, stderr = run(dir, WALK, with_patterns({ dir.path, unit, o.owner, "digest" }, o.exclude))
  local entries, files, bytes = stdout:match("totals (%d+) (%d+) (%d+)")
  local names, attributes = stdout:match("(%x+)  %-\n([%x%l]+)")
  if not entries or not names then
    errors.raise { kind = "internal", target = dir.place.name, message = ("the scan of %s said: %s"):format(unit, stdout), stderr = stderr }
  end
  return {
    entries = math.tointeger(entries), files = math.tointeger(files), bytes = math.tointeger(bytes), names = names,
    attributes = attributes, problems = problems_of(stderr),
  }
end

--- The names of a unit with all that a copy must keep but contents, as text: see `listing`.
---@async
---@param dir runbook.Dir
---@param unit string
---@param o { owner: string, exclude: string[] }
---@return string
function scan.names(dir, unit, o)
  return run(dir, WALK, with_patterns({ dir.path, unit, o.owner, "names" }, o.exclude), LISTING_LIMIT)
end

-- By path: link target, tab, type, mode, owner, size, time and first name of its hardlink group, then lines of attributes.
local function parse_names(text)
  local lines = {}
  for line in text:gmatch("[^\n]+") do
    local path, rest = line:match("^([^\t]*)\t(.*)$")
    lines[path] = (lines[path] and lines[path] .. "\n" or "") .. rest
  end
  return lines
end

local FIELDS = { "type", "mode", "owner", "size", "time" }

-- In what two lines of one name differ, in a word.
local function difference(a, b)
  local a_link, a_meta = a:match("^([^\t]*)\t([^\n]*)")
  local b_link, b_meta = b:match("^([^\t]*)\t([^\n]*)")
  if not a_meta or not b_meta then
    return "device number or attributes"
  elseif a_link ~= b_link then
    return "link target"
  end
  local x, y = {}, {}
  for word in a_meta:gmatch("%S+") do x[#x + 1] = word end
  for word in b_meta:gmatch("%S+") do y[#y + 1] = word end
  for i, field in ipairs(FIELDS) do
    if x[i] ~= y[i] then
      return field
    end
  end
  return a_meta ~= b_meta and "hardlinks" or "attributes"
end

local function listing(dir, unit, o)
  return parse_names(scan.names(dir, unit, o))
end

--- The names in which a unit differs: kinds of difference, each with its count and up to three names.
---@async
---@param from runbook.Dir
---@param to runbook.Dir
---@param unit string
---@param o { owner: string, exclude: string[] }
---@return { kind: string, count: integer, examples: string[] }[]
function scan.differences(from, to, unit, o)
  local a = listing(from, unit, o)
  local b = listing(to, unit, { owner = "keep", exclude = o.exclude })
  local kinds, order = {}, {}
  local function note(kind, path)
    if not kinds[kind] then
      kinds[kind] = { kind = kind, count = 0, examples = {} }
      order[#order + 1] = kinds[kind]
    end
    local k = kinds[kind]
    k.count = k.count + 1
    if k.count <= 3 then
      k.examples[k.count] = path == "" and unit or path
    end
  end
  local paths = {}
  for path in pairs(a) do paths[#paths + 1] = path end
  for path in pairs(b) do paths[#paths + 1] = a[path] == nil and path or nil end
  table.sort(paths)
  for _, path in ipairs(paths) do
    if b[path] == nil then
      note("missing on the target", path)
    elseif a[path] == nil then
      note("only on the target", path)
    elseif a[path] ~= b[path] then
      note(difference(a[path], b[path]) .. " differs", path)
    end
  end
  return order
end

-- What stands there without the first name of its hardlinks, which come last.
local function alone(rest)
  return rest and rest:gsub("^([^\t]*\t%S+ %S+ %S+ %S+ %S+) %S+", "%1")
end

local function kind_of(rest)
  return rest and rest:match("^[^\t]*\t(%a)")
end

-- A directory gets its mode and its times when all that lies in it is there.
local function is_ours_half_way(now, before, brought)
  if now == nil then
    return kind_of(before) ~= kind_of(brought) and brought ~= nil
  end
  local is_directory = kind_of(now) == "d" and (kind_of(before) == "d" or kind_of(brought) == "d")
  return is_directory or alone(now) == alone(before) or alone(now) == alone(brought)
end

--- Names of a unit that are neither as they were nor as a copy brings them: somebody else's work. Each as `names` gave it.
---@param now string
---@param before string   kept before the copy began
---@param brought string  of the other end
---@param is_left_over fun(path: string): boolean  what a cut copy leaves
---@return { count: integer, examples: string[] }
function scan.strangers(now, before, brought, is_left_over)
  local n, b, t = parse_names(now), parse_names(before), parse_names(brought)
  local found = {}
  for _, names in ipairs { n, b } do
    for path in pairs(names) do
      if (names == n or n[path] == nil) and not is_left_over(path) and not is_ours_half_way(n[path], b[path], t[path]) then
        found[#found + 1] = path
      end
    end
  end
  table.sort(found)
  return { count = #found, examples = table.move(found, 1, math.min(3, #found), 1, {}) }
end

-- $1 directory, $2 a moment of ctime, then what find leaves out. Names are of the whole tree here, with their unit in front.
local CHANGED = common .. [[
mark=$2; shift 2
for u in * .[!.]* ..?*; do
  case $u in ]] .. not_units("%s", "|") .. [[) continue; esac
  if [ -d "$u" ] && [ ! -L "$u" ]; then
    (enter "$u" && find . "$@" -newerct "@$mark" -printf '%C@ %y %P\0') | sed -z "s|^\([^ ]* . \)|\1$(printf '%s' "$u" |
      sed 's/[|\\&]/\\&/g' | tr '\n' '?')/|"
  fi
done
set -f
find . -maxdepth 1 -mindepth 1 "$@" ]] .. LOOSE:gsub("[()]", "\\%0") .. [[ -newerct "@$mark" -printf '%C@ %y %P\0']]

--- What changed in a tree after a moment, by ctime, which nobody can set back.
---@async
---@param dir runbook.Dir
---@param mark string  of a survey
---@param exclude string[]
---@return { path: string, at: number, type: string }[] changed  newest first
function scan.changed(dir, mark, exclude)
  local stdout = run(dir, CHANGED, with_patterns({ dir.path, mark }, exclude), LISTING_LIMIT)
  local list = {}
  for at, kind, path in stdout:gmatch("(%S+) (%a) ([^\0]*)\0") do
    list[#list + 1] = { path = path, at = tonumber(at), type = kind }
  end
  table.sort(list, function(x, y) return x.at > y.at end)
  return list
end

return scan
