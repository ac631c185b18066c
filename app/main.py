"""The api: `python -m app.main` serves it on port 8000."""

import asyncio
import contextlib
import logging
import socket
import tempfile
from collections.abc import AsyncIterator
from typing import Annotated, Any

import redis
import uvicorn
from fastapi import Body, FastAPI, HTTPException, Request, Response
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError
from starlette.responses import HTMLResponse, JSONResponse
from starlette.staticfiles import StaticFiles
from starlette.types import Scope
from starlette.websockets import WebSocketState

from app.api.v1 import cv_processing
from app.api.v1.cv_processing import SignedIn, state_of
from app.batches import SNAPSHOT
from app.hub import Hub
from app.sessions import COOKIE, PROBE_PREFIX, SUBJECT, BadKeyFile, Sessions
from app.settings import Settings, load
from app.state import State

PORT = 8000
MAX_FRAME = 65_536  # bytes of a client's WebSocket message
DEMO_SESSION = 12 * 3600  # seconds that a demo session lasts
DRAIN_SECONDS = 5.0  # over which sockets are told to come back, so that they don't come all at once
GRACE_SECONDS = 10  # for requests under way, after that

logger = logging.getLogger("app")


def connection(settings: Settings) -> "Redis":
    """Return an asynchronous client that never opens a second connection."""
    pool = BlockingConnectionPool.from_url(
        settings.redis_url,
        max_connections=1,
        timeout=10,
        decode_responses=True,
        socket_connect_timeout=5,
        health_check_interval=10,
    )
    return Redis.from_pool(pool)


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Run the hub while the application serves."""
    settings: Settings = app.state.settings
    # Uploads wait in unlinked files beside their destination: the container's /tmp is memory.
    tempfile.tempdir = str(settings.upload_dir)
    commands, subscriber = connection(settings), connection(settings)
    jobs_pool = redis.BlockingConnectionPool.from_url(
        settings.redis_url, max_connections=1, timeout=10, decode_responses=True, health_check_interval=10
    )
    app.state.shared = State(
        settings=settings,
        sessions=app.state.sessions,
        hub=Hub(subscriber, commands),
        commands=commands,
        snapshot=commands.register_script(SNAPSHOT),
        jobs=redis.Redis.from_pool(jobs_pool),
    )
    hub = asyncio.create_task(app.state.shared.hub.run())
    try:
        yield
    finally:
        hub.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await hub
        await subscriber.aclose()
        await commands.aclose()


class Page(StaticFiles):
    """The built page: its hashed assets are kept by browsers for ever, itself never without asking."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file with its caching header."""
        response = await super().get_response(path, scope)
        hashed = path.startswith("assets/") and response.status_code in (200, 304)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if hashed else "no-cache"
        return response


def create_app(settings: Settings) -> FastAPI:
    """Return the application. Raises BadKeyFile when a key file can't be used."""
    app = FastAPI(title="screen-flow", lifespan=lifespan)
    app.state.settings = settings
    app.state.sessions = Sessions(settings)
    app.include_router(cv_processing.router)

    @app.exception_handler(RedisError)
    async def no_redis(request: Request, error: RedisError) -> JSONResponse:
        logger.error("Redis can't be used: %s", error)
        return JSONResponse({"detail": "The state is not available now; try again soon."}, 503)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        content: dict[str, Any] = {"detail": error.detail}
        if error.status_code == 401:
            content["demo_sign_in"] = settings.demo_sign_in
        return JSONResponse(content, error.status_code, error.headers)

    @app.get("/api/v1/session")
    async def who(session: SignedIn) -> dict[str, Any]:
        """Say who is signed in."""
        return {"user_id": session.subject, "demo_sign_in": settings.demo_sign_in}

    @app.post("/api/v1/session", status_code=204)
    async def sign_in(request: Request, user_id: Annotated[str, Body(embed=True)]) -> Response:
        """Sign anybody in under any name: for the demo only."""
        if not settings.demo_sign_in:
            raise HTTPException(404, "There is no demo sign-in here.")
        origin = request.headers.get("origin")
        if origin is not None and origin not in settings.allowed_origins:
            raise HTTPException(403, f"Requests from {origin} are not accepted.")
        if not SUBJECT.fullmatch(user_id) or "/" in user_id or user_id.startswith(PROBE_PREFIX):
            raise HTTPException(
                422, f"{user_id!r} can't be a name here: letters, digits and signs, no space and no slash."
            )
        response = Response(status_code=204)
        token = state_of(request).sessions.issue(user_id, DEMO_SESSION)
        response.set_cookie(
            COOKIE, token, max_age=DEMO_SESSION, path="/", secure=True, httponly=True, samesite="lax"
        )
        return response

    @app.delete("/api/v1/session", status_code=204)
    async def sign_out() -> Response:
        """Forget the session's cookie."""
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="lax")
        return response

    @app.get("/healthz")
    async def alive() -> dict[str, str]:
        """Answer as long as the process does."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def ready(request: Request) -> JSONResponse:
        """Say whether requests and events can be served now."""
        state = state_of(request)
        try:
            async with asyncio.timeout(3):
                await state.commands.execute_command("PING")
            answers = state.hub.connected
        except (RedisError, OSError, TimeoutError):
            answers = False
        if answers:
            return JSONResponse({"status": "ready", "redis": "ok"})
        return JSONResponse({"status": "not ready", "redis": "not connected"}, 503)

    if settings.frontend_dir.is_dir():
        app.mount("/", Page(directory=settings.frontend_dir, html=True), name="page")
    else:

        @app.get("/", response_class=HTMLResponse)
        async def no_page() -> str:
            return (
                "<!doctype html><title>screen-flow</title><p>The api is up; the page was not built into it."
            )

    return app


async def drain(state: State, seconds: float) -> None:
    """Close all sockets with 1012, evenly over `seconds`; whoever can't be told is left to the server."""
    sockets = list(state.sockets)

    async def close(index: int) -> None:
        await asyncio.sleep(seconds * index / len(sockets))
        if sockets[index].application_state is WebSocketState.CONNECTED:
            await sockets[index].close(1012, "The server restarts; connect again and resume.")

    closing = [asyncio.ensure_future(close(index)) for index in range(len(sockets))]
    if closing:
        await asyncio.wait(closing, timeout=seconds + 1)


class Server(uvicorn.Server):
    """uvicorn closes all sockets in one moment; this one tells them first, spread over a few seconds."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse new connections, drain the sockets, then shut down as uvicorn does."""
        for server in self.servers:
            server.close()
        state: State | None = getattr(self.config.app.state, "shared", None)  # type: ignore[union-attr]
        if state and not self.force_exit:
            await drain(state, min(DRAIN_SECONDS, len(state.sockets) * 0.02))
        await super().shutdown(sockets)


def main() -> None:
    """Entry point: exits with a sentence when a setting or a key file can't be used."""
    settings = load(Settings)
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        app = create_app(settings)
    except BadKeyFile as error:
        raise SystemExit(str(error)) from None
    config = uvicorn.Config(
        app,
        host="0.0.0.0",  # noqa: S104 # inside a container; only loopback is published
        port=PORT,
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=MAX_FRAME,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        log_config=None,
        log_level=settings.log_level.lower(),
    )
    Server(config).run()


if __name__ == "__main__":
    main()
