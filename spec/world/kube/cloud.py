"""cloud.py FOLDER ADDRESS: what a cluster gets from where it runs. Inside the node, by its own API server:

names      cluster DNS of services, on port 53 of ADDRESS
addresses  of LoadBalancer services, one each, out of the 31 after ADDRESS. The annotation world/address: never leaves
           a service waiting, with the event a real one shows; world/hostname: NAME gives it a name instead
ingresses  a proxy on the first of those addresses, ports 80 and 443, that goes by host name and path
volumes    StorageClass folder (the default) and sized (an ext4 of exactly the size asked for)"""

import base64
import http.client
import json
import os
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback

FOLDER, ADDRESS = sys.argv[1:3]
PKI = FOLDER + "/pki"
MERGE = "application/merge-patch+json"
changed = threading.Event()


def connect(timeout):
    context = ssl.create_default_context(cafile=PKI + "/ca.crt")
    context.load_cert_chain(PKI + "/admin.crt", PKI + "/admin.key")
    return http.client.HTTPSConnection("127.0.0.1", 6443, context=context, timeout=timeout)


def api(method, path, body=None, kind="application/json"):
    """The object, or None where the server says no."""
    connection = connect(10)
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": kind})
        response = connection.getresponse()
        data = response.read()
        return json.loads(data) if response.status < 300 else None
    finally:
        connection.close()


class Objects:
    """All objects of one resource, kept up to date."""

    def __init__(self, path):
        self.path, self.by_name = path, {}
        threading.Thread(target=self.follow, daemon=True).start()

    @staticmethod
    def key(item):
        return item["metadata"].get("namespace"), item["metadata"]["name"]

    def follow(self):
        while True:
            try:
                whole = api("GET", self.path)
                self.by_name = {self.key(item): item for item in whole["items"]}
                changed.set()
                self.watch(whole["metadata"]["resourceVersion"])
            except (OSError, TypeError, KeyError, ValueError, http.client.HTTPException):
                time.sleep(0.3)

    def watch(self, version):
        connection = connect(300)
        try:
            connection.request("GET", f"{self.path}?watch=1&resourceVersion={version}&timeoutSeconds=240")
            for line in connection.getresponse():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                if event["type"] == "DELETED":
                    self.by_name.pop(self.key(event["object"]), None)
                else:
                    self.by_name[self.key(event["object"])] = event["object"]
                changed.set()
        finally:
            connection.close()

    def all(self):
        return list(self.by_name.values())


services = Objects("/api/v1/services")
ingresses = Objects("/apis/networking.k8s.io/v1/ingresses")
claims = Objects("/api/v1/persistentvolumeclaims")
volumes = Objects("/api/v1/persistentvolumes")


# --- addresses ---

network, host = ADDRESS.rsplit(".", 1)
pool = [f"{network}.{int(host) + i}" for i in range(1, 32)]
front = pool.pop(0)


def ip(*words):
    subprocess.run(["ip", *words], check=False, capture_output=True)


def status_path(item, group, plural):
    return f"{group}/namespaces/{item['metadata']['namespace']}/{plural}/{item['metadata']['name']}/status"


def given(item):
    return [entry.get("ip") for entry in item.get("status", {}).get("loadBalancer", {}).get("ingress") or []]


def say_no_address(item):
    meta = item["metadata"]
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    api("POST", f"/api/v1/namespaces/{meta['namespace']}/events", {
        "metadata": {"name": f"{meta['name']}.{meta['uid'][:16]}"}, "type": "Warning", "reason": "SyncLoadBalancerFailed",
        "message": "Error syncing load balancer: failed to ensure load balancer: no addresses left in this project",
        "involvedObject": {"kind": "Service", "namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]},
        "source": {"component": "service-controller"}, "firstTimestamp": now, "lastTimestamp": now, "count": 1})


def give(item, address, group, plural):
    name = (item["metadata"].get("annotations") or {}).get("world/hostname")
    api("PATCH", status_path(item, group, plural),
        {"status": {"loadBalancer": {"ingress": [{"hostname": name} if name else {"ip": address}]}}}, MERGE)


held = {}   # address: uid of its service


def balance():
    wanted = [s for s in services.all() if s["spec"].get("type") == "LoadBalancer"]
    uids = {s["metadata"]["uid"] for s in wanted}
    for address, uid in list(held.items()):
        if uid not in uids:
            ip("address", "del", address + "/24", "dev", "eth0")
            del held[address]
    for service in wanted:  # those of an earlier life of this program
        for address in given(service):
            if address in pool and address not in held:
                held[address] = service["metadata"]["uid"]
    for service in wanted:
        if given(service):
            continue
        if (service["metadata"].get("annotations") or {}).get("world/address") == "never":
            say_no_address(service)
            continue
        address = next(a for a in pool if held.get(a, service["metadata"]["uid"]) == service["metadata"]["uid"])
        held[address] = service["metadata"]["uid"]
        ip("address", "replace", address + "/24", "dev", "eth0")
        give(service, address, "/api/v1", "services")
    for ingress in ingresses.all():
        if not given(ingress):
            give(ingress, front, "/apis/networking.k8s.io/v1", "ingresses")


# --- volumes ---

def make_classes():
    for name, default in (("folder", "true"), ("sized", "false")):
        api("POST", "/apis/storage.k8s.io/v1/storageclasses", {
            "metadata": {"name": name, "annotations": {"storageclass.kubernetes.io/is-default-class": default}},
            "provisioner": "world/" + name, "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"})


def bytes_of(quantity):
    units = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
    for unit, factor in units.items():
        if quantity.endswith(unit):
            return int(float(quantity[:-len(unit)]) * factor)
    return int(float(quantity))


def make_folder(path, kind, size):
    os.makedirs(path, exist_ok=True)
    if kind == "sized" and not os.path.ismount(path):
        with open(path + ".img", "wb") as image:
            image.truncate(size)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", path + ".img"], check=True)
        subprocess.run(["mount", "-o", "loop", path + ".img", path], check=True)
    os.chmod(path, 0o777)


def provision():
    for claim in claims.all():
        kind, meta = claim["spec"].get("storageClassName"), claim["metadata"]
        name = "pvc-" + meta["uid"]
        if kind not in ("folder", "sized") or claim["spec"].get("volumeName") or (None, name) in volumes.by_name:
            continue
        size = claim["spec"]["resources"]["requests"]["storage"]
        path = f"{FOLDER}/volumes/{meta['namespace']}-{meta['name']}-{meta['uid'][:8]}"
        make_folder(path, kind, bytes_of(size))
        api("POST", "/api/v1/persistentvolumes", {
            "metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": "world/" + kind}},
            "spec": {"capacity": {"storage": size}, "accessModes": claim["spec"]["accessModes"], "hostPath": {"path": path},
                     "storageClassName": kind, "persistentVolumeReclaimPolicy": "Delete",
                     "claimRef": {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": meta["namespace"],
                                  "name": meta["name"], "uid": meta["uid"]}}})


def reclaim():
    for volume in volumes.all():
        ours = (volume["metadata"].get("annotations") or {}).get("pv.kubernetes.io/provisioned-by", "").startswith("world/")
        if not ours or volume.get("status", {}).get("phase") != "Released" or volume["metadata"].get("deletionTimestamp"):
            continue
        if volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete":
            path = volume["spec"]["hostPath"]["path"]
            if os.path.ismount(path):
                subprocess.run(["umount", "-l", path], check=True)
                os.remove(path + ".img")
            shutil.rmtree(path, ignore_errors=True)
            api("DELETE", "/api/v1/persistentvolumes/" + volume["metadata"]["name"])


# --- ingresses ---

def rule_for(name, path):
    """The backend with the longest path that fits, or None."""
    best = None
    for ingress in ingresses.all():
        for rule in ingress["spec"].get("rules") or []:
            if rule.get("host", name) != name:
                continue
            for entry in (rule.get("http") or {}).get("paths", []):
                prefix = entry.get("path") or "/"
                fits = path == prefix if entry.get("pathType") == "Exact" else (path + "/").startswith(prefix.rstrip("/") + "/")
                if fits and (best is None or len(prefix) > best[0]):
                    best = len(prefix), ingress["metadata"]["namespace"], entry["backend"].get("service")
    return best and best[1:]


def backend(namespace, wanted):
    """Address and port of a service, or None."""
    service = wanted and services.by_name.get((namespace, wanted["name"]))
    for port in service["spec"]["ports"] if service else []:
        if wanted["port"].get("number") == port["port"] or wanted["port"].get("name") == port.get("name", ""):
            return service["spec"]["clusterIP"], port["port"]
    return None


def read_head(client):
    data = b""
    while b"\r\n\r\n" not in data and len(data) < 1 << 16:
        piece = client.recv(8192)
        if not piece:
            return None, b""
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head.decode("latin-1").split("\r\n"), rest


def pass_on(source, target):
    try:
        while piece := source.recv(1 << 16):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for end in source, target:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def refuse(client, status, text):
    body = f"<html><body><h1>{status} {text}</h1></body></html>\n"
    client.sendall((f"HTTP/1.1 {status} {text}\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n"
                    f"Connection: close\r\n\r\n{body}").encode())


def rewritten(lines, peer, scheme, name):
    """One request to a connection, so that each finds its own backend; a websocket stays as it is."""
    upgrade = any(line.lower().startswith("upgrade:") for line in lines[1:])
    dropped = ("x-forwarded-", "x-real-ip:") + (() if upgrade else ("connection:",))
    kept = [lines[0]] + [line for line in lines[1:] if not line.lower().startswith(dropped)]
    kept += [f"X-Forwarded-For: {peer}", f"X-Real-IP: {peer}", f"X-Forwarded-Proto: {scheme}", f"X-Forwarded-Host: {name}"]
    return "\r\n".join(kept + ([] if upgrade else ["Connection: close"])).encode("latin-1") + b"\r\n\r\n"


def serve_one(client, peer, scheme):
    with client:
        lines, rest = read_head(client)
        if not lines:
            return
        name = next((line[5:].strip() for line in lines[1:] if line.lower().startswith("host:")), "")
        found = rule_for(name.split(":")[0].lower(), lines[0].split(" ")[1].split("?")[0])
        if not found:
            return refuse(client, 404, "Not Found")
        address = backend(*found)
        try:
            upstream = socket.create_connection(address, 5) if address else None
        except OSError:
            upstream = None
        if not upstream:
            return refuse(client, 503, "Service Temporarily Unavailable")
        with upstream:
            upstream.settimeout(None)
            upstream.sendall(rewritten(lines, peer, scheme, name) + rest)
            there = threading.Thread(target=pass_on, args=(client, upstream), daemon=True)
            there.start()
            pass_on(upstream, client)
            client.close()


contexts = {}   # (certificate, key): its context


def context_for(name):
    for ingress in ingresses.all():
        for entry in ingress["spec"].get("tls") or []:
            if name in (entry.get("hosts") or []) and entry.get("secretName"):
                secret = api("GET", f"/api/v1/namespaces/{ingress['metadata']['namespace']}/secrets/{entry['secretName']}")
                data = secret and secret.get("data") or {}
                if data.get("tls.crt") and data.get("tls.key"):
                    return load_context(data["tls.crt"], data["tls.key"])
    return None


def load_context(certificate, key):
    if (certificate, key) not in contexts:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile() as file:
            file.write(base64.b64decode(certificate) + b"\n" + base64.b64decode(key))
            file.flush()
            context.load_cert_chain(file.name)
        contexts[certificate, key] = context
    return contexts[certificate, key]


def choose_certificate(connection, name, _):
    chosen = context_for(name) if name else None
    if chosen:
        connection.context = chosen


def front_door(port, scheme):
    fallback = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    fallback.load_cert_chain(PKI + "/apiserver.crt", PKI + "/apiserver.key")
    fallback.sni_callback = choose_certificate

    def handle(client, peer):
        try:
            if scheme == "https":
                client = fallback.wrap_socket(client, server_side=True)
            serve_one(client, peer, scheme)
        except (OSError, ValueError, IndexError):
            client.close()

    listener = socket.create_server((front, port), backlog=64)
    while True:
        client, peer = listener.accept()
        threading.Thread(target=handle, args=(client, peer[0]), daemon=True).start()


# --- names ---

def addresses_of(name):
    """Of SERVICE.NAMESPACE.svc.cluster.local, POD'S NAME before it or not; None where there is no such name."""
    parts = name.lower().rstrip(".").split(".")
    if parts[-3:] != ["svc", "cluster", "local"] or len(parts) < 5:
        return None
    namespace, service = parts[-4], services.by_name.get((parts[-4], parts[-5]))
    if not service:
        return None
    if service["spec"].get("clusterIP") not in (None, "", "None"):
        return [service["spec"]["clusterIP"]]
    endpoints = api("GET", f"/api/v1/namespaces/{namespace}/endpoints/{parts[-5]}") or {}
    return [a["ip"] for subset in endpoints.get("subsets") or [] for a in subset.get("addresses") or []
            if len(parts) == 5 or a.get("hostname") == parts[-6]]


def answer(query):
    at, labels = 12, []
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode("latin-1"))
        at += query[at] + 1
    kind = struct.unpack(">H", query[at + 1:at + 3])[0]
    found = addresses_of(".".join(labels))
    records = found if found and kind == 1 else []
    head = query[:2] + struct.pack(">HHHHH", 0x8580 | (3 if found is None else 0), 1, len(records), 0, 0)
    return head + query[12:at + 5] + b"".join(
        b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 1, 4) + socket.inet_aton(a) for a in records)


def name_server():
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((ADDRESS, 53))
    while True:
        query, peer = server.recvfrom(1500)
        try:
            server.sendto(answer(query), peer)
        except (OSError, ValueError, IndexError, struct.error, http.client.HTTPException):
            traceback.print_exc()


def main():
    ip("address", "replace", front + "/24", "dev", "eth0")
    threading.Thread(target=name_server, daemon=True).start()
    for port, scheme in (80, "http"), (443, "https"):
        threading.Thread(target=front_door, args=(port, scheme), daemon=True).start()
    classes = False
    while True:
        changed.wait(5)
        changed.clear()
        try:
            if not classes:
                make_classes()
                classes = True
            balance()
            provision()
            reclaim()
        except (OSError, http.client.HTTPException, subprocess.CalledProcessError):
            traceback.print_exc()
            time.sleep(0.3)
            changed.set()


main()
