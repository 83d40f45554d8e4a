--- The name somebody may have meant.

--- Edits between two words: letters put in, left out, replaced, or two neighbours swapped.
---@param a string
---@param b string
---@return integer
local function distance(a, b)
  local before, last = nil, {}
  for j = 0, #b do
    last[j] = j
  end
  for i = 1, #a do
    local row = { [0] = i }
    for j = 1, #b do
      local same = a:byte(i) == b:byte(j)
      row[j] = math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (same and 0 or 1))
      if before and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        row[j] = math.min(row[j], before[j - 2] + 1)
      end
    end
    before, last = last, row
  end
  return last[#b]
end

--- Find the name nearest to what was written; nil when none is near enough to be a slip of the hand.
--- Capitals, and `-` for `_`, count for nothing.
---@param word any
---@param names string[]
---@return string?
local function nearest(word, names)
  local wanted = tostring(word):lower():gsub("-", "_")
  local best, best_distance
  if #wanted > 60 then
    return nil
  end
  for _, name in ipairs(names) do
    if #name <= 60 then
      local d = distance(wanted, (name:lower():gsub("-", "_")))
      if not best or d < best_distance or d == best_distance and name < best then
        best, best_distance = name, d
      end
    end
  end
  if best and best_distance <= math.max(1, #wanted // 3) and best_distance < math.max(#best, #wanted) then
    return best
  end
  return nil
end

return nearest
