"""What the requests and sockets of one process share."""

from dataclasses import dataclass

import redis
from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from starlette.requests import HTTPConnection

from app.hub import Hub
from app.sessions import Sessions
from app.settings import Settings


@dataclass(frozen=True)
class State:
    """Three Redis connections at any number of clients: `commands`, `writer` and the hub's subscription."""

    settings: Settings
    sessions: Sessions
    hub: Hub
    commands: "Redis"
    snapshot: AsyncScript
    writer: "redis.Redis"


def state_of(connection: HTTPConnection) -> State:
    """Return the state that a request or a socket belongs to."""
    state: State = connection.app.state.shared
    return state
