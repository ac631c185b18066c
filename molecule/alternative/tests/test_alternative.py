"""The role cloudflare_zone with every default inverted: what it writes, and what the plan excludes."""

import json
import os
import urllib.request

with urllib.request.urlopen(f"http://127.0.0.1:{os.environ['TESTBED_PORT_API']}/_emulator/state") as answer:
    STATE = json.load(answer)


def test_every_setting_has_the_inverted_value():
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


def test_a_setting_that_the_plan_does_not_include_is_unchanged():
    assert STATE["settings"]["max_upload"]["value"] == 100


def test_there_are_no_rules():
    assert [rule for ruleset in STATE["rulesets"] for rule in ruleset["rules"]] == []


def test_another_host_of_the_zone_and_the_zone_as_its_alias_point_to_the_origin():
    found = [(record["name"], record["type"], record["content"]) for record in STATE["dns"]]
    assert sorted(found) == [
        ("screen-flow.localhost", "AAAA", "2001:db8::7"),
        ("www.screen-flow.localhost", "AAAA", "2001:db8::7"),
    ]
