"""nginx's limits for each client, and for one that reads nothing."""

import time

import pytest

from tests.kit.process import remote_script
from tests.kit.testbed import HANDSHAKE, NAME, SOCKET, running

# See converge.yml: a request from this address is the edge's, one from any other a direct client's.
EDGE, OTHER = "127.0.0.2", "127.0.0.3"


@pytest.fixture(scope="class")
def low_limits(converge):
    """Lower the limits for tests that exceed them."""
    converge(
        nginx_handshake_rate=1, nginx_handshake_connections=5, nginx_upload_rate=1, nginx_upload_connections=3
    )
    yield
    converge()


def test_an_office_reconnects_at_once(upstream, local):
    """All connections that one address may hold pass without delay; one more reconnect would, too."""
    assert local.statuses(80, SOCKET, HANDSHAKE, source="127.0.0.5", times=2_000) == {200: 2_000}


@pytest.mark.usefixtures("upstream", "low_limits")
class TestLimits:
    @pytest.mark.parametrize(("path", "headers", "size"), [(SOCKET, HANDSHAKE, 0), ("/", {}, 10)])
    def test_the_rate_is_limited_for_each_client(self, host, local, path, headers, size):
        def send(source, claimed_address, times):
            forged = {**headers, "CF-Connecting-IP": claimed_address}
            return local.statuses(80, path, forged, size=size, source=source, times=times)

        counted = send(OTHER, "198.51.100.1", 25)
        assert counted[200] in range(
            11, 15
        )  # the burst of ten, the first, and one for each second that it took
        assert counted[429] == 25 - counted[200]
        # A direct client cannot choose its address, those behind the edge have their own.
        assert send(OTHER, "198.51.100.2", 1) == {429: 1}
        for client in ("198.51.100.1", "198.51.100.2"):
            assert send(EDGE, client, 10) == {200: 10}
        zone = "handshake_rate" if path == SOCKET else "upload_rate"
        log = host.check_output("grep %s /var/log/nginx/error.log", f'by zone "{zone}"')
        assert "limiting requests, excess: 10." in log
        assert f"client: {OTHER}" in log
        # Ordinary requests are not limited.
        assert local.statuses(80, source=OTHER, times=20) == {200: 20}

    def test_an_ipv6_network_of_64_bits_is_one_client(self, local):
        def refused(client):
            headers = {"CF-Connecting-IP": client}
            return local.statuses(80, "/", headers, size=1, source=EDGE, times=8)[429]

        assert refused("2001:db8:1:2:3:4:5:6") == 0
        assert refused("2001:db8:1:2:ffff::1") > 0
        assert refused("2001:db8:1:3::1") == 0
        assert refused("2001:db8::1") == 0

    def test_concurrent_uploads_are_limited(self, host, local):
        # Three uploads stay half sent; the fourth is refused.
        half = f"POST / HTTP/1.1\\r\\nHost: {NAME}\\r\\nContent-Length: 9\\r\\n\\r\\nx"
        one = f"exec 3<>/dev/tcp/127.0.0.1/80; printf '{half}' >&3; sleep 15"
        script = f"for _ in 1 2 3; do ({one}) & done; wait"
        host.run_expect([0], "systemd-run --unit=slow-uploads bash -c %s", script)
        time.sleep(1)
        assert local.status(80, size=5) == 429
        assert local.status(80, size=5, source="127.0.0.4") == 200
        host.run_expect([0], "systemctl stop slow-uploads")
        time.sleep(0.5)
        assert local.status(80, size=5) == 200


def test_a_client_that_reads_nothing_is_disconnected_and_little_is_buffered_for_it(host, converge):
    with running(host, "endless_socket", "test -S /run/endless.sock"):
        try:
            converge(nginx_upstream_servers=["unix:/run/endless.sock"], nginx_websocket_client_send_timeout=3)
            headers = "".join(f"{name}: {value}\r\n" for name, value in (HANDSHAKE | {"Host": NAME}).items())
            handshake = f"GET {SOCKET} HTTP/1.1\r\n{headers}\r\n"
            buffered = host.check_output("python3 -c %s %s", remote_script("stalled_reader"), handshake)
            assert 0 < int(buffered) < 8 << 20
            assert not host.check_output("ss -Htn state established '( sport = :80 )'")
        finally:
            converge()
            host.run_expect([0], "rm /run/endless.sock")
