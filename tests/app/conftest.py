import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.sessions import Sessions
from app.settings import Settings
from tests.app.provider import KEY, Authority, KeyServer, Open, public_jwk
from tests.kit.app import ORIGIN, RedisServer, Site, make_site


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def site(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An api and a worker that all tests share, with a short heartbeat interval."""
    site = make_site(
        redis_server,
        tmp_path_factory.mktemp("site"),
        APP_HEARTBEAT_SECONDS="1",
        APP_DEMO_SIGN_IN="true",
        APP_UPLOAD_MAX_BYTES="1000000",
    )
    site.worker.start()
    site.start()
    yield site
    site.worker.close()
    site.api.close()


@pytest.fixture
def own_site(tmp_path: Path) -> Iterator[Site]:
    """An api with a private Redis, not started, for tests that cause faults."""
    server = RedisServer(tmp_path)
    server.start()
    site = make_site(server, tmp_path)
    yield site
    site.worker.close()
    site.api.close()
    server.close()


@pytest.fixture
def user() -> str:
    """A user id that no other test uses."""
    return f"user-{secrets.token_hex(4)}"


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def server(authority: Authority) -> Iterator[KeyServer]:
    server = KeyServer(authority)
    server.keys = [public_jwk(KEY, kid="r", use="sig", alg="RS256")]
    yield server
    server.close()


@pytest.fixture
def sessions(tmp_path: Path, server: KeyServer, authority: Authority) -> Open:
    """Return a function that opens the sessions of the key server, with further settings."""

    @contextlib.asynccontextmanager
    async def open_sessions(**more: Any) -> AsyncIterator[Sessions]:
        settings: dict[str, Any] = {
            "upload_dir": tmp_path,
            "allowed_origins": (ORIGIN,),
            "session_jwks_url": server.url,
            "session_audience": ("screen-flow",),
            "session_issuer": "https://login.test/",
            "session_ca_file": authority.ca,
            **more,
        }
        sessions = Sessions(Settings(**settings))
        task = asyncio.create_task(sessions.run())
        try:
            yield sessions
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    return open_sessions
