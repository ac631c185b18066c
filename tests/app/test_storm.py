"""Many sockets resume at once: each event is read once per user, and no socket is refused."""

import asyncio
import contextlib
import random
import re
import signal
import time

import httpx
from websockets.asyncio.client import ClientConnection

from app.events import stream
from bench.load import Socket, Tally, connect_all, handshake
from tests.kit.app import ORIGIN, Site, close_code, numbers, receive


def calls(site: Site, *commands: str) -> int:
    """Return how often Redis executed these commands."""
    stats = site.redis.client.execute_command("INFO", "commandstats")
    return sum(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"] for command in commands)


async def resume(site: Site, user: str, last: str, begin: int, end: int) -> None:
    """Resume from the event before `begin`, and expect each event up to `end` once."""
    async with site.socket(user, last) as connection:
        assert await numbers(connection, end, seconds=30) == list(range(begin, end + 1))


async def open_sockets(site: Site, user: str, path: str, count: int, tally: Tally) -> list[Socket]:
    """Open this many sockets of one user."""
    return await connect_all(
        site.port, [handshake(path, ORIGIN, site.cookie(user)) for _ in range(count)], tally
    )


def pause(sockets: list[Socket]) -> None:
    """Stop reading from sockets."""
    for connection in sockets:
        assert connection.transport
        connection.transport.pause_reading()


def abort(sockets: list[Socket]) -> None:
    """Drop sockets without a close frame."""
    for connection in sockets:
        assert connection.transport
        connection.transport.abort()


async def test_sockets_of_a_user_share_one_read(own_site: Site, user: str) -> None:
    own_site.start()
    ids = own_site.redis.publish(user, *range(500))
    before = calls(own_site, "xrange", "xrevrange")
    await asyncio.gather(*(resume(own_site, user, ids[n % 7], n % 7 + 1, 499) for n in range(40)))
    assert (
        calls(own_site, "xrange", "xrevrange") - before <= 20
    )  # 500 events are four pages, which are kept for late sockets


async def test_sockets_of_a_user_share_a_snapshot(own_site: Site, user: str) -> None:
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


async def test_unknown_ids_get_a_resync_and_do_not_affect_other_sockets(site: Site, user: str) -> None:
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


async def test_gap_in_the_stream_causes_a_resync(site: Site, user: str) -> None:
    """A socket that needs the missing event gets a snapshot; one that does not is served."""
    ids = site.redis.publish(user, *range(300))
    site.redis.client.xdel(stream(user), ids[150])
    async with site.socket(user, ids[10]) as connection:
        assert (await receive(connection))["type"] == "resync"
    await resume(site, user, ids[200], 201, 299)


async def test_sockets_wait_while_redis_is_slow(own_site: Site) -> None:
    """Redis is stopped for three seconds and continues: no socket is refused."""
    own_site.start()
    users = [f"user-{n}" for n in range(40)]
    first = {user: own_site.redis.publish(user, *range(50))[0] for user in users}
    assert own_site.redis.child
    own_site.redis.child.send_signal(signal.SIGSTOP)
    waiting = [asyncio.create_task(resume(own_site, user, first[user], 1, 49)) for user in users]
    await asyncio.sleep(3)
    own_site.redis.child.send_signal(signal.SIGCONT)
    await asyncio.gather(*waiting)


async def test_short_lived_sockets_cause_no_duplicates(own_site: Site, user: str) -> None:
    """Events in a page that are also published meanwhile are delivered once.

    Sockets that name a later event make the room read its stream repeatedly.
    """
    own_site.env["APP_LOG_LEVEL"] = "WARNING"
    own_site.start()
    [last] = own_site.redis.publish(user, 0)
    later = f"{int(last.split('-')[0]) + 86_400_000}-0"
    request = handshake(
        f"/api/v1/cv-processing/ws/{user}?last_event_id={later}", ORIGIN, own_site.cookie(user)
    )
    async with own_site.socket(user, last) as live:
        stopped = asyncio.Event()

        async def connect_and_abort() -> None:
            while not stopped.is_set():
                _, writer = await asyncio.open_connection("127.0.0.1", own_site.port)
                writer.write(request)
                await asyncio.sleep(random.uniform(0, 0.02))
                writer.transport.abort()

        def publish() -> None:
            for number in range(1, 1_501):
                own_site.redis.publish(user, number)

        going = [asyncio.create_task(connect_and_abort()) for _ in range(16)]
        reading = asyncio.create_task(numbers(live, 1_500, seconds=60))
        await asyncio.to_thread(publish)
        assert await reading == list(range(1, 1_501))
        stopped.set()
        await asyncio.gather(*going)


async def test_many_rooms_catch_up_after_a_cut(own_site: Site) -> None:
    """The connection is cut while Redis refuses the hub, and each user misses more than one page."""
    own_site.start()
    users = [f"user-{n}" for n in range(150)]
    async with contextlib.AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(own_site.socket(user)) for user in users]
        own_site.redis.client.execute_command("ACL", "SETUSER", "api", "off")
        own_site.redis.cut()
        for user in users:
            own_site.redis.publish(user, *range(40))
        own_site.redis.client.execute_command("ACL", "SETUSER", "api", "on")
        found = await asyncio.gather(*(numbers(connection, 39) for connection in connections))
    assert found == [list(range(40))] * len(users)


async def test_unreadable_stream_affects_only_its_user(own_site: Site, user: str) -> None:
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


async def test_five_hundred_sockets_of_one_user_with_a_backlog(own_site: Site, user: str) -> None:
    """A backlog of a thousand events of a KiB each, with some sockets that do not read."""
    own_site.env["APP_LOG_LEVEL"] = "WARNING"
    own_site.start()
    ids = own_site.redis.publish(user, *range(1_000), filler="x" * 1_000)
    before = own_site.memory()
    tally = Tally()
    path = f"/api/v1/cv-processing/ws/{user}?last_event_id={ids[0]}"
    sockets = await open_sockets(own_site, user, path, 500, tally)
    pause(sockets[:50])
    await asyncio.to_thread(own_site.redis.publish, user, 1_000)
    await tally.reach(450 * 1_000, 60)
    assert own_site.memory() - before < 96 << 20
    abort(sockets)


def hint(connection: ClientConnection) -> float:
    """Return the seconds in the close reason's retry hint."""
    found = re.search(r"retry in ([0-9]+) ms$", connection.close_reason or "")
    assert found, connection.close_reason
    return int(found[1]) / 1000


async def test_restart_sends_retry_hints(own_site: Site) -> None:
    """The hints are for a time after the restart, and not the same for all."""
    own_site.start()
    async with contextlib.AsyncExitStack() as stack:
        connections = [
            await stack.enter_async_context(own_site.socket(f"user-{n % 10}", "0-0")) for n in range(100)
        ]
        assert own_site.api.child
        begin = time.monotonic()
        own_site.api.child.send_signal(signal.SIGTERM)

        async def back(connection: ClientConnection) -> float:
            assert await close_code(connection) == 1012
            return time.monotonic() - begin + hint(connection)

        times = sorted(await asyncio.gather(*map(back, connections)))
        await asyncio.to_thread(own_site.api.child.wait, 8)
        ended = time.monotonic() - begin
        own_site.start()
        ready = time.monotonic() - begin
    assert times[0] > ended
    assert times[-1] < 2 * ready + 1
    assert times[90] - times[10] > 0.05


async def test_outage_sends_retry_hints(own_site: Site, user: str) -> None:
    own_site.start()
    own_site.redis.end(signal.SIGKILL)

    async def refused() -> float:
        async with own_site.socket(user, "0-0") as connection:
            assert await close_code(connection) == 1013
            return hint(connection)

    hints = set(await asyncio.gather(*(refused() for _ in range(5))))
    assert len(hints) > 1
    assert all(1 <= seconds <= 5 for seconds in hints)
    with own_site.http(user) as http:
        response = http.get("/batches")
        assert (response.status_code, response.headers["retry-after"]) == (503, "3")


async def test_event_loop_steps_stay_short(own_site: Site) -> None:
    """Six hundred sockets resume at once, each with 500 missed events, while readiness is polled."""
    own_site.env["APP_LOG_LEVEL"] = "WARNING"
    steps = own_site.folder / "steps"
    command, *arguments = own_site.api.arguments
    own_site.api.arguments = (command, "bench/watched.py", str(steps), *arguments[2:])
    own_site.start()
    users = [f"user-{n}" for n in range(60)]
    first = {user: own_site.redis.publish(user, *range(501))[0] for user in users}
    tally = Tally()
    requests = [
        handshake(
            f"/api/v1/cv-processing/ws/{user}?last_event_id={first[user]}", ORIGIN, own_site.cookie(user)
        )
        for user in users * 10
    ]
    storm = asyncio.gather(connect_all(own_site.port, requests, tally), tally.reach(300_000, 60))
    while not storm.done():
        assert (await asyncio.to_thread(httpx.get, f"{own_site.url}/readyz", timeout=20)).status_code == 200
    sockets, _ = await storm
    assert tally.lost == 0
    await asyncio.sleep(1)
    # Processor time, which other programs on the machine do not affect.
    assert max(float(line.split()[2]) for line in steps.read_text().splitlines()) < 0.05
    abort(sockets)


async def test_room_of_two_thousand_sockets(own_site: Site, user: str) -> None:
    """Each event is written to all sockets; those that do not read delay no other."""
    own_site.env["APP_LOG_LEVEL"] = "WARNING"
    own_site.start()
    tally = Tally()
    path = f"/api/v1/cv-processing/ws/{user}"
    sockets = await open_sockets(own_site, user, path, 2_000, tally)
    before = own_site.memory()
    pause(sockets[:20])
    for number in range(20):
        await asyncio.to_thread(own_site.redis.publish, user, number, filler="x" * 1_000)
    await tally.reach(20 * 1_980, 60)
    assert own_site.memory() - before < 32 << 20
    abort(sockets)


def test_closed_sockets_free_their_memory(own_site: Site) -> None:
    """They are hidden from the garbage collector, so this must not depend on it."""
    own_site.env["APP_LOG_LEVEL"] = "WARNING"
    own_site.start()

    async def connect_and_abort() -> None:
        requests = [
            handshake(f"/api/v1/cv-processing/ws/user-{n}", ORIGIN, own_site.cookie(f"user-{n}"))
            for n in range(500)
        ]
        abort(await connect_all(own_site.port, requests, Tally()))
        await asyncio.sleep(0.2)

    for _ in range(2):
        asyncio.run(connect_and_abort())
    before = own_site.memory()
    for _ in range(6):
        asyncio.run(connect_and_abort())
    assert own_site.memory() - before < 8 << 20
