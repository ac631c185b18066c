"""The role cloudflare_zone: what it writes, when it writes nothing, drift, snapshots and failures."""

import datetime as dt
import json
import os
import re
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
import yaml
from ansible_collections.screen_flow.live.plugins.modules.cloudflare_upgrades import BAR_COLOUR
from matplotlib import colors, image

PROJECT = Path(__file__).parents[3]
CONTROL = f"http://127.0.0.1:{os.environ['TESTBED_PORT_API']}/_emulator"


def control(path, method="GET", body=None):
    """Call the emulator's control API; return the response's JSON."""
    request = urllib.request.Request(
        f"{CONTROL}/{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read() or "null")


ADDRESSES = ["192.0.2.1", "2001:db8::1"]
# This scenario has no server, so no certificate.
ALONE = {
    "cloudflare_zone_origin_addresses": ADDRESSES,
    "cloudflare_zone_ssl": "full",
    "cloudflare_zone_aliases": [],
}
NAME = "screen-flow.localhost"
WRITABLE = (
    "Zone Settings",
    "SSL and Certificates",
    "DNS",
    "Cache Rules",
    "Config Rules",
    "Response Compression",
)
PERMISSIONS = ["Zone Read", *(f"{name} Write" for name in WRITABLE), "Analytics Read"]


def run(*command, **variables):
    """Run a playbook, or a script that takes ansible-playbook's options, on the emulated zone."""
    program = ["ansible-playbook"] if command[-1].endswith(".yml") else [PROJECT / command[0]]
    options = command if command[-1].endswith(".yml") else command[1:]
    return subprocess.run(
        [
            *program,
            f"--inventory={PROJECT / 'inventories/demo'}",
            f"--extra-vars={json.dumps(ALONE | variables)}",
            *options,
        ],
        cwd=PROJECT,
        env=os.environ | {"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"},
        check=False,
        capture_output=True,
        text=True,
    )


def converge(*options, **variables):
    """Run the scenario's converge playbook; return the finished process."""
    return run(*options, str(PROJECT / "molecule/cloudflare_zone/converge.yml"), **variables)


def writes():
    """Return the journal's requests other than GET."""
    return [entry for entry in control("journal") if entry["method"] != "GET"]


def written():
    """Return the last path segment of each request that changed the zone."""
    return [
        entry["path"].rsplit("/", 1)[-1]
        for entry in writes()
        if entry["status"] == 200 and entry["query"] == {} and entry["body"] != {"posts": []}
    ]


def edit(method, path, body=None):
    """Change the zone as another user."""
    return control("edits", "POST", [{"method": method, "path": "/zones/{zone}" + path, "body": body}])


def ruleset(phase):
    """Return the phase's ruleset."""
    return {ruleset["phase"]: ruleset for ruleset in control("state")["rulesets"]}[phase]


def rules(phase):
    """Return the phase's rules."""
    return ruleset(phase)["rules"]


def addresses():
    """Return the contents of the DNS records of the zone's name."""
    return sorted(record["content"] for record in control("state")["dns"] if record["name"] == NAME)


def settings():
    """Return the settings that the role sets by default."""
    values = control("state")["settings"]
    return {name: values[name]["value"] for name in WANTED}


WANTED = {
    "ssl": "full",
    "ssl_automatic_mode": "custom",
    "websockets": "on",
    "rocket_loader": "off",
    "http3": "on",
    "min_tls_version": "1.2",
    "tls_1_3": "on",
    "always_use_https": "on",
}
CACHE = "http_request_cache_settings"


def test_the_zone_has_the_guides_settings():
    assert settings() == WANTED


def test_the_websocket_path_bypasses_cache_rewriting_and_compression():
    expression = f'http.host eq "{NAME}" and starts_with(http.request.uri.path, "/api/v1/cv-processing/ws/")'
    for phase, parameters in {
        CACHE: {"cache": False},
        "http_config_settings": {"rocket_loader": False, "polish": "off"},
        "http_response_compression": {"algorithms": [{"name": "none"}]},
    }.items():
        [rule] = rules(phase)
        assert (rule["action_parameters"], rule["expression"], rule["enabled"]) == (
            parameters,
            expression,
            True,
        )


def test_the_sites_name_is_proxied_to_the_origin():
    found = [(record["type"], record["content"], record["proxied"]) for record in control("state")["dns"]]
    assert sorted(found) == [("A", "192.0.2.1", True), ("AAAA", "2001:db8::1", True)]


def test_a_run_without_changes_writes_nothing_and_reads_each_resource_once():
    control("journal", "DELETE")
    started = time.monotonic()
    run = converge()
    print(f"A run of Ansible without changes: {time.monotonic() - started:.1f} s")
    assert run.returncode == 0, run.stdout
    assert "changed=0" in run.stdout
    assert writes() == []
    # The zone, eight settings, three phases, the name's records.
    paths = [entry["path"] for entry in control("journal")]
    assert len(paths) == len(set(paths)) == 13


def test_other_sites_of_the_zone_are_named_and_can_be_left_alone():
    """Check mode names them, the scope host changes the site's name alone, the zone's scope all of them."""
    before = {"ssl": "flexible", "rocket_loader": "on", "min_tls_version": "1.3"}
    control("settings", "PATCH", before)
    shop = f"shop.{NAME}"
    edit("POST", "/dns_records", {"type": "A", "name": shop, "content": "203.0.113.8", "proxied": True})
    try:
        preview = converge("--check")
        output = " ".join((preview.stdout + preview.stderr).split())
        assert (
            f"rocket_loader, ssl. Their change affects other proxied host names as well: {shop}. " in output
        )
        limited = converge(cloudflare_zone_scope="host")
        assert limited.returncode == 0, limited.stdout
        assert settings() == WANTED | before
        assert "other proxied host names" not in limited.stdout + limited.stderr
        ours = [rule["action_parameters"] for rule in rules("http_config_settings")]
        assert ours[:2] == [{"rocket_loader": False}, {"ssl": "full"}]
        assert run("scripts/drift", cloudflare_zone_scope="host").returncode == 0
        converge()
        assert settings() == WANTED | {"min_tls_version": "1.3"}
        assert [rule["ref"] for rule in rules("http_config_settings")] == ["screen_flow_websocket_config"]
    finally:
        [record] = [record for record in control("state")["dns"] if record["name"] == shop]
        edit("DELETE", f"/dns_records/{record['id']}")
        control("settings", "PATCH", {"min_tls_version": "1.2"})
        converge()


def test_rules_of_others_stay_unchanged_when_ours_are_removed_and_added():
    theirs = {
        "ref": "theirs",
        "action": "set_cache_settings",
        "action_parameters": {"cache": True, "edge_ttl": {"mode": "override_origin", "default": 7200}},
        "expression": 'http.request.uri.path eq "/logo.svg"',
        "description": "Made in the dashboard",
    }
    ruleset_id = ruleset(CACHE)["id"]
    edit("POST", f"/rulesets/{ruleset_id}/rules", {**theirs, "position": {"index": 1}})
    edit("POST", f"/rulesets/{ruleset_id}/rules", {**theirs, "ref": "theirs too", "enabled": False})
    before = [json.dumps(rule) for rule in rules(CACHE) if rule["ref"].startswith("theirs")]
    try:
        assert converge(cloudflare_zone_bypass_cache=False).returncode == 0
        assert [json.dumps(rule) for rule in rules(CACHE)] == before
        assert converge().returncode == 0
        assert [json.dumps(rule) for rule in rules(CACHE)][:2] == before
    finally:
        for rule in rules(CACHE):
            if rule["ref"].startswith("theirs"):
                edit("DELETE", f"/rulesets/{ruleset_id}/rules/{rule['id']}")


def test_drift_prints_nothing_without_drift_and_each_finding_with_it():
    quiet = run("scripts/drift")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
    control("settings", "PATCH", {"rocket_loader": "on"})
    edit("POST", "/dns_records", {"type": "A", "name": NAME, "content": "203.0.113.9"})
    [rule] = rules(CACHE)
    ruleset_id = ruleset(CACHE)["id"]
    edit("DELETE", f"/rulesets/{ruleset_id}/rules/{rule['id']}")
    control("journal", "DELETE")
    try:
        found = run("scripts/drift", cloudflare_zone_settings={"polish": "lossy"})
        assert found.returncode == 2, found.stderr
        for line in (
            "rule screen_flow_websocket_cache         is missing           operator",
            "setting rocket_loader                    was changed by hand  operator",
            f"DNS of {NAME}             was added by hand    whoever added it",
            "setting polish                           is unavailable       owner of the Cloudflare plan",
        ):
            assert line in found.stdout
        assert writes() == []
    finally:
        converge()
    assert run("scripts/drift").returncode == 0


def test_the_drift_playbook_exits_with_2_and_writes_its_findings_as_json(tmp_path):
    report = tmp_path / "drift.json"
    quiet = run("playbooks/drift.yml", cloudflare_zone_drift_file=str(report))
    assert (quiet.returncode, json.loads(report.read_text())["drift"]) == (0, False), quiet.stdout
    control("settings", "PATCH", {"rocket_loader": "on"})
    try:
        found = run("playbooks/drift.yml", cloudflare_zone_drift_file=str(report))
        assert found.returncode == 2
        result = json.loads(report.read_text())
        assert (result["zone"], result["drift"]) == (NAME, True)
        [one] = result["findings"]
        assert (one["resource"], one["what"], one["found"], one["wanted"], one["who"]) == (
            "setting rocket_loader",
            *("was changed by hand", "on", "off", "operator"),
        )
        assert "playbooks/edge.yml" in one["fix"]
    finally:
        converge()


def test_a_zone_that_cannot_be_read_is_an_error_and_not_drift():
    blind = run("scripts/drift", cloudflare_zone_api_token="x" * 40)
    assert blind.returncode == 1
    assert "does not recognize the API token" in blind.stderr


def test_a_snapshot_restores_what_the_role_changed(tmp_path):
    """The role changes settings, a rule and DNS records; the restore playbook reverts each of them."""
    snapshot = str(tmp_path / "zone.yml")
    control("settings", "PATCH", {"rocket_loader": "on", "ssl": "flexible"})
    control("dns", "PUT", [{"type": "A", "name": NAME, "content": "198.51.100.7", "proxied": True}])
    before = settings()
    taken = run("playbooks/snapshot.yml", cloudflare_zone_snapshot_file=snapshot)
    assert taken.returncode == 0, taken.stdout
    assert yaml.safe_load(Path(snapshot).read_text())["settings"] == before
    try:
        assert converge(cloudflare_zone_disable_compression=False).returncode == 0
        assert settings() == WANTED
        assert rules("http_response_compression") == []
        assert addresses() == sorted(ADDRESSES)
        restored = run("playbooks/restore.yml", cloudflare_zone_snapshot_file=snapshot, confirm=True)
        assert restored.returncode == 0, restored.stdout
        shown = restored.stdout.index("-full\n+flexible")
        assert shown < restored.stdout.index("Restore the snapshot")
        assert settings() == before
        assert len(rules("http_response_compression")) == 1
        assert addresses() == ["198.51.100.7"]
    finally:
        converge()


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 503, "headers": {"retry-after-ms": "1"}, "times": 9},
        {"status": 200, "body": "<html>Sign in</html>", "headers": {"content-type": "text/html"}},
        {"status": 200, "body": {"success": False, "errors": [{"code": 1, "message": "no"}], "messages": []}},
        {"cut": True, "times": 9},
        {"status": 503, "headers": {"retry-after-ms": "1"}, "applied": True, "times": 9},
    ],
    ids=["5xx", "html", "success-false", "cut", "applied-response-lost"],
)
def test_a_partial_failure_leaves_a_working_zone_that_the_next_run_completes(fault):
    control("settings", "PATCH", {"rocket_loader": "on", "websockets": "off", "http3": "off"})
    control("faults", "PUT", [{"path": "/settings/websockets", "method": "PATCH", **fault}])
    try:
        assert converge().returncode == 2
        assert (settings()["rocket_loader"], settings()["ssl"]) == ("off", "full")
    finally:
        control("faults", "PUT", [])
        finished = converge()
    assert finished.returncode == 0, finished.stdout
    assert settings() == WANTED


def test_a_rule_added_between_our_read_and_our_write_stays():
    theirs = {"ref": "theirs", "action": "set_cache_settings", "action_parameters": {"cache": True}}
    [ours] = rules(CACHE)
    ruleset_id = ruleset(CACHE)["id"]
    path = f"/zones/{{zone}}/rulesets/{ruleset_id}"
    add = {"method": "POST", "path": f"{path}/rules", "body": {**theirs, "expression": "true"}}
    # Our rule is deleted at the same moment, so the write refers to an id that no longer exists.
    gone = {"method": "DELETE", "path": f"{path}/rules/{ours['id']}"}
    whole = {key: ours[key] for key in ("ref", "action", "action_parameters", "expression", "description")}
    edit("PATCH", f"/rulesets/{ruleset_id}/rules/{ours['id']}", {**whole, "enabled": False})
    control("faults", "PUT", [{"path": "/rules/", "method": "PATCH", "edits": [add, gone]}])
    try:
        met = converge()
        assert met.returncode == 0, met.stdout
        assert "Another client changed the rules" in " ".join((met.stdout + met.stderr).split())
        kept, own = rules(CACHE)
        assert (kept["ref"], kept["action_parameters"]) == ("theirs", {"cache": True})
        assert (own["ref"], own["enabled"]) == (ours["ref"], True)
    finally:
        control("faults", "PUT", [])
        for rule in rules(CACHE):
            if rule["ref"] == "theirs":
                edit("DELETE", f"/rulesets/{ruleset_id}/rules/{rule['id']}")
        converge()


def test_the_traffic_of_the_last_day_is_printed_and_drawn(tmp_path):
    """Hours 0, 12 and 23 had 30, 60 and 15 upgrades: the heights of the bars, in text and in the chart."""
    end = dt.datetime.now(dt.UTC).replace(minute=0, second=0, microsecond=0)
    begins = [end - dt.timedelta(hours=back) for back in range(24, 0, -1)]
    seen = {0: 30, 12: 60, 23: 15}
    times = {hour: (begins[hour] + dt.timedelta(minutes=20)).isoformat() for hour in seen}
    traffic = [
        {"time": times[hour], "status": 101, "count": count, "host": NAME} for hour, count in seen.items()
    ]
    control("traffic", "PUT", [*traffic, {**traffic[0], "status": 403}, {**traffic[0], "host": "a.example"}])
    chart = tmp_path / "upgrades.png"
    printed = run("playbooks/edge_traffic.yml", chart=str(chart))
    assert printed.returncode == 0, printed.stdout
    lines = re.findall(r"^ +(\d{4}-\d\d-\d\d \d\d:\d\d) +(\d+)(?: (#+))?$", printed.stdout, re.MULTILINE)
    assert [(hour, int(count), len(bar)) for hour, count, bar in lines] == [
        (f"{begin:%Y-%m-%d %H}:00", seen.get(hour, 0), round(seen.get(hour, 0) / 60 * 50))
        for hour, begin in enumerate(begins)
    ]
    assert re.search(r"^ +total +105$", printed.stdout, re.MULTILINE)
    assert "Not counted here" in printed.stdout
    assert chart.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    picture = image.imread(chart)[:, :, :3]
    assert picture.shape == (480, 1200, 3)
    bars = (abs(picture - colors.to_rgb(BAR_COLOUR)) < 0.01).all(axis=2).sum(axis=0)
    edges = [at for at in range(1, 1200) if (bars[at] > 0) != (bars[at - 1] > 0)]
    assert len(edges) == 6, edges
    heights = [bars[(left + right) // 2] for left, right in zip(edges[::2], edges[1::2], strict=True)]
    assert [round(height / max(heights), 1) for height in heights] == [0.5, 1.0, 0.2]
    assert edges[0] < 150
    assert 590 < edges[2] < 700
    assert edges[4] > 1100


def test_a_rate_limit_is_waited_out_and_reported():
    control("settings", "PATCH", {"rocket_loader": "on"})
    limit = {"path": "/rocket_loader", "method": "PATCH", "status": 429, "headers": {"retry-after": "3"}}
    control("faults", "PUT", [limit])
    waited = converge()
    assert waited.returncode == 0, waited.stdout
    assert "demo-zone: Cloudflare's rate limit is reached: waiting 3 s" in waited.stdout
    assert settings() == WANTED


def test_missing_permissions_are_named_at_once_and_nothing_is_written():
    control("settings", "PATCH", {"rocket_loader": "on"})
    control("token", "PUT", {"permissions": ["Zone Read", "Zone Settings Write", "Cache Rules Write"]})
    try:
        run = converge()
        output = " ".join(run.stdout.split())
        assert "add Config Rules Write, Response Compression Write, DNS Write for this zone" in output
        assert settings()["rocket_loader"] == "on"
    finally:
        control("token", "PUT", {"permissions": PERMISSIONS})
        converge()


def test_no_secret_is_in_output_journal_or_files():
    control("settings", "PATCH", {"rocket_loader": "on"})
    control("journal", "DELETE")
    run = converge("-vvv", "--diff")
    assert run.returncode == 0
    token = (Path(os.environ["TESTBED_STATE_DIR"]) / "token").read_text().strip()
    state = json.dumps([control("journal"), control("state")])
    assert not any(token in text for text in (run.stdout, run.stderr, state))
    for folder in (Path("~/.ansible").expanduser(), Path(os.environ["TESTBED_STATE_DIR"])):
        containing = [
            path for path in folder.rglob("*") if path.is_file() and token.encode() in path.read_bytes()
        ]
        assert [path.name for path in containing if path.name != "token"] == []


def test_a_dry_run_shows_each_difference_and_writes_nothing():
    control("settings", "PATCH", {"websockets": "off"})
    control("journal", "DELETE")
    try:
        run = converge("--check", "--diff")
        assert "changed=1" in run.stdout
        assert "off" in run.stdout
        assert writes() == []
        assert settings()["websockets"] == "off"
    finally:
        converge()
    assert settings() == WANTED


def test_one_setting_that_differs_is_one_write():
    control("settings", "PATCH", {"rocket_loader": "on"})
    control("journal", "DELETE")
    assert converge().returncode == 0
    assert written() == ["rocket_loader"]


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("cloudflare_zone_api_token", "x" * 40, "token"),
        ("cloudflare_zone_name", "unknown.example.com", "unknown.example.com"),
    ],
)
def test_invalid_input_is_reported_without_the_token(variable, value, message):
    run = converge("-vvv", "--diff", **{variable: value})
    assert run.returncode != 0
    assert message in run.stdout
    token = (Path(os.environ["TESTBED_STATE_DIR"]) / "token").read_text().strip()
    for output in (run.stdout, run.stderr):
        assert token not in output
    assert settings() == WANTED
