"""The compose project checked by a scanner, and what the scanner does not check."""

import subprocess
from pathlib import Path

import pytest
import yaml

from app.main import BACKLOG
from tests.kit.process import REPOSITORY

WAIVERS = Path(__file__).parents[2] / ".compose-lint.yml"


@pytest.fixture(params=["", "registry.example.com/backend:1.0"], ids=["reference", "own"])
def compose(request, render, tmp_path):
    file = tmp_path / "compose.yaml"
    file.write_text(
        render(
            "app_stack",
            "compose.yaml.j2",
            app_stack_image=request.param,
            app_stack_socket=not request.param,
            app_stack_worker_command=["node", "worker.js"] if request.param else [],
            app_stack_allowed_origins=["https://www.example.com"],
            __app_stack_built={"app": "screen-flow-app:1", "redis": "screen-flow-redis:1"},
        )
    )
    return file


def scan(compose):
    """Run compose-lint with the project's waivers; return the finished process."""
    return subprocess.run(
        ["compose-lint", "check", "--fail-on=low", "--strict-config", f"--config={WAIVERS}", str(compose)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_scanner_finds_nothing_that_is_not_waived(compose):
    done = scan(compose)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_scanner_reads_every_service(compose):
    services = yaml.safe_load(compose.read_text())
    for name in services["services"]:
        services["services"][name]["privileged"] = True
    compose.write_text(yaml.safe_dump(services))
    done = scan(compose)
    assert done.returncode == 1
    assert f"{len(services['services'])} critical" in done.stdout, done.stdout


def test_only_the_api_has_session_keys_and_only_your_own_worker_reaches_other_networks(compose):
    services = yaml.safe_load(compose.read_text())["services"]
    assert {name for name, s in services.items() if "./secrets:/run/secrets:ro" in s.get("volumes", [])} == {
        "api"
    }
    reference = services["worker"]["image"] == "screen-flow-app:1"
    assert services["worker"]["networks"] == (["inside"] if reference else ["inside", "outside"])
    assert services["redis"]["networks"] == ["inside"]
    assert "ports" not in services["redis"]


def test_the_extractor_holds_nothing_and_a_backend_of_your_own_has_none(compose):
    project = yaml.safe_load(compose.read_text())
    services = project["services"]
    reference = services["worker"]["image"] == "screen-flow-app:1"
    assert ("extractor" in services) == ("extractor" in services["worker"]["depends_on"]) == reference
    assert ("extractor" in project["volumes"]) == reference
    if reference:
        extractor = services["extractor"]
        assert extractor["network_mode"] == "none"
        assert extractor["user"] == "10002:10002"
        assert extractor["volumes"] == ["extractor:/run/screen-flow-extractor"]
        assert {"networks", "secrets", "environment", "depends_on"}.isdisjoint(extractor)
        # The worker can't replace the socket, through which the CVs of other workers go.
        assert "extractor:/run/screen-flow-extractor:ro" in services["worker"]["volumes"]


def test_api_and_worker_are_two_users_of_redis(compose):
    services = yaml.safe_load(compose.read_text())["services"]
    for name in ("api", "worker"):
        environment = services[name]["environment"]
        assert environment["APP_REDIS_URL"] == f"redis://{name}@redis:6379/0"
        assert environment["APP_REDIS_PASSWORD_FILE"] == f"/run/secrets/redis_password_{name}"
    assert services["worker"]["secrets"] == ["redis_password_worker"]


def test_your_own_image_gets_no_socket_by_default(compose):
    api = yaml.safe_load(compose.read_text())["services"]["api"]
    reference = api["image"] == "screen-flow-app:1"
    assert ("APP_SOCKET" in api["environment"]) == reference
    assert ("./run:/run/screen-flow" in api["volumes"]) == reference
    assert api["ports"] == ["127.0.0.1:8000:8000"]


def test_the_kernel_s_limits_admit_the_api_s_backlog(compose):
    """somaxconn silently caps the backlog, and each accepted connection is a file."""
    api = yaml.safe_load(compose.read_text())["services"]["api"]
    files = api["ulimits"]["nofile"]
    assert files["soft"] == files["hard"] > api["sysctls"]["net.core.somaxconn"] >= BACKLOG


def own(render, **inputs):
    """Return the services of a project with an image of the user's own and these inputs."""
    text = render(
        "app_stack",
        "compose.yaml.j2",
        app_stack_image="registry.example.com/backend:1.0",
        __app_stack_built={"redis": "screen-flow-redis:1"},
        **inputs,
    )
    return yaml.safe_load(text)["services"]


def test_your_own_image_needs_no_worker_and_keeps_its_own_command_and_health_check(render):
    services = own(render)
    assert services.keys() == {"api", "redis"}
    assert not {"command", "healthcheck"} & services["api"].keys()


def test_your_own_worker_has_its_own_command_and_health_check(render):
    inputs = {"app_stack_worker_command": ["node", "worker.js"]}
    worker = own(render, **inputs)["worker"]
    assert worker["command"] == ["node", "worker.js"]
    # `docker compose up --wait` fails for a check that is turned off; without one, running is healthy.
    assert "healthcheck" not in worker
    worker = own(render, **inputs, app_stack_worker_health_command=["node", "health.js"])["worker"]
    assert worker["healthcheck"]["test"] == ["CMD", "node", "health.js"]


def test_user_root_and_environment_are_the_inventory_s(render):
    services = own(
        render,
        app_stack_user_id=1000,
        app_stack_read_only=False,
        app_stack_environment={"COLOUR": "a$b", "LIMIT": 3},
        app_stack_api_command=["node", "$HOME"],
    )
    assert services["api"]["user"] == services["redis"]["user"] == "1000:1000"
    assert (services["api"]["read_only"], services["redis"]["read_only"]) == (False, True)
    environment = services["api"]["environment"]
    assert (environment["COLOUR"], environment["LIMIT"]) == ("a$$b", "3")
    assert services["api"]["command"] == ["node", "$$HOME"]


def test_a_redis_of_your_own_replaces_the_project_s(render):
    services = own(render, app_stack_redis_url="rediss://app@redis.example.com:6380/1")
    assert services.keys() == {"api"}
    assert "depends_on" not in services["api"]
    assert services["api"]["environment"]["APP_REDIS_URL"] == "rediss://app@redis.example.com:6380/1"


def test_further_services_are_added_as_they_are(render):
    search = {"image": "registry.example.com/search:2", "networks": ["inside"]}
    assert own(render, app_stack_services={"search": search})["search"] == search


def test_the_inventory_may_not_set_the_variables_that_the_role_sets(render):
    everything = {
        "app_stack_session_jwks_url": "https://login.example.com/keys",
        "app_stack_session_ca_bundle": "/ca.pem",
        "app_stack_sign_in_url": "/login",
        "app_stack_socket": True,
    }
    environments = [own(render, **inputs)["api"]["environment"] for inputs in ({}, everything)]
    listed = yaml.safe_load((REPOSITORY / "roles/app_stack/vars/main.yml").read_text())
    assert set(listed["__app_stack_variables"]) == environments[0].keys() | environments[1].keys()
