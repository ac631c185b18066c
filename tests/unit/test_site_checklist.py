"""The checklist: the evidence that fails each line, what is not tried, and the reports."""

import json
import xml.etree.ElementTree as ET

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.screen_flow.live.plugins.module_utils.diagnosis.checklist import (
    CHECKS,
    FAILED,
    LAYERS,
    NOT_TRIED,
    OK,
    WARNING,
    judge,
    table,
)
from ansible_collections.screen_flow.live.plugins.module_utils.diagnosis.rules import RULES
from ansible_collections.screen_flow.live.plugins.modules import site_report

from tests.kit.evidence import healthy as diagnosed


@pytest.fixture
def site():
    """Return the evidence of a healthy site."""
    document = diagnosed()
    document["edge"]["page"]["value"]["reconnects"] = True
    listened = {
        "opened_ms": 9.0, "pong_ms": 1.0, "heartbeat_seconds": 30.1, "canary_ms": 12.0, "processed_ms": 300.0,
        "ended": "",
    }  # fmt: skip
    document["verify"] = {
        "listened": {"value": listened},
        "canary": {"value": {"status": 202, "batch_id": "1", "error": ""}},
        "logged": {"value": ["INFO app: WebSocket connected for user site-check"]},
    }
    return document


def verdicts(document, layers=LAYERS):
    return {line.name: line.verdict for line in judge(document, layers)}


def change(document, path, value):
    *folders, name = path.split(".")
    place = document
    for folder in folders:
        place = place[folder]
    place[name] = value


def test_a_healthy_site_has_every_line_ok(site):
    assert set(verdicts(site).values()) == {OK}


@pytest.mark.parametrize(("status", "verdict"), [(308, OK), (526, FAILED), (None, FAILED)])
def test_each_alias_has_a_line(site, status, verdict):
    site["expected"]["aliases"] = ["example.com", "old.example.com"]
    redirect = {"location": "https://www.example.com/site-check?alias", "error": "" if status else "Expired."}
    site["edge"]["aliases"]["value"] = {
        "example.com": redirect | {"status": status},
        "old.example.com": redirect | {"status": 308, "error": ""},
    }
    found = verdicts(site, ["edge"])
    assert found["example.com redirects to the site"] == verdict
    assert found["old.example.com redirects to the site"] == OK
    del site["edge"]["aliases"]
    assert verdicts(site)["old.example.com redirects to the site"] == FAILED


def test_checks_name_existing_rules_and_layers():
    assert {rule for check in CHECKS for rule in check.rules} <= {rule.name for rule in RULES}
    assert {check.layer for check in CHECKS} == set(LAYERS)


@pytest.mark.parametrize(
    ("path", "value", "name"),
    [
        ("edge.settings.value.websockets", "off", "Cloudflare WebSockets enabled"),
        ("edge.settings.value.ssl", "flexible", "Cloudflare SSL Full or Full (strict)"),
        ("edge.page.value.rocket_loader", True, "Rocket Loader off"),
        ("edge.socket_path.value.cache", "HIT", "WebSocket path not cached"),
        ("server.nginx_test.value.ok", False, "nginx runs what is on disk"),
        ("server.nginx_config.value.upgrade_map", None, "Upgrade map used"),
        ("server.nginx_config.value.websocket_location", None, "WebSocket location"),
        ("server.nginx_config.value.websocket_location.read_timeout", 60, "Timeouts at least 300 s"),
        ("server.nginx_config.value.root_location.send_timeout", 60, "Timeouts at least 300 s"),
        ("server.certificate.value.not_after", 1.0, "TLS on 443"),
        ("server.containers.value.worker.state", "exited", "Services healthy"),
        ("verify.listened.value.heartbeat_seconds", None, "Heartbeat"),
        ("verify.listened.value.heartbeat_seconds", 60.0, "Heartbeat"),
        ("verify.logged.value", [], "WebSocket connections logged"),
        ("edge.page.value.insecure", ["ws://www.example.com"], "wss:// for https"),
        ("edge.page.value.unread", ["https://www.example.com/a.js"], "wss:// for https"),
        ("edge.page.value.reconnects", False, "Reconnecting WebSocket served"),
        ("edge.probes.value.edge.status", 400, "101 from outside"),
        ("edge.probes.value.edge.ok", False, "ping and pong from outside"),
        ("verify.listened.value.canary_ms", None, "Event received through Cloudflare"),
        ("verify.canary.value.error", "NOAUTH", "Event received through Cloudflare"),
    ],
)
def test_a_fault_fails_its_line(site, path, value, name):
    change(site, path, value)
    assert verdicts(site)[name] == FAILED


def test_a_limit_that_the_kernel_does_not_enforce_is_a_warning_and_fails_nothing(site, tmp_path, capsys):
    change(site, "server.limits.value", {"memory": False, "pids": True})
    (line,) = [line for line in judge(site) if line.verdict != OK]
    assert (line.name, line.verdict) == ("Limits of the containers", WARNING)
    assert "no limit of memory," in line.detail
    result = report(capsys, site, tmp_path)
    assert "failed" not in result
    assert "1 warning." in result["table"]


def test_every_line_can_fail(site):
    """Without evidence nothing is verified; only what needs a token is not tried."""
    bare = {"expected": site["expected"], "server": {}, "edge": {}, "verify": {}}
    found = verdicts(bare)
    assert set(found.values()) == {FAILED, NOT_TRIED}
    assert [name for name, verdict in found.items() if verdict == NOT_TRIED] == [
        "Cloudflare WebSockets enabled",
        "Cloudflare SSL Full or Full (strict)",
    ]


def test_a_line_without_evidence_reports_why_it_is_missing(site):
    site["edge"]["settings"] = {"missing": "no API token is given."}
    line = judge(site, ["edge"])[0]
    assert (line.verdict, line.detail) == (NOT_TRIED, "no API token is given.")


def test_one_layer_can_be_checked_alone(site):
    assert {line.layer for line in judge(site, ["nginx"])} == {"nginx"}


def report(capsys, document, folder, **more):
    given = {name: document[name] for name in ("expected", "server", "edge", "verify")}
    given |= {"site": "https://www.example.com", "host": "origin", "folder": str(folder), **more}
    with patch_module_args(given), pytest.raises(SystemExit):
        site_report.main()
    return json.loads(capsys.readouterr().out)


def test_the_reports_agree(site, tmp_path, capsys):
    change(site, "edge.settings.value.websockets", "off")
    result = report(capsys, site, tmp_path / "new")
    assert result["failed"]
    assert "edge, Cloudflare WebSockets enabled: WebSockets are off in the zone." in result["msg"]
    found = json.loads((tmp_path / "new/verify.json").read_text())
    assert not found["ok"]
    assert found["lines"] == result["lines"]
    cases = list(ET.parse(tmp_path / "new/verify.xml").getroot().iter("testcase"))
    assert len(cases) == len(CHECKS)
    assert [case.get("name") for case in cases if case.find("failure") is not None] == [
        "Cloudflare WebSockets enabled"
    ]


def test_check_mode_fails_nothing_and_writes_nothing(site, tmp_path, capsys):
    change(site, "edge.settings.value.websockets", "off")
    result = report(capsys, site, tmp_path / "new", _ansible_check_mode=True)
    assert "failed" not in result
    assert "FAILED" in result["table"]
    assert not (tmp_path / "new").exists()


def test_an_unwritable_folder_is_named(site, tmp_path, capsys):
    (tmp_path / "file").touch()
    result = report(capsys, site, tmp_path / "file")
    assert f"folder is '{tmp_path}/file'" in result["msg"]


def test_the_table_is_aligned(site):
    head, *lines = table(judge(site)).splitlines()
    assert all(line[head.index("verdict") - 2 : head.index("verdict")] == "  " for line in lines)
