---@meta runbook.core.sftp

--- Files of another machine by the sftp protocol, over any stream that leads to an sftp server: `session:subsystem "sftp"`,
--- or a command that runs one. Requests of several tasks go side by side. Codes: ENOENT EACCES EINVAL ENOTSUP EIO (the protocol
--- has no word for more) EPROTO ELOST ECLOSED.
local sftp = {}

---@class runbook.core.sftp.attributes
---@field type? "file"|"directory"|"link"|"special"
---@field size? integer
---@field mode? integer  permissions
---@field uid? integer   with gid
---@field gid? integer
---@field atime? integer  with mtime; seconds
---@field mtime? integer

--- Greet the server. The stream is the client's from here on.
---
---Permit: read
---@async
---@param stream runbook.stream
---@return runbook.core.sftp.client? client
---@return string? message
---@return string? code
function sftp.over(stream) end

---@class runbook.core.sftp.client
local client = {}

--- At once; what is under way ends with ECLOSED.
function client:close() end

--- The entries of a directory, without `.` and `..`.
---
---Permit: read
---@async
---@param path string
---@return (runbook.core.sftp.attributes|{ name: string })[]? list
---@return string? message
---@return string? code
function client:list(path) end

--- Of a link, not of what it points to.
---
---Permit: read
---@async
---@param path string
---@return runbook.core.sftp.attributes? attributes
---@return string? message
---@return string? code
function client:lstat(path) end

---Permit: change
---@async
---@param path string
---@param mode? integer
---@return true? done
---@return string? message
---@return string? code
function client:mkdir(path, mode) end

--- The content of a file, read ahead by 1 MiB. That it cannot be opened is said by the first read.
---
---Permit: read
---@param path string
---@return runbook.stream
function client:read(path) end

---Permit: read
---@async
---@param path string
---@return string? target
---@return string? message
---@return string? code
function client:readlink(path) end

---Permit: read
---@async
---@param path string
---@return string? path
---@return string? message
---@return string? code
function client:realpath(path) end

---Permit: change
---@async
---@param path string
---@return true? done
---@return string? message
---@return string? code
function client:remove(path) end

--- Over what is there already, where the server can (OpenSSH does).
---
---Permit: change
---@async
---@param path string
---@param other string
---@return true? done
---@return string? message
---@return string? code
function client:rename(path, other) end

---Permit: change
---@async
---@param path string
---@return true? done
---@return string? message
---@return string? code
function client:rmdir(path) end

---Permit: change
---@async
---@param path string
---@param attributes runbook.core.sftp.attributes  mode, owner, times
---@return true? done
---@return string? message
---@return string? code
function client:setstat(path, attributes) end

---Permit: read
---@async
---@param path string
---@return runbook.core.sftp.attributes? attributes
---@return string? message
---@return string? code
function client:stat(path) end

---Permit: change
---@async
---@param path string
---@param target string
---@return true? done
---@return string? message
---@return string? code
function client:symlink(path, target) end

--- Put a whole file in place: staged beside it, synced, renamed over it; nothing is left when that fails.
---
---Permit: change
---@async
---@param path string
---@param content string|runbook.secret|runbook.stream
---@param attributes? runbook.core.sftp.attributes  mode (else as the server's umask has it), owner, times
---@return true? done
---@return string? message
---@return string? code
function client:write(path, content, attributes) end

return sftp
