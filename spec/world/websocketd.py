"""websocketd.py FOLDER [CERTIFICATE [CLIENT-CA]] - websockets of Debian's python3-websockets.

Writes FOLDER/port when it listens, FOLDER/raw_port for a server that answers every connection with the bytes of
FOLDER/raw and then does nothing, and a line per request of pods to FOLDER/requests.

    /echo                      what comes goes back
    /send?bytes=N&size=M       N bytes of channel 1 in messages of M, then a close
    /pieces                    one message in fragments, with a ping between them
    /close?code=C&reason=R     closes at once
    /cut?bytes=N               N bytes of channel 1, then the connection is reset
    /deaf                      reads nothing
    /refuse?status=S           no websocket: a Status in JSON
    /pods, /deployments        where a path ends so or goes on: the JSON of FOLDER/pods or FOLDER/deployments
    /api/v1/namespaces/N/pods/P/exec?command=...        runs it here, as Kubernetes speaks: v4 and v5 of its channels
    /api/v1/namespaces/N/pods/P/portforward?ports=P     connects to that port here
"""

import asyncio
import http
import json
import os
import pathlib
import re
import socket
import ssl
import struct
import sys
import urllib.parse

import websockets

folder = pathlib.Path(sys.argv[1])
environment = dict(os.environ)
if (folder / "path").exists():
    environment["PATH"] = (folder / "path").read_text()


def number(query, name, default=0):
    return int(query.get(name, [default])[0])


async def send(ws, path, query):
    left, size = number(query, "bytes"), number(query, "size", 32768)
    while left > 0:
        n = min(left, size)
        await ws.send(b"\1" + b"x" * n)
        left -= n


async def cut(ws, path, query):
    await send(ws, path, query)
    ws.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    ws.transport.abort()


async def echo(ws, path, query):
    async for message in ws:
        await ws.send(message)


async def pieces(ws, path, query):
    async def parts():
        yield b"\1one "
        await ws.ping()
        yield b"two "
        yield b""
        yield b"three"
    await ws.send(parts())
    await ws.send(b"\2other channel")
    await ws.send(b"\7nobody wants this")
    await ws.send("\1text")


async def close(ws, path, query):
    await ws.close(number(query, "code", 1000), query.get("reason", [""])[0])


async def deaf(ws, path, query):
    ws.transport.pause_reading()
    await asyncio.sleep(3600)


def status_of(code):
    if code == 0:
        return {"status": "Success", "metadata": {}}
    return {"status": "Failure", "reason": "NonZeroExitCode", "metadata": {},
            "message": "command terminated with non-zero exit code", "details": {
                "causes": [{"reason": "ExitCode", "message": str(code)}]}}


async def copy_out(ws, channel, stream, done):
    try:
        while data := await stream.read(32768):
            await ws.send(bytes([channel]) + data)
    except websockets.ConnectionClosed:
        pass
    done.release()


async def copy_in(ws, process):
    v5 = ws.subprotocol == "v5.channel.k8s.io"
    try:
        async for message in ws:
            if v5 and message == b"\xff\x00":
                process.stdin.close()
            elif message[0] == 0 and len(message) > 1:
                process.stdin.write(message[1:])
                await process.stdin.drain()
    except (websockets.ConnectionClosed, ConnectionError):
        pass
    process.stdin.close()


async def execute(ws, path, query):
    if query["command"][0] == "lose":  # as a kubelet that is killed
        await ws.send(b"\1some of it")
        return
    try:
        process = await asyncio.create_subprocess_exec(
            *query["command"], stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            cwd=folder, start_new_session=True, env=environment)
    except OSError:
        await ws.send(b"\3" + json.dumps({
            "status": "Failure", "reason": "InternalError", "code": 500,
            "message": f"error executing command in container: exec: \"{query['command'][0]}\": executable file not found in $PATH"}).encode())
        return
    done = asyncio.Semaphore(0)
    reader = asyncio.ensure_future(copy_in(ws, process))
    try:
        for channel in (0, 1, 2, 3):
            await ws.send(bytes([channel]))
    except websockets.ConnectionClosed:
        await reader
    for channel, stream in ((1, process.stdout), (2, process.stderr)):
        asyncio.ensure_future(copy_out(ws, channel, stream, done))
    await done.acquire()
    await done.acquire()
    code = await process.wait()
    try:
        await ws.send(b"\3" + json.dumps(status_of(code if code >= 0 else 128 - code)).encode())
    except websockets.ConnectionClosed:
        pass
    await reader if ws.closed else reader.cancel()


async def forward(ws, path, query):
    port = number(query, "ports")
    for channel in (0, 1):
        await ws.send(bytes([channel]) + struct.pack("<H", port))
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError as e:
        await ws.send(b"\1" + f"an error occurred forwarding {port}: {e}".encode())
        return

    async def there():
        try:
            async for message in ws:
                if message[0] == 0:
                    writer.write(message[1:])
                    await writer.drain()
        except (websockets.ConnectionClosed, ConnectionError):
            pass
        writer.close()
    task = asyncio.ensure_future(there())
    await copy_out(ws, 0, reader, asyncio.Semaphore(0))
    task.cancel()


plain = {"/echo": echo, "/send": send, "/pieces": pieces, "/close": close, "/cut": cut, "/deaf": deaf}


async def serve(ws, path):
    url = urllib.parse.urlsplit(path)
    query = urllib.parse.parse_qs(url.query, keep_blank_values=True)
    if url.path.startswith("/api/"):
        with open(folder / "requests", "a") as f:
            f.write(path + "\n")
        await (execute if url.path.endswith("/exec") else forward)(ws, url.path, query)
    else:
        await plain[url.path](ws, url.path, query)


async def answer(path, headers):
    url = urllib.parse.urlsplit(path)
    query = urllib.parse.parse_qs(url.query, keep_blank_values=True)
    if url.path == "/refuse":
        code = number(query, "status", 403)
        body = json.dumps({"kind": "Status", "status": "Failure", "code": code, "message": "not for you"}).encode()
        return http.HTTPStatus(code), [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("X-Seen", headers.get("Authorization", "nothing"))], body
    for name in ("pods", "deployments"):
        if re.search(f"/{name}(/[^/]*)?$", url.path):
            with open(folder / "requests", "a") as f:
                f.write(path + "\n")
            return http.HTTPStatus(200), [("Content-Type", "application/json")], (folder / name).read_bytes()
    if (folder / "token").exists() and headers.get("Authorization") != "Bearer " + (folder / "token").read_text():
        return http.HTTPStatus(401), [("Content-Type", "application/json")], json.dumps(
            {"kind": "Status", "status": "Failure", "code": 401, "reason": "Unauthorized", "message": "Unauthorized"}).encode()
    return None


async def raw(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    writer.write((folder / "raw").read_bytes())
    await writer.drain()
    if (folder / "raw_ends").exists():
        writer.close()
    else:
        await asyncio.sleep(3600)


async def main():
    context = None
    if len(sys.argv) > 2:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[2] + ".pem", sys.argv[2] + ".key")
        if len(sys.argv) > 3:
            context.load_verify_locations(sys.argv[3])
            context.verify_mode = ssl.CERT_REQUIRED
    protocols = (folder / "protocols").read_text().split() if (folder / "protocols").exists() else None
    server = await websockets.serve(serve, "127.0.0.1", 0, ssl=context, process_request=answer, max_size=None,
                                    compression=None, subprotocols=protocols, ping_interval=None, close_timeout=1)
    other = await asyncio.start_server(raw, "127.0.0.1", 0)
    for name, one in (("raw_port", other), ("port", server)):
        (folder / (name + ".new")).write_text(str(one.sockets[0].getsockname()[1]))
        os.rename(folder / (name + ".new"), folder / name)
    await asyncio.Future()


asyncio.run(main())
