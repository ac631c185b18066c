"""The extractor's client, in the worker."""

import logging
import socket
from pathlib import Path

from app.extract import READING, REFUSED, TEXT_LIMIT, TIMEOUT, TOO_MUCH, Refused, Unavailable

ACCEPT_TIMEOUT = 10  # seconds until the extractor begins to read
ATTEMPTS = 3  # extractors that may be lost while they read a CV, before the CV is held to be at fault
MESSAGE_LIMIT = 500  # characters

logger = logging.getLogger(__name__)


def _exchange(address: Path, kind: str, path: Path) -> tuple[int, float, str] | None:
    """Return exit status, processor seconds and output; None if the extractor was lost while it read.

    Raises Unavailable, and FileNotFoundError for a CV that does not exist.
    """
    with path.open("rb") as file, socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.settimeout(ACCEPT_TIMEOUT)
            connection.connect(str(address))
            socket.send_fds(connection, [kind.encode()], [file.fileno()])
            accepted = connection.recv(1) == READING
        except OSError as error:
            raise Unavailable(f"the extractor does not answer: {error.strerror or error}") from error
        if not accepted:
            raise Unavailable("the extractor closed the connection")
        try:
            # Its own limit ends the process first.
            connection.settimeout(TIMEOUT + ACCEPT_TIMEOUT)
            with connection.makefile("rb") as reply:
                status, seconds, length = reply.readline().split()
                output = reply.read()
        except (OSError, ValueError):
            return None
        if len(output) != int(length):
            return None
        return int(status), float(seconds), output.decode("utf-8", "replace")


def text(address: Path, kind: str, path: Path) -> tuple[str, float]:
    """Return the text of a CV, and the seconds of processor time that reading it took.

    `address` is the extractor's socket. Raises Refused, Unavailable, and RuntimeError for an error of the
    extractor.
    """
    for _ in range(ATTEMPTS):
        try:
            answer = _exchange(address, kind, path)
        except FileNotFoundError:
            raise Refused("The uploaded file is no longer on the server. Upload it again.") from None
        if answer:
            break
        logger.warning("The extractor was lost while it read %s", path.name)
    else:
        raise Refused(TOO_MUCH)
    status, seconds, output = answer
    if status == 0:
        return output[:TEXT_LIMIT], seconds
    message, _, reason = output.partition("\n")
    logger.info("The extractor's process exited with %s: %s", status, reason[:MESSAGE_LIMIT])
    if status == REFUSED:
        raise Refused(message[:MESSAGE_LIMIT], seconds)
    if status < 0:  # by a signal: out of time, or a crashed parser
        raise Refused(TOO_MUCH, seconds)
    raise RuntimeError(f"the extractor's process exited with status {status}")
