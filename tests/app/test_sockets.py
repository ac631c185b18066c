"""Misbehaving clients, many sockets, and the shutdown."""

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Awaitable, Callable

import httpx
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from tests.kit.app import ORIGIN, Site, close_code, numbers, receive
from tests.kit.process import wait_until


async def test_ping_is_answered(site: Site, user: str) -> None:
    async with site.socket(user) as connection:
        await connection.send("ping")
        assert await connection.recv() == '{"type":"pong"}'
        await connection.send("anything else")
        await connection.send("ping")
        assert await receive(connection) == {"type": "pong"}


async def test_heartbeat_only_after_silence(site: Site, user: str) -> None:
    async with site.socket(user) as connection:
        begin = time.monotonic()
        await asyncio.sleep(0.6)
        await connection.send("ping")
        assert await connection.recv() == '{"type":"pong"}'
        async with asyncio.timeout(5):
            assert await connection.recv() == '{"type":"heartbeat"}'
        assert 1.5 < time.monotonic() - begin < 2.4  # 1 s after the ping, not after connecting


async def test_log_lines_of_the_guide(site: Site, user: str) -> None:
    async with site.socket(user) as connection:
        site.redis.publish(user, 1)
        await receive(connection)
    log = site.api.log()
    assert f"WebSocket connected for user {user}\n" in log
    assert f"Subscribed to Redis channel: user:{user}:events\n" in log
    assert "Forwarded cv_progress event to WebSocket\n" in log
    assert site.keys.read_text().strip() not in log


@pytest.mark.parametrize("last", ["", "x", "1", "1-", "-1", "1-1-1", "$", "1-99999999999999999999", "٣-١"])
async def test_malformed_last_id(site: Site, user: str, last: str) -> None:
    async with site.socket(user, last) as connection:
        assert await close_code(connection) == 4400


async def test_binary_frame(site: Site, user: str) -> None:
    async with site.socket(user) as connection:
        await connection.send(b"ping")
        assert await close_code(connection) == 1003


async def test_frame_over_64_kib(site: Site, user: str) -> None:
    async with site.socket(user) as connection:
        await connection.send("x" * 65_536)
        await connection.send("ping")
        assert await receive(connection) == {"type": "pong"}
        await connection.send("x" * 65_537)
        assert await close_code(connection) == 1009


async def test_huge_frame_is_refused_by_its_declared_length(site: Site, user: str) -> None:
    before = site.memory()
    async with site.socket(user) as connection:
        with contextlib.suppress(ConnectionClosed):
            await connection.send("x" * (64 << 20))
        assert await close_code(connection) == 1009
    assert site.memory() - before < 8 << 20


@pytest.mark.parametrize("send", [lambda connection: connection.send("ping"), ClientConnection.ping])
async def test_flood(site: Site, user: str, send: Callable[[ClientConnection], Awaitable[object]]) -> None:
    """A flood of messages, and one of the protocol's own pings."""
    before = site.memory()
    async with site.socket(user) as connection:
        with contextlib.suppress(ConnectionClosed):
            for _ in range(1_000):
                await send(connection)
        assert await close_code(connection) == 4429
    assert site.memory() - before < 8 << 20


async def test_slow_reader_is_closed_and_resumes(site: Site, user: str) -> None:
    raw = socket.create_connection(("127.0.0.1", site.port))
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 262_144)
    before = site.memory()
    async with site.socket(user, sock=raw, max_queue=1) as slow, site.socket(user) as quick:
        reading = asyncio.create_task(numbers(quick, 4_999, seconds=20))
        for begin in range(0, 5_000, 500):
            await asyncio.to_thread(site.redis.publish, user, *range(begin, begin + 500), filler="x" * 4_000)
        assert await reading == list(range(5_000))
        received = []
        with pytest.raises(ConnectionClosed):
            while True:
                received.append(await receive(slow, seconds=20))
        assert slow.close_code == 1013
        assert [event["number"] for event in received] == list(range(len(received)))
    assert site.memory() - before < 64 << 20
    async with site.socket(user, received[-1]["id"]) as connection:
        assert (await receive(connection))["type"] == "resync"


async def test_disconnect_frees_the_subscription(site: Site, user: str) -> None:
    async with site.socket(user) as first:
        second = await site.socket(user)
        assert site.redis.listeners(user) == 1
        second.transport.abort()
        site.redis.publish(user, 1)
        assert await numbers(first, 1) == [1]
    wait_until("the channel has no subscriber", lambda: site.redis.listeners(user) == 0, seconds=2)


async def test_two_hundred_sockets_need_three_redis_connections(own_site: Site) -> None:
    own_site.start()
    async with contextlib.AsyncExitStack() as stack:
        connections = await asyncio.gather(
            *(stack.enter_async_context(own_site.socket(f"user-{n % 50}")) for n in range(200))
        )
        with own_site.http("user-0") as http:
            responses = await asyncio.gather(
                *(
                    asyncio.to_thread(http.post, "/batches", files=[("files", ("a.txt", b"Ada"))])
                    for _ in range(8)
                )
            )
        assert {response.status_code for response in responses} == {202}
        clients = [client for client in own_site.redis.client.client_list() if client["name"] != "test"]
        assert len(clients) <= 3, clients
        own_site.redis.publish("user-7", 1)
        for connection in connections[7::50]:
            assert await numbers(connection, 1) == [1]


async def test_shutdown_closes_sockets_one_by_one(own_site: Site) -> None:
    own_site.start()
    raw = socket.create_connection(("127.0.0.1", own_site.port))
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    stalled = await own_site.socket("stalled", sock=raw, max_queue=1)
    own_site.redis.publish("stalled", *range(1_500), filler="x" * 4_000)
    async with contextlib.AsyncExitStack() as stack:
        connections = await asyncio.gather(
            *(stack.enter_async_context(own_site.socket(f"user-{n}")) for n in range(100))
        )
        assert own_site.api.child
        begin = time.monotonic()
        own_site.api.child.send_signal(signal.SIGTERM)

        async def end(connection: ClientConnection) -> tuple[float, int | None]:
            code = await close_code(connection)
            return time.monotonic() - begin, code

        ends = await asyncio.gather(*map(end, connections))
    times, codes = zip(*sorted(ends), strict=True)
    assert set(codes) == {1012}
    assert times[-1] - times[0] < 3
    assert times[90] - times[10] > 0.4  # not all at once
    own_site.api.child.wait(8)  # despite the client that reads nothing
    stalled.transport.abort()


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "null",
        "https://evil.example",
        "http://screen-flow.test",
        f"{ORIGIN}:8443",
        f"{ORIGIN}.evil.example",
        f"{ORIGIN}/",
        "https://SCREEN-FLOW.test",
        "screen-flow.test",
        f"{ORIGIN}, {ORIGIN}",
    ],
)
async def test_foreign_origin(site: Site, user: str, origin: str | None) -> None:
    async with site.socket(user, origin=origin) as connection:
        assert await close_code(connection) == 4403


def test_page_of_another_site_can_change_nothing(site: Site, user: str) -> None:
    with site.http(user) as http:
        http.headers["Origin"] = "https://evil.example"
        response = http.post("/batches", files=[("files", ("a.txt", b"Ada"))])
        assert response.status_code == 403
        assert "https://evil.example" in response.json()["detail"]


def test_health(site: Site) -> None:
    assert httpx.get(f"{site.url}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{site.url}/readyz").json() == {
        "status": "ready",
        "redis": "ok",
        "storage": "ok",
    }


def test_cache_headers_of_the_page(site: Site) -> None:
    page = site.folder / "page"
    assert "page was not built" in httpx.get(site.url).text
    (page / "assets").mkdir()
    (page / "index.html").write_text("<!doctype html>built")
    (page / "assets" / "app-1234.js").write_text("1")
    (site.folder / "secret").write_text("no")
    index = httpx.get(site.url)
    assert (index.text, index.headers["cache-control"]) == ("<!doctype html>built", "no-cache")
    assert "default-src 'self'" in index.headers["content-security-policy"]
    asset = httpx.get(f"{site.url}/assets/app-1234.js")
    assert asset.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert httpx.get(f"{site.url}/assets/none.js").status_code == 404
    assert httpx.get(f"{site.url}/%2e%2e/secret").status_code == 404
    assert httpx.get(f"{site.url}/api/none").json() == {"detail": "Not Found"}
