"""cloudflare_zone: what the plan does not include, what the token may not do, and partial failures."""

import json

import pytest

from emulator.faults import Fault
from tests.kit.ansible_module import warnings
from tests.kit.cloudflare import ALL_RESOURCES, CACHE, GUIDE, RETRY_AT_ONCE


def test_argo_without_entitlement(run, refuses, cloudflare):
    assert not run(settings=None, argo=False)["changed"]
    refuses("not entitled to it", "Order it", settings=GUIDE, argo=True)
    result = run(settings=GUIDE, argo=True, unavailable="tolerate")
    assert cloudflare.zone.value("ssl") == "full"
    assert [one["resource"] for one in result["unavailable"]] == ["Argo Smart Routing"]


def test_argo_is_turned_on_and_off(run, cloudflare):
    cloudflare.zone.put_plan("pro")
    assert run(settings=None, argo=True)["after"] == {"argo": True}
    assert not run(settings=None, argo=True)["changed"]
    assert run(settings=None, argo=False)["after"] == {"argo": False}


def test_a_locked_setting_is_tolerated_on_request(run, cloudflare):
    result = run(settings={"ssl": "full", "polish": "lossy"}, unavailable="tolerate")
    assert [one["resource"] for one in result["changes"]] == ["setting ssl_automatic_mode", "setting ssl"]
    assert [(one["resource"], one["wanted"], one["found"]) for one in result["unavailable"]] == [
        ("setting polish", "lossy", "off")
    ]
    assert "It stays as it is." in warnings(result)


def test_an_unknown_setting_is_never_tolerated(refuses):
    refuses("no setting of that name", settings={"webbsockets": True}, unavailable="tolerate")


@pytest.mark.parametrize(
    ("permissions", "lacks"),
    [
        (["Zone Read"], ["Cache Rules Write", "Config Rules Write", "Zone Settings Write", "DNS Write"]),
        (["Zone Read", "Zone Settings Write", "DNS Read", "Cache Rules Write"], ["Config Rules Write"]),
        (
            ["Zone Read", "Zone Settings Read", "DNS Read", "Cache Rules Read", "Config Rules Read"],
            ["Zone Settings Write", "DNS Write"],
        ),
        (
            ["Zone Read", "Zone Settings Write", "DNS Read", "Cache Rules Write", "Config Rules Write"],
            ["DNS Write"],
        ),
    ],
)
def test_all_missing_permissions_are_named_before_the_first_write(run, cloudflare, permissions, lacks):
    cloudflare.zone.put_settings({"ssl": "flexible"})
    before = json.dumps(cloudflare.zone.store.data, sort_keys=True)
    cloudflare.api.token.put({"permissions": permissions})
    result = run(**ALL_RESOURCES)
    for name in lacks:
        assert name in result["msg"]
    assert "Nothing was written." in result["msg"]
    assert json.dumps(cloudflare.zone.store.data, sort_keys=True) == before


def test_without_zone_read_every_needed_permission_is_named(refuses, cloudflare):
    cloudflare.api.token.put({"permissions": ["DNS Write"]})
    refuses("In total the token needs: Zone Read, Cache Rules Write, Config", "DNS Write", **ALL_RESOURCES)


def test_a_read_only_token_is_enough_in_check_mode(run, cloudflare):
    reads = ["Zone Read", "Zone Settings Read", "DNS Read", "Cache Rules Read", "Config Rules Read"]
    cloudflare.api.token.put({"permissions": reads})
    assert len(run(check=True, **ALL_RESOURCES)["changes"]) == 7


def test_a_partial_run_is_completed_by_the_next(run, cloudflare):
    """Each write fails in turn, and those after it."""
    wanted = run(check=True, **ALL_RESOURCES)["after"]
    failed = 0
    for skip in range(8):
        cloudflare.zone.reset()
        # One of them is applied, and its response is lost.
        how = {"status": 503, "headers": RETRY_AT_ONCE, "applied": skip == 4}
        for method in ("PATCH", "POST"):
            fault = {"path": "/(settings|rulesets|dns)", "method": method, "skip": skip, "times": 9, **how}
            cloudflare.api.faults.append(Fault.read(fault))
        result = run(**ALL_RESOURCES)
        cloudflare.api.faults.clear()
        failed += "failed" in result
        again = run(**ALL_RESOURCES)
        assert again["after"] == wanted
        assert not run(**ALL_RESOURCES)["changed"]
    assert failed > 4


def test_a_rule_that_the_plan_does_not_include(run, cloudflare):
    """The Rulesets API reports this by a message without a specific code."""
    rule = {"settings": None, "rules": [CACHE]}
    cloudflare.fail("/rulesets$", 400, (20000, "not entitled to use cache settings"), method="POST")
    result = run(**rule)
    assert "the zone's plan does not include it" in result["msg"]
    assert [one["resource"] for one in result["unavailable"]] == ["rule managed"]
    result = run(**rule, unavailable="tolerate")
    assert not result["changed"]
    assert "It stays as it is." in warnings(result)
