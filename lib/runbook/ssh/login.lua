--- Getting in where the server asks something: a password, a code from a phone. What the options do not answer a person at
--- the terminal is asked, while the server waits. Nobody is waited for without end: when the server hangs up, or nobody has
--- answered in time, that is an error and the run can be resumed.

local ask = require "runbook.ask"
local events = require "runbook.events"
local human = require "runbook.human"
local task = require "runbook.task"
local time = require "runbook.core.time"

local login = {}

login.patience = 300 -- seconds that a question stays open; most servers hang up after 120

local LOOK = 0.1

---@class runbook.ssh.who
---@field host string  as messages call it
---@field user string
---@field lost? boolean  it was connected to before
---@field silent? boolean  ssh_config says BatchMode: nobody is to be asked
---@field needless fun(): boolean  another connection has come about meanwhile

-- Until it is too late for an answer; says why.
local function too_late(pending)
  local began = time.now()
  while pending:waiting() do
    if time.now() - began >= login.patience then
      return ("nobody answered within %s"):format(human.duration(login.patience))
    end
    task.sleep(LOOK)
  end
  return "it hung up before anybody answered"
end

local function converse(pending, details, who)
  local _ <close> = pending
  local turn <close> = ask.turn()
  while true do
    local question = {
      host = who.host, user = who.user, lost = who.lost, said = details.said, prompts = details.prompts, attempt = details.attempt,
      turn = turn,
    }
    local answers, index = task.race {
      function() return ask.login(question) end,
      function() return too_late(pending) end,
    }
    if index == 2 or answers == nil then
      details.unanswered = answers or "no answer was typed"
      return nil, details.unanswered, "EPROMPT", details
    end
    local session, message, code, more, again = pending:answer(answers)
    if not again then
      return session, message, code, more, answers
    end
    details = more
  end
end

--- Connect, and have the person at the terminal answer what the server asks.
---@async
---@param connect async fun(may_ask: boolean): any ...  core.connect, each time over a stream of its own
---@param who runbook.ssh.who
---@return runbook.core.ssh.session? session  nil alone: it is needed no more
---@return string? message
---@return string? code
---@return table? details
---@return runbook.secret[]? typed  the last answers
function login.enter(connect, who)
  while true do
    local session, message, code, details, pending = connect(ask.available() and not who.silent)
    if not pending then
      return session, message, code, details
    elseif not ask.busy() then
      if who.lost then
        events.emit {
          type = "notice", level = "warning", target = who.host,
          text = ("%s: the connection was lost, and the server asks again before it lets %s in"):format(who.host, who.user),
        }
      end
      return converse(pending, details, who)
    end
    pending:close() -- its server would not wait that long, nor would those that need the thread
    while ask.busy() do
      task.sleep(LOOK)
    end
    if who.needless() then
      return nil
    end
  end
end

return login
