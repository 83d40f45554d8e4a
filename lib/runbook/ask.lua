--- Questions to the person at the terminal. Each has a flag that answers it where nobody sits there.
---
--- Nobody can be asked until the command has said how, by `ask.use`; so a program that embeds us, or one without a
--- terminal, is never left waiting for an answer.

local human = require "runbook.human"
local redaction = require "runbook.redaction"
local task = require "runbook.core.task"
local visible = require "runbook.visible"

local ask = {}

---@class runbook.ask.way
---@field write fun(text: string)
---@field read async fun(prompt: string, echo: boolean, secret_name: string?): string|runbook.secret|nil  nil: the input has ended
---@field width fun(): integer
---@field now fun(): number
---@field screen? runbook.Screen  holds its living lines while somebody thinks
---@field yes? boolean  `--yes`: simple questions are answered

local way ---@type runbook.ask.way?
local taken -- by whom, while somebody is asked

local TRIES = 3
local POLL = 0.05

--- Say how people are asked; nil: not at all.
---@param how runbook.ask.way?
function ask.use(how)
  way = how
end

--- Can anybody be asked?
---@return boolean
function ask.available()
  return way ~= nil
end

local function clean(text)
  return visible.text(redaction.text(tostring(text)))
end

--- Is somebody being asked something just now?
---@return boolean
function ask.busy()
  return taken ~= nil
end

--- Wait until nobody is asked anything, and keep others from asking until it is closed.
---@async
---@return table turn
function ask.turn()
  while taken do
    task.sleep(POLL)
  end
  taken = setmetatable({}, { __close = function() taken = nil end })
  return taken
end

-- Calls fn with the screen out of the way, however fn ends.
local function held(fn, turn)
  local own <close> = not turn and ask.turn() or nil -- luacheck: ignore 211
  assert(way, "ask.available() is false")
  local screen <close> = setmetatable({ of = way.screen }, { __close = function(s)
    if s.of then
      s.of:release()
    end
  end })
  if screen.of then
    screen.of:hold()
  end
  return fn()
end

local function say(lines)
  way.write(table.concat(lines, "\n") .. "\n")
end

local function read(prompt, echo)
  local line = way.read(prompt, echo ~= false)
  return line and line:match("^%s*(.-)%s*$")
end

local function heading(o)
  local current = way.screen and way.screen.current or {}
  local index = o.index or current.id == o.step and current.index
  local place = index and ("%2d "):format(index) or " "
  local left = ("%s%s  %s"):format(place, o.step or "", clean(o.title or ""))
  local right = ("%s   %s"):format(o.run or way.screen and way.screen.run or "", os.date("%a %H:%M", math.floor(way.now())))
  return visible.pad(left, way.width() - #right - 1) .. " " .. right
end

local function rows_of(o)
  local rows = {}
  for _, row in ipairs(o.rows or {}) do
    rows[#rows + 1] = { clean(row[1]), clean(row[2]) }
  end
  return human.rows(rows, way.width())
end

local function introduce(o)
  local lines = { "", heading(o), "" }
  if o.text and o.text ~= "" then
    for _, line in ipairs(human.wrap(human.paragraphs(clean(o.text)), way.width() - 4)) do
      lines[#lines + 1] = "   " .. line
    end
    lines[#lines + 1] = ""
  end
  local rows = rows_of(o)
  table.move(rows, 1, #rows, #lines + 1, lines)
  if #rows > 0 then
    lines[#lines + 1] = ""
  end
  say(lines)
end

--- Ask before a step that disrupts somebody: the name has to be typed.
---@async
---@param o { step: string, title: string, rows: string[][], expect: string, again: string?, index: integer?, run: string? }
---@return boolean go  false: declined
function ask.disrupt(o)
  return held(function()
    introduce(o)
    for _ = 1, TRIES do
      local answer = read(("   Type %s to go on. Enter stops here, `runbook %s` asks again: "):format(o.expect, o.again or "resume"))
      if answer == o.expect then
        return true
      elseif answer == nil or answer == "" then
        return false
      end
      say { ("   That is not %s; nothing was done."):format(o.expect) }
    end
    return false
  end)
end

--- Ask whether a person has done what only a person can do.
---@async
---@param o { step: string, title: string, text: string?, rows: string[][]?, index: integer?, run: string? }
---@return string? who  nil: not done
function ask.manual(o)
  return held(function()
    introduce(o)
    local answer = read("   Type your name when it is done. Enter stops here, `runbook resume` asks again: ")
    return answer ~= "" and answer or nil
  end)
end

--- A question that yes or no answers; the default is what Enter means.
---@async
---@param o { text: string, default: boolean? }
---@return boolean
function ask.yes_no(o)
  assert(way, "ask.available() is false")
  if way.yes then
    return true
  end
  return held(function()
    for _ = 1, TRIES do
      local answer = read(("   %s [%s] "):format(clean(o.text), o.default and "Y/n" or "y/N"))
      local first = answer and answer:lower():match("^(%a?)")
      if answer == nil then
        return false
      elseif answer == "" then
        return o.default or false
      elseif first == "y" or first == "n" then
        return first == "y"
      end
      say { "   y or n, please." }
    end
    return false
  end)
end

--- One of several; by its name or its number.
---@async
---@param o { text: string, choices: (string|{ [1]: string, [2]: string })[] }  names, or names with an explanation
---@return string? choice  nil: none of them
function ask.choice(o)
  return held(function()
    local lines, by_answer = { "   " .. clean(o.text) }, {}
    for i, choice in ipairs(o.choices) do
      local name, help = choice, ""
      if type(choice) == "table" then
        name, help = choice[1], choice[2]
      end
      by_answer[name], by_answer[tostring(i)] = name, name
      lines[#lines + 1] = ("   %2d  %-16s %s"):format(i, name, clean(help)):gsub("%s+$", "")
    end
    say(lines)
    for _ = 1, TRIES do
      local answer = read "   A name or a number; Enter stops here: "
      if answer == nil or answer == "" then
        return nil
      elseif by_answer[answer] then
        return by_answer[answer]
      end
      say { ("   There is no %s here."):format(visible.line(answer)) }
    end
    return nil
  end)
end

local function login_heading(o)
  if (o.attempt or 1) > 1 then
    return ("   %s did not take that. Once more:"):format(clean(o.host))
  end
  return ("   %s%s asks, before it lets %s in:"):format(clean(o.host), o.lost and " was lost, and" or "", clean(o.user))
end

--- What a server wants to know while somebody logs in, one question after the other. The answers are secrets.
---@async
---@param o { host: string, user: string, prompts: { text: string, echo: boolean }[], said?: string, attempt?: integer, lost?: boolean, turn?: table }
---@return runbook.secret[]? answers  nil: the input has ended
function ask.login(o)
  return held(function()
    local lines = { login_heading(o) }
    for line in (o.said or ""):gmatch "[^\r\n]+" do
      lines[#lines + 1] = "   " .. clean(line)
    end
    say(lines)
    local answers = {}
    for i, prompt in ipairs(o.prompts) do
      local above, text = prompt.text:match "^(.-)([^\n]*)%s*$" -- sshd puts what else PAM says before the question
      for line in above:gmatch "[^\r\n]+" do
        say { "   " .. clean(line) }
      end
      local answer = way.read(("   %s "):format(visible.line(text:gsub("%s+$", ""))), prompt.echo, "answer for " .. o.host)
      if answer == nil then
        return nil
      end
      answers[i] = answer
    end
    return answers
  end, o.turn)
end

--- The value of a parameter that was given nowhere.
---@async
---@param o { name: string, help: string?, type: string?, choices: string[]?, message: string? }  message: what was wrong before
---@return string? text  as it would stand in the file; nil: none was given
function ask.parameter(o)
  return held(function()
    local what = o.choices and table.concat(o.choices, ", ") or o.type
    if o.message then
      say { "   " .. clean(o.message) }
    end
    say { ("   %s%s%s"):format(o.name, what and (" (%s)"):format(what) or "", o.help and ": " .. clean(o.help) or "") }
    local answer = read(("   %s = "):format(o.name), o.type ~= "secret")
    return answer ~= "" and answer or nil
  end)
end

return ask
