"""Servers that answer a probe, or fail to, and an authority that signs their certificates."""

import contextlib
import datetime
import socket
import ssl
import threading

import trustme
import uvicorn

from tests.kit import certificates

PATH = "/api/v1/cv-processing/ws/site-check"
COOKIE = "__Host-screen-flow=the-secret-of-the-session"


def answer(text):
    """Return a handler that reads a request and sends `text`."""

    def handle(connection):
        connection.recv(65536)
        connection.sendall(text.replace("\n", "\r\n").encode())
        connection.recv(65536)

    return handle


def hang(connection):
    """Read for ever and never answer."""
    while connection.recv(65536):
        pass


async def app(scope, receive, send):
    """Answer as the api does: 4401 without a session, a pong to a ping, amid other messages."""
    if scope["type"] == "http":
        headers = [(b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"here"})
        return
    headers = dict(scope["headers"])
    await receive()
    if b"origin" in headers and headers[b"origin"] != b"https://www.example.com":
        await send({"type": "websocket.close", "code": 4403})  # before accept: the server sends HTTP 403
        return
    await send({"type": "websocket.accept"})
    if headers.get(b"cookie") != COOKIE.encode():
        await send({"type": "websocket.close", "code": 4401, "reason": "no session"})
        return
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": '{"type": "heartbeat"}'})
        await send({"type": "websocket.send", "text": "pong"})
        if event["text"] == "ping" and not scope["path"].endswith("/deaf"):
            await send({"type": "websocket.send", "text": '{"type": "pong"}'})


@contextlib.contextmanager
def serve_app(**options):
    """Run the app under uvicorn on a free port; yield the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, ws="websockets-sansio", lifespan="off", log_level="critical", **options)
    )
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


class Authority:
    """A certificate authority, with its certificate and the pairs that it issues as files in a folder."""

    def __init__(self, folder):
        self.folder = folder
        self._ca = trustme.CA()
        self.file = self._write("ca.pem", self._ca.cert_pem.bytes())

    def _write(self, name, pem):
        (self.folder / name).write_bytes(pem)
        return str(self.folder / name)

    def pair(self, host, days=1, self_signed=False):
        """Return the files of a certificate and its key."""
        if self_signed:
            key, certificate = (pem.encode() for pem in certificates.self_signed(host, days))
        else:
            end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
            issued = self._ca.issue_cert(host, not_before=end - datetime.timedelta(days=30), not_after=end)
            key, certificate = issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes()
        return self._write(f"{host}.pem", certificate), self._write(f"{host}.key", key)

    def context(self, *arguments, **options):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.pair(*arguments, **options))
        return context


@contextlib.contextmanager
def drop(host, port=0):
    """Let connections to a port go unanswered, as a firewall does that drops packets; yield the port."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind((host, port))
        server.listen(0)
        # With a full backlog the kernel drops whatever else comes.
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        yield server.getsockname()[1]
