---@meta runbook.core.secret

--- Values that print as «secret:name». Their bytes go to programs, files and servers, never to Lua; joined with a string they
--- give their name; length and order are refused; each equals only itself.
local secret = {}

---@class runbook.secret
---@operator concat(string): string
local value = {}

--- The secret's bytes as base64. The redactor knows that spelling already.
---@param s runbook.secret
---@return runbook.secret text
function secret.base64(s) end

--- Give the bytes to a secret that `later` made; once.
---@param s runbook.secret
---@param bytes string|runbook.secret
---@return boolean redacted
function secret.fill(s, bytes) end

---@param x any
---@return boolean
function secret.is(x) end

--- Strings and secrets, one behind the other: a body with secrets in it. The redactor knows its parts, and does not learn the whole.
---@param name string
---@param parts (string|runbook.secret)[]
---@return runbook.secret whole
function secret.join(name, parts) end

--- A secret whose bytes are read when they are needed; until then no program gets it.
---@param name string
---@return runbook.secret secret
function secret.later(name) end

--- The host's redactor learns the bytes at once.
---@param name string
---@param bytes string|runbook.secret
---@return runbook.secret secret
---@return boolean redacted  false: shorter than 4 bytes, so it cannot be found in text
function secret.new(name, bytes) end

--- Have its bytes been read?
---@return boolean
function value:known() end

---@return string
function value:name() end

return secret
