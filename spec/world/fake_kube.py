"""fake_kube.py FOLDER CERTIFICATE - an API server that keeps objects in memory, for what a real one does not do when asked.

Writes FOLDER/port when it listens. Objects, watches, server-side apply, patches, preconditions, dry runs, RBAC for impersonated
users, paging and a shadow of the controllers (pods run, or do not, by what their command and image say). Stricter than a real
one: an unknown path, verb, query or content type is 400, and so are fields it does not know with fieldValidation=Strict.

POST /fake/NAME makes it misbehave; see Faults.
"""

import copy
import http.server
import json
import os
import re
import socket
import ssl
import struct
import sys
import threading
import time
import urllib.parse

import fake_kube_store as store
from fake_kube_store import *  # all of it is ours

folder = sys.argv[1]
TOKEN = "fake-kube-token"
QUERIES = {"labelSelector", "fieldSelector", "limit", "continue", "watch", "resourceVersion", "allowWatchBookmarks",
           "timeoutSeconds", "fieldManager", "fieldValidation", "dryRun", "force", "container", "follow", "previous",
           "tailLines", "timestamps", "sinceSeconds", "sinceTime", "limitBytes"}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        with lock, open(folder + "/requests", "a") as f:
            f.write(self.requestline + "\n")

    def body(self):
        if self.headers.get("Transfer-Encoding"):
            raise Refusal(400, "BadRequest", "no chunks, please")
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return json.loads(text) if text else None

    def reply(self, code, value, headers=None):
        text = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if isinstance(value, bytes) else "application/json")
        self.send_header("Content-Length", str(len(text)))
        for k, v in (headers or {}).items():
            self.send_header(k, v)
        self.end_headers()
        self.wfile.write(text)

    def cut(self):
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())
        self.close_connection = True
        raise ConnectionAbortedError

    def misbehave(self):
        for fault in faults:
            if fault.get("match") and re.search(fault["match"], self.requestline) and fault.get("times", 1) > 0:
                fault["times"] = fault.get("times", 1) - 1
                if fault.get("meanwhile"):  # somebody else is faster
                    change(fault["meanwhile"])
                    return False
                if fault.get("cut"):
                    self.cut()
                self.body()
                self.reply(fault["status"], fault.get("body") or {"kind": "Status", "status": "Failure", "code": fault["status"],
                           "reason": fault.get("reason"), "message": fault.get("message", "as it was told to")}, fault.get("headers"))
                return True
        return False

    def serve(self):
        try:
            if self.path.startswith("/fake/"):
                with lock:
                    given = self.body() or {}
                    return self.reply(200, FAULTS[self.path[6:]](given) or {})
            with lock:
                if self.misbehave():
                    return None
            if self.headers.get("Authorization") != "Bearer " + TOKEN:
                raise Refusal(401, "Unauthorized", "Unauthorized")
            return self.route()
        except Refusal as r:
            self.reply(r.code, r.status, r.headers)
        except (KeyError, ValueError, TypeError, AttributeError) as e:
            self.reply(400, {"kind": "Status", "reason": "BadRequest", "code": 400, "message": "the fake does not take that: %r" % e})

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = serve

    def route(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        parts = [urllib.parse.unquote(p) for p in url.path.split("/")[1:]]
        if set(query) - QUERIES:
            raise Refusal(400, "BadRequest", "unknown query: %s" % sorted(set(query) - QUERIES))
        if url.path in ("/version", "/api/v1", "/apis") or re.fullmatch(r"/apis/[^/]+/[^/]+", url.path):
            return self.discover(url.path)
        if parts[0] == "api":
            group, rest = "", parts[2:]
        elif parts[0] == "apis":
            group, rest = parts[1], parts[3:]
        else:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        namespace = None
        if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status",):
            namespace, rest = rest[1], rest[2:]
        with lock:
            kind = kind_of(group, rest[0])
        if kind is None:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        return self.act(kind, namespace, rest[1] if len(rest) > 1 else None, rest[2] if len(rest) > 2 else None, query)

    def discover(self, path):
        kinds = all_kinds()
        if path == "/version":
            return self.reply(200, {"gitVersion": "v1.36.0-fake"})
        if path == "/apis":
            groups = []
            for group in sorted({k[0] for k in kinds} - {""}):
                versions = sorted({k[1] for k in kinds if k[0] == group})
                groups.append({"name": group, "versions": [{"groupVersion": group + "/" + v, "version": v} for v in versions],
                               "preferredVersion": {"groupVersion": group + "/" + versions[0], "version": versions[0]}})
            if "g=apidiscovery.k8s.io" in self.headers.get("Accept", "") and not faults_of("plain discovery"):
                return self.reply(200, self.aggregated(groups, kinds))
            return self.reply(200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        api = path.split("/", 2)[2]
        mine = [k for k in kinds if ("%s/%s" % (k[0], k[1]) if k[0] else k[1]) == api]
        if not mine:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        resources = []
        for k in mine:
            verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
            resources.append({"name": k[2], "singularName": "", "namespaced": k[4], "kind": k[3], "verbs": verbs, "shortNames": k[5]})
            resources += [{"name": k[2] + "/" + s, "namespaced": k[4], "kind": k[3], "verbs": ["get"]} for s in k[6]]
        return self.reply(200, {"kind": "APIResourceList", "groupVersion": api, "resources": resources})

    @staticmethod
    def aggregated(groups, kinds):
        items = []
        for g in groups:
            versions = []
            for v in g["versions"]:
                resources = [{"resource": k[2], "responseKind": {"group": k[0], "version": k[1], "kind": k[3]},
                              "scope": "Namespaced" if k[4] else "Cluster", "singularResource": k[3].lower(), "shortNames": k[5],
                              "verbs": ["get", "list"], "subresources": [{"subresource": s} for s in k[6]]}
                             for k in kinds if (k[0], k[1]) == (g["name"], v["version"])]
                versions.append({"version": v["version"], "resources": resources})
            items.append({"metadata": {"name": g["name"]}, "versions": versions})
        return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "items": items}

    # ---- requests for objects ----

    def act(self, kind, namespace, name, part, query):
        user = self.headers.get("Impersonate-User")
        verb = {"GET": "get" if name else "watch" if query.get("watch") else "list", "POST": "create", "PUT": "update",
                "PATCH": "patch", "DELETE": "delete"}[self.command]
        if kind[3] == "SelfSubjectAccessReview":
            return self.review(user)
        with lock:
            must_be_allowed(user, verb, kind, part, namespace, name)
        if part == "log":
            return self.log(find(kind, namespace, name), query)
        if verb == "watch":
            return self.watch(kind, namespace, query)
        given = self.body() if self.command != "GET" else None
        dry = query.get("dryRun") == "All"
        with lock:
            if verb == "list":
                return self.reply(200, page(kind, namespace, query))
            if verb == "get":
                obj = find(kind, namespace, name)
                return self.reply(200, scale_of(obj) if part == "scale" else public(obj))
            if verb == "delete":
                return self.delete(kind, find(kind, namespace, name), given or {})
            code, obj = self.write(kind, namespace, name, part, query, given, dry)
            return self.reply(code, obj)

    def write(self, kind, namespace, name, part, query, given, dry):
        manager = query.get("fieldManager") or "unknown"
        old = table(kind).get((namespace or "", name)) if name else None
        if self.command == "POST":
            new, old = copy.deepcopy(given), None
            if "resourceVersion" in new["metadata"]:
                raise Refusal(400, "BadRequest", "resourceVersion should not be set on objects to be created")
        elif self.headers.get("Content-Type") == "application/apply-patch+yaml":
            if given["metadata"].get("managedFields") or not query.get("fieldManager"):
                raise Refusal(400, "BadRequest", "an apply has a manager, and no managedFields")
            new = None
        else:
            new = self.changed(kind, find(kind, namespace, name), part, given)
        if query.get("fieldValidation") == "Strict":
            check_fields(kind, given if new is None else public(new))
        if new is None:
            wanted = copy.deepcopy(given)
            settle(kind, wanted, namespace)
            new = apply(old, wanted, manager, query.get("force") == "true")
        else:
            settle(kind, new, namespace)
            precondition(kind, old, new)
            take_over(old, new, manager)
        if dry:
            new["metadata"].setdefault("uid", "dry")
        elif old is None:
            store_new(kind, new)
        else:
            store_changed(kind, old, new)
        shown = scale_of(new) if part == "scale" else public(new)
        return (201 if old is None else 200), shown

    def changed(self, kind, old, part, given):
        base = scale_of(old) if part == "scale" else public(old)
        how = self.headers.get("Content-Type")
        if self.command == "PUT":
            new = copy.deepcopy(given)
        elif how == "application/merge-patch+json":
            new = merge_patch(base, given)
        elif how == "application/json-patch+json":
            new = json_patch(base, given)
        elif how == "application/strategic-merge-patch+json" and kind in KINDS:
            new = strategic_patch(base, given)
        else:
            raise Refusal(415, "UnsupportedMediaType", "the body of the request was in an unknown format")
        if part == "scale":
            whole = copy.deepcopy(public(old))
            whole["spec"]["replicas"] = new["spec"]["replicas"]
            whole["metadata"].update({k: new["metadata"][k] for k in ("uid", "resourceVersion") if k in new["metadata"]})
            new = whole
        new = copy.deepcopy(new)
        for hidden in ("_seen",):
            if hidden in old:
                new[hidden] = old[hidden]
        return new

    def delete(self, kind, obj, given):
        wanted = given.get("preconditions") or {}
        for field in ("uid", "resourceVersion"):
            if wanted.get(field) and wanted[field] != obj["metadata"][field]:
                raise Refusal(409, "Conflict", "Precondition failed: %s" % field)
        if obj["metadata"].get("finalizers"):
            if not obj["metadata"].get("deletionTimestamp"):
                obj["metadata"]["deletionTimestamp"] = now()
                note(kind, "MODIFIED", obj)
            return self.reply(200, public(obj))
        forget(kind, obj)
        return self.reply(200, {"kind": "Status", "apiVersion": "v1", "status": "Success"})

    def review(self, user):
        given = self.body()
        a = given["spec"]["resourceAttributes"]
        with lock:
            good = allowed(user, a["verb"], a.get("group", ""), a["resource"], a.get("subresource"), a.get("namespace"), a.get("name"))
        given["status"] = {"allowed": good}
        self.reply(201, given)

    def log(self, pod, query):
        words = " ".join(pod["spec"]["containers"][0].get("command", []))
        lines = re.findall(r"echo (\w+)", words)
        if query.get("tailLines"):
            lines = lines[-int(query["tailLines"]):]
        stamped = []
        for i, line in enumerate(lines):
            at = "2026-01-01T00:00:%02d.%d00000000Z" % (i, i + 1)
            if query.get("sinceTime", "") <= at:
                stamped.append((at + " " if query.get("timestamps") else "") + line + "\n")
        broken = [f for f in faults if f.get("name") == "break logs" and f.get("times", 0) > 0]
        if broken and query.get("follow"):
            broken[0]["times"] -= 1
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.chunk("".join(stamped[:broken[0]["lines"]]).encode())
            time.sleep(0.2)  # what was sent arrives before the reset
            self.cut()
        self.reply(200, "".join(stamped).encode())

    # ---- watches ----

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def send_event(self, kind, obj):
        self.chunk(json.dumps({"type": kind, "object": obj}).encode() + b"\n")

    def watch(self, kind, namespace, query):
        after = int(query.get("resourceVersion") or 0)
        with lock:
            if after < store.oldest:
                raise gone("too old resource version: %d (%d)" % (after, store.oldest))
            began = faults_generation[0]
        ends = time.time() + int(query.get("timeoutSeconds", 300))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        log = history.setdefault((kind[0], kind[2]), [])
        index = 0
        while True:
            with changed:
                index = min(index, len(log))  # all may have been forgotten
                while index < len(log) and log[index][0] <= after:
                    index += 1
                fresh, index, upto = log[index:], len(log), store.version
                disturbed = faults_generation[0] != began
                if disturbed and faults_generation[1] != "bookmark":
                    break
                if not fresh and not disturbed:
                    changed.wait(0.1)
            for at, event_type, obj in fresh:
                after = at
                if (not namespace or obj["metadata"].get("namespace") == namespace) and matches(obj, query):
                    self.send_event(event_type, obj)
            if disturbed:
                break
            if time.time() > ends:
                self.chunk(b"")
                return
        how = faults_generation[1]
        if how == "expired":
            self.send_event("ERROR", gone("too old resource version").status)
            self.chunk(b"")
        elif how == "bookmark":
            api = "%s/%s" % (kind[0], kind[1]) if kind[0] else kind[1]
            self.send_event("BOOKMARK", {"kind": kind[3], "apiVersion": api, "metadata": {"resourceVersion": str(upto)}})
            self.chunk(b"")
        elif how == "torn":  # in the middle of an event
            self.chunk(b'{"type":"MODIFIED","object":{"metadata":{"na')
            time.sleep(0.1)
            self.cut()
        else:
            self.cut()


# ---- misbehaviour, by POST /fake/NAME ----

faults_generation = [0, ""]


def end_watches(given):
    """how: cut, torn, expired, bookmark."""
    faults_generation[0] += 1
    faults_generation[1] = given.get("how", "cut")
    changed.notify_all()


def compact(_):
    """Forgets all that was: continue tokens and versions."""
    store.version += 1
    store.oldest = store.version
    snapshots.clear()
    for log in history.values():
        log.clear()


def add_fault(given):
    """match (of the request line) with status, reason, message, headers, times, or cut, or meanwhile (see change); or name."""
    faults.append(given)


def clear(_):
    faults.clear()


def churn(given):
    """count changes of ConfigMaps made-N of a namespace, rate a second, on a thread."""
    kind = kind_of("", "configmaps")

    def run():
        began = time.time()
        for i in range(given["count"]):
            with lock:
                obj = table(kind)[(given["namespace"], "made-%d" % (i % given["objects"]))]
                new = copy.copy(obj)
                new["metadata"] = dict(obj["metadata"])
                new["data"] = {"n": str(i), "fill": obj["data"]["fill"]}
                table(kind)[key_of(new)] = new
                note(kind, "MODIFIED", new)
            time.sleep(max(0, began + i / given["rate"] - time.time()))
    threading.Thread(target=run, daemon=True).start()


def make(given):
    """count ConfigMaps made-N of size bytes."""
    kind = kind_of("", "configmaps")
    for i in range(given["count"]):
        store_new(kind, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "made-%d" % i, "namespace": given["namespace"]},
                         "data": {"n": "-1", "fill": "x" * given.get("size", 10)}})


def change(given):
    """Somebody else changes an object, as field manager `by`."""
    kind = kind_of(given.get("group", ""), given["plural"])
    old = find(kind, given["namespace"], given["name"])
    new = merge_patch(public(old), given["patch"])
    if "_seen" in old:
        new["_seen"] = old["_seen"]
    take_over(old, new, given.get("by", "somebody"))
    store_changed(kind, old, new)


FAULTS = {"watches": end_watches, "compact": compact, "fault": add_fault, "clear": clear, "churn": churn, "make": make, "change": change}


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128

    def get_request(self):
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, address

    def finish_request(self, request, client_address):
        super().finish_request(tls.wrap_socket(request, server_side=True), client_address)

    def handle_error(self, request, client_address):
        print(client_address, sys.exc_info()[1], flush=True)


tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(sys.argv[2] + ".pem", sys.argv[2] + ".key")
with lock:
    for first in ("default", "kube-system"):
        store_new(kind_of("", "namespaces"), {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": first}, "_owners": {}})
    store_new(kind_of("", "nodes"), {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "fake"}})
server = Server(("127.0.0.1", 0), Handler)
with open(folder + "/port.new", "w") as out:
    out.write("%d\n" % server.server_port)
os.rename(folder + "/port.new", folder + "/port")
server.serve_forever()
