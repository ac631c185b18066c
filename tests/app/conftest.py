import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.app import RedisServer, Site, make_site


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
