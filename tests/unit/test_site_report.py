"""site_report: which layer is named, with what remedy, and how it looks."""

import json

import pytest
from ansible.module_utils.testing import patch_module_args

from plugins.modules import site_report

NAMES = ["api", "nginx port 80", "nginx port 443", "nginx by name", "edge"]


def layer(name, **found):
    """Return what site_probe says of a live layer, changed by `found`."""
    return {
        "name": name,
        "url": f"ws://127.0.0.1/{name}",
        "address": "127.0.0.1:8000",
        "ok": True,
        "stage": "pong",
        "error": "",
        "status": 101,
        "server": "nginx",
        "close_code": None,
        "handshake_ms": 12.25,
        "pong_ms": 0.8,
        **found,
    }


def failing(name, stage, error="It fails.", **found):
    gone = {"status": None, "handshake_ms": None, "pong_ms": None}
    return layer(name, ok=False, stage=stage, error=error, **{**gone, **found})


@pytest.fixture
def run(capsys):
    """Run the module; return what it says."""

    def call(layers, check=False, **arguments):
        arguments = {"site": "https://www.example.com", "server": "one", "layers": layers, **arguments}
        with patch_module_args({**arguments, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            site_report.main()
        said = json.loads(capsys.readouterr().out)
        assert not said.get("changed")
        return said

    return call


def test_a_live_site_passes(run):
    said = run([layer(name) for name in NAMES])
    assert not said.get("failed")
    assert said["table"].endswith("\n\nEvery layer answers.")


def test_the_innermost_layer_is_the_cause_of_those_further_out(run):
    said = run(
        [
            failing("api", "tcp", "connection refused: nothing listens on 127.0.0.1:8000."),
            *(failing(name, "http", "HTTP 502 instead of 101.", status=502) for name in NAMES[1:]),
        ]
    )
    assert said["failed"]
    assert said["msg"].startswith(
        "The first layer that fails is api: connection refused: nothing listens on 127.0.0.1:8000. "
    )
    assert "docker compose up --wait" in said["msg"]
    assert "nginx port 80, nginx port 443, nginx by name, edge." in said["msg"]


def test_a_layer_that_fails_alone_is_named_alone(run):
    said = run([*(layer(name) for name in NAMES[:4]), failing("edge", "http", status=526)])
    assert said["msg"].startswith("The first layer that fails is edge: It fails. SSL mode Full (strict)")
    assert "nginx" not in said["msg"]


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (failing("api", "http"), "The api hangs."),
        (failing("api", "http", status=403), "app_stack_allowed_origins"),
        (failing("api", "http", status=404), "site_check_websocket_path"),
        (failing("api", "pong", status=101, close_code=4401), "site_check_session"),
        (failing("api", "pong", status=101, close_code=4403), "app_stack_allowed_origins"),
        (failing("api", "pong", status=101), "docker compose logs api"),
        (failing("nginx port 80", "tcp"), "systemctl status nginx"),
        (failing("nginx port 443", "tls"), "origin_certificate"),
        (failing("nginx by name", "http", status=400), "upgrade map"),
        (failing("nginx by name", "http", status=504), "nginx_upstream_servers"),
        (failing("nginx by name", "pong", status=101), "must not time out"),
        (failing("edge", "dns"), "DNS record"),
        (failing("edge", "tls"), "proxied"),
        (failing("edge", "http", status=522), "firewall"),
        (failing("edge", "http", status=525), "TLS on 443"),
        (failing("edge", "http", status=400), "WebSockets may be off"),
        (failing("edge", "pong", status=101, close_code=1006), "playbooks/edge.yml"),
    ],
)
def test_each_way_to_fail_has_its_remedy(found, says):
    assert says in site_report.find_remedy(found)


@pytest.mark.parametrize("name", ["api", "nginx by name", "edge"])
@pytest.mark.parametrize("stage", ["dns", "tcp", "tls", "http", "pong"])
@pytest.mark.parametrize("code", [None, 418])
def test_no_way_to_fail_is_without_a_remedy(name, stage, code):
    remedy = site_report.find_remedy(failing(name, stage, status=code, close_code=code))
    assert remedy.endswith(".")


def test_the_note_is_told(run):
    note = "the probe key /opt/key is empty."
    assert run([layer("api")], note=note)["table"].endswith(f"\nEvery layer answers.\n{note}")
    assert run([failing("api", "tcp")], note=note)["msg"].endswith(note)


def test_the_table_is_aligned_and_reads_well():
    layers = [
        layer("api"),
        failing("nginx port 80", "tcp", address="127.0.0.1:80"),
        layer("edge", close_code=4401, pong_ms=None, address=""),
    ]
    assert site_report.draw(layers).splitlines() == [
        "layer          result           HTTP  handshake  ping-pong  connected to",
        "api            ok                101    12.2 ms     0.8 ms  127.0.0.1:8000",
        "nginx port 80  fails at tcp        -          -          -  127.0.0.1:80",
        "edge           ok, closed 4401   101    12.2 ms          -  -",
    ]


@pytest.mark.parametrize("live", [True, False])
def test_the_record_for_machines_says_the_same(run, tmp_path, live):
    path = tmp_path / "verdict.json"
    edge = layer("edge") if live else failing("edge", "http", status=525)
    run([layer("api"), edge], path=str(path))
    record = json.loads(path.read_text())
    assert (record["site"], record["server"], record["ok"]) == ("https://www.example.com", "one", live)
    assert record["layer"] == (None if live else "edge")
    assert record["time"].endswith("+00:00")
    assert record["layers"] == [layer("api"), edge]


def test_a_path_that_can_not_be_written_is_named_with_the_verdict(run, tmp_path):
    said = run([layer("api")], path=str(tmp_path / "missing/verdict.json"))
    assert said["failed"]
    assert f"path is '{tmp_path}/missing/verdict.json'" in said["msg"]
    assert "Every layer answers." in said["msg"]


def test_a_dry_run_says_and_neither_fails_nor_writes(run, tmp_path):
    said = run([failing("api", "tcp")], check=True, path=str(tmp_path / "verdict.json"))
    assert not said.get("failed")
    assert "In a dry run this is no failure.\nThe first layer that fails is api" in said["table"]
    assert list(tmp_path.iterdir()) == []
