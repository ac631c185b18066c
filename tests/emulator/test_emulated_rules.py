"""The edge obeys the rules that it stores, and counts what it answered."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from emulator.rulesets import CACHE, COMPRESSION, CONFIG
from tests.kit import emulator as kit
from tests.kit.emulator import refusal

ACTIONS = {CACHE: "set_cache_settings", CONFIG: "set_config", COMPRESSION: "compress_response"}
TEXT = b"a line of text that is long enough to be compressed\n" * 20


@pytest.fixture
async def asked(site: kit.Site) -> AsyncIterator[list[str]]:
    """An origin that answers by the path's ending; the paths that it was asked for."""
    paths: list[str] = []
    kinds = {"js": "text/javascript", "png": "image/png", "html": "text/html", "json": "application/json"}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = head.split()[1]
        paths.append(path)
        kind = kinds.get(path.partition("?")[0].rpartition(".")[2], "text/plain")
        body = kit.PAGE if kind == "text/html" else TEXT
        private = "Cache-Control: private\r\n" if "private" in path else ""
        status = path[1:] if path[1:].isdecimal() else 200
        start = (
            f"HTTP/1.1 {status} OK\r\nContent-Type: {kind}\r\n{private}Content-Length: {len(body)}\r\n\r\n"
        )
        writer.write(start.encode() + body)
        await writer.drain()

    async with kit.raw_origin(answer) as port:
        site.origin(http=port)
        yield paths


async def rules(site: kit.Site, phase: str, *made: tuple[str, dict[str, Any]]) -> None:
    """Let a phase have these rules: expression and parameters."""
    async with site.client() as client:
        entry = f"/client/v4/zones/{site.zone.id}/rulesets/phases/{phase}/entrypoint"
        body = [{"expression": e, "action": ACTIONS[phase], "action_parameters": p} for e, p in made]
        answer = await client.put(entry, json={"rules": body})
        assert answer.status_code == 200, answer.text


async def statuses(site: kit.Site, path: str) -> list[str]:
    return [(await site.get(path, "http")).headers["cf-cache-status"] for _ in range(2)]


async def test_static_files_are_cached_and_pages_are_not(site: kit.Site, asked: list[str]) -> None:
    assert await statuses(site, "/app.js") == ["MISS", "HIT"]
    assert await statuses(site, "/api/x") == ["DYNAMIC", "DYNAMIC"]
    assert await statuses(site, "/private.js") == ["BYPASS", "BYPASS"]
    assert asked.count("/app.js") == 1


async def test_an_answer_from_the_cache_leaves_the_connection_open(site: kit.Site, asked: list[str]) -> None:
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{site.http}", headers={"host": kit.NAME}
    ) as client:
        answers = [await client.get("/app.js") for _ in range(3)]
        ports = {answer.extensions["network_stream"].get_extra_info("client_addr") for answer in answers}
    assert [answer.headers["cf-cache-status"] for answer in answers] == ["MISS", "HIT", "HIT"]
    assert len(ports) == 1


async def test_a_cache_rule_keeps_its_path_from_the_cache(site: kit.Site, asked: list[str]) -> None:
    await rules(site, CACHE, ('starts_with(http.request.uri.path, "/ws/")', {"cache": False}))
    assert await statuses(site, "/ws/app.js") == ["DYNAMIC", "DYNAMIC"]
    assert await statuses(site, "/app.js") == ["MISS", "HIT"]


async def test_a_cache_rule_makes_a_path_cached_for_as_long_as_it_says(
    site: kit.Site, asked: list[str]
) -> None:
    ttl = {"edge_ttl": {"mode": "override_origin", "default": 1}}
    await rules(site, CACHE, (f'http.host eq "{kit.NAME}"', {"cache": True, **ttl}))
    assert await statuses(site, "/private.json") == ["MISS", "HIT"]
    await asyncio.sleep(1.1)
    assert await statuses(site, "/private.json") == ["EXPIRED", "HIT"]


async def test_of_what_went_wrong_only_the_missing_is_cached(site: kit.Site, asked: list[str]) -> None:
    await rules(site, CACHE, (f'http.host eq "{kit.NAME}"', {"cache": True}))
    assert await statuses(site, "/404") == ["MISS", "HIT"]
    assert await statuses(site, "/403") == ["BYPASS", "BYPASS"]


async def test_a_disabled_rule_is_not_obeyed(site: kit.Site, asked: list[str]) -> None:
    await rules(site, CACHE, ("true", {"cache": False}))
    site.zone.rulesets.all[0]["rules"][0]["enabled"] = False
    assert await statuses(site, "/app.js") == ["MISS", "HIT"]


async def test_a_configuration_rule_turns_rocket_loader_off_on_its_path(
    site: kit.Site, asked: list[str]
) -> None:
    site.zone.put_settings({"rocket_loader": "on"})
    await rules(site, CONFIG, ('starts_with(http.request.uri.path, "/plain/")', {"rocket_loader": False}))
    assert (await site.get("/plain/page.html", "http")).content == kit.PAGE
    assert b"rocket-loader" in (await site.get("/page.html", "http")).content


async def test_a_configuration_rule_turns_polish_off_on_its_path(site: kit.Site, asked: list[str]) -> None:
    site.zone.put_settings({"polish": "lossy"})
    await rules(site, CONFIG, ('starts_with(http.request.uri.path, "/raw/")', {"polish": "off"}))
    assert (await site.get("/a.png", "http")).headers["cf-polished"] == "status=not_needed"
    assert "cf-polished" not in (await site.get("/raw/a.png", "http")).headers


async def test_a_compression_rule_leaves_its_path_uncompressed(site: kit.Site, asked: list[str]) -> None:
    await rules(
        site, COMPRESSION, ('starts_with(http.request.uri.path, "/ws/")', {"algorithms": [{"name": "none"}]})
    )
    for path, encoding in (("/api/x", "gzip"), ("/ws/x", None)):
        answer = await site.get(path, "http", headers={"accept-encoding": "br, gzip"})
        assert (answer.headers.get("content-encoding"), answer.content) == (encoding, TEXT)
    plain = await site.get("/api/x", "http", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert "content-encoding" not in (await site.get("/a.png", "http")).headers


async def test_an_answer_that_the_origin_compressed_is_opened_where_a_rule_wants_it(site: kit.Site) -> None:
    with kit.origin() as http:
        site.origin(http=http)
        await rules(site, COMPRESSION, ("http.response.code eq 200", {"algorithms": [{"name": "none"}]}))
        answer = await site.get("/page?gz", "http")
    assert ("content-encoding" in answer.headers, answer.content) == (False, kit.PAGE)


# --- plans, entitlements, traffic


async def test_argo_is_refused_on_the_free_plan(
    site: kit.Site, api: httpx.AsyncClient, control: httpx.AsyncClient
) -> None:
    path = f"/zones/{site.zone.id}/argo/smart_routing"
    assert refusal(await api.get(path)) == (401, 1015)
    assert refusal(await api.patch(path, json={"value": "on"})) == (401, 1015)
    await control.put("/plan", json={"plan": "pro"})
    assert (await api.get(path)).json()["result"]["value"] == "off"
    assert (await api.patch(path, json={"value": "on"})).json()["result"]["value"] == "on"
    assert refusal(await api.patch(path, json={"value": "yes"})) == (400, 1007)


QUERY = """
query ($zone: string!, $start: Time!, $end: Time!) {
  viewer { zones(filter: {zoneTag: $zone}) {
    httpRequestsAdaptiveGroups(
      limit: 100, orderBy: [datetimeHour_ASC],
      filter: {datetime_geq: $start, datetime_lt: $end, edgeResponseStatus: 101}
    ) { count dimensions { datetimeHour } }
  } }
}
"""


def asking(zone: str, hours: float = 24) -> dict[str, Any]:
    end = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=1)
    times = {"start": end - dt.timedelta(hours=hours), "end": end}
    return {
        "query": QUERY,
        "variables": {"zone": zone, **{key: time.isoformat() for key, time in times.items()}},
    }


async def test_upgrades_are_counted_by_hour_once_their_socket_has_closed(
    site: kit.Site, api: httpx.AsyncClient
) -> None:
    async def counted() -> list[dict[str, Any]]:
        answer = (await api.post("/graphql", json=asking(site.zone.id))).json()
        assert answer["errors"] is None
        return answer["data"]["viewer"]["zones"][0]["httpRequestsAdaptiveGroups"]

    with kit.origin() as http:
        site.origin(http=http)
        await site.get("/headers")
        async with site.websocket() as socket:
            await socket.send("hello")
            assert await socket.recv() == "hello"
            assert await counted() == []
        await site.closed()
        (group,) = await counted()
    assert group["count"] == 1
    assert group["dimensions"]["datetimeHour"].endswith(":00:00Z")


async def test_what_a_day_held_is_added_up_by_hour(
    site: kit.Site, api: httpx.AsyncClient, control: httpx.AsyncClient
) -> None:
    hour = dt.datetime.now(dt.UTC).replace(minute=0, second=0, microsecond=0)
    seen = [
        {"time": (hour - dt.timedelta(hours=back, minutes=10)).isoformat(), "status": status, "count": count}
        for back, status, count in ((2, 101, 3), (2, 101, 4), (1, 101, 5), (1, 200, 9), (30, 101, 8))
    ]
    assert (await control.put("/traffic", json=seen)).status_code == 200
    answer = (await api.post("/graphql", json=asking(site.zone.id))).json()
    groups = answer["data"]["viewer"]["zones"][0]["httpRequestsAdaptiveGroups"]
    assert [group["count"] for group in groups] == [7, 5]


@pytest.mark.parametrize(
    ("change", "permissions", "says"),
    [
        ({"zone": "0" * 32}, None, "not authorized"),
        ({}, ["Zone Read"], "not authorized"),
        ({"start": "2026-01-01T00:00:00Z"}, None, "wider than"),
        ({"start": None}, None, "null"),
    ],
)
async def test_a_wrong_query_is_an_error_in_an_answer_200(
    site: kit.Site,
    api: httpx.AsyncClient,
    control: httpx.AsyncClient,
    change: dict[str, Any],
    permissions: list[str] | None,
    says: str,
) -> None:
    if permissions:
        await control.put("/token", json={"permissions": permissions})
    body = asking(site.zone.id)
    body["variables"] |= change
    answer = await api.post("/graphql", json=body)
    assert (answer.status_code, answer.json()["data"]) == (200, None)
    assert says in answer.json()["errors"][0]["message"]
