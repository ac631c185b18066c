"""evidence_server: what nginx turned away, and whether what it passes requests to answers."""

import datetime
import http.server
import os
import socket
import threading

import pytest
from ansible_collections.screen_flow.live.plugins.module_utils.evidence import server as evidence_server

NOW = datetime.datetime(2026, 11, 27, 22, 30).astimezone()
LOG = """\
tail of a line that was cut, limiting requests, excess: 1.0 by zone "handshake_rate", client: 192.0.2.1
2026/11/27 21:20:00 [error] 7#7: *1 limiting requests, excess: 9.1 by zone "handshake_rate", client: 192.0.2.1
2026/11/27 22:00:00 [error] 7#7: *2 limiting requests, excess: 9.1 by zone "handshake_rate", client: 192.0.2.1
2026/11/27 22:00:00 [error] 7#7: *3 limiting requests, excess: 9.2 by zone "handshake_rate", client: 192.0.2.1
2026/11/27 22:01:00 [error] 7#7: *4 limiting connections by zone "handshake_connections", client: 192.0.2.2
2026/11/27 22:02:00 [warn] 7#7: 64 worker_connections are not enough, reusing connections
2026/11/27 22:03:00 [error] 7#7: *5 connect() to unix:/run/x failed (2: No such file or directory)
2026/11/27 22:04:00 [notice] 7#7: signal process started
""".splitlines()


def test_refusals_of_the_last_hour_are_counted_by_reason():
    assert evidence_server.count_refusals(LOG, NOW) == {
        "handshake_rate (429)": 2,
        "handshake_connections (429)": 1,
        "no free connection of nginx": 1,
        "api not reached: No such file or directory (502)": 1,
    }


class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        assert self.path == "/healthz"
        self.send_response(200)
        self.end_headers()

    def address_string(self):
        return "unix"

    def log_message(self, *_):
        pass


@pytest.fixture(params=["unix", "tcp"])
def upstream(request, tmp_path):
    """Return what nginx would call a real HTTP server, on either kind of socket."""
    listener = socket.socket(socket.AF_UNIX if request.param == "unix" else socket.AF_INET)
    address = os.fspath(tmp_path / "api.sock") if request.param == "unix" else ("127.0.0.1", 0)
    listener.bind(address)
    listener.listen()
    server = http.server.HTTPServer(("", 0), Healthy, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"unix:{address}" if request.param == "unix" else f"127.0.0.1:{listener.getsockname()[1]}"
    server.shutdown()
    listener.close()


def test_an_upstream_that_answers(upstream):
    assert evidence_server._healthz(upstream, 5) == {"status": 200, "error": ""}


def test_an_upstream_that_is_gone_and_one_that_is_silent(tmp_path):
    assert evidence_server._healthz(f"unix:{tmp_path}/none", 5) == {
        "status": None,
        "error": "No such file or directory",
    }
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{tmp_path}/silent")
        assert evidence_server._healthz(f"unix:{tmp_path}/silent", 5)["error"] == "Connection refused"
        silent.listen()
        assert evidence_server._healthz(f"unix:{tmp_path}/silent", 0.2) == {
            "status": None,
            "error": "timed out",
        }
