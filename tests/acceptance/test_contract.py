"""The contract (docs/contract.md) from outside, for the reference backend or your own.

    SITE_URL=https://screen-flow.example.com SITE_SESSION=eyJ… pytest tests/acceptance

SITE_URL          the site, as a browser's address bar shows it
SITE_SESSION      the value of a signed-in user's session cookie; not needed with the demo's sign-in.
                  Use a test account: a few batches are left behind.
EDGE_CA_FILE      certificates to trust instead of the system's
ORIGIN_CONTAINER  the demo's server; without it the tests that publish are skipped
"""

import asyncio
import contextlib
import json
import time
from http.client import HTTPConnection, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.kit.site import BATCHES, COOKIE, CV, Demo, SiteClient

BATCH = {"batch_id", "created_at", "status", "total", "done", "failed", "progress"}
OTHER_TYPES = {"pong", "heartbeat"}  # messages that are not events


async def receive(connection: ClientConnection, seconds: float = 30) -> dict[str, Any]:
    """Return the next message that is neither a pong nor a heartbeat."""
    async with asyncio.timeout(seconds):
        while True:
            message = json.loads(await connection.recv(decode=True))
            if message["type"] not in OTHER_TYPES:
                return dict(message)


async def until_done(connection: ClientConnection, batch_id: str) -> list[dict[str, Any]]:
    """Return the events up to the one that ends the batch."""
    events: list[dict[str, Any]] = []
    while True:
        events.append(await receive(connection))
        last = events[-1]
        if (last["type"], last.get("batch_id"), last.get("status")) == ("batch_progress", batch_id, "done"):
            return events


async def end(connection: ClientConnection, seconds: float = 30) -> tuple[int | None, list[dict[str, Any]]]:
    """Return the code that the server closes with, and the events before it."""
    events = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            events.append(await receive(connection, seconds))
    return connection.close_code, events


def error_detail(response: httpx.Response, status: int) -> str:
    """Return the message of an error response, which must have this status and be a sentence."""
    assert response.status_code == status, f"{response.status_code} {response.headers}\n{response.text[:500]}"
    detail = response.json()["detail"]
    assert isinstance(detail, str)
    assert " " in detail
    return detail


# HTTP


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health(site: SiteClient, path: str) -> None:
    with site.http("") as http:
        assert http.get(path).status_code == 200


def test_the_session_has_the_user_s_id(site: SiteClient) -> None:
    with site.http() as http:
        session = http.get("/api/v1/session").json()
    assert session.keys() == {"user_id", "demo_sign_in"}
    assert session["user_id"] == site.user


@pytest.mark.parametrize("session", ["", "x.y.z", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZGEifQ."])
def test_without_a_session_everything_is_401(site: SiteClient, session: str) -> None:
    with site.http(session) as http:
        response = http.get("/api/v1/session")
        error_detail(response, 401)
        assert isinstance(response.json()["demo_sign_in"], bool)
        error_detail(http.get(BATCHES), 401)
        error_detail(http.post(BATCHES, files=[("files", ("ada.txt", CV))]), 401)


def test_only_the_demo_has_a_sign_in(site: SiteClient) -> None:
    with site.http("") as http:
        demo = http.get("/api/v1/session").json()["demo_sign_in"]
        response = http.post("/api/v1/session", json={"user_id": "acceptance"})
        if not demo:
            error_detail(response, 404)
            return
        assert response.status_code == 204
        name, *attributes = response.headers["set-cookie"].split("; ")
        assert name.startswith(f"{COOKIE}=")
        assert {"HttpOnly", "Secure", "Path=/"} <= set(attributes)
        assert {attribute.lower() for attribute in attributes} & {"samesite=lax", "samesite=strict"}


def test_signing_out_expires_the_cookie(site: SiteClient) -> None:
    with site.http() as http:
        response = http.delete("/api/v1/session")
    assert response.status_code == 204
    assert f"{COOKIE}=" in response.headers["set-cookie"]
    assert "max-age=0" in response.headers["set-cookie"].lower()


def test_a_request_from_another_origin_is_refused(site: SiteClient) -> None:
    with site.http(Origin="https://evil.example") as http:
        error_detail(http.post(BATCHES, files=[("files", ("ada.txt", CV))]), 403)


def test_the_newest_batch_is_listed_first(site: SiteClient) -> None:
    first, second = site.upload("first.txt"), site.upload("second.txt", "third.txt")
    assert second.keys() == BATCH | {"cvs"}
    assert [cv["filename"] for cv in second["cvs"]] == ["second.txt", "third.txt"]
    snapshot = site.snapshot()
    assert snapshot.keys() == {"last_event_id", "batches"}
    listed = [batch["batch_id"] for batch in snapshot["batches"]]
    assert listed[:2] == [second["batch_id"], first["batch_id"]]
    with site.http() as http:
        one = http.get(f"{BATCHES}/{first['batch_id']}").json()
        assert (one["batch_id"], one["total"]) == (first["batch_id"], 1)
        error_detail(http.get(f"{BATCHES}/none"), 404)


def test_files_that_are_not_cvs_are_named_and_nothing_is_stored(site: SiteClient) -> None:
    before = site.snapshot()["batches"]
    files = [
        ("photo.png", b"\x89PNG\r\n\x1a\n" + bytes(100)),
        ("ada.txt", CV),
        ("song.mp3", b"ID3" + bytes(99)),
    ]
    with site.http() as http:
        response = http.post(BATCHES, files=[("files", file) for file in files])
    assert 400 <= response.status_code < 500
    detail = error_detail(response, response.status_code)
    assert "photo.png" in detail
    assert "song.mp3" in detail
    assert "ada.txt" not in detail
    assert [batch["batch_id"] for batch in site.snapshot()["batches"]] == [b["batch_id"] for b in before]


def test_body_over_50_mb_is_413(site: SiteClient) -> None:
    """Decided by Content-Length alone, since a proxy may buffer the whole body first."""
    server = urlsplit(site.url)
    assert server.hostname
    connection = (
        HTTPSConnection(server.hostname, server.port, context=site.tls, timeout=60)
        if server.scheme == "https"
        else HTTPConnection(server.hostname, server.port, timeout=60)
    )
    connection.putrequest("POST", BATCHES)
    for name, value in {
        "Cookie": f"{COOKIE}={site.session}",
        "Origin": site.url,
        "Content-Type": "multipart/form-data; boundary=b",
        "Content-Length": str((50 << 20) + 1),
    }.items():
        connection.putheader(name, value)
    connection.endheaders()
    try:
        assert connection.getresponse().status == 413
    finally:
        connection.close()


# WebSocket


async def test_ping_is_answered(site: SiteClient) -> None:
    site.wait_until_idle()
    async with site.socket() as connection:
        await connection.send("ping")
        async with asyncio.timeout(10):
            assert json.loads(await connection.recv()) == {"type": "pong"}


async def test_a_heartbeat_comes_without_a_message(site: SiteClient) -> None:
    """30 s after the client's last message or, where the site is set so, sooner: before the edge closes."""
    site.wait_until_idle()
    begin = time.monotonic()
    async with site.socket() as connection:
        async with asyncio.timeout(40):
            assert json.loads(await connection.recv()) == {"type": "heartbeat"}
        assert time.monotonic() - begin > 5


async def test_progress_arrives_live_on_every_socket(site: SiteClient) -> None:
    async with site.socket() as one, site.socket() as other:
        batch = site.upload("ada.txt", "grace.txt")
        events, again = await asyncio.gather(*(until_done(ws, batch["batch_id"]) for ws in (one, other)))
    assert events == again
    assert {event["type"] for event in events} == {"cv_progress", "batch_progress"}
    for event in events:
        assert {"id", "type", "time"} <= event.keys()
        assert isinstance(event["id"], str)
        assert "previous_id" not in event
    assert len({event["id"] for event in events}) == len(events)
    ended = {
        event["filename"]: event for event in events if event.get("progress") == 100 and "cv_id" in event
    }
    assert ended.keys() == {"ada.txt", "grace.txt"}
    assert ended["ada.txt"]["result"]["email"] == "ada@example.com"
    assert (events[-1]["total"], events[-1]["done"], events[-1]["failed"]) == (2, 2, 0)
    shown = next(b for b in site.snapshot()["batches"] if b["batch_id"] == batch["batch_id"])
    assert {name: events[-1][name] for name in BATCH} == {name: shown[name] for name in BATCH}


async def test_missed_events_arrive_in_order_and_once(site: SiteClient) -> None:
    before = site.snapshot()["last_event_id"]
    async with site.socket(before) as connection:
        batch = site.upload("ada.txt", "grace.txt")
        events = await until_done(connection, batch["batch_id"])
    for last, missed in [(before, events), (events[2]["id"], events[3:])]:
        async with site.socket(last) as connection:
            assert await until_done(connection, batch["batch_id"]) == missed
    async with site.socket(events[-1]["id"]) as connection:
        await connection.send("ping")
        async with asyncio.timeout(10):
            assert json.loads(await connection.recv()) == {"type": "pong"}, "an event arrived twice"


async def test_without_a_last_id_only_live_events_arrive(site: SiteClient) -> None:
    async with site.socket(site.snapshot()["last_event_id"]) as connection:
        await until_done(connection, site.upload("before.txt")["batch_id"])
    async with site.socket() as connection:
        batch = site.upload("after.txt")
        events = await until_done(connection, batch["batch_id"])
    assert {event["batch_id"] for event in events} == {batch["batch_id"]}


@pytest.mark.parametrize("last", ["", "x", "$", "1-1-1", "-", "99999999999999999999999999", "%00", "1%0A1"])
async def test_malformed_last_id(site: SiteClient, last: str) -> None:
    async with site.socket(last) as connection:
        assert await end(connection) == (4400, [])


@pytest.mark.parametrize("session", ["", "x.y.z", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZGEifQ."])
async def test_no_session(site: SiteClient, session: str) -> None:
    async with site.socket(session=session) as connection:
        assert await end(connection) == (4401, [])


@pytest.mark.parametrize("user", ["nobody-known", "*", "%20"])
async def test_another_user_or_one_that_does_not_exist(site: SiteClient, user: str) -> None:
    async with site.socket(user=user) as connection:
        assert await end(connection) == (4403, [])


@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
async def test_foreign_origin(site: SiteClient, origin: str) -> None:
    """nginx refuses it before the backend where it has the site's origins."""
    try:
        async with site.socket(origin=origin) as connection:
            assert await end(connection) == (4403, [])
    except InvalidStatus as refused:
        assert refused.response.status_code == 403


async def test_binary_frame(site: SiteClient) -> None:
    async with site.socket() as connection:
        await connection.send(b"ping")
        assert await end(connection) == (1003, [])


async def test_frame_over_64_kib(site: SiteClient) -> None:
    async with site.socket(compression=None) as connection:
        await connection.send("x" * 65_536)
        await connection.send("ping")
        async with asyncio.timeout(10):
            assert json.loads(await connection.recv()) == {"type": "pong"}
        await connection.send("x" * 65_537)
        assert await end(connection) == (1009, [])


@pytest.mark.parametrize("kind", ["text", "ping"])
async def test_flood(site: SiteClient, kind: str) -> None:
    async with site.socket() as connection:
        with contextlib.suppress(ConnectionClosed):
            for number in range(1_000):
                await (connection.send("ping") if kind == "text" else connection.ping(str(number)))
        assert await end(connection) == (4429, [])


# What only the demo's server can cause


async def test_the_redis_channel_has_the_same_events_with_their_predecessors(
    site: SiteClient, demo: Demo
) -> None:
    before = site.snapshot()["last_event_id"]
    async with site.socket(before) as connection:
        with demo.subscribed(site.user) as messages:
            batch = site.upload("ada.txt")
            events = await until_done(connection, batch["batch_id"])
    shown = [json.loads(message) for message in messages]
    assert [message.pop("previous_id") for message in shown] == [before, *(e["id"] for e in events[:-1])]
    assert shown == events


async def test_a_last_id_older_than_the_history_gets_a_resync(site: SiteClient, demo: Demo) -> None:
    last = site.snapshot()["last_event_id"]
    with demo.publishing(site.user, 10_000, per_second=1e6) as publisher:
        publisher.wait(60)
    async with site.socket(last) as connection:
        message = await receive(connection)
        assert message.keys() == {"type", "snapshot"}
        assert message["type"] == "resync"
        assert message["snapshot"] == site.snapshot()
        batch = site.upload("ada.txt")
        events = await until_done(connection, batch["batch_id"])
    assert {event["batch_id"] for event in events} == {batch["batch_id"]}
