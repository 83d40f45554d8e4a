--- When to try again, how long to wait, and when to give up: one policy for every primitive.
---
--- An error of kind unreachable or busy says that nothing was done, so anything may be tried again. After lost and timeout
--- nobody knows, so only reads are. The same error ten times in a row ends it: it will not go away by itself.

local errors = require "runbook.errors"
local events = require "runbook.events"
local task = require "runbook.core.task"
local time = require "runbook.core.time"

local retry = {}

retry.first_delay = 0.5
retry.longest_delay = 30
retry.same_error = 10
retry.looking = 3 -- somebody waits for a plan or for findings, and can ask again

local LOOKING = { checks = true, check = true, guard = true, when = true }

local always = { unreachable = true, busy = true }
local for_reads = { lost = true, timeout = true }
local hopeless = { ENOTFOUND = true, EAI_NONAME = true, EAI_FAIL = true } -- the name is wrong, and stays wrong

--- May a call that failed so be made again?
---@param err any
---@param reads boolean?
---@return boolean
function retry.worthwhile(err, reads)
  return errors.is(err) and err.again ~= false and not hopeless[err.code]
    and (always[err.kind] or reads and for_reads[err.kind] or false)
end

--- Seconds before try number `n + 1`: doubling, and spread so that a hundred clients do not come back together.
---@param n integer
---@return number
function retry.delay(n)
  return math.min(retry.longest_delay, retry.first_delay * 2 ^ (n - 1)) * (0.5 + math.random() / 2)
end

local function most_tries(o)
  local context = task.context()
  local looking = context.mode == "plan" or LOOKING[context.phase]
  return math.min(o.tries or retry.same_error, looking and retry.looking or retry.same_error)
end

local said = {} -- text and try = when; many that wait for one host at once say so once

local function say(o, err, tries, delay)
  local text = tostring(err)
  text = ("%s%s; %s again in %.0f s"):format(text:sub(1, #o.target) == o.target and "" or o.target .. ": ", text, o.what,
    math.max(1, delay))
  local key, now = ("%s #%d"):format(text, tries), time.now()
  if said[key] and now - said[key] < delay then
    return
  end
  said[key] = now
  events.emit { type = "notice", target = o.target, tries = tries, delay = delay, text = text }
end

--- Call `fn` until it succeeds, fails for good, or fails the same way too often.
---@async
---@param o { target: string, what: string, reads?: boolean, tries?: integer }  tries: at most, ten by default
---@param fn async fun(): any
---@return any ...  what `fn` returns
function retry.call(o, fn)
  local same, last, n = 0, nil, 0
  while true do
    local r = table.pack(xpcall(fn, errors.handler))
    if r[1] then
      return table.unpack(r, 2, r.n)
    end
    local err = r[2]
    n = n + 1
    local text = tostring(err):gsub(" after %d+ ms", "") -- libcurl says how long it took; it is the same error all the same
    same = text == last and same + 1 or 1
    last = text
    if not retry.worthwhile(err, o.reads) or same >= most_tries(o) or n >= (o.tries or math.huge) then
      if n > 1 and errors.is(err) then
        err.tries = n
      end
      error(err, 0)
    end
    local delay = math.max(retry.delay(n), err.retry_after or 0) -- the other side may have said how long
    say(o, err, n, delay)
    task.sleep(delay)
  end
end

return retry
