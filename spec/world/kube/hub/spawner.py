"""User servers as pods, under the names, labels and annotations kubespawner gives them, through the API alone."""

import asyncio
import hashlib
import json
import re
import string

from jupyterhub.spawner import Spawner
from tornado.httpclient import AsyncHTTPClient, HTTPClientError
from traitlets import Dict, Integer, List, Unicode

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount/"
PLAIN = set(string.ascii_lowercase + string.digits)


def escape(name):
    """escapism, as of kubespawner below 7: every byte that is no small letter or digit becomes -XX."""
    return "".join(chr(b) if chr(b) in PLAIN else f"-{b:x}" for b in name.encode())


def safe_slug(name):
    """slug_scheme "safe", of kubespawner 7: the name where it is fit, else what is left of it and a hash."""
    if re.fullmatch(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?", name) and "--" not in name:
        return name
    left = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:21].rstrip("-") or "x"
    if not left[0].isalpha():
        left = "x-" + left
    return f"{left}---{hashlib.sha256(name.encode()).hexdigest()[:8]}"


class PodSpawner(Spawner):
    namespace = Unicode().tag(config=True)
    image = Unicode().tag(config=True)
    slug_scheme = Unicode("escape").tag(config=True)
    home_claim = Unicode("home-nfs").tag(config=True)
    home_subpath = Unicode("{escaped_username}").tag(config=True)
    shared_subpath = Unicode("").tag(config=True)
    uid = Integer(1000).tag(config=True)
    extra_labels = Dict().tag(config=True)
    writers = List(help="users whose servers write all the time").tag(config=True)
    pod_name = Unicode()

    def expand(self, template):
        slug = safe_slug if self.slug_scheme == "safe" else escape
        text = template.format(
            username=slug(self.user.name), escaped_username=escape(self.user.name), unescaped_username=self.user.name,
            servername=escape(self.name) if self.name else "", userid=self.user.id)
        return text.rstrip("-")

    def name_pod(self):
        if self.slug_scheme == "safe":
            return self.expand("jupyter-{username}" + ("--" + safe_slug(self.name) if self.name else ""))
        return self.expand("jupyter-{username}--{servername}")

    async def api(self, method, path, body=None):
        """The object; None when there is none."""
        with open(ACCOUNT + "token", encoding="ascii") as file:
            token = file.read()
        try:
            response = await AsyncHTTPClient().fetch(
                f"https://kubernetes.default.svc/api/v1/namespaces/{self.namespace}/{path}", method=method,
                headers={"Authorization": "Bearer " + token, "Content-Type": "application/json"},
                body=json.dumps(body) if body else None, allow_nonstandard_methods=True, ca_certs=ACCOUNT + "ca.crt",
                request_timeout=20)
        except HTTPClientError as problem:
            if problem.code == 404:
                return None
            raise
        return json.loads(response.body)

    def labels(self):
        def slug(name):     # a label is shorter than a name and begins with a letter or digit
            return (safe_slug if self.slug_scheme == "safe" else escape)(name).strip("-")[:63].rstrip("-")

        common = {
            "app": "jupyterhub", "heritage": "jupyterhub", "component": "singleuser-server",
            "app.kubernetes.io/name": "jupyterhub", "app.kubernetes.io/component": "singleuser-server",
            "app.kubernetes.io/managed-by": "kubespawner", "hub.jupyter.org/username": slug(self.user.name),
            "hub.jupyter.org/servername": slug(self.name) if self.name else "",
            "hub.jupyter.org/network-access-hub": "true"}
        return {**common, **self.extra_labels}

    def annotations(self):
        named = {"hub.jupyter.org/servername": self.name} if self.name else {}
        return {"hub.jupyter.org/username": self.user.name, **named}

    def mounts(self):
        mounts = [{"name": "home", "mountPath": "/home/jovyan", "subPath": self.expand(self.home_subpath)}]
        if self.shared_subpath:
            mounts.append({"name": "home", "mountPath": "/home/jovyan/shared", "subPath": self.shared_subpath, "readOnly": True})
        return mounts

    def manifest(self):
        env = {**self.get_env(), "HOME": "/home/jovyan", "PYTHONDONTWRITEBYTECODE": "1",
               "WRITE_EVERY": "0.2" if self.user.name in self.writers else "0"}
        return {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": self.pod_name, "labels": self.labels(), "annotations": self.annotations()},
            "spec": {
                "restartPolicy": "OnFailure", "automountServiceAccountToken": False, "terminationGracePeriodSeconds": 3,
                "securityContext": {"fsGroup": 100, "runAsUser": self.uid},
                "volumes": [{"name": "home", "persistentVolumeClaim": {"claimName": self.home_claim}}],
                "containers": [{
                    "name": "notebook", "image": self.image, "args": ["jupyterhub-singleuser"],
                    "ports": [{"name": "notebook-port", "containerPort": 8888}], "volumeMounts": self.mounts(),
                    "env": [{"name": name, "value": str(value)} for name, value in sorted(env.items())],
                    "readinessProbe": {"tcpSocket": {"port": 8888}, "periodSeconds": 1}}]}}

    def get_state(self):
        return {**super().get_state(), "pod_name": self.pod_name, "namespace": self.namespace} if self.pod_name else super().get_state()

    def load_state(self, state):
        super().load_state(state)
        self.pod_name = state.get("pod_name", "")

    def clear_state(self):
        super().clear_state()
        self.pod_name = ""

    async def start(self):
        self.pod_name = self.name_pod()
        await self.stop()   # one of an earlier life
        await self.api("POST", "pods", self.manifest())
        while True:
            pod = await self.api("GET", "pods/" + self.pod_name)
            if pod is None:
                raise RuntimeError(f"pod {self.pod_name} was deleted")
            ready = any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
            if ready and pod["status"].get("podIP"):
                return pod["status"]["podIP"], 8888
            await asyncio.sleep(0.3)

    async def poll(self):
        pod = self.pod_name and await self.api("GET", "pods/" + self.pod_name)
        if not pod:
            return 0
        for container in pod["status"].get("containerStatuses", []):
            if "terminated" in container["state"]:
                return container["state"]["terminated"]["exitCode"]
        return None

    async def stop(self, now=False):
        while self.pod_name and await self.api("GET", "pods/" + self.pod_name):
            await self.api("DELETE", "pods/" + self.pod_name, {"gracePeriodSeconds": 0 if now else 3})
            await asyncio.sleep(0.3)
