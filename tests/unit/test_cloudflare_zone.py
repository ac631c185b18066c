"""cloudflare_zone over the emulated Cloudflare: what it writes, what it says when it can't."""

import copy
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
import uvicorn
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.screen_flow.live.plugins.doc_fragments.cloudflare import ModuleDocFragment
from ansible_collections.screen_flow.live.plugins.module_utils.cloudflare import client as cloudflare_api
from ansible_collections.screen_flow.live.plugins.module_utils.cloudflare import resource as cloudflare_things
from ansible_collections.screen_flow.live.plugins.module_utils.cloudflare import rules as cloudflare_rules
from ansible_collections.screen_flow.live.plugins.module_utils.cloudflare import (
    settings as cloudflare_settings,
)
from ansible_collections.screen_flow.live.plugins.modules import cloudflare_zone as module

from emulator.api import PREFIX, Api
from emulator.faults import Edit, Fault
from emulator.zone import Fresh, Zone
from tests.kit import cloudflare_description as description

ROOT = Path(__file__).parents[2]
TOKEN = "the-token-that-must-never-be-seen-anywhere-0123456789"
GUIDE = {"ssl": "full", "websockets": True, "rocket_loader": False}
AT_ONCE = {"retry-after-ms": "1"}


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    """One emulated Cloudflare: its zone, its api (journal, faults), its URL."""
    folder = tmp_path_factory.mktemp("cloudflare")
    fresh = Fresh("example.com", settings={"ssl": "flexible", "websockets": "off", "rocket_loader": "on"})
    zone = Zone(folder / "zone.json", fresh)
    api = Api(zone, TOKEN)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(api, http="h11", lifespan="off", log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}{PREFIX}"
        yield SimpleNamespace(zone=zone, api=api, url=url)
        server.should_exit = True
        thread.join()


@pytest.fixture
def cloudflare(emulated):
    emulated.zone.reset()
    emulated.api.reset()
    yield emulated
    if description.PATH.exists():
        assert description.problems(emulated.api.journal) == []


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch):
    for name in [name for name in os.environ if name.startswith("CLOUDFLARE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def run(cloudflare, capsys):
    """Run the module over the zone; return what it says."""

    def call(check=False, **arguments):
        defaults = {
            "zone": "example.com",
            "api_token": TOKEN,
            "api_base_url": cloudflare.url,
            "settings": GUIDE,
        }
        arguments = {name: value for name, value in (defaults | arguments).items() if value is not None}
        with patch_module_args({**arguments, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            module.main()
        said = capsys.readouterr().out
        assert TOKEN not in said
        return json.loads(said)

    return call


def changed(said):
    """Return the names of what changed, in order; of settings without the word."""
    return [change["thing"].removeprefix("setting ") for change in said["changes"]]


@pytest.fixture
def fault(cloudflare):
    """Let the API answer the next requests for a path with something else."""

    def call(path, status=400, *errors, body=None, times=99, **more):
        if body is None:
            entries = [{"code": code, "message": message} for code, message in errors]
            body = {"success": False, "errors": entries, "messages": [], "result": None}
        cloudflare.api.faults.append(Fault(path=path, status=status, body=body, times=times, **more))

    return call


def written(cloudflare):
    """Return (setting, value) of every write of a setting that the API saw, in order."""
    return [
        (entry["path"].rsplit("/", 1)[1], entry["body"]["value"])
        for entry in cloudflare.api.journal
        if entry["method"] != "GET"
        and "/settings/" in entry["path"]
        and "permission_check" not in entry["path"]
    ]


def verified(cloudflare):
    """Tell whether the module asked Cloudflare about its token."""
    return any(entry["path"].endswith("/verify") for entry in cloudflare.api.journal)


def warnings(said):
    return " ".join(warning["event"]["msg"] for warning in said.get("warnings", []))


# What it does.


def test_sets_what_the_guide_asks_in_an_order_that_serves(run, cloudflare):
    said = run()
    assert written(cloudflare) == [
        ("ssl_automatic_mode", "custom"),
        ("rocket_loader", "off"),
        ("ssl", "full"),
        ("websockets", "on"),
    ]
    assert said["changed"]
    assert changed(said) == [name for name, _ in written(cloudflare)]
    assert said["zone_id"] == cloudflare.zone.id
    assert said["before"]["settings"] == {
        "ssl_automatic_mode": "auto",
        "rocket_loader": "on",
        "ssl": "flexible",
        "websockets": "off",
    }
    assert said["after"]["settings"] == {
        name: cloudflare.zone.value(name) for name in said["before"]["settings"]
    }


def test_a_second_run_writes_nothing_and_asks_once_for_each_thing(run, cloudflare):
    run()
    cloudflare.api.journal.clear()
    said = run()
    assert not said["changed"]
    assert said["changes"] == []
    assert said["diff"] == []
    assert [entry["method"] for entry in cloudflare.api.journal] == ["GET"] * 5  # the zone and four settings


def test_all_is_read_before_the_first_write(run, cloudflare):
    run()
    methods = [entry["method"] for entry in cloudflare.api.journal]
    assert methods == sorted(methods)


def test_a_dry_run_says_what_a_run_does_and_writes_nothing(run, cloudflare):
    dry = run(check=True)
    assert written(cloudflare) == []
    assert cloudflare.zone.value("ssl") == "flexible"
    wet = run()
    assert {**wet, "calls": None} == {**dry, "calls": None}


def test_the_diff_shows_what_changes_setting_by_setting(run):
    run(settings={"websockets": True})
    shown = [
        (part["before_header"], part["after_header"], part["before"], part["after"])
        for part in run(check=True)["diff"]
    ]
    assert shown == [
        (f"zone example.com, setting {name}", f"zone example.com, setting {name}", before, after)
        for name, before, after in [
            ("ssl_automatic_mode", "auto\n", "custom\n"),
            ("rocket_loader", "on\n", "off\n"),
            ("ssl", "flexible\n", "full\n"),
        ]
    ]


def test_a_mapping_has_a_line_for_each_key_in_the_diff():
    diff = cloudflare_things.as_diff("minify", {"js": "on", "css": "off"}, {"js": "on", "css": "on"})
    assert diff["before"].splitlines() == ["{", '  "css": "off",', '  "js": "on"', "}"]
    assert diff["after"].splitlines() == ["{", '  "css": "on",', '  "js": "on"', "}"]


def test_only_what_differs_is_written(run, cloudflare):
    cloudflare.zone.put_settings({"ssl": "full", "websockets": "on"})
    assert changed(run(settings={"ssl": "full", "websockets": True, "http3": True})) == [
        "ssl_automatic_mode",
        "http3",
    ]


def test_the_zone_can_be_given_by_its_id(run, cloudflare):
    assert run(zone=None, zone_id=cloudflare.zone.id)["changed"]
    assert not any(entry["path"].endswith("/zones") for entry in cloudflare.api.journal)


def test_numbers_and_booleans_take_the_form_that_cloudflare_has(run, cloudflare):
    run(settings={"min_tls_version": 1.2, "browser_cache_ttl": 600, "0rtt": True})
    assert written(cloudflare) == [("min_tls_version", "1.2"), ("browser_cache_ttl", 600), ("0rtt", "on")]


@pytest.mark.parametrize(
    ("value", "current", "wanted"),
    [
        (True, "off", "on"),
        (False, None, "off"),
        (True, "zrt", "zrt"),
        (False, "zrt", "off"),
        (False, True, False),
        (1.2, "1.0", "1.2"),
        (600, 14400, 600),
        ("strict", "full", "strict"),
        (["A"], ["B"], ["A"]),
        ({"css": True}, {"css": "off", "js": "on"}, {"css": "on", "js": "on"}),
    ],
)
def test_values_from_yaml(value, current, wanted):
    assert cloudflare_settings.in_cloudflares_form(value, current) == wanted


def test_https_is_required_no_longer_before_it_is_gone(run, cloudflare):
    cloudflare.zone.put_settings({"ssl": "full", "always_use_https": "on", "ssl_automatic_mode": "custom"})
    run(settings={"ssl": False, "always_use_https": False})
    assert written(cloudflare) == [("always_use_https", "off"), ("ssl", "off")]


def test_a_stray_email_and_key_in_the_environment_change_nothing(run, monkeypatch):
    for name in ("EMAIL", "API_KEY", "API_USER_SERVICE_KEY", "API_TOKEN", "BASE_URL"):
        monkeypatch.setenv(f"CLOUDFLARE_{name}", "https://stray.example.com")
    assert run()["changed"]


def test_the_token_may_come_from_the_environment(run, monkeypatch):
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", TOKEN)
    assert run(api_token=None)["changed"]


def test_a_moment_of_trouble_is_got_over(run, fault):
    fault("/settings/ssl", 503, times=2, headers=AT_ONCE, method="GET")
    assert run()["changed"]


# Pinning the SSL mode.


def test_a_mode_that_can_not_be_pinned_is_a_warning(run, cloudflare, fault):
    fault("/ssl_automatic_mode", 400, (1057, "cannot be modified"), method="PATCH")
    said = run()
    assert cloudflare.zone.value("ssl") == "full"
    assert changed(said) == ["rocket_loader", "ssl", "websockets"]
    assert said["after"]["settings"]["ssl_automatic_mode"] == "auto"
    assert "Cloudflare may change the SSL mode by itself." in warnings(said)


@pytest.mark.parametrize("editable", [False, None])
def test_a_pin_that_is_locked_or_unknown_is_not_even_tried(run, cloudflare, fault, editable):
    if editable is None:
        fault("/ssl_automatic_mode", 404, (7003, "Could not route"))
    else:
        cloudflare.zone.put_settings({"ssl_automatic_mode": {"editable": False}})
    assert "Cloudflare may change the SSL mode by itself" in warnings(run())
    assert "ssl_automatic_mode" not in dict(written(cloudflare))
    assert cloudflare.zone.value("ssl") == "full"


def test_an_automatic_mode_that_is_asked_for_is_kept(run, cloudflare):
    run(settings={"ssl": "full", "ssl_automatic_mode": "auto"})
    assert written(cloudflare) == [("ssl", "full")]


def test_nothing_is_pinned_where_ssl_is_not_asked_for(run, cloudflare):
    run(settings={"websockets": True})
    assert written(cloudflare) == [("websockets", "on")]


# Rules.

CACHE = {
    "phase": "http_request_cache_settings",
    "ref": "ours",
    "action": "set_cache_settings",
    "action_parameters": {"cache": False},
    "expression": 'starts_with(http.request.uri.path, "/ws/")',
}
CONFIG = {
    "phase": "http_config_settings",
    "ref": "ours",
    "action": "set_config",
    "action_parameters": {"rocket_loader": False, "polish": "off"},
    "expression": 'starts_with(http.request.uri.path, "/ws/")',
}


def foreign(number, **more):
    """Return somebody else's cache rule."""
    return {
        "ref": f"theirs_{number}",
        "action": "set_cache_settings",
        "action_parameters": {"cache": True},
        "expression": f'http.request.uri.path eq "/{number}"',
        "description": "Theirs",
        **more,
    }


def entrypoint(cloudflare, phase=CACHE["phase"]):
    """Return the phase's rules as the API shows them; None where it has no ruleset."""
    rulesets = {ruleset["phase"]: ruleset["rules"] for ruleset in cloudflare.zone.rulesets.all}
    return copy.deepcopy(rulesets.get(phase))


def edit(cloudflare, method, path, body=None):
    """Write to the phase of the cache as somebody else."""
    return cloudflare.api.edit(Edit(method, "/zones/{zone}/rulesets" + path, body))["result"]


def theirs(rules):
    return [rule for rule in rules or [] if rule["ref"] != "ours"]


def ours(rules):
    return next((rule for rule in rules or [] if rule["ref"] == "ours"), None)


def writes(cloudflare):
    """Return every request of the journal that wrote something."""
    return [
        (entry["method"], entry["path"].split("/rulesets")[-1])
        for entry in cloudflare.api.journal
        if entry["method"] != "GET" and entry["status"] == 200 and "dry_run" not in entry["query"]
    ]


ENTRYPOINT = f"/phases/{CACHE['phase']}/entrypoint"


def test_a_phase_without_rules_gets_ours(run, cloudflare):
    said = run(settings=None, rules=[CACHE, CONFIG])
    assert [change["how"] for change in said["changes"]] == ["missing", "missing"]
    assert len(entrypoint(cloudflare)) == len(entrypoint(cloudflare, CONFIG["phase"])) == 1
    assert entrypoint(cloudflare)[0]["action_parameters"] == {"cache": False}
    cloudflare.api.journal.clear()
    assert not run(settings=None, rules=[CACHE, CONFIG])["changed"]
    assert [entry["method"] for entry in cloudflare.api.journal] == ["GET"] * 3  # the zone and two phases


def test_ours_comes_last_and_theirs_keep_content_and_order(run, cloudflare):
    edit(cloudflare, "PUT", ENTRYPOINT, {"rules": [foreign(1), foreign(2, enabled=False)]})
    before = entrypoint(cloudflare)
    run(settings=None, rules=[CACHE])
    assert entrypoint(cloudflare)[:2] == before
    assert ours(entrypoint(cloudflare)) is not None
    said = run(settings=None, rules=[{"phase": CACHE["phase"], "ref": "ours", "state": "absent"}])
    assert [change["how"] for change in said["changes"]] == ["added"]
    assert entrypoint(cloudflare) == before


def test_ours_changed_by_hand_is_set_back_where_it_stands(run, cloudflare):
    altered = {**CACHE, "enabled": False}
    del altered["phase"]
    edit(cloudflare, "PUT", ENTRYPOINT, {"rules": [foreign(1), altered, foreign(2)]})
    before = entrypoint(cloudflare)
    said = run(settings=None, rules=[CACHE])
    assert [change["how"] for change in said["changes"]] == ["changed"]
    after = entrypoint(cloudflare)
    assert (after[0], after[2]) == (before[0], before[2])
    assert after[1]["enabled"]


def test_a_dry_run_of_rules_writes_nothing_and_tells_the_same(run, cloudflare):
    dry = run(check=True, settings=None, rules=[CACHE])
    assert entrypoint(cloudflare) is None
    assert {entry["method"] for entry in cloudflare.api.journal} == {"GET"}
    wet = run(settings=None, rules=[CACHE])
    assert (wet["changes"], wet["diff"]) == (dry["changes"], dry["diff"])


def test_a_ruleset_made_between_read_and_write_is_kept(run, cloudflare):
    body = {"rules": [foreign(1)]}
    made = {"method": "PUT", "path": "/zones/{zone}/rulesets" + ENTRYPOINT, "body": body}
    # The first POST is the dry run.
    cloudflare.api.faults.append(
        Fault.read({"path": "/rulesets$", "method": "POST", "skip": 1, "edits": [made]})
    )
    said = run(settings=None, rules=[CACHE])
    assert [rule["ref"] for rule in entrypoint(cloudflare)] == ["theirs_1", "ours"]
    assert "Somebody else changed the rules" in warnings(said)


def test_somebody_who_edits_ours_all_the_time_is_named(run, cloudflare):
    body = {**CACHE, "enabled": False}
    del body["phase"]
    edit(cloudflare, "PUT", ENTRYPOINT, {"rules": [body, foreign(1)]})
    gone = {"method": "PUT", "path": "/zones/{zone}/rulesets" + ENTRYPOINT}
    faults = [{"body": {"rules": [foreign(number), {**body, "ref": "ours"}]}} for number in range(9)]
    for fault in faults:
        # Somebody replaces the whole ruleset, and with it the id of our rule, before each PATCH.
        edits = [{**gone, "body": {"rules": []}}, {**gone, **fault}]
        cloudflare.api.faults.append(
            Fault.read({"path": "/rules/", "method": "PATCH", "times": 1, "skip": 0, "edits": edits})
        )
    said = run(settings=None, rules=[CACHE])
    assert said["failed"]
    assert "somebody else changed it 4 times" in said["msg"]


def test_a_rule_that_cloudflare_does_not_take(run, cloudflare):
    message = refuses(
        run, cloudflare, "Can't write rule ours", settings=None, rules=[{**CACHE, "expression": "what?"}]
    )
    assert "20127" in message
    assert entrypoint(cloudflare) is None


class Interrupted(cloudflare_api.CloudflareApi):
    """The API, with somebody else at work before each of our requests."""

    before_each = staticmethod(lambda: None)

    def call(self, call):
        self.before_each()
        return super().call(call)


def somebody(random, cloudflare):
    """Do one write that somebody else may do, theirs or to ours; return whether it touched only theirs."""
    rules = entrypoint(cloudflare)
    number = random.randrange(1_000_000)
    if rules is None:
        edit(cloudflare, "PUT", ENTRYPOINT, {"rules": [foreign(number)]})
        return
    ruleset = next(one["id"] for one in cloudflare.zone.rulesets.all if one["phase"] == CACHE["phase"])
    kept = [{key: rule[key] for key in foreign(0).keys() | {"enabled"} if key in rule} for rule in rules]
    which = random.choice(rules)["id"] if rules else None
    match random.choice(["add", "first", "change", "move", "remove", "replace"]):
        case "add" if len(rules) < 9:
            edit(cloudflare, "POST", f"/{ruleset}/rules", foreign(number))
        case "first" if len(rules) < 9:
            edit(cloudflare, "POST", f"/{ruleset}/rules", {**foreign(number), "position": {"index": 1}})
        case "change" if which:
            rule = next(rule for rule in rules if rule["id"] == which)
            body = {**foreign(number), "ref": rule["ref"], "enabled": random.random() < 0.5}
            edit(cloudflare, "PATCH", f"/{ruleset}/rules/{which}", body)
        case "move" if which:
            edit(cloudflare, "PATCH", f"/{ruleset}/rules/{which}", {"position": {"index": 1}})
        case "remove" if which:
            edit(cloudflare, "DELETE", f"/{ruleset}/rules/{which}")
        case "replace":
            # As a dashboard does: the whole ruleset in another order, some left out, each rule made anew.
            random.shuffle(kept)
            edit(cloudflare, "PUT", f"/{ruleset}", {"rules": kept[:8]})


@pytest.mark.parametrize("block", range(10))
def test_no_foreign_rule_is_lost_in_a_thousand_runs_with_somebody_else_at_work(cloudflare, block):
    """Their rules, their order and versions are after our run what their last write made of them."""
    zone = cloudflare_api.Zone(cloudflare.zone.id, "example.com")
    api = Interrupted(TOKEN, cloudflare.url)
    met = refused = 0
    for seed in range(block * 100, block * 100 + 100):
        random = Random(seed)
        cloudflare.zone.rulesets.clear()
        for _ in range(random.randrange(4)):
            somebody(random, cloudflare)
        if random.random() < 0.5:
            own = {name: value for name, value in CACHE.items() if name != "phase"}
            mixed = [*theirs(entrypoint(cloudflare)), {**own, "enabled": random.random() < 0.5}]
            mixed = [
                {key: rule[key] for key in {*own, "enabled", "description"} if key in rule} for rule in mixed
            ]
            random.shuffle(mixed)
            edit(cloudflare, "PUT", ENTRYPOINT, {"rules": mixed})
        last = [entrypoint(cloudflare)]

        def interrupt(random=random, last=last):
            if random.random() < 0.5:
                somebody(random, cloudflare)
                last[0] = entrypoint(cloudflare)

        api.before_each = interrupt
        wanted = {**CACHE, "state": random.choice(["present", "present", "absent"])}
        rules = cloudflare_rules.Rules(api, zone, [wanted])
        [thing] = rules.read()
        try:
            if thing.differs:
                thing.write()
        except cloudflare_api.CloudflareFailure as failure:
            assert "somebody else changed it" in str(failure), f"seed {seed}: {failure}"
            refused += 1
        else:
            if thing.differs:
                found = cloudflare_rules.in_short(ours(entrypoint(cloudflare)))
                assert found == thing.wanted, f"seed {seed}"
        met += bool(rules.warnings)
        assert theirs(entrypoint(cloudflare)) == theirs(last[0]), f"seed {seed}"
    # The test would prove nothing if nobody ever came in between.
    assert met > 10
    assert refused < 20


# DNS.

SITE = {
    "name": "www.example.com",
    "records": [{"type": "A", "content": "192.0.2.1"}, {"type": "AAAA", "content": "2001:db8::1"}],
}
OTHERS = [
    {"type": "A", "name": "example.com", "content": "198.51.100.1"},
    {"type": "TXT", "name": "www.example.com", "content": "keep me"},
    {"type": "MX", "name": "example.com", "content": "mail.example.com"},
]


def records(cloudflare, name="www.example.com"):
    return sorted(
        (one["type"], one["content"], one["proxied"])
        for one in cloudflare.zone.dns.all
        if one["name"] == name
    )


WANTED = [("A", "192.0.2.1", True), ("AAAA", "2001:db8::1", True), ("TXT", "keep me", False)]


@pytest.mark.parametrize(
    ("there", "how", "request_parts"),
    [
        ([], "missing", {"posts"}),
        ([("A", "192.0.2.1", True)], "changed", {"posts"}),
        ([("A", "192.0.2.1", False), ("AAAA", "2001:db8::1", True)], "changed", {"patches"}),
        ([("A", "198.51.100.7", True)], "changed", {"patches", "posts"}),
        ([("CNAME", "elsewhere.example.net", False)], "changed", {"deletes", "posts"}),
        (
            [("A", "192.0.2.1", True), ("AAAA", "2001:db8::1", True), ("A", "198.51.100.7", True)],
            "added",
            {"deletes"},
        ),
    ],
)
def test_the_sites_name_gets_its_records_and_others_keep_theirs(run, cloudflare, there, how, request_parts):
    made = [
        {"type": kind, "name": "www.example.com", "content": content, "proxied": proxied}
        for kind, content, proxied in there
    ]
    cloudflare.zone.dns.put([*OTHERS, *made])
    before = [
        one for one in cloudflare.zone.dns.all if one["name"] != "www.example.com" or one["type"] == "TXT"
    ]
    said = run(settings=None, dns=SITE)
    assert [change["how"] for change in said["changes"]] == [how]
    assert records(cloudflare) == WANTED
    assert [one for one in cloudflare.zone.dns.all if one in before] == before
    batches = [entry["body"] for entry in cloudflare.api.journal if entry["path"].endswith("/batch")]
    # The first asked for the permission; all of the change is one request.
    assert [set(body) for body in batches] == [{"posts"}, request_parts]
    cloudflare.api.journal.clear()
    assert not run(settings=None, dns=SITE)["changed"]
    assert [entry["method"] for entry in cloudflare.api.journal] == ["GET", "GET"]


def test_a_record_keeps_its_id_and_comment_when_its_address_changes(run, cloudflare):
    cloudflare.zone.dns.put(
        [{"type": "A", "name": "www.example.com", "content": "198.51.100.7", "comment": "Ours"}]
    )
    before = cloudflare.zone.dns.all[0]
    run(settings=None, dns={"name": "www.example.com", "records": SITE["records"][:1]})
    after = cloudflare.zone.dns.all[0]
    assert (after["id"], after["comment"], after["content"]) == (before["id"], "Ours", "192.0.2.1")


def test_a_record_that_somebody_removes_meanwhile(run, cloudflare):
    cloudflare.zone.dns.put([{"type": "A", "name": "www.example.com", "content": "198.51.100.7"}])
    path = f"/zones/{{zone}}/dns_records/{cloudflare.zone.dns.all[0]['id']}"
    edits = [{"method": "DELETE", "path": path}]
    cloudflare.api.faults.append(Fault.read({"path": "/batch$", "method": "POST", "skip": 1, "edits": edits}))
    said = run(settings=None, dns=SITE)
    assert records(cloudflare) == WANTED[:2]
    assert "Somebody else changed the DNS records" in warnings(said)


@pytest.mark.parametrize(
    ("dns", "words"),
    [
        (
            {"name": "www.example.com", "records": [{"type": "A", "content": "2001:db8::1"}]},
            "A takes an IPv4",
        ),
        ({"name": "www.example.org", "records": []}, "give a name in the zone example.com"),
        (
            {"name": "www.example.com", "records": [{"type": "CNAME", "content": "a.b"}, *SITE["records"]]},
            "give it alone",
        ),
    ],
)
def test_records_that_can_not_be_are_refused_before_any_request(run, cloudflare, dns, words):
    refuses(run, cloudflare, words, dns=dns)
    assert not cloudflare.api.journal


# Argo.


def test_argo_of_a_zone_that_is_not_entitled(run, cloudflare):
    assert not run(settings=None, argo=False)["changed"]
    refuses(run, cloudflare, "not entitled to it", "Order it", settings=GUIDE, argo=True)
    said = run(settings=GUIDE, argo=True, unavailable="tolerate")
    assert cloudflare.zone.value("ssl") == "full"
    assert [one["thing"] for one in said["unavailable"]] == ["Argo Smart Routing"]


def test_argo_is_turned_on_and_off(run, cloudflare):
    cloudflare.zone.put_plan("pro")
    assert run(settings=None, argo=True)["after"] == {"argo": True}
    assert not run(settings=None, argo=True)["changed"]
    assert run(settings=None, argo=False)["after"] == {"argo": False}


# What can't be had, and what the token may not do.


def test_a_locked_setting_is_tolerated_where_that_is_asked(run, cloudflare):
    said = run(settings={"ssl": "full", "polish": "lossy"}, unavailable="tolerate")
    assert changed(said) == ["ssl_automatic_mode", "ssl"]
    assert [(one["thing"], one["wanted"], one["found"]) for one in said["unavailable"]] == [
        ("setting polish", "lossy", "off")
    ]
    assert "It stays as it is." in warnings(said)


def test_an_unknown_setting_is_never_tolerated(run, cloudflare):
    refuses(
        run, cloudflare, "no setting of that name", settings={"webbsockets": True}, unavailable="tolerate"
    )


ALL = {"settings": GUIDE, "rules": [CACHE, CONFIG], "dns": SITE, "argo": False}


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
    said = run(**ALL)
    for name in lacks:
        assert name in said["msg"]
    assert "Nothing was written." in said["msg"]
    assert json.dumps(cloudflare.zone.store.data, sort_keys=True) == before


def test_a_token_without_zone_read_is_told_all_that_it_needs(run, cloudflare):
    cloudflare.api.token.put({"permissions": ["DNS Write"]})
    refuses(run, cloudflare, "All in all it needs Zone Read, Cache Rules Write, Config", "DNS Write", **ALL)


def test_a_token_that_reads_is_enough_for_a_dry_run(run, cloudflare):
    reads = ["Zone Read", "Zone Settings Read", "DNS Read", "Cache Rules Read", "Config Rules Read"]
    cloudflare.api.token.put({"permissions": reads})
    assert len(run(check=True, **ALL)["changes"]) == 7


def test_a_failure_halfway_is_finished_by_the_next_run(run, cloudflare, fault):
    """Each write fails in turn, and those after it."""
    wanted = run(check=True, **ALL)["after"]
    failed = 0
    for skip in range(8):
        cloudflare.zone.reset()
        # One of them does what it was asked for, and the answer is lost.
        how = {"status": 503, "headers": AT_ONCE, "applied": skip == 4}
        for method in ("PATCH", "POST"):
            fault = {"path": "/(settings|rulesets|dns)", "method": method, "skip": skip, "times": 9, **how}
            cloudflare.api.faults.append(Fault.read(fault))
        said = run(**ALL)
        cloudflare.api.faults.clear()
        failed += "failed" in said
        again = run(**ALL)
        assert again["after"] == wanted
        assert not run(**ALL)["changed"]
    assert failed > 4


# What it says when it can't.


def refuses(run, cloudflare, *words, **arguments):
    """Run, and check that it failed with these words and wrote nothing."""
    said = run(**arguments)
    assert said["failed"]
    for word in words:
        assert word in said["msg"]
    assert written(cloudflare) == []
    return said["msg"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"api_token": ""}, ["api_token is empty", "CLOUDFLARE_API_TOKEN"]),
        ({"api_token": f"Bearer {TOKEN}"}, ["without the word Bearer"]),
        ({"api_token": f"{TOKEN}\n"}, ["a line break"]),
        ({"api_base_url": "api.cloudflare.com"}, ["api_base_url is 'api.cloudflare.com'"]),
        ({"api_base_url": "http://192.0.2.1/client/v4"}, ["unencrypted", "give an https:// URL"]),
        ({"zone": "contains:example"}, ["zone is 'contains:example'", "give a domain name"]),
        ({"zone": "example com"}, ["zone is 'example com'"]),
        ({"zone": None}, ["one of the following is required: zone, zone_id"]),
        ({"zone": None, "zone_id": "../user"}, ["zone_id is '../user'", "32 hexadecimal digits"]),
        ({"settings": {"../dns_records": "x"}}, ["settings names '../dns_records'"]),
        ({"settings": {"ssl": None}}, ["settings gives ssl no value"]),
    ],
)
def test_bad_input_is_refused_before_any_request(run, cloudflare, arguments, words):
    refuses(run, cloudflare, *words, **arguments)
    assert not cloudflare.api.journal


def test_an_unknown_zone(run, cloudflare):
    refuses(run, cloudflare, "Zone other.com is unknown", "correct the name", "Zone Read", zone="other.com")


def test_an_unknown_zone_id(run, cloudflare):
    refuses(run, cloudflare, "correct zone_id", "7003", zone=None, zone_id="0" * 32)


def test_a_zone_of_two_accounts(run, cloudflare, fault):
    zones = [{"id": digit * 32, "name": "example.com", "status": "active"} for digit in "ab"]
    fault("/zones$", 200, body={"success": True, "errors": [], "messages": [], "result": zones})
    refuses(run, cloudflare, "exists in 2 accounts", "give zone_id", "a" * 32)


def test_a_zone_that_is_not_served_yet_is_a_warning(run, cloudflare, fault):
    zones = [{"id": cloudflare.zone.id, "name": "example.com", "status": "pending"}]
    fault("/zones$", 200, body={"success": True, "errors": [], "messages": [], "result": zones})
    assert "Zone example.com is pending" in warnings(run())


def test_a_wrong_token(run, cloudflare):
    message = refuses(run, cloudflare, "does not know the API token", "make a new one", api_token="w" * 40)
    assert "w" * 40 not in message


def test_a_token_of_the_wrong_form(run, cloudflare):
    refuses(run, cloudflare, "does not know the API token", "6111", api_token="short")


def no_longer_valid(fault, status):
    """Answer as Cloudflare does for a token that it knows but takes no more."""
    fault("/zones", 403, (9109, "Invalid access token"))
    fault("/verify$", 200, body={"success": True, "errors": [], "messages": [], "result": {"status": status}})


@pytest.mark.parametrize("status", ["expired", "disabled"])
def test_a_token_that_is_no_longer_valid(run, cloudflare, fault, status):
    no_longer_valid(fault, status)
    refuses(run, cloudflare, f"the API token is {status}", "make a new one")


@pytest.mark.parametrize("code", [9109, 10000])
def test_a_missing_permission_is_told_from_a_bad_token(run, cloudflare, fault, code):
    words = ["valid but lacks a permission", "add Zone Settings Write for this zone", "Nothing was written"]
    fault("/settings/", 403, (code, "Authentication error"))
    refuses(run, cloudflare, *words)
    # The zone was found with this token, so there is nothing to verify.
    assert not verified(cloudflare)
    refuses(run, cloudflare, *words, zone=None, zone_id=cloudflare.zone.id)
    assert verified(cloudflare)


def test_no_permission_for_the_zone_itself(run, cloudflare, fault):
    fault(
        "/zones$", 403, (0, "Actor requires permission 'com.cloudflare.api.account.zone.list' to list zones")
    )
    refuses(run, cloudflare, "Can't find zone example.com", "add the permission Zone Read", "zone.list")


def test_a_token_that_can_not_be_verified_is_told_both_ways(run, cloudflare, fault):
    fault("/zones$", 403, (10000, "Authentication error"))
    fault("/verify$", 500, headers=AT_ONCE)
    refuses(run, cloudflare, "the API token is wrong or lacks a permission")


def test_unknown_and_locked_settings_are_all_named_at_once(run, cloudflare):
    message = refuses(
        run,
        cloudflare,
        "Can't read zone setting webbsockets: there is no setting of that name",
        "Can't set zone setting polish to lossy: it is locked for this zone",
        "Nothing was written",
        settings={"ssl": "full", "webbsockets": True, "polish": "lossy"},
    )
    assert "1006" in message


def test_a_locked_setting_that_is_right_is_no_problem(run):
    assert not run(settings={"polish": "off"})["changed"]


def test_an_invalid_value(run, cloudflare):
    said = run(settings={"ssl": "half"})
    assert "Can't set zone setting ssl to half: it does not take that value" in said["msg"]
    assert "1007" in said["msg"]


@pytest.mark.parametrize("code", [1024, 1025, 1057])
def test_a_setting_that_turns_out_to_be_locked(run, fault, code):
    fault("/settings/websockets", 400, (code, "not modifiable"), method="PATCH")
    assert "the plan does not include it" in run(settings={"websockets": True})["msg"]


def test_a_plan_limit_is_not_taken_for_a_bad_token(run, cloudflare, fault):
    fault("/settings/websockets", 401, (1015, "not entitled"))
    arguments = {"zone": None, "zone_id": cloudflare.zone.id, "settings": {"websockets": True}}
    refuses(run, cloudflare, "the zone's plan does not include it", **arguments)
    assert not verified(cloudflare)


def test_a_failure_halfway_says_what_is_done_and_what_is_left(run, cloudflare, fault):
    fault("/settings/ssl$", 400, (1057, "cannot be modified"), method="PATCH")
    said = run()
    assert said["failed"]
    assert said["changed"]
    assert "Written before that: setting ssl_automatic_mode, setting rocket_loader." in said["msg"]
    assert "Not tried: setting websockets." in said["msg"]
    assert said["after"]["settings"]["rocket_loader"] == "off"
    assert said["after"]["settings"]["ssl"] == cloudflare.zone.value("ssl") == "flexible"
    cloudflare.api.faults.clear()
    assert changed(run()) == ["ssl", "websockets"]


def test_a_value_that_cloudflare_changes_is_a_warning(run, fault):
    result = {"id": "tls_1_3", "value": "zrt", "editable": True}
    fault(
        "/tls_1_3",
        200,
        body={"success": True, "errors": [], "messages": [], "result": result},
        method="PATCH",
    )
    said = run(settings={"tls_1_3": False})
    assert "took off for setting tls_1_3, but made it zrt" in warnings(said)
    assert said["after"]["settings"] == {"tls_1_3": "zrt"}


@pytest.mark.parametrize(
    ("headers", "wait"),
    [({}, "300 s"), ({"retry-after": "240"}, "240 s"), ({"retry-after": "soon"}, "300 s")],
)
def test_the_rate_limit_beyond_what_is_waited(run, cloudflare, fault, headers, wait):
    fault("/zones$", 429, (971, "Please wait"), headers=headers)
    refuses(run, cloudflare, "rate limit is reached", f"run again in {wait}", wait_seconds=200)
    assert len(cloudflare.api.journal) == 1


def test_the_rate_limit_is_waited_for_as_told_and_says_so(run, cloudflare, fault, monkeypatch, tmp_path):
    waits = []
    monkeypatch.setattr(cloudflare_api.time, "sleep", waits.append)
    fault("/settings/ssl$", 429, times=2, headers={"retry-after": "61"}, method="PATCH")
    said = run(wait_seconds=130, progress_file=str(tmp_path / "progress"))
    assert cloudflare.zone.value("ssl") == "full"
    assert waits == [61, 61]
    assert "waiting 61 s, as it asks, to set zone setting ssl to full" in warnings(said)
    assert [line.rsplit("; ")[1] for line in (tmp_path / "progress").read_text().splitlines()] == [
        "then 69 s of patience are left.",
        "then 8 s of patience are left.",
    ]


def test_what_must_happen_once_is_sent_once(cloudflare, fault):
    api = cloudflare_api.CloudflareApi(TOKEN, cloudflare.url)
    fault("/zones$", 503)
    with pytest.raises(cloudflare_api.CloudflareFailure, match=r"in trouble \(HTTP 503\)"):
        api.call(cloudflare_api.Call("get", "/zones", "read", "Zone Read", retries=0))
    assert len(cloudflare.api.journal) == 1


def test_trouble_at_cloudflare(run, cloudflare, fault):
    fault("/zones$", 502, body="<html><title>502 Bad Gateway</title></html>", headers=AT_ONCE)
    refuses(run, cloudflare, "in trouble (HTTP 502", "www.cloudflarestatus.com")
    assert len(cloudflare.api.journal) == cloudflare_api.RETRIES + 1


@pytest.mark.parametrize("status", [200, 403])
def test_html_where_json_should_be(run, cloudflare, fault, status):
    page = "<!doctype html><html><title>Sign in</title></html>"
    fault("/zones$", status, body=page, headers={"content-type": "text/html"})
    refuses(run, cloudflare, "text/html", "titled 'Sign in'", "correct api_base_url")


@pytest.mark.parametrize("body", ["", "{", [], {"hello": 1}, {"success": True, "result": "?"}])
def test_json_that_is_not_cloudflares(run, cloudflare, fault, body):
    fault("/zones$", 200, body=body, headers={"content-type": "application/json"})
    refuses(run, cloudflare, "not as Cloudflare's API does")


def test_a_setting_without_a_value(run, cloudflare, fault):
    fault("/settings/ssl$", 200, body={"success": True, "errors": [], "messages": [], "result": None})
    refuses(run, cloudflare, "Can't read zone setting ssl", "not as Cloudflare's API does")


def test_success_false_under_200(run, cloudflare, fault):
    fault("/settings/websockets$", 200, (1234, "Something else"))
    refuses(run, cloudflare, "Cloudflare refuses it", "Something else (code 1234)")


def test_a_redirect_is_not_followed(run, cloudflare, fault):
    fault("/zones$", 301, body="", headers={"location": "/client/v4/ips"})
    refuses(run, cloudflare, "HTTP 301", "correct api_base_url")


def test_an_api_that_does_not_answer(run, cloudflare, fault, monkeypatch):
    monkeypatch.setattr(cloudflare_api, "ANSWER_SECONDS", 0.1)
    fault("/zones$", 200, delay=0.5)
    refuses(run, cloudflare, "gave no answer in 0.1 s, 3 times over")


def test_an_api_that_can_not_be_reached(run, cloudflare):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    url = f"http://127.0.0.1:{port}/client/v4"
    refuses(run, cloudflare, f"{url} can't be reached", "refused", "proxy", api_base_url=url)


def test_a_missing_sdk(run, cloudflare, monkeypatch):
    monkeypatch.setattr(cloudflare_api, "SDK_PROBLEM", "Traceback")
    refuses(run, cloudflare, "Failed to import the required Python library (cloudflare)")


def compare(documented, spec, path=""):
    """Fail where the documentation and the argument spec differ, also further down."""
    assert documented.keys() == spec.keys(), path
    for name, option in spec.items():
        for key in ("type", "required", "default", "choices", "elements"):
            assert documented[name].get(key) == option.get(key), f"{path}{name}: {key}"
        compare(documented[name].get("suboptions", {}), option.get("options", {}), f"{path}{name}.")


def test_the_documentation_names_the_arguments_that_there_are():
    compare(yaml.safe_load(module.DOCUMENTATION)["options"], module.ARGUMENTS)
    shared = yaml.safe_load(ModuleDocFragment.DOCUMENTATION)["options"]
    compare(shared, cloudflare_api.api_arguments())


# The role, as a playbook runs it.


@pytest.fixture
def play(cloudflare, tmp_path):
    """Run the role, or its validation alone, in a real playbook; return what it prints."""

    def call(*arguments, entry="main", environment=(), **variables):
        playbook = tmp_path / "play.yml"
        role = {"name": "cloudflare_zone", "tasks_from": entry}
        tasks = [{"name": "Call the role", "ansible.builtin.import_role": role}]
        playbook.write_text(
            yaml.safe_dump([{"name": "Edge", "hosts": "all", "gather_facts": False, "tasks": tasks}])
        )
        (tmp_path / "variables.json").write_text(
            json.dumps(
                {
                    "ansible_connection": "local",
                    "ansible_python_interpreter": sys.executable,
                    "cloudflare_zone_name": "example.com",
                    "cloudflare_zone_api_token": TOKEN,
                    "cloudflare_zone_api_base_url": cloudflare.url,
                    **variables,
                }
            )
        )
        command = [
            "ansible-playbook",
            "-i",
            "zone,",
            "-e",
            f"@{tmp_path}/variables.json",
            *arguments,
            str(playbook),
        ]
        done = subprocess.run(
            [Path(sys.executable).parent / command[0], *command[1:]],
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "NO_COLOR": "1",
                **dict(environment),
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        said = done.stdout + done.stderr
        assert TOKEN not in said
        return SimpleNamespace(rc=done.returncode, text=" ".join(said.split()), lines=said)

    return call


def test_the_role_shows_the_diff_and_never_the_token(play, cloudflare):
    log = {"CLOUDFLARE_LOG": "debug", "CLOUDFLARE_EMAIL": "stray@example.com"}
    first = play("-vvv", "--diff", environment=log)
    assert first.rc == 0, first.lines
    assert "+++ after: zone example.com, setting ssl @@ -1 +1 @@ -flexible +full" in first.text
    assert "+++ after: zone example.com, setting websockets @@ -1 +1 @@ -off +on" in first.text
    assert cloudflare.zone.value("rocket_loader") == "off"
    second = play("-e", "cloudflare_zone_websockets=yes")
    assert "changed=0" in second.text
    assert second.lines.count("TASK [") == 3


def test_a_wait_is_shown_while_it_lasts(play, fault):
    """The play runs as a child; the sentence has to come before the module's own output."""
    fault("/settings/ssl$", 429, headers={"retry-after": "2"}, method="PATCH", times=1)
    said = play()
    assert said.rc == 0
    shown = said.lines.index("zone: Cloudflare's rate limit is reached: waiting 2 s")
    assert shown < said.lines.index("changed: [zone]")


def test_the_role_fails_with_the_sentence_and_without_the_token(play, fault):
    no_longer_valid(fault, "expired")
    said = play("-vvv", "--diff")
    assert said.rc == 2
    assert "the API token is expired; make a new one" in said.text


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (
            {"cloudflare_zone_name": "my site.com"},
            "cloudflare_zone_name is 'my site.com'; use one domain name",
        ),
        ({"cloudflare_zone_api_token": ""}, "cloudflare_zone_api_token is empty; create one"),
        (
            {"cloudflare_zone_api_token": "seen-by-nobody"},
            "cloudflare_zone_api_token is not a valid API token; create one",
        ),
        (
            {"cloudflare_zone_api_base_url": "http://192.0.2.1/"},
            "is 'http://192.0.2.1/'; use an https:// URL",
        ),
        (
            {"cloudflare_zone_ssl": "half"},
            "value of cloudflare_zone_ssl must be one of: off, flexible, full, strict",
        ),
        ({"cloudflare_zone_websockets": "maybe"}, "cloudflare_zone_websockets"),
        ({"cloudflare_zone_host": "www.example.org"}, "use the zone's name or a host name in it"),
        ({"cloudflare_zone_websocket_path": 'ws"'}, "use a path that begins with a slash"),
        ({"cloudflare_zone_settings": {"ssl": "off"}}, "cloudflare_zone_settings names ssl"),
        ({"cloudflare_zone_origin_addresses": ["192.0.2.0/24"]}, "without a prefix length"),
        ({"cloudflare_zone_wait_seconds": -1}, "use 0 or more"),
        ({"cloudflare_zone_drift_file": "drift.json"}, "use absolute paths"),
    ],
)
def test_bad_input_stops_at_validation(play, cloudflare, variables, words):
    said = play("-vvv", entry="validate", **variables)
    assert said.rc == 2
    assert words in said.text
    assert "seen-by-nobody" not in said.text
    assert not cloudflare.api.journal


def test_a_host_in_the_zone_and_its_addresses_pass_validation(play):
    addresses = ["192.0.2.1", "2001:db8::1"]
    said = play(
        entry="validate", cloudflare_zone_host="www.example.com", cloudflare_zone_origin_addresses=addresses
    )
    assert said.rc == 0, said.lines


def test_ssl_off_may_be_written_as_yaml_likes(play, cloudflare):
    assert play(cloudflare_zone_ssl=False).rc == 0
    assert cloudflare.zone.value("ssl") == "off"
