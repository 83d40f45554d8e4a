---@meta runbook.core.json

local json = {}

---@param text string
---@param max_bytes integer
---@return any value
---@return string? err   "line 3, column 7: ..."
---@return string? code  "ESYNTAX" | "EDUPLICATE" | "ELIMIT" | "ENOMEM"
function json.decode(text, max_bytes) end

--- `rest` is the object without the list at `key`, whose members `next` gives.
---@param text string
---@param max_bytes integer
---@param key string
---@return any rest
---@return (fun(): any)|string next  or err
---@return string? code  as above
function json.decode_items(text, max_bytes, key) end

---@param value any
---@param sorted boolean  keys in order
---@param lossy boolean   U+FFFD for bytes that are not UTF-8
---@param indent integer  spaces a level, 0 to 8
---@return string? text
---@return string? err   "homes.from[2]: a function has no JSON"
---@return string? code  "EUNSUPPORTED" | "EUTF8" | "ELIMIT" | "ENOMEM"
function json.encode(value, sorted, lossy, indent) end

return json
