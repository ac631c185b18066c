"""nginx alone: what it answers, what it forwards, and that a wrong tree never goes live."""

import json
import os
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from tests.kit.site import play

ROLE = Path(__file__).parents[3] / "roles/nginx"

# Answers every request with the request's headers: what nginx forwarded can be read from outside.
ECHO = """
import http.server, json
class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = json.dumps({"version": self.request_version, **self.headers}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        for header in filter(None, self.path.partition("?")[2].split("&")):
            self.send_header(*header.split("=", 1))
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()
http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Echo).serve_forever()
"""
# Sends one request `times` times and prints [status, headers, body] of the last answer, and each status.
REQUEST = """
import http.client, json, socket, ssl, sys
asked = json.loads(sys.argv[1])
context = ssl._create_unverified_context()
if asked["certificate"]:
    context.load_cert_chain(asked["certificate"])
statuses = []
for _ in range(asked["times"]):
    connection = http.client.HTTPConnection(asked["headers"]["Host"], asked["port"])
    connection.sock = socket.create_connection((asked["to"], asked["port"]), 5, (asked["source"], 0))
    if asked["port"] == 443:
        connection.sock = context.wrap_socket(connection.sock, server_hostname=asked["name"])
    body = b"x" * asked["size"] or None
    connection.request("POST" if body else "GET", asked["path"], body=body, headers=asked["headers"])
    answer = connection.getresponse()
    statuses.append(answer.status)
    seen = [answer.status, dict(answer.getheaders()), answer.read().decode()]
print(json.dumps([seen, statuses]))
"""
NAME = "screen-flow.localhost"
SITE = f"https://{NAME}:{os.environ['TESTBED_PORT_HTTPS']}"
SOCKET = "/api/v1/cv-processing/ws/ada"
HANDSHAKE = {"Upgrade": "websocket", "Connection": "Upgrade", "Origin": SITE}
# See converge.yml: this address stands for the edge, all others for somebody else.
EDGE, OTHER = "127.0.0.2", "127.0.0.3"


@pytest.fixture(scope="module")
def upstream(host):
    """Run a real HTTP server where the api would be."""
    host.run_expect([0], "systemd-run --unit=echo python3 -c %s", ECHO)
    host.run_expect([0], "timeout 10 sh -c 'until ss -ltn | grep -q 127.0.0.1:8000; do sleep 0.1; done'")
    yield
    host.run_expect([0], "systemctl stop echo")


def ask(host, port, path="/", headers=None, **other):
    """Send a request from inside the server; return the finished process."""
    asked = {
        "port": port,
        "path": path,
        "headers": {"Host": NAME, **(headers or {})},
        "name": NAME,
        "size": 0,
        "to": "127.0.0.1",
        "source": "127.0.0.1",
        "times": 1,
        "certificate": None,
    }
    return host.run("python3 -c %s %s", REQUEST, json.dumps(asked | other))


def request(host, port, path="/", headers=None, **other):
    """Send a request that is answered; return the last answer's (status, headers, body)."""
    process = ask(host, port, path, headers, **other)
    assert process.rc == 0, process.stderr
    return json.loads(process.stdout)[0]


def statuses(host, port, path="/", headers=None, **other):
    """Send the same request many times; return how often each status came."""
    process = ask(host, port, path, headers, **other)
    assert process.rc == 0, process.stderr
    return Counter(json.loads(process.stdout)[1])


def seen_by_the_api(host, port, path="/", headers=None, **other):
    """Send a request; return the headers with which nginx forwarded it."""
    status, _, body = request(host, port, path, headers, **other)
    assert status == 200, body
    return json.loads(body)


def converge(check=True, **variables):
    """Run the scenario's converge again with other variables."""
    run = play("molecule/nginx/converge.yml", **variables)
    assert run.returncode == 0 or not check, run.stdout + run.stderr
    return run


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


def test_the_default_site_is_not_enabled(host):
    assert host.file("/etc/nginx/sites-enabled").listdir() == ["screen-flow", "shop"]
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
    assert int(line.split()[3]) >= 16_384


@pytest.mark.parametrize("port", [80, 443])
@pytest.mark.parametrize("path", ["/", SOCKET])
def test_forwards_the_upgrade_and_the_headers(host, upstream, port, path):
    seen = seen_by_the_api(host, port, path, HANDSHAKE)
    assert seen["version"] == "HTTP/1.1"
    assert (seen["Upgrade"], seen["Connection"]) == ("websocket", "upgrade")
    assert seen["Host"] == NAME
    assert seen["X-Forwarded-Proto"] == {80: "http", 443: "https"}[port]
    assert seen["X-Real-IP"] == seen["X-Forwarded-For"] == "127.0.0.1"


def test_an_ordinary_request_is_not_turned_into_an_upgrade(host, upstream):
    seen = seen_by_the_api(host, 80)
    assert "Upgrade" not in seen
    assert seen["Connection"] == "close"


@pytest.mark.parametrize("token", ["h2c", "TLS/1.2", "websocket, h2c", "websocketx"])
@pytest.mark.parametrize("path", ["/", SOCKET])
def test_no_other_upgrade_is_forwarded(host, upstream, path, token):
    asked = {"Upgrade": token, "Connection": "Upgrade, HTTP2-Settings", "HTTP2-Settings": "AAMAAABkAAQAoAAA"}
    assert "Upgrade" not in seen_by_the_api(host, 80, path, asked)


@pytest.mark.parametrize(
    "origin",
    [None, "", "null", SITE[:-1], f"{SITE}0", f"{SITE}.evil.example", f"{SITE}/", f"https://evil.{NAME}",
     f"http{SITE[5:]}", f"https://{NAME}", "https://evil.example", f"https://evil.example {SITE}"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", SOCKET])
def test_a_foreign_page_s_handshake_is_refused(host, upstream, path, origin):
    asked = {**HANDSHAKE, "Origin": origin}
    if origin is None:
        del asked["Origin"]
    assert request(host, 443, path, asked)[0] == 403


def test_an_ordinary_request_needs_no_origin(host, upstream):
    assert request(host, 443)[0] == 200


FORGED = {
    "CF-Connecting-IP": "198.51.100.9",
    "X-Forwarded-For": "198.51.100.8",
    "X-Real-IP": "198.51.100.7",
    "X-Forwarded-Proto": "gopher",
    "True-Client-IP": "198.51.100.6",
    "Forwarded": "for=198.51.100.5",
}


@pytest.mark.parametrize(("source", "client"), [(EDGE, "198.51.100.9"), (OTHER, OTHER)])
def test_the_edge_alone_says_who_the_client_is(host, upstream, source, client):
    path = f"/forged-by-{source}"
    seen = seen_by_the_api(host, 80, path, FORGED, source=source)
    for header in ("CF-Connecting-IP", "X-Forwarded-For", "X-Real-IP"):
        assert seen[header] == client
    assert seen["X-Forwarded-Proto"] == "http"
    assert not {"True-Client-IP", "Forwarded"} & seen.keys()
    log = host.run_expect([0], "grep %s /var/log/nginx/access.log", path).stdout
    assert {line.split()[0] for line in log.splitlines()} == {client}


@pytest.fixture(scope="class")
def low_limits():
    """Lower the limits, for tests that go over them."""
    converge(
        nginx_handshake_rate=1, nginx_handshake_connections=5, nginx_upload_rate=1, nginx_upload_connections=3
    )
    yield
    converge()


def test_an_office_comes_back_at_once(host, upstream):
    """All that an address may hold pass without delay, and once more after a failure."""
    assert statuses(host, 80, SOCKET, HANDSHAKE, source="127.0.0.5", times=2_000) == {200: 2_000}


@pytest.mark.usefixtures("upstream", "low_limits")
class TestLimits:
    @pytest.mark.parametrize(("path", "headers", "size"), [(SOCKET, HANDSHAKE, 0), ("/", {}, 10)])
    def test_a_client_s_rate_is_limited_and_only_that_client_s(self, host, path, headers, size):
        def ask_often(source, claim, times):
            claimed = {**headers, "CF-Connecting-IP": claim}
            return statuses(host, 80, path, claimed, size=size, source=source, times=times)

        counted = ask_often(OTHER, "198.51.100.1", 25)
        assert counted[200] in range(11, 15)  # ten at once, the first, and one for each second that it took
        assert counted[429] == 25 - counted[200]
        # Whatever it claims to be, it is the same client.
        assert ask_often(OTHER, "198.51.100.2", 1) == {429: 1}
        for client in ("198.51.100.1", "198.51.100.2"):
            assert ask_often(EDGE, client, 10) == {200: 10}
        zone = "handshake_rate" if path == SOCKET else "upload_rate"
        log = host.run_expect([0], "grep %s /var/log/nginx/error.log", f'by zone "{zone}"').stdout
        assert "limiting requests, excess: 10." in log
        assert f"client: {OTHER}" in log
        # Ordinary requests are not counted.
        assert statuses(host, 80, source=OTHER, times=20) == {200: 20}

    def test_one_network_of_64_bits_is_one_client(self, host):
        def refused(client):
            asked = {"CF-Connecting-IP": client}
            return statuses(host, 80, "/", asked, size=1, source=EDGE, times=8)[429]

        assert refused("2001:db8:1:2:3:4:5:6") == 0
        assert refused("2001:db8:1:2:ffff::1") > 0
        assert refused("2001:db8:1:3::1") == 0
        assert refused("2001:db8::1") == 0

    def test_uploads_at_the_same_time_are_limited(self, host):
        # Three stay half sent; the fourth finds no room.
        half = f"POST / HTTP/1.1\\r\\nHost: {NAME}\\r\\nContent-Length: 9\\r\\n\\r\\nx"
        one = f"exec 3<>/dev/tcp/127.0.0.1/80; printf '{half}' >&3; sleep 15"
        script = f"for _ in 1 2 3; do ({one}) & done; wait"
        host.run_expect([0], "systemd-run --unit=dawdler bash -c %s", script)
        time.sleep(1)
        assert request(host, 80, size=5)[0] == 429
        assert request(host, 80, size=5, source="127.0.0.4")[0] == 200
        host.run_expect([0], "systemctl stop dawdler")
        time.sleep(0.5)
        assert request(host, 80, size=5)[0] == 200


# Accepts a WebSocket and sends without end; nginx never reads more than its client takes.
TALK = """
import os, socket
path = "/run/talk.sock"
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
os.chmod(path, 0o666)
listener.listen()
while True:
    peer, _ = listener.accept()
    peer.recv(65536)
    peer.sendall(b"HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\nUpgrade: x\\r\\n\\r\\n")
    try:
        while True:
            peer.sendall(bytes(65536))
    except OSError:
        peer.close()
"""
# Asks for that socket, takes nothing for a while, and then reads to the end: prints how much there was.
STALL = """
import socket, sys, time
s = socket.create_connection(("127.0.0.1", 80))
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
s.sendall(sys.argv[1].encode())
time.sleep(10)
s.settimeout(20)
size = 0
while size < 64 << 20 and (data := s.recv(1 << 20)):
    size += len(data)
print(size)
"""


def test_a_client_that_takes_nothing_is_let_go_and_little_is_kept_for_it(host):
    host.run_expect([0], "systemd-run --unit=talk python3 -c %s", TALK)
    try:
        converge(nginx_upstream_servers=["unix:/run/talk.sock"], nginx_websocket_client_send_timeout=3)
        asked = "".join(f"{name}: {value}\r\n" for name, value in (HANDSHAKE | {"Host": NAME}).items())
        kept = host.run_expect([0], "python3 -c %s %s", STALL, f"GET {SOCKET} HTTP/1.1\r\n{asked}\r\n")
        assert 0 < int(kept.stdout) < 8 << 20
        assert not host.run("ss -Htn state established '( sport = :80 )'").stdout
    finally:
        converge()
        host.run_expect([0], "systemctl stop talk && rm /run/talk.sock")


def test_an_unknown_name_gets_no_certificate_and_no_answer(host, upstream):
    host.run_expect([0], "sysctl -w net.ipv6.conf.lo.disable_ipv6=0")  # Docker turned it off
    for address in ("127.0.0.1", "::1"):
        way = {"to": address, "source": address}
        for name in ("example.com", None):
            assert "UNRECOGNIZED_NAME" in ask(host, 443, name=name, **way).stderr
        # The right name in TLS and another one in HTTP.
        for port in (80, 443):
            closed = ask(host, port, headers={"Host": "example.com"}, **way)
            assert "RemoteDisconnected" in closed.stderr
        assert request(host, 443, **way)[0] == 200


def test_security_headers_are_there_once_and_the_api_s_own_stay(host, upstream):
    _, headers, _ = request(host, 443)
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Server"] == "nginx"
    assert "Strict-Transport-Security" not in headers
    own = request(host, 443, "/?Content-Security-Policy=own")[1]
    assert own["Content-Security-Policy"] == "own"


@pytest.fixture
def edge_certificate(host):
    """Make an authority with a certificate for the edge, and one of somebody else's; return their paths."""
    make = "openssl req -x509 -nodes -days 2 -newkey ec -pkeyopt ec_paramgen_curve:P-256"
    for who in ("edge", "other"):
        host.run_expect([0], f"cd /etc/ssl && {make} -subj /CN={who} -keyout {who}.key -out {who}.crt")
        host.run_expect([0], f"cd /etc/ssl && cat {who}.key {who}.crt > {who}.pem")
    return "/etc/ssl/edge.pem", "/etc/ssl/other.pem"


def test_only_the_edge_s_certificate_opens_the_site(host, upstream, edge_certificate):
    ours, foreign = edge_certificate
    own = host.interface("eth0").addresses[0]
    outside = {"to": own, "source": own}
    converge(nginx_client_ca_file="/etc/ssl/edge.crt", nginx_hsts_max_age=60)
    try:
        assert request(host, 443, **outside)[0] == 403
        assert request(host, 443, SOCKET, HANDSHAKE, **outside)[0] == 403
        assert request(host, 443, **outside, certificate=foreign)[0] == 400
        status, headers, _ = request(host, 443, **outside, certificate=ours)
        assert (status, headers["Strict-Transport-Security"]) == (200, "max-age=60")
        # No proof can be given on plain HTTP.
        status, headers, _ = request(host, 80, "/a?b", **outside)
        assert (status, headers["Location"]) == (308, f"https://{NAME}/a?b")
        assert "Strict-Transport-Security" not in headers
        # The probes run on the server itself.
        assert request(host, 443)[0] == request(host, 80)[0] == 200
        converge(nginx_client_ca_file="/etc/ssl/edge.crt", nginx_client_certificate_required=False)
        assert request(host, 443, **outside)[0] == request(host, 80, **outside)[0] == 200
    finally:
        converge()


@pytest.mark.parametrize(("size", "status"), [(50 * 1024 * 1024, 200), (50 * 1024 * 1024 + 1, 413)])
def test_takes_50_megabytes_and_not_a_byte_more(host, upstream, size, status):
    assert request(host, 80, size=size)[0] == status


def test_a_wrong_tree_leaves_the_old_one_serving_and_names_the_line(host, upstream):
    before = host.run_expect([0], "cd /etc/nginx && find . -type f | sort | xargs sha256sum").stdout
    run = converge(check=False, nginx_upstream_servers=["127.0.0.1:99999"])
    assert run.returncode != 0
    assert "invalid port in upstream" in run.stdout
    assert "/etc/nginx/upstreams/screen-flow.conf:3" in run.stdout
    assert host.run_expect([0], "cd /etc/nginx && find . -type f | sort | xargs sha256sum").stdout == before
    assert request(host, 80)[0] == 200


def test_nginx_takes_the_tree_with_everything_off(host, upstream):
    off = ("handshake_rate", "handshake_connections", "upload_rate", "upload_connections")
    converge(
        nginx_server_names=["_"],
        nginx_real_ip_ranges=[],
        nginx_allowed_origins=[],
        nginx_security_headers={},
        **{f"nginx_{limit}": 0 for limit in off},
    )
    try:
        assert request(host, 443, name="example.com")[0] == 200
    finally:
        converge()


def test_the_server_s_openssl_has_the_groups_that_the_role_lists_and_no_others(host):
    variables = yaml.safe_load((ROLE / "vars/main.yml").read_text())
    old, new = variables["__nginx_tls_groups_3_0"], variables["__nginx_tls_groups_3_5"]

    def known(group):
        pair = (
            "ssl_certificate certs/screen-flow-origin.pem; ssl_certificate_key private/screen-flow-origin.key"
        )
        server = f"server {{ listen 127.0.0.1:81 ssl; {pair}; ssl_ecdh_curve {group}; }}"
        tree = f"events {{}} http {{ {server} }}"
        return host.run("echo %s > /etc/ssl/groups.conf; nginx -t -c /etc/ssl/groups.conf", tree).rc == 0

    assert host.system_info.release.startswith("12")
    assert [group for group in old + new if known(group)] == old


def test_a_changed_value_is_reloaded_not_restarted(host, upstream):
    before = master(host)
    converge(nginx_client_max_body_size="1k")
    try:
        assert request(host, 80, size=2048)[0] == 413
        assert master(host) == before
    finally:
        converge()
    assert request(host, 80, size=2048)[0] == 200


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("nginx_port_http", 70000),
        ("nginx_server_names", ["exa mple.com"]),
        ("nginx_websocket_path", "/ws"),
        ("nginx_client_header_timeout", 7200),
        ("nginx_real_ip_ranges", ["0.0.0.0/0"]),
        ("nginx_allowed_origins", ["https://www.example.com/"]),
        ("nginx_handshake_rate", -1),
        # Debian 12's OpenSSL has no post-quantum key exchange.
        ("nginx_tls_curves", ["X25519", "X25519MLKEM768"]),
        ("nginx_upstream_servers", ["unix:api.sock"]),
    ],
)
def test_bad_input_stops_before_anything_changes(variable, value):
    run = converge(check=False, **{variable: value})
    assert run.returncode != 0
    assert variable in run.stdout
    assert str(value) in run.stdout
    assert "changed=0" in run.stdout
