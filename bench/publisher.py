"""Publish 1,000 events a second for SECONDS. Arguments: a Redis URL, its password file, and the users.

A separate process, which the clients' interpreter does not delay. Each event carries its sending time.
"""

import sys
import time
from pathlib import Path

import redis

from app.events import PUBLISH, channel, dump, stream
from app.redis_password import from_url

SECONDS = 5
TICK = 0.01  # seconds
EVENTS = 10  # in each tick, to as many users


def main() -> None:
    """Entry point."""
    url, password_file, *users = sys.argv[1:]
    client = redis.Redis.from_url(**from_url(url, Path(password_file)), client_name="test")
    append = client.register_script(PUBLISH)
    due = time.monotonic()
    for tick in range(int(SECONDS / TICK)):
        with client.pipeline(transaction=False) as pipe:
            for number in range(tick * EVENTS, (tick + 1) * EVENTS):
                user = users[number % len(users)]
                event = {"type": "cv_progress", "time": "now", "sent": time.monotonic()}
                append(keys=[stream(user)], args=[channel(user), dump(event)], client=pipe)
            pipe.execute()
        due += TICK
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main()
