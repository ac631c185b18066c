"""The edge towards visitors: names, TLS versions, connections and uploads."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import warnings
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.kit import emulator as kit


@contextlib.asynccontextmanager
async def connection(site: kit.Site) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A plain connection to the edge's HTTP port."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.http)
    try:
        yield reader, writer
    finally:
        writer.close()


def post(path: str, *headers: str) -> bytes:
    """The head of a POST request to the site."""
    return "\r\n".join([f"POST {path} HTTP/1.1", f"Host: {kit.NAME}", *headers, "\r\n"]).encode()


# --- names and TLS versions


async def test_only_proxied_names_of_the_zone_are_served(live: kit.Site) -> None:
    with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
        await asyncio.open_connection("127.0.0.1", live.https, ssl=live.trust, server_hostname="example.com")
    context = ssl._create_unverified_context()
    with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
        await asyncio.open_connection("127.0.0.1", live.https, ssl=context, server_hostname=None)
    assert (await live.get("/headers", headers={"host": "example.com"})).status_code == 409
    live.zone.dns.put([{"type": "A", "name": kit.NAME, "content": "127.0.0.1", "proxied": False}])
    with pytest.raises(httpx.ConnectError):
        await live.get("/headers")


@pytest.mark.parametrize(
    ("settings", "offered", "accepted"),
    [
        ({}, "TLSv1_1", "TLSv1.1"),
        ({"min_tls_version": "1.2"}, "TLSv1_1", None),
        ({"min_tls_version": "1.2"}, "TLSv1_3", "TLSv1.3"),
        ({"tls_1_3": "off"}, "TLSv1_3", "TLSv1.2"),
        ({"min_tls_version": "1.3"}, "TLSv1_2", None),
    ],
)
async def test_tls_versions_follow_the_settings(
    live: kit.Site, settings: dict[str, str], offered: str, accepted: str | None
) -> None:
    live.zone.put_settings(settings)
    context = live.trust
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion[offered]
    try:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", live.https, ssl=context, server_hostname=kit.NAME
        )
    except ssl.SSLError:
        assert accepted is None
    else:
        assert writer.get_extra_info("ssl_object").version() == accepted
        writer.close()


# --- connections


async def test_a_connection_carries_many_requests(live: kit.Site) -> None:
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{live.http}", headers={"host": kit.NAME}
    ) as client:
        for method in ("GET", "HEAD", "POST", "GET"):
            assert (await client.request(method, "/headers")).status_code == 200
        live.zone.put_settings({"always_use_https": "on"})
        for method in ("GET", "HEAD", "GET"):
            assert (await client.request(method, "/headers")).status_code == 301
        assert live.edge.describe()["connections"] == 1


async def test_a_malformed_request_is_400(live: kit.Site) -> None:
    async with connection(live) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 400")


# --- uploads


async def test_a_large_upload_streams_with_bounded_memory(tmp_path: Path) -> None:
    def peak(pid: int) -> int:
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) // 1024

    with kit.origin() as http:
        options = ("--origin-http-port", str(http), "--settings", "rocket_loader=off")
        with kit.process(tmp_path, *options) as emulator:
            before = peak(emulator.pid)
            trust = ssl.create_default_context(cafile=tmp_path / "state" / "edge-ca.pem")
            async with httpx.AsyncClient(verify=trust, timeout=60) as client:
                answer = await client.post(
                    f"https://127.0.0.1:{emulator.https}/upload",
                    content=bytes(50_000_000),
                    headers={"host": kit.NAME},
                    extensions={"sni_hostname": kit.NAME},
                )
            assert answer.json() == {"size": 50_000_000}
            assert peak(emulator.pid) - before < 10


async def test_a_content_length_over_the_plans_limit_is_413_at_once(live: kit.Site) -> None:
    async with connection(live) as (reader, writer):
        writer.write(post("/upload", "Content-Length: 100000001"))
        assert (await asyncio.wait_for(reader.readline(), 2)).startswith(b"HTTP/1.1 413")


async def chunks(count: int, size: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield bytes(size)


async def test_a_chunked_body_that_exceeds_the_limit_is_413(live: kit.Site) -> None:
    body = chunks(101, 1_000_000)
    assert (await live.request("POST", "/upload", "http", content=body)).status_code == 413


async def test_a_chunked_body_within_the_limit_arrives(live: kit.Site) -> None:
    body = chunks(50, 10_000)
    assert (await live.request("POST", "/upload", content=body)).json() == {"size": 500_000}


async def test_an_early_refusal_of_the_origin_reaches_a_visitor_that_is_still_uploading(
    site: kit.Site,
) -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        await writer.drain()
        await asyncio.sleep(0.1)

    async with kit.raw_origin(behave) as http:
        site.origin(http)
        answer = await site.request("POST", "/upload", content=bytes(5_000_000))
    assert (answer.status_code, answer.text) == (413, "no")


async def test_a_refusal_reaches_a_visitor_that_sends_its_whole_body_first(site: kit.Site) -> None:
    async with connection(site) as (reader, writer):
        writer.write(post("/", "Content-Length: 9000000"))
        for _ in range(9):
            writer.write(bytes(1_000_000))
            await writer.drain()
        await asyncio.sleep(0.1)
        assert (await reader.readline()).startswith(b"HTTP/1.1 521")


async def test_the_edge_itself_sends_100_continue(live: kit.Site) -> None:
    async with connection(live) as (reader, writer):
        writer.write(post("/headers", "Content-Length: 2", "Expect: 100-continue"))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        writer.write(b"ok")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
