--- This machine as a place.

local errors = require "runbook.errors"
local place = require "runbook.place"
local process = require "runbook.core.process"
local shell = require "runbook.shell"

local backend = {}

-- Messages of programs are read by us, so they are asked for in one language.
local env = { LC_ALL = "C" }

-- A shell says it by the status, so this place does too: then a missing program looks the same everywhere.
local function not_found(argv, message, code)
  if code == "ENOENT" then
    return { status = 127, stdout = "", stderr = argv[1] .. ": not found\n" }
  elseif code == "EACCES" then
    return { status = 126, stdout = "", stderr = argv[1] .. ": Permission denied\n" }
  end
  return nil, message, code
end

function backend:exec(argv, o) -- luacheck: no self
  local r, message, code = process.exec { argv = argv, stdin = o.stdin, limit = o.limit, env = env }
  if not r then
    return not_found(argv, message, code)
  end
  return r
end

function backend:open(argv) -- luacheck: no self
  local child, message, code = process.open { argv = argv, env = env }
  if not child and (code == "ENOENT" or code == "EACCES") then
    errors.raise {
      kind = "exit", status = code == "ENOENT" and 127 or 126, target = "here", tried = shell.join(argv),
      message = ("`%s` cannot be run: %s"):format(argv[1], message),
    }
  end
  return child, message, code
end

function backend:by_hand(argv) -- luacheck: no self
  return shell.join(argv)
end

function backend:reference() -- luacheck: no self
  return { kind = "here" }
end

local here = place.new(backend, { name = "here" })

place.register("here", function(reference)
  if reference.sudo then
    return here:with { sudo = reference.sudo }
  end
  return here
end)

require "runbook.job" -- so that every process that knows a place can clean up after its jobs

return here
