---@meta runbook.core.time

--- Clocks, in seconds.
---@class runbook.core.time
local time = {}

--- CLOCK_BOOTTIME: goes on while the machine sleeps.
---@return number
function time.boottime() end

--- CLOCK_MONOTONIC: for deadlines.
---@return number
function time.now() end

--- Seconds since 1970, UTC: for records.
---@return number
function time.utc() end

return time
