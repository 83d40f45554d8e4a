---@meta runbook.core.yaml

local yaml = {}

---@param text string|runbook.secret  what comes out of a secret is plain: only for who makes secrets of its parts again
---@param many boolean   a list of all documents
---@param marks boolean  also return the two tables
---@return any value
---@return table<string, integer>|string lines  path -> line; or what is wrong
---@return table<string, string>|string words   path -> a plain scalar that is no string, as written; or the code: "ESYNTAX" | "EDUPLICATE" | "ELIMIT" | "ENOMEM"
function yaml.decode(text, many, marks) end

---@param text string
---@return boolean other  without quotes it would be no string in YAML 1.2
function yaml.resolves(text) end

return yaml
