"""The hub's configuration, from the chart's values and secrets, as the chart of "Zero to JupyterHub" does it."""

import json
import os
import sys

from jupyterhub.auth import DummyAuthenticator

CONFIG = "/usr/local/etc/jupyterhub"
sys.path.insert(0, CONFIG)
from spawner import PodSpawner  # noqa: E402  (found only now)

c = get_config()  # noqa: F821  (JupyterHub gives it)


def secret(name):
    with open(f"{CONFIG}/secret/{name}", encoding="utf-8") as file:
        return file.read()


values = json.loads(secret("values.yaml"))  # JSON is YAML
os.environ["JUPYTERHUB_CRYPT_KEY"] = secret("hub.config.CryptKeeper.keys")
os.environ["CONFIGPROXY_AUTH_TOKEN"] = secret("hub.config.ConfigurableHTTPProxy.auth_token")


class WorldAuthenticator(DummyAuthenticator):
    """Anybody with the password, whose state at the identity provider is kept."""

    async def authenticate(self, handler, data):
        name = await super().authenticate(handler, data)
        return name and {"name": name, "auth_state": {"refresh_token": "of " + name}}


c.JupyterHub.authenticator_class = WorldAuthenticator
c.WorldAuthenticator.password = values["password"]
c.WorldAuthenticator.enable_auth_state = True
c.WorldAuthenticator.admin_users = set(values["admins"])
c.JupyterHub.spawner_class = PodSpawner
c.PodSpawner.namespace = os.environ["POD_NAMESPACE"]
c.PodSpawner.image = values["image"]
c.PodSpawner.slug_scheme = values["slugScheme"]
c.PodSpawner.home_subpath = values["homeSubPath"]
c.PodSpawner.shared_subpath = values["sharedSubPath"]
c.PodSpawner.uid = values["uid"]
c.PodSpawner.writers = values["writers"]
c.PodSpawner.start_timeout = 120
c.PodSpawner.http_timeout = 60
c.PodSpawner.poll_interval = 5
c.JupyterHub.db_url = "sqlite:///jupyterhub.sqlite"
c.JupyterHub.cookie_secret = bytes.fromhex(secret("hub.config.JupyterHub.cookie_secret"))
c.JupyterHub.hub_bind_url = "http://:8081"
c.JupyterHub.hub_connect_url = "http://hub:8081"
c.JupyterHub.bind_url = "http://:8000"
c.JupyterHub.cleanup_servers = False
c.JupyterHub.allow_named_servers = True
c.JupyterHub.last_activity_interval = 10
c.JupyterHub.data_files_path = "/usr/share/jupyterhub"
c.JupyterHub.concurrent_spawn_limit = 64
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = "http://proxy-api:8001"
c.JupyterHub.services = [{"name": name, "api_token": secret(f"hub.services.{name}.apiToken")} for name in values["services"]]
c.JupyterHub.load_roles = [{"name": "services", "services": values["services"], "scopes": [
    "admin:users", "admin:groups", "admin:servers", "admin:server_state", "admin:auth_state", "tokens", "shutdown", "proxy", "read:hub",
    "list:users", "list:groups", "list:services", "access:servers"]}]
for name, text in sorted(values["extraConfig"].items()):
    exec(compile(text, f"hub.extraConfig.{name}", "exec"))
