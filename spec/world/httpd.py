"""httpd.py FOLDER [CERTIFICATE [CLIENT-CA]] - an HTTP/1.1 server that answers as FOLDER/script says.

Writes FOLDER/port when it listens and a line of JSON per request to FOLDER/requests. spec/world/httpd.lua
says what a script is.
"""

import http.server
import json
import os
import socket
import ssl
import struct
import sys
import threading
import time

folder = sys.argv[1]
lock = threading.Lock()
given = {}  # (the script's identity, request line) -> how many answers were given


def next_answer(line):
    with lock, open(folder + "/script", "rb") as f:
        answers = (json.load(f) or {}).get(line)
        if not answers:
            return None
        file = os.fstat(f.fileno())
        key = (file.st_ino, file.st_mtime_ns, line)
        given[key] = given.get(key, 0) + 1
        return answers[min(given[key], len(answers)) - 1]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def request_body(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return body
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self):
        request = {
            "method": self.command,
            "path": self.path,
            "headers": {k.lower(): ", ".join(self.headers.get_all(k)) for k in self.headers.keys()},
            "body": self.request_body().decode("utf-8", "backslashreplace"),
        }
        text = json.dumps(request)
        with lock, open(folder + "/requests", "a") as f:
            f.write(text + "\n")
        said = next_answer(self.command + " " + self.path.split("?")[0])
        if said is None:
            said = {"headers": {"Content-Type": "application/json"}, "body": text}
        time.sleep(said.get("delay", 0))
        body = said.get("body", "").encode() * said.get("times", 1)
        self.send_response(said.get("status", 200))
        for name, value in (said.get("headers") or {}).items():
            self.send_header(name, value)
        if said.get("chunked"):
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.send_body(said, body)

    def send_body(self, said, body):
        if "cut" in said:
            self.wfile.write(body[: said["cut"]])
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # detached, so that even TLS ends without its goodbye
            os.close(self.connection.detach())
            self.close_connection = True
            raise ConnectionAbortedError
        if said.get("chunked"):
            for at in range(0, len(body), 7):
                piece = body[at : at + 7]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        elif "drip" in said:
            for at in range(len(body)):
                self.wfile.write(body[at : at + 1])
                time.sleep(said["drip"])
        else:
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128  # the default, 5, loses connections when many come at once

    def get_request(self):
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, address

    def finish_request(self, request, client_address):
        # the handshake is the connection's own thread's, or a silent client would block everybody
        if tls is not None:
            request = tls.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def handle_error(self, request, client_address):
        print(client_address, sys.exc_info()[1], flush=True)


tls = None
if len(sys.argv) > 2:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(sys.argv[2] + ".pem", sys.argv[2] + ".key")
    if len(sys.argv) > 3:
        tls.verify_mode = ssl.CERT_REQUIRED
        tls.load_verify_locations(sys.argv[3])

server = Server(("127.0.0.1", 0), Handler)
with open(folder + "/port.new", "w") as f:
    f.write("%d\n" % server.server_port)
os.rename(folder + "/port.new", folder + "/port")
server.serve_forever()
