---@meta runbook.core.embed

--- The files that are part of the binary, and the program we are part of.
---@class runbook.core.embed
local embed = {}

--- Does the embedding program take the events? Then nothing is printed.
---@return boolean
function embed.has_sink() end

--- Names of the files in the binary that begin so, sorted: `runbook.sync`, `runbooks/nfs-move.lua`.
---@param prefix? string
---@return string[]
function embed.list(prefix) end

--- Of this process.
---@return integer
function embed.pid() end

--- Hands an event to the embedding program.
---@param json string
---@return boolean taken
function embed.send(json) end

--- The text of a file in the binary.
---@param name string
---@return string? text
---@return string? chunk  "@lib/runbook/sync.lua"
function embed.source(name) end

--- The login this process runs as.
---@return string
function embed.user() end

---@return string  "0.1.0"
function embed.version() end

return embed
