"""proxy.py FOLDER [USER:PASSWORD] - an HTTP proxy: CONNECT, and absolute URLs.

Writes FOLDER/port when it listens and the request lines to FOLDER/requests; with a user it answers 407 to others.
"""

import base64
import http.server
import os
import select
import socket
import sys
import urllib.parse

folder = sys.argv[1]
wanted = "Basic " + base64.b64encode(sys.argv[2].encode()).decode() if len(sys.argv) > 2 else None


class Handler(http.server.BaseHTTPRequestHandler):
    def admitted(self):
        with open(folder + "/requests", "a") as f:
            f.write(self.requestline + "\n" + "".join("  %s: %s\n" % pair for pair in self.headers.items()))
        if wanted is None or self.headers.get("Proxy-Authorization") == wanted:
            return True
        self.send_response(407)
        self.send_header("Proxy-Authenticate", "Basic")
        self.send_header("Content-Length", "0")
        self.end_headers()
        return False

    def dial(self, place, first):
        host, _, port = place.rpartition(":")
        try:
            peer = socket.create_connection((host, int(port)))
        except OSError:
            self.send_error(502)
            return
        peer.sendall(first)
        if not first:
            self.wfile.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        pair = {self.connection: peer, peer: self.connection}
        while True:
            for ready in select.select(list(pair), [], [])[0]:
                data = ready.recv(65536)
                if not data:
                    return
                pair[ready].sendall(data)

    def do_CONNECT(self):
        if self.admitted():
            self.dial(self.path, b"")

    def do_GET(self):
        if self.admitted():
            url = urllib.parse.urlsplit(self.path)
            head = "%s %s HTTP/1.0\r\n" % (self.command, urllib.parse.urlunsplit(("", "", url.path, url.query, "")))
            self.dial(url.netloc, (head + "Host: %s\r\n\r\n" % url.netloc).encode())

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
with open(folder + "/port.new", "w") as f:
    f.write("%d\n" % server.server_port)
os.rename(folder + "/port.new", folder + "/port")
server.serve_forever()
