---@meta runbook.core.secret

--- Values that print as «secret:name». Their bytes go to programs, files and servers, never to Lua; joined with a string they
--- give their name; length and order are refused; each equals only itself.
local secret = {}

---@class runbook.secret
---@operator concat(string): string
local value = {}

---@param x any
---@return boolean
function secret.is(x) end

--- The host's redactor learns the bytes at once.
---@param name string
---@param bytes string|runbook.secret
---@return runbook.secret secret
---@return boolean redacted  false: shorter than 4 bytes, so it cannot be found in text
function secret.new(name, bytes) end

---@return string
function value:name() end

return secret
