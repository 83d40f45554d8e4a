"""The objects of fake_kube.py: storage, ownership of fields, patches, who may what, and a shadow of the controllers."""

import base64
import copy
import datetime
import json
import re
import threading
import uuid

lock = threading.RLock()
changed = threading.Condition(lock)

# group, version, plural, kind, namespaced, short names, subresources
KINDS = [
    ("", "v1", "configmaps", "ConfigMap", True, ["cm"], []),
    ("", "v1", "events", "Event", True, ["ev"], []),
    ("", "v1", "namespaces", "Namespace", False, ["ns"], ["status"]),
    ("", "v1", "nodes", "Node", False, ["no"], ["status"]),
    ("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", True, ["pvc"], ["status"]),
    ("", "v1", "pods", "Pod", True, ["po"], ["log", "exec", "status"]),
    ("", "v1", "secrets", "Secret", True, [], []),
    ("", "v1", "serviceaccounts", "ServiceAccount", True, ["sa"], []),
    ("", "v1", "services", "Service", True, ["svc"], ["status"]),
    ("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False, ["crd"], ["status"]),
    ("apps", "v1", "deployments", "Deployment", True, ["deploy"], ["scale", "status"]),
    ("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", False, [], []),
    ("batch", "v1", "jobs", "Job", True, [], ["status"]),
    ("coordination.k8s.io", "v1", "leases", "Lease", True, [], []),
    ("networking.k8s.io", "v1", "ingresses", "Ingress", True, ["ing"], ["status"]),
    ("rbac.authorization.k8s.io", "v1", "roles", "Role", True, [], []),
    ("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", True, [], []),
]
TOP = {"apiVersion", "kind", "metadata", "spec", "status"}
FIELDS = {"ConfigMap": {"apiVersion", "kind", "metadata", "data", "binaryData", "immutable"},
          "Secret": {"apiVersion", "kind", "metadata", "data", "stringData", "type", "immutable"},
          "Role": {"apiVersion", "kind", "metadata", "rules"},
          "RoleBinding": {"apiVersion", "kind", "metadata", "roleRef", "subjects"},
          "ServiceAccount": {"apiVersion", "kind", "metadata", "secrets", "imagePullSecrets", "automountServiceAccountToken"},
          "Event": None}
MOUNT = {"name", "mountPath", "readOnly", "subPath", "mountPropagation", "subPathExpr"}

version = 100
objects = {}    # (group, plural) -> {(namespace, name): object}
history = {}    # (group, plural) -> [(version, type, object)]
oldest = 0      # versions before it are forgotten
snapshots = {}  # of paged lists
faults = []     # {match, status, headers, body, times, cut}


class Refusal(Exception):
    def __init__(self, code, reason, message, details=None, headers=None, metadata=None):
        super().__init__(message)
        self.code, self.headers = code, headers or {}
        self.status = {"kind": "Status", "apiVersion": "v1", "metadata": metadata or {}, "status": "Failure", "message": message,
                       "reason": reason, "code": code, "details": details or {}}


def now():
    return datetime.datetime.utcnow().strftime("%Y-%m-%dT%H:%M:%SZ")


def kind_of(group, plural):
    for k in KINDS:
        if (k[0], k[2]) == (group, plural):
            return k
    for crd in objects.get(("apiextensions.k8s.io", "customresourcedefinitions"), {}).values():
        spec = crd["spec"]
        if (spec["group"], spec["names"]["plural"]) == (group, plural):
            return crd_kind(crd)
    return None


def crd_kind(crd):
    spec = crd["spec"]
    return (spec["group"], spec["versions"][0]["name"], spec["names"]["plural"], spec["names"]["kind"],
            spec["scope"] == "Namespaced", spec["names"].get("shortNames", []), [])


def all_kinds():
    crds = objects.get(("apiextensions.k8s.io", "customresourcedefinitions"), {})
    return KINDS + [crd_kind(c) for c in crds.values()]


# ---- storage ----

def note(kind, event, obj):
    global version
    version += 1
    obj["metadata"]["resourceVersion"] = str(version)
    history.setdefault((kind[0], kind[2]), []).append((version, event, copy.deepcopy(public(obj))))
    changed.notify_all()


def public(obj):
    return {k: v for k, v in obj.items() if not k.startswith("_")}


def table(kind):
    return objects.setdefault((kind[0], kind[2]), {})


def key_of(obj):
    return (obj["metadata"].get("namespace") or "", obj["metadata"]["name"])


def store_new(kind, obj):
    m = obj["metadata"]
    if key_of(obj) in table(kind):
        raise Refusal(409, "AlreadyExists", '%s "%s" already exists' % (full(kind), m["name"]), {"name": m["name"], "kind": kind[2]})
    if kind[4] and ("", m["namespace"]) not in table(kind_of("", "namespaces")):
        raise Refusal(404, "NotFound", 'namespaces "%s" not found' % m["namespace"])
    m.update(uid=str(uuid.uuid4()), creationTimestamp=now(), generation=1)
    table(kind)[key_of(obj)] = obj
    shadow(kind, obj)
    note(kind, "ADDED", obj)


def store_changed(kind, old, obj):
    if {k: v for k, v in public(old).items() if k != "metadata"} != {k: v for k, v in public(obj).items() if k != "metadata"} \
            and old.get("spec") != obj.get("spec"):
        obj["metadata"]["generation"] = old["metadata"].get("generation", 1) + 1
    obj["metadata"].update(uid=old["metadata"]["uid"], creationTimestamp=old["metadata"]["creationTimestamp"])
    if old["metadata"].get("deletionTimestamp"):
        obj["metadata"]["deletionTimestamp"] = old["metadata"]["deletionTimestamp"]
    table(kind)[key_of(obj)] = obj
    shadow(kind, obj)
    if without_version(public(old)) == without_version(public(obj)) and old.get("_owners") == obj.get("_owners"):
        obj["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
        return
    note(kind, "MODIFIED", obj)
    if obj["metadata"].get("deletionTimestamp") and not obj["metadata"].get("finalizers"):
        forget(kind, obj)


def without_version(obj):
    obj = copy.deepcopy(obj)
    for field in ("resourceVersion", "managedFields", "generation"):
        obj["metadata"].pop(field, None)
    return obj


def forget(kind, obj):
    table(kind).pop(key_of(obj), None)
    note(kind, "DELETED", obj)
    for other in all_kinds():
        for child in list(table(other).values()):
            if any(o["uid"] == obj["metadata"]["uid"] for o in child["metadata"].get("ownerReferences", [])) \
                    or kind[2] == "namespaces" and child["metadata"].get("namespace") == obj["metadata"]["name"]:
                forget(other, child)


def full(kind):
    return kind[2] + ("." + kind[0] if kind[0] else "")


def find(kind, namespace, name):
    obj = table(kind).get((namespace or "", name))
    if obj is None:
        raise Refusal(404, "NotFound", '%s "%s" not found' % (full(kind), name), {"name": name, "kind": kind[2]})
    return obj


# ---- what controllers would do ----

def pod_status(spec):
    c = spec["containers"][0]
    image, text = c.get("image", ""), " ".join(c.get("command", []))
    base = {"name": c["name"], "image": image, "restartCount": 0}
    if image.startswith("nope"):
        return "Pending", dict(base, ready=False, state={"waiting": {"reason": "ErrImagePull", "message": "no such image " + image}})
    ends = re.search(r"exit (\d+)", text)
    if ends or "sleep" not in text and text:
        code = int(ends.group(1)) if ends else 0
        reason = "Error" if code else "Completed"
        return ("Failed" if code else "Succeeded"), dict(base, ready=False, state={"terminated": {"exitCode": code, "reason": reason}})
    return "Running", dict(base, ready=True, state={"running": {"startedAt": now()}})


def shadow(kind, obj):
    if kind[3] == "Pod" and "status" not in obj:
        phase, container = pod_status(obj["spec"])
        ready = "True" if phase == "Running" else "False"
        obj["status"] = {"phase": phase, "containerStatuses": [container], "conditions": [{"type": "Ready", "status": ready}]}
    elif kind[3] == "Namespace":
        obj.setdefault("status", {"phase": "Active"})
    elif kind[3] == "CustomResourceDefinition":
        obj["status"] = {"conditions": [{"type": "Established", "status": "True"}]}
    elif kind[3] == "Deployment":
        shadow_deployment(obj)
    elif kind[3] == "Job" and "status" not in obj:
        obj["status"] = {}
        pod = make_pod(obj, obj["metadata"]["name"] + "-0", dict(obj["spec"]["template"]["metadata"].get("labels", {}) if
                       "metadata" in obj["spec"]["template"] else {}, **{"job-name": obj["metadata"]["name"]}))
        obj["spec"]["selector"] = {"matchLabels": {"job-name": obj["metadata"]["name"]}}
        good = pod["status"]["phase"] == "Succeeded"
        obj["status"]["conditions"] = [{"type": "Complete" if good else "Failed", "status": "True", "message":
                                        "" if good else "Job has reached the specified backoff limit"}]


def make_pod(owner, name, labels):
    m = owner["metadata"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": m["namespace"], "labels": labels,
           "ownerReferences": [{"uid": m["uid"], "kind": owner["kind"], "name": m["name"], "apiVersion": owner["apiVersion"]}]},
           "spec": copy.deepcopy(owner["spec"]["template"]["spec"])}
    old = table(kind_of("", "pods")).get((m["namespace"], name))
    if old:
        forget(kind_of("", "pods"), old)
    store_new(kind_of("", "pods"), pod)
    event(pod, "Created", "Created container " + pod["spec"]["containers"][0]["name"])
    return pod


def event(obj, reason, message):
    m = obj["metadata"]
    name = "%s.%d" % (m["name"], version)
    store_new(kind_of("", "events"), {"apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": m["namespace"]},
              "type": "Normal", "reason": reason, "message": message, "count": 1, "lastTimestamp": now(), "firstTimestamp": now(),
              "involvedObject": {"kind": obj["kind"], "name": m["name"], "namespace": m["namespace"], "uid": m["uid"]}})


def shadow_deployment(obj):
    spec, m = obj["spec"], obj["metadata"]
    spec.setdefault("replicas", 1)
    seen = json.dumps([spec["replicas"], spec["template"]], sort_keys=True)
    if obj.get("_seen") == seen:
        return
    obj["_seen"] = seen
    for child in list(table(kind_of("", "pods")).values()):
        if any(o["uid"] == m["uid"] for o in child["metadata"].get("ownerReferences", [])):
            forget(kind_of("", "pods"), child)
    pods = [make_pod(obj, "%s-%d" % (m["name"], i), dict(spec["template"]["metadata"]["labels"])) for i in range(spec["replicas"])]
    ready = sum(p["status"]["phase"] == "Running" for p in pods)
    event(obj, "ScalingReplicaSet", "Scaled up replica set %s to %d" % (m["name"], spec["replicas"]))
    obj["status"] = {"observedGeneration": m["generation"], "replicas": len(pods), "updatedReplicas": len(pods), "readyReplicas": ready}


# ---- ownership of fields ----

def leaves(value, at=()):
    if isinstance(value, dict) and (value or not at):
        return {p for k, v in value.items() for p in leaves(v, at + (k,))}
    if isinstance(value, list) and value and all(isinstance(v, dict) and "name" in v for v in value):
        return {p for v in value for p in leaves(v, at + ("[%s]" % v["name"],))}
    return {at}


def owned(obj):
    return {p for p in leaves({k: v for k, v in public(obj).items() if k not in ("apiVersion", "kind", "status")})
            if p and (p[0] != "metadata" or len(p) > 1 and p[1] in ("labels", "annotations", "finalizers"))}


def at_path(value, path):
    for part in path:
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.startswith("["):
            value = next((v for v in value if isinstance(v, dict) and "[%s]" % v.get("name") == part), None)
        else:
            return None
    return value


def say_managed(obj):
    entries = []
    for (manager, operation), paths in sorted(obj.get("_owners", {}).items()):
        if paths:
            entries.append({"manager": manager, "operation": operation, "apiVersion": obj["apiVersion"], "time": now(),
                            "fieldsType": "FieldsV1", "fieldsV1": {}})
    obj["metadata"]["managedFields"] = entries


def take_over(old, new, manager):
    """A write that is no apply owns what it has changed."""
    owners = {k: set(v) for k, v in (old or {}).get("_owners", {}).items()}
    mine = {p for p in owned(new) if old is None or at_path(old, p) != at_path(new, p)}
    for paths in owners.values():
        paths -= mine
        paths &= owned(new)
    owners.setdefault((manager, "Update"), set()).update(mine)
    new["_owners"] = owners
    say_managed(new)


def merge_applied(old, given):
    if isinstance(old, dict) and isinstance(given, dict):
        return {**old, **{k: merge_applied(old.get(k), v) for k, v in given.items()}}
    if isinstance(old, list) and isinstance(given, list) and all(isinstance(v, dict) and "name" in v for v in old + given):
        names = [v["name"] for v in old]
        merged = [merge_applied(v, next((g for g in given if g["name"] == v["name"]), v)) for v in old]
        return merged + [g for g in given if g["name"] not in names]
    return copy.deepcopy(given)


def remove_path(value, path):
    parent = at_path(value, path[:-1])
    if isinstance(parent, dict):
        parent.pop(path[-1], None)


def apply(old, given, manager, force):
    mine = owned(given)
    if old is None:
        new = copy.deepcopy(given)
        new["_owners"] = {(manager, "Apply"): mine}
        say_managed(new)
        return new
    owners = {k: set(v) for k, v in old.get("_owners", {}).items()}
    causes = []
    for (other, operation), paths in sorted(owners.items()):
        if (other, operation) != (manager, "Apply"):
            for p in sorted(paths & mine):
                if at_path(old, p) != at_path(given, p):
                    causes.append({"reason": "FieldManagerConflict", "message": 'conflict with "%s" using %s' %
                                   (other, old["apiVersion"]), "field": "." + ".".join(p)})
    if causes and not force:
        raise Refusal(409, "Conflict", "Apply failed with %d conflict" % len(causes), {"causes": causes})
    new = copy.deepcopy(old)
    for p in owners.get((manager, "Apply"), set()) - mine:
        if not any(p in paths for k, paths in owners.items() if k != (manager, "Apply")):
            remove_path(new, p)
    new = merge_applied(new, {k: v for k, v in given.items() if k != "metadata"})
    new["metadata"] = merge_applied(new["metadata"], {k: v for k, v in given["metadata"].items() if k in ("labels", "annotations")})
    for k, paths in owners.items():
        if k != (manager, "Apply"):
            owners[k] = {p for p in paths if not (p in mine and at_path(old, p) != at_path(given, p))}
    owners[(manager, "Apply")] = mine
    new["_owners"] = owners
    say_managed(new)
    return new


# ---- patches ----

def merge_patch(value, patch):
    if not isinstance(patch, dict):
        return patch
    value = dict(value) if isinstance(value, dict) else {}
    for k, v in patch.items():
        if v is None:
            value.pop(k, None)
        else:
            value[k] = merge_patch(value.get(k), v)
    return value


def strategic_patch(value, patch):
    if isinstance(patch, dict):
        value = dict(value) if isinstance(value, dict) else {}
        for k, v in patch.items():
            if v is None:
                value.pop(k, None)
            else:
                value[k] = strategic_patch(value.get(k), v)
        return value
    return merge_applied(value, patch) if isinstance(value, list) else patch


def json_patch(value, operations):
    value = copy.deepcopy(value)
    for o in operations:
        parts = [p.replace("~1", "/").replace("~0", "~") for p in o["path"].split("/")[1:]]
        parent = value
        for p in parts[:-1]:
            parent = parent[int(p)] if isinstance(parent, list) else parent.get(p)
            if parent is None:
                raise Refusal(422, "Invalid", "the server rejected our request due to an error in our request")
        last = parts[-1]
        if isinstance(parent, list):
            if o["op"] == "add":
                parent.insert(len(parent) if last == "-" else int(last), o["value"])
            elif o["op"] == "remove":
                del parent[int(last)]
            else:
                parent[int(last)] = o["value"]
        elif o["op"] == "remove":
            del parent[last]
        else:
            parent[last] = o["value"]
    return value


# ---- who may ----

def allowed(user, verb, group, resource, subresource, namespace, name=None):
    if user is None:
        return True
    what = resource + ("/" + subresource if subresource else "")
    for binding in table(kind_of("rbac.authorization.k8s.io", "rolebindings")).values():
        ns = binding["metadata"]["namespace"]
        names = ["system:serviceaccount:%s:%s" % (s.get("namespace", ns), s["name"]) if s["kind"] == "ServiceAccount" else s["name"]
                 for s in binding["subjects"]]
        role = table(kind_of("rbac.authorization.k8s.io", "roles")).get((ns, binding["roleRef"]["name"]))
        if ns != namespace or user not in names or not role:
            continue
        for rule in role["rules"]:
            if verb in rule["verbs"] and group in rule["apiGroups"] and what in rule["resources"] \
                    and (not rule.get("resourceNames") or name in rule["resourceNames"]):
                return True
    return False


def must_be_allowed(user, verb, kind, subresource, namespace, name):
    if not allowed(user, verb, kind[0], kind[2], subresource, namespace, name):
        what = kind[2] + ("/" + subresource if subresource else "")
        where = ' in the namespace "%s"' % namespace if namespace else " at the cluster scope"
        raise Refusal(403, "Forbidden", '%s%s is forbidden: User "%s" cannot %s resource "%s" in API group "%s"%s' % (
            full(kind), ' "%s"' % name if name else "", user, verb, what, kind[0], where), {"name": name, "kind": kind[2]})


# ---- selecting ----

def matches(obj, query):
    labels = obj["metadata"].get("labels") or {}
    for part in filter(None, query.get("labelSelector", "").split(",")):
        k, _, v = part.partition("=")
        if labels.get(k) != v.lstrip("="):
            return False
    for part in filter(None, query.get("fieldSelector", "").split(",")):
        k, _, v = part.partition("=")
        value = obj
        for p in k.rstrip("!").split("."):
            value = (value or {}).get(p)
        if ((value or "") == v.lstrip("=")) == k.endswith("!"):
            return False
    return True


def gone(message="The provided continue parameter is too old", metadata=None):
    return Refusal(410, "Expired", message, metadata=metadata)


def page(kind, namespace, query):
    token = query.get("continue")
    if token:
        at, start = json.loads(base64.b64decode(token))
        if at != -1 and at not in snapshots:
            fresh = base64.b64encode(json.dumps([-1, start]).encode()).decode()
            raise gone(metadata={"continue": fresh} if faults_of("fresh") else {})
    else:
        at, start = version, 0
    if not token or at == -1:
        items = [public(o) for k, o in sorted(table(kind).items()) if (not namespace or k[0] == namespace) and matches(o, query)]
        if at == -1:
            at = version
        items = json.loads(json.dumps(items))
    else:
        items = snapshots[at]
    limit = int(query.get("limit", 0)) or len(items) or 1
    metadata = {"resourceVersion": str(at)}
    if start + limit < len(items):
        snapshots[at] = items
        metadata["continue"] = base64.b64encode(json.dumps([at, start + limit]).encode()).decode()
    shown = [{k: v for k, v in o.items() if k not in ("apiVersion", "kind")} for o in items[start:start + limit]]
    api = "%s/%s" % (kind[0], kind[1]) if kind[0] else kind[1]
    return {"kind": kind[3] + "List", "apiVersion": api, "metadata": metadata, "items": shown}


def faults_of(name):
    return [f for f in faults if f.get("name") == name]


# ---- fields ----

def check_fields(kind, obj):
    unknown = []
    known = FIELDS.get(kind[3], TOP)
    if kind in KINDS and known is not None:
        unknown += [k for k in obj if k not in known]
    pods = obj.get("spec", {})
    pods = pods.get("template", {}).get("spec", pods) if isinstance(pods, dict) else {}
    for i, c in enumerate(pods.get("containers", []) if isinstance(pods, dict) else []):
        for j, mount in enumerate(c.get("volumeMounts", [])):
            unknown += ["containers[%d].volumeMounts[%d].%s" % (i, j, k) for k in mount if k not in MOUNT]
    if unknown:
        raise Refusal(400, "BadRequest", 'strict decoding error: unknown field "%s"' % unknown[0])


def settle(kind, obj, namespace):
    """What every write goes through."""
    api = "%s/%s" % (kind[0], kind[1]) if kind[0] else kind[1]
    if obj.get("kind") != kind[3] or obj.get("apiVersion") != api:
        raise Refusal(400, "BadRequest", "%s/%s does not match %s/%s" % (obj.get("apiVersion"), obj.get("kind"), api, kind[3]))
    if kind[4]:
        if obj["metadata"].setdefault("namespace", namespace) != namespace:
            raise Refusal(400, "BadRequest", "the namespace of the object does not match that of the request")
    if kind[3] == "Secret":
        for k, v in obj.pop("stringData", {}).items():
            obj.setdefault("data", {})[k] = base64.b64encode(v.encode()).decode()
        for v in obj.get("data", {}).values():
            base64.b64decode(v, validate=True)
        obj.setdefault("type", "Opaque")
    if kind[3] == "Deployment" and not isinstance(obj["spec"].get("replicas", 1), int):
        raise Refusal(422, "Invalid", 'Deployment.apps "%s" is invalid: spec.replicas: Invalid value' % obj["metadata"]["name"])


def scale_of(obj):
    m = obj["metadata"]
    return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {k: m[k] for k in ("name", "namespace", "uid", "resourceVersion")
            if k in m}, "spec": {"replicas": obj["spec"].get("replicas", 1)}, "status": {"replicas": obj["spec"].get("replicas", 1)}}


def precondition(kind, old, new):
    m = new["metadata"]
    if old is None:
        return
    if m.get("uid") and m["uid"] != old["metadata"]["uid"]:
        raise Refusal(409, "Conflict", "Precondition failed: UID in precondition: %s, UID in object meta: %s" % (m["uid"], old["metadata"]["uid"]))
    if m.get("resourceVersion") and m["resourceVersion"] != old["metadata"]["resourceVersion"]:
        raise Refusal(409, "Conflict", 'Operation cannot be fulfilled on %s "%s": the object has been modified' % (full(kind), m["name"]))
