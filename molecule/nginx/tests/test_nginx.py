"""nginx alone: what it answers, what it forwards, and that a wrong tree never goes live."""

import json
import os
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[3]

# Answers every request with the request's headers: what nginx forwarded can be read from outside.
ECHO = """
import http.server, json
class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = json.dumps({"version": self.request_version, **self.headers}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()
http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Echo).serve_forever()
"""
REQUEST = """
import http.client, json, ssl, sys
port, path, headers, size = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4])
if port == 443:
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=ssl._create_unverified_context())
else:
    connection = http.client.HTTPConnection("127.0.0.1", port)
connection.request("POST" if size else "GET", path, body=b"x" * size or None, headers=headers)
answer = connection.getresponse()
print(json.dumps([answer.status, answer.read().decode()]))
"""


@pytest.fixture(scope="module")
def upstream(host):
    """Run a real HTTP server where the api would be."""
    host.run_expect([0], "systemd-run --unit=echo python3 -c %s", ECHO)
    host.run_expect([0], "timeout 10 sh -c 'until ss -ltn | grep -q 127.0.0.1:8000; do sleep 0.1; done'")
    yield
    host.run_expect([0], "systemctl stop echo")


def request(host, port, path, headers=None, size=0):
    """Send one request from inside the server; return (status, body)."""
    headers = {"Host": "screen-flow.localhost", **(headers or {})}
    command = host.run_expect(
        [0], "python3 -c %s %s %s %s %s", REQUEST, str(port), path, json.dumps(headers), str(size)
    )
    return json.loads(command.stdout)


def converge(check=True, **variables):
    """Run the scenario's converge again with other variables."""
    return subprocess.run(
        [
            "ansible-playbook",
            f"--inventory={PROJECT / 'inventories/demo'}",
            f"--extra-vars={json.dumps(variables)}",
            str(PROJECT / "molecule/nginx/converge.yml"),
        ],
        env=os.environ | {"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"},
        check=check,
        capture_output=True,
        text=True,
    )


def master(host):
    """Return nginx's main process and its start time: both stay over a reload."""
    return host.run_expect([0], "systemctl show nginx --property MainPID,ExecMainStartTimestamp").stdout


def test_runs_and_comes_back_after_a_reboot(host):
    assert host.service("nginx").is_running
    assert host.service("nginx").is_enabled


@pytest.mark.parametrize("port", [80, 443])
def test_listens_on_both_families(host, port):
    assert host.socket(f"tcp://0.0.0.0:{port}").is_listening
    assert host.socket(f"tcp://:::{port}").is_listening


def test_only_our_site_is_enabled(host):
    assert host.file("/etc/nginx/sites-enabled").listdir() == ["screen-flow"]
    assert (
        host.file("/etc/nginx/sites-enabled/screen-flow").linked_to
        == "/etc/nginx/sites-available/screen-flow"
    )


def test_the_key_is_for_root_only(host):
    key = host.file("/etc/ssl/private/screen-flow-origin.key")
    assert (key.user, key.mode) == ("root", 0o600)


def test_workers_may_open_the_files_that_their_connections_need(host):
    worker = host.run_expect([0], "pgrep --oldest --full 'nginx: worker'").stdout.strip()
    limits = host.file(f"/proc/{worker}/limits").content_string
    line = next(line for line in limits.splitlines() if line.startswith("Max open files"))
    assert int(line.split()[3]) >= 2 * 4096


@pytest.mark.parametrize("port", [80, 443])
@pytest.mark.parametrize("path", ["/", "/api/v1/cv-processing/ws/ada"])
def test_forwards_the_upgrade_and_the_headers(host, upstream, port, path):
    status, body = request(host, port, path, {"Upgrade": "websocket", "Connection": "Upgrade"})
    assert status == 200
    seen = json.loads(body)
    assert seen["version"] == "HTTP/1.1"
    assert (seen["Upgrade"], seen["Connection"]) == ("websocket", "upgrade")
    assert seen["Host"] == "screen-flow.localhost"
    assert seen["X-Forwarded-Proto"] == {80: "http", 443: "https"}[port]
    assert seen["X-Real-IP"] == seen["X-Forwarded-For"] == "127.0.0.1"


def test_an_ordinary_request_is_not_turned_into_an_upgrade(host, upstream):
    _, body = request(host, 80, "/")
    seen = json.loads(body)
    assert "Upgrade" not in seen
    assert seen["Connection"] == "close"


@pytest.mark.parametrize(("size", "status"), [(50 * 1024 * 1024, 200), (50 * 1024 * 1024 + 1, 413)])
def test_takes_50_megabytes_and_not_a_byte_more(host, upstream, size, status):
    assert request(host, 80, "/", size=size)[0] == status


def test_a_wrong_tree_leaves_the_old_one_serving_and_names_the_line(host, upstream):
    before = host.run_expect([0], "cd /etc/nginx && find . -type f | sort | xargs sha256sum").stdout
    run = converge(check=False, nginx_upstream_servers=["127.0.0.1:99999"])
    assert run.returncode != 0
    assert "invalid port in upstream" in run.stdout
    assert "/etc/nginx/upstreams/screen-flow.conf:3" in run.stdout
    assert host.run_expect([0], "cd /etc/nginx && find . -type f | sort | xargs sha256sum").stdout == before
    assert request(host, 80, "/")[0] == 200


def test_a_changed_value_is_reloaded_not_restarted(host, upstream):
    before = master(host)
    converge(nginx_client_max_body_size="1k")
    try:
        assert request(host, 80, "/", size=2048)[0] == 413
        assert master(host) == before
    finally:
        converge()
    assert request(host, 80, "/", size=2048)[0] == 200


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("nginx_port_http", 70000),
        ("nginx_server_names", ["exa mple.com"]),
        ("nginx_websocket_path", "/ws"),
    ],
)
def test_bad_input_stops_before_anything_changes(variable, value):
    run = converge(check=False, **{variable: value})
    assert run.returncode != 0
    assert f"{variable} is" in run.stdout
    assert str(value) in run.stdout
    assert "changed=0" in run.stdout
