"""The zone alone: what the role wrote, and that a run with nothing to do writes nothing."""

import json
import os
import subprocess
import urllib.request
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[3]
CONTROL = f"http://127.0.0.1:{os.environ['TESTBED_PORT_API']}/_emulator"


def control(path, method="GET", body=None):
    """Call the emulator's own interface; return its answer."""
    request = urllib.request.Request(
        f"{CONTROL}/{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read() or "null")


def converge(*options, **variables):
    """Run the scenario's converge again; return the finished process."""
    return subprocess.run(
        [
            "ansible-playbook",
            f"--inventory={PROJECT / 'inventories/demo'}",
            f"--extra-vars={json.dumps(variables)}",
            *options,
            str(PROJECT / "molecule/cloudflare_zone/converge.yml"),
        ],
        env=os.environ | {"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"},
        check=False,
        capture_output=True,
        text=True,
    )


def writes():
    """Return the journal's requests that could change something."""
    return [entry for entry in control("journal") if entry["method"] != "GET"]


def settings():
    """Return the three settings that the guide asks for."""
    values = control("state")["settings"]
    return {name: values[name]["value"] for name in ("ssl", "websockets", "rocket_loader")}


WANTED = {"ssl": "full", "websockets": "on", "rocket_loader": "off"}


def test_the_zone_has_what_the_guide_asks_for():
    assert settings() == WANTED


def test_a_run_with_nothing_to_do_writes_nothing():
    control("journal", "DELETE")
    run = converge()
    assert run.returncode == 0, run.stdout
    assert "changed=0" in run.stdout
    assert writes() == []


def test_a_dry_run_shows_each_difference_and_writes_nothing():
    control("settings", "PATCH", {"websockets": "off"})
    control("journal", "DELETE")
    try:
        run = converge("--check", "--diff")
        assert "changed=1" in run.stdout
        assert "off" in run.stdout
        assert writes() == []
        assert settings()["websockets"] == "off"
    finally:
        converge()
    assert settings() == WANTED


def test_one_setting_that_differs_is_one_write():
    control("settings", "PATCH", {"rocket_loader": "on"})
    control("journal", "DELETE")
    assert converge().returncode == 0
    assert [entry["path"].rsplit("/", 1)[-1] for entry in writes()] == ["rocket_loader"]


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("cloudflare_zone_api_token", "x" * 40, "token"),
        ("cloudflare_zone_name", "unknown.example.com", "unknown.example.com"),
    ],
)
def test_what_is_wrong_is_said_and_the_token_is_not(variable, value, says):
    run = converge("-vvv", "--diff", **{variable: value})
    assert run.returncode != 0
    assert says in run.stdout
    token = (Path(os.environ["TESTBED_STATE_DIR"]) / "token").read_text().strip()
    for output in (run.stdout, run.stderr):
        assert token not in output
    assert settings() == WANTED
