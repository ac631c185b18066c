"""The stack alone: what runs, who can reach it, and that an unchanged source rebuilds nothing."""

import json

import pytest

PROJECT = "/opt/screen-flow"


@pytest.fixture(scope="module")
def containers(host):
    """Return the engine's description of each service's container, by service name."""
    ids = host.run_expect([0], f"docker compose --project-directory {PROJECT} ps --quiet").stdout.split()
    described = json.loads(host.run_expect([0], f"docker inspect {' '.join(ids)}").stdout)
    return {container["Config"]["Labels"]["com.docker.compose.service"]: container for container in described}


def test_the_engine_comes_back_after_a_reboot(host):
    assert host.service("docker").is_running
    assert host.service("docker").is_enabled


def test_logs_are_bounded_and_containers_outlive_the_engine(host):
    info = json.loads(host.run_expect([0], "docker info --format '{{json .}}'").stdout)
    assert info["LiveRestoreEnabled"]
    assert json.loads(host.file("/etc/docker/daemon.json").content_string)["log-opts"] == {
        "max-file": "3",
        "max-size": "10m",
    }


def test_three_services_are_healthy(containers):
    health = {name: container["State"]["Health"]["Status"] for name, container in containers.items()}
    assert health == {"api": "healthy", "worker": "healthy", "redis": "healthy"}


@pytest.mark.parametrize("service", ["api", "worker", "redis"])
def test_each_is_confined(containers, service):
    container = containers[service]
    assert container["Config"]["User"] not in ("", "0", "root")
    assert container["HostConfig"]["ReadonlyRootfs"]
    assert container["HostConfig"]["CapDrop"] == ["ALL"]
    assert container["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"


def test_only_the_loopback_address_is_published(host, containers):
    published = [
        (service, binding["HostIp"], binding["HostPort"])
        for service, container in containers.items()
        for bindings in container["NetworkSettings"]["Ports"].values()
        for binding in bindings or []
    ]
    assert published == [("api", "127.0.0.1", "8000")]
    assert not host.socket("tcp://0.0.0.0:8000").is_listening
    assert not host.socket("tcp://0.0.0.0:6379").is_listening


def test_uploads_and_redis_live_in_named_volumes(host):
    names = host.run_expect([0], "docker volume ls --quiet").stdout.split()
    assert {"screen-flow_uploads", "screen-flow_redis"} <= set(names)


def test_redis_keeps_an_append_only_file(host):
    answer = host.run_expect(
        [0], f"cd {PROJECT} && docker compose exec -T redis redis-cli config get appendonly"
    )
    assert answer.stdout.split() == ["appendonly", "yes"]


def test_the_guide_s_commands_work_from_the_project_s_folder(host):
    assert "Uvicorn running" in host.run_expect([0], f"cd {PROJECT} && docker compose logs api").stdout
    assert (
        host.run_expect([0], f"cd {PROJECT} && docker compose exec -T redis redis-cli ping").stdout
        == "PONG\n"
    )


@pytest.mark.parametrize("key", ["session_keys", "probe_key"])
def test_keys_are_readable_by_the_app_alone(host, key):
    file = host.file(f"{PROJECT}/secrets/{key}")
    assert (file.mode, file.uid) == (0o400, 10001)
    assert len(file.content_string.strip()) == 48
    assert host.file(f"{PROJECT}/secrets").mode == 0o700


def test_the_api_is_ready(host):
    answer = host.run_expect(
        [0],
        "python3 -c \"from urllib.request import urlopen; print(urlopen('http://127.0.0.1:8000/readyz').status)\"",
    )
    assert answer.stdout == "200\n"


@pytest.mark.parametrize("image", ["app", "redis"])
def test_no_ca_bundle_and_no_build_tool_is_in_an_image(host, image):
    name = host.run_expect(
        [0], f"docker images --format '{{{{.Repository}}}}:{{{{.Tag}}}}' screen-flow-{image}"
    )
    look = "for tool in gcc make pip npm node; do command -v $tool && exit 1; done; [ ! -e /run/secrets/ca ]"
    host.run_expect([0], f"docker run --rm --entrypoint sh {name.stdout.strip()} -c %s", look)


def test_everything_starts_again_with_the_engine(host, containers):
    host.run_expect([0], "systemctl restart docker")
    host.run_expect(
        [0],
        f"cd {PROJECT} && timeout 60 sh -c "
        "'until [ $(docker compose ps --format json | grep -c healthy) = 3 ]; do sleep 1; done'",
    )
