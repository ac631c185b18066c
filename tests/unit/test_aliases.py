"""An alias of the site whose certificate, record or redirect is wrong is named."""

import copy

import pytest
from ansible_collections.screen_flow.live.plugins.module_utils.diagnosis import engine
from ansible_collections.screen_flow.live.plugins.module_utils.diagnosis.rules import RULES

from tests.kit.evidence import RECORDS, REDIRECT, WITH_ALIAS, change, healthy


def with_alias(**more):
    document = healthy()
    for path, value in (WITH_ALIAS | more).items():
        change(document, path, copy.deepcopy(value))
    return document


@pytest.mark.parametrize(
    ("changes", "rule", "words"),
    [
        ({}, None, ""),
        ({"edge/aliases": ...}, None, ""),
        (
            {
                "server/certificate/names": ["www.example.com"],
                "edge/aliases": {"example.com": REDIRECT | {"status": 526}},
            },
            "certificate_other_name",
            "is for www.example.com, not for example.com.",
        ),
        (
            {
                "edge/dns": RECORDS[:1],
                "edge/aliases": {"example.com": {"status": None, "location": "", "error": "No address."}},
            },
            "dns_missing",
            "no DNS record for example.com.",
        ),
        (
            {"edge/dns": [RECORDS[0], RECORDS[1] | {"proxied": False}]},
            "dns_not_proxied",
            "the DNS record of example.com is not proxied",
        ),
        (
            {"edge/dns": [RECORDS[0], RECORDS[1] | {"content": "203.0.113.9"}]},
            "dns_other_address",
            "the DNS record of example.com is 203.0.113.9, but",
        ),
        (
            {"edge/aliases": {"example.com": REDIRECT | {"status": 200, "location": ""}}},
            "alias_not_redirected",
            "returns HTTP 200 instead of a permanent redirect to https://www.example.com.",
        ),
        (
            {"edge/aliases": {"example.com": REDIRECT | {"location": "https://www.example.com/"}}},
            "alias_not_redirected",
            "to https://www.example.com/ instead of https://www.example.com/site-check?alias.",
        ),
        (
            {"edge/aliases": {"example.com": {"status": None, "location": "", "error": "Expired."}}},
            "alias_not_redirected",
            "example.com fails through the edge: Expired.",
        ),
    ],
)
def test_an_alias_whose_certificate_record_or_redirect_is_wrong_is_named(changes, rule, words):
    findings = engine.diagnose(with_alias(**changes), RULES, again=True).findings
    assert [finding.rule for finding in findings] == ([rule] if rule else [])
    assert all(words in finding.cause for finding in findings), findings
