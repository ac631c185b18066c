"""site_probe: failures of the HTTP response, the upgrade and the ping."""

import json

import pytest

from tests.unit.site_probe.servers import COOKIE, PATH, answer, hang

WITHOUT_KEY = "HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\nConnection: upgrade\n\n"

# http


@pytest.mark.parametrize(
    ("status", "phrase"),
    [
        (200, "OK"),
        (302, "Found"),
        (400, "Bad Request"),
        (426, "Upgrade Required"),
        (502, "Bad Gateway"),
        (525, None),
    ],
)
def test_a_refused_upgrade_names_status_and_server(probe, listen, status, phrase):
    headers = "Server: nginx\nSet-Cookie: session=hidden\nLocation: https://example.com/\nContent-Length: 6"
    port = listen(answer(f"HTTP/1.1 {status} {phrase or 'x'}\n{headers}\n\nhidden"))
    result = probe(url=f"ws://127.0.0.1:{port}{PATH}")
    assert (result["ok"], result["stage"], result["status"]) == (False, "http", status)
    assert result["reason"] == "status"
    words = f"{status} {phrase}" if phrase else str(status)
    assert result["error"] == f"HTTP {words} from nginx instead of 101."
    assert "hidden" not in json.dumps(result)


def test_a_page_that_fails_names_its_status(probe, listen):
    port = listen(answer("HTTP/1.1 503 Service Unavailable\nServer: nginx\nContent-Length: 0\n\n"))
    result = probe(url=f"http://127.0.0.1:{port}/")
    assert (result["ok"], result["status"]) == (False, 503)
    assert result["error"] == "HTTP 503 Service Unavailable from nginx instead of a page."


def end(connection):
    connection.recv(9999)


@pytest.mark.parametrize(
    ("scheme", "handle", "reason", "error"),
    [
        ("ws", hang, "timeout", "accepted the connection and sent no HTTP response within 0.5 s."),
        ("ws", answer("HTTP/1.1 101 Switching Protocols\n"), "timeout", "sent no HTTP response within"),
        ("ws", end, "closed", "closed the connection instead of answering the upgrade."),
        ("ws", answer("220 mail.example.com ESMTP\n\n"), "not_http", "answers, but not with"),
        ("ws", answer("garbage\n\n"), "not_http", "answers, but not with"),
        ("ws", answer(WITHOUT_KEY), "not_http", "answers, but not with a WebSocket handshake."),
        ("http", hang, "timeout", "accepted the connection and sent no HTTP response within 0.5 s."),
        ("http", answer("garbage\n\n"), "not_http", "answers, but not with HTTP."),
        ("http", end, "closed", "closed the connection instead of answering."),
    ],
    ids=["silent", "half a response", "closed", "mail", "garbage", "101 without the accept key",
         "silent page", "garbage page", "closed page"],
)  # fmt: skip
def test_a_response_that_is_not_http_fails_at_http(probe, listen, scheme, handle, reason, error):
    result = probe(url=f"{scheme}://127.0.0.1:{listen(handle)}{PATH}", timeout=0.5)
    assert (result["ok"], result["stage"], result["reason"]) == (False, "http", reason)
    assert error in result["error"]
    assert scheme == "ws" or result["status"] is None


def test_a_redirect_is_not_followed(probe, listen):
    followed = []
    elsewhere = listen(lambda connection: followed.append(connection.recv(9999)))
    for scheme in ("ws", "http"):
        location = f"{scheme}://127.0.0.1:{elsewhere}/"
        port = listen(answer(f"HTTP/1.1 302 Found\nLocation: {location}\nContent-Length: 0\n\n"))
        assert probe(url=f"{scheme}://127.0.0.1:{port}/", timeout=1)["status"] == 302
    assert followed == []


def test_a_foreign_origin_is_rejected_with_403(probe, api):
    target = {"url": f"ws://{api}{PATH}", "cookie": COOKIE}
    assert probe(**target, origin="https://www.example.com")["ok"]
    assert probe(**target, origin="https://evil.example.com")["status"] == 403


# pong


def test_without_a_session_the_close_code_is_reported(probe, api):
    result = probe(url=f"ws://{api}{PATH}")
    assert (result["ok"], result["stage"], result["status"]) == (False, "pong", 101)
    assert result["close_code"] == 4401
    assert result["reason"] == "closed"
    assert result["error"] == "the server closed the socket with 4401 (no session)."


def test_a_close_code_can_be_healthy(probe, api):
    result = probe(url=f"ws://{api}{PATH}", healthy_close_codes=[4401])
    assert (result["ok"], result["close_code"], result["pong_ms"]) == (True, 4401, None)
    assert not probe(url=f"ws://{api}{PATH}", healthy_close_codes=[4403])["ok"]


def test_a_socket_that_never_answers_the_ping_fails_at_pong(probe, api):
    result = probe(url=f"ws://{api}/deaf", cookie=COOKIE, timeout=0.5)
    assert (result["ok"], result["stage"], result["status"]) == (False, "pong", 101)
    assert result["reason"] == "timeout"
    assert result["error"] == "the socket is open, but the ping was not answered within 0.5 s."
