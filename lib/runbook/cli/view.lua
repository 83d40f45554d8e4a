--- `runbook view FILE`: a runbook as a document: what it is, its parameters, its steps and what was written about them.

local human = require "runbook.human"
local output = require "runbook.output"
local visible = require "runbook.visible"

local view = {}

view.example = [[
runbook view nfs-move                            a procedure that is built in
runbook view temple.lua --source | less          with what each step does, in Lua]]

function view.declare(parser)
  parser:argument "file" :argname "FILE" :description "A runbook, or the name of a procedure. Needs no values."
  parser:flag "--source" :description "With the Lua of each step."
  parser:flag "--json" :description "Parameters and steps as JSON, one object a line."
end

local function parameter_rows(declaration)
  local rows = {}
  for _, one in ipairs(declaration) do
    local kind = one.choices and table.concat(one.choices, ", ") or one[2]
    local need = one.optional and "optional" or "required"
    if type(one.default) == "table" then
      need = next(one.default) == nil and "default none" or "default " .. require("runbook.json").encode(one.default)
    elseif one.default ~= nil then
      need = "default " .. tostring(one.default)
    end
    rows[#rows + 1] = { one[1], ("%s (%s; %s)"):format(one[3], kind, need) }
  end
  return rows
end

local function lines_of(source)
  local lines = {}
  for line in (source .. "\n"):gmatch("([^\n]*)\n") do
    lines[#lines + 1] = line
  end
  return lines
end

-- The comment right above a declaration: the author's words about it.
local function comment_above(lines, at)
  local comment = {}
  for i = at - 1, 1, -1 do
    local text = lines[i]:match("^%s*%-%-+%s?(.*)$")
    if not text then
      break
    end
    table.insert(comment, 1, text)
  end
  return table.concat(comment, "\n")
end

local NOTES = {
  { "guard", "looks first; stops when something does not hold" }, { "disrupts", "asks before it" },
  { "check", "is skipped when it is so already" }, { "verify", "looks afterwards" }, { "when", "only when it applies" },
  { "undo", "has an undo of its own" }, { "undo_guard", "looks before it is undone" },
  { "again", "may be run after half of itself" },
}

local function notes(item)
  local list, o = {}, item.options or {}
  for _, note in ipairs(NOTES) do
    if o[note[1]] ~= nil then
      local text = note[2]
      if note[1] == "disrupts" and type(o.disrupts) == "string" then
        text = "asks before it: " .. o.disrupts
      end
      list[#list + 1] = text
    end
  end
  for _, name in ipairs { "fresh", "timeout" } do
    if o[name] ~= nil then
      list[#list + 1] = ("%s %s"):format(name == "fresh" and "done again when older than" or "at most", tostring(o[name]))
    end
  end
  if item.kind == "manual" then
    table.insert(list, 1, "done by a person")
  elseif item.kind == "pause" then
    table.insert(list, 1, "stops here; `runbook resume` goes on")
  elseif item.kind == "checks" then
    table.insert(list, 1, "looks, at every start and every resume")
  end
  return list
end

local function add_text(lines, text, indent, width)
  for _, line in ipairs(human.wrap(text, width - indent)) do
    lines[#lines + 1] = line == "" and "" or (" "):rep(indent) .. line
  end
end

-- The lines of a declaration, up to the bracket that closes its call.
local function source_of(item, source_lines)
  local depth, last = 0, item.line
  for _, t in ipairs(require("runbook.check").tokens(table.concat(source_lines, "\n", item.line))) do
    if t.text == "(" then
      depth = depth + 1
    elseif t.text == ")" then
      depth = depth - 1
      if depth == 0 then
        last = item.line + t.line - 1
        break
      end
    end
  end
  local lines = {}
  for i = item.line, last do
    lines[#lines + 1] = "       | " .. source_lines[i]
  end
  return lines
end

local function step_lines(item, number, widest, sources, o)
  local source_lines = sources(item.file)
  local lines = { ("  %2d %-" .. widest .. "s  %s"):format(number, item.id, item.title) }
  local comment = comment_above(source_lines, item.line)
  if comment ~= "" then
    add_text(lines, comment, 7, o.width)
  end
  local text = item.options and item.options.text
  if type(text) == "string" then
    add_text(lines, human.paragraphs(text), 7, o.width)
  end
  for _, note in ipairs(notes(item)) do
    add_text(lines, "- " .. note, 7, o.width)
  end
  for _, one in ipairs(item.checks or {}) do
    add_text(lines, ". " .. tostring(one[1]), 9, o.width)
  end
  if o.source then
    local body = source_of(item, source_lines)
    table.move(body, 1, #body, #lines + 1, lines)
  end
  lines[#lines + 1] = ""
  return lines
end

--- The document of a book that was loaded with placeholders.
---@param book runbook.Book
---@param o { width: integer, source: boolean? }
---@return string
function view.text(book, o)
  local lines, number, widest = {}, 0, 0
  local cache = {}
  local function sources(file)
    cache[file] = cache[file] or lines_of(book.sources[file] or "")
    return cache[file]
  end
  lines[1] = book.header:gsub("%s+$", "")
  lines[2] = ""
  if #book.declaration > 0 then
    lines[#lines + 1] = "Parameters"
    lines[#lines + 1] = ""
    local rows = human.rows(parameter_rows(book.declaration), o.width, 2)
    table.move(rows, 1, #rows, #lines + 1, lines)
    lines[#lines + 1] = ""
  end
  for _, item in ipairs(book.items) do
    widest = math.max(widest, item.id and #item.id or 0)
  end
  for _, item in ipairs(book.items) do
    if item.kind == "section" then
      lines[#lines + 1] = item.title
      lines[#lines + 1] = ("-"):rep(visible.width(item.title))
      lines[#lines + 1] = ""
    else
      number = number + 1
      local more = step_lines(item, number, widest, sources, o)
      table.move(more, 1, #more, #lines + 1, lines)
    end
  end
  return visible.text(table.concat(lines, "\n")):gsub("%s+$", "") .. "\n"
end

local function write_records(book)
  output.version()
  output.record { type = "runbook", path = book.path, title = book.title, header = book.header }
  for _, one in ipairs(book.declaration) do
    output.record { type = "parameter", name = one[1], of = one[2], help = one[3], default = one.default, choices = one.choices,
      required = one.default == nil and not one.optional }
  end
  for _, item in ipairs(book.items) do
    output.record { type = item.kind, id = item.id, title = item.title, file = item.file, line = item.line,
      notes = item.id and require("runbook.json").array(notes(item)) or nil }
  end
end

function view.main(args)
  local book = require("runbook.book").load(args.file, { placeholders = true })
  if args.json then
    write_records(book)
  else
    output.result(view.text(book, { width = output.width "stdout", source = args.source }))
  end
  return 0
end

return view
