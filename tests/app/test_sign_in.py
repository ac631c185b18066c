"""Signing in with a real OpenID Connect provider over TLS, and what the api does without one."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from ansible_collections.screen_flow.live.plugins.module_utils.evidence import stack as evidence

from app.sessions import COOKIE
from tests.app.provider import KEY, Authority, IdentityProvider, KeyServer, public_jwk, token
from tests.app.proxy import Proxy
from tests.kit.app import (
    ORIGIN,
    RedisServer,
    Site,
    close_code,
    make_site,
    receive,
    wait_until,
)

ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA")


@pytest.fixture(scope="module")
def provider(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[IdentityProvider]:
    provider = IdentityProvider(authority, tmp_path_factory.mktemp("provider"))
    provider.start()
    yield provider
    provider.close()


def site_of(redis_server: RedisServer, folder: Path, authority: Authority, **env: str) -> Site:
    site = make_site(redis_server, folder, APP_SESSION_CA_FILE=str(authority.ca), **env)
    del site.env["APP_SESSION_KEYS_FILE"]
    return site


@pytest.fixture(scope="module")
def site(
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
    authority: Authority,
    provider: IdentityProvider,
) -> Iterator[Site]:
    site = site_of(
        redis_server,
        tmp_path_factory.mktemp("site"),
        authority,
        APP_SESSION_JWKS_URL=provider.discovered("jwks_uri"),
        APP_SESSION_ISSUER=provider.discovered("issuer"),
        APP_SESSION_AUDIENCE=",".join(f"screen-flow-{algorithm}" for algorithm in ALGORITHMS),
        APP_SIGN_IN_URL=f"{provider.issuer}/auth?client_id=screen-flow-RS256",
    )
    site.start()
    yield site
    site.api.close()


@pytest.fixture(scope="module")
def key_server(authority: Authority) -> Iterator[KeyServer]:
    server = KeyServer(authority)
    server.keys = [public_jwk(KEY, kid="r")]
    yield server
    server.close()


@pytest.fixture(scope="module")
def key_site(
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
    authority: Authority,
    key_server: KeyServer,
) -> Iterator[Site]:
    """A site whose tokens the test itself signs, with KEY."""
    site = site_of(
        redis_server,
        tmp_path_factory.mktemp("key-site"),
        authority,
        APP_SESSION_JWKS_URL=key_server.url,
        APP_SESSION_ISSUER="https://login.test/",
        APP_SESSION_AUDIENCE="screen-flow",
    )
    site.start()
    yield site
    site.api.close()


def exchange(site: Site, bearer: str, **headers: str) -> httpx.Response:
    return httpx.post(
        f"{site.url}/api/v1/session", headers={"Authorization": f"Bearer {bearer}", **headers}, timeout=30
    )


def cookie_of(answer: httpx.Response) -> str:
    assert answer.status_code == 204, answer.text
    return answer.headers["set-cookie"].partition(";")[0]


def get(site: Site, path: str, cookie: str = "") -> httpx.Response:
    return httpx.get(f"{site.url}{path}", headers={"Cookie": cookie}, timeout=30)


def session(site: Site, cookie: str = "") -> httpx.Response:
    return get(site, "/api/v1/session", cookie)


def sign_out(site: Site, cookie: str) -> httpx.Response:
    return httpx.delete(f"{site.url}/api/v1/session", headers={"Cookie": cookie, "Origin": ORIGIN})


@pytest.mark.parametrize("flow", ["code", "id_token"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_sign_in(site: Site, provider: IdentityProvider, user: str, algorithm: str, flow: str) -> None:
    anonymous = session(site)
    assert anonymous.status_code == 401
    assert anonymous.json()["sign_in_url"] == f"{provider.issuer}/auth?client_id=screen-flow-RS256"

    answer = exchange(site, provider.id_token(user, algorithm, flow), Origin=ORIGIN)
    cookie = cookie_of(answer)
    _, *attributes = answer.headers["set-cookie"].split("; ")
    assert {"HttpOnly", "Secure", "SameSite=lax", "Path=/"} <= set(attributes)
    life = next(int(each.removeprefix("Max-Age=")) for each in attributes if each.startswith("Max-Age="))
    assert 3600 - 30 < life <= 3600
    assert session(site, cookie).json() == {"user_id": user, "demo_sign_in": False}
    async with site.socket(user, cookie=cookie) as connection:
        await connection.send("ping")
        assert await receive(connection) == {"type": "pong"}
        site.redis.publish(user, 7)
        assert (await receive(connection))["number"] == 7

    gone = sign_out(site, cookie)
    assert gone.status_code == 204 and "Max-Age=0" in gone.headers["set-cookie"]


async def test_provider_that_rotates_its_key_and_fails(
    site: Site, provider: IdentityProvider, user: str
) -> None:
    old = cookie_of(exchange(site, provider.id_token(user)))
    provider.rotate()
    new = cookie_of(exchange(site, provider.id_token(user)))
    # The provider has withdrawn the old key.
    assert session(site, old).status_code == 401

    provider.stop()
    assert session(site, new).status_code == 200
    unknown = token(KEY, kid="unknown", iss=provider.issuer, aud="screen-flow-RS256")
    assert exchange(site, unknown).status_code == 503

    # After a restart there is no key set to fall back on.
    site.api.end()
    site.start()
    answer = session(site, new)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json() == {"detail": "Sessions can't be verified at the moment; try again soon."}
    assert get(site, "/api/v1/cv-processing/batches", new).status_code == 503
    async with site.socket(user, cookie=new) as connection:
        assert await close_code(connection) == 1013
        assert re.search(r"retry in \d+ ms", connection.close_reason or "")
    assert session(site).status_code == 401
    ready = get(site, "/readyz")
    assert (ready.status_code, ready.json()["sign_in"]) == (200, "unavailable")
    # What the diagnosis reads.
    assert evidence.ready(site.port, 5)["sign_in"] == "unavailable"
    line = f"ERROR app.jwks: The sign-in's key set {site.env['APP_SESSION_JWKS_URL']} can't be fetched: "
    assert line in site.api.log()

    provider.start()
    wait_until("the session is verified again", lambda: session(site, new).status_code == 200, 30)
    assert get(site, "/readyz").json()["sign_in"] == "ok"


def test_a_foreign_page_can_not_sign_a_user_in(key_site: Site) -> None:
    answer = exchange(key_site, token(KEY, kid="r"), Origin="https://evil.example")
    assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
    preflight = httpx.options(
        f"{key_site.url}/api/v1/session",
        headers={
            "Origin": "https://evil.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        },
    )
    assert "access-control-allow-origin" not in preflight.headers


@pytest.mark.parametrize(
    ("bearer", "status", "detail"),
    [
        ("x.y.z", 401, "The session is not valid (DecodeError)"),
        (token(KEY, kid="r", exp=int(time.time()) - 100), 401, "The session has expired"),
        (token(KEY, kid="r", aud="another"), 401, "The session is not valid (InvalidAudienceError)"),
        (token(KEY, kid="r", sub="../ada"), 401, "The session's subject '../ada' can't be used"),
        (token(KEY, kid="r", groups=["g" * 40] * 80), 422, "Send the provider's ID token instead"),
    ],
)
def test_token_that_can_not_be_exchanged(key_site: Site, bearer: str, status: int, detail: str) -> None:
    answer = exchange(key_site, bearer)
    assert (answer.status_code, "set-cookie" in answer.headers) == (status, False)
    assert detail in answer.json()["detail"]
    assert (answer.headers.get("www-authenticate") == 'Bearer error="invalid_token"') == (status == 401)


def test_sign_in_without_a_token(key_site: Site) -> None:
    for body in ({"user_id": "ada"}, None):
        answer = httpx.post(f"{key_site.url}/api/v1/session", json=body)
        assert answer.status_code == 404
        assert "Authorization: Bearer TOKEN" in answer.json()["detail"]


async def test_session_near_its_end(key_site: Site) -> None:
    """A provider whose clock runs behind still signs users in."""
    cookie = f"{COOKIE}={token(KEY, kid='r', exp=int(time.time()) - 30)}"
    assert session(key_site, cookie).status_code == 200
    async with key_site.socket("ada", cookie=cookie) as connection:
        await connection.send("ping")
        assert await receive(connection) == {"type": "pong"}


@pytest.fixture(scope="module")
def proxy(key_site: Site, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    proxy = Proxy(tmp_path_factory.mktemp("proxy"), authority, key_site.port)
    proxy.start()
    yield proxy
    proxy.close()


@pytest.mark.parametrize(
    "subject",
    [
        "auth0|5f7c8ec7",
        "a/b",
        "/a",
        "a//b/",
        "a%2Fb",
        "a?b#c",
        "...",
        "a/.b",
        "ada@example.com",
        "CN=ada,O=x+y;z",
    ],
)
async def test_subject_in_the_path_of_the_socket(key_site: Site, proxy: Proxy, subject: str) -> None:
    cookie = cookie_of(exchange(key_site, token(KEY, kid="r", sub=subject)))
    assert session(key_site, cookie).json()["user_id"] == subject
    direct = key_site.port
    for port in (direct, proxy.http):
        key_site.port = port
        # Encoded as by the page's encodeURIComponent.
        async with key_site.socket(quote(subject, safe="!'()*-._~"), cookie=cookie) as connection:
            await connection.send("ping")
            assert await receive(connection) == {"type": "pong"}, port
            assert connection.response is not None
            if port == proxy.http:
                assert connection.response.headers["X-Location"] == "socket"
    key_site.port = direct
