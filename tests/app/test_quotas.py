"""One user can't stop the site for others: bounds of CVs and memory, turns, a batch's processor time."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection

from tests.kit.app import RedisServer, Site, close_code, make_site, receive
from tests.kit.documents import TEXT, endless_pdf, finished, slow_pdf, upload
from tests.kit.process import wait_until

BOUNDS = {"APP_USER_UNFINISHED_CVS": "100", "APP_USER_KEPT_CVS": "100"}
LETTERS = {f"{number:0200}__txt": TEXT.encode() for number in range(50)}  # with long names


def used(site: Site) -> float:
    """Return the share of Redis's memory that is in use."""
    info = site.redis.client.execute_command("INFO", "memory")
    return float(info["used_memory"] / info["maxmemory"])


def listing(site: Site, user: str, query: str = "") -> dict[str, Any]:
    with site.http(user) as http:
        return dict(http.get(f"/batches{query}").json())


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Site]:
    """A started api with a Redis of 3 MB, and a worker that is not started."""
    server = RedisServer(tmp_path, "--maxmemory", "3mb", "--maxmemory-policy", "noeviction")
    server.start()
    site = make_site(server, tmp_path, **BOUNDS)
    site.start()
    yield site
    site.worker.close()
    site.api.close()
    server.close()


def flood(site: Site, user: str, uploads: int) -> httpx.Response:
    """Upload batches until one is refused; return the refusal."""
    for _ in range(uploads):
        response = upload(site, user, **LETTERS)
        if response.status_code != 202:
            return response
    raise AssertionError(f"{uploads} uploads were accepted")


def test_one_account_can_not_fill_redis(small: Site, user: str) -> None:
    refused = flood(small, user, 60)
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) > 0
    assert "100 of your CVs" in refused.json()["detail"]
    assert len(list(small.uploads.iterdir())) == 100
    # Another account is not affected, during the flood and after it.
    other = upload(small, f"{user}-other", a__txt=TEXT.encode())
    assert other.status_code == 202, other.text
    small.worker.start()
    finished(small, f"{user}-other", other.json()["batch_id"])
    for batch in listing(small, user)["batches"]:
        assert finished(small, user, batch["batch_id"])["done"] == 50
    assert "waits for Redis" not in small.worker.log()
    assert upload(small, user, a__txt=TEXT.encode()).status_code == 202


def test_a_full_redis_refuses_uploads_and_heals(small: Site, user: str) -> None:
    """Many accounts, each within its bounds: the worker always finishes what was accepted."""
    accepted: list[tuple[str, str]] = []
    for number in range(100):
        response = upload(small, f"{user}-{number}", **LETTERS)
        if response.status_code != 202:
            break
        accepted.append((f"{user}-{number}", response.json()["batch_id"]))
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0
    assert "full" in response.json()["detail"]
    assert len(list(small.uploads.iterdir())) == 50 * len(accepted)
    small.worker.start()
    for owner, batch_id in accepted:
        assert finished(small, owner, batch_id)["done"] == 50
    assert "waits for Redis" not in small.worker.log()
    assert used(small) < 1
    assert list(small.uploads.iterdir()) == []


def test_a_batch_goes_with_its_place_in_the_list(own_site: Site, user: str) -> None:
    own_site.env |= BOUNDS
    own_site.worker.start()
    own_site.start()
    ids = []
    for _ in range(3):
        ids.append(upload(own_site, user, **LETTERS).json()["batch_id"])
        finished(own_site, user, ids[-1])
    kept = [batch["batch_id"] for batch in listing(own_site, user)["batches"]]
    assert kept == ids[:0:-1]
    redis = own_site.redis.client
    assert [redis.exists(f"batch:{batch_id}") for batch_id in ids] == [0, 1, 1]
    # Each key of a batch lives as long as the list that names it, and no longer.
    assert redis.ttl(f"batch:{kept[0]}") <= redis.ttl(f"user:{user}:batches")


def test_users_take_turns(own_site: Site, user: str) -> None:
    own_site.start()
    slow = {f"cv{number}__pdf": slow_pdf() for number in range(5)}
    first = upload(own_site, f"{user}-flood", **slow).json()["batch_id"]
    others = [upload(own_site, f"{user}-{n}", a__txt=TEXT.encode()).json()["batch_id"] for n in range(3)]
    own_site.worker.start()
    for number, batch_id in enumerate(others):
        finished(own_site, f"{user}-{number}", batch_id)
    [flood_batch] = listing(own_site, f"{user}-flood")["batches"]
    assert flood_batch["done"] <= 2, flood_batch["done"]
    assert finished(own_site, f"{user}-flood", first)["done"] == 5


def test_a_worker_that_waits_for_other_users_stops_at_once_and_loses_nothing(
    own_site: Site, user: str
) -> None:
    own_site.start()
    own_site.worker.start()
    slow = {f"cv{number}__pdf": endless_pdf(b"(Ada) Tj " * 250_000) for number in range(5)}
    batch_id = upload(own_site, user, **slow).json()["batch_id"]
    redis = own_site.redis.client
    # One thread has a CV; the other has a message, and may take no CV of the same user.
    wait_until("a CV is taken", lambda: redis.hlen("dramatiq:cvs.taken") == 1)
    assert own_site.worker.child
    own_site.worker.child.send_signal(signal.SIGTERM)
    own_site.worker.child.wait(20)
    unfinished = 5 - listing(own_site, user)["batches"][0]["done"]
    assert redis.llen("dramatiq:cvs") == unfinished >= 3
    own_site.worker.start()
    assert finished(own_site, user, batch_id)["done"] == 5


def test_a_job_from_before_the_turns_is_processed(own_site: Site, user: str) -> None:
    """An upgrade finds batches and messages that the previous release stored."""
    own_site.start()
    redis = own_site.redis.client
    letters = {f"cv{number}__txt": TEXT.encode() for number in range(6)}
    batch_id = upload(own_site, user, **letters).json()["batch_id"]
    own_site.redis.client.execute_command("HDEL", f"batch:{batch_id}", "cpu")
    redis.delete("dramatiq:cvs.turns", f"user:{user}:waiting")
    upload(own_site, f"{user}-new", a__txt=TEXT.encode())
    own_site.worker.start()
    assert finished(own_site, user, batch_id)["done"] == 6
    [other] = listing(own_site, f"{user}-new")["batches"]
    assert finished(own_site, f"{user}-new", other["batch_id"])["done"] == 1
    wait_until("no job is left", lambda: not redis.exists("dramatiq:cvs.msgs", "dramatiq:cvs.taken"))


def test_a_batch_has_a_processor_budget(own_site: Site, user: str) -> None:
    own_site.env["APP_BATCH_CPU_SECONDS"] = "1"
    own_site.start()
    own_site.worker.start()
    costly = {f"cv{number}__pdf": endless_pdf(b"(Ada) Tj " * 250_000) for number in range(3)}
    batch = finished(own_site, user, upload(own_site, user, **costly).json()["batch_id"])
    assert [cv["status"] for cv in batch["cvs"]] == ["done", "failed", "failed"]
    assert "took 1 seconds of processing" in batch["cvs"][2]["error"]
    # Another upload has its own.
    other = upload(own_site, user, a__txt=TEXT.encode()).json()["batch_id"]
    assert finished(own_site, user, other)["done"] == 1


def test_waiting_uploads_have_a_bound_on_disk(own_site: Site, user: str) -> None:
    own_site.env["APP_UPLOADS_MEGABYTES"] = "64"
    own_site.start()
    statuses = [upload(own_site, user, a__txt=b"x" * (20 << 20)).status_code for _ in range(4)]
    assert statuses == [202, 202, 202, 503]
    assert sum(path.stat().st_size for path in own_site.uploads.iterdir()) <= 64 << 20


async def test_a_user_has_a_bound_of_sockets(own_site: Site, user: str) -> None:
    own_site.env["APP_USER_SOCKETS"] = "3"
    own_site.start()
    async with contextlib.AsyncExitStack() as stack:
        kept: list[ClientConnection] = []
        for _ in range(3):
            kept.append(await stack.enter_async_context(own_site.socket(user)))
        refused = await stack.enter_async_context(own_site.socket(user))
        assert await close_code(refused) == 4429
        assert "retry in 60000 ms" in (refused.close_reason or "")
        await stack.enter_async_context(own_site.socket(f"{user}-other"))
        await kept[0].close()
        again = await stack.enter_async_context(own_site.socket(user))
        await again.send("ping")
        assert await receive(again) == {"type": "pong"}


def test_the_listing_has_pages(own_site: Site, user: str) -> None:
    own_site.start()
    ids = [upload(own_site, user, a__txt=b"Ada").json()["batch_id"] for _ in range(5)][::-1]
    page = listing(own_site, user, "?limit=2")
    assert ([batch["batch_id"] for batch in page["batches"]], page["next"]) == (ids[:2], ids[1])
    page = listing(own_site, user, f"?limit=2&before={page['next']}")
    assert ([batch["batch_id"] for batch in page["batches"]], page["next"]) == (ids[2:4], ids[3])
    page = listing(own_site, user, f"?limit=2&before={page['next']}")
    assert ([batch["batch_id"] for batch in page["batches"]], page.get("next")) == (ids[4:], None)
    assert listing(own_site, user, "?before=unknown")["batches"] == []
    with own_site.http(user) as http:
        assert {http.get(f"/batches?limit={limit}").status_code for limit in ("0", "51", "x")} == {422}


async def test_a_snapshot_has_a_bound_of_bytes(own_site: Site, user: str) -> None:
    own_site.start()
    many = {f"{number:03}{'𝕏' * 250}__txt": b"Ada" for number in range(100)}
    for _ in range(5):
        assert upload(own_site, user, **many).status_code == 202
    with own_site.http(user) as http:
        page = http.get("/batches")
        assert len(page.content) < 512 << 10
    # The rest has an address, and all of it can be read.
    seen, answer = [], page.json()
    while True:
        seen += [batch["batch_id"] for batch in answer["batches"]]
        if "next" not in answer:
            break
        answer = listing(own_site, user, f"?before={answer['next']}")
    assert len(seen) == 5 > len(page.json()["batches"])
    async with own_site.socket(user, "1-1") as connection:
        resync = await receive(connection)
    assert resync["snapshot"] == page.json()


def test_one_user_s_data_can_be_found_and_removed(own_site: Site, user: str) -> None:
    own_site.start()
    kept = upload(own_site, "kept", a__txt=TEXT.encode()).json()["batch_id"]
    for _ in range(2):
        upload(own_site, user, a__txt=TEXT.encode(), b__txt=TEXT.encode())
    redis = own_site.redis.client

    def users(*arguments: str) -> list[dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, "-m", "app.users", *arguments],
            input="".join(f"{key}\n" for key in redis.scan_iter("user:*:batches")),
            env=own_site.env, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return [json.loads(line) for line in done.stdout.splitlines()]

    top = users("top")
    assert top[0] == {"user_id": user, "cvs": 4, "unfinished": 4, "unfinished_bytes": 4 * len(TEXT)}
    assert [row["user_id"] for row in top] == [user, "kept"]
    assert users("remove", "--", user) == [{"user_id": user, "removed": 4}]
    assert not list(redis.scan_iter(f"user:{user}:*"))
    assert len(list(own_site.uploads.iterdir())) == len(list(redis.scan_iter("batch:*"))) == 1
    # The jobs that are left find nothing to do, and disturb no one.
    own_site.worker.start()
    assert finished(own_site, "kept", kept)["done"] == 1
    wait_until("no job is left", lambda: not redis.exists("dramatiq:cvs.msgs", "dramatiq:cvs.taken"))
