--- Text from elsewhere as a terminal may show it: whatever could move the cursor, change a colour or hide is written out.

local visible = {}

-- Code points a terminal obeys, or that change the order in which a line is read.
local function is_control(code)
  return code < 0x20 or code >= 0x7f and code <= 0x9f or code >= 0x202a and code <= 0x202e
    or code >= 0x2066 and code <= 0x2069 or code == 0x2028 or code == 0x2029 or code == 0xfeff
end

local function escape_byte(byte)
  return ("\\x%02x"):format(byte)
end

local function escape(code)
  return code < 0x80 and escape_byte(code) or ("\\u{%x}"):format(code)
end

-- Surrogates and what lies beyond Unicode are as invalid as a stray byte.
local function valid_prefix(text, from)
  local length, bad = utf8.len(text, from)
  return length and #text + 1 or bad
end

--- One line. Tabs become spaces, a final "\r" goes, bytes that are not UTF-8 become `\xff`.
---@param text string
---@param ascii? boolean  the terminal shows nothing but ASCII
---@return string
function visible.line(text, ascii)
  if not text:find("[^\32-\126]") then
    return text
  end
  text = text:gsub("\r$", "")
  local out, column, at = {}, 0, 1
  while at <= #text do
    local stop = valid_prefix(text, at)
    for _, code in utf8.codes(text:sub(at, stop - 1)) do
      local piece
      if code == 9 then
        piece = (" "):rep(8 - column % 8)
      elseif is_control(code) or ascii and code > 126 then
        piece = escape(code)
      else
        piece = utf8.char(code)
      end
      out[#out + 1] = piece
      column = column + visible.width(piece)
    end
    if stop <= #text then
      out[#out + 1] = escape_byte(text:byte(stop))
      column = column + 4
      stop = stop + 1
    end
    at = stop
  end
  return table.concat(out)
end

--- Several lines, each made visible.
---@param text string
---@param ascii? boolean
---@return string
function visible.text(text, ascii)
  if not text:find("[^\32-\126]") then
    return text
  end
  return (text:gsub("[^\n]+", function(line)
    return visible.line(line, ascii)
  end))
end

local WIDE = {
  0x1100, 0x115f, 0x2e80, 0x303e, 0x3041, 0x4dbf, 0x4e00, 0xa4cf, 0xac00, 0xd7a3, 0xf900, 0xfaff, 0xfe30, 0xfe6f,
  0xff00, 0xff60, 0xffe0, 0xffe6, 0x1f300, 0x1f64f, 0x1f900, 0x1f9ff, 0x20000, 0x3fffd,
}
local NARROW = { 0x300, 0x36f, 0x200b, 0x200f, 0x20d0, 0x20ff, 0xfe00, 0xfe0f }

local function within(code, ranges)
  for i = 1, #ranges, 2 do
    if code >= ranges[i] and code <= ranges[i + 1] then
      return true
    end
  end
  return false
end

local function columns(code)
  if code < 0x300 then
    return 1
  end
  return within(code, NARROW) and 0 or within(code, WIDE) and 2 or 1
end

--- The columns a visible text takes.
---@param text string
---@return integer
function visible.width(text)
  if not text:find("[\128-\255]") then
    return #text
  end
  local width = 0
  for _, code in utf8.codes(text, true) do
    width = width + columns(code)
  end
  return width
end

--- The part of a visible text that fits, marked where it was cut.
---@param text string
---@param width integer
---@return string
function visible.cut(text, width)
  if visible.width(text) <= width then
    return text
  end
  local room, used = math.max(0, width - 2), 0
  local out = {}
  for _, code in utf8.codes(text, true) do
    used = used + columns(code)
    if used > room then
      break
    end
    out[#out + 1] = utf8.char(code)
  end
  return table.concat(out) .. (".."):sub(1, math.max(0, width))
end

--- The text with spaces up to a width.
---@param text string
---@param width integer
---@return string
function visible.pad(text, width)
  return text .. (" "):rep(width - visible.width(text))
end

return visible
