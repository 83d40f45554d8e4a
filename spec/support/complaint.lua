--- What a function complains of.

local assert = require "luassert"
local errors = require "runbook.errors"

--- The error a function raises, which has to be of that kind.
---@async
---@param kind string
---@param fn function
---@return runbook.Error
return function(kind, fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  assert.equal(kind, errors.is(err) and err.kind or tostring(err), tostring(err))
  return err
end
