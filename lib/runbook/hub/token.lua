--- Tokens of a hub's REST API: one that may do what is needed, made for the moment where there is none.

local digest = require "runbook.core.digest"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local obligation = require "runbook.obligation"
local secret = require "runbook.secret"
local task = require "runbook.core.task"
local time = require "runbook.core.time"

local token = {}

local CONFIG = "/usr/local/etc/jupyterhub/jupyterhub_config.py" -- where every chart's version has it
local LASTS = 3600 -- seconds; whoever forgets it, the hub does not
local NO_ADMIN = 3

-- $1 the hub's configuration. As `jupyterhub token` opens the database, whichever it is.
local OPEN = [[
import sys
from jupyterhub import orm
from jupyterhub.app import JupyterHub
hub = JupyterHub()
hub.load_config_file(sys.argv[1])
hub.init_db()
]]

-- $2 a note, $3 seconds, then scopes; the token on stdin. Hubs before 3.0 make no tokens that may do less than their owner.
local MINT = OPEN .. [[
admin = hub.db.query(orm.User).filter_by(admin=True).order_by(orm.User.id).first()
if admin is None:
    sys.exit(3)
given = {"token": sys.stdin.read().strip(), "note": sys.argv[2], "expires_in": int(sys.argv[3])}
try:
    admin.new_api_token(scopes=sys.argv[4:], **given)
except TypeError:
    admin.new_api_token(**given)
]]

-- $2 the note.
local REMOVE = OPEN .. [[
for one in hub.db.query(orm.APIToken).filter_by(note=sys.argv[2]):
    hub.db.delete(one)
hub.db.commit()
]]

local function must_succeed(at, what, o)
  local status, _, stderr = at:exec(o)
  if status ~= 0 then
    errors.raise { kind = "exit", status = status, target = at.name, stderr = stderr,
      message = status == NO_ADMIN and "the hub has no admin, for whom a token could be made" or what }
  end
end

local removal = obligation.kind("hub-token", function(what)
  if time.utc() < what.ends then
    local at = what.cluster:container { deployment = "hub", container = "hub", namespace = what.namespace }
    must_succeed(at, "the token could not be removed", { "python3", "-c", REMOVE, what.config, what.note })
  end
end, function(what) return ("remove token `%s` of the hub in %s"):format(what.note, what.namespace) end)

local mint = effect.verb {
  name = "hub.make_token", class = "change", owed = true, repeatable = true,
  target = function(hub) return hub.name end,
  summary = function() return "make a token of the hub's API, for an hour at most" end,
  by_hand = function(hub) return hub:container():by_hand { "jupyterhub", "token", "ADMIN" } end,
  body = function(hub, made, what, scopes)
    must_succeed(hub:container(), "no token could be made",
      { argv = table.move(scopes, 1, #scopes, 7, { "python3", "-c", MINT, what.config, what.note, ("%d"):format(LASTS) }), stdin = made })
  end,
}

-- The file of `jupyterhub --config FILE`, as the deployment says it.
local function config_of(hub)
  local _, _, own = hub:deployment()
  local words = table.move(own.args or {}, 1, #(own.args or {}), #(own.command or {}) + 1, { table.unpack(own.command or {}) })
  for i, word in ipairs(words) do
    local path = word:match "^%-%-config=(.+)$" or (word == "--config" or word == "-f") and words[i + 1]
    if path then
      return path
    end
  end
  return CONFIG
end

--- Tokens that may be tried: what the hub's parameter names, and no other; else those of services of its own configuration.
---@async
---@param hub runbook.Hub
---@return { who: string, token: runbook.secret }[]
function token.known(hub)
  if hub.token then
    return { { who = "the token of this hub's parameters", token = hub.token } }
  end
  local list = {}
  for key, value in pairs(hub:get("Secret", "hub").data or {}) do
    local service = key:match "^hub%.services%.(.+)%.apiToken$"
    if service and secret.is(value) then
      list[#list + 1] = { who = "service " .. service, token = value }
    end
  end
  table.sort(list, function(a, b) return a.who < b.who end)
  return list
end

--- Call fn(token) with one that is made in the hub's pod, for an admin, and removed again however that ends.
---@async
---@param hub runbook.Hub
---@param scopes string[]
---@param fn async fun(made: runbook.secret): any
---@return any result
function token.with_made(hub, scopes, fn)
  local made = secret.new("token of " .. hub.name, digest.hex(digest.random(32)))
  local note = ("runbook %s %s"):format(task.context().run_id or "ad-hoc", digest.hex(digest.random(4)))
  local what = { cluster = hub.cluster, namespace = hub.namespace, note = note, config = config_of(hub), ends = time.utc() + LASTS }
  return removal:owe(what):after(function()
    mint(hub, made, what, scopes)
    return fn(made)
  end)
end

return token
