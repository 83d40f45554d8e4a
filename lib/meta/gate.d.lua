---@meta runbook.core.gate

--- What the running task may do to the world. lib/runbook/effect.lua is its only user.
---@class runbook.core.gate
local gate = {}

--- Calls a function with this permit; what was allowed before is restored however it ends.
---@param class "none"|"read"|"change"|"destroy"
---@param fn function
---@param ... any
---@return any ...  what the function returns
function gate.call(class, fn, ...) end

--- The permit of the running task.
---@return "none"|"read"|"change"|"destroy"
function gate.class() end

return gate
