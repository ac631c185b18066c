"""Molecule's server under test: programs that run on it, requests from inside it, and its reboot."""

import contextlib
import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from typing import Any

from testinfra.backend.base import CommandResult
from testinfra.host import Host

from tests.kit.process import remote_script

NAME = "screen-flow.localhost"
ALIAS = f"www.{NAME}"  # site_aliases of inventories/demo
# The port is Molecule's default where no scenario runs and the tests are only collected.
SITE = f"https://{NAME}:{os.environ.get('TESTBED_PORT_HTTPS', '9443')}"
SOCKET = "/api/v1/cv-processing/ws/ada"
HANDSHAKE = {"Upgrade": "websocket", "Connection": "Upgrade", "Origin": SITE}


@contextlib.contextmanager
def running(host: Host, script: str, ready: str) -> Iterator[None]:
    """Run a program of tests/kit/remote on the server, from when the shell command `ready` succeeds."""
    host.run_expect([0], f"systemd-run --unit={script} python3 -c %s", remote_script(script))
    try:
        host.run_expect([0], f"timeout 10 sh -c 'until {ready}; do sleep 0.1; done'")
        yield
    finally:
        host.run_expect([0], f"systemctl stop {script}")


def restart_server(host: Host) -> None:
    """Reboot the server and wait until its systemd has started everything."""
    server = f"{os.environ['TESTBED_NAME']}-origin"
    subprocess.run(["docker", "restart", server], check=True, capture_output=True)
    host.run_expect([0], "timeout 60 sh -c 'until systemctl is-system-running --wait; do sleep 1; done'")


class LocalClient:
    """Sends requests to nginx from inside the server, with any name, source address and client certificate.

    Options of all methods: `to` and `source` (addresses), `name` (of TLS), `size` (bytes of body: a POST),
    `times` and `certificate` (file of certificate and key).
    """

    def __init__(self, host: Host) -> None:
        self._host = host

    def run(
        self, port: int, path: str = "/", headers: dict[str, str] | None = None, **options: Any
    ) -> CommandResult:
        """Send a request; return the finished process, which fails where no response comes."""
        request = {
            "port": port,
            "path": path,
            "headers": {"Host": NAME, **(headers or {})},
            "name": NAME,
            "size": 0,
            "to": "127.0.0.1",
            "source": "127.0.0.1",
            "times": 1,
            "certificate": None,
        }
        return self._host.run("python3 -c %s %s", remote_script("request"), json.dumps(request | options))

    def _responses(self, *arguments: Any, **options: Any) -> Any:
        process = self.run(*arguments, **options)
        assert process.rc == 0, process.stderr
        return json.loads(process.stdout)

    def request(self, *arguments: Any, **options: Any) -> tuple[int, dict[str, str], str]:
        """Send a request; return the last response's (status, headers, body)."""
        status, headers, body = self._responses(*arguments, **options)[0]
        return status, headers, body

    def status(self, *arguments: Any, **options: Any) -> int:
        """Send a request; return the last response's status."""
        return self.request(*arguments, **options)[0]

    def statuses(self, *arguments: Any, **options: Any) -> Counter[int]:
        """Send a request many times; return how often each status came."""
        return Counter(self._responses(*arguments, **options)[1])

    def forwarded(self, *arguments: Any, **options: Any) -> dict[str, str]:
        """Send a request to the echoing upstream; return the headers with which nginx forwarded it."""
        status, _, body = self.request(*arguments, **options)
        assert status == 200, body
        return dict(json.loads(body))
