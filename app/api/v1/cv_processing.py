"""Uploads of CVs, and the WebSocket that reports their progress."""

import asyncio
import logging
import random
import time
from contextlib import ExitStack, suppress
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, HTTPException, Query, Request, Response, WebSocket
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect, WebSocketState

from app import batches, uploads
from app.api.deps import OwnOrigin, UserId
from app.events import channel, frame, is_id, stream
from app.jwks import COOL_DOWN, KeySetUnavailable
from app.protocol import FRAME_WRITER, retry_in
from app.provider import Session
from app.rate import FLOOD_REASON, TOO_MANY, Rate
from app.room import End, Listener
from app.sessions import COOKIE, InvalidSession
from app.state import State, state_of
from app.storage import disk_is_full

MALFORMED_ID, NO_SESSION, FORBIDDEN = 4400, 4401, 4403
UNSUPPORTED, TRY_AGAIN = 1003, 1013
OUTAGE_WAIT = (1.0, 5.0)  # seconds after which clients may reconnect while events are unavailable
KEYS_WAIT = (COOL_DOWN, 2 * COOL_DOWN)  # the same while there are no keys to verify sessions with
SOCKETS_WAIT = 60.0  # the same for a user who has too many sockets
DRAIN = 30  # seconds, sent in Retry-After while a bound of uploads is reached
CLOSE_TIMEOUT = 15.0  # seconds that a slow client may take to read the rest and its close code

PONG = frame('{"type":"pong"}')
HEARTBEAT = frame('{"type":"heartbeat"}')

logger = logging.getLogger(__name__)
PREFIX = "/api/v1/cv-processing"
SOCKET = f"{PREFIX}/ws/"
router = APIRouter(prefix=PREFIX)


# The body is parsed as a stream, outside FastAPI, so its OpenAPI description is written by hand.
FORM = {
    "type": "object",
    "properties": {uploads.FIELD: {"type": "array", "items": {"type": "string", "format": "binary"}}},
    "required": [uploads.FIELD],
}
BODY = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": FORM}}}}


@router.post("/batches", status_code=202, dependencies=[OwnOrigin], openapi_extra=BODY)
async def upload(request: Request, user_id: UserId) -> dict[str, Any]:
    """Store a batch of CVs and enqueue it: all of it or, with a 4xx, nothing."""
    state = state_of(request)
    folder, limit = state.settings.upload_dir, state.settings.upload_max_bytes
    length = request.headers.get("content-length", "")
    size = min(int(length), limit) if length.isdigit() else limit
    if await run_in_threadpool(disk_is_full, folder, state.settings.uploads_megabytes << 20, size):
        raise _full()
    with ExitStack() as files:
        received = await uploads.receive(request, folder, limit, files)
        kinds = await run_in_threadpool(uploads.kinds, received)
        return await run_in_threadpool(_store, state, user_id, received, kinds)


def _store(state: State, user_id: str, received: list[uploads.Upload], kinds: list[str]) -> dict[str, Any]:
    new = [
        batches.NewCV(uuid4().hex, upload.filename, upload.size, kind)
        for upload, kind in zip(received, kinds, strict=True)
    ]
    try:
        for cv, upload in zip(new, received, strict=True):
            upload.keep(state.settings.upload_dir / cv.cv_id)
        bounds = batches.Bounds(state.settings.user_unfinished_cvs, state.settings.user_kept_cvs)
        return batches.create(state.writer, uuid4().hex, user_id, new, bounds)
    except BaseException as error:
        for cv in new:
            (state.settings.upload_dir / cv.cv_id).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise uploads.disk_full(error) from error
        if isinstance(error, batches.TooManyCVs):
            raise HTTPException(429, str(error), {"Retry-After": str(DRAIN)}) from None
        if isinstance(error, batches.StorageFull):
            raise _full() from None
        raise


def _full() -> HTTPException:
    """Return the response to an upload for which there is no room until others are processed or deleted."""
    return HTTPException(
        503,
        "The server's storage is full and accepts no uploads at the moment; try again later.",
        {"Retry-After": str(DRAIN)},
    )


@router.get("/batches")
async def read_batches(
    request: Request,
    user_id: UserId,
    limit: Annotated[int, Query(ge=1, le=batches.LISTED)] = batches.LISTED,
    before: str = "",
) -> Response:
    """Return the newest batches, or those before a batch, and the id of the last event that they include."""
    reply = await state_of(request).snapshot(
        keys=[stream(user_id), batches.listing_key(user_id)], args=[before, limit]
    )
    return Response(batches.snapshot_text(reply), media_type="application/json")


@router.get("/batches/{batch_id}")
async def read_batch(request: Request, user_id: UserId, batch_id: str) -> dict[str, Any]:
    """Return one of the user's batches, or 404."""
    fields = await state_of(request).commands.execute_command("HGETALL", batches.batch_key(batch_id))
    if fields.get("user_id") != user_id:
        raise HTTPException(404, f"You have no batch {batch_id[:100]!r}.")
    return batches.batch_from(fields)


class _Refused(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def _refusal(end: End) -> _Refused:
    if end is End.TOO_SLOW:
        return _Refused(TRY_AGAIN, "you read too slowly; reconnect and resume")
    wait = random.uniform(*OUTAGE_WAIT)  # noqa: S311
    return _Refused(TRY_AGAIN, retry_in("events are unavailable; reconnect and resume", wait))


async def cv_processing_websocket(scope: Scope, receive: Receive, send: Send) -> None:
    """Send the user's events: first those after `last_event_id`, if given, then live ones.

    A plain ASGI application: FastAPI's routing would take a third of the time of a connect, and 12 KiB of
    memory for each open socket.
    """
    websocket = WebSocket(scope, receive, send)
    path: str = scope["path"]
    if not path.startswith(SOCKET):
        await websocket.close()
        return
    user_id = path.removeprefix(SOCKET)
    last_event_id = websocket.query_params.get("last_event_id")
    state = state_of(websocket)
    listener: Listener | None = None
    try:
        session = await _admit(websocket, state, user_id, last_event_id)
        if state.hub.sockets(user_id) >= state.settings.user_sockets:
            raise _Refused(TOO_MANY, retry_in("too many sockets of this user; close some", SOCKETS_WAIT))
        listener = state.hub.join(user_id, last_event_id)
        # A resuming client can wait with an open socket; for others, events count only once subscribed.
        if last_event_id is None or not state.hub.connected:
            await listener.start()
        if listener.end:
            raise _refusal(listener.end)
        await websocket.accept()
        logger.info("WebSocket connected for user %s", user_id)
        logger.info("Subscribed to Redis channel: %s", channel(user_id))
        listener.open(websocket.scope["extensions"][FRAME_WRITER])
        await _converse(websocket, listener, session, state.settings.heartbeat_seconds)
    except _Refused as refused:
        if listener:
            listener.close()
        await _close(websocket, refused)
    except WebSocketDisconnect:
        pass  # the client disconnected during one of the steps above
    finally:
        if listener:
            state.hub.leave(listener)


async def _admit(websocket: WebSocket, state: State, user_id: str, last_event_id: str | None) -> Session:
    """Return the session of a client that may receive the events of `user_id`. Raises _Refused."""
    if websocket.headers.get("origin") not in state.settings.allowed_origins:
        raise _Refused(FORBIDDEN, "the Origin is not this site's own; see APP_ALLOWED_ORIGINS")
    try:
        session = await state.sessions.verify(websocket.cookies.get(COOKIE))
    except InvalidSession as error:
        raise _Refused(NO_SESSION, str(error)) from None
    except KeySetUnavailable:
        wait = random.uniform(*KEYS_WAIT)  # noqa: S311
        raise _Refused(TRY_AGAIN, retry_in("sessions can't be verified now; reconnect", wait)) from None
    if session.subject != user_id:
        raise _Refused(FORBIDDEN, "the session belongs to another user")
    if last_event_id is not None and not is_id(last_event_id):
        raise _Refused(MALFORMED_ID, "last_event_id is not a valid event id")
    return session


async def _converse(websocket: WebSocket, listener: Listener, session: Session, heartbeat: float) -> None:
    """Answer the client until it disconnects. Raises _Refused to disconnect it."""
    rate = Rate()
    loop = asyncio.get_running_loop()
    expires = loop.time() + max(0.0, session.ends - time.time())
    while True:
        try:
            async with asyncio.timeout_at(min(loop.time() + heartbeat, expires)) as deadline:
                # The hub can't close the socket; it wakes this task, which can.
                listener.on_end = lambda deadline=deadline: _expire(deadline)
                if listener.end:
                    deadline.reschedule(0)
                message = await websocket.receive()
        except TimeoutError:
            if listener.end:
                raise _refusal(listener.end) from None
            if loop.time() >= expires:
                raise _Refused(NO_SESSION, "the session has expired; sign in again") from None
            listener.push(HEARTBEAT)
            continue
        finally:
            listener.on_end = None
        if message["type"] == "websocket.disconnect":
            return
        if message.get("text") is None:
            raise _Refused(UNSUPPORTED, "send text, not binary")
        if not rate.allow():
            raise _Refused(TOO_MANY, FLOOD_REASON)
        if message["text"] == "ping":
            listener.push(PONG)


def _expire(deadline: asyncio.Timeout) -> None:
    with suppress(RuntimeError):  # it has expired already
        deadline.reschedule(0)


async def _close(websocket: WebSocket, refused: _Refused) -> None:
    """Close with the refusal's code. Browsers see the code only of accepted sockets."""
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT):
            if websocket.application_state is WebSocketState.CONNECTING:
                await websocket.accept()
            await websocket.close(refused.code, refused.reason[:120])
    except (TimeoutError, WebSocketDisconnect, RuntimeError):
        logger.debug("A client disconnected before it received: %s", refused.reason)
