"""The emulated DNS records: create, change, delete, batches, and what Cloudflare rejects."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.kit import emulator as kit
from tests.kit.emulator import refusal

A = {"type": "A", "name": kit.NAME, "content": "192.0.2.1", "proxied": True}
AAAA = {"type": "AAAA", "name": kit.NAME, "content": "2001:db8::1", "proxied": True}
CNAME = {"type": "CNAME", "name": kit.NAME, "content": "a.example"}


@pytest.fixture
async def records(site: kit.Site, control: httpx.AsyncClient) -> str:
    assert (await control.put("/dns", json=[A])).status_code == 200
    return f"/zones/{site.zone.id}/dns_records"


async def listed(api: httpx.AsyncClient, records: str) -> list[dict[str, Any]]:
    return (await api.get(records)).json()["result"]


async def test_a_record_is_created_changed_and_deleted(api: httpx.AsyncClient, records: str) -> None:
    created = (await api.post(records, json=AAAA)).json()["result"]
    assert (created["ttl"], created["proxiable"]) == (1, True)
    assert (await api.get(f"{records}/{created['id']}")).json()["result"] == created
    changed = (await api.patch(f"{records}/{created['id']}", json={"content": "2001:DB8::2"})).json()[
        "result"
    ]
    assert (changed["content"], changed["proxied"], changed["id"]) == ("2001:db8::2", True, created["id"])
    whole = (await api.put(f"{records}/{created['id']}", json={**AAAA, "proxied": False, "ttl": 300})).json()
    assert (whole["result"]["proxied"], whole["result"]["ttl"]) == (False, 300)
    assert (await api.delete(f"{records}/{created['id']}")).json()["result"] == {"id": created["id"]}
    assert refusal(await api.get(f"{records}/{created['id']}")) == (404, 81044)


@pytest.mark.parametrize(
    ("record", "code", "chain"),
    [
        (A, 81058, None),
        (CNAME, 81053, None),
        ({**A, "content": "192.0.2.300"}, 1004, 9005),
        ({**A, "content": "2001:db8::1"}, 1004, 9005),
        ({**AAAA, "content": "192.0.2.1"}, 1004, 9006),
        ({**A, "name": ""}, 1004, 9000),
        ({**A, "content": "192.0.2.2", "ttl": 5}, 1004, 9021),
        ({"type": "TXT", "name": kit.NAME, "content": "a", "proxied": True}, 1004, 9004),
    ],
)
async def test_an_invalid_record_is_rejected_and_changes_nothing(
    api: httpx.AsyncClient, records: str, record: object, code: int, chain: int | None
) -> None:
    before = await listed(api, records)
    answer = await api.post(records, json=record)
    assert refusal(answer) == (400, code)
    assert (answer.json()["errors"][0].get("error_chain") or [{"code": None}])[0]["code"] == chain
    assert await listed(api, records) == before


async def test_an_address_beside_a_cname_is_rejected(api: httpx.AsyncClient, records: str) -> None:
    await api.post(records, json={**CNAME, "name": f"www.{kit.NAME}"})
    assert refusal(await api.post(records, json={**A, "name": f"www.{kit.NAME}"})) == (400, 81054)


async def test_another_type_requires_a_new_record(api: httpx.AsyncClient, records: str) -> None:
    (before,) = await listed(api, records)
    for method in ("PUT", "PATCH"):
        assert refusal(await api.request(method, f"{records}/{before['id']}", json=CNAME)) == (400, 1004)
    swap = {"deletes": [{"id": before["id"]}], "posts": [CNAME]}
    done = (await api.post(f"{records}/batch", json=swap)).json()["result"]
    assert [record["id"] for record in done["deletes"]] == [before["id"]]
    assert [record["type"] for record in await listed(api, records)] == ["CNAME"]


async def test_a_batch_is_atomic(api: httpx.AsyncClient, records: str) -> None:
    (before,) = await listed(api, records)
    batch = {"deletes": [{"id": before["id"]}], "posts": [AAAA, AAAA]}
    assert refusal(await api.post(f"{records}/batch", json=batch)) == (400, 81058)
    assert await listed(api, records) == [before]
    batch = {"patches": [{"id": before["id"], "proxied": False}], "posts": [AAAA]}
    await api.post(f"{records}/batch", json=batch)
    assert [record["proxied"] for record in await listed(api, records)] == [False, True]
