"""nginx alone: what it listens on, forwards, returns and refuses."""

import pytest
import trustme

from tests.kit.testbed import HANDSHAKE, NAME, SITE, SOCKET

# See converge.yml: a request from this address is the edge's, one from any other a direct client's.
EDGE, OTHER = "127.0.0.2", "127.0.0.3"
MIB = 1 << 20


def test_is_running_and_enabled(host):
    assert host.service("nginx").is_running
    assert host.service("nginx").is_enabled


def test_listens_on_both_families(host):
    # Not by testinfra's sockets: a listener on :: counts there as one on 0.0.0.0, too.
    listeners = {line.split()[3] for line in host.check_output("ss -Hltn").splitlines()}
    assert {"0.0.0.0:80", "[::]:80", "0.0.0.0:443", "[::]:443"} <= listeners


def test_only_the_site_is_enabled(host):
    assert host.file("/etc/nginx/sites-enabled").listdir() == ["screen-flow", "shop"]
    link = host.file("/etc/nginx/sites-enabled/screen-flow")
    assert link.linked_to == "/etc/nginx/sites-available/screen-flow"


def test_only_root_can_read_the_private_key(host):
    key = host.file("/etc/ssl/private/screen-flow-origin.key")
    assert (key.user, key.mode) == ("root", 0o600)


def test_workers_may_open_the_files_that_their_connections_need(host):
    worker = host.check_output("pgrep --oldest --full 'nginx: worker'")
    limits = host.file(f"/proc/{worker}/limits").content_string
    line = next(line for line in limits.splitlines() if line.startswith("Max open files"))
    assert int(line.split()[3]) >= 16_384


@pytest.mark.parametrize("port", [80, 443])
@pytest.mark.parametrize("path", ["/", SOCKET])
def test_forwards_the_headers_and_to_the_socket_location_the_upgrade(upstream, local, port, path):
    headers = local.forwarded(port, path, HANDSHAKE)
    assert headers["version"] == "HTTP/1.1"
    upgrade = ("websocket", "upgrade") if path == SOCKET else (None, "close")
    assert (headers.get("Upgrade"), headers["Connection"]) == upgrade
    assert headers["Host"] == NAME
    assert headers["X-Forwarded-Proto"] == {80: "http", 443: "https"}[port]
    assert headers["X-Real-IP"] == headers["X-Forwarded-For"] == "127.0.0.1"


def test_an_ordinary_request_is_not_forwarded_as_an_upgrade(upstream, local):
    headers = local.forwarded(80)
    assert "Upgrade" not in headers
    assert headers["Connection"] == "close"


@pytest.mark.parametrize("token", ["h2c", "TLS/1.2", "websocket, h2c", "websocketx"])
@pytest.mark.parametrize("path", ["/", SOCKET])
def test_no_other_upgrade_is_forwarded(upstream, local, path, token):
    http2 = {"Connection": "Upgrade, HTTP2-Settings", "HTTP2-Settings": "AAMAAABkAAQAoAAA"}
    assert "Upgrade" not in local.forwarded(80, path, {"Upgrade": token, **http2})


@pytest.mark.parametrize(
    "origin",
    [None, "", "null", SITE[:-1], f"{SITE}0", f"{SITE}.evil.example", f"{SITE}/", f"https://evil.{NAME}",
     f"http{SITE[5:]}", f"https://{NAME}", "https://evil.example", f"https://evil.example {SITE}"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", SOCKET])
def test_a_handshake_from_another_origin_is_refused(upstream, local, path, origin):
    headers = {**HANDSHAKE, "Origin": origin}
    if origin is None:
        del headers["Origin"]
    assert local.status(443, path, headers) == 403


def test_an_ordinary_request_needs_no_origin(upstream, local):
    assert local.status(443) == 200


@pytest.mark.parametrize("more", [{"size": 1}, {"headers": {"Transfer-Encoding": "chunked"}}], ids=str)
def test_a_handshake_with_a_body_is_refused(upstream, local, more):
    headers = HANDSHAKE | more.pop("headers", {})
    assert local.status(443, SOCKET, headers, **more) == 400


def test_what_the_api_answers_is_stored_nowhere_unless_the_api_allows_it(upstream, local):
    def cache_control(path):
        return local.request(443, path)[1].get("Cache-Control")

    assert cache_control("/api/v1/session") == "no-store"
    assert cache_control("/api/v1/session?Cache-Control=private") == "private"
    assert cache_control("/") is None


FORGED = {
    "CF-Connecting-IP": "198.51.100.9",
    "X-Forwarded-For": "198.51.100.8",
    "X-Real-IP": "198.51.100.7",
    "X-Forwarded-Proto": "gopher",
    "True-Client-IP": "198.51.100.6",
    "Forwarded": "for=198.51.100.5",
}


@pytest.mark.parametrize(("source", "client"), [(EDGE, "198.51.100.9"), (OTHER, OTHER)])
def test_only_the_edge_can_set_the_client_address(host, upstream, local, source, client):
    path = f"/forged-by-{source}"
    headers = local.forwarded(80, path, FORGED, source=source)
    for header in ("CF-Connecting-IP", "X-Forwarded-For", "X-Real-IP"):
        assert headers[header] == client
    assert headers["X-Forwarded-Proto"] == "http"
    assert not {"True-Client-IP", "Forwarded"} & headers.keys()
    log = host.check_output("grep %s /var/log/nginx/access.log", path)
    assert {line.split()[0] for line in log.splitlines()} == {client}


def test_an_unknown_name_gets_neither_certificate_nor_response(host, upstream, local):
    host.run_expect([0], "sysctl -w net.ipv6.conf.lo.disable_ipv6=0")  # Docker turned it off
    for address in ("127.0.0.1", "::1"):
        family = {"to": address, "source": address}
        for name in ("example.com", None):
            assert "UNRECOGNIZED_NAME" in local.run(443, name=name, **family).stderr
        # The right name in TLS and another one in HTTP.
        for port in (80, 443):
            closed = local.run(port, headers={"Host": "example.com"}, **family)
            assert "RemoteDisconnected" in closed.stderr
        assert local.status(443, **family) == 200


def test_security_headers_are_sent_once_unless_the_api_sends_its_own(upstream, local):
    _, headers, _ = local.request(443)
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cross-Origin-Opener-Policy"] == headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "camera=()" in headers["Permissions-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Server"] == "nginx"
    assert "Strict-Transport-Security" not in headers
    own = local.request(443, "/?Content-Security-Policy=own")[1]
    assert own["Content-Security-Policy"] == "own"


@pytest.fixture
def client_certificate(host):
    """Return client_certificate(name): puts a new authority and its client certificate on the server."""

    def create(name):
        authority = trustme.CA()
        pair = authority.issue_cert(f"{name}.example.com").private_key_and_cert_chain_pem
        host.run_expect([0], f"echo %s > /etc/ssl/{name}.crt", authority.cert_pem.bytes().decode())
        host.run_expect([0], f"echo %s > /etc/ssl/{name}.pem", pair.bytes().decode())
        return {"authority": f"/etc/ssl/{name}.crt", "pair": f"/etc/ssl/{name}.pem"}

    return create


def test_with_origin_pulls_only_the_edge_s_certificate_is_accepted(
    host, upstream, local, converge, client_certificate
):
    edge, foreign = client_certificate("edge"), client_certificate("other")
    own = host.interface("eth0").addresses[0]
    outside = {"to": own, "source": own}
    converge(nginx_client_ca_file=edge["authority"], nginx_hsts_max_age=60)
    try:
        assert local.status(443, **outside) == 403
        assert local.status(443, SOCKET, HANDSHAKE, **outside) == 403
        assert local.status(443, **outside, certificate=foreign["pair"]) == 400
        status, headers, _ = local.request(443, **outside, certificate=edge["pair"])
        assert (status, headers["Strict-Transport-Security"]) == (200, "max-age=60")
        # Plain HTTP has no client certificates.
        status, headers, _ = local.request(80, "/a?b", **outside)
        assert (status, headers["Location"]) == (308, f"https://{NAME}/a?b")
        assert "Strict-Transport-Security" not in headers
        # The probes run on the server itself.
        assert local.status(443) == local.status(80) == 200
        converge(nginx_client_ca_file=edge["authority"], nginx_client_certificate_required=False)
        assert local.status(443, **outside) == local.status(80, **outside) == 200
    finally:
        converge()


@pytest.mark.parametrize(("size", "status"), [(50 * MIB, 200), (50 * MIB + 1, 413)])
def test_accepts_50_mib_and_not_a_byte_more(upstream, local, size, status):
    assert local.status(80, size=size) == status
