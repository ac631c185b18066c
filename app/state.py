"""State shared by the requests and sockets of one process."""

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
    """Has three Redis connections for any number of clients: `commands`, `writer` and the hub's own."""

    settings: Settings
    sessions: Sessions
    hub: Hub
    commands: "Redis"
    snapshot: AsyncScript
    redis_full: AsyncScript
    writer: "redis.Redis"


def state_of(connection: HTTPConnection) -> State:
    """Return the state of the application that serves a request or a socket."""
    state: State = connection.app.state.shared
    return state
