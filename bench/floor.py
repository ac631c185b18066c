"""The floor: a minimal server of such sockets, an echo on bare uvicorn with one shared Redis subscriber.

It has no sessions, no history and no limits.
"""

import asyncio
import os
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis

from app.events import channel

Send = Callable[[dict[str, Any]], Awaitable[None]]
rooms: defaultdict[str, set[Send]] = defaultdict(set)
pubsub = Redis.from_url(os.environ["APP_REDIS_URL"], decode_responses=True).pubsub()


async def deliver() -> None:
    """Send each published event to all sockets of its user, until cancelled."""
    await pubsub.subscribe(channel("nobody"))  # listen() needs a subscription
    async for message in pubsub.listen():
        if message["type"] == "message":
            for send in tuple(rooms[message["channel"]]):
                await send({"type": "websocket.send", "text": message["data"]})


async def app(scope: dict[str, Any], receive: Callable[[], Awaitable[dict[str, Any]]], send: Send) -> None:
    """Serve an ASGI scope: the lifespan, a WebSocket, or 404 for an HTTP request."""
    if scope["type"] == "lifespan":
        await receive()
        delivering = asyncio.create_task(deliver())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        delivering.cancel()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        room = channel(scope["path"].rpartition("/")[2])
        await receive()
        if room not in rooms:
            await pubsub.subscribe(room)
        rooms[room].add(send)
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        rooms[room].discard(send)
    else:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body"})
