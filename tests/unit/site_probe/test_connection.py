"""site_probe: a healthy endpoint, and failures before HTTP: dns, tcp, tls."""

import contextlib
import socket

import pytest

from tests.unit.site_probe.servers import COOKIE, PATH, answer, drop, hang, serve_app

# a healthy endpoint


def test_a_healthy_socket_returns_101_and_pong_with_times(probe, api):
    result = probe(url=f"ws://{api}{PATH}", cookie=COOKIE)
    assert result["ok"]
    assert (result["stage"], result["status"], result["address"]) == ("pong", 101, api)
    assert 0 < result["handshake_ms"] < 5000
    assert 0 < result["pong_ms"] < 5000
    assert result["close_code"] is None
    assert result["server"] == "uvicorn"


@pytest.mark.parametrize(
    ("until", "status"), [("dns", None), ("tcp", None), ("http", 101)], ids=["dns", "tcp", "http"]
)
def test_a_probe_ends_at_the_requested_stage(probe, api, until, status):
    result = probe(url=f"ws://{api}{PATH}", until=until)
    assert (result["ok"], result["stage"], result["status"]) == (True, until, status)


def test_a_page_answers_its_status(probe, api):
    result = probe(url=f"http://{api}/healthz")
    assert (result["ok"], result["stage"], result["status"]) == (True, "http", 200)
    assert 0 < result["handshake_ms"] < 5000


def test_address_port_and_ca_override_dns_and_the_systems_authorities(probe, authority):
    certificate, key = authority.pair("www.example.test")
    with serve_app(ssl_certfile=certificate, ssl_keyfile=key) as port:
        target = {"url": f"wss://www.example.test{PATH}", "address": "127.0.0.1", "port": port}
        result = probe(**target, cookie=COOKIE, ca_file=authority.file)
        assert (result["ok"], result["address"]) == (True, f"127.0.0.1:{port}")
        assert probe(**target, cookie=COOKIE, verify=False)["ok"]
        page = probe(**{**target, "url": "https://www.example.test/"}, ca_file=authority.file)
        assert (page["ok"], page["status"]) == (True, 200)


def test_host_origin_and_cookie_are_sent(probe, listen):
    requests = []

    def handle(connection):
        requests.append(connection.recv(65536).decode().lower().split("\r\n"))

    port = listen(handle)
    for url in (f"ws://www.example.test{PATH}", "http://www.example.test/?a=b"):
        probe(url=url, address="127.0.0.1", port=port, origin="https://o.example.com", cookie="a=b; c=d")
    for request in requests:
        assert "host: www.example.test" in request
        assert "origin: https://o.example.com" in request
        assert "cookie: a=b; c=d" in request
    assert [request[0] for request in requests] == [f"get {PATH} http/1.1", "get /?a=b http/1.1"]


# dns, tcp


def test_a_name_without_an_address_fails_at_dns(probe):
    result = probe(url="wss://no-such-host.invalid/ws")
    assert (result["ok"], result["stage"]) == (False, "dns")
    assert result["reason"] == "no_address"
    assert "no-such-host.invalid" in result["error"]


@pytest.mark.parametrize("scheme", ["ws", "wss", "http", "https"])
def test_a_port_that_nothing_listens_on_is_refused(probe, refused, scheme):
    result = probe(url=f"{scheme}://127.0.0.1:{refused}{PATH}")
    assert (result["ok"], result["stage"], result["status"]) == (False, "tcp", None)
    assert result["reason"] == "refused"
    assert result["error"] == f"connection refused: nothing listens on 127.0.0.1:{refused}."


def test_dropped_packets_time_out_at_tcp(probe):
    with drop("127.0.0.1") as port:
        result = probe(url=f"ws://127.0.0.1:{port}/", timeout=0.5)
    assert (result["stage"], result["ok"]) == ("tcp", False)
    assert result["reason"] == "timeout"
    assert result["error"].startswith(f"no answer from 127.0.0.1:{port} within 0.5 s")


@pytest.mark.parametrize("dead", ["refuses", "drops"])
def test_a_dead_address_does_not_hide_a_live_one(probe, api, monkeypatch, dead):
    port = int(api.rpartition(":")[2])
    addresses = [("127.0.0.2", port), ("127.0.0.1", port)]
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]
    # No name has two addresses on every machine that runs this.
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with drop("127.0.0.2", port) if dead == "drops" else contextlib.nullcontext():
        result = probe(url=f"ws://both.example.test:{port}{PATH}", cookie=COOKIE, timeout=1)
    assert (result["ok"], result["address"]) == (True, api)


# tls


@pytest.mark.parametrize(
    ("certificate", "error"),
    [
        ({"host": "other.example.test"}, "is for another name"),
        ({"host": "www.example.test", "days": -1}, "has expired"),
        ({"host": "www.example.test", "self_signed": True}, "is self-signed"),
    ],
)
def test_an_invalid_certificate_is_reported_and_can_be_accepted(probe, listen, authority, certificate, error):
    port = listen(hang, authority.context(**certificate))
    target = {"url": "wss://www.example.test/", "address": "127.0.0.1", "port": port, "until": "tls"}
    result = probe(**target, ca_file=authority.file)
    assert (result["ok"], result["stage"]) == (False, "tls")
    assert result["reason"] == "certificate"
    assert result["error"] == f"the certificate that 127.0.0.1:{port} presents for www.example.test {error}."
    assert probe(**target, verify=False)["ok"]


def test_a_certificate_of_an_unknown_authority_is_reported(probe, listen, authority):
    port = listen(hang, authority.context("www.example.test"))
    result = probe(url="https://www.example.test/", address="127.0.0.1", port=port, until="tls")
    assert "was signed by an authority that is not trusted" in result["error"]


@pytest.mark.parametrize(
    ("handle", "reason", "error"),
    [
        (answer("HTTP/1.1 400 Bad Request\n\n"), "not_tls", "answers, but not with TLS."),
        (lambda connection: connection.close(), "closed", "closed the connection during the TLS handshake."),
        (hang, "timeout", "did not finish the TLS handshake within 0.5 s."),
    ],
    ids=["plain HTTP", "closed", "silent"],
)
def test_a_port_without_tls_fails_at_tls(probe, listen, handle, reason, error):
    result = probe(url=f"wss://127.0.0.1:{listen(handle)}/", verify=False, timeout=0.5)
    assert (result["ok"], result["stage"], result["status"]) == (False, "tls", None)
    assert result["reason"] == reason
    assert result["error"].endswith(error)


def test_an_invalid_ca_file_is_named(probe, listen, authority, tmp_path):
    port = listen(hang, authority.context("www.example.test"))
    for name, content in (("missing.pem", None), ("empty.pem", "nothing")):
        if content:
            (tmp_path / name).write_text(content)
        result = probe(url=f"wss://127.0.0.1:{port}/", ca_file=str(tmp_path / name))
        assert (result["stage"], result["reason"]) == ("tls", "ca_file")
        assert result["error"].startswith(f"ca_file is '{tmp_path / name}', which can't be read")
