--- What a run keeps for people: a copy in its directory, and the file they asked for.

local core = require "runbook.core.file"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local json = require "runbook.json"
local redaction = require "runbook.redaction"
local task = require "runbook.core.task"
local time = require "runbook.core.time"

local attachment = {}

local function write(path, bytes)
  errors.check(path, "write", core.write(path, bytes, { mode = tonumber("600", 8) }))
end

--- Keep `content` with the run and write it to `path`.
---@async
---@param content string|table  a table is written as JSON
---@param path string
attachment.attach = effect.verb {
  name = "attach", class = "change", repeatable = true, quiet = true, inverse = effect.NOT_NEEDED,
  target = function() return "here" end,
  summary = function(_, path) return "write " .. path end,
  body = function(content, path)
    local text = type(content) == "string" and content or json.encode(redaction.value(content), { sorted = true, indent = 2 }) .. "\n"
    text = redaction.text(text)
    local session = task.context().session
    if session and session.journal then
      local name = path:match("([^/]+)$")
      errors.check(nil, nil, core.mkdir(session.directory .. "/out", { parents = true, mode = tonumber("700", 8) }))
      write(("%s/out/%s"):format(session.directory, name), text)
      session.journal:later { "INSERT OR REPLACE INTO attachment VALUES (?, ?, ?, ?)", name, path, task.context().step, time.utc(), n = 4 }
    end
    write(path, text)
  end,
}

return attachment
