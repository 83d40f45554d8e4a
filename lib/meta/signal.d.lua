---@meta runbook.core.signal

--- Signals to this process, as waits.
---@class runbook.core.signal
local signal = {}

--- Waits for the next one; those that came meanwhile are given first. One task at a time may.
---@async
---@return "INT"|"TERM"|"HUP"|"USR1"|"WINCH"
function signal.next() end

return signal
