--- Who can write to a hub's homes: every pod with that storage mounted, in any namespace, labelled or not.

local claim = require "runbook.kube.claim"
local errors = require "runbook.errors"
local events = require "runbook.events"
local handle = require "runbook.hub.handle"
local human = require "runbook.human"
local options = require "runbook.options"
local settings = require "runbook.hub.settings"
local ssh = require "runbook.ssh"
local storage = require "runbook.kube.storage"
local task = require "runbook.task"
local units = require "runbook.units"

local Hub = handle.Hub

local writers = {}

local SHOWN = 8

---@class runbook.hub.Writer
---@field name string       namespace/pod
---@field user string?      of a user's server
---@field ending boolean    it was told to end, and has not

--- Every pod that may write to the hub's homes now.
---@async
---@return runbook.hub.Writer[]
---@return boolean partly  pods of other namespaces could not be seen
function Hub:writers()
  local list = {}
  local pods, partly = storage.writers(self.cluster, self:home_storage(), self.namespace)
  for i, pod in ipairs(pods) do
    local labels, notes = pod.metadata.labels or {}, pod.metadata.annotations or {}
    list[i] = {
      name = pod.metadata.namespace .. "/" .. pod.metadata.name,
      user = pod.metadata.namespace == self.namespace and labels.component == "singleuser-server"
        and (notes["hub.jupyter.org/username"] or labels["hub.jupyter.org/username"]) or nil,
      ending = pod.metadata.deletionTimestamp ~= nil,
    }
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list, partly
end

local function listed(list)
  local words = {}
  for i = 1, math.min(#list, SHOWN) do
    words[i] = list[i].name .. (list[i].ending and " (ending)" or "")
  end
  return table.concat(words, ", ") .. (#list > SHOWN and (" and %s more"):format(units.count(#list - SHOWN)) or "")
end

local PARTLY = "pods of other namespaces cannot be seen with these rights (list pods, cluster-wide): what writes from there is not known"

--- For preflight: pods that write to the homes and are no user's server; they have to be stopped by a person.
---@async
---@return string[] to_know
function Hub:other_writers()
  local list, partly = self:writers()
  local others, know = {}, {}
  for _, writer in ipairs(list) do
    if not writer.user then
      others[#others + 1] = writer
    end
  end
  if #others > 0 then
    know[1] = ("%s besides users' servers can write to the homes: %s; stop %s before `drain`"):format(
      human.plural(#others, "pod"), listed(others), #others == 1 and "it" or "them")
  end
  if partly then
    know[#know + 1] = PARTLY
  end
  return know
end

--- Raises, with their names, while a pod can write to the homes.
---@async
function Hub:must_have_no_writers()
  local list, partly = self:writers()
  if #list > 0 then
    errors.raise {
      kind = "busy", code = "EWRITERS", target = self.name,
      message = ("%s can still write to the homes: %s"):format(human.plural(#list, "pod"), listed(list)),
      hint = self.cluster:by_hand { "-n", list[1].name:match "^[^/]+", "delete", "pod", list[1].name:match "[^/]+$" },
    }
  elseif partly then
    events.notice(("%s: %s"):format(self.name, PARTLY), "warning")
  end
end

-- ---- what is mounted ----

-- The addresses and names a server goes by, as it knows them itself, and the address we found it at.
local function names_of(place)
  local known = {}
  if ssh.is(place) then
    local info = ssh.identity(place)
    known[info.address or ""], known[info.host or ""] = true, true
  end
  local text = place:query_sh [[hostname; hostname -f 2>/dev/null; hostname -I 2>/dev/null | tr ' ' '\n'; echo localhost; echo 127.0.0.1]]
  for word in text:gmatch "%S+" do
    known[word:lower()] = true
  end
  return known
end

-- Is this the server's name? One that it does not go by itself is looked up there.
local function is_server(place, server)
  local known = names_of(place)
  if known[server:lower()] or server == place.seen_from_target then
    return true
  end
  for address in place:query_sh([[getent ahosts -- "$1" | awk '{ print $1 }' || true]], server):gmatch "%S+" do
    if known[address] then
      return true
    end
  end
  return false
end

-- Is a directory in a claim that storage? Nil when it is in none; false, and what it is instead.
local function same_storage(hub, place, dir)
  local of = claim.of(dir)
  if of == nil then
    return nil
  elseif not storage.is_portable(place) and of.cluster:identity() ~= hub.cluster:identity() then
    return false, ("that is in cluster %s"):format(of.cluster.name)
  end
  local filled = claim.storage(dir)
  return filled.root == place.root and filled.path == place.path, "that is " .. storage.words(filled)
end

--- Raises unless the hub's homes are this directory: files copied elsewhere are an empty home for everyone.
---@async
---@param dir runbook.Dir  where the copy goes
---@return string? to_know
function Hub:must_mount(dir)
  local place = self:home_storage()
  local server = place.root:match "^nfs (.*)$"
  local function stop(why)
    errors.raise {
      kind = "conflict", code = "EMOUNT", target = self.name,
      message = ("its homes are %s, and the copy fills %s: %s"):format(storage.words(place), tostring(dir), why),
      hint = "everyone would see an empty home: correct the copy's target, or the hub's volume",
    }
  end
  local is_it, what = same_storage(self, place, dir)
  if is_it then
    return nil
  elseif what then
    stop(what)
  elseif server == nil then
    stop "that is no NFS export"
  elseif not is_server(dir.place, server) then
    stop(("%s is not %s"):format(server, dir.place.name))
  elseif place.path == dir.path then
    return nil
  elseif place.path ~= "/" and dir.path:sub(-#place.path) == place.path then
    return ("%s mounts %s, which must be %s by the server's pseudo root"):format(self.name, storage.words(place), tostring(dir))
  end
  stop "those are two directories"
end

--- For preflight: what speaks against this directory being the hub's homes, as something to know: an old server may be reached by
--- ways that look like another one. Whether anybody's home is in it at all is for the ledger.
---@async
---@param dir runbook.Dir  where the copy comes from
---@return string? to_know
function Hub:may_mount(dir)
  local ok, said = xpcall(self.must_mount, errors.handler, self, dir)
  if ok or errors.is(said, "missing") then
    return said and tostring(said)
  elseif not errors.is(said, "conflict") then
    error(said, 0)
  end
  return (said.message:gsub("the copy fills", "the copy takes"))
end

-- Namespaces whose volumes hold this directory, or one above or below it.
local function sharers(hub, place, pair)
  local found = {}
  hub.cluster:each({ kind = "PersistentVolume" }, function(volume)
    local ref = volume.spec.claimRef
    local behind = storage.of_source(volume.spec, volume.metadata.name)
    local own = ref and (ref.namespace == hub.namespace or ref.namespace == pair)
    if not own and volume.status.phase ~= "Released" and storage.overlap(behind, place) then
      found[#found + 1] = ("%s (%s)"):format(ref and ref.namespace or "nobody's volume " .. volume.metadata.name, storage.words(behind))
    end
  end)
  table.sort(found)
  return found
end

-- The namespace of the hub that this one is to follow, where both have their homes in the very same directory of one cluster: homes
-- that stay where they are. A directory above or below it is none of a pair's.
local function pair_of(hub, place, other)
  if other == nil or other.cluster:identity() ~= hub.cluster:identity() then
    return nil
  end
  local ok, of_other = xpcall(other.home_storage, errors.handler, other)
  if not ok and not errors.is(of_other, "missing") then
    error(of_other, 0)
  end
  return ok and of_other.root == place.root and of_other.path == place.path and other.namespace or nil
end

local check_alone = options.declare("hub:must_mount_alone", {
  but = { "any", "the hub whose place this one takes: it may have its homes in the very same directory", optional = true },
})

--- Raises when the storage of another namespace holds the hub's homes, too, or a directory above them: who breaks into a
--- staging hub would read everybody's homes.
---@async
---@param o? { but: runbook.Hub }
---@return string? to_know
function Hub:must_mount_alone(o)
  local but = check_alone(o or {}, 2).but
  local place = self:home_storage()
  local pair = pair_of(self, place, but)
  local found = sharers(self, place, pair)
  if #found > 0 then
    errors.raise {
      kind = "conflict", code = "ESHARED", target = self.name,
      message = ("%s is in the storage of others, too: %s"):format(storage.words(place), table.concat(found, ", ")),
      hint = "give this hub a directory that nobody else's volume holds, like /homes/" .. self.namespace,
    }
  end
  return pair and ("%s has its homes in the same directory, until it is removed"):format(but.name) or nil
end

--- For preflight of two hubs: does every user have a directory of the same name on both?
---@async
---@param old runbook.Hub
---@param new runbook.Hub
---@param users { name: string, id: integer? }[]
---@return string? to_know
function writers.same_directories(old, new, users)
  local both = task.all {
    function() return old:settings() end,
    function() return new:settings() end,
  }
  local a, b = both[1], both[2]
  local differ = {}
  for _, user in ipairs(users) do
    local left, right = settings.home(a, user, old.namespace), settings.home(b, user, new.namespace)
    if left ~= right then
      differ[#differ + 1] = ("%s: %s, then %s"):format(user.name, left, right)
    end
  end
  if #differ > 0 then
    errors.raise {
      kind = "conflict", code = "EDIRECTORIES", target = new.name,
      message = ("%s of %s would find another, empty home:\n%s"):format(human.plural(#differ, "user"), units.count(#users),
        table.concat(differ, "\n", 1, math.min(#differ, SHOWN))),
      hint = ("set hub.config.KubeSpawner.slug_scheme: %s and the same subPath (%s) on %s"):format(a.scheme or "escape",
        a.storage.template or "", new.name),
    }
  end
end

return writers
