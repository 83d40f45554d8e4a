---@meta runbook.core.stream

--- Bytes in, bytes out: ssh channels, pipes, sockets. One task at a time may read a stream and one write to it. Codes are
--- those of what lies under the stream, ECLOSED (closed here) and ENOTSUP.
local stream = {}

---@class runbook.stream
local s = {}

--- What has come, up to `max` bytes (64 KiB, and never more than 1 MiB); waits when nothing has.
---@async
---@param max? integer
---@return string? bytes  nil at the end
---@return string? message
---@return string? code
function s:read(max) end

--- The next line, without its newline. What is left at the end counts as one.
---@async
---@return string? line  nil at the end
---@return (true|string)? split  true: a line over 64 KiB, of which this is a piece and more follows; else the message
---@return string? code
function s:line() end

--- Hand on bytes; waits until all were taken.
---@async
---@param bytes string  or a secret
---@return true? done
---@return string? message
---@return string? code
function s:write(bytes) end

--- No more will be written. ENOTSUP where the stream has only one half.
---@return true? done
---@return string? message
---@return string? code
function s:half_close() end

--- At once, twice if need be. Whoever waits on it gets ECLOSED.
function s:close() end

--- Copy until the end of `from`, then half-close `to` where that can be done. Neither is closed.
---@async
---@param from runbook.stream
---@param to runbook.stream
---@return integer? bytes
---@return string? message
---@return string? code
function stream.pump(from, to) end

--- Two ends of a pipe that goes both ways.
---@return runbook.stream
---@return runbook.stream
function stream.pair() end

return stream
