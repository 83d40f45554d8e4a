--- What was copied in a run: its passes, and what is known of each home, from the journal.

local json = require "runbook.json"

local copies = {}

--- What a level of proof says, from the least on.
copies.LEVELS = {
  { "sent", "it was copied, and what copied it said that all went well" },
  { "scanned", "both ends were walked afterwards and are the same in names, types, sizes, owners, modes, times, links" },
  { "hashed", "both ends were walked afterwards, the contents of every file were read at both, and all of it is the same" },
  { "same", "nothing was copied: both clusters mount this storage, and both were seen to show the same home" },
  { "left", "left out on purpose (--leave)" },
}

--- The levels that a list of receipts has, in words.
---@param receipts { level: string }[]
---@return string
function copies.explain(receipts)
  local seen, words = {}, {}
  for _, one in ipairs(receipts) do
    seen[one.level] = true
  end
  for _, level in ipairs(copies.LEVELS) do
    words[#words + 1] = seen[level[1]] and ("%s: %s"):format(level[1], level[2]) or nil
  end
  return table.concat(words, "; ")
end

local function new_copy(pair)
  local from, to = pair:match("^(.-) %-> (.*)$")
  return {
    pair = pair, from = from or pair, to = to or "", passes = {}, receipts = {},
    total = { units = 0, entries = 0, files = 0, bytes = 0, hashed = 0, scanned = 0, sent = 0, same = 0, left = 0 },
  }
end

local function copy_of(list, pair)
  for _, one in ipairs(list) do
    if one.pair == pair then
      return one
    end
  end
  list[#list + 1] = new_copy(pair)
  return list[#list]
end

local function add_receipt(copy, row)
  local data = json.decode(row.data)
  local receipt = { unit = row.unit, level = row.level, at = row.at, entries = data.entries, files = data.files, bytes = data.bytes }
  table.insert(copy.receipts, receipt)
  local total = copy.total
  total.units = total.units + 1
  total[row.level] = (total[row.level] or 0) + 1
  if row.level ~= "left" then
    for _, what in ipairs { "entries", "files", "bytes" } do
      total[what] = total[what] + (receipt[what] or 0)
    end
  end
end

--- The copies of a run, in the order in which they began.
---@param meta table<string, string>
---@param receipts table[]  rows of the journal
---@return table[]  { pair, from, to, passes, receipts, total, level }
function copies.of(meta, receipts)
  local list = {}
  for key, value in pairs(meta) do
    local pair = key:match("^passes (.*)$")
    if pair then
      copy_of(list, pair).passes = json.decode(value)
    end
  end
  for _, row in ipairs(receipts) do
    add_receipt(copy_of(list, row.pair), row)
  end
  for _, copy in ipairs(list) do
    table.sort(copy.receipts, function(a, b) return a.unit < b.unit end)
    for i = #copies.LEVELS, 1, -1 do -- the least of them is what can be said of all
      local level = copies.LEVELS[i][1]
      copy.level = copy.total[level] > 0 and level ~= "left" and level or copy.level
    end
  end
  table.sort(list, function(a, b)
    local one, other = a.passes[1] and a.passes[1].began or "~", b.passes[1] and b.passes[1].began or "~"
    return one == other and a.pair < b.pair or one < other
  end)
  return list
end

return copies
