"""The api on a unix socket: its permissions, trusted headers, and stalled peers."""

import contextlib
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn

import app.protocol
from app.main import BACKLOG, PROXY, Forwarded, listen
from bench.load import handshake
from tests.kit.app import ORIGIN, Site
from tests.kit.process import REPOSITORY, wait_until


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    folder.chmod(0o2710)
    return folder / "api.sock"


@pytest.fixture
def served(own_site: Site, path: Path) -> Site:
    """An api that listens on a unix socket as well as on its port."""
    own_site.env["APP_SOCKET"] = str(path)
    own_site.start()
    return own_site


def get(path: Path, target: str, **headers: str) -> httpx.Response:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
        return client.get(f"http://api{target}", headers=headers)


def connected(path: Path, request: bytes) -> socket.socket:
    """Return a unix socket that has sent a request and read 101."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(10)
    client.connect(str(path))
    client.sendall(request)
    assert client.recv(12) == b"HTTP/1.1 101"
    return client


def test_port_and_socket_answer_and_a_restart_replaces_the_socket(served: Site, path: Path) -> None:
    assert httpx.get(f"{served.url}/healthz").status_code == get(path, "/readyz").status_code == 200
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    before = path.stat().st_ino
    served.api.close()  # killed: the file stays
    served.start()
    assert get(path, "/readyz").status_code == 200
    assert path.stat().st_ino != before
    assert os.listdir(path.parent) == [path.name]  # noqa: PTH208


def test_client_address_is_taken_from_the_proxy_only(served: Site, path: Path) -> None:
    forwarded = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
    get(path, "/healthz?by=proxy", **forwarded)
    httpx.get(f"{served.url}/healthz?by=port", headers=forwarded)
    log = served.api.log()
    assert '203.0.113.9:0 - "GET /healthz?by=proxy HTTP/1.1" 200' in log
    assert "127.0.0.1:" in next(line for line in log.splitlines() if "by=port" in line)
    assert "203.0.113.9" not in next(line for line in log.splitlines() if "by=port" in line)
    cookie = served.cookie("ada")
    with contextlib.closing(
        connected(
            path,
            handshake("/api/v1/cv-processing/ws/ada", ORIGIN, f"{cookie}\r\nX-Forwarded-For: 203.0.113.8"),
        )
    ):
        wait_until("the socket is logged", lambda: '203.0.113.8:0 - "WebSocket' in served.api.log())


def test_health_check_uses_the_socket(served: Site, path: Path) -> None:
    def check() -> tuple[int, str]:
        ran = subprocess.run(
            (sys.executable, "-m", "app.healthcheck", "api"),
            cwd=REPOSITORY, env={"APP_SOCKET": str(path)}, check=False, capture_output=True, text=True,
        )  # fmt: skip
        return ran.returncode, ran.stderr

    assert check() == (0, "")
    path.rename(path.with_name("moved"))
    assert check() == (1, "[Errno 2] No such file or directory\n")
    path.with_name("moved").rename(path)


def test_unwritable_folder_is_named(own_site: Site) -> None:
    own_site.env["APP_SOCKET"] = "/proc/api.sock"
    own_site.api.start()
    assert own_site.api.child
    assert own_site.api.child.wait(20) == 1
    assert "APP_SOCKET is '/proc/api.sock', where this process can't listen" in own_site.api.log()


def test_thousands_of_connections_wait_for_a_busy_api(path: Path) -> None:
    """A unix socket refuses connections when its queue is full, and nginx would answer 502."""
    most = int(Path("/proc/sys/net/core/somaxconn").read_text())
    with contextlib.ExitStack() as stack:
        stack.enter_context(listen(path))
        for _ in range(min(most, BACKLOG, 4_000)):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect(str(path))


@pytest.fixture
def talker(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[uvicorn.Server]:
    """A server with our protocol and short timeouts that sends without end."""
    monkeypatch.setattr(app.protocol, "CLOSE_TIMEOUT", 1.0)

    async def talk(scope: dict, receive: object, send: object) -> None:  # type: ignore[type-arg]
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})  # type: ignore[operator]
            while b"quiet" not in scope["query_string"]:
                await send({"type": "websocket.send", "text": "x" * 10_000})  # type: ignore[operator]
            await receive()  # type: ignore[operator]
            assert (await receive())["type"] == "websocket.disconnect"  # type: ignore[operator]

    server = uvicorn.Server(
        uvicorn.Config(
            talk, ws=app.protocol.Protocol, ws_ping_interval=0.5, ws_ping_timeout=0.5, lifespan="off",
            log_config=None,
        )  # type: ignore[arg-type]
    )  # fmt: skip
    listener = listen(path)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    wait_until("the server runs", lambda: server.started)
    yield server
    server.should_exit = True
    thread.join(10)


def test_peer_that_does_not_read_is_dropped(talker: uvicorn.Server, path: Path) -> None:
    stalled = connected(path, handshake("/", ORIGIN, ""))
    assert len(talker.server_state.connections) == 1
    begin = time.monotonic()
    wait_until("the connection is dropped", lambda: not talker.server_state.connections, seconds=5)
    assert time.monotonic() - begin < 3.5  # interval, timeout, CLOSE_TIMEOUT
    stalled.close()


def test_peer_that_closes_and_does_not_read_is_dropped(talker: uvicorn.Server, path: Path) -> None:
    stalled = connected(path, handshake("/", ORIGIN, ""))
    time.sleep(0.2)
    stalled.sendall(bytes((0x88, 0x80, 0, 0, 0, 0)))
    wait_until("the connection is dropped", lambda: not talker.server_state.connections, seconds=3)
    stalled.close()


def test_peer_that_still_sends_an_oversized_frame_receives_the_close_code(
    served: Site, path: Path, user: str
) -> None:
    """nginx, once it can't write any more, closes the client without the code."""
    target = f"/api/v1/cv-processing/ws/{user}"
    client = connected(path, handshake(target, ORIGIN, served.cookie(user)))
    client.sendall(bytes((0x81, 0xFF)) + (65_537).to_bytes(8, "big") + bytes(4))
    for _ in range(16):
        time.sleep(0.02)
        client.sendall(bytes(4_096))
    received = b""
    while data := client.recv(65_536):
        received += data
    assert (1009).to_bytes(2, "big") in received[-200:]
    client.close()


@pytest.mark.parametrize(
    ("server", "client"), [(("/run/api.sock", None), ("192.0.2.1", 0)), (("127.0.0.1", 8000), None)]
)
async def test_disconnected_tcp_peer_is_not_mistaken_for_the_proxy(server: object, client: object) -> None:
    """Its address is unknown, as is that of a unix socket's peer."""
    seen = []

    async def app(scope: dict[str, object], receive: object, send: object) -> None:
        seen.append(scope["client"])

    headers = [(b"x-forwarded-for", b"192.0.2.1")]
    scope = {"type": "http", "server": server, "client": None, "scheme": "http", "headers": headers}
    await Forwarded(app, PROXY)(scope, None, None)  # type: ignore[arg-type]
    assert seen == [client]
