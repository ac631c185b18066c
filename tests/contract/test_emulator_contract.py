"""The emulator's responses against Cloudflare's published API description, and with the official SDK."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import cloudflare
import httpx
import pytest
import schemathesis
from schemathesis.openapi.checks import JsonSchemaError

from emulator.zone import SETTINGS
from tests.kit import emulator as kit
from tests.kit.certificates import ec_key, origin_ca_order
from tests.kit.cloudflare_description import described, description

ZONE, SETTING, AUTOMATIC, RECORDS = (
    "/zones/{zone_id}",
    "/zones/{zone_id}/settings/{setting_id}",
    "/zones/{zone_id}/settings/ssl_automatic_mode",
    "/zones/{zone_id}/dns_records",
)
RECORD = RECORDS + "/{dns_record_id}"
RULESETS = "/{accounts_or_zones}/{account_or_zone_id}/rulesets"
ENTRY, RULES = RULESETS + "/phases/{ruleset_phase}/entrypoint", RULESETS + "/{ruleset_id}/rules"
RULE = RULES + "/{rule_id}"
CERTIFICATES, CERTIFICATE = "/certificates", "/certificates/{certificate_id}"
PULLS, ARGO = "/zones/{zone_id}/origin_tls_client_auth/settings", "/zones/{zone_id}/argo/smart_routing"
OURS = {
    "http_request_cache_settings": ("set_cache_settings", {"cache": False}),
    "http_config_settings": ("set_config", {"rocket_loader": False, "polish": "off"}),
    "http_response_compression": ("compress_response", {"algorithms": [{"name": "none"}]}),
}


@pytest.fixture(scope="module")
def schema() -> Any:
    return schemathesis.openapi.from_dict(description())


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kit.Process]:
    with kit.process(tmp_path_factory.mktemp("emulator")) as running:
        yield running


@pytest.fixture
def api(emulator: kit.Process) -> Iterator[httpx.Client]:
    httpx.post(f"{emulator.api}/_emulator/reset").raise_for_status()
    headers = {"authorization": f"Bearer {kit.TOKEN}"}
    with httpx.Client(base_url=f"{emulator.api}/client/v4", headers=headers) as client:
        yield client


@pytest.fixture
def zone(api: httpx.Client) -> str:
    return str(api.get("/zones").json()["result"][0]["id"])


def fits(schema: Any, path: str, method: str, answer: httpx.Response, status: int = 200) -> None:
    """Fail unless the response has the status and matches the operation's description."""
    assert answer.status_code == status, answer.text
    schema[path][method].validate_response(answer)


# --- the description


@described
def test_successful_responses_are_as_described(schema: Any, api: httpx.Client, zone: str) -> None:
    fits(schema, "/zones", "GET", api.get("/zones", params={"name": kit.NAME}))
    fits(schema, "/zones", "GET", api.get("/zones", params={"name": "example.com"}))
    fits(schema, ZONE, "GET", api.get(f"/zones/{zone}"))
    fits(schema, "/user/tokens/verify", "GET", api.get("/user/tokens/verify"))
    fits(schema, "/ips", "GET", api.get("/ips"))
    fits(schema, RECORDS, "GET", api.get(f"/zones/{zone}/dns_records"))


@described
@pytest.mark.parametrize("setting", sorted(SETTINGS))
def test_every_setting_is_as_described(
    schema: Any, emulator: kit.Process, api: httpx.Client, zone: str, setting: str
) -> None:
    path = AUTOMATIC if setting == "ssl_automatic_mode" else SETTING
    url = f"/zones/{zone}/settings/{setting}"
    httpx.put(f"{emulator.api}/_emulator/plan", json={"plan": "enterprise"}).raise_for_status()
    fits(schema, path, "GET", api.get(url))
    rule = SETTINGS[setting]
    for value in rule.bounds or rule.values:
        answer = api.patch(url, json={"value": value})
        fits(schema, path, "PATCH", answer)
        assert answer.json()["result"]["value"] == value


@described
@pytest.mark.parametrize("status", ["disabled", "expired"])
def test_an_inactive_token_is_as_described(
    schema: Any, emulator: kit.Process, api: httpx.Client, status: str
) -> None:
    httpx.put(f"{emulator.api}/_emulator/token", json={"status": status}).raise_for_status()
    fits(schema, "/user/tokens/verify", "GET", api.get("/user/tokens/verify"))
    fits(schema, "/zones", "GET", api.get("/zones"), 403)


@described
@pytest.mark.parametrize("header", [None, "Bearer short", f"Bearer {'x' * 40}"])
def test_rejected_tokens_are_as_described(
    schema: Any, api: httpx.Client, zone: str, header: str | None
) -> None:
    del api.headers["authorization"]
    if header:
        api.headers["authorization"] = header
    well_formed = header == f"Bearer {'x' * 40}"
    forbidden, unknown = (403, 401) if well_formed else (400, 400)
    fits(schema, "/user/tokens/verify", "GET", api.get("/user/tokens/verify"), unknown)
    fits(schema, "/zones", "GET", api.get("/zones"), forbidden)
    fits(schema, ZONE, "GET", api.get(f"/zones/{zone}"), forbidden)
    for path, name in ((SETTING, "ssl"), (AUTOMATIC, "ssl_automatic_mode")):
        url = f"/zones/{zone}/settings/{name}"
        fits(schema, path, "GET", api.get(url), forbidden)
        fits(schema, path, "PATCH", api.patch(url, json={"value": "full"}), forbidden)
    fits(schema, RECORDS, "GET", api.get(f"/zones/{zone}/dns_records"), unknown)


@described
def test_rejected_requests_are_as_described(schema: Any, api: httpx.Client, zone: str) -> None:
    unknown_zone = "0" * 32
    fits(schema, ZONE, "GET", api.get(f"/zones/{unknown_zone}"), 404)
    fits(schema, SETTING, "GET", api.get(f"/zones/{unknown_zone}/settings/ssl"), 404)
    fits(schema, RECORDS, "GET", api.get(f"/zones/{unknown_zone}/dns_records"), 404)
    settings = f"/zones/{zone}/settings"
    fits(schema, SETTING, "GET", api.get(f"{settings}/brotli"), 400)
    for name, body in (("ssl", '{"value": "Full"}'), ("ssl", "{"), ("polish", '{"value": "lossy"}')):
        fits(schema, SETTING, "PATCH", api.patch(f"{settings}/{name}", content=body), 400)
    rejected = api.patch(f"{settings}/ssl_automatic_mode", json={"value": "manual"})
    fits(schema, AUTOMATIC, "PATCH", rejected, 400)


@described
def test_records_are_as_described(schema: Any, api: httpx.Client, zone: str) -> None:
    base = f"/zones/{zone}/dns_records"
    for kind, content in (
        ("A", "192.0.2.1"),
        ("AAAA", "2001:db8::1"),
        ("TXT", '"text"'),
        ("CNAME", "a.example"),
    ):
        record = {"type": kind, "name": f"{kind}.{kit.NAME}", "content": content, "ttl": 1}
        made = api.post(base, json=record)
        fits(schema, RECORDS, "POST", made)
        one = f"{base}/{made.json()['result']['id']}"
        fits(schema, RECORD, "GET", api.get(one))
        fits(schema, RECORD, "PATCH", api.patch(one, json={"comment": "ours"}))
        fits(schema, RECORD, "PUT", api.put(one, json=record))
        fits(schema, RECORDS, "POST", api.post(base, json=record), 400)
        fits(schema, RECORD, "PATCH", api.patch(one, json={"type": "MX"}), 400)
        fits(schema, RECORD, "DELETE", api.delete(one))
        fits(schema, RECORD, "DELETE", api.delete(one), 404)
    fits(schema, RECORDS, "GET", api.get(base))


@described
@pytest.mark.parametrize("phase", OURS)
def test_rulesets_are_as_described(schema: Any, api: httpx.Client, zone: str, phase: str) -> None:
    action, parameters = OURS[phase]
    rule = {"ref": "ours", "expression": "true", "action": action, "action_parameters": parameters}
    entry = f"/zones/{zone}/rulesets/phases/{phase}/entrypoint"
    fits(schema, ENTRY, "GET", api.get(entry), 404)
    fits(schema, ENTRY, "PUT", api.put(entry, params={"dry_run": "true"}, json={"rules": [rule]}))
    made = api.put(entry, json={"rules": [rule]})
    fits(schema, ENTRY, "PUT", made)
    fits(schema, ENTRY, "GET", api.get(entry))
    fits(schema, RULESETS, "GET", api.get(f"/zones/{zone}/rulesets"))
    ruleset = made.json()["result"]
    rules = f"/zones/{zone}/rulesets/{ruleset['id']}/rules"
    fits(schema, RULES, "POST", api.post(rules, json={**rule, "ref": "second", "position": {"before": ""}}))
    one = f"{rules}/{ruleset['rules'][0]['id']}"
    fits(schema, RULE, "PATCH", api.patch(one, json={**rule, "enabled": False}))
    fits(schema, RULE, "PATCH", api.patch(one, json={"position": {"index": 1}}))
    fits(schema, RULE, "DELETE", api.delete(one))
    fits(schema, RULE, "DELETE", api.delete(one), 404)
    for wrong in ({"action": "block"}, {"expression": "http.hos eq 1"}, {"ref": "second"}):
        fits(schema, RULES, "POST", api.post(rules, json={**rule, **wrong}), 400)
    fits(schema, ENTRY, "PUT", api.put(entry, json={"rules": [], "kind": "zone"}), 400)


@described
def test_certificates_are_as_described(schema: Any, api: httpx.Client, zone: str) -> None:
    made = api.post("/certificates", json=origin_ca_order(kit.NAME, ec_key()))
    fits(schema, CERTIFICATES, "POST", made)
    fits(
        schema,
        CERTIFICATES,
        "POST",
        api.post("/certificates", json=origin_ca_order(kit.NAME, ec_key(), csr="no")),
        400,
    )
    fits(schema, CERTIFICATES, "GET", api.get("/certificates", params={"zone_id": zone}))
    one = f"/certificates/{made.json()['result']['id']}"
    fits(schema, CERTIFICATE, "GET", api.get(one))
    fits(schema, CERTIFICATE, "DELETE", api.delete(one))
    fits(schema, CERTIFICATE, "DELETE", api.delete(one), 400)
    fits(schema, CERTIFICATE, "GET", api.get(f"/certificates/{'0' * 32}"), 404)


@described
def test_origin_pulls_and_argo_are_as_described(
    schema: Any, emulator: kit.Process, api: httpx.Client, zone: str
) -> None:
    pulls, argo = f"/zones/{zone}/origin_tls_client_auth/settings", f"/zones/{zone}/argo/smart_routing"
    fits(schema, PULLS, "GET", api.get(pulls))
    fits(schema, PULLS, "PUT", api.put(pulls, json={"enabled": True}))
    fits(schema, PULLS, "PUT", api.put(pulls, json={}), 400)
    fits(schema, ARGO, "GET", api.get(argo), 401)
    fits(schema, ARGO, "PATCH", api.patch(argo, json={"value": "on"}), 401)
    httpx.put(f"{emulator.api}/_emulator/plan", json={"plan": "pro"}).raise_for_status()
    fits(schema, ARGO, "GET", api.get(argo))
    fits(schema, ARGO, "PATCH", api.patch(argo, json={"value": "on"}))


@described
def test_missing_permissions_are_as_described(
    schema: Any, emulator: kit.Process, api: httpx.Client, zone: str
) -> None:
    httpx.put(f"{emulator.api}/_emulator/token", json={"permissions": []}).raise_for_status()
    base = f"/zones/{zone}"
    entry = f"{base}/rulesets/phases/http_config_settings/entrypoint"
    fits(schema, "/zones", "GET", api.get("/zones"), 403)
    fits(schema, ZONE, "GET", api.get(base), 403)
    fits(schema, SETTING, "PATCH", api.patch(f"{base}/settings/ssl", json={}), 403)
    fits(schema, RECORDS, "POST", api.post(f"{base}/dns_records", json={}), 403)
    fits(schema, ENTRY, "GET", api.get(entry), 403)
    fits(schema, CERTIFICATES, "POST", api.post("/certificates", json={}), 403)
    fits(schema, PULLS, "GET", api.get(f"{base}/origin_tls_client_auth/settings"), 403)
    fits(schema, ARGO, "GET", api.get(f"{base}/argo/smart_routing"), 403)
    httpx.put(f"{emulator.api}/_emulator/token", json={"permissions": ["Cache Rules Read"]})
    fits(schema, ENTRY, "GET", api.get(entry), 403)


@described
@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (("result", "value"), "sideways"),
        (("result", "id"), "sll"),
        (("result", "modified_on"), "yesterday"),
        (("success",), "yes"),
        (("errors",), None),
    ],
)
def test_the_check_itself_reports_a_wrong_response(
    schema: Any, api: httpx.Client, zone: str, place: tuple[str, ...], wrong: object
) -> None:
    answer = api.get(f"/zones/{zone}/settings/ssl")
    content = copy.deepcopy(answer.json())
    target = content
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = wrong
    forged = httpx.Response(200, json=content, request=answer.request)
    forged.elapsed = answer.elapsed
    with pytest.raises(JsonSchemaError):
        fits(schema, SETTING, "GET", forged)


# --- the SDK


@pytest.fixture
def sdk(emulator: kit.Process, api: httpx.Client) -> cloudflare.Cloudflare:
    return client_of(emulator, kit.TOKEN)


def client_of(emulator: kit.Process, token: str) -> cloudflare.Cloudflare:
    client = cloudflare.Cloudflare(api_token=token, base_url=f"{emulator.api}/client/v4", max_retries=0)
    # A stray CLOUDFLARE_EMAIL in the environment would drop the token.
    client.api_email = client.api_key = client.user_service_key = None
    return client


def codes(error: cloudflare.APIStatusError) -> list[int]:
    return [entry["code"] for entry in error.body["errors"]]  # type: ignore[index,call-overload]


def test_the_sdk_reads_and_patches(sdk: cloudflare.Cloudflare, zone: str) -> None:
    listed: Any = sdk.get("/zones", cast_to=object, options={"params": {"name": kit.NAME}})
    assert [found["id"] for found in listed["result"]] == [zone]
    url = f"/zones/{zone}/settings/websockets"
    before: Any = sdk.get(url, cast_to=object)
    assert before["result"]["value"] == "off"
    changed: Any = sdk.patch(url, cast_to=object, body={"value": "on"})
    assert (changed["success"], changed["result"]["value"]) == (True, "on")
    after: Any = sdk.get(url, cast_to=object)
    assert after["result"] == changed["result"]


def test_the_sdk_finds_no_zone_of_another_name(sdk: cloudflare.Cloudflare) -> None:
    listed: Any = sdk.get("/zones", cast_to=object, options={"params": {"name": "example.com"}})
    assert (listed["success"], listed["result"]) == (True, [])


@pytest.mark.parametrize(
    ("method", "path", "value", "error", "code"),
    [
        ("get", "/zones/{unknown_zone}/settings/ssl", None, cloudflare.NotFoundError, 7003),
        ("get", "/zones/{zone}/settings/brotli", None, cloudflare.BadRequestError, 1006),
        ("patch", "/zones/{zone}/settings/ssl", "Full", cloudflare.BadRequestError, 1007),
        ("patch", "/zones/{zone}/settings/polish", "lossy", cloudflare.BadRequestError, 1057),
    ],
)
def test_the_sdk_raises_cloudflares_errors(
    sdk: cloudflare.Cloudflare,
    zone: str,
    method: str,
    path: str,
    value: str | None,
    error: type[cloudflare.APIStatusError],
    code: int,
) -> None:
    more = {"body": {"value": value}} if value else {}
    with pytest.raises(error) as raised:
        getattr(sdk, method)(path.format(zone=zone, unknown_zone="0" * 32), cast_to=object, **more)
    assert codes(raised.value) == [code]


def test_the_sdk_reports_a_wrong_token(emulator: kit.Process, api: httpx.Client) -> None:
    wrong = client_of(emulator, "x" * 40)
    with pytest.raises(cloudflare.AuthenticationError) as verified:
        wrong.get("/user/tokens/verify", cast_to=object)
    assert codes(verified.value) == [1000]
    with pytest.raises(cloudflare.PermissionDeniedError) as listed:
        wrong.get("/zones", cast_to=object)
    assert codes(listed.value) == [9109]
