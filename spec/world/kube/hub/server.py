#!/usr/bin/python3
"""A user's server, small: shows the files of the home to whom the hub lets in, and keeps writing into it.

    GET …/                      a page that says whose it is
    GET …/api/contents/PATH     a folder's names, or {"content": …} of a file, as JSON
    GET …/api/status

Let in is who comes with a token, or with a browser by way of the hub's login (OAuth). WRITE_EVERY seconds it appends
to work/journal.txt and replaces, renames and removes other files, as a notebook does; 0: it writes nothing."""

import http.server
import json
import os
import secrets
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

ENV = os.environ
API = ENV["JUPYTERHUB_API_URL"]
TOKEN = ENV["JUPYTERHUB_API_TOKEN"]
PREFIX = ENV["JUPYTERHUB_SERVICE_PREFIX"]
USER = ENV["JUPYTERHUB_USER"]
CLIENT = ENV["JUPYTERHUB_CLIENT_ID"]
CALLBACK = ENV["JUPYTERHUB_OAUTH_CALLBACK_URL"]
SERVER = ENV.get("JUPYTERHUB_SERVER_NAME", "")
HOME = ENV.get("HOME", "/home/jovyan")
WRITE_EVERY = float(ENV.get("WRITE_EVERY", "0"))
COOKIE = "server-" + CLIENT.encode().hex()


def hub(method, path, data=None, token=None, form=False):
    """The hub's answer, or None where it refuses."""
    body = None if data is None else (urllib.parse.urlencode(data) if form else json.dumps(data)).encode()
    headers = {"Authorization": "token " + token} if token else {}
    request = urllib.request.Request(API + path if path.startswith("/") else path, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.loads(response.read() or b"null")
    except (urllib.error.URLError, OSError, ValueError):
        return None


def visitor(token):
    """The user a token stands for, when that one may come in."""
    user = hub("GET", "/user", token=token) if token else None
    return user if user and (user.get("name") == USER or user.get("admin")) else None


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self, status, body, kind="application/json", headers=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(data))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def cookies(self):
        pairs = (piece.strip().partition("=") for piece in self.headers.get("Cookie", "").split(";"))
        return {name: value for name, _, value in pairs}

    def token(self):
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        return token if kind.lower() in ("token", "bearer") else self.cookies().get(COOKIE)

    def send_to_login(self):
        state = secrets.token_urlsafe(16)
        query = urllib.parse.urlencode({"client_id": CLIENT, "redirect_uri": CALLBACK, "response_type": "code", "state": state})
        self.answer(302, b"", headers=[
            ("Location", ENV["JUPYTERHUB_BASE_URL"] + "hub/api/oauth2/authorize?" + query),
            ("Set-Cookie", f"{COOKIE}-state={state}; Path={PREFIX}; HttpOnly")])

    def login(self, query):
        given = urllib.parse.parse_qs(query)
        if given.get("state", [""])[0] != self.cookies().get(COOKIE + "-state", secrets.token_hex()):
            return self.answer(403, {"message": "this login was not begun here"})
        got = hub("POST", "/oauth2/token", {
            "client_id": CLIENT, "client_secret": TOKEN, "grant_type": "authorization_code",
            "code": given.get("code", [""])[0], "redirect_uri": CALLBACK}, form=True)
        if not got:
            return self.answer(403, {"message": "the hub takes that code not"})
        return self.answer(302, b"", headers=[
            ("Location", PREFIX), ("Set-Cookie", f"{COOKIE}={got['access_token']}; Path={PREFIX}; HttpOnly")])

    def contents(self, name):
        path = os.path.realpath(os.path.join(HOME, name))
        if path != HOME and not path.startswith(HOME + "/"):
            return self.answer(404, {"message": "no such file"})
        try:
            if os.path.isdir(path):
                return self.answer(200, {"type": "directory", "content": sorted(os.listdir(path))})
            with open(path, "rb") as file:
                return self.answer(200, {"type": "file", "content": file.read().decode("utf-8", "surrogateescape")})
        except OSError as problem:
            return self.answer(404, {"message": str(problem)})

    def do_GET(self):
        where = urllib.parse.urlsplit(self.path)
        path, prefix = urllib.parse.unquote(where.path), urllib.parse.unquote(PREFIX)
        if path == prefix + "oauth_callback":
            return self.login(where.query)
        if not path.startswith(prefix):
            return self.answer(404, {"message": "not of this server"})
        if not visitor(self.token()):
            if "Authorization" in self.headers or "/api/" in path:
                return self.answer(403, {"message": "Forbidden"})
            return self.send_to_login()
        rest = path[len(prefix):]
        if rest == "api/status":
            return self.answer(200, {"user": USER, "server": SERVER, "writes_every": WRITE_EVERY})
        if rest.startswith("api/contents"):
            return self.contents(rest[len("api/contents"):].strip("/"))
        return self.answer(200, f"<html><title>{USER}</title>the files of {USER}</html>\n".encode(), "text/html; charset=utf-8")


def write():
    work = os.path.join(HOME, "work")
    os.makedirs(work, exist_ok=True)
    count = 0
    while True:
        count += 1
        with open(os.path.join(work, "journal.txt"), "a", encoding="utf-8") as journal:
            journal.write(f"{time.time():.3f} {SERVER or USER} {count}\n")
        draft = os.path.join(work, f".~notebook-{count % 5}.ipynb")
        with open(draft, "w", encoding="utf-8") as file:
            json.dump({"cells": [{"source": f"cell {count}"}] * 20}, file)
        os.replace(draft, os.path.join(work, f"notebook-{count % 5}.ipynb"))
        gone = os.path.join(work, f"scratch-{count - 3}")
        with open(os.path.join(work, f"scratch-{count}"), "wb") as file:
            file.write(os.urandom(2000))
        if os.path.exists(gone):
            os.remove(gone)
        time.sleep(WRITE_EVERY)


def tell_activity():
    while True:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        hub("POST", ENV["JUPYTERHUB_ACTIVITY_URL"], {"servers": {SERVER: {"last_activity": now}}, "last_activity": now}, TOKEN)
        time.sleep(10)


if WRITE_EVERY:
    for work in write, tell_activity:
        threading.Thread(target=work, daemon=True).start()
http.server.ThreadingHTTPServer(("0.0.0.0", 8888), Handler).serve_forever()
