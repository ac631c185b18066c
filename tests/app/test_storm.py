"""Many sockets that resume at once: each event is read once for a user, and nobody is sent away."""

import asyncio
import contextlib
import signal

from app.events import stream
from bench.load import Tally, connect_all, handshake
from tests.app.kit import ORIGIN, Site, close_code, numbers, receive


def calls(site: Site, *commands: str) -> int:
    """Return how often Redis was asked for these."""
    stats = site.redis.client.execute_command("INFO", "commandstats")
    return sum(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"] for command in commands)


async def resume(site: Site, user: str, last: str, begin: int, end: int) -> None:
    """Resume from the event before `begin` and get each event once up to `end`."""
    async with site.socket(user, last) as connection:
        assert await numbers(connection, end, seconds=30) == list(range(begin, end + 1))


async def test_sockets_of_a_user_share_what_is_read(own_site: Site, user: str) -> None:
    own_site.start()
    ids = own_site.redis.publish(user, *range(500))
    before = calls(own_site, "xrange", "xrevrange")
    await asyncio.gather(*(resume(own_site, user, ids[n % 7], n % 7 + 1, 499) for n in range(40)))
    assert (
        calls(own_site, "xrange", "xrevrange") - before <= 20
    )  # 500 events are four pages; sockets that come late find them kept


async def test_a_snapshot_is_shared(own_site: Site, user: str) -> None:
    own_site.start()
    first, *_ = own_site.redis.publish(user, *range(2_000))
    with own_site.http(user) as http:
        http.post("/batches", files=[("files", ("a.txt", b"Ada"))])
    before = calls(own_site, "hgetall")

    async def resync() -> None:
        async with own_site.socket(user, first) as connection:
            message = await receive(connection)
            assert message["type"] == "resync"
            assert len(message["snapshot"]["batches"]) == 1

    await asyncio.gather(*(resync() for _ in range(40)))
    assert calls(own_site, "hgetall") - before <= 4


async def test_ids_that_no_event_has_are_answered_beside_those_that_events_have(
    site: Site, user: str
) -> None:
    ids = site.redis.publish(user, *range(300))
    stamp = int(ids[150].split("-")[0])
    wrong = ["1-1", f"{stamp}-99999", f"{stamp + 86_400_000}-0"]
    async with contextlib.AsyncExitStack() as stack:
        lost = [await stack.enter_async_context(site.socket(user, last)) for last in wrong]
        await asyncio.gather(*(resume(site, user, ids[n], n + 1, 299) for n in (0, 150, 298)))
        for connection in lost:
            message = await receive(connection)
            assert message["type"] == "resync"
            assert message["snapshot"]["last_event_id"] == ids[-1]
        site.redis.publish(user, 300)
        for connection in lost:
            assert await numbers(connection, 300) == [300]


async def test_a_hole_in_the_stream_means_resync(site: Site, user: str) -> None:
    """Who needs what is gone from the middle gets a snapshot; who doesn't is served."""
    ids = site.redis.publish(user, *range(300))
    site.redis.client.xdel(stream(user), ids[150])
    async with site.socket(user, ids[10]) as connection:
        assert (await receive(connection))["type"] == "resync"
    await resume(site, user, ids[200], 201, 299)


async def test_a_socket_waits_in_line_while_redis_is_slow(own_site: Site) -> None:
    """Redis stands still for longer than sockets used to wait, then answers: nobody is sent away."""
    own_site.start()
    users = [f"user-{n}" for n in range(40)]
    first = {user: own_site.redis.publish(user, *range(50))[0] for user in users}
    assert own_site.redis.child
    own_site.redis.child.send_signal(signal.SIGSTOP)
    waiting = [asyncio.create_task(resume(own_site, user, first[user], 1, 49)) for user in users]
    await asyncio.sleep(3)
    own_site.redis.child.send_signal(signal.SIGCONT)
    await asyncio.gather(*waiting)


async def test_a_broken_stream_is_its_users_trouble_alone(own_site: Site, user: str) -> None:
    own_site.start()
    own_site.redis.client.set(stream("broken"), "no stream")
    async with own_site.socket("broken", "1-1") as connection:
        assert await close_code(connection) == 1013
    own_site.redis.client.xadd(stream("foreign"), {"other": "fields"})
    async with own_site.socket("foreign", "0-0") as connection:
        assert await close_code(connection) == 1013
    [last] = own_site.redis.publish(user, 1)
    async with own_site.socket(user, last) as connection:
        own_site.redis.publish(user, 2)
        assert await numbers(connection, 2) == [2]
    assert "Traceback" not in own_site.api.log()


async def test_five_hundred_sockets_of_one_user(own_site: Site, user: str) -> None:
    """With a backlog of a thousand events of a KiB each; some of them read nothing."""
    own_site.env["APP_LOG_LEVEL"] = "WARNING"
    own_site.start()
    ids = own_site.redis.publish(user, *range(1_000), filler="x" * 1_000)
    before = own_site.memory()
    tally = Tally()
    path = f"/api/v1/cv-processing/ws/{user}?last_event_id={ids[0]}"
    sockets = await connect_all(
        own_site.port, [handshake(path, ORIGIN, own_site.cookie(user)) for _ in range(500)], tally
    )
    for connection in sockets[:50]:
        assert connection.transport
        connection.transport.pause_reading()
    await asyncio.to_thread(own_site.redis.publish, user, 1_000)
    await tally.reach(450 * 1_000, 60)
    assert own_site.memory() - before < 96 << 20
    for connection in sockets:
        assert connection.transport
        connection.transport.abort()
