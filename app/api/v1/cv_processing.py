"""CVs: upload, snapshots, and the WebSocket that carries their progress."""

import asyncio
import json
import logging
import time
import uuid
from typing import Annotated, Any

import redis
from fastapi import APIRouter, Depends, HTTPException, Query, Request, WebSocket
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocketDisconnect, WebSocketState

from app import uploads
from app.batches import batch_from, batch_key, create, listing_key, snapshot_from
from app.events import channel, is_id, stream
from app.hub import Listener, Unavailable
from app.sessions import COOKIE, InvalidSession, Session
from app.state import State

BINARY, BAD_ID, NO_SESSION, FORBIDDEN, FLOOD = 1003, 4400, 4401, 4403, 4429
TRY_AGAIN = 1013
FLOOD_MESSAGES = 60  # client messages that may come at once; a browser sends one ping in 30 s
FLOOD_PER_SECOND = 2.0  # and then this many a second
JOIN_TIMEOUT = 10.0  # seconds in which Redis must answer before a client is asked to come again
CLOSE_TIMEOUT = 2.0  # seconds that a close may take with a reader that reads nothing

logger = logging.getLogger("app.cv_processing")
router = APIRouter(prefix="/api/v1/cv-processing", tags=["cv-processing"])


def state_of(connection: HTTPConnection) -> State:
    """Return what the application shares."""
    state: State = connection.app.state.shared
    return state


async def signed_in(request: Request) -> Session:
    """Return the request's session; answers 401 without one, and 403 to a foreign page."""
    state = state_of(request)
    origin = request.headers.get("origin")
    if origin is not None and origin not in state.settings.allowed_origins:
        raise HTTPException(403, f"Requests from {origin} are not accepted.")
    try:
        return await state.sessions.verify(request.cookies.get(COOKIE))
    except InvalidSession as error:
        raise HTTPException(401, str(error)) from None


SignedIn = Annotated[Session, Depends(signed_in)]


@router.post("/batches", status_code=202)
async def upload(request: Request, session: SignedIn) -> dict[str, Any]:
    """Take several CVs at once: multipart/form-data, field `files`. All are taken or none."""
    state = state_of(request)
    folder = state.settings.upload_dir
    try:
        files = await uploads.receive(request, state.settings.upload_max_bytes)
        try:
            new = await asyncio.to_thread(uploads.store, files, folder)
        finally:
            for file in files:
                await file.close()
    except uploads.Refused as refused:
        raise HTTPException(refused.status, str(refused)) from None
    try:
        return await asyncio.to_thread(create, state.jobs, uuid.uuid4().hex, session.subject, new)
    except redis.RedisError as error:
        logger.error("An upload could not be queued: %s", error)
        await asyncio.to_thread(uploads.discard, new, folder)
        raise HTTPException(503, "The CVs could not be queued; nothing was taken. Try again soon.") from None


@router.get("/batches")
async def snapshot(request: Request, session: SignedIn) -> dict[str, Any]:
    """Return the newest batches and the id of the last event that they already show."""
    state = state_of(request)
    keys = [stream(session.subject), listing_key(session.subject)]
    return snapshot_from(await state.snapshot(keys=keys))


@router.get("/batches/{batch_id}")
async def batch(request: Request, batch_id: str, session: SignedIn) -> dict[str, Any]:
    """Return one batch of the signed-in person."""
    fields = await state_of(request).commands.execute_command("HGETALL", batch_key(batch_id))
    if not fields or fields["user_id"] != session.subject:
        raise HTTPException(404, "There is no such batch.")
    return batch_from(fields)


@router.websocket("/ws/{user_id}")
async def cv_processing_websocket(
    websocket: WebSocket, user_id: str, last_event_id: Annotated[str | None, Query()] = None
) -> None:
    """Send the person's events: first what came after `last_event_id`, then live ones."""
    state = state_of(websocket)
    await websocket.accept()
    refusal = await _refusal(websocket, state, user_id, last_event_id)
    if isinstance(refusal, tuple):
        await websocket.close(*refusal)
        return
    try:
        listener = await state.hub.join(user_id, last_event_id, JOIN_TIMEOUT)
    except Unavailable:
        await websocket.close(TRY_AGAIN, "Events are not available now; try again.")
        return
    task = asyncio.current_task()
    assert task is not None
    state.sockets[websocket] = task
    logger.info("WebSocket connected for user %s", user_id)
    logger.info("Subscribed to Redis channel: %s", channel(user_id))
    try:
        await _serve(websocket, state, listener, refusal.expires)
    except WebSocketDisconnect:
        pass
    finally:
        state.hub.leave(listener)
        state.sockets.pop(websocket, None)
        logger.info("WebSocket disconnected for user %s", user_id)


async def _refusal(
    websocket: WebSocket, state: State, user_id: str, last_event_id: str | None
) -> Session | tuple[int, str]:
    """Return the session that may listen, or the code and reason to close with."""
    if websocket.headers.get("origin") not in state.settings.allowed_origins:
        return FORBIDDEN, "This page may not open a WebSocket here."
    try:
        session = await state.sessions.verify(websocket.cookies.get(COOKIE))
    except InvalidSession as error:
        return NO_SESSION, str(error)
    if session.subject != user_id:
        return FORBIDDEN, "The session is somebody else's."
    if last_event_id is not None and not is_id(last_event_id):
        return BAD_ID, "last_event_id is no event's id; connect without it."
    return session


async def _serve(websocket: WebSocket, state: State, listener: Listener, expires: float) -> None:
    """Answer pings, send heartbeats and events, until either side ends it."""
    slow = asyncio.Event()
    listener.on_overflow = slow.set
    listener.open(websocket.send_text)
    receiving = asyncio.create_task(_receive(websocket, state.settings.heartbeat_seconds))
    overflow = asyncio.create_task(slow.wait())
    try:
        await asyncio.wait(
            (receiving, overflow),
            timeout=max(0, expires - time.time()),
            return_when=asyncio.FIRST_COMPLETED,
        )
        if receiving.done():
            end = receiving.result()
        elif overflow.done():
            end = (TRY_AGAIN, "Too slow; connect again and resume.")
        else:
            end = (NO_SESSION, "The session has expired; sign in again.")
    finally:
        receiving.cancel()
        overflow.cancel()
        listener.close()
    if websocket.application_state is WebSocketState.CONNECTED:
        # Who reads nothing does not read the close either; the server cuts the connection when we return.
        async with asyncio.timeout(CLOSE_TIMEOUT):
            await websocket.close(*end)


async def _receive(websocket: WebSocket, heartbeat_seconds: float) -> tuple[int, str]:
    """Take client messages until one ends the socket; return the code and reason. Raises WebSocketDisconnect."""
    allowance, asked = float(FLOOD_MESSAGES), time.monotonic()
    while True:
        try:
            async with asyncio.timeout(heartbeat_seconds):
                message = await websocket.receive()
        except TimeoutError:
            await websocket.send_text(json.dumps({"type": "heartbeat"}))
            continue
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])
        data = message.get("text")
        if data is None:
            return BINARY, "Only text is understood here."
        now = time.monotonic()
        allowance = min(FLOOD_MESSAGES, allowance + (now - asked) * FLOOD_PER_SECOND) - 1
        asked = now
        if allowance < 0:
            return FLOOD, "Too many messages; connect again later."
        if data == "ping":
            await websocket.send_text(json.dumps({"type": "pong"}))
