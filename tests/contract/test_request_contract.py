"""The request check itself: it accepts what Cloudflare's description allows and reports everything else."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kit.cloudflare_description import described, problems

ZONE = "/client/v4/zones/" + "0" * 32
ENTRY = f"{ZONE}/rulesets/phases/http_config_settings/entrypoint"
RULE = {
    "ref": "ours",
    "expression": "true",
    "action": "set_config",
    "action_parameters": {"rocket_loader": False, "polish": "off"},
}
RECORD = {"type": "A", "name": "a.example", "content": "192.0.2.1", "ttl": 1, "proxied": True}
CERTIFICATE = {
    "csr": "pem",
    "hostnames": ["a.example"],
    "request_type": "origin-ecc",
    "requested_validity": 90,
}
CLIENTS = f"{ZONE}/origin_tls_client_auth"
PAIR = {"certificate": "pem", "private_key": "pem"}


def entry(method: str, path: str, body: Any = None, status: int = 200, **query: str) -> dict[str, Any]:
    return {"method": method, "path": path, "query": query, "body": body, "status": status}


@described
@pytest.mark.parametrize(
    "request_",
    [
        entry("GET", "/client/v4/zones", name="a.example"),
        entry("PATCH", f"{ZONE}/settings/ssl", {"value": "full"}),
        entry("PATCH", f"{ZONE}/settings/ssl_automatic_mode", {"value": "custom"}),
        entry("PUT", ENTRY, {"rules": [RULE]}),
        entry("PUT", ENTRY, {"rules": []}, dry_run="true"),
        entry("POST", f"{ZONE}/rulesets/{'1' * 32}/rules", {**RULE, "position": {"before": ""}}),
        entry("POST", f"{ZONE}/dns_records", RECORD),
        entry("POST", f"{ZONE}/dns_records/batch", {"deletes": [{"id": "1" * 32}], "posts": [RECORD]}),
        entry("GET", "/client/v4/certificates", zone_id="0" * 32, page="1", per_page="50"),
        entry("POST", "/client/v4/certificates", CERTIFICATE),
        entry("DELETE", "/client/v4/certificates/1"),
        entry("GET", f"{CLIENTS}/settings"),
        entry("PUT", f"{CLIENTS}/settings", {"enabled": True}),
        entry("GET", CLIENTS),
        entry("POST", CLIENTS, PAIR),
        entry("DELETE", f"{CLIENTS}/{'1' * 32}"),
        entry("PATCH", f"{ZONE}/argo/smart_routing", {"value": "off"}),
    ],
    ids=lambda request_: f"{request_['method']} {request_['path'].rpartition('/')[2]}",
)
def test_described_requests_are_accepted(request_: dict[str, Any]) -> None:
    assert problems([request_]) == []


@described
@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (entry("GET", "/client/v4/zones", nam="a"), "'nam'"),
        (entry("PUT", "/client/v4/zones", {}), "no such operation"),
        (entry("GET", "/client/v4/nowhere"), "no such operation"),
        (entry("PATCH", f"{ZONE}/settings/ssl_automatic_mode", {"value": "of"}), "'of'"),
        (entry("PUT", ENTRY, {"rules": [RULE], "kind": "zone"}), "'kind' was unexpected"),
        (entry("PUT", ENTRY, {"rules": [{**RULE, "version": "1"}]}), "body/rules/0"),
        (entry("PUT", ENTRY, {"rules": [{**RULE, "action_parameters": {"polish": "of"}}]}), "body/rules/0"),
        (entry("PUT", ENTRY, {"rules": [{**RULE, "refs": "ours"}]}), "body/rules/0"),
        (entry("POST", f"{ZONE}/dns_records", {**RECORD, "content": "a.example"}), "body"),
        (entry("POST", f"{ZONE}/dns_records", {**RECORD, "proxy": True}), "body"),
        (entry("POST", f"{ZONE}/dns_records/batch", {"posts": [{**RECORD, "ttl": "1"}]}), "posts[0]"),
        (entry("POST", "/client/v4/certificates", {**CERTIFICATE, "requested_validity": 91}), "91"),
        (entry("GET", "/client/v4/certificates", zone="0" * 32), "'zone'"),
        (entry("POST", "/client/v4/certificates", {**CERTIFICATE, "key": "pem"}), "'key' was unexpected"),
        (entry("DELETE", "/client/v4/certificates/1", {"id": "1"}), "takes no body"),
        (entry("PUT", f"{CLIENTS}/settings", {"enabled": "on"}), "'on'"),
        (entry("PUT", CLIENTS, PAIR), "no such operation"),
        (entry("GET", CLIENTS, state="active"), "'state'"),
        (entry("POST", CLIENTS, {**PAIR, "enabled": True}), "certificate, private_key"),
        (entry("POST", CLIENTS, {"certificate": "pem"}), "certificate, private_key"),
        (entry("DELETE", f"{CLIENTS}/{'1' * 32}", {"id": "1"}), "no body"),
        (entry("DELETE", f"{ZONE}/dns_records/{'1' * 32}", {"a": 1}), "takes no body"),
    ],
    ids=lambda value: value if isinstance(value, str) else value["method"],
)
def test_other_requests_are_reported(request_: dict[str, Any], message: str) -> None:
    (problem, *_) = problems([request_])
    assert message in problem


@described
def test_rejected_requests_are_left_out_but_not_rate_limited_ones() -> None:
    wrong = {"path": "/client/v4/nowhere", "method": "GET", "query": {}, "body": None}
    assert problems([{**wrong, "status": status} for status in (400, 403, 404)]) == []
    assert len(problems([{**wrong, "status": status} for status in (0, 200, 429, 500)])) == 4
