"""The stack alone: what runs, who can reach it, and what survives a restart, a reboot and damage."""

import json
import time

import pytest

from tests.kit.playbook import changed, run_playbook
from tests.kit.process import remote_script
from tests.kit.site import PROJECT
from tests.kit.testbed import restart_server

SERVICES = ["api", "extractor", "redis", "worker"]


@pytest.fixture(scope="module")
def compose(host):
    """Return compose(arguments): runs docker compose on the site's project and returns the output."""

    def call(arguments):
        return host.check_output(f"cd {PROJECT} && docker compose {arguments}")

    return call


def inspect(host, compose):
    """Return the engine's description of each service's container, by service name."""
    described = json.loads(host.check_output(f"docker inspect {' '.join(compose('ps --quiet').split())}"))
    return {container["Config"]["Labels"]["com.docker.compose.service"]: container for container in described}


def address(containers, service):
    """Return a service's address in the network that all but the extractor share."""
    return containers[service]["NetworkSettings"]["Networks"]["screen-flow_inside"]["IPAddress"]


def started(host, compose):
    """Return when each service's container was started."""
    return {name: container["State"]["StartedAt"] for name, container in inspect(host, compose).items()}


@pytest.fixture(scope="module")
def containers(host, compose):
    return inspect(host, compose)


def test_the_engine_is_running_and_enabled(host):
    assert host.service("docker").is_running
    assert host.service("docker").is_enabled


@pytest.mark.parametrize("service", SERVICES)
def test_logs_are_bounded(containers, service):
    log = containers[service]["HostConfig"]["LogConfig"]
    assert log == {"Type": "json-file", "Config": {"max-file": "3", "max-size": "10m"}}


def test_what_the_owner_set_in_the_daemon_configuration_is_kept(host):
    info = json.loads(host.run_expect([0], "docker info --format '{{json .}}'").stdout)
    assert info["DockerRootDir"] == "/var/lib/docker/owner"
    assert info["Labels"] == ["owner=somebody"]


def test_all_services_are_healthy(containers):
    health = {name: container["State"]["Health"]["Status"] for name, container in containers.items()}
    assert health == dict.fromkeys(SERVICES, "healthy")


@pytest.mark.parametrize("service", SERVICES)
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
    """Without these authorities no key set of an identity provider can be fetched."""
    count = "import ssl; print(ssl.create_default_context().cert_store_stats()['x509_ca'])"
    shown = host.run_expect([0], f'cd {PROJECT} && docker compose exec -T api python -c "{count}"').stdout
    assert int(shown) > 100


def test_memory_and_processes_are_bounded(host, compose, containers):
    """Applied by the engine if the machine has the cgroup controllers, else set in the compose file."""
    services = json.loads(compose("config --format json"))["services"]
    limits = {name: (int(service["mem_limit"]), service["pids_limit"]) for name, service in services.items()}
    assert all(memory > 0 and processes > 0 for memory, processes in limits.values())
    _, maxmemory = compose("exec -T redis redis-cli config get maxmemory").split()
    # When Redis rewrites its file, a forked copy may come to hold all of the data again.
    assert limits["redis"][0] >= 2 * int(maxmemory) > 0
    engine = json.loads(host.check_output("docker info --format '{{json .}}'"))
    for name, container in containers.items():
        if engine["MemoryLimit"]:
            assert container["HostConfig"]["Memory"] == limits[name][0]
        if engine["PidsLimit"]:
            assert container["HostConfig"]["PidsLimit"] == limits[name][1]


def test_no_secret_is_visible(host, compose, containers):
    """Docker shows none for containers and images; nor do a process's arguments or environment."""
    visible = json.dumps(list(containers.values()))
    for image in {container["Image"] for container in containers.values()}:
        visible += host.check_output(f"docker image inspect {image}")
        visible += host.check_output(f"docker history --no-trunc {image}")
    visible += host.run_expect([0], "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ").stdout
    visible += compose("logs --no-color")
    visible += host.file(f"{PROJECT}/compose.yaml").content_string
    for name in ("session_keys", "probe_key", "redis_password_api", "redis_password_worker"):
        for secret in host.file(f"{PROJECT}/secrets/{name}").content_string.split():
            assert secret not in visible, f"{name} is visible"
    assert "everysec" in visible


def test_the_worker_has_one_secret_and_reaches_only_redis(host, compose):
    assert compose("exec -T worker ls /run/secrets").split() == ["redis_password_worker"]
    connect = "import socket; socket.create_connection(('{}', {}), 3)"
    compose(f'exec -T worker python -c "{connect.format("redis", 6379)}"')
    gateway = host.check_output("ip route show default").split()[2]
    refused = host.run(
        f'cd {PROJECT} && docker compose exec -T worker python -c "{connect.format(gateway, 22)}"'
    )
    assert "Network is unreachable" in refused.stderr


def test_the_extractor_holds_nothing(host, compose, containers):
    """A reader that was taken over, in the extractor's container: refused by its process's confinement."""
    folder = "/run/screen-flow-extractor"
    hostile = ["python", "-c", remote_script("hostile_reader")]
    environment = f"--env APP_EXTRACTOR_SOCKET={folder}/hostile.sock"
    start = f"cd {PROJECT} && docker compose exec --detach {environment} extractor"
    host.run_expect([0], f"{start} %s %s %s", *hostile)
    host.run_expect([0], f"cd {PROJECT} && timeout 20 docker compose exec -T extractor sh -c %s",
                    f"until [ -S {folder}/hostile.sock ]; do sleep 0.2; done")  # fmt: skip

    attempts = [
        ["read", "/run/secrets/redis_password_worker"],
        ["list", "/var/lib/screen-flow/uploads"],
        ["connect", address(containers, "redis"), 6379],
        ["connect", address(containers, "api"), 8000],
        ["list", "/proc/7/fd"],
        ["unix", f"{folder}/extractor.sock"],
        ["remove", f"{folder}/extractor.sock"],
        ["write", f"{folder}/mine"],
        ["signal", 7],
        ["trace", 7],
        ["fork"],
    ]
    hand_over = (
        "import sys, tempfile, pathlib; from app.extract import client;"
        " cv = tempfile.NamedTemporaryFile(); cv.write(sys.argv[1].encode()); cv.flush();"
        f" print(client.text(pathlib.Path('{folder}/hostile.sock'), 'text', pathlib.Path(cv.name))[0])"
    )
    found = host.check_output(
        f"cd {PROJECT} && docker compose exec -T worker python -c %s %s", hand_over, json.dumps(attempts)
    ).splitlines()
    assert len(found) == len(attempts)
    assert [line for line in found if not line.endswith("refused: Operation not permitted")] == []


# What to try, and the error that it has to end with.
REACHES = {
    "a secret": ("os.listdir('/run/secrets')", "FileNotFoundError"),
    "uploads": ("os.listdir('/var/lib/screen-flow/uploads')", "PermissionError"),
    "Redis": ("socket.create_connection(('{redis}', 6379), 3)", "Network is unreachable"),
    "the api": ("socket.create_connection(('{api}', 8000), 3)", "Network is unreachable"),
    "a name server": ("socket.getaddrinfo('redis', 6379)", "gaierror"),
    # The first process that Docker's own init started.
    "its server's files": ("os.listdir('/proc/' + open('/proc/1/task/1/children').read().split()[0] + '/fd')",
                           "PermissionError"),
}  # fmt: skip


@pytest.mark.parametrize("what", REACHES)
def test_the_extractor_s_container_reaches_nothing(host, containers, what):
    """Without the confinement of its processes: what the container alone withholds."""
    attempt, error = REACHES[what]
    code = f"import os, socket; {attempt}".format(
        **{name: address(containers, name) for name in ("redis", "api")}
    )
    run = host.run(f"cd {PROJECT} && docker compose exec -T extractor python -c %s", code)
    assert run.rc == 1
    assert error in run.stderr, run.stderr


def test_the_worker_can_not_replace_the_extractor_s_socket(host, compose):
    refused = host.run(
        f"cd {PROJECT} && docker compose exec -T worker rm -f /run/screen-flow-extractor/extractor.sock"
    )
    assert refused.rc != 0


def test_the_extractor_that_was_killed_comes_back(host, compose):
    process = inspect(host, compose)["extractor"]["State"]["Pid"]
    host.run_expect([0], f"kill -9 {process}")
    time.sleep(1)
    wait_until_healthy(host)


def test_redis_requires_the_password(host, containers):
    [address] = [net["IPAddress"] for net in containers["redis"]["NetworkSettings"]["Networks"].values()]
    info = (
        "import socket; s = socket.create_connection(('{}', 6379), 3); s.sendall(b'INFO\\r\\n');"
        " print(s.recv(99))"
    )
    assert "NOAUTH" in host.check_output(f'python3 -c "{info.format(address)}"')


def test_ports_are_published_on_the_loopback_address_only(host, containers):
    published = [
        (service, binding["HostIp"], binding["HostPort"])
        for service, container in containers.items()
        for bindings in container["NetworkSettings"]["Ports"].values()
        for binding in bindings or []
    ]
    assert published == [("api", "127.0.0.1", "8000")]
    assert not host.socket("tcp://0.0.0.0:8000").is_listening
    assert not host.socket("tcp://0.0.0.0:6379").is_listening


def test_uploads_and_redis_use_named_volumes(containers):
    volumes = {
        name: {mount["Name"] for mount in container["Mounts"] if mount["Type"] == "volume"}
        for name, container in containers.items()
    }
    assert volumes == {
        "api": {"screen-flow_uploads"},
        "worker": {"screen-flow_uploads", "screen-flow_extractor"},
        "extractor": {"screen-flow_extractor"},
        "redis": {"screen-flow_redis"},
    }


def test_redis_appends_to_a_file_and_never_evicts(compose):
    cli = "exec -T redis redis-cli config get"
    assert compose(f"{cli} appendonly").split() == ["appendonly", "yes"]
    assert compose(f"{cli} maxmemory-policy").split() == ["maxmemory-policy", "noeviction"]


def test_the_guide_s_subscription_needs_no_password_and_dangerous_commands_are_refused(host):
    cli = f"cd {PROJECT} && docker compose exec -T redis"
    messages = host.run(f"{cli} timeout 2 redis-cli SUBSCRIBE user:ada:events").stdout.split()
    assert messages == ["subscribe", "user:ada:events", "1"]
    assert host.run(f"{cli} timeout 2 redis-cli MONITOR").stdout.startswith("OK")
    for command in ("FLUSHALL", "SHUTDOWN NOSAVE", "KEYS x", "CONFIG SET appendonly no"):
        assert "NOPERM" in host.run(f"{cli} redis-cli {command}").stdout


def test_the_guide_s_commands_work_in_the_project_s_folder(compose):
    assert "Uvicorn running" in compose("logs api")
    assert compose("exec -T redis redis-cli ping") == "PONG"


@pytest.mark.parametrize("key", ["session_keys", "probe_key", "redis_password_api", "redis_password_worker"])
def test_only_the_app_can_read_the_keys(host, key):
    file = host.file(f"{PROJECT}/secrets/{key}")
    assert (file.mode, file.uid) == (0o400, 10001)
    assert len(file.content_string.strip()) == 48
    assert host.file(f"{PROJECT}/secrets").mode == 0o700


def port_status(host):
    """Return the status of the api's readiness on its port."""
    get = "from urllib.request import urlopen; print(urlopen('http://127.0.0.1:8000/readyz').status)"
    return host.check_output("python3 -c %s", get)


def socket_status(host, user="root"):
    """Return the status of the api's readiness on its unix socket for a user of the server, or an error."""
    get = (
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
    return host.check_output("runuser -u %s -- python3 -c %s", user, get)


def test_the_api_is_ready_on_port_and_socket(host):
    assert (port_status(host), socket_status(host)) == ("200", "200")


def test_only_nginx_s_user_can_connect_to_the_socket(host):
    assert (socket_status(host, "www-data"), socket_status(host, "nobody")) == ("200", "Permission denied")


def test_the_api_may_open_a_file_for_each_socket(host, compose):
    process = host.check_output("pgrep --full --newest '^python -m app.main'")
    limits = host.file(f"/proc/{process}/limits").content_string
    line = next(line for line in limits.splitlines() if line.startswith("Max open files"))
    assert line.split()[3] == "20000"
    assert compose("exec -T api cat /proc/sys/net/core/somaxconn") == "16384"


@pytest.mark.parametrize("image", ["app", "redis"])
def test_an_image_contains_no_ca_bundle_and_no_build_tool(host, image):
    name = host.check_output(f"docker images --format '{{{{.Repository}}}}:{{{{.Tag}}}}' screen-flow-{image}")
    look = "for tool in gcc make pip npm node; do command -v $tool && exit 1; done; [ ! -e /run/secrets/ca ]"
    host.run_expect([0], f"docker run --rm --entrypoint sh {name} -c %s", look)


@pytest.mark.parametrize(
    "damage",
    [
        f"rm -rf {PROJECT}/run",
        # Until the health check has seen it.
        f"rm -rf {PROJECT}/run && until docker ps | grep --quiet '(unhealthy)'; do sleep 1; done",
        f"mv {PROJECT}/run {PROJECT}/old && cp -a {PROJECT}/old {PROJECT}/run && rm -r {PROJECT}/old",
        "pkill --full '^/usr/sbin/docker-proxy'",
    ],
    ids=["folder removed", "folder removed for long", "folder replaced", "Docker's proxy ended"],
)
def test_a_run_repairs_a_broken_way_to_the_api(host, damage):
    host.run_expect([0], damage)
    run = run_playbook("molecule/app_stack/converge.yml")
    assert run.returncode == 0, run.stdout + run.stderr
    # The second where the health check has seen the damage before the run.
    tasks = ("Recreate the api's container", "Recreate the containers that were unhealthy")
    assert any(task in run.stdout for task in tasks)
    assert (port_status(host), socket_status(host)) == ("200", "200")
    assert changed(run_playbook("molecule/app_stack/converge.yml").stdout) == 0


def wait_until_healthy(host):
    """Wait until all services are."""
    healthy = (
        f"cd {PROJECT} && [ $(docker compose ps --format json | grep -c '\"healthy\"') = {len(SERVICES)} ]"
    )
    host.run_expect([0], "timeout 60 sh -c %s", f"until {healthy}; do sleep 1; done")


def test_containers_run_on_while_the_engine_restarts(host, compose):
    before = started(host, compose)
    host.run_expect([0], "systemctl restart docker")
    assert started(host, compose) == before
    wait_until_healthy(host)
    # The engine still manages them.
    compose("up --detach --force-recreate --wait api")
    assert (port_status(host), socket_status(host)) == ("200", "200")


def test_everything_starts_again_after_a_reboot(host, compose):
    before = started(host, compose)
    restart_server(host)
    wait_until_healthy(host)
    after = started(host, compose)
    assert all(after[name] > before[name] for name in before)
    assert (port_status(host), socket_status(host)) == ("200", "200")
