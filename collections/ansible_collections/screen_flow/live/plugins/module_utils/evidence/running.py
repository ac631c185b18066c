"""Whether a service runs what is on disk: its processes' start compared with its files' last change.

Nothing is stored: a marker file would be wrong after a reboot, a reload by hand or a crash.
"""

from __future__ import annotations

import datetime
import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from . import nginx_config
from .document import redact
from .gather import Deadline, run

NGINX_WORKER = "nginx: worker process"  # the exact title of a worker that is not shutting down
NGINX_FILES = {
    "ssl_certificate",
    "ssl_certificate_key",
    "ssl_client_certificate",
    "ssl_trusted_certificate",
    "ssl_crl",
    "ssl_dhparam",
}  # directives whose files nginx reads once, when it loads its configuration
TOLERANCE = 0.05  # seconds: the kernel counts a process's start in hundredths, a file's change in jiffies
LOG_TAIL = 64 << 10  # bytes
# nginx 1.22 to 1.26: "2026/11/28 05:28:22 [emerg] 9779#9779: MESSAGE".
FATAL = re.compile(r"^(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) \[emerg\] \d+#\d+: (.*)$")


def main_process(unit: str, deadline: Deadline) -> int:
    """Return the process id of a systemd unit's main process, 0 where none runs; raises Missing."""
    shown = run(["systemctl", "show", unit, "--property=MainPID", "--value"], deadline).stdout.strip()
    return int(shown) if shown.isdecimal() else 0


def _status(process: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat that follow the name, or None for a process that has ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def started(process: int) -> float | None:
    """Return when a process started, in Unix seconds, or None for one that has ended.

    By hand: psutil's create_time() counts from a boot time in whole seconds.
    """
    status = _status(process)
    if status is None:
        return None
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return boot + int(status[19]) / os.sysconf("SC_CLK_TCK")


def nginx_workers(main: int) -> list[int]:
    """Return the process ids of nginx's workers that accept connections; `main` is its main process."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        status = _status(int(entry.name))
        if status is None or int(status[1]) != main:
            continue
        try:
            title = (entry / "cmdline").read_text(errors="replace").strip("\0 ")
        except OSError:
            continue
        if title == NGINX_WORKER:
            found.append(int(entry.name))
    return found


def nginx_files(configuration: Path) -> list[Path]:
    """Return the files of nginx's configuration, and the certificates, keys and lists that they name.

    Only `configuration` itself where it can't be read: `nginx -t` reports why.
    """
    try:
        main, files = nginx_config.read(configuration)
    except (OSError, ValueError):
        return [configuration]

    def named(block: list[nginx_config.Directive]) -> Iterator[Path]:
        for directive in block:
            if directive.name in NGINX_FILES and directive.arguments and "$" not in directive.arguments[0]:
                yield configuration.parent / directive.arguments[0]
            yield from named(directive.block)

    return list(dict.fromkeys([*files, *named(main.block)]))


def last_change(path: Path) -> float | None:
    """Return when a file, or what its link points to, last changed, in Unix seconds; None without one."""
    try:
        return max(path.lstat().st_ctime, path.stat().st_ctime)
    except OSError:
        return None


def changed_since(moment: float, files: Iterable[Path]) -> dict[str, float]:
    """Return the files that changed after a process started at `moment`, with the time of the change."""
    times = {str(file): last_change(file) for file in files}
    return {name: time for name, time in times.items() if time is not None and time > moment + TOLERANCE}


def refusal(log: Path, since: float) -> str:
    """Return nginx's last fatal message since a moment, in Unix seconds, redacted; empty without one.

    nginx logs why it refused to reload a configuration that passed `nginx -t`, and reports it nowhere else.
    """
    try:
        with log.open("rb") as opened:
            opened.seek(max(0, log.stat().st_size - LOG_TAIL))
            lines = opened.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        seen = FATAL.match(line)
        if seen:
            logged = datetime.datetime.strptime(seen[1], "%Y/%m/%d %H:%M:%S").astimezone().timestamp()
            return redact(seen[2]) if logged >= int(since) else ""
    return ""
