--- Patterns of what is not copied, in rsync's words, and the same for find: both must leave out exactly the same names.
---
--- `.cache/` a directory of that name anywhere in the unit; `/tmp` at its top; `*.pyc`; `a/**/b`. `*` and `?` stop at a slash.

local errors = require "runbook.errors"

local patterns = {}

--- Names at the top of a tree that are nobody's home, as shell patterns.
patterns.NOT_UNITS = { "lost+found", ".snapshot*", ".nfs*", ".runbook" }

local function quoted(c)
  return c:find("[%^%$%.%[%]|()*+?{}\\]") and "\\" .. c or c
end

-- A bracket expression of a shell as one of a regular expression: `!` negates as `^` does there.
local function bracket(pattern, at)
  local close = pattern:find("]", at + (pattern:find("^%[[!^]?%]", at) and #pattern:match("^%[[!^]?%]", at) or 1), true)
  if not close then
    return "\\[", at
  end
  return "[" .. pattern:sub(at + 1, close - 1):gsub("^!", "^") .. "]", close
end

local function regex(pattern)
  local out, i = {}, 1
  while i <= #pattern do
    local c = pattern:sub(i, i)
    if pattern:sub(i, i + 1) == "**" then
      out[#out + 1], i = ".*", i + 1
    elseif c == "*" then
      out[#out + 1] = "[^/]*"
    elseif c == "?" then
      out[#out + 1] = "[^/]"
    elseif c == "[" then
      out[#out + 1], i = bracket(pattern, i)
    elseif c == "\\" and i < #pattern then
      i = i + 1
      out[#out + 1] = quoted(pattern:sub(i, i))
    else
      out[#out + 1] = quoted(c)
    end
    i = i + 1
  end
  return table.concat(out)
end

--- Check what an operator wrote; raises kind `usage`.
---@param list string[]
---@param level integer
function patterns.check(list, level)
  for _, pattern in ipairs(list) do
    if type(pattern) ~= "string" or not pattern:find("[^/%s]") or pattern:find("[%z\n]") then
      errors.raise({ kind = "usage", message = ("exclude: `%s` is no pattern"):format(tostring(pattern)) }, level + 1)
    elseif pattern:find("^[+-] ") or pattern:find("/***", 1, true) then
      errors.raise({
        kind = "usage", message = ("exclude: `%s`: only names and patterns, no rules of rsync"):format(pattern),
      }, level + 1)
    end
  end
end

--- The pattern of one name at the top.
---@param name string
---@return string
function patterns.literal(name)
  return "/" .. name:gsub("[%*%?%[\\]", "\\%0")
end

--- Arguments of rsync.
---@param list string[]
---@return string[]
function patterns.for_rsync(list)
  local argv = {}
  for i, pattern in ipairs(list) do
    argv[i] = "--exclude=" .. pattern
  end
  return argv
end

-- A pattern as a regular expression for "./PATH", and whether it means directories only.
local function expression(pattern)
  local bare = pattern:gsub("/+$", "")
  while bare:sub(1, 3) == "**/" do -- at any depth, the top too, which is where a bare name is looked for as well
    bare = bare:sub(4)
  end
  local anywhere = bare:sub(1, 1) == "/" and "" or "(.*/)?"
  return "\\./" .. anywhere .. regex((bare:gsub("^/", ""))), pattern:find("/$") ~= nil
end

--- For the far side's own program.
---@param list string[]
---@return { regex: string, directories: boolean }[]
function patterns.for_far(list)
  local found = {}
  for i, pattern in ipairs(list) do
    local text, directories = expression(pattern)
    found[i] = { regex = text, directories = directories }
  end
  return found
end

--- Arguments of `find .` that go before what it does with a name: they prune what is left out.
---@param list string[]
---@return string[]
function patterns.for_find(list)
  if #list == 0 then
    return {}
  end
  local argv = { "-regextype", "posix-extended", "(" }
  for i, pattern in ipairs(list) do
    if i > 1 then
      argv[#argv + 1] = "-o"
    end
    local text, only_directories = expression(pattern)
    if only_directories then
      table.move({ "-type", "d" }, 1, 2, #argv + 1, argv)
    end
    table.move({ "-regex", text }, 1, 2, #argv + 1, argv)
  end
  table.move({ ")", "-prune", "-o" }, 1, 3, #argv + 1, argv)
  return argv
end

return patterns
