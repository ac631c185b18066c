"""An extractor whose parser was taken over: it tries what the CV lists, and reports the outcomes as its text.

The CV is a JSON list of [attempt, argument…]. What succeeds does no harm to others.
"""

import ctypes
import json
import os
import runpy
import socket
from pathlib import Path

from app.extract import confined


def unix(path):
    socket.socket(socket.AF_UNIX).connect(path)


def listen(path):
    socket.socket(socket.AF_UNIX).bind(path)


def write(path):
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT))


def fork():
    if os.fork() == 0:
        os._exit(0)


def trace(pid):
    """Attach to a process and let it go (PTRACE_ATTACH, PTRACE_DETACH)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(16, pid, None, None):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    os.waitpid(pid, 0)
    libc.ptrace(17, pid, None, None)


def flood():
    while True:
        os.write(1, b"x" * 65_536)


ATTEMPTS = {
    "read": lambda path: Path(path).read_bytes(),
    "list": os.listdir,
    "connect": lambda host, port: socket.create_connection((host, port), 3),
    "unix": unix,
    "listen": listen,
    "write": write,
    "change": lambda path: Path(path).chmod(0o600),
    "remove": lambda path: Path(path).unlink(),
    "fork": fork,
    "run": lambda path: os.posix_spawn(path, [path], {}),
    "signal": lambda pid: os.kill(pid, 0),
    "trace": trace,
    "flood": flood,
}


def extract(kind, file):
    outcomes = []
    for name, *arguments in json.load(file):
        try:
            ATTEMPTS[name](*arguments)
        except OSError as error:
            outcome = f"refused: {error.strerror}"
        else:
            outcome = "done"
        outcomes.append(" ".join(map(str, [name, *arguments, outcome])))
    return "\n".join(outcomes)


confined.extract = extract
runpy.run_module("app.extract", run_name="__main__")
