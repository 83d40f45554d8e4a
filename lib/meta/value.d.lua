---@meta runbook.core.value

---@class runbook.core.value
---@field null userdata  the one value that stands for null
local value = {}

--- Mark a table (a new one, if none is given) as an array.
---@generic T: table
---@param t? T
---@return T
function value.array(t) end

--- Mark a table (a new one, if none is given) as an object.
---@generic T: table
---@param t? T
---@return T
function value.object(t) end

---@param v any
---@return "array"|"object"|"null"|nil kind  nil when it carries no mark
function value.kind(v) end

return value
