---@meta runbook.core.sqlite

--- SQLite databases, each on a thread of its own. Codes: EBUSY (somebody else's lock) EFULL ECORRUPT ENOENT EREADONLY EPERM
--- EISDIR EEXIST EIO EMFILE ENOMEM ESQL (the statement is wrong) ECONSTRAINT ELIMIT (the answer is too long) ENOTSUP
--- ECANCELED ECLOSED.
local sqlite = {}

---@class runbook.core.sqlite.options
---@field create? boolean        make the file (mode 0600) when there is none
---@field readonly? boolean      needs only permit `read`
---@field journal? boolean       points "commit" and "committed" around each commit
---@field busy_timeout? number   seconds to wait for somebody else's lock; 5
---@field result_limit? integer  bytes of one answer; 64 MiB
---@field pragmas? table<string, string|number|boolean>  set at once; `journal_mode` must be possible

---@class runbook.core.sqlite.database
local database = {}

---@class runbook.core.sqlite.row
---@field n integer  columns; NULL is nil

--- A statement and its values. Without `n`, values missing at the end are NULL; with it, that many are given.
---@class runbook.core.sqlite.statement
---@field [1] string
---@field n? integer

--- Open a database and look into it. Only what is opened with `create` is made.
---
---Permit: read
---Permit: change, unless `readonly`
---@async
---@param path string
---@param options? runbook.core.sqlite.options
---@return runbook.core.sqlite.database? database
---@return string? message
---@return string? code
function sqlite.open(path, options) end

--- A consistent, checked and synced copy in a new file (mode 0600), while others read and write.
---
---Permit: change
---@async
---@param to string  must not exist
---@return true? copied
---@return string? message
---@return string? code
function database:backup(to) end

--- At once, without waiting. Runs that were sent are still carried out.
function database:close() end

--- What is wrong inside: pages, indexes, references. Empty when it is whole.
---
---Permit: read
---@async
---@return string[]? problems
---@return string? message
---@return string? code
function database:integrity() end

--- How far the backup is that runs, in pages; 0, 0 when none does.
---@return integer done
---@return integer total
function database:progress() end

--- One statement that changes nothing. Text and blobs are strings.
---
---Permit: read
---@async
---@param sql string
---@param ... nil|boolean|number|string  as many as there are parameters
---@return runbook.core.sqlite.row[]? rows
---@return string[]|string names  of the columns, or the message
---@return string? code
function database:query(sql, ...) end

--- The same with rows by column name.
---
---Permit: read
---@async
---@param sql string
---@param ... nil|boolean|number|string
---@return table<string, any>[]? records
---@return string? message
---@return string? code
function database:records(sql, ...) end

--- Statements as one transaction: all of them, durably, or none. Runs that wait together share one commit; one that fails
--- takes only itself back. A run that was sent is carried out even if its task is cancelled.
---
---Permit: change
---@async
---@param ... runbook.core.sqlite.statement
---@return true? done
---@return integer|string changes  rows inserted, updated or deleted, or the message
---@return string? code
function database:run(...) end

return sqlite
