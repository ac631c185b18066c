"""Child processes, free ports and polling, for every suite that starts servers."""

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import uvicorn

REPOSITORY = Path(__file__).parents[2]
T = TypeVar("T")


def remote_script(name: str) -> str:
    """Return one of the programs in tests/kit/remote, which run on the server under test by `python3 -c`."""
    return (Path(__file__).parent / f"remote/{name}.py").read_text()


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(what: str, probe: Callable[[], T], seconds: float = 20, interval: float = 0.02) -> T:
    """Poll `probe` and return its first true result.

    `seconds` is the time limit, `interval` the pause between two polls. Raises AssertionError at the limit.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := probe():
            return result
        time.sleep(interval)
    raise AssertionError(f"timed out after {seconds} s: {what}")


@contextlib.contextmanager
def serve(app: Any, **options: Any) -> Iterator[int]:
    """Serve an ASGI application in a thread on a free port of 127.0.0.1; yield the port.

    `options` are uvicorn's, as in `ssl_certfile`. Open connections are dropped at the end.
    """
    options = {"lifespan": "off", "log_config": None, "proxy_headers": False} | options
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, **options))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        server.should_exit = server.force_exit = True
        thread.join()


class Process:
    """A child process that can be started, ended and started again."""

    def __init__(
        self, *arguments: str, log: Path, env: dict[str, str] | None = None, cwd: Path = REPOSITORY
    ) -> None:
        self.arguments = arguments
        self.cwd = cwd
        self.log_file = log
        self.env = env
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log_file.open("ab") as log:
            self.child = subprocess.Popen(
                # Ends with this process, even when it is killed.
                ("setpriv", "--pdeathsig", "TERM", "--", *self.arguments),
                stdout=log,
                stderr=log,
                env=self.env,
                cwd=self.cwd,
                start_new_session=True,
            )

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Signal the child, with SIGKILL its process group, and wait for it; return its exit status."""
        assert self.child
        if how == signal.SIGKILL:
            os.killpg(self.child.pid, how)
        else:
            self.child.send_signal(how)
        return self.child.wait(30)

    def close(self) -> None:
        if self.child and self.child.poll() is None:
            self.end(signal.SIGKILL)

    def log(self) -> str:
        return self.log_file.read_text()
