--- What can be seen in a runbook without running it.
---
--- Loading it with placeholders finds what the loader refuses: syntax, unknown globals, ids used twice, effects at load.
--- Its tokens show the rest: steps that are declared only sometimes, shell scripts put together from pieces, calls that the
--- sandbox does not have, parameters nobody reads. A step declared by a helper function of the author's is not followed.

local errors = require "runbook.errors"

local check = {}

---@class runbook.Finding
---@field file string
---@field line integer?
---@field text string
---@field fatal boolean?  it cannot run like this

local KEYWORDS = {}
for word in ([[and break do else elseif end false for function goto if in local nil not or repeat return then true until while]])
  :gmatch("%a+") do
  KEYWORDS[word] = true
end

local function count_lines(text)
  return select(2, text:gsub("\n", ""))
end

-- The end of a quoted string that starts at `at`.
local function quoted_end(source, at)
  local quote, i = source:sub(at, at), at + 1
  while i <= #source do
    local c = source:sub(i, i)
    if c == "\\" then
      i = i + 1
    elseif c == quote then
      return i
    end
    i = i + 1
  end
  return #source
end

local function long_bracket_end(source, at)
  local level = source:match("^%[(=*)%[", at)
  if level then
    local _, stop = source:find("]" .. level .. "]", at, true)
    return stop or #source
  end
end

-- One token from `at`: kind (comment, string, name, keyword, number, mark), its end.
local function token_at(source, at)
  if source:find("^%-%-", at) then
    local stop = long_bracket_end(source, at + 2)
    return "comment", stop or (source:find("\n", at, true) or #source + 1) - 1
  end
  local c = source:sub(at, at)
  if c == '"' or c == "'" then
    return "string", quoted_end(source, at)
  end
  local stop = c == "[" and long_bracket_end(source, at)
  if stop then
    return "string", stop
  end
  local name = source:match("^[%a_][%w_]*", at)
  if name then
    return KEYWORDS[name] and "keyword" or "name", at + #name - 1
  end
  local number = source:match("^0[xX][%x.]*[pP]?[+-]?%x*", at) or source:match("^%d[%w.]*[+-]?%w*", at)
  if number then
    return "number", at + #number - 1
  end
  for _, mark in ipairs { "...", "..", "::", "==", "~=", "<=", ">=", "//", "<<", ">>" } do
    if source:sub(at, at + #mark - 1) == mark then
      return "mark", at + #mark - 1
    end
  end
  return "mark", at
end

--- The tokens of a Lua source, without comments and white space.
---@param source string
---@return { kind: string, text: string, line: integer }[]
function check.tokens(source)
  local tokens, at, line = {}, 1, 1
  while true do
    local from, to = source:find("^%s+", at)
    if from then
      line = line + count_lines(source:sub(from, to))
      at = to + 1
    end
    if at > #source then
      return tokens
    end
    local kind, stop = token_at(source, at)
    local text = source:sub(at, stop)
    if kind ~= "comment" then
      tokens[#tokens + 1] = { kind = kind, text = text, line = line }
    end
    line = line + count_lines(text)
    at = stop + 1
  end
end

local DECLARES = { step = true, checks = true, manual = true, pause = true }

-- local rb = require "runbook"; local p = rb.params {…}: the names the language and the parameters go by.
local function names_in(tokens)
  local language, parameters = {}, {}
  local function text(i)
    return tokens[i] and tokens[i].text or ""
  end
  for i, t in ipairs(tokens) do
    if t.text == "local" and text(i + 2) == "=" then
      local value = text(i + 4) == "(" and text(i + 5) or text(i + 4)
      if text(i + 3) == "require" and value:match("^[\"']runbook[\"']$") then
        language[text(i + 1)] = true
      elseif language[text(i + 3)] and text(i + 4) == "." and text(i + 5) == "params" then
        parameters[text(i + 1)] = true
      end
    end
  end
  return language, parameters
end

local OPENS = { ["function"] = "function", ["if"] = "if", ["for"] = "loop", ["while"] = "loop", ["repeat"] = "loop" }

-- Keeps the stack of open blocks. The `do` of a `for` or `while` opens no further one.
local function follow_blocks(blocks, word)
  local top = blocks[#blocks]
  if OPENS[word] then
    blocks[#blocks + 1] = { kind = OPENS[word], wants_do = word == "for" or word == "while" }
  elseif word == "do" and top and top.wants_do then
    top.wants_do = false
  elseif word == "do" then
    blocks[#blocks + 1] = { kind = "do" }
  elseif word == "end" or word == "until" then
    blocks[#blocks] = nil
  end
end

local INSIDE = {
  ["if"] = "%s.%s inside an `if`: which steps there are would depend on values; use the option `when`",
  loop = "%s.%s inside a loop: which steps there are would depend on values; use rb.each in one step",
}

-- Is tokens[i] the name `rb` of a call rb.step(…)?
local function declares(tokens, i, language)
  local t, dot, method = tokens[i], tokens[i + 1], tokens[i + 2]
  return t.kind == "name" and language[t.text] and dot and dot.text == "." and method and DECLARES[method.text]
    and not (i > 1 and tokens[i - 1].text == ".")
end

-- Steps inside an `if` or a loop exist for some parameters only: `view` would show another runbook than the one that runs.
local function conditional_steps(tokens, language, add)
  local blocks = {}
  for i, t in ipairs(tokens) do
    if t.kind == "keyword" then
      follow_blocks(blocks, t.text)
    elseif declares(tokens, i, language) then
      for _, block in ipairs(blocks) do
        if INSIDE[block.kind] then
          add(t.line, INSIDE[block.kind]:format(t.text, tokens[i + 2].text))
          break
        end
      end
    end
  end
end

-- place:sh("rm " .. path): the script is a literal, values come as $1…; a space in `path` would be a second word.
local function built_scripts(tokens, add)
  for i, t in ipairs(tokens) do
    local method, open = tokens[i + 1], tokens[i + 2]
    if t.text == ":" and method and (method.text == "sh" or method.text == "query_sh") and open and open.text == "(" then
      local depth, j = 1, i + 3
      while tokens[j] and depth > 0 and not (depth == 1 and tokens[j].text == ",") do
        local text = tokens[j].text
        if text == "(" or text == "{" then
          depth = depth + 1
        elseif text == ")" or text == "}" then
          depth = depth - 1
        elseif text == ".." or text == "format" or text == "gsub" or text == "concat" then
          add(tokens[j].line, (":%s is given a script put together from pieces; write it whole and hand values over as $1, $2: "
            .. ":%s([[rm -- \"$1\"]], path)"):format(method.text, method.text))
          break
        end
        j = j + 1
      end
    end
  end
end

local NOT_THERE = { execute = true, exit = true, remove = true, rename = true, tmpname = true, setlocale = true }

local function withheld_calls(tokens, add)
  for i, t in ipairs(tokens) do
    local dot, name = tokens[i + 1], tokens[i + 2]
    if t.kind == "name" and t.text == "os" and dot and dot.text == "." and name and NOT_THERE[name.text]
      and (i == 1 or tokens[i - 1].text ~= ".") then
      add(t.line, ("os.%s is not for runbooks; places run, write and remove"):format(name.text))
    end
  end
end

-- A parameter that is asked for and never read is a promise not kept.
local function unread_parameters(tokens, parameters, declaration, add)
  local read, whole = {}, false
  for i, t in ipairs(tokens) do
    if t.kind == "name" and parameters[t.text] and (i == 1 or tokens[i - 1].text ~= "." and tokens[i - 1].text ~= "local") then
      local dot, name = tokens[i + 1], tokens[i + 2]
      if dot and dot.text == "." and name then
        read[name.text] = true
      else
        whole = true -- handed on, or indexed by a value
      end
    end
  end
  if whole or next(parameters) == nil then
    return
  end
  for _, one in ipairs(declaration) do
    if not read[one[1]] then
      add(nil, ("parameter `%s` is never read"):format(one[1]))
    end
  end
end

--- Findings of a source, by its tokens alone.
---@param source string
---@param file string
---@param declaration? table[]
---@return runbook.Finding[]
function check.source(source, file, declaration)
  local findings = {}
  local function add(line, text)
    findings[#findings + 1] = { file = file, line = line, text = text }
  end
  local tokens = check.tokens(source)
  local language, parameters = names_in(tokens)
  conditional_steps(tokens, language, add)
  built_scripts(tokens, add)
  withheld_calls(tokens, add)
  unread_parameters(tokens, parameters, declaration or {}, add)
  table.sort(findings, function(a, b)
    return (a.line or math.huge) < (b.line or math.huge)
  end)
  return findings
end

--- Findings of a runbook file.
---@async
---@param path string
---@return runbook.Finding[]
function check.file(path)
  local book = require "runbook.book"
  local ok, loaded = xpcall(book.load, errors.handler, path, { placeholders = true })
  if not ok then
    if not errors.is(loaded, "usage") then
      error(loaded, 0)
    end
    local file, line
    if loaded.code == "ELOADING" then -- its message speaks of what is called, not of where
      file, line = (require("runbook.failure").place(loaded) or ""):match "^(.*):(%d+)$"
    end
    return { { file = file or path, line = math.tointeger(tonumber(line)), text = loaded.message, fatal = true } }
  end
  local findings = {}
  for file, source in pairs(loaded.sources) do
    local found = check.source(source, file, file == loaded.path and loaded.declaration or nil)
    table.move(found, 1, #found, #findings + 1, findings)
  end
  return findings
end

return check
