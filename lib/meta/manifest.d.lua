---@meta runbook.core.manifest

--- What is known of both ends of a copy, a file per unit in a directory of ours (which must exist), and the work that follows
--- from it. Streams of the far side go into sinks; nothing is read or compared on the loop's thread. Codes: ECUT (the
--- stream ended too soon) EFORMAT (it is nonsense) ECLOSED, and what the file system says (ENOENT, ENOSPC, EACCES...).
---
--- A manifest is replaced whole and never synced: one that a crash tore is noticed, and is then not there. A row is what is
--- known of one path: an entry, a hash and a digest of its attributes for each side, and whether this pair put it on the target.
local manifest = {}

---@alias runbook.core.manifest.side "source"|"target"

---@class runbook.core.manifest.exclude
---@field regex string           extended; "./PATH" in a unit must match it whole
---@field directories? boolean   only directories

---@class runbook.core.manifest.request
---@field directory string
---@field side runbook.core.manifest.side
---@field threads? integer       0: as the far side sees fit
---@field gently? boolean
---@field exclude? runbook.core.manifest.exclude[]
---@field not_units? string[]    shell patterns of names at the top
---@field only? string[]         units; nil: all
---@field fresh? boolean         every entry, whatever is known

---@class runbook.core.manifest.scan_options
---@field directory string
---@field side runbook.core.manifest.side
---@field owner? string          "keep" or "UID:GID": who the source's names belong to on the target; "keep"
---@field only? string[]         as it was asked for: other units are not taken for vanished
---@field ours_during? number[][]  pairs of ctimes, seconds: what came to the target then, or was changed there, is this pair's, and so
---                              are directories. Else a name that changed there is not this pair's any more

--- What a scan found in a unit. Counts are of names.
---@class runbook.core.manifest.unit_report
---@field name string
---@field same boolean           nothing changed since the scan whose digest was sent
---@field first? true            this side was not known before
---@field digest string          of this scan; it is kept, and sent with the next request, when nothing changed 2 seconds before
---@field entries integer
---@field files integer
---@field directories integer
---@field bytes integer
---@field disk integer           bytes
---@field special integer
---@field linked integer
---@field linked_elsewhere integer  names whose other names are not all in this unit
---@field newest number          ctime, seconds
---@field newest_ns string       "SECONDS.NANOSECONDS"
---@field owners table<string, integer>  names by "UID:GID"
---@field added integer          against the last scan or result of this side; 0 when it is the same
---@field removed integer
---@field changed integer
---@field examples { path: string, at: number, type: string }[]  the newest 10 that were added or changed
---@field problems { path: string, errno: integer, code: string, what: string }[]  at most 20
---@field problem_count integer
---@field compared? runbook.core.manifest.comparison  with the other side, as far as that is known; nil when it is the same

---@class runbook.core.manifest.report
---@field version integer
---@field boot string            id
---@field clock number           of the far side, seconds
---@field device integer
---@field inode integer
---@field file_system string
---@field page integer
---@field stat_seconds number    the median
---@field units runbook.core.manifest.unit_report[]  in the order they came
---@field vanished string[]      units of this side that are not there any more

---@class runbook.core.manifest.kind
---@field kind string
---@field count integer
---@field examples string[]      paths, at most 3

--- `equal`: nothing is known to differ; `entries` is equal + missing + different. A path may be of several kinds: "missing on
--- the target", "only on the target", "type differs", "size differs", "mode differs", "owner differs", "time differs", "link
--- target differs", "hardlinks differ", "contents differ", "attributes differ", "not proven".
---@class runbook.core.manifest.comparison
---@field entries integer        of the source
---@field equal integer
---@field proven integer         equal, and contents and attributes known at both ends
---@field missing integer
---@field different integer
---@field extra integer          only on the target
---@field extra_ours integer     of these, put there by this pair
---@field unproven { files: integer, bytes: integer }  equal and not proven
---@field to_send { files: integer, bytes: integer }
---@field kinds runbook.core.manifest.kind[]

---@class runbook.core.manifest.known
---@field name string
---@field corrupt? true          torn or foreign; it is treated as not there, and `name` is the file's
---@field rows integer
---@field source? { entries: integer, bytes: integer, problems: integer }
---@field target? { entries: integer, bytes: integer, problems: integer, ours: integer }

---@class runbook.core.manifest.work_options
---@field directory string
---@field units string[]         in this order
---@field owner? string
---@field deletions? boolean     what is gone from the source, as a scan of it says, is removed where this pair put it; nothing in a
---                              unit whose source was never looked at
---@field overwrite? boolean     what this pair did not put there may be replaced; it is never removed
---@field entries? integer       a shard is cut when it has so many; 20000
---@field bytes? integer         or when so many are to be sent; 1 GiB
---@field parts? string          what the far side's `clean --keep-parts` said: what it names is sent from there on
---@field spread? integer        lanes: neighbours in a shard are so far apart in the tree that their directories differ; 1, in order

---@class runbook.core.manifest.unproven_options
---@field directory string
---@field units string[]
---@field owner? string
---@field entries? integer
---@field bytes? integer

---@class runbook.core.manifest.failure
---@field status "changing"|"source"|"target"|"conflict"|"unkept"|"torn"
---@field code string            "ENOSPC"
---@field words string
---@field count integer
---@field examples string[]      paths, at most 3

---@class runbook.core.manifest.outcome
---@field complete boolean       the stream said its end; else it was cut short
---@field done integer
---@field bytes integer          that were sent
---@field files integer
---@field created integer
---@field replaced integer
---@field metadata integer       brought without contents
---@field linked integer
---@field removed integer
---@field vanished integer       gone from the source meanwhile; what stands on the target goes only when a scan finds that, too
---@field unanswered integer     nobody knows: what is known of the target is not to be trusted for these units, nor where
---                              something was in conflict or unkept; a scan of the target finds out
---@field failures table<string, runbook.core.manifest.failure[]>  by unit

---@class runbook.core.manifest.settled
---@field patched integer        rows
---@field changed integer        rows whose entry was not what the manifest said (proofs: these are left unproven)
---@field compared? runbook.core.manifest.comparison  as it is now; nil: nothing came of it

--- Where a stream of the far side goes. Closing it abandons it: what was not taken up by then is not.
---@class runbook.core.manifest.sink
local sink = {}

--- Abandon it. Idempotent.
function sink:close() end

--- No more comes. What had come whole is kept in any case: units with ECUT (results that are cut are an outcome that is not
--- complete) and before EFORMAT, answers likewise.
---@async
---@return (runbook.core.manifest.report|runbook.core.manifest.outcome)? report
---@return string? message
---@return string? code
function sink:finish() end

--- How far a stream of results is, at any time; after `finish`, too.
---@return { bytes: integer, files: integer, answered: integer, stat_seconds?: number } status  stat_seconds: at the source, now
function sink:status() end

--- Waits until the bytes are taken. Fails when what came before them was nonsense. A task that is cancelled here or in
--- `finish` abandons the sink.
---@async
---@param bytes string
---@return true? taken
---@return string? message
---@return string? code
function sink:write(bytes) end

--- Work for one job, or a request to prove. `after`: it must start only when all earlier shards of that unit have ended.
---@class runbook.core.manifest.shard
---@field id integer
---@field bytes string           the stream
---@field entries integer        0 when all there is to say is what was refused
---@field files integer
---@field size integer           bytes to send, or to read
---@field units string[]
---@field after? string
---@field package handle userdata
---@field refused { kind: string, count: integer, examples: string[] }[]  not in it: "not ours", "not empty", "unreadable at the source", "in the way"
local shard = {}

--- Where its results go; once for each side. Needs the work it comes from to be open.
---@param side? runbook.core.manifest.side  of a proof, and only of one
---@return runbook.core.manifest.sink sink
function shard:results(side) end

--- Work, or what is to be proven, made one shard at a time.
---@class runbook.core.manifest.work
local work = {}

--- At once. Results that were not settled are forgotten.
function work:close() end

--- The next shard; nil at the end.
---@async
---@return runbook.core.manifest.shard? shard
---@return string? message
---@return string? code
function work:next() end

--- Merge what came of a unit's shards into its manifest, in one go. To be called when all of them have ended. A directory in
--- which something came or went and which was not brought after that differs in its time from then on.
---
---Permit: change
---@async
---@param unit string
---@return runbook.core.manifest.settled? settled
---@return string? message
---@return string? code
function work:settle(unit) end

--- Names of the source, of all units, that a file system of these limits would not hold as they are, by kind: "pipe",
--- "socket", "device", "symlink", "long name", "long path", "not UTF-8", "case" (another name of its directory differs in
--- letter case only), "large", "linked" (other names of the inode are in other units; examples come in pairs) and
--- "linked out" (they are out of the tree, or left out). Kinds of which there are none are not in it.
---
---Permit: read
---@async
---@param options { directory: string, name_max?: integer, path_max?: integer, base?: integer, size_max?: integer, folds?: boolean, utf8?: boolean }  in bytes; base: of the path the units are in; folds, utf8: the target does not tell case, takes UTF-8 only
---@return table<string, { count: integer, examples: string[] }>? kinds
---@return string? message
---@return string? code
function manifest.census(options) end

--- How both sides of a unit differ as far as is known.
---
---Permit: read
---@async
---@param directory string
---@param unit string
---@param options? { owner?: string }
---@return runbook.core.manifest.comparison? comparison
---@return string? message
---@return string? code  ENOENT when nothing is known of the unit
function manifest.compare(directory, unit, options) end

--- Drop what was proven of the target: it was restarted, and what it had not synced may be lost.
---
---Permit: change
---@async
---@param directory string
---@return integer? units
---@return string? message
---@return string? code
function manifest.distrust(directory) end

--- Drop everything, or what is known of one side.
---
---Permit: change
---@async
---@param directory string
---@param side? runbook.core.manifest.side
---@return integer? units
---@return string? message
---@return string? code
function manifest.forget(directory, side) end

--- Keep what is known of units, in another directory of the same file system, in place of what was kept of them before.
---
---Permit: change
---@async
---@param options { directory: string, into: string, units: string[] }
---@return integer? units
---@return string? message
---@return string? code
function manifest.keep(options) end

--- What the far side's `scan` is told: with each unit the digest it had, unless `fresh`.
---
---Permit: read
---@async
---@param options runbook.core.manifest.request
---@return string? bytes
---@return string? message
---@return string? code
function manifest.request(options) end

--- Where the stream of a scan goes; its report is `finish`'s. Sides may be scanned at the same time.
---
---Permit: change
---@param options runbook.core.manifest.scan_options
---@return runbook.core.manifest.sink? sink
---@return string? message
---@return string? code
function manifest.scan(options) end

--- What the far side's `clean --keep-parts` said of files that were not sent to their end, by unit: how many bytes of them are
--- there, and what was said.
---@param bytes string
---@return table<string, { bytes: integer, said: string }> units
function manifest.parts(bytes) end

--- What is equal by metadata and not proven at both ends; `results` takes the side that answers.
---
---Permit: change
---@param options runbook.core.manifest.unproven_options
---@return runbook.core.manifest.work proof
function manifest.unproven(options) end

--- Names of a target that somebody else has changed: it was the source when `kept` was made (`keep`), and since then this
--- directory's source was brought there, perhaps not to the end. What is neither as it was nor as it is brought is a
--- stranger's; so is what was removed. Times of directories say nothing.
---
---Permit: read
---@async
---@param directory string
---@param unit string
---@param kept string            directory
---@return { count: integer, examples: string[] }? strangers
---@return string? message
---@return string? code  ECORRUPT: what was kept is not to be believed
function manifest.strangers(directory, unit, kept) end

--- The manifests there are.
---
---Permit: read
---@async
---@param directory string
---@return runbook.core.manifest.known[]? units
---@return string? message
---@return string? code
function manifest.units(directory) end

--- The work that makes the target like the source. In a shard: what stands in the way, files and nodes, large files whose parts
--- are all there, hardlinks, removals, directories. A unit that fits is in one shard; one that does not ends with shards of its
--- own for the last four. A file of more bytes than a shard is sent by several.
---
---Permit: change
---@param options runbook.core.manifest.work_options
---@return runbook.core.manifest.work work
function manifest.work(options) end

return manifest
