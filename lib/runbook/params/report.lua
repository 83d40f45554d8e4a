--- Parameters as people read them: what is wrong in a file, and an empty file to fill in.

local errors = require "runbook.errors"
local types = require "runbook.types"
local yaml = require "runbook.yaml"

local report = {}

local PATH_WIDTH = 20

-- In the order of the lines; what is missing has none and comes last, as declared.
local function by_line(a, b)
  local x, y = a.line or math.huge, b.line or math.huge
  if x ~= y then
    return x < y
  end
  return a.number < b.number
end

-- Problems under the file they stand in; what is missing everywhere is put to the first file.
local function grouped(problems, files)
  local groups, order = {}, {}
  for number, problem in ipairs(problems) do
    problem.number = number
  end
  for _, in_files in ipairs { true, false } do
    for _, problem in ipairs(problems) do
      local head = problem.file or problem.label or files[1] or "parameters"
      if (head ~= problem.label) == in_files then
        order[#order + 1] = groups[head] == nil and head or nil
        groups[head] = groups[head] or {}
        table.insert(groups[head], problem)
      end
    end
  end
  return groups, order
end

local function line_text(problem, lines, width)
  local place = (" "):rep(lines)
  if problem.line then
    place = ("line %-" .. (lines - 5) .. "d"):format(problem.line)
  end
  local gap = lines > 0 and "  " or ""
  local path = problem.path .. (" "):rep(problem.path == "" and 0 or width - #problem.path)
  return ("  %s%s%s%s"):format(place, gap, path, problem.message)
end

local function group_text(head, problems)
  table.sort(problems, by_line)
  local lines, width = 0, PATH_WIDTH
  for _, problem in ipairs(problems) do
    lines = math.max(lines, problem.line and #("line " .. problem.line) or 0)
    width = math.max(width, #problem.path + 2)
  end
  local text = { ("%s: %d thing%s to fix"):format(head, #problems, #problems == 1 and "" or "s") }
  for _, problem in ipairs(problems) do
    text[#text + 1] = line_text(problem, lines, width)
  end
  return table.concat(text, "\n")
end

-- How the first thing that is missing is given: as a line of the file, or on the command line, which knows no items of lists.
local function how_to_give(problems, files)
  local first, n = nil, 0
  for _, problem in ipairs(problems) do
    n = n + (problem.missing and 1 or 0)
    first = first or problem.missing and problem or nil
  end
  if first == nil then
    return nil
  end
  local above, name = first.path:match "^(.*)%.([^.]+)$"
  local file = first.file or files[#files] or "a file for --params"
  local text = ("write `%s: ...`%s in %s"):format(name or first.path, above and (" below `%s`"):format(above) or "", file)
  if not first.path:find("[", 1, true) then
    text = ("%s, or add -p %s=..."):format(text, first.path)
  end
  return text .. (n > 1 and "; the others likewise" or "")
end

--- Raise one error, kind `usage`, that lists all problems.
---@param problems { path: string, message: string, file?: string, line?: integer, label?: string, missing?: boolean }[]
---@param files string[]
function report.raise(problems, files)
  local groups, order = grouped(problems, files)
  local texts = {}
  for i, head in ipairs(order) do
    texts[i] = group_text(head, groups[head])
  end
  errors.raise({ kind = "usage", code = "EPARAMS", message = table.concat(texts, "\n"), problems = problems,
    hint = how_to_give(problems, files) }, 3)
end

local function indented(text, prefix)
  return prefix .. text:gsub("\n$", ""):gsub("\n", "\n" .. prefix)
end

local function describe(item)
  local type_help = types.find(item[2]).help
  if item.choices then
    local words = {}
    for i, choice in ipairs(item.choices) do
      words[i] = tostring(choice)
    end
    type_help = "one of " .. table.concat(words, ", ")
  end
  local help = item[3]:gsub("\n%s*", "\n# ")
  return help == type_help and "# " .. help or ("# %s\n#   %s"):format(help, type_help)
end

local function entry(item)
  local name = item[1]
  if item.default ~= nil then
    local default = item.default
    if item[2] == "list" then
      default = yaml.array(table.move(default, 1, #default, 1, {}))
    end
    return indented(yaml.encode { [name] = default }, "# ")
  elseif item.optional then
    return ("# %s:"):format(name)
  end
  local lines = { ("%s:%s# required"):format(name, (" "):rep(math.max(1, 30 - #name))) }
  for _, line in ipairs(types.find(item[2]).example or {}) do
    lines[#lines + 1] = "#  " .. line
  end
  return table.concat(lines, "\n")
end

--- A parameter file to fill in: help as comments, what is required open, the rest commented out.
---@param declaration table[]
---@param name string  of the runbook: "temple" for temple.lua
---@return string yaml
function report.template(declaration, name)
  local parts = { ("# %s.yaml: parameters of %s.lua. Fill in what is required, then: runbook plan %s.lua\n"):format(name, name, name) }
  for _, item in ipairs(declaration) do
    parts[#parts + 1] = ("%s\n%s\n"):format(describe(item), entry(item))
  end
  return table.concat(parts, "\n")
end

return report
