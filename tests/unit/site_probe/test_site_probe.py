"""site_probe: several targets at once, its inputs, check mode and secrets."""

import json
import time

import pytest
from ansible_collections.screen_flow.live.plugins.module_utils.probe import stages

from tests.unit.site_probe.servers import COOKIE, PATH, hang


def test_a_target_that_hangs_does_not_delay_the_others(run, listen, api):
    def trickle(connection):
        for _ in range(100):
            connection.sendall(b"H")
            time.sleep(0.1)

    output = run(
        {"name": "trickles", "url": f"ws://127.0.0.1:{listen(trickle)}/"},
        {"name": "hangs", "url": f"wss://127.0.0.1:{listen(hang)}/", "timeout": 60},
        {"name": "works", "url": f"ws://{api}{PATH}", "cookie": COOKIE},
        deadline=1,
    )
    assert output["seconds"] < 1.9
    assert not output["ok"]
    assert [(result["name"], result["ok"], result["stage"]) for result in output["results"]] == [
        ("trickles", False, "http"),
        ("hangs", False, "tls"),
        ("works", True, "pong"),
    ]
    assert all("within 1 s" in result["error"] for result in output["results"][:2])
    assert output["msg"].startswith("trickles: ")


def test_the_cookie_appears_in_no_output(run, api, listen):
    output = run({"url": f"ws://{api}/{COOKIE}", "cookie": COOKIE, "until": "http"})
    assert output["ok"]
    assert COOKIE not in json.dumps(output)


def test_check_mode_probes_as_well(run, api, refused):
    targets = [{"url": f"ws://{api}{PATH}", "cookie": COOKIE}, {"url": f"ws://127.0.0.1:{refused}/"}]
    assert [result["ok"] for result in run(*targets, check=True)["results"]] == [True, False]


def test_without_the_library_only_check_mode_continues(run, api, refused, monkeypatch):
    monkeypatch.setattr(stages, "websocket", None)
    targets = [{"url": f"ws://{api}{PATH}"}, {"url": f"ws://127.0.0.1:{refused}/"}]
    output = run(*targets)
    assert output["failed"]
    assert "python3-websocket" in output["msg"]
    results = run(*targets, check=True)["results"]
    assert [(result["ok"], result["stage"]) for result in results] == [(False, "http"), (False, "tcp")]
    assert results[0]["reason"] == "no_library"
    assert run({"url": f"http://{api}/"}, {"url": f"ws://{api}/", "until": "tcp"})["ok"]


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ({"url": "ftp://example.com/"}, "'ftp://example.com/'"),
        ({"url": "ws:///path"}, "'ws:///path'"),
        ({"url": "example.com"}, "'example.com'"),
        ({"url": "ws://example.com:99999/"}, "'ws://example.com:99999/'"),
        ({"url": "ws://example.com:port/"}, "'ws://example.com:port/'"),
        ({"url": "ws://[::1/"}, "'ws://[::1/'"),
        ({"url": "ws://example.com/a b"}, "url of target 'api'"),
        ({"url": "ws://example.com/", "until": "tls"}, "until of target 'api' is tls"),
        ({"url": "http://example.com/", "until": "pong"}, "until of target 'api' is pong"),
        ({"url": "ws://example.com/", "port": 0}, "port of target 'api' is 0"),
        ({"url": "ws://example.com/", "port": 65536}, "port of target 'api' is 65536"),
        ({"url": "ws://example.com/", "timeout": 0}, "timeout of target 'api' is 0"),
        ({"url": "ws://example.com/", "cookie": "a=b\r\nX-Forged: 1"}, "cookie of target 'api'"),
        ({"url": "ws://example.com/", "origin": "https://a\nX: 1"}, "origin of target 'api'"),
    ],
)
def test_bad_input_is_named(run, target, error):
    output = run(target)
    assert output["failed"]
    assert error in output["msg"]
    assert "; use " in output["msg"]


def test_the_deadline_must_be_positive(run):
    assert run({"url": "ws://127.0.0.1/"}, deadline=-1)["msg"] == "deadline is -1; use a number above 0."
