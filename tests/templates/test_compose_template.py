"""The compose project as a scanner sees it, and what no scanner knows of it."""

import subprocess
from pathlib import Path

import pytest
import yaml

WAIVERS = Path(__file__).parents[2] / ".compose-lint.yml"


@pytest.fixture(params=["", "registry.example.com/backend:1.0"], ids=["ours", "own"])
def compose(request, render, tmp_path):
    file = tmp_path / "compose.yaml"
    file.write_text(
        render(
            "app_stack",
            "compose.yaml.j2",
            app_stack_image=request.param,
            app_stack_socket=not request.param,
            app_stack_allowed_origins=["https://www.example.com"],
            __app_stack_built={"app": "screen-flow-app:1", "redis": "screen-flow-redis:1"},
        )
    )
    return file


def test_no_finding_is_open(compose):
    run = subprocess.run(
        ["compose-lint", "check", "--fail-on=low", "--strict-config", f"--config={WAIVERS}", str(compose)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_only_the_api_holds_session_keys_and_only_a_worker_of_your_own_has_a_way_out(compose):
    services = yaml.safe_load(compose.read_text())["services"]
    assert {name for name, s in services.items() if "./secrets:/run/secrets:ro" in s.get("volumes", [])} == {
        "api"
    }
    ours = services["worker"]["image"] == "screen-flow-app:1"
    assert services["worker"]["networks"] == (["inside"] if ours else ["inside", "outside"])
    assert services["redis"]["networks"] == ["inside"]
    assert "ports" not in services["redis"]


def test_an_image_of_your_own_is_told_of_no_socket_unless_you_say_so(compose):
    api = yaml.safe_load(compose.read_text())["services"]["api"]
    ours = api["image"] == "screen-flow-app:1"
    assert ("APP_SOCKET" in api["environment"], "./run:/run/screen-flow" in api["volumes"]) == (ours, ours)
    assert api["ports"] == ["127.0.0.1:8000:8000"]


def test_the_api_may_open_a_file_for_each_socket_and_let_a_storm_wait(compose):
    api = yaml.safe_load(compose.read_text())["services"]["api"]
    assert api["ulimits"] == {"nofile": {"soft": 20_000, "hard": 20_000}}
    assert api["sysctls"] == {"net.core.somaxconn": 16_384}
