--- A report as a document: blocks of words that `report/markdown.lua` and `report/html.lua` only write down.
---
--- A block is one of
---     { kind = "heading", text }                      { kind = "text", text, tone? }
---     { kind = "facts", rows = { { label, text, tone? } } }
---     { kind = "table", columns, rows }               a row: cells, or { head = text, at = text }
---     { kind = "code", text }                         { kind = "list", items }
---     { kind = "fold", title, blocks, open? }         its blocks are shown when asked for
--- A cell, an item or a text is a string, or { text, code? = a name or command, tone? = "good"|"bad"|"warn"|"dim", bar? = 0 to 1 }.

local human = require "runbook.human"
local parts = require "runbook.report.parts"
local units = require "runbook.units"

local document = {}

local STATE = {
  done = { "is done", "good" }, failed = { "failed", "bad" }, stopped = { "was stopped", "warn" }, waiting = { "waits", "warn" },
  declined = { "was not agreed to", "warn" }, running = { "is at work", "warn" }, interrupted = { "was killed", "bad" },
  ["rolled-back"] = { "was rolled back", "good" }, ["rollback-incomplete"] = { "was rolled back in part", "bad" },
  new = { "has not begun", "dim" },
}

local AT_STEP = { failed = true, stopped = true, waiting = true, declined = true, running = true, interrupted = true }

local function at_step(run)
  return AT_STEP[run.state] and run.step and (" at `%s`"):format(run.step) or ""
end

local PROVEN = { hashed = true, scanned = true }

-- "60 of 61 homes (1,847 files, 178 MB)": how much of it, and what can be said of all.
local function amount(copy)
  local t = copy.total
  local there = t.units - t.left
  local of = t.left > 0 and ("%s of %s homes"):format(human.count(there), human.count(t.units)) or human.plural(there, "home")
  return ("%s (%s, %s)"):format(of, human.plural(t.files, "file"), human.bytes(t.bytes)),
    there > 0 and PROVEN[copy.level] and t.sent == 0
end

--- What was moved, from where to where, and how that ended: one sentence.
---@param model table
---@return string
function document.headline(model)
  local run, copy = model.run, model.copies[1]
  local state = STATE[run.state] or { run.state }
  if not copy then
    return ("%s: it %s%s."):format(run.title or run.name, state[1], at_step(run))
  end
  local way = ("%s to %s"):format(copy.from, copy.to)
  local how_much, proven = amount(copy)
  local more = #model.copies > 1 and (", and %s"):format(human.plural(#model.copies - 1, "other copy", "other copies")) or ""
  if run.state == "done" then
    local left = copy.total.left > 0 and (", and %s on purpose"):format(copy.total.left == 1 and "one was left out"
      or human.count(copy.total.left) .. " were left out") or ""
    return ("%s moved from %s%s; %s%s."):format(how_much, way, more, proven and "both ends are proven the same"
      or "it is not proven that both ends are the same", left)
  elseif run.back then
    return ("The move from %s%s %s%s; %s."):format(way, more, state[1], at_step(run), "what was copied stays on the target")
  end
  return ("The move from %s%s %s%s; so far %s are there."):format(way, more, state[1], at_step(run), how_much)
end

local function proof_fact(copy)
  local t = copy.total
  if t.units == 0 then
    return nil
  end
  local proven = t.hashed + t.scanned
  local all = proven == t.units - t.left and proven > 0
  return { "proven the same", ("%s of %s homes"):format(human.count(proven), human.count(t.units)),
    all and t.left == 0 and "good" or "warn" }
end

local function lock_out_fact(model)
  local lock = model.lock_out
  if not lock then
    return nil
  elseif not lock.ended then
    return { "locked out since", parts.time(lock.began), "bad" }
  end
  return { "locked out", units.duration(lock.seconds) }
end

local function forecast_fact(model)
  local forecast = model.lock_out and model.lock_out.forecast
  return forecast and { "forecast", ("%s to %s"):format(units.duration(forecast.low), units.duration(forecast.high)) } or nil
end

local function owed(model)
  local n = 0
  for _, one in ipairs(model.obligations) do
    n = n + (one.state == "owed" and 1 or 0)
  end
  return n
end

local function key_facts(model)
  local run, done = model.run, 0
  for _, step in ipairs(model.steps) do
    done = done + ((step.state == "done" or step.state == "skipped" or step.state == "already") and 1 or 0)
  end
  local rows = { { "state", (run.state:gsub("%-", " ")), (STATE[run.state] or {})[2] } }
  rows[#rows + 1] = lock_out_fact(model)
  rows[#rows + 1] = forecast_fact(model)
  for _, copy in ipairs(model.copies) do
    rows[#rows + 1] = proof_fact(copy)
  end
  rows[#rows + 1] = { "steps", run.back and ("%d"):format(#model.steps) or ("%d of %d"):format(done, #model.steps) }
  rows[#rows + 1] = { "at work", ("%s in %s"):format(human.duration(run.active), human.plural(#model.processes, "start")) }
  local left = owed(model)
  rows[#rows + 1] = { "left behind", left == 0 and #model.jobs == 0 and "nothing" or human.plural(left + #model.jobs, "thing"),
    left + #model.jobs > 0 and "bad" or "good" }
  return rows
end

local function what_now(model, blocks)
  local run = model.run
  if run.state == "done" or run.state == "rolled-back" or run.state == "running" then
    return
  end
  local rows = {}
  if run.detail and run.detail ~= "" and run.state ~= "failed" then
    rows[1] = { "why", run.detail }
  end
  rows[#rows + 1] = { "go on", { text = ("runbook %s %s"):format(run.back and "rollback" or "resume", run.name), code = true } }
  if not run.back then
    rows[#rows + 1] = { "go back", { text = "runbook rollback " .. run.name, code = true } }
  end
  blocks[#blocks + 1] = { kind = "heading", text = "What is to be done" }
  blocks[#blocks + 1] = { kind = "table", rows = rows }
end

local SECTIONS = {
  { "Timeline", parts.timeline }, { "Locked out", parts.lock_out }, { "What was copied", parts.copies },
  { "Left out and set aside", parts.not_carried }, { nil, parts.tables }, { "Checks", parts.checks },
  { "Questions and decisions", parts.questions }, { "Failures and retries", parts.failures },
  { "Changes, and how each is made by hand", parts.effects }, { "What had to be removed again", parts.obligations },
  { "Files kept", parts.attachments }, { "Parameters, source and versions", parts.origin }, { "Log", parts.logs },
}

--- The document of a report.
---@param model table
---@return { title: string, name: string, headline: string, about: string, facts: table[], tone: string, blocks: table[] }
function document.of(model)
  local run = model.run
  local blocks = {}
  what_now(model, blocks)
  for _, section in ipairs(SECTIONS) do
    local made = section[2](model)
    if #made > 0 and section[1] then
      blocks[#blocks + 1] = { kind = "heading", text = section[1] }
    end
    table.move(made, 1, #made, #blocks + 1, blocks)
  end
  local first = model.processes[1] or {}
  return {
    name = run.name, title = run.title or run.name, headline = document.headline(model), tone = (STATE[run.state] or {})[2],
    about = ("%s, run %s from %s, begun %s%s"):format(run.title or "a runbook", run.name, run.runbook or "?",
      run.started and parts.time(run.started) or "?", first.who and " by " .. first.who or ""),
    facts = key_facts(model), blocks = blocks,
  }
end

return document
