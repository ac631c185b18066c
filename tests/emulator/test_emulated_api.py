"""The emulated API: tokens, zones, settings, plans, DNS, faults, journal, control, state, options."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest

from emulator.__main__ import options
from emulator.zone import Zone, ZoneDefaults
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
async def test_a_bad_token_is_refused_as_each_service_does(
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


async def test_the_key_headers_of_a_stray_environment_are_refused(api: httpx.AsyncClient) -> None:
    del api.headers["authorization"]
    answer = await api.get("/zones", headers={"x-auth-email": "someone@example.com"})
    assert refusal(answer) == (400, 6003)
    assert answer.json()["errors"][0]["error_chain"][0]["code"] == 6103


@pytest.mark.parametrize("standing", ["expired", "disabled"])
async def test_an_ended_token_says_so_when_verified_and_is_refused_otherwise(
    api: httpx.AsyncClient, control: httpx.AsyncClient, standing: str
) -> None:
    assert (await api.get("/user/tokens/verify")).json()["result"]["status"] == "active"
    await control.put("/token", json={"status": standing})
    assert (await api.get("/user/tokens/verify")).json()["result"]["status"] == standing
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
async def test_what_is_not_there_is_refused(
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
    again = Zone(tmp_path / "zone.json", ZoneDefaults(kit.NAME))
    assert (again.id, again.setting("min_tls_version")) == (site.zone.id, changed)


@pytest.mark.parametrize(
    ("setting", "body", "expected"),
    [
        ("brotli", b'{"value": "on"}', (400, 1006)),
        ("ssl", b'{"value": "Full"}', (400, 1007)),
        ("ssl", b'{"value": true}', (400, 1007)),
        ("ssl", b"{}", (400, 1007)),
        ("ssl", b"[]", (400, 1007)),
        ("ssl", b"value=full", (400, 6007)),
        ("browser_cache_ttl", b'{"value": -1}', (400, 1007)),
        ("browser_cache_ttl", b'{"value": true}', (400, 1007)),
        ("ssl_automatic_mode", b'{"value": "manual"}', (400, 1008)),
        ("polish", b'{"value": "lossy"}', (400, 1057)),
        ("orange_to_orange", b'{"value": "on"}', (400, 1024)),
        ("true_client_ip_header", b'{"value": "on"}', (400, 1025)),
    ],
)
async def test_a_wrong_change_is_refused_and_changes_nothing(
    site: kit.Site, api: httpx.AsyncClient, setting: str, body: bytes, expected: tuple[int, int]
) -> None:
    path = f"/zones/{site.zone.id}/settings/{setting}"
    before = (await api.get(path)).json()
    assert refusal(await api.patch(path, content=body)) == expected
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


# --- DNS, address ranges


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


async def test_address_ranges_are_the_edges_own_unless_said_and_carry_an_etag(
    api: httpx.AsyncClient, control: httpx.AsyncClient
) -> None:
    del api.headers["authorization"]
    own = (await api.get("/ips")).json()["result"]
    # The origin is at 127.0.0.1, and from there it is reached.
    assert "127.0.0.1/32" in own["ipv4_cidrs"]
    assert all(cidr.endswith("/32") for cidr in own["ipv4_cidrs"])
    assert re.fullmatch("[0-9a-f]{32}", own["etag"])
    await control.put("/ranges", json=["192.0.2.0/24", "2001:db8::/32"])
    said = (await api.get("/ips")).json()["result"]
    assert (said["ipv4_cidrs"], said["ipv6_cidrs"]) == (["192.0.2.0/24"], ["2001:db8::/32"])
    assert said["etag"] != own["etag"]
    await control.put("/ranges", json=[])
    assert (await api.get("/ips")).json()["result"] == own


# --- what tests steer


async def test_the_journal_tells_each_request_and_never_the_token(
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


async def test_a_fault_takes_the_place_of_answers_as_often_as_it_says(
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
    ("method", "path", "body", "says"),
    [
        (
            "PATCH",
            "/settings",
            {"ssl": "fulll"},
            "'ssl' takes one of off, flexible, full, strict, not 'fulll'",
        ),
        ("PATCH", "/settings", {"ssl": "full", "brotli": "on"}, "setting 'brotli' is unknown"),
        ("PATCH", "/settings", {"proxy_read_timeout": "long"}, "a number from 0.05 to 6000, not 'long'"),
        ("PATCH", "/settings", {"ssl": {"editable": "no"}}, "editable is true or false, not 'no'"),
        ("PATCH", "/settings", [], "the body is an object"),
        ("PUT", "/plan", {"plan": "gold"}, "plan 'gold' is unknown; known are free"),
        ("PUT", "/plan", {"name": "pro"}, 'the body is {"plan": …}'),
        ("PUT", "/token", {"status": "lost"}, "not one of active, disabled, expired"),
        ("PUT", "/token", {"permissions": ["DNS Edit"]}, "'DNS Edit' is unknown; known are"),
        ("PUT", "/faults", [{"applied": True}], "applied needs cut or a status"),
        ("PUT", "/faults", [{"edits": [{"method": "PUT"}]}], "an edit is"),
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
        ("PUT", "/faults", [{"status": 900}], "status 900 is no HTTP status"),
        ("PUT", "/faults", [{"code": 500}], "not code"),
        ("PUT", "/faults", [{"path": "("}], "is no regular expression"),
        ("PATCH", "/edge", {"idle_seconds": 0}, "more than 0"),
        ("PATCH", "/edge", {"idle": 5}, "'idle' is unknown"),
    ],
)
async def test_the_control_api_refuses_what_it_cannot_do_in_a_sentence(
    control: httpx.AsyncClient, method: str, path: str, body: object, says: str
) -> None:
    before = (await control.get("/state")).json()
    answer = await control.request(method, path, json=body)
    assert answer.status_code == 400
    assert says in answer.json()["detail"]
    assert (await control.get("/state")).json() == before


async def test_reset_returns_to_the_start_and_keeps_the_zones_identifier(
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


# --- state and start


def test_a_restart_keeps_zone_and_authorities(tmp_path: Path) -> None:
    with kit.process(tmp_path, "--settings", "ssl=full,http3=on") as first:
        before = httpx.get(f"{first.api}/_emulator/state").json()
        authority = httpx.get(f"{first.api}/_emulator/edge-ca.pem").text
        httpx.patch(f"{first.api}/_emulator/settings", json={"rocket_loader": "off"})
    assert before["settings"]["ssl"]["value"] == "full"
    with kit.process(tmp_path, "--settings", "ssl=off") as second:
        after = httpx.get(f"{second.api}/_emulator/state").json()
        assert httpx.get(f"{second.api}/_emulator/edge-ca.pem").text == authority
    assert after["zone"] == before["zone"]
    assert {name: after["settings"][name]["value"] for name in ("ssl", "http3", "rocket_loader")} == {
        "ssl": "full",
        "http3": "on",
        "rocket_loader": "off",
    }
    assert kit.TOKEN not in (tmp_path / "log").read_text()
    for key in (tmp_path / "state").glob("*.pem"):
        assert key.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("content", ["", "[]", json.dumps({"name": "example.com"})])
def test_a_state_that_is_not_the_zones_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "zone.json").write_text(content)
    with pytest.raises(ValueError, match=r"holds (no|the) zone"):
        Zone(tmp_path / "zone.json", ZoneDefaults(kit.NAME))


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("zone", "my site", "'my site' is no domain name"),
        ("zone", None, "--zone"),
        ("api-port", "99999", "'99999' is no port"),
        ("idle-seconds", "never", "'never' is no time"),
        ("token-file", "/nowhere/token", "cannot be read"),
        ("origin", "10.0.0.300", "is no IP address and no host name"),
        ("settings", "ssl=ful", "'ful' is no value of the setting ssl"),
        ("settings", "brotli=on", "'brotli=on' is no setting"),
        ("plan", "gold", "'gold' is not one of free, pro"),
        ("ip-ranges", "10.0.0.1/8", "10.0.0.1/8 has host bits set; give networks"),
    ],
)
@pytest.mark.parametrize("by", ["option", "environment"])
def test_a_bad_option_is_a_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
    value: str | None,
    says: str,
    by: str,
) -> None:
    (tmp_path / "token").write_text(kit.TOKEN)
    given = {"zone": kit.NAME, "token-file": str(tmp_path / "token"), "state-dir": str(tmp_path)}
    given.pop(option, None)
    if value and by == "option":
        given[option] = value
    elif value:
        monkeypatch.setenv("EMULATOR_" + option.upper().replace("-", "_"), value)
    with pytest.raises(SystemExit) as ended:
        options([word for name, text in given.items() for word in (f"--{name}", text)])
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_a_malformed_token_is_refused_unseen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "token").write_text("not-a-token")
    with pytest.raises(SystemExit):
        options(["--zone", kit.NAME, "--state-dir", ".", "--token-file", str(tmp_path / "token")])
    said = capsys.readouterr().err
    assert "holds no token" in said
    assert "not-a-token" not in said
