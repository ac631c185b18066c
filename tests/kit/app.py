"""redis-server, the api and the worker on free ports, each in a separate process."""

import asyncio
import atexit
import contextlib
import json
import os
import secrets
import sys
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import redis
import redis.asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from app.events import PUBLISH, channel, dump, stream
from app.redis_password import from_url
from app.sessions import COOKIE, issue
from tests.kit.process import REPOSITORY, Process, free_port, wait_until

ORIGIN = "https://screen-flow.test"


class RedisServer(Process):
    """A Redis that syncs every write to disk before it answers, unless `options` override that.

    It has production's users: the processes under test are `api` and `worker`, the tests `operator`.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.url = f"redis://api@127.0.0.1:{self.port}/0"
        self.folder = folder
        self.password_file = self.password_file_of("api")
        for user in ("api", "worker"):
            self.password_file_of(user).write_text(secrets.token_hex(24) + "\n")
        super().__init__(
            *(str(REPOSITORY / "app/redis/start"), "--port", str(self.port), "--bind", "127.0.0.1"),
            *("--dir", str(folder), "--appendonly", "yes", "--appendfsync", "always", "--save", ""),
            *options,
            log=folder / "redis.log",
            env={
                "PATH": os.environ["PATH"],
                "REDIS_SECRETS_DIR": str(folder),
                "REDIS_RUN_DIR": str(folder),
            },
        )
        self.client = self.as_user("operator", folder / "operator")
        self.append = self.client.register_script(PUBLISH)

    def password_file_of(self, user: str) -> Path:
        return self.folder / f"redis_password_{user}"

    def as_user(self, name: str, password_file: Path) -> "redis.Redis":
        url = f"redis://{name}@127.0.0.1:{self.port}/0"
        return redis.Redis.from_url(**from_url(url, password_file), decode_responses=True, client_name="test")

    def start(self) -> None:
        (self.folder / "operator").unlink(missing_ok=True)  # left by the previous start
        super().start()

        def answers() -> bool:
            assert self.child and self.child.poll() is None, self.log()
            with contextlib.suppress(redis.ConnectionError, redis.BusyLoadingError):
                self.client.connection_pool.disconnect()  # they authenticated before the restart
                return bool(self.client.execute_command("PING"))
            return False

        wait_until("redis-server answers", answers)

    def publish(self, user: str, *numbers: int, **fields: Any) -> list[str]:
        """Publish events with these numbers in one pipeline; return their ids."""
        with self.client.pipeline(transaction=False) as pipe:
            for number in numbers:
                event = {"type": "cv_progress", "time": "now", "number": number, **fields}
                self.append(keys=[stream(user)], args=[channel(user), dump(event)], client=pipe)
            return list(pipe.execute())

    def cut(self) -> int:
        """Close all connections but the tests' own; return how many there were."""
        clients = self.client.client_list()
        others = [client["id"] for client in clients if client["name"] != "test"]
        return sum(int(self.client.execute_command("CLIENT", "KILL", "ID", ident)) for ident in others)

    def listeners(self, user: str) -> int:
        """Return how many processes are subscribed to the user's events."""
        return int(self.client.execute_command("PUBSUB", "NUMSUB", channel(user))[1])


class Extractor(Process):
    """The extractor's server, by default the reference one."""

    def __init__(self, folder: Path, *command: str) -> None:
        self.socket = folder / "extractor.sock"
        super().__init__(
            *(sys.executable, *(command or ("-m", "app.extract"))),
            log=folder / "extractor.log",
            env={"PATH": os.environ["PATH"], "APP_EXTRACTOR_SOCKET": str(self.socket)},
        )

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        super().start()

        def listens() -> bool:
            assert self.child and self.child.poll() is None, self.log()
            return self.socket.exists()

        wait_until("the extractor listens", listens)


@cache
def shared_extractor() -> Extractor:
    """Return an extractor that all users in this process share."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    extractor = Extractor(Path(folder.name))
    extractor.start()
    atexit.register(extractor.close)
    return extractor


class Worker(Process):
    """A worker, with its own user of Redis, and the extractor that it needs.

    Otherwise it has the api's environment, as it is when it starts.
    """

    extractor: Extractor

    def start(self) -> None:
        if not self.extractor.child or self.extractor.child.poll() is not None:
            self.extractor.start()
        assert self.env is not None
        shared = self.env
        self.env = {
            **shared,
            "APP_REDIS_URL": shared["APP_REDIS_URL"].replace("//api@", "//worker@"),
            "APP_REDIS_PASSWORD_FILE": shared["APP_REDIS_PASSWORD_FILE"].replace("_api", "_worker"),
        }
        super().start()
        self.env = shared

    def close(self) -> None:
        super().close()
        self.extractor.close()


@dataclass
class Site:
    """The api and the worker, not yet started, and what a client of them needs."""

    redis: RedisServer
    folder: Path
    env: dict[str, str]
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.uploads = self.folder / "uploads"
        self.keys = self.folder / "keys"
        self.url = f"http://127.0.0.1:{self.port}"
        python = (sys.executable, "-m")
        self.api = Process(
            *python, *("app.main", "--host", "127.0.0.1", "--port", str(self.port)),
            log=self.folder / "api.log", env=self.env,
        )  # fmt: skip
        self.extractor = Extractor(self.folder)
        self.worker = Worker(
            *python, *("dramatiq", "app.worker", "--processes", "1", "--threads", "2"),
            log=self.folder / "worker.log", env=self.env,
        )  # fmt: skip
        self.worker.extractor = self.extractor

    def start(self) -> None:
        """Start the api and wait until it is ready."""
        self.api.start()
        wait_until("the api is ready", self.ready)

    def ready(self) -> bool:
        assert self.api.child and self.api.child.poll() is None, self.api.log()
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/readyz").status_code == 200
        return False

    def memory(self) -> int:
        """Return the peak of the api's resident memory in bytes."""
        assert self.api.child
        status = Path(f"/proc/{self.api.child.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024

    def cookie(self, user: str, ttl: float = 600, key: str | None = None) -> str:
        return f"{COOKIE}={issue(key or self.keys.read_text().split()[0], user, ttl)}"

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
        """Return a WebSocket for the user, by default with the user's own session."""
        headers = {"Cookie": self.cookie(user) if cookie is None else cookie}
        if origin is not None:
            headers["Origin"] = origin
        return connect(
            f"ws://127.0.0.1:{self.port}/api/v1/cv-processing/ws/{user}"
            + ("" if last is None else f"?last_event_id={last}"),
            additional_headers=headers,
            compression=None,
            proxy=None,
            **more,
        )


async def receive(connection: ClientConnection, seconds: float = 10) -> dict[str, Any]:
    """Return the next message that is not a heartbeat."""
    async with asyncio.timeout(seconds):
        while True:
            message = json.loads(await connection.recv())
            if message != {"type": "heartbeat"}:
                return dict(message)


async def numbers(connection: ClientConnection, until: int, seconds: float = 10) -> list[int]:
    """Return the numbers of the events that arrive, up to `until`."""
    found: list[int] = []
    async with asyncio.timeout(seconds):
        while not found or found[-1] != until:
            found.append((await receive(connection))["number"])
    return found


async def close_code(connection: ClientConnection, seconds: float = 10) -> int | None:
    """Return the code that the server closes with."""
    async with asyncio.timeout(seconds):
        with contextlib.suppress(ConnectionClosed):
            while True:
                await connection.recv()
    return connection.close_code


def make_site(redis_server: RedisServer, folder: Path, **env: str) -> Site:
    """Return a site with its own keys and folders."""
    for name in ("uploads", "tmp", "page"):
        (folder / name).mkdir()
    for name in ("keys", "probe"):
        (folder / name).write_text(secrets.token_hex(32) + "\n")
    return Site(
        redis_server,
        folder,
        {
            "PATH": os.environ["PATH"],
            "TMPDIR": str(folder / "tmp"),
            "APP_REDIS_URL": redis_server.url,
            "APP_REDIS_PASSWORD_FILE": str(redis_server.password_file),
            "APP_UPLOAD_DIR": str(folder / "uploads"),
            "APP_EXTRACTOR_SOCKET": str(folder / "extractor.sock"),
            "APP_ALLOWED_ORIGINS": ORIGIN,
            "APP_SESSION_KEYS_FILE": str(folder / "keys"),
            "APP_PROBE_KEY_FILE": str(folder / "probe"),
            "APP_FRONTEND_DIR": str(folder / "page"),
            "APP_LOG_LEVEL": "DEBUG",
            "APP_USER_SOCKETS": "10000",  # many tests and benchmarks have one user
            **env,
        },
    )
