"""The emulated API: tokens, zones, settings, plans, address ranges, and the control API."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from emulator.zone import Fresh, Zone
from tests.kit import emulator as kit
from tests.kit.emulator import refusal

UNKNOWN = "x" * 40
SSL = "/settings/ssl"


# --- tokens


@pytest.mark.parametrize(
    ("header", "verify", "zone", "dns"),
    [
        (None, (400, 1001), (400, 9106), (400, 9106)),
        ("Bearer short", (400, 6003), (400, 6003), (400, 6003)),
        (f"Basic {kit.TOKEN}", (400, 6003), (400, 6003), (400, 6003)),
        (f"Bearer {UNKNOWN}", (401, 1000), (403, 9109), (401, 10000)),
    ],
)
async def test_an_invalid_token_is_rejected_as_each_service_does(
    site: kit.Site,
    api: httpx.AsyncClient,
    header: str | None,
    verify: tuple[int, int],
    zone: tuple[int, int],
    dns: tuple[int, int],
) -> None:
    del api.headers["authorization"]
    headers = {"authorization": header} if header else {}
    path = f"/zones/{site.zone.id}"
    assert refusal(await api.get("/user/tokens/verify", headers=headers)) == verify
    assert refusal(await api.get("/zones", headers=headers)) == zone
    assert refusal(await api.get(path + SSL, headers=headers)) == zone
    assert refusal(await api.patch(path + SSL, json={"value": "full"}, headers=headers)) == zone
    assert refusal(await api.get(f"{path}/dns_records", headers=headers)) == dns
    assert (await api.get("/ips", headers=headers)).status_code == 200
    assert site.zone.value("ssl") == "flexible"


async def test_global_api_key_headers_are_rejected(api: httpx.AsyncClient) -> None:
    del api.headers["authorization"]
    answer = await api.get("/zones", headers={"x-auth-email": "someone@example.com"})
    assert refusal(answer) == (400, 6003)
    assert answer.json()["errors"][0]["error_chain"][0]["code"] == 6103


@pytest.mark.parametrize("status", ["expired", "disabled"])
async def test_an_inactive_token_shows_its_status_when_verified_and_is_rejected_otherwise(
    api: httpx.AsyncClient, control: httpx.AsyncClient, status: str
) -> None:
    assert (await api.get("/user/tokens/verify")).json()["result"]["status"] == "active"
    await control.put("/token", json={"status": status})
    assert (await api.get("/user/tokens/verify")).json()["result"]["status"] == status
    assert refusal(await api.get("/zones")) == (403, 9109)
    await control.post("/reset")
    assert (await api.get("/zones")).status_code == 200


# --- zones


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 1),
        (f"?name={kit.NAME}", 1),
        (f"?name={kit.NAME.upper()}", 1),
        ("?name=example.com", 0),
        ("?name=contains:flow", 1),
        ("?name=starts_with:flow", 0),
        ("?name=no_such_operator:flow", 0),
        ("?status=pending", 0),
        (f"?account.id={'0' * 32}", 0),
        ("?page=2", 0),
    ],
)
async def test_the_zone_list_is_filtered(api: httpx.AsyncClient, query: str, count: int) -> None:
    answer = (await api.get(f"/zones{query}")).json()
    assert len(answer["result"]) == answer["result_info"]["count"] == count


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", f"/zones/{'0' * 32}", (404, 7003)),
        ("GET", f"/zones/{'0' * 32}{SSL}", (404, 7003)),
        ("GET", f"/zones/{kit.NAME}{SSL}", (404, 7003)),
        ("GET", "/zones//settings/ssl", (404, 7003)),
        ("GET", "/nowhere", (404, 7000)),
        ("DELETE", "/zones", (405, 10405)),
        ("GET", "/zones?page=x", (400, 6003)),
    ],
)
async def test_unknown_paths_and_parameters_are_rejected(
    api: httpx.AsyncClient, method: str, path: str, expected: tuple[int, int]
) -> None:
    assert refusal(await api.request(method, path)) == expected


# --- settings


async def test_a_setting_is_read_and_changed(site: kit.Site, api: httpx.AsyncClient, tmp_path: Path) -> None:
    path = f"/zones/{site.zone.id}/settings/min_tls_version"
    before = (await api.get(path)).json()["result"]
    assert before == {"id": "min_tls_version", "value": "1.0", "editable": True, "modified_on": None}
    changed = (await api.patch(path, json={"value": "1.2"})).json()["result"]
    assert (changed["value"], changed["modified_on"][:2]) == ("1.2", "20")
    assert (await api.get(path)).json()["result"] == changed
    again = Zone(tmp_path / "zone.json", Fresh(kit.NAME))
    assert (again.id, again.setting("min_tls_version")) == (site.zone.id, changed)


INVALID_CHANGES = {
    1006: [("brotli", '{"value": "on"}')],
    1007: [
        *(("ssl", body) for body in ('{"value": "Full"}', '{"value": true}', "{}", "[]")),
        *(("browser_cache_ttl", body) for body in ('{"value": -1}', '{"value": true}')),
    ],
    1008: [("ssl_automatic_mode", '{"value": "manual"}')],
    1024: [("orange_to_orange", '{"value": "on"}')],
    1025: [("true_client_ip_header", '{"value": "on"}')],
    1057: [("polish", '{"value": "lossy"}')],
    6007: [("ssl", "value=full")],
}


@pytest.mark.parametrize(
    ("code", "setting", "body"),
    [(code, *change) for code, changes in INVALID_CHANGES.items() for change in changes],
)
async def test_an_invalid_change_is_rejected_and_changes_nothing(
    site: kit.Site, api: httpx.AsyncClient, code: int, setting: str, body: str
) -> None:
    path = f"/zones/{site.zone.id}/settings/{setting}"
    before = (await api.get(path)).json()
    assert refusal(await api.patch(path, content=body)) == (400, code)
    assert (await api.get(path)).json() == before


async def test_the_plan_decides_what_is_editable(
    site: kit.Site, api: httpx.AsyncClient, control: httpx.AsyncClient
) -> None:
    path = f"/zones/{site.zone.id}/settings/polish"
    assert (await api.get(path)).json()["result"]["editable"] is False
    await control.put("/plan", json={"plan": "pro"})
    assert (await api.get(path)).json()["result"]["editable"] is True
    assert (await api.patch(path, json={"value": "lossy"})).json()["result"]["value"] == "lossy"
    assert (await api.get(f"/zones/{site.zone.id}")).json()["result"]["plan"]["legacy_id"] == "pro"


async def test_a_setting_can_be_made_read_only(
    site: kit.Site, api: httpx.AsyncClient, control: httpx.AsyncClient
) -> None:
    await control.patch("/settings", json={"websockets": {"value": "off", "editable": False}})
    path = f"/zones/{site.zone.id}/settings/websockets"
    assert (await api.get(path)).json()["result"]["editable"] is False
    assert refusal(await api.patch(path, json={"value": "on"})) == (400, 1057)


async def test_automatic_ssl_can_be_pinned(site: kit.Site, api: httpx.AsyncClient) -> None:
    path = f"/zones/{site.zone.id}/settings/ssl_automatic_mode"
    assert (await api.get(path)).json()["result"]["value"] == "auto"
    assert (await api.patch(path, json={"value": "custom"})).json()["result"]["value"] == "custom"


async def test_argo_is_rejected_on_the_free_plan(
    site: kit.Site, api: httpx.AsyncClient, control: httpx.AsyncClient
) -> None:
    path = f"/zones/{site.zone.id}/argo/smart_routing"
    assert refusal(await api.get(path)) == (401, 1015)
    assert refusal(await api.patch(path, json={"value": "on"})) == (401, 1015)
    await control.put("/plan", json={"plan": "pro"})
    assert (await api.get(path)).json()["result"]["value"] == "off"
    assert (await api.patch(path, json={"value": "on"})).json()["result"]["value"] == "on"
    assert refusal(await api.patch(path, json={"value": "yes"})) == (400, 1007)


# --- DNS and address ranges


async def test_dns_records_are_listed_and_filtered(
    site: kit.Site, api: httpx.AsyncClient, control: httpx.AsyncClient
) -> None:
    path = f"/zones/{site.zone.id}/dns_records"
    (seeded,) = (await api.get(path)).json()["result"]
    assert (seeded["type"], seeded["name"], seeded["content"]) == ("A", kit.NAME, "127.0.0.1")
    records = [
        {"type": "A", "name": kit.NAME, "content": "192.0.2.1"},
        {"type": "AAAA", "name": kit.NAME, "content": "2001:db8::1"},
        {"type": "CNAME", "name": f"www.{kit.NAME}", "content": kit.NAME, "proxied": False},
    ]
    assert (await control.put("/dns", json=records)).status_code == 200
    for query, count in [("", 3), (f"?name={kit.NAME}", 2), ("?type=A", 1), ("?proxied=false", 1)]:
        assert len((await api.get(path + query)).json()["result"]) == count


async def test_address_ranges_default_to_the_edges_own_and_have_an_etag(
    api: httpx.AsyncClient, control: httpx.AsyncClient
) -> None:
    del api.headers["authorization"]
    own = (await api.get("/ips")).json()["result"]
    # The origin is at 127.0.0.1, so the edge connects from there.
    assert "127.0.0.1/32" in own["ipv4_cidrs"]
    assert all(cidr.endswith("/32") for cidr in own["ipv4_cidrs"])
    assert re.fullmatch("[0-9a-f]{32}", own["etag"])
    await control.put("/ranges", json=["192.0.2.0/24", "2001:db8::/32"])
    configured = (await api.get("/ips")).json()["result"]
    assert (configured["ipv4_cidrs"], configured["ipv6_cidrs"]) == (["192.0.2.0/24"], ["2001:db8::/32"])
    assert configured["etag"] != own["etag"]
    await control.put("/ranges", json=[])
    assert (await api.get("/ips")).json()["result"] == own


# --- the control API


async def test_the_journal_has_each_request_and_never_the_token(
    site: kit.Site, api: httpx.AsyncClient, control: httpx.AsyncClient
) -> None:
    path = f"/zones/{site.zone.id}{SSL}"
    await api.patch(path, json={"value": "full", "leak": kit.TOKEN})
    await api.get(f"/zones?name={kit.TOKEN}")
    await api.get(f"/{kit.TOKEN}")
    answer = await control.get("/journal")
    assert [(e["method"], e["path"], e["query"], e["body"], e["status"]) for e in answer.json()] == [
        ("PATCH", f"/client/v4{path}", {}, {"value": "full", "leak": "[token]"}, 200),
        ("GET", "/client/v4/zones", {"name": "[token]"}, None, 200),
        ("GET", "/client/v4/[token]", {}, None, 404),
    ]
    assert kit.TOKEN not in answer.text + (await control.get("/state")).text
    assert (await control.delete("/journal")).status_code == 204
    assert (await control.get("/journal")).json() == []


async def test_a_fault_replaces_as_many_responses_as_it_specifies(
    api: httpx.AsyncClient, control: httpx.AsyncClient
) -> None:
    limited = {
        "path": "^/zones$",
        "status": 429,
        "headers": {"retry-after": "1"},
        "body": {"a": 1},
        "times": 2,
    }
    html = {"method": "GET", "path": "verify", "status": 200, "body": "<html>"}
    assert (await control.put("/faults", json=[limited, html])).status_code == 200
    statuses = [(await api.get("/zones")).status_code for _ in range(3)]
    assert statuses == [429, 429, 200]
    assert (await api.get("/user/tokens/verify")).text == "<html>"
    assert (await api.get("/user/tokens/verify")).json()["success"] is True


@pytest.mark.parametrize(
    ("method", "path", "body", "message"),
    [
        (
            "PATCH",
            "/settings",
            {"ssl": "fulll"},
            "'ssl' takes one of off, flexible, full, strict, not 'fulll'",
        ),
        ("PATCH", "/settings", {"ssl": "full", "brotli": "on"}, "setting 'brotli' is unknown"),
        ("PATCH", "/settings", {"proxy_read_timeout": "long"}, "a number from 0.05 to 6000, not 'long'"),
        ("PATCH", "/settings", {"ssl": {"editable": "no"}}, "editable must be true or false, not 'no'"),
        ("PATCH", "/settings", [], "the body must be an object"),
        ("PUT", "/plan", {"plan": "gold"}, "plan 'gold' is unknown; known: free"),
        ("PUT", "/plan", {"name": "pro"}, 'the body must be {"plan": …}'),
        ("PUT", "/token", {"status": "lost"}, "not one of active, disabled, expired"),
        ("PUT", "/token", {"permissions": ["DNS Edit"]}, "'DNS Edit' is unknown; known:"),
        ("PUT", "/faults", [{"applied": True}], "applied needs cut or a status"),
        ("PUT", "/faults", [{"edits": [{"method": "PUT"}]}], "an edit must be"),
        ("POST", "/edits", [{"method": "PUSH", "path": "/zones"}], "'PUSH' is not one of GET"),
        ("PUT", "/dns", [{"type": "A", "name": "www", "content": "a.example"}], "must be a valid IPv4"),
        (
            "PUT",
            "/dns",
            [{"type": "A", "name": kit.NAME, "content": "::1"}],
            "must be a valid IPv4 address",
        ),
        (
            "PUT",
            "/dns",
            [{"type": "LOC", "name": kit.NAME, "content": "a.b"}],
            "Invalid 'type' 'LOC'",
        ),
        ("PUT", "/faults", [{"status": 900}], "status 900 is not an HTTP status"),
        ("PUT", "/faults", [{"code": 500}], "not code"),
        ("PUT", "/faults", [{"path": "("}], "is not a regular expression"),
        ("PATCH", "/edge", {"idle_seconds": 0}, "more than 0"),
        ("PATCH", "/edge", {"idle": 5}, "'idle' is unknown"),
    ],
)
async def test_the_control_api_rejects_invalid_bodies_with_a_message(
    control: httpx.AsyncClient, method: str, path: str, body: object, message: str
) -> None:
    before = (await control.get("/state")).json()
    answer = await control.request(method, path, json=body)
    assert answer.status_code == 400
    assert message in answer.json()["detail"]
    assert (await control.get("/state")).json() == before


async def test_reset_restores_the_initial_state_and_keeps_the_zones_identifier(
    site: kit.Site, control: httpx.AsyncClient
) -> None:
    before = (await control.get("/state")).json()
    await control.patch("/settings", json={"ssl": "strict"})
    await control.put("/dns", json=[])
    await control.put("/faults", json=[{"status": 500}])
    await control.patch("/edge", json={"idle_seconds": 5})
    after = (await control.post("/reset")).json()
    for state in (before, after):
        for entry in [*state["settings"].values(), *state["dns"]]:
            for volatile in ("id", "modified_on", "created_on"):
                entry.pop(volatile, None)
    assert after == before
