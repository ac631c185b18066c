"""Faults of the server itself."""

from __future__ import annotations

from ..engine import Evidence, rule

CLOCK_SLACK = 60  # seconds: sessions and certificates tolerate less than this
FULL = 0.02  # share of a file system's space or inodes; with less free it counts as full
FEW_FILES = 0.95  # share of the limit of open files


@rule("server_is_full", "Free disk space: journalctl --vacuum-size=200M, docker system prune, old logs.")
def disk_full(e: Evidence) -> str | None:
    """A file system that the site writes to has no space left: logs, uploads and Redis's file fail there."""
    for disk in e["server.disk"] or []:
        if disk["size"] and disk["free"] / disk["size"] < FULL:
            return f"the file system of {disk['path']} is full: {disk['free'] // 2**20} MiB are free."
        if disk["inodes_free"] < FULL:
            return f"the file system of {disk['path']} has no free inodes."
    return None


@rule(
    "server_is_full",
    "Raise nginx_worker_connections (nginx_worker_rlimit_nofile follows it) or app_stack_api_files and run "
    "site.yml; systemctl restart nginx helps at once.",
)
def out_of_files(e: Evidence) -> str | None:
    """Nginx or the api has reached its limit of open files or connections; each connection is a file."""
    for name, files in (e["server.files"] or {}).items():
        if files["open"] >= FEW_FILES * files["limit"]:
            return f"{name} is out of files or connections: {files['open']} of {files['limit']} are open."
    return None


@rule("clock_is_wrong", "Synchronise the clock: timedatectl set-ntp true, then check timedatectl status.")
def clock_skew(e: Evidence) -> str | None:
    """The server's clock differs from the control node's: sessions and certificates appear expired."""
    server, control = e["server.clock.server"], e["server.clock.control"]
    if server is None or control is None or abs(server - control) <= CLOCK_SLACK:
        return None
    direction = "ahead of" if server > control else "behind"
    return f"the server's clock is {abs(server - control):.0f} s {direction} the control node's."


@rule(
    "site_is_down", "Start it: systemctl start docker. journalctl -u docker has the reason that it stopped."
)
def docker_stopped(e: Evidence) -> str | None:
    """Without Docker Engine no container runs."""
    docker = e["server.services.docker"]
    if not docker or docker["active"] in ("active", "reloading", "activating"):
        return None
    return f"Docker Engine is not running ({docker['active']}, {docker['result']})."
