"""The emulated rulesets and their expressions: versions, positions, and what Cloudflare rejects."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from emulator.expressions import ExpressionError, parse
from tests.kit import emulator as kit
from tests.kit.emulator import refusal

CACHE = "http_request_cache_settings"
BYPASS = {
    "ref": "ours",
    "expression": 'starts_with(http.request.uri.path, "/ws/")',
    "action": "set_cache_settings",
    "action_parameters": {"cache": False},
}
THEIRS = {**BYPASS, "ref": "theirs", "expression": '(http.host eq "a.example")', "description": "kept"}


@pytest.fixture
def entry(site: kit.Site) -> str:
    return f"/zones/{site.zone.id}/rulesets/phases/{CACHE}/entrypoint"


async def put(api: httpx.AsyncClient, entry: str, *rules: dict[str, Any]) -> dict[str, Any]:
    answer = await api.put(entry, json={"rules": list(rules)})
    assert answer.status_code == 200, answer.text
    return answer.json()["result"]


def refs(ruleset: dict[str, Any]) -> list[str]:
    return [rule["ref"] for rule in ruleset["rules"]]


async def test_an_entrypoint_is_404_until_it_is_written(api: httpx.AsyncClient, entry: str) -> None:
    answer = await api.get(entry)
    assert refusal(answer) == (404, 10003)
    assert answer.json()["errors"][0]["message"] == f"could not find entrypoint ruleset in the {CACHE} phase"
    created = await put(api, entry, BYPASS)
    assert (created["kind"], created["phase"], created["version"], refs(created)) == (
        "zone",
        CACHE,
        "1",
        ["ours"],
    )
    assert (await api.get(entry)).json()["result"] == created


async def test_a_rule_keeps_its_identifier_by_ref_or_id_and_its_version_while_unchanged(
    api: httpx.AsyncClient, entry: str
) -> None:
    first = await put(api, entry, THEIRS, BYPASS)
    second = await put(api, entry, BYPASS, {**THEIRS, "enabled": False})
    assert second["version"] == "2"
    assert second["rules"][0] == first["rules"][1]
    assert second["rules"][1]["id"] == first["rules"][0]["id"]
    assert [rule["version"] for rule in second["rules"]] == ["1", "2"]
    # Without a ref, the rule is matched by its identifier.
    bare = {key: value for key, value in BYPASS.items() if key != "ref"}
    third = await put(api, entry, {**bare, "id": first["rules"][1]["id"]})
    assert third["rules"][0]["ref"] == third["rules"][0]["id"] == first["rules"][1]["id"]
    assert (await put(api, entry))["rules"] == []


@pytest.mark.parametrize(
    ("position", "order"),
    [
        (None, ["a", "b", "ours"]),
        ({"before": ""}, ["ours", "a", "b"]),
        ({"before": "b"}, ["a", "ours", "b"]),
        ({"after": "a"}, ["a", "ours", "b"]),
        ({"after": ""}, ["a", "b", "ours"]),
        ({"index": 2}, ["a", "ours", "b"]),
    ],
)
async def test_a_rule_is_added_at_its_position(
    site: kit.Site,
    api: httpx.AsyncClient,
    entry: str,
    position: dict[str, Any] | None,
    order: list[str],
) -> None:
    ruleset = await put(api, entry, {**THEIRS, "ref": "a"}, {**THEIRS, "ref": "b"})
    identifiers = {rule["ref"]: rule["id"] for rule in ruleset["rules"]}
    if position:
        position = {key: identifiers.get(value, value) for key, value in position.items()}
    rules = f"/zones/{site.zone.id}/rulesets/{ruleset['id']}/rules"
    answer = await api.post(rules, json={**BYPASS, **({"position": position} if position else {})})
    after = answer.json()["result"]
    assert (refs(after), after["version"]) == (order, "2")
    kept = [rule for rule in after["rules"] if rule["ref"] != "ours"]
    assert kept == ruleset["rules"]


async def test_a_rule_is_moved_replaced_and_deleted(
    site: kit.Site, api: httpx.AsyncClient, entry: str
) -> None:
    ruleset = await put(api, entry, THEIRS, BYPASS)
    rule = f"/zones/{site.zone.id}/rulesets/{ruleset['id']}/rules/{ruleset['rules'][1]['id']}"
    moved = (await api.patch(rule, json={"position": {"index": 1}})).json()["result"]
    assert moved["rules"] == ruleset["rules"][::-1]
    # A PATCH replaces the whole rule: omitted fields are lost, the ref too.
    bare = {key: value for key, value in BYPASS.items() if key != "ref"}
    changed = (await api.patch(rule, json={**bare, "enabled": False})).json()["result"]["rules"][0]
    assert (changed["ref"], changed["enabled"], changed["version"]) == (changed["id"], False, "2")
    assert refusal(await api.patch(rule, json={"enabled": True})) == (400, 20016)
    left = (await api.delete(rule)).json()["result"]
    assert refs(left) == ["theirs"]
    assert refusal(await api.delete(rule)) == (404, 10003)


@pytest.mark.parametrize(
    ("body", "expected", "pointer"),
    [
        ({"rules": [], "kind": "zone"}, (400, 10012), "/kind"),
        ({"rules": [], "phase": CACHE}, (400, 10012), "/phase"),
        ({"rules": [{**BYPASS, "version": "1"}]}, (400, 10012), "/rules/0/version"),
        ({"rules": [{**BYPASS, "id": "0" * 32}]}, (400, 20019), "/rules/0/id"),
        ({"rules": [BYPASS, BYPASS]}, (400, 20108), "/rules/1/ref"),
        ({"rules": [{**BYPASS, "action": "block"}]}, (400, 20016), "/rules/0/action"),
        ({"rules": [{**BYPASS, "expression": ""}]}, (400, 20125), "/rules/0/expression"),
        ({"rules": [{**BYPASS, "expression": "http.hos eq 1"}]}, (400, 20127), "/rules/0/expression"),
        ({"rules": [{**BYPASS, "enabled": "yes"}]}, (400, 20021), "/rules/0/enabled"),
        (
            {"rules": [{**BYPASS, "action_parameters": {"cache": "off"}}]},
            (400, 20021),
            "/rules/0/action_parameters/cache",
        ),
        ({"rules": [{**BYPASS, "ref": str(n)} for n in range(11)]}, (400, 20120), None),
    ],
)
async def test_an_invalid_ruleset_is_rejected_and_changes_nothing(
    api: httpx.AsyncClient, entry: str, body: object, expected: tuple[int, int], pointer: str | None
) -> None:
    before = await put(api, entry, THEIRS)
    answer = await api.put(entry, json=body)
    assert refusal(answer) == expected
    assert answer.json()["errors"][0].get("source", {}).get("pointer") == pointer
    assert (await api.get(entry)).json()["result"] == before


async def test_a_dry_run_validates_and_writes_nothing(api: httpx.AsyncClient, entry: str) -> None:
    assert (await api.put(f"{entry}?dry_run=true", json={"rules": [BYPASS]})).json()["result"] is None
    assert refusal(await api.get(entry)) == (404, 10003)


@pytest.mark.parametrize(
    ("phase", "action", "parameters", "good"),
    [
        ("http_config_settings", "set_config", {"rocket_loader": False, "polish": "off"}, True),
        ("http_config_settings", "set_config", {"rocket_loader": "off"}, False),
        ("http_config_settings", "set_config", {"brotli": False}, False),
        ("http_config_settings", "set_config", {}, False),
        ("http_response_compression", "compress_response", {"algorithms": [{"name": "none"}]}, True),
        ("http_response_compression", "compress_response", {"algorithms": [{"name": "zip"}]}, False),
        ("http_response_compression", "set_config", {"rocket_loader": False}, False),
    ],
)
async def test_each_phase_accepts_only_its_own_action(
    site: kit.Site, api: httpx.AsyncClient, phase: str, action: str, parameters: dict[str, Any], good: bool
) -> None:
    entry = f"/zones/{site.zone.id}/rulesets/phases/{phase}/entrypoint"
    rule = {"expression": "true", "action": action, "action_parameters": parameters}
    assert (await api.put(entry, json={"rules": [rule]})).status_code == (200 if good else 400)


FACTS = {
    "http.host": "A.example",
    "http.request.uri.path": "/api/ws/1",
    "http.request.uri.query": "a=1",
    "http.request.method": "GET",
    "ip.src": "192.0.2.7",
    "ssl": True,
}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('starts_with(http.request.uri.path, "/api/ws/")', True),
        ('(http.host eq "a.example" and starts_with(http.request.uri.path, "/api/"))', False),
        ('lower(http.host) == "a.example" && not ends_with(http.request.uri.path, ".js")', True),
        ('http.request.method in {"POST" "GET"}', True),
        ("ip.src in {10.0.0.0/8 192.0.2.0/24}", True),
        ("ip.src eq 2001:db8::1", False),
        ('http.request.uri.path wildcard "/API/*"', True),
        ('http.request.uri.path strict wildcard "/API/*"', False),
        ('http.request.uri.query contains "a=" and ssl', True),
        ("len(http.request.uri.path) gt 8", True),
        # and binds closer than or, not closer than and
        ("true or false and false", True),
        ("not false and false", False),
        ("true ^^ true", False),
    ],
)
def test_an_expression_is_evaluated(expression: str, expected: bool) -> None:
    assert parse(expression)(FACTS) is expected


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("http.hos eq 1", "(1:1):"),
        ('http.host eq "a" extra', "(1:18):"),
        ('http.host matches "a.*"', "unrecognised input"),
        ("http.host eq a", "expected a string literal"),
        ('starts_with(http.host "a")', 'expected ","'),
        ('http.request.headers["x"][0] eq "a"', "(1:21):"),
        ("http.response.code eq 200", "unknown identifier"),
        ('http.host eq "a" and', "unrecognised input"),
        ('ip.src eq "192.0.2.1"', "parse address"),
    ],
)
def test_an_invalid_expression_is_rejected_with_its_position(expression: str, message: str) -> None:
    with pytest.raises(ExpressionError) as rejected:
        parse(expression)
    assert "Filter parsing error (1:" in str(rejected.value)
    assert message in str(rejected.value)
