--- Keeps what people saw of a run: `events.ndjson` in its directory.

local events = require "runbook.events"

local recorder = {}

local Recorder = {}
local recorder_mt = { __name = "runbook.recorder", __index = Recorder }

-- Progress is for those who watch; of the rest every event is kept.
local NOT_KEPT = { progress = true }

--- Start keeping the events of a session's run; closed when the work ends.
---@param session table
function recorder.open(session)
  local path = session.directory .. "/events.ndjson"
  local file, message = io.open(path, "a")
  local self = setmetatable({ file = file }, recorder_mt)
  if file == nil then
    events.notice("what is shown is not kept: " .. message, "warning")
    return self
  end
  file:setvbuf("line")
  self.unsubscribe = events.subscribe(function(event)
    if NOT_KEPT[event.type] or self.broken then
      return
    end
    local ok, why = file:write(events.encode(event), "\n")
    if not ok then
      self.broken = true
      events.notice(("%s: %s; from here on what is shown is not kept"):format(path, why), "warning")
    end
  end)
  return self
end

function Recorder:close()
  if self.file then
    self.unsubscribe()
    self.file:close()
    self.file = nil
  end
end

recorder_mt.__close = Recorder.close

return recorder
