"""The connection from nginx to the api: a published port, the container's address or a unix socket, in turn.

It runs on the demo's server (`.demo/env` names it), beside the site: each round has a private nginx and a
private api of the site's image. Clients are in the server's network namespace and connect to that nginx.
"""

import asyncio
import ctypes
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import httpx

from app.sessions import COOKIE, issue
from bench.figures import Figure, table
from bench.load import Tally, connect_all, handshake
from bench.stack import cpu_seconds, kernel, memory
from tests.kit.process import wait_until

Upstream = Literal["port", "address", "socket"]
UPSTREAMS: tuple[Upstream, ...] = ("port", "address", "socket")
NAMES = {"port": "published port", "address": "container's address", "socket": "unix socket"}
USERS = 100  # that share the sockets evenly
ROUNDS = 3  # of which the median is reported
EVENTS = 20  # published to each user
SETTLE = 2.0  # seconds before memory is read
NAME = "bench-upstream"
API_PORT, NGINX_PORT = 8900, 8901
FILES = 20_000  # limit of a process on the test machine
NGINX = f"""\
user root;
worker_processes 1;
worker_rlimit_nofile {FILES};
pid /opt/{NAME}/nginx.pid;
error_log /opt/{NAME}/error.log;
events {{ worker_connections 22000; }}
http {{
    access_log off;
    # nginx changes the owner of these folders, so they must not be the site's.
    client_body_temp_path /opt/{NAME}/body;
    proxy_temp_path /opt/{NAME}/proxy;
    fastcgi_temp_path /opt/{NAME}/fastcgi;
    uwsgi_temp_path /opt/{NAME}/uwsgi;
    scgi_temp_path /opt/{NAME}/scgi;
    server {{
        listen {NGINX_PORT} backlog=4096;
        location / {{
            proxy_pass http://%s;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_buffering off;
            proxy_read_timeout 7200s;
        }}
    }}
}}
"""
# Run in the worker's container. Arguments: the number of users, and of events for each.
PUBLISH = """
import sys
from app.events import PUBLISH, channel, stream
from app.worker import broker
users, events = map(int, sys.argv[1:])
for number in range(events):
    with broker.client.pipeline(transaction=False) as pipe:
        for user in range(users):
            name, body = f"bench-{user}", '{"type":"note","number":%d}' % number
            pipe.eval(PUBLISH, 1, stream(name), channel(name), body)
        pipe.execute()
"""


@dataclass(frozen=True)
class Cost:
    """The cost of one socket; memory in KiB, processor time in milliseconds or microseconds."""

    processes_kib: float
    """Memory of nginx, api and Docker's proxy."""
    kernel_kib: float
    """Memory of the kernel for the sockets, including the client's, without their buffers."""
    sockets: float
    """Kernel sockets of the three processes."""
    files: float
    """Open files of the three processes."""
    most_files: float
    """Open files of the process that has the most, which limits the number of sockets."""
    connect_ms: float
    delivery_us: float
    restart_s: float
    """Seconds from the restart of the container until the api answers through nginx."""


class Server:
    """The demo's server. Raises SystemExit when the environment does not name it."""

    def __init__(self) -> None:
        try:
            self.container = os.environ["ORIGIN_CONTAINER"]
            self.origin = os.environ["SITE_URL"]
        except KeyError as missing:
            raise SystemExit(
                f"{missing.args[0]} is not set: start a demo (scripts/demo), then `set -a; . .demo/env`."
            ) from None
        self.key = self.sh("head -n 1 secrets/session_keys").strip()
        state = ("docker", "inspect", "--format", "{{.State.Pid}}", self.container)
        self.pid = int(subprocess.check_output(state, text=True))

    def enter_network(self) -> None:
        """Move this thread into the server's network namespace, inside its firewall."""
        libc = ctypes.CDLL(None, use_errno=True)
        with Path(f"/proc/{self.pid}/ns/net").open() as space:
            if libc.setns(space.fileno(), 0):
                raise OSError(ctypes.get_errno(), f"cannot enter the network namespace of process {self.pid}")

    def sh(self, command: str, text: str | None = None) -> str:
        """Run a shell command in the project's folder; return its output. Raises RuntimeError on failure."""
        ran = subprocess.run(
            ("docker", "exec", "-i", "-w", "/opt/screen-flow", self.container, "sh", "-ec", command),
            check=False, input=text, capture_output=True, text=True,
        )  # fmt: skip
        if ran.returncode:
            raise RuntimeError(f"{command}: {ran.stdout}{ran.stderr}")
        return ran.stdout

    def answers(self) -> bool:
        """Return whether the api answers through nginx."""
        with suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{NGINX_PORT}/readyz", timeout=2).status_code == 200
        return False

    @contextmanager
    def running(self, kind: Upstream) -> Iterator[dict[str, int]]:
        """Run an api and an nginx; yield the process ids of api, nginx and Docker's proxy, by name."""
        options = {
            # Without this it would use the site's socket.
            "port": f"-p 127.0.0.1:{API_PORT}:8000 -e APP_SOCKET=",
            "address": "-e APP_SOCKET=",
            "socket": f"-v /opt/{NAME}/run:/run/{NAME} -e APP_SOCKET=/run/{NAME}/api.sock",
        }[kind]
        try:
            self.sh(f"mkdir -p /opt/{NAME}/run && chown 10001 /opt/{NAME}/run && docker rm -f {NAME} 2>&1")
            self.sh(f"docker compose run --detach --no-deps --name {NAME} {options} api")
            inspect = '{{with index .NetworkSettings.Networks "screen-flow_outside"}}{{.IPAddress}}{{end}}'
            upstream = {
                "port": f"127.0.0.1:{API_PORT}",
                "address": self.sh(f"docker inspect --format '{inspect}' {NAME}").strip() + ":8000",
                "socket": f"unix:/opt/{NAME}/run/api.sock",
            }[kind]
            self.sh(f"cat >/opt/{NAME}/nginx.conf", NGINX % upstream)
            self.sh(f"ulimit -n {FILES}; nginx -c /opt/{NAME}/nginx.conf")
            wait_until("the api answers through nginx", self.answers)
            inner = {
                "api": f"docker top {NAME} -o pid,args | awk '/ python -m app.main/ && !/init/ {{print $1}}'",
                "nginx": f"pgrep -P $(cat /opt/{NAME}/nginx.pid)",
                "proxy": f"pgrep -f '[d]ocker-proxy.*{API_PORT}' || true",
            }
            yield {
                name: self.outside(int(pid.split()[0]))
                for name, command in inner.items()
                if (pid := self.sh(command))
            }
        finally:
            self.sh(f"nginx -c /opt/{NAME}/nginx.conf -s stop 2>&1 || true; docker rm -f {NAME} 2>&1")
            self.sh(f"rm -rf /opt/{NAME}")

    def outside(self, pid: int) -> int:
        """Return the id on this machine of the server's process `pid`. Raises LookupError."""
        namespace = Path(f"/proc/{self.pid}/ns/pid").readlink()
        for status in Path("/proc").glob("[0-9]*/status"):
            with suppress(OSError):
                ids = status.read_text().partition("NSpid:\t")[2].partition("\n")[0].split()
                own = (status.parent / "ns/pid").readlink()
                # A container's processes are in a PID namespace below the server's.
                level = -1 if own == namespace else -2
                if len(ids) >= -level + 1 and int(ids[level]) == pid:
                    return int(status.parent.name)
        raise LookupError(f"process {pid} of {self.container} has ended")


def descriptors(pid: int) -> tuple[int, int]:
    """Return the numbers of open files and of open sockets of a process."""
    # psutil lists connections, not open sockets.
    links = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            links.append(str(path.readlink()))
    return len(links), sum(link.startswith("socket:") for link in links)


async def measure(server: Server, pids: dict[str, int], clients: int) -> Cost:
    """Connect this many sockets, deliver events to all, restart the container; return what that cost."""
    users = [f"bench-{number}" for number in range(USERS)]
    cookies = {user: f"{COOKIE}={issue(server.key, user, 3_600)}" for user in users}
    tally = Tally()

    def request(number: int) -> bytes:
        user = users[number % USERS]
        return handshake(f"/api/v1/cv-processing/ws/{user}", server.origin, cookies[user])

    def opened(numbers: range) -> Any:
        return connect_all(NGINX_PORT, [request(n) for n in numbers], tally)

    def total(what: Callable[[int], float]) -> float:
        return sum(map(what, pids.values()))

    # The first socket of each user creates what exists once.
    first = await opened(range(USERS))
    await asyncio.sleep(SETTLE)
    system, held, cpu = kernel(), total(memory), total(cpu_seconds)
    files = {pid: descriptors(pid) for pid in pids.values()}
    more = clients - USERS
    rest = await opened(range(more))
    connect = total(cpu_seconds) - cpu
    await asyncio.sleep(SETTLE)
    system, held = kernel() - system, total(memory) - held
    new = [(now[0] - files[pid][0], now[1] - files[pid][1]) for pid in files for now in [descriptors(pid)]]
    cpu, wanted = total(cpu_seconds), tally.events + EVENTS * clients
    publishing = asyncio.to_thread(
        server.sh, f"docker compose exec -T worker python - {USERS} {EVENTS}", PUBLISH
    )
    await asyncio.gather(publishing, tally.reach(wanted, 120))
    deliver = total(cpu_seconds) - cpu
    for connection in (*first, *rest):
        assert connection.transport
        connection.transport.abort()
    await asyncio.sleep(SETTLE)
    begin = time.monotonic()
    server.sh(f"docker restart --time 10 {NAME}")
    wait_until("the api answers after a restart", server.answers, 30)
    return Cost(
        processes_kib=held / more / 1024,
        kernel_kib=system / more / 1024,
        sockets=sum(each[1] for each in new) / more,
        files=sum(each[0] for each in new) / more,
        most_files=max(each[0] for each in new) / more,
        connect_ms=connect / more * 1_000,
        delivery_us=deliver / (EVENTS * clients) * 1_000_000,
        restart_s=time.monotonic() - begin,
    )


def run(clients: int, rounds: int = ROUNDS) -> dict[Upstream, Cost]:
    """Measure each upstream `rounds` times, in turn; return the medians."""
    server = Server()
    server.enter_network()
    costs: dict[Upstream, list[Cost]] = {kind: [] for kind in UPSTREAMS}
    for number in range(rounds):
        for kind in UPSTREAMS:
            print(f"round {number + 1}, {clients:,} sockets, {NAMES[kind]} …", flush=True)
            with server.running(kind) as pids:
                costs[kind].append(asyncio.run(measure(server, pids, clients)))
    return {
        kind: Cost(*(statistics.median(values) for values in zip(*map(astuple, costs[kind]), strict=True)))
        for kind in UPSTREAMS
    }


def costs_table(costs: dict[Upstream, Cost]) -> str:
    """Return the costs as a Markdown table, with a column for each upstream."""
    rows: Sequence[tuple[str, Callable[[Cost], str]]] = (
        ("KiB a socket, nginx, api and proxy", lambda cost: f"{cost.processes_kib:.0f}"),
        ("KiB a socket, kernel", lambda cost: f"{cost.kernel_kib:.0f}"),
        ("kernel sockets a socket", lambda cost: f"{cost.sockets:.1f}"),
        ("open files a socket", lambda cost: f"{cost.files:.1f}"),
        (f"sockets at {FILES:,} files a process", lambda cost: f"{FILES / cost.most_files:,.0f}"),
        ("ms of processor time a connect", lambda cost: f"{cost.connect_ms:.2f}"),
        ("µs of processor time a delivery", lambda cost: f"{cost.delivery_us:.0f}"),
        ("s from a container's restart to an answer", lambda cost: f"{cost.restart_s:.1f}"),
    )
    return table(
        ["", *(NAMES[kind] for kind in costs)],
        [[name, *map(show, costs.values())] for name, show in rows],
    )


def figures(costs: dict[Upstream, Cost]) -> list[Figure]:
    """Return all costs, and the ratios of the unix socket to the published port, with the targets."""
    port, unix = costs["port"], costs["socket"]
    targets = {"processes_kib": 0.8, "kernel_kib": 0.6, "sockets": 0.7, "connect_ms": 0.9, "delivery_us": 0.8}
    found = [
        Figure(f"{field.name}, {NAMES[kind]}", getattr(cost, field.name), field.name.rpartition("_")[2])
        for kind, cost in costs.items()
        for field in fields(Cost)
    ]
    return found + [
        Figure(
            f"{field.name}, unix socket over published port",
            getattr(unix, field.name) / getattr(port, field.name),
            "ratio",
            targets.get(field.name),
        )
        for field in fields(Cost)
    ]
