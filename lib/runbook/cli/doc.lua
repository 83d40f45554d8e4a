--- `runbook doc [SUBJECT]`: pages from the docstrings of the libraries, the types, and the procedures.

local embed = require "runbook.core.embed"
local errors = require "runbook.errors"
local human = require "runbook.human"
local output = require "runbook.output"

local doc = {}

doc.example = [[
runbook doc                                      what there is
runbook doc runbook                              the language
runbook doc sync | less                          a library
runbook doc types                                what parameters may be
runbook doc nfs-move                             a procedure]]

-- In the order somebody meets them; `runbook doc NAME` shows any other library, too.
doc.LIBRARIES = { "runbook", "runbook.task", "runbook.here", "runbook.place", "runbook.place.dir", "runbook.place.files",
  "runbook.place.command", "runbook.ssh", "runbook.kube", "runbook.kube.cluster", "runbook.kube.reads", "runbook.kube.watch",
  "runbook.kube.changes", "runbook.kube.removal", "runbook.kube.wait", "runbook.kube.events", "runbook.kube.logs", "runbook.kube.access",
  "runbook.kube.lease", "runbook.sync", "runbook.secret", "runbook.json", "runbook.yaml", "runbook.sqlite",
  "runbook.http", "runbook.dns", "runbook.units" }

function doc.declare(parser)
  parser:argument "subject" :argname "SUBJECT" :args "?" :description "A library, a procedure, or `types`; without: what there is."
  parser:option "--man" :argname "PAGE" :choices { "runbook.1", "runbook-lua.3" } :description "Write a manual page, in roff."
end

--- The documentation of a library; nil when there is none of that name.
---@param name string
---@return table?
function doc.library(name)
  local source = embed.source(name)
  return source and require("runbook.docstrings").parse(source)
end

--- Libraries meant for runbooks that are part of this binary.
---@return string[]
function doc.libraries()
  local list = {}
  for _, name in ipairs(doc.LIBRARIES) do
    if embed.source(name) then
      list[#list + 1] = name
    end
  end
  return list
end

local function first_sentence(text)
  return ((text:match("^(.-%.)%s") or text):gsub("%s+", " "))
end

local function contents()
  local book = require "runbook.book"
  local lines = { "procedures (`runbook doc nfs-move`, `runbook view nfs-move`)" }
  for _, name in ipairs(book.built_in()) do
    lines[#lines + 1] = ("  %-22s %s"):format(name, book.load(name, { placeholders = true }).title)
  end
  lines[#lines + 1] = "\nlibraries (`runbook doc sync`)"
  for _, name in ipairs(doc.libraries()) do
    lines[#lines + 1] = ("  %-22s %s"):format(name, first_sentence(doc.library(name).text))
  end
  lines[#lines + 1] = "\n  types                  what a parameter may be\n\nman runbook has exit codes, files and signals."
  return table.concat(lines, "\n") .. "\n"
end

--- "rb.each(items, opts, fn)"
---@param one runbook.docs.Function
---@return string
function doc.signature(one)
  return one.name .. (one.parameters and ("(%s)"):format(one.parameters) or "")
end

---@return table[] rows  for `human.rows`
function doc.value_rows(one)
  local rows = {}
  for _, p in ipairs(one.params) do
    rows[#rows + 1] = { p.name, p.type .. (p.help ~= "" and "  " .. p.help or "") }
  end
  for _, r in ipairs(one.returns) do
    rows[#rows + 1] = { "returns", r.type .. (r.help ~= "" and "  " .. r.help or "") }
  end
  return rows
end

local function indented(text, margin)
  return (margin .. text:gsub("\n", "\n" .. margin)):gsub("\n +\n", "\n\n")
end

--- A library as text.
---@param name string
---@param library table
---@param width integer
---@return string
function doc.text(name, library, width)
  local parts = { name .. "\n\n" .. indented(library.text, "  ") .. "\n" }
  for _, one in ipairs(library.functions) do
    local lines = { "\n" .. doc.signature(one) .. (one.async and "      waits" or "") }
    if one.text ~= "" then
      lines[#lines + 1] = indented(one.text, "    ")
    end
    local rows = human.rows(doc.value_rows(one), width, 6)
    table.move(rows, 1, #rows, #lines + 1, lines)
    parts[#parts + 1] = table.concat(lines, "\n") .. "\n"
  end
  return table.concat(parts)
end

local function types_text(width)
  local types = require "runbook.types"
  local rows = {}
  for _, name in ipairs(types.names()) do
    local one = types.find(name)
    rows[#rows + 1] = { name, one.help or "" }
    for _, line in ipairs(one.example or {}) do
      rows[#rows + 1] = { "", "  " .. line, whole = true }
    end
  end
  return "What a parameter may be: rb.params { { name, type, help } }\n\n" .. table.concat(human.rows(rows, width, 2), "\n") .. "\n"
end

local function page(subject)
  local width = output.width "stdout"
  if subject == "types" then
    return types_text(width)
  end
  for _, name in ipairs { "runbook." .. subject, subject } do
    local library = doc.library(name)
    if library then
      return doc.text(name, library, width)
    end
  end
  local procedures = require("runbook.book").built_in()
  for _, name in ipairs(procedures) do
    if name == subject:gsub("%.lua$", "") then
      local view = require "runbook.cli.view"
      return view.text(require("runbook.book").load(name, { placeholders = true }), { width = width })
    end
  end
  local known = { "types", table.unpack(procedures) }
  for _, name in ipairs(doc.libraries()) do
    known[#known + 1] = name:gsub("^runbook%.", "")
  end
  local near = require "runbook.nearest"(subject, known)
  errors.raise {
    kind = "missing", hint = "`runbook doc` lists what there is",
    message = ("nothing is called `%s`%s"):format(subject, near and "; did you mean `" .. near .. "`?" or ""),
  }
end

function doc.main(args)
  if args.man then
    output.result(require("runbook.manual").page(args.man))
  elseif args.subject then
    output.result(page(args.subject))
  else
    output.result(contents())
  end
  return 0
end

return doc
