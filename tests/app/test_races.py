"""What happens between a query and its reply: a proxy delays what Redis sends."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.events import channel, stream
from app.hub import Hub
from app.redis_password import from_url
from app.room import Listener
from tests.kit.app import RedisServer, Site, numbers, receive
from tests.kit.process import wait_until

LATE = 0.4  # seconds


async def _forward(
    source: asyncio.StreamReader, sink: asyncio.StreamWriter, late: Callable[[bytes], bool]
) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(1 << 16):
            if late(data):
                await asyncio.sleep(LATE)
            sink.write(data)
    sink.close()


@pytest.fixture
async def late_site(own_site: Site) -> AsyncIterator[Site]:
    """A started site that receives Redis' replies late, but published messages at once."""

    async def serve(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection("127.0.0.1", own_site.redis.port)
        subscribes = False

        def watch(data: bytes) -> bool:
            nonlocal subscribes
            subscribes |= b"SUBSCRIBE" in data
            return False

        await asyncio.gather(
            _forward(client, to_server, watch), _forward(server, to_client, lambda _: not subscribes)
        )

    proxy = await asyncio.start_server(serve, "127.0.0.1")
    port = proxy.sockets[0].getsockname()[1]
    own_site.env["APP_REDIS_URL"] = f"redis://api@127.0.0.1:{port}/0"
    await asyncio.to_thread(own_site.start)
    yield own_site
    await asyncio.to_thread(own_site.api.close)
    proxy.close()


async def queried(site: Site, command: str, action: Any) -> Any:
    """Await `action`, then one more `command` in Redis, whose reply is still on its way."""

    def calls() -> int:
        stats = site.redis.client.execute_command("INFO", "commandstats")
        return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])

    before = calls()
    result = await action
    await asyncio.to_thread(wait_until, f"{command} is executed", lambda: calls() > before)
    return result


FUTURE = "99999999999999-0"


async def test_event_published_during_the_first_snapshot_is_delivered(late_site: Site, user: str) -> None:
    """Redis has lost its last second of writes; no later event reveals the missed one."""
    late_site.redis.publish(user, 1)
    async with await queried(late_site, "lrange", late_site.socket(user, FUTURE)) as connection:
        late_site.redis.publish(user, 2)
        assert (await receive(connection))["type"] == "resync"
        assert await numbers(connection, 2, seconds=3) == [2]


async def test_event_published_during_a_snapshot_is_delivered_whatever_its_id(
    late_site: Site, user: str
) -> None:
    """The history was lost, and the clock of the Redis that continues is behind."""
    event = '{"type":"cv_progress","time":"now","number":1}'
    late_site.redis.client.xadd(stream(user), {"previous": "0-0", "event": event}, id=FUTURE)
    async with late_site.socket(user, FUTURE) as live:

        async def lose() -> None:
            late_site.redis.client.delete(stream(user))
            late_site.redis.cut()

        await asyncio.sleep(2 * LATE)
        await queried(late_site, "lrange", lose())
        late_site.redis.publish(user, 2)
        assert (await receive(live))["type"] == "resync"
        assert await numbers(live, 2, seconds=3) == [2]


async def test_a_trim_during_a_backward_read_causes_no_resync(late_site: Site, user: str) -> None:
    """The socket that wanted older events leaves before they arrive; the next one still gets them."""
    ids = late_site.redis.publish(user, *range(10))
    async with late_site.socket(user) as live:
        leaving = await queried(late_site, "xrevrange", late_site.socket(user, ids[0]))
        await leaving.close()
        late_site.redis.publish(user, 10)
        assert await numbers(live, 10) == [10]
        await asyncio.sleep(2 * LATE)
        async with late_site.socket(user, ids[0]) as returning:
            assert await numbers(returning, 10) == list(range(1, 11))


async def test_event_that_the_message_cannot_carry_is_read(site: Site, user: str) -> None:
    """Half of a surrogate pair can't be encoded in UTF-8, but the stream has it as an escape."""
    async with site.socket(user) as connection:
        event = '{"type":"cv_progress","time":"now","number":1,"name":"\\ud83d"}'
        site.redis.append(keys=[stream(user)], args=[channel(user), event])
        assert await numbers(connection, 1, seconds=3) == [1]


class Client:
    """A frame writer that accepts everything unless configured otherwise, and takes some time for it."""

    on_writable: Callable[[], None] | None = None
    can_write = True
    received = b""

    def write(self, frames: bytes) -> None:
        time.sleep(0.0001)
        self.received = frames


@pytest.fixture
async def hub(redis_server: RedisServer) -> AsyncIterator[Hub]:
    common = from_url(redis_server.url, redis_server.password_file)
    subscriber = Redis.from_url(**common, decode_responses=True, retry=Retry(NoBackoff(), 0))
    commands = Redis.from_url(**common, decode_responses=True)
    hub = Hub(subscriber, commands)
    running = asyncio.create_task(hub.run())
    yield hub
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.shield(running), 5)
    await subscriber.aclose()
    await commands.aclose()


async def joined(hub: Hub, user: str) -> Listener:
    listener = hub.join(user, None)
    await listener.start()
    return listener


async def test_a_resync_leaves_the_pong_queued(hub: Hub, user: str) -> None:
    listener, client = await joined(hub, user), Client()
    client.can_write = False
    listener.open(client)
    listener.push(b"pong")
    listener.restart(b"resync ")
    client.can_write = True
    listener.flush()
    assert client.received == b"resync pong"
    hub.leave(listener)


async def test_a_busy_room_keeps_no_frames(hub: Hub, redis_server: RedisServer, user: str) -> None:
    """Events are published faster than the room is written to, so it is always dirty."""
    listeners = [await joined(hub, user) for _ in range(400)]
    for listener in listeners:
        listener.open(Client())
    window = listeners[0].room.window
    assert window is not None
    most = 0

    def publish() -> None:
        for number in range(300):
            redis_server.publish(user, *range(10 * number, 10 * number + 10))
            time.sleep(0.005)

    publishing = asyncio.create_task(asyncio.to_thread(publish))
    while not publishing.done():
        await asyncio.sleep(0.005)
        most = max(most, len(window))
    await publishing
    assert most < 1_000, most
    for listener in listeners:
        hub.leave(listener)
