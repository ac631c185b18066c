"""The edge towards the origin: SSL modes, certificates, failures, and the headers that it sends."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx
import pytest

from emulator.certificates import Authority
from emulator.dns import record_for
from tests.kit import emulator as kit

# --- SSL modes


# Visitors over HTTP reach the origin over HTTP in every mode; those over HTTPS according to the mode.
SCHEMES = [("http", mode, "http") for mode in ("off", "flexible", "full", "strict")]
SCHEMES += [("https", "flexible", "http"), ("https", "full", "https")]


@pytest.mark.parametrize(("scheme", "mode", "origin_scheme"), SCHEMES)
async def test_the_ssl_mode_decides_the_scheme_towards_the_origin(
    live: kit.Site, scheme: str, mode: str, origin_scheme: str
) -> None:
    live.zone.put_settings({"ssl": mode})
    received = (await live.get("/headers", scheme)).json()
    assert received["scheme"] == origin_scheme
    assert dict(received["headers"])["x-forwarded-proto"] == scheme
    assert dict(received["headers"])["cf-visitor"] == f'{{"scheme":"{scheme}"}}'


@pytest.mark.parametrize(("of_the_zone", "of_the_host"), [("flexible", "full"), ("full", "flexible")])
async def test_a_configuration_rule_sets_the_ssl_mode_of_one_host(
    live: kit.Site, api: httpx.AsyncClient, of_the_zone: str, of_the_host: str
) -> None:
    live.zone.put_settings({"ssl": of_the_zone})
    live.zone.dns.put([record_for(name, "127.0.0.1") for name in (kit.NAME, f"shop.{kit.NAME}")])
    rule = {
        "action": "set_config",
        "action_parameters": {"ssl": of_the_host},
        "expression": f'http.host in {{"{kit.NAME}"}}',
    }
    path = f"/zones/{live.zone.id}/rulesets/phases/http_config_settings/entrypoint"
    assert (await api.put(path, json={"rules": [rule]})).status_code == 200
    schemes = {"full": "https", "flexible": "http"}
    assert (await live.get("/headers")).json()["scheme"] == schemes[of_the_host]
    elsewhere = await live.get("/headers", headers={"host": f"shop.{kit.NAME}"})
    assert elsewhere.json()["scheme"] == schemes[of_the_zone]


async def test_strict_by_a_rule_checks_the_certificate_for_that_host_alone(
    live: kit.Site, api: httpx.AsyncClient
) -> None:
    live.zone.dns.put([record_for(name, "127.0.0.1") for name in (kit.NAME, f"shop.{kit.NAME}")])
    rule = {
        "action": "set_config",
        "action_parameters": {"ssl": "strict"},
        "expression": f'http.host eq "{kit.NAME}"',
    }
    path = f"/zones/{live.zone.id}/rulesets/phases/http_config_settings/entrypoint"
    assert (await api.put(path, json={"rules": [rule]})).status_code == 200
    assert (await live.get("/headers")).status_code == 526
    assert (await live.get("/headers", headers={"host": f"shop.{kit.NAME}"})).status_code == 200


async def test_ssl_off_redirects_https_to_http(live: kit.Site) -> None:
    live.zone.put_settings({"ssl": "off", "always_use_https": "on"})
    answer = await live.get("/headers?a=1")
    assert answer.status_code == 301
    assert answer.headers["location"] == f"http://{kit.NAME}:{live.http}/headers?a=1"
    handshake = {"connection": "Upgrade", "upgrade": "websocket"}
    assert (await live.get("/ws", headers=handshake)).status_code == 301
    assert (await live.get("/headers", "http")).status_code == 200


async def test_always_use_https_redirects_http_to_https(live: kit.Site) -> None:
    live.zone.put_settings({"always_use_https": "on"})
    answer = await live.get("/headers", "http")
    assert answer.status_code == 301
    assert answer.headers["location"] == f"https://{kit.NAME}:{live.https}/headers"


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
async def test_an_origin_with_plain_http_on_its_https_port_is_525(site: kit.Site, mode: str) -> None:
    site.zone.put_settings({"ssl": mode})
    with kit.origin() as http:
        site.origin(http, https=http)
        assert (await site.get("/headers")).status_code == 525


async def test_strict_accepts_a_valid_certificate_of_the_origin_ca(site: kit.Site, tmp_path: Path) -> None:
    site.zone.put_settings({"ssl": "strict"})
    with kit.origin(kit.certificate(tmp_path, site.edge.tls.origin_ca)) as https:
        site.origin(https=https)
        assert (await site.get("/headers")).status_code == 200


async def test_strict_accepts_a_certificate_of_a_public_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = Authority.create("public root")
    (tmp_path / "roots.pem").write_bytes(public.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "roots.pem"))
    with kit.origin(kit.certificate(tmp_path, public)) as https:
        async with kit.site(tmp_path, ssl="strict") as site:
            site.origin(https=https)
            assert (await site.get("/headers")).status_code == 200


@pytest.mark.parametrize("fault", ["expired", "not yet valid", "other name", "unknown issuer"])
async def test_strict_rejects_other_certificates_with_526_and_full_accepts_them(
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


# --- failures of the origin


async def test_a_connect_timeout_is_522(site: kit.Site) -> None:
    site.edge.configure({"connect_seconds": 0.3})
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        # Once the accept queue is full, the kernel drops further connection attempts.
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        site.origin(http=full.getsockname()[1])
        assert (await site.get("/headers")).status_code == 522


async def test_a_read_timeout_is_524(live: kit.Site) -> None:
    live.zone.put_settings({"proxy_read_timeout": 0.3})
    assert (await live.get("/slow?seconds=0.1")).text == "late"
    assert (await live.get("/slow?seconds=5")).status_code == 524


def replying(response: bytes) -> AbstractAsyncContextManager[int]:
    """An origin that replies to a request with these bytes and closes the connection; its port."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response)

    return kit.raw_origin(behave)


@pytest.mark.parametrize("response", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 101 Switching Protocols\r\n\r\n"])
async def test_a_missing_or_invalid_response_is_520(site: kit.Site, response: bytes) -> None:
    async with replying(response) as http:
        site.origin(http)
        assert (await site.get("/headers")).status_code == 520


async def test_informational_responses_are_skipped(site: kit.Site) -> None:
    early_hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
    async with replying(early_hints + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as http:
        site.origin(http)
        assert (await site.get("/headers")).text == "ok"


async def test_a_truncated_response_is_not_passed_on_as_complete(site: kit.Site) -> None:
    async with replying(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort") as http:
        site.origin(http)
        with pytest.raises(httpx.TransportError):
            await site.get("/headers")


async def test_an_origin_host_name_is_resolved_and_530_if_it_does_not_resolve(site: kit.Site) -> None:
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


# --- headers


async def test_the_origin_receives_cloudflares_headers_and_no_forged_ones(live: kit.Site) -> None:
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
    received = dict(answer.json()["headers"])
    assert len(names) == len(set(names))
    assert received["host"] == kit.NAME
    assert received["cf-connecting-ip"] == "127.0.0.1"
    assert received["x-forwarded-for"] == "6.6.6.6, 127.0.0.1"
    assert received["x-forwarded-proto"] == "https"
    assert received["cf-visitor"] == '{"scheme":"https"}'
    assert received["cf-ipcountry"] == "XX"
    assert received["cf-ray"] == answer.headers["cf-ray"]
    assert received["cdn-loop"] == "other, cloudflare; loops=1"
    assert received["x-own"] == "kept"
    assert not {"cf-worker", "true-client-ip", "x-private"} & received.keys()
    assert answer.headers["server"] == "cloudflare"
    assert answer.headers["cf-cache-status"] == "DYNAMIC"


async def test_upgrades_to_other_protocols_are_not_forwarded(live: kit.Site) -> None:
    h2c = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAAA"}
    received = dict((await live.get("/headers", "http", headers=h2c)).json()["headers"])
    assert not {"upgrade", "http2-settings"} & received.keys()
