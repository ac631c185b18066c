"""The real thing on free ports: redis-server, the api and the worker, each a process of its own."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import redis.asyncio
from websockets.asyncio.client import ClientConnection, connect

from app.events import publish
from app.sessions import COOKIE, issue

ORIGIN = "https://screen-flow.test"
REPOSITORY = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(what: str, true: Any, seconds: float = 15) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := true():
            return value
        time.sleep(0.02)
    raise AssertionError(f"after {seconds} s not yet: {what}")


class Process:
    """A child that is started, ended and started again."""

    def __init__(self, *arguments: str, log: Path, env: dict[str, str] | None = None) -> None:
        self.arguments = arguments
        self.log = log
        self.env = env
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(
                self.arguments, stdout=log, stderr=log, env=self.env, cwd=REPOSITORY, start_new_session=True
            )

    def end(self, how: int = signal.SIGTERM) -> int:
        """End the child and its own children; return its exit status."""
        assert self.child
        if self.child.poll() is None:
            if how == signal.SIGKILL:
                os.killpg(self.child.pid, how)
            else:
                self.child.send_signal(how)
        return self.child.wait(30)

    def close(self) -> None:
        if self.child and self.child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait(10)


class RedisServer(Process):
    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        super().__init__(
            "redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder),
            "--appendonly", "yes", "--appendfsync", "always", "--save", "",
            log=folder / "redis.log",
        )  # fmt: skip
        self.client = redis.Redis.from_url(self.url, decode_responses=True)

    def start(self) -> None:
        super().start()

        def answers() -> bool:
            with contextlib.suppress(redis.ConnectionError, redis.BusyLoadingError):
                return bool(self.client.execute_command("PING"))
            return False

        wait_until("redis-server answers", answers)

    def kill_clients(self, kind: str) -> None:
        self.client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    async def publish(self, user: str, number: int, **fields: Any) -> str:
        async with redis.asyncio.Redis.from_url(self.url, decode_responses=True) as client:
            return await publish(
                client, user, {"type": "cv_progress", "time": "now", "number": number, **fields}
            )


@dataclass
class Site:
    """The api, the worker beside it, and what a client needs."""

    redis: RedisServer
    folder: Path
    env: dict[str, str]
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.uploads = self.folder / "uploads"
        self.api = Process(
            sys.executable, "-m", "app.main", "--host", "127.0.0.1", "--port", str(self.port),
            log=self.folder / "api.log", env=self.env,
        )  # fmt: skip
        self.worker = Process(
            sys.executable, "-m", "dramatiq", "app.worker", "--processes", "1", "--threads", "2",
            log=self.folder / "worker.log", env=self.env,
        )  # fmt: skip
        self.url = f"http://127.0.0.1:{self.port}"

    @property
    def key(self) -> str:
        return Path(self.env["APP_SESSION_KEYS_FILE"]).read_text().split()[0]

    def start(self) -> None:
        self.api.start()

        def ready() -> bool:
            assert self.api.child and self.api.child.poll() is None, self.api.log.read_text()
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"{self.url}/readyz").status_code == 200
            return False

        wait_until("the api is ready", ready)

    def cookie(self, user: str, ttl: float = 600, key: str | None = None) -> str:
        return f"{COOKIE}={issue(key or self.key, user, ttl)}"

    def http(self, user: str) -> httpx.Client:
        return httpx.Client(
            base_url=f"{self.url}/api/v1/cv-processing", headers={"Cookie": self.cookie(user)}, timeout=20
        )

    def socket(
        self,
        user: str,
        last: str | None = None,
        *,
        cookie: str | None = None,
        origin: str | None = ORIGIN,
        **more: Any,
    ) -> connect:
        query = "" if last is None else f"?last_event_id={last}"
        headers = {"Cookie": cookie if cookie is not None else self.cookie(user)}
        if origin is not None:
            headers["Origin"] = origin
        return connect(
            f"ws://127.0.0.1:{self.port}/api/v1/cv-processing/ws/{user}{query}",
            additional_headers=headers,
            compression=None,
            **more,
        )

    def log(self) -> str:
        return self.api.log.read_text()


async def receive(connection: ClientConnection, seconds: float = 10) -> dict[str, Any]:
    async with asyncio.timeout(seconds):
        return dict(json.loads(await connection.recv()))


async def numbers(connection: ClientConnection, until: int) -> list[int]:
    """Return the numbers of the events that come, up to the one numbered `until`."""
    found: list[int] = []
    while not found or found[-1] != until:
        found.append((await receive(connection))["number"])
    return found


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.close()


def make_site(redis_server: RedisServer, folder: Path, **env: str) -> Site:
    (folder / "uploads").mkdir()
    (folder / "tmp").mkdir()
    for name in ("keys", "probe"):
        (folder / name).write_text(secrets.token_hex(32) + "\n")
    return Site(
        redis_server,
        folder,
        {
            "PATH": os.environ["PATH"],
            "TMPDIR": str(folder / "tmp"),
            "APP_REDIS_URL": redis_server.url,
            "APP_UPLOAD_DIR": str(folder / "uploads"),
            "APP_ALLOWED_ORIGINS": ORIGIN,
            "APP_SESSION_KEYS_FILE": str(folder / "keys"),
            "APP_PROBE_KEY_FILE": str(folder / "probe"),
            "APP_LOG_LEVEL": "DEBUG",
            **env,
        },
    )


@pytest.fixture(scope="session")
def site(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An api that all tests share, with a short heartbeat and a worker."""
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
    """An api with a Redis of its own, for tests that break things. Not started."""
    server = RedisServer(tmp_path)
    server.start()
    site = make_site(server, tmp_path)
    yield site
    site.worker.close()
    site.api.close()
    server.close()


@pytest.fixture
def user() -> str:
    """A user that no other test knows."""
    return f"user-{secrets.token_hex(4)}"


@pytest.fixture
async def commands(site: Site) -> AsyncIterator["redis.asyncio.Redis"]:
    async with redis.asyncio.Redis.from_url(site.redis.url, decode_responses=True) as client:
        yield client
