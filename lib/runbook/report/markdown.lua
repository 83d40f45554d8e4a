--- A report as Markdown, for a ticket. What is folded stays out where the whole would be longer than a comment may be.

local visible = require "runbook.visible"

local markdown = {}

local MOST = 60000 -- bytes; GitHub takes 65,536 characters in a comment

-- Names and messages are others' words: nothing in them is markup, a mention or a link.
local ENTITY = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;" }

local function plain(text)
  text = text:gsub("[\\`*_%[%]#|~$]", "\\%0"):gsub("[&<>]", ENTITY)
  text = text:gsub("^(%s*)([-+=])", "%1\\%2"):gsub("^(%s*%d+)([.)])%f[%s%z]", "%1\\%2")
  return ((" " .. text):gsub("([^%w_])@", "%1@<!---->"):sub(2)) -- nobody is called
end

-- A span that holds any backticks; in a table a bar would end the cell even there.
local function code_span(text, in_table)
  if text:match "^%s*$" then
    return text
  end
  local longest = 0
  for run in text:gmatch "`+" do
    longest = math.max(longest, #run)
  end
  local fence = ("`"):rep(longest + 1)
  local room = (longest > 0 or text:find "^ " or text:find " $") and " " or ""
  return fence .. room .. (in_table and text:gsub("|", "\\|") or text) .. room .. fence
end

-- Our own sentences name things in backticks.
local function sentence(text, in_table)
  local out, at = {}, 1
  for from, name, till in text:gmatch "()`([^`\n]+)`()" do
    out[#out + 1] = plain(text:sub(at, from - 1))
    out[#out + 1] = code_span(name, in_table)
    at = till
  end
  out[#out + 1] = plain(text:sub(at))
  return table.concat(out)
end

local function words(cell, in_table)
  if type(cell) ~= "table" then
    cell = { text = cell }
  end
  local lines = {}
  for line in (visible.text(cell.text or "") .. "\n"):gmatch "([^\n]*)\n" do
    local text = cell.code and code_span(line, in_table) or sentence(line, in_table)
    lines[#lines + 1] = (cell.tone == "bad" or cell.strong) and text ~= "" and not cell.code and "**" .. text .. "**" or text
  end
  return table.concat(lines, in_table and "<br>" or "  \n")
end

local function row_text(cells)
  return "| " .. table.concat(cells, " | ") .. " |"
end

local write = {}

function write.heading(block)
  return "## " .. words(block.text)
end

function write.text(block)
  return words(block)
end

function write.table(block)
  local n = block.columns and #block.columns or #(block.rows[1] or {})
  local head, rule = {}, {}
  for i = 1, n do
    head[i], rule[i] = words(block.columns and block.columns[i] or "", true), "---"
  end
  local lines = { row_text(head), row_text(rule) }
  for _, row in ipairs(block.rows) do
    local cells = {}
    for i = 1, n do
      cells[i] = row.head and "" or words(row[i] or "", true)
    end
    if row.head then
      cells[1], cells[math.min(2, n)] = words(row.at, true), "**" .. words(row.head, true) .. "**"
    end
    lines[#lines + 1] = row_text(cells)
  end
  return table.concat(lines, "\n")
end

function write.code(block)
  local longest = 2
  for run in block.text:gmatch "`+" do
    longest = math.max(longest, #run)
  end
  local fence = ("`"):rep(longest + 1)
  return ("%s\n%s\n%s"):format(fence, visible.text(block.text):gsub("\n$", ""), fence)
end

local function write_all(blocks, used, out)
  for _, block in ipairs(blocks) do
    local text
    if block.kind == "fold" then
      local inside = {}
      write_all(block.blocks, 0, inside)
      text = ("<details><summary>%s</summary>\n\n%s\n\n</details>"):format(visible.line(block.title):gsub("[&<>]", ENTITY),
        table.concat(inside, "\n\n"))
      if used + #text > MOST then
        text = words(block.title .. ": too long for this text; the HTML file has it.")
      end
    else
      text = write[block.kind](block)
    end
    out[#out + 1] = text
    used = used + #text + 2
  end
end

--- Write a document down.
---@param doc table  see report/document.lua
---@return string
function markdown.render(doc)
  local out = { ("# %s: %s"):format(words(doc.name), words(doc.title)), "**" .. words(doc.headline) .. "**" }
  local facts = {}
  for i, fact in ipairs(doc.facts) do
    facts[i] = ("- %s: %s"):format(words(fact[1]), words { text = fact[2], tone = fact[3] })
  end
  out[3] = table.concat(facts, "\n")
  out[4] = words(doc.about .. ". Times are UTC.")
  write_all(doc.blocks, #table.concat(out), out)
  return table.concat(out, "\n\n") .. "\n"
end

return markdown
