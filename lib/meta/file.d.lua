---@meta runbook.core.file

--- Files of this machine. Every function waits for a thread of the pool; what the file system refuses is
--- nil, message, code with the name of errno ("ENOENT").
---@class runbook.core.file
local file = {}

---@class runbook.core.file.stat
---@field type "file"|"directory"|"link"|"fifo"|"socket"|"character device"|"block device"
---@field size integer
---@field mode integer  permission bits only
---@field uid integer
---@field gid integer
---@field dev integer
---@field ino integer
---@field nlink integer
---@field blocks integer  of 512 bytes
---@field mtime number  seconds
---@field mtime_ns integer
---@field ctime_ns integer

---@class runbook.core.file.space
---@field bytes_total integer
---@field bytes_free integer  for users who are not root
---@field inodes_total integer
---@field inodes_free integer
---@field type string  "nfs", "xfs", "tmpfs", ...

---Permit: change
---@async
---@param path string
---@param mode integer
---@return true?, string?, string?
function file.chmod(path, mode) end

--- What is in a directory, sorted by bytes.
---Permit: read
---@async
---@param path string
---@return { name: string, type: string }[]?, string?, string?
function file.list(path) end

--- An exclusive flock on the file, which is made where it is missing; held until closed. Code EBUSY when somebody has it.
---Permit: change
---@async
---@param path string
---@return runbook.core.file.lock?, string?, string?
function file.lock(path) end

---Permit: read
---@async
---@param path string
---@return runbook.core.file.stat?, string?, string?
function file.lstat(path) end

--- With `parents`, missing parents too, and a directory that is there already is no error.
---Permit: change
---@async
---@param path string
---@param options? { mode?: integer, parents?: boolean }
---@return true?, string?, string?
function file.mkdir(path, options) end

--- A stream over the file: read it, write it new, or append to it. A write waits until the file has it. With `from`, what is
--- read begins at that byte, and what is appended to is cut off there.
---
---Permit: read
---Permit: change, unless `how` is "r"
---@async
---@param path string
---@param how? "r"|"w"|"a"
---@param options? { mode?: integer, from?: integer }
---@return runbook.stream?, string?, string?
function file.open(path, how, options) end

--- Code ELIMIT when it is longer than `max` (64 MiB).
---Permit: read
---@async
---@param path string
---@param max? integer
---@return string?, string?, string?
function file.read(path, max) end

---Permit: read
---@async
---@param path string
---@return string?, string?, string?
function file.readlink(path) end

---Permit: read
---@async
---@param path string
---@return string?, string?, string?
function file.realpath(path) end

---Permit: change
---@async
---@param from string
---@param to string
---@param options? { sync?: boolean }
---@return true?, string?, string?
function file.rename(from, to, options) end

---Permit: change
---@async
---@param path string
---@return true?, string?, string?
function file.rmdir(path) end

---Permit: read
---@async
---@param path string
---@return runbook.core.file.stat?, string?, string?
function file.stat(path) end

---Permit: read
---@async
---@param path string
---@return runbook.core.file.space?, string?, string?
function file.statfs(path) end

---Permit: change
---@async
---@param target string
---@param path string
---@return true?, string?, string?
function file.symlink(target, path) end

---Permit: change
---@async
---@param path string
---@return true?, string?, string?
function file.unlink(path) end

--- Writes beside the file and renames over it: readers see the old or the new, never half of it.
--- A replaced file keeps its mode unless one is given; with `sync` it is on the disk before this returns.
---Permit: change
---@async
---@param path string
---@param bytes string|runbook.secret
---@param options? { mode?: integer, sync?: boolean }
---@return true?, string?, string?
function file.write(path, bytes, options) end

---@class runbook.core.file.lock
local lock = {}

--- Gives the lock up.
function lock:close() end

--- Who holds it, for those who are refused; replaces what was there.
---Permit: change
---@param text string
---@return true?, string?, string?
function lock:write(text) end

return file
