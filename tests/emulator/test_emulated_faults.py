"""Injected faults, edits by another user, and the permissions of the token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from emulator.tokens import PERMISSIONS
from tests.kit import emulator as kit
from tests.kit.emulator import refusal

CACHE = "http_request_cache_settings"
ENTRY = f"/zones/{{zone}}/rulesets/phases/{CACHE}/entrypoint"
RULE = {
    "ref": "theirs",
    "expression": "true",
    "action": "set_cache_settings",
    "action_parameters": {"cache": True},
}


async def inject(control: httpx.AsyncClient, *faults: dict[str, Any]) -> None:
    answer = await control.put("/faults", json=list(faults))
    assert answer.status_code == 200, answer.text


async def test_an_edit_can_come_between_a_read_and_a_write(
    site: kit.Site, api: httpx.AsyncClient, control: httpx.AsyncClient
) -> None:
    entry = ENTRY.replace("{zone}", site.zone.id)
    theirs = {"method": "PUT", "path": ENTRY, "body": {"rules": [RULE]}}
    await inject(control, {"method": "PUT", "path": "entrypoint$", "edits": [theirs]})
    assert (await api.get(entry)).status_code == 404
    written = (await api.put(entry, json={"rules": [{**RULE, "ref": "ours"}]})).json()["result"]
    assert written["version"] == "2"
    assert [entry["method"] for entry in (await control.get("/journal")).json()] == ["GET", "PUT"]


async def test_edits_are_made_at_once_and_as_another_user(
    site: kit.Site, api: httpx.AsyncClient, control: httpx.AsyncClient
) -> None:
    await control.put("/token", json={"permissions": []})
    edit = {"method": "PUT", "path": ENTRY, "body": {"rules": [RULE]}}
    assert (await control.post("/edits", json=[edit])).json()["rulesets"][0]["rules"][0]["ref"] == "theirs"
    refused = await control.post("/edits", json=[{**edit, "body": {"rules": [{}]}}])
    assert refused.status_code == 400
    assert "not a valid value for action" in refused.json()["detail"]


async def test_a_fault_can_skip_requests(api: httpx.AsyncClient, control: httpx.AsyncClient) -> None:
    await inject(control, {"path": "^/zones$", "skip": 2, "status": 503, "body": {}})
    assert [(await api.get("/zones")).status_code for _ in range(4)] == [200, 200, 503, 200]


async def test_a_request_can_take_effect_although_its_response_is_lost(
    site: kit.Site, api: httpx.AsyncClient, control: httpx.AsyncClient
) -> None:
    await inject(control, {"method": "PATCH", "applied": True, "status": 502, "body": "<html>"})
    answer = await api.patch(f"/zones/{site.zone.id}/settings/ssl", json={"value": "full"})
    assert (answer.status_code, answer.text) == (502, "<html>")
    assert site.zone.value("ssl") == "full"


def test_a_cut_ends_the_connection_without_a_response(tmp_path: Path) -> None:
    with kit.process(tmp_path) as running:
        headers = {"authorization": f"Bearer {kit.TOKEN}"}
        for applied, after in ((False, "flexible"), (True, "full")):
            fault = {"method": "PATCH", "cut": True, "applied": applied}
            httpx.put(f"{running.api}/_emulator/faults", json=[fault]).raise_for_status()
            state = httpx.get(f"{running.api}/_emulator/state").json()
            url = f"{running.api}/client/v4/zones/{state['zone']['id']}/settings/ssl"
            with pytest.raises(httpx.RemoteProtocolError):
                httpx.patch(url, json={"value": "full"}, headers=headers)
            assert httpx.get(url, headers=headers).json()["result"]["value"] == after
        journal = httpx.get(f"{running.api}/_emulator/journal").json()
        assert [entry["status"] for entry in journal] == [0, 200, 0, 200]


# --- permissions


REQUESTS = {
    "Zone Read": ("GET", "/zones", (403, 9109)),
    "Zone Settings Write": ("PATCH", "/zones/{zone}/settings/websockets", (403, 9109)),
    "DNS Write": ("POST", "/zones/{zone}/dns_records", (403, 10000)),
    "Cache Rules Write": ("PUT", ENTRY, (403, None)),
    "Config Rules Write": ("PUT", ENTRY.replace(CACHE, "http_config_settings"), (403, None)),
    "Response Compression Write": ("PUT", ENTRY.replace(CACHE, "http_response_compression"), (403, None)),
}


@pytest.mark.parametrize("missing", REQUESTS)
async def test_permissions_are_checked_before_the_body(
    site: kit.Site, api: httpx.AsyncClient, control: httpx.AsyncClient, missing: str
) -> None:
    method, path, expected = REQUESTS[missing]
    path = path.replace("{zone}", site.zone.id)
    assert (await api.request(method, path, json={})).status_code in (200, 400)
    await control.put("/token", json={"permissions": [name for name in PERMISSIONS if name != missing]})
    answer = await api.request(method, path, json={})
    error = answer.json()["errors"][0]
    assert (answer.status_code, error.get("code")) == expected
    for other, (method, path, _) in REQUESTS.items():
        if other != missing:
            allowed = await api.request(method, path.replace("{zone}", site.zone.id), json={})
            assert allowed.status_code != 403


async def test_reading_requires_read_or_write_and_writing_requires_write(
    site: kit.Site, api: httpx.AsyncClient, control: httpx.AsyncClient
) -> None:
    path = f"/zones/{site.zone.id}/settings/ssl"
    await control.put("/token", json={"permissions": ["Zone Settings Read"]})
    assert (await api.get(path)).status_code == 200
    assert refusal(await api.patch(path, json={"value": "full"})) == (403, 9109)
    # Without a permission for any ruleset the request does not reach the rules engine, which has no code.
    entry = ENTRY.replace("{zone}", site.zone.id)
    assert refusal(await api.get(entry)) == (403, 10000)


async def test_a_token_reads_its_details_only_with_the_permission_for_that(
    api: httpx.AsyncClient, control: httpx.AsyncClient
) -> None:
    own = (await api.get("/user/tokens/verify")).json()["result"]["id"]
    assert refusal(await api.get(f"/user/tokens/{own}")) == (403, 9109)
    await control.put("/token", json={"permissions": ["API Tokens Read"]})
    groups = (await api.get(f"/user/tokens/{own}")).json()["result"]["policies"][0]["permission_groups"]
    assert [group["name"] for group in groups] == ["API Tokens Read"]
