"""The server itself: clock, services, processes, ports, disks, firewall."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

from .document import Missing, last_lines
from .gather import Deadline, run

try:
    import psutil
except ImportError:
    psutil = None

# Commands that start or stop containers of the stack.
DEPLOYING = re.compile(r"docker(-| )compose\b.*\b(up|restart|create|pull|build|stop|down|rm|start)\b")
NGINX_WORKER = "nginx: worker process"  # the title that nginx gives its workers


def clock(control_time: float) -> dict[str, float]:
    """Return the server's time, and the control node's at the start of the run, in Unix seconds."""
    return {"server": time.time(), "control": control_time}


def services(deadline: Deadline) -> dict[str, dict[str, Any]]:
    """Return the state of the services nginx and docker, as systemd reports it."""
    found = {}
    for name in ("nginx", "docker"):
        shown = run(
            ["systemctl", "show", name, "--property=LoadState,ActiveState,SubState,Result,NRestarts"],
            deadline,
        ).stdout
        values = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        found[name] = {
            "installed": values.get("LoadState") == "loaded",
            "active": values.get("ActiveState", "unknown"),
            "result": values.get("Result", ""),
        }
    return found


def require_psutil() -> None:
    """Raise Missing where psutil is not installed."""
    if psutil is None:
        raise Missing(
            "psutil is not installed on the server (Debian's python3-psutil): "
            "ansible-playbook playbooks/origin.yml --tags site_check installs it."
        )


def processes() -> list[tuple[psutil.Process, list[str]]]:
    """Return all processes, each with the words of its command line; raises Missing."""
    require_psutil()
    return [(process, process.info["cmdline"] or [""]) for process in psutil.process_iter(["cmdline"])]


def is_nginx_worker(words: list[str]) -> bool:
    """Return whether a command line is the title of an nginx worker; psutil splits titles at spaces."""
    return " ".join(words).startswith(NGINX_WORKER)


def listening() -> list[str]:
    """Return each TCP socket that listens, as address:port; raises Missing."""
    require_psutil()
    found = {
        f"[{at.ip}]:{at.port}" if ":" in at.ip else f"{at.ip}:{at.port}"
        for at in (each.laddr for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN)
    }
    return sorted(found)


def deploying() -> list[str]:
    """Return the command lines that are changing the stack at this moment; raises Missing."""
    lines = (" ".join(words) for _, words in processes())
    return sorted({line[:120] for line in lines if DEPLOYING.search(line)})


def disk() -> list[dict[str, Any]]:
    """Return size, free space (bytes) and share of free inodes of each file system that is written to."""
    found: dict[int, dict[str, Any]] = {}
    for path in ("/", "/var/lib/docker", "/var/log/nginx", "/tmp"):  # noqa: S108
        try:
            usage, device = os.statvfs(path), os.stat(path).st_dev  # noqa: PTH116
        except OSError:
            continue
        found.setdefault(
            device,
            {
                "path": path,
                "size": usage.f_blocks * usage.f_frsize,
                "free": usage.f_bavail * usage.f_frsize,
                "inodes_free": usage.f_favail / usage.f_files if usage.f_files else 1.0,
            },
        )
    return list(found.values())


def open_files() -> dict[str, dict[str, int]]:
    """Return the open files and their limit, of nginx's fullest worker and of the api; raises Missing."""
    found: dict[str, dict[str, int]] = {}
    for process, words in processes():
        if is_nginx_worker(words):
            name = "nginx"
        # The command line of the api's init process contains the api's own.
        elif any(word.startswith("app.main") for word in words) and "init" not in words[0]:
            name = "api"
        else:
            continue
        try:
            now = {"open": process.num_fds(), "limit": _files_limit(process.pid)}
        except (psutil.Error, OSError):
            continue  # it has ended in the meantime
        found[name] = max(found.get(name, now), now, key=lambda item: item["open"] / item["limit"])
    return found


def _files_limit(pid: int) -> int:
    """Return a process's limit of open files; raises OSError.

    By hand: psutil's rlimit() is prlimit(2), which needs CAP_SYS_RESOURCE for another user's process.
    """
    limits = Path(f"/proc/{pid}/limits").read_text()
    return int(re.findall(r"Max open files\s+(\d+)", limits)[0])


def firewall(deadline: Deadline) -> dict[str, Any]:
    """Return the kernel's rule set; raises Missing."""
    shown = run(["nft", "--json", "list", "ruleset"], deadline)
    if shown.returncode:
        raise Missing(f"nft can't list the rules: {' '.join(last_lines(shown.stderr))}")
    return {"nftables": json.loads(shown.stdout).get("nftables", [])}


def limits(deadline: Deadline) -> dict[str, bool]:
    """Return which limits of containers the kernel enforces; Docker drops the others. Raises Missing."""
    shown = run(["docker", "info", "--format", "{{json .}}"], deadline)
    try:
        info = json.loads(shown.stdout)
        return {"memory": info["MemoryLimit"], "pids": info["PidsLimit"]}
    except (ValueError, KeyError):
        raise Missing(f"Docker returned an error: {' '.join(last_lines(shown.stderr))}") from None


def reboot() -> dict[str, Any]:
    """Return whether packages require a reboot and which, the running kernel and the newest installed one.

    `newest` is empty where the running kernel is not among the installed ones, as in a container.
    """
    packages = Path("/run/reboot-required.pkgs")
    required = packages.with_suffix("").exists()
    kernels = [file.name.removeprefix("vmlinuz-") for file in Path("/boot").glob("vmlinuz-*")]
    running = os.uname().release
    return {
        "required": required,
        "packages": sorted(set(packages.read_text().split())) if packages.exists() else [],
        "running": running,
        "newest": max(kernels, key=_version) if running in kernels else "",
    }


def _version(kernel: str) -> list[tuple[int, str]]:
    """Return a kernel's release as a sort key: 6.12.9 before 6.12.10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", kernel)]


def addresses(deadline: Deadline) -> list[str]:
    """Return the server's own addresses, without loopback and link-local ones; raises Missing."""
    shown = json.loads(run(["ip", "-json", "address", "show", "scope", "global"], deadline).stdout or "[]")
    return [each["local"] for link in shown for each in link.get("addr_info", []) if "local" in each]
