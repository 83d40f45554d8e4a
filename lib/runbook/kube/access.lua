--- What we may do there, asked before it is done: the server's own answer, and the rule that is missing.
---
---     if cluster:can { "patch", "deployments/scale", namespace = "prod" } then ... end
---     cluster:must_be_allowed { namespace = "prod", { "get", "pods" }, { "create", "pods/exec" }, { "patch", "deployments/scale" } }

local cluster = require "runbook.kube.cluster"
local discovery = require "runbook.kube.discovery"
local effect = require "runbook.effect"
local errors = require "runbook.errors"
local options = require "runbook.options"
local status = require "runbook.kube.status"
local task = require "runbook.task"

local Cluster = cluster.Cluster

local access = {}

local check_can = options.declare("cluster:can", {
  verb = { "string", "get, list, watch, create, update, patch, delete; may stand first", optional = true },
  resource = { "string", "a kind, or what kubectl takes, with its part behind a slash: pods/exec; may stand second", optional = true },
  namespace = { "string", "the context's, when missing", optional = true },
  all_namespaces = { "boolean", "in every namespace", optional = true },
  name = { "string", "of one object", optional = true },
})

local function attributes(self, o)
  local word, part = o.resource:match "^([^/]+)/?(.*)$"
  local resource = discovery.find(self, word)
  local namespace = resource.namespaced and not o.all_namespaces and (o.namespace or self:default_namespace()) or nil
  return { verb = o.verb, group = resource.group, resource = resource.plural, subresource = part ~= "" and part or nil,
    namespace = namespace, name = o.name }
end

local review = effect.verb {
  name = "kube.can", class = "read",
  target = function(self) return self.name end,
  summary = function(_, o) return ("may we %s %s?"):format(o.verb, o.resource) end,
  by_hand = function(self, o)
    local argv = { "auth", "can-i", o.verb, o.resource }
    if o.namespace then
      table.move({ "-n", o.namespace }, 1, 2, 5, argv)
    end
    return self:by_hand(argv)
  end,
  body = function(self, o)
    local what = attributes(self, o)
    local answer = self:send_json { method = "POST", path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", reads = true,
      json = { apiVersion = "authorization.k8s.io/v1", kind = "SelfSubjectAccessReview", spec = { resourceAttributes = what } } }
    return answer.status.allowed == true, answer.status.reason, what
  end,
}

local function check(o, level)
  o = check_can(o, level + 1)
  o.verb, o.resource = o.verb or o[1], o.resource or o[2]
  o[1], o[2] = nil, nil
  if type(o.verb) ~= "string" or type(o.resource) ~= "string" then
    errors.raise({ kind = "usage", message = 'cluster:can: takes a verb and a resource, like { "patch", "deployments/scale" }' }, level + 1)
  end
  return o
end

--- May we do this?
---@async
---@param o { verb: string, resource: string, namespace?: string, all_namespaces?: boolean, name?: string }
---@return boolean allowed
---@return string? reason
function Cluster:can(o)
  local allowed, reason = review(self, check(o, 2))
  return allowed, reason
end

local function resource_text(what)
  return what.subresource and what.resource .. "/" .. what.subresource or what.resource
end

-- One rule for all verbs of a resource, and the resources in the order they were asked for.
local function rules_of(missing)
  local list, by_key = {}, {}
  for _, what in ipairs(missing) do
    local key = ("%s\0%s\0%s"):format(what.namespace or "", what.group, resource_text(what))
    if not by_key[key] then
      by_key[key] = { group = what.group, resource = resource_text(what), verb = {}, namespace = what.namespace }
      list[#list + 1] = by_key[key]
    end
    table.insert(by_key[key].verb, what.verb)
  end
  return list
end

local function text_of(rules)
  local lines, last = {}, false
  for _, rule in ipairs(rules) do
    if rule.namespace ~= last then
      last = rule.namespace
      lines[#lines + 1] = last and ("in a Role of namespace %s:"):format(last) or "in a ClusterRole:"
    end
    lines[#lines + 1] = status.rule_text(rule)
  end
  return table.concat(lines, "\n")
end

--- Which of these we may not do.
---@async
---@param list table[]  { verb, resource, namespace =, name = } each; `namespace` beside them is theirs, when they say none
---@return table[] rules  group, resource, verb (a list), namespace; empty when all is allowed
---@return string text    the rules, as they are pasted into a Role
function Cluster:missing_rules(list)
  local answers = {}
  local asked = {}
  for i, one in ipairs(list) do
    local o = {}
    for key, value in pairs(one) do
      o[key] = value
    end
    o.namespace = o.namespace or list.namespace
    asked[i] = check(o, 2)
  end
  task.each(asked, { limit = 8 }, function(o, i)
    local allowed, _, what = review(self, o)
    answers[i] = not allowed and what
  end)
  local missing = {}
  for _, what in ipairs(answers) do
    missing[#missing + 1] = what or nil
  end
  local rules = rules_of(missing)
  return rules, text_of(rules)
end

--- Raise kind `refused` unless all of this is allowed, with the rules that are missing, to be pasted.
---@async
---@param list table[]  as for `missing_rules`
function Cluster:must_be_allowed(list)
  local rules, text = self:missing_rules(list)
  if #rules > 0 then
    local words = {}
    for i, rule in ipairs(rules) do
      words[i] = ("%s %s"):format(table.concat(rule.verb, ", "), rule.resource)
    end
    errors.raise { kind = "refused", code = "Forbidden", target = self.name, rules = rules,
      message = ("we may not: %s"):format(table.concat(words, "; ")), hint = "these rules are missing:\n" .. text }
  end
end

return access
