--- The language of runbooks.
---
---     local rb = require "runbook"
---     local p = rb.params { { "host", "host", "where" } }
---     rb.step("update", "Update the packages", function() p.host:run { "apt-get", "update" } end)

local effect = require "runbook.effect"
local errors = require "runbook.errors"
local events = require "runbook.events"
local book = require "runbook.book"
local json = require "runbook.json"
local options = require "runbook.options"
local task = require "runbook.core.task"

local rb = {}

--- The null of JSON and YAML, which a Lua table cannot hold as nil.
rb.null = json.null

--- Mark a table as a list, so that an empty one stays one.
---@param t? any[]
---@return any[]
function rb.list(t)
  return json.array(t or {})
end

--- Declare the parameters: an ordered list of { name, type, help, default =, optional =, choices = }. What has neither
--- `default` nor `optional` is required.
---@param declaration table[]
---@return table values  by name; values of rich types are handles
function rb.params(declaration)
  return book.loading("rb.params", 2):parameters(declaration, 2)
end

local step_options = options.declare("rb.step", {
  when = { "any", "a value or function; false: the step is skipped", optional = true },
  check = { "function", "returns true when the work is done already", optional = true },
  guard = { "function", "reads that must hold just before", optional = true },
  disrupts = { "string|function", "who is hurt; asks first", optional = true },
  verify = { "function", "reads that must hold afterwards", optional = true },
  undo = { "function", "instead of the inverses of its effects, which it may call: it gets a function that does them", optional = true },
  undo_guard = { "function", "reads: does undoing lose someone's work? Raises, or returns rows for a question", optional = true },
  fresh = { "string|number", "an older outcome is done again on resume", optional = true },
  timeout = { "string|number", "for all tries together", optional = true },
  again = { "boolean", "may be run after half of itself", optional = true },
})

--- Declare a step. Order of what is called: when, check, guard, the question, body, verify.
---@param id string
---@param title string
---@param opts? table  everyday: guard, disrupts, fresh, when; rarely: check, verify, undo, undo_guard, timeout, again
---@param body function  what it returns (nil, booleans, numbers, strings, tables of them) is kept
---@return function handle  called later, gives what the body returned
function rb.step(id, title, opts, body)
  if body == nil then
    opts, body = {}, opts
  end
  local loading = book.loading("rb.step", 2)
  if type(title) ~= "string" or type(body) ~= "function" then
    errors.raise({ kind = "usage", message = "rb.step takes an id, a title, perhaps options, and a function" }, 2)
  end
  opts = step_options(opts, 2)
  return loading:add({ kind = "step", id = id, title = title, options = opts, body = body }, 2).handle
end

--- Declare checks: groups of { title, function }. All run at every start and every resume, and all findings are shown
--- together; what a check returns is good to know, what it raises stops the run. It returns a text, a text with a table
--- (`{ text =, table = }`, see events.table), or a list of these.
---@param id string
---@param title string
---@param ... table[]
function rb.checks(id, title, ...)
  local loading = book.loading("rb.checks", 2)
  local list = {}
  for _, group in ipairs { ... } do
    for _, check in ipairs(group) do
      list[#list + 1] = check
    end
  end
  loading:add({ kind = "checks", id = id, title = title, options = {}, checks = list, groups = table.pack(...) }, 2)
end

local manual_options = options.declare("rb.manual", {
  text = { "string", "what the person has to do", optional = true },
  when = { "any", "a value or function; false: skipped", optional = true },
  check = { "function", "returns true when it is done already", optional = true },
  guard = { "function", "reads that must hold just before", optional = true },
  disrupts = { "string|function", "who is hurt; shown with the question", optional = true },
  verify = { "function", "reads that must hold afterwards", optional = true },
  fresh = { "string|number", "an older answer is asked for again", optional = true },
})

--- Declare a step that a person does; who and when is kept.
---@param id string
---@param title string
---@param opts? table  text, when, check, guard, disrupts, verify, fresh
function rb.manual(id, title, opts)
  local loading = book.loading("rb.manual", 2)
  return loading:add({ kind = "manual", id = id, title = title, options = manual_options(opts, 2) }, 2).handle
end

local pause_options = options.declare("rb.pause", {
  starts = { "any", "not before this time", optional = true },
  text = { "string", "what to do meanwhile", optional = true },
  when = { "any", "a value or function; false: skipped", optional = true },
})

--- Declare a pause: the process ends with exit code 5 and the command that goes on.
---@param id string
---@param title string
---@param opts? { starts?: number|string, text?: string }
function rb.pause(id, title, opts)
  local loading = book.loading("rb.pause", 2)
  loading:add({ kind = "pause", id = id, title = title, options = pause_options(opts, 2) }, 2)
end

--- A heading for views, plans and progress.
---@param title string
function rb.section(title)
  book.loading("rb.section", 2):add({ kind = "section", title = title }, 2)
end

--- Add the steps of another file as `group/id`.
---@param path string  beside this file, or a built-in procedure
---@param group string
function rb.include(path, group)
  book.loading("rb.include", 2):include(path, group, 2)
end

--- A script without steps: one step called `main`.
---@param fn function
function rb.main(fn)
  local loading = book.loading("rb.main", 2)
  loading:add({ kind = "step", id = "main", title = loading.title, options = { again = true }, body = fn }, 2)
end

local each_options = options.declare("rb.each", {
  limit = { "integer", "how many at a time", default = 1 },
  key = { "function", "(item) -> its name in the journal", optional = true },
})

--- Do something to every item, as units of the running step: each is kept by its key, failures are collected and raised at the
--- end, and a resume does only what is not done.
---@async
---@param items any[]
---@param opts? { limit?: integer, key?: fun(item): string }
---@param fn async fun(item: any, index: integer): any
---@return table results  by key
function rb.each(items, opts, fn)
  if fn == nil then
    opts, fn = {}, opts
  end
  opts = each_options(opts, 2)
  local session = task.context().session
  if session == nil then
    errors.raise({ kind = "usage", message = "rb.each belongs into the body of a step" }, 2)
  end
  return session:each(items, opts, fn)
end

--- Keep data with the run, and write it to a file for people.
---@async
---@param content string|table  a table is written as JSON
---@param file string
function rb.attach(content, file)
  return require("runbook.attachment").attach(content, file)
end

--- Take a lock on what will be written; held until the run ends. Another run that holds it stops this one with exit 75.
---@async
---@param where table  a directory of a place (`p.to`), or a place
---@param name? string  for a place: what is locked
function rb.lock(where, name)
  return require("runbook.lock").take(where, name)
end

local function tried(ok, value, ...)
  if ok then
    return value, ...
  elseif errors.is_cancelled(value) or errors.is(value) and value.plan_end then
    error(value, 0)
  end
  return nil, value
end

--- Call a function and take its failure as a value; nothing else swallows errors.
---@async
---@param fn function
---@return any value  nil when it failed
---@return runbook.Error? err
function rb.try(fn, ...)
  return tried(xpcall(fn, errors.handler, ...))
end

--- Declare a kind of obligation: what a run made and must remove. `fn(data)` removes it; already gone is success.
--- `says(data)` says what it removes, for `sweep --dry-run`; without it the data are shown.
---
---     local unmount = rb.obligation("unmount", function(o) o.place:run { "umount", o.path } end)
---     unmount:owe { place = p.to, path = "/mnt/new" }      -- before the thing is made
---@param kind string
---@param fn fun(data: table)
---@param says? fun(data: table): string
---@return table
function rb.obligation(kind, fn, says)
  return require("runbook.obligation").kind(kind, fn, says)
end

--- Say something to whoever watches. `print` is this.
function rb.say(...)
  local words = table.pack(...)
  for i = 1, words.n do
    words[i] = tostring(words[i])
  end
  events.emit { type = "say", text = table.concat(words, "\t", 1, words.n) }
end

--- Wait. A plan says so and does not wait.
---@async
---@param seconds number
function rb.sleep(seconds)
  effect.wait(("wait %g s"):format(seconds), task.sleep, seconds)
end

return rb
