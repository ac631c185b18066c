"""The extractor's server: see the package. It holds no secret, and forks two processes for each CV.

The second one reads the CV; the first waits for it, and answers with its exit status, the seconds of
processor time that it took, the length of its output, and its output. The server itself reads no CV, so none
can get at the socket or at the next CV.
"""

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path

from app.extract import KINDS, READING, SOCKET, TEXT_LIMIT, TIMEOUT, confined

OUTPUT_LIMIT = 4 * TEXT_LIMIT + 1_000  # bytes
BACKLOG = 1_024


def listen(path: Path) -> socket.socket:
    """Return a socket that every process that sees its directory may connect to."""
    listener = socket.socket(socket.AF_UNIX)
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    listener.bind(str(temporary))
    temporary.chmod(0o666)
    listener.listen(BACKLOG)
    temporary.rename(path)
    return listener


def _read(kind: str, file: int, output: int) -> None:
    """Become the process of one CV."""
    status = 1
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        for number, source in enumerate((file, output, null)):
            os.dup2(source, number)
        # Also the connection, over which this process could answer for the server.
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        status = confined.run(kind)
    finally:
        os._exit(status)


def answer(connection: socket.socket) -> None:
    """Receive the kind and the open file of one CV, have it read, and send the answer. Raises OSError."""
    connection.settimeout(TIMEOUT)
    message, files, _, _ = socket.recv_fds(connection, 16, 1)
    kind = message.decode("ascii", "replace")
    if kind not in KINDS or len(files) != 1:
        return
    source, target = os.pipe()
    connection.sendall(READING)
    child = os.fork()
    if not child:
        _read(kind, files[0], target)
    os.close(target)
    output, end = bytearray(), time.monotonic() + TIMEOUT
    while len(output) < OUTPUT_LIMIT:
        ready, _, _ = select.select([source], [], [], max(0, end - time.monotonic()))
        piece = os.read(source, OUTPUT_LIMIT - len(output)) if ready else b""
        if not piece:
            if not ready:
                os.kill(child, signal.SIGKILL)
            break
        output += piece
    os.close(source)  # one that writes on is ended by the closed pipe
    _, status, usage = os.wait4(child, 0)
    head = f"{os.waitstatus_to_exitcode(status)} {usage.ru_utime + usage.ru_stime:.3f} {len(output)}\n"
    connection.sendall(head.encode() + output)


def main() -> None:
    """Serve until a signal ends this process."""
    path = Path(os.environ.get("APP_EXTRACTOR_SOCKET", SOCKET))
    confined.preload()
    confined.protect()
    gc.freeze()  # or each process would copy what it only looks at
    listener = listen(path)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel removes those that ended
    print(f"Waiting for CVs on {path}", flush=True)
    while True:
        connection, _ = listener.accept()
        if not os.fork():
            try:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listener.close()
                confined.protect()
                with contextlib.suppress(OSError):
                    answer(connection)
            finally:
                os._exit(0)
        connection.close()


if __name__ == "__main__":
    try:
        main()
    except (confined.CannotConfine, OSError) as error:
        sys.exit(f"The extractor can't start: {error}.")
