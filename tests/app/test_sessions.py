"""Which sessions are accepted, with which keys."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from app.main import create_app
from app.sessions import BadKeyFile, InvalidSession, Sessions, issue
from app.settings import Settings
from tests.kit.app import ORIGIN, Site, close_code, receive
from tests.kit.process import REPOSITORY

KEY, OLD_KEY, PROBE_KEY = "k" * 40, "o" * 40, "p" * 40


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "keys").write_text(f"{KEY}\n")
    (tmp_path / "probe").write_text(f"{PROBE_KEY}\n")
    return Settings(
        upload_dir=tmp_path,
        allowed_origins=(ORIGIN,),
        session_keys_file=tmp_path / "keys",
        probe_key_file=tmp_path / "probe",
    )


@pytest.mark.parametrize(
    "cookie",
    [
        "",
        "__Host-screen-flow=",
        "__Host-screen-flow=x.y.z",
        "screen-flow=x",
        f"__Host-screen-flow={issue('x' * 40, 'ada', 60)}",
    ],
)
async def test_no_valid_session(site: Site, cookie: str) -> None:
    async with site.socket("ada", cookie=cookie) as connection:
        assert await close_code(connection) == 4401
    async with httpx.AsyncClient() as client:
        response = await client.get(f"{site.url}/api/v1/session", headers={"Cookie": cookie})
    assert response.status_code == 401


async def test_expired_session(site: Site, user: str) -> None:
    async with site.socket(user, cookie=site.cookie(user, ttl=-1)) as connection:
        assert await close_code(connection) == 4401


async def test_expiry_of_the_session_closes_the_socket(site: Site, user: str) -> None:
    async with site.socket(user, cookie=site.cookie(user, ttl=2)) as connection:
        assert await close_code(connection, seconds=4) == 4401


@pytest.mark.parametrize("other", ["bob", "Ada", "ada%20", "*"])
async def test_other_user(site: Site, other: str) -> None:
    async with site.socket(other, cookie=site.cookie("ada")) as connection:
        assert await close_code(connection) == 4403


def test_two_keys_are_accepted_and_rotate_without_restart(site: Site, user: str) -> None:
    old = site.keys.read_text().strip()
    headers = {"Cookie": site.cookie(user, key=old)}
    new = "n" * 64
    try:
        for keys, status in ((f"{new}\n{old}\n", 200), (f"{new}\n", 401), ("short\n", 401)):
            site.keys.write_text(keys)
            assert httpx.get(f"{site.url}/api/v1/session", headers=headers).status_code == status, keys
            mine = {"Cookie": site.cookie(user, key=new)}
            # An unusable file leaves the previous keys in use, and is logged.
            assert httpx.get(f"{site.url}/api/v1/session", headers=mine).status_code == 200
    finally:
        site.keys.write_text(f"{old}\n")
    assert "must have 1 to 2 lines of 32 or more characters" in site.api.log()
    assert new not in site.api.log() and old not in site.api.log()


async def test_demo_sign_in(site: Site) -> None:
    async with httpx.AsyncClient(base_url=f"{site.url}/api/v1") as client:
        response = await client.get("/session")
        assert (response.status_code, response.json()) == (
            401,
            {"detail": "Not signed in.", "demo_sign_in": True},
        )
        response = await client.post("/session", json={"user_id": "ada"})
        assert response.status_code == 204
        cookie = response.headers["set-cookie"]
        name, *attributes = cookie.split("; ")
        assert name.startswith("__Host-screen-flow=")
        assert {"HttpOnly", "Secure", "SameSite=lax", "Path=/"} <= set(attributes)
        headers = {"Cookie": name}
        response = await client.get("/session", headers=headers)
        assert response.json() == {"user_id": "ada", "demo_sign_in": True}
        async with site.socket("ada", cookie=name) as connection:
            await connection.send("ping")
            assert await receive(connection) == {"type": "pong"}
        response = await client.delete("/session")
        assert (response.status_code, "Max-Age=0" in response.headers["set-cookie"]) == (204, True)
        bodies: list[Any] = [{"user_id": ""}, {"user_id": "a b"}, {"user_id": "a/b"}, {"user_id": 1}, {}, []]
        for wrong in bodies:
            response = await client.post("/session", json=wrong)
            assert response.status_code == 422
            assert "user_id" in response.json()["detail"] or "dictionary" in response.json()["detail"]
        foreign = await client.post(
            "/session", json={"user_id": "ada"}, headers={"Origin": "https://evil.example"}
        )
        assert foreign.status_code == 403


def test_demo_sign_in_is_off_by_default(own_site: Site) -> None:
    own_site.start()
    response = httpx.post(f"{own_site.url}/api/v1/session", json={"user_id": "ada"})
    assert response.status_code == 404
    assert httpx.get(f"{own_site.url}/api/v1/session").json()["demo_sign_in"] is False


@pytest.mark.parametrize(
    ("key", "subject", "accepted"),
    [
        (PROBE_KEY, "site-check-1", True),
        (PROBE_KEY, "ada", False),
        (PROBE_KEY, "not-site-check", False),
        (KEY, "site-check-1", True),
        (KEY, "ada", True),
        (OLD_KEY, "ada", False),
        (KEY, "a da", False),
        (KEY, "a\nb", False),
        (KEY, "", False),
    ],
)
async def test_probe_key_signs_for_probes_only(
    settings: Settings, key: str, subject: str, accepted: bool
) -> None:
    verify = Sessions(settings).verify(issue(key, subject, 60))
    if accepted:
        assert (await verify).subject == subject
    else:
        with pytest.raises(InvalidSession):
            await verify


@pytest.mark.parametrize(
    "token",
    [
        jwt.encode({"sub": "ada", "exp": 9e9}, None, algorithm="none"),  # type: ignore[arg-type]
        jwt.encode({"sub": "ada", "exp": 9e9}, KEY * 2, algorithm="HS512"),
        jwt.encode({"sub": "ada"}, KEY, algorithm="HS256"),
        jwt.encode({"exp": 9e9}, KEY, algorithm="HS256"),
        jwt.encode({"sub": "ada", "exp": 9e9, "nbf": 8e9}, KEY, algorithm="HS256"),
        "a" * 5_000,
        "é",
    ],
)
async def test_forged_token(settings: Settings, token: str) -> None:
    with pytest.raises(InvalidSession) as error:
        await Sessions(settings).verify(token)
    assert KEY not in str(error.value)


class KeySet:
    """A JWKS endpoint on a real HTTP server, which counts its requests."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = []
        self.requests = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests += 1
                body = json.dumps({"keys": outer.keys}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/jwks"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def add(self, kid: str, key: Any, algorithm: Any) -> None:
        self.keys.append({**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig"})


@pytest.fixture
def key_set() -> Iterator[KeySet]:
    key_set = KeySet()
    yield key_set
    key_set.server.shutdown()
    key_set.server.server_close()


async def test_sessions_of_an_external_sign_in(tmp_path: Path, settings: Settings, key_set: KeySet) -> None:
    rsa_key = rsa.generate_private_key(65537, 2048)
    ec_key = ec.generate_private_key(ec.SECP256R1())
    key_set.add("r", rsa_key, jwt.algorithms.RSAAlgorithm)
    key_set.add("e", ec_key, jwt.algorithms.ECAlgorithm)
    sessions = Sessions(
        Settings(
            upload_dir=tmp_path,
            allowed_origins=(ORIGIN,),
            session_jwks_url=key_set.url,
            session_audience="screen-flow",
            probe_key_file=settings.probe_key_file,
        )
    )

    def token(key: Any, kid: str, algorithm: str, audience: str = "screen-flow") -> str:
        claims = {"sub": "ada", "exp": time.time() + 60, "aud": audience}
        return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": kid})

    assert (await sessions.verify(token(rsa_key, "r", "RS256"))).subject == "ada"
    assert (await sessions.verify(token(ec_key, "e", "ES256"))).subject == "ada"
    assert (await sessions.verify(issue(PROBE_KEY, "site-check-1", 60))).subject == "site-check-1"
    refused = [
        token(rsa_key, "r", "RS256", audience="another"),
        token(rsa.generate_private_key(65537, 2048), "r", "RS256"),
        # A symmetric signature with the id of a public key.
        jwt.encode({"sub": "ada", "exp": 9e9}, "x" * 40, algorithm="HS256", headers={"kid": "r"}),
        *[token(rsa_key, f"unknown-{number}", "RS256") for number in range(20)],
    ]
    for wrong in refused:
        with pytest.raises(InvalidSession):
            await sessions.verify(wrong)
    assert key_set.requests <= 2  # unknown keys do not cause a request each


async def test_unreachable_sign_in(tmp_path: Path) -> None:
    sessions = Sessions(
        Settings(upload_dir=tmp_path, allowed_origins=(ORIGIN,), session_jwks_url="http://127.0.0.1:9/jwks")
    )
    key = rsa.generate_private_key(65537, 2048)
    token = jwt.encode({"sub": "ada", "exp": 9e9}, key, algorithm="RS256", headers={"kid": "r"})
    async with asyncio.timeout(6):
        with pytest.raises(InvalidSession):
            await sessions.verify(token)


@pytest.mark.parametrize("content", ["", "too-short\n", f"{KEY}\n{OLD_KEY}\n{PROBE_KEY}\n", "é" * 40, None])
def test_unusable_key_file(settings: Settings, tmp_path: Path, content: str | None) -> None:
    (tmp_path / "keys").unlink()
    if content is not None:
        (tmp_path / "keys").write_text(content)
    with pytest.raises(BadKeyFile) as error:
        create_app(settings)
    assert str(tmp_path / "keys") in str(error.value)
    assert not content or content.strip() not in str(error.value)


def run_cli(*arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "app.sessions", "issue", *arguments],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={"PATH": os.environ["PATH"], **env},
        check=False,
    )


async def test_token_for_the_operator(settings: Settings) -> None:
    env = {"APP_PROBE_KEY_FILE": str(settings.probe_key_file)}
    printed = run_cli("--subject", "site-check-me", "--ttl", "120", **env)
    session = await Sessions(settings).verify(printed.stdout.strip())
    assert session.subject == "site-check-me"
    assert 110 < session.expires - time.time() <= 120
    refused = run_cli("--subject", "ada", **env)
    assert refused.returncode == 2 and "must begin with site-check" in refused.stderr
