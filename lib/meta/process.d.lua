---@meta runbook.core.process

--- Programs of this machine. A program gets a session and process group of its own; ending it ends its group.
---@class runbook.core.process
local process = {}

---@class runbook.core.process.options
---@field argv string[]  the first is looked up in PATH
---@field env? table<string, string>  put over our environment
---@field cwd? string
---@field stdin? string|runbook.secret|runbook.stream  without it, stdin is empty (exec) or a pipe (open)
---@field limit? integer  bytes of stdout kept, 8 MiB; more is ELIMIT
---@field duplex? boolean  one socket is stdin and stdout: child:stdin() is read and written

---@class runbook.core.process.result
---@field status? integer  nil when a signal ended it
---@field signal? string  "TERM"
---@field stdout string
---@field stderr string  its last 64 KiB

--- Runs a program to its end. nil, message, code where it could not be started, printed too much, or its stdin broke off.
---Permit: read
---@async
---@param options runbook.core.process.options
---@return runbook.core.process.result? result
---@return string? message
---@return string? code  "ENOENT" | "EACCES" | "ELIMIT" | ...
function process.exec(options) end

--- Starts a program with pipes on its standard streams.
---Permit: read
---@param options runbook.core.process.options
---@return runbook.core.process.child? child
---@return string? message
---@return string? code
function process.open(options) end

---@class runbook.core.process.child
local child = {}

--- TERM for its group, KILL two seconds later; nobody waits for that.
function child:close() end

---@return integer
function child:pid() end

---@param name string  "TERM"
---@return true?
---@return string? message
---@return string? code  "ESRCH" once it has ended
function child:signal(name) end

---@return runbook.stream
function child:stderr() end

---@return runbook.stream
function child:stdin() end

---@return runbook.stream
function child:stdout() end

--- Waits until it has ended; its pipes may hold more to read.
---@async
---@return { status?: integer, signal?: string }? how
---@return string? message
---@return string? code  "ECLOSED"
function child:wait() end

return process
