---@meta runbook.core.task

--- Coroutines on the event loop. lib/runbook/task.lua is what libraries use.
---@class runbook.core.task
---@field cancelled any  the value raised in a task that was cancelled
local task = {}

---@class runbook.core.task.task
local handle = {}

--- Asks the task to end: its present wait is given up and every later one raises `cancelled`.
function handle:cancel() end

---@return boolean
function handle:done() end

--- `true` and what its function returned, or `false` and what it raised; nothing before its end.
---@return boolean? ok
---@return any ...
function handle:result() end

--- The table this task carries; children inherit it.
---@return table
function task.context() end

--- Waits until all tasks of the list have ended. A joiner that is cancelled cancels them, and waits all the same.
---@async
---@param tasks runbook.core.task.task[]
function task.join_all(tasks) end

--- The living tasks, newest first.
---@return { serial: integer, waits: string, trace?: string, context: table, self: boolean }[]
function task.list() end

--- Waits.
---@async
---@param seconds number
function task.sleep(seconds) end

--- Waits until a turn of the loop takes over a second; one task at a time may.
---@async
---@return number seconds
---@return string place  "file:line"
function task.slow_turn() end

--- Starts a task; it begins at the next turn of the loop.
---@param fn function
---@param ... any  its arguments
---@return runbook.core.task.task
function task.spawn(fn, ...) end

--- Calls a function while the task carries another table.
---@param context table
---@param fn function
---@param ... any
---@return any ...  what the function returns
function task.with_context(context, fn, ...) end

return task
