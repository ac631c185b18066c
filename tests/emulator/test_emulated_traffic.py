"""The emulated GraphQL analytics: which requests are counted, and which queries are refused."""

from __future__ import annotations

import datetime as dt
from typing import Any

import httpx
import pytest

from tests.kit import emulator as kit

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


def query(zone: str, hours: float = 24) -> dict[str, Any]:
    end = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=1)
    times = {"start": end - dt.timedelta(hours=hours), "end": end}
    return {
        "query": QUERY,
        "variables": {"zone": zone, **{key: time.isoformat() for key, time in times.items()}},
    }


async def test_upgrades_are_counted_by_hour_once_their_socket_is_closed(
    site: kit.Site, api: httpx.AsyncClient
) -> None:
    async def counted() -> list[dict[str, Any]]:
        answer = (await api.post("/graphql", json=query(site.zone.id))).json()
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


async def test_requests_are_summed_by_hour(
    site: kit.Site, api: httpx.AsyncClient, control: httpx.AsyncClient
) -> None:
    hour = dt.datetime.now(dt.UTC).replace(minute=0, second=0, microsecond=0)
    records = [
        {"time": (hour - dt.timedelta(hours=back, minutes=10)).isoformat(), "status": status, "count": count}
        for back, status, count in ((2, 101, 3), (2, 101, 4), (1, 101, 5), (1, 200, 9), (30, 101, 8))
    ]
    assert (await control.put("/traffic", json=records)).status_code == 200
    answer = (await api.post("/graphql", json=query(site.zone.id))).json()
    groups = answer["data"]["viewer"]["zones"][0]["httpRequestsAdaptiveGroups"]
    assert [group["count"] for group in groups] == [7, 5]


@pytest.mark.parametrize(
    ("change", "permissions", "message"),
    [
        ({"zone": "0" * 32}, None, "not authorized"),
        ({}, ["Zone Read"], "not authorized"),
        ({"start": "2026-01-01T00:00:00Z"}, None, "wider than"),
        ({"start": None}, None, "null"),
    ],
)
async def test_a_rejected_query_is_an_error_in_a_response_with_status_200(
    site: kit.Site,
    api: httpx.AsyncClient,
    control: httpx.AsyncClient,
    change: dict[str, Any],
    permissions: list[str] | None,
    message: str,
) -> None:
    if permissions:
        await control.put("/token", json={"permissions": permissions})
    body = query(site.zone.id)
    body["variables"] |= change
    answer = await api.post("/graphql", json=body)
    assert (answer.status_code, answer.json()["data"]) == (200, None)
    assert message in answer.json()["errors"][0]["message"]
