---@meta runbook.core.redact

--- Takes secrets out of text on its way to people: as they are, in base64, percent-encoded, JSON-escaped, shell-quoted, in
--- lines. Overlapping matches become one «secret:name», named by the longest.
local redact = {}

---@class runbook.core.redact.redactor
local redactor = {}

---@class runbook.core.redact.stream
local stream = {}

--- The redactor that knows every secret made in this host.
---@return runbook.core.redact.redactor
function redact.host() end

---@return runbook.core.redact.redactor
function redact.new() end

--- Look for these bytes from now on; blanks around them do not count.
---@param name string
---@param bytes string|runbook.secret
---@return boolean added  false: shorter than 4 bytes, which are found everywhere
function redactor:add(name, bytes) end

--- For text that comes in parts.
---@return runbook.core.redact.stream
function redactor:stream() end

--- The text without secrets.
---@param text string
---@return string
function redactor:text(text) end

function stream:close() end

--- What is safe to show by now. Only what may be the beginning of a secret is kept back.
---@param bytes string
---@return string safe
function stream:feed(bytes) end

--- Nothing follows for now: what was kept back.
---@return string safe
function stream:flush() end

return redact
