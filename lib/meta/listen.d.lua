---@meta runbook.core.listen

--- Ports that others connect to, here; those of an ssh server are its session's `listen`. Codes: EADDRINUSE EACCES
--- EADDRNOTAVAIL EINVAL (no numeric address), of accept EMFILE ENOMEM (the next may go well), ELOST (with its ssh session),
--- ECLOSED.
local listen = {}

--- Listen on a numeric address of this machine.
---
---Permit: read
---@param host string
---@param port integer  0: one that is free
---@return runbook.core.listen.listener? listener
---@return string? message
---@return string? code
function listen.open(host, port) end

---@class runbook.core.listen.listener
local listener = {}

--- Wait for the next connection. One task at a time may.
---@async
---@return runbook.stream? connection
---@return string? message
---@return string? code
function listener:accept() end

--- At once, twice if need be. Whoever waits for a connection gets ECLOSED; those there are stay.
function listener:close() end

---@return integer port
function listener:port() end

return listen
