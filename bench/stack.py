"""A Redis, an api and an nginx of their own on free ports of 127.0.0.1: ours, the guide's or the floor."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx

from app.events import channel, dump, stream
from tests.kit.app import RedisServer, Site, make_site
from tests.kit.process import REPOSITORY, Process, free_port, wait_until
from tests.kit.templates import rendered

Design = Literal["guide", "floor", "ours"]
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")

# One worker, so that its memory is one figure. A proxied socket takes two connections; when less than a
# sixteenth of them is free nginx closes clients that have not asked yet, so there are more than files.
NGINX = """\
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
worker_shutdown_timeout {shutdown}s;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 22000; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    map $http_upgrade $connection_upgrade {{
        default upgrade;
        '' close;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://127.0.0.1:{api};
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_buffering off;
            proxy_read_timeout 7200s;
            proxy_send_timeout 7200s;
        }}
    }}
}}
"""


# Of /proc/slabinfo. The kernel keeps unix sockets in signal_cache, whose entries have the same size.
CACHES = (
    "TCP", "UNIX", "UNIX-STREAM", "signal_cache", "sock_inode_cache", "inode_cache", "filp", "eventpoll_epi",
    "nf_conntrack",
)  # fmt: skip
# What the role leaves to Debian's nginx, here in the folder; root, as nobody else reaches the folder.
ELSEWHERE = {
    "user www-data;": "user root;",
    "/run/nginx.pid": "{folder}/nginx.pid",
    "/var/log/nginx/": "{folder}/",
    "http {": """http {
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;""",
}


def memory(pid: int) -> int:
    """Return the bytes that a process holds in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def peak_memory(pid: int) -> int:
    """Return the most bytes that a process has held in memory at once."""
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024


def kernel() -> int:
    """Return the bytes that the kernel holds for all sockets of the machine, their files and connections."""
    lines = [line.split() for line in Path("/proc/slabinfo").read_text().splitlines()[2:]]
    return sum(int(active) * int(size) for name, active, _, size, *_ in lines if name in CACHES)


def available() -> int:
    """Return the bytes that the whole machine has left."""
    return int(Path("/proc/meminfo").read_text().partition("MemAvailable:")[2].split()[0]) * 1024


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def status(url: str) -> int | None:
    """Return the status of the answer to a GET, None where nobody answers."""
    try:
        return httpx.get(url).status_code
    except httpx.TransportError:
        return None


@dataclass
class Stack:
    """One design, running. `port` is nginx's."""

    design: Design
    redis: RedisServer
    site: Site
    api: Process
    nginx: Process
    port: int
    steps: Path
    proxy: Process | None = None
    """Docker's, where nginx reaches the api through it."""

    def longest_step(self, since: float) -> tuple[float, float]:
        """Return the longest that the api's event loop was busy at one go since a Unix time, in seconds.

        The first figure is the clock's, the second the processor time of it: on a busy machine they differ.
        """
        lines = [tuple(map(float, line.split())) for line in self.steps.read_text().splitlines()]
        recent = [line for line in lines if line[0] >= since]
        return max(line[1] for line in recent), max(line[2] for line in recent)

    @property
    def api_pid(self) -> int:
        """The api's process."""
        assert self.api.child
        return self.api.child.pid

    @property
    def nginx_workers(self) -> list[int]:
        """Nginx's workers, the newest last."""
        assert self.nginx.child
        children = Path(f"/proc/{self.nginx.child.pid}/task/{self.nginx.child.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    @property
    def way(self) -> list[int]:
        """The processes that a socket passes."""
        proxy = [self.proxy.child.pid] if self.proxy and self.proxy.child else []
        return [self.api_pid, *self.nginx_workers, *proxy]

    def cookie(self, user: str) -> str:
        """Return a session for the user; the others know none, and pay nothing for it."""
        return self.site.cookie(user, ttl=86_400) if self.design == "ours" else "none=0"

    def publish(self, users: list[str], numbers: range) -> None:
        """Publish an event of each number to each user, in as few round trips as there are numbers."""
        for number in numbers:
            event = {"type": "cv_progress", "time": "2026-11-24T12:00:00.000Z", "number": number}
            with self.redis.client.pipeline(transaction=False) as pipe:
                for user in users:
                    if self.design == "ours":
                        self.redis.append(keys=[stream(user)], args=[channel(user), dump(event)], client=pipe)
                    else:
                        pipe.publish(channel(user), dump(event))
                pipe.execute()

    def event_ids(self, user: str) -> list[str]:
        """Return the ids of the user's history, the oldest first; the other designs keep none."""
        entries = self.redis.client.execute_command("XRANGE", stream(user), "-", "+")
        return [entry[0] for entry in entries]

    def redis_clients(self) -> int:
        """Return how many Redis connections the api holds."""
        return sum(client["name"] != "test" for client in self.redis.client.client_list())

    def ready(self) -> bool:
        """Tell whether the api answers."""
        # The others have no such address; any answer will do.
        return status(f"http://127.0.0.1:{self.site.port}/readyz") in (200, 404)


def _as_the_role(role: Path, folder: Path, port: int, upstream: str, variables: Mapping[str, Any]) -> None:
    """Write nginx's configuration as a checkout's role has it by default, with the ports of this run."""
    certificate, key = folder / "origin.pem", folder / "origin.key"
    command = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    files = ("-subj", "/CN=bench", "-keyout", str(key), "-out", str(certificate))
    subprocess.run((*command, *files), check=True, capture_output=True)  # noqa: S603
    for path, template in {
        "nginx.conf": "nginx.conf.j2",
        "upstreams/screen-flow.conf": "upstream.conf.j2",
        "sites-enabled/screen-flow": "site.conf.j2",
    }.items():
        text = rendered(
            role,
            template,
            nginx_port_http=port,
            nginx_port_https=free_port(),
            nginx_certificate_file=str(certificate),
            nginx_certificate_key_file=str(key),
            nginx_upstream_servers=[upstream],
            nginx_tls_curves=["X25519"],  # of the defaults OpenSSL before 3.5 does not know the first
            **variables,
        )
        for theirs, ours in ELSEWHERE.items():
            text = text.replace(theirs, ours.replace("{folder}", str(folder)))
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text)
    (folder / "mime.types").write_text("types { text/html html; }\n")


@contextmanager
def running(
    design: Design,
    folder: Path,
    shutdown_seconds: int = 3600,
    source: Path = REPOSITORY,
    role: Mapping[str, Any] | None = None,
) -> Iterator[Stack]:
    """Start a design, and end it. All run on the same uvicorn settings, so that the design alone differs.

    `source` is the checkout whose `app` serves; its event loop is watched (`Stack.longest_step`).
    With `role`, variables on top of its defaults, nginx is as that checkout's role configures it, limits
    included, and reaches the api as there: by a unix socket, or the port that Docker's proxy publishes.
    """
    folder.mkdir()
    redis_folder = folder / "redis"
    redis_folder.mkdir()
    redis = RedisServer(redis_folder, "--appendfsync", "everysec", "--maxclients", "12000")
    site = make_site(redis, folder, APP_LOG_LEVEL="WARNING")
    steps = folder / "steps"
    api = Process(
        *(sys.executable, str(REPOSITORY / "bench/watched.py"), str(steps)),
        *("--host", "127.0.0.1", "--port", str(site.port)),
        log=folder / "api.log", env=site.env, cwd=source,
    )  # fmt: skip
    if design != "ours":
        password = redis.password_file.read_text().strip()
        site.env["APP_REDIS_URL"] = redis.url.replace("app@", f"app:{password}@")
        api = Process(
            *(sys.executable, "-m", "uvicorn", f"bench.{design}:app", "--host", "127.0.0.1"),
            *("--port", str(site.port), "--loop", "uvloop", "--http", "httptools", "--log-level", "warning"),
            *("--ws", "websockets-sansio", "--ws-per-message-deflate", "false"),
            log=folder / "api.log", env=site.env,
        )  # fmt: skip
    port = free_port()
    configuration = folder / "nginx.conf"
    proxy = None
    if role is None:
        configuration.write_text(
            NGINX.format(folder=folder, port=port, api=site.port, shutdown=shutdown_seconds)
        )
    else:
        if "APP_SOCKET" in (source / "app/main.py").read_text():
            site.env["APP_SOCKET"] = str(folder / "api.sock")
            upstream = f"unix:{folder}/api.sock"
        else:
            published = free_port()
            upstream = f"127.0.0.1:{published}"
            proxy = Process(
                # On file 3 it reports to the daemon; without one it would close another of its files.
                *(
                    "sh",
                    "-c",
                    'exec docker-proxy "$@" 3>/dev/null',
                    "-",
                    "-proto",
                    "tcp",
                    "-host-ip",
                    "127.0.0.1",
                    "-host-port",
                    str(published),
                ),
                *("-container-ip", "127.0.0.1", "-container-port", str(site.port)),
                log=folder / "proxy.log",
            )
        _as_the_role(source / "roles/nginx", folder, port, upstream, role)
        with configuration.open("a") as file:
            file.write("daemon off;\n")
    nginx = Process("nginx", "-c", str(configuration), "-p", str(folder), log=folder / "nginx.log")
    stack = Stack(design, redis, site, api, nginx, port, steps, proxy)
    try:
        redis.start()
        api.start()
        if proxy:
            proxy.start()
        nginx.start()
        wait_until("the api answers", stack.ready)
        wait_until("nginx answers", lambda: (status(f"http://127.0.0.1:{port}/") or 500) < 500)
        yield stack
    finally:
        for process in (nginx, proxy, api, redis):
            if process:
                process.close()
