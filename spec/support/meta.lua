--- The signatures of the C modules, read from lib/meta: what is declared, with which parameters and which permit.

local meta = {}

---@class meta.Function
---@field name string        without its object
---@field class string?      of a method: the class of its object
---@field params { name: string, type: string, optional: boolean }[]
---@field permit "read"|"change"|nil
---@field unless string?     in which case only the weaker `permit_then` is needed
---@field permit_then "read"|nil

local function read(path)
  local file <close> = assert(io.open(path))
  return file:read "a"
end

--- Module names below a directory, from the names of its files.
---@param pattern string  of a shell
---@return string[]
function meta.names(pattern)
  local pipe <close> = assert(io.popen("ls " .. pattern))
  local names = {}
  for path in pipe:lines() do
    names[#names + 1] = path:match "([^/.]+)%.[%w.]+$"
  end
  return names
end

-- "integer? of it" is a type with a question mark; "n? integer" is a parameter with one.
local function read_param(line)
  local name, mark, rest = line:match "^%-%-%-@param ([%w_.]+)(%??) (.+)$"
  return name and { name = name, optional = mark == "?", type = rest:match "^[^ ]+" }
end

local function read_permit(line, found)
  local class, condition = line:match "^%-%-%-Permit: (%a+)(.*)$"
  if class == nil then
    return
  end
  assert(class == "read" or class == "change", line)
  assert(condition == "" or condition:match "^, unless `", line)
  if condition == "" then
    assert(found.permit == nil, "two permits: " .. line)
    found.permit = class
  else
    found.permit, found.permit_then, found.unless = class, found.permit, condition:match "^, unless (.+)$"
  end
end

local function signature(block, name, class, arguments)
  local found = { name = name, class = class, params = {} }
  for _, line in ipairs(block) do
    found.params[#found.params + 1] = read_param(line)
    read_permit(line, found)
  end
  local declared = {}
  for i, param in ipairs(found.params) do
    declared[i] = param.name
  end
  found.said, found.takes = table.concat(declared, ", "), arguments
  return found
end

--- What a file of lib/meta declares.
---@param name string
---@return { name: string, functions: meta.Function[], values: string[] }
function meta.declared(name)
  local text = read("lib/meta/" .. name .. ".d.lua")
  local module = { name = text:match "^%-%-%-@meta (%S+)\n", functions = {}, values = {} }
  local block, classes, main = {}, {}, text:match "\nreturn ([%w_]+)\n$"
  for line in text:gmatch "[^\n]+" do
    local owner, kind, fn, arguments = line:match "^function ([%w_]+)([.:])([%w_]+)%((.*)%) end$"
    local object = line:match "^local ([%w_]+) = {}$"
    if line:match "^%-%-%-" then
      block[#block + 1] = line
    elseif object then
      for _, said in ipairs(block) do
        classes[object] = said:match "^%-%-%-@class ([%w_.]+)" or classes[object]
        local field = object == main and said:match "^%-%-%-@field ([%w_]+)"
        module.values[#module.values + 1] = field or nil
      end
    elseif owner then
      assert((kind == ".") == (owner == main), line)
      table.insert(module.functions, signature(block, fn, kind == ":" and assert(classes[owner], line) or nil, arguments))
    else
      assert(line:match "^return [%w_]+$", "not understood: " .. line)
    end
    block = line:match "^%-%-%-" and block or {}
  end
  return module
end

--- The name of a class's metatable in the registry.
---@param class string  "runbook.core.task.task"
---@return string  "runbook.task"
function meta.metatable_name(class)
  local name = class:gsub("^runbook%.core%.", "runbook.")
  local first, second = name:match "^runbook%.([%w_]+)%.([%w_]+)$"
  return first ~= nil and first == second and "runbook." .. first or name
end

return meta
