"""What a visitor and an origin notice of the emulated edge, for each setting that it obeys."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import ssl
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import websockets

from emulator.certificates import Authority
from emulator.edge.rocket_loader import SCRIPT_PATH
from tests.kit import emulator as kit


@pytest.fixture(scope="module")
def origins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """The ports of an origin that answers http, and https with a certificate that nobody vouches for."""
    path = kit.certificate(tmp_path_factory.mktemp("origin"), Authority.create("somebody"))
    with kit.origin() as http, kit.origin(path) as https:
        yield http, https


@pytest.fixture
def live(site: kit.Site, origins: tuple[int, int]) -> kit.Site:
    """A site with ssl full whose origin answers http and https."""
    site.origin(*origins)
    site.zone.put_settings({"ssl": "full"})
    return site


# --- SSL modes


@pytest.mark.parametrize(
    ("mode", "scheme", "origin_scheme"),
    [
        ("off", "http", "http"),
        ("flexible", "http", "http"),
        ("flexible", "https", "http"),
        ("full", "http", "http"),
        ("full", "https", "https"),
        ("strict", "http", "http"),
    ],
)
async def test_the_mode_decides_how_the_origin_is_spoken_to(
    live: kit.Site, mode: str, scheme: str, origin_scheme: str
) -> None:
    live.zone.put_settings({"ssl": mode})
    seen = (await live.get("/headers", scheme)).json()
    assert seen["scheme"] == origin_scheme
    assert dict(seen["headers"])["x-forwarded-proto"] == scheme
    assert dict(seen["headers"])["cf-visitor"] == f'{{"scheme":"{scheme}"}}'


async def test_off_sends_https_visitors_to_http(live: kit.Site) -> None:
    live.zone.put_settings({"ssl": "off", "always_use_https": "on"})
    answer = await live.get("/headers?a=1")
    assert (answer.status_code, answer.headers["location"]) == (
        301,
        f"http://{kit.NAME}:{live.http}/headers?a=1",
    )
    handshake = {"connection": "Upgrade", "upgrade": "websocket"}
    assert (await live.get("/ws", headers=handshake)).status_code == 301
    assert (await live.get("/headers", "http")).status_code == 200


async def test_always_use_https_sends_http_visitors_to_https(live: kit.Site) -> None:
    live.zone.put_settings({"always_use_https": "on"})
    answer = await live.get("/headers", "http")
    assert (answer.status_code, answer.headers["location"]) == (
        301,
        f"https://{kit.NAME}:{live.https}/headers",
    )


async def test_full_over_an_origin_without_tls_is_521(site: kit.Site) -> None:
    with kit.origin() as http:
        site.origin(http)
        assert (await site.get("/headers")).status_code == 200
        site.zone.put_settings({"ssl": "full"})
        answer = await site.get("/headers")
    assert answer.status_code == 521
    assert answer.headers["server"] == "cloudflare"
    assert answer.headers["cf-ray"] in answer.text


@pytest.mark.parametrize("mode", ["full", "strict"])
async def test_an_origin_that_speaks_no_tls_on_443_is_525(site: kit.Site, mode: str) -> None:
    site.zone.put_settings({"ssl": mode})
    with kit.origin() as http:
        site.origin(http, https=http)
        assert (await site.get("/headers")).status_code == 525


async def test_strict_takes_a_valid_certificate_of_the_origin_ca(site: kit.Site, tmp_path: Path) -> None:
    site.zone.put_settings({"ssl": "strict"})
    with kit.origin(kit.certificate(tmp_path, site.edge.tls.origin_ca)) as https:
        site.origin(https=https)
        assert (await site.get("/headers")).status_code == 200


async def test_strict_takes_a_certificate_that_public_roots_vouch_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = Authority.create("a public root")
    (tmp_path / "roots.pem").write_bytes(public.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "roots.pem"))
    with kit.origin(kit.certificate(tmp_path, public)) as https:
        async with kit.site(tmp_path, ssl="strict") as site:
            site.origin(https=https)
            assert (await site.get("/headers")).status_code == 200


@pytest.mark.parametrize("fault", ["expired", "not yet valid", "other name", "unknown issuer"])
async def test_strict_refuses_other_certificates_with_526_and_full_takes_them(
    site: kit.Site, tmp_path: Path, fault: str
) -> None:
    authority = Authority.create("unknown") if fault == "unknown issuer" else site.edge.tls.origin_ca
    days = {"expired": -10, "not yet valid": 1}.get(fault)
    path = kit.certificate(
        tmp_path,
        authority,
        name="other.localhost" if fault == "other name" else kit.NAME,
        days=5,
        start=days and dt.datetime.now(dt.UTC) + dt.timedelta(days=days),
    )
    with kit.origin(path) as https:
        site.origin(https=https)
        site.zone.put_settings({"ssl": "strict"})
        assert (await site.get("/headers")).status_code == 526
        site.zone.put_settings({"ssl": "full"})
        assert (await site.get("/headers")).status_code == 200


# --- other errors of the origin


async def test_an_origin_that_accepts_no_connection_in_time_is_522(site: kit.Site) -> None:
    site.edge.configure({"connect_seconds": 0.3})
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        # The kernel drops what comes once the queue of a listener that accepts nothing is full.
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        site.origin(http=full.getsockname()[1])
        assert (await site.get("/headers")).status_code == 522


async def test_an_origin_that_is_too_slow_is_524(live: kit.Site) -> None:
    live.zone.put_settings({"proxy_read_timeout": 0.3})
    assert (await live.get("/slow?seconds=0.1")).text == "late"
    assert (await live.get("/slow?seconds=5")).status_code == 524


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 101 Switching Protocols\r\n\r\n"])
async def test_an_origin_that_gives_no_answer_is_520(site: kit.Site, answer: bytes) -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    async with kit.raw_origin(behave) as http:
        site.origin(http)
        assert (await site.get("/headers")).status_code == 520


async def test_provisional_answers_are_not_taken_for_the_answer(site: kit.Site) -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with kit.raw_origin(behave) as http:
        site.origin(http)
        assert (await site.get("/headers")).text == "ok"


async def test_an_answer_that_breaks_off_is_not_passed_as_whole(site: kit.Site) -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")

    async with kit.raw_origin(behave) as http:
        site.origin(http)
        with pytest.raises(httpx.TransportError):
            await site.get("/headers")


async def test_a_host_name_as_origin_is_looked_up_and_530_when_it_has_no_address(site: kit.Site) -> None:
    with kit.origin() as http:
        site.origin(http)
        record = {"type": "CNAME", "name": kit.NAME, "content": "localhost"}
        site.zone.dns.put([record])
        assert (await site.get("/headers")).status_code == 200
        site.zone.dns.put([{**record, "content": "nowhere.invalid"}])
        assert (await site.get("/headers")).status_code == 530


async def test_a_second_address_serves_when_the_first_is_down(live: kit.Site) -> None:
    addresses = ("127.0.0.99", "127.0.0.1")
    live.zone.dns.put([{"type": "A", "name": kit.NAME, "content": address} for address in addresses])
    assert {(await live.get("/headers")).status_code for _ in range(6)} == {200}


# --- names and TLS towards visitors


async def test_the_edge_serves_only_the_zones_proxied_names(live: kit.Site) -> None:
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


# --- headers


async def test_the_origin_gets_cloudflares_headers_and_no_forged_ones(live: kit.Site) -> None:
    forged = {
        "CF-Connecting-IP": "6.6.6.6",
        "CF-Ray": "forged",
        "CF-IPCountry": "FR",
        "Cf-Visitor": '{"scheme":"http"}',
        "CF-Worker": "evil",
        "True-Client-IP": "6.6.6.6",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-For": "6.6.6.6",
        "CDN-Loop": "other, cloudflare; loops=9",
        "Connection": "X-Private",
        "X-Private": "hop",
        "X-Own": "kept",
    }
    answer = await live.get("/headers", headers=forged)
    names = [name for name, _ in answer.json()["headers"]]
    seen = dict(answer.json()["headers"])
    assert len(names) == len(set(names))
    assert seen["host"] == kit.NAME
    assert seen["cf-connecting-ip"] == "127.0.0.1"
    assert seen["x-forwarded-for"] == "6.6.6.6, 127.0.0.1"
    assert seen["x-forwarded-proto"] == "https"
    assert seen["cf-visitor"] == '{"scheme":"https"}'
    assert seen["cf-ipcountry"] == "XX"
    assert seen["cf-ray"] == answer.headers["cf-ray"]
    assert seen["cdn-loop"] == "other, cloudflare; loops=1"
    assert seen["x-own"] == "kept"
    assert not {"cf-worker", "true-client-ip", "x-private"} & seen.keys()
    assert answer.headers["server"] == "cloudflare"
    assert answer.headers["cf-cache-status"] == "DYNAMIC"


async def test_upgrades_to_other_protocols_do_not_reach_the_origin(live: kit.Site) -> None:
    h2c = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAAA"}
    seen = dict((await live.get("/headers", "http", headers=h2c)).json()["headers"])
    assert not {"upgrade", "http2-settings"} & seen.keys()


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


async def test_a_broken_request_is_400(live: kit.Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", live.http)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 400")
    writer.close()


# --- WebSockets


@pytest.mark.parametrize("mode", ["flexible", "full"])
async def test_a_websocket_goes_through(live: kit.Site, mode: str) -> None:
    live.zone.put_settings({"ssl": mode})
    async with live.websocket() as connection:
        assert connection.response is not None
        assert connection.response.headers["cf-ray"].endswith("-EMU")
        for message in ("ping", "x" * 300_000):
            await connection.send(message)
            assert await connection.recv() == message
        await connection.send("close")
        with pytest.raises(websockets.ConnectionClosed):
            await connection.recv()
        assert connection.close_code == 1012
    await live.closed()


async def test_websockets_off_makes_the_handshake_a_plain_get(live: kit.Site) -> None:
    live.zone.put_settings({"websockets": "off"})
    with pytest.raises(websockets.InvalidStatus) as refused:
        await live.websocket("/headers")
    response = refused.value.response
    assert response.status_code == 200
    assert b"upgrade" not in response.body.lower()
    assert b"sec-websocket" not in response.body.lower()
    assert "upgrade" not in response.headers
    with pytest.raises(websockets.InvalidStatus):
        await live.websocket("/ws")


async def test_a_refused_handshake_is_passed_on(live: kit.Site) -> None:
    with pytest.raises(websockets.InvalidStatus) as refused:
        await live.websocket("/nowhere")
    assert refused.value.response.status_code == 403
    assert refused.value.response.headers["server"] == "cloudflare"


async def test_a_silent_tunnel_is_cut_without_a_close_frame(live: kit.Site) -> None:
    loop = asyncio.get_running_loop()
    async with live.websocket(ping_interval=None) as connection:
        await connection.send("hello")
        assert await connection.recv() == "hello"
        live.edge.configure({"idle_seconds": 0.4})  # an open tunnel obeys too
        started = loop.time()
        with pytest.raises(websockets.ConnectionClosedError):
            await asyncio.wait_for(connection.recv(), 5)
        assert 0.2 < loop.time() - started < 1.5
        assert connection.close_code == 1006


@pytest.mark.parametrize("speaker", ["visitor", "origin"])
async def test_traffic_in_one_direction_keeps_a_tunnel(live: kit.Site, speaker: str) -> None:
    live.edge.configure({"idle_seconds": 0.4})
    async with live.websocket(ping_interval=None) as connection:
        if speaker == "origin":
            await connection.send("talk8")
            assert [await connection.recv() for _ in range(8)] == list("01234567")
        else:
            for number in range(8):
                await connection.send(f"n{number}")
                await asyncio.sleep(0.1)
        await connection.send("alive")
        while await connection.recv() != "alive":
            pass


async def test_cut_drops_hundreds_of_sockets_at_once_and_new_ones_are_served(live: kit.Site) -> None:
    connections = await asyncio.gather(*(live.websocket(ping_interval=None) for _ in range(200)))
    assert live.edge.describe()["tunnels"] == 200

    async def talk(connection: websockets.ClientConnection, text: str) -> None:
        await connection.send(text)
        assert await connection.recv() == text

    await asyncio.gather(*(talk(connection, str(n)) for n, connection in enumerate(connections)))
    async with live.client() as client:
        assert (await client.post("/_emulator/edge/cut")).json() == {"cut": 200}
    await asyncio.wait_for(asyncio.gather(*(c.wait_closed() for c in connections)), 10)
    assert {connection.close_code for connection in connections} == {1006}
    async with live.websocket() as connection:
        await talk(connection, "again")
    await live.closed()


# --- Rocket Loader


@pytest.mark.parametrize("form", ["?plain", "?gz", "?bytes"])
async def test_rocket_loader_holds_back_scripts(live: kit.Site, form: str) -> None:
    untouched = (await live.get(f"/page{form}")).content
    assert untouched == kit.PAGE
    live.zone.put_settings({"rocket_loader": "on"})
    answer = await live.get(f"/page{form}", headers={"accept-encoding": "identity"})
    text = answer.text
    prefix = text.split('<script type="')[1].split("text/javascript")[0]
    assert f'<script type="{prefix}text/javascript">window.order' in text
    assert f'<script type="{prefix}module" src="/app.js">' in text
    assert '<script type="application/json">{"a": "<script>"}</script>' in text
    assert "<!-- <script>never()</script> -->" in text
    assert '<script data-cfasync="false">window.early = "</body>"' in text
    assert text.endswith(
        f'<script src="{SCRIPT_PATH}" data-cf-settings="{prefix}|49" defer></script></body></html>'
    )
    assert text.count(SCRIPT_PATH) == 1
    assert "content-encoding" not in answer.headers
    if form != "?bytes":
        assert answer.headers["etag"] == 'W/"1"'
    loader = await live.get(SCRIPT_PATH)
    assert loader.headers["content-type"] == "application/javascript"


async def test_rocket_loader_leaves_other_answers_alone(live: kit.Site) -> None:
    live.zone.put_settings({"rocket_loader": "on"})
    answer = await live.get("/page?as=text/plain", headers={"accept-encoding": "identity"})
    assert (answer.content, answer.headers["etag"]) == (kit.PAGE, '"1"')


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


async def test_a_body_over_the_plans_limit_is_413_by_its_length_at_once(live: kit.Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", live.http)
    writer.write(f"POST /upload HTTP/1.1\r\nHost: {kit.NAME}\r\nContent-Length: 100000001\r\n\r\n".encode())
    assert (await asyncio.wait_for(reader.readline(), 2)).startswith(b"HTTP/1.1 413")
    writer.close()


async def test_a_body_that_grows_over_the_limit_is_413(live: kit.Site) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(101):
            yield bytes(1_000_000)

    assert (await live.request("POST", "/upload", "http", content=chunks())).status_code == 413


async def test_a_chunked_body_within_the_limit_arrives(live: kit.Site) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield bytes(10_000)

    assert (await live.request("POST", "/upload", content=chunks())).json() == {"size": 500_000}


async def test_an_origins_early_refusal_reaches_a_visitor_who_still_uploads(site: kit.Site) -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        await writer.drain()
        await asyncio.sleep(0.1)

    async with kit.raw_origin(behave) as http:
        site.origin(http)
        answer = await site.request("POST", "/upload", content=bytes(5_000_000))
    assert (answer.status_code, answer.text) == (413, "no")


async def test_a_refusal_is_read_by_a_visitor_who_sends_its_whole_body_first(site: kit.Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.http)
    writer.write(f"POST / HTTP/1.1\r\nHost: {kit.NAME}\r\nContent-Length: 9000000\r\n\r\n".encode())
    for _ in range(9):
        writer.write(bytes(1_000_000))
        await writer.drain()
    await asyncio.sleep(0.1)
    assert (await reader.readline()).startswith(b"HTTP/1.1 521")
    writer.close()


async def test_the_edge_itself_says_100_continue(live: kit.Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", live.http)
    writer.write(
        f"POST /headers HTTP/1.1\r\nHost: {kit.NAME}\r\n"
        "Content-Length: 2\r\nExpect: 100-continue\r\n\r\n".encode()
    )
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
    writer.write(b"ok")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()
