"""Servers that answer a probe, or fail to, and an authority that signs their certificates."""

import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading

import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

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
    """A certificate authority that writes its files into one folder."""

    def __init__(self, folder):
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Test authority")])
        self.file = self.write("ca", self.key, self.issue(self.name, self.key, [], 1, is_ca=True))[0]

    def issue(self, subject, key, names, days, is_ca=False, issuer=None, signer=None):
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=10))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(signer or self.key, hashes.SHA256())

    def write(self, name, key, certificate):
        files = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return str(files[0]), str(files[1])

    def pair(self, host, days=1, self_signed=False):
        """Return the files of a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
        names = [x509.DNSName(host), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        by = {"issuer": subject, "signer": key} if self_signed else {}
        return self.write(host, key, self.issue(subject, key, names[:1], days, **by))

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
