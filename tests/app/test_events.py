"""No event is lost or duplicated, and an incomplete history is replaced by a snapshot."""

import asyncio
import json
import random
import signal
import time

from app.events import stream
from tests.kit.app import Site, close_code, numbers, receive
from tests.kit.process import wait_until


async def test_live_event_has_the_published_shape(site: Site, user: str) -> None:
    subscriber = site.redis.client.pubsub()
    subscriber.subscribe(f"user:{user}:events")
    async with site.socket(user) as connection:
        [event_id] = site.redis.publish(user, 1)
        assert await receive(connection) == {
            "id": event_id,
            "type": "cv_progress",
            "time": "now",
            "number": 1,
        }
    # A SUBSCRIBE as in the guide receives the same event.
    messages = [subscriber.get_message(timeout=1) for _ in range(2)]
    assert messages[1] and json.loads(messages[1]["data"])["id"] == event_id
    subscriber.close()


async def test_replay_is_complete_ordered_and_without_duplicates(site: Site, user: str) -> None:
    ids = site.redis.publish(user, *range(10))
    async with site.socket(user, ids[3]) as connection:
        site.redis.publish(user, 10)
        assert await numbers(connection, 10) == [4, 5, 6, 7, 8, 9, 10]


async def test_replay_from_an_empty_history(site: Site, user: str) -> None:
    with site.http(user) as http:
        last = http.get("/batches").json()["last_event_id"]
    site.redis.publish(user, 1, 2)
    async with site.socket(user, last) as connection:
        assert await numbers(connection, 2) == [1, 2]


async def test_replay_joins_live_events_without_gap_or_duplicate(site: Site, user: str) -> None:
    """Clients connect at random times to a busy stream, with random last ids."""
    ids = site.redis.publish(user, *range(100))
    done = asyncio.Event()

    async def publish() -> None:
        for number in range(100, 400):
            ids.extend(await asyncio.to_thread(site.redis.publish, user, number))
            await asyncio.sleep(0)
        done.set()

    async def follow() -> None:
        await asyncio.sleep(random.uniform(0, 0.3))
        begin = random.randrange(len(ids))
        async with site.socket(user, ids[begin]) as connection:
            assert await numbers(connection, 399, seconds=20) == list(range(begin + 1, 400))

    await asyncio.gather(publish(), *(follow() for _ in range(20)))
    assert done.is_set()


async def test_cut_redis_connections_lose_no_event(site: Site, user: str) -> None:
    """All of the api's Redis connections are cut repeatedly during publishing; the socket stays open."""
    async with site.socket(user) as connection:

        async def publish() -> None:
            for number in range(300):
                await asyncio.to_thread(site.redis.publish, user, number)

        async def cut() -> int:
            cuts = 0
            while not publishing.done():
                cuts += await asyncio.to_thread(site.redis.cut)
                await asyncio.sleep(0.05)
            return cuts

        publishing = asyncio.create_task(publish())
        assert await cut() > 1
        assert await numbers(connection, 299, seconds=15) == list(range(300))


async def test_last_event_before_a_cut_is_delivered(site: Site, user: str) -> None:
    """The gap must be detected without a later event that reveals it."""
    async with site.socket(user) as connection:
        with site.redis.client.pipeline(transaction=True) as pipe:
            pipe.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            site.redis.append(
                keys=[stream(user)],
                args=[f"user:{user}:events", '{"type":"cv_progress","time":"now","number":1}'],
                client=pipe,
            )
            pipe.execute()
        assert await numbers(connection, 1) == [1]


async def test_unpublished_event_is_delivered_before_its_successor(site: Site, user: str) -> None:
    async with site.socket(user) as connection:
        [first] = site.redis.publish(user, 1)
        event = '{"type":"cv_progress","time":"now","number":2}'
        site.redis.client.xadd(stream(user), {"previous": first, "event": event})
        site.redis.publish(user, 3)
        assert await numbers(connection, 3) == [1, 2, 3]


async def test_event_published_during_a_replay_is_delivered(site: Site, user: str) -> None:
    """It may be published after the stream was read, and its message arrive before the reply."""
    [last] = site.redis.publish(user, 0)
    async with site.socket(user) as live:

        async def resume(last: str) -> None:
            async with site.socket(user, last):
                pass

        for number in range(1, 300):
            joining = asyncio.create_task(resume(last))
            await asyncio.sleep(random.uniform(0, 0.006))
            [last] = await asyncio.to_thread(site.redis.publish, user, number)
            assert await numbers(live, number, seconds=2) == [number]
            await joining


async def test_redis_restart_loses_no_event(own_site: Site, user: str) -> None:
    own_site.start()
    redis = own_site.redis
    async with own_site.socket(user) as connection:
        redis.publish(user, 1, 2)
        assert await numbers(connection, 2) == [1, 2]
        redis.publish(user, 3)
        redis.end(signal.SIGKILL)
        assert not own_site.ready()
        redis.start()
        redis.publish(user, 4)  # before the hub has reconnected
        assert await numbers(connection, 4) == [3, 4]
        redis.publish(user, 5)
        assert await numbers(connection, 5) == [5]
        wait_until("the api is ready again", own_site.ready)


async def test_new_client_during_an_outage_gets_a_retry_hint(own_site: Site, user: str) -> None:
    own_site.start()
    [last] = own_site.redis.publish(user, 1)
    own_site.redis.end(signal.SIGKILL)
    begin = time.monotonic()
    async with own_site.socket(user, last) as connection:
        assert await close_code(connection) == 1013
    assert time.monotonic() - begin < 4  # probes wait for five seconds
    own_site.redis.start()
    own_site.redis.publish(user, 2)
    async with own_site.socket(user, last) as connection:
        assert await numbers(connection, 2) == [2]


async def test_redis_that_lost_its_data_causes_a_resync(own_site: Site, user: str) -> None:
    """The data is lost while the api is disconnected, and nothing is published afterwards."""
    own_site.start()
    redis = own_site.redis
    async with own_site.socket(user) as connection:
        redis.publish(user, 1)
        assert await numbers(connection, 1) == [1]
        redis.end(signal.SIGKILL)
        for file in (own_site.folder / "appendonlydir").iterdir():
            file.unlink()
        redis.start()
        message = await receive(connection)
        assert message == {"type": "resync", "snapshot": {"last_event_id": "0-0", "batches": []}}
        redis.publish(user, 2)
        assert await numbers(connection, 2) == [2]


async def test_lost_history_causes_a_resync(site: Site, user: str) -> None:
    ids = site.redis.publish(user, 1, 2)
    async with site.socket(user) as live:
        site.redis.client.delete(stream(user))
        async with site.socket(user, ids[0]) as resumed:
            assert (await receive(resumed))["type"] == "resync"
            # The socket that was open before gets one as well, and both continue.
            assert (await receive(live))["type"] == "resync"
            site.redis.publish(user, 3)
            assert await numbers(resumed, 3) == [3]
            assert await numbers(live, 3) == [3]


async def test_rolled_back_history_causes_a_resync(site: Site, user: str) -> None:
    """Redis restarted without its last second of writes: the client knows a later event than Redis."""
    ids = site.redis.publish(user, 1, 2, 3)
    site.redis.client.xdel(stream(user), ids[2])
    async with site.socket(user, ids[2]) as connection:
        message = await receive(connection)
        assert message["type"] == "resync"
        assert message["snapshot"]["last_event_id"] == ids[1]


async def test_ten_thousand_missed_events_cause_a_resync(site: Site, user: str) -> None:
    first, *ids = site.redis.publish(user, *range(10_000))
    assert site.redis.client.xlen(stream(user)) < 1_200
    before = site.memory()
    async with site.socket(user, first) as connection:
        assert (await receive(connection))["type"] == "resync"
        site.redis.publish(user, 10_000)
        assert await numbers(connection, 10_000) == [10_000]
    async with site.socket(user, ids[-501]) as connection:
        assert await numbers(connection, 10_000) == list(range(9_500, 10_001))
    assert site.memory() - before < 32 << 20


async def test_replay_continues_from_the_snapshot(site: Site, user: str) -> None:
    """A snapshot and the events after its id never overlap and leave no gap, at any time."""
    with site.http(user) as http:
        http.post("/batches", files=[("files", (f"{n}.txt", b"Ada Lovelace")) for n in range(5)])
        for _ in range(10):
            snapshot = http.get("/batches").json()
            shown = {cv["cv_id"]: cv["progress"] for cv in snapshot["batches"][0]["cvs"]}
            async with site.socket(user, snapshot["last_event_id"]) as connection:
                while min(shown.values()) < 100:
                    event = await receive(connection)
                    if event["type"] == "cv_progress":
                        assert event["progress"] > shown[event["cv_id"]]
                        shown[event["cv_id"]] = event["progress"]
