"""The emulator under test: its edge in this process, real origins, and the emulator as a process."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import gzip
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import websockets
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from emulator.api import Api
from emulator.certificates import Authority, EdgeTls, private_pem
from emulator.control import application
from emulator.edge import Edge, Ports
from emulator.zone import Fresh, Zone
from tests.kit.process import REPOSITORY, free_port, serve, wait_until

NAME = "screen-flow.localhost"
TOKEN = "Test-token_" + "x" * 32
PAGE = b"""<!doctype html><html><head><script>window.order = ["inline"]</script>
<!-- <script>never()</script> --><script type="application/json">{"a": "<script>"}</script></head>
<body><h1>page</h1><script type="module" src="/app.js"></script>
<script data-cfasync="false">window.early = "</body>"</script></body></html>"""


async def headers(request: Request) -> Response:
    body = await request.body()
    return JSONResponse(
        {
            "scheme": request.url.scheme,
            "method": request.method,
            "size": len(body),
            "headers": [(name.decode(), value.decode()) for name, value in request.headers.raw],
        }
    )


async def page(request: Request) -> Response:
    if "gz" in request.query_params:
        compressed = {"content-encoding": "gzip", "etag": '"1"'}
        return Response(gzip.compress(PAGE), headers=compressed, media_type="text/html")
    if "bytes" in request.query_params:
        return StreamingResponse((PAGE[i : i + 1] for i in range(len(PAGE))), media_type="text/html")
    return Response(PAGE, headers={"etag": '"1"'}, media_type=request.query_params.get("as", "text/html"))


async def upload(request: Request) -> Response:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
    return JSONResponse({"size": size})


async def slow(request: Request) -> Response:
    await asyncio.sleep(float(request.query_params["seconds"]))
    return Response("late")


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            text = await socket.receive_text()
            if text == "close":
                return await socket.close(1012)
            if text.startswith("talk"):
                for number in range(int(text[4:])):
                    await asyncio.sleep(0.1)
                    await socket.send_text(str(number))
            else:
                await socket.send_text(text)


ORIGIN = Starlette(
    routes=[
        Route("/headers", headers, methods=["GET", "POST", "HEAD"]),
        Route("/page", page),
        Route("/upload", upload, methods=["POST"]),
        Route("/slow", slow),
        WebSocketRoute("/ws", echo),
    ]
)


@contextlib.contextmanager
def origin(certificate: Path | None = None) -> Iterator[int]:
    """Run the origin on a free port, with TLS when there is a file of key and certificate; yield the port."""
    tls = {"ssl_certfile": certificate, "ssl_keyfile": certificate} if certificate else {}
    with serve(ORIGIN, **tls) as port:
        yield port


@contextlib.asynccontextmanager
async def raw_origin(
    behave: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """Run a server that handles each connection by `behave`; yield its port."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await behave(reader, writer)
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def refusal(answer: httpx.Response) -> tuple[int, int]:
    """Return (HTTP status, error code) of a refusal in Cloudflare's envelope."""
    envelope = answer.json()
    assert envelope["success"] is False
    assert envelope["messages"] == []
    assert envelope["errors"][0]["message"]
    return answer.status_code, envelope["errors"][0]["code"]


def certificate(
    folder: Path, authority: Authority, name: str = NAME, days: float = 30, start: dt.datetime | None = None
) -> Path:
    """Write a key and its certificate into one new file of `folder`."""
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = authority.issue([name], key.public_key(), days, start)
    path = folder / f"origin-{leaf.serial_number}.pem"
    path.write_bytes(private_pem(key) + leaf.public_bytes(serialization.Encoding.PEM))
    return path


@dataclass
class Site:
    """A zone with its API and its edge, on free ports."""

    zone: Zone
    api: Api
    edge: Edge
    https: int
    http: int

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.edge.tls.edge_ca.pem.decode())

    def origin(self, http: int | None = None, https: int | None = None) -> None:
        """Set the origin's ports; one that is not given refuses connections."""
        self.edge.ports = Ports(
            public_http=self.http,
            public_https=self.https,
            origin_http=http or free_port(),
            origin_https=https or free_port(),
        )

    async def request(self, method: str, path: str, scheme: str = "https", **more: object) -> httpx.Response:
        port = self.https if scheme == "https" else self.http
        fields = {"host": NAME, **more.pop("headers", {})}  # type: ignore[dict-item]
        async with httpx.AsyncClient(verify=self.trust, timeout=20) as client:
            return await client.request(
                method,
                f"{scheme}://127.0.0.1:{port}{path}",
                headers=fields,
                extensions={"sni_hostname": NAME},
                **more,  # type: ignore[arg-type]
            )

    async def get(self, path: str, scheme: str = "https", **more: object) -> httpx.Response:
        return await self.request("GET", path, scheme, **more)

    def websocket(self, path: str = "/ws", **more: object) -> websockets.connect:
        return websockets.connect(
            f"wss://{NAME}{path}", host="127.0.0.1", port=self.https, ssl=self.trust, proxy=None, **more
        )

    async def closed(self) -> None:
        """Wait until the edge has no connection left, for 5 seconds at most."""
        async with asyncio.timeout(5):
            while self.edge.describe()["connections"]:  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.01)

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        """Yield a client of the API with the valid token."""
        transport = httpx.ASGITransport(application(self.zone, self.api, self.edge))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://api", headers={"authorization": f"Bearer {TOKEN}"}
        ) as client:
            yield client


@contextlib.asynccontextmanager
async def site(folder: Path, **settings: str | float) -> AsyncIterator[Site]:
    """Run an edge in front of 127.0.0.1, by default with WebSockets on and Rocket Loader off."""
    chosen = {"websockets": "on", "rocket_loader": "off", **settings}
    zone = Zone(folder / "zone.json", Fresh(NAME, settings=chosen, origins=["127.0.0.1"]))
    api = Api(zone, TOKEN)
    edge = Edge(zone, EdgeTls(folder, NAME), ended=api.traffic.add)
    https, http = await edge.start("127.0.0.1", 0, 0)
    made = Site(zone, api, edge, https, http)
    made.origin()
    try:
        yield made
    finally:
        await edge.stop()


@dataclass
class Process:
    """A running emulator: its process id, the URL of its API and its ports."""

    pid: int
    api: str
    https: int
    http: int


@contextlib.contextmanager
def process(folder: Path, *options: str) -> Iterator[Process]:
    """Run `python -m emulator` with its state in `folder`, until the block ends. Raises on a failed start."""
    (folder / "token").write_text(TOKEN + "\n")
    ports = {"api": free_port(), "https": free_port(), "http": free_port()}
    command = [sys.executable, "-m", "emulator", "--zone", NAME, "--token-file", str(folder / "token")]
    command += ["--state-dir", str(folder / "state"), "--origin", "127.0.0.1", *options]
    for name, port in ports.items():
        command += [f"--{name}-port", str(port)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EMULATOR_")}
    with (folder / "log").open("w") as log:
        running = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=log)
    try:
        api = f"http://127.0.0.1:{ports['api']}"

        def healthy() -> bool:
            assert running.poll() is None, (folder / "log").read_text()
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"{api}/healthz").raise_for_status().is_success
            return False

        wait_until("the emulator is healthy", healthy, 10)
        yield Process(running.pid, api, ports["https"], ports["http"])
    finally:
        running.terminate()
        assert running.wait(10) == 0
