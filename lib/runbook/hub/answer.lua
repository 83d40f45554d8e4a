--- Does a hub answer people? By the names they type, at the address those are to lead to.

local errors = require "runbook.errors"
local handle = require "runbook.hub.handle"
local http = require "runbook.http"
local options = require "runbook.options"
local page = require "runbook.hub.page"
local task = require "runbook.task"
local time = require "runbook.core.time"
local units = require "runbook.units"
local effect = require "runbook.effect"

local Hub = handle.Hub

local answer = {}

local PAUSE = 5 -- seconds between two tries
local ONE_TRY = 10

local check_answer = options.declare("hub:must_answer", {
  names = { "list", "what people type" },
  address = { "any", "where they are to lead: an IP address, or the name of a load balancer" },
  within = { "duration", "how long its certificate and its front may take", default = "10m" },
})

-- What is wrong with what came; nil when it is this hub's.
local function complaint_about(reply, frozen)
  local run = reply.headers[page.HEADER]
  if frozen then
    return run == nil and ("it answers %d, and not with this hub's page"):format(reply.status)
      or run ~= frozen.data.run and ("the page of another run answers: %s"):format(run) or nil
  elseif run ~= nil then
    return "the page of a closed hub answers"
  elseif reply.status ~= 200 then
    return ("it answers %d"):format(reply.status)
  end
  local ok, body = pcall(reply.json, reply)
  if not ok or type(body) ~= "table" or type(body.version) ~= "string" then
    return "what answers is no JupyterHub"
  end
end

-- A front that sends everybody to TLS is one, whoever has its certificate.
local function asks_for_tls(scheme, name, reply)
  local to = reply.status // 100 == 3 and scheme == "http" and reply.headers.location
  return to and to:lower():sub(1, #name + 8) == "https://" .. name:lower()
end

local ask
function ask(hub, scheme, name, address, frozen)
  local ok, reply = xpcall(http.request, errors.handler, {
    ("%s://%s%shub/api/"):format(scheme, name, hub:settings().base_url), connect_to = address, ca = hub.ca, tries = 1,
    timeout = ONE_TRY, follow = false, proxy = "",
  })
  if not ok then
    if errors.is_cancelled(reply) then
      error(reply, 0)
    end
    return reply.message
  elseif asks_for_tls(scheme, name, reply) then
    return ask(hub, "https", name, address, frozen)
  end
  return complaint_about(reply, frozen)
end

local function has_certificate(hub, name)
  local ingress = hub:find("Ingress", "jupyterhub")
  for _, tls in ipairs(ingress and ingress.spec.tls or {}) do
    for _, host in ipairs(tls.hosts or {}) do
      if host == name or host:sub(1, 2) == "*." and name:match "%.(.*)$" == host:sub(3) then
        return true
      end
    end
  end
  return false
end

--- Raises unless this hub answers by each of these names at that address: itself, or its page while it is closed; over TLS with
--- a certificate that holds, where its ingress has one. A new certificate may take minutes after its name was pointed.
---@async
---@param o { names: string[], address: string, within?: string|number }
function Hub:must_answer(o)
  o = check_answer(o, 2)
  local frozen = self:freeze()
  effect.wait(("until it answers at %s by %s"):format(tostring(o.address), table.concat(o.names, ", ")), function()
    for _, name in ipairs(o.names) do
      local scheme, deadline = has_certificate(self, name) and "https" or "http", time.now() + o.within
      local why = ask(self, scheme, name, o.address, frozen)
      while why do
        if time.now() >= deadline then
          errors.raise {
            kind = "timeout", code = "EANSWER", target = self.name,
            message = ("%s://%s at %s: %s"):format(scheme, name, o.address, why),
            hint = ("tried for %s: look at its ingress, and at the events of its certificate"):format(units.duration(o.within)),
          }
        end
        task.sleep(PAUSE)
        why = ask(self, scheme, name, o.address, frozen)
      end
    end
  end)
end

return answer
