--- The states of everything a run keeps, and what each leads to.
---
--- A row: state, event, next state, and what resume, rollback and sweep do with something found in the first state
--- (said once per state). No code sets a state but `journal.move`, which refuses what is not listed here.

local states = {}

local function machine(rows)
  local m = { first = rows[1][1], events = {}, resume = {}, rollback = {}, sweep = {}, all = {} }
  for _, row in ipairs(rows) do
    local state, event, next_state = row[1], row[2], row[3]
    m.events[state] = m.events[state] or {}
    m.all[state] = true
    if event then
      assert(m.events[state][event] == nil, state .. "/" .. event .. " is listed twice")
      m.events[state][event] = next_state
    end
    for i, who in ipairs { "resume", "rollback", "sweep" } do
      m[who][state] = row[3 + i] or m[who][state]
    end
  end
  return m
end

-- A run that changed nothing and was left for a week is rolled back by sweep, which has nothing to undo then.
-- `recover` is what the next process does to something that a killed one left in the middle.
states.run = machine {
  -- state               event        next                    resume          rollback      sweep
  { "new",               "start",     "running",              "starts it",    "goes back",  "removes leftovers" },
  { "new",               "rollback",  "rolling-back" },
  { "running",           "recover",   "running",              "goes on",      "goes back",  "removes leftovers" },
  { "running",           "finish",    "done" },
  { "running",           "fail",      "failed" },
  { "running",           "stop",      "stopped" },
  { "running",           "wait",      "waiting" },
  { "running",           "decline",   "declined" },
  { "running",           "rollback",  "rolling-back" },
  { "failed",            "recover",   "running",              "goes on",      "goes back",  "removes leftovers" },
  { "failed",            "rollback",  "rolling-back" },
  { "stopped",           "recover",   "running",              "goes on",      "goes back",  "removes leftovers" },
  { "stopped",           "rollback",  "rolling-back" },
  { "waiting",           "recover",   "running",              "goes on",      "goes back",  "removes leftovers" },
  { "waiting",           "rollback",  "rolling-back" },
  { "declined",          "recover",   "running",              "asks again",   "goes back",  "removes leftovers" },
  { "declined",          "rollback",  "rolling-back" },
  { "done",              "recover",   "running",              "--again only", "goes back",  "removes leftovers" },
  { "done",              "rollback",  "rolling-back" },
  { "rolling-back",      "rollback",  "rolling-back",         "refuses",      "goes on",    "removes leftovers" },
  { "rolling-back",      "undone",    "rolled-back" },
  { "rolling-back",      "stuck",     "rollback-incomplete" },
  { "rollback-incomplete", "rollback", "rolling-back",        "refuses",      "goes on",    "removes leftovers" },
  { "rolled-back",       nil,         nil,                    "refuses",      "nothing",    "removes leftovers" },
}

states.step = machine {
  { "pending",      "start",   "running",      "runs it",          "nothing",       "nothing" },
  { "pending",      "skip",    "skipped" },
  { "pending",      "already", "already" },
  { "pending",      "mark",    "done" },
  { "pending",      "wait",    "waiting" },
  { "pending",      "fail",    "failed" },
  { "pending",      "stop",    "stopped" },
  { "running",      "finish",  "done",         "asks, runs again", "undoes",        "nothing" },
  { "running",      "fail",    "failed" },
  { "running",      "stop",    "stopped" },
  { "running",      "wait",    "waiting" },
  { "running",      "start",   "running" },
  { "running",      "mark",    "done" },
  { "running",      "skip",    "skipped" },
  { "running",      "already", "already" },
  { "running",      "undo",    "undoing" },
  { "failed",       "start",   "running",      "runs again",       "undoes",        "nothing" },
  { "failed",       "fail",    "failed" },
  { "failed",       "wait",    "waiting" },
  { "failed",       "stop",    "stopped" },
  { "failed",       "mark",    "done" },
  { "failed",       "skip",    "skipped" },
  { "failed",       "already", "already" },
  { "failed",       "undo",    "undoing" },
  { "stopped",      "start",   "running",      "runs again",       "undoes",        "nothing" },
  { "stopped",      "fail",    "failed" },
  { "stopped",      "wait",    "waiting" },
  { "stopped",      "stop",    "stopped" },
  { "stopped",      "mark",    "done" },
  { "stopped",      "skip",    "skipped" },
  { "stopped",      "already", "already" },
  { "stopped",      "undo",    "undoing" },
  { "waiting",      "start",   "running",      "asks again",       "undoes",        "nothing" },
  { "waiting",      "wait",    "waiting" },
  { "waiting",      "fail",    "failed" },
  { "waiting",      "stop",    "stopped" },
  { "waiting",      "mark",    "done" },
  { "waiting",      "skip",    "skipped" },
  { "waiting",      "already", "already" },
  { "waiting",      "undo",    "undoing" },
  { "done",         "redo",    "pending",      "keeps it",         "undoes",        "nothing" },
  { "done",         "mark",    "done" },
  { "done",         "undo",    "undoing" },
  { "skipped",      "redo",    "pending",      "keeps it",         "undoes",        "nothing" },
  { "skipped",      "mark",    "done" },
  { "skipped",      "undo",    "undoing" },
  { "already",      "redo",    "pending",      "keeps it",         "undoes",        "nothing" },
  { "already",      "undo",    "undoing" },
  { "undoing",      "undo",    "undoing",      "refuses",          "goes on",       "nothing" },
  { "undoing",      "undone",  "undone" },
  { "undoing",      "stuck",   "undo-failed" },
  { "undo-failed",  "undo",    "undoing",      "refuses",          "tries again",   "nothing" },
  { "undone",       nil,       nil,            "refuses",          "nothing",       "nothing" },
}

states.unit = machine {
  { "pending", "start",   "running", "runs it",    "nothing", "nothing" },
  { "running", "start",   "running", "runs again", "nothing", "nothing" },
  { "running", "finish",  "done" },
  { "running", "fail",    "failed" },
  { "running", "stop",    "pending" },
  { "running", "leave",   "left" },
  { "failed",  "start",   "running", "runs again", "nothing", "nothing" },
  { "failed",  "leave",   "left" },
  { "pending", "leave",   "left" },
  { "done",    "start",   "running", "keeps it",   "nothing", "nothing" },
  { "left",    "start",   "running", "keeps it",   "nothing", "nothing" },
}

states.effect = machine {
  { "intended", "finish", "done",     "unknown: asks", "undoes",  "nothing" },
  { "intended", "fail",   "failed" },
  { "intended", "lose",   "unknown" },
  { "intended", "undone", "undone" },
  { "unknown",  "undone", "undone",   "unknown: asks", "undoes",  "nothing" },
  { "unknown",  "settle", "done" },
  { "done",     "undone", "undone",   "keeps it",      "undoes",  "nothing" },
  { "failed",   "undone", "undone",   "keeps it",      "undoes",  "nothing" },
  { "undone",   nil,      nil,        "keeps it",      "nothing", "nothing" },
}

states.obligation = machine {
  { "owed",   "meet",  "met",    "meets it",    "meets it",    "meets it" },
  { "owed",   "fail",  "owed" },
  { "owed",   "waive", "waived" },
  { "met",    nil,     nil,      "nothing",     "nothing",     "nothing" },
  { "waived", nil,     nil,      "nothing",     "nothing",     "nothing" },
}

states.job = machine {
  { "starting", "started", "running", "asks the far side", "stops it", "--jobs stops it" },
  { "starting", "lose",    "lost" },
  { "starting", "never",   "never" },
  { "starting", "finish",  "done" },
  { "starting", "stop",    "stopped" },
  { "starting", "settle",  "settled" },
  { "running",  "finish",  "done",    "re-attaches",       "stops it", "--jobs stops it" },
  { "running",  "lose",    "lost" },
  { "running",  "never",   "never" },
  { "running",  "stop",    "stopped" },
  { "running",  "settle",  "settled" },
  { "lost",     "finish",  "done",    "unknown: asks",     "nothing",  "nothing" },
  { "lost",     "started", "running" },
  { "lost",     "settle",  "settled" },
  { "never",    "started", "running", "starts it",         "nothing",  "nothing" },
  { "never",    "finish",  "done" },
  { "never",    "lose",    "lost" },
  { "never",    "stop",    "stopped" },
  { "never",    "settle",  "settled" },
  { "settled",  nil,       nil,       "starts another",    "nothing",  "nothing" },
  { "stopped",  nil,       nil,       "starts another",    "nothing",  "nothing" },
  { "done",     nil,       nil,       "reads its result",  "nothing",  "nothing" },
}

local GIVES_WAY = { new = true, running = true, failed = true, stopped = true, declined = true }

--- May a run in this state be passed over for a newer one of the same runbook and parameters? Only when it has changed nothing
--- and nobody works on it. One that waits is waited for.
---@param state string
---@return boolean
function states.gives_way(state)
  return GIVES_WAY[state] or false
end

--- The state after an event; nil when the table does not list it.
---@param kind "run"|"step"|"unit"|"effect"|"obligation"|"job"
---@param state string?  nil: the first one
---@param event string
---@return string? next_state
function states.after(kind, state, event)
  local m = states[kind]
  return m.events[state or m.first][event]
end

return states
