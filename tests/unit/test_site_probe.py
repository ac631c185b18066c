"""site_probe: against real sockets, what it says of each way that a WebSocket can fail."""

import contextlib
import datetime
import ipaddress
import json
import socket
import ssl
import threading
import time

import pytest
import uvicorn
from ansible.module_utils.testing import patch_module_args
from ansible_collections.screen_flow.live.plugins.module_utils.probe import websocket as websocket_probe
from ansible_collections.screen_flow.live.plugins.modules import site_probe
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

PATH = "/api/v1/cv-processing/ws/site-check"
COOKIE = "__Host-screen-flow=the-secret-of-the-session"


@pytest.fixture
def run(capsys):
    """Run the module; return what it says, and the seconds that it took under `seconds`."""

    def call(*targets, check=False, **arguments):
        arguments = {"targets": [{"name": "api", **target} for target in targets], **arguments}
        start = time.monotonic()
        with patch_module_args({**arguments, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            site_probe.main()
        return {**json.loads(capsys.readouterr().out), "seconds": time.monotonic() - start}

    return call


@pytest.fixture
def probe(run):
    """Probe one target; return its result."""

    def call(**target):
        said = run(target)
        assert not said.get("failed"), said["msg"]
        assert not said["changed"]
        (result,) = said["results"]
        assert said["ok"] == result["ok"]
        assert (said["msg"] == "") == result["ok"], "a target fails with a sentence and passes without"
        return result

    return call


@pytest.fixture
def listen():
    """Serve each connection to a free port by the given function; return the port."""
    with contextlib.ExitStack() as stack:

        def call(handle, context=None):
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

            def serve(connection):
                with contextlib.suppress(OSError), contextlib.ExitStack() as inner:
                    inner.enter_context(connection)
                    if context:
                        connection = inner.enter_context(context.wrap_socket(connection, server_side=True))
                    handle(connection)

            def accept():
                with contextlib.suppress(OSError):
                    while True:
                        threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

            threading.Thread(target=accept, daemon=True).start()
            # A closed socket does not wake a thread in accept(); a shut one does.
            stack.callback(server.shutdown, socket.SHUT_RDWR)
            return server.getsockname()[1]

        yield call


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


@pytest.fixture(scope="module")
def api():
    with serve_app() as port:
        yield f"127.0.0.1:{port}"


@pytest.fixture
def refused():
    """Return a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


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


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


# What goes well


def test_a_live_socket_answers_101_and_pong_with_times(probe, api):
    result = probe(url=f"ws://{api}{PATH}", cookie=COOKIE)
    assert result["ok"]
    assert (result["stage"], result["status"], result["address"]) == ("pong", 101, api)
    assert 0 < result["handshake_ms"] < 5000
    assert 0 < result["pong_ms"] < 5000
    assert result["close_code"] is None
    assert result["server"] == "uvicorn"


@pytest.mark.parametrize(
    ("until", "status"), [("dns", None), ("tcp", None), ("http", 101)], ids=["dns", "tcp", "http"]
)
def test_a_probe_stops_where_it_is_told_to(probe, api, until, status):
    result = probe(url=f"ws://{api}{PATH}", until=until)
    assert (result["ok"], result["stage"], result["status"]) == (True, until, status)


def test_a_page_answers_its_status(probe, api):
    result = probe(url=f"http://{api}/healthz")
    assert (result["ok"], result["stage"], result["status"]) == (True, "http", 200)
    assert 0 < result["handshake_ms"] < 5000


def test_address_port_and_ca_reach_an_edge_that_dns_does_not_know(probe, authority):
    certificate, key = authority.pair("www.example.test")
    with serve_app(ssl_certfile=certificate, ssl_keyfile=key) as port:
        target = {"url": f"wss://www.example.test{PATH}", "address": "127.0.0.1", "port": port}
        result = probe(**target, cookie=COOKIE, ca_file=authority.file)
        assert (result["ok"], result["address"]) == (True, f"127.0.0.1:{port}")
        assert probe(**target, cookie=COOKIE, verify=False)["ok"]
        page = probe(**{**target, "url": "https://www.example.test/"}, ca_file=authority.file)
        assert (page["ok"], page["status"]) == (True, 200)


def test_host_origin_and_cookie_are_sent_as_given(probe, listen):
    requests = []

    def handle(connection):
        requests.append(connection.recv(65536).decode().lower().split("\r\n"))

    port = listen(handle)
    for url in (f"ws://www.example.test{PATH}", "http://www.example.test/?a=b"):
        probe(url=url, address="127.0.0.1", port=port, origin="https://o.example.com", cookie="a=b; c=d")
    for request in requests:
        assert "host: www.example.test" in request
        assert "origin: https://o.example.com" in request
        assert "cookie: a=b; c=d" in request
    assert [request[0] for request in requests] == [f"get {PATH} http/1.1", "get /?a=b http/1.1"]


# dns, tcp


def test_a_name_without_an_address_fails_at_dns(probe):
    result = probe(url="wss://no-such-host.invalid/ws")
    assert (result["ok"], result["stage"]) == (False, "dns")
    assert "no-such-host.invalid" in result["error"]


@pytest.mark.parametrize("scheme", ["ws", "wss", "http", "https"])
def test_a_port_that_nothing_listens_on_is_refused(probe, refused, scheme):
    result = probe(url=f"{scheme}://127.0.0.1:{refused}{PATH}")
    assert (result["ok"], result["stage"], result["status"]) == (False, "tcp", None)
    assert result["error"] == f"connection refused: nothing listens on 127.0.0.1:{refused}."


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


def test_a_machine_that_drops_packets_is_silent_at_tcp(probe):
    with drop("127.0.0.1") as port:
        result = probe(url=f"ws://127.0.0.1:{port}/", timeout=0.5)
    assert (result["stage"], result["ok"]) == ("tcp", False)
    assert result["error"].startswith(f"no answer from 127.0.0.1:{port} within 0.5 s")


@pytest.mark.parametrize("dead", ["refuses", "drops"])
def test_a_dead_address_does_not_hide_a_live_one(probe, api, monkeypatch, dead):
    port = int(api.rpartition(":")[2])
    addresses = [("127.0.0.2", port), ("127.0.0.1", port)]
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]
    # No name has two addresses on every machine that runs this.
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with drop("127.0.0.2", port) if dead == "drops" else contextlib.nullcontext():
        result = probe(url=f"ws://both.example.test:{port}{PATH}", cookie=COOKIE, timeout=1)
    assert (result["ok"], result["address"]) == (True, api)


# tls


@pytest.mark.parametrize(
    ("certificate", "says"),
    [
        ({"host": "other.example.test"}, "is for another name"),
        ({"host": "www.example.test", "days": -1}, "has expired"),
        ({"host": "www.example.test", "self_signed": True}, "is self-signed"),
    ],
)
def test_a_wrong_certificate_is_told_and_can_be_allowed(probe, listen, authority, certificate, says):
    port = listen(hang, authority.context(**certificate))
    target = {"url": "wss://www.example.test/", "address": "127.0.0.1", "port": port, "until": "tls"}
    result = probe(**target, ca_file=authority.file)
    assert (result["ok"], result["stage"]) == (False, "tls")
    assert result["error"] == f"the certificate that 127.0.0.1:{port} shows for www.example.test {says}."
    assert probe(**target, verify=False)["ok"]


def test_a_certificate_of_an_unknown_authority_is_told(probe, listen, authority):
    port = listen(hang, authority.context("www.example.test"))
    result = probe(url="https://www.example.test/", address="127.0.0.1", port=port, until="tls")
    assert "was signed by an authority that is not trusted" in result["error"]


@pytest.mark.parametrize(
    ("handle", "says"),
    [
        (answer("HTTP/1.1 400 Bad Request\n\n"), "answers, but not with TLS."),
        (lambda connection: connection.close(), "closed the connection during the TLS handshake."),
        (hang, "did not finish the TLS handshake within 0.5 s."),
    ],
    ids=["plain HTTP", "closed", "silent"],
)
def test_a_port_without_tls_fails_at_tls(probe, listen, handle, says):
    result = probe(url=f"wss://127.0.0.1:{listen(handle)}/", verify=False, timeout=0.5)
    assert (result["ok"], result["stage"], result["status"]) == (False, "tls", None)
    assert result["error"].endswith(says)


def test_a_ca_file_that_is_no_certificate_is_named(probe, listen, authority, tmp_path):
    port = listen(hang, authority.context("www.example.test"))
    for name, content in (("missing.pem", None), ("empty.pem", "nothing")):
        if content:
            (tmp_path / name).write_text(content)
        result = probe(url=f"wss://127.0.0.1:{port}/", ca_file=str(tmp_path / name))
        assert result["stage"] == "tls"
        assert result["error"].startswith(f"ca_file is '{tmp_path / name}', which can't be read")


# http


@pytest.mark.parametrize(
    ("status", "phrase"),
    [
        (200, "OK"),
        (302, "Found"),
        (400, "Bad Request"),
        (426, "Upgrade Required"),
        (502, "Bad Gateway"),
        (525, None),
    ],
)
def test_a_refused_upgrade_names_status_and_server(probe, listen, status, phrase):
    headers = "Server: nginx\nSet-Cookie: session=hidden\nLocation: https://example.com/\nContent-Length: 6"
    port = listen(answer(f"HTTP/1.1 {status} {phrase or 'x'}\n{headers}\n\nhidden"))
    result = probe(url=f"ws://127.0.0.1:{port}{PATH}")
    assert (result["ok"], result["stage"], result["status"]) == (False, "http", status)
    words = f"{status} {phrase}" if phrase else str(status)
    assert result["error"] == f"HTTP {words} from nginx instead of 101."
    assert "hidden" not in json.dumps(result)


def test_a_page_that_fails_names_its_status(probe, listen):
    port = listen(answer("HTTP/1.1 503 Service Unavailable\nServer: nginx\nContent-Length: 0\n\n"))
    result = probe(url=f"http://127.0.0.1:{port}/")
    assert (result["ok"], result["status"]) == (False, 503)
    assert result["error"] == "HTTP 503 Service Unavailable from nginx instead of a page."


@pytest.mark.parametrize(
    ("handle", "says"),
    [
        (hang, "accepted the connection and sent no HTTP answer within 0.5 s."),
        (answer("HTTP/1.1 101 Switching Protocols\n"), "sent no HTTP answer within 0.5 s."),
        (lambda connection: connection.recv(9999) and None, "closed the connection instead of answering"),
        (answer("220 mail.example.com ESMTP\n\n"), "answers, but not with"),
        (answer("garbage\n\n"), "answers, but not with"),
        (
            answer("HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\nConnection: upgrade\n\n"),
            "answers, but not with a WebSocket handshake.",
        ),
    ],
    ids=["silent", "half an answer", "closed", "mail", "garbage", "101 without the accept key"],
)
def test_an_answer_that_is_no_handshake_fails_at_http(probe, listen, handle, says):
    result = probe(url=f"ws://127.0.0.1:{listen(handle)}{PATH}", timeout=0.5)
    assert (result["ok"], result["stage"]) == (False, "http")
    assert says in result["error"]


@pytest.mark.parametrize(
    ("handle", "says"),
    [
        (hang, "accepted the connection and sent no HTTP answer within 0.5 s."),
        (answer("garbage\n\n"), "answers, but not with HTTP."),
        (lambda connection: connection.recv(9999) and None, "closed the connection instead of answering."),
    ],
    ids=["silent", "garbage", "closed"],
)
def test_a_page_that_is_no_http_fails_at_http(probe, listen, handle, says):
    result = probe(url=f"http://127.0.0.1:{listen(handle)}/", timeout=0.5)
    assert (result["ok"], result["stage"], result["status"]) == (False, "http", None)
    assert result["error"].endswith(says)


def test_a_redirect_is_not_followed(probe, listen):
    followed = []
    elsewhere = listen(lambda connection: followed.append(connection.recv(9999)))
    for scheme in ("ws", "http"):
        location = f"{scheme}://127.0.0.1:{elsewhere}/"
        port = listen(answer(f"HTTP/1.1 302 Found\nLocation: {location}\nContent-Length: 0\n\n"))
        assert probe(url=f"{scheme}://127.0.0.1:{port}/", timeout=1)["status"] == 302
    assert followed == []


def test_a_foreign_origin_gets_403(probe, api):
    target = {"url": f"ws://{api}{PATH}", "cookie": COOKIE}
    assert probe(**target, origin="https://www.example.com")["ok"]
    assert probe(**target, origin="https://evil.example.com")["status"] == 403


# pong


def test_without_a_session_the_close_code_is_told(probe, api):
    result = probe(url=f"ws://{api}{PATH}")
    assert (result["ok"], result["stage"], result["status"]) == (False, "pong", 101)
    assert result["close_code"] == 4401
    assert result["error"] == "the server closed the socket with 4401 (no session)."


def test_a_close_code_can_be_healthy(probe, api):
    result = probe(url=f"ws://{api}{PATH}", healthy_close_codes=[4401])
    assert (result["ok"], result["close_code"], result["pong_ms"]) == (True, 4401, None)
    assert not probe(url=f"ws://{api}{PATH}", healthy_close_codes=[4403])["ok"]


def test_a_socket_that_speaks_but_never_answers_the_ping_fails_at_pong(probe, api):
    result = probe(url=f"ws://{api}/deaf", cookie=COOKIE, timeout=0.5)
    assert (result["ok"], result["stage"], result["status"]) == (False, "pong", 101)
    assert result["error"] == "the socket is open, but the ping was not answered within 0.5 s."


# all at once


def test_one_that_hangs_does_not_hold_up_the_others(run, listen, api):
    def trickle(connection):
        for _ in range(100):
            connection.sendall(b"H")
            time.sleep(0.1)

    said = run(
        {"name": "trickles", "url": f"ws://127.0.0.1:{listen(trickle)}/"},
        {"name": "hangs", "url": f"wss://127.0.0.1:{listen(hang)}/", "timeout": 60},
        {"name": "works", "url": f"ws://{api}{PATH}", "cookie": COOKIE},
        deadline=1,
    )
    assert said["seconds"] < 1.9
    assert not said["ok"]
    assert [(result["name"], result["ok"], result["stage"]) for result in said["results"]] == [
        ("trickles", False, "http"),
        ("hangs", False, "tls"),
        ("works", True, "pong"),
    ]
    assert all("within 1 s" in result["error"] for result in said["results"][:2])
    assert said["msg"].startswith("trickles: ")


# the module


def test_the_cookie_appears_in_no_output(run, api, listen):
    said = run({"url": f"ws://{api}/{COOKIE}", "cookie": COOKIE, "until": "http"})
    assert said["ok"]
    assert COOKIE not in json.dumps(said)


def test_check_mode_probes_as_well(run, api, refused):
    targets = [{"url": f"ws://{api}{PATH}", "cookie": COOKIE}, {"url": f"ws://127.0.0.1:{refused}/"}]
    assert [result["ok"] for result in run(*targets, check=True)["results"]] == [True, False]


def test_without_the_library_only_a_dry_run_goes_on(run, api, refused, monkeypatch):
    monkeypatch.setattr(websocket_probe, "websocket", None)
    targets = [{"url": f"ws://{api}{PATH}"}, {"url": f"ws://127.0.0.1:{refused}/"}]
    said = run(*targets)
    assert said["failed"]
    assert "python3-websocket" in said["msg"]
    results = run(*targets, check=True)["results"]
    assert [(result["ok"], result["stage"]) for result in results] == [(False, "http"), (False, "tcp")]
    assert "not installed" in results[0]["error"]
    assert run({"url": f"http://{api}/"}, {"url": f"ws://{api}/", "until": "tcp"})["ok"]


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ({"url": "ftp://example.com/"}, "'ftp://example.com/'"),
        ({"url": "ws:///path"}, "'ws:///path'"),
        ({"url": "example.com"}, "'example.com'"),
        ({"url": "ws://example.com:99999/"}, "'ws://example.com:99999/'"),
        ({"url": "ws://example.com:port/"}, "'ws://example.com:port/'"),
        ({"url": "ws://[::1/"}, "'ws://[::1/'"),
        ({"url": "ws://example.com/a b"}, "url of target 'api'"),
        ({"url": "ws://example.com/", "until": "tls"}, "until of target 'api' is tls"),
        ({"url": "http://example.com/", "until": "pong"}, "until of target 'api' is pong"),
        ({"url": "ws://example.com/", "port": 0}, "port of target 'api' is 0"),
        ({"url": "ws://example.com/", "port": 65536}, "port of target 'api' is 65536"),
        ({"url": "ws://example.com/", "timeout": 0}, "timeout of target 'api' is 0"),
        ({"url": "ws://example.com/", "cookie": "a=b\r\nX-Forged: 1"}, "cookie of target 'api'"),
        ({"url": "ws://example.com/", "origin": "https://a\nX: 1"}, "origin of target 'api'"),
    ],
)
def test_bad_input_is_named(run, target, says):
    said = run(target)
    assert said["failed"]
    assert says in said["msg"]
    assert "; give " in said["msg"]


def test_a_deadline_must_leave_time(run):
    assert run({"url": "ws://127.0.0.1/"}, deadline=-1)["msg"] == "deadline is -1; give seconds above 0."
