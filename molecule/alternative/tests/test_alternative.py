"""The zone with every default turned round: what the role wrote, and what it could not have."""

import json
import os
import urllib.request

with urllib.request.urlopen(f"http://127.0.0.1:{os.environ['TESTBED_PORT_API']}/_emulator/state") as answer:
    STATE = json.load(answer)


def test_every_setting_is_the_other_way_round():
    values = {name: setting["value"] for name, setting in STATE["settings"].items()}
    wanted = {
        "ssl": "off",
        "ssl_automatic_mode": "custom",
        "websockets": "off",
        "rocket_loader": "on",
        "http3": "off",
        "min_tls_version": "1.0",
        "tls_1_3": "off",
        "always_use_https": "off",
        "polish": "lossy",
        "browser_cache_ttl": 600,
        "0rtt": "on",
    }
    assert {name: values[name] for name in wanted} == wanted


def test_what_the_plan_does_not_include_is_left():
    assert STATE["settings"]["max_upload"]["value"] == 100


def test_there_are_no_rules():
    assert [rule for ruleset in STATE["rulesets"] for rule in ruleset["rules"]] == []


def test_another_host_of_the_zone_leads_to_the_origin():
    found = [(one["type"], one["content"]) for one in STATE["dns"] if one["name"].startswith("www.")]
    assert found == [("AAAA", "2001:db8::7")]
