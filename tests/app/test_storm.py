"""Many sockets that resume at once: each event is read once for a user, and nobody is sent away."""

import asyncio
import contextlib
import random
import re
import signal
import time

import httpx
from websockets.asyncio.client import ClientConnection

from app.events import stream
from bench.load import Tally, connect_all, handshake
from tests.kit.app import ORIGIN, Site, close_code, numbers, receive


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


async def test_sockets_that_come_and_go_double_nothing(own_site: Site, user: str) -> None:
    """What is read of a stream and what is published meanwhile overlap: each socket gets it once.

    Sockets that know of a later event make the room look for it again and again.
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

        async def come_and_go() -> None:
            while not stopped.is_set():
                _, writer = await asyncio.open_connection("127.0.0.1", own_site.port)
                writer.write(request)
                await asyncio.sleep(random.uniform(0, 0.02))
                writer.transport.abort()

        def publish() -> None:
            for number in range(1, 1_501):
                own_site.redis.publish(user, number)

        going = [asyncio.create_task(come_and_go()) for _ in range(16)]
        reading = asyncio.create_task(numbers(live, 1_500, seconds=60))
        await asyncio.to_thread(publish)
        assert await reading == list(range(1, 1_501))
        stopped.set()
        await asyncio.gather(*going)


async def test_many_rooms_catch_up_after_a_cut(own_site: Site) -> None:
    """The connection is cut while Redis keeps the hub out, and each user misses more than a page of news."""
    own_site.start()
    users = [f"user-{n}" for n in range(150)]
    async with contextlib.AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(own_site.socket(user)) for user in users]
        own_site.redis.client.execute_command("ACL", "SETUSER", "app", "off")
        own_site.redis.cut()
        for user in users:
            own_site.redis.publish(user, *range(40))
        own_site.redis.client.execute_command("ACL", "SETUSER", "app", "on")
        found = await asyncio.gather(*(numbers(connection, 39) for connection in connections))
    assert found == [list(range(40))] * len(users)


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


def hint(connection: ClientConnection) -> float:
    """Return the seconds after which the server asked to come back."""
    found = re.search(r"retry in ([0-9]+) ms$", connection.close_reason or "")
    assert found, connection.close_reason
    return int(found[1]) / 1000


async def test_a_restart_says_when_to_come(own_site: Site) -> None:
    """After the restart, and not all at once."""
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


async def test_an_outage_says_when_to_come(own_site: Site, user: str) -> None:
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
        answer = http.get("/batches")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "3")


async def test_the_event_loop_is_never_busy_for_long(own_site: Site) -> None:
    """Six hundred sockets come at once, each with 500 events to catch up; health is answered meanwhile."""
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
    # In processor time, which other programs on the machine don't lengthen.
    assert max(float(line.split()[2]) for line in steps.read_text().splitlines()) < 0.05
    for connection in sockets:
        assert connection.transport
        connection.transport.abort()


async def test_a_room_of_two_thousand(own_site: Site, user: str) -> None:
    """Each event is handed to all, one after the other, and those that read nothing hold nobody up."""
    own_site.env["APP_LOG_LEVEL"] = "WARNING"
    own_site.start()
    tally = Tally()
    path = f"/api/v1/cv-processing/ws/{user}"
    sockets = await connect_all(
        own_site.port, [handshake(path, ORIGIN, own_site.cookie(user)) for _ in range(2_000)], tally
    )
    before = own_site.memory()
    for connection in sockets[:20]:
        assert connection.transport
        connection.transport.pause_reading()
    for number in range(20):
        await asyncio.to_thread(own_site.redis.publish, user, number, filler="x" * 1_000)
    await tally.reach(20 * 1_980, 60)
    assert own_site.memory() - before < 32 << 20
    for connection in sockets:
        assert connection.transport
        connection.transport.abort()


def test_closed_sockets_leave_nothing_behind(own_site: Site) -> None:
    """Nothing is left to the garbage collector, which is kept from looking at them."""
    own_site.env["APP_LOG_LEVEL"] = "WARNING"
    own_site.start()

    async def come_and_go() -> None:
        requests = [
            handshake(f"/api/v1/cv-processing/ws/user-{n}", ORIGIN, own_site.cookie(f"user-{n}"))
            for n in range(500)
        ]
        for connection in await connect_all(own_site.port, requests, Tally()):
            assert connection.transport
            connection.transport.abort()
        await asyncio.sleep(0.2)

    for _ in range(2):
        asyncio.run(come_and_go())
    before = own_site.memory()
    for _ in range(6):
        asyncio.run(come_and_go())
    assert own_site.memory() - before < 8 << 20
