---@meta runbook.core.stream

---@class runbook.core.stream
local stream = {}

--- Copies until the end of `from` without passing Lua, then half-closes `to` where it can. Neither is closed.
---@async
---@param from runbook.stream
---@param to runbook.stream
---@return integer? bytes
---@return string? message
---@return string? code
function stream.pump(from, to) end

--- Bytes from and to a command, a file, a socket. At most one task reads and one writes.
---@class runbook.stream
local methods = {}

--- Who still waits for it learns ECLOSED.
function methods:close() end

--- Nothing more will be written. Code ENOTSUP where it has no such half.
---@return true?, string?, string?
function methods:half_close() end

--- The next line without its newline; nil at the end. Lines over 64 KiB come in pieces, each but the last with true.
---@async
---@return string? line
---@return boolean|string? split
---@return string? code
function methods:line() end

--- Some bytes, at most `max`; nil at the end.
---@async
---@param max? integer
---@return string? bytes
---@return string? message
---@return string? code
function methods:read(max) end

--- Waits until all was taken.
---@async
---@param bytes string|runbook.secret
---@return true?, string?, string?
function methods:write(bytes) end

return stream
