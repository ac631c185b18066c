"""The canary: one event for the probe's own user, published as the backend publishes its events."""

from __future__ import annotations

import datetime
import json
from typing import Any

from .document import last_lines
from .gather import Deadline, run

# Runs in the worker's container with the backend's own code, URL and password. Prints a JSON object: channel,
# redis_code and error. redis-py 8 keeps the code of an error reply in status_code, or in front of the
# message; the code is the reply's first word, in capitals (RESP, "Simple errors").
SCRIPT = """
import json, os, sys
from pathlib import Path
import redis
from app.events import PUBLISH, channel, stream
from app.redis_password import from_url
user, event = sys.argv[1:]
password = os.environ.get("APP_REDIS_PASSWORD_FILE")
client = redis.Redis.from_url(
    **from_url(os.environ["APP_REDIS_URL"], Path(password) if password else None),
    socket_timeout=3, socket_connect_timeout=3,
)
found = {"channel": channel(user), "redis_code": None, "error": ""}
try:
    client.eval(PUBLISH, 1, stream(user), channel(user), event)
except redis.RedisError as error:
    code = getattr(error, "status_code", None) or str(error).partition(" ")[0]
    if isinstance(error, redis.AuthenticationError):
        code = "WRONGPASS"
    found = {"channel": "", "redis_code": code if code.isupper() else None,
             "error": f"{type(error).__name__}: {error}"}
print(json.dumps(found))
"""


def publish(worker: str, user_id: str, nonce: str, deadline: Deadline) -> dict[str, Any]:
    """Publish a canary with this nonce from the worker's container (an id).

    Returns the `channel` that it was published on; or why not, as `error` (a sentence) and `redis_code` (the
    code of Redis's error reply, such as OOM, where it is the cause). Raises Missing.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    event = json.dumps({"type": "canary", "time": now, "nonce": nonce}, separators=(",", ":"))
    command = ["docker", "exec", worker, "python", "-c", SCRIPT, user_id, event]
    done = run(command, deadline, at_most=deadline.seconds)
    if done.returncode:
        return {"channel": "", "redis_code": None, "error": " ".join(last_lines(done.stderr)[-1:])}
    found: dict[str, Any] = json.loads(done.stdout)
    return found | {"error": " ".join(last_lines(found["error"]))}
