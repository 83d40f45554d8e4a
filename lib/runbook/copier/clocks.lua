--- Whose clock the times of a tree go by. On a file server it is the server's, and nobody there can be asked, as the source is not
--- written to. But it was at least at the latest ctime that a look has found: a file is as old as that says, or older.

local clocks = {}

-- As the far side calls them: their times are made by the machine they are mounted on.
local OWN = { ext4 = true, xfs = true, btrfs = true, tmpfs = true, zfs = true, overlay = true }

--- Seconds that the clock of a tree's times may be behind that of its machine, as far as a look at it can tell; nil where both are
--- one. What it has found lately makes this small; where nothing changes it is large, and harmless: only a file that nobody
--- has seen before is taken for one that was touched just now.
---@param report runbook.core.manifest.report  with `seconds`
---@return integer?
function clocks.behind(report)
  if OWN[report.file_system] then
    return nil
  end
  local newest = 0
  for _, unit in ipairs(report.units) do
    newest = math.max(newest, unit.newest)
  end
  return math.max(0, math.ceil(report.clock + report.seconds - newest))
end

--- The option that tells the far side.
---@param pair table
---@return string?
function clocks.flag(pair)
  return pair.behind and ("--behind=%d"):format(pair.behind) or nil
end

return clocks
