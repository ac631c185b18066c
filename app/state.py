"""What requests and sockets share in one process."""

import asyncio
from dataclasses import dataclass, field

import redis
from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from starlette.websockets import WebSocket

from app.hub import Hub
from app.sessions import Sessions
from app.settings import Settings


@dataclass
class State:
    """Three Redis connections at any number of sockets: `commands`, the hub's subscriber, and `jobs`."""

    settings: Settings
    sessions: Sessions
    hub: Hub
    commands: "Redis"
    snapshot: AsyncScript
    jobs: "redis.Redis"
    sockets: dict[WebSocket, "asyncio.Task[object]"] = field(default_factory=dict)
