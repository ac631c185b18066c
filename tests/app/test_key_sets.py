"""Which tokens of an identity provider are accepted, with and without its key set, over TLS."""

import asyncio
import base64
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from app import jwks
from app.jwks import KeySetUnavailable
from app.sessions import InvalidSession, issue
from tests.app.provider import KEY, OTHER_KEY, KeyServer, Open, accepts, public_jwk, token
from tests.kit.app import wait_until

P256, P384, P521 = (ec.generate_private_key(curve()) for curve in (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1))
ED25519 = ed25519.Ed25519PrivateKey.generate()


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    await asyncio.to_thread(wait_until, "the condition holds", condition, seconds)


async def test_several_audiences(sessions: Open) -> None:
    async with sessions(session_audience=("web", "mobile")) as verifier:
        assert await accepts(verifier, token(KEY, kid="r", aud="mobile"))
        assert await accepts(verifier, token(KEY, kid="r", aud=["account", "web"]))
        assert not await accepts(verifier, token(KEY, kid="r", aud=["account"]))


@pytest.mark.parametrize("with_alg", [True, False])
@pytest.mark.parametrize("with_kid", [True, False])
@pytest.mark.parametrize(
    ("algorithm", "key", "crv"),
    [
        *[(f"{family}{bits}", KEY, None) for family in ("RS", "PS") for bits in (256, 384, 512)],
        ("ES256", P256, "P-256"),
        ("ES384", P384, "P-384"),
        ("ES512", P521, "P-521"),
        ("EdDSA", ED25519, "Ed25519"),
        ("EdDSA", ed448.Ed448PrivateKey.generate(), "Ed448"),
    ],
)
async def test_algorithms(
    server: KeyServer,
    sessions: Open,
    algorithm: str,
    key: Any,
    crv: str | None,
    with_alg: bool,
    with_kid: bool,
) -> None:
    kid = "k" if with_kid else None
    server.keys = [public_jwk(key, kid=kid, crv=crv, alg=algorithm if with_alg else None)]
    async with sessions() as verifier:
        assert await accepts(verifier, token(key, kid=kid, algorithm=algorithm))
        # One fitting key needs no id, whichever of the two leaves it out.
        assert await accepts(verifier, token(key, algorithm=algorithm))


async def test_forged_tokens(server: KeyServer, sessions: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "COOL_DOWN", 0.1)
    pem = KEY.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    weak = rsa.generate_private_key(65537, 1024)
    server.keys = [
        public_jwk(KEY, kid="r", alg="RS256"),
        public_jwk(OTHER_KEY, kid="enc", use="enc"),
        public_jwk(P384, kid="p384", crv="P-384"),
        public_jwk(weak, kid="weak"),
        {"kty": "oct", "kid": "oct", "k": base64.urlsafe_b64encode(b"k" * 40).decode()},
        {"kty": ["RSA"], "kid": []},
        {"kty": "RSA", "kid": "broken", "n": "", "e": 3},
        "not a key",
    ]
    claims = {"iss": "https://login.test/", "aud": "screen-flow", "sub": "ada", "exp": int(time.time()) + 60}
    header = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"r"}').rstrip(b"=").decode()
    body = jwt.encode(claims, "x" * 40).split(".")[1]
    signature = jwt.api_jws.PyJWS().get_algorithm_by_name("HS256").sign(f"{header}.{body}".encode(), pem)
    confused = f"{header}.{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    async with sessions() as verifier:
        assert await accepts(verifier, token(KEY, kid="r"))
        for forged in (
            token(OTHER_KEY, kid="r"),
            token(KEY, kid="r", algorithm="RS512"),  # the key names its algorithm
            token(OTHER_KEY, kid="enc"),
            token(weak, kid="weak"),
            token(b"k" * 40, kid="oct", algorithm="HS256"),
            confused,
            jwt.encode(claims, None, algorithm="none", headers={"kid": "r"}),  # type: ignore[arg-type]
        ):
            assert not await accepts(verifier, forged), jwt.get_unverified_header(forged)


@pytest.mark.parametrize(
    ("claim", "seconds", "accepted"),
    [
        *[("iat", 3, True), ("iat", 50, True), ("iat", 75, False)],
        *[("nbf", 3, True), ("nbf", 50, True), ("nbf", 75, False)],
        *[("exp", -3, True), ("exp", -50, True), ("exp", -75, False)],
    ],
)
async def test_clocks_may_differ(
    sessions: Open, caplog: pytest.LogCaptureFixture, claim: str, seconds: int, accepted: bool
) -> None:
    caplog.set_level(logging.INFO)
    async with sessions() as verifier:
        now = int(time.time())
        made = token(KEY, kid="r", **{claim: now + seconds})
        assert await accepts(verifier, made) == accepted
        if accepted:
            assert (await verifier.verify(made)).ends > time.time()
        else:
            assert re_distance(caplog.text, claim) in (abs(seconds) - 1, abs(seconds), abs(seconds) + 1)
            assert "Compare this server's clock with the provider's" in caplog.text


def re_distance(text: str, claim: str) -> int:
    """Return the seconds that the log names for a claim."""
    _, _, rest = text.partition(claim)
    return next(int(word) for word in rest.replace(")", "").split() if word.isdigit())


@pytest.mark.parametrize(
    ("iat", "exp", "accepted"),
    [
        (0, 86_400, True),
        (None, 86_400, True),
        (0, 86_400 + 120, False),
        (-86_400, 120, False),
        (None, 4e9, False),
        (None, 1e18, False),
    ],
)
async def test_lifetime_is_bounded(
    sessions: Open, caplog: pytest.LogCaptureFixture, iat: int | None, exp: float, accepted: bool
) -> None:
    now = int(time.time())
    async with sessions() as verifier:
        made = token(KEY, kid="r", iat=None if iat is None else now + iat, exp=now + exp)
        assert await accepts(verifier, made) == accepted
    assert ("app_stack_session_max_seconds" in caplog.text) != accepted


@pytest.mark.parametrize(
    "subject", ["", " ", "a b", "é", "a\nb", ".", "..", "../a", "a/..", "a/./b", "x" * 256]
)
async def test_subject_that_can_not_be_used(sessions: Open, subject: str) -> None:
    async with sessions() as verifier:
        with pytest.raises(InvalidSession, match=r"subject.* can't be used: it must be 1 to 255 printable"):
            await verifier.verify(token(KEY, kid="r", sub=subject))


async def test_probes_need_no_provider(server: KeyServer, sessions: Open, tmp_path: Path) -> None:
    server.status = 503
    (tmp_path / "probe").write_text("p" * 40)
    async with sessions(probe_key_file=tmp_path / "probe") as verifier:
        assert (await verifier.verify(issue("p" * 40, "site-check-1", 60))).subject == "site-check-1"
        # A session signed before the provider was configured is refused by its algorithm.
        assert not await accepts(verifier, issue("o" * 40, "ada", 60))


async def test_the_request_names_this_program(server: KeyServer, sessions: Open) -> None:
    async with sessions() as verifier:
        assert await accepts(verifier, token(KEY, kid="r"))
    assert server.requests[0]["user-agent"] == "screen-flow"
    assert server.requests[0]["accept"] == "application/json"


async def test_unknown_keys_cause_few_requests(
    server: KeyServer, sessions: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "COOL_DOWN", 0.5)
    async with sessions() as verifier:
        assert await accepts(verifier, token(KEY, kid="r"))
        began = time.monotonic()
        for _ in range(3):
            unknown = [token(KEY, kid=f"unknown-{number}") for number in range(20)]
            assert not any(await asyncio.gather(*(accepts(verifier, each) for each in unknown)))
        assert len(server.requests) <= 2 + (time.monotonic() - began) / jwks.COOL_DOWN


async def test_a_new_key_is_known_within_seconds(
    server: KeyServer, sessions: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "COOL_DOWN", 0.5)
    async with sessions() as verifier:
        assert await accepts(verifier, token(KEY, kid="r"))
        server.keys = [public_jwk(OTHER_KEY, kid="new")]
        began = time.monotonic()
        # The set was fetched just now; a request with a known key does not wait.
        new, old = await asyncio.gather(
            accepts(verifier, token(OTHER_KEY, kid="new")), accepts(verifier, token(KEY, kid="r"))
        )
        assert (new, old) == (True, True)
        assert 0.2 < time.monotonic() - began < 2
        assert not await accepts(verifier, token(KEY, kid="r"))
        # Without an id in key and token, a signature that does not fit may be a new key's, too.
        server.keys = [public_jwk(P256, crv="P-256")]
        assert await accepts(verifier, token(P256, algorithm="ES256"))


async def test_the_last_good_set_stays_in_use(
    server: KeyServer, sessions: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(jwks, "REFRESH", 0.1)
    monkeypatch.setattr(jwks, "COOL_DOWN", 0.1)
    async with sessions() as verifier:
        assert await accepts(verifier, token(KEY, kid="r"))
        assert verifier.provider_status == "ok"
        server.status = 503
        await until(lambda: verifier.provider_status == "stale")
        assert await accepts(verifier, token(KEY, kid="r"))
        assert f"key set {server.url} can't be fetched: the response is HTTP 503. The one" in caplog.text
        # Whether its key exists can't be known now.
        with pytest.raises(KeySetUnavailable):
            await verifier.verify(token(OTHER_KEY, kid="new"))
        monkeypatch.setattr(jwks, "KEEP", 0.0)
        with pytest.raises(KeySetUnavailable):
            await verifier.verify(token(KEY, kid="r"))
        assert verifier.provider_status == "unavailable"
        monkeypatch.setattr(jwks, "KEEP", 3600.0)
        server.status = 200
        await until(lambda: verifier.provider_status == "ok")
        assert await accepts(verifier, token(KEY, kid="r"))


async def test_no_request_waits_for_a_slow_provider(
    server: KeyServer, sessions: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "REFRESH", 0.1)
    monkeypatch.setattr(jwks, "COOL_DOWN", 0.1)
    async with sessions() as verifier:
        assert await accepts(verifier, token(KEY, kid="r"))
        asked = len(server.requests)
        server.delay = 1.0
        await until(lambda: len(server.requests) > asked)
        began = time.monotonic()
        assert await accepts(verifier, token(KEY, kid="r"))
        assert time.monotonic() - began < 0.5


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            {"status": 302, "headers": {"Location": "https://login.test/keys"}},
            "it redirects (HTTP 302) to 'https://login.test/keys', and redirects are not followed: "
            "set APP_SESSION_JWKS_URL",
        ),
        ({"refused_agent": "screen-flow"}, "the response is HTTP 403"),
        ({"body": b"<html>"}, "the response is not JSON"),
        ({"body": b"[" * 100_000}, "the response is not JSON"),
        ({"body": b"\xff"}, "the response is not JSON"),
        ({"body": b"[]"}, "the response is not a key set"),
        ({"body": b'{"keys": {}}'}, "the response is not a key set"),
        ({"keys": []}, "none of its 0 keys can verify signatures of RS256"),
        ({"keys": [public_jwk(KEY, use="enc")]}, "none of its 1 keys can verify"),
        ({"body": b" " * (2 << 20)}, "the response is larger than 1048576 bytes"),
        ({"delay": 1.0}, "The read operation timed out"),
        ({"drip": 0.1}, "the response takes longer than 0.6 s"),
    ],
)
async def test_why_there_is_no_key_set(
    server: KeyServer,
    sessions: Open,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    answer: dict[str, Any],
    reason: str,
) -> None:
    monkeypatch.setattr(jwks, "TIMEOUT", 0.3)
    for name, value in answer.items():
        setattr(server, name, value)
    async with sessions() as verifier:
        with pytest.raises(KeySetUnavailable):
            await verifier.verify(token(KEY, kid="r"))
    assert f"The sign-in's key set {server.url} can't be fetched: {reason}" in " ".join(caplog.text.split())
    assert "requests get 503, sockets 1013" in caplog.text


async def test_certificate_of_an_unknown_authority(sessions: Open, caplog: pytest.LogCaptureFixture) -> None:
    async with sessions(session_ca_file=None) as verifier:
        with pytest.raises(KeySetUnavailable):
            await verifier.verify(token(KEY, kid="r"))
    assert "CERTIFICATE_VERIFY_FAILED" in caplog.text
