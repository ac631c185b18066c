"""The containers' health check: `python -m app.healthcheck api|worker|extractor` exits with 0 if healthy."""

import http.client
import os
import socket
import sys


def api() -> str | None:
    """Return what is wrong with the api, or None. Connects as the proxy does: to the unix socket, if any."""
    path = os.environ.get("APP_SOCKET")
    try:
        connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=4)
        if path:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(4)
            connection.sock.connect(path)
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        return None if response.status == 200 else response.read(1000).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__


def worker() -> str | None:
    """Return what is wrong with the worker processes, or None. Each must have polled Redis recently."""
    import tempfile
    import time
    from pathlib import Path

    from redis import Redis
    from redis.exceptions import RedisError

    from app.redis_password import from_url

    names = [path.name for path in (Path(tempfile.gettempdir()) / "screen-flow-worker").glob("*")]
    if not names:
        return "no worker process has started"
    password = os.environ.get("APP_REDIS_PASSWORD_FILE")
    try:
        with Redis.from_url(
            **from_url(os.environ["APP_REDIS_URL"], Path(password) if password else None), socket_timeout=4
        ) as redis:
            seen = [redis.execute_command("ZSCORE", "dramatiq:__heartbeats__", name) for name in names]
    except RedisError as error:
        return str(error)
    oldest = (time.time() - 10) * 1000
    silent = sum(stamp is None or float(stamp) < oldest for stamp in seen)
    return f"{silent} of {len(names)} worker processes do not poll Redis" if silent else None


def extractor() -> str | None:
    """Return what is wrong with the extractor, or None. It has to read a CV."""
    import tempfile
    from pathlib import Path

    from app.extract import SOCKET, Refused, Unavailable, client

    with tempfile.NamedTemporaryFile() as cv:
        cv.write(b"healthy")
        cv.flush()
        try:
            text, _ = client.text(Path(os.environ.get("APP_EXTRACTOR_SOCKET", SOCKET)), "text", Path(cv.name))
        except (Refused, Unavailable, RuntimeError) as error:
            return str(error)
    return None if text == "healthy\n" else f"it read {text!r}"


if __name__ == "__main__":
    checks = {"api": api, "worker": worker, "extractor": extractor}
    if len(sys.argv) != 2 or sys.argv[1] not in checks:
        sys.exit(f"usage: python -m app.healthcheck {'|'.join(checks)}")
    sys.exit(checks[sys.argv[1]]())
