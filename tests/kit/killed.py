"""Runs of site.yml that are killed, and what a visitor notices of them through the edge."""

from __future__ import annotations

import contextlib
import os
import signal
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.kit.playbook import Run, run_playbook
from tests.kit.process import REPOSITORY

INTERVAL = 0.2  # seconds between two probes
# Another value in each part of the origin that is loaded by a handler, a swap or a switch; no container that
# holds sockets changes.
OTHER: dict[str, Any] = {
    "docker_engine_log_max_file": 7,
    "app_stack_worker_megabytes": 1024,
    "origin_firewall_further_ports": [{"port": 9100, "ranges": ["192.0.2.0/24"]}],
    "site_origin_pulls": False,
    "nginx_client_max_body_size": "49M",
    "host_security_journal_days": 13,
}


def kill_run(
    at: str | int,
    when: str | float,
    *options: str,
    playbook: str = "site.yml",
    log: Path | None = None,
    **variables: Any,
) -> Run:
    """Run a playbook until it is killed: at a task, by number or name, at its "end" or seconds into it.

    `options` are ansible-playbook's, such as --tags; `log` is a file for the names of the started tasks.

    A run that ends before that point is returned like one that was killed; its status tells them apart.
    """
    environment = {
        "ANSIBLE_CALLBACK_PLUGINS": str(REPOSITORY / "tests/kit/callback"),
        "ANSIBLE_CALLBACKS_ENABLED": "kill_run",
        "KILL_RUN_AT": str(at),
        "KILL_RUN_WHEN": str(when),
        "KILL_RUN_LOG": str(log or ""),
    }
    return run_playbook(playbook, *options, environment=environment, new_group=True, timeout=600, **variables)


def was_killed(run: Run) -> bool:
    """Return whether a run ended by SIGKILL."""
    return run.returncode == -signal.SIGKILL


class Visitor:
    """Requests the api through the edge every 200 ms, and counts the answers other than 200."""

    def __init__(self) -> None:
        self.requests = 0
        self.failures: Counter[int | str] = Counter()
        self.longest_outage = 0.0
        self.is_served = True  # at the last request
        self._end = threading.Event()

    def _visit(self) -> None:
        url, tls = os.environ["SITE_URL"], ssl.create_default_context(cafile=os.environ["EDGE_CA_FILE"])
        down_since: float | None = None
        with httpx.Client(base_url=url, verify=tls, timeout=10) as http:
            while not self._end.wait(INTERVAL):
                self.requests += 1
                asked = time.monotonic()
                try:
                    status: int | str = http.get("/healthz").status_code
                except httpx.TransportError as error:
                    status = type(error).__name__
                self.is_served = status == 200
                if self.is_served:
                    down_since = None
                    continue
                self.failures[status] += 1
                down_since = down_since or asked
                self.longest_outage = max(self.longest_outage, time.monotonic() - down_since)

    @contextlib.contextmanager
    def visiting(self) -> Iterator[None]:
        """Visit the site during the block."""
        thread = threading.Thread(target=self._visit)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()
