--- Closing a hub and opening it again.
---
--- The way back never lives on one computer only: before its first change a closing writes ConfigMap `runbook-freeze` into the
--- hub's namespace, with every object as it was and the kubectl lines that reopen it.

local difference = require "runbook.kube.difference"
local discovery = require "runbook.kube.discovery"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local handle = require "runbook.hub.handle"
local json = require "runbook.json"
local lock = require "runbook.lock"
local options = require "runbook.options"
local page = require "runbook.hub.page"
local task = require "runbook.core.task"
local steps = require "runbook.handle"
local time = require "runbook.core.time"

local Hub = handle.Hub

local closing = {}

local READY = 300 -- seconds for the page's pod
local COUNTED = 60 -- seconds until a quota is in force

local function run_name()
  local session = task.context().session
  return session and session.journal and session.name or "ad-hoc"
end

local function run_id()
  local session = task.context().session
  return session and session.journal and session.journal.meta.id or "ad-hoc"
end

-- Kubernetes 1.30 and newer can say what may not start, and why; nil on older ones.
local function policy_of(hub)
  local ok, found = xpcall(effect.reading, errors.handler, discovery.of, hub.cluster, "admissionregistration.k8s.io/v1",
    "ValidatingAdmissionPolicy")
  return ok and found and ("%s-%s"):format(handle.FREEZE, hub.namespace) or nil
end

-- ---- what reopens it ----

-- A backend of an Ingress, in whatever version of the API it is.
local function to_page(backend)
  if backend.service then
    return { service = { name = page.NAME, port = { name = "http" } } }
  end
  return { serviceName = page.NAME, servicePort = "http" }
end

-- Merged over another port: that has a name or a number, never both.
local function merged_port(backend)
  local port = backend.service and backend.service.port
  if port then
    port.name, port.number = port.name or json.null, port.number or json.null
  end
  return backend
end

-- The spec as it is to be merged over what is there.
local function each_backend(ingress, fn)
  local spec = difference.copy(ingress.spec)
  for _, key in ipairs { "defaultBackend", "backend" } do
    spec[key] = spec[key] and merged_port(fn(spec[key]))
  end
  for _, rule in ipairs(spec.rules or {}) do
    for _, path in ipairs(rule.http and rule.http.paths or {}) do
      path.backend = fn(path.backend)
    end
  end
  return spec
end

local function as_it_is(backend)
  return backend
end

local function leads_to_page(ingress)
  local all, any = true, false
  each_backend(ingress, function(backend)
    any = true
    all = all and (backend.serviceName or backend.service and backend.service.name) == page.NAME
    return backend
  end)
  return any and all
end

local function front_of(hub)
  local ingress = hub:find("Ingress", "jupyterhub")
  return ingress, not ingress and hub:get("Service", "proxy-public") or nil
end

-- Service proxy-public as it can be made again: its address and ports were the cluster's choice.
local function proxy_of(hub)
  local service = hub:find("Service", "proxy-public")
  if service == nil then
    return nil
  end
  service = difference.strip(service)
  service.spec.clusterIP, service.spec.clusterIPs, service.spec.healthCheckNodePort = nil, nil, nil
  for _, port in ipairs(service.spec.ports or {}) do
    port.nodePort = nil
  end
  return service
end

-- Of an Ingress what a closing changes.
local function spec_to_merge(ingress)
  local spec = each_backend(ingress, as_it_is)
  return { rules = spec.rules, defaultBackend = spec.defaultBackend, backend = spec.backend }
end

-- What a person types to open the hub without us, in order.
local function lines_of(hub, ingress, service)
  local policy = policy_of(hub)
  local function kubectl(...)
    return hub.cluster:by_hand { "-n", hub.namespace, ... }
  end
  local lines = {
    ("To open %s again without the computer that closed it:"):format(hub.name), "",
    kubectl("delete", "resourcequota", handle.FREEZE, "--ignore-not-found"),
    kubectl("scale", "deployment/hub", "--replicas=1"),
    kubectl("rollout", "status", "deployment/hub"),
  }
  if policy then
    lines[#lines + 1] = hub.cluster:by_hand { "delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", policy,
      "--ignore-not-found" }
  end
  if ingress then
    lines[#lines + 1] = kubectl("patch", "ingress", "jupyterhub", "--type", "merge", "-p", json.encode { spec = spec_to_merge(ingress) })
  elseif service then
    lines[#lines + 1] = kubectl("patch", "service", "proxy-public", "--type", "json", "-p",
      json.encode(json.array { { op = "replace", path = "/spec/selector", value = service.spec.selector } }))
  end
  lines[#lines + 1] = ("if ! %s; then %s | %s; fi"):format(kubectl("get", "service", "proxy-public"),
    kubectl("get", "configmap", handle.FREEZE, "-o", "jsonpath={.data.proxy\\.json}"), kubectl("create", "-f", "-"))
  lines[#lines + 1] = kubectl("delete", "deployment,service,configmap", page.NAME, "--ignore-not-found")
  lines[#lines + 1] = kubectl("delete", "configmap", handle.FREEZE)
  return table.concat(lines, "\n") .. "\n"
end

-- Who is in the database: it cannot be read any more when the hub is stopped.
local function names_of_users(hub, replicas)
  local list = json.array {}
  if replicas > 0 then
    for i, person in ipairs(hub:users()) do
      list[i] = { id = person.id, name = person.name }
    end
  end
  return list
end

-- Written before the first change; what an earlier step of the same run wrote stays as it is: it was before the change.
local function leave_the_way_back(hub)
  hub.cluster:lock { namespace = hub.namespace }
  local found = hub:freeze()
  if found then
    local owner = found.data and found.data.run
    if not handle.is_ours(found) then
      errors.raise {
        kind = "conflict", code = "EFROZEN", target = hub.name,
        message = ("it is closed already, by run %s since %s"):format(owner or "unknown", found.data and found.data.at or "unknown"),
        hint = "that run's `resume` or `rollback` goes on; without its computer, this says how to reopen it: "
          .. hub.cluster:by_hand { "-n", hub.namespace, "get", "configmap", handle.FREEZE, "-o", "jsonpath={.data.README}" },
      }
    end
    return
  end
  local ingress, service = front_of(hub)
  local _, replicas = hub:deployment()
  hub.cluster:apply { -- which may be done again when nobody knows whether it was; the lease keeps others away
    apiVersion = "v1", kind = "ConfigMap",
    metadata = { name = handle.FREEZE, namespace = hub.namespace, labels = { ["app.kubernetes.io/managed-by"] = "runbook" } },
    data = {
      README = lines_of(hub, ingress, service),
      run = run_name(),
      id = run_id(),
      holder = lock.holder(),
      at = os.date("!%Y-%m-%dT%H:%M:%SZ", math.floor(time.utc())),
      ["front.json"] = json.encode(difference.strip(ingress or service)),
      ["proxy.json"] = json.encode(proxy_of(hub) or json.object {}),
      ["users.json"] = json.encode(names_of_users(hub, replicas)),
      replicas = tostring(replicas),
    },
  }
end

-- ---- servers ----

local function is_server(pod)
  return (pod.metadata.labels or {}).component == "singleuser-server"
end

-- The pods that are there and are nobody's server: that many may be, so that one of them that dies comes back, and no
-- server starts beside them. Running servers are not touched by a quota.
local function block_by_quota(hub)
  local count = 0
  hub.cluster:each({ kind = "Pod", namespace = hub.namespace }, function(pod)
    if not is_server(pod) and pod.status.phase ~= "Succeeded" and pod.status.phase ~= "Failed" then
      count = count + 1
    end
  end)
  hub.cluster:apply {
    apiVersion = "v1", kind = "ResourceQuota", metadata = { name = handle.FREEZE, namespace = hub.namespace },
    spec = { hard = { pods = tostring(count) } },
  }
  -- Until its controller has counted, a server that is started now would still be let in.
  hub.cluster:wait { kind = "ResourceQuota", name = handle.FREEZE, namespace = hub.namespace, timeout = COUNTED, is = function(quota)
    local status = quota.status
    return status and status.hard and status.hard.pods == tostring(count) and status.used ~= nil or "it is not counted yet"
  end }
end

-- They belong to the whole cluster; a quota takes rights in the hub's namespace only.
local function may_make_policies(hub)
  for _, resource in ipairs { "validatingadmissionpolicies", "validatingadmissionpolicybindings" } do
    for _, verb in ipairs { "get", "patch", "delete" } do
      if not hub.cluster:can { verb, resource } then
        return false
      end
    end
  end
  return true
end

local function block_by_policy(hub, name)
  hub.cluster:apply { {
    apiVersion = "admissionregistration.k8s.io/v1", kind = "ValidatingAdmissionPolicy", metadata = { name = name },
    spec = {
      failurePolicy = "Fail",
      matchConstraints = {
        namespaceSelector = { matchLabels = { ["kubernetes.io/metadata.name"] = hub.namespace } },
        objectSelector = { matchLabels = { component = "singleuser-server" } },
        resourceRules = { { apiGroups = { "" }, apiVersions = { "v1" }, operations = { "CREATE" }, resources = { "pods" } } },
      },
      validations = { { expression = "false", message = "this hub is closed for maintenance; no server starts now" } },
    },
  }, {
    apiVersion = "admissionregistration.k8s.io/v1", kind = "ValidatingAdmissionPolicyBinding", metadata = { name = name },
    spec = { policyName = name, validationActions = { "Deny" } },
  } }
end

-- The page stands before anything is closed, so that closing is one change.
local function put_up_page(hub, text)
  local deployment, _, own = hub:deployment()
  hub.cluster:apply(page.objects { namespace = hub.namespace, image = own.image, run = run_name(),
    pull_secrets = deployment.spec.template.spec.imagePullSecrets, text = text })
  hub.cluster:wait { kind = "Deployment", name = page.NAME, namespace = hub.namespace, timeout = READY }
end

--- From now on no user's server starts; those that run go on, and the hub with them.
---@async
function Hub:block_servers()
  effect.part_of(self.name, "no server starts any more; those that run go on", function()
    leave_the_way_back(self)
    put_up_page(self)
    local policy = policy_of(self)
    if policy and may_make_policies(self) then
      block_by_policy(self, policy)
    else
      block_by_quota(self)
    end
  end)
end

-- ---- people ----

local check_close = options.declare("hub:close", {
  page = { "string", "what people see: `maintenance`, our page, or HTML of your own", default = "maintenance" },
  document = { "boolean", "the document's way: remove Service proxy-public, so that nothing answers", default = false },
})

local function lead_to_page(hub, ingress)
  if ingress == nil then
    hub.cluster:patch { kind = "Service", name = "proxy-public", namespace = hub.namespace,
      json = json.array {
        { op = "replace", path = "/spec/selector", value = { app = page.NAME } },
        { op = "replace", path = "/spec/ports/0/targetPort", value = "http" },
      } }
  elseif not leads_to_page(ingress) then
    hub.cluster:patch { kind = "Ingress", name = "jupyterhub", namespace = hub.namespace,
      merge = { spec = each_backend(ingress, to_page) } }
  end
end

local function close(hub, o)
  leave_the_way_back(hub)
  if o.document then
    hub.cluster:delete { kind = "Service", name = "proxy-public", namespace = hub.namespace }
  else
    put_up_page(hub, o.page ~= "maintenance" and o.page or nil)
    lead_to_page(hub, (front_of(hub)))
  end
end

--- People see a page instead of the hub. Its proxy stays, so that opening it again is one change.
---@async
---@param o? { page?: string, document?: boolean }
function Hub:close(o)
  o = check_close(o or {}, 2)
  local name = o.document and "Service proxy-public goes, and nothing answers any more" or "people get a page that says 503"
  effect.part_of(self.name, name, close, self, o)
end

-- ---- is it still? ----

--- Is it our page that people get where they would get the hub?
---@async
---@return boolean
function Hub:shows_page()
  local ingress, service = self:find("Ingress", "jupyterhub"), self:find("Service", "proxy-public")
  if ingress then
    return leads_to_page(ingress)
  end
  return service ~= nil and (service.spec.selector or {}).app == page.NAME
end

-- Who changed an object last, as the API server keeps it.
local function last_change(object)
  local last
  for _, entry in ipairs(object.metadata.managedFields or {}) do
    if entry.time and (not last or entry.time > last.time) then
      last = entry
    end
  end
  return last and (" (last changed by %s at %s)"):format(last.manager, last.time) or ""
end

local function opened(hub, problems)
  local ingress = hub:find("Ingress", "jupyterhub")
  local service = hub:find("Service", "proxy-public")
  if ingress and service and not leads_to_page(ingress) then -- without its proxy it leads nowhere
    problems[#problems + 1] = "Ingress jupyterhub leads to the hub again" .. last_change(ingress)
  elseif not ingress and service and (service.spec.selector or {}).app ~= page.NAME then
    problems[#problems + 1] = "Service proxy-public leads to the hub again" .. last_change(service)
  end
end

local check_closed = options.declare("hub:must_be_closed", {
  since = { "any", "what `stop_hub` returned, or the handle of the step that did: nobody may have touched the hub since", optional = true },
})

-- Somebody opened it and closed it again: what people did meanwhile was copied by nobody.
local function touched_since(hub, deployment, since)
  local was, now = steps.resolve(since), deployment.metadata.generation
  if was and not effect.planning() and was ~= now then
    errors.raise {
      kind = "conflict", code = "ETOUCHED", target = hub.name,
      message = ("Deployment hub was changed since the hub was stopped%s: people may have worked there meanwhile"):format(
        last_change(deployment)),
      hint = "have it all done again: runbook resume --again drain --again save-database --again final --again verify",
    }
  end
end

--- Raises, with who did it, when the hub is open again or starting: a deployment by CI, a colleague, or a user's server; with
--- `since`, when it was meanwhile.
---@async
---@param o? { since?: any }
function Hub:must_be_closed(o)
  o = check_closed(o or {}, 2)
  local problems, frozen = {}, self:freeze()
  if not frozen and effect.planning() then
    return -- what closes it is planned as well
  elseif not frozen then
    problems[1] = ("ConfigMap %s is gone"):format(handle.FREEZE)
  end
  opened(self, problems)
  local deployment, replicas = self:deployment()
  if replicas > 0 then
    problems[#problems + 1] = "Deployment hub has replicas again" .. last_change(deployment)
  end
  for _, pod in ipairs(self.cluster:list { kind = "Pod", namespace = self.namespace, labels = "component=singleuser-server" }) do
    problems[#problems + 1] = ("server %s runs"):format(pod.metadata.name)
  end
  if #problems > 0 then
    errors.raise {
      kind = "conflict", code = "EOPENED", target = self.name,
      message = "somebody opened it while it has to be closed: " .. table.concat(problems, "; "),
      hint = "find out who deploys to it (CI, mostly) and stop that; then close it again: "
        .. "`runbook resume --again freeze --again drain`, and what follows these",
    }
  end
  touched_since(self, deployment, o.since)
end

-- After the document's way.
local function make_proxy_again(hub, frozen)
  local proxy = frozen and frozen.data["proxy.json"] and json.decode(frozen.data["proxy.json"])
  if proxy and proxy.kind and not hub:find("Service", "proxy-public") then
    hub.cluster:apply(proxy)
  end
end

-- In a plan nothing is closed yet: what it will be opened from is as it is.
local function front_before(hub, found)
  if found and found.data["front.json"] then
    return json.decode(found.data["front.json"])
  elseif effect.planning() then
    local ingress, service = front_of(hub)
    return ingress or service
  end
end

local function unblock(hub)
  local found = hub:freeze()
  make_proxy_again(hub, found)
  local front = front_before(hub, found)
  if front and front.kind == "Ingress" then
    hub.cluster:patch { kind = "Ingress", name = "jupyterhub", namespace = hub.namespace,
      merge = { spec = each_backend(front, as_it_is) } }
  elseif front then
    hub.cluster:patch { kind = "Service", name = "proxy-public", namespace = hub.namespace, json = json.array {
      { op = "replace", path = "/spec/selector", value = front.spec.selector },
      { op = "replace", path = "/spec/ports", value = front.spec.ports },
    } }
  end
  hub:forget_closing()
end

--- Let people's servers start, and people in: undo of `block_servers` and `close` as a step of its own.
---@async
function Hub:unblock_servers()
  effect.part_of(self.name, "servers may start, and people are let in", unblock, self)
end

--- Remove what a closing put up: what keeps servers from starting, the page, and ConfigMap `runbook-freeze`. A hub that is
--- stopped stays so, and nothing says any more how to open it.
---@async
function Hub:forget_closing()
  local policy = policy_of(self)
  for _, kind in ipairs(policy and { "ValidatingAdmissionPolicyBinding", "ValidatingAdmissionPolicy" } or {}) do
    local ok, found = xpcall(self.cluster.find, errors.handler, self.cluster, { kind = kind, name = policy })
    if ok and found then
      self.cluster:delete { kind = kind, name = policy }
    elseif not ok and not errors.is(found, "refused") then -- who may not even look has made none
      error(found, 0)
    end
  end
  for _, one in ipairs {
    { "ResourceQuota", handle.FREEZE }, { "Deployment", page.NAME }, { "Service", page.NAME }, { "ConfigMap", page.NAME },
    { "ConfigMap", handle.FREEZE },
  } do
    if self:find(one[1], one[2]) then
      self.cluster:delete { kind = one[1], name = one[2], namespace = self.namespace }
    end
  end
end

return closing
