--- What the sources say of themselves: the comment a file opens with, and the one above each public function.

local docstrings = {}

---@class runbook.docs.Function
---@field name string        "place:run", "rb.step"
---@field parameters string?  "argv, opts"; nil: a value, no function
---@field text string
---@field params table[]     { name, type, help }
---@field returns table[]    { type, help }
---@field async boolean

local function is_comment(line)
  return line:match("^%s*%-%-%-%s?(.*)$")
end

-- A type ends at the first two spaces; with one space only when it is a single word.
local function type_and_help(text)
  local kind, help = text:match("^(.-)%s%s+(.*)$")
  if not kind then
    kind, help = text:match("^(fun%b()[^%s]*)%s*(.*)$")
  end
  if not kind then
    kind, help = text:match("^(%b{}%??)%s*(.*)$")
  end
  if not kind then
    kind, help = text:match("^(%S+)%s*(.*)$")
  end
  return kind or text, help or ""
end

local tags = {}

function tags.param(doc, rest)
  local name, after = rest:match("^(%S+)%s+(.*)$")
  if name then
    local kind, help = type_and_help(after)
    doc.params[#doc.params + 1] = { name = name, type = kind, help = help }
  end
end

tags["return"] = function(doc, rest)
  local kind, help = type_and_help(rest)
  doc.returns[#doc.returns + 1] = { type = kind, help = help }
end

function tags.async(doc)
  doc.async = true
end

local function parse_comment(lines)
  local doc, text = { params = {}, returns = {}, async = false }, {}
  for _, line in ipairs(lines) do
    local tag, rest = line:match("^@(%a+)%s*(.*)$")
    if tag then
      if tags[tag] then
        tags[tag](doc, rest)
      end
    elseif line:match("^Permit:") then
      doc.permit = line:match("^Permit:%s*(%S+)")
    else
      text[#text + 1] = line
    end
  end
  doc.text = table.concat(text, "\n"):gsub("%s+$", "")
  return doc
end

-- `function a.b(c)` and `a.b = verb {`, `a.b = function(c)`: what a module gives away.
local function declared(line)
  local name, parameters = line:match("^%s*function%s+([%w_.:]+)%s*%((.-)%)")
  if name and name:find("[.:]") then
    return name, parameters
  end
  name = line:match("^([%w_]+%.[%w_.]+)%s*=%s*")
  if name then
    return name, line:match("=%s*function%s*%((.-)%)")
  end
end

--- Read a source.
---@param source string
---@return { text: string, functions: runbook.docs.Function[] }
function docstrings.parse(source)
  local doc, comment, first = { text = "", functions = {} }, {}, true
  for line in (source .. "\n"):gmatch("([^\n]*)\n") do
    local text = is_comment(line)
    if text then
      comment[#comment + 1] = text
    else
      if first and #comment > 0 then
        doc.text = parse_comment(comment).text
      end
      first = false
      local name, parameters = declared(line)
      if name and #comment > 0 then
        local one = parse_comment(comment)
        one.name, one.parameters = name, parameters
        if not one.parameters and #one.params + #one.returns > 0 then
          local names = {}
          for i, p in ipairs(one.params) do
            names[i] = p.name:gsub("%?$", "")
          end
          one.parameters = table.concat(names, ", ")
        end
        doc.functions[#doc.functions + 1] = one
      end
      comment = {}
    end
  end
  return doc
end

return docstrings
