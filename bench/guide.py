"""The backend of the guide (docs/production-deployment-guide.md, Solution 4).

It has a Redis connection for each socket, no sessions and no history. Only what the guide omits
(`... connection code ...`) is ours.
"""

import asyncio
import json
import os
from contextlib import suppress

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from redis.asyncio import Redis

app = FastAPI()


@app.websocket("/api/v1/cv-processing/ws/{user_id}")
async def cv_processing_websocket(websocket: WebSocket, user_id: str) -> None:
    """Forward the user's channel, answer pings, and send a heartbeat after 30 s without a message."""
    await websocket.accept()
    redis = Redis.from_url(os.environ["APP_REDIS_URL"], decode_responses=True)
    pubsub = redis.pubsub()
    await pubsub.subscribe(f"user:{user_id}:events")

    async def forward() -> None:
        async for message in pubsub.listen():
            if message["type"] == "message":
                await websocket.send_json(json.loads(message["data"]))

    forwarding = asyncio.create_task(forward())
    try:
        while True:
            try:
                data = await asyncio.wait_for(websocket.receive_text(), timeout=30.0)
                if data == "ping":
                    await websocket.send_json({"type": "pong"})
            except TimeoutError:
                await websocket.send_json({"type": "heartbeat"})
    except WebSocketDisconnect:
        pass
    finally:
        forwarding.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await forwarding
        await pubsub.aclose()
        await redis.aclose()
