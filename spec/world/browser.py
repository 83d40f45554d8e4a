#!/usr/bin/env python3
"""browser.py - looks at a page in headless Chromium, and says as JSON what it saw.

    browser.py PAGE [FOLDER]

Each view (two widths, two colour schemes) is a page of its own. Chromium is spoken to by a pipe (its debugging
protocol, a NUL after each message), so no port is taken; its profile is a folder that goes with it. With FOLDER the
views are kept there as PNG files.
"""
import base64
import json
import os
import pathlib
import subprocess
import sys
import tempfile

SECONDS = 120
VIEWS = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]

# What stands beyond the right edge, as it is at first and with all that is folded opened.
LOOK = """(() => {
  const root = document.documentElement, style = getComputedStyle(document.body), folded = document.querySelectorAll('details:not([open])');
  const beyond = () => [...document.querySelectorAll('body *')].filter(e => !e.closest('pre')
    && e.getBoundingClientRect().right > root.clientWidth + 1).map(e => e.outerHTML.slice(0, 120)).slice(0, 5);
  const closed = { scroll: root.scrollWidth, beyond: beyond() };
  folded.forEach(e => { e.open = true; });
  const opened = { scroll: root.scrollWidth, beyond: beyond() };
  folded.forEach(e => { e.open = false; });
  return {
    title: document.title, width: root.clientWidth, closed, opened, folded: folded.length,
    page: style.backgroundColor, ink: style.color, text: document.body.textContent, scripts: document.scripts.length,
    headings: [...document.querySelectorAll('h1, h2')].map(e => e.textContent),
    tables: document.querySelectorAll('table').length,
    elements: [...new Set([...document.querySelectorAll('*')].map(e => e.localName))].sort(),
    links: [...document.querySelectorAll('a')].map(e => e.getAttribute('href')),
    reached: [...document.querySelectorAll('a')].every(e => document.getElementById(e.hash.slice(1))),
  };
})()"""


class Browser:
    """A Chromium with a profile of its own; `seen` gathers what it says by itself."""

    def __init__(self, profile):
        to_read, self.to = os.pipe()
        self.back, to_write = os.pipe()

        def pipes():  # the protocol's own numbers
            os.dup2(to_read, 60)
            os.dup2(to_write, 61)
            os.dup2(60, 3)
            os.dup2(61, 4)

        self.process = subprocess.Popen(
            ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
             "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
             "--remote-debugging-pipe", "--user-data-dir=" + profile, "about:blank"],
            close_fds=False, preexec_fn=pipes, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(to_write)
        self.rest, self.number, self.seen = b"", 0, []

    def message(self):
        while b"\0" not in self.rest:
            got = os.read(self.back, 1 << 16)
            if not got:
                sys.exit("chromium has ended: " + str(self.process.wait()))
            self.rest += got
        one, self.rest = self.rest.split(b"\0", 1)
        return json.loads(one)

    def call(self, method, session=None, **params):
        self.number += 1
        call = {"id": self.number, "method": method, "params": params}
        if session:
            call["sessionId"] = session
        os.write(self.to, json.dumps(call).encode() + b"\0")
        while True:
            got = self.message()
            if got.get("id") == self.number:
                if "error" in got:
                    sys.exit(method + ": " + got["error"]["message"])
                return got["result"]
            self.seen.append(got)

    def wait_for(self, method):
        while not any(one.get("method") == method for one in self.seen):
            self.seen.append(self.message())


def look(browser, url, width, scheme, folder):
    target = browser.call("Target.createTarget", url="about:blank")["targetId"]
    session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    for domain in "Page", "Log", "Runtime", "Network":
        browser.call(domain + ".enable", session)
    browser.call("Emulation.setDeviceMetricsOverride", session, width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
    browser.call("Emulation.setEmulatedMedia", session, features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.seen = []
    browser.call("Page.navigate", session, url=url)
    browser.wait_for("Page.loadEventFired")
    view = browser.call("Runtime.evaluate", session, expression=LOOK, returnByValue=True)["result"]["value"]
    view.update(view=width, scheme=scheme)
    if folder:
        shot = browser.call("Page.captureScreenshot", session, captureBeyondViewport=True)
        pathlib.Path(folder, f"{width}-{scheme}.png").write_bytes(base64.b64decode(shot["data"]))
    view["said"] = [one["params"] for one in browser.seen
                    if one["method"] in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")]
    view["asked_for"] = [one["params"]["request"]["url"] for one in browser.seen if one["method"] == "Network.requestWillBeSent"]
    if width > 600 and scheme == "light":
        view["paper"] = len(base64.b64decode(browser.call("Page.printToPDF", session)["data"]))
    browser.call("Target.closeTarget", targetId=target)
    return view


def main():
    url = pathlib.Path(sys.argv[1]).resolve().as_uri()
    folder = sys.argv[2] if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory(prefix="runbook-browser.", ignore_cleanup_errors=True) as profile:
        browser = Browser(profile)
        try:
            views = [look(browser, url, width, scheme, folder) for width, scheme in VIEWS]
        finally:
            browser.process.kill()
            browser.process.wait(SECONDS)
    json.dump(views, sys.stdout)


main()
