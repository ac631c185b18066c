"""The rendered tree checked by a scanner (gixy-ng), and what the scanner does not check."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.screen_flow.live.plugins.module_utils.evidence import nginx_config

WAIVED = yaml.safe_load((Path(__file__).parent / "gixy-waivers.yml").read_text())
# The role's defaults, and the inventories' values with every option on.
DEFAULTS: dict = {}
EVERYTHING = {
    "nginx_server_names": ["www.example.com"],
    "nginx_real_ip_ranges": ["192.0.2.0/24", "2001:db8::/32"],
    "nginx_allowed_origins": ["https://www.example.com"],
    "nginx_only_edge_connects": True,
    "nginx_client_ca_file": "/etc/ssl/certs/edge.pem",
    "nginx_hsts_max_age": 63_072_000,
    "nginx_aliases": ["example.com", "old.example.com"],
    "nginx_alias_target": "https://www.example.com",
}


@pytest.fixture(params=[DEFAULTS, EVERYTHING], ids=["defaults", "everything on"])
def variables(request):
    return request.param


def lay_out(render, folder, variables):
    """Render the configuration into a folder, laid out as by the role; return the folder."""
    for path, template in {
        "nginx.conf": "nginx.conf.j2",
        "upstreams/screen-flow.conf": "upstream.conf.j2",
        "sites-enabled/screen-flow": "site.conf.j2",
    }.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(render("nginx", template, **variables))
    (folder / "mime.types").write_text("types { text/html html; }\n")
    return folder


@pytest.fixture
def tree(render, tmp_path, variables):
    return lay_out(render, tmp_path, variables)


def scan(tree):
    """Return gixy's findings."""
    gixy = Path(sys.executable).parent / "gixy"
    run = subprocess.run(
        [gixy, "--format", "json", "nginx.conf"], cwd=tree, check=False, capture_output=True, text=True
    )
    assert run.stdout, run.stderr
    return json.loads(run.stdout)


def long_timeouts(text):
    """Return the timeouts for clients, in seconds, that are unsafe where anyone can connect."""
    timeouts = re.findall(r"(keepalive|client_body|client_header)_timeout (\d+)s;", text)
    return {name: int(seconds) for name, seconds in timeouts if int(seconds) > 75}


def test_gixy_reports_only_waived_findings(tree):
    found = {finding["plugin"]: finding for finding in scan(tree)}
    assert not found.keys() - WAIVED.keys(), found


def test_every_waiver_is_needed(render, tmp_path):
    found = set()
    for name, variables in {"defaults": DEFAULTS, "everything": EVERYTHING}.items():
        (tmp_path / name).mkdir()
        found |= {finding["plugin"] for finding in scan(lay_out(render, tmp_path / name, variables))}
    assert WAIVED.keys() <= found


def test_gixy_reads_the_whole_tree(tree):
    """It reports a fault in the file that is included last."""
    site = tree / "sites-enabled/screen-flow"
    site.write_text(
        site.read_text().replace("proxy_set_header Host $host;", "proxy_set_header Host $http_host;")
    )
    assert "host_spoofing" in {finding["plugin"] for finding in scan(tree)}


def test_timeouts_for_clients_are_long_only_behind_a_firewall(tree, variables):
    found = long_timeouts((tree / "nginx.conf").read_text())
    assert bool(found) == variables.get("nginx_only_edge_connects", False)


@pytest.mark.parametrize(
    ("variables", "verdict"),
    [
        (DEFAULTS, "off"),
        (EVERYTHING, "required"),
        (EVERYTHING | {"nginx_client_certificate_required": False}, "optional"),
    ],
)
def test_diagnosis_reads_whether_a_client_certificate_is_required(render, tmp_path, variables, verdict):
    main, _ = nginx_config.read(lay_out(render, tmp_path, variables) / "nginx.conf")
    assert nginx_config.describe(main, "www.example.com", "/ws/")["verify_client"] == verdict
