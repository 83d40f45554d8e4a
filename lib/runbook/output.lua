--- Where the command writes: results to stdout, what people read to stderr.
---
--- A program that embeds us has a sink for events; then both go there and nothing is written.

local embed = require "runbook.core.embed"
local errors = require "runbook.errors"

local output = {}

local COLUMNS = 100 -- where no terminal says better

-- Loaded with the first record: `runbook lua` and the help do without.
local function encode(record)
  return require("runbook.events").encode(record)
end

local function must(ok, message)
  if not ok then
    errors.raise({ kind = "lost", code = "ESTDOUT", exit = message:find "roken pipe" and 141 or 74, message = "stdout: " .. message }, 3)
  end
end

local function write(text)
  must(io.stdout:write(text))
end

--- Write a result.
---@param text string
function output.result(text)
  if embed.has_sink() then
    embed.send(encode { type = "result", text = text })
  else
    write(text)
  end
end

--- Write a result as one line of JSON.
---@param record table
function output.record(record)
  local line = encode(record)
  if embed.has_sink() then
    embed.send(line)
  else
    write(line .. "\n")
  end
end

local versioned = false

--- The first line of every NDJSON output; written once.
function output.version()
  if versioned then
    return
  end
  versioned = true
  output.record { type = "version", schema = require("runbook.events").SCHEMA, runbook = embed.version() }
end

--- Say something to people. A stderr that is gone is no reason to stop.
---@param text string
function output.say(text)
  if embed.has_sink() then
    embed.send(encode { type = "message", text = text })
  else
    io.stderr:write(text)
  end
end

--- Bring out what is buffered; raises when stdout did not take it.
function output.flush()
  if embed.has_sink() then
    return
  end
  must(io.stdout:flush())
end

--- How wide texts may be.
---@param stream? "stdout"|"stderr"  default stderr
---@return integer
function output.width(stream)
  local columns = require("runbook.terminal").width(stream or "stderr") or COLUMNS
  return math.max(20, math.min(columns, 160))
end

return output
