"""cloudflare_zone beside other sites of the zone: what affects them is named, limited or refused."""

import pytest
from ansible_collections.screen_flow.live.plugins.module_utils.cloudflare import scope
from ansible_collections.screen_flow.live.plugins.module_utils.cloudflare.scope import in_effect
from ansible_collections.screen_flow.live.plugins.module_utils.evidence.edge import Options, zone
from ansible_collections.screen_flow.live.plugins.module_utils.evidence.gather import Deadline

from emulator.dns import record_for
from tests.kit.cloudflare import CACHE, CONFIG, TOKEN

HOST = "www.example.com"
PHASE = CONFIG["phase"]


@pytest.fixture
def others(cloudflare):
    """Two more sites in the zone, one of them with two records, and a record that is not proxied."""
    names = ["shop.example.com", "shop.example.com", "*.dev.example.com", HOST]
    records = [record_for(name, f"192.0.2.{number}") for number, name in enumerate(names)]
    direct = {"type": "A", "name": "mail.example.com", "content": "192.0.2.9", "proxied": False}
    cloudflare.zone.dns.put([*records, direct, {"type": "TXT", "name": "example.com", "content": "v=spf1"}])
    return ["*.dev.example.com", "shop.example.com"]


@pytest.fixture
def shown(tmp_path):
    """The lines that the action plugin shows while the module runs; warnings are those of all runs."""
    return tmp_path / "progress"


@pytest.fixture
def run(run, shown):
    """Run cloudflare_zone with a file for these lines."""
    return lambda check=False, **arguments: run(check, progress_file=str(shown), **arguments)


@pytest.mark.parametrize("check", [False, True])
def test_other_hosts_are_named_before_the_first_write(run, cloudflare, others, shown, check):
    seen = []
    answer = cloudflare.api._answer

    def record(request, path, *rest):
        if request.method != "GET":
            seen.append(shown.read_text())
        return answer(request, path, *rest)

    cloudflare.api._answer = record
    try:
        result = run(check, hosts=[HOST])
    finally:
        del cloudflare.api._answer
    assert result["changed"]
    assert result["affected_hosts"] == others
    written = "ssl_automatic_mode, rocket_loader, ssl, websockets"
    assert f"These settings apply to the whole zone example.com: {written}. " in shown.read_text()
    names = "*.dev.example.com, shop.example.com"
    assert f"Their change affects other proxied host names as well: {names}. " in shown.read_text()
    assert "cloudflare_zone_scope host" in shown.read_text()
    assert bool(seen) is not check
    assert all("shop.example.com" in text for text in seen)


def test_without_a_change_of_the_zone_nothing_is_listed(run, cloudflare, others):
    run(hosts=[HOST])
    cloudflare.api.journal.clear()
    result = run(hosts=[HOST], rules=[CACHE])
    assert result["changed"]
    assert "affected_hosts" not in result
    assert not [entry for entry in cloudflare.api.journal if "dns_records" in entry["path"]]


def test_a_zone_of_one_site_affects_nobody(run, cloudflare, shown):
    result = run(hosts=["example.com"])
    assert result["affected_hosts"] == []
    assert not shown.exists()


def test_all_pages_are_read_and_a_long_list_is_shortened_in_the_message(run, cloudflare, shown, monkeypatch):
    monkeypatch.setattr(scope, "PAGE_LENGTH", 5)
    names = [f"{letter}.example.com" for letter in "abcdefghijklm"]
    cloudflare.zone.dns.put([record_for(name, "192.0.2.1") for name in names])
    result = run(hosts=["a.example.com"])
    assert result["affected_hosts"] == names[1:]
    assert "k.example.com and 2 more." in shown.read_text()
    assert "l.example.com" not in shown.read_text()


def test_argo_affects_the_whole_zone(run, cloudflare, shown, others):
    cloudflare.zone.put_plan("pro")
    result = run(settings=None, argo=True, hosts=[HOST])
    assert result["affected_hosts"] == others
    assert "the whole zone example.com: Argo Smart Routing." in shown.read_text()


def test_a_token_that_may_not_list_the_hosts_says_so(run, cloudflare, shown, others):
    cloudflare.fail("/dns_records$", 403, (10000, "Authentication error"))
    cloudflare.succeed("/verify$", {"status": "active"})
    result = run(hosts=[HOST])
    assert "affected_hosts" not in result
    assert "The host names that their change affects are unknown. " in shown.read_text()
    assert "DNS Write" in shown.read_text()
    assert cloudflare.zone.value("ssl") == "full"


# The lowest TLS version.


@pytest.mark.parametrize(
    ("current", "wanted", "result"),
    [("1.0", ">=1.2", "1.2"), ("1.2", ">=1.2", "1.2"), ("1.3", ">=1.2", "1.3")],
)
def test_the_lowest_tls_version_is_only_raised(run, cloudflare, current, wanted, result):
    cloudflare.zone.put_settings({"min_tls_version": current})
    assert run(settings={"min_tls_version": wanted})["changed"] is (current != result)
    assert cloudflare.zone.value("min_tls_version") == result


@pytest.mark.parametrize("wanted", ["1.2", 1.2])
def test_a_lower_tls_version_is_refused_unless_it_is_allowed(run, refuses, cloudflare, wanted):
    cloudflare.zone.put_settings({"min_tls_version": "1.3"})
    settings = {"min_tls_version": wanted, "http3": True}
    refuses(
        "set zone setting min_tls_version to 1.2: the zone requires 1.3",
        "use 1.3 or '>=1.2'",
        "cloudflare_zone_lower_min_tls_version",
        "Nothing was written.",
        settings=settings,
    )
    refuses("the zone requires 1.3", settings=settings, check=True, unavailable="tolerate")
    assert run(settings=settings, lower_min_tls_version=True)["changed"]
    assert cloudflare.zone.value("min_tls_version") == "1.2"


@pytest.mark.parametrize("value", ["1.4", ">=1", "> 1.2", True])
def test_a_tls_version_that_does_not_exist_is_refused(refuses, value):
    refuses(
        f"settings has '{value}' for min_tls_version: use one of 1.0,", settings={"min_tls_version": value}
    )


# The scope of one host.

GUIDE = {"ssl": "strict", "rocket_loader": False, "websockets": True}


def rules(cloudflare):
    return {
        rule["ref"]: (rule["action_parameters"], rule["expression"]) for rule in cloudflare.rules(PHASE) or []
    }


def test_a_hosts_settings_are_rules_and_the_zones_stay(run, cloudflare, shown, others):
    result = run(settings=GUIDE, hosts=[HOST, "example.com"], scope="host")
    expression = f'http.host in {{"{HOST}" "example.com"}}'
    assert rules(cloudflare) == {
        "screen_flow_host_ssl": ({"ssl": "strict"}, expression),
        "screen_flow_host_rocket_loader": ({"rocket_loader": False}, expression),
    }
    assert cloudflare.settings_written() == [("websockets", "on")]
    assert result["after"]["settings"] == {"websockets": "on"}
    assert "the whole zone example.com: websockets. Their" in shown.read_text()
    assert not run(settings=GUIDE, hosts=[HOST, "example.com"], scope="host")["changed"]


def test_a_scope_of_hosts_without_a_change_of_the_zone_affects_nobody(run, cloudflare, others):
    cloudflare.zone.put_settings({"websockets": "on"})
    result = run(settings=GUIDE, hosts=[HOST], scope="host")
    assert result["changed"]
    assert "affected_hosts" not in result


def test_a_hosts_rules_come_first_so_that_the_websocket_rule_overrides_them(run, cloudflare):
    own = {"action": "set_config", "action_parameters": {"rocket_loader": False}, "expression": "true"}
    cloudflare.edit_rules("PUT", f"/phases/{PHASE}/entrypoint", {"rules": [{"ref": "theirs", **own}]})
    run(settings={"rocket_loader": True}, rules=[CONFIG], hosts=[HOST], scope="host")
    assert [rule["ref"] for rule in cloudflare.rules(PHASE)] == [
        "screen_flow_host_rocket_loader",
        "theirs",
        "managed",
    ]


def test_the_scope_of_the_zone_removes_a_hosts_rules_once_the_settings_are_written(run, cloudflare):
    run(settings=GUIDE, hosts=[HOST], scope="host")
    cloudflare.api.journal.clear()
    run(settings=GUIDE, hosts=[HOST])
    assert rules(cloudflare) == {}
    changes = [
        entry["method"]
        for entry in cloudflare.api.journal
        if entry["method"] in ("PATCH", "DELETE") and not entry["query"] and entry["status"] == 200
    ]
    assert changes == ["PATCH"] * 3 + ["DELETE"] * 2
    assert cloudflare.zone.value("ssl") == "strict"


def test_only_settings_that_are_named_lose_their_rule(run, cloudflare):
    """As when a role sets the SSL mode alone."""
    run(settings=GUIDE, hosts=[HOST], scope="host")
    run(settings={"ssl": "full"}, hosts=[HOST], scope="host")
    assert rules(cloudflare)["screen_flow_host_ssl"][0] == {"ssl": "full"}
    assert rules(cloudflare)["screen_flow_host_rocket_loader"][0] == {"rocket_loader": False}


@pytest.mark.parametrize(("value", "mode"), [(False, "off"), ("off", "off"), ("full", "full")])
def test_ssl_off_may_be_a_yaml_boolean_in_a_rule(run, cloudflare, value, mode):
    run(settings={"ssl": value}, hosts=[HOST], scope="host")
    assert rules(cloudflare)["screen_flow_host_ssl"][0] == {"ssl": mode}


def test_a_snapshot_restores_the_rules_of_a_scope(run, cloudflare):
    before = run(settings=GUIDE, hosts=[HOST], scope="host", check=True)["before"]
    run(settings=GUIDE, hosts=[HOST], scope="host")
    held = run(settings=GUIDE, hosts=[HOST], scope="host", check=True)["before"]
    run(settings=before["settings"], rules=before["rules"], hosts=[HOST])
    assert rules(cloudflare) == {}
    run(settings=held["settings"], rules=held["rules"], hosts=[HOST])
    assert rules(cloudflare)["screen_flow_host_ssl"][0] == {"ssl": "strict"}


def test_a_scope_of_hosts_needs_hosts(refuses):
    refuses("scope is host, but hosts is empty", scope="host")


def test_evidence_has_the_settings_of_the_host_from_the_zone_of_that_id(run, cloudflare):
    run(settings=GUIDE, hosts=[HOST], scope="host")
    cloudflare.fail("/zones$", 500)
    site = {"url": f"https://{HOST}", "aliases": [], "websocket_path": "/ws/", "address": "", "port": 443}
    given = {
        "targets": [],
        "api_token": TOKEN,
        "api_base_url": cloudflare.url,
        "ca_file": None,
        "timeout": 5,
        "deadline": 6,
    }
    options = Options(**site, **given, zone="example.com", zone_id=cloudflare.zone.id)
    found = zone(options, Deadline(6))["settings"]["value"]
    assert (cloudflare.zone.value("ssl"), found["ssl"]) == ("flexible", "strict")
    assert (cloudflare.zone.value("rocket_loader"), found["rocket_loader"]) == ("on", "off")


def test_what_is_in_effect_for_the_host_is_its_rules():
    zone = {"ssl": "flexible", "rocket_loader": "on", "websockets": "on"}
    ssl = {"ref": "screen_flow_host_ssl", "enabled": True, "action_parameters": {"ssl": "strict"}}
    loader = {"ref": "screen_flow_host_rocket_loader", "action_parameters": {"rocket_loader": False}}
    assert in_effect(zone, [ssl, loader]) == {"ssl": "strict", "rocket_loader": "off", "websockets": "on"}
    assert in_effect(zone, [ssl | {"enabled": False}, {**ssl, "ref": "theirs"}]) == zone
