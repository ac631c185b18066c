"""An invalid environment ends the process with a message that names variable, value and remedy."""

from pathlib import Path

import pytest

from app.settings import Settings, WorkerSettings, load
from tests.kit.app import ORIGIN


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("APP_UPLOAD_DIR", str(tmp_path))
    monkeypatch.setenv("APP_ALLOWED_ORIGINS", f"{ORIGIN},https://screen-flow.test:8443")
    monkeypatch.setenv("APP_SESSION_KEYS_FILE", str(tmp_path / "keys"))


def test_valid_environment() -> None:
    assert load(Settings).allowed_origins == (ORIGIN, "https://screen-flow.test:8443")


def test_defaults_are_those_of_the_guide(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(Settings)
    assert settings.upload_max_bytes == 50 * 2**20
    assert settings.heartbeat_seconds == 30
    assert settings.demo_sign_in is False


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("APP_HEARTBEAT_SECONDS", "0", "below the edge's idle time"),
        ("APP_HEARTBEAT_SECONDS", "100", "below the edge's idle time"),
        ("APP_HEARTBEAT_SECONDS", "half a minute", "below the edge's idle time"),
        ("APP_UPLOAD_MAX_BYTES", "50M", "a number of bytes"),
        ("APP_UPLOAD_DIR", "/nowhere", "a folder"),
        ("APP_ALLOWED_ORIGINS", "", "the site's own origins"),
        ("APP_ALLOWED_ORIGINS", "*", "the site's own origins"),
        ("APP_ALLOWED_ORIGINS", f"{ORIGIN}/", "the site's own origins"),
        ("APP_ALLOWED_ORIGINS", f"{ORIGIN}:443", "the site's own origins"),
        ("APP_ALLOWED_ORIGINS", f"{ORIGIN},", "the site's own origins"),
        ("APP_LOG_LEVEL", "LOUD", "DEBUG, INFO"),
        ("APP_PHONE_REGION", "Germany", "as in DE"),
        ("APP_DEMO_SIGN_IN", "perhaps", "true or false"),
        *[
            ("APP_SESSION_JWKS_URL", url, "the https:// address of your identity provider's key set")
            for url in (
                *("ftp://x", "http://sign-in.example/jwks", "http://127.0.0.1.example/jwks", "https://"),
                *("https://user:secret@sign-in.example/jwks", "https://sign-in.example/a b", "https://[::1"),
            )
        ],
        ("APP_SESSION_ISSUER", "my-realm", "exactly as its tokens have it in `iss`"),
        ("APP_SESSION_MAX_SECONDS", "0", "the longest lifetime of a token in seconds"),
        ("APP_SESSION_CA_FILE", "/nowhere", "a PEM file"),
        *[
            ("APP_SIGN_IN_URL", url, "where users sign in, or a path of this site")
            for url in (
                "//evil.example",
                "/\\evil.example",
                "http://sign-in.example/",
                "javascript:alert(1)",
                "x",
            )
        ],
    ],
)
def test_invalid_value(monkeypatch: pytest.MonkeyPatch, name: str, value: str, remedy: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as error:
        load(Settings)
    message = str(error.value)
    assert name in message and repr(value) in message and remedy in message


def test_redis_password_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_REDIS_URL", "rediss//:hunter2@redis")
    with pytest.raises(SystemExit) as error:
        load(WorkerSettings)
    assert "APP_REDIS_URL" in str(error.value)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("url", ["", "https://sign-in.example/jwks"])
def test_exactly_one_source_of_sessions(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    if url:
        monkeypatch.setenv("APP_SESSION_JWKS_URL", url)
    else:
        monkeypatch.delenv("APP_SESSION_KEYS_FILE")
    with pytest.raises(SystemExit, match="exactly one of APP_SESSION_KEYS_FILE and APP_SESSION_JWKS_URL"):
        load(Settings)


def test_demo_sign_in_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("APP_SESSION_KEYS_FILE")
    monkeypatch.setenv("APP_SESSION_JWKS_URL", "https://sign-in.example/jwks")
    monkeypatch.setenv("APP_DEMO_SIGN_IN", "true")
    with pytest.raises(SystemExit, match="APP_DEMO_SIGN_IN=true"):
        load(Settings)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("APP_SESSION_KEYS_FILE")
    monkeypatch.setenv("APP_SESSION_JWKS_URL", "https://sign-in.example/jwks")
    monkeypatch.setenv("APP_SESSION_AUDIENCE", "web, mobile")
    monkeypatch.setenv("APP_SESSION_ISSUER", "https://sign-in.example/")


@pytest.mark.usefixtures("provider")
@pytest.mark.parametrize(
    "url",
    [
        "https://sign-in.example:8443/jwks?v=1",
        *("http://localhost/jwks", "http://127.0.0.1:8000/jwks", "http://[::1]:8000/jwks"),
    ],
)
def test_provider(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("APP_SESSION_JWKS_URL", url)
    monkeypatch.setenv("APP_SIGN_IN_URL", "/login")
    settings = load(Settings)
    assert (settings.session_jwks_url, settings.sign_in_url) == (url, "/login")
    assert settings.session_audience == ("web", "mobile")
    assert settings.session_max_seconds == 24 * 3600


@pytest.mark.usefixtures("provider")
@pytest.mark.parametrize("name", ["APP_SESSION_AUDIENCE", "APP_SESSION_ISSUER"])
@pytest.mark.parametrize("value", [None, ""])
def test_provider_needs_audience_and_issuer(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str | None
) -> None:
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as error:
        load(Settings)
    assert name in str(error.value)
    if value is None:
        assert "'https://sign-in.example/jwks'" in str(error.value)
        assert "tokens for other applications would sign users in. Use" in str(error.value)
