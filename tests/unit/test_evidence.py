"""The server's evidence: outside software's output becomes data, in any locale and without a library."""

import _strptime
import datetime
import http.server
import os
import socket
import threading
import time

import pytest
from ansible_collections.screen_flow.live.plugins.module_utils.evidence import (
    certificate,
    host,
    nginx,
    stack,
)
from ansible_collections.screen_flow.live.plugins.module_utils.evidence.document import Missing
from ansible_collections.screen_flow.live.plugins.module_utils.evidence.gather import Deadline, Once, gather
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

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
    assert nginx.count_refusals(LOG, NOW) == {
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
    """Return nginx's name of a real HTTP server, on either kind of socket."""
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
    assert nginx.healthz(upstream, 5) == {"status": 200, "error": ""}


def test_an_upstream_that_is_missing_refuses_or_hangs(tmp_path):
    assert nginx.healthz(f"unix:{tmp_path}/none", 5) == {
        "status": None,
        "error": "No such file or directory",
    }
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{tmp_path}/silent")
        assert nginx.healthz(f"unix:{tmp_path}/silent", 5)["error"] == "Connection refused"
        silent.listen()
        assert nginx.healthz(f"unix:{tmp_path}/silent", 0.2) == {
            "status": None,
            "error": "timed out",
        }


GERMAN = ["Jan", "Feb", "Mär", "Apr", "Mai", "Jun", "Jul", "Aug", "Sep", "Okt", "Nov", "Dez"]


@pytest.fixture
def german(monkeypatch):
    """Give strptime German names of months, as a German locale does; few machines have one installed."""
    monkeypatch.setattr("calendar.month_abbr", ["", *GERMAN])
    # It caches the names of the last locale.
    monkeypatch.setattr("_strptime._TimeRE_cache", _strptime.TimeRE())
    monkeypatch.setattr("_strptime._regex_cache", {})


@pytest.fixture
def pair(tmp_path):
    """Return the files of a certificate, valid from March to October 2031, and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "www.example.com")])
    names = [x509.DNSName("www.example.com"), x509.DNSName("example.com")]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.datetime(2031, 3, 1, 12, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(2031, 10, 31, 12, tzinfo=datetime.UTC))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = tmp_path / "one.pem", tmp_path / "one.key"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return files


def test_a_certificate_is_described_in_any_locale(pair, german):
    with pytest.raises(ValueError, match="does not match"):
        datetime.datetime.strptime("Oct", "%b")
    file, key = map(str, pair)
    found = certificate.describe(file, key, Deadline(5))
    # openssl 3.0 writes "CN = NAME", 3.2 "CN=NAME".
    assert found | {"issuer": found["issuer"].replace(" ", "")} == {
        "not_before": datetime.datetime(2031, 3, 1, 12, tzinfo=datetime.UTC).timestamp(),
        "not_after": datetime.datetime(2031, 10, 31, 12, tzinfo=datetime.UTC).timestamp(),
        "names": ["www.example.com", "example.com"],
        "issuer": "CN=www.example.com",
        "self_signed": True,
        "key_matches": True,
    }


def test_a_certificate_with_a_foreign_key_or_none_is_reported(pair, tmp_path):
    file, _ = map(str, pair)
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "other.key").write_bytes(other)
    assert not certificate.describe(file, str(tmp_path / "other.key"), Deadline(5))["key_matches"]
    assert not certificate.describe(file, str(tmp_path / "none.key"), Deadline(5))["key_matches"]
    with pytest.raises(Missing, match="not a certificate"):
        certificate.describe(str(tmp_path / "other.key"), str(tmp_path / "other.key"), Deadline(5))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("PONG", None),
        ("NOAUTH Authentication required.", "NOAUTH"),
        ("AUTH failed: WRONGPASS invalid username-password pair or user is disabled.", "WRONGPASS"),
        ('{"status":"not ready","redis":"AuthenticationError"}', "WRONGPASS"),
        ('{"status":"not ready","redis":"ConnectionError"}', None),
        ("Lost Redis, trying again: invalid username-password pair or user is disabled.", "WRONGPASS"),
        ("redis.exceptions.NoPermissionError: User app has no permissions", "NOPERM"),
        ("Error 111 connecting to redis:6379. Connection refused.", None),
    ],
)
def test_a_refusal_of_redis_is_recognised_where_its_output_is_read(text, code):
    assert stack.redis_code(text) == code


@pytest.mark.parametrize("source", [host.listening, host.deploying, host.open_files])
def test_without_psutil_its_data_are_missing_with_the_remedy(source, monkeypatch):
    monkeypatch.setattr(host, "psutil", None)
    with pytest.raises(Missing, match=r"python3-psutil.*--tags site_check"):
        source()


def test_the_newest_kernel_is_the_highest_version():
    kernels = ["6.12.9+deb13-amd64", "6.12.10+deb13-amd64", "6.1.0-40-amd64"]
    assert max(kernels, key=host._version) == "6.12.10+deb13-amd64"


def test_a_shared_source_is_read_once_and_fails_alike_for_all():
    calls = []

    def read():
        calls.append(1)
        time.sleep(0.05)
        return 7

    def fail():
        calls.append(1)
        raise Missing("not there.", "closed")

    shared = Once(read)
    assert gather({name: shared for name in "abc"}, Deadline(5)) == {name: {"value": 7} for name in "abc"}
    assert calls == [1]
    shared = Once(fail)
    missing = {"missing": "not there.", "reason": "closed"}
    assert gather({name: shared for name in "abc"}, Deadline(5)) == {name: missing for name in "abc"}
    assert calls == [1, 1]


def test_a_source_that_hangs_or_breaks_does_not_hide_the_others():
    end = threading.Event()
    found = gather({"hangs": lambda: end.wait(9), "breaks": lambda: 1 / 0, "works": lambda: 3}, Deadline(0.2))
    end.set()
    assert found["works"] == {"value": 3}
    assert (found["hangs"]["reason"], found["breaks"]["reason"]) == ("deadline", "internal")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ('{"status": "ready", "redis": "ok", "sign_in": "stale"}', "stale"),
        ('{"status": "ready", "redis": "ok"}', None),
        ('{"sign_in": 1}', None),
        ("[]", None),
        ("<html>", None),
        ("", None),
    ],
)
def test_the_sign_in_s_state_is_a_field_of_readyz(body, status):
    assert stack.part_status(body, "sign_in") == status
