"""site_diagnosis: the evidence that each rule detects, the order of findings, none without evidence."""

import copy
import json
import re
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.screen_flow.live.plugins.module_utils.diagnosis import engine
from ansible_collections.screen_flow.live.plugins.module_utils.diagnosis.engine import LAYERS
from ansible_collections.screen_flow.live.plugins.module_utils.diagnosis.rules import RULES
from ansible_collections.screen_flow.live.plugins.module_utils.diagnosis.text import describe
from ansible_collections.screen_flow.live.plugins.modules import site_diagnosis as module

from tests.kit.evidence import EXPECTED, NOW, WITH_ALIAS, change, container, failing, healthy, probed
from tests.kit.ruleset import UFW


def diagnose(document, again=False):
    return engine.diagnose(document, RULES, again=again)


def found(document, again=True):
    return [finding.rule for finding in diagnose(document, again=again).findings]


# The change of a healthy site's evidence that each rule has to detect.
CASES = {
    "disk_full": {"server/disk": [{"path": "/", "size": 1000, "free": 1, "inodes_free": 0.9}]},
    "out_of_files": {"server/files/nginx": {"open": 100, "limit": 100}},
    "clock_skew": {"server/clock/server": NOW + 3600},
    "docker_stopped": {"server/services/docker/active": "failed", "server/containers": ...},
    "redis_stopped": {
        "server/containers/redis": container(state="exited", exit_code=137),
        "server/redis": ..., "server/worker": ..., "server/canary": ...,
        "server/probes/api": failing("api", "pong", 101, close_code=1013),
        "edge/probes/edge": failing("edge", "pong", 101),
    },
    "redis_full": {
        "server/redis/write_code": "OOM",
        "server/canary": {"status": 503, "error": "the upload got HTTP 503: full", "received_ms": None,
                          "processed_ms": None, "done_unreported": False},
    },
    "storage_full": {"server/ready/storage": "full"},
    "redis_can_not_save": {"server/redis/info/aof_last_write_status": "err"},
    "redis_password": {
        "server/ready": {"healthz": 200, "readyz": 503, "redis_code": "WRONGPASS"},
        "server/probes/api": failing("api", "pong", 101, close_code=1013),
    },
    "redis_silent": {"server/redis/ping": "LOADING"},
    "worker_stopped": {"server/containers/worker": container(state="exited"), "server/canary": ...},
    "extractor_down": {"server/containers/extractor": container(state="exited")},
    "worker_silent": {"server/worker": {"seen": 99.0, "waiting": 3}},
    "other_channel": {
        "server/canary": {"status": 202, "error": "", "received_ms": 20, "processed_ms": None,
                          "done_unreported": True, "published_on": ["user:site-check:event"],
                          "subscribed_to": ["user:site-check:events"]},
    },
    "service_stopped": {"server/containers/search": container(state="exited")},
    "not_ready": {"server/ready": {"healthz": 200, "readyz": 503, "redis_code": None}},
    "api_stopped": {
        "server/containers/api": container(state="exited"),
        "server/probes/api": failing("api", "tcp"),
        "server/probes/nginx port 443": failing("nginx port 443", "http", 502),
        "edge/probes/edge": failing("edge", "http", 502),
        "server/canary": ...,
    },
    "api_hangs": {"server/probes/api": failing("api", "http"), "edge/probes/edge": failing("edge", "http")},
    "key_set": {"server/ready/sign_in": "unavailable"},
    "no_heartbeat": {"server/containers/api/variables/APP_HEARTBEAT_SECONDS": "99"},
    "api_on_other_port": {
        "server/listening": ["0.0.0.0:443", "0.0.0.0:80"], "server/probes/api": failing("api", "tcp"),
    },
    "upstream_dead": {
        "server/upstream": [
            {"server": EXPECTED["upstream"], "status": None, "error": "No such file or directory"}
        ],
        "server/probes/nginx port 443": failing("nginx port 443", "http", 502),
        "edge/probes/edge": failing("edge", "http", 502),
    },
    "api_socket": {"server/probes/api": failing("api", "pong", 101, close_code=4403)},
    "canary_lost": {"server/canary/received_ms": None},
    "certificate_expired": {"server/certificate/not_after": NOW - 86400},
    "certificate_other_name": {"server/certificate/names": ["other.example.com"]},
    "key_mismatch": {
        "server/certificate/key_matches": False,
        "server/nginx_test": {"ok": False, "error": "key values mismatch"},
    },
    "certificate_not_loaded": {"server/certificate/served": "cd"},
    "nginx_stopped": {
        "server/services/nginx/active": "inactive",
        "server/listening": ["127.0.0.1:8000"],
        "server/certificate/served": None,
        "server/probes/nginx port 443": failing("nginx port 443", "tcp"),
        "edge/probes/edge": failing("edge", "http", 521),
    },
    "nginx_configuration_invalid": {
        "server/nginx_test": {"ok": False, "error": 'unknown directive "prox" in /etc/nginx/x:3'},
    },
    "nginx_not_reloaded": {
        "server/nginx_loaded": {
            "workers": 2, "loaded": NOW - 999, "changed": ["/x"], "newest": NOW - 1, "refusal": "",
        },
    },
    "nginx_reload_refused": {
        "server/nginx_loaded": {
            "workers": 2, "loaded": NOW - 999, "changed": ["/x"], "newest": NOW - 600,
            "refusal": 'limit_req "shop" uses the "$b" key while previously it used the "$a" key',
        },
    },
    "upgrade_map_missing": {
        "server/nginx_config/upgrade_map": None,
        "server/nginx_config/websocket_location/connection": "close",
        "server/probes/nginx port 443": failing("nginx port 443", "http", 404),
    },
    "connection_hard_coded": {"server/nginx_config/root_location/connection": "upgrade"},
    "upgrade_not_passed": {"server/nginx_config/websocket_location/upgrade": ""},
    "http_1_0_upstream": {"server/nginx_config/websocket_location/http_version": "1.0"},
    "websocket_location_missing": {"server/nginx_config/websocket_location": None},
    "websocket_timeout_short": {"server/nginx_config/websocket_location/read_timeout": 5},
    "buffering_on": {"server/nginx_config/websocket_location/buffering": True},
    "wrong_upstream": {
        "server/nginx_config/upstreams/screen-flow": ["127.0.0.1:8001"],
        "server/probes/nginx port 443": failing("nginx port 443", "http", 502),
        "edge/probes/edge": failing("edge", "http", 502),
    },
    "no_tls": {
        "server/listening": ["0.0.0.0:80", "127.0.0.1:8000"],
        "server/probes/nginx port 443": failing("nginx port 443", "tcp"),
        "edge/probes/edge": failing("edge", "http", 521),
    },
    "nginx_socket": {
        "server/probes/nginx port 443": failing("nginx port 443", "pong", 101),
        "edge/probes/edge": failing("edge", "pong", 101),
    },
    "other_firewall": {"edge/probes/edge": failing("edge", "http", 522), "server/firewall/nftables": UFW},
    "firewall_too_tight": {"edge/probes/edge": failing("edge", "http", 522)},
    "firewall_too_loose": {
        "edge/probes/origin 203.0.113.7 port 443": probed("origin 203.0.113.7 port 443", stage="tcp"),
    },
    "token_refused": {
        "edge/token": {"ok": False, "status": "expired"},
        "edge/settings": ..., "edge/dns": ..., "edge/rules": ..., "edge/origin_pulls": ...,
    },
    "websockets_off": {
        "edge/settings/websockets": "off", "edge/probes/edge": failing("edge", "http", 404),
    },
    "ssl_mode": {"edge/settings/ssl": "flexible"},
    "strict_needs_certificate": {
        "edge/settings/ssl": "strict", "edge/probes/edge": failing("edge", "http", 526),
    },
    "rocket_loader_on": {"edge/page/rocket_loader": True, "edge/settings/rocket_loader": "on"},
    "websocket_path_cached": {"edge/socket_path/cache": "HIT"},
    "dns_missing": {"edge/dns": [], "edge/probes/edge": failing("edge", "http", 409)},
    "dns_not_proxied": {"edge/dns": [
        {"type": "A", "name": "www.example.com", "content": "203.0.113.7", "proxied": False}
    ]},
    "dns_other_address": {
        "edge/dns": [{"type": "A", "name": "www.example.com", "content": "203.0.113.9", "proxied": True}],
        "edge/probes/edge": failing("edge", "http", 522),
    },
    "origin_pulls_one_end": {
        "server/nginx_config/verify_client": "required", "edge/probes/edge": failing("edge", "http", 400),
    },
    "edge_socket": {"edge/probes/edge": failing("edge", "pong", 101)},
    # certificate, records and socket are as they should be.
    "alias_not_redirected": {
        **WITH_ALIAS, "edge/aliases": {"example.com": {"status": 525, "location": "", "error": ""}},
    },
    "page_opens_ws": {"edge/page/insecure": ['"ws://www.example.com/']},
}  # fmt: skip


def broken(*names):
    document = healthy()
    for name in names:
        for path, value in CASES[name].items():
            change(document, path, copy.deepcopy(value))
    return document


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("unavailable", "it can't verify any user's session: requests get 503"),
        ("stale", "the last one stays in use for at most 12 hours"),
    ],
)
def test_a_provider_that_fails_is_the_sign_in_s_fault(status, words):
    document = healthy()
    change(document, "server/ready/sign_in", status)
    address = "https://login.example.com/keys"
    change(document, "server/containers/api/variables/APP_SESSION_JWKS_URL", address)
    (finding,) = diagnose(document, again=True).findings
    assert (finding.rule, finding.layer) == ("key_set", "sign_in")
    assert address in finding.cause and words in finding.cause


def test_a_healthy_site_has_no_finding():
    assert found(healthy()) == found(healthy(), again=False) == []
    assert describe(diagnose(healthy())) == "Every layer is healthy."


def test_every_rule_has_a_case():
    assert CASES.keys() == {rule.name for rule in RULES}


@pytest.mark.parametrize("name", CASES)
def test_each_fault_alone_has_one_finding(name):
    assert found(broken(name)) == [name]


def pairs():
    """Return pairs of causes that can occur together: neither explains or hides the other."""
    # Without containers or the zone, the evidence of other rules is missing.
    blinding = ("docker_stopped", "token_refused")
    causes = [rule for rule in RULES if not rule.is_symptom and rule.name not in blinding]
    for index, one in enumerate(causes):
        for other in causes[index + 1 :]:
            touched = {re.sub(r"^((?:[^/]+/){2}[^/]+).*", r"\1", path) for path in CASES[one.name]}
            also = {re.sub(r"^((?:[^/]+/){2}[^/]+).*", r"\1", path) for path in CASES[other.name]}
            silent = {one.name, one.layer} & set(other.explained_by) or {other.name, other.layer} & set(
                one.explained_by
            )
            hidden = any(a.startswith(b) or b.startswith(a) for a in touched for b in also)
            if not silent and not hidden:
                yield one.name, other.name


def test_two_causes_are_both_found_root_cause_first():
    tried = list(pairs())
    assert len(tried) > 500
    for one, other in tried:
        names = found(broken(one, other))
        assert {one, other} <= set(names), (one, other, names)
        layers = [LAYERS.index(f.layer) for f in diagnose(broken(one, other), again=True).findings]
        assert layers == sorted(layers)


def test_missing_evidence_is_reported_and_is_not_a_finding():
    document = healthy()
    for place in ("server", "edge"):
        for name in document[place]:
            document[place][name] = {"missing": f"{name} is missing."}
    diagnosis = diagnose(document)
    assert diagnosis.findings == diagnosis.waiting == []
    assert diagnosis.missing["server.redis"] == "redis is missing."
    assert len(diagnosis.missing) == len(document["server"]) + len(document["edge"])
    text = describe(diagnosis)
    assert "No fault was found." in text
    assert "server.redis: redis is missing." in text
    assert "healthy" not in text


@pytest.mark.parametrize("place", ["server", "edge"])
def test_a_missing_datum_causes_no_finding(place):
    for name in healthy()[place]:
        document = healthy()
        change(document, f"{place}/{name}", ...)
        assert found(document) == [], name


def test_an_unreachable_server_is_missing_evidence():
    document = healthy()
    document["server"] = {"ssh": {"missing": "Connection timed out"}}
    diagnosis = diagnose(document)
    assert diagnosis.findings == []
    assert diagnosis.missing == {"server.ssh": "Connection timed out"}


@pytest.mark.parametrize(
    "state",
    [
        {"server/deploying": ["docker compose up --detach"]},
        {"server/containers/api": container(health="starting", started=NOW - 4)},
        {"server/containers/api": container(state="created", health="none")},
    ],
)
def test_a_deployment_is_not_a_finding(state):
    document = broken("api_stopped")
    for path, value in state.items():
        change(document, path, value)
    diagnosis = diagnose(document, again=True)
    assert diagnosis.findings == []
    assert diagnosis.waiting
    assert diagnosis.unsettled
    assert "Diagnose again" in describe(diagnosis)


def test_a_container_that_just_became_healthy_needs_a_second_look():
    document = healthy()
    change(document, "server/containers/api", container(started=NOW - 3))
    change(document, "server/probes/api", failing("api", "tcp"))
    assert found(document, again=False) == []
    assert diagnose(document, again=False).waiting
    assert found(document, again=True) == ["api_socket"]


def test_a_symptom_needs_a_second_look_only_without_a_cause():
    document = broken("edge_socket")
    assert found(document, again=False) == []
    assert [finding.rule for finding in diagnose(document, again=False).waiting] == ["edge_socket"]
    assert found(document, again=True) == ["edge_socket"]
    assert found(broken("edge_socket", "websockets_off"), again=False) == ["websockets_off"]


@pytest.mark.parametrize(
    ("milliseconds", "reason", "rule"),
    [
        (5.0, "timeout", "firewall_too_tight"),
        (3000.0, "timeout", "edge_socket"),
        (5.0, "closed", "edge_socket"),
    ],
)
def test_an_edge_that_times_out_is_the_firewall_only_if_nginx_answers_promptly(milliseconds, reason, rule):
    document = healthy()
    document["server"]["probes"]["value"]["nginx port 443"]["handshake_ms"] = milliseconds
    document["edge"]["page"] = {"missing": "It did not respond.", "reason": reason}
    change(document, "edge/probes/edge", failing("edge", "http"))
    assert found(document) == [rule]


def test_a_container_that_exits_repeatedly_is_not_a_deployment():
    document = broken("api_stopped")
    change(document, "server/containers/api", container(state="restarting", restarts=4, exit_code=1))
    assert found(document) == ["api_stopped"]


@pytest.mark.parametrize(("state", "named"), [("exited", False), ("restarting", True)])
def test_the_log_of_a_stopped_container_is_not_evidence_of_the_present(state, named):
    document = broken("api_stopped")
    change(document, "server/containers/api", container(state=state, health="unhealthy", restarts=4))
    change(document, "server/app_logs/api", {"lines": [], "redis_code": "WRONGPASS"})
    assert ("redis_password" in found(document)) is named


def test_a_deployment_hides_no_other_fault():
    document = broken("api_stopped", "websockets_off")
    change(document, "server/deploying", ["docker compose up"])
    assert found(document) == ["websockets_off"]


def test_every_finding_is_reported_completely():
    for name in CASES:
        for finding in diagnose(broken(name), again=True).findings:
            assert finding.cause.endswith("."), finding
            assert finding.remedy.endswith("."), finding
            assert finding.layer in LAYERS
            assert f"docs/runbook/{finding.page}.md" in describe(diagnose(broken(name), again=True))


def run(capsys, document, **arguments):
    arguments = {
        "server": document["server"], "edge": document["edge"], "expected": document["expected"],
        "site": "https://www.example.com", **arguments,
    }  # fmt: skip
    with patch_module_args(arguments), pytest.raises(SystemExit):
        module.main()
    return json.loads(capsys.readouterr().out)


def test_the_module_fails_with_findings_and_writes_them_with_the_evidence(capsys, tmp_path):
    path = tmp_path / "diagnosis.json"
    result = run(capsys, broken("redis_full"), path=str(path))
    assert result["failed"]
    assert result["msg"].startswith("The first broken layer is redis: Redis is full")
    record = json.loads(path.read_text())
    assert (record["healthy"], record["findings"][0]["page"]) == (False, "redis_is_full")
    assert record["evidence"]["server"]["redis"]["value"]["ping"] == "PONG"


def test_the_module_succeeds_on_a_healthy_site(capsys):
    result = run(capsys, healthy())
    assert not result.get("failed")
    assert not result["changed"]
    assert result["diagnosis"]["healthy"]


def test_the_module_first_requests_a_second_look(capsys, tmp_path):
    document, path = broken("api_stopped"), tmp_path / "diagnosis.json"
    change(document, "server/deploying", ["docker compose up"])
    result = run(capsys, document, final=False, path=str(path))
    assert result["look_again"]
    assert not result.get("failed")
    assert not path.exists()


def test_rules_explain_by_names_that_exist():
    known = {rule.name for rule in RULES} | set(LAYERS)
    assert {name for rule in RULES for name in rule.explained_by} <= known


def test_every_page_is_in_the_runbook():
    pages = Path(__file__).parents[2] / "docs/runbook"
    assert not {rule.page for rule in RULES if not (pages / f"{rule.page}.md").exists()}


@pytest.mark.parametrize(("verify", "on"), [("optional", True), ("optional", False), ("required", True)])
def test_origin_pulls_that_reject_no_request_are_not_a_fault(verify, on):
    document = healthy()
    change(document, "server/nginx_config/verify_client", verify)
    change(document, "edge/origin_pulls/zone", on)
    assert found(document) == []
