"""The api. `python -m app.main` serves it on port 8000, and on a unix socket where APP_SOCKET names one."""

import argparse
import asyncio
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import redis
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.api.v1 import cv_processing, session
from app.batches import SNAPSHOT
from app.hub import Hub
from app.jwks import COOL_DOWN, KeySetUnavailable
from app.pages import Pages
from app.protocol import HttpProtocol, Protocol, seconds_since_start
from app.redis_password import from_url
from app.sessions import BadKeyFile, Sessions
from app.settings import Settings, load
from app.state import State, state_of
from app.storage import REDIS_FULL, disk_is_full

REDIS_TIMEOUT = 5.0  # seconds that a reply from Redis may take
REDIS_QUEUE = 20.0  # seconds that a request waits for the connection
MAX_FRAME = 65_536  # bytes of a client's message
RETRY_AFTER = 3  # seconds, sent in Retry-After while Redis is unavailable
GRACE = 5  # seconds at shutdown after which uvicorn cancels open requests and sockets
BACKLOG = 16_384  # pending connections; a unix socket refuses the next one, where TCP retries
PROXY = "unix"  # client address of the unix socket's peer, which is the proxy
# On the TCP port the proxy connects from one of Docker's addresses; a header carries the client's.
PRIVATE = "127.0.0.1,::1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7"

logger = logging.getLogger(__name__)


class _Application(FastAPI):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            scope["app"] = self
            await cv_processing.cv_processing_websocket(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_app(settings: Settings) -> FastAPI:
    """Return the application. Raises BadKeyFile when a key file can't be used."""
    app = _Application(
        title="screen-flow", lifespan=_lifespan, docs_url=None, redoc_url=None, openapi_url=None
    )
    app.state.settings = settings
    app.state.sessions = Sessions(settings)
    app.include_router(cv_processing.router)
    app.include_router(session.router)
    app.add_api_route("/healthz", _healthz)
    app.add_api_route("/readyz", _readyz)
    app.mount("/", Pages(settings.frontend_dir))
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(RedisError, _no_redis)
    app.add_exception_handler(KeySetUnavailable, _no_key_set)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    common: dict[str, Any] = {
        **from_url(settings.redis_url, settings.redis_password_file),
        "decode_responses": True,
        "socket_timeout": REDIS_TIMEOUT,
        "socket_connect_timeout": REDIS_TIMEOUT,
    }
    single: dict[str, Any] = {"max_connections": 1, "timeout": REDIS_QUEUE}
    # A retry would hide a lost connection, after which the hub has to read what it missed.
    no_retry = Retry(NoBackoff(), 0)
    subscriber = Redis.from_pool(ConnectionPool.from_url(retry=no_retry, **common))
    # All its commands are idempotent, so a connection that was cut while idle need not cause a 503.
    once_more = Retry(NoBackoff(), 1, (RedisConnectionError,))
    commands = Redis.from_pool(BlockingConnectionPool.from_url(retry=once_more, **single, **common))
    writer = redis.Redis.from_pool(redis.BlockingConnectionPool.from_url(**single, **common))
    app.state.shared = State(
        settings=settings,
        sessions=app.state.sessions,
        hub=Hub(subscriber, commands),
        commands=commands,
        snapshot=commands.register_script(SNAPSHOT),
        redis_full=commands.register_script(REDIS_FULL),
        writer=writer,
    )
    tasks = [asyncio.create_task(app.state.shared.hub.run()), asyncio.create_task(app.state.sessions.run())]
    Protocol.startup = seconds_since_start()
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await subscriber.aclose()
        await commands.aclose()
        writer.close()


async def _healthz() -> dict[str, str]:
    """Return 200 as long as the process responds."""
    return {"status": "ok"}


async def _readyz(request: Request) -> JSONResponse:
    """Return 200 when events can be delivered and uploads stored, else 503."""
    state = state_of(request)
    full = False
    try:
        await state.commands.execute_command("PING")
        settings = state.settings
        full = bool(await state.redis_full(keys=[])) or await run_in_threadpool(
            disk_is_full, settings.upload_dir, settings.uploads_megabytes << 20
        )
        problem = None if state.hub.connected else "not subscribed"
    except RedisError as error:
        problem = type(error).__name__
    if problem:
        return JSONResponse({"status": "not ready", "redis": problem}, 503)
    # Ready even when storage is full, and without the provider's keys: sockets and results are still served,
    # and a restart would change nothing.
    provider = state.sessions.provider_status
    found = {"status": "ready", "redis": "ok", "storage": "full" if full else "ok"}
    return JSONResponse(found | ({"sign_in": provider} if provider else {}))


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    reasons = [f"{'.'.join(map(str, detail['loc'][1:]))}: {detail['msg']}" for detail in error.errors()]
    return JSONResponse({"detail": f"The request is not valid. {'; '.join(reasons)}."}, 422)


async def _no_redis(request: Request, error: Exception) -> JSONResponse:
    logger.error("Redis failed: %s", error)
    detail = "The data can't be reached at the moment; try again soon."
    return JSONResponse({"detail": detail}, 503, {"Retry-After": str(RETRY_AFTER)})


async def _no_key_set(request: Request, error: Exception) -> JSONResponse:
    detail = "Sessions can't be verified at the moment; try again soon."
    return JSONResponse({"detail": detail}, 503, {"Retry-After": str(int(COOL_DOWN))})


def listen(path: Path) -> socket.socket:
    """Return a unix socket listening at `path`, accessible to the group; it replaces an older one.

    Raises OSError.
    """
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(new))
    new.chmod(0o660)
    listener.listen(BACKLOG)
    new.rename(path)
    return listener


class Forwarded:
    """Sets client and scheme from the headers of a trusted proxy, which is the unix socket's peer, if any."""

    def __init__(self, app: FastAPI, trusted: str) -> None:
        self._app = ProxyHeadersMiddleware(app, trusted)  # type: ignore[arg-type]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request. The client is None for a unix socket, and for a TCP peer that has disconnected."""
        if scope["type"] != "lifespan" and scope["client"] is None:
            server = scope["server"]
            if server is None or server[1] is None:
                scope["client"] = (PROXY, 0)
        await self._app(scope, receive, send)  # type: ignore[arg-type]


def main() -> None:
    """Serve until stopped. Exits with a message when a setting, the socket or a key file can't be used."""
    parser = argparse.ArgumentParser(prog="python -m app.main", description=main.__doc__)
    # Inside a container, which publishes it on the host's loopback address only.
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on (%(default)s)")  # noqa: S104
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (%(default)s)")
    arguments = parser.parse_args()
    settings = load(Settings)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("app").setLevel(settings.log_level)
    try:
        app = create_app(settings)
    except BadKeyFile as error:
        sys.exit(str(error))
    path = os.environ.get("APP_SOCKET")
    config = uvicorn.Config(
        Forwarded(app, PROXY if path else PRIVATE),
        host=arguments.host,
        port=arguments.port,
        backlog=BACKLOG,
        loop="uvloop",
        http=HttpProtocol,
        ws=Protocol,
        ws_max_size=MAX_FRAME,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=GRACE,
        proxy_headers=False,
        log_config=None,
        log_level=settings.log_level.lower(),
    )
    sockets = [config.bind_socket()]
    if path:
        try:
            sockets.append(listen(Path(path)))
        except OSError as error:
            sys.exit(
                f"APP_SOCKET is {path!r}, where this process can't listen ({error.strerror}). "
                "Set it to a path in a folder that the process can write to, or unset it."
            )
    server = uvicorn.Server(config)
    server.run(sockets=sockets)
    if not server.started:
        sys.exit(3)  # the reason has been logged


if __name__ == "__main__":
    main()
