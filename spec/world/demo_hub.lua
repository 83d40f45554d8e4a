-- demo_hub.lua - `make demo-hub`: a real JupyterHub with 20 users moves from one real Kubernetes cluster to another, and back:
-- what it would do, the move while people work, what they find afterwards, the report; then the way back, by the clock.
--
-- What a person would answer is given on the command line, so it runs by itself. Nothing is left behind but the report, in
-- build/demo-hub.

local task = require "runbook.core.task"
local telling = require "spec.world.telling"
local time = require "runbook.core.time"
local world = require "spec.world"

local USERS, RUNNING = 20, 4

local say = telling.say

local function tell(what, good, text)
  io.stdout:write(("%s  %-28s %s\n"):format(good and "ok" or "!!", what, text))
  return good
end

local function people_of(hub)
  local list = {}
  for _, user in ipairs(hub:api("GET", "/users?limit=200")) do
    table.sort(user.groups)
    list[#list + 1] = ("%s admin=%s groups=%s"):format(user.name, user.admin, table.concat(user.groups, ","))
  end
  table.sort(list)
  return table.concat(list, "\n")
end

-- Everybody logs in at the same name and finds a file of theirs.
local function everybody_is_there(hub)
  local found = 0
  for _, name in ipairs(hub.users) do
    hub:start_server(name)
    local browser = hub:login(name)
    browser:get(hub:page(name))
    local page = browser:get(hub:page(name, "api/contents/whose.txt"))
    found = found + (page:find('"content"', 1, true) and 1 or 0)
    hub:api("DELETE", ("/users/%s/server"):format((name:gsub("[^%w_.~@-]", function(c) return ("%%%02X"):format(c:byte()) end))))
  end
  return found
end

local function tokens_work(hub, tokens)
  local good, all = 0, 0
  for _, token in pairs(tokens) do
    local _, status = hub:api("GET", "/user", nil, token)
    good, all = good + (status == 200 and 1 or 0), all + 1
  end
  return good, all
end

local function left_behind(move)
  local list = {}
  for _, hub in ipairs { move.old, move.new } do
    local names = hub.cluster:kubectl { "-n", hub.namespace, "get", "configmap,resourcequota,deployment,service,lease,pod,secret", "-o", "name" }
    for name in names:gmatch "%S*runbook%S*" do
      list[#list + 1] = hub.namespace .. " " .. name
    end
    for name in names:gmatch "%S*%-kept%-%S*" do
      list[#list + 1] = hub.namespace .. " " .. name
    end
  end
  return list
end

-- Seconds from the command to a login page by the name.
local function time_back(move, argv)
  local began = time.now()
  telling.must(argv)
  world.wait_until("the login page", function()
    local _, code = move.old:curl { "-f", "-o", "/dev/null", move.old:url "/hub/login" }
    return code == 0
  end, 300)
  return time.now() - began
end

local function demo()
  say "Two clusters, a hub with people on one of them, an empty hub on the other, a file server for each, and a name"
  local move = world.moving { users = USERS, running = RUNNING }
  local before = people_of(move.old)
  say("%s leads to %s: %d users, %d servers running and writing", move.name, move.old.cluster.front, USERS, RUNNING)
  local folder = world.folder "demo-hub"
  local params, state = folder .. "/temple.yaml", { "--state", folder .. "/state" }
  world.write(params, move:parameters 'probes: [carla, "alice@uni.edu", "auth0|5f"]\n')
  local function words(...)
    local argv = { world.runbook, ... }
    return table.move(state, 1, 2, #argv + 1, argv)
  end

  say "What it would do; nothing is changed"
  telling.show { world.runbook, "plan", "move-hub.lua", "--params", params }
  say "The move, with the two answers a person would give"
  telling.must(words("run", "move-hub.lua", "--params", params, "--no-input", "--confirm", "freeze=temple", "--confirm", "open=temple",
    "--done", "announce=demo"))
  move.new.service_token, move.new.users, move.new.tokens = move.old.service_token, move.old.users, move.old.tokens

  say "What people find"
  local leads = move:address() == move.new.cluster.front
  local good, all = tokens_work(move.new, move.old.tokens)
  local homes = everybody_is_there(move.new)
  local there = people_of(move.new) == before
  local well = tell(move.name, leads, "leads to " .. move:address())
  well = tell("users, admins, groups", there, ("%d, as they were"):format(USERS)) and well
  well = tell("tokens", good == all, ("%d of %d still work"):format(good, all)) and well
  well = tell("homes", homes == USERS, ("%d of %d users log in and find their files"):format(homes, USERS)) and well

  say "The report: Markdown for a ticket, and one HTML file"
  world.must(("mkdir -p %s/demo-hub"):format(world.build)) -- it stays, to be looked at
  telling.must(words("show", "temple-1", "--report", "--output", world.build .. "/demo-hub"))

  say "And back: what people wrote meanwhile comes along"
  local seconds = time_back(move, words("rollback", "temple-1", "--no-input", "--confirm", "open=temple"))
  well = tell("the way back", true, ("%.0f s from the command to a login page"):format(seconds)) and well
  local left
  for _ = 1, 60 do -- pods take their time to end
    left = left_behind(move)
    if #left == 0 then
      break
    end
    task.sleep(1)
  end
  well = tell("left behind", #left == 0, #left == 0 and "nothing" or table.concat(left, ", ")) and well
  return well and 0 or 1
end

return telling.perform(demo)
