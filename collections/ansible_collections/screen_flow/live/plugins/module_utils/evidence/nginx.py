"""nginx on the server: its configuration, what it has loaded, its log, and the upstream that it passes to."""

from __future__ import annotations

import datetime
import http.client
import re
import socket
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from . import nginx_config, running
from .document import Missing, last_lines
from .gather import Deadline, Once, gather, run
from .host import open_files

CONFIGURATION = Path("/etc/nginx/nginx.conf")
ERROR_LOG = Path("/var/log/nginx/error.log")
LOG_TAIL = 64 << 10  # bytes of the error log that are read for its last lines
REFUSALS_TAIL = 4 << 20  # bytes of the error log that are read for refusals
HOUR = 3600
# Messages of nginx 1.22 to 1.26 for a request that it refuses, and how status names the reason.
REFUSALS = (
    (re.compile(r'limiting requests.* by zone "(\w+)"'), "{} (429)"),
    (re.compile(r'limiting connections by zone "(\w+)"'), "{} (429)"),
    (re.compile(r"worker_connections are not enough"), "no free connection of nginx"),
    (re.compile(r"Too many open files"), "no free file of nginx"),
    (re.compile(r"connect\(\) to \S+ failed \(\d+: ([^)]+)\)"), "api not reached: {} (502)"),
    (re.compile(r"upstream timed out"), "api not in time (504)"),
)


@dataclass(frozen=True)
class Configuration:
    """nginx's configuration on disk: its settings (see nginx_config.describe), and its files."""

    settings: dict[str, Any]
    files: list[Path]


def read_configuration(server_name: str, websocket_path: str) -> Configuration:
    """Return the configuration on disk; raises Missing."""
    try:
        main, files = nginx_config.read(CONFIGURATION)
    except OSError as error:
        raise Missing(f"{error.filename or CONFIGURATION} can't be read: {error.strerror}.") from error
    except ValueError as error:
        raise Missing(f"nginx's configuration can't be read: {error}.") from error
    return Configuration(nginx_config.describe(main, server_name, websocket_path), files)


def test(deadline: Deadline) -> dict[str, Any]:
    """Return whether the configuration on disk passes nginx's own test, and the error when it does not."""
    # -q: no output on success; -e: the test must not write into the site's own log.
    tested = run(["nginx", "-t", "-q", "-e", "stderr"], deadline)
    # nginx 1.22 to 1.26: "nginx: [emerg] MESSAGE in FILE:LINE".
    fatal = re.search(r"\[emerg\] (.*)", tested.stderr)
    error = "" if tested.returncode == 0 else fatal[1] if fatal else " ".join(last_lines(tested.stderr))
    return {"ok": tested.returncode == 0, "error": error}


def loaded(deadline: Deadline) -> dict[str, Any]:
    """Return when nginx last read its configuration, and the files changed since; raises Missing."""
    workers = running.nginx_workers(running.main_process("nginx", deadline))
    started = [moment for worker in workers if (moment := running.started(worker)) is not None]
    if not started:
        return {"workers": 0, "loaded": None, "changed": [], "newest": None, "refusal": ""}
    changed = running.changed_since(min(started), running.nginx_files(CONFIGURATION))
    return {
        "workers": len(started),
        "loaded": min(started),
        "changed": sorted(changed),
        "newest": max(changed.values(), default=None),
        "refusal": running.refusal(ERROR_LOG, min(changed.values())) if changed else "",
    }


def files(configuration: Once[Configuration]) -> dict[str, dict[str, int]]:
    """Return open files and their limit: of the api and of nginx's fullest worker, or its connections'."""
    found = open_files()
    if "nginx" in found:
        try:
            connections = configuration().settings["worker_connections"]
        except Missing:
            return found
        found["nginx"]["limit"] = min(found["nginx"]["limit"], connections)
    return found


def _tail(length: int) -> str:
    """Return the last `length` bytes of the error log as text; raises Missing."""
    try:
        with ERROR_LOG.open("rb") as opened:
            opened.seek(max(0, ERROR_LOG.stat().st_size - length))
            return opened.read().decode(errors="replace")
    except OSError as error:
        raise Missing(f"{ERROR_LOG} can't be read: {error.strerror}.") from error


def log() -> dict[str, Any]:
    """Return the error log's last lines, redacted, and the seconds since its last change; raises Missing."""
    return {"lines": last_lines(_tail(LOG_TAIL)), "age": time.time() - ERROR_LOG.stat().st_mtime}


def refused() -> dict[str, int]:
    """Return how many requests nginx refused within the last hour, by reason; raises Missing."""
    return count_refusals(_tail(REFUSALS_TAIL).splitlines(), datetime.datetime.now().astimezone())


def count_refusals(lines: list[str], now: datetime.datetime) -> dict[str, int]:
    """Return the refusals of the hour before `now` by reason, most frequent first; nginx logs local time."""
    found: Counter[str] = Counter()
    for line in lines:
        try:
            moment = datetime.datetime.strptime(line[:19], "%Y/%m/%d %H:%M:%S").astimezone()
        except ValueError:
            continue  # the rest of a line that was cut
        if (now - moment).total_seconds() > HOUR:
            continue
        for pattern, reason in REFUSALS:
            if seen := pattern.search(line):
                found[reason.format(*seen.groups())] += 1
                break
    return dict(found.most_common())


def upstream(configuration: Once[Configuration], timeout: float) -> list[dict[str, Any]]:
    """Return each address that nginx passes sockets to, and the status or error of /healthz there."""
    settings = configuration().settings
    location = settings["websocket_location"] or settings["root_location"]
    if not location or not location["proxy_pass"]:
        raise Missing("nginx's configuration does not pass sockets to any server.")
    name = urlsplit(location["proxy_pass"]).netloc
    servers = settings["upstreams"].get(name, [name])
    found = gather({server: partial(healthz, server, timeout) for server in servers}, Deadline(timeout))
    return [
        {"server": server, **datum.get("value", {"status": None, "error": datum.get("missing", "")})}
        for server, datum in found.items()
    ]


def healthz(server: str, timeout: float) -> dict[str, Any]:
    """Return the status of GET /healthz at an upstream server, `unix:PATH` or `host:port`, or the error."""
    path = server.removeprefix("unix:")
    client = http.client.HTTPConnection("localhost" if path != server else server, timeout=timeout)
    try:
        if path != server:
            client.sock = socket.socket(socket.AF_UNIX)
            client.sock.settimeout(timeout)
            client.sock.connect(path)
        client.request("GET", "/healthz")
        return {"status": client.getresponse().status, "error": ""}
    except (OSError, http.client.HTTPException) as error:
        message = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return {"status": None, "error": message}
    finally:
        client.close()
