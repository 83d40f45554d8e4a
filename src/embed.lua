-- embed.lua - writes the generated C of the build.
--
--     lua5.4 embed.lua sources OUT FILE...    the files as a table of bytes; Lua is checked for syntax
--     lua5.4 embed.lua modules OUT FILE...    the luaopen functions of src/lua/*.c
--
-- The same tree always gives the same bytes. Sources stay as they are, and their chunk name is their
-- path: a traceback names the line somebody can open.

local function read(path)
  local file <close> = assert(io.open(path, "rb"))
  return assert(file:read("a"))
end

local function write(path, text)
  local file <close> = assert(io.open(path, "wb"))
  assert(file:write(text))
end

--- The name a file is found by: a module's for Lua in lib/, else its path.
local function name_of(path)
  local inside = path:match "^lib/(.+)$"
  if not inside then
    return path
  end
  local module = inside:match "^(.+)%.lua$"
  if not module then
    return inside
  end
  return (module:gsub("/init$", ""):gsub("/", "."))
end

-- { bytes } and not a string literal: ISO C promises only 4095 characters for a literal.
local function byte_list(bytes)
  local lines = {}
  for at = 1, #bytes, 4096 do
    lines[#lines + 1] = bytes:sub(at, at + 4095):gsub(".", function(c)
      return c:byte() .. ","
    end)
  end
  return table.concat(lines, "\n")
end

local function sources(paths)
  local entries = {}
  for i, path in ipairs(paths) do
    local name, file = path:match "^([%w-]+)=(.+)$" -- bytes that are not found by their path
    entries[i] = { name = name or name_of(path), chunk = "@" .. (file or path), bytes = read(file or path) }
  end
  entries[#entries + 1] = {
    name = "argparse",
    chunk = "@argparse.lua",
    bytes = read(assert(package.searchpath("argparse", package.path))),
  }
  table.sort(entries, function(a, b) return a.name < b.name end)

  local text = { '#include "embedded.h"\n' }
  local rows = {}
  for i, entry in ipairs(entries) do
    assert(i == 1 or entries[i - 1].name ~= entry.name, "two files are called " .. entry.name)
    if entry.chunk:find "%.lua$" then
      assert(load(entry.bytes, entry.chunk, "t"))
    end
    text[#text + 1] = ("static const unsigned char bytes_%d[] = {%s0};\n"):format(i, byte_list(entry.bytes))
    rows[i] = ("\t{ %q, %q, bytes_%d, sizeof bytes_%d - 1 },\n"):format(entry.name, entry.chunk, i, i)
  end
  text[#text + 1] = "const struct embedded embedded_files[] = {\n" .. table.concat(rows) .. "};\n"
  text[#text + 1] = "const size_t embedded_count = sizeof embedded_files / sizeof *embedded_files;\n"
  return table.concat(text, "\n")
end

local function modules(paths)
  table.sort(paths)
  local declarations, rows = {}, {}
  for i, path in ipairs(paths) do
    local name = assert(path:match "([%w_]+)%.c$", path)
    declarations[i] = ("int luaopen_runbook_core_%s(lua_State *L);\n"):format(name)
    rows[i] = ('\t{ "runbook.core.%s", luaopen_runbook_core_%s },\n'):format(name, name)
  end
  return '#include "modules.h"\n\n' .. table.concat(declarations)
    .. "\nconst luaL_Reg runbook_core_modules[] = {\n" .. table.concat(rows) .. "\t{ NULL, NULL }\n};\n"
end

local what, out = arg[1], arg[2]
local generate = assert(({ sources = sources, modules = modules })[what], "sources or modules?")
write(out, generate(table.move(arg, 3, #arg, 1, {})))
