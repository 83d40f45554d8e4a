--- Tasks that end before the call that started them does.
---
---     task.each(hosts, { limit = 10 }, function(host) host:run { "true" } end)
---     local a, b = table.unpack(task.all { first, second })

local core = require "runbook.core.task"
local errors = require "runbook.errors"

local task = {}

task.sleep = core.sleep
task.context = core.context
task.with_context = core.with_context

--- Start a function as a task of its own. For libraries: whoever spawns joins.
---@param fn function
---@return runbook.core.task.task
function task.spawn(fn, ...)
  return core.spawn(fn, ...)
end

--- Wait for the end of a task.
---@async
---@return boolean ok
---@return any ...  results, or the error
function task.join(t)
  core.join_all { t }
  return t:result()
end

-- Waits for all; raises the first failure that is not just the cancelling it caused.
local function settle(workers, failure)
  core.join_all(workers)
  if failure() ~= nil then
    error(failure(), 0)
  end
  for _, worker in ipairs(workers) do
    local ok, err = worker:result()
    if not ok then
      error(err, 0)
    end
  end
end

--- Call `fn` on every item, at most `limit` at a time, and wait for all. The first failure cancels the rest
--- and is raised once they have ended. (`rb.each` alone collects failures.)
---@async
---@param items any[]
---@param opts { limit?: integer }
---@param fn async fun(item: any, index: integer)
function task.each(items, opts, fn)
  local next_index, failure = 1, nil
  local workers = {}

  local function worker()
    while next_index <= #items and failure == nil do
      local i = next_index
      next_index = i + 1
      local ok, err = xpcall(fn, errors.handler, items[i], i)
      if not ok then
        if failure == nil then
          failure = err
          for _, other in ipairs(workers) do
            other:cancel()
          end
        end
        return
      end
    end
  end

  for i = 1, math.min(opts.limit or #items, #items) do
    workers[i] = core.spawn(worker)
  end
  settle(workers, function() return failure end)
end

--- Run functions side by side; all have ended when it returns.
---@async
---@param fns (async fun(): any)[]
---@return any[] results  the first result of each, in order
function task.all(fns)
  local results = {}
  task.each(fns, {}, function(fn, i)
    results[i] = fn()
  end)
  return results
end

--- Run functions side by side; the first that ends decides, the others are cancelled.
---@async
---@param fns (async fun(): any)[]
---@return any result
---@return integer index  whose it is
function task.race(fns)
  local workers, winner = {}, nil
  for i, fn in ipairs(fns) do
    workers[i] = core.spawn(function()
      local r = table.pack(xpcall(fn, errors.handler))
      if winner == nil then
        winner = { i, r }
        for j, other in ipairs(workers) do
          if j ~= i then
            other:cancel()
          end
        end
      end
    end)
  end
  core.join_all(workers)
  if winner == nil then
    error(core.cancelled, 0)
  end
  local index, r = winner[1], winner[2]
  if not r[1] then
    error(r[2], 0)
  end
  return r[2], index
end

--- Call `fn` and cancel it when it takes longer than `seconds`; then an error of kind `timeout` is raised.
---@async
---@param seconds number?  nil: no limit
---@param what string  for the message
---@param fn async fun(...): any
---@return any ...  what `fn` returns
function task.timeout(seconds, what, fn, ...)
  if seconds == nil then
    return fn(...)
  end
  local expired = false
  local worker = core.spawn(fn, ...)
  local timer = core.spawn(function()
    core.sleep(seconds)
    expired = true
    worker:cancel()
  end)
  core.join_all { worker }
  timer:cancel()
  core.join_all { timer }
  local r = table.pack(worker:result())
  if r[1] then
    return table.unpack(r, 2, r.n)
  elseif expired and errors.is_cancelled(r[2]) then
    errors.raise({ kind = "timeout", message = ("%s took longer than %g s"):format(what, seconds) }, 2)
  end
  error(r[2], 0)
end

return task
