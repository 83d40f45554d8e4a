--- Numbers, times and names as people write them.

local units = require "runbook.units"

local human = {}

local SIZES = { "bytes", "kB", "MB", "GB", "TB", "PB", "EB" }

-- Three digits, whatever the size.
local function three_digits(value, power)
  if power == 0 then
    return "%.0f"
  end
  return value < 9.995 and "%.2f" or value < 99.95 and "%.1f" or "%.0f"
end

--- "4.40 GB"; decimal, as disks are sold and rates are given.
---@param bytes number
---@return string
function human.bytes(bytes)
  return bytes == 1 and "1 byte" or units.scaled(bytes, SIZES, three_digits)
end

--- "1.06 of 2.00 TB": two sizes in the unit of the larger.
---@param done number
---@param total number
---@return string
function human.bytes_of(done, total)
  local number, unit = human.bytes(total):match("^(%S+) (%S+)$")
  local power = 0
  for i, name in ipairs(SIZES) do
    power = name == unit and i - 1 or power
  end
  local decimals = #(number:match("%.(%d+)$") or "")
  return ("%." .. decimals .. "f of %s %s"):format(done / 1000 ^ power, number, unit)
end

human.count = units.count

--- "0.4 s", "12 s", "40 min 12 s", "3 h 12 min", "2 d 3 h"
---@param seconds number
---@return string
function human.duration(seconds)
  if seconds < 0.05 then
    return "0 s"
  elseif seconds < 9.95 then
    return (("%.1f"):format(seconds):gsub("%.0$", "")) .. " s"
  end
  return units.duration(math.max(10, seconds))
end

--- "1 home", "800 homes"
---@param n integer
---@param one string
---@param many? string
---@return string
function human.plural(n, one, many)
  return ("%s %s"):format(human.count(n), n == 1 and one or many or one .. "s")
end

-- "web", "03", ".example" of "web03.example"; nil where there is no number.
local function numbered(name)
  local head, digits, tail = name:match("^(.-)(%d+)(%D*)$")
  if digits and #digits <= 9 then
    return head, digits, tail
  end
end

local function ranges_of(numbers, zeros)
  local format = zeros > 0 and "%0" .. zeros .. "d" or "%d"
  table.sort(numbers)
  local parts, i = {}, 1
  while i <= #numbers do
    local j = i
    while numbers[j + 1] == numbers[j] + 1 do
      j = j + 1
    end
    local first, last = format:format(numbers[i]), format:format(numbers[j])
    parts[#parts + 1] = i == j and first or first .. "-" .. last
    i = j + 1
  end
  return parts
end

--- The first five lines, and how many more there are.
---@param lines string[]
---@param more? string  of what: "homes"
---@return string
function human.first_five(lines, more)
  local shown = table.move(lines, 1, math.min(5, #lines), 1, {})
  if #lines > 5 then
    shown[6] = ("  and %d more%s"):format(#lines - 5, more and " " .. more or "")
  end
  return table.concat(shown, "\n")
end

--- Many names in few letters: "db,web[1-3,7].example".
---@param names string[]
---@return string
function human.fold(names)
  local padded, groups, order = {}, {}, {}
  for _, name in ipairs(names) do
    local head, digits, tail = numbered(name)
    if head and #digits > 1 and digits:sub(1, 1) == "0" then
      padded[head .. "\0" .. tail] = #digits
    end
  end
  for _, name in ipairs(names) do
    local head, digits, tail = numbered(name)
    local zeros = head and padded[head .. "\0" .. tail] == #digits and #digits or 0
    local key = head and ("%s\0%s\0%d"):format(head, tail, zeros) or name
    if not groups[key] then
      groups[key] = { head = head, tail = tail, zeros = zeros, name = name }
      order[#order + 1] = groups[key]
    end
    table.insert(groups[key], tonumber(digits))
  end
  for i, group in ipairs(order) do
    if not group.head or #group == 1 then
      order[i] = group.name
    else
      order[i] = ("%s[%s]%s"):format(group.head, table.concat(ranges_of(group, group.zeros), ","), group.tail)
    end
  end
  table.sort(order)
  return table.concat(order, ",")
end

local function wrap_paragraph(paragraph, width, lines)
  local indent = paragraph:match("^%s*") -- what is indented stays so
  local line, empty = indent, true
  for word in paragraph:gmatch("%S+") do
    local longer = empty and line .. word or line .. " " .. word
    if not empty and (utf8.len(longer) or #longer) > width then
      lines[#lines + 1] = line
      longer = indent .. word
    end
    line, empty = longer, false
  end
  lines[#lines + 1] = empty and "" or line
end

--- Break a text into lines of at most `width` columns at its spaces; its own line breaks stay.
---@param text string
---@param width? integer  nil: only at its own
---@return string[]
function human.wrap(text, width)
  local lines = {}
  for paragraph in (text .. "\n"):gmatch("(.-)\n") do
    if width then
      wrap_paragraph(paragraph, width, lines)
    else
      lines[#lines + 1] = paragraph
    end
  end
  while lines[#lines] == "" and #lines > 1 do
    lines[#lines] = nil
  end
  return lines
end

--- A text that was written between [[ ]]: its common indentation goes, and the lines of a paragraph become one.
--- Lines that are indented further stay as they are.
---@param text string
---@return string
function human.paragraphs(text)
  local margin
  for line in text:gmatch("[^\n]+") do
    local indent = line:match("^( *)%S")
    if indent and (not margin or #indent < #margin) then
      margin = indent
    end
  end
  local lines, open = {}, false
  for line in (text:gsub("%s+$", "") .. "\n"):gmatch("(.-)\n") do
    line = line:sub(1, #(margin or "")):match("^ *$") and line:sub(#(margin or "") + 1) or line
    local flows = line ~= "" and not line:match("^%s")
    if flows and open then
      lines[#lines] = lines[#lines] .. " " .. line
    elseif line ~= "" or #lines > 0 then
      lines[#lines + 1] = line
    end
    open = flows
  end
  return table.concat(lines, "\n")
end

--- Rows of a label and a text, the texts below each other:
---
---       what    No space left on device
---       said    rsync: write failed
---
--- A row is { label, text, whole = true when its lines must not be broken (commands, what others said) }.
---@param rows table[]
---@param width integer
---@param indent? integer  default 3
---@return string[] lines
function human.rows(rows, width, indent)
  local label_width = 8
  for _, row in ipairs(rows) do
    label_width = math.max(label_width, #row[1] + 2)
  end
  local margin, lines = (" "):rep(indent or 3), {}
  for _, row in ipairs(rows) do
    local texts = human.wrap(row[2], not row.whole and math.max(20, width - #margin - label_width) or nil)
    for i, text in ipairs(texts) do
      local label = i == 1 and row[1] or ""
      lines[#lines + 1] = margin .. label .. (" "):rep(label_width - #label) .. text
    end
  end
  return lines
end

local function width_of(text)
  return utf8.len(text) or #text
end

-- The widest column gives way until all fit; none gets narrower than its longest word could be read in.
local LEAST = 10

local function fit(widths, room)
  local sum = 0
  for _, w in ipairs(widths) do
    sum = sum + w + 2
  end
  while sum - 2 > room do
    local widest = 1
    for i, w in ipairs(widths) do
      widest = w > widths[widest] and i or widest
    end
    if widths[widest] <= LEAST then
      return
    end
    widths[widest], sum = widths[widest] - 1, sum - 1
  end
end

local function split(word, width)
  local parts = {}
  while width_of(word) > width do
    local at = (utf8.offset(word, width + 1) or width + 1) - 1
    parts[#parts + 1], word = word:sub(1, at), word:sub(at + 1)
  end
  parts[#parts + 1] = word
  return parts
end

local function cell_lines(text, width)
  local lines = {}
  for _, line in ipairs(human.wrap(text, width)) do
    local parts = split(line, width)
    table.move(parts, 1, #parts, #lines + 1, lines)
  end
  return lines
end

--- A table with a head, broken into columns that fit.
---@param columns string[]
---@param rows any[][]  strings and numbers
---@param width integer
---@param indent? integer  default 3
---@return string[] lines
function human.table(columns, rows, width, indent)
  local margin, widths, texts, lines = (" "):rep(indent or 3), {}, { columns }, {}
  for i, row in ipairs(rows) do
    texts[i + 1] = {}
    for j = 1, #columns do
      texts[i + 1][j] = math.type(row[j]) == "integer" and human.count(row[j]) or tostring(row[j] == nil and "" or row[j])
    end
  end
  for j in ipairs(columns) do
    widths[j] = 0
    for _, row in ipairs(texts) do
      widths[j] = math.max(widths[j], width_of(row[j]))
    end
  end
  fit(widths, width - #margin)
  for _, row in ipairs(texts) do
    local cells, height = {}, 1
    for j, text in ipairs(row) do
      cells[j] = cell_lines(text, widths[j])
      height = math.max(height, #cells[j])
    end
    for k = 1, height do
      local words = {}
      for j, cell in ipairs(cells) do
        words[j] = (cell[k] or "") .. (" "):rep(widths[j] - width_of(cell[k] or ""))
      end
      lines[#lines + 1] = (margin .. table.concat(words, "  ")):gsub("%s+$", "")
    end
  end
  return lines
end

return human
