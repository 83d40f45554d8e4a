--- The page people see while a hub is closed: one small server in the hub's own namespace, from the hub's own image, which the
--- cluster has and every chart's version brings Python with. Its log has a line for each visit, without what may be private in
--- an address; see hub/watch.lua.

local page = {}

page.NAME = "runbook-page"
page.HEADER = "X-Runbook"
local PORT = 8099

local SERVER = [[
import http.server, json, os

TEXT = open("/page/index.html", "rb").read()

class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "runbook", ""

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("X-Runbook", os.environ["RUNBOOK_FREEZE"])
        self.send_header("Retry-After", "300")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        if self.path == "/runbook-ready":
            return self.answer(200, TEXT)
        self.answer(503, TEXT)
        came_from = self.headers.get("X-Forwarded-For", "").split(",")[0].strip() or self.client_address[0]
        print(json.dumps({"visit": self.path.split("?")[0], "from": came_from, "by": self.headers.get("User-Agent", "")}), flush=True)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_GET

    def log_message(self, *words):
        pass

http.server.ThreadingHTTPServer(("", 8099), Page).serve_forever()
]]

local TEXT = [[
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Closed for maintenance</title>
<style>body { font: 1.1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 15vh auto; padding: 0 1rem }</style>
<h1>This hub is closed for maintenance</h1>
<p>Your files are safe. The hub will answer at this same address when it is done.
</html>
]]

--- The objects of the page.
---@param o { namespace: string, image: string, pull_secrets: table?, run: string, text: string? }  text: HTML, instead of ours
---@return table[] objects
function page.objects(o)
  local labels = { app = page.NAME, ["app.kubernetes.io/managed-by"] = "runbook" }
  local function metadata()
    return { name = page.NAME, namespace = o.namespace, labels = labels, annotations = { ["runbook/run"] = o.run } }
  end
  return {
    { apiVersion = "v1", kind = "ConfigMap", metadata = metadata(), data = { ["index.html"] = o.text or TEXT, ["server.py"] = SERVER } },
    {
      apiVersion = "apps/v1", kind = "Deployment", metadata = metadata(),
      spec = {
        replicas = 1,
        selector = { matchLabels = { app = page.NAME } },
        template = {
          metadata = { labels = labels },
          spec = {
            automountServiceAccountToken = false, enableServiceLinks = false, imagePullSecrets = o.pull_secrets,
            containers = {
              {
                name = "page", image = o.image, command = { "python3", "/page/server.py" },
                env = { { name = "RUNBOOK_FREEZE", value = o.run } },
                ports = { { name = "http", containerPort = PORT, protocol = "TCP" } },
                readinessProbe = { httpGet = { path = "/runbook-ready", port = "http" } },
                resources = { requests = { cpu = "10m", memory = "32Mi" }, limits = { memory = "128Mi" } },
                securityContext = { runAsNonRoot = true, runAsUser = 65534, allowPrivilegeEscalation = false },
                volumeMounts = { { name = "page", mountPath = "/page", readOnly = true } },
              },
            },
            volumes = { { name = "page", configMap = { name = page.NAME } } },
          },
        },
      },
    },
    {
      apiVersion = "v1", kind = "Service", metadata = metadata(),
      spec = { selector = { app = page.NAME }, ports = { { name = "http", port = 80, targetPort = "http", protocol = "TCP" } } },
    },
  }
end

return page
