"""The stack alone: what runs, who can reach it, and that an unchanged source rebuilds nothing."""

import json

import pytest

from tests.kit.site import play

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
    assert not container["HostConfig"]["CapAdd"]
    # And no seccomp=unconfined: the engine's default profile holds.
    assert container["HostConfig"]["SecurityOpt"] == ["no-new-privileges:true"]
    assert all("size=" in options for options in container["HostConfig"]["Tmpfs"].values())
    assert container["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"


def test_the_api_trusts_public_authorities(host):
    """Without them no key set of an identity provider can be fetched."""
    count = "import ssl; print(ssl.create_default_context().cert_store_stats()['x509_ca'])"
    shown = host.run_expect([0], f'cd {PROJECT} && docker compose exec -T api python -c "{count}"').stdout
    assert int(shown) > 100


def test_memory_and_processes_are_bounded(host):
    """Asked of the project, since test machines without a memory controller drop the limits."""
    project = json.loads(
        host.run_expect([0], f"docker compose --project-directory {PROJECT} config --format json").stdout
    )
    limits = {name: (int(s["mem_limit"]) >> 20, s["pids_limit"]) for name, s in project["services"].items()}
    assert limits == {"api": (1024, 256), "worker": (2048, 256), "redis": (576, 256)}


def test_no_secret_shows(host, containers):
    """Not in what Docker tells of containers and images, nor in any process's arguments or environment."""
    told = json.dumps(list(containers.values()))
    for image in {container["Image"] for container in containers.values()}:
        told += host.run_expect([0], f"docker image inspect {image}").stdout
        told += host.run_expect([0], f"docker history --no-trunc {image}").stdout
    told += host.run_expect([0], "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ").stdout
    told += host.run_expect([0], f"cd {PROJECT} && docker compose logs --no-color").stdout
    told += host.file(f"{PROJECT}/compose.yaml").content_string
    for name in ("session_keys", "probe_key", "redis_password"):
        for secret in host.file(f"{PROJECT}/secrets/{name}").content_string.split():
            assert secret not in told, f"{name} shows"
    assert "everysec" in told


def test_the_worker_holds_one_secret_and_reaches_nothing_but_redis(host):
    inside = f"cd {PROJECT} && docker compose exec -T worker"
    assert host.run_expect([0], f"{inside} ls /run/secrets").stdout.split() == ["redis_password"]
    connect = "import socket; socket.create_connection(('{}', {}), 3)"
    host.run_expect([0], f'{inside} python -c "{connect.format("redis", 6379)}"')
    gateway = host.run_expect([0], "ip route show default").stdout.split()[2]
    refused = host.run(f'{inside} python -c "{connect.format(gateway, 22)}"')
    assert "Network is unreachable" in refused.stderr


def test_redis_answers_nobody_without_the_password(host, containers):
    [address] = [net["IPAddress"] for net in containers["redis"]["NetworkSettings"]["Networks"].values()]
    ask = (
        "import socket; s = socket.create_connection(('{}', 6379), 3); s.sendall(b'INFO\\r\\n');"
        " print(s.recv(99))"
    )
    answer = host.run_expect([0], f'python3 -c "{ask.format(address)}"')
    assert "NOAUTH" in answer.stdout


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
    policy = host.run_expect(
        [0], f"cd {PROJECT} && docker compose exec -T redis redis-cli config get maxmemory*"
    ).stdout.split()
    settings = dict(zip(policy[::2], policy[1::2], strict=True))
    assert (settings["maxmemory"], settings["maxmemory-policy"]) == (str(256 << 20), "noeviction")


def test_the_guide_s_subscription_needs_no_password_and_a_slip_does_no_harm(host):
    cli = f"cd {PROJECT} && docker compose exec -T redis"
    heard = host.run(f"{cli} timeout 2 redis-cli SUBSCRIBE user:ada:events").stdout.split()
    assert heard == ["subscribe", "user:ada:events", "1"]
    assert host.run(f"{cli} timeout 2 redis-cli MONITOR").stdout.startswith("OK")
    for slip in ("FLUSHALL", "SHUTDOWN NOSAVE", "KEYS x", "CONFIG SET appendonly no"):
        assert "NOPERM" in host.run(f"{cli} redis-cli {slip}").stdout


def test_the_guide_s_commands_work_from_the_project_s_folder(host):
    assert "Uvicorn running" in host.run_expect([0], f"cd {PROJECT} && docker compose logs api").stdout
    assert (
        host.run_expect([0], f"cd {PROJECT} && docker compose exec -T redis redis-cli ping").stdout
        == "PONG\n"
    )


@pytest.mark.parametrize("key", ["session_keys", "probe_key", "redis_password"])
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


def status(host, user="root"):
    """Return what the api answers on its unix socket to a user of the server: a status, or an error."""
    ask = (
        "import http.client, socket\n"
        "c = http.client.HTTPConnection('api')\n"
        "c.sock = socket.socket(socket.AF_UNIX)\n"
        "try:\n"
        "    c.sock.connect('/opt/screen-flow/run/api.sock')\n"
        "    c.request('GET', '/readyz')\n"
        "    print(c.getresponse().status)\n"
        "except OSError as error:\n"
        "    print(error.strerror)"
    )
    return host.run_expect([0], "runuser -u %s -- python3 -c %s", user, ask).stdout.strip()


def test_the_socket_is_for_nginx_s_user_alone(host):
    assert (status(host), status(host, "www-data"), status(host, "nobody")) == (
        "200",
        "200",
        "Permission denied",
    )


def test_the_api_may_open_a_file_for_each_socket(host):
    process = host.run_expect([0], "pgrep --full --newest '^python -m app.main'").stdout.strip()
    limits = host.file(f"/proc/{process}/limits").content_string
    assert (
        next(line for line in limits.splitlines() if line.startswith("Max open files")).split()[3] == "20000"
    )
    waiting = host.run_expect(
        [0], f"cd {PROJECT} && docker compose exec -T api cat /proc/sys/net/core/somaxconn"
    )
    assert waiting.stdout == "16384\n"


@pytest.mark.parametrize(
    "harm",
    [
        f"rm -rf {PROJECT}/run",
        f"mv {PROJECT}/run {PROJECT}/old && cp -a {PROJECT}/old {PROJECT}/run && rm -r {PROJECT}/old",
        "pkill --full '^/usr/sbin/docker-proxy'",
    ],
    ids=["folder removed", "folder made anew", "Docker's proxy ended"],
)
def test_a_way_that_is_dead_is_mended(host, harm):
    host.run_expect([0], harm)
    run = play("molecule/app_stack/converge.yml")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Make the api's container anew" in run.stdout
    assert status(host) == "200"
    test_the_api_is_ready(host)
    assert "changed=0" in play("molecule/app_stack/converge.yml").stdout


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
    assert status(host) == "200"
    host.run_expect([0], f"cd {PROJECT} && docker compose up --detach --force-recreate --wait api")
    assert status(host) == "200"
    test_the_api_is_ready(host)
