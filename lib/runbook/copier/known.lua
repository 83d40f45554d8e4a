--- What is known of both ends of a pair, kept on this machine from pass to pass (core: runbook.core.manifest).
---
--- A directory for each pair below the state directory. What it says of the target is believed as long as the target bears the
--- stamp that our last pass left there and no pass was cut since; else the target is looked at again. What was proven stays
--- proven only for files whose inode and ctime are what they were.

local clocks = require "runbook.copier.clocks"
local core = require "runbook.core.file"
local digest = require "runbook.core.digest"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local far = require "runbook.copier.far"
local json = require "runbook.json"
local manifest = require "runbook.core.manifest"
local patterns = require "runbook.copier.patterns"
local record = require "runbook.copier.record"
local retry = require "runbook.retry"
local scan = require "runbook.copier.scan"
local store = require "runbook.store"
local task = require "runbook.task"
local time = require "runbook.core.time"

local known = {}

local VERSION = 2

---@class runbook.copier.Known
---@field directory string
---@field state { token?: string, boot?: string, clean: table<string, string>, doubt: table<string, true>, doors: table<string, string> }
---  clean: digest of the source with which a unit was the same at both ends; doubt: units of the target that are looked at again
---  whatever its stamp says; doors: how the key of a pass went through
---@field compared table<string, runbook.core.manifest.comparison>  of units, found on the way; what may have changed since is not there
local Known = {}
local known_mt = { __index = Known }

local own = effect.own

local function check(what, ...)
  return errors.check(nil, what, ...)
end

local function read_state(path)
  local text = own(core.read, path)
  local ok, value = pcall(json.decode, text or "")
  local state = { clean = {}, doubt = {}, doors = {} }
  if ok and type(value) == "table" and value.version == VERSION then
    state.token, state.boot, state.doors = value.token, value.boot, value.doors or {}
    for name, seen in pairs(value.clean or {}) do
      state.clean[record.unit_name(name)] = seen
    end
    for _, name in ipairs(value.doubt or {}) do
      state.doubt[record.unit_name(name)] = true
    end
  end
  return state
end

-- A server is known by its host key.
local function name_of(dir)
  return (dir.place:identity() or "here") .. " " .. dir.path
end

--- What is known of a pair; nothing is looked at. What is left out, and whose the files are, makes another pair of it.
---@async
---@param pair table
---@return runbook.copier.Known
function known.open(pair)
  local words = { name_of(pair.from), name_of(pair.to), pair.owner }
  table.move(pair.exclude, 1, #pair.exclude, 4, words)
  local id = digest.sha256(table.concat(words, "\n")):sub(1, 16)
  local directory = store.pair(id)
  record.note_use(id)
  return setmetatable({ pair = pair, directory = directory, state = read_state(directory .. "/state"), compared = {} },
    known_mt)
end

--- Keep the state. Without `token` the target is looked at next time.
---@async
function Known:save()
  local clean, doubt = {}, {}
  for name, seen in pairs(self.state.clean) do
    clean[record.word(name)] = seen
  end
  for name in pairs(self.state.doubt) do
    doubt[#doubt + 1] = record.word(name)
  end
  table.sort(doubt)
  local text = json.encode({ version = VERSION, token = self.state.token, boot = self.state.boot, clean = clean, doubt = doubt,
    doors = self.state.doors, pair = self.pair.id, target = { place = self.pair.to.place:reference(), path = self.pair.to.path } },
    { sorted = true, lossy = true })
  check("keep what is known of the pair", own(core.write, self.directory .. "/state", text, { mode = tonumber("600", 8) }))
end

local function dir_of(self, side)
  return side == "source" and self.pair.from or self.pair.to
end

-- Streams of the far side into a sink, from the start when a connection broke.
local function feed(place, args, what, request, open_sink)
  return retry.call({ target = place.name, what = what, reads = true, tries = place.backend.tries and place.backend:tries() }, function()
    local sink <close> = assert(own(open_sink))
    far.run(place, args, {
      input = request, on_data = function(bytes) errors.check(place.name, what, sink:write(bytes)) end,
    })
    return errors.check(place.name, what, sink:finish())
  end)
end

function Known:forget_compared(only)
  if not only then
    self.compared = {}
    return
  end
  for _, unit in ipairs(only) do
    self.compared[unit] = nil
  end
end

--- Look at one side.
---@async
---@param side "source"|"target"
---@param o? { gently?: boolean, only?: string[], ours_during?: number[][] }  ours_during: see core
---@return runbook.core.manifest.report report  and `seconds`
function Known:scan(side, o)
  o = o or {}
  local dir, began = dir_of(self, side), time.now()
  self:forget_compared(o.only)
  local request = check("read what is known", own(manifest.request, {
    directory = self.directory, side = side, gently = o.gently, only = o.only,
    exclude = patterns.for_far(self.pair.exclude), not_units = patterns.NOT_UNITS,
  }))
  local report = feed(dir.place, { "scan", dir.path }, "looking", request, function()
    return manifest.scan {
      directory = self.directory, side = side, only = o.only, owner = side == "source" and self.pair.owner or nil,
      ours_during = o.ours_during,
    }
  end)
  report.seconds = time.now() - began
  if side == "source" then
    self.digests = self.digests or {}
    for _, unit in ipairs(report.units) do
      self.digests[unit.name] = unit.same and digest.hex(unit.digest) or nil
      self.compared[unit.name] = unit.compared -- not those of the target, which are not told the owner of the pair
    end
    return report
  end
  for _, unit in ipairs(report.units) do
    if unit.added + unit.changed + unit.removed > 0 then
      self.state.clean[unit.name] = nil
    end
  end
  for _, name in ipairs(report.vanished) do
    self.state.clean[name] = nil
  end
  return report
end

--- When what came to the target was this pair's, as its record there says: while passes were at work. Nil while what we know
--- of it is all there is to know. Where no pass was yet, there was nothing foreign either.
---@param there table?  what record.read gave
---@return number[][]?
function Known:ours_during(there)
  if self:is_as_left(there) or there and not there.empty then
    return nil
  elseif not there or not there.state and #there.passes == 0 then
    return { { 0, math.huge } }
  end
  local periods = table.move(there.passes, 1, #there.passes, 1, {})
  if there.state == "open" then
    periods[#periods + 1] = { tonumber(there.stamped), math.huge }
  end
  return periods
end

--- Does the target bear the stamp of our last pass?
---@param there table?
---@return boolean
function Known:is_as_left(there)
  return there ~= nil and there.state == "closed" and self.state.token ~= nil and self.state.token == there.token
end

--- Look again at the units of the target of which the last pass does not know how they are.
---@async
function Known:scan_doubtful()
  local only = {}
  for name in pairs(self.state.doubt) do
    only[#only + 1] = name
    self.state.clean[name] = nil
  end
  if #only > 0 then
    self:scan("target", { only = only })
  end
  self.state.doubt = {}
end

--- Remove what a copy that was cut left behind; only units that we may have been in are looked through.
---@async
---@param only? string[]
---@param keep? boolean  large files stay that were not sent to their end
---@return table<string, { bytes: integer, said: string }> kept  by unit: see core
function Known:clean_up(only, keep)
  local request = check("read what is known", own(manifest.request, { directory = self.directory, side = "target", fresh = true,
    exclude = {}, not_units = patterns.NOT_UNITS, only = only }))
  return manifest.parts(far.clean(self.pair.to, request, keep))
end

--- Was a unit the same at both ends after the last pass, with the source as it is now? Others may have looked at it since.
---@param unit string
---@return boolean
function Known:is_clean(unit)
  return self.digests[unit] ~= nil and self.state.clean[unit] == self.digests[unit]
end

--- A unit is the same at both ends, or not.
---@param report runbook.core.manifest.unit_report  of the source
---@param clean boolean
function Known:note_clean(report, clean)
  self.state.clean[report.name] = clean and digest.hex(report.digest) or nil
end

--- How both sides of a unit differ.
---@async
---@param unit string
---@return runbook.core.manifest.comparison comparison
function Known:compare(unit)
  if self.compared[unit] then
    return self.compared[unit]
  end
  local found, message, code = own(manifest.compare, self.directory, unit, { owner = self.pair.owner })
  if code == "ENOENT" then
    return { entries = 0, equal = 0, proven = 0, missing = 0, different = 0, extra = 0, extra_ours = 0, unproven = { files = 0, bytes = 0 },
      to_send = { files = 0, bytes = 0 }, kinds = {} }
  end
  return check("compare", found, message, code)
end

--- Merge what came of a unit's shards.
---@async
---@param work runbook.core.manifest.work
---@param unit string
function Known:settle(work, unit)
  self.compared[unit] = nil
  self.compared[unit] = check("keep what was done", own(work.settle, work, unit)).compared
end

--- The target was restarted since the last pass: what it had not written down may be lost.
---@async
---@param boot string
function Known:note_boot(boot)
  if self.state.boot and self.state.boot ~= boot then
    check("forget what was proven", own(manifest.distrust, self.directory))
    self.state.clean, self.compared = {}, {}
  end
  self.state.boot = boot
end

-- Both ends of what is not proven are read, side by side.
local function prove_chunk(self, chunk, gently)
  task.each({ "source", "target" }, {}, function(side)
    local dir = dir_of(self, side)
    local args = { "prove", dir.path }
    args[3] = gently and "--gently" or nil
    args[#args + 1] = side == "source" and clocks.flag(self.pair) or nil
    feed(dir.place, args, "reading", chunk.bytes, function() return chunk:results(side) end)
  end)
end

--- Read what is equal as far as names and times go, and was not read yet, at both ends.
---@async
---@param units string[]
---@param gently? boolean
---@return table<string, true> units  of which something was read
function Known:prove(units, gently)
  local proof <close> = own(manifest.unproven, { directory = self.directory, units = units, owner = self.pair.owner })
  local seen = {}
  for chunk in function() return check("look for what is not proven", own(proof.next, proof)) end do
    prove_chunk(self, chunk, gently)
    for _, unit in ipairs(chunk.units) do
      seen[unit] = true
    end
  end
  for unit in pairs(seen) do
    self:settle(proof, unit)
  end
  return seen
end

local WORDS = {
  EACCES = "Permission denied", EPERM = "Operation not permitted", EIO = "Input/output error", ESTALE = "Stale file handle",
  ENAMETOOLONG = "File name too long", ELOOP = "Too many levels of symbolic links",
}

local function problems_of(report)
  local list = {}
  for _, unit in ipairs(report.units) do
    for _, one in ipairs(unit.problems) do
      if one.errno ~= 0 then
        local path = unit.name == "." and one.path or one.path == "" and unit.name or unit.name .. "/" .. one.path
        list[#list + 1] = ("%s: %s"):format(path, WORDS[one.code] or one.code)
      end
    end
  end
  return list
end

local COUNTS = { "entries", "files", "directories", "bytes", "disk", "special", "linked" }

--- A scan as what the passes go by; see scan.survey.
---@param report runbook.core.manifest.report
---@param facts table  of that end
---@return table survey
function known.survey(report, facts)
  local s = {
    units = {}, by_name = {}, owners = {}, mark = "0.0", total = {}, mount = facts.mount, seconds = report.seconds,
    device = ("%d:%d"):format(report.device, report.inode), file_system = report.file_system, clock = report.clock, skew = facts.skew,
    problems = problems_of(report),
  }
  for _, key in ipairs(COUNTS) do
    s.total[key] = 0
  end
  for _, unit in ipairs(report.units) do
    s.units[#s.units + 1], s.by_name[unit.name] = unit, unit
    for _, key in ipairs(COUNTS) do
      s.total[key] = s.total[key] + unit[key]
    end
    for owner, n in pairs(unit.owners) do
      s.owners[owner] = (s.owners[owner] or 0) + n
    end
    s.mark = scan.is_later(unit.newest_ns, s.mark) and unit.newest_ns or s.mark
  end
  if tonumber(s.mark:match("^%d+")) > s.clock then -- a file of the future would hide every later change
    s.mark = ("%d.0"):format(s.clock // 1)
  end
  return s
end

return known
