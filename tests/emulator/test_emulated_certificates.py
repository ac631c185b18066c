"""Origin CA and Authenticated Origin Pulls: what is signed, and what the edge accepts and presents."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from emulator.certificates import Authority, private_pem
from tests.kit import emulator as kit
from tests.kit.certificates import Key, ec_key, origin_ca_order, rsa_key
from tests.kit.emulator import refusal


def wanted(key: Key, **more: Any) -> dict[str, Any]:
    return origin_ca_order(kit.NAME, key, **more)


EC_KEY = ec_key()
RSA_KEY = rsa_key()


@pytest.mark.parametrize("key", [EC_KEY, RSA_KEY], ids=["ecc", "rsa"])
async def test_the_edge_accepts_what_the_origin_ca_signed(
    site: kit.Site, api: httpx.AsyncClient, tmp_path: Path, key: Key
) -> None:
    site.zone.put_settings({"ssl": "strict"})
    created = (await api.post("/certificates", json=wanted(key))).json()["result"]
    certificate = x509.load_pem_x509_certificate(created["certificate"].encode())
    assert certificate.public_key() == key.public_key()
    assert round((certificate.not_valid_after_utc - certificate.not_valid_before_utc).days) == 90
    assert created["expires_on"].startswith(f"{certificate.not_valid_after_utc:%Y-%m-%d}")
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path / "origin.pem"
    path.write_bytes(pem + created["certificate"].encode())
    with kit.origin(path) as https:
        site.origin(https=https)
        assert (await site.get("/headers")).status_code == 200


async def test_certificates_are_listed_until_they_are_revoked(site: kit.Site, api: httpx.AsyncClient) -> None:
    created = (await api.post("/certificates", json=wanted(EC_KEY))).json()["result"]
    listing = f"/certificates?zone_id={site.zone.id}"
    assert (await api.get(listing)).json()["result"] == [created]
    assert (await api.get(f"/certificates/{created['id']}")).json()["result"] == created
    revoked = (await api.delete(f"/certificates/{created['id']}")).json()["result"]
    assert (revoked["id"], revoked["revoked_at"][:2]) == (created["id"], "20")
    assert (await api.get(listing)).json()["result"] == []
    assert refusal(await api.delete(f"/certificates/{created['id']}")) == (400, 1105)
    assert refusal(await api.get("/certificates")) == (400, 1002)
    assert refusal(await api.get(f"/certificates/{'0' * 32}")) == (404, 1101)


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"request_type": "origin-rsa"}, 1012),
        ({"request_type": "origin-dsa"}, 1004),
        ({"requested_validity": 91}, 1013),
        ({"hostnames": []}, 1008),
        ({"hostnames": ["a b"]}, 1009),
        ({"hostnames": ["example.com"]}, 1010),
        ({"csr": "-----BEGIN"}, 1011),
    ],
)
async def test_an_invalid_request_is_not_signed(
    site: kit.Site, api: httpx.AsyncClient, more: dict[str, Any], code: int
) -> None:
    assert refusal(await api.post("/certificates", json=wanted(EC_KEY, **more))) == (400, code)
    assert site.zone.origin_ca.all == []


# --- Authenticated Origin Pulls


def client_certificate(authority: Authority) -> dict[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = authority.issue(["edge.example"], key.public_key(), 30, purpose=ExtendedKeyUsageOID.CLIENT_AUTH)
    return {
        "certificate": leaf.public_bytes(serialization.Encoding.PEM).decode(),
        "private_key": private_pem(key).decode(),
    }


@pytest.fixture
async def verifying_origin(site: kit.Site, tmp_path: Path) -> AsyncIterator[ssl.SSLContext]:
    """The TLS context of an origin; it accepts client certificates of the authorities loaded into it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(kit.certificate(tmp_path, site.edge.tls.origin_ca))
    context.verify_mode = ssl.CERT_REQUIRED

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    site.zone.put_settings({"ssl": "full"})
    site.origin(https=server.sockets[0].getsockname()[1])
    async with server:
        yield context


async def test_the_edge_presents_the_zones_own_certificate_once_it_is_deployed_and_enabled(
    site: kit.Site, api: httpx.AsyncClient, verifying_origin: ssl.SSLContext
) -> None:
    authority = Authority.create("ours")
    verifying_origin.load_verify_locations(cadata=authority.pem.decode())
    base = f"/zones/{site.zone.id}/origin_tls_client_auth"
    created = (await api.post(base, json=client_certificate(authority))).json()["result"]
    assert created["status"] == "pending_deployment"
    assert "private_key" not in created
    assert (await site.get("/")).status_code >= 500
    assert (await api.put(f"{base}/settings", json={"enabled": True})).json()["result"] == {"enabled": True}
    async with asyncio.timeout(5):
        while (  # noqa: ASYNC110 - polled over the API, as the module does
            await api.get(f"{base}/{created['id']}")
        ).json()["result"]["status"] != "active":
            await asyncio.sleep(0.1)
    assert (await site.get("/")).status_code == 204
    assert [found["id"] for found in (await api.get(base)).json()["result"]] == [created["id"]]
    assert (await api.delete(f"{base}/{created['id']}")).json()["result"]["status"] == "pending_deletion"
    assert (await site.get("/")).status_code >= 500
    assert refusal(await api.get(f"{base}/{created['id']}")) == (404, 1406)


async def test_tls_client_auth_makes_the_edge_present_the_shared_certificate(
    site: kit.Site, control: httpx.AsyncClient, verifying_origin: ssl.SSLContext
) -> None:
    verifying_origin.load_verify_locations(cadata=(await control.get("/origin-pull-ca.pem")).text)
    assert (await site.get("/")).status_code >= 500
    await control.patch("/settings", json={"tls_client_auth": "on"})
    assert (await site.get("/")).status_code == 204


async def test_a_key_of_another_certificate_is_rejected_and_no_key_is_ever_returned(
    site: kit.Site, api: httpx.AsyncClient, control: httpx.AsyncClient
) -> None:
    base = f"/zones/{site.zone.id}/origin_tls_client_auth"
    authority = Authority.create("ours")
    pair = client_certificate(authority)
    other = client_certificate(authority)["private_key"]
    assert refusal(await api.post(base, json={**pair, "private_key": other})) == (400, 2200)
    assert refusal(await api.post(base, json={**pair, "private_key": "x"})) == (400, 1401)
    await api.post(base, json=pair)
    assert refusal(await api.put(f"{base}/settings", json={"enabled": "yes"})) == (400, 1400)
    for path in ("/journal", "/state"):
        assert "PRIVATE KEY" not in (await control.get(path)).text
