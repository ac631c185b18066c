"""A private Redis, api and nginx on free ports of 127.0.0.1: ours, the guide's design or the floor."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import psutil

from app.events import channel, dump, stream
from tests.kit.app import RedisServer, Site, make_site
from tests.kit.process import REPOSITORY, Process, free_port, wait_until
from tests.kit.templates import rendered

Design = Literal["guide", "floor", "ours"]

# One worker, so that its memory is one figure. A proxied socket takes two connections. While less than a
# sixteenth of the connections is free, nginx closes clients without a request: hence more of them than files.
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


# Names in /proc/slabinfo. The kernel keeps unix sockets in signal_cache, whose entries have the same size.
CACHES = (
    "TCP", "UNIX", "UNIX-STREAM", "signal_cache", "sock_inode_cache", "inode_cache", "filp", "eventpoll_epi",
    "nf_conntrack",
)  # fmt: skip
# What the role leaves to Debian's defaults, moved into the folder, which only root can read.
REPLACEMENTS = {
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
    """Return the resident memory of a process in bytes."""
    return int(psutil.Process(pid).memory_info().rss)


def peak_memory(pid: int) -> int:
    """Return the highest resident memory that a process has had, in bytes."""
    # psutil has no VmHWM.
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024


def kernel() -> int:
    """Return the kernel's memory for all sockets of the machine, their files and connections, in bytes."""
    # psutil does not read slabs.
    lines = [line.split() for line in Path("/proc/slabinfo").read_text().splitlines()[2:]]
    return sum(int(active) * int(size) for name, active, _, size, *_ in lines if name in CACHES)


def available() -> int:
    """Return the memory of the whole machine that is available, in bytes."""
    return int(psutil.virtual_memory().available)


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used, in seconds."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def status(url: str) -> int | None:
    """Return the HTTP status of a GET, or None when nothing answers."""
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
    """Docker's proxy, where nginx reaches the api through it."""

    def longest_step(self, since: float) -> tuple[float, float]:
        """Return the longest step of the api's event loop since a Unix time: wall time and processor time.

        Both in seconds. They differ on a busy machine.
        """
        lines = [tuple(map(float, line.split())) for line in self.steps.read_text().splitlines()]
        recent = [line for line in lines if line[0] >= since]
        return max(line[1] for line in recent), max(line[2] for line in recent)

    @property
    def api_pid(self) -> int:
        """The api's process id."""
        assert self.api.child
        return self.api.child.pid

    @property
    def nginx_workers(self) -> list[int]:
        """The process ids of nginx's workers, the newest last."""
        assert self.nginx.child
        children = psutil.Process(self.nginx.child.pid).children()
        return [child.pid for child in sorted(children, key=psutil.Process.create_time)]

    @property
    def processes(self) -> list[int]:
        """The ids of the processes that a socket passes through."""
        proxy = [self.proxy.child.pid] if self.proxy and self.proxy.child else []
        return [self.api_pid, *self.nginx_workers, *proxy]

    def cookie(self, user: str) -> str:
        """Return a session cookie for the user; the other designs have no sessions."""
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
        """Return the event ids of the user's history, the oldest first; the other designs keep none."""
        entries = self.redis.client.execute_command("XRANGE", stream(user), "-", "+")
        return [entry[0] for entry in entries]

    def redis_clients(self) -> int:
        """Return how many Redis connections the api holds."""
        return sum(client["name"] != "test" for client in self.redis.client.client_list())

    def ready(self) -> bool:
        """Return whether the api answers."""
        # The other designs have no such path; any answer will do.
        return status(f"http://127.0.0.1:{self.site.port}/readyz") in (200, 404)


def _write_role_configuration(
    role: Path, folder: Path, port: int, upstream: str, variables: Mapping[str, Any]
) -> None:
    """Write nginx's configuration from a checkout's role, with its defaults and the ports of this run."""
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
            nginx_tls_curves=["X25519"],  # OpenSSL before 3.5 does not have the first of the defaults
            **variables,
        )
        for old, new in REPLACEMENTS.items():
            text = text.replace(old, new.replace("{folder}", str(folder)))
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
    """Start a design, and stop it afterwards. All use the same uvicorn settings, so only the design differs.

    `source` is the checkout whose `app` serves; its event loop is watched (`Stack.longest_step`).
    With `role` (variables on top of the role's defaults) nginx is configured by that checkout's role, limits
    included, and reaches the api as it does there: by a unix socket or by the port that Docker publishes.
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
                # It reports to the daemon on descriptor 3; without one it would close another descriptor.
                *("sh", "-c", 'exec docker-proxy "$@" 3>/dev/null', "-", "-proto", "tcp"),
                *("-host-ip", "127.0.0.1", "-host-port", str(published)),
                *("-container-ip", "127.0.0.1", "-container-port", str(site.port)),
                log=folder / "proxy.log",
            )  # fmt: skip
        _write_role_configuration(source / "roles/nginx", folder, port, upstream, role)
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
