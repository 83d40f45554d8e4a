--- The copier for homes that stay where they are: both clusters mount one storage, so that nothing is copied.
---
--- What is left to be seen to is that it is one, that no volume takes the homes with it when its claim is deleted, and that users
--- write through one of the clusters at a time. Going back loses nothing, as what is written on the new hub is on the old
--- one's storage.

local claim = require "runbook.kube.claim"
local dir = require "runbook.place.dir"
local effect = require "runbook.effect"
local ends = require "runbook.copier.ends"
local errors = require "runbook.errors"
local events = require "runbook.events"
local human = require "runbook.human"
local meter = require "runbook.copier.meter"
local nfs = require "runbook.copier.nfs"
local options = require "runbook.options"
local proof = require "runbook.copier.proof"
local record = require "runbook.copier.record"
local storage = require "runbook.kube.storage"
local task = require "runbook.task"

local same = {}

local SHOWN = 5
local LOOKS, PAUSE = 4, 15 -- what one client has seen of a directory may be half a minute old

---@class runbook.copier.Same: runbook.Copier
local Pair = {}
local pair_mt = { __name = "runbook.copier.same", __index = Pair }

function pair_mt.__tostring(self)
  return self.id
end

--- As a parameter of type `copier`.
same.FIELDS = {
  { "from", "claim", "the directory as the old cluster mounts it: context, namespace, claim, path" },
  { "to", "claim", "the same directory as the new cluster mounts it" },
}

local check_pair = options.declare("sync.pair", {
  from = { "table", "the directory as the old cluster mounts it: `cluster:claim { … }`" },
  to = { "table", "the same directory as the new cluster mounts it" },
})

--- See sync.pair.
---@param o table  from, to
---@param level integer
---@return runbook.copier.Same
function same.new(o, level)
  o = check_pair(o, level + 1)
  for _, key in ipairs { "from", "to" } do
    if dir.is(o[key]) and not claim.of(o[key]) then
      errors.raise({ kind = "usage", message = ("sync.pair: `%s` is in no claim: `same` is for storage that clusters mount"):format(key) },
        level + 1)
    end
  end
  local self = setmetatable({ from = o.from, to = o.to, owner = "keep", exclude = {} }, pair_mt)
  self.id = ("%s -> %s"):format(tostring(o.from), tostring(o.to))
  return self
end

-- Looks only: both ends as a pair of servers would be looked at.
local function looking(self)
  if not self.looks then
    self.looks = nfs.new({ from = self.from, to = self.to.place.backend:only_read():dir(self.to.path) }, 2)
  end
  return self.looks
end

-- ---- is it one? ----

local function raise_two(self, words, hint)
  errors.raise({ kind = "conflict", code = "ETWO", target = claim.of(self.to).cluster.name, message = words,
    hint = hint or "`kind: nfs` or `kind: claim` copies from one storage to another" }, 3)
end

-- Both volumes say what is behind them; raises unless that is one place.
local function must_be_one(self)
  local both = task.all {
    function() return table.pack(claim.storage(self.from)) end,
    function() return table.pack(claim.storage(self.to)) end,
  }
  local old, new = both[1][1], both[2][1]
  local one_cluster = claim.of(self.from).cluster:identity() == claim.of(self.to).cluster:identity()
  if not one_cluster and not (storage.is_portable(old) and storage.is_portable(new)) then
    raise_two(self, ("%s and %s: such volumes have a name of their own in each cluster; nobody can tell whether they are one")
      :format(storage.words(old), storage.words(new)))
  elseif old.root ~= new.root or old.path ~= new.path then
    raise_two(self, ("the clusters mount two storages: %s, and %s"):format(storage.words(old), storage.words(new)),
      "where a server goes by two names, give both volumes the same one")
  end
  return old, both[1][2], both[2][2]
end

-- $1 the directory. Inode, type and name of each entry.
local LIST = [[cd -P -- "$1" && find . -mindepth 1 -maxdepth 1 -printf '%i %y %P\0']]

local function entries_of(at)
  local found = {}
  for inode, kind, name in at.place:query_sh(LIST, at.path, { limit = 64 << 20 }):gmatch "(%d+) (%a) ([^%z]+)%z" do
    if not ends.is_no_unit(name) then
      found[name] = { inode = inode, is_home = kind == "d" }
    end
  end
  return found
end

local function not_in(a, b)
  local names = {}
  for name, one in pairs(a) do
    if b[name] == nil or b[name].inode ~= one.inode then
      names[#names + 1] = meter.shown(name)
    end
  end
  table.sort(names)
  return names
end

local function listed(names)
  return table.concat(names, ", ", 1, math.min(#names, SHOWN)) .. (#names > SHOWN and (" and %d more"):format(#names - SHOWN) or "")
end

-- What both clusters show is the same, by inode: a home that was made just now may be seen late.
local function must_show_the_same(self)
  local pair = looking(self)
  for look = 1, LOOKS do
    local both = task.all { function() return entries_of(pair.from) end, function() return entries_of(pair.to) end }
    local missing, extra = not_in(both[1], both[2]), not_in(both[2], both[1])
    if next(both[1]) == nil then
      errors.raise { kind = "missing", code = "EEMPTY", target = self.from.place.name, message = tostring(self.from) .. " is empty",
        hint = "is it the directory with the homes?" }
    elseif #missing == 0 and #extra == 0 then
      return both[1]
    elseif look == LOOKS then
      raise_two(self, ("the clusters do not show the same homes: %s"):format(listed(#missing > 0 and missing or extra)),
        "does another file system lie over one of them?")
    end
    task.sleep(PAUSE)
  end
end

local function homes_of(entries)
  local names = {}
  for name, one in pairs(entries) do
    names[#names + 1] = one.is_home and name or nil
  end
  table.sort(names)
  return names
end

-- ---- who writes ----

-- Pods that may write through one of the claims; where both are in one cluster, those of its own namespace.
local function writers(self, at)
  local of = claim.of(at)
  local other = claim.of(at == self.from and self.to or self.from)
  local one_cluster = of.cluster:identity() == other.cluster:identity()
  local names = {}
  for _, pod in ipairs((storage.writers(of.cluster, claim.storage(at), of.namespace))) do
    if not one_cluster or pod.metadata.namespace == of.namespace then
      names[#names + 1] = pod.metadata.namespace .. "/" .. pod.metadata.name
    end
  end
  table.sort(names)
  return names, of.cluster
end

local function must_not_be_written(self, at, why)
  local names, cluster = writers(self, at)
  if #names > 0 then
    errors.raise({
      kind = "busy", code = "EWRITERS", target = at.place.name,
      message = ("%s can still write to the homes through %s: %s; %s"):format(human.plural(#names, "pod"), tostring(at),
        listed(names), why),
      hint = cluster:by_hand { "-n", names[1]:match "^[^/]+", "delete", "pod", names[1]:match "[^/]+$" },
    }, 3)
  end
end

-- ---- checks ----

local function one_storage(self)
  return ("both clusters mount %s: nothing is copied"):format(storage.words((must_be_one(self))))
end

local function volumes_are_kept(self)
  local _, old, new = must_be_one(self)
  for _, one in ipairs { { self.from, old }, { self.to, new } } do
    local volume, cluster = one[2], claim.of(one[1]).cluster
    local policy = volume.spec.persistentVolumeReclaimPolicy
    if policy ~= "Retain" then
      errors.raise {
        kind = "conflict", code = "ERECLAIM", target = cluster.name,
        message = ("volume %s: its reclaim policy is %s: whoever deletes its claim or its namespace deletes the homes of both hubs"):format(
          volume.metadata.name, tostring(policy)),
        hint = cluster:by_hand { "patch", "pv", volume.metadata.name, "-p", '{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}' },
      }
    end
  end
end

local function both_show_it(self)
  return ("%s, seen through both claims"):format(human.plural(#homes_of(must_show_the_same(self)), "home"))
end

-- At any moment of a move: before it the old hub is open, after it the new one.
local function one_at_a_time(self)
  local old, new = writers(self, self.from), writers(self, self.to)
  if #old > 0 and #new > 0 then
    errors.raise {
      kind = "conflict", code = "EWRITERS", target = self.to.place.name,
      message = ("pods of both clusters can write to the homes: %s; and %s"):format(listed(old), listed(new)),
      hint = "one hub is open at a time: stop the servers of the other",
    }
  end
end

--- Checks for rb.checks: titles and functions that read.
---@return table[]
function Pair:checks()
  local list = {}
  for i, row in ipairs {
    { "both clusters mount one storage", one_storage }, { "no volume removes the homes with its claim", volumes_are_kept },
    { "both clusters show the same homes", both_show_it }, { "pods of one cluster write to the homes", one_at_a_time },
  } do
    list[i] = { row[1], function() return row[2](self) end }
  end
  return list
end

-- ---- passes ----

-- See that both clusters show each home, and keep a receipt for it, but for those of `without`.
local function see(self, what, without)
  must_be_one(self)
  local names, left, later = homes_of(must_show_the_same(self)), 0, {}
  for _, name in ipairs(without or {}) do
    later[name] = true
  end
  if effect.planning() then
    return
  end
  local kept = 0
  for _, name in ipairs(names) do
    local is_left = record.is_left(name)
    if not later[name] then
      record.add_receipt(self, name, is_left and "left" or "same", {})
      left, kept = left + (is_left and 1 or 0), kept + (is_left and 0 or 1)
    end
  end
  local session = task.context().session
  if session and session.journal then
    session.journal:commit()
  end
  events.notice(("%s: nothing is copied: %s in storage that both clusters mount%s"):format(what, human.plural(kept, "home"),
    (left > 0 and (", %d left out on purpose"):format(left) or "")
    .. (#names > left + kept and (", %d left for a later pass"):format(#names - left - kept) or "")))
end

--- Nothing is copied: the homes are where they will be, and both clusters show them.
---@async
---@param o? { first?: string[], without?: string[] }  as with other copiers: homes in `without` get no receipt yet
function Pair:bulk(o)
  see(self, "bulk", nfs.check_bulk(o, 2).without)
end

--- The same as bulk.
---@async
function Pair:converge()
  see(self, "converge")
end

--- Nothing takes no time.
---@return { seconds: number, low: number, high: number, text: string }
function Pair:forecast()
  return { seconds = 0, low = 0, high = 0, pass = 0, proof = 0, passes = 0, bytes = 0,
    text = "nothing is copied: both clusters mount one storage" }
end

--- It fits any window.
function Pair:must_fit()
  local f = self:forecast()
  events.emit { type = "forecast", low = f.low, high = f.high, text = f.text }
end

--- Rows for the question before people are locked out.
---@return string[][]
function Pair:impact()
  return {
    { "who", ("everyone whose home is in %s, for as long as hub and names take"):format(tostring(self.from)) },
    { "forecast", self:forecast().text },
    { "back", "start the old hub again: what was written since is there, nothing is lost" },
  }
end

--- Raises, with the names, unless nothing changes in the homes for so long. Without a time there is nothing to compare: no pass
--- carries anything that could have changed since.
---@async
---@param seconds? number|string
function Pair:must_be_quiet(seconds)
  if seconds then
    looking(self):must_be_quiet(seconds)
  end
end

--- Nothing is copied; but from here on the old cluster must not write any more.
---@async
function Pair:final()
  must_be_one(self)
  must_not_be_written(self, self.from, "both hubs would be open at once")
  see(self, "final")
end

--- See that it is one storage, that both clusters show the same homes, and keep a receipt for each.
---@async
function Pair:verify()
  if effect.planning() then
    effect.wait(("both clusters are asked what they show of %s"):format(tostring(self.from)), function() end)
    return
  end
  must_not_be_written(self, self.from, "both hubs would be open at once")
  see(self, "verify")
end

-- ---- what was proven ----

--- Names of the homes, as they are now.
---@async
---@return string[]
function Pair:units_now()
  return homes_of(entries_of(looking(self).from))
end

--- The proof, for files and people.
---@async
---@return table
function Pair:receipts()
  return proof.receipts(self)
end

--- What is known of one home; nil before the first pass. One that was made since then is where it has to be, too, though nobody
--- has seen it through both clusters yet.
---@async
---@param unit string
---@return { level: "same"|"sent"|"left", at?: string }?
function Pair:receipt(unit)
  local all = record.receipts(self)
  if all[unit] or next(all) == nil then
    return all[unit]
  end
  -- after the move it is in the directory that both clusters were seen to show
  return { level = self.of_run and "same" or "sent" }
end

--- None: what people do on the new hub is on the old one's storage, and has not to be copied back.
---@return string[]
function Pair:changed_since_receipts()
  return {}
end

--- Never raises for what users have written on the new hub: that is on the old one's storage. Only when it is not one any more.
---@async
function Pair:must_be_unchanged_since_receipts()
  must_be_one(self)
  events.notice "what users have written on the new hub is on the storage of the old one: going back loses none of it"
end

--- Nothing: the new hub's homes are the old one's.
function Pair:set_aside()
  events.notice(("%s stays: it is the new hub's, too"):format(tostring(self.from)))
end

--- Nothing has to be copied back; but the old hub must not open beside the new one.
---@async
function Pair:back()
  must_be_one(self)
  must_not_be_written(self, self.to, "both hubs would be open at once")
  events.notice "the way back: nothing is copied: both clusters mount one storage"
end

return same
