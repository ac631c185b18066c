"""Answers the container engine: exit code 0 when the api is ready, or when a worker fetches jobs.

`python -m app.healthcheck api|worker`
"""

import os
import sys
import time
import urllib.error
import urllib.request

import redis

WORKER_SILENCE = 30  # seconds since a worker's last sign of life; it gives one with each fetch


def api() -> str:
    """Return what is wrong with the api, or nothing."""
    try:
        with urllib.request.urlopen("http://127.0.0.1:8000/readyz", timeout=4):  # noqa: S310
            return ""
    except (urllib.error.URLError, TimeoutError) as error:
        return f"the api is not ready: {error}"


def worker() -> str:
    """Return what is wrong with the workers, or nothing."""
    url = os.environ.get("APP_REDIS_URL", "redis://127.0.0.1:6379/0")
    client = redis.Redis.from_url(url, socket_timeout=3, socket_connect_timeout=3)
    try:
        seen = client.execute_command("ZREVRANGE", "dramatiq:__heartbeats__", 0, 0, "WITHSCORES")
    except redis.RedisError as error:
        return f"Redis does not answer: {error}"
    # One pair, flat or nested by the protocol's version.
    scores = [part[1] if isinstance(part, (list, tuple)) else part for part in seen]
    silent = time.time() - float(scores[-1]) / 1000 if scores else float("inf")
    return f"no worker fetched jobs for {silent:.0f} s" if silent > WORKER_SILENCE else ""


def main() -> None:
    """Entry point."""
    checks = {"api": api, "worker": worker}
    if len(sys.argv) != 2 or sys.argv[1] not in checks:
        sys.exit("usage: python -m app.healthcheck api|worker")
    sys.exit(checks[sys.argv[1]]() or None)


if __name__ == "__main__":
    main()
