---@meta runbook.core.terminal

local terminal = {}

--- Ask at the controlling terminal. What was typed before is thrown away.
---@async
---@param prompt string
---@param echo boolean        show what is typed
---@param secret_name? string  the answer is a secret of that name
---@return string|runbook.secret|nil line  nil alone: the input has ended
---@return string? err
---@return string? code  "ENOTTY" | "EBUSY" | "ELOST"
function terminal.ask(prompt, echo, secret_name) end

---@return boolean available  there is a controlling terminal and we are in its foreground
function terminal.available() end

---@class runbook.core.terminal.editor
local editor = {}

--- Who reads gets ECLOSED.
function editor:close() end

--- A line that can be edited, with those that were remembered at hand; one read at a time.
---@async
---@param prompt string
---@return string? line  nil alone: the input has ended
---@return string? err
---@return string? code  "EBUSY" | "ENOTTY" | "ECLOSED"
function editor:read(prompt) end

---@param line string  the arrow keys bring it back
function editor:remember(line) end

--- An editor of lines at the controlling terminal.
---@return runbook.core.terminal.editor? editor
---@return string? err
---@return string? code  "ENOTTY" | "EUNSUPPORTED"
function terminal.editor() end

---@param stream "stdin"|"stdout"|"stderr"
---@return boolean
function terminal.is(stream) end

--- At once, whatever question is open: the terminal as it was before.
function terminal.restore() end

---@param stream "stdin"|"stdout"|"stderr"
---@return integer? columns  nil: no terminal, or one that does not know
---@return integer? rows
function terminal.size(stream) end

return terminal
