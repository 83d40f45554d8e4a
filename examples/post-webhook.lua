--- Tell a chat room which disks are nearly full.
---
---     runbook run post-webhook.lua -p disks=nfs-old:/export,nfs-new:/export \
---       -p webhook=https://chat.example.org/hooks/ops -p token=file:chat-token
---
--- The token stands in a file and is shown in no log, journal or process list. Nothing is posted when there is room everywhere.

local rb = require "runbook"
local http = require "runbook.http"
local place = require "runbook.place"
local ssh = require "runbook.ssh"
local units = require "runbook.units"

local p = rb.params {
  { "disks",   "list",    "directories to look at: HOST:/PATH, or /PATH here" },
  { "webhook", "string",  "the address to post to" },
  { "token",   "secret",  "what lets us post there" },
  { "least",   "integer", "per cent that should be free", default = 10 },
}

local function space_of(disk)
  local host, path = disk:match("^([^/:]+):(/.*)$")
  local at = host and ssh.host { host } or place.here
  return at:space(path or disk)
end

rb.main(function()
  local lines = {}
  for _, disk in ipairs(p.disks) do
    local space = space_of(disk)
    local percent = 100 * space.bytes_free // space.bytes_total
    if percent < p.least then
      lines[#lines + 1] = ("%s: %s free, %d %%"):format(disk, units.size(space.bytes_free), percent)
    end
  end
  if #lines > 0 then
    http.post { p.webhook, bearer = p.token, json = { text = table.concat(lines, "\n") } }
  end
  rb.say(("%d of %d disks are nearly full"):format(#lines, #p.disks))
end)
