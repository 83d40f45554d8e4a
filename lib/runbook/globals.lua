--- Which global names a chunk uses, and where: read from its bytecode, so that nothing has to run to find a typo.
---
--- Format: Lua 5.4, ldump.c and lopcodes.h (the instruction layout is in the reference of the Lua authors' source).

local globals = {}

local OP_GETTABUP, OP_SETTABUP = 11, 15
local TAG_NIL, TAG_FALSE, TAG_TRUE, TAG_NUMBER, TAG_INTEGER, TAG_SHORT, TAG_LONG = 0x00, 0x01, 0x11, 0x13, 0x03, 0x04, 0x14
local HEADER_BYTES = 4 + 1 + 1 + 6 + 3 + 8 + 8 + 1 -- signature … LUAC_NUM, and the count of upvalues

local function reader(bytes)
  local at = HEADER_BYTES + 1
  local r = {}

  function r.byte()
    at = at + 1
    return bytes:byte(at - 1)
  end

  function r.size()
    local x = 0
    while true do
      local b = r.byte()
      x = (x << 7) | (b & 0x7f)
      if b & 0x80 ~= 0 then
        return x
      end
    end
  end

  function r.text()
    local length = r.size()
    if length == 0 then
      return nil
    end
    at = at + length - 1
    return bytes:sub(at - length + 1, at - 1)
  end

  function r.skip(n)
    at = at + n
  end

  function r.instruction()
    local i
    i, at = string.unpack("<I4", bytes, at)
    return i
  end

  return r
end

local function read_constants(r)
  local constants = {}
  for i = 0, r.size() - 1 do
    local tag = r.byte()
    if tag == TAG_NUMBER or tag == TAG_INTEGER then
      r.skip(8)
    elseif tag == TAG_SHORT or tag == TAG_LONG then
      constants[i] = r.text()
    else
      assert(tag == TAG_NIL or tag == TAG_FALSE or tag == TAG_TRUE, "unknown constant in bytecode")
    end
  end
  return constants
end

-- Line of each instruction: steps of one byte, with absolute lines where a step does not fit.
local function read_lines(r, first_line)
  local steps, lines, absolute = {}, {}, {}
  for i = 0, r.size() - 1 do
    steps[i] = r.byte()
  end
  for _ = 1, r.size() do
    local pc = r.size()
    absolute[pc] = r.size()
  end
  local line = first_line
  for pc = 0, #steps do
    if absolute[pc] then
      line = absolute[pc]
    elseif steps[pc] then
      local step = steps[pc]
      line = line + (step < 128 and step or step - 256)
    end
    lines[pc] = line
  end
  return lines
end

local function read_function(r, found)
  r.text() -- source
  local first_line = r.size()
  r.size()
  r.skip(3) -- parameters, vararg, stack
  local code = {}
  for i = 0, r.size() - 1 do
    code[i] = r.instruction()
  end
  local constants = read_constants(r)
  r.skip(3 * r.size()) -- upvalues
  for _ = 1, r.size() do
    read_function(r, found)
  end
  local lines = read_lines(r, first_line)
  for _ = 1, r.size() do -- local variables
    r.text()
    r.size()
    r.size()
  end
  local upvalues = {}
  for i = 0, r.size() - 1 do
    upvalues[i] = r.text()
  end
  for pc = 0, #code do
    local op, a, b, c = code[pc] & 0x7f, code[pc] >> 7 & 0xff, code[pc] >> 16 & 0xff, code[pc] >> 24 & 0xff
    if op == OP_GETTABUP and upvalues[b] == "_ENV" then
      found[#found + 1] = { name = constants[c], line = lines[pc], write = false }
    elseif op == OP_SETTABUP and upvalues[a] == "_ENV" then
      found[#found + 1] = { name = constants[b], line = lines[pc], write = true }
    end
  end
end

--- The uses of globals in a compiled chunk, in order of their lines.
---@param chunk function  from `load`, with its debug information
---@return { name: string, line: integer, write: boolean }[]
function globals.used(chunk)
  local found = {}
  read_function(reader(string.dump(chunk)), found)
  table.sort(found, function(x, y)
    if x.line ~= y.line then
      return x.line < y.line
    end
    return x.name < y.name
  end)
  return found
end

return globals
