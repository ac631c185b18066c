"""Publishes numbered events for a user: USER EVENTS PER_SECOND. Runs in a container with the app's code.

It exits after so many events, or when its input is closed.
"""

import json
import select
import sys
import time

from redis.exceptions import RedisError

from app.batches import now
from app.events import PUBLISH, channel, stream
from app.worker import broker

user, events, per_second = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
began = time.monotonic()
number = 0
while number < events:
    body = json.dumps({"type": "note", "time": now(), "number": number}, separators=(",", ":"))
    try:
        broker.client.eval(PUBLISH, 1, stream(user), channel(user), body)
    except RedisError:
        # Redis is restarting. The event may have been stored; then the stream has it twice, and both count.
        time.sleep(0.05)
        continue
    number += 1
    if number == 1:
        print("publishing", flush=True)
    if select.select([sys.stdin], [], [], max(0.0, began + number / per_second - time.monotonic()))[0]:
        break
