--- What a pair remembers: on the target, in `.runbook/`, what its passes put there; in the journal its passes and receipts.
---
---     .runbook/pair     who fills this directory from where, and that it was empty when that began
---     .runbook/units    every unit a pass put there, a line each
---     .runbook/stamp    of the last pass: `closed` when it came to its end
---     .runbook/passes   when passes were at work there, by the target's own ctime: a line each
---     .runbook/gone/    homes that vanished at the source after they had been copied
---
--- Whoever finds the directory later, from whatever machine, can tell what is this pair's and what is not.

local command = require "runbook.place.command"
local digest = require "runbook.core.digest"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local json = require "runbook.json"
local store = require "runbook.store"
local task = require "runbook.core.task"
local time = require "runbook.core.time"
local units = require "runbook.units"

local record = {}

--- A name as one word of a line, whatever its bytes.
---@param name string
---@return string
function record.word(name)
  return (name:gsub("[^%w_.@|+=:,-]", function(c) return ("%%%02X"):format(c:byte()) end))
end

local encode = record.word

--- The name of a unit as it is, from what the journal and the far side keep of it.
---@param word string
---@return string
function record.unit_name(word)
  return (word:gsub("%%(%x%x)", function(h) return string.char(tonumber(h, 16)) end))
end

--- A name for files that hold UTF-8 only: as it is, or with its odd bytes as %XX.
---@param name string
---@return string
function record.printable(name)
  return utf8.len(name) and not name:find("%c") and name or encode(name)
end

--- The source of a pair as the target's record names it.
---@param facts table  of the source
---@return string
function record.source(facts)
  return encode(facts.host) .. " " .. encode(facts.real)
end

local READ = [[
cd -P -- "$1/.runbook" 2>/dev/null || exit 0
[ -f pair ] || exit 0
cat pair
if read -r token state <stamp; then printf 'token=%s\nstate=%s\nstamped=%s\n' "$token" "$state" "$(stat -c %.9Z stamp)"; fi 2>/dev/null
sed 's/^/pass=/' passes 2>/dev/null
echo -- && cat units]]

--- What stands on the target.
---@async
---@param dir runbook.Dir
---@return { source: string, empty: boolean, began: string, units: table<string, true>, count: integer, token?: string,
---  state?: "open"|"closed", stamped?: string, passes: number[][] }?  stamped: when the stamp was made, seconds; passes: since and
---  until when each was at work
function record.read(dir)
  local text = dir.place:query_sh(READ, dir.path, { limit = 64 << 20 })
  local head, rest = (text .. "\n"):match("^(.-\n)%-%-\n(.*)$")
  if not head then
    return nil
  end
  local r = { units = {}, count = 0, passes = {} }
  for key, value in head:gmatch("(%a+)=([^\n]*)\n") do
    local since, till = value:match("^(%S+) (%S+)$")
    if key == "pass" then
      table.insert(r.passes, { tonumber(since) or math.huge, tonumber(till) or 0 })
    else
      r[key] = value
    end
  end
  r.empty = r.empty == "yes"
  for word in rest:gmatch("[^\n]+") do
    r.units[record.unit_name(word)] = true
    r.count = r.count + 1
  end
  return r
end

--- Did something come to the target while a pass was at work there?
---@param known table  what `read` gave
---@param at number  its ctime
---@return boolean
function record.came_in_a_pass(known, at)
  for _, period in ipairs(known.passes) do
    if at >= period[1] and at <= period[2] then
      return true
    end
  end
  return known.state == "open" and at >= tonumber(known.stamped)
end

-- Small writes on the target. What the system says of one that fails has the kind it has elsewhere (a full disk, a quota, a disk
-- that cannot be written); a shell's own printf says "I/O error", whatever is wrong, so all goes through cat.
local function write(dir, what, script, values, input)
  table.insert(values, 1, dir.path)
  command.script(dir.place, "LC_ALL=C; export LC_ALL\n" .. script, values, { message = what .. " " .. tostring(dir), stdin = input,
    change = true })
end

-- $1 the directory, $2 the text of `pair` (kept as it is when there is one); the units come through stdin.
local BEGIN = [[
umask 077
cd -P -- "$1" || exit 1
mkdir -p .runbook && chmod 700 .runbook && cd .runbook || exit 1
if [ ! -f pair ]; then printf '%s' "$2" | cat >pair.new && mv pair.new pair || exit 1; fi
touch units
sort -u units - >units.new && mv units.new units]]

-- $1 the directory, $2 the token, $3 the state. Replaced whole, so that its ctime is that of the moment. What is open stays as old
-- as it is: all that came since then may be ours. The pass is noted before it is closed, rather twice than not at all.
local STAMP = [[
umask 077
cd -P -- "$1/.runbook" || exit 1
was= since=0
if [ -f stamp ]; then read -r token was <stamp; since=$(stat -c %.9Z stamp); fi
[ "$was $3" = "open open" ] && exit 0
printf '%s\n' "$2 $3" | cat >stamp.new || exit 1
if [ "$3" = closed ] && [ "$was" != closed ]; then
  { cat passes 2>/dev/null; echo "$since $(stat -c %.9Z stamp.new)"; } | cat >passes.new && mv passes.new passes || exit 1
fi
mv stamp.new stamp]]

--- Say on the target that a pass is at work there, or has come to its end.
---@async
record.stamp = effect.verb {
  name = "sync.stamp", class = "change", repeatable = true, quiet = true, inverse = effect.NOT_NEEDED,
  target = function(dir) return dir.place.name end,
  summary = function(dir, _, state)
    return ("note in %s/.runbook that the pass %s"):format(dir.path, state == "open" and "is on" or "is over")
  end,
  by_hand = function(dir) return dir.place:by_hand { "vi", dir.path .. "/.runbook/stamp" } end,
  body = function(dir, token, state) write(dir, "noting the pass in", STAMP, { token, state }) end,
}

--- Write down, before anything is copied, which units the pair puts there.
---@async
record.begin = effect.verb {
  name = "sync.begin", class = "change", repeatable = true, quiet = true, inverse = effect.NOT_NEEDED,
  target = function(dir) return dir.place.name end,
  summary = function(dir) return "note in " .. dir.path .. "/.runbook which homes are put there" end,
  by_hand = function(dir) return dir.place:by_hand { "vi", dir.path .. "/.runbook/units" } end,
  body = function(dir, source, names)
    local words = {}
    for i, name in ipairs(names) do
      words[i] = encode(name)
    end
    local run = task.context().run or "-"
    local text = ("source=%s\nempty=yes\nbegan=%s\nrun=%s\n"):format(source, units.timestamp(time.utc()), encode(run))
    write(dir, "noting the homes in", BEGIN, { text }, table.concat(words, "\n") .. (#words > 0 and "\n" or ""))
  end,
}

-- $1 the directory, $2 the name, $3 `home`: only if it is a directory. Done twice it finds it done; an older one of that name keeps
-- its own.
local SET_ASIDE = [[
umask 077
cd -P -- "$1" || exit 1
if [ "$3" = home ]; then [ -d "./$2" ] && [ ! -L "./$2" ]; else [ -L "./$2" ] || [ -f "./$2" ]; fi || exit 0
mkdir -p .runbook/gone || exit 1
to=.runbook/gone/$2
n=1
while [ -e "$to" ] || [ -L "$to" ]; do n=$((n + 1)); to=.runbook/gone/$2.$n; done
mv -T -- "./$2" "$to"]]

local BRING_BACK = [[
cd -P -- "$1" || exit 1
[ -e ".runbook/gone/$2" ] || [ -L ".runbook/gone/$2" ] || exit 0
[ ! -e "./$2" ] && [ ! -L "./$2" ] || { echo "$2: File exists" >&2; exit 1; }
mv -T -- ".runbook/gone/$2" "./$2"]]

--- A home that vanished at the source, or the file that a home now has the name of, is kept out of the way, not removed.
---@async
---@param dir runbook.Dir
---@param unit string
---@param what "home"|"file"
record.set_aside = effect.verb {
  name = "sync.set_aside", class = "change", repeatable = true, quiet = true,
  target = function(dir) return dir.place.name end,
  summary = function(_, unit) return ("set %s aside: it is gone from the source"):format(unit) end,
  by_hand = function(dir, unit) return dir.place:by_hand { "mv", dir.path .. "/" .. unit, dir.path .. "/.runbook/gone/" } end,
  inverse = function(dir, unit) return { "sync.bring_back", dir, unit } end,
  body = function(dir, unit, what) write(dir, "setting aside in", SET_ASIDE, { unit, what }) end,
}

effect.verb {
  name = "sync.bring_back", class = "change", repeatable = true, quiet = true,
  target = function(dir) return dir.place.name end,
  summary = function(_, unit) return ("bring %s back from .runbook/gone"):format(unit) end,
  body = function(dir, unit) write(dir, "bringing back in", BRING_BACK, { unit }) end,
}

local function journal()
  local session = task.context().session
  return session and session.journal
end

-- Without a journal (a script, a plan) the pair itself remembers.
local function memory(pair)
  pair.memory = pair.memory or { passes = {}, receipts = {} }
  return pair.memory
end

-- What `read` finds in this run's journal; where that knows nothing and the pair is an earlier run's, in that one's.
local function remembered(pair, read)
  local j = journal()
  local found = j and read(j)
  if found == nil and pair.of_run then
    local earlier = store.journal(pair.of_run)
    local ok, result = pcall(read, earlier)
    earlier:close()
    found = errors.check(pair.of_run, "read what it remembers", ok and { result } or nil, tostring(result))[1]
  end
  return found
end

--- The passes that have been made, oldest first.
---@param pair table
---@return table[]
function record.passes(pair)
  if not journal() then
    return memory(pair).passes
  end
  return remembered(pair, function(j)
    local text = j.meta["passes " .. pair.id]
    return text and json.decode(text) or nil
  end) or {}
end

--- This run uses what is known of a pair: `runbook sweep` leaves it as long as the run is open.
---@async
---@param id string  see runbook.copier.known
function record.note_use(id)
  local j = journal()
  if j and not j.meta["pair " .. id] then
    j:set_meta("pair " .. id, "used")
    j:commit()
  end
end

--- What stands before the names of units in the journal. A unit that is done is never done again in its step, so each pass
--- of a step, and each pair, needs names of its own; the first one gets the plain ones.
---@async
---@param pair table
---@param number integer  of the pass; one that failed has the number of the next
---@param kind string
---@return string
function record.prefix(pair, number, kind)
  local j, step = journal(), task.context().step
  if not j or not step then
    return ""
  end
  local key, mine = "first pass of " .. step, ("%s #%d %s"):format(pair.id, number, kind)
  if j.meta[key] == nil then
    j:set_meta(key, mine)
    j:commit()
  end
  if j.meta[key] == mine then
    return ""
  elseif j.meta[key]:sub(1, #pair.id + 2) == pair.id .. " #" then
    return ("%d-%s/"):format(number, kind)
  end
  return ("%s/%d-%s/"):format(digest.sha256(pair.id):sub(1, 8), number, kind)
end

--- Keep a pass.
---@async
function record.add_pass(pair, row)
  local list = record.passes(pair)
  list[#list + 1] = row
  local j = journal()
  if j then
    j:set_meta("passes " .. pair.id, json.encode(list, { sorted = true, lossy = true }))
    j:commit()
  end
end

--- Keep what the checks found that will not be the same on the target, for the receipts.
---@async
---@param pair table
---@param rows any[][]
function record.note_survival(pair, rows)
  memory(pair).survival = rows
  local j = journal()
  if j then
    j:set_meta("survival " .. pair.id, json.encode(rows, { lossy = true }))
    j:commit()
  end
end

--- What they found; nil when nobody looked.
---@param pair table
---@return any[][]?
function record.survival(pair)
  return remembered(pair, function(j)
    local text = j.meta["survival " .. pair.id]
    return text and json.decode(text) or nil
  end) or memory(pair).survival
end

--- Keep what is known of a unit on the target. It joins the next commit.
---@param pair table
---@param unit string
---@param level "sent"|"scanned"|"hashed"|"same"|"left"
---@param fields table
function record.add_receipt(pair, unit, level, fields)
  fields.level, fields.at = level, units.timestamp(time.utc())
  memory(pair).receipts[unit] = fields
  local j = journal()
  if j then
    j:later {
      "INSERT OR REPLACE INTO receipt (pair, unit, level, data, at) VALUES (?, ?, ?, ?, ?)", pair.id, encode(unit), level,
      json.encode(fields, { sorted = true, lossy = true }), time.utc(),
    }
  end
end

--- A unit is no longer one: nothing is said of it any more. It joins the next commit.
---@param pair table
---@param unit string
function record.drop_receipt(pair, unit)
  memory(pair).receipts[unit] = nil
  local j = journal()
  if j then
    j:later { "DELETE FROM receipt WHERE pair = ? AND unit = ?", pair.id, encode(unit) }
  end
end

--- All receipts, by unit.
---@async
---@param pair table
---@return table<string, table>
function record.receipts(pair)
  if not journal() then
    return memory(pair).receipts
  end
  return remembered(pair, function(j)
    local found = {}
    for _, row in ipairs(j:query("SELECT unit, data FROM receipt WHERE pair = ?", pair.id)) do
      found[record.unit_name(row.unit)] = json.decode(row.data)
    end
    return next(found) and found or nil
  end) or {}
end

--- What this step's journal says of a unit: "done" when an earlier try finished it.
---@param key string
---@return string?
function record.unit_state(key)
  local j, step = journal(), task.context().step
  return j and step and j:state("unit", step .. "/" .. key) or nil
end

--- Was this unit left out on purpose (`--leave`)?
---@param unit string
---@return boolean
function record.is_left(unit)
  local j = journal()
  for id, state in pairs(j and j.states.unit or {}) do
    if state == "left" and id:sub(-#unit - 1) == "/" .. unit then
      return true
    end
  end
  return false
end

--- Names at the top of the target that no pass of this pair put there. Raises when the target is another source's.
---@param pair table
---@param facts table  of the target
---@param known table?  what `read` gave
---@param source string
---@return string[]
function record.foreign(pair, facts, known, source)
  if known and known.source ~= source then
    errors.raise({
      kind = "conflict", code = "EFOREIGN", target = pair.to.place.name,
      message = ("%s is being filled from another source: %s"):format(tostring(pair.to), record.unit_name(known.source)),
      hint = "give each source a directory of its own",
    }, 2)
  end
  local foreign = {}
  for _, name in ipairs(facts.names) do
    if not (known and known.units[name]) then
      foreign[#foreign + 1] = name
    end
  end
  return foreign
end

--- Raises when there are any.
---@param pair table
---@param foreign string[]
function record.must_have_no_foreign(pair, foreign)
  if #foreign == 0 then
    return
  end
  local shown = table.move(foreign, 1, math.min(5, #foreign), 1, {})
  errors.raise({
    kind = "conflict", code = "EFOREIGN", target = pair.to.place.name,
    message = ("%s is not empty, and no pass of this pair put there: %s%s"):format(tostring(pair.to), table.concat(shown, ", "),
      #foreign > #shown and (" and %d more"):format(#foreign - #shown) or ""),
    hint = "move it away or choose another directory; it is never removed by us",
  }, 2)
end

return record
