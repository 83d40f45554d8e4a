--- A report as one HTML file: nothing in it is fetched from elsewhere, and nothing in it runs.

local style = require "runbook.report.style"
local visible = require "runbook.visible"

local html = {}

local ENTITY = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&#39;" }

local function escape(text)
  return (visible.text(text):gsub("[&<>\"']", ENTITY))
end

-- Our own sentences name things in backticks; what is between them is escaped already.
local function sentence(text)
  return (escape(text):gsub("`([^`\n]+)`", "<code>%1</code>"))
end

local function words(cell)
  if type(cell) ~= "table" then
    return sentence(cell)
  end
  local text = cell.code and ("<code>%s</code>"):format(escape(cell.text)) or sentence(cell.text)
  if text == "" or text == "<code></code>" then
    text = ""
  elseif cell.tone then
    text = ('<span class="%s">%s</span>'):format(cell.tone, text)
  end
  if cell.bar then
    text = ('%s<span class="bar"><i style="width:%.1f%%"></i></span>'):format(text, cell.bar * 100)
  end
  return text
end

local function text_of(cell)
  return type(cell) == "table" and cell.text or cell or ""
end

-- Columns of amounts stand at the right.
local function amounts(block, n)
  local is = {}
  for i = 1, n do
    local found, other = false, block.columns == nil
    for _, row in ipairs(block.rows) do
      local text = row.head and "" or text_of(row[i])
      local amount = text:find "^%d[%d,]*%.?%d* ?%a*$"
      found, other = found or amount, other or text ~= "" and not amount
    end
    is[i] = found and not other
  end
  return is
end

local WHEN = "^%d%d%d%d%-%d%d%-%d%d %d%d:%d%d:%d%d$"

local write = {}

function write.text(block)
  return ('<p class="%s">%s</p>'):format(block.strong and "strong" or block.tone or "", words { text = block.text, code = block.code })
end

local function row_html(row, columns, n, is_amount)
  if row.head then
    return ('<tr class="head"><td class="%s">%s</td><td colspan="%d">%s</td></tr>'):format(
      row.at == "" and "none" or "when", sentence(row.at), math.max(1, n - 1), words { text = row.head, tone = row.tone })
  end
  local cells = {}
  for i = 1, n do
    local text = words(row[i] or "")
    local classes = text == "" and "none" or is_amount[i] and "n" or text:find(WHEN) and "when" or ""
    cells[i] = ('<td class="%s" data-column="%s">%s</td>'):format(classes, columns and escape(columns[i]) or "", text)
  end
  return "<tr>" .. table.concat(cells) .. "</tr>"
end

function write.table(block)
  local columns, n = block.columns, block.columns and #block.columns or #(block.rows[1] or {})
  local is_amount = amounts(block, n)
  local lines = { ('<div class="wide"><table class="%s">'):format(columns and "listed" or "pairs") }
  if columns then
    local head = {}
    for i, name in ipairs(columns) do
      head[i] = ('<th class="%s">%s</th>'):format(is_amount[i] and "n" or "", sentence(name))
    end
    lines[2] = "<thead><tr>" .. table.concat(head) .. "</tr></thead>"
  end
  lines[#lines + 1] = "<tbody>"
  for _, row in ipairs(block.rows) do
    lines[#lines + 1] = row_html(row, columns, n, is_amount)
  end
  lines[#lines + 1] = "</tbody></table></div>"
  return table.concat(lines, "\n")
end

function write.code(block)
  return "<pre>" .. escape(block.text) .. "</pre>"
end

local function write_all(blocks)
  local out = {}
  for i, block in ipairs(blocks) do
    out[i] = write[block.kind](block)
  end
  return table.concat(out, "\n")
end

function write.fold(block)
  return ("<details><summary>%s</summary>\n%s\n</details>"):format(sentence(block.title), write_all(block.blocks))
end

-- Each heading begins a section that the list at the top leads to.
local function sections(blocks)
  local out, links, open = {}, {}, false
  for _, block in ipairs(blocks) do
    if block.kind == "heading" then
      local id = ("s%d"):format(#links + 1)
      links[#links + 1] = ('<a href="#%s">%s</a>'):format(id, sentence(block.text))
      out[#out + 1] = ('%s<section id="%s">\n<h2>%s</h2>'):format(open and "</section>\n" or "", id, sentence(block.text))
      open = true
    else
      out[#out + 1] = write[block.kind](block)
    end
  end
  out[#out + 1] = open and "</section>" or nil
  return table.concat(out, "\n"), ("<nav>%s</nav>"):format(table.concat(links, "\n"))
end

local function tiles(facts)
  local out = {}
  for i, fact in ipairs(facts) do
    out[i] = ('<div><dt>%s</dt><dd class="%s">%s</dd></div>'):format(escape(fact[1]), fact[3] or "", escape(fact[2]))
  end
  return table.concat(out, "\n")
end

local PAGE = [[
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<header class="{tone}">
<p class="name">{name}</p>
<h1>{headline}</h1>
<p class="dim">{about}</p>
</header>
<dl>
{facts}
</dl>
{nav}
<main>
{main}
</main>
</body>
</html>
]]

--- Write a document down.
---@param doc table  see report/document.lua
---@return string
function html.render(doc)
  local main, nav = sections(doc.blocks)
  local fields = {
    title = escape(doc.name .. ": " .. doc.title), style = style, tone = doc.tone or "", name = escape(doc.name),
    headline = sentence(doc.headline), about = sentence(doc.about .. ". Times are UTC."), facts = tiles(doc.facts), nav = nav, main = main,
  }
  return (PAGE:gsub("{(%a+)}", fields))
end

return html
